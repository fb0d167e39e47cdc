/**
 * What a search found, as JSON; and how the reports of shards are joined.
 *
 * @module
 */
import { BadInput } from "../memory/bad_input.ts";
import type { Engine } from "./engine.ts";
import type { SearchBounds } from "./exhaustive.ts";
import type { Minimised } from "./minimise.ts";
import { checkSchedule, record, type Schedule } from "./schedule.ts";
import type { SearchResult } from "./search.ts";
import type { Shard } from "./shard.ts";
import { type Verdict, verdictOf } from "./verdict.ts";
import type { MemoryModel } from "./system.ts";

/** A violation in a report. */
export interface ReportedViolation {
  readonly property: string;
  readonly kind: string;
  /** Context switches of the schedule. */
  readonly switches: number;
  /** Steps of it. */
  readonly steps: number;
  readonly schedule: Schedule;
}

/** Bounds in a report; `null` stands for none. */
export interface ReportedBounds {
  /** Bound on preemptions within which everything was looked at, or was to be. */
  readonly preemptions: number | null;
  readonly depth: number;
  readonly states: number;
  /** Bounds that were hit. */
  readonly hit: readonly string[];
}

/** A report on one search. */
export interface Report {
  readonly scenario: string;
  readonly policies: Readonly<Record<string, string>>;
  readonly verdict: Verdict;
  readonly memory_model: MemoryModel;
  readonly violations: readonly ReportedViolation[];
  readonly states: number;
  readonly transitions: number;
  readonly schedules: number;
  readonly seconds: number;
  readonly bounds: ReportedBounds;
  /** Which part of the search this is; absent for a whole one. */
  readonly shard?: Shard;
}

/** What a report has beside the search's result. */
export interface ReportContext {
  readonly seconds: number;
  readonly bounds: SearchBounds;
  readonly shard?: Shard;
}

/** The report on a search; `minimised` are its violations. */
export function reportOn(
  engine: Engine,
  result: SearchResult,
  minimised: readonly Minimised[],
  context: ReportContext,
): Report {
  const violations = minimised.map(({ property, kind, switches, steps, choices, cycleFrom }): ReportedViolation => {
    const of = { property: property.name, kind, ...(cycleFrom === undefined ? {} : { cycleFrom }) };
    return { property: property.name, kind, switches, steps, schedule: record(engine, choices, of) };
  });
  return {
    scenario: engine.system.name,
    policies: engine.system.policies,
    verdict: verdictOf(result),
    memory_model: engine.memoryModel,
    violations,
    states: result.states,
    transitions: result.transitions,
    schedules: result.schedules,
    seconds: context.seconds,
    bounds: {
      preemptions: result.preemptions === Infinity ? null : result.preemptions,
      depth: context.bounds.depth,
      states: context.bounds.states,
      hit: result.hit,
    },
    ...(context.shard === undefined ? {} : { shard: context.shard }),
  };
}

/**
 * Joins the reports of all shards of one search. States, transitions and schedules are sums: states that several shards
 * have reached count for each. Throws {@linkcode BadInput}, in one line, when the reports do not belong together or one is
 * missing. `names` are what errors call them.
 */
export function mergeReports(reports: readonly unknown[], names: readonly string[]): Report {
  const checked = reports.map((report, k) => checkReport(report, names[k]));
  const first = checked[0];
  if (first === undefined) throw new BadInput("No results to merge");
  const { count } = first.shard;
  const seen = new Map<number, string>();
  checked.forEach((report, k) => {
    const other = differs(first, report);
    if (other !== undefined) throw new BadInput(`${names[k]}: its ${other} differs from that of ${names[0]}`);
    const before = seen.get(report.shard.index);
    if (before !== undefined) {
      throw new BadInput(`${names[k]}: shard ${report.shard.index}/${count} is in ${before} already`);
    }
    seen.set(report.shard.index, names[k]);
  });
  for (let index = 1; index <= count; index++) {
    if (!seen.has(index)) throw new BadInput(`Shard ${index}/${count} is missing`);
  }
  const violations = bestOfEach(checked.flatMap((report) => report.violations));
  const sum = (of: (report: Report) => number) => checked.reduce((total, report) => total + of(report), 0);
  const preemptions = checked.map(({ bounds }) => bounds.preemptions ?? Infinity);
  const { shard: _, ...rest } = first;
  return {
    ...rest,
    verdict: violations.length > 0
      ? "violated"
      : checked.every(({ verdict }) => verdict === "holds")
      ? "holds"
      : "bound",
    violations,
    states: sum(({ states }) => states),
    transitions: sum(({ transitions }) => transitions),
    schedules: sum(({ schedules }) => schedules),
    seconds: sum(({ seconds }) => seconds),
    bounds: {
      ...first.bounds,
      preemptions: Math.min(...preemptions) === Infinity ? null : Math.min(...preemptions),
      hit: [...new Set(checked.flatMap(({ bounds }) => bounds.hit))],
    },
  };
}

/** Of the violations of each property the one with the fewest switches, then steps, then the first of the alphabet. */
function bestOfEach(violations: readonly ReportedViolation[]): ReportedViolation[] {
  const best = new Map<string, ReportedViolation>();
  for (const violation of violations) {
    const other = best.get(violation.property);
    if (other === undefined || isBetter(violation, other)) best.set(violation.property, violation);
  }
  return [...best.values()];
}

function isBetter(a: ReportedViolation, b: ReportedViolation): boolean {
  if (a.switches !== b.switches) return a.switches < b.switches;
  if (a.steps !== b.steps) return a.steps < b.steps;
  return JSON.stringify(a.schedule) < JSON.stringify(b.schedule);
}

/** What two reports must have in common and do not, or nothing. */
function differs(a: Report & { shard: Shard }, b: Report & { shard: Shard }): string | undefined {
  if (a.scenario !== b.scenario) return "scenario";
  if (a.memory_model !== b.memory_model) return "memory model";
  if (a.shard.count !== b.shard.count) return "number of shards";
  if (a.bounds.depth !== b.bounds.depth || a.bounds.states !== b.bounds.states) return "bounds";
  const names = new Set([...Object.keys(a.policies), ...Object.keys(b.policies)]);
  return [...names].some((name) => a.policies[name] !== b.policies[name]) ? "choice of policies" : undefined;
}

const VERDICTS: readonly unknown[] = ["holds", "violated", "bound"];

/** Checks that a value from JSON is the report on a shard. */
function checkReport(value: unknown, name: string): Report & { shard: Shard } {
  if (!isObject(value)) throw new BadInput(`${name}: not the result of a shard: a JSON object is expected`);
  const bad = (field: string, expected: string) => new BadInput(`${name}: field "${field}": ${expected} is expected`);
  const { shard, bounds, policies, violations } = value;
  if (
    !isObject(shard) || !isCount(shard.index) || !isCount(shard.count) || shard.index < 1 || shard.index > shard.count
  ) {
    throw bad("shard", "the number of a shard and how many there are");
  }
  if (typeof value.scenario !== "string") throw bad("scenario", "text");
  if (!VERDICTS.includes(value.verdict)) throw bad("verdict", '"holds", "violated" or "bound"');
  if (value.memory_model !== "sc" && value.memory_model !== "tso") throw bad("memory_model", '"sc" or "tso"');
  if (!isObject(policies)) throw bad("policies", "an object of names and values");
  for (const field of ["states", "transitions", "schedules"]) if (!isCount(value[field])) throw bad(field, "a number");
  if (typeof value.seconds !== "number") throw bad("seconds", "a number");
  if (!isObject(bounds) || !isCount(bounds.depth) || !isCount(bounds.states) || !Array.isArray(bounds.hit)) {
    throw bad("bounds", "the bounds of a search");
  }
  if (bounds.preemptions !== null && !isCount(bounds.preemptions)) throw bad("bounds.preemptions", "a number or null");
  if (!Array.isArray(violations)) throw bad("violations", "a list");
  violations.forEach((violation: unknown, k) => {
    const fits = isObject(violation) && typeof violation.property === "string" && typeof violation.kind === "string" &&
      isCount(violation.switches) && isCount(violation.steps);
    if (!fits) throw bad(`violations[${k}]`, "a violation");
    checkSchedule(violation.schedule, `${name}: violations[${k}].schedule`);
  });
  return value as unknown as Report & { shard: Shard };
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

function isCount(value: unknown): value is number {
  return typeof value === "number" && Number.isSafeInteger(value) && value >= 0;
}
