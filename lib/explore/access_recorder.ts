/**
 * What the step under way has accessed: the words that it may have changed, and the cells that it read and wrote.
 *
 * @module
 */
import { type Accesses, addCell, addRead, type Cells, noAccesses, noReads, type ReadOrder } from "./cells.ts";
import type { StateMap } from "./state_map.ts";

/** Notes that one step can make; a longer list means "look at every word". */
const LOG_MAX = 4096;

/** Bytes that a step read or wrote through its port. */
export interface Touch {
  readonly at: number;
  readonly bytes: number;
  readonly write: boolean;
}

/** Collects the accesses of one step at a time. */
export class AccessRecorder {
  readonly #map: StateMap;
  readonly #cells: Cells;
  /** The predicates that look at each byte of the state, as a mask. */
  readonly #watchers: Int32Array;
  /** Whether cells are noted. */
  on = false;
  /** Cells that the step, or an `enabled` condition, accessed so far. */
  readonly accesses: Accesses = noAccesses();
  /** The cells that it read and had not written before, in that order. */
  readonly order: ReadOrder = noReads();
  /** The predicates that look at a byte that it wrote, as a mask. */
  watched = 0;
  /** State words that were written through a port; `logged` of them. */
  readonly log: Int32Array = new Int32Array(LOG_MAX);
  /** How many entries of `log` are valid. */
  logged = 0;
  /** Where each access goes as well, for traces. */
  touches: Touch[] | undefined = undefined;

  /** A recorder for the state of `map`. */
  constructor(map: StateMap, cells: Cells, watchers: Int32Array) {
    this.#map = map;
    this.#cells = cells;
    this.#watchers = watchers;
  }

  /** Forgets everything. */
  clear(): void {
    this.logged = 0;
    if (!this.on) return;
    this.order.length = 0;
    this.watched = 0;
    this.accesses.reads.fill(0);
    this.accesses.writes.fill(0);
  }

  /** A read of `bytes` bytes at `at`. */
  read(at: number, bytes: number): void {
    if (!this.on) return;
    this.#cells.read(this.accesses, this.order, at, bytes);
    this.touches?.push({ at, bytes, write: false });
  }

  /** A write of `bytes` bytes at `at`. Throws `RangeError` when nobody has declared that they can change. */
  write(at: number, bytes: number): void {
    const last = at + bytes - 1;
    for (let byte = at; byte <= last; byte = (byte & ~3) + 4) {
      const index = this.#map.index(byte);
      if (index < 0) throw new RangeError(`A step writes byte ${byte}, which is not among the mutable ranges`);
      if (this.logged < LOG_MAX) this.log[this.logged++] = index;
    }
    if (!this.on) return;
    this.#cells.write(this.accesses, this.order, at, bytes);
    for (let byte = at; byte <= last; byte++) this.watched |= this.#watchers[this.#map.index(byte) * 4 + (byte & 3)];
    this.touches?.push({ at, bytes, write: true });
  }

  /** Whether so much was written that the log is not complete. */
  get overflowed(): boolean {
    return this.logged === LOG_MAX;
  }

  /** Notes that a step has changed state word `index` without a port. */
  writeWord(index: number, at: number): void {
    for (let k = 0; k < this.logged; k++) if (this.log[k] === index) return;
    this.#cells.write(this.accesses, this.order, at, 4);
  }

  /** Notes a read of a cell that stands for something else. */
  readCell(cell: number): void {
    if (this.on) addRead(this.accesses, this.order, cell);
  }

  /** Notes a write of a cell that stands for something else. */
  writeCell(cell: number): void {
    if (this.on) addCell(this.accesses.writes, cell);
  }
}
