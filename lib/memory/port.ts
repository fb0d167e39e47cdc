/**
 * How an agent touches memory that another agent can see at the same time: one method per kind of access, named after
 * its ordering. A step makes at most one such action. Guest instructions reach guest RAM through the CPU instead.
 *
 * The concurrent and the deterministic runtime give agents a {@linkcode DirectPort}; the explorer gives them one that
 * records what a step read and wrote and, under x86-TSO, holds back plain and release stores. An agent cannot tell.
 *
 * @module
 */
import { type BlockCopy, blockCopy } from "./block_copy.ts";
import type { MachineMemory } from "./machine_memory.ts";

/** Accesses to shared memory. `at` is a byte offset, naturally aligned for its size; 32-bit values are int32. */
export interface MemoryPort {
  /** A load that later accesses of this agent may not pass (x86: a plain load). */
  load8(at: number): number;
  /** See {@linkcode MemoryPort.load8}. */
  load16(at: number): number;
  /** See {@linkcode MemoryPort.load8}. */
  load32(at: number): number;
  /** See {@linkcode MemoryPort.load8}. */
  load64(at: number): bigint;
  /** A plain or release store: under x86-TSO others may see it late, in program order. */
  store8(at: number, value: number): void;
  /** See {@linkcode MemoryPort.store8}. */
  store16(at: number, value: number): void;
  /** See {@linkcode MemoryPort.store8}. */
  store32(at: number, value: number): void;
  /** See {@linkcode MemoryPort.store8}. */
  store64(at: number, value: bigint): void;
  /** Locked exchange; returns the old value. A full fence. */
  exchange8(at: number, value: number): number;
  /** See {@linkcode MemoryPort.exchange8}. */
  exchange32(at: number, value: number): number;
  /** Locked compare-exchange; returns the old value. A full fence whether it stored or not. */
  compareExchange8(at: number, expected: number, value: number): number;
  /** See {@linkcode MemoryPort.compareExchange8}. */
  compareExchange32(at: number, expected: number, value: number): number;
  /** Locked add; returns the old value. A full fence. */
  add32(at: number, value: number): number;
  /** Locked or; returns the old value. A full fence. */
  or32(at: number, bits: number): number;
  /** Locked and; returns the old value. A full fence. */
  and32(at: number, bits: number): number;
  /** Copies `length` bytes that no other agent may be writing (ownership is the caller's claim). */
  copy(to: number, from: number, length: number): void;
  /** Stores zero in `length` bytes. */
  zero(at: number, length: number): void;
  /** Drains the store buffer: what an IPI send, a hypercall, a VTL switch or a system call does (openhcl.md h). */
  fence(): void;
  /**
   * One of `count` outcomes, 0 to `count` - 1, that nothing in the machine decides: what a device answers, whether an
   * interrupt comes. The explorer tries them all; elsewhere it is 0, the usual outcome. At most one in a step.
   */
  choose(count: number): number;
}

/**
 * Whether the host orders plain accesses as x86 does: loads are not passed by later accesses, stores become visible in
 * program order. V8 emits one instruction for each access to a typed array on a shared buffer and neither merges nor
 * moves such accesses, so that these are the modelled processor's own plain loads and stores. An `Atomics` access is a
 * call that costs several times as much, and elsewhere the only way to get the order.
 */
export const HOST_IS_X86: boolean = Deno.build.arch === "x86_64";

/** Bytes up to which a loop is faster than a call. */
const SHORT = 64;

/**
 * Accesses straight to memory. Loads and plain stores are as ordered as x86's are, and no more: a store may still be in the
 * store buffer when a later load is made. Locked accesses are `Atomics`.
 */
export class DirectPort implements MemoryPort {
  readonly #u8: Uint8Array<SharedArrayBuffer>;
  readonly #u16: Uint16Array<SharedArrayBuffer>;
  readonly #i32: Int32Array<SharedArrayBuffer>;
  readonly #u64: BigUint64Array<SharedArrayBuffer>;
  /** A word that nobody looks at: a locked access to it drains the store buffer. */
  readonly #fence: Int32Array<SharedArrayBuffer> = new Int32Array(new SharedArrayBuffer(4));
  readonly #alone: boolean;
  readonly #copy: BlockCopy;

  /**
   * A port to `memory`. `alone` says that one thread only takes steps in it, so that there is nobody against whom a fence
   * could order anything.
   */
  constructor(memory: MachineMemory, alone = false) {
    this.#u8 = memory.u8;
    this.#u16 = memory.u16;
    this.#i32 = memory.i32;
    this.#u64 = memory.u64;
    this.#alone = alone;
    this.#copy = blockCopy(memory.wasm);
  }
  load8(at: number): number {
    return HOST_IS_X86 ? this.#u8[at] : Atomics.load(this.#u8, at);
  }
  load16(at: number): number {
    return HOST_IS_X86 ? this.#u16[at >>> 1] : Atomics.load(this.#u16, at >>> 1);
  }
  load32(at: number): number {
    return HOST_IS_X86 ? this.#i32[at >>> 2] : Atomics.load(this.#i32, at >>> 2);
  }
  load64(at: number): bigint {
    return HOST_IS_X86 ? this.#u64[at >>> 3] : Atomics.load(this.#u64, at >>> 3);
  }
  store8(at: number, value: number): void {
    if (HOST_IS_X86) this.#u8[at] = value;
    else Atomics.store(this.#u8, at, value);
  }
  store16(at: number, value: number): void {
    if (HOST_IS_X86) this.#u16[at >>> 1] = value;
    else Atomics.store(this.#u16, at >>> 1, value);
  }
  store32(at: number, value: number): void {
    if (HOST_IS_X86) this.#i32[at >>> 2] = value;
    else Atomics.store(this.#i32, at >>> 2, value);
  }
  store64(at: number, value: bigint): void {
    if (HOST_IS_X86) this.#u64[at >>> 3] = value;
    else Atomics.store(this.#u64, at >>> 3, value);
  }
  exchange8(at: number, value: number): number {
    return Atomics.exchange(this.#u8, at, value);
  }
  exchange32(at: number, value: number): number {
    return Atomics.exchange(this.#i32, at >>> 2, value);
  }
  compareExchange8(at: number, expected: number, value: number): number {
    return Atomics.compareExchange(this.#u8, at, expected, value);
  }
  compareExchange32(at: number, expected: number, value: number): number {
    return Atomics.compareExchange(this.#i32, at >>> 2, expected, value);
  }
  add32(at: number, value: number): number {
    return Atomics.add(this.#i32, at >>> 2, value);
  }
  or32(at: number, bits: number): number {
    return Atomics.or(this.#i32, at >>> 2, bits);
  }
  and32(at: number, bits: number): number {
    return Atomics.and(this.#i32, at >>> 2, bits);
  }
  copy(to: number, from: number, length: number): void {
    this.#copy(to, from, length);
  }
  zero(at: number, length: number): void {
    if (length <= SHORT && ((at | length) & 7) === 0) {
      for (let word = at >>> 3; word < (at + length) >>> 3; word++) this.#u64[word] = 0n;
    } else this.#u8.fill(0, at, at + length);
  }
  fence(): void {
    if (!this.#alone) Atomics.add(this.#fence, 0, 1);
  }
  choose(_count: number): number {
    return 0;
  }
}
