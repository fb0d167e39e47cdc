/**
 * How the costs of exits and instructions are measured: in rounds of some milliseconds, whose median counts. What is compared
 * runs in turns in the same rounds, so that what else the computer does meets all of it.
 *
 * @module
 */
import { CpuState } from "../../cpu/state.ts";
import { EXIT_KIND, HypervisorVpState } from "../../hypervisor/vp_state.ts";
import type { Machine } from "../../machine/machine.ts";

/** Nanoseconds in a millisecond. */
export const NS_PER_MS = 1e6;
/** Steps of an agent between two looks at the timers or turns of others, as in a worker. */
export const STEPS_PER_TURN = 256;

/** How long to measure. */
export interface RoundSize {
  readonly rounds: number;
  /** Milliseconds before the first round: until V8 has compiled everything. */
  readonly warmUpMs: number;
  /** Milliseconds of a round. */
  readonly roundMs: number;
}

/** Runs something for some milliseconds; nanoseconds of one of what it counts. */
export type Timed = (milliseconds: number) => number;

/** Something that repeats `turn` and is counted by `count`. */
export function timed(turn: () => void, count: () => number): Timed {
  return (milliseconds) => {
    const before = count();
    const start = performance.now();
    let now = start;
    do {
      turn();
      now = performance.now();
    } while (now - start < milliseconds);
    return (now - start) * NS_PER_MS / (count() - before);
  };
}

/** Counts exits of processor 0 of this kind, or without one its instructions. */
export function counter(machine: Machine, exit: keyof typeof EXIT_KIND | undefined): () => number {
  const vp = machine.processor(0);
  const { u64 } = machine.memory;
  const word = exit === undefined
    ? (vp.cpuState + CpuState.at.instructions) >>> 3
    : ((vp.state + HypervisorVpState.at.exits) >>> 3) + EXIT_KIND[exit];
  return () => Number(u64[word]);
}

/** The median of each, measured in turns; they have warmed up. */
export function medians(all: readonly Timed[], { rounds, roundMs }: RoundSize): number[] {
  const samples = all.map(() => [] as number[]);
  for (let round = 0; round < rounds; round++) all.forEach((run, k) => samples[k].push(run(roundMs)));
  return samples.map(median);
}

/** The middle of an odd number of values. */
export function median(values: readonly number[]): number {
  return values.toSorted((a, b) => a - b)[values.length >> 1];
}
