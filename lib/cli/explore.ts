/**
 * The command `explore`: one choice of policies, all interleavings or some, and what goes wrong in them.
 *
 * @module
 */

import type { Report } from "../explore/report.ts";
import { DEFAULT_BOUNDS } from "../explore/exhaustive.ts";
import { verdictLine } from "../explore/verdict.ts";
import {
  chosenProperties,
  explorationReport,
  type ExplorationRequest,
  propertiesOf,
} from "../scenarios/exploration.ts";
import { systemName } from "../scenarios/scenario.ts";
import { systemOf, type SystemSpec } from "../scenarios/spec.ts";
import { type Command, command } from "./command.ts";
import { UsageError } from "./errors.ts";
import { EXIT } from "./exit_codes.ts";
import { EXPLORE_FLAGS } from "./explore_flags.ts";
import { fileName, printViolation, reportCode, writeSchedule } from "./explore_output.ts";
import type { FlagValues } from "./flags.ts";
import { runExploration } from "./run_exploration.ts";
import { readScenario, type ScenarioInput, specOf } from "./scenario_input.ts";
import { commandLine } from "./shell.ts";

type Values = FlagValues<typeof EXPLORE_FLAGS>;

/** The command `explore`. */
export const exploreCommand: Command = command({
  name: "explore",
  summary: "search a scenario's schedules for one that violates a property",
  examples: [
    ["exitbox explore sidecar-completion", "every schedule of two processors under the repaired driver"],
    [
      "exitbox explore sidecar-completion --policy driver.publish=claim-then-start --out found",
      "the published race, as a table and as a file that replays",
    ],
    [
      "exitbox explore sidecar-completion:vps=3 --jobs 8 --time-limit 600",
      "three processors, eight workers, ten minutes",
    ],
  ],
  operands: {
    name: "SCENARIO|FILE",
    min: 1,
    max: 1,
    meaning: 'a scenario, with options behind a colon where it has any (see "exitbox list scenarios"), or a JSON file',
  },
  flags: EXPLORE_FLAGS,
  details: [
    "The table of a violation has one column for each agent, time runs downwards, and under each step are the fields that " +
    "it changed. A * marks a context switch: a step whose agent differs from the one before, which could have gone on. " +
    "Schedules are minimised: fewest context switches, then fewest steps.",
    "The verdict says holds only when everything within the stated bounds was looked at.",
    "Exit code: 11 for no-deadlock and no-lost-wakeup, 13 for no-livelock, 12 for any other property, of the first " +
    "violation; 20 when a bound was hit with nothing found.",
  ],
  async run({ values, operands, printer }) {
    checkFlags(values);
    const input = await readScenario(operands[0]);
    const spec = specOf(input, Object.fromEntries(values.policy));
    const request = requestOf(input, values);
    const system = systemOf(spec);
    chosenProperties(system, request.properties);
    const { outcome, interrupted } = await runExploration(spec, request, {
      jobs: values.jobs,
      timeLimit: values["time-limit"],
      printer,
    });
    const report = explorationReport(system, request, outcome);
    for (const { property, schedule } of values.out === undefined ? [] : report.violations) {
      printer.note(`exitbox: wrote ${writeSchedule(values.out!, fileName(report, property), system, schedule)}`);
    }
    if (values.json) {
      printer.json(report);
    } else {
      for (const violation of report.violations) printViolation(printer, system, violation);
      const choice = Object.entries(report.policies).map(([policy, value]) => `${policy}=${value}`).join(" ");
      printer.line(`${report.scenario}: ${choice}`);
      const { seconds } = outcome;
      const result = { ...outcome.result, violations: propertiesOf(system, outcome) };
      printer.line(printer.style("bold", verdictLine(result, { memoryModel: request.memoryModel, seconds })));
      printer.line(reproduce(input, spec, request, report, values));
    }
    if (interrupted && report.violations.length === 0) return EXIT.INTERRUPTED;
    return reportCode(report);
  },
});

/** Throws `UsageError` for flags that do not go together. */
function checkFlags(values: Values): void {
  const { scheduler, shard, jobs } = values;
  if (scheduler !== "exhaustive" && (shard !== undefined || jobs > 1)) {
    throw new UsageError(`--scheduler ${scheduler} takes neither --jobs nor --shard`, "explore");
  }
  if (shard !== undefined && jobs > 1) throw new UsageError("--shard and --jobs exclude each other", "explore");
}

function requestOf({ scenario }: ScenarioInput, values: Values): ExplorationRequest {
  const bounds = { ...DEFAULT_BOUNDS, ...scenario.bounds };
  const { shard } = values;
  return {
    memoryModel: values["memory-model"],
    properties: values.property,
    scheduler: values.scheduler,
    preemptions: values.preemptions ?? bounds.preemptions,
    depth: bounds.depth,
    states: values.states ?? bounds.states,
    reductions: values.reductions,
    seed: values.seed,
    schedules: values.schedules,
    ...(shard === undefined ? {} : { shard }),
  };
}

/** The one command that reproduces what was found. */
function reproduce(
  input: ScenarioInput,
  spec: SystemSpec,
  request: ExplorationRequest,
  report: Report,
  values: Values,
): string {
  const [violation] = report.violations;
  if (violation !== undefined && values.out !== undefined) {
    return commandLine(["replay", `${values.out.replace(/\/+$/, "")}/${fileName(report, violation.property)}.json`]);
  }
  const words = ["explore", systemName(input.scenario, input.options)];
  for (const [policy, value] of Object.entries(spec.policies)) words.push("--policy", `${policy}=${value}`);
  for (const { property } of report.violations) words.push("--property", property);
  if (report.violations.length === 0) { for (const name of request.properties) words.push("--property", name); }
  words.push("--memory-model", request.memoryModel);
  if (request.preemptions !== Infinity) words.push("--preemptions", `${request.preemptions}`);
  if (request.scheduler !== "exhaustive") {
    words.push("--scheduler", request.scheduler, "--seed", `${request.seed}`, "--schedules", `${request.schedules}`);
  }
  if (values["time-limit"] !== undefined) words.push("--time-limit", `${values["time-limit"]}`);
  if (values.states !== undefined) words.push("--states", `${values.states}`);
  if (values.reductions !== "all") words.push("--reductions", values.reductions);
  if (request.shard !== undefined) words.push("--shard", `${request.shard.index}/${request.shard.count}`);
  if (values.jobs > 1) words.push("--jobs", `${values.jobs}`);
  return commandLine(words);
}
