/**
 * The x87 register stack as it lies in the FXSAVE image, and the way exceptions are reported (Intel SDM volume 1,
 * chapter 8; AMD APM volume 1, chapter 6).
 *
 * The image keeps ST(0) to ST(7) in stack order, so a push or a pop turns all eight; tags are kept by physical
 * register. Instruction and data pointers are not tracked: they keep what FXRSTOR loaded.
 *
 * A pending exception is always reported as #MF: the legacy way through FERR# and an interrupt controller (CR0.NE clear)
 * is not modelled.
 *
 * @module
 */

import type { Cpu } from "../cpu.ts";
import { VECTOR_MF, VECTOR_NM } from "../faults.ts";
import {
  FLAG_INEXACT,
  FLAG_INVALID,
  FLAGS_ALL,
  FLAGS_PRE_COMPUTATION,
  FloatEnvironment,
} from "../float/environment.ts";
import { EXTENDED80, FloatResult, Operand, setDefaultNan, unpackExtended } from "../float/format.ts";
import { CpuState, CR0_EM, CR0_TS, FX } from "../state.ts";

const CR0 = CpuState.at.cr0 >> 2;
/** Index of the control word among the 16-bit words of the state. */
export const FCW: number = FX >> 1;
/** Index of the status word. */
export const FSW: number = (FX + 2) >> 1;
/** Byte offset of the abridged tags: bit set, the physical register is in use. */
export const FTW: number = FX + 4;
/** Byte offset of ST(0); ST(i) follows every {@linkcode ST_BYTES}. */
export const ST: number = FX + 32;
/** Bytes of a register's slot. */
export const ST_BYTES = 16;

/** Status word: stack fault. */
export const FSW_SF = 0x40;
/** Status word: an exception that is not masked is pending. */
export const FSW_ES = 0x80;
/** Status word: condition code 0. */
export const FSW_C0 = 0x100;
/** Status word: condition code 1: rounded up, stack overflow. */
export const FSW_C1 = 0x200;
/** Status word: condition code 2. */
export const FSW_C2 = 0x400;
/** Status word: condition code 3. */
export const FSW_C3 = 0x4000;
/** Status word: busy, a copy of ES. */
export const FSW_B = 0x8000;
/** Status word: shift of TOP. */
export const FSW_TOP_SHIFT = 11;
/** Status word: TOP. */
export const FSW_TOP: number = 7 << FSW_TOP_SHIFT;

/** The environment of x87 operations, loaded from the control word by each instruction. */
export const x87: FloatEnvironment = new FloatEnvironment();
/** The result of the operation in progress. */
export const x87Result: FloatResult = new FloatResult();

/** Raises #NM when x87 is not available; leaves a pending exception alone (FN... instructions). */
export function requireX87(cpu: Cpu): void {
  if ((cpu.s32[CR0] & (CR0_EM | CR0_TS)) !== 0) cpu.raise(VECTOR_NM);
}

/** What a waiting instruction checks first: #NM, and #MF for a pending exception. */
export function checkX87(cpu: Cpu): void {
  requireX87(cpu);
  if ((cpu.s16[FSW] & FSW_ES) !== 0) cpu.raise(VECTOR_MF);
}

/**
 * Starts an instruction that has passed its checks and has its memory operand: takes the environment from the control
 * word; C1 becomes 0.
 */
export function startX87(cpu: Cpu): void {
  startKeepingC1(cpu);
  cpu.s16[FSW] &= ~FSW_C1;
}

/** As `startX87`, but C1 stays unless there is a stack fault (FCOMI, FUCOMI, FCMOVcc). */
export function startKeepingC1(cpu: Cpu): void {
  x87.loadControlWord(cpu.s16[FCW]);
}

/** Starts a waiting instruction without a memory operand. */
export function beginX87(cpu: Cpu): void {
  checkX87(cpu);
  startX87(cpu);
}

/** Reports `flags` (and `FSW_SF`): sets them, and ES and B when one of the exceptions is not masked. */
export function signal(cpu: Cpu, flags: number): void {
  let fsw = cpu.s16[FSW] | flags;
  if (x87.unmasked(flags)) fsw |= FSW_ES | FSW_B;
  cpu.s16[FSW] = fsw;
}

/** ES and B from the exceptions and masks that are now in the status and control words. */
export function updateErrorSummary(cpu: Cpu): void {
  const fsw = cpu.s16[FSW] & ~(FSW_ES | FSW_B);
  const pending = fsw & ~cpu.s16[FCW] & FLAGS_ALL;
  cpu.s16[FSW] = pending !== 0 ? fsw | FSW_ES | FSW_B : fsw;
}

/** TOP: the physical register that ST(0) is. */
export function top(cpu: Cpu): number {
  return (cpu.s16[FSW] >> FSW_TOP_SHIFT) & 7;
}

function tagBit(cpu: Cpu, i: number): number {
  return 1 << ((top(cpu) + i) & 7);
}

/** Whether ST(i) is empty. */
export function isEmpty(cpu: Cpu, i: number): boolean {
  return (cpu.s8[FTW] & tagBit(cpu, i)) === 0;
}

/** Marks ST(i) empty. */
export function setEmpty(cpu: Cpu, i: number): void {
  cpu.s8[FTW] &= ~tagBit(cpu, i);
}

/** Marks ST(i) in use. */
export function setInUse(cpu: Cpu, i: number): void {
  cpu.s8[FTW] |= tagBit(cpu, i);
}

/** 32-bit words of the eight registers' slots. */
const STACK_WORDS = (8 * ST_BYTES) >> 2;
/** Their contents while the stack is turned. */
const turned = new Int32Array(STACK_WORDS);

/** Changes TOP by `delta` (modulo 8); physical registers keep their contents, so the image turns. */
export function turnStack(cpu: Cpu, delta: number): void {
  const by = delta & 7;
  if (by === 0) return;
  const s32 = cpu.s32;
  const first = ST >> 2;
  for (let word = 0; word < STACK_WORDS; word++) turned[word] = s32[first + word];
  const shift = by * (ST_BYTES >> 2);
  for (let word = 0; word < STACK_WORDS; word++) s32[first + word] = turned[(word + shift) & (STACK_WORDS - 1)];
  const fsw = cpu.s16[FSW];
  cpu.s16[FSW] = (fsw & ~FSW_TOP) | ((((fsw >> FSW_TOP_SHIFT) + by) & 7) << FSW_TOP_SHIFT);
}

/** Takes ST(i) apart. */
export function loadRegister(cpu: Cpu, i: number, out: Operand): void {
  const at = ST + i * ST_BYTES;
  unpackExtended(cpu.s16[(at + 8) >> 1], cpu.s64[at >> 3], out);
}

/** Writes the 80-bit value to ST(i) and marks it in use. */
export function putBits(cpu: Cpu, i: number, signExponent: number, significand: bigint): void {
  const at = ST + i * ST_BYTES;
  cpu.s64[at >> 3] = significand;
  cpu.s64[(at >> 3) + 1] = BigInt(signExponent);
  setInUse(cpu, i);
}

/** Writes a result to ST(i) and marks it in use. */
export function putRegister(cpu: Cpu, i: number, r: FloatResult): void {
  putBits(cpu, i, (r.sign << 15) | (r.exponent & 0x7fff), r.significand);
}

/** Pops the stack. */
export function pop(cpu: Cpu): void {
  setEmpty(cpu, 0);
  turnStack(cpu, 1);
}

const nan = new FloatResult();

/** Writes the default NaN to ST(i). */
export function putDefaultNan(cpu: Cpu, i: number): void {
  setDefaultNan(EXTENDED80, nan);
  putRegister(cpu, i, nan);
}

/** Stack underflow: reports it. True when it is masked, so that the instruction goes on with its masked response. */
export function underflow(cpu: Cpu): boolean {
  cpu.s16[FSW] &= ~FSW_C1;
  signal(cpu, FLAG_INVALID | FSW_SF);
  return !x87.unmasked(FLAG_INVALID);
}

/**
 * Makes room for a push. False when ST(7) is in use: the overflow is reported, and when it is masked the default NaN is
 * pushed.
 */
export function preparePush(cpu: Cpu): boolean {
  if (isEmpty(cpu, 7)) return true;
  signal(cpu, FLAG_INVALID | FSW_SF | FSW_C1);
  if (!x87.unmasked(FLAG_INVALID)) {
    turnStack(cpu, -1);
    putDefaultNan(cpu, 0);
  }
  return false;
}

/**
 * Reports the exceptions that an operation collected, with C1 from its rounding. True when the result is to be written:
 * none of those found before the computation is unmasked.
 */
export function finish(cpu: Cpu): boolean {
  const flags = x87.flags;
  if (flags === 0) return true;
  if (x87.unmasked(flags & FLAGS_PRE_COMPUTATION)) {
    signal(cpu, flags & FLAGS_PRE_COMPUTATION);
    return false;
  }
  signal(cpu, flags | ((flags & FLAG_INEXACT) !== 0 && x87.roundedUp ? FSW_C1 : 0));
  return true;
}
