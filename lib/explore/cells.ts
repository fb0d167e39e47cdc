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
export const CELLS_MAX: number = CELL_WORDS * 32;

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

/** Cells in the order in which a step first read them. */
export interface ReadOrder {
  readonly cells: Int32Array;
  /** How many are valid. */
  length: number;
}

/** No reads. */
export function noReads(): ReadOrder {
  return { cells: new Int32Array(CELLS_MAX), length: 0 };
}

/** Adds a read of a cell; what the step has written before it knows by itself. */
export function addRead({ reads, writes }: Accesses, order: ReadOrder, cell: number): void {
  const bit = 1 << (cell & 31);
  if (((reads[cell >>> 5] | writes[cell >>> 5]) & bit) !== 0) return;
  reads[cell >>> 5] |= bit;
  order.cells[order.length++] = cell;
}

/** Numbers the cells of a state as they are first accessed. */
export class Cells {
  readonly #map: StateMap;
  /** Cell of each byte of the state, or -1. */
  readonly #cell: Int32Array;
  /** Bytes of the state that each cell has; those of the cells that stand for something else are not here. */
  readonly #bytes: number[][] = Array.from({ length: CELLS_MAX }, () => []);
  #next: number;

  /** The cells of `map`'s state; the first `reserved` stand for something else. */
  constructor(map: StateMap, reserved: number) {
    this.#map = map;
    this.#cell = new Int32Array(map.size * 4).fill(-1);
    this.#next = Math.min(reserved, CELLS_MAX - 1);
  }

  /** Whether the cell stands for whatever was accessed when there were no cells left: nothing is known of its value. */
  isShared(cell: number): boolean {
    return cell === CELLS_MAX - 1;
  }

  /** The value that a cell has in a state, given as its words: its bytes, or a hash of them when they are more than four. */
  value(cell: number, state: Int32Array): number {
    const bytes = this.#bytes[cell];
    const first = bytes[0];
    if (bytes.length === 4 && (first & 3) === 0 && bytes[3] === first + 3) return state[first >>> 2];
    let value = 0;
    for (let k = 0; k < bytes.length; k++) {
      const byte = (state[bytes[k] >>> 2] >>> ((bytes[k] & 3) * 8)) & 0xff;
      value = bytes.length <= 4 ? value | byte << (k * 8) : Math.imul(value ^ byte, HASH_FACTOR) ^ value >>> HASH_SHIFT;
    }
    return value;
  }

  /** Adds what a read of `bytes` bytes at `at` touches. Bytes that never change are no matter. */
  read(accesses: Accesses, order: ReadOrder, at: number, bytes: number): void {
    const cell = this.#exact(at, bytes);
    if (cell >= 0) return addRead(accesses, order, cell);
    for (let byte = at; byte < at + bytes; byte++) {
      const other = this.#of(byte, bytes, at);
      if (other >= 0) addRead(accesses, order, other);
    }
  }

  /** Adds what a write of `bytes` bytes at `at` touches. A cell that keeps some of its bytes is read, too. */
  write(accesses: Accesses, order: ReadOrder, at: number, bytes: number): void {
    const cell = this.#exact(at, bytes);
    if (cell >= 0) return addCell(accesses.writes, cell);
    const covered = new Map<number, number>();
    for (let byte = at; byte < at + bytes; byte++) {
      const other = this.#of(byte, bytes, at);
      if (other >= 0) covered.set(other, (covered.get(other) ?? 0) + 1);
    }
    for (const [other, count] of covered) {
      if (count !== this.#bytes[other].length) addRead(accesses, order, other);
      addCell(accesses.writes, other);
    }
  }

  /** The cell of exactly these bytes, or -1. */
  #exact(at: number, bytes: number): number {
    const index = this.#map.index(at);
    if (index < 0) return -1;
    const cell = this.#cell[index * 4 + (at & 3)];
    return cell >= 0 && this.#bytes[cell].length === bytes && this.#bytes[cell][0] === index * 4 + (at & 3) &&
        !this.isShared(cell)
      ? cell
      : -1;
  }

  /** The cell of a byte of an access; bytes of it that are new become one cell. -1 for a byte that never changes. */
  #of(byte: number, bytes: number, at: number): number {
    const index = this.#map.index(byte);
    if (index < 0) return -1;
    const place = index * 4 + (byte & 3);
    if (this.#cell[place] < 0) {
      const cell = this.#next < CELLS_MAX - 1 ? this.#next++ : CELLS_MAX - 1;
      for (let other = byte; other < at + bytes; other++) {
        const word = this.#map.index(other);
        if (word < 0 || this.#cell[word * 4 + (other & 3)] >= 0) continue;
        this.#cell[word * 4 + (other & 3)] = cell;
        this.#bytes[cell].push(word * 4 + (other & 3));
      }
    }
    return this.#cell[place];
  }
}

const HASH_FACTOR = 0x01000193;
const HASH_SHIFT = 15;
