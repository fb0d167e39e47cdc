/**
 * What a command is. To add one: write `lib/cli/<name>.ts` that exports `command({...})`, and name it in `commands.ts`;
 * parsing, help and suggestions follow from the declaration.
 *
 * @module
 */

import { type FlagGroups, type FlagValues, toggle, word } from "./flags.ts";
import type { Printer } from "./printer.ts";

/** Flags that every command takes. */
export const COMMON_FLAGS = {
  Output: {
    color: word(["auto", "always", "never"], "colour; auto is on a terminal and without NO_COLOR"),
    quiet: toggle("no progress and no warnings on standard error"),
    help: toggle("this help"),
  },
} as const;

/** The words of a command line that are not flags. */
export interface Operands {
  /** What stands for one in the help: `IMAGE`. */
  readonly name: string;
  /** How many there must be. */
  readonly min: number;
  /** How many there may be. */
  readonly max: number;
  /** What they are, for the help. */
  readonly meaning: string;
}

/** An example of use: what one would type, and what it does. */
export type Example = readonly [line: string, meaning: string];

/** What `run` of a command receives. */
export interface Context<G extends FlagGroups> {
  /** The value of every flag, by name. */
  readonly values: FlagValues<G>;
  /** The operands, as many as the command declares. */
  readonly operands: readonly string[];
  /** The command line as it was typed, for the line that tells how to repeat it. */
  readonly words: readonly string[];
  /** Where results, notes and progress go. */
  readonly printer: Printer;
  /** All commands, for `help`. */
  readonly commands: readonly Command[];
}

/** A command as its file declares it. */
export interface CommandDefinition<G extends FlagGroups> {
  /** One word, or two as in `verify vectors`. */
  readonly name: string;
  /** One line: what it is for. */
  readonly summary: string;
  /** What the help adds: what columns mean, what is written where. A string is a paragraph. */
  readonly details?: readonly string[];
  /** The three commonest uses. */
  readonly examples: readonly [Example, Example, Example];
  /** Its operands, or null when it takes none. */
  readonly operands: Operands | null;
  /** Its own flags, in the order of the help; `COMMON_FLAGS` are added. */
  readonly flags: G;
  /** Does the work and returns the exit code; throws `BadInput` for what the user must change. */
  run(context: Context<G>): number | Promise<number>;
}

/** A command whose flags are known by declaration only. */
export type Command = CommandDefinition<FlagGroups>;

/** Declares a command; `run` sees the flags' values with the types that the declaration gives them. */
export function command<const G extends FlagGroups>(definition: CommandDefinition<G>): Command {
  // The parser fills `values` from this very declaration, which the type of a list of commands cannot express.
  return definition as unknown as Command;
}

/** All flags of a command, group by group, the common ones last. */
export function flagGroups(of: Command): FlagGroups {
  return { ...of.flags, ...COMMON_FLAGS };
}
