/**
 * The set of states that several workers have reached together: the table of `Fingerprints` in shared memory. It does not
 * grow; when it is full, the workers pause, and go on with a larger one.
 *
 * An entry is claimed by an exchange of its first word; its notes and then its second word follow. Who meets the first
 * word without the second waits for the moment that it takes.
 *
 * @module
 */
import type { StateSet } from "./exhaustive.ts";

const ENTRY = 3;
/** A table that is fuller than this counts as full. */
const LOAD_MAX = 0.6;

/** A set of fingerprints that workers share. */
export class SharedFingerprints implements StateSet {
  readonly #table: Int32Array<SharedArrayBuffer>;
  readonly #mask: number;
  #added = 0;
  known = false;

  /** The set in `buffer`, which {@linkcode SharedFingerprints.allocate} has made. */
  constructor(buffer: SharedArrayBuffer) {
    this.#table = new Int32Array(buffer);
    this.#mask = this.#table.length / ENTRY - 1;
  }

  /** Memory for 2 to the power of `bits` entries. */
  static allocate(bits: number): SharedArrayBuffer {
    return new SharedArrayBuffer(SharedFingerprints.bytesOf(bits));
  }

  /** Bytes of that. */
  static bytesOf(bits: number): number {
    return 2 ** bits * ENTRY * 4;
  }

  /** Adds all that another set has, while nobody uses either. */
  addAll(other: SharedFingerprints): void {
    const table = other.#table;
    for (let at = 0; at < table.length; at += ENTRY) {
      if (table[at] !== 0) this.add(table[at], table[at + 1], table[at + 2]);
    }
  }

  /** Fingerprints that this worker has added. */
  get size(): number {
    return this.#added;
  }

  get bytes(): number {
    return this.#table.byteLength;
  }

  /** Fingerprints that the table holds before it counts as full. */
  get capacity(): number {
    return Math.floor((this.#mask + 1) * LOAD_MAX);
  }

  add(low: number, high: number, notes: number): number {
    const table = this.#table;
    const first = low === 0 ? 1 : low;
    const second = high === 0 ? 1 : high;
    for (let slot = (low ^ (high << 7)) & this.#mask;; slot = (slot + 1) & this.#mask) {
      const at = slot * ENTRY;
      let found = Atomics.load(table, at);
      if (found === 0 && (found = Atomics.compareExchange(table, at, 0, first)) === 0) {
        Atomics.store(table, at + 2, notes);
        Atomics.store(table, at + 1, second);
        this.#added++;
        this.known = false;
        return at + 2;
      }
      if (found !== first || this.#second(at) !== second) continue;
      this.known = true;
      return at + 2;
    }
  }

  find(low: number, high: number): number {
    const table = this.#table;
    const first = low === 0 ? 1 : low;
    const second = high === 0 ? 1 : high;
    for (let slot = (low ^ (high << 7)) & this.#mask;; slot = (slot + 1) & this.#mask) {
      const at = slot * ENTRY;
      const found = Atomics.load(table, at);
      if (found === 0) return -1;
      if (found === first && this.#second(at) === second) return at + 2;
    }
  }

  notes(place: number): number {
    return Atomics.load(this.#table, place);
  }

  /** Lowers the notes at a place: of two workers that do so, the lower value stays. */
  note(place: number, notes: number): void {
    for (let old = Atomics.load(this.#table, place); old > notes;) {
      const found = Atomics.compareExchange(this.#table, place, old, notes);
      if (found === old) return;
      old = found;
    }
  }

  /** The second word of an entry whose first word is there. */
  #second(at: number): number {
    for (;;) {
      const found = Atomics.load(this.#table, at + 1);
      if (found !== 0) return found;
    }
  }
}
