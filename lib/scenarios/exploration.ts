/**
 * One exploration of a system as a request and an outcome that are plain data, so that a worker can do it.
 *
 * @module
 */
import { type Choice, Engine } from "../explore/engine.ts";
import { ALL_REDUCTIONS, type BoundHit, DEFAULT_BOUNDS, type Reductions } from "../explore/exhaustive.ts";
import { type Exploration, explore, type FoundViolation } from "../explore/explorer.ts";
import { costOf, minimise, type Minimised } from "../explore/minimise.ts";
import { parallelSearch } from "../explore/parallel.ts";
import { PctScheduler } from "../explore/pct_scheduler.ts";
import { RandomScheduler } from "../explore/random_scheduler.ts";
import { type Report, reportOn } from "../explore/report.ts";
import { search, type SearchProgress, type SearchResult } from "../explore/search.ts";
import { searchShard, type Shard } from "../explore/shard.ts";
import type { MemoryModel, Property, System } from "../explore/system.ts";
import { BadInput } from "../memory/bad_input.ts";
import { alternatives } from "../memory/nearest_name.ts";
import { Random } from "../memory/random.ts";
import type { SystemSpec } from "./spec.ts";

/** Reductions by name. */
export const REDUCTIONS = {
  all: ALL_REDUCTIONS,
  fingerprints: { fingerprints: true, persistentSets: false, sleepSets: false },
  none: { fingerprints: false, persistentSets: false, sleepSets: false },
} as const satisfies Record<string, Reductions>;

/** What is asked. */
export interface ExplorationRequest {
  readonly memoryModel: MemoryModel;
  /** Names of the properties to check; all of the system's when empty. */
  readonly properties: readonly string[];
  readonly scheduler: "exhaustive" | "pct" | "random";
  /** Bounds of an exhaustive search. */
  readonly preemptions: number;
  readonly depth: number;
  readonly states: number;
  readonly reductions: keyof typeof REDUCTIONS;
  /** The part to do; everything when absent. */
  readonly shard?: Shard;
  /** Seed and number of the schedules that `pct` and `random` draw. */
  readonly seed: number;
  readonly schedules: number;
  /** Choices behind which the exploration begins; at the initial state when absent. Not together with workers. */
  readonly prefix?: readonly Choice[];
}

/** A minimised violation as plain data. */
export interface OutcomeViolation extends Omit<Minimised, "property"> {
  /** The property's name. */
  readonly property: string;
}

/** What came out. */
export interface ExplorationOutcome {
  /** In the order of the system's properties. */
  readonly violations: readonly OutcomeViolation[];
  readonly result: Omit<SearchResult, "violations">;
  /** Seconds. */
  readonly seconds: number;
}

/** Asked every few thousand steps with how far the exploration is; true ends it. */
export type WatchExploration = (progress: SearchProgress) => boolean;

/** Schedules that are drawn unless another number is given. */
export const SCHEDULES = 10_000;
/** Longest schedule that is drawn, in steps. */
const DRAWN_STEPS_MAX = 10_000;
const MS = 1000;

/** The system's properties called `names`, all of them when there are none. Throws {@linkcode BadInput}. */
export function chosenProperties(system: System, names: readonly string[]): readonly Property[] {
  const known = system.properties.map(({ name }) => name);
  for (const name of names) {
    if (known.includes(name)) continue;
    throw new BadInput(`Scenario "${system.name}" has no property "${name}"${alternatives(name, known)}`);
  }
  return names.length === 0 ? system.properties : system.properties.filter(({ name }) => names.includes(name));
}

/** Explores in this thread. `now` is the time in milliseconds. */
export function exploreSystem(
  system: System,
  request: ExplorationRequest,
  now: () => number,
  watch?: WatchExploration,
): ExplorationOutcome {
  const begin = now();
  const properties = chosenProperties(system, request.properties);
  const engine = new Engine(system, request.memoryModel);
  if (request.prefix !== undefined) {
    costOf(engine, request.prefix);
    engine.rebase();
  }
  const result = request.scheduler === "exhaustive"
    ? exhaustive(engine, request, properties, watch)
    : drawn(engine, request, properties, watch);
  return outcome(engine, request, result, (now() - begin) / MS, watch);
}

/** Explores exhaustively with workers that `spawn` starts. */
export async function exploreWithWorkers(
  system: System,
  request: ExplorationRequest,
  workers: { readonly jobs: number; readonly spawn: () => Worker; readonly spec: SystemSpec },
  now: () => number,
  watch: WatchExploration,
): Promise<ExplorationOutcome> {
  const begin = now();
  const properties = chosenProperties(system, request.properties);
  const engine = new Engine(system, request.memoryModel);
  const result = await parallelSearch(engine, { ...workers, ...searchOptions(request, properties, watch) });
  return outcome(engine, request, result, (now() - begin) / MS, watch);
}

function searchOptions(request: ExplorationRequest, properties: readonly Property[], watch?: WatchExploration) {
  const { preemptions, depth, states } = request;
  return {
    bounds: { preemptions, depth, states },
    reductions: REDUCTIONS[request.reductions],
    properties,
    ...(watch === undefined ? {} : { progress: watch }),
  };
}

function exhaustive(
  engine: Engine,
  request: ExplorationRequest,
  properties: readonly Property[],
  watch?: WatchExploration,
): SearchResult {
  const options = searchOptions(request, properties, watch);
  return request.shard === undefined ? search(engine, options) : searchShard(engine, request.shard, options);
}

function drawn(
  engine: Engine,
  request: ExplorationRequest,
  properties: readonly Property[],
  watch?: WatchExploration,
): SearchResult {
  const random = Random.seeded(request.seed);
  const bounds = { schedules: request.schedules, depth: Math.min(request.depth, DRAWN_STEPS_MAX) };
  const scheduler = request.scheduler === "pct"
    ? new PctScheduler(random, bounds)
    : new RandomScheduler(random, bounds);
  const wanted = properties.filter(({ when }) => when !== "cycle");
  const exploration = explore(engine, scheduler, {
    properties: wanted,
    interrupted: () => {
      const { transitions, depth: frontier } = engine;
      return watch?.({ states: 0, transitions, frontier, preemptions: Infinity }) ?? false;
    },
  });
  return ofDrawn(exploration);
}

/** Schedules that were drawn say nothing about those that were not. */
function ofDrawn({ violations, transitions, schedules, depth, interrupted }: Exploration): SearchResult {
  const hit: BoundHit[] = interrupted ? [] : ["schedules"];
  return {
    violations,
    states: 0,
    transitions,
    schedules,
    depth,
    hit,
    exhausted: false,
    interrupted,
    preemptions: Infinity,
    reductions: REDUCTIONS.none,
  };
}

function outcome(
  engine: Engine,
  request: ExplorationRequest,
  { violations, ...result }: SearchResult,
  seconds: number,
  watch?: WatchExploration,
): ExplorationOutcome {
  const order = (violation: FoundViolation) => engine.system.properties.indexOf(violation.property);
  const sorted = [...violations].sort((a, b) => order(a) - order(b));
  const minimised = sorted.map((violation) => minimise(engine, violation));
  engine.restore(); // another engine begins with what the memory holds
  const late = onlyUnderTso(engine.system, request, minimised, watch);
  return {
    violations: minimised.map(({ property, kind, choices, cycleFrom, ...rest }): OutcomeViolation => {
      const { prefix = [] } = request;
      return {
        ...rest,
        property: property.name,
        kind: late.has(property.name) ? `${kind}${ONLY_TSO}` : kind,
        choices: [...prefix, ...choices],
        ...(cycleFrom === undefined ? {} : { cycleFrom: prefix.length + cycleFrom }),
      };
    }),
    result,
    seconds,
  };
}

/** What the kind of a violation ends with that no schedule shows under sequential consistency. */
export const ONLY_TSO = " (only under x86-TSO)";

/** Names of the violated properties that hold under sequential consistency, within the same bounds. */
function onlyUnderTso(
  system: System,
  request: ExplorationRequest,
  violations: readonly Minimised[],
  watch?: WatchExploration,
): Set<string> {
  if (request.memoryModel !== "tso" || violations.length === 0) return new Set();
  if (request.scheduler !== "exhaustive" || request.shard !== undefined || request.prefix !== undefined) {
    return new Set();
  }
  const properties = violations.map(({ property }) => property);
  const result = search(new Engine(system, "sc"), searchOptions(request, properties, watch));
  if (result.interrupted || result.hit.length > 0) return new Set();
  const names = properties.map(({ name }) => name);
  return new Set(names.filter((name) => !result.violations.some(({ property }) => property.name === name)));
}

/** The violations of an outcome with the properties of `system`, as a verdict wants them. */
export function propertiesOf(system: System, { violations }: ExplorationOutcome): readonly FoundViolation[] {
  return violations.map((violation) => ({
    ...violation,
    property: system.properties.find(({ name }) => name === violation.property)!,
  }));
}

/** The report on an outcome. */
export function explorationReport(system: System, request: ExplorationRequest, outcome: ExplorationOutcome): Report {
  const engine = new Engine(system, request.memoryModel);
  const minimised = outcome.violations.map((violation): Minimised => {
    const cost = request.prefix === undefined ? {} : costOf(engine, violation.choices);
    return { ...violation, ...cost, property: system.properties.find(({ name }) => name === violation.property)! };
  });
  const result: SearchResult = { ...outcome.result, violations: minimised };
  const bounds = { ...DEFAULT_BOUNDS, preemptions: request.preemptions, depth: request.depth, states: request.states };
  const { shard } = request;
  const context = { seconds: outcome.seconds, bounds, ...(shard === undefined ? {} : { shard }) };
  const report = reportOn(engine, result, minimised, context);
  engine.restore(); // another engine begins with what the memory holds
  return report;
}
