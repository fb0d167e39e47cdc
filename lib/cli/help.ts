/**
 * The text of the help, derived from the commands' declarations, and the command `help`.
 *
 * @module
 */

import { suggestion } from "../memory/nearest_name.ts";
import { type Command, command, flagGroups } from "./command.ts";
import { UsageError } from "./errors.ts";
import { EXIT, EXIT_CODE_TABLE } from "./exit_codes.ts";
import type { Flag } from "./flags.ts";
import { commandsOf } from "./parse.ts";
import type { Printer } from "./printer.ts";

/** Columns of a help text. */
const WIDTH = 100;

/** The help topic that is not a command. */
const EXIT_CODES_TOPIC = "exit-codes";

/** The command `help`. */
export const helpCommand: Command = command({
  name: "help",
  summary: "explain a command, or list them all",
  examples: [
    ["exitbox help", "all commands"],
    ["exitbox help version", "one command; the same as exitbox version --help"],
    ["exitbox help exit-codes", "what the exit codes mean"],
  ],
  operands: { name: "COMMAND", min: 0, max: 2, meaning: "a command, the first word of several, or exit-codes" },
  flags: {},
  run({ operands, commands, printer }) {
    printHelp(operands.join(" "), commands, printer);
    return EXIT.CLEAN;
  },
});

/**
 * Prints the help for a topic: "" for the overview, a command, a group of commands, or the exit codes.
 * Throws {@linkcode UsageError} with the nearest name for anything else.
 */
export function printHelp(topic: string, commands: readonly Command[], printer: Printer): void {
  for (const line of helpLines(topic, commands)) {
    // A title is the only line that starts at the left edge and ends with a colon.
    printer.line(/^\S.*:$/.test(line) ? printer.style("bold", line) : line);
  }
}

/** The lines of the help for a topic, without colour. */
export function helpLines(topic: string, commands: readonly Command[]): string[] {
  if (topic === "") return overview(commands);
  if (topic === EXIT_CODES_TOPIC) return ["Exit codes:", ...definitions(EXIT_CODE_TABLE)];
  const one = commands.find((command) => command.name === topic);
  if (one !== undefined) return commandHelp(one);
  const group = commandsOf(topic, commands);
  if (group.length > 0) return ["Commands:", ...definitions(summaries(group))];
  const known = [...commands.flatMap((command) => [command.name, command.name.split(" ")[0]]), EXIT_CODES_TOPIC];
  throw new UsageError(`No help for "${topic}"${suggestion(topic, known)}`, "");
}

/** The overview: what exitbox is, and every command in one line. */
function overview(commands: readonly Command[]): string[] {
  return [
    "exitbox runs, stops, replays and measures the exits of a virtual machine.",
    "",
    "Usage:",
    "  exitbox COMMAND [flags] [operands]",
    "",
    "Commands:",
    ...definitions(summaries(commands)),
    "",
    'See "exitbox help COMMAND" for one command, "exitbox help exit-codes" for the exit codes.',
  ];
}

/** The help of one command: purpose, examples, usage, operands, flags by group. */
function commandHelp(of: Command): string[] {
  const lines = [`exitbox ${of.name}: ${of.summary}`, "", "Examples:", ...definitions(of.examples), "", "Usage:"];
  lines.push(...wrap(usageWords(of), "  ", "    "));
  if (of.operands !== null) lines.push("", "Operands:", ...definitions([[of.operands.name, of.operands.meaning]]));
  for (const [title, group] of Object.entries(flagGroups(of))) {
    const rows = Object.entries(group).map(([name, flag]) => [flagWord(name, flag), flagMeaning(flag)] as const);
    lines.push("", `${title}:`, ...definitions(rows));
  }
  for (const paragraph of of.details ?? []) lines.push("", ...wrap(paragraph.split(" "), "", ""));
  return lines;
}

/** The words of the usage line, each of which stays on one line. */
function usageWords(of: Command): string[] {
  const words = [`exitbox ${of.name}`];
  if (of.operands !== null) {
    const { name, min, max } = of.operands;
    const shown = max > 1 ? `${name}...` : name;
    words.push(min === 0 ? `[${shown}]` : shown);
  }
  for (const group of Object.values(flagGroups(of))) {
    for (const [name, flag] of Object.entries(group)) {
      words.push(`[${flagWord(name, flag)}]${flag.repeats ? "..." : ""}`);
    }
  }
  return words;
}

/** A flag with what stands for its value. */
function flagWord(name: string, flag: Flag<unknown>): string {
  return flag.placeholder === null ? `--${name}` : `--${name} ${flag.placeholder}`;
}

/** What a flag means, with its default. */
function flagMeaning(flag: Flag<unknown>): string {
  return flag.default === null ? flag.meaning : `${flag.meaning} (default ${flag.default})`;
}

/** Name and summary of each command. */
function summaries(commands: readonly Command[]): (readonly [string, string])[] {
  return commands.map((command) => [command.name, command.summary]);
}

/** Indented lines of two columns: a term and its meaning, wrapped; a long term has its meaning below. */
export function definitions(rows: readonly (readonly [term: string, meaning: string])[]): string[] {
  const TERM_WIDTH_MAX = 40;
  const short = rows.map(([term]) => term.length).filter((length) => length <= TERM_WIDTH_MAX);
  const width = Math.max(0, ...short);
  return rows.flatMap(([term, meaning]) => {
    const indent = " ".repeat(width + 4);
    const fits = term.length <= width;
    const lines = wrap(meaning.split(" "), fits ? `  ${term.padEnd(width)}  ` : indent, indent);
    return fits ? lines : [`  ${term}`, ...lines];
  });
}

/** The words on lines of at most `WIDTH` columns, the first and the following ones indented as given. */
function wrap(words: readonly string[], first: string, following: string): string[] {
  const lines: string[] = [];
  let line = first + (words[0] ?? "");
  for (const word of words.slice(1)) {
    if (line.length + 1 + word.length > WIDTH) {
      lines.push(line);
      line = following + word;
    } else {
      line += ` ${word}`;
    }
  }
  return [...lines, line];
}
