/**
 * The host's way into guest memory (DESIGN rule 6): reads of private pages give ciphertext, writes to them fault where
 * there is an RMP and corrupt the page where there is none. Nobody on the host's side reads guest memory in another way.
 *
 * @module
 */
import { PAGE_SHIFT, PAGE_SIZE } from "../memory/machine_memory.ts";
import type { MemoryPort } from "../memory/port.ts";
import type { GuestMemory } from "../sev/guest_memory.ts";
import { RMP_CHECK } from "../sev/rmp.ts";

/** Whoever owns the port: its agent, whose memory port may be replaced before it runs. */
export interface PortOwner {
  readonly port: MemoryPort;
}

/** See the module's description. Addresses are system-physical: byte offsets in the machine's memory. */
export class HostPort {
  readonly guestMemory: GuestMemory;
  readonly #owner: PortOwner;

  /** The port of `owner`, an agent of the host. */
  constructor(guestMemory: GuestMemory, owner: PortOwner) {
    this.guestMemory = guestMemory;
    this.#owner = owner;
  }

  /** Whether `page` is private: what is read there is ciphertext. */
  isPrivate(page: number): boolean {
    return this.guestMemory.isPrivate(this.#owner.port, page);
  }

  /** Whether a write to the page of byte `at` raises #PF with the RMP bit. */
  writeFaults(at: number): boolean {
    const { rmp } = this.guestMemory;
    return rmp !== undefined && rmp.checkHostWrite(this.#owner.port, at >>> PAGE_SHIFT) !== RMP_CHECK.PASS;
  }

  /** Reads a byte. */
  load8(at: number): number {
    const { port } = this.#owner;
    return this.#private(at) ? Number(this.guestMemory.loadAlien(port, at, 1)) : port.load8(at);
  }

  /** Reads 32 bits, unsigned; `at` is a multiple of four. */
  load32(at: number): number {
    const { port } = this.#owner;
    return this.#private(at) ? Number(this.guestMemory.loadAlien(port, at, 4)) : port.load32(at) >>> 0;
  }

  /** Reads 64 bits; `at` is a multiple of eight. */
  load64(at: number): bigint {
    const { port } = this.#owner;
    return this.#private(at) ? this.guestMemory.loadAlien(port, at, 8) : port.load64(at);
  }

  /** Writes a byte; false when the write faults. */
  store8(at: number, value: number): boolean {
    const { port } = this.#owner;
    if (!this.#private(at)) port.store8(at, value);
    else return this.#storePrivate(at, 1, BigInt(value));
    return true;
  }

  /** Writes 64 bits; false when the write faults. */
  store64(at: number, value: bigint): boolean {
    const { port } = this.#owner;
    if (!this.#private(at)) port.store64(at, value);
    else return this.#storePrivate(at, 8, value);
    return true;
  }

  /** Reads `size` (1, 2, 4, 8) bytes at any alignment. */
  loadBytes(at: number, size: number): bigint {
    let value = 0n;
    for (let k = 0; k < size; k++) value |= BigInt(this.load8(at + k)) << BigInt(8 * k);
    return value;
  }

  /** Writes `size` bytes at any alignment; false when one faults. */
  storeBytes(at: number, size: number, value: bigint): boolean {
    for (let k = 0; k < size; k++) if (!this.store8(at + k, Number((value >> BigInt(8 * k)) & 0xffn))) return false;
    return true;
  }

  /** Copies `length` bytes of guest memory to the host's own memory at byte `to`: one copy that nobody waits for. */
  copyIn(to: number, at: number, length: number): void {
    const { memory } = this.guestMemory;
    const into = memory.u8.subarray(to, to + length);
    this.guestMemory.hostBytes(this.#owner.port, at, into);
  }

  /** Copies `length` bytes of the host's own memory at byte `from` to guest memory; false when a page's write faults. */
  copyOut(at: number, from: number, length: number): boolean {
    const { port } = this.#owner;
    for (let done = 0; done < length;) {
      const here = at + done;
      const count = Math.min(length - done, PAGE_SIZE - here % PAGE_SIZE);
      if (this.writeFaults(here)) return false;
      if (this.#private(here)) {
        for (let k = 0; k < count; k++) this.store8(here + k, this.guestMemory.memory.u8[from + done + k]);
      } else {
        port.copy(here, from + done, count);
      }
      done += count;
    }
    return true;
  }

  #private(at: number): boolean {
    return this.guestMemory.isPrivate(this.#owner.port, at >>> PAGE_SHIFT);
  }

  #storePrivate(at: number, size: number, value: bigint): boolean {
    if (this.writeFaults(at)) return false;
    this.guestMemory.storeAlien(this.#owner.port, at, size, value);
    return true;
  }
}
