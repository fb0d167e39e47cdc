/**
 * Going on from a recorded schedule under another scheduler: its first steps, and from there a search.
 *
 * @module
 */

import type { Choice } from "../explore/engine.ts";
import { DEFAULT_BOUNDS } from "../explore/exhaustive.ts";
import type { Schedule } from "../explore/schedule.ts";
import { verdictLine } from "../explore/verdict.ts";
import {
  chosenProperties,
  explorationReport,
  type ExplorationRequest,
  propertiesOf,
  SCHEDULES,
} from "../scenarios/exploration.ts";
import { systemOf } from "../scenarios/spec.ts";
import { UsageError } from "./errors.ts";
import { EXIT } from "./exit_codes.ts";
import { outFlag, preemptionsFlag, SEED_MAX } from "./explore_flags.ts";
import { fileName, plural, printViolation, reportCode, writeSchedule } from "./explore_output.ts";
import { type FlagValues, optionalInteger, optionalSeconds, texts, word } from "./flags.ts";
import type { Printer } from "./printer.ts";
import { runExploration } from "./run_exploration.ts";
import { readScenario, specOf } from "./scenario_input.ts";
import { commandLine } from "./shell.ts";

/** The flags of a replay that goes on. */
export const GO_ON_FLAGS = {
  scheduler: word(
    ["recorded", "exhaustive", "pct", "random"],
    "who decides behind the replayed steps (all, or up to --to): the others explore on from there, as explore does",
  ),
  property: texts("NAME", "exhaustive, pct, random: check this property; all of the scenario's unless given"),
  preemptions: preemptionsFlag,
  states: optionalInteger("N", "exhaustive: end after N states", { min: 1 }),
  seed: optionalInteger("N", "pct, random: repeats the same schedules (1)", { max: SEED_MAX }),
  schedules: optionalInteger("N", `pct, random: how many are drawn (${SCHEDULES})`, { min: 1 }),
  "time-limit": optionalSeconds("S", "exhaustive, pct, random: end after S seconds"),
  out: outFlag,
} as const;

/** Values of {@linkcode GO_ON_FLAGS}. */
export type GoOnValues = FlagValues<{ Search: typeof GO_ON_FLAGS }>;

/** Throws `UsageError` for flags that the chosen scheduler has no use for. */
export function checkGoOn(values: GoOnValues): void {
  const { scheduler } = values;
  const refuse = (names: readonly ("preemptions" | "states" | "seed" | "schedules" | "time-limit" | "out")[]) => {
    for (const name of names) {
      if (values[name] !== undefined) throw new UsageError(`--scheduler ${scheduler} takes no --${name}`, "replay");
    }
  };
  if (scheduler === "recorded") {
    refuse(["preemptions", "states", "seed", "schedules", "time-limit", "out"]);
    if (values.property.length > 0) throw new UsageError("--scheduler recorded takes no --property", "replay");
  } else {
    refuse(scheduler === "exhaustive" ? ["seed", "schedules"] : ["preemptions", "states"]);
  }
}

/** Explores on from behind `prefix`, steps of `schedule` that have been replayed. Returns the exit code. */
export async function goOnFrom(
  schedule: Schedule,
  prefix: readonly Choice[],
  values: GoOnValues & { readonly json: boolean },
  words: readonly string[],
  printer: Printer,
): Promise<number> {
  const input = await readScenario(schedule.scenario);
  const spec = specOf(input, schedule.policies);
  const bounds = { ...DEFAULT_BOUNDS, ...input.scenario.bounds };
  const { scheduler } = values;
  const request: ExplorationRequest = {
    memoryModel: schedule.memory_model,
    properties: values.property,
    scheduler: scheduler === "recorded" ? "exhaustive" : scheduler,
    preemptions: values.preemptions ?? bounds.preemptions,
    depth: bounds.depth,
    states: values.states ?? bounds.states,
    reductions: "all",
    seed: values.seed ?? 1,
    schedules: values.schedules ?? SCHEDULES,
    prefix,
  };
  const system = systemOf(spec);
  chosenProperties(system, request.properties);
  const options = { jobs: 1, timeLimit: values["time-limit"], printer };
  const { outcome, interrupted } = await runExploration(spec, request, options);
  const report = explorationReport(system, request, outcome);
  for (const { property, schedule: found } of values.out === undefined ? [] : report.violations) {
    printer.note(`exitbox: wrote ${writeSchedule(values.out!, fileName(report, property), system, found)}`);
  }
  if (values.json) {
    printer.json({ ...report, prefix: prefix.length });
  } else {
    for (const violation of report.violations) printViolation(printer, system, violation);
    printer.line(`${schedule.scenario}, behind ${plural(prefix.length, "replayed step", "replayed steps")}`);
    const result = { ...outcome.result, violations: propertiesOf(system, outcome) };
    const { memoryModel } = request;
    printer.line(printer.style("bold", verdictLine(result, { memoryModel, seconds: outcome.seconds })));
    printer.line(commandLine(words));
  }
  if (interrupted && report.violations.length === 0) return EXIT.INTERRUPTED;
  return reportCode(report);
}
