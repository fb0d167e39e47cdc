/**
 * The machine's time in nanoseconds since it started: wall-clock time in the concurrent runtime, virtual time counted in
 * steps and instructions in the deterministic one.
 *
 * @module
 */
import type { MachineMemory } from "../memory/machine_memory.ts";
import { MachineHeader } from "./header.ts";

/** Nanoseconds in a millisecond. */
const NS_PER_MS = 1e6;
/** Virtual nanoseconds that a step takes, and an instruction of the guest: a processor at 1 GHz. */
export const STEP_NS = 1;
/** Frequency in Hz of the time-stamp counter: one tick a nanosecond. */
export const TSC_FREQUENCY = 1_000_000_000;

/** Wall-clock time in nanoseconds, the same in every worker of a process. */
export function wallClockNs(): number {
  return (performance.timeOrigin + performance.now()) * NS_PER_MS;
}

/** A machine's clock. */
export class MachineClock {
  readonly #f64: Float64Array<SharedArrayBuffer>;
  readonly #virtual: number;
  readonly #epoch: number;
  readonly #deterministic: boolean;

  /** The clock of the machine whose header lies at byte offset `header`. */
  constructor(memory: MachineMemory, header: number) {
    this.#f64 = new Float64Array(memory.buffer);
    this.#virtual = (header + MachineHeader.at.virtual_ns) >>> 3;
    this.#epoch = (header + MachineHeader.at.start_epoch_ns) >>> 3;
    this.#deterministic = memory.u32[(header + MachineHeader.at.deterministic) >>> 2] !== 0;
  }

  /** Nanoseconds since the machine started. */
  now(): number {
    return this.#deterministic ? this.#f64[this.#virtual] : wallClockNs() - this.#f64[this.#epoch];
  }

  /** Lets wall-clock time begin now. */
  start(): void {
    this.#f64[this.#epoch] = wallClockNs();
  }

  /** Lets virtual time pass. */
  advance(ns: number): void {
    this.#f64[this.#virtual] += ns;
  }

  /** Lets virtual time jump forward to `ns`. */
  advanceTo(ns: number): void {
    if (ns > this.#f64[this.#virtual]) this.#f64[this.#virtual] = ns;
  }
}
