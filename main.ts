/**
 * The command line of exitbox: finds the command that the first words name, parses its flags, runs it, and turns what it
 * returns or throws into an exit code.
 *
 * @module
 */

import type { Context } from "./lib/cli/command.ts";
import { COMMANDS } from "./lib/cli/commands.ts";
import { reportOf } from "./lib/cli/errors.ts";
import { EXIT } from "./lib/cli/exit_codes.ts";
import type { FlagGroups } from "./lib/cli/flags.ts";
import { printHelp } from "./lib/cli/help.ts";
import { asksForHelp, findCommand, helpTopic, parseCommandLine } from "./lib/cli/parse.ts";
import { type ColorMode, Printer } from "./lib/cli/printer.ts";

/** Runs one command line and returns the exit code. */
async function main(words: readonly string[]): Promise<number> {
  if (words.length === 0) {
    printHelp("", COMMANDS, new Printer({ color: "auto", quiet: false, output: Deno.stderr }));
    return EXIT.USAGE;
  }
  if (asksForHelp(words)) {
    printHelp(helpTopic(words, COMMANDS), COMMANDS, new Printer({ color: "auto", quiet: false }));
    return EXIT.CLEAN;
  }
  const { command, rest } = findCommand(words[0] === "--version" ? ["version", ...words.slice(1)] : words, COMMANDS);
  const { values, operands } = parseCommandLine(command, rest);
  const printer = new Printer({ color: values.color as ColorMode, quiet: values.quiet === true });
  const typed = values as Context<FlagGroups>["values"];
  return await command.run({ values: typed, operands, words, printer, commands: COMMANDS });
}

/** Reports what ended a command, wherever it was thrown, and ends the process: workers may still be running. */
function fail(error: unknown): never {
  const { code, text } = reportOf(error);
  if (text !== null) new Printer({ color: "never", quiet: false }).error(text);
  Deno.exit(code);
}

if (import.meta.main) {
  // Errors in handlers of messages and signals do not pass through `main`.
  globalThis.addEventListener("error", (event) => fail(event.error));
  globalThis.addEventListener("unhandledrejection", (event) => fail(event.reason));
  try {
    Deno.exit(await main(Deno.args));
  } catch (error) {
    fail(error);
  }
}
