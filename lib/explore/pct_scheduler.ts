/**
 * Probabilistic concurrency testing (Burckhardt, Kothari, Musuvathi, Nagarakatti: "A Randomized Scheduler with
 * Probabilistic Guarantees of Finding Bugs", ASPLOS 2010): every actor has a random priority, the highest one that is
 * enabled goes on, and at d - 1 random steps the one that is about to run falls behind all others. A violation of depth d
 * is found in one schedule with probability at least 1 / (n k^(d-1)), n being the actors and k the steps.
 *
 * @module
 */
import type { Random } from "../memory/random.ts";
import type { Engine } from "./engine.ts";
import type { DrawnBounds } from "./random_scheduler.ts";
import { lowest, type Scheduler, STOP } from "./scheduler.ts";

/** Depth of the violations looked for, unless another is given: two changes of priority. */
export const PCT_DEPTH = 3;

/** Draws schedules by priorities. */
export class PctScheduler implements Scheduler {
  readonly #random: Random;
  readonly #bounds: DrawnBounds;
  readonly #depth: number;
  #left: number;
  #priorities: number[] = [];
  #changes: Set<number> = new Set();
  #lowered = 0;
  /** Longest schedule so far: the changes fall into as many steps. */
  #steps = 1;
  /** Whether a schedule was cut at the bound on its steps. */
  cut = false;

  /** Schedules from `random` for violations of depth `depth`. */
  constructor(random: Random, bounds: DrawnBounds, depth: number = PCT_DEPTH) {
    this.#random = random;
    this.#bounds = bounds;
    this.#depth = depth;
    this.#left = bounds.schedules;
  }

  newExecution(engine: Engine): boolean {
    if (this.#left-- === 0) return false;
    engine.restore();
    const actors = engine.actorNames.length;
    // Priorities from `depth` up, shuffled; those below are for actors that are lowered.
    this.#priorities = Array.from({ length: actors }, (_, k) => this.#depth + k);
    for (let k = actors - 1; k > 0; k--) {
      const other = this.#random.below(k + 1);
      [this.#priorities[k], this.#priorities[other]] = [this.#priorities[other], this.#priorities[k]];
    }
    this.#changes = new Set(Array.from({ length: this.#depth - 1 }, () => this.#random.below(this.#steps)));
    this.#lowered = 0;
    return true;
  }

  nextActor(engine: Engine): number {
    const enabled = engine.enabled();
    this.#steps = Math.max(this.#steps, engine.depth);
    if (enabled === 0) return STOP;
    if (engine.depth >= this.#bounds.depth) {
      this.cut = true;
      return STOP;
    }
    const first = this.#highest(enabled);
    if (!this.#changes.has(engine.depth)) return first;
    this.#priorities[first] = this.#depth - 1 - ++this.#lowered;
    return this.#highest(enabled);
  }

  nextChoice(count: number): number {
    return this.#random.below(count);
  }

  #highest(enabled: number): number {
    let best = lowest(enabled);
    for (let rest = enabled; rest !== 0; rest &= rest - 1) {
      const actor = lowest(rest);
      if (this.#priorities[actor] > this.#priorities[best]) best = actor;
    }
    return best;
  }
}
