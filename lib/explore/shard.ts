/**
 * A part of a search for a machine of its own: every shard finds the same states near the beginning, and searches what is
 * reached from its share of them. Nothing passes between shards; `report.ts` joins their results.
 *
 * @module
 */
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
import { preemptionBounds, type SearchOptions, type SearchResult } from "./search.ts";

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
}

/**
 * Searches one shard. The reduction is by fingerprints alone. Violations in the states that all shards share are reported
 * by all of them. Properties of cycles are not looked at: a cycle may lead through several shards.
 */
export function searchShard(engine: Engine, shard: Shard, options: SearchOptions = {}): SearchResult {
  const bounds = { ...DEFAULT_BOUNDS, ...options.bounds };
  const wanted = (options.properties ?? engine.system.properties).filter(({ when }) => when !== "cycle");
  const found: FoundViolation[] = [];
  const { until = "all" } = options;
  for (const preemptions of preemptionBounds(bounds.preemptions, options.firstPreemptions)) {
    const result = once(engine, shard, { ...bounds, preemptions }, found, options);
    if (!result.exhausted || preemptions === bounds.preemptions || result.preemptions === Infinity) return result;
    if (until === "first" && found.length > 0) return result;
    if (until === "all" && wanted.length > 0 && found.length === wanted.length) return result;
  }
  throw new RangeError("No bound on preemptions to search with");
}

/** One bound on preemptions; adds violations to `found`. */
function once(
  engine: Engine,
  shard: Shard,
  bounds: SearchBounds,
  found: FoundViolation[],
  options: SearchOptions,
): SearchResult {
  const wanted = (options.properties ?? engine.system.properties).filter(({ when }) => when !== "cycle");
  const states = new Fingerprints();
  const { tasks, leftOut: leftOutBefore } = beginnings(engine, bounds, shard.count * TASKS_PER_SHARD);
  const reductions = { ...(options.reductions ?? ALL_REDUCTIONS), persistentSets: false, sleepSets: false };
  const hit = new Set<BoundHit>();
  const total = { transitions: 0, schedules: 0, depth: 0 };
  let leftOut = leftOutBefore;
  let interrupted = false;
  let stopped = false;
  tasks.forEach((task, number) => {
    if (number % shard.count !== shard.index - 1 || interrupted || stopped) return;
    const scheduler = new ExhaustiveScheduler(engine, bounds, reductions, { states, task });
    const result = explore(engine, scheduler, {
      properties: wanted.filter((property) => !found.some((violation) => violation.property === property)),
      until: options.until ?? "all",
      interrupted: () => {
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
    interrupted = result.interrupted;
    stopped = result.stopped;
    for (const bound of scheduler.hit) hit.add(bound);
  });
  return {
    violations: [...found],
    states: states.size,
    ...total,
    hit: [...hit],
    exhausted: !interrupted && !stopped && hit.size === 0,
    interrupted,
    preemptions: leftOut || interrupted || stopped || bounds.preemptions === Infinity ? bounds.preemptions : Infinity,
    reductions,
  };
}

/** The states at the least depth at which there are `enough`, with the ways to them; the same in every shard. */
function beginnings(engine: Engine, bounds: SearchBounds, enough: number): { tasks: Task[]; leftOut: boolean } {
  const seen = new Fingerprints();
  engine.restore();
  let level: Beginning[] = [{ choices: [], snapshot: engine.snapshot(), last: -1, preemptions: 0 }];
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
          const key = mixLow(-3, preemptions) ^ mixLow(-2, actor);
          seen.add(engine.hashLow ^ key, engine.hashHigh ^ mixHigh(-3, preemptions) ^ mixHigh(-2, actor), 0);
          if (!seen.known) {
            const choices = [...from.choices, { actor, outcome }];
            next.push({ choices, snapshot: engine.snapshot(), last: actor, preemptions });
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
