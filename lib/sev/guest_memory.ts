/**
 * Guest memory under encryption: the same bytes as the guest sees them and as the host does.
 *
 * A real machine has one content of DRAM, ciphertext where the guest wrote with the C bit. The model stores a private page
 * as plain text and computes the ciphertext when somebody without the key looks; so a guest runs at full speed. Which way
 * a page is stored is told by its owner in the RMP (SNP), or by one byte a page that follows how the guest last wrote the
 * page (SEV-ES, where nobody checks). When that changes, the stored bytes are converted, so that DRAM would not have
 * changed: a page that becomes shared reads as scrambled until it is written again (sev.md e22, e23).
 *
 * As on processors without hardware coherency between the two views of a page (CPUID 8000001f EAX bit 10), another
 * processor may use a stale translation until it has flushed it.
 *
 * @module
 */
import { type MachineMemory, PAGE_SHIFT, PAGE_SIZE } from "../memory/machine_memory.ts";
import type { MemoryPort } from "../memory/port.ts";
import { CIPHER_BLOCK_BYTES, KEY_WORDS, MemoryCipher } from "./encryption.ts";
import type { Rmp, RmpState } from "./rmp.ts";

/** Where the state of guest memory lies. */
export interface GuestMemoryPlace {
  /** Byte offset of the key, a multiple of four. */
  readonly key: number;
  /** Byte offset of one byte a page, 1 for private; used without an RMP. */
  readonly views: number;
  /** Pages that can be private: all from address 0 on. */
  readonly pages: number;
}

/** A block's low and high half as 64-bit words. */
const HALVES = 2;
const BLOCK_MASK = ~(CIPHER_BLOCK_BYTES - 1);

/** Guest memory of a machine, as one thread sees it. */
export class GuestMemory {
  readonly memory: MachineMemory;
  /** The reverse map table of an SNP machine. */
  readonly rmp: Rmp | undefined;
  readonly place: GuestMemoryPlace;
  readonly #cipher: MemoryCipher;
  readonly #words: BigUint64Array;
  readonly #bytes: Uint8Array;

  /** The guest memory at `place`, with an RMP or without. */
  constructor(memory: MachineMemory, place: GuestMemoryPlace, rmp: Rmp | undefined) {
    this.memory = memory;
    this.rmp = rmp;
    this.place = place;
    this.#cipher = new MemoryCipher(memory.i32.subarray(place.key >>> 2, (place.key >>> 2) + KEY_WORDS) as Int32Array);
    const block = this.#cipher.block.buffer;
    this.#words = new BigUint64Array(block, 0, HALVES);
    this.#bytes = new Uint8Array(block, 0, CIPHER_BLOCK_BYTES);
  }

  /** Whether page `page` is stored as the guest's plain text: the host sees ciphertext. */
  isPrivate(port: MemoryPort, page: number): boolean {
    if (page >= this.place.pages) return false;
    if (this.rmp !== undefined) return this.rmp.isAssigned(port, page);
    return port.load8(this.place.views + page) !== 0;
  }

  /** Makes page `page` private or shared from the start, its bytes as they are: what a launch does. */
  setPrivate(port: MemoryPort, page: number, isPrivate: boolean): void {
    port.store8(this.place.views + page, isPrivate ? 1 : 0);
  }

  /** The guest writes page `page` through another view than it is stored in (SEV-ES): DRAM stays, the storage changes. */
  changeView(port: MemoryPort, page: number, isPrivate: boolean): void {
    this.#convert(page, isPrivate);
    port.store8(this.place.views + page, isPrivate ? 1 : 0);
  }

  /** RMPUPDATE, and with a change of owner the conversion of what is stored. Returns an `RmpResult`. */
  rmpupdate(port: MemoryPort, page: number, state: RmpState): number {
    const rmp = this.rmp;
    if (rmp === undefined) throw new TypeError("RMPUPDATE without a reverse map table");
    const count = state.size === 0 ? 1 : PAGES_OF_LARGE;
    const before: boolean[] = [];
    for (let k = 0; k < count; k++) before.push(rmp.covers(page + k) && rmp.isAssigned(port, page + k));
    const result = rmp.rmpupdate(port, page, state);
    if (result !== 0) return result;
    for (let k = 0; k < count; k++) if (before[k] !== state.assigned) this.#convert(page + k, state.assigned);
    return result;
  }

  /** Encrypts or decrypts what is stored of a page. */
  #convert(page: number, becomesPrivate: boolean): void {
    const at = page * PAGE_SIZE;
    const bytes = this.memory.u8.subarray(at, at + PAGE_SIZE);
    if (becomesPrivate) this.#cipher.decryptBytes(bytes, at);
    else this.#cipher.encryptBytes(bytes, at);
  }

  /** Reads `size` (1 to 8) bytes at byte `at`, at any alignment, as they are stored. */
  loadStored(at: number, size: number): bigint {
    let value = 0n;
    for (let k = 0; k < size; k++) value |= BigInt(this.memory.u8[at + k]) << BigInt(8 * k);
    return value;
  }

  /** The counterpart of {@linkcode GuestMemory.loadStored}. */
  storeStored(at: number, size: number, value: bigint): void {
    for (let k = 0; k < size; k++) this.memory.u8[at + k] = Number((value >> BigInt(8 * k)) & 0xffn);
  }

  /**
   * Reads `size` (1 to 8) bytes at byte `at` as somebody sees them whose view of the page is not the one that it is stored
   * in: ciphertext of a private page, or what the guest's key makes of a shared one.
   */
  loadAlien(port: MemoryPort, at: number, size: number): bigint {
    let value = 0n;
    for (let k = 0; k < size; k++) {
      if (k === 0 || ((at + k) & ~BLOCK_MASK) === 0) this.#loadBlock(port, (at + k) & BLOCK_MASK);
      value |= BigInt(this.#bytes[(at + k) & ~BLOCK_MASK]) << BigInt(8 * k);
    }
    return value;
  }

  /** The counterpart of {@linkcode GuestMemory.loadAlien}: a write changes whole blocks of what the other side sees. */
  storeAlien(port: MemoryPort, at: number, size: number, value: bigint): void {
    for (let k = 0; k < size;) {
      const block = (at + k) & BLOCK_MASK;
      this.#loadBlock(port, block);
      for (; k < size && ((at + k) & BLOCK_MASK) === block; k++) {
        this.#bytes[(at + k) & ~BLOCK_MASK] = Number((value >> BigInt(8 * k)) & 0xffn);
      }
      this.#reverse(port, block);
      for (let half = 0; half < HALVES; half++) port.store64(block + 8 * half, this.#words[half]);
    }
  }

  /** Copies `length` bytes of page contents at `at` as the host sees them into `into`. */
  hostBytes(port: MemoryPort, at: number, into: Uint8Array): void {
    for (let done = 0; done < into.length;) {
      const here = at + done;
      const count = Math.min(into.length - done, PAGE_SIZE - here % PAGE_SIZE);
      if (!this.isPrivate(port, here >>> PAGE_SHIFT)) {
        into.set(this.memory.u8.subarray(here, here + count), done);
      } else {
        for (let k = 0; k < count; k++) {
          if (k === 0 || ((here + k) & ~BLOCK_MASK) === 0) this.#loadBlock(port, (here + k) & BLOCK_MASK);
          into[done + k] = this.#bytes[(here + k) & ~BLOCK_MASK];
        }
      }
      done += count;
    }
  }

  /** Puts the block at byte `block` into the cipher, as the alien view shows it. */
  #loadBlock(port: MemoryPort, block: number): void {
    for (let half = 0; half < HALVES; half++) this.#words[half] = port.load64(block + 8 * half);
    if (this.isPrivate(port, block >>> PAGE_SHIFT)) this.#cipher.encrypt(block);
    else this.#cipher.decrypt(block);
  }

  /** Turns the alien view of the block in the cipher into what is stored. */
  #reverse(port: MemoryPort, block: number): void {
    if (this.isPrivate(port, block >>> PAGE_SHIFT)) this.#cipher.decrypt(block);
    else this.#cipher.encrypt(block);
  }
}

/** Pages of a large page. */
const PAGES_OF_LARGE = 512;
