/**
 * The shortest schedule that violates a property: fewest context switches, then fewest steps; of several, the one in
 * which agents go on as long as they can, in their order. Found by Dijkstra's search over states and the agent that came
 * last, so that it does not depend on how the violation was found.
 *
 * A context switch is a step whose agent differs from the previous step's while that one was still enabled.
 *
 * @module
 */
import type { Choice, Engine, Snapshot } from "./engine.ts";
import { preemption } from "./exhaustive.ts";
import { Fingerprints } from "./fingerprints.ts";
import { mixHigh, mixLow } from "./hash.ts";
import { lowest } from "./scheduler.ts";
import type { Property } from "./system.ts";

/** What is given up for: the search's result is then unknown. */
export interface ShortestBounds {
  /** States that may be waiting or done. */
  readonly states: number;
  /** Asked every few thousand states; true gives up. */
  readonly interrupted?: () => boolean;
}

/** Bits of a cost for the steps; the switches are above them. */
const STEP_BITS = 20;
/** States between two calls of `interrupted`. */
const INTERRUPT_EVERY = 4096;

/** A state that is waiting to be looked at. */
interface Waiting {
  readonly snapshot: Snapshot;
  /** How it was reached: index into the lists of the search. */
  readonly node: number;
  readonly last: number;
  readonly cost: number;
}

/** Switches and steps of a schedule. */
export interface Cost {
  readonly switches: number;
  readonly steps: number;
}

/** Whether `property` is violated in the present state. */
export function isViolated(engine: Engine, property: Property): boolean {
  if (property.when === "cycle") return false;
  if (property.when === "end" && (engine.enabled() & engine.fairMask) !== 0) return false;
  return !property.holds();
}

/**
 * The shortest schedule after which `property` is violated. `atMost` is the cost of a schedule that is known to do it;
 * longer ones are not looked at. Nothing when the bounds were hit.
 */
export function shortest(
  engine: Engine,
  property: Property,
  atMost: Cost,
  bounds: ShortestBounds,
): readonly Choice[] | undefined {
  const parents: number[] = [];
  const choices: Choice[] = [];
  const best = new Fingerprints();
  // One list for each cost; costs only grow, by one step or by one step and one switch.
  const lists = new Map<number, Waiting[]>();
  const levels: Set<number>[] = [];
  const add = (waiting: Waiting): void => {
    const list = lists.get(waiting.cost);
    if (list !== undefined) {
      list.push(waiting);
      return;
    }
    lists.set(waiting.cost, [waiting]);
    (levels[waiting.cost >>> STEP_BITS] ??= new Set()).add(waiting.cost);
  };
  const limit = (atMost.switches << STEP_BITS) + Math.min(atMost.steps, 2 ** STEP_BITS - 1);
  engine.restore();
  add({ snapshot: engine.snapshot(), node: -1, last: -1, cost: 0 });
  let seen = 0;
  for (let switches = 0; switches < levels.length; switches++) {
    const level = levels[switches];
    if (level === undefined) continue;
    for (let cost = switches << STEP_BITS; level.size > 0; cost++) {
      if (!level.delete(cost)) continue;
      const list = lists.get(cost)!;
      lists.delete(cost);
      for (let k = 0; k < list.length; k++) {
        const { snapshot, node, last } = list[k];
        engine.restore(snapshot);
        const place = best.find(...key(engine, last));
        if (place >= 0 && best.notes(place) < cost) continue; // reached at less cost since
        if (isViolated(engine, property)) return pathTo(node, parents, choices);
        if (++seen % INTERRUPT_EVERY === 0 && bounds.interrupted?.()) return undefined;
        if (best.size > bounds.states) return undefined;
        expand(engine, list[k], limit, best, (choice, reached, price) => {
          parents.push(node);
          choices.push(choice);
          add({ snapshot: reached, node: choices.length - 1, last: choice.actor, cost: price });
        });
      }
    }
  }
  return undefined;
}

/** Calls `reached` for every state behind `from` that was not reached at less cost. The engine is in `from`. */
function expand(
  engine: Engine,
  from: Waiting,
  limit: number,
  best: Fingerprints,
  reached: (choice: Choice, snapshot: Snapshot, cost: number) => void,
): void {
  const { last } = from;
  const enabled = engine.enabled();
  const low = engine.hashLow;
  const high = engine.hashHigh;
  const first = last >= 0 && (enabled & (1 << last)) !== 0 ? 1 << last : 0;
  let outcome = 0;
  engine.chooser = { nextChoice: () => outcome };
  const visit = (actor: number): void => {
    const cost = from.cost + 1 + (preemption(last, actor, enabled) << STEP_BITS);
    if (cost > limit) return;
    for (outcome = 0;; outcome++) {
      engine.execute(actor);
      const { outcomes } = engine;
      const place = best.add(...key(engine, actor), cost);
      if (!best.known || best.notes(place) > cost) {
        best.note(place, cost);
        reached({ actor, outcome: engine.outcome }, engine.snapshot(), cost);
      }
      engine.undo(0, 0, low, high);
      if (outcome + 1 >= outcomes) return;
    }
  };
  if (first !== 0) visit(last);
  for (let rest = enabled & ~first; rest !== 0; rest &= rest - 1) visit(lowest(rest));
}

function key(engine: Engine, last: number): [low: number, high: number] {
  return [engine.hashLow ^ mixLow(-2, last), engine.hashHigh ^ mixHigh(-2, last)];
}

function pathTo(node: number, parents: readonly number[], choices: readonly Choice[]): Choice[] {
  const path: Choice[] = [];
  for (let at = node; at >= 0; at = parents[at]) path.push(choices[at]);
  return path.reverse();
}
