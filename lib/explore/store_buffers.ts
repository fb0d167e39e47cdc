/**
 * Store buffers of x86-TSO: one for each processor, first in, first out, in words that belong to the explored state.
 *
 * A buffer is a word that counts the words in use, then records: byte offset, length in bytes, the bytes. Unused words
 * are zero, so that equal buffers have equal words. A bulk store (copy, zero) is one record.
 *
 * @module
 */
import type { MachineMemory } from "../memory/machine_memory.ts";
import type { AccessRecorder } from "./access_recorder.ts";

/** Words of a buffer: with 8 bytes a record, some thirty stores. When it is full the oldest store drains by itself. */
export const STORE_BUFFER_WORDS = 128;
/** Words of a record before its bytes. */
const RECORD_HEAD = 2;

/** The store buffers of all processors. */
export class StoreBuffers {
  /** The buffers, one after the other. */
  readonly words: Int32Array;
  readonly #bytes: Uint8Array;
  readonly #memory: MachineMemory;
  readonly #recorder: AccessRecorder;

  /** Empty buffers of `processors` processors. */
  constructor(processors: number, memory: MachineMemory, recorder: AccessRecorder) {
    this.words = new Int32Array(processors * STORE_BUFFER_WORDS);
    this.#bytes = new Uint8Array(this.words.buffer);
    this.#memory = memory;
    this.#recorder = recorder;
  }

  /** Words in use of a buffer, the first one not counted; 0 when it is empty. */
  used(processor: number): number {
    return this.words[processor * STORE_BUFFER_WORDS];
  }

  /** Puts a store of `length` bytes at `at` into the buffer; returns the offset in `bytes` at which they go. */
  push(processor: number, at: number, length: number): number {
    const base = processor * STORE_BUFFER_WORDS;
    const size = RECORD_HEAD + ((length + 3) >>> 2);
    if (size > STORE_BUFFER_WORDS - 1) throw new RangeError(`A store of ${length} bytes is longer than a store buffer`);
    while (this.words[base] + size > STORE_BUFFER_WORDS - 1) this.drainOldest(processor);
    const record = base + 1 + this.words[base];
    this.words[record] = at;
    this.words[record + 1] = length;
    this.words[base] += size;
    this.#recorder.readCell(processor);
    this.#recorder.writeCell(processor);
    return (record + RECORD_HEAD) * 4;
  }

  /** The buffers as bytes. */
  get bytes(): Uint8Array {
    return this.#bytes;
  }

  /**
   * Puts `length` bytes at `at`, as the processor sees them, into `to` from byte `offset`: memory, and over it what is in
   * its own buffer.
   */
  forward(processor: number, at: number, length: number, to: Uint8Array, offset: number): void {
    const memory = this.#memory.u8;
    for (let k = 0; k < length; k++) to[offset + k] = memory[at + k];
    const base = processor * STORE_BUFFER_WORDS;
    const end = base + 1 + this.words[base];
    for (let record = base + 1; record < end;) {
      const start = this.words[record];
      const size = this.words[record + 1];
      const from = Math.max(start, at);
      const until = Math.min(start + size, at + length);
      const bytes = (record + RECORD_HEAD) * 4;
      for (let byte = from; byte < until; byte++) to[offset + byte - at] = this.#bytes[bytes + byte - start];
      record += RECORD_HEAD + ((size + 3) >>> 2);
    }
  }

  /** Whether a load of the processor meets anything in its buffer. */
  holds(processor: number, at: number, length: number): boolean {
    const base = processor * STORE_BUFFER_WORDS;
    const end = base + 1 + this.words[base];
    for (let record = base + 1; record < end;) {
      const start = this.words[record];
      const size = this.words[record + 1];
      if (start < at + length && at < start + size) return true;
      record += RECORD_HEAD + ((size + 3) >>> 2);
    }
    return false;
  }

  /** The stores in a buffer, the oldest first. */
  stores(processor: number): { readonly at: number; readonly bytes: Uint8Array }[] {
    const stores: { at: number; bytes: Uint8Array }[] = [];
    const base = processor * STORE_BUFFER_WORDS;
    for (let record = base + 1; record < base + 1 + this.words[base];) {
      const length = this.words[record + 1];
      const from = (record + RECORD_HEAD) * 4;
      stores.push({ at: this.words[record], bytes: this.#bytes.slice(from, from + length) });
      record += RECORD_HEAD + ((length + 3) >>> 2);
    }
    return stores;
  }

  /** Lets the oldest store of the processor reach memory; the buffer is not empty. */
  drainOldest(processor: number): void {
    const { words } = this;
    const base = processor * STORE_BUFFER_WORDS;
    const at = words[base + 1];
    const length = words[base + 2];
    const size = RECORD_HEAD + ((length + 3) >>> 2);
    this.#recorder.readCell(processor);
    this.#recorder.write(at, length);
    this.#recorder.writeCell(processor);
    const bytes = (base + 1 + RECORD_HEAD) * 4;
    for (let k = 0; k < length; k++) this.#memory.u8[at + k] = this.#bytes[bytes + k];
    const end = base + 1 + words[base];
    words.copyWithin(base + 1, base + 1 + size, end);
    words.fill(0, end - size, end);
    words[base] -= size;
  }

  /** Lets every store of the processor reach memory. */
  drain(processor: number): void {
    this.#recorder.readCell(processor);
    while (this.words[processor * STORE_BUFFER_WORDS] !== 0) this.drainOldest(processor);
  }
}
