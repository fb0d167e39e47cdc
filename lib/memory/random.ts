/**
 * The one source of random numbers: seeded, and with its state in memory, so that a run can be repeated bit by bit.
 *
 * @module
 */

/** Increment of the generator's counter: 2^32 divided by the golden ratio, odd (mulberry32). */
const STEP = 0x6d2b79f5;

/** A stream of 32-bit random numbers (mulberry32: period 2^32, passes the usual small test batteries). */
export class Random {
  readonly #state: Int32Array<ArrayBufferLike>;
  readonly #index: number;

  /** A stream whose state is word `index` of `state`. */
  constructor(state: Int32Array<ArrayBufferLike>, index: number) {
    this.#state = state;
    this.#index = index;
  }

  /** A stream of its own that begins with `seed`. */
  static seeded(seed: number): Random {
    return new Random(new Int32Array([seed]), 0);
  }

  /** The next number, unsigned. */
  next(): number {
    const state = (this.#state[this.#index] + STEP) | 0;
    this.#state[this.#index] = state;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return (mixed ^ (mixed >>> 14)) >>> 0;
  }

  /** A number from 0 to `count` - 1. */
  below(count: number): number {
    return Math.floor(this.next() / 0x1_0000_0000 * count);
  }
}
