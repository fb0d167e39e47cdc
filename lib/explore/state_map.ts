/**
 * Numbers for the words of the memory that can change: the state is a vector of them.
 *
 * @module
 */
import { PAGE_SHIFT, PAGE_SIZE } from "../memory/machine_memory.ts";
import type { Range } from "./system.ts";

const WORDS_PER_PAGE = PAGE_SIZE / 4;
const WORD_MASK = WORDS_PER_PAGE - 1;

/** State words `from` to `to` - 1, which follow one another in the memory too. */
export interface Run {
  readonly from: number;
  readonly to: number;
  /** Index of the first in the memory's 32-bit words. */
  readonly word: number;
}

/** The words of some ranges, in ascending order of their addresses. */
export class StateMap {
  /** How many words. */
  readonly size: number;
  /** Index of state word k in the memory's 32-bit words. */
  readonly words: Int32Array;
  /** All of them. */
  readonly runs: readonly Run[];
  readonly #pages: Int32Array;
  readonly #indexes: Int32Array;

  /** The words of `ranges` in a memory of `bytes` bytes. Throws `RangeError` for a range that is not of whole words in it. */
  constructor(ranges: readonly Range[], bytes: number) {
    const words: number[] = [];
    for (const { at, bytes: length } of ranges) {
      if (!(Number.isInteger(at) && at >= 0 && at % 4 === 0 && length % 4 === 0 && at + length <= bytes)) {
        throw new RangeError(`Range of ${length} bytes at ${at} is not made of words of the memory`);
      }
      for (let word = at / 4; word < (at + length) / 4; word++) words.push(word);
    }
    this.words = Int32Array.from(new Set(words)).sort();
    this.size = this.words.length;
    this.#pages = new Int32Array(Math.ceil(bytes / PAGE_SIZE)).fill(-1);
    let pages = 0;
    for (const word of this.words) {
      const page = word >>> (PAGE_SHIFT - 2);
      if (this.#pages[page] < 0) this.#pages[page] = pages++ * WORDS_PER_PAGE;
    }
    this.#indexes = new Int32Array(pages * WORDS_PER_PAGE).fill(-1);
    this.words.forEach((word, index) => {
      this.#indexes[this.#pages[word >>> (PAGE_SHIFT - 2)] + (word & WORD_MASK)] = index;
    });
    this.runs = this.#runsOf([...this.words.keys()]);
  }

  /** Number of the state word that holds byte `at`, or -1 when that byte never changes. */
  index(at: number): number {
    const page = this.#pages[at >>> PAGE_SHIFT];
    return page === undefined || page < 0 ? -1 : this.#indexes[page + ((at >>> 2) & WORD_MASK)];
  }

  /** The state words in `ranges`, as runs; bytes that never change are left out. */
  runsIn(ranges: readonly Range[]): readonly Run[] {
    const found = new Set<number>();
    for (const { at, bytes } of ranges) {
      for (let byte = at; byte < at + bytes; byte += 4) {
        const index = this.index(byte);
        if (index >= 0) found.add(index);
      }
    }
    return this.#runsOf([...found].sort((a, b) => a - b));
  }

  #runsOf(indexes: readonly number[]): readonly Run[] {
    const runs: { from: number; to: number; word: number }[] = [];
    for (const index of indexes) {
      const word = this.words[index];
      const last = runs.at(-1);
      if (last !== undefined && last.to === index && last.word + (index - last.from) === word) last.to++;
      else runs.push({ from: index, to: index + 1, word });
    }
    return runs;
  }
}
