/**
 * The record of a processor's exits: what happened, the registers before it, and every device access that it led to.
 *
 * Records travel through a ring in the shared memory, one per VP, to the main thread. They are complete when the guest
 * goes on. A ring that is full makes the VP wait: nothing is dropped.
 *
 * @module
 */
import { CpuState } from "../cpu/state.ts";
import { bytes, i32, u16, u32, u64, u8 } from "../layout/field_type.ts";
import { reserved, structure } from "../layout/structure.ts";
import type { MachineMemory } from "../memory/machine_memory.ts";
import type { ExitObserver, VirtualProcessor } from "./virtual_processor.ts";
import { EXIT_KINDS, type ExitKind, type ExitKindNumber } from "./vp_state.ts";

/** Bytes of the CPU state that a record holds: everything from the registers to DR7. */
export const REGISTERS_SIZE: number = CpuState.at.star;
/** First byte of the CPU state's exit record. */
const DETAILS_FROM: number = CpuState.at.exit_reason;
/** Bytes of it, to the end of `exit_gva_valid`. */
const DETAILS_SIZE = 0x58;

/** What a record in the ring begins with; device accesses follow it. */
export const ExitRecordHeader = structure("ExitRecordHeader", 32 + CpuState.at.star + DETAILS_SIZE, [
  ["length", 0, u32, "Bytes of the whole record, a multiple of eight"],
  ["sequence", 4, u32, "Number of the exit in the machine"],
  ["vp", 8, u16, "VP index"],
  ["vtl", 10, u8, "VTL that left"],
  ["kind", 11, u8, "Index into EXIT_KINDS"],
  ["message", 12, u32, "HvMessageType of the intercept, 0 when VTL2 was not entered"],
  ["accesses", 16, u32, "How many device accesses follow"],
  ["activity", 20, i32, "ACTIVITY_* of the processor"],
  reserved(24, 8),
  ["registers", 32, bytes(REGISTERS_SIZE), "CpuState from its start"],
  ["details", 32 + REGISTERS_SIZE, bytes(DETAILS_SIZE), "CpuState from exit_reason on"],
], "Not a structure of the modelled machine");

/** One device access of a record. */
export const ExitAccess = structure("ExitAccess", 24, [
  ["direction", 0, u8, "ACCESS.IN, OUT, READ or WRITE"],
  ["size", 1, u8, "Bytes"],
  reserved(2, 6),
  ["address", 8, u64, "Port or guest-physical address"],
  ["data", 16, u64, "Value, zero-extended"],
], "Not a structure of the modelled machine");

/** Directions of an access. */
export const ACCESS = { IN: 0, OUT: 1, READ: 2, WRITE: 3 } as const;

/** Data bytes of a VP's ring, a power of two. */
export const EXIT_RING_CAPACITY = 1 << 17;
/** Most accesses of one record; an instruction that makes more continues in a second one. */
const ACCESSES_MAX = 4096;
const PRODUCER = 0;
/** Whether the record under way is open, and how many accesses it has. */
const OPEN = 8;
const ACCESSES = 12;
const CONSUMER = 64;
/** The record under way: the thread that handles an exit may be another than the one in which it happened. */
const RECORD = 128;
const DATA: number = RECORD + Math.ceil((ExitRecordHeader.size + ACCESSES_MAX * ExitAccess.size) / 8) * 8;
/** Bytes of a VP's ring in the memory. */
export const EXIT_RING_SIZE: number = DATA + EXIT_RING_CAPACITY;

const header = ExitRecordHeader.at;
const WORD = 0x1_0000_0000;

/** Writes a VP's exits into its ring. */
export class ExitLog implements ExitObserver {
  readonly #memory: MachineMemory;
  readonly #ring: number;
  readonly #sequence: number;
  readonly #limit: number;
  readonly #onLimit: () => void;
  readonly #waitForRoom: () => boolean;
  readonly #record: Uint8Array<SharedArrayBuffer>;
  readonly #view: DataView<SharedArrayBuffer>;

  /**
   * A log into the ring at byte offset `ring`. The words at `sequence` and `limit` belong to all VPs: the number of the
   * next exit, and how many may be recorded (0 for no limit) before `onLimit` is called. `waitForRoom` is called while
   * the ring is full; false gives the record up, because the machine ends.
   */
  constructor(
    memory: MachineMemory,
    at: { readonly ring: number; readonly sequence: number; readonly limit: number },
    onLimit: () => void,
    waitForRoom: () => boolean,
  ) {
    this.#memory = memory;
    this.#ring = at.ring;
    this.#record = new Uint8Array(memory.buffer, at.ring + RECORD, DATA - RECORD);
    this.#view = new DataView(memory.buffer, at.ring + RECORD, DATA - RECORD);
    this.#sequence = at.sequence >>> 2;
    this.#limit = at.limit >>> 2;
    this.#onLimit = onLimit;
    this.#waitForRoom = waitForRoom;
  }

  get #open(): boolean {
    return this.#memory.u32[(this.#ring + OPEN) >>> 2] !== 0;
  }
  set #open(open: boolean) {
    this.#memory.u32[(this.#ring + OPEN) >>> 2] = open ? 1 : 0;
  }

  get #accesses(): number {
    return this.#memory.u32[(this.#ring + ACCESSES) >>> 2];
  }
  set #accesses(accesses: number) {
    this.#memory.u32[(this.#ring + ACCESSES) >>> 2] = accesses;
  }

  exit(vp: VirtualProcessor, kind: ExitKindNumber): void {
    if (this.#open) this.#finish();
    this.#begin(vp, kind);
  }

  entry(_vp: VirtualProcessor): void {
    if (this.#open) this.#finish();
  }

  /** Notes which message VTL2 was entered with. */
  message(type: number): void {
    this.#view.setUint32(header.message, type, true);
  }

  /** Notes a device access that the open exit led to. */
  access(direction: number, address: number, size: number, low: number, high: number): void {
    if (!this.#open) return;
    if (this.#accesses === ACCESSES_MAX) this.#continue();
    const at = ExitRecordHeader.size + this.#accesses++ * ExitAccess.size;
    const view = this.#view;
    view.setUint8(at + ExitAccess.at.direction, direction);
    view.setUint8(at + ExitAccess.at.size, size);
    view.setUint32(at + ExitAccess.at.address, address % WORD, true);
    view.setUint32(at + ExitAccess.at.address + 4, Math.floor(address / WORD), true);
    view.setInt32(at + ExitAccess.at.data, low, true);
    view.setInt32(at + ExitAccess.at.data + 4, high, true);
  }

  #begin(vp: VirtualProcessor, kind: ExitKindNumber): void {
    const { u8, i32 } = this.#memory;
    const view = this.#view;
    this.#open = true;
    this.#accesses = 0;
    view.setUint32(header.sequence, Atomics.add(i32, this.#sequence, 1) >>> 0, true);
    view.setUint16(header.vp, vp.index, true);
    view.setUint8(header.vtl, 0);
    view.setUint8(header.kind, kind);
    view.setUint32(header.message, 0, true);
    view.setInt32(header.activity, vp.activity, true);
    this.#record.set(u8.subarray(vp.cpuState, vp.cpuState + REGISTERS_SIZE), header.registers);
    const details = vp.cpuState + DETAILS_FROM;
    this.#record.set(u8.subarray(details, details + DETAILS_SIZE), header.details);
  }

  /** Closes a record that is full and opens one for the rest of the same exit. */
  #continue(): void {
    this.#finish();
    this.#open = true;
    this.#accesses = 0;
  }

  #finish(): void {
    this.#open = false;
    const length = ExitRecordHeader.size + this.#accesses * ExitAccess.size;
    this.#view.setUint32(header.length, length, true);
    this.#view.setUint32(header.accesses, this.#accesses, true);
    this.#put(length);
    const limit = this.#memory.u32[this.#limit];
    if (limit !== 0 && this.#memory.u32[this.#sequence] >= limit) this.#onLimit();
  }

  #put(length: number): void {
    const { i32, u8 } = this.#memory;
    const produced = Atomics.load(i32, (this.#ring + PRODUCER) >>> 2);
    for (;;) {
      const consumed = Atomics.load(i32, (this.#ring + CONSUMER) >>> 2);
      if (((produced - consumed) >>> 0) + length <= EXIT_RING_CAPACITY) break;
      if (!this.#waitForRoom()) return;
    }
    const start = produced & (EXIT_RING_CAPACITY - 1);
    const first = Math.min(length, EXIT_RING_CAPACITY - start);
    u8.set(this.#record.subarray(0, first), this.#ring + DATA + start);
    u8.set(this.#record.subarray(first, length), this.#ring + DATA);
    Atomics.store(i32, (this.#ring + PRODUCER) >>> 2, (produced + length) | 0);
  }
}

/**
 * Takes the record of an exit that was never completed out of the ring at byte offset `ring`, or nothing when there is
 * none: the VMM crashed in it, or the run ended. The thread that writes it must have left.
 */
export function takeOpenRecord(memory: MachineMemory, ring: number): DataView | undefined {
  if (memory.u32[(ring + OPEN) >>> 2] === 0) return undefined;
  memory.u32[(ring + OPEN) >>> 2] = 0;
  const accesses = memory.u32[(ring + ACCESSES) >>> 2];
  const length = ExitRecordHeader.size + accesses * ExitAccess.size;
  const record = new DataView(memory.u8.slice(ring + RECORD, ring + RECORD + length).buffer);
  record.setUint32(header.length, length, true);
  record.setUint32(header.accesses, accesses, true);
  return record;
}

/** Takes every complete record out of the ring at byte offset `ring`. Each is a copy that the caller owns. */
export function drainExitRing(memory: MachineMemory, ring: number): DataView[] {
  const { i32, u8 } = memory;
  const produced = Atomics.load(i32, (ring + PRODUCER) >>> 2);
  let consumed = Atomics.load(i32, (ring + CONSUMER) >>> 2);
  const records: DataView[] = [];
  while (consumed !== produced) {
    const length = readWrapped(u8, ring, consumed, 4).getUint32(0, true);
    records.push(readWrapped(u8, ring, consumed, length));
    consumed = (consumed + length) | 0;
  }
  if (records.length > 0) {
    Atomics.store(i32, (ring + CONSUMER) >>> 2, consumed);
    Atomics.notify(i32, (ring + CONSUMER) >>> 2);
  }
  return records;
}

/** Copies bytes that may wrap around the ring's end. */
function readWrapped(u8: Uint8Array, ring: number, position: number, length: number): DataView {
  const start = position & (EXIT_RING_CAPACITY - 1);
  const first = Math.min(length, EXIT_RING_CAPACITY - start);
  const copy = new Uint8Array(length);
  copy.set(u8.subarray(ring + DATA + start, ring + DATA + start + first));
  copy.set(u8.subarray(ring + DATA, ring + DATA + length - first), first);
  return new DataView(copy.buffer);
}

/** The kind of exit that a record describes. */
export function recordKind(record: DataView): ExitKind {
  return EXIT_KINDS[record.getUint8(header.kind)];
}
