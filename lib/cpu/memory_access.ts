/**
 * Guest memory as instructions see it: effective addresses, segment checks, loads and stores.
 *
 * The fast path of an access is a look into the TLB whose tag is compared with the page of the access's *last* byte,
 * while the entry is chosen by its first: an access that crosses a page therefore misses. Everything unusual is behind
 * that miss: page walks, devices, page crossings, non-canonical addresses, alignment checks.
 *
 * @module
 */

import { ACCESS_WRITE } from "./bus.ts";
import { VECTOR_GP, VECTOR_SS } from "./faults.ts";
import type { Insn } from "./insn.ts";
import { TLB_ENTRIES } from "./registers.ts";
import { CpuState, SEG_BIG, SEG_CODE, SEG_EXPAND_DOWN, SEG_PRESENT, SEG_WRITABLE, SS, STOP_SMC } from "./state.ts";
import { CpuTranslation } from "./translation.ts";

const SEGMENTS = CpuState.at.es >> 2;
/** Mask of a TLB index. */
const INDEX_MASK = TLB_ENTRIES - 1;
/** A linear address without its offset in the page. */
const PAGE_MASK = ~0xfff;

/** Registers plus loads and stores. */
export class CpuMemory extends CpuTranslation {
  // ---- effective and linear addresses ----

  /** Puts the effective offset of the memory operand into `ea32`. */
  ea(i: Insn): void {
    const g = this.g32;
    const e = this.ea32;
    switch (i.ea) {
      case 1: { // EA_BASE64
        const base = i.base << 1;
        const disp = i.dispLo;
        const lo = (g[base] + disp) | 0;
        e[0] = lo;
        e[1] = g[base + 1] + i.dispHi + ((lo >>> 0) < (disp >>> 0) ? 1 : 0);
        return;
      }
      case 2: { // EA_SIB64
        let lo = i.dispLo;
        let hi = i.dispHi;
        if (i.base >= 0) {
          const b = g[i.base << 1];
          lo = (lo + b) | 0;
          hi = (hi + g[(i.base << 1) + 1] + ((lo >>> 0) < (b >>> 0) ? 1 : 0)) | 0;
        }
        if (i.index >= 0) {
          const x = g[i.index << 1];
          const s = i.scale;
          const xl = x << s;
          const xh = s === 0 ? g[(i.index << 1) + 1] : (g[(i.index << 1) + 1] << s) | (x >>> (32 - s));
          lo = (lo + xl) | 0;
          hi = (hi + xh + ((lo >>> 0) < (xl >>> 0) ? 1 : 0)) | 0;
        }
        e[0] = lo;
        e[1] = hi;
        return;
      }
      case 3: { // EA_RIP
        const rip = this.blockLo;
        const after = (rip + i.next) | 0;
        const lo = (after + i.dispLo) | 0;
        let hi = this.blockHi + i.dispHi;
        if ((after >>> 0) < (rip >>> 0)) hi++;
        if ((lo >>> 0) < (i.dispLo >>> 0)) hi++;
        e[0] = lo;
        e[1] = i.addrsize === 4 ? 0 : hi;
        return;
      }
      case 4: { // EA_32
        let lo = i.dispLo;
        if (i.base >= 0) lo += g[i.base << 1];
        if (i.index >= 0) lo += g[i.index << 1] << i.scale;
        e[0] = lo;
        e[1] = 0;
        return;
      }
      default: { // EA_16
        let lo = i.dispLo;
        if (i.base >= 0) lo += g[i.base << 1];
        if (i.index >= 0) lo += g[i.index << 1];
        e[0] = lo & 0xffff;
        e[1] = 0;
      }
    }
  }

  /** Turns the offset lo:hi in a segment that is not flat into a linear address in `ea32`, with all segment checks. */
  segmentLinear(segment: number, lo: number, hi: number, size: number, write: boolean): void {
    const s32 = this.s32;
    const e = this.ea32;
    const at = SEGMENTS + segment * 4;
    const baseLo = s32[at];
    const linear = (baseLo + lo) | 0;
    if (this.long64) {
      if (segment < 4) {
        e[0] = lo;
        e[1] = hi;
        return;
      }
      e[0] = linear;
      e[1] = hi + s32[at + 1] + ((linear >>> 0) < (baseLo >>> 0) ? 1 : 0);
      return;
    }
    const attributes = s32[at + 3] >>> 16;
    if (this.protected && !this.v86) {
      const code = (attributes & SEG_CODE) !== 0;
      const writable = (attributes & SEG_WRITABLE) !== 0;
      if ((attributes & SEG_PRESENT) === 0 || (write ? code || !writable : code && !writable)) {
        this.raise(segment === SS ? VECTOR_SS : VECTOR_GP, 0);
      }
    }
    const limit = s32[at + 2] >>> 0;
    const first = lo >>> 0;
    const last = first + size - 1;
    if ((attributes & (SEG_CODE | SEG_EXPAND_DOWN)) === SEG_EXPAND_DOWN) {
      const top = (attributes & SEG_BIG) !== 0 ? 0xffffffff : 0xffff;
      if (first <= limit || last > top) this.raise(segment === SS ? VECTOR_SS : VECTOR_GP, 0);
    } else if (last > limit) {
      this.raise(segment === SS ? VECTOR_SS : VECTOR_GP, 0);
    }
    e[0] = linear;
    e[1] = 0;
  }

  // ---- reads through a segment ----

  /** Reads a byte, zero-extended. */
  read8(segment: number, lo: number, hi: number): number {
    if ((this.flatRead & (1 << segment)) === 0) {
      this.segmentLinear(segment, lo, hi, 1, false);
      lo = this.ea32[0];
      hi = this.ea32[1];
    }
    const t = (((lo >>> 12) & INDEX_MASK) << 2) + this.tlbRead;
    const tlb = this.tlb;
    if (tlb[t] === (lo & PAGE_MASK) && tlb[t + 1] === hi) return this.m8[(lo + tlb[t + 2]) >>> 0];
    this.checkCanonical(segment, lo, hi, 1);
    this.readPages(lo, hi, 1, this.cpl === 3);
    return this.v8[0];
  }

  /** Reads 16 bits, zero-extended. */
  read16(segment: number, lo: number, hi: number): number {
    if ((this.flatRead & (1 << segment)) === 0) {
      this.segmentLinear(segment, lo, hi, 2, false);
      lo = this.ea32[0];
      hi = this.ea32[1];
    }
    const t = (((lo >>> 12) & INDEX_MASK) << 2) + this.tlbRead;
    const tlb = this.tlb;
    if (tlb[t] === ((lo + 1) & PAGE_MASK) && tlb[t + 1] === hi) {
      const offset = (lo + tlb[t + 2]) >>> 0;
      return (offset & 1) === 0 ? this.m16[offset >>> 1] : this.dv.getUint16(offset, true);
    }
    this.checkCanonical(segment, lo, hi, 2);
    this.readPages(lo, hi, 2, this.cpl === 3);
    return this.v32[0] & 0xffff;
  }

  /** Reads 32 bits, signed. */
  read32(segment: number, lo: number, hi: number): number {
    if ((this.flatRead & (1 << segment)) === 0) {
      this.segmentLinear(segment, lo, hi, 4, false);
      lo = this.ea32[0];
      hi = this.ea32[1];
    }
    const t = (((lo >>> 12) & INDEX_MASK) << 2) + this.tlbRead;
    const tlb = this.tlb;
    if (tlb[t] === ((lo + 3) & PAGE_MASK) && tlb[t + 1] === hi) {
      const offset = (lo + tlb[t + 2]) >>> 0;
      return (offset & 3) === 0 ? this.m32[offset >>> 2] : this.dv.getInt32(offset, true);
    }
    this.checkCanonical(segment, lo, hi, 4);
    this.readPages(lo, hi, 4, this.cpl === 3);
    return this.v32[0];
  }

  /** Reads 64 bits into `v64[0]`. */
  read64(segment: number, lo: number, hi: number): void {
    if ((this.flatRead & (1 << segment)) === 0) {
      this.segmentLinear(segment, lo, hi, 8, false);
      lo = this.ea32[0];
      hi = this.ea32[1];
    }
    const t = (((lo >>> 12) & INDEX_MASK) << 2) + this.tlbRead;
    const tlb = this.tlb;
    if (tlb[t] === ((lo + 7) & PAGE_MASK) && tlb[t + 1] === hi) {
      const offset = (lo + tlb[t + 2]) >>> 0;
      this.v64[0] = (offset & 7) === 0 ? this.m64[offset >>> 3] : this.dv.getBigUint64(offset, true);
      return;
    }
    this.checkCanonical(segment, lo, hi, 8);
    this.readPages(lo, hi, 8, this.cpl === 3);
  }

  /** Reads 128 bits into `v64[0]` and `v64[1]`; `aligned` raises #GP(0) unless the address is a multiple of 16. */
  read128(segment: number, lo: number, hi: number, aligned: boolean): void {
    if ((this.flatRead & (1 << segment)) === 0) {
      this.segmentLinear(segment, lo, hi, 16, false);
      lo = this.ea32[0];
      hi = this.ea32[1];
    }
    const v64 = this.v64;
    const t = (((lo >>> 12) & INDEX_MASK) << 2) + this.tlbRead;
    const tlb = this.tlb;
    if (tlb[t] === ((lo + 15) & PAGE_MASK) && tlb[t + 1] === hi && !(aligned && (lo & 15) !== 0)) {
      const offset = (lo + tlb[t + 2]) >>> 0;
      if ((offset & 7) === 0) {
        v64[0] = this.m64[offset >>> 3];
        v64[1] = this.m64[(offset >>> 3) + 1];
      } else {
        v64[0] = this.dv.getBigUint64(offset, true);
        v64[1] = this.dv.getBigUint64(offset + 8, true);
      }
      return;
    }
    this.checkCanonical(segment, lo, hi, 16);
    if (aligned && (lo & 15) !== 0) this.raise(VECTOR_GP, 0);
    const user = this.cpl === 3;
    const upperLo = (lo + 8) | 0;
    const upperHi = (upperLo >>> 0) < 8 && this.longMode ? hi + 1 : hi;
    this.readPages(lo, hi, 8, user);
    const low = v64[0];
    this.readPages(upperLo, upperHi, 8, user);
    v64[1] = v64[0];
    v64[0] = low;
  }

  // ---- writes through a segment ----

  /** Writes a byte. */
  write8(segment: number, lo: number, hi: number, value: number): void {
    if ((this.flatWrite & (1 << segment)) === 0) {
      this.segmentLinear(segment, lo, hi, 1, true);
      lo = this.ea32[0];
      hi = this.ea32[1];
    }
    const t = (((lo >>> 12) & INDEX_MASK) << 2) + this.tlbWrite;
    const tlb = this.tlb;
    if (tlb[t] === (lo & PAGE_MASK) && tlb[t + 1] === hi) {
      const offset = (lo + tlb[t + 2]) >>> 0;
      this.m8[offset] = value;
      if (((offset - this.codeLo) >>> 0) < this.codeSpan) this.stop |= STOP_SMC;
      return;
    }
    this.v32[0] = value & 0xff;
    this.v32[1] = 0;
    this.checkCanonical(segment, lo, hi, 1);
    this.writePages(lo, hi, 1, this.cpl === 3);
  }

  /** Writes 16 bits. */
  write16(segment: number, lo: number, hi: number, value: number): void {
    if ((this.flatWrite & (1 << segment)) === 0) {
      this.segmentLinear(segment, lo, hi, 2, true);
      lo = this.ea32[0];
      hi = this.ea32[1];
    }
    const t = (((lo >>> 12) & INDEX_MASK) << 2) + this.tlbWrite;
    const tlb = this.tlb;
    if (tlb[t] === ((lo + 1) & PAGE_MASK) && tlb[t + 1] === hi) {
      const offset = (lo + tlb[t + 2]) >>> 0;
      if ((offset & 1) === 0) this.m16[offset >>> 1] = value;
      else this.dv.setUint16(offset, value & 0xffff, true);
      if (((offset - this.codeLo) >>> 0) < this.codeSpan) this.stop |= STOP_SMC;
      return;
    }
    this.v32[0] = value & 0xffff;
    this.v32[1] = 0;
    this.checkCanonical(segment, lo, hi, 2);
    this.writePages(lo, hi, 2, this.cpl === 3);
  }

  /** Writes 32 bits. */
  write32(segment: number, lo: number, hi: number, value: number): void {
    if ((this.flatWrite & (1 << segment)) === 0) {
      this.segmentLinear(segment, lo, hi, 4, true);
      lo = this.ea32[0];
      hi = this.ea32[1];
    }
    const t = (((lo >>> 12) & INDEX_MASK) << 2) + this.tlbWrite;
    const tlb = this.tlb;
    if (tlb[t] === ((lo + 3) & PAGE_MASK) && tlb[t + 1] === hi) {
      const offset = (lo + tlb[t + 2]) >>> 0;
      if ((offset & 3) === 0) this.m32[offset >>> 2] = value;
      else this.dv.setInt32(offset, value, true);
      if (((offset - this.codeLo) >>> 0) < this.codeSpan) this.stop |= STOP_SMC;
      return;
    }
    this.v32[0] = value;
    this.v32[1] = 0;
    this.checkCanonical(segment, lo, hi, 4);
    this.writePages(lo, hi, 4, this.cpl === 3);
  }

  /** Writes `v64[0]`. */
  write64(segment: number, lo: number, hi: number): void {
    if ((this.flatWrite & (1 << segment)) === 0) {
      this.segmentLinear(segment, lo, hi, 8, true);
      lo = this.ea32[0];
      hi = this.ea32[1];
    }
    const t = (((lo >>> 12) & INDEX_MASK) << 2) + this.tlbWrite;
    const tlb = this.tlb;
    if (tlb[t] === ((lo + 7) & PAGE_MASK) && tlb[t + 1] === hi) {
      const offset = (lo + tlb[t + 2]) >>> 0;
      if ((offset & 7) === 0) this.m64[offset >>> 3] = this.v64[0];
      else this.dv.setBigUint64(offset, this.v64[0], true);
      if (((offset - this.codeLo) >>> 0) < this.codeSpan) this.stop |= STOP_SMC;
      return;
    }
    this.checkCanonical(segment, lo, hi, 8);
    this.writePages(lo, hi, 8, this.cpl === 3);
  }

  /** Writes `v64[0]` and `v64[1]`; `aligned` raises #GP(0) unless the address is a multiple of 16. */
  write128(segment: number, lo: number, hi: number, aligned: boolean): void {
    if ((this.flatWrite & (1 << segment)) === 0) {
      this.segmentLinear(segment, lo, hi, 16, true);
      lo = this.ea32[0];
      hi = this.ea32[1];
    }
    const v64 = this.v64;
    const t = (((lo >>> 12) & INDEX_MASK) << 2) + this.tlbWrite;
    const tlb = this.tlb;
    if (tlb[t] === ((lo + 15) & PAGE_MASK) && tlb[t + 1] === hi && !(aligned && (lo & 15) !== 0)) {
      const offset = (lo + tlb[t + 2]) >>> 0;
      if ((offset & 7) === 0) {
        this.m64[offset >>> 3] = v64[0];
        this.m64[(offset >>> 3) + 1] = v64[1];
      } else {
        this.dv.setBigUint64(offset, v64[0], true);
        this.dv.setBigUint64(offset + 8, v64[1], true);
      }
      if (((offset - this.codeLo) >>> 0) < this.codeSpan) this.stop |= STOP_SMC;
      return;
    }
    this.checkCanonical(segment, lo, hi, 16);
    if (aligned && (lo & 15) !== 0) this.raise(VECTOR_GP, 0);
    const user = this.cpl === 3;
    const upperLo = (lo + 8) | 0;
    const upperHi = (upperLo >>> 0) < 8 && this.longMode ? hi + 1 : hi;
    // Both pages are translated before anything is written.
    this.lookup(lo, hi, ACCESS_WRITE, user);
    if ((((lo + 15) ^ lo) & PAGE_MASK) !== 0) {
      this.secondPage(lo, hi);
      this.lookup(this.ea32[0], this.ea32[1], ACCESS_WRITE, user);
    }
    const high = v64[1];
    this.writePages(lo, hi, 8, user);
    v64[0] = high;
    this.writePages(upperLo, upperHi, 8, user);
  }

  /** Raises whatever a write of `size` bytes would raise, and writes nothing. */
  probeWrite(segment: number, lo: number, hi: number, size: number): void {
    if ((this.flatWrite & (1 << segment)) === 0) {
      this.segmentLinear(segment, lo, hi, size, true);
      lo = this.ea32[0];
      hi = this.ea32[1];
    }
    this.checkCanonical(segment, lo, hi, size);
    const user = this.cpl === 3;
    this.lookup(lo, hi, ACCESS_WRITE, user);
    const last = (lo + size - 1) | 0;
    if (((last ^ lo) & PAGE_MASK) !== 0) {
      this.secondPage(lo, hi);
      this.lookup(this.ea32[0], this.ea32[1], ACCESS_WRITE, user);
    }
  }

  // ---- the instruction's memory operand ----

  /** Reads the memory operand, zero-extended. */
  load8(i: Insn): number {
    this.ea(i);
    return this.read8(i.segment, this.ea32[0], this.ea32[1]);
  }

  /** Reads the memory operand, zero-extended. */
  load16(i: Insn): number {
    this.ea(i);
    return this.read16(i.segment, this.ea32[0], this.ea32[1]);
  }

  /** Reads the memory operand, signed. */
  load32(i: Insn): number {
    this.ea(i);
    return this.read32(i.segment, this.ea32[0], this.ea32[1]);
  }

  /** Reads the memory operand into `v64[0]`. */
  load64(i: Insn): void {
    this.ea(i);
    this.read64(i.segment, this.ea32[0], this.ea32[1]);
  }

  /** Reads the memory operand into `v64[0]` and `v64[1]`. */
  load128(i: Insn, aligned: boolean): void {
    this.ea(i);
    this.read128(i.segment, this.ea32[0], this.ea32[1], aligned);
  }

  /** Writes the memory operand. */
  store8(i: Insn, value: number): void {
    this.ea(i);
    this.write8(i.segment, this.ea32[0], this.ea32[1], value);
  }

  /** Writes the memory operand. */
  store16(i: Insn, value: number): void {
    this.ea(i);
    this.write16(i.segment, this.ea32[0], this.ea32[1], value);
  }

  /** Writes the memory operand. */
  store32(i: Insn, value: number): void {
    this.ea(i);
    this.write32(i.segment, this.ea32[0], this.ea32[1], value);
  }

  /** Writes `v64[0]` to the memory operand. */
  store64(i: Insn): void {
    this.ea(i);
    this.write64(i.segment, this.ea32[0], this.ea32[1]);
  }

  /** Writes `v64[0]` and `v64[1]` to the memory operand. */
  store128(i: Insn, aligned: boolean): void {
    this.ea(i);
    this.write128(i.segment, this.ea32[0], this.ea32[1], aligned);
  }

  // ---- the memory operand of a plain move ----
  // The move does nothing else, so a device access may leave by `stop` instead of a throw: the caller checks
  // `stop & STOP_EXIT` before it writes a register.

  /** Reads the memory operand of a move, zero-extended. */
  moveLoad8(i: Insn): number {
    this.ea(i);
    this.softLeave = true;
    const value = this.read8(i.segment, this.ea32[0], this.ea32[1]);
    this.softLeave = false;
    return value;
  }

  /** Reads the memory operand of a move, zero-extended. */
  moveLoad16(i: Insn): number {
    this.ea(i);
    this.softLeave = true;
    const value = this.read16(i.segment, this.ea32[0], this.ea32[1]);
    this.softLeave = false;
    return value;
  }

  /** Reads the memory operand of a move, signed. */
  moveLoad32(i: Insn): number {
    this.ea(i);
    this.softLeave = true;
    const value = this.read32(i.segment, this.ea32[0], this.ea32[1]);
    this.softLeave = false;
    return value;
  }

  /** Reads the memory operand of a move into `v64[0]`. */
  moveLoad64(i: Insn): void {
    this.ea(i);
    this.softLeave = true;
    this.read64(i.segment, this.ea32[0], this.ea32[1]);
    this.softLeave = false;
  }

  /** Writes the memory operand of a move. */
  moveStore8(i: Insn, value: number): void {
    this.ea(i);
    this.softLeave = true;
    this.write8(i.segment, this.ea32[0], this.ea32[1], value);
    this.softLeave = false;
  }

  /** Writes the memory operand of a move. */
  moveStore16(i: Insn, value: number): void {
    this.ea(i);
    this.softLeave = true;
    this.write16(i.segment, this.ea32[0], this.ea32[1], value);
    this.softLeave = false;
  }

  /** Writes the memory operand of a move. */
  moveStore32(i: Insn, value: number): void {
    this.ea(i);
    this.softLeave = true;
    this.write32(i.segment, this.ea32[0], this.ea32[1], value);
    this.softLeave = false;
  }

  /** Writes `v64[0]` to the memory operand of a move. */
  moveStore64(i: Insn): void {
    this.ea(i);
    this.softLeave = true;
    this.write64(i.segment, this.ea32[0], this.ea32[1]);
    this.softLeave = false;
  }

  /** Raises whatever an access to `size` bytes would raise because of its first one. */
  touch(segment: number, lo: number, hi: number, access: number, size = 1): void {
    if ((this.flatRead & (1 << segment)) === 0) {
      this.segmentLinear(segment, lo, hi, size, false);
      lo = this.ea32[0];
      hi = this.ea32[1];
    }
    this.checkCanonical(segment, lo, hi, size);
    this.lookup(lo, hi, access, this.cpl === 3);
  }

  // ---- many bytes at once ----

  /** Byte offset in the memory of a linear address whose translation is remembered in the TLB table, or -1. */
  placeOf(lo: number, hi: number, table: number): number {
    const t = (((lo >>> 12) & INDEX_MASK) << 2) + table;
    const tlb = this.tlb;
    return tlb[t] === (lo & PAGE_MASK) && tlb[t + 1] === hi ? (lo + tlb[t + 2]) >>> 0 : -1;
  }

  /** Notes that `size` bytes at an offset were written: the running block may be among them. */
  noteStore(offset: number, size: number): void {
    if (offset < this.codeLo + this.codeSpan && offset + size > this.codeLo) this.stop |= STOP_SMC;
  }
}
