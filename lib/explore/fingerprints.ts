/**
 * The set of states that a search has reached: 64-bit fingerprints with a word of notes each, in one open-addressing
 * table. It grows up to a stated number of entries.
 *
 * @module
 */

/** Words of an entry: the two halves of the fingerprint, and the notes. */
const ENTRY = 3;
/** log2 of the number of entries at first. */
const FIRST_BITS = 14;
/** The table grows when it is fuller than this. */
const LOAD_MAX = 0.6;

/** A set of fingerprints. */
export class Fingerprints {
  #table: Int32Array;
  #mask: number;
  #limit: number;
  #size = 0;
  /** Whether the last `add` met a fingerprint that was there. */
  known = false;

  /** An empty set. */
  constructor() {
    this.#table = new Int32Array((1 << FIRST_BITS) * ENTRY);
    this.#mask = (1 << FIRST_BITS) - 1;
    this.#limit = Math.floor((1 << FIRST_BITS) * LOAD_MAX);
  }

  /** How many fingerprints. */
  get size(): number {
    return this.#size;
  }

  /** Bytes that the table takes. */
  get bytes(): number {
    return this.#table.byteLength;
  }

  /**
   * Adds a fingerprint with `notes`, unless it is there; `known` says which. Returns where its notes are, for `notes` and
   * `note`; the place is good until the next `add`.
   */
  add(low: number, high: number, notes: number): number {
    if (this.#size >= this.#limit) this.#grow();
    if ((low | high) === 0) high = 1; // zero marks an empty entry
    const table = this.#table;
    const mask = this.#mask;
    let slot = (low ^ (high << 7)) & mask;
    for (;;) {
      const at = slot * ENTRY;
      const foundLow = table[at];
      const foundHigh = table[at + 1];
      if (foundLow === low && foundHigh === high) {
        this.known = true;
        return at + 2;
      }
      if ((foundLow | foundHigh) === 0) {
        table[at] = low;
        table[at + 1] = high;
        table[at + 2] = notes;
        this.#size++;
        this.known = false;
        return at + 2;
      }
      slot = (slot + 1) & mask;
    }
  }

  /** Where the notes of a fingerprint are, or -1. */
  find(low: number, high: number): number {
    if ((low | high) === 0) high = 1;
    const table = this.#table;
    let slot = (low ^ (high << 7)) & this.#mask;
    for (;;) {
      const at = slot * ENTRY;
      if (table[at] === low && table[at + 1] === high) return at + 2;
      if ((table[at] | table[at + 1]) === 0) return -1;
      slot = (slot + 1) & this.#mask;
    }
  }

  /** The notes at a place that `add` or `find` returned. */
  notes(place: number): number {
    return this.#table[place];
  }

  /** Replaces the notes at a place. */
  note(place: number, notes: number): void {
    this.#table[place] = notes;
  }

  #grow(): void {
    const old = this.#table;
    const slots = (this.#mask + 1) * 2;
    this.#table = new Int32Array(slots * ENTRY);
    this.#mask = slots - 1;
    this.#limit = Math.floor(slots * LOAD_MAX);
    const table = this.#table;
    for (let from = 0; from < old.length; from += ENTRY) {
      const low = old[from];
      const high = old[from + 1];
      if ((low | high) === 0) continue;
      let slot = (low ^ (high << 7)) & this.#mask;
      while ((table[slot * ENTRY] | table[slot * ENTRY + 1]) !== 0) slot = (slot + 1) & this.#mask;
      table[slot * ENTRY] = low;
      table[slot * ENTRY + 1] = high;
      table[slot * ENTRY + 2] = old[from + 2];
    }
  }
}
