/**
 * The scenarios that come with exitbox.
 *
 * @module
 */
import { BadInput } from "../memory/bad_input.ts";
import { alternatives } from "../memory/nearest_name.ts";
import { ghcbDoubleFetch } from "./ghcb_double_fetch.ts";
import { rmpFault } from "./rmp_fault.ts";
import type { Scenario } from "./scenario.ts";
import { sevEsVc } from "./sev_es_vc.ts";
import { sidecarCompletion } from "./sidecar_completion.ts";
import { sidecarRax } from "./sidecar_rax.ts";
import { sidecarRemove } from "./sidecar_remove.ts";
import { sidecarStop } from "./sidecar_stop.ts";
import { vmsaCrashPage } from "./vmsa_crash_page.ts";

/** All of them, in the order of lists. A new scenario is one more line here. */
export const SCENARIOS: readonly Scenario[] = [
  sidecarRax,
  sidecarRemove,
  sidecarStop,
  sidecarCompletion,
  ghcbDoubleFetch,
  rmpFault,
  vmsaCrashPage,
  sevEsVc,
];

/** The scenario called `name`. Throws {@linkcode BadInput} that suggests the nearest name when there is none. */
export function scenarioNamed(name: string): Scenario {
  const found = SCENARIOS.find((candidate) => candidate.name === name);
  if (found !== undefined) return found;
  throw new BadInput(`Unknown scenario "${name}"${alternatives(name, SCENARIOS.map((known) => known.name))}`);
}
