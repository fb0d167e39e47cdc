/**
 * A stack on which the processor builds a frame (of an event, a far call, a task) before it commits to it. Nothing but
 * memory changes until {@linkcode commitFrame}, so that a fault in the middle leaves the registers alone.
 *
 * @module
 */
import type { Cpu } from "./cpu.ts";
import { VECTOR_SS } from "./faults.ts";
import { descriptorAttributes, descriptorBase, descriptorLimit, isCanonical } from "./segments.ts";
import { RSP, SEG_BIG, SEG_CODE, SEG_EXPAND_DOWN, SS } from "./state.ts";

const RSP_LO = RSP * 2;
const RSP_HI = RSP * 2 + 1;
/** Highest offset of a 16-bit stack. */
const OFFSET_MAX_16 = 0xffff;
/** Highest offset of a 32-bit stack. */
const OFFSET_MAX_32 = 0xffff_ffff;

let baseLo = 0;
let limit = 0;
let expandDown = false;
/** Width of the stack pointer in bytes: 2, 4, or 8 for a stack without base and limit. */
let width = 4;
let pointerLo = 0;
let pointerHi = 0;
/** Whether accesses are made with supervisor rights: the level that will use the stack is not 3. */
let supervisor = true;
/** Error code of the stack fault when the frame does not fit. */
let faultError = 0;

/** Starts on the current stack. A frame that does not fit raises #SS(`error`). */
export function openCurrentStack(cpu: Cpu, error: number): void {
  if (cpu.long64) {
    width = 8; // without base and limit
  } else {
    const attributes = cpu.segmentAttributes(SS);
    baseLo = cpu.segmentBase(SS);
    limit = cpu.segmentLimit(SS);
    expandDown = (attributes & (SEG_CODE | SEG_EXPAND_DOWN)) === SEG_EXPAND_DOWN;
    width = (attributes & SEG_BIG) !== 0 ? 4 : 2;
  }
  pointerLo = cpu.g32[RSP_LO];
  pointerHi = cpu.g32[RSP_HI];
  supervisor = cpu.cpl !== 3;
  faultError = error;
}

/** Starts at offset `pointer` of the stack segment whose descriptor was read last, to be used at level `cpl`. */
export function openDescriptorStack(pointer: number, cpl: number, error: number): void {
  const attributes = descriptorAttributes();
  baseLo = descriptorBase();
  limit = descriptorLimit() >>> 0;
  expandDown = (attributes & (SEG_CODE | SEG_EXPAND_DOWN)) === SEG_EXPAND_DOWN;
  width = (attributes & SEG_BIG) !== 0 ? 4 : 2;
  pointerLo = pointer;
  pointerHi = 0;
  supervisor = cpl !== 3;
  faultError = error;
}

/** Starts at a 64-bit linear address, to be used at level `cpl`. */
export function openLongStack(lo: number, hi: number, cpl: number, error: number): void {
  width = 8;
  pointerLo = lo;
  pointerHi = hi;
  supervisor = cpl !== 3;
  faultError = error;
}

/** Rounds the stack pointer down to a multiple of 16, as event delivery in long mode does. */
export function alignFrame(): void {
  pointerLo &= ~15;
}

/** Moves the pointer down by `size` bytes, checks the place, and returns its linear address's low half. */
function reserve(cpu: Cpu, size: number): number {
  const old = pointerLo;
  const lo = (pointerLo - size) | 0;
  if (width === 8) {
    pointerHi = (pointerHi - (old >>> 0 < size ? 1 : 0)) | 0;
    pointerLo = lo;
    if (!isCanonical(pointerHi)) cpu.raise(VECTOR_SS, faultError);
    return lo;
  }
  const offset = width === 4 ? lo >>> 0 : lo & OFFSET_MAX_16;
  const last = offset + size - 1;
  const fits = expandDown
    ? offset > limit && last <= (width === 4 ? OFFSET_MAX_32 : OFFSET_MAX_16)
    : last <= limit && last <= OFFSET_MAX_32;
  if (!fits) cpu.raise(VECTOR_SS, faultError);
  pointerLo = width === 4 ? lo : (old & ~OFFSET_MAX_16) | offset;
  return (baseLo + offset) | 0;
}

/** Pushes a value of `size` (2 or 4) bytes. */
export function framePush(cpu: Cpu, value: number, size: number): void {
  const lo = reserve(cpu, size);
  const hi = width === 8 ? pointerHi : 0;
  if (size === 2) cpu.writeLinear16(lo, hi, value & 0xffff, supervisor);
  else cpu.writeLinear32(lo, hi, value, supervisor);
}

/** Pushes a 64-bit value. */
export function framePush64(cpu: Cpu, valueLo: number, valueHi: number): void {
  const lo = reserve(cpu, 8);
  cpu.v32[0] = valueLo;
  cpu.v32[1] = valueHi;
  cpu.writeLinear64(lo, width === 8 ? pointerHi : 0, supervisor);
}

/** Pushes in the natural order of a frame: a value of 2, 4 or 8 bytes with the high half given. */
export function framePushSized(cpu: Cpu, lo: number, hi: number, size: number): void {
  if (size === 8) framePush64(cpu, lo, hi);
  else framePush(cpu, lo, size);
}

/** Makes the stack pointer reached the processor's RSP. SS is the caller's business. */
export function commitFrame(cpu: Cpu): void {
  if (width === 8) {
    cpu.g32[RSP_LO] = pointerLo;
    cpu.g32[RSP_HI] = pointerHi;
  } else if (width === 4) {
    cpu.g32[RSP_LO] = pointerLo;
    cpu.g32[RSP_HI] = 0;
  } else {
    cpu.g32[RSP_LO] = (cpu.g32[RSP_LO] & ~OFFSET_MAX_16) | (pointerLo & OFFSET_MAX_16);
  }
}
