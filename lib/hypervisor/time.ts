/**
 * Clocks that a guest can read, all derived from one: the machine's time in nanoseconds since it started.
 *
 * That time is wall-clock in the concurrent runtime and counted in steps in the deterministic one. As the time-stamp
 * counter ticks once a nanosecond, the TSC (without a VP's own offset) and the machine's time are the same number.
 *
 * @module
 */

/** Frequency of the time-stamp counter in Hz (HV_X64_MSR_TSC_FREQUENCY, CPUID leaves 15 and 16). */
export const TSC_FREQUENCY = 1_000_000_000;
/** Nanoseconds in a unit of partition reference time (TLFS, "Partition Reference Time"). */
export const REFERENCE_TIME_NS = 100;
/** `tsc_scale` of the reference TSC page: (TSC * scale) >> 64 is TSC / 100. Rounded up, so that whole units stay whole. */
export const REFERENCE_TSC_SCALE: bigint = (1n << 64n) / BigInt(REFERENCE_TIME_NS) + 1n;

/** The machine's clock. */
export interface Clock {
  /** Nanoseconds since the machine started, as a double: exact for 104 days. */
  now(): number;
}

/** Partition reference time, in 100 ns units, at `now` nanoseconds. */
export function referenceTime(now: number): number {
  return Math.floor(now / REFERENCE_TIME_NS);
}
