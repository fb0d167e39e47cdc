/**
 * All commands, in the order of the help. A new command is one more line here.
 *
 * @module
 */

import type { Command } from "./command.ts";
import { helpCommand } from "./help.ts";
import { versionCommand } from "./version.ts";

/** The commands of `exitbox`. */
export const COMMANDS: readonly Command[] = [
  helpCommand,
  versionCommand,
];
