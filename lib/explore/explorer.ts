/**
 * The exploration itself: executions as a scheduler decides them, and the properties after every step.
 *
 * @module
 */
import type { Choice, Engine } from "./engine.ts";
import { KNOWN, type Scheduler } from "./scheduler.ts";
import type { Property } from "./system.ts";

/** A state in which a property does not hold, and how it was reached. */
export interface FoundViolation {
  readonly property: Property;
  /** What is wrong, in a few words. */
  readonly kind: string;
  /** The choices from the initial state on. */
  readonly choices: readonly Choice[];
  /** Choice from which on the rest can repeat for ever; for a property of cycles. */
  readonly cycleFrom?: number;
}

/** How an exploration is to be watched and when it is to end. */
export interface ExploreOptions {
  /** The properties to check; those of the system when absent. */
  readonly properties?: readonly Property[];
  /** Asked every few thousand steps: true ends the exploration. */
  readonly interrupted?: () => boolean;
  /** End as soon as every property (`all`), or one (`first`), is violated; `never` goes on. */
  readonly until?: "all" | "first" | "never";
}

/** What an exploration has found. */
export interface Exploration {
  /** One for each property that was violated, the first that was met. */
  readonly violations: readonly FoundViolation[];
  /** Steps taken. */
  readonly transitions: number;
  /** Executions that came to an end by themselves or at a state that was known. */
  readonly schedules: number;
  /** Longest execution, in steps. */
  readonly depth: number;
  /** Whether it ended because it was interrupted. */
  readonly interrupted: boolean;
  /** Whether it ended because all that was asked for was found. */
  readonly stopped: boolean;
}

/** Steps between two calls of `interrupted`: a few milliseconds. */
const INTERRUPT_EVERY = 4096;

/** Checks properties in the present state of an engine, and keeps the first violation of each. */
export class Checker {
  readonly violations: FoundViolation[] = [];
  readonly #engine: Engine;
  #always: Property[];
  #end: Property[];
  readonly #asked: number;

  /** Checks `properties` of `engine`'s system. */
  constructor(engine: Engine, properties: readonly Property[]) {
    this.#engine = engine;
    this.#always = properties.filter(({ when }) => when === "always");
    this.#end = properties.filter(({ when }) => when === "end");
    this.#asked = this.#always.length + this.#end.length;
  }

  /** Whether nothing is left that could be found. */
  get done(): boolean {
    return this.#asked > 0 && this.#always.length + this.#end.length === 0;
  }

  /** Checks the present state. */
  check(): void {
    const always = this.#always;
    for (let k = 0; k < always.length; k++) {
      if (!always[k].holds()) {
        this.#found(always[k]);
        return this.check();
      }
    }
    if (this.#end.length !== 0 && (this.#engine.enabled() & this.#engine.fairMask) === 0) this.#checkEnd();
  }

  #checkEnd(): void {
    for (const property of this.#end) if (!property.holds()) this.#found(property);
  }

  #found(property: Property): void {
    const kind = typeof property.kind === "string" ? property.kind : property.kind();
    this.violations.push({ property, kind, choices: this.#engine.path() });
    this.#always = this.#always.filter((other) => other !== property);
    this.#end = this.#end.filter((other) => other !== property);
  }
}

/** Runs the executions that `scheduler` decides on. */
export function explore(engine: Engine, scheduler: Scheduler, options: ExploreOptions = {}): Exploration {
  const { properties = engine.system.properties, interrupted = () => false, until = "all" } = options;
  const checker = new Checker(engine, properties);
  const begin = engine.transitions;
  let nextLook = begin + INTERRUPT_EVERY;
  let schedules = 0;
  let depth = 0;
  engine.chooser = scheduler;
  const result = (how: { interrupted?: boolean; stopped?: boolean }): Exploration => ({
    violations: checker.violations,
    transitions: engine.transitions - begin,
    schedules,
    depth,
    interrupted: how.interrupted ?? false,
    stopped: how.stopped ?? false,
  });
  while (scheduler.newExecution(engine)) {
    let fresh = schedules === 0 || engine.depth === 0; // else it begins in a state that has been looked at
    for (;;) {
      const actor = scheduler.nextActor(engine);
      if (fresh && actor !== KNOWN) {
        checker.check();
        if (until === "all" ? checker.done : until === "first" && checker.violations.length > 0) {
          schedules++;
          return result({ stopped: true });
        }
      }
      if (actor < 0) break;
      engine.execute(actor);
      fresh = true;
      if (engine.depth > depth) depth = engine.depth;
    }
    schedules++;
    if (engine.transitions >= nextLook) {
      nextLook = engine.transitions + INTERRUPT_EVERY;
      if (interrupted()) return result({ interrupted: true });
    }
  }
  return result({});
}
