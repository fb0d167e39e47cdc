/**
 * Accesses that are more than a load or a store: read-modify-write with and without LOCK, and the stack.
 *
 * A locked access to a naturally aligned place is a compare-exchange of the shared memory. One that is misaligned, wider
 * than 8 bytes, or crosses a page is serialised by a lock word: atomic against others of its kind, not against plain
 * stores.
 *
 * @module
 */

import { ACCESS_WRITE } from "./bus.ts";
import { noteDataAccess } from "./debug.ts";
import type { Cpu } from "./cpu.ts";
import { VECTOR_AC, VECTOR_GP } from "./faults.ts";
import type { Insn } from "./insn.ts";
import { CpuMemory } from "./memory_access.ts";
import { TLB_ENTRIES } from "./registers.ts";
import { RSP, SS, STOP_SMC } from "./state.ts";

/** Mask of a TLB index. */
const INDEX_MASK = TLB_ENTRIES - 1;
/** A linear address without its offset in the page. */
const PAGE_MASK = ~0xfff;
/** Bytes of a page. */
const PAGE_BYTES = 4096;

/** Memory access plus read-modify-write and the stack. */
export class CpuUpdate extends CpuMemory {
  /** Where the read-modify-write in progress lies in the memory, -1 when it crosses a page or is a device. */
  #rmwOffset = 0;
  /** Its linear address. */
  #rmwLo = 0;
  #rmwHi = 0;
  /** Whether it holds the lock word. */
  #rmwSplit = false;

  // ---- read-modify-write ----

  /** Finds the operand, checks that it can be written, and takes the lock word when a locked one is not aligned. */
  #rmwBegin(i: Insn, size: number, locked: boolean): number {
    this.ea(i);
    let lo = this.ea32[0];
    let hi = this.ea32[1];
    if ((this.flatWrite & i.segmentBit) === 0) {
      this.segmentLinear(i.segment, lo, hi, size, true);
      lo = this.ea32[0];
      hi = this.ea32[1];
    }
    const t = (((lo >>> 12) & INDEX_MASK) << 2) + this.tlbWrite;
    const tlb = this.tlb;
    let offset = -1;
    if (tlb[t] === ((lo + size - 1) & PAGE_MASK) && tlb[t + 1] === hi) {
      offset = (lo + tlb[t + 2]) >>> 0;
    } else {
      if (this.watching) noteDataAccess(this as unknown as Cpu, lo, hi, size, true);
      this.checkCanonical(i.segment, lo, hi, size);
      offset = this.lookup(lo, hi, ACCESS_WRITE, this.cpl === 3);
      if ((lo & 0xfff) + size > PAGE_BYTES) {
        this.secondPage(lo, hi);
        this.lookup(this.ea32[0], this.ea32[1], ACCESS_WRITE, this.cpl === 3);
        offset = -1;
      }
      if (this.alignmentChecks && (lo & (size - 1)) !== 0) this.raise(VECTOR_AC, 0);
    }
    this.#rmwOffset = offset;
    this.#rmwLo = lo;
    this.#rmwHi = hi;
    this.#rmwSplit = locked && (offset < 0 || (offset & (size - 1)) !== 0);
    if (this.#rmwSplit) this.#takeSplitLock();
    return offset;
  }

  /** Takes the lock word. */
  #takeSplitLock(): void {
    const word = this.splitLock >>> 2;
    while (Atomics.compareExchange(this.m32, word, 0, 1) !== 0) {
      // Another processor holds it for the length of one access.
    }
  }

  /** Gives the lock word back. */
  #giveSplitLock(): void {
    this.#rmwSplit = false;
    Atomics.store(this.m32, this.splitLock >>> 2, 0);
  }

  /** Gives the lock word back when an access of a locked operand was left by an exception or exit. */
  abandonRmw(): void {
    if (this.#rmwSplit) this.#giveSplitLock();
  }

  /** Reads the operand that `rmwCommit8` will write, zero-extended. */
  rmwLoad8(i: Insn, locked: boolean = i.lock): number {
    const offset = this.#rmwBegin(i, 1, locked);
    if (offset >= 0) return this.m8[offset];
    this.readPages(this.#rmwLo, this.#rmwHi, 1, this.cpl === 3);
    return this.v8[0];
  }

  /** Writes the operand; false when it was locked and has changed since (`old`): load and compute again. */
  rmwCommit8(i: Insn, old: number, value: number, locked: boolean = i.lock): boolean {
    const offset = this.#rmwOffset;
    if (offset < 0) {
      this.v32[0] = value & 0xff;
      return this.#rmwSlow(1);
    }
    if (((offset - this.codeLo) >>> 0) < this.codeSpan) this.stop |= STOP_SMC;
    if (locked) return Atomics.compareExchange(this.m8, offset, old & 0xff, value & 0xff) === (old & 0xff);
    this.m8[offset] = value;
    return true;
  }

  /** Reads the operand that `rmwCommit16` will write, zero-extended. */
  rmwLoad16(i: Insn, locked: boolean = i.lock): number {
    const offset = this.#rmwBegin(i, 2, locked);
    if (offset >= 0) return (offset & 1) === 0 ? this.m16[offset >>> 1] : this.dv.getUint16(offset, true);
    this.readPages(this.#rmwLo, this.#rmwHi, 2, this.cpl === 3);
    return this.v32[0] & 0xffff;
  }

  /** Writes the operand; false: load and compute again. */
  rmwCommit16(i: Insn, old: number, value: number, locked: boolean = i.lock): boolean {
    const offset = this.#rmwOffset;
    if (offset < 0) {
      this.v32[0] = value & 0xffff;
      return this.#rmwSlow(2);
    }
    if (((offset - this.codeLo) >>> 0) < this.codeSpan) this.stop |= STOP_SMC;
    if ((offset & 1) !== 0) {
      this.dv.setUint16(offset, value & 0xffff, true);
      if (this.#rmwSplit) this.#giveSplitLock();
      return true;
    }
    if (locked) {
      return Atomics.compareExchange(this.m16, offset >>> 1, old & 0xffff, value & 0xffff) === (old & 0xffff);
    }
    this.m16[offset >>> 1] = value;
    return true;
  }

  /** Reads the operand that `rmwCommit32` will write, signed. */
  rmwLoad32(i: Insn, locked: boolean = i.lock): number {
    const offset = this.#rmwBegin(i, 4, locked);
    if (offset >= 0) return (offset & 3) === 0 ? this.m32[offset >>> 2] : this.dv.getInt32(offset, true);
    this.readPages(this.#rmwLo, this.#rmwHi, 4, this.cpl === 3);
    return this.v32[0];
  }

  /** Writes the operand; false: load and compute again. */
  rmwCommit32(i: Insn, old: number, value: number, locked: boolean = i.lock): boolean {
    const offset = this.#rmwOffset;
    if (offset < 0) {
      this.v32[0] = value;
      return this.#rmwSlow(4);
    }
    if (((offset - this.codeLo) >>> 0) < this.codeSpan) this.stop |= STOP_SMC;
    if ((offset & 3) !== 0) {
      this.dv.setInt32(offset, value, true);
      if (this.#rmwSplit) this.#giveSplitLock();
      return true;
    }
    if (locked) return Atomics.compareExchange(this.m32, offset >>> 2, old | 0, value | 0) === (old | 0);
    this.m32[offset >>> 2] = value;
    return true;
  }

  /** Reads the operand that `rmwCommit64` will write into `v64[0]`. */
  rmwLoad64(i: Insn, locked: boolean = i.lock): void {
    const offset = this.#rmwBegin(i, 8, locked);
    if (offset >= 0) {
      this.v64[0] = (offset & 7) === 0 ? this.m64[offset >>> 3] : this.dv.getBigUint64(offset, true);
      return;
    }
    this.readPages(this.#rmwLo, this.#rmwHi, 8, this.cpl === 3);
  }

  /** Writes `v64[2]`, the operand having been `v64[0]`; false: load and compute again. */
  rmwCommit64(i: Insn, locked: boolean = i.lock): boolean {
    const offset = this.#rmwOffset;
    const v64 = this.v64;
    if (offset < 0) {
      v64[0] = v64[2];
      return this.#rmwSlow(8);
    }
    if (((offset - this.codeLo) >>> 0) < this.codeSpan) this.stop |= STOP_SMC;
    if ((offset & 7) !== 0) {
      this.dv.setBigUint64(offset, v64[2], true);
      if (this.#rmwSplit) this.#giveSplitLock();
      return true;
    }
    if (locked) return Atomics.compareExchange(this.m64, offset >>> 3, v64[0], v64[2]) === v64[0];
    this.m64[offset >>> 3] = v64[2];
    return true;
  }

  /** Writes `v64[0]` where the fast form could not, and gives the lock word back. */
  #rmwSlow(size: number): boolean {
    this.writePages(this.#rmwLo, this.#rmwHi, size, this.cpl === 3);
    if (this.#rmwSplit) this.#giveSplitLock();
    return true;
  }

  /** Takes the lock word for a 16-byte exchange, after making sure that its place can be written. */
  lockedBegin16(segment: number, lo: number, hi: number): void {
    if ((lo & 15) !== 0 && (this.flatWrite & (1 << segment)) !== 0) {
      this.checkCanonical(segment, lo, hi, 16);
      this.raise(VECTOR_GP, 0);
    }
    this.probeWrite(segment, lo, hi, 16);
    this.#takeSplitLock();
    this.#rmwSplit = true;
  }

  // ---- the stack ----

  /** Where a push of `size` bytes goes, relative to the stack pointer plus `by`, into `ea32`. */
  stackOffset(by: number): void {
    const g = this.g32;
    const e = this.ea32;
    const sp = g[RSP * 2];
    if (this.stackSize === 64) {
      const lo = (sp + by) | 0;
      let hi = g[RSP * 2 + 1];
      if (by < 0) {
        if ((lo >>> 0) > (sp >>> 0)) hi--;
      } else if ((lo >>> 0) < (sp >>> 0)) hi++;
      e[0] = lo;
      e[1] = hi;
    } else {
      e[0] = this.stackSize === 32 ? (sp + by) | 0 : (sp + by) & 0xffff;
      e[1] = 0;
    }
  }

  /** Adds `by` bytes to the stack pointer, in its size. */
  moveStack(by: number): void {
    if (this.stackSize === 16) {
      this.g16[RSP * 4] += by;
      return;
    }
    this.stackOffset(by);
    this.g32[RSP * 2] = this.ea32[0];
    this.g32[RSP * 2 + 1] = this.ea32[1];
  }

  /** Pushes 16 bits. */
  push16(value: number): void {
    this.stackOffset(-2);
    this.write16(SS, this.ea32[0], this.ea32[1], value);
    this.moveStack(-2);
  }

  /** Pushes 32 bits. */
  push32(value: number): void {
    this.stackOffset(-4);
    this.write32(SS, this.ea32[0], this.ea32[1], value);
    this.moveStack(-4);
  }

  /** Pushes `v64[0]`. */
  push64(): void {
    const g = this.g32;
    const sp = g[RSP * 2];
    // 64-bit code, a stack whose page is known, and no carry into the high half.
    if (this.long64 && (sp >>> 0) >= 8) {
      const lo = (sp - 8) | 0;
      const t = (((lo >>> 12) & INDEX_MASK) << 2) + this.tlbWrite;
      const tlb = this.tlb;
      const offset = (lo + tlb[t + 2]) >>> 0;
      if (tlb[t] === (lo & PAGE_MASK) && tlb[t + 1] === g[RSP * 2 + 1] && (offset & 7) === 0) {
        this.m64[offset >>> 3] = this.v64[0];
        if (((offset - this.codeLo) >>> 0) < this.codeSpan) this.stop |= STOP_SMC;
        g[RSP * 2] = lo;
        return;
      }
    }
    this.stackOffset(-8);
    this.write64(SS, this.ea32[0], this.ea32[1]);
    this.moveStack(-8);
  }

  /** Pops 16 bits. */
  pop16(): number {
    this.stackOffset(0);
    const value = this.read16(SS, this.ea32[0], this.ea32[1]);
    this.moveStack(2);
    return value;
  }

  /** Pops 32 bits, signed. */
  pop32(): number {
    this.stackOffset(0);
    const value = this.read32(SS, this.ea32[0], this.ea32[1]);
    this.moveStack(4);
    return value;
  }

  /** Pops 64 bits into `v64[0]`. */
  pop64(): void {
    const g = this.g32;
    const lo = g[RSP * 2];
    // As in a push: an aligned stack pointer carries into its high half only from the last place.
    if (this.long64 && lo !== -8) {
      const t = (((lo >>> 12) & INDEX_MASK) << 2) + this.tlbRead;
      const tlb = this.tlb;
      const offset = (lo + tlb[t + 2]) >>> 0;
      if (tlb[t] === (lo & PAGE_MASK) && tlb[t + 1] === g[RSP * 2 + 1] && (offset & 7) === 0) {
        this.v64[0] = this.m64[offset >>> 3];
        g[RSP * 2] = lo + 8;
        return;
      }
    }
    this.stackOffset(0);
    this.read64(SS, this.ea32[0], this.ea32[1]);
    this.moveStack(8);
  }
}
