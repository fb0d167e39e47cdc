/**
 * Cells: the parts of the state by which it is decided whether two steps can be swapped.
 *
 * A cell is a few bytes that agents access as one. Some cells stand for something else: a processor's store buffer, or
 * "what property p looks at". A set of cells is a few words of a mask.
 *
 * @module
 */
import type { StateMap } from "./state_map.ts";

/** Words of a set of cells. */
export const CELL_WORDS = 4;
/** Cells at most; from there on all bytes that are new share the last one, which only makes more steps dependent. */
const CELLS_MAX = CELL_WORDS * 32;

/** A set of cells. */
export type CellSet = Int32Array;

/** An empty set. */
export function noCells(): CellSet {
  return new Int32Array(CELL_WORDS);
}

/** Whether two sets have a cell in common. */
export function meets(a: CellSet, b: CellSet): boolean {
  return ((a[0] & b[0]) | (a[1] & b[1]) | (a[2] & b[2]) | (a[3] & b[3])) !== 0;
}

/** Whether every cell of `part` is in `whole`. */
export function includes(whole: CellSet, part: CellSet): boolean {
  return ((part[0] & ~whole[0]) | (part[1] & ~whole[1]) | (part[2] & ~whole[2]) | (part[3] & ~whole[3])) === 0;
}

/** Adds the cells of `from` to `to`; whether that made a difference. */
export function join(to: CellSet, from: CellSet): boolean {
  let changed = 0;
  for (let k = 0; k < CELL_WORDS; k++) {
    changed |= from[k] & ~to[k];
    to[k] |= from[k];
  }
  return changed !== 0;
}

/** Adds cell `cell`. */
export function addCell(to: CellSet, cell: number): void {
  to[cell >>> 5] |= 1 << (cell & 31);
}

/** What a step read and wrote. */
export interface Accesses {
  readonly reads: CellSet;
  readonly writes: CellSet;
}

/** No accesses. */
export function noAccesses(): Accesses {
  return { reads: noCells(), writes: noCells() };
}

/** Whether two steps with these accesses cannot be swapped. */
export function conflict(a: Accesses, b: Accesses): boolean {
  return meets(a.writes, b.writes) || meets(a.writes, b.reads) || meets(a.reads, b.writes);
}

/** Numbers the cells of a state as they are first accessed. */
export class Cells {
  readonly #map: StateMap;
  /** Cell of each byte of the state, or -1. */
  readonly #cell: Int32Array;
  /** Bytes that cell k had when it was made; 0 for the shared last one. */
  readonly #sizes = new Int32Array(CELLS_MAX);
  #next: number;

  /** The cells of `map`'s state; the first `reserved` stand for something else. */
  constructor(map: StateMap, reserved: number) {
    this.#map = map;
    this.#cell = new Int32Array(map.size * 4).fill(-1);
    this.#next = Math.min(reserved, CELLS_MAX - 1);
  }

  /** Adds what an access of `bytes` bytes at `at` touches to `set`. Bytes that never change are no matter. */
  touch(set: CellSet, at: number, bytes: number): void {
    const index = this.#map.index(at);
    if (index >= 0) {
      const cell = this.#cell[index * 4 + (at & 3)];
      if (cell >= 0 && this.#sizes[cell] === bytes) {
        set[cell >>> 5] |= 1 << (cell & 31);
        return;
      }
    }
    this.#touchEach(set, at, bytes);
  }

  #touchEach(set: CellSet, at: number, bytes: number): void {
    let fresh = -1;
    for (let byte = at; byte < at + bytes; byte++) {
      const index = this.#map.index(byte);
      if (index < 0) continue;
      const place = index * 4 + (byte & 3);
      if (this.#cell[place] < 0) {
        if (fresh < 0) fresh = this.#new(bytes);
        this.#cell[place] = fresh;
      }
      addCell(set, this.#cell[place]);
    }
  }

  #new(bytes: number): number {
    if (this.#next >= CELLS_MAX - 1) return CELLS_MAX - 1;
    this.#sizes[this.#next] = bytes;
    return this.#next++;
  }
}
