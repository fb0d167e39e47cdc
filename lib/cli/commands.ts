/**
 * All commands, in the order of the help. A new command is one more line here.
 *
 * @module
 */

import type { Command } from "./command.ts";
import { demoCommand } from "./demo.ts";
import { helpCommand } from "./help.ts";
import { listPlatformsCommand, listPoliciesCommand, listStructuresCommand } from "./list.ts";
import { runCommand } from "./run.ts";
import { verifyExitsCommand } from "./verify_exits.ts";
import { verifyLayoutsCommand } from "./verify_layouts.ts";
import { verifyVectorsCommand } from "./verify_vectors.ts";
import { versionCommand } from "./version.ts";

/** The commands of `exitbox`. */
export const COMMANDS: readonly Command[] = [
  runCommand,
  demoCommand,
  verifyVectorsCommand,
  verifyExitsCommand,
  verifyLayoutsCommand,
  listPlatformsCommand,
  listPoliciesCommand,
  listStructuresCommand,
  helpCommand,
  versionCommand,
];
