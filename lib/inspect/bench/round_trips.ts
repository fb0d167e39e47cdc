/**
 * The raw limit of a hand-over between processors: two workers that send each other 256 bytes and spin for the answer.
 *
 * @module
 */

/** Bytes of the memory that the round trips use. */
export const ROUND_TRIP_BYTES = 2048;
/** Bytes that go each way. */
const DATA_BYTES = 256;
const WORDS = DATA_BYTES / 8;
/** Byte offset of the first worker's data; those of the second lie at twice that. */
const DATA_AT = 512;
/** 32-bit word of the second worker's flag; the first worker's is word 0. Each has a pair of cache lines. */
const FLAG_STRIDE = 32;
/** Looks at the other's flag between two looks whether it is over. */
const LOOKS = 256;

/** One end of the round trips. */
export class RoundTrips {
  readonly #i32: Int32Array;
  readonly #u64: BigUint64Array;
  readonly #mine: number;
  readonly #others: number;
  readonly #out: number;
  readonly #in: number;
  #number = 0;

  /** End `end` in `buffer`: 0 begins each trip, 1 answers. */
  constructor(buffer: SharedArrayBuffer, end: number) {
    this.#i32 = new Int32Array(buffer);
    this.#u64 = new BigUint64Array(buffer);
    this.#mine = end * FLAG_STRIDE;
    this.#others = (1 - end) * FLAG_STRIDE;
    this.#out = (DATA_AT * (1 + end)) >>> 3;
    this.#in = (DATA_AT * (2 - end)) >>> 3;
  }

  /** Makes `count` round trips, unless `over` holds while it waits. */
  make(count: number, over: () => boolean): void {
    for (let k = 0; k < count; k++) {
      this.#number++;
      this.#send();
      if (!this.#receive(over)) return;
    }
  }

  /** Answers round trips until `over` holds. */
  answer(over: () => boolean): void {
    for (;;) {
      this.#number++;
      if (!this.#receive(over)) break;
      this.#send();
    }
    this.#number--;
  }

  #send(): void {
    const u64 = this.#u64;
    const value = BigInt(this.#number);
    for (let word = 0; word < WORDS; word++) u64[this.#out + word] = value;
    Atomics.store(this.#i32, this.#mine, this.#number);
  }

  #receive(over: () => boolean): boolean {
    const i32 = this.#i32;
    const u64 = this.#u64;
    for (let looks = 1; i32[this.#others] !== this.#number; looks++) {
      if (looks % LOOKS === 0 && over()) return false;
    }
    let sum = 0n;
    for (let word = 0; word < WORDS; word++) sum |= u64[this.#in + word];
    if (sum !== BigInt(this.#number)) throw new Error("A round trip brought other data than were sent");
    return true;
  }
}
