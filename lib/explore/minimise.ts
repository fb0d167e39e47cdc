/**
 * Minimising a violation: fewest context switches, then fewest steps. Exactly where the space allows it, otherwise by
 * leaving out and moving runs of steps; every candidate is validated by running it.
 *
 * @module
 */
import type { Choice, Engine } from "./engine.ts";
import { preemption } from "./exhaustive.ts";
import type { FoundViolation } from "./explorer.ts";
import { lowest } from "./scheduler.ts";
import { type Cost, isViolated, shortest, type ShortestBounds } from "./shortest.ts";
import type { Property } from "./system.ts";

/** States of the exact search, unless another bound is given. */
export const SHORTEST_STATES = 400_000;
/** Candidates that are run where the exact search gives up. */
const CANDIDATES_MAX = 3000;
/** Steps that a candidate may take beyond those that it names. */
const REST_MAX = 1000;

/** A minimised violation. */
export interface Minimised extends FoundViolation, Cost {
  /**
   * Whether no schedule has a lower cost. Not said of a cycle: the way into it and the round from there are the cheapest
   * each, but another way in, or another cycle, might be cheaper together.
   */
  readonly exact: boolean;
}

/** Minimises a violation that a scheduler has found. */
export function minimise(
  engine: Engine,
  found: FoundViolation,
  bounds: ShortestBounds = { states: SHORTEST_STATES },
): Minimised {
  const { property } = found;
  engine.recording = false;
  if (property.when === "cycle") return { ...found, ...costOf(engine, found.choices), exact: false };
  const first = run(engine, found.choices, property);
  if (first === undefined) {
    throw new Error(`The schedule of '${property.name}' does not violate it when it is run again`);
  }
  const exact = shortest(engine, property, costOf(engine, first), bounds);
  const choices = exact ?? reduce(engine, property, first);
  const cost = costOf(engine, choices);
  if (!isViolated(engine, property)) {
    throw new Error(`The minimised schedule of '${property.name}' does not violate it`);
  }
  const kind = typeof property.kind === "string" ? property.kind : property.kind();
  return { property, kind, choices, ...cost, exact: exact !== undefined };
}

/** Runs choices exactly as they are, and counts switches and steps. The engine is behind the last of them afterwards. */
export function costOf(engine: Engine, choices: readonly Choice[]): Cost {
  let switches = 0;
  let last = -1;
  let outcome = 0;
  engine.restore();
  engine.chooser = { nextChoice: () => outcome };
  for (const choice of choices) {
    switches += preemption(last, choice.actor, engine.enabled());
    last = choice.actor;
    outcome = choice.outcome;
    engine.execute(last);
  }
  return { switches, steps: choices.length };
}

/** Whether one cost is lower. */
function cheaper(a: Cost, b: Cost): boolean {
  return a.switches !== b.switches ? a.switches < b.switches : a.steps < b.steps;
}

/**
 * Runs choices, leaving out those whose actor cannot go on, until `property` is violated; a property of ends gets the
 * rest of the execution too, without a switch that is not needed. The choices that were taken, or nothing.
 */
function run(engine: Engine, choices: readonly Choice[], property: Property): readonly Choice[] | undefined {
  let outcome = 0;
  engine.restore();
  engine.chooser = { nextChoice: (count) => Math.min(outcome, count - 1) };
  if (isViolated(engine, property)) return [];
  for (const choice of choices) {
    if (!engine.isEnabled(choice.actor)) continue;
    outcome = choice.outcome;
    engine.execute(choice.actor);
    if (isViolated(engine, property)) return engine.path();
  }
  if (property.when !== "end") return undefined;
  outcome = 0;
  let last = choices.at(-1)?.actor ?? -1;
  for (let k = 0; k < REST_MAX; k++) {
    const enabled = engine.enabled() & engine.fairMask;
    if (enabled === 0) return undefined;
    if (last < 0 || (enabled & (1 << last)) === 0) last = lowest(enabled);
    engine.execute(last);
    if (isViolated(engine, property)) return engine.path();
  }
  return undefined;
}

/** Leaves out and moves runs of steps of one actor for as long as that makes the schedule cheaper. */
function reduce(engine: Engine, property: Property, first: readonly Choice[]): readonly Choice[] {
  let best = first;
  let cost = costOf(engine, best);
  let left = CANDIDATES_MAX;
  for (let improved = true; improved && left > 0;) {
    improved = false;
    for (const candidate of candidates(best)) {
      if (left-- === 0) break;
      const taken = run(engine, candidate, property);
      if (taken === undefined) continue;
      const price = costOf(engine, taken);
      if (!cheaper(price, cost)) continue;
      best = taken;
      cost = price;
      improved = true;
      break;
    }
  }
  costOf(engine, best);
  return best;
}

/** Schedules that might be cheaper than `choices`. */
function* candidates(choices: readonly Choice[]): Generator<readonly Choice[]> {
  const blocks: Choice[][] = [];
  for (const choice of choices) {
    const last = blocks.at(-1);
    if (last?.[0].actor === choice.actor) last.push(choice);
    else blocks.push([choice]);
  }
  for (let k = blocks.length - 1; k >= 0; k--) yield blocks.filter((_, other) => other !== k).flat();
  for (let k = 0; k < blocks.length; k++) {
    for (let later = k + 1; later < blocks.length; later++) {
      if (blocks[later][0].actor !== blocks[k][0].actor) continue;
      const rest = blocks.filter((_, other) => other !== later);
      yield [...rest.slice(0, k), [...blocks[k], ...blocks[later]], ...rest.slice(k + 1)].flat();
      const moved = blocks.filter((_, other) => other !== k);
      yield [...moved.slice(0, later - 1), [...blocks[k], ...blocks[later]], ...moved.slice(later)].flat();
      break;
    }
  }
  for (let k = choices.length - 1; k >= 0; k--) yield choices.filter((_, other) => other !== k);
}
