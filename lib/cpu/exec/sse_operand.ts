/**
 * What every SSE instruction needs: whether SSE may be used, its operands in the working registers, and its result
 * back.
 *
 * @module
 */

import { CR4_OSFXSR, CR4_OSXMMEXCPT } from "../control_bits.ts";
import type { Cpu } from "../cpu.ts";
import { VECTOR_NM, VECTOR_UD, VECTOR_XM } from "../faults.ts";
import {
  FLAG_INEXACT,
  FLAGS_ALL,
  FLAGS_PRE_COMPUTATION,
  MXCSR_MASKS_SHIFT,
  MXCSR_RC_SHIFT,
} from "../float/environment.ts";
import { A_U64, B_I32, B_U64, R_I32, sse } from "../float/lanes.ts";
import type { Exec, Insn } from "../insn.ts";
import { CpuState, CR0_EM, CR0_TS, MXCSR, XMM } from "../state.ts";

/** Index of XMM0 among the 32-bit words of the state; register r is at `X + 4 * r`. */
export const X: number = XMM >> 2;
/** Index of XMM0 among the 64-bit words of the state; register r is at `X64 + 2 * r`. */
export const X64: number = XMM >> 3;
/** Index of MXCSR among the 32-bit words of the state. */
export const MXCSR_WORD: number = MXCSR >> 2;
const CR0 = CpuState.at.cr0 >> 2;
const CR4 = CpuState.at.cr4 >> 2;

/** Raises #UD or #NM when SSE cannot be used (AMD APM volume 4, "Exceptions" of each instruction). */
export function requireSse(cpu: Cpu): void {
  const s32 = cpu.s32;
  const cr0 = s32[CR0] & (CR0_EM | CR0_TS);
  if ((cr0 | (~s32[CR4] & CR4_OSFXSR)) !== 0) sseUnavailable(cpu, cr0);
}

function sseUnavailable(cpu: Cpu, cr0: number): void {
  if ((cr0 & CR0_EM) !== 0 || (cpu.s32[CR4] & CR4_OSFXSR) === 0) cpu.raise(VECTOR_UD);
  cpu.raise(VECTOR_NM);
}

/**
 * Copies XMM register `r` to A. Whole 64-bit words are moved, since a narrower store before a wider load stalls real
 * processors.
 */
export function registerToA(cpu: Cpu, r: number): void {
  const s64 = cpu.s64;
  const at = X64 + 2 * r;
  A_U64[0] = s64[at];
  A_U64[1] = s64[at + 1];
}

/** Copies XMM register `r` to B. */
export function registerToB(cpu: Cpu, r: number): void {
  const s64 = cpu.s64;
  const at = X64 + 2 * r;
  B_U64[0] = s64[at];
  B_U64[1] = s64[at + 1];
}

/** Copies R to XMM register `r`. */
export function resultToRegister(cpu: Cpu, r: number): void {
  const s32 = cpu.s32;
  const at = X + 4 * r;
  s32[at] = R_I32[0];
  s32[at + 1] = R_I32[1];
  s32[at + 2] = R_I32[2];
  s32[at + 3] = R_I32[3];
}

/** Loads the 128-bit source, register or memory, to B. Memory must be aligned unless `unaligned`. */
export function source128(cpu: Cpu, i: Insn, unaligned = false): void {
  if (!i.mem) {
    registerToB(cpu, i.rm);
    return;
  }
  cpu.load128(i, !unaligned);
  B_U64[0] = cpu.v64[0];
  B_U64[1] = cpu.v64[1];
}

/** Loads the lower 64 bits of the source register, or 64 bits of memory, to B. */
export function source64(cpu: Cpu, i: Insn): void {
  if (!i.mem) {
    B_U64[0] = cpu.s64[X64 + 2 * i.rm];
    return;
  }
  cpu.load64(i);
  B_U64[0] = cpu.v64[0];
}

/** Loads the lower 32 bits of the source register, or 32 bits of memory, to B. */
export function source32(cpu: Cpu, i: Insn): void {
  B_I32[0] = i.mem ? cpu.load32(i) : cpu.s32[X + 4 * i.rm];
}

/** An instruction whose lanes `compute` takes from A (destination) and B (128-bit source) to R. */
export function lanes128(compute: () => void): Exec {
  return (cpu, i) => {
    requireSse(cpu);
    source128(cpu, i);
    registerToA(cpu, i.reg);
    compute();
    resultToRegister(cpu, i.reg);
  };
}

/** As `lanes128` with the immediate byte. */
export function lanes128Immediate(compute: (immediate: number) => void): Exec {
  return (cpu, i) => {
    requireSse(cpu);
    source128(cpu, i);
    registerToA(cpu, i.reg);
    compute(i.immLo & 0xff);
    resultToRegister(cpu, i.reg);
  };
}

/** MXCSR's rounding control, inexact mask and inexact flag. */
const MXCSR_QUICK_MASK = (3 << MXCSR_RC_SHIFT) | (FLAG_INEXACT << MXCSR_MASKS_SHIFT) | FLAG_INEXACT;
/** Their values when results are rounded to nearest and it does not matter whether they are inexact. */
const MXCSR_QUICK = (FLAG_INEXACT << MXCSR_MASKS_SHIFT) | FLAG_INEXACT;

/**
 * Whether JavaScript's own arithmetic will do, as long as only zeros and normal numbers take part: round to nearest,
 * and the inexact exception is masked and has been
 * reported already. Programs get there with their first inexact operation.
 */
export function roundsQuietly(cpu: Cpu): boolean {
  return (cpu.s32[MXCSR_WORD] & MXCSR_QUICK_MASK) === MXCSR_QUICK;
}

/** Takes the environment of a floating-point instruction from MXCSR. */
export function beginFloat(cpu: Cpu): void {
  sse.loadMxcsr(cpu.s32[MXCSR_WORD]);
}

/**
 * Reports what the instruction's lanes collected in `sse.flags`: into MXCSR, and as #XM (#UD without CR4.OSXMMEXCPT)
 * when one of them is not masked.
 * Exceptions found before the computation win: when one of them is not masked, the later ones are not computed.
 */
export function endFloat(cpu: Cpu): void {
  const flags = sse.flags;
  if (flags === 0) return;
  const unmasked = flags & ~sse.masks & FLAGS_ALL;
  if (unmasked === 0) {
    cpu.s32[MXCSR_WORD] |= flags;
    return;
  }
  const before = (unmasked & FLAGS_PRE_COMPUTATION) !== 0;
  cpu.s32[MXCSR_WORD] |= before ? flags & FLAGS_PRE_COMPUTATION : flags;
  cpu.raise((cpu.s32[CR4] & CR4_OSXMMEXCPT) !== 0 ? VECTOR_XM : VECTOR_UD);
}

/** Writes a 32-bit result to general-purpose register `r`, clearing its upper half. */
export function putGpr32(cpu: Cpu, r: number, value: number): void {
  cpu.g32[2 * r] = value;
  cpu.g32[2 * r + 1] = 0;
}
