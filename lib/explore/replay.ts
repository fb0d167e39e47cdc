/**
 * Running a recorded schedule again: step by step as it was, or saying where it takes another way.
 *
 * @module
 */
import { BadInput } from "../memory/bad_input.ts";
import type { Choice, Engine } from "./engine.ts";
import { type Scheduler, STOP } from "./scheduler.ts";
import type { RecordedChoice, Schedule } from "./schedule.ts";

/** Where a replay took another way than its recording. */
export interface Divergence {
  /** Number of the choice, from 0; -1 for the initial state. */
  readonly at: number;
  /** What was recorded, and what happens now: one sentence. */
  readonly reason: string;
}

/** Follows a recorded schedule, then hands over to another scheduler. */
export class ReplayScheduler implements Scheduler {
  /** Set when the recording could not be followed; the execution then ends. */
  divergence: Divergence | undefined = undefined;
  readonly #choices: readonly RecordedChoice[];
  readonly #start: string;
  readonly #then: Scheduler | undefined;
  #begun = false;
  #outcome = 0;

  /**
   * Follows the first `length` choices of `schedule`, all of them unless given, and goes on as `then` decides, or ends.
   * `then` is only asked for actors and outcomes, not for executions.
   */
  constructor(schedule: Schedule, length: number = schedule.choices.length, then?: Scheduler) {
    this.#choices = schedule.choices.slice(0, length);
    this.#start = schedule.start;
    this.#then = then;
  }

  newExecution(engine: Engine): boolean {
    if (this.#begun) return false;
    this.#begun = true;
    engine.restore();
    return true;
  }

  nextActor(engine: Engine): number {
    const at = engine.depth;
    this.#check(engine, at - 1);
    if (this.divergence !== undefined) return STOP;
    if (at >= this.#choices.length) return this.#then?.nextActor(engine) ?? STOP;
    const { agent, step, outcome = 0 } = this.#choices[at];
    const actor = engine.actor(agent);
    if (actor < 0) return this.#diverge(at, `there is no agent '${agent}'`);
    if (engine.stepName(actor) !== step) {
      return this.#diverge(at, `'${agent}' took '${step}', now its next step is '${engine.stepName(actor)}'`);
    }
    if (!engine.isEnabled(actor)) return this.#diverge(at, `'${agent}' took '${step}', now it cannot`);
    this.#outcome = outcome;
    return actor;
  }

  nextChoice(count: number): number {
    return this.#then !== undefined && this.#outcome < 0
      ? this.#then.nextChoice(count)
      : Math.min(this.#outcome, count - 1);
  }

  /** Holds the present state, which is behind choice `index`, against the recording. */
  #check(engine: Engine, index: number): void {
    if (index >= this.#choices.length) return;
    const recorded = index < 0 ? this.#start : this.#choices[index].state;
    if (index === this.#choices.length - 1) this.#outcome = -1; // what follows is decided by the other scheduler
    const found = engine.fingerprint();
    if (found === recorded) return;
    const where = index < 0 ? "the initial state" : `the state behind '${this.#choices[index].step}'`;
    this.#diverge(index, `${where} was ${recorded}, now it is ${found}`);
  }

  #diverge(at: number, reason: string): number {
    this.divergence ??= { at, reason };
    return STOP;
  }
}

/** Asks somebody whose step comes next: interactive stepping. */
export class AskingScheduler implements Scheduler {
  readonly #ask: (engine: Engine, enabled: number) => number;
  readonly #choose: (count: number) => number;
  #begun = false;

  /** `ask` returns an enabled actor, or `STOP`; `choose` an outcome. */
  constructor(ask: (engine: Engine, enabled: number) => number, choose: (count: number) => number = () => 0) {
    this.#ask = ask;
    this.#choose = choose;
  }

  newExecution(engine: Engine): boolean {
    if (this.#begun) return false;
    this.#begun = true;
    engine.restore();
    return true;
  }

  nextActor(engine: Engine): number {
    const enabled = engine.enabled();
    return enabled === 0 ? STOP : this.#ask(engine, enabled);
  }

  nextChoice(count: number): number {
    return this.#choose(count);
  }
}

/**
 * The choices of a schedule in terms of `engine`'s actors. Throws {@linkcode BadInput} when the schedule is of another
 * scenario, other policies or another memory model, or names an agent that does not exist.
 */
export function choicesOf(engine: Engine, schedule: Schedule): Choice[] {
  const { system, memoryModel } = engine;
  if (schedule.scenario !== system.name) {
    throw new BadInput(`The schedule is of scenario "${schedule.scenario}", not of "${system.name}"`);
  }
  if (schedule.memory_model !== memoryModel) {
    throw new BadInput(`The schedule is of memory model ${schedule.memory_model}, not of ${memoryModel}`);
  }
  for (const [policy, value] of Object.entries(schedule.policies)) {
    if (system.policies[policy] !== value) {
      throw new BadInput(`The schedule has policy "${policy}" = "${value}", here it is "${system.policies[policy]}"`);
    }
  }
  return schedule.choices.map(({ agent, outcome = 0 }) => {
    const actor = engine.actor(agent);
    if (actor < 0) throw new BadInput(`The schedule names an agent "${agent}", which the scenario does not have`);
    return { actor, outcome };
  });
}
