/**
 * Which system is meant, as plain data: what a worker is sent, and what a schedule names.
 *
 * @module
 */
import type { System } from "../explore/system.ts";
import { scenarioFile } from "./file.ts";
import { scenarioNamed } from "./index.ts";
import { buildSystem, type Choices, type Scenario } from "./scenario.ts";

/** A scenario as data. */
export interface ScenarioSource {
  /** Its name; of a user's file, the path. */
  readonly name: string;
  /** The file's text; absent for one that comes with exitbox. */
  readonly text?: string;
}

/** A system as data. */
export interface SystemSpec {
  readonly source: ScenarioSource;
  /** Chosen policies; the others have their defaults. */
  readonly policies: Choices;
  /** Chosen options; the others have their defaults. */
  readonly options: Choices;
}

/** The scenario that `source` stands for. Throws `BadInput` when there is none, or its file is wrong. */
export function scenarioOf(source: ScenarioSource): Scenario {
  return source.text === undefined ? scenarioNamed(source.name) : scenarioFile(source.text, source.name);
}

/** The system that `spec` stands for. Throws `BadInput`. */
export function systemOf(spec: SystemSpec): System {
  return buildSystem(scenarioOf(spec.source), spec.policies, spec.options);
}
