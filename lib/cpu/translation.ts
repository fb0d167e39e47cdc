/**
 * From linear addresses to bytes: translation with its TLB, accesses at any alignment and over page boundaries, devices,
 * and the exceptions that all of this raises. The fast paths are in memory_access.ts.
 *
 * @module
 */

import { ACCESS_EXECUTE, ACCESS_READ, ACCESS_SHARED, ACCESS_WRITE, type CpuBus } from "./bus.ts";
import type { Cpu } from "./cpu.ts";
import { noteDataAccess } from "./debug.ts";
import { GuestFault, LeaveSignal, VECTOR_AC, VECTOR_GP, VECTOR_PF, VECTOR_SS } from "./faults.ts";
import { CpuFlags } from "./flags.ts";
import type { MachineMemory } from "../memory/machine_memory.ts";
import { translation, walk } from "./paging.ts";
import { TLB_ENTRIES, TLB_FETCH, TLB_READ, TLB_USER, TLB_WRITE } from "./registers.ts";
import { CpuState, SS, STOP_EXIT, STOP_SMC } from "./state.ts";

const EXIT_REASON = CpuState.at.exit_reason >> 2;
/** Mask of a TLB index. */
const INDEX_MASK = TLB_ENTRIES - 1;
/** A linear address without its offset in the page. */
const PAGE_MASK = ~0xfff;
/** Bytes of a page. */
const PAGE_BYTES = 4096;
/** Byte offset in the scratch area where an access that crosses pages is put together. */
const CROSSING = 32 * 8;
/** No page's linear address. */
const NO_PAGE = 1;
/** Page numbers in 4 GiB. */
const PAGES_OF_4G = 0x100000;
/** Filled TLB entries that are remembered for a flush. */
const FILLED_MAX = 64;

/** Registers plus access to linear addresses. */
export class CpuTranslation extends CpuFlags {
  /** What surrounds the processor. */
  readonly bus: CpuBus;
  /** Byte offset of the lock word that serialises locked accesses which are not naturally aligned. */
  readonly splitLock: number;
  /** STOP_* bits: why the running block must be left. */
  stop = 0;
  /** Offset in the memory of the running block's first byte, less the longest access (16 bytes) and plus 1. */
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
  /** Guest-physical address of the last translation that was not memory: low, high with the C bit of a private access. */
  readonly gpa32: Int32Array = new Int32Array(2);
  /** Linear address of the last access that was translated anew, as every access to a device is: low, high. */
  readonly linear32: Int32Array = new Int32Array(2);
  /** Bumped with every TLB flush, so that decoded blocks found by linear address are looked up again. */
  generation = 0;
  /** TLB entries that were filled since the last flush. */
  readonly #filled: Int32Array = new Int32Array(FILLED_MAX);
  /** How many: above {@linkcode FILLED_MAX}, more than are remembered. */
  #filledCount = 0;
  /** A page that the bus does not map, for which the tables need not be walked again; see `knowPage`. */
  #knownLo = NO_PAGE;
  #knownHi = 0;
  #knownGpn = 0;
  #knownWritable = false;
  #knownUser = false;
  /** Whether `leave` may return; a throw costs a microsecond. */
  softLeave = false;
  /** The C bit in the high half of a page-table entry: whether a page is private to an encrypted guest. 0 for none. */
  encryptionBit = 0;
  /** Set while a device access is one of the page walk; the bus that looks at it clears it. */
  tableAccess = false;

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

  // ---- canonical addresses ----

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
    this.#knownLo = NO_PAGE;
    this.generation = (this.generation + 1) & 0xffffff;
  }

  /**
   * Takes a translation from who has made it: until the next flush or the next such page, the running privilege level's
   * reads of the page of lo:hi, and with `writable` writes too, go to guest-physical page `gpn` without a walk.
   */
  knowPage(lo: number, hi: number, gpn: number, writable: boolean, user: boolean): void {
    this.#knownLo = lo & PAGE_MASK;
    this.#knownHi = hi;
    this.#knownGpn = gpn;
    this.#knownWritable = writable;
    this.#knownUser = user;
  }

  /** The page number of lo:hi if it is known for such an access, otherwise -1. */
  #known(lo: number, hi: number, access: number, user: boolean): number {
    if ((lo & PAGE_MASK) !== this.#knownLo || hi !== this.#knownHi || user !== this.#knownUser) return -1;
    return access === ACCESS_READ || (access === ACCESS_WRITE && this.#knownWritable) ? this.#knownGpn : -1;
  }

  /**
   * The byte offset in the memory of a linear address (canonical), or -1 with the guest-physical address in `gpa32` when
   * the bus does not map it. Raises #PF. The translation is remembered; of pages that the bus does not map, the last.
   */
  translate(lo: number, hi: number, access: number, user: boolean): number {
    this.linear32[0] = lo;
    this.linear32[1] = hi;
    let gpn = this.#known(lo, hi, access, user);
    if (gpn < 0) {
      const error = walk(this as unknown as Cpu, lo, hi, access, user);
      if (error >= 0) this.raisePageFault(lo, hi, error);
      gpn = translation.gpn;
    }
    const offset = lo & 0xfff;
    const encrypted = translation.encrypted || access === ACCESS_EXECUTE;
    const page = this.bus.page(gpn, this.encryptionBit === 0 || encrypted ? access : access | ACCESS_SHARED);
    if (page < 0) {
      if (this.encryptionBit === 0 && access !== ACCESS_EXECUTE) {
        this.knowPage(lo, hi, gpn, access === ACCESS_WRITE, user);
      }
      this.gpa32[0] = (gpn << 12) | offset;
      this.gpa32[1] = Math.floor(gpn / PAGES_OF_4G) | (encrypted ? this.encryptionBit : 0);
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
  protected lookup(lo: number, hi: number, access: number, user: boolean): number {
    const table = access === ACCESS_READ ? TLB_READ : access === ACCESS_WRITE ? TLB_WRITE : TLB_FETCH;
    const t = (((lo >>> 12) & INDEX_MASK) << 2) + table + (user ? TLB_USER : 0);
    const tlb = this.tlb;
    if (tlb[t] === (lo & PAGE_MASK) && tlb[t + 1] === hi) return (lo + tlb[t + 2]) >>> 0;
    return this.translate(lo, hi, access, user);
  }

  /** The byte offset in the memory of a fetch at lo:hi, or -1; raises #PF. */
  translateFetch(lo: number, hi: number): number {
    return this.lookup(lo, hi, ACCESS_EXECUTE, this.cpl === 3);
  }

  /** Reads up to 8 bytes at the offset of a mapped page into `v64[0]`. */
  #loadAt(offset: number, size: number): void {
    const v64 = this.v64;
    switch (size) {
      case 1:
        v64[0] = BigInt(this.m8[offset]);
        return;
      case 2:
        v64[0] = BigInt((offset & 1) === 0 ? this.m16[offset >>> 1] : this.dv.getUint16(offset, true));
        return;
      case 4:
        this.v32[0] = (offset & 3) === 0 ? this.m32[offset >>> 2] : this.dv.getInt32(offset, true);
        this.v32[1] = 0;
        return;
      default:
        v64[0] = (offset & 7) === 0 ? this.m64[offset >>> 3] : this.dv.getBigUint64(offset, true);
    }
  }

  /** Writes 1, 2, 4 or 8 bytes of `v64[0]` at the offset of a mapped page. */
  protected storeAt(offset: number, size: number): void {
    if (((offset - this.codeLo) >>> 0) < this.codeSpan) this.stop |= STOP_SMC;
    switch (size) {
      case 1:
        this.m8[offset] = this.v8[0];
        return;
      case 2:
        if ((offset & 1) === 0) this.m16[offset >>> 1] = this.v32[0];
        else this.dv.setUint16(offset, this.v32[0] & 0xffff, true);
        return;
      case 4:
        if ((offset & 3) === 0) this.m32[offset >>> 2] = this.v32[0];
        else this.dv.setInt32(offset, this.v32[0], true);
        return;
      default:
        if ((offset & 7) === 0) this.m64[offset >>> 3] = this.v64[0];
        else this.dv.setBigUint64(offset, this.v64[0], true);
    }
  }

  /** The linear address one page further, for the second part of a crossing access, into `ea32`. */
  protected secondPage(lo: number, hi: number): void {
    const next = ((lo & PAGE_MASK) + PAGE_BYTES) | 0;
    this.ea32[0] = next;
    this.ea32[1] = next === 0 && this.longMode ? hi + 1 : hi;
  }

  /** Reads 1, 2, 4 or 8 bytes at a linear address into `v64[0]`, zero-extended; any alignment, any page. */
  readPages(lo: number, hi: number, size: number, user: boolean): void {
    if (this.watching) noteDataAccess(this as unknown as Cpu, lo, hi, size, false);
    const first = PAGE_BYTES - (lo & 0xfff);
    if (size <= first) {
      const offset = this.lookup(lo, hi, ACCESS_READ, user);
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
    const a = this.lookup(lo, hi, ACCESS_READ, user);
    const aLo = this.gpa32[0];
    const aHi = this.gpa32[1];
    this.secondPage(lo, hi);
    const b = this.lookup(this.ea32[0], this.ea32[1], ACCESS_READ, user);
    const bLo = this.gpa32[0];
    const bHi = this.gpa32[1];
    if (this.alignmentChecks && user) this.raise(VECTOR_AC, 0);
    const v8 = this.v8;
    this.#accessing(lo, hi);
    this.#readPart(a, aLo, aHi, first, CROSSING);
    this.secondPage(lo, hi);
    this.#accessing(this.ea32[0], this.ea32[1]);
    this.#readPart(b, bLo, bHi, size - first, CROSSING + first);
    this.v64[0] = 0n;
    for (let k = 0; k < size; k++) v8[k] = v8[CROSSING + k];
  }

  /** Notes which part of a crossing access is under way. */
  #accessing(lo: number, hi: number): void {
    this.linear32[0] = lo;
    this.linear32[1] = hi;
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
      const offset = this.lookup(lo, hi, ACCESS_WRITE, user);
      if (this.alignmentChecks && user && (lo & (size - 1)) !== 0) this.raise(VECTOR_AC, 0);
      if (offset >= 0) this.storeAt(offset, size);
      else this.bus.mmioWrite(this as unknown as Cpu, this.gpa32[0], this.gpa32[1], size);
      return;
    }
    this.softLeave = false;
    const v8 = this.v8;
    for (let k = 0; k < size; k++) v8[CROSSING + k] = v8[k];
    const a = this.lookup(lo, hi, ACCESS_WRITE, user);
    const aLo = this.gpa32[0];
    const aHi = this.gpa32[1];
    this.secondPage(lo, hi);
    const b = this.lookup(this.ea32[0], this.ea32[1], ACCESS_WRITE, user);
    const bLo = this.gpa32[0];
    const bHi = this.gpa32[1];
    if (this.alignmentChecks && user) this.raise(VECTOR_AC, 0);
    this.#accessing(lo, hi);
    this.#writePart(a, aLo, aHi, first, CROSSING);
    this.secondPage(lo, hi);
    this.#accessing(this.ea32[0], this.ea32[1]);
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
}
