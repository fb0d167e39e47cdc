/**
 * A hash of what guests and VTL2 can address, to compare two runs by one number.
 *
 * @module
 */
import type { Machine } from "./machine.ts";

/** Seeds of the two halves. */
const SEED_LOW = 0x9747b28c;
const SEED_HIGH = 0x2545f491;

/**
 * The hash of guest RAM and of VTL2's pages: 16 hexadecimal digits, two MurmurHash3 (x86, 32 bits) over the same words
 * under different seeds. For comparison, not against forgery.
 */
export function memoryHash(machine: Machine): string {
  const { memory, map } = machine;
  const words = memory.u32.subarray(0, (map.vtl2 + map.vtl2Bytes) >>> 2);
  return [hash(words, SEED_HIGH), hash(words, SEED_LOW)].map((half) => half.toString(16).padStart(8, "0")).join("");
}

/** MurmurHash3_x86_32 of whole words (Appleby, smhasher: MurmurHash3.cpp). */
function hash(words: Uint32Array, seed: number): number {
  let mixed = seed | 0;
  for (let k = 0; k < words.length; k++) {
    let word = Math.imul(words[k], 0xcc9e2d51);
    word = Math.imul(word << 15 | word >>> 17, 0x1b873593);
    mixed ^= word;
    mixed = (Math.imul(mixed << 13 | mixed >>> 19, 5) + 0xe6546b64) | 0;
  }
  mixed ^= words.length << 2;
  mixed = Math.imul(mixed ^ mixed >>> 16, 0x85ebca6b);
  mixed = Math.imul(mixed ^ mixed >>> 13, 0xc2b2ae35);
  return (mixed ^ mixed >>> 16) >>> 0;
}
