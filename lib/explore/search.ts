/**
 * Exhaustive searches as a whole: preemption bounds 0, 1, 2 and so on, and partial-order reduction that learns.
 *
 * @module
 */
import { Random } from "../memory/random.ts";
import { Behaviour } from "./behaviour.ts";
import type { Engine } from "./engine.ts";
import {
  ALL_REDUCTIONS,
  type BoundHit,
  DEFAULT_BOUNDS,
  ExhaustiveScheduler,
  type Reductions,
  type SearchBounds,
} from "./exhaustive.ts";
import { type Exploration, explore, type FoundViolation } from "./explorer.ts";
import { findLivelock } from "./livelock.ts";
import { RandomScheduler } from "./random_scheduler.ts";
import type { Scheduler } from "./scheduler.ts";
import type { Property } from "./system.ts";

/** What a search is asked to do. */
export interface SearchOptions {
  readonly bounds?: Partial<SearchBounds>;
  readonly reductions?: Reductions;
  /** The properties to check; those of the system when absent. */
  readonly properties?: readonly Property[];
  /** Asked every few thousand steps with how far the search is; true ends it. */
  readonly progress?: (progress: SearchProgress) => boolean;
  /** When to end early; see `ExploreOptions.until`. */
  readonly until?: "all" | "first" | "never";
  /** The bounds on preemptions that are tried before `bounds.preemptions`; 0, 1, 2, ... when absent. */
  readonly firstPreemptions?: readonly number[];
}

/** How far a search is. */
export interface SearchProgress {
  /** States of the search under way. */
  readonly states: number;
  /** Steps taken by the search. */
  readonly transitions: number;
  /** Steps on the path to the present state. */
  readonly frontier: number;
  /** Bound on preemptions of the search under way; Infinity for none. */
  readonly preemptions: number;
}

/** What a search has found. */
export interface SearchResult {
  /** The first violation of each property, under the smallest bound on preemptions that shows one. */
  readonly violations: readonly FoundViolation[];
  /** States of the last, and widest, search. */
  readonly states: number;
  /** Steps of the last search. */
  readonly transitions: number;
  /** Executions of the last search. */
  readonly schedules: number;
  /** Longest execution in steps. */
  readonly depth: number;
  /** Bounds that were hit. A bound on preemptions is not among them: it says how wide the space is. */
  readonly hit: readonly BoundHit[];
  /** Whether everything within the bounds was looked at. */
  readonly exhausted: boolean;
  /** Whether the search was interrupted. */
  readonly interrupted: boolean;
  /** Bound on preemptions of the last search; Infinity when nothing was left out for it. */
  readonly preemptions: number;
  /** Reductions that the last search used. */
  readonly reductions: Reductions;
}

/** Bounds on preemptions that are tried before an unbounded search. */
const FIRST_PREEMPTIONS = [0, 1, 2];
/** Random executions from which is learned before the first search. */
const LEARNING: { schedules: number; depth: number } = { schedules: Infinity, depth: 1000 };
/** Steps of all of them together, at least. */
const LEARNING_STEPS = 20_000;
/** And at most: seconds. */
const LEARNING_STEPS_MAX = 2_000_000;
/** Of the steps that searches have taken so far, one in so many is taken again to learn from. */
const LEARNING_SHARE = 4;
/** Seed of those. */
const LEARNING_SEED = 1;
/** A stale search goes on, to learn more, until it has taken as many steps again as it had, but these at least, */
const STALE_STEPS = 2000;
/** and these at most. */
const STALE_STEPS_MAX = 200_000;

/** Searches everything within the bounds; for properties of cycles, all states whatever the bound on preemptions is. */
export function search(engine: Engine, options: SearchOptions = {}): SearchResult {
  const { result, acyclic } = searchStates(engine, options);
  return acyclic ? result : withCycles(engine, options, result);
}

/** Adds to the result of a search what there is to say about properties of cycles. */
export function withCycles(engine: Engine, options: SearchOptions, result: SearchResult): SearchResult {
  const properties = options.properties ?? engine.system.properties;
  const cycles = properties.filter(({ when }) => when === "cycle");
  if (cycles.length === 0 || result.interrupted) return result;
  const { states } = { ...DEFAULT_BOUNDS, ...options.bounds };
  const violations = [...result.violations];
  const hit = new Set(result.hit);
  let exhausted: boolean = result.exhausted;
  let interrupted: boolean = result.interrupted;
  for (const property of cycles) {
    const found = findLivelock(engine, property, {
      states,
      interrupted: (count) => {
        const progress = {
          states: count,
          transitions: engine.transitions,
          frontier: engine.depth,
          preemptions: Infinity,
        };
        interrupted = options.progress?.(progress) ?? false;
        return interrupted;
      },
    });
    if (found.violation !== undefined) violations.push(found.violation);
    if (found.exhausted) continue;
    exhausted = false;
    if (!interrupted) hit.add("states");
  }
  return { ...result, violations, hit: [...hit], exhausted, interrupted };
}

/** A search of the states. */
export interface StateSearch {
  readonly result: SearchResult;
  /** Whether it has shown that no execution goes on for ever: then nothing is to be said about cycles. */
  readonly acyclic: boolean;
}

/** Searches the states for properties of states and of ends. */
function searchStates(engine: Engine, options: SearchOptions): StateSearch {
  const bounds = { ...DEFAULT_BOUNDS, ...options.bounds };
  const { reductions = ALL_REDUCTIONS, until = "all" } = options;
  const wanted = (options.properties ?? engine.system.properties).filter(({ when }) => when !== "cycle");
  const found: FoundViolation[] = [];
  const begin = engine.transitions;
  let behaviour: Behaviour | undefined;
  for (const preemptions of preemptionBounds(bounds.preemptions, options.firstPreemptions)) {
    const missing = wanted.filter((property) => !found.some((violation) => violation.property === property));
    // With every property violated there is nothing to look for; with none given, the states themselves are asked for.
    if (preemptions === Infinity && canReduce(engine, reductions)) {
      behaviour = learn(engine, engine.transitions - begin);
    }
    const { result, acyclic } = once(engine, { ...bounds, preemptions }, reductions, missing, options, behaviour);
    engine.recording = false;
    found.push(...result.violations);
    const whole = { result: { ...result, violations: found }, acyclic };
    if (!result.exhausted || preemptions === bounds.preemptions || result.preemptions === Infinity) return whole;
    if (until === "first" && found.length > 0) return whole;
    if (
      until === "all" && wanted.length > 0 && wanted.every((property) => found.some((v) => v.property === property))
    ) {
      return whole;
    }
  }
  throw new RangeError(`No bound on preemptions to search with`);
}

/** The bounds on preemptions that a search goes through, up to `last`. */
export function preemptionBounds(last: number, first?: readonly number[]): number[] {
  const before = first ?? (last === Infinity ? FIRST_PREEMPTIONS : Array.from({ length: last }, (_, k) => k));
  return [...before.filter((bound) => bound < last), last];
}

/** Whether the order of steps can be left out of account at all. */
export function canReduce(engine: Engine, { fingerprints, persistentSets, sleepSets }: Reductions): boolean {
  // Where it may be over in the middle of something, every step depends on every other.
  return fingerprints && (persistentSets || sleepSets) && !engine.watchesAll && engine.system.over === undefined;
}

/** One search under one bound, begun again as often as what is known of the agents turns out to be stale. */
function once(
  engine: Engine,
  bounds: SearchBounds,
  reductions: Reductions,
  properties: readonly Property[],
  options: SearchOptions,
  learned: Behaviour | undefined,
): StateSearch {
  const found: FoundViolation[] = [];
  for (let behaviour = learned;;) {
    const used = behaviour === undefined ? { ...reductions, persistentSets: false, sleepSets: false } : reductions;
    engine.recording = behaviour !== undefined;
    behaviour?.freeze();
    const begin = engine.transitions;
    const scheduler = new ExhaustiveScheduler(engine, bounds, used, { behaviour });
    let staleAt = -1;
    const exploration = explore(
      engine,
      new Watched(scheduler, () => {
        if (behaviour?.broken === true) return true;
        if (behaviour?.stale !== true) return false;
        const steps = engine.transitions - begin;
        if (staleAt < 0) staleAt = steps;
        return steps > staleLimit(staleAt);
      }),
      {
        properties: properties.filter((property) => !found.some((violation) => violation.property === property)),
        until: options.until ?? "all",
        interrupted: () => {
          const { states, depth: frontier } = scheduler;
          const progress = { states, transitions: engine.transitions, frontier, preemptions: bounds.preemptions };
          return options.progress?.(progress) ?? false;
        },
      },
    );
    found.push(...exploration.violations);
    const over = exploration.interrupted || exploration.stopped || scheduler.hit.size > 0;
    if (behaviour?.broken === true) behaviour = undefined;
    else if (behaviour?.stale === true && !over) learnMore(engine, behaviour, engine.transitions - begin);
    else {
      const result = summary(exploration, scheduler, bounds, used, found);
      return { result, acyclic: result.exhausted && behaviour?.acyclic === true && !behaviour.stale };
    }
  }
}

function summary(
  exploration: Exploration,
  scheduler: ExhaustiveScheduler,
  bounds: SearchBounds,
  reductions: Reductions,
  violations: readonly FoundViolation[],
): SearchResult {
  const { transitions, schedules, depth, interrupted, stopped } = exploration;
  return {
    violations,
    states: scheduler.states,
    transitions,
    schedules,
    depth,
    hit: [...scheduler.hit],
    exhausted: !interrupted && !stopped && scheduler.hit.size === 0,
    interrupted,
    preemptions: scheduler.preemptionsLeftOut || interrupted || stopped ? bounds.preemptions : Infinity,
    reductions,
  };
}

/**
 * Learns what agents do: from random executions, and then from searches until one has met nothing new or `transitions`
 * steps have been taken, or `stopped`. Everybody who is not stopped learns the same of the same system.
 */
export function learnThoroughly(engine: Engine, transitions: number, stopped: () => boolean = () => false): Behaviour {
  const behaviour = learn(engine);
  const end = engine.transitions + transitions;
  const reductions = { fingerprints: true, persistentSets: true, sleepSets: false };
  do {
    behaviour.freeze();
    const scheduler = new ExhaustiveScheduler(engine, DEFAULT_BOUNDS, reductions, { behaviour });
    const begin = engine.transitions;
    let staleEnd = end;
    const over = () => {
      if (behaviour.stale && staleEnd === end) staleEnd = Math.min(end, staleLimit(engine.transitions - begin) + begin);
      return behaviour.broken || engine.transitions >= staleEnd || stopped();
    };
    explore(engine, new Watched(scheduler, over), { properties: [] });
  } while (behaviour.stale && !behaviour.broken && engine.transitions < end && !stopped());
  behaviour.freeze();
  return behaviour;
}

/** Steps up to which a search goes on, to learn more, that has become stale behind so many. */
export function staleLimit(steps: number): number {
  return steps + Math.min(STALE_STEPS_MAX, Math.max(STALE_STEPS, steps));
}

/** Learns what agents do from random executions; from more of them when a search so far has taken many steps. */
export function learn(engine: Engine, searched = 0): Behaviour {
  const behaviour = new Behaviour(engine);
  learnMore(engine, behaviour, searched);
  return behaviour;
}

/**
 * Learns more, after a search of `searched` steps: a search looks at one part of the space after the other, and meets
 * late what random executions meet early.
 */
export function learnMore(engine: Engine, behaviour: Behaviour, searched: number): void {
  const random = new RandomScheduler(Random.seeded(LEARNING_SEED + searched), LEARNING);
  const steps = Math.min(LEARNING_STEPS_MAX, Math.max(LEARNING_STEPS, Math.floor(searched / LEARNING_SHARE)));
  engine.recording = true;
  engine.chooser = random;
  let [before, after] = [behaviour.situation(), behaviour.situation()];
  const end = engine.transitions + steps;
  while (engine.transitions < end && random.newExecution(engine)) {
    behaviour.begin(before);
    for (;;) {
      behaviour.look(before);
      const actor = random.nextActor(engine);
      if (actor < 0) break;
      engine.execute(actor);
      behaviour.took(actor, before, after);
      [before, after] = [after, before];
    }
    if (engine.depth === 0) return; // nobody can take a step
  }
}

/** A scheduler that ends when `over` says so. */
class Watched implements Scheduler {
  readonly #inner: ExhaustiveScheduler;
  readonly #over: () => boolean;

  constructor(inner: ExhaustiveScheduler, over: () => boolean) {
    this.#inner = inner;
    this.#over = over;
  }
  newExecution(engine: Engine): boolean {
    return !this.#over() && this.#inner.newExecution(engine);
  }
  nextActor(engine: Engine): number {
    return this.#inner.nextActor(engine);
  }
  nextChoice(): number {
    return this.#inner.nextChoice();
  }
}
