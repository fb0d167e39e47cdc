/**
 * From the words of a command line to a command, its flags' values and its operands; strict: nothing is ignored.
 *
 * @module
 */

import { parseArgs } from "@std/cli/parse-args";
import { suggestion } from "../memory/nearest_name.ts";
import { type Command, flagGroups } from "./command.ts";
import { UsageError } from "./errors.ts";
import type { Flag } from "./flags.ts";

/** What is a value although it begins with a dash: standard input or output, and a negative number. */
const DASHED_VALUE = /^-(?:[0-9].*)?$/;

/** A command and the words that follow its name. */
export interface Found {
  /** The command. */
  readonly command: Command;
  /** The words after it. */
  readonly rest: readonly string[];
}

/** What a command line gives to a command. */
export interface Parsed {
  /** The value of every flag, by name. */
  readonly values: Readonly<Record<string, unknown>>;
  /** The operands. */
  readonly operands: readonly string[];
}

/**
 * Finds the command that the first one or two words name.
 *
 * @param words The command line.
 * @param commands All commands.
 * @returns The command and the other words. Throws {@linkcode UsageError} with the nearest name when there is none.
 */
export function findCommand(words: readonly string[], commands: readonly Command[]): Found {
  const first = words[0] ?? "";
  const one = commands.find((command) => command.name === first);
  if (one !== undefined) return { command: one, rest: words.slice(1) };
  const group = commandsOf(first, commands);
  if (group.length === 0) {
    const known = new Set(commands.map((command) => command.name.split(" ")[0]));
    throw new UsageError(`Unknown command "${first}"${suggestion(first, known)}`, "");
  }
  const second = words[1] ?? "";
  const two = group.find((command) => command.name === `${first} ${second}`);
  if (two !== undefined) return { command: two, rest: words.slice(2) };
  const names = group.map((command) => command.name.slice(first.length + 1));
  if (second === "" || second.startsWith("-")) throw new UsageError(`${first} needs one of ${names.join(", ")}`, first);
  throw new UsageError(`Unknown command "${first} ${second}"${suggestion(second, names)}`, first);
}

/** The commands of two words whose first one is `word`, such as those of `verify`. */
export function commandsOf(word: string, commands: readonly Command[]): readonly Command[] {
  return commands.filter((command) => command.name.startsWith(`${word} `));
}

/** Whether the words ask for help instead of running the command. */
export function asksForHelp(words: readonly string[]): boolean {
  const end = words.indexOf("--");
  return words.slice(0, end < 0 ? words.length : end).some((word) => word === "--help" || word === "-h");
}

/** What `--help` among the words asks about: the command that they name, the group of commands, or "" for all. */
export function helpTopic(words: readonly string[], commands: readonly Command[]): string {
  const flag = words.findIndex((word) => word.startsWith("-"));
  const [first = "", second = ""] = words.slice(0, flag < 0 ? words.length : flag);
  return commands.some((command) => command.name === `${first} ${second}`) ? `${first} ${second}` : first;
}

/**
 * Parses the words after a command's name.
 *
 * @param command The command.
 * @param words What follows its name.
 * @returns The flags' values and the operands. Throws {@linkcode UsageError} for an unknown flag (with the nearest
 * name), a missing, superfluous or repeated value and a wrong number of operands, and `BadInput` for a malformed value.
 */
export function parseCommandLine(command: Command, words: readonly string[]): Parsed {
  const flags = new Map(Object.values(flagGroups(command)).flatMap((group) => Object.entries(group)));
  const { occurrences, operands } = split(command, words, flags);
  const values: Record<string, unknown> = {};
  for (const [name, flag] of flags) {
    const texts = occurrences.get(name) ?? [];
    values[name] = flag.parse(texts.length === 0 && flag.default !== null ? [flag.default] : texts, `--${name}`);
  }
  checkOperands(command, operands);
  return { values, operands };
}

/** Sorts the words into the occurrences of each flag and the operands. */
function split(
  command: Command,
  words: readonly string[],
  flags: ReadonlyMap<string, Flag<unknown>>,
): { occurrences: ReadonlyMap<string, readonly string[]>; operands: readonly string[] } {
  const unknown = (word: string, name?: string) => {
    if (name === undefined) return true;
    const shown = word.split("=")[0];
    const known = [...flags.keys()].map((flag) => `--${flag}`);
    throw new UsageError(`Unknown flag "${shown}"${suggestion(shown, known)}`, command.name);
  };
  const names = [...flags.keys()];
  const parsed = parseArgs(joined(command, words, flags), {
    string: ["_", ...names],
    collect: names,
    unknown,
  }) as Record<string, unknown> & { _: (string | number)[] };
  const occurrences = new Map<string, readonly string[]>();
  for (const [name, flag] of flags) {
    const texts = (parsed[name] as string[]).map(String);
    if (texts.length > 1 && flag.placeholder !== null && !flag.repeats) {
      throw new UsageError(`--${name} is given ${texts.length} times`, command.name);
    }
    if (texts.includes("")) throw new UsageError(`--${name} needs a value, ${flag.placeholder}`, command.name);
    occurrences.set(name, texts);
  }
  return { occurrences, operands: parsed._.map(String) };
}

/**
 * The words with what `parseArgs` would take otherwise joined by an equals sign: `=true` at each switch, so that the word
 * after it stays an operand whatever it says, and a value that begins with a dash at the flag whose value it is.
 */
function joined(command: Command, words: readonly string[], flags: ReadonlyMap<string, Flag<unknown>>): string[] {
  const end = words.indexOf("--");
  const result: string[] = [];
  for (let index = 0; index < words.length; index++) {
    const word = words[index];
    const [name, value] = word.slice(2).split("=", 2);
    const flag = word.startsWith("--") && (end < 0 || index < end) ? flags.get(name) : undefined;
    if (flag?.placeholder === null) {
      if (value !== undefined) throw new UsageError(`--${name} takes no value`, command.name);
      result.push(`${word}=true`);
    } else if (flag !== undefined && value === undefined && DASHED_VALUE.test(words[index + 1] ?? "")) {
      result.push(`${word}=${words[index + 1]}`);
      index++;
    } else {
      result.push(word);
    }
  }
  return result;
}

/** Throws unless there are as many operands as the command declares. */
function checkOperands(command: Command, operands: readonly string[]): void {
  const { name, min, max } = command.operands ?? { name: "", min: 0, max: 0 };
  if (operands.length < min) throw new UsageError(`${command.name} needs ${name}`, command.name);
  if (operands.length > max) {
    throw new UsageError(`${command.name} does not expect "${operands[max]}"`, command.name);
  }
}
