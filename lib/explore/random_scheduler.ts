/**
 * Seeded random schedules, uniform over the enabled actors at each step.
 *
 * @module
 */
import type { Random } from "../memory/random.ts";
import type { Engine } from "./engine.ts";
import { count, nth, type Scheduler, STOP } from "./scheduler.ts";

/** Bounds of schedules that are drawn. */
export interface DrawnBounds {
  /** How many schedules. */
  readonly schedules: number;
  /** Steps of each. */
  readonly depth: number;
}

/** Draws schedules. */
export class RandomScheduler implements Scheduler {
  readonly #random: Random;
  readonly #bounds: DrawnBounds;
  #left: number;
  /** Whether a schedule was cut at the bound on its steps. */
  cut = false;

  /** Schedules from `random`. */
  constructor(random: Random, bounds: DrawnBounds) {
    this.#random = random;
    this.#bounds = bounds;
    this.#left = bounds.schedules;
  }

  newExecution(engine: Engine): boolean {
    if (this.#left-- === 0) return false;
    engine.restore();
    return true;
  }

  nextActor(engine: Engine): number {
    const enabled = engine.enabled();
    if (enabled === 0) return STOP;
    if (engine.depth >= this.#bounds.depth) {
      this.cut = true;
      return STOP;
    }
    return nth(enabled, this.#random.below(count(enabled)));
  }

  nextChoice(count: number): number {
    return this.#random.below(count);
  }
}
