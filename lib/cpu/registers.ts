/**
 * Views over one processor's state in the shared memory, and the mode fields derived from it.
 *
 * @module
 */

import type { MachineMemory } from "../memory/machine_memory.ts";
import { watchesData } from "./debug.ts";
import { CpuState, CS, SEG_BIG, SEG_CODE, SEG_EXPAND_DOWN, SEG_LONG, SEG_PRESENT, SEG_WRITABLE, SS } from "./state.ts";
import { CR0_AM, CR0_PE, EFER_LMA, FLAG_AC, FLAG_VM } from "./state.ts";

const RFLAGS = CpuState.at.rflags >> 2;
const CR0 = CpuState.at.cr0 >> 2;
const EFER = CpuState.at.efer >> 2;
const DR7 = CpuState.at.dr7 >> 2;
/** DR7 bits that enable a breakpoint. */
const DR7_ENABLES = 0xff;
const SEGMENTS = CpuState.at.es >> 2;
/** Segments of which bit n (ES to GS) is set: every one. */
const SEGMENTS_ALL = 0x3f;
/** FS and GS, whose bases count in 64-bit code. */
const SEGMENTS_FS_GS = 0x30;

/** Number of 64-bit words in the scratch area `v64`. */
const SCRATCH_WORDS = 64;
/** TLB entries of each kind and privilege; a power of two. */
export const TLB_ENTRIES = 1024;
/** 32-bit words of a TLB entry: page address low (bit 0 set when empty), page address high, addend, unused. */
const TLB_WORDS = 4;
/** Words of one TLB table. */
const TLB_TABLE = TLB_ENTRIES * TLB_WORDS;
/** First word of the table for supervisor reads; writes and fetches follow, then the same for CPL 3, then an empty table. */
export const TLB_READ = 0;
/** First word of the table for supervisor writes. */
export const TLB_WRITE: number = TLB_TABLE;
/** First word of the table for supervisor fetches. */
export const TLB_FETCH: number = 2 * TLB_TABLE;
/** Added to a supervisor table's first word for CPL 3's. */
export const TLB_USER: number = 3 * TLB_TABLE;
/** A table that never has an entry: all accesses take the slow path, which makes the alignment check. */
const TLB_EMPTY = 6 * TLB_TABLE;

/** The registers of one processor: views of its state, scratch values, and what is derived from the mode. */
export class CpuRegisters {
  /** The machine's memory. */
  readonly memory: MachineMemory;
  /** Byte offset of this processor's `CpuState`; a multiple of 64. */
  readonly base: number;

  /** The memory's bytes. */
  readonly m8: Uint8Array;
  /** The memory's 16-bit words. */
  readonly m16: Uint16Array;
  /** The memory's 32-bit words, signed. */
  readonly m32: Int32Array;
  /** The memory's 64-bit words. */
  readonly m64: BigUint64Array;
  /** Unaligned access to the memory. */
  readonly dv: DataView;

  /** The general-purpose registers as bytes. */
  readonly g8: Uint8Array;
  /** The general-purpose registers as 16-bit words; register r at 4r. */
  readonly g16: Uint16Array;
  /** The general-purpose registers as signed 32-bit words; the low half of register r at 2r, the high one at 2r + 1. */
  readonly g32: Int32Array;
  /** The general-purpose registers. */
  readonly g64: BigUint64Array;
  /** The state as bytes. */
  readonly s8: Uint8Array;
  /** The state as 16-bit words. */
  readonly s16: Uint16Array;
  /** The state as signed 32-bit words. */
  readonly s32: Int32Array;
  /** The state as 64-bit words. */
  readonly s64: BigUint64Array;
  /** The state, any width. */
  readonly sv: DataView;
  /** The state as binary64 numbers; never to carry a NaN, whose bits JavaScript may change. */
  readonly sf64: Float64Array;
  /** The state as binary32 numbers; never to carry a NaN. */
  readonly sf32: Float32Array;

  /** Scratch for 64-bit values that travel between functions; `v64[0]` is the value of read64 and write64. */
  readonly v64: BigUint64Array;
  /** The same scratch, signed. */
  readonly i64: BigInt64Array;
  /** The same scratch as signed 32-bit words. */
  readonly v32: Int32Array;
  /** The same scratch as bytes. */
  readonly v8: Uint8Array;
  /** The same scratch, any width. */
  readonly vv: DataView;
  /** The same scratch as binary64 numbers. */
  readonly vf64: Float64Array;
  /** The same scratch as binary32 numbers. */
  readonly vf32: Float32Array;
  /** Effective offset of the last memory operand: low half, high half. */
  readonly ea32: Int32Array;
  /** Address translations; see TLB_*. */
  readonly tlb: Int32Array;

  /** 64-bit code: long mode and CS.L. */
  long64 = false;
  /** Long mode is active (64-bit or compatibility code). */
  longMode = false;
  /** CR0.PE is set. */
  protected = false;
  /** Virtual-8086 mode. */
  v86 = false;
  /** Default size of the running code in bits: 16, 32 or 64. */
  codeSize = 16;
  /** Size of the stack pointer in bits. */
  stackSize = 16;
  /** Current privilege level: 0 in real mode, 3 in virtual-8086 mode. */
  cpl = 0;
  /** Alignment faults are on: CR0.AM, RFLAGS.AC, CPL 3. */
  alignmentChecks = false;
  /** A breakpoint on data is enabled: every access is looked at. */
  watching = false;
  /** DR6 bits of the breakpoints that the running instruction has hit; meaningful only while it runs. */
  debugHits = 0;
  /** The running instruction entered a handler, so that it is not reported as a single step. */
  traceCancelled = false;
  /** Bit n: reads through segment n need neither base nor checks. */
  flatRead = 0;
  /** Bit n: writes through segment n need neither base nor checks. */
  flatWrite = 0;
  /** First word of the TLB table that reads use now. */
  tlbRead = 0;
  /** First word of the TLB table that writes use now. */
  tlbWrite = 0;
  /** First word of the TLB table that fetches use now. */
  tlbFetch = 0;

  /** Views over the state at byte offset `base` of the memory. */
  constructor(memory: MachineMemory, base: number) {
    if (base % 64 !== 0) throw new RangeError("A processor's state must lie at a multiple of 64");
    const buffer = memory.buffer;
    this.memory = memory;
    this.base = base;
    this.m8 = memory.u8;
    this.m16 = memory.u16;
    this.m32 = memory.i32;
    this.m64 = memory.u64;
    this.dv = memory.view;
    this.g8 = new Uint8Array(buffer, base, 128);
    this.g16 = new Uint16Array(buffer, base, 64);
    this.g32 = new Int32Array(buffer, base, 32);
    this.g64 = new BigUint64Array(buffer, base, 16);
    const size = CpuState.size;
    this.s8 = new Uint8Array(buffer, base, size);
    this.s16 = new Uint16Array(buffer, base, size >> 1);
    this.s32 = new Int32Array(buffer, base, size >> 2);
    this.s64 = new BigUint64Array(buffer, base, size >> 3);
    this.sv = new DataView(buffer, base, size);
    this.sf64 = new Float64Array(buffer, base, size >> 3);
    this.sf32 = new Float32Array(buffer, base, size >> 2);
    const scratch = new ArrayBuffer(SCRATCH_WORDS * 8);
    this.v64 = new BigUint64Array(scratch);
    this.i64 = new BigInt64Array(scratch);
    this.v32 = new Int32Array(scratch);
    this.v8 = new Uint8Array(scratch);
    this.vv = new DataView(scratch);
    this.vf64 = new Float64Array(scratch);
    this.vf32 = new Float32Array(scratch);
    this.ea32 = new Int32Array(2);
    this.tlb = new Int32Array(TLB_EMPTY + TLB_TABLE).fill(1);
  }

  /** Low half of a segment's base. */
  segmentBase(segment: number): number {
    return this.s32[SEGMENTS + segment * 4];
  }

  /** A segment's limit, unsigned. */
  segmentLimit(segment: number): number {
    return this.s32[SEGMENTS + segment * 4 + 2] >>> 0;
  }

  /** A segment's attributes. */
  segmentAttributes(segment: number): number {
    return this.s32[SEGMENTS + segment * 4 + 3] >>> 16;
  }

  /** A segment's selector. */
  segmentSelector(segment: number): number {
    return this.s32[SEGMENTS + segment * 4 + 3] & 0xffff;
  }

  /** Writes a whole segment record; call `updateMode` after the last one. */
  setSegment(segment: number, selector: number, attributes: number, limit: number, baseLo: number, baseHi = 0): void {
    const at = SEGMENTS + segment * 4;
    this.s32[at] = baseLo;
    this.s32[at + 1] = baseHi;
    this.s32[at + 2] = limit;
    this.s32[at + 3] = (selector & 0xffff) | (attributes << 16);
  }

  /** Derives the mode fields; called after every change of CR0, EFER, RFLAGS.VM/AC or a segment register. */
  updateMode(): void {
    const s32 = this.s32;
    const cr0 = s32[CR0];
    const flags = s32[RFLAGS];
    this.protected = (cr0 & CR0_PE) !== 0;
    this.longMode = (s32[EFER] & EFER_LMA) !== 0;
    this.v86 = this.protected && (flags & FLAG_VM) !== 0 && !this.longMode;
    const csAttributes = this.segmentAttributes(CS);
    const ssAttributes = this.segmentAttributes(SS);
    this.long64 = this.longMode && (csAttributes & SEG_LONG) !== 0;
    this.codeSize = this.long64 ? 64 : (csAttributes & SEG_BIG) !== 0 ? 32 : 16;
    this.stackSize = this.long64 ? 64 : (ssAttributes & SEG_BIG) !== 0 ? 32 : 16;
    this.cpl = !this.protected ? 0 : this.v86 ? 3 : (ssAttributes >> 5) & 3;
    this.alignmentChecks = this.cpl === 3 && (cr0 & CR0_AM) !== 0 && (flags & FLAG_AC) !== 0;
    this.watching = (s32[DR7] & DR7_ENABLES) !== 0 && watchesData(s32[DR7]);
    const user = this.cpl === 3 ? TLB_USER : 0;
    const slow = this.alignmentChecks || this.watching;
    this.tlbRead = slow ? TLB_EMPTY : TLB_READ + user;
    this.tlbWrite = slow ? TLB_EMPTY : TLB_WRITE + user;
    this.tlbFetch = TLB_FETCH + user;
    this.#updateFlat();
  }

  /** Which segments need neither base nor checks. */
  #updateFlat(): void {
    if (this.long64) {
      let flat = SEGMENTS_ALL & ~SEGMENTS_FS_GS;
      const s32 = this.s32;
      if ((s32[SEGMENTS + 16] | s32[SEGMENTS + 17]) === 0) flat |= 0x10;
      if ((s32[SEGMENTS + 20] | s32[SEGMENTS + 21]) === 0) flat |= 0x20;
      this.flatRead = this.flatWrite = flat;
      return;
    }
    let read = 0;
    let write = 0;
    for (let n = 0; n < 6; n++) {
      const attributes = this.segmentAttributes(n);
      if (this.segmentBase(n) !== 0 || this.segmentLimit(n) !== 0xffffffff) continue;
      if ((attributes & SEG_PRESENT) === 0) continue;
      const code = (attributes & SEG_CODE) !== 0;
      if (!code && (attributes & SEG_EXPAND_DOWN) !== 0) continue;
      if (!code || (attributes & SEG_WRITABLE) !== 0) read |= 1 << n;
      if (!code && (attributes & SEG_WRITABLE) !== 0) write |= 1 << n;
    }
    this.flatRead = read;
    this.flatWrite = write;
  }
}
