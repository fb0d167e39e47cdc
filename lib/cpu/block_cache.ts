/**
 * Decoded basic blocks, found by linear address and by place in the memory.
 *
 * A block carries the bytes it was decoded from. They are compared with the memory at every entry, so that code written
 * by anyone (another processor, a device, a restored snapshot) is noticed without a message. Both tables are direct-mapped
 * and of fixed size: the cache cannot grow.
 *
 * @module
 */

import type { Insn } from "./insn.ts";

/** Most instructions in a block. */
export const BLOCK_INSTRUCTIONS_MAX = 32;
/** Entries of each table; a power of two. */
const BLOCKS = 4096;
/** Mask of a table index. */
const BLOCK_MASK = BLOCKS - 1;

/** A decoded block. */
export class Block {
  /** Low half of the linear address that it was last entered by. */
  linearLo = 0;
  /** High half. */
  linearHi = 0;
  /** Mode and TLB generation under which it was last entered; -1 never. */
  key: number = -1;
  /** Byte offset in the memory of the first byte; -1 for bytes that are not memory. */
  place: number = -1;
  /** Code size in bits. */
  codeSize = 0;
  /** Bytes in the memory; 0 for a block that is used once. */
  length = 0;
  /** All bytes. */
  total = 0;
  /** The instructions. */
  readonly insns: Insn[] = [];
  /** Index of the first 32-bit word that holds its bytes. */
  firstWord = 0;
  /** The words it was decoded from. */
  words: Int32Array = NO_WORDS;
  /** Which bits of the first word belong to it. */
  firstMask = 0;
  /** Which bits of the last word belong to it. */
  lastMask = 0;
  /** The first word it was decoded from. */
  firstValue = 0;
  /** How many words must be compared, one more for a tail; 0 for bytes that must be fetched anew each time. */
  wordCount = 0;
  /** Byte offset of the part on a second page, -1 without one. */
  tailPlace: number = -1;
  /** That part's bytes. */
  tail: Uint8Array = NO_BYTES;
}

const NO_WORDS = new Int32Array(0);
const NO_BYTES = new Uint8Array(0);

/** Notes the bytes that `block` was decoded from. */
export function rememberBytes(block: Block, bytes: Uint8Array): void {
  const { place, length } = block;
  const first = place >>> 2;
  const count = ((place + length - 1) >>> 2) - first + 1;
  const words = new Int32Array(count);
  new Uint8Array(words.buffer).set(bytes.subarray(0, length), place & 3);
  block.firstWord = first;
  block.words = words;
  block.wordCount = count;
  block.firstValue = words[0];
  const unusedLow = (place & 3) * 8;
  const unusedHigh = (3 - ((place + length - 1) & 3)) * 8;
  block.firstMask = -1 << unusedLow;
  block.lastMask = -1 >>> unusedHigh;
  if (count === 1) block.firstMask = block.lastMask = block.firstMask & block.lastMask;
}

/** Notes the bytes of a block that goes on at `place`, the start of another page. */
export function rememberTail(block: Block, place: number, bytes: Uint8Array): void {
  block.tailPlace = place;
  block.tail = bytes;
  block.wordCount++;
}

/** Whether the memory still holds the words of `block` after the first one, which the caller has compared. */
export function restUnchanged(block: Block, m32: Int32Array, m8: Uint8Array): boolean {
  const words = block.words;
  const first = block.firstWord;
  const last = words.length - 1;
  for (let k = 1; k < last; k++) if (m32[first + k] !== words[k]) return false;
  if (((m32[first + last] ^ words[last]) & block.lastMask) !== 0) return false;
  if (block.tailPlace >= 0) {
    const tail = block.tail;
    for (let k = 0; k < tail.length; k++) if (m8[block.tailPlace + k] !== tail[k]) return false;
  }
  return true;
}

/** Whether the memory still holds what `block` was decoded from. */
export function unchanged(block: Block, m32: Int32Array, m8: Uint8Array): boolean {
  if (block.wordCount === 0 || ((m32[block.firstWord] ^ block.firstValue) & block.firstMask) !== 0) return false;
  return block.wordCount === 1 || restUnchanged(block, m32, m8);
}

/** The two tables. */
export class BlockCache {
  /** By linear address; see {@linkcode linearIndex}. */
  readonly byLinear: Block[] = new Array(BLOCKS).fill(NEVER);
  readonly #byPlace: Block[] = new Array(BLOCKS).fill(NEVER);

  /** The block decoded from `place` for `codeSize`, whose bytes are still those. */
  find(place: number, codeSize: number, m32: Int32Array, m8: Uint8Array): Block | undefined {
    const block = this.#byPlace[(place ^ (place >>> 12)) & BLOCK_MASK];
    if (block.place !== place || block.codeSize !== codeSize || !unchanged(block, m32, m8)) return undefined;
    return block;
  }

  /** Keeps a block that lies in one page of the memory. */
  add(block: Block): void {
    const { place } = block;
    this.#byPlace[(place ^ (place >>> 12)) & BLOCK_MASK] = block;
  }

  /** Forgets everything. */
  clear(): void {
    this.byLinear.fill(NEVER);
    this.#byPlace.fill(NEVER);
  }
}

/** Index in `byLinear` of a linear address. */
export function linearIndex(lo: number): number {
  return (lo ^ (lo >>> 12)) & BLOCK_MASK;
}

/** What an empty place in a table holds: a block that is never found. */
const NEVER = new Block();
