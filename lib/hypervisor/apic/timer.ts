/**
 * The local APIC's timer: a count that falls to zero once or again and again (Intel SDM volume 3, "APIC Timer").
 *
 * It is not counted down but known by the time at which it reaches zero. It runs at {@linkcode APIC_FREQUENCY} divided by
 * the divide configuration.
 *
 * @module
 */
import type { MachineMemory } from "../../memory/machine_memory.ts";
import { ApicState } from "./state.ts";

/** Frequency in Hz of the timer before division; what HV_X64_MSR_APIC_FREQUENCY says. */
export const APIC_FREQUENCY = 200_000_000;
/** Nanoseconds in one undivided tick. */
const TICK_NS = 1_000_000_000 / APIC_FREQUENCY;

const NEXT = ApicState.at.timer_next >>> 3;
const DIVIDE = ApicState.at.divide >>> 2;
const INITIAL = ApicState.at.initial_count >>> 2;

/** What the timer's clock is divided by under divide configuration `dcr`: bits 3, 1 and 0 are a power of two less one. */
export function timerDivisor(dcr: number): number {
  const power = ((dcr >>> 1) & 4) | (dcr & 3);
  return 1 << ((power + 1) & 7);
}

/** The timer's part of an {@linkcode ApicState}. Times are in nanoseconds. */
export class ApicTimer {
  readonly #f64: Float64Array<SharedArrayBuffer>;
  readonly #u32: Uint32Array<SharedArrayBuffer>;
  readonly #double: number;
  readonly #word: number;

  /** The timer of the APIC whose state lies at byte offset `base`. */
  constructor(memory: MachineMemory, base: number) {
    this.#f64 = new Float64Array(memory.buffer);
    this.#u32 = memory.u32;
    this.#double = base >>> 3;
    this.#word = base >>> 2;
  }

  /** Initial count register. */
  get initialCount(): number {
    return this.#u32[this.#word + INITIAL];
  }

  /** Divide configuration register. */
  get divideConfiguration(): number {
    return this.#u32[this.#word + DIVIDE];
  }

  /** When the count reaches zero, or Infinity. */
  get deadline(): number {
    const next = this.#f64[this.#double + NEXT];
    return next === 0 ? Infinity : next;
  }

  /** Starts the count; 0 stops it. */
  start(count: number, now: number): void {
    this.#u32[this.#word + INITIAL] = count;
    this.#f64[this.#double + NEXT] = count === 0 ? 0 : now + count * this.#period();
  }

  /** Changes the divisor; the current count goes on from where it is. */
  setDivide(dcr: number, now: number): void {
    const count = this.currentCount(now);
    this.#u32[this.#word + DIVIDE] = dcr;
    if (count !== 0) this.#f64[this.#double + NEXT] = now + count * this.#period();
  }

  /** The count at `now`; expiries up to then have been taken. */
  currentCount(now: number): number {
    const next = this.#f64[this.#double + NEXT];
    return next === 0 ? 0 : Math.max(0, Math.ceil((next - now) / this.#period()));
  }

  /** Takes an expiry that lies at or before `now`; several missed periods are one. False when there is none. */
  expire(now: number, periodic: boolean): boolean {
    const next = this.#f64[this.#double + NEXT];
    if (next === 0 || now < next) return false;
    const round = this.initialCount * this.#period();
    this.#f64[this.#double + NEXT] = periodic ? next + (Math.floor((now - next) / round) + 1) * round : 0;
    return true;
  }

  /** Nanoseconds in one count. */
  #period(): number {
    return TICK_NS * timerDivisor(this.divideConfiguration);
  }
}
