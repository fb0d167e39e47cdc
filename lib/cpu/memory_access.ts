/**
 * Guest memory as instructions see it: effective addresses, segment checks, translation, alignment, loads and stores,
 * read-modify-write, the stack.
 *
 * The fast path of an access is a look into the TLB whose tag is compared with the page of the access's *last* byte,
 * while the entry is chosen by its first: an access that crosses a page therefore misses. Everything unusual is behind
 * that miss: page walks, devices, page crossings, non-canonical addresses, alignment checks.
 *
 * @module
 */

import { ACCESS_EXECUTE, ACCESS_READ, ACCESS_WRITE, type CpuBus } from "./bus.ts";
import type { Cpu } from "./cpu.ts";
import { noteDataAccess } from "./debug.ts";
import { GuestFault, LeaveSignal, VECTOR_AC, VECTOR_GP, VECTOR_PF, VECTOR_SS } from "./faults.ts";
import { CpuFlags } from "./flags.ts";
import type { Insn } from "./insn.ts";
import type { MachineMemory } from "../memory/machine_memory.ts";
import { translation, walk } from "./paging.ts";
import { TLB_ENTRIES, TLB_FETCH, TLB_READ, TLB_USER, TLB_WRITE } from "./registers.ts";
import {
  CpuState,
  RSP,
  SEG_BIG,
  SEG_CODE,
  SEG_EXPAND_DOWN,
  SEG_PRESENT,
  SEG_WRITABLE,
  SS,
  STOP_EXIT,
  STOP_SMC,
} from "./state.ts";

const SEGMENTS = CpuState.at.es >> 2;
const EXIT_REASON = CpuState.at.exit_reason >> 2;
/** Mask of a TLB index. */
const INDEX_MASK = TLB_ENTRIES - 1;
/** A linear address without its offset in the page. */
const PAGE_MASK = ~0xfff;
/** Bytes of a page. */
const PAGE_BYTES = 4096;
/** Byte offset in the scratch area where an access that crosses pages is put together. */
const CROSSING = 32 * 8;
/** Filled TLB entries that are remembered for a flush. */
const FILLED_MAX = 64;
/** Longest access in bytes. */
const ACCESS_BYTES_MAX = 16;

/** Registers plus access to guest memory. */
export class CpuMemory extends CpuFlags {
  /** What surrounds the processor. */
  readonly bus: CpuBus;
  /** Byte offset of the lock word that serialises locked accesses which are not naturally aligned. */
  readonly splitLock: number;
  /** STOP_* bits: why the running block must be left. */
  stop = 0;
  /** Offset in the memory of the running block's first byte, less {@linkcode ACCESS_BYTES_MAX} - 1. */
  codeLo = 0;
  /** Bytes from `codeLo` in which a store's first byte may hit the running block. */
  codeSpan = 0;
  /** Low half of RIP at the start of the running block. */
  blockLo = 0;
  /** High half. */
  blockHi = 0;
  /** The guest exception that is thrown. */
  readonly fault: GuestFault = new GuestFault();
  /** The exit that is thrown. */
  readonly leaveSignal: LeaveSignal = new LeaveSignal();
  /** Guest-physical address of the last translation that was not memory: low, high. */
  readonly gpa32: Int32Array = new Int32Array(2);
  /** Bumped with every TLB flush, so that decoded blocks found by linear address are looked up again. */
  generation = 0;
  /** TLB entries that were filled since the last flush. */
  readonly #filled: Int32Array = new Int32Array(FILLED_MAX);
  /** How many: above {@linkcode FILLED_MAX}, more than are remembered. */
  #filledCount = 0;
  /** Where the read-modify-write in progress lies in the memory, -1 when it crosses a page or is a device. */
  #rmwOffset = 0;
  /** Its linear address. */
  #rmwLo = 0;
  #rmwHi = 0;
  /** Whether `leave` may return; a throw costs a microsecond. */
  softLeave = false;
  /** Whether it holds the lock word. */
  #rmwSplit = false;

  /** Views over the state at `base`; `splitLock` is the offset of a word shared by all processors of the memory. */
  constructor(memory: MachineMemory, base: number, bus: CpuBus, splitLock: number) {
    super(memory, base);
    this.bus = bus;
    this.splitLock = splitLock;
  }

  // ---- faults ----

  /** Raises a guest exception; never returns. */
  raise(vector: number, error?: number): never {
    const fault = this.fault;
    fault.vector = vector;
    fault.trap = false;
    fault.hasError = error !== undefined;
    fault.error = error === undefined ? 0 : error;
    throw fault;
  }

  /** Raises a debug trap: as `raise`, but RIP stays behind the instruction. */
  raiseTrap(vector: number): never {
    const fault = this.fault;
    fault.vector = vector;
    fault.trap = true;
    fault.hasError = false;
    fault.error = 0;
    throw fault;
  }

  /** Raises a page fault at a linear address; CR2 is written when the fault is delivered. */
  raisePageFault(lo: number, hi: number, error: number): never {
    const fault = this.fault;
    fault.vector = VECTOR_PF;
    fault.trap = false;
    fault.hasError = true;
    fault.error = error;
    fault.cr2Lo = lo;
    fault.cr2Hi = hi;
    throw fault;
  }

  /**
   * Leaves the instruction from within a memory access: nothing of it happens, `run` returns `reason`. Throws, or returns
   * when the access is the only thing that the instruction does (`softLeave`); the caller must then return at once.
   */
  leave(reason: number): void {
    if (this.softLeave) {
      this.s32[EXIT_REASON] = reason;
      this.stop |= STOP_EXIT;
      return;
    }
    this.leaveSignal.reason = reason;
    throw this.leaveSignal;
  }

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

  /** Raises #GP(0) or #SS(0) unless both ends of the access are canonical. */
  checkCanonical(segment: number, lo: number, hi: number, size: number): void {
    if (!this.longMode) return;
    const top = hi >> 15;
    const last = (lo + size - 1) | 0;
    const lastTop = ((last >>> 0) < (lo >>> 0) ? (hi + 1) | 0 : hi) >> 15;
    if ((top !== 0 && top !== -1) || (lastTop !== 0 && lastTop !== -1)) {
      this.raise(segment === SS ? VECTOR_SS : VECTOR_GP, 0);
    }
  }

  // ---- translation ----

  /** Drops every translation: entry by entry when there are few, as after a single emulated instruction. */
  flushTlb(): void {
    const { tlb } = this;
    const count = this.#filledCount;
    if (count > FILLED_MAX) tlb.fill(1);
    else for (let k = 0; k < count; k++) tlb[this.#filled[k]] = 1;
    this.#filledCount = 0;
    this.generation = (this.generation + 1) & 0xffffff;
  }

  /**
   * The byte offset in the memory of a linear address (canonical), or -1 with the guest-physical address in `gpa32` when
   * the bus does not map it. Raises #PF. The translation is remembered.
   */
  translate(lo: number, hi: number, access: number, user: boolean): number {
    const error = walk(this as unknown as Cpu, lo, hi, access, user);
    if (error >= 0) this.raisePageFault(lo, hi, error);
    const gpn = translation.gpn;
    const offset = lo & 0xfff;
    const page = this.bus.page(gpn, access);
    if (page < 0) {
      this.gpa32[0] = (gpn << 12) | offset;
      this.gpa32[1] = Math.floor(gpn / 0x100000) | 0;
      return -1;
    }
    const table = access === ACCESS_READ ? TLB_READ : access === ACCESS_WRITE ? TLB_WRITE : TLB_FETCH;
    const t = (((lo >>> 12) & INDEX_MASK) << 2) + table + (user ? TLB_USER : 0);
    const tlb = this.tlb;
    tlb[t] = lo & PAGE_MASK;
    tlb[t + 1] = hi;
    tlb[t + 2] = page - (lo & PAGE_MASK);
    if (this.#filledCount < FILLED_MAX) this.#filled[this.#filledCount] = t;
    if (this.#filledCount <= FILLED_MAX) this.#filledCount++;
    return page + offset;
  }

  /** As `translate`, but looks into the TLB first. */
  #lookup(lo: number, hi: number, access: number, user: boolean): number {
    const table = access === ACCESS_READ ? TLB_READ : access === ACCESS_WRITE ? TLB_WRITE : TLB_FETCH;
    const t = (((lo >>> 12) & INDEX_MASK) << 2) + table + (user ? TLB_USER : 0);
    const tlb = this.tlb;
    if (tlb[t] === (lo & PAGE_MASK) && tlb[t + 1] === hi) return (lo + tlb[t + 2]) | 0;
    return this.translate(lo, hi, access, user);
  }

  /** The byte offset in the memory of a fetch at lo:hi, or -1; raises #PF. */
  translateFetch(lo: number, hi: number): number {
    return this.#lookup(lo, hi, ACCESS_EXECUTE, this.cpl === 3);
  }

  /** Reads up to 8 bytes at the offset of a mapped page into `v64[0]`. */
  #loadAt(offset: number, size: number): void {
    const v64 = this.v64;
    switch (size) {
      case 1:
        v64[0] = BigInt(this.m8[offset]);
        return;
      case 2:
        v64[0] = BigInt((offset & 1) === 0 ? this.m16[offset >> 1] : this.dv.getUint16(offset, true));
        return;
      case 4:
        this.v32[0] = (offset & 3) === 0 ? this.m32[offset >> 2] : this.dv.getInt32(offset, true);
        this.v32[1] = 0;
        return;
      default:
        v64[0] = (offset & 7) === 0 ? this.m64[offset >> 3] : this.dv.getBigUint64(offset, true);
    }
  }

  /** Writes 1, 2, 4 or 8 bytes of `v64[0]` at the offset of a mapped page. */
  #storeAt(offset: number, size: number): void {
    if (((offset - this.codeLo) >>> 0) < this.codeSpan) this.stop |= STOP_SMC;
    switch (size) {
      case 1:
        this.m8[offset] = this.v8[0];
        return;
      case 2:
        if ((offset & 1) === 0) this.m16[offset >> 1] = this.v32[0];
        else this.dv.setUint16(offset, this.v32[0] & 0xffff, true);
        return;
      case 4:
        if ((offset & 3) === 0) this.m32[offset >> 2] = this.v32[0];
        else this.dv.setInt32(offset, this.v32[0], true);
        return;
      default:
        if ((offset & 7) === 0) this.m64[offset >> 3] = this.v64[0];
        else this.dv.setBigUint64(offset, this.v64[0], true);
    }
  }

  /** The linear address one page further, for the second part of a crossing access, into `ea32`. */
  #secondPage(lo: number, hi: number): void {
    const next = ((lo & PAGE_MASK) + PAGE_BYTES) | 0;
    this.ea32[0] = next;
    this.ea32[1] = next === 0 && this.longMode ? hi + 1 : hi;
  }

  /** Reads 1, 2, 4 or 8 bytes at a linear address into `v64[0]`, zero-extended; any alignment, any page. */
  readPages(lo: number, hi: number, size: number, user: boolean): void {
    if (this.watching) noteDataAccess(this as unknown as Cpu, lo, hi, size, false);
    const first = PAGE_BYTES - (lo & 0xfff);
    if (size <= first) {
      const offset = this.#lookup(lo, hi, ACCESS_READ, user);
      if (this.alignmentChecks && user && (lo & (size - 1)) !== 0) this.raise(VECTOR_AC, 0);
      if (offset >= 0) {
        this.#loadAt(offset, size);
      } else {
        this.v64[0] = 0n;
        this.bus.mmioRead(this as unknown as Cpu, this.gpa32[0], this.gpa32[1], size, ACCESS_READ);
      }
      return;
    }
    this.softLeave = false;
    const a = this.#lookup(lo, hi, ACCESS_READ, user);
    const aLo = this.gpa32[0];
    const aHi = this.gpa32[1];
    this.#secondPage(lo, hi);
    const b = this.#lookup(this.ea32[0], this.ea32[1], ACCESS_READ, user);
    const bLo = this.gpa32[0];
    const bHi = this.gpa32[1];
    if (this.alignmentChecks && user) this.raise(VECTOR_AC, 0);
    const v8 = this.v8;
    this.#readPart(a, aLo, aHi, first, CROSSING);
    this.#readPart(b, bLo, bHi, size - first, CROSSING + first);
    this.v64[0] = 0n;
    for (let k = 0; k < size; k++) v8[k] = v8[CROSSING + k];
  }

  /** Reads one page's part of a crossing access to byte `to` of the scratch area. */
  #readPart(offset: number, gpaLo: number, gpaHi: number, size: number, to: number): void {
    const v8 = this.v8;
    if (offset >= 0) {
      for (let k = 0; k < size; k++) v8[to + k] = this.m8[offset + k];
      return;
    }
    this.bus.mmioRead(this as unknown as Cpu, gpaLo, gpaHi, size, ACCESS_READ);
    for (let k = 0; k < size; k++) v8[to + k] = v8[k];
  }

  /** Writes 1, 2, 4 or 8 bytes of `v64[0]` at a linear address; nothing is written when any byte faults. */
  writePages(lo: number, hi: number, size: number, user: boolean): void {
    if (this.watching) noteDataAccess(this as unknown as Cpu, lo, hi, size, true);
    const first = PAGE_BYTES - (lo & 0xfff);
    if (size <= first) {
      const offset = this.#lookup(lo, hi, ACCESS_WRITE, user);
      if (this.alignmentChecks && user && (lo & (size - 1)) !== 0) this.raise(VECTOR_AC, 0);
      if (offset >= 0) this.#storeAt(offset, size);
      else this.bus.mmioWrite(this as unknown as Cpu, this.gpa32[0], this.gpa32[1], size);
      return;
    }
    this.softLeave = false;
    const v8 = this.v8;
    for (let k = 0; k < size; k++) v8[CROSSING + k] = v8[k];
    const a = this.#lookup(lo, hi, ACCESS_WRITE, user);
    const aLo = this.gpa32[0];
    const aHi = this.gpa32[1];
    this.#secondPage(lo, hi);
    const b = this.#lookup(this.ea32[0], this.ea32[1], ACCESS_WRITE, user);
    const bLo = this.gpa32[0];
    const bHi = this.gpa32[1];
    if (this.alignmentChecks && user) this.raise(VECTOR_AC, 0);
    this.#writePart(a, aLo, aHi, first, CROSSING);
    this.#writePart(b, bLo, bHi, size - first, CROSSING + first);
  }

  /** Writes one page's part of a crossing access from byte `from` of the scratch area. */
  #writePart(offset: number, gpaLo: number, gpaHi: number, size: number, from: number): void {
    const v8 = this.v8;
    if (offset >= 0) {
      if (((offset - this.codeLo) >>> 0) < this.codeSpan) this.stop |= STOP_SMC;
      for (let k = 0; k < size; k++) this.m8[offset + k] = v8[from + k];
      return;
    }
    for (let k = 0; k < size; k++) v8[k] = v8[from + k];
    this.bus.mmioWrite(this as unknown as Cpu, gpaLo, gpaHi, size);
  }

  // ---- linear accesses of the processor itself (descriptor tables, TSS) ----

  /** Reads a byte at a linear address, as supervisor or at the current privilege level. */
  readLinear8(lo: number, hi: number, supervisor: boolean): number {
    this.#linear(lo, hi, 1, supervisor);
    return this.v8[0];
  }

  /** Reads 16 bits at a linear address. */
  readLinear16(lo: number, hi: number, supervisor: boolean): number {
    this.#linear(lo, hi, 2, supervisor);
    return this.v32[0] & 0xffff;
  }

  /** Reads 32 bits at a linear address. */
  readLinear32(lo: number, hi: number, supervisor: boolean): number {
    this.#linear(lo, hi, 4, supervisor);
    return this.v32[0];
  }

  /** Reads 64 bits at a linear address into `v64[0]`. */
  readLinear64(lo: number, hi: number, supervisor: boolean): void {
    this.#linear(lo, hi, 8, supervisor);
  }

  /** The common part of the linear reads. */
  #linear(lo: number, hi: number, size: number, supervisor: boolean): void {
    this.checkCanonical(0, lo, hi, size);
    this.readPages(lo, hi, size, !supervisor && this.cpl === 3);
  }

  /** Writes `size` (1, 2, 4, 8) bytes of `v64[0]` at a linear address. */
  writeLinear(lo: number, hi: number, size: number, supervisor: boolean): void {
    this.checkCanonical(0, lo, hi, size);
    this.writePages(lo, hi, size, !supervisor && this.cpl === 3);
  }

  /** Writes a byte at a linear address. */
  writeLinear8(lo: number, hi: number, value: number, supervisor: boolean): void {
    this.v32[0] = value;
    this.writeLinear(lo, hi, 1, supervisor);
  }

  /** Writes 16 bits at a linear address. */
  writeLinear16(lo: number, hi: number, value: number, supervisor: boolean): void {
    this.v32[0] = value;
    this.writeLinear(lo, hi, 2, supervisor);
  }

  /** Writes 32 bits at a linear address. */
  writeLinear32(lo: number, hi: number, value: number, supervisor: boolean): void {
    this.v32[0] = value;
    this.writeLinear(lo, hi, 4, supervisor);
  }

  /** Writes `v64[0]` at a linear address. */
  writeLinear64(lo: number, hi: number, supervisor: boolean): void {
    this.writeLinear(lo, hi, 8, supervisor);
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
    if (tlb[t] === (lo & PAGE_MASK) && tlb[t + 1] === hi) return this.m8[(lo + tlb[t + 2]) | 0];
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
      const offset = (lo + tlb[t + 2]) | 0;
      return (offset & 1) === 0 ? this.m16[offset >> 1] : this.dv.getUint16(offset, true);
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
      const offset = (lo + tlb[t + 2]) | 0;
      return (offset & 3) === 0 ? this.m32[offset >> 2] : this.dv.getInt32(offset, true);
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
      const offset = (lo + tlb[t + 2]) | 0;
      this.v64[0] = (offset & 7) === 0 ? this.m64[offset >> 3] : this.dv.getBigUint64(offset, true);
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
      const offset = (lo + tlb[t + 2]) | 0;
      if ((offset & 7) === 0) {
        v64[0] = this.m64[offset >> 3];
        v64[1] = this.m64[(offset >> 3) + 1];
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
      const offset = (lo + tlb[t + 2]) | 0;
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
      const offset = (lo + tlb[t + 2]) | 0;
      if ((offset & 1) === 0) this.m16[offset >> 1] = value;
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
      const offset = (lo + tlb[t + 2]) | 0;
      if ((offset & 3) === 0) this.m32[offset >> 2] = value;
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
      const offset = (lo + tlb[t + 2]) | 0;
      if ((offset & 7) === 0) this.m64[offset >> 3] = this.v64[0];
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
      const offset = (lo + tlb[t + 2]) | 0;
      if ((offset & 7) === 0) {
        this.m64[offset >> 3] = v64[0];
        this.m64[(offset >> 3) + 1] = v64[1];
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
    // Both ends are translated before anything is written.
    this.#lookup(lo, hi, ACCESS_WRITE, user);
    this.#lookup(
      (upperLo + 7) | 0,
      ((upperLo + 7) >>> 0) < 7 && this.longMode ? upperHi + 1 : upperHi,
      ACCESS_WRITE,
      user,
    );
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
    this.#lookup(lo, hi, ACCESS_WRITE, user);
    const last = (lo + size - 1) | 0;
    if (((last ^ lo) & PAGE_MASK) !== 0) {
      this.#secondPage(lo, hi);
      this.#lookup(this.ea32[0], this.ea32[1], ACCESS_WRITE, user);
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
      offset = (lo + tlb[t + 2]) | 0;
    } else {
      if (this.watching) noteDataAccess(this as unknown as Cpu, lo, hi, size, true);
      this.checkCanonical(i.segment, lo, hi, size);
      offset = this.#lookup(lo, hi, ACCESS_WRITE, this.cpl === 3);
      if ((lo & 0xfff) + size > PAGE_BYTES) {
        this.#secondPage(lo, hi);
        this.#lookup(this.ea32[0], this.ea32[1], ACCESS_WRITE, this.cpl === 3);
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
    const word = this.splitLock >> 2;
    while (Atomics.compareExchange(this.m32, word, 0, 1) !== 0) {
      // Another processor holds it for the length of one access.
    }
  }

  /** Gives the lock word back. */
  #giveSplitLock(): void {
    this.#rmwSplit = false;
    Atomics.store(this.m32, this.splitLock >> 2, 0);
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
    if (offset >= 0) return (offset & 1) === 0 ? this.m16[offset >> 1] : this.dv.getUint16(offset, true);
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
      return Atomics.compareExchange(this.m16, offset >> 1, old & 0xffff, value & 0xffff) === (old & 0xffff);
    }
    this.m16[offset >> 1] = value;
    return true;
  }

  /** Reads the operand that `rmwCommit32` will write, signed. */
  rmwLoad32(i: Insn, locked: boolean = i.lock): number {
    const offset = this.#rmwBegin(i, 4, locked);
    if (offset >= 0) return (offset & 3) === 0 ? this.m32[offset >> 2] : this.dv.getInt32(offset, true);
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
    if (locked) return Atomics.compareExchange(this.m32, offset >> 2, old | 0, value | 0) === (old | 0);
    this.m32[offset >> 2] = value;
    return true;
  }

  /** Reads the operand that `rmwCommit64` will write into `v64[0]`. */
  rmwLoad64(i: Insn, locked: boolean = i.lock): void {
    const offset = this.#rmwBegin(i, 8, locked);
    if (offset >= 0) {
      this.v64[0] = (offset & 7) === 0 ? this.m64[offset >> 3] : this.dv.getBigUint64(offset, true);
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
    if (locked) return Atomics.compareExchange(this.m64, offset >> 3, v64[0], v64[2]) === v64[0];
    this.m64[offset >> 3] = v64[2];
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

  /** Raises whatever an access to one byte would raise. */
  touch(segment: number, lo: number, hi: number, access: number): void {
    if ((this.flatRead & (1 << segment)) === 0) {
      this.segmentLinear(segment, lo, hi, 1, false);
      lo = this.ea32[0];
      hi = this.ea32[1];
    }
    this.checkCanonical(segment, lo, hi, 1);
    this.#lookup(lo, hi, access, this.cpl === 3);
  }

  // ---- many bytes at once ----

  /** Byte offset in the memory of a linear address whose translation is remembered in the TLB table, or -1. */
  placeOf(lo: number, hi: number, table: number): number {
    const t = (((lo >>> 12) & INDEX_MASK) << 2) + table;
    const tlb = this.tlb;
    return tlb[t] === (lo & PAGE_MASK) && tlb[t + 1] === hi ? (lo + tlb[t + 2]) | 0 : -1;
  }

  /** Notes that `size` bytes at an offset were written: the running block may be among them. */
  noteStore(offset: number, size: number): void {
    if (offset < this.codeLo + this.codeSpan && offset + size > this.codeLo) this.stop |= STOP_SMC;
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
    this.stackOffset(0);
    this.read64(SS, this.ea32[0], this.ea32[1]);
    this.moveStack(8);
  }
}
