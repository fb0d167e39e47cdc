/**
 * The ports of explored agents: they note what a step reads and writes, and under x86-TSO they hold stores back.
 *
 * Everything here runs in one thread, so that plain accesses do.
 *
 * @module
 */
import type { MachineMemory } from "../memory/machine_memory.ts";
import type { MemoryPort } from "../memory/port.ts";
import type { AccessRecorder } from "./access_recorder.ts";
import type { StoreBuffers } from "./store_buffers.ts";

/** Decides the outcome of `MemoryPort.choose`. */
export interface Chooser {
  /** One of `count` outcomes. */
  nextChoice(count: number): number;
}

/** What the ports of a system share. */
export interface PortContext {
  readonly memory: MachineMemory;
  readonly recorder: AccessRecorder;
  /** Who chooses outcomes now. */
  chooser: Chooser;
}

/** A port under sequential consistency. */
export class SequentialPort implements MemoryPort {
  protected readonly u8: Uint8Array;
  protected readonly u16: Uint16Array;
  protected readonly i32: Int32Array;
  protected readonly u64: BigUint64Array;
  protected readonly recorder: AccessRecorder;
  readonly #context: PortContext;

  /** A port of an agent of `context`'s system. */
  constructor(context: PortContext) {
    this.u8 = context.memory.u8;
    this.u16 = context.memory.u16;
    this.i32 = context.memory.i32;
    this.u64 = context.memory.u64;
    this.recorder = context.recorder;
    this.#context = context;
  }

  /** Before a load. */
  protected reads(at: number, bytes: number): void {
    if (this.recorder.on) this.recorder.read(at, bytes);
  }

  load8(at: number): number {
    this.reads(at, 1);
    return this.u8[at];
  }
  load16(at: number): number {
    this.reads(at, 2);
    return this.u16[at >>> 1];
  }
  load32(at: number): number {
    this.reads(at, 4);
    return this.i32[at >>> 2];
  }
  load64(at: number): bigint {
    this.reads(at, 8);
    return this.u64[at >>> 3];
  }
  store8(at: number, value: number): void {
    this.recorder.write(at, 1);
    this.u8[at] = value;
  }
  store16(at: number, value: number): void {
    this.recorder.write(at, 2);
    this.u16[at >>> 1] = value;
  }
  store32(at: number, value: number): void {
    this.recorder.write(at, 4);
    this.i32[at >>> 2] = value;
  }
  store64(at: number, value: bigint): void {
    this.recorder.write(at, 8);
    this.u64[at >>> 3] = value;
  }
  exchange8(at: number, value: number): number {
    this.fence();
    const old = this.#modify8(at);
    this.u8[at] = value;
    return old;
  }
  exchange32(at: number, value: number): number {
    this.fence();
    const old = this.#modify32(at);
    this.i32[at >>> 2] = value;
    return old;
  }
  compareExchange8(at: number, expected: number, value: number): number {
    this.fence();
    const old = this.#modify8(at);
    if (old === expected) this.u8[at] = value;
    return old;
  }
  compareExchange32(at: number, expected: number, value: number): number {
    this.fence();
    const old = this.#modify32(at);
    if (old === expected) this.i32[at >>> 2] = value;
    return old;
  }
  add32(at: number, value: number): number {
    this.fence();
    const old = this.#modify32(at);
    this.i32[at >>> 2] = old + value;
    return old;
  }
  or32(at: number, bits: number): number {
    this.fence();
    const old = this.#modify32(at);
    this.i32[at >>> 2] = old | bits;
    return old;
  }
  and32(at: number, bits: number): number {
    this.fence();
    const old = this.#modify32(at);
    this.i32[at >>> 2] = old & bits;
    return old;
  }
  copy(to: number, from: number, length: number): void {
    if (length === 0) return;
    this.recorder.read(from, length);
    this.recorder.write(to, length);
    this.u8.copyWithin(to, from, from + length);
  }
  zero(at: number, length: number): void {
    if (length === 0) return;
    this.recorder.write(at, length);
    this.u8.fill(0, at, at + length);
  }
  fence(): void {
    // Stores reach memory at once.
  }
  choose(count: number): number {
    return this.#context.chooser.nextChoice(count);
  }

  #modify8(at: number): number {
    this.recorder.read(at, 1);
    this.recorder.write(at, 1);
    return this.u8[at];
  }
  #modify32(at: number): number {
    this.recorder.read(at, 4);
    this.recorder.write(at, 4);
    return this.i32[at >>> 2];
  }
}

/** A port under x86-TSO: plain and release stores go through the processor's store buffer. */
export class StoreBufferPort extends SequentialPort {
  readonly #buffers: StoreBuffers;
  readonly #processor: number;
  readonly #scratch = new Uint8Array(8);
  readonly #view = new DataView(this.#scratch.buffer);

  /** A port of an agent that executes on `processor`. */
  constructor(context: PortContext, buffers: StoreBuffers, processor: number) {
    super(context);
    this.#buffers = buffers;
    this.#processor = processor;
  }

  /** Whether the load has to look into the buffer. */
  #forwards(at: number, bytes: number): boolean {
    this.recorder.readCell(this.#processor);
    this.recorder.read(at, bytes);
    if (this.#buffers.used(this.#processor) === 0 || !this.#buffers.holds(this.#processor, at, bytes)) return false;
    this.#buffers.forward(this.#processor, at, bytes, this.#scratch, 0);
    return true;
  }

  override load8(at: number): number {
    return this.#forwards(at, 1) ? this.#scratch[0] : this.u8[at];
  }
  override load16(at: number): number {
    return this.#forwards(at, 2) ? this.#view.getUint16(0, true) : this.u16[at >>> 1];
  }
  override load32(at: number): number {
    return this.#forwards(at, 4) ? this.#view.getInt32(0, true) : this.i32[at >>> 2];
  }
  override load64(at: number): bigint {
    return this.#forwards(at, 8) ? this.#view.getBigUint64(0, true) : this.u64[at >>> 3];
  }
  override store8(at: number, value: number): void {
    this.#view.setUint8(0, value);
    this.#push(at, 1);
  }
  override store16(at: number, value: number): void {
    this.#view.setUint16(0, value, true);
    this.#push(at, 2);
  }
  override store32(at: number, value: number): void {
    this.#view.setInt32(0, value, true);
    this.#push(at, 4);
  }
  override store64(at: number, value: bigint): void {
    this.#view.setBigUint64(0, value, true);
    this.#push(at, 8);
  }
  override copy(to: number, from: number, length: number): void {
    for (let done = 0; done < length; done += BULK_BYTES) {
      const part = Math.min(BULK_BYTES, length - done);
      this.recorder.readCell(this.#processor);
      this.recorder.read(from + done, part);
      const bytes = new Uint8Array(part);
      this.#buffers.forward(this.#processor, from + done, part, bytes, 0);
      this.#buffers.bytes.set(bytes, this.#buffers.push(this.#processor, to + done, part));
    }
  }
  override zero(at: number, length: number): void {
    for (let done = 0; done < length; done += BULK_BYTES) {
      this.#buffers.push(this.#processor, at + done, Math.min(BULK_BYTES, length - done)); // its bytes are zero
    }
  }
  override fence(): void {
    this.#buffers.drain(this.#processor);
  }

  #push(at: number, length: number): void {
    const offset = this.#buffers.push(this.#processor, at, length);
    for (let k = 0; k < length; k++) this.#buffers.bytes[offset + k] = this.#scratch[k];
  }
}

/** Bytes of one record of a bulk store. Nobody else may look at memory that is copied or zeroed, so its pieces may be large. */
const BULK_BYTES = 256;
