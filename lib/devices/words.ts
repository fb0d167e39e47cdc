/**
 * Times and counts of devices as integers of up to 53 bits in two 32-bit words of the shared memory.
 *
 * @module
 */
import type { MachineMemory } from "../memory/machine_memory.ts";

/** Two to the power of 32: the weight of the high word. */
const WORD = 0x1_0000_0000;

/** The integer at byte offset `at`, a multiple of four. */
export function readCount(memory: MachineMemory, at: number): number {
  const u32 = memory.u32;
  return u32[(at >>> 2) + 1] * WORD + u32[at >>> 2];
}

/** Stores `value`, an integer from 0 to 2^53 - 1, at byte offset `at`, a multiple of four. */
export function writeCount(memory: MachineMemory, at: number, value: number): void {
  const u32 = memory.u32;
  u32[at >>> 2] = value % WORD;
  u32[(at >>> 2) + 1] = Math.floor(value / WORD);
}
