/**
 * All commands, in the order of the help. A new command is one more line here.
 *
 * @module
 */

import { checkCommand } from "./check.ts";
import { benchBootCommand, benchExitsCommand, benchGuestCommand } from "./bench.ts";
import { benchExploreCommand } from "./bench_explore.ts";
import type { Command } from "./command.ts";
import { demoCommand } from "./demo.ts";
import { explainCommand } from "./explain.ts";
import { exploreCommand } from "./explore.ts";
import { helpCommand } from "./help.ts";
import { listPlatformsCommand, listPoliciesCommand, listScenariosCommand, listStructuresCommand } from "./list.ts";
import { listConformanceCommand, listPageAccountingCommand } from "./list_sev.ts";
import { measureCommand } from "./measure.ts";
import { mergeCommand } from "./merge.ts";
import { replayCommand } from "./replay.ts";
import { runCommand } from "./run.ts";
import { verifyExitsCommand } from "./verify_exits.ts";
import { verifyLayoutsCommand } from "./verify_layouts.ts";
import { verifyVectorsCommand } from "./verify_vectors.ts";
import { versionCommand } from "./version.ts";

/** The commands of `exitbox`. */
export const COMMANDS: readonly Command[] = [
  runCommand,
  demoCommand,
  exploreCommand,
  checkCommand,
  explainCommand,
  replayCommand,
  mergeCommand,
  measureCommand,
  verifyVectorsCommand,
  verifyExitsCommand,
  verifyLayoutsCommand,
  benchExitsCommand,
  benchGuestCommand,
  benchBootCommand,
  benchExploreCommand,
  listPlatformsCommand,
  listPoliciesCommand,
  listScenariosCommand,
  listStructuresCommand,
  listConformanceCommand,
  listPageAccountingCommand,
  helpCommand,
  versionCommand,
];
