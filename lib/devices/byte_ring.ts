/**
 * Rings of bytes in the shared memory through which a device's output reaches the main thread.
 *
 * One producer at a time (the holder of the device lock) and one consumer. The positions count all bytes ever put and
 * taken, modulo 2^32; the ring is full when they are a capacity apart, and then the producer has to come back later:
 * nothing is dropped.
 *
 * @module
 */
import { bytes, u32 } from "../layout/field_type.ts";
import { reserved, type Structure, structure } from "../layout/structure.ts";
import type { MachineMemory } from "../memory/machine_memory.ts";
import type { MemoryPort } from "../memory/port.ts";

/** Byte offset of the producer's position. */
const PRODUCER = 0;
/** Byte offset of the consumer's position, in a cache line of its own. */
const CONSUMER = 64;
/** Byte offset of the data. */
const DATA = 128;

/** Declares a ring of `capacity` data bytes, a power of two. */
function ringOf(name: string, capacity: number, about: string) {
  return structure(name, DATA + capacity, [
    ["producer", PRODUCER, u32, "Bytes ever put, modulo 2^32; written by the device"],
    reserved(4, CONSUMER - 4),
    ["consumer", CONSUMER, u32, "Bytes ever taken, modulo 2^32; written by the main thread"],
    reserved(CONSUMER + 4, DATA - CONSUMER - 4),
    ["data", DATA, bytes(capacity), "The bytes; position p lies at p modulo the capacity"],
  ], about);
}

/** Data bytes of the serial port's ring. */
export const SERIAL_RING_CAPACITY = 16384;
/** Data bytes of the debug port's ring. */
export const DEBUG_RING_CAPACITY = 4096;

/** Output of the 16550 at 3f8. */
export const SerialRing: ReturnType<typeof ringOf> = ringOf(
  "SerialRing",
  SERIAL_RING_CAPACITY,
  "What the serial port sent; not a structure of the modelled machine",
);
/** Output of the debug port 402. */
export const DebugRing: ReturnType<typeof ringOf> = ringOf(
  "DebugRing",
  DEBUG_RING_CAPACITY,
  "What the debug port was given; not a structure of the modelled machine",
);

/** One ring, for its producer and its consumer. */
export class ByteRing {
  readonly #memory: MachineMemory;
  readonly #port: MemoryPort;
  readonly #base: number;
  readonly #capacity: number;

  /** The ring of type `layout` ({@linkcode SerialRing} or {@linkcode DebugRing}) at byte offset `base`. */
  constructor(memory: MachineMemory, port: MemoryPort, base: number, layout: Pick<Structure<[]>, "size">) {
    this.#memory = memory;
    this.#port = port;
    this.#base = base;
    this.#capacity = layout.size - DATA;
  }

  /** Puts one byte and returns true, or returns false when the ring is full. */
  put(byte: number): boolean {
    const produced = this.#port.load32(this.#base + PRODUCER);
    const consumed = this.#port.load32(this.#base + CONSUMER);
    if (((produced - consumed) | 0) >= this.#capacity) return false;
    this.#memory.u8[this.#base + DATA + (produced & (this.#capacity - 1))] = byte;
    this.#port.store32(this.#base + PRODUCER, (produced + 1) | 0);
    return true;
  }

  /** Whether {@linkcode ByteRing.put} would succeed. Reads only. */
  hasRoom(): boolean {
    const produced = this.#port.load32(this.#base + PRODUCER);
    return ((produced - this.#port.load32(this.#base + CONSUMER)) | 0) < this.#capacity;
  }

  /** Takes everything that is there; an empty array when nothing is. */
  drain(): Uint8Array<ArrayBuffer> {
    const produced = this.#port.load32(this.#base + PRODUCER);
    const consumed = this.#port.load32(this.#base + CONSUMER);
    const length = Math.min((produced - consumed) >>> 0, this.#capacity);
    const taken = new Uint8Array(length);
    for (let i = 0; i < length; i++) {
      taken[i] = this.#memory.u8[this.#base + DATA + ((consumed + i) & (this.#capacity - 1))];
    }
    if (length !== 0) this.#port.store32(this.#base + CONSUMER, produced);
    return taken;
  }
}
