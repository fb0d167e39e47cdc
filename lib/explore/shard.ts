/**
 * A part of a search for a machine of its own: every shard finds the same states near the beginning, and searches what is
 * reached from its share of them, with persistent sets of its own. Nothing passes between shards; `report.ts` joins their
 * results.
 *
 * A cycle of states lies in the common part and in what one shard reaches. A shard that knows of no agent that goes round
 * in what it has seen has shown that there is none there. One that does not know that looks for cycles in all states, as
 * a search that is not divided does.
 *
 * @module
 */
import type { Behaviour, Situation } from "./behaviour.ts";
import type { Choice, Engine, Snapshot } from "./engine.ts";
import {
  ALL_REDUCTIONS,
  type BoundHit,
  DEFAULT_BOUNDS,
  ExhaustiveScheduler,
  preemption,
  type SearchBounds,
  type Task,
} from "./exhaustive.ts";
import { explore, type FoundViolation } from "./explorer.ts";
import { Fingerprints } from "./fingerprints.ts";
import { mixHigh, mixLow } from "./hash.ts";
import { lowest } from "./scheduler.ts";
import {
  canReduce,
  learn,
  learnMore,
  preemptionBounds,
  type SearchOptions,
  type SearchResult,
  staleLimit,
  type StateSearch,
  withCycles,
} from "./search.ts";

/** One of several parts of a search. */
export interface Shard {
  /** From 1. */
  readonly index: number;
  readonly count: number;
}

/** Beginnings for each shard, so that the parts are of about the same size. */
const TASKS_PER_SHARD = 64;

/** A state near the beginning. */
interface Beginning {
  readonly choices: readonly Choice[];
  readonly snapshot: Snapshot;
  readonly last: number;
  readonly preemptions: number;
  readonly situation: Situation | undefined;
}

/** Searches one shard. Violations in the states that all shards share are reported by all of them. */
export function searchShard(engine: Engine, shard: Shard, options: SearchOptions = {}): SearchResult {
  const { result, acyclic } = searchStates(engine, shard, options);
  engine.recording = false;
  return acyclic ? result : withCycles(engine, options, result);
}

/** Searches the states of one shard for properties of states and of ends. */
function searchStates(engine: Engine, shard: Shard, options: SearchOptions): StateSearch {
  const bounds = { ...DEFAULT_BOUNDS, ...options.bounds };
  const wanted = (options.properties ?? engine.system.properties).filter(({ when }) => when !== "cycle");
  const found: FoundViolation[] = [];
  const { until = "all" } = options;
  for (const preemptions of preemptionBounds(bounds.preemptions, options.firstPreemptions)) {
    const searched = within(engine, shard, { ...bounds, preemptions }, found, options);
    const { result } = searched;
    if (!result.exhausted || preemptions === bounds.preemptions || result.preemptions === Infinity) return searched;
    if (until === "first" && found.length > 0) return searched;
    if (until === "all" && wanted.length > 0 && found.length === wanted.length) return searched;
  }
  throw new RangeError("No bound on preemptions to search with");
}

/** One bound on preemptions; begun again as often as what is known turns out to be stale. Adds violations to `found`. */
function within(
  engine: Engine,
  shard: Shard,
  bounds: SearchBounds,
  found: FoundViolation[],
  options: SearchOptions,
): StateSearch {
  const { reductions = ALL_REDUCTIONS } = options;
  const reduces = bounds.preemptions === Infinity && reductions.persistentSets && canReduce(engine, reductions);
  const begin = engine.transitions;
  for (let behaviour = reduces ? learn(engine) : undefined;;) {
    engine.recording = behaviour !== undefined;
    behaviour?.freeze();
    const { result, again } = once(engine, shard, bounds, found, options, behaviour);
    if (!again) return { result, acyclic: result.exhausted && behaviour?.acyclic === true };
    if (behaviour?.broken === true) behaviour = undefined;
    else if (behaviour !== undefined) learnMore(engine, behaviour, engine.transitions - begin);
  }
}

/** One pass under one bound on preemptions; adds violations to `found`. */
function once(
  engine: Engine,
  shard: Shard,
  bounds: SearchBounds,
  found: FoundViolation[],
  options: SearchOptions,
  behaviour: Behaviour | undefined,
): { result: SearchResult; again: boolean } {
  const wanted = (options.properties ?? engine.system.properties).filter(({ when }) => when !== "cycle");
  const states = new Fingerprints();
  const begin = engine.transitions;
  const { tasks, leftOut: leftOutBefore } = beginnings(engine, bounds, shard.count * TASKS_PER_SHARD, behaviour);
  const persistentSets = behaviour !== undefined;
  const reductions = { ...(options.reductions ?? ALL_REDUCTIONS), persistentSets, sleepSets: false };
  const hit = new Set<BoundHit>();
  const total = { transitions: 0, schedules: 0, depth: 0 };
  let leftOut = leftOutBefore;
  let interrupted = false;
  let stopped = false;
  let staleAt = -1;
  /** Whether what is known has become stale, and enough more was learned for the next pass. */
  const knowsTooLittle = (): boolean => {
    if (behaviour?.stale !== true && behaviour?.broken !== true) return false;
    const steps = engine.transitions - begin;
    if (staleAt < 0) staleAt = steps;
    return behaviour.broken || steps > staleLimit(staleAt);
  };
  tasks.forEach((task, number) => {
    if (number % shard.count !== shard.index - 1 || interrupted || stopped || knowsTooLittle()) return;
    const scheduler = new ExhaustiveScheduler(engine, bounds, reductions, { states, task, behaviour });
    let learned = false;
    const result = explore(engine, scheduler, {
      properties: wanted.filter((property) => !found.some((violation) => violation.property === property)),
      until: options.until ?? "all",
      interrupted: () => {
        if ((learned = knowsTooLittle())) return true;
        const { preemptions } = bounds;
        const progress = { states: states.size, transitions: engine.transitions, frontier: engine.depth, preemptions };
        return options.progress?.(progress) ?? false;
      },
    });
    found.push(...result.violations);
    total.transitions += result.transitions;
    total.schedules += result.schedules;
    total.depth = Math.max(total.depth, result.depth);
    leftOut ||= scheduler.preemptionsLeftOut;
    interrupted = result.interrupted && !learned;
    stopped = result.stopped;
    for (const bound of scheduler.hit) hit.add(bound);
  });
  const isStale = behaviour !== undefined && (behaviour.stale || behaviour.broken);
  const result: SearchResult = {
    violations: [...found],
    states: states.size,
    ...total,
    hit: [...hit],
    exhausted: !interrupted && !stopped && hit.size === 0,
    interrupted,
    preemptions: leftOut || interrupted || stopped || bounds.preemptions === Infinity ? bounds.preemptions : Infinity,
    reductions,
  };
  return { result, again: isStale && result.exhausted };
}

/** The states at the least depth at which there are `enough`, with the ways to them; the same in every shard. */
function beginnings(
  engine: Engine,
  bounds: SearchBounds,
  enough: number,
  behaviour: Behaviour | undefined,
): { tasks: Task[]; leftOut: boolean } {
  const seen = new Fingerprints();
  engine.restore();
  const initial = behaviour?.situation();
  if (initial !== undefined) behaviour!.begin(initial);
  let level: Beginning[] = [{
    choices: [],
    snapshot: engine.snapshot(),
    last: -1,
    preemptions: 0,
    situation: initial,
  }];
  const ways: Task[] = [];
  let leftOut = false;
  let outcome = 0;
  while (level.length > 0 && level.length < enough) {
    const next: Beginning[] = [];
    engine.chooser = { nextChoice: () => outcome };
    for (const from of level) {
      engine.restore(from.snapshot);
      const low = engine.hashLow;
      const high = engine.hashHigh;
      const enabled = engine.enabled();
      ways.push({ choices: from.choices, todo: 0 });
      for (let rest = enabled; rest !== 0; rest &= rest - 1) {
        const actor = lowest(rest);
        const preemptions = from.preemptions + preemption(from.last, actor, enabled);
        if (preemptions > bounds.preemptions) {
          leftOut = true;
          continue;
        }
        outcome = 0;
        for (let outcomes = 1; outcome < outcomes; outcome++) {
          engine.execute(actor);
          outcomes = engine.outcomes;
          const situation = behaviour?.situation();
          if (situation !== undefined) behaviour!.took(actor, from.situation!, situation);
          const key = mixLow(-3, preemptions) ^ mixLow(-2, actor);
          seen.add(engine.hashLow ^ key, engine.hashHigh ^ mixHigh(-3, preemptions) ^ mixHigh(-2, actor), 0);
          if (!seen.known) {
            const choices = [...from.choices, { actor, outcome }];
            next.push({ choices, snapshot: engine.snapshot(), last: actor, preemptions, situation });
          }
          engine.undo(0, 0, low, high);
        }
      }
    }
    level = next;
  }
  // The states on the way are only looked at: nothing is to be tried from there that the others do not try.
  return { tasks: [...ways, ...level.map(({ choices }) => ({ choices, todo: -1 }))], leftOut };
}
