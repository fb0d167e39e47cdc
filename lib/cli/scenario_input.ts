/**
 * Scenarios and schedules as a command line names them.
 *
 * @module
 */

import { BadInput } from "../memory/bad_input.ts";
import { parseSchedule, type Schedule } from "../explore/schedule.ts";
import type { System } from "../explore/system.ts";
import { scenarioNamed, SCENARIOS } from "../scenarios/index.ts";
import {
  buildSystem,
  type Choices,
  completePolicies,
  parseOptions,
  type Scenario,
  splitSystemName,
} from "../scenarios/scenario.ts";
import { scenarioOf, type ScenarioSource, type SystemSpec } from "../scenarios/spec.ts";
import { readInput } from "./input_file.ts";

/** Largest scenario file in bytes. */
const SCENARIO_BYTES_MAX = 16 * 1024 ** 2;
/** Largest schedule or report in bytes. */
const SCHEDULE_BYTES_MAX = 512 * 1024 ** 2;

/** A scenario and the options that were chosen with its name. */
export interface ScenarioInput {
  readonly source: ScenarioSource;
  readonly scenario: Scenario;
  /** Every option with its value. */
  readonly options: Choices;
}

/**
 * The scenario that `name` stands for: one that comes with exitbox, or a JSON file; `:NAME=VALUE,...` behind it chooses
 * options. Throws `BadInput`.
 */
export async function readScenario(name: string): Promise<ScenarioInput> {
  const { scenario: base, options } = splitSystemName(name);
  const source = await sourceOf(base);
  const scenario = scenarioOf(source);
  return { source, scenario, options: parseOptions(scenario, options) };
}

/** A name of a file has a folder or an extension; anything else is the name of a scenario. */
async function sourceOf(name: string): Promise<ScenarioSource> {
  if (SCENARIOS.some((scenario) => scenario.name === name)) return { name };
  if (!/[./\\]/.test(name)) return { name: scenarioNamed(name).name };
  return { name, text: await readText(name, SCENARIO_BYTES_MAX) };
}

/** The text of a file. Throws `BadInput` when it is not UTF-8, too long or not there. */
export async function readText(path: string, bytesMax: number = SCHEDULE_BYTES_MAX): Promise<string> {
  const bytes = await readInput(path, bytesMax);
  try {
    return new TextDecoder("utf-8", { fatal: true }).decode(bytes);
  } catch {
    throw new BadInput(`${path}: not UTF-8 text`);
  }
}

/** The system that was chosen, as data. Throws `BadInput` for a policy or value that the scenario does not vary. */
export function specOf({ source, scenario, options }: ScenarioInput, policies: Choices): SystemSpec {
  return { source, policies: completePolicies(scenario, policies), options };
}

/** A schedule and the system that it is of. */
export interface ScheduleInput {
  readonly schedule: Schedule;
  readonly system: System;
}

/** Reads a schedule and builds its system. Throws `BadInput`. */
export async function readSchedule(path: string): Promise<ScheduleInput> {
  const schedule = parseSchedule(await readText(path), path);
  return { schedule, system: await systemOfSchedule(schedule, path) };
}

/** The system that a schedule is of; `path` is what errors call the schedule. Throws `BadInput`. */
export async function systemOfSchedule(schedule: Schedule, path: string): Promise<System> {
  try {
    const { scenario, options } = await readScenario(schedule.scenario);
    return buildSystem(scenario, schedule.policies, options);
  } catch (error) {
    throw error instanceof BadInput ? new BadInput(`${path}: ${error.message}`) : error;
  }
}
