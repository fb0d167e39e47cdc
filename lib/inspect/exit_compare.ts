/**
 * Comparison of what a platform saw leave a guest with a recorded stream: every exit in order, and the complete registers at
 * each.
 *
 * A string instruction's elements are compared however they are grouped: one record of n elements with n accesses of one,
 * n records with one access of n, or anything between. Registers are compared where both begin; inside a group RCX, RSI and
 * RDI are those that the elements before left.
 *
 * @module
 */
import {
  EXIT_SEGMENTS,
  EXIT_SYSTEM,
  EXIT_TABLES,
  type ExitAccess,
  type ExitRecord,
  type ExitRegisters,
  type ExitStream,
} from "./exit_stream.ts";
import { GPR_NAMES } from "./vector_file.ts";

/** Something that left the guest, as a platform reports it. */
export interface SeenExit extends ExitAccess {
  /**
   * How many elements of the same instruction the platform has handled since it noted `registers`: 0 when the registers are
   * those of this very element, as on most platforms.
   */
  readonly elementsBefore?: number;
}

/** The first difference between a recording and a run. Values are hexadecimal or plain text. */
export interface ExitDifference {
  /** Number of the record, as `#n`. */
  readonly id: string;
  /** What differs: `type`, `data`, a register. */
  readonly field: string;
  /** What was recorded. */
  readonly expected: string;
  /** What was seen. */
  readonly actual: string;
}

/** RFLAGS bits that a recording never shows: RF, and TF, with which it was made. */
const FLAGS_HIDDEN = 0x1_0100n;
const RCX = 1;
const RSI = 6;
const RDI = 7;
/** RFLAGS: strings run downwards. */
const FLAG_DF = 0x400n;
/** Part of a string instruction's register that every address size moves alike. */
const MOVED_MASK = 0xffffn;

/** A field with both of its values. */
type Mismatch = readonly [field: string, expected: string, actual: string];

/** Hexadecimal text of bytes. */
function bytesText(bytes: Uint8Array): string {
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

/** Compares two numbers. */
function number(field: string, expected: bigint | number, actual: bigint | number): Mismatch | undefined {
  return expected === actual ? undefined : [field, expected.toString(16), actual.toString(16)];
}

/** Compares everything about an access but its elements and registers. */
function compareKind(record: ExitAccess, seen: ExitAccess): Mismatch | undefined {
  if (record.type !== seen.type) return ["type", record.type, seen.type];
  return number("port", record.port, seen.port) ?? number("size", record.size, seen.size) ??
    number("msr", record.msr, seen.msr) ??
    (record.string === seen.string ? undefined : ["string", String(record.string), String(seen.string)]);
}

/** Compares general registers; those in `moved` (a bit mask) only as far as the elements say. */
function compareGeneral(
  record: ExitRegisters,
  seen: ExitRegisters,
  moved: readonly (bigint | undefined)[],
): Mismatch | undefined {
  for (let n = 0; n < record.gpr.length; n++) {
    const by = moved[n];
    let expected = record.gpr[n];
    let actual = seen.gpr[n];
    if (by !== undefined) {
      if (actual === expected) continue; // this platform advances it at the end
      expected = (expected + by) & MOVED_MASK;
      actual &= MOVED_MASK;
    }
    const different = number(GPR_NAMES[n], expected, actual);
    if (different !== undefined) return different;
  }
  return undefined;
}

/** Compares RIP, RFLAGS, segments and system registers. */
function compareOthers(record: ExitRegisters, seen: ExitRegisters, undefinedFlags: bigint): Mismatch | undefined {
  const shown = ~(undefinedFlags | FLAGS_HIDDEN);
  const first = number("rip", record.rip, seen.rip) ?? number("rflags", record.rflags & shown, seen.rflags & shown);
  if (first !== undefined) return first;
  for (const name of EXIT_SEGMENTS) {
    for (let part = 0; part < 4; part++) {
      const label = `${name}.${["selector", "attributes", "limit", "base"][part]}`;
      const different = number(label, record.seg[name][part], seen.seg[name][part]);
      if (different !== undefined) return different;
    }
  }
  for (const name of EXIT_SYSTEM) {
    const different = number(name, record.sys[name], seen.sys[name]);
    if (different !== undefined) return different;
  }
  for (const name of EXIT_TABLES) {
    const different = number(`${name}.base`, record.sys[name][0], seen.sys[name][0]) ??
      number(`${name}.limit`, record.sys[name][1], seen.sys[name][1]);
    if (different !== undefined) return different;
  }
  return undefined;
}

/** Holds a run against a stream, one exit at a time. */
export class ExitComparer {
  readonly #records: readonly ExitRecord[];
  /** The record that is being compared. */
  #next = 0;
  /** How many of its elements have been seen. */
  #elements = 0;
  #difference: ExitDifference | undefined;

  /** Begins at the stream's first record. */
  constructor(stream: ExitStream) {
    this.#records = stream.records;
  }

  /** Records that were matched completely. */
  get matched(): number {
    return this.#next;
  }

  /** Records that were not (yet) matched. */
  get unmatched(): number {
    return this.#records.length - this.#next;
  }

  /** Whether every record was matched. */
  get complete(): boolean {
    return this.#next === this.#records.length;
  }

  /** The first difference. */
  get difference(): ExitDifference | undefined {
    return this.#difference;
  }

  /** Compares the next exit; false at a difference, after which the run is not worth going on. */
  accept(seen: SeenExit): boolean {
    if (this.#difference !== undefined) return false;
    let done = 0;
    while (done < seen.count) {
      const record = this.#records[this.#next];
      if (record === undefined) return this.#differ(["type", "end of the recording", seen.type]);
      const count = Math.min(seen.count - done, record.count - this.#elements);
      const mismatch = this.#compare(record, seen, done, count);
      if (mismatch !== undefined) return this.#differ(mismatch);
      done += count;
      this.#elements += count;
      if (this.#elements === record.count) {
        this.#next++;
        this.#elements = 0;
      }
    }
    return true;
  }

  /** The run has ended; false when records are left. */
  end(how: string): boolean {
    if (this.#difference !== undefined) return false;
    if (this.complete) return true;
    return this.#differ(["type", this.#records[this.#next].type, how]);
  }

  /** Notes a difference. */
  #differ(mismatch: Mismatch): false {
    const [field, expected, actual] = mismatch;
    this.#difference = { id: `#${this.#next}`, field, expected, actual };
    return false;
  }

  /** Compares `count` elements of the current record, from its element `#elements`, with those from `done` of `seen`. */
  #compare(record: ExitRecord, seen: SeenExit, done: number, count: number): Mismatch | undefined {
    const kind = compareKind(record, seen);
    if (kind !== undefined) return kind;
    const size = record.size;
    const down = (record.registers.rflags & FLAG_DF) !== 0n;
    if (record.type === "mmio-read" || record.type === "mmio-write") {
      const step = BigInt(done * size);
      const different = number("gpa", record.gpa, down ? seen.gpa - step : seen.gpa + step);
      if (different !== undefined) return different;
    }
    const expected = record.data.subarray(this.#elements * size, (this.#elements + count) * size);
    const actual = seen.data.subarray(done * size, (done + count) * size);
    const [expectedText, actualText] = [bytesText(expected), bytesText(actual)];
    if (expectedText !== actualText) return ["data", expectedText, actualText];
    // How far the elements between the two points at which registers were noted have moved the string's registers.
    const ahead = this.#elements - done - (seen.elementsBefore ?? 0);
    return compareGeneral(record.registers, seen.registers, movedBy(ahead, size, down)) ??
      compareOthers(record.registers, seen.registers, record.undefinedFlags);
  }
}

/** By register: how far `elements` of `size` bytes move it, where they move it at all. */
function movedBy(elements: number, size: number, down: boolean): readonly (bigint | undefined)[] {
  if (elements === 0) return [];
  const moved: (bigint | undefined)[] = [];
  const bytes = BigInt(elements * size);
  moved[RCX] = BigInt(-elements);
  moved[RSI] = moved[RDI] = down ? -bytes : bytes;
  return moved;
}
