/**
 * Random programs: every one must end in events that the model knows, within its memory and its budget. `deno task fuzz`
 * runs a million in each mode; the tests run a small number.
 *
 * @module
 */
import { EXIT_NONE } from "../../lib/cpu/state.ts";
import { CODE_AT, type Mode, newProcessor, RAM_BYTES, start } from "./processor.ts";

/** Bytes of a program. */
const PROGRAM_BYTES = 64;
/** Most steps of a program. */
export const STEPS_MAX = 10_000;
/** The modes. */
export const MODES: readonly Mode[] = ["real", "protected", "long"];
/** Random bytes that stand in front of a general opcode more often than chance would have it. */
const COMMON = [0x66, 0x67, 0xf2, 0xf3, 0xf0, 0x0f, 0x48, 0x65, 0x8e, 0xcd, 0xcf, 0xff];

/** xorshift32, seeded; never zero. */
export function randomNumbers(seed: number): () => number {
  let state = seed | 0 || 1;
  return () => {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    return state >>> 0;
  };
}

/** What a run of programs ended in: exit reason to count. */
export type FuzzResult = Map<number, number>;

/** Runs `count` random programs in one mode. Throws what the model throws, with the program that did it. */
export function fuzz(mode: Mode, seed: number, count: number): FuzzResult {
  const random = randomNumbers(seed);
  const { cpu, bus } = newProcessor(mode);
  const ends: FuzzResult = new Map();
  const program = new Uint8Array(PROGRAM_BYTES);
  for (let n = 0; n < count; n++) {
    for (let k = 0; k < PROGRAM_BYTES; k++) {
      const word = random();
      program[k] = (word & 0x700) === 0 ? COMMON[(word >>> 16) % COMMON.length] : word & 0xff;
    }
    start(cpu, mode);
    bus.intercept = (random() & 1) !== 0;
    bus.written.length = 0;
    cpu.m8.set(program, CODE_AT[mode]);
    for (let register = 0; register < 8; register++) {
      if (register !== 4) cpu.g64[register] = BigInt(random() % RAM_BYTES);
    }
    let reason = EXIT_NONE;
    let steps = 0;
    try {
      while (reason === EXIT_NONE && steps < STEPS_MAX) {
        reason = cpu.run(1000);
        steps += 1000;
      }
    } catch (cause) {
      const bytes = Array.from(program, (byte) => byte.toString(16).padStart(2, "0")).join(" ");
      throw new Error(`${mode}, seed ${seed}, program ${n}: ${bytes}`, { cause });
    }
    ends.set(reason, (ends.get(reason) ?? 0) + 1);
  }
  if (cpu.unimplemented.size > 256) throw new Error("The report of missing instructions grows without bound");
  return ends;
}
