/**
 * Segment registers: descriptors, the checks that a load makes, and the registers' hidden parts (AMD64 Architecture
 * Programmer's Manual volume 2, chapter 4; Intel SDM volume 3, chapters 3 and 5).
 *
 * The current privilege level is SS.DPL throughout, as in a VMCB: real mode has 0 there, virtual-8086 mode 3, and a null
 * SS in 64-bit mode keeps the level in its attributes.
 *
 * @module
 */
import type { Cpu } from "./cpu.ts";
import { VECTOR_GP, VECTOR_NP, VECTOR_SS } from "./faults.ts";
import {
  CpuState,
  CS,
  DS,
  ES,
  FS,
  GS,
  LDTR,
  SEG_ACCESSED,
  SEG_BIG,
  SEG_CODE,
  SEG_EXPAND_DOWN,
  SEG_GRANULARITY,
  SEG_LONG,
  SEG_PRESENT,
  SEG_S,
  SEG_WRITABLE,
  SEGMENT_BYTES,
  SEGMENTS,
  SS,
  TR,
} from "./state.ts";

/** Selector bits that name the entry: all but the requested privilege level. */
export const SELECTOR_INDEX = 0xfff8;
/** Selector bit: the entry is in the local descriptor table. */
export const SELECTOR_LOCAL = 4;
/** Selector bits of an error code: index and table. */
export const SELECTOR_ERROR = 0xfffc;

/** Position of the DPL in a segment's attributes. */
const SEG_DPL_SHIFT = 5;
/** The type field of a segment's attributes with the S bit: distinguishes every kind of descriptor. */
const SEG_KIND = 0x1f;

/** System descriptor: available 16-bit TSS. */
export const SYSTEM_TSS16 = 0x1;
/** System descriptor: local descriptor table. */
export const SYSTEM_LDT = 0x2;
/** System descriptor: 16-bit call gate. */
export const SYSTEM_CALL_GATE16 = 0x4;
/** System descriptor: task gate. */
export const SYSTEM_TASK_GATE = 0x5;
/** System descriptor: 16-bit interrupt gate. */
export const SYSTEM_INTERRUPT_GATE16 = 0x6;
/** System descriptor: 16-bit trap gate. */
export const SYSTEM_TRAP_GATE16 = 0x7;
/** System descriptor: available 32-bit (in long mode 64-bit) TSS. */
export const SYSTEM_TSS32 = 0x9;
/** System descriptor: 32-bit (in long mode 64-bit) call gate. */
export const SYSTEM_CALL_GATE32 = 0xc;
/** System descriptor: 32-bit (64-bit) interrupt gate. */
export const SYSTEM_INTERRUPT_GATE32 = 0xe;
/** System descriptor: 32-bit (64-bit) trap gate. */
export const SYSTEM_TRAP_GATE32 = 0xf;
/** What turns an available TSS's type into a busy one's. */
export const SYSTEM_TSS_BUSY = 0x2;

/** Attributes of a data segment loaded in real mode: present, writable, accessed. */
const ATTRIBUTES_REAL_DATA = SEG_PRESENT | SEG_S | SEG_WRITABLE | SEG_ACCESSED;
/** Attributes of every segment in virtual-8086 mode: the same at DPL 3. */
const ATTRIBUTES_V86 = ATTRIBUTES_REAL_DATA | 3 << SEG_DPL_SHIFT;
/** Limit of a segment in virtual-8086 mode. */
const LIMIT_64K = 0xffff;
/**
 * Attributes of SS (but for the DPL) after a null selector in 64-bit mode, and its limit: an expand-up 32-bit data segment
 * without a size. No manual says what these hidden fields hold and nothing uses them; this is what KVM and the recordings show.
 */
const ATTRIBUTES_NULL_SS = SEG_PRESENT | SEG_S | SEG_WRITABLE | SEG_ACCESSED | SEG_BIG | SEG_GRANULARITY;
const LIMIT_NULL_SS = 0xfff;

const GDTR_LIMIT = (CpuState.at.gdtr + 6) >>> 1;
const GDTR_BASE = (CpuState.at.gdtr + 8) >>> 2;

/** 32-bit word index of segment `seg`'s base in the state; the high half follows. */
export function baseWord(seg: number): number {
  return (SEGMENTS + seg * SEGMENT_BYTES) >>> 2;
}

/** The descriptor read last. */
export const descriptor = {
  /** Low 32 bits. */
  lo: 0,
  /** High 32 bits. */
  hi: 0,
  /** Bits 95:64 of a 16-byte descriptor: the high half of its base or offset. */
  upper: 0,
  /** Linear address, low half. */
  addressLo: 0,
  /** Linear address, high half. */
  addressHi: 0,
};

/** Attributes of the descriptor read last, in a segment register's form. */
export function descriptorAttributes(): number {
  return (descriptor.hi >>> 8) & 0xf0ff;
}

/** Byte limit of the descriptor read last, granularity applied, as an int32. */
export function descriptorLimit(): number {
  const limit = (descriptor.hi & 0xf0000) | (descriptor.lo & 0xffff);
  return (descriptor.hi & 0x80_0000) !== 0 ? (limit << 12) | 0xfff : limit;
}

/** Low 32 bits of the base of the descriptor read last. */
export function descriptorBase(): number {
  return (descriptor.lo >>> 16) | ((descriptor.hi & 0xff) << 16) | (descriptor.hi & 0xff00_0000);
}

/** DPL of the descriptor read last. */
export function descriptorDpl(): number {
  return (descriptor.hi >>> 13) & 3;
}

/** Whether the descriptor read last is present. */
export function descriptorPresent(): boolean {
  return (descriptor.hi & 0x8000) !== 0;
}

/** Type and S bit of the descriptor read last. */
export function descriptorKind(): number {
  return (descriptor.hi >>> 8) & SEG_KIND;
}

/** Error code of a selector: index and table bits, with `ext` (0 or 1) for an event that comes from outside the program. */
export function selectorError(selector: number, ext: number): number {
  return (selector & SELECTOR_ERROR) | ext;
}

/** Finds the descriptor of `selector` without reading it; false when its table does not reach to its last byte. */
function locate(cpu: Cpu, selector: number, bytes: number): boolean {
  const index = selector & SELECTOR_INDEX;
  let baseLo: number;
  let baseHi: number;
  if ((selector & SELECTOR_LOCAL) !== 0) {
    if ((cpu.segmentAttributes(LDTR) & SEG_PRESENT) === 0 || index + bytes - 1 > cpu.segmentLimit(LDTR)) return false;
    baseLo = cpu.s32[baseWord(LDTR)];
    baseHi = cpu.s32[baseWord(LDTR) + 1];
  } else {
    if (index + bytes - 1 > cpu.s16[GDTR_LIMIT]) return false;
    baseLo = cpu.s32[GDTR_BASE];
    baseHi = cpu.s32[GDTR_BASE + 1];
  }
  const lo = (baseLo + index) | 0;
  descriptor.addressLo = lo;
  descriptor.addressHi = cpu.longMode ? (baseHi + (lo >>> 0 < baseLo >>> 0 ? 1 : 0)) | 0 : 0;
  return true;
}

/** Reads the 8-byte descriptor of `selector` into {@linkcode descriptor}; false when it lies beyond its table. */
export function tryReadDescriptor(cpu: Cpu, selector: number): boolean {
  if (!locate(cpu, selector, 8)) return false;
  cpu.readLinear64(descriptor.addressLo, descriptor.addressHi, true);
  descriptor.lo = cpu.v32[0];
  descriptor.hi = cpu.v32[1];
  descriptor.upper = 0;
  return true;
}

/** Reads the 8-byte descriptor of `selector`; raises `vector` with the selector's error code when it is out of reach. */
export function readDescriptor(cpu: Cpu, selector: number, vector: number, ext: number): void {
  if (!tryReadDescriptor(cpu, selector)) cpu.raise(vector, selectorError(selector, ext));
}

/**
 * Reads the second half of a 16-byte system descriptor, whose first half was read last; false when it lies beyond its
 * table or its type field is not zero.
 */
export function tryReadUpperHalf(cpu: Cpu, selector: number): boolean {
  if (!locate(cpu, selector, 16)) return false;
  const lo = (descriptor.addressLo + 8) | 0;
  cpu.readLinear64(lo, (descriptor.addressHi + (lo >>> 0 < 8 ? 1 : 0)) | 0, true);
  descriptor.upper = cpu.v32[0];
  return (cpu.v32[1] & 0x1f00) === 0;
}

/** Sets the accessed bit of the code or data descriptor read last, in memory too, as a supervisor's write. */
export function markAccessed(cpu: Cpu): void {
  if ((descriptor.hi & 0x100) !== 0) return;
  descriptor.hi |= 0x100;
  writeAccessByte(cpu);
}

/** Writes the access byte (bits 47:40) of the descriptor read last back to its table. */
export function writeAccessByte(cpu: Cpu): void {
  const lo = (descriptor.addressLo + 5) | 0;
  cpu.writeLinear8(lo, (descriptor.addressHi + (lo >>> 0 < 5 ? 1 : 0)) | 0, (descriptor.hi >>> 8) & 0xff, true);
}

/** Makes the descriptor read last the contents of segment register `seg`. */
export function commitDescriptor(cpu: Cpu, seg: number, selector: number): void {
  cpu.setSegment(seg, selector, descriptorAttributes(), descriptorLimit(), descriptorBase(), descriptor.upper);
}

/** Makes a segment register null: the selector stays visible, everything else is zero. */
export function setNull(cpu: Cpu, seg: number, selector: number): void {
  cpu.setSegment(seg, selector, 0, 0, 0);
}

/** A load in real or virtual-8086 mode: the base is the selector times 16. */
export function setRealSegment(cpu: Cpu, seg: number, selector: number): void {
  if (cpu.v86) {
    cpu.setSegment(seg, selector, ATTRIBUTES_V86, LIMIT_64K, selector << 4);
    return;
  }
  // Real mode keeps limit and attributes, which is what lets a program reach beyond 64 KiB ("unreal mode").
  cpu.setSegment(seg, selector, cpu.segmentAttributes(seg), cpu.segmentLimit(seg), selector << 4);
}

/** The segments of a task that enters virtual-8086 mode; `selectors` are those of ES, CS, SS, DS, FS and GS in order. */
export function setV86Segment(cpu: Cpu, seg: number, selector: number): void {
  cpu.setSegment(seg, selector, ATTRIBUTES_V86, LIMIT_64K, selector << 4);
}

/**
 * Loads ES, SS, DS, FS or GS as MOV, POP and LDS do, in every mode. Raises #GP, #NP or #SS with the selector, or a page
 * fault of the descriptor table; nothing has changed then. Updates the processor's mode fields.
 */
export function loadSegment(cpu: Cpu, seg: number, selector: number): void {
  if (!cpu.protected || cpu.v86) setRealSegment(cpu, seg, selector);
  else if (seg === SS) loadStackSegment(cpu, selector);
  else loadDataSegment(cpu, seg, selector, VECTOR_GP, 0);
  cpu.updateMode();
}

/**
 * Loads ES, DS, FS or GS in protected mode. A failed check raises `vector` (#GP for loads, #TS in a task switch), a segment
 * that is not present #NP.
 */
export function loadDataSegment(cpu: Cpu, seg: number, selector: number, vector: number, ext: number): void {
  if ((selector & SELECTOR_ERROR) === 0) {
    setNull(cpu, seg, selector);
    return;
  }
  readDescriptor(cpu, selector, vector, ext);
  const kind = descriptorKind();
  const readable = (kind & SEG_S) !== 0 && (kind & (SEG_CODE | SEG_WRITABLE)) !== SEG_CODE;
  if (!readable) cpu.raise(vector, selectorError(selector, ext));
  const conforming = (kind & (SEG_CODE | SEG_EXPAND_DOWN)) === (SEG_CODE | SEG_EXPAND_DOWN);
  const dpl = descriptorDpl();
  if (!conforming && ((selector & 3) > dpl || cpu.cpl > dpl)) cpu.raise(vector, selectorError(selector, ext));
  if (!descriptorPresent()) cpu.raise(VECTOR_NP, selectorError(selector, ext));
  markAccessed(cpu);
  commitDescriptor(cpu, seg, selector);
}

/** Loads SS in protected mode, without a change of privilege. */
function loadStackSegment(cpu: Cpu, selector: number): void {
  if ((selector & SELECTOR_ERROR) === 0) {
    if (!cpu.long64 || cpu.cpl === 3 || (selector & 3) !== cpu.cpl) cpu.raise(VECTOR_GP, selectorError(selector, 0));
    cpu.setSegment(SS, selector, ATTRIBUTES_NULL_SS | cpu.cpl << SEG_DPL_SHIFT, LIMIT_NULL_SS, 0);
    return;
  }
  checkStackSegment(cpu, selector, cpu.cpl, VECTOR_GP, 0);
  markAccessed(cpu);
  commitDescriptor(cpu, SS, selector);
}

/**
 * Reads and checks the descriptor of a stack segment for privilege level `cpl`: writable data, RPL and DPL equal to it,
 * present. A failed check raises `vector` (#GP for loads and returns, #TS for stacks from a TSS), a segment that is not
 * present #SS.
 */
export function checkStackSegment(cpu: Cpu, selector: number, cpl: number, vector: number, ext: number): void {
  readDescriptor(cpu, selector, vector, ext);
  const writableData = (descriptorKind() & (SEG_S | SEG_CODE | SEG_WRITABLE)) === (SEG_S | SEG_WRITABLE);
  if ((selector & 3) !== cpl || !writableData || descriptorDpl() !== cpl) {
    cpu.raise(vector, selectorError(selector, ext));
  }
  if (!descriptorPresent()) cpu.raise(VECTOR_SS, selectorError(selector, ext));
}

/** SS after a change of privilege in long mode: a null selector with the new level. */
export function setNullStack(cpu: Cpu, cpl: number): void {
  cpu.setSegment(SS, cpl, cpl << SEG_DPL_SHIFT, 0, 0);
}

/** Whether the code segment descriptor read last may run in the current mode: L and D not both set in long mode. */
export function codeSizeValid(cpu: Cpu): boolean {
  return !cpu.longMode || (descriptor.hi & 0x60_0000) !== 0x60_0000;
}

/** Whether the code segment descriptor read last is 64-bit code in long mode. */
export function descriptorIsLong(cpu: Cpu): boolean {
  return cpu.longMode && (descriptorAttributes() & SEG_LONG) !== 0;
}

/** After a return to an outer level: segments that the new level may not use become null. */
export function dropInnerSegments(cpu: Cpu, cpl: number): void {
  for (const seg of [ES, DS, FS, GS]) {
    const attributes = cpu.segmentAttributes(seg);
    if ((attributes & SEG_PRESENT) === 0) continue; // null already: in long mode its base belongs to an MSR
    const conforming = (attributes & (SEG_CODE | SEG_EXPAND_DOWN)) === (SEG_CODE | SEG_EXPAND_DOWN);
    if (((attributes >>> SEG_DPL_SHIFT) & 3) < cpl && !conforming) setNull(cpu, seg, 0);
  }
}

/** LLDT: makes `selector` the local descriptor table. */
export function loadLocalTable(cpu: Cpu, selector: number): void {
  if ((selector & SELECTOR_ERROR) === 0) {
    setNull(cpu, LDTR, selector);
    return;
  }
  if ((selector & SELECTOR_LOCAL) !== 0) cpu.raise(VECTOR_GP, selectorError(selector, 0));
  readDescriptor(cpu, selector, VECTOR_GP, 0);
  if (descriptorKind() !== SYSTEM_LDT) cpu.raise(VECTOR_GP, selectorError(selector, 0));
  if (!descriptorPresent()) cpu.raise(VECTOR_NP, selectorError(selector, 0));
  readSystemBase(cpu, selector);
  commitDescriptor(cpu, LDTR, selector);
}

/** LTR: makes `selector` the task register and marks its TSS busy. */
export function loadTaskRegister(cpu: Cpu, selector: number): void {
  if ((selector & SELECTOR_ERROR) === 0) cpu.raise(VECTOR_GP, 0);
  if ((selector & SELECTOR_LOCAL) !== 0) cpu.raise(VECTOR_GP, selectorError(selector, 0));
  readDescriptor(cpu, selector, VECTOR_GP, 0);
  const kind = descriptorKind();
  if (kind !== SYSTEM_TSS32 && (kind !== SYSTEM_TSS16 || cpu.longMode)) {
    cpu.raise(VECTOR_GP, selectorError(selector, 0));
  }
  if (!descriptorPresent()) cpu.raise(VECTOR_NP, selectorError(selector, 0));
  readSystemBase(cpu, selector);
  descriptor.hi |= SYSTEM_TSS_BUSY << 8;
  writeAccessByte(cpu);
  commitDescriptor(cpu, TR, selector);
}

/** In long mode: reads the upper half of an LDT's or TSS's descriptor and checks the base that it completes. */
function readSystemBase(cpu: Cpu, selector: number): void {
  if (!cpu.longMode) return;
  if (!tryReadUpperHalf(cpu, selector)) cpu.raise(VECTOR_GP, selectorError(selector, 0));
  if (!isCanonical(descriptor.upper)) cpu.raise(VECTOR_GP, selectorError(selector, 0));
}

/** Whether an address with this high half is canonical for 48 linear address bits. */
export function isCanonical(hi: number): boolean {
  const sign = hi >> 15;
  return sign === 0 || sign === -1;
}

/** Whether `offset` (unsigned) lies within CS's limit; 64-bit code has none. */
export function withinCode(cpu: Cpu, offset: number): boolean {
  return cpu.long64 || offset <= cpu.segmentLimit(CS);
}
