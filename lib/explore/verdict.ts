/**
 * The verdict on a search: what was looked at, within which bounds, and no more than that.
 *
 * @module
 */
import type { SearchResult } from "./search.ts";
import type { MemoryModel } from "./system.ts";

/** What the memory models are called in sentences. */
export const MEMORY_MODEL_NAMES: Readonly<Record<MemoryModel, string>> = {
  sc: "sequential consistency",
  tso: "x86-TSO",
};

/** What a search says: `holds` only when everything within the stated bounds was looked at. */
export type Verdict = "holds" | "violated" | "bound";

/** The verdict on a search. */
export function verdictOf(result: Pick<SearchResult, "violations" | "exhausted">): Verdict {
  if (result.violations.length > 0) return "violated";
  return result.exhausted ? "holds" : "bound";
}

/** What the verdict's line is made of, beside the result itself. */
export interface VerdictContext {
  readonly memoryModel: MemoryModel;
  /** Seconds that the search took. */
  readonly seconds: number;
  /** Steps that a search without reductions takes, where one was made; for the reduction factor. */
  readonly unreduced?: number;
}

/** The verdict's line. */
export function verdictLine(result: SearchResult, context: VerdictContext): string {
  const verdict = verdictOf(result);
  const within = withinText(result);
  const what = verdict === "violated"
    ? `violated: ${[...new Set(result.violations.map(({ property }) => property.name))].join(", ")}`
    : verdict === "holds"
    ? `holds within ${within}`
    : `nothing found, but not everything was looked at (${notAll(result)}); bounds: ${within}`;
  const reduced = reductionText(result, context.unreduced);
  const numbers = `${grouped(result.states)} states, ${grouped(result.transitions)} transitions, ` +
    `${grouped(result.schedules)} schedules, longest ${grouped(result.depth)} steps`;
  const model = MEMORY_MODEL_NAMES[context.memoryModel];
  return `${what}; ${numbers}; ${reduced}; ${model}; ${context.seconds.toFixed(2)} s`;
}

/** The bounds, as words. */
function withinText({ preemptions }: SearchResult): string {
  if (preemptions === Infinity) return "the whole space (no bound on preemptions)";
  return `${preemptions} ${preemptions === 1 ? "preemption" : "preemptions"}`;
}

/** Why a search did not look at everything. */
function notAll({ hit, interrupted }: SearchResult): string {
  const reasons = hit.map((bound) => `bound on ${bound} hit`);
  return [...reasons, ...(interrupted ? ["interrupted"] : [])].join(", ") || "ended early";
}

function reductionText({ reductions, transitions }: SearchResult, unreduced: number | undefined): string {
  const used = [
    ...(reductions.persistentSets ? ["persistent sets"] : []),
    ...(reductions.sleepSets ? ["sleep sets"] : []),
    ...(reductions.fingerprints ? ["64-bit fingerprints"] : []),
  ];
  const factor = unreduced === undefined ? "" : `, ${(unreduced / transitions).toFixed(1)} times fewer transitions`;
  return used.length === 0 ? "no reduction" : `reduced by ${used.join(", ")}${factor}`;
}

/** A number with its digits in groups of three. */
function grouped(value: number): string {
  return String(value).replace(/\B(?=(\d{3})+$)/g, ",");
}
