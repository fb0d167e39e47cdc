/**
 * Scenarios that users write as JSON files.
 *
 * @module
 */
import { BadInput } from "../memory/bad_input.ts";
import type { Scenario } from "./scenario.ts";

/** The scenario in the text of a file; `name` is its path. Throws {@linkcode BadInput}. */
export function scenarioFile(_text: string, name: string): Scenario {
  throw new BadInput(`${name}: not a scenario`);
}
