/**
 * Schedulers: who decides whose step comes next. One small interface, after shuttle's `Scheduler` trait
 * (awslabs/shuttle, scheduler/mod.rs): an exploration is a number of executions, an execution is a number of choices.
 *
 * @module
 */
import type { Engine } from "./engine.ts";
import type { Chooser } from "./exploring_port.ts";

/** Instead of an actor: this execution ends here. */
export const STOP: number = -1;
/** Instead of an actor: this execution ends here, in a state that has been looked at before. */
export const KNOWN: number = -2;

/** Decides whose step comes next. */
export interface Scheduler extends Chooser {
  /**
   * Puts the engine into the state in which the next execution begins: the initial one, or, for a scheduler that goes
   * back, one from which something is left to try. False when there is no further execution.
   */
  newExecution(engine: Engine): boolean;
  /** The actor that takes the next step, one that is enabled; or {@linkcode STOP} or {@linkcode KNOWN}. */
  nextActor(engine: Engine): number;
  /** The outcome, of `count`, of a step of the environment. */
  nextChoice(count: number): number;
}

/** The lowest actor in a mask that is not empty. */
export function lowest(mask: number): number {
  return 31 - Math.clz32(mask & -mask);
}

/** How many actors are in a mask. */
export function count(mask: number): number {
  let rest = mask - ((mask >>> 1) & 0x55555555);
  rest = (rest & 0x33333333) + ((rest >>> 2) & 0x33333333);
  return Math.imul((rest + (rest >>> 4)) & 0x0f0f0f0f, 0x01010101) >>> 24;
}

/** The n-th actor, from 0, in a mask that has more than n. */
export function nth(mask: number, n: number): number {
  let rest = mask;
  for (let k = 0; k < n; k++) rest &= rest - 1;
  return lowest(rest);
}
