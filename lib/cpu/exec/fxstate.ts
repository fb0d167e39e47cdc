/**
 * FXSAVE, FXRSTOR, LDMXCSR, STMXCSR, and the fences and cache-line instructions that share their opcode (AMD APM volume
 * 2, 11.4; volumes 3 and 4).
 *
 * The state's own image has FXSAVE64 form. The fields for instruction and data pointers hold what FXRSTOR loaded: x87
 * instructions do not track them.
 * XSAVE and its kin do not exist: CPUID does not announce them.
 *
 * @module
 */

import { CR4_OSFXSR } from "../control_bits.ts";
import { ACCESS_READ } from "../bus.ts";
import type { Cpu } from "../cpu.ts";
import { VECTOR_GP } from "../faults.ts";
import { type Exec, type Insn, type OpcodeRow, row } from "../insn.ts";
import { CpuState, FS, FX } from "../state.ts";
import { MXCSR_WORD, requireSse } from "./sse_operand.ts";
import { advanceEa } from "./x87.ts";
import { requireX87, updateErrorSummary } from "./x87_stack.ts";

const CR4 = CpuState.at.cr4 >> 2;

/** REX.W among the bits of `Insn.rex`. */
const REX_W = 8;
/** Bits of MXCSR that may be set, and the value of MXCSR_MASK in the image. */
const MXCSR_MASK = 0xffff;
/** Bytes of the image, and of its parts: up to the end of ST(7), each XMM register, the end of XMM7 and of XMM15. */
const IMAGE_BYTES = 512;
const X87_END = 160;
const XMM7_END = 288;
const XMM15_END = 416;
/** Offsets in the image. */
const AT_FTW = 4;
const AT_FIP = 8;
const AT_FDP = 16;
const AT_MXCSR = 24;
const AT_MXCSR_MASK = 28;
const AT_ST0 = 32;
const FXSAVE_ALIGNMENT_MASK = 15;

/** The image in memory form while it is put together or checked. */
const image = new Uint8Array(IMAGE_BYTES);
const image32 = new Int32Array(image.buffer);
const image64 = new BigUint64Array(image.buffer);

/** Where the XMM part ends for this instruction: nothing of it without CR4.OSFXSR. */
function xmmEnd(cpu: Cpu): number {
  if ((cpu.s32[CR4] & CR4_OSFXSR) === 0) return X87_END;
  return cpu.long64 ? XMM15_END : XMM7_END;
}

/** Raises #GP(0) unless the memory operand is aligned to 16 bytes. */
function requireAlignment(cpu: Cpu, i: Insn): void {
  cpu.ea(i);
  const base = cpu.long64 && i.segment < FS ? 0 : cpu.segmentBase(i.segment);
  if (((cpu.ea32[0] + base) & FXSAVE_ALIGNMENT_MASK) !== 0) cpu.raise(VECTOR_GP, 0);
}

/** Writes bytes `from` to `end` of `image` to the memory operand, in 64-bit words. */
function writeImage(cpu: Cpu, i: Insn, from: number, end: number): void {
  for (let at = from; at < end; at += 8) {
    advanceEa(cpu, i, at);
    cpu.v64[0] = image64[at >> 3];
    cpu.write64(i.segment, cpu.ea32[0], cpu.ea32[1]);
  }
}

/** Reads bytes up to `end` of the memory operand to `image`. */
function readImage(cpu: Cpu, i: Insn, end: number): void {
  for (let at = 0; at < end; at += 8) {
    advanceEa(cpu, i, at);
    cpu.read64(i.segment, cpu.ea32[0], cpu.ea32[1]);
    image64[at >> 3] = cpu.v64[0];
  }
}

/** FXSAVE, FXSAVE64. */
function fxsave(cpu: Cpu, i: Insn): void {
  requireX87(cpu);
  requireAlignment(cpu, i);
  const end = xmmEnd(cpu);
  for (let at = 0; at < end; at++) image[at] = cpu.s8[FX + at];
  if ((i.rex & REX_W) === 0) {
    // The pointers are 32 bits with a selector above; the selectors are not tracked.
    image32[(AT_FIP + 4) >> 2] = 0;
    image32[(AT_FDP + 4) >> 2] = 0;
  }
  image32[AT_MXCSR_MASK >> 2] = MXCSR_MASK;
  // Its last byte faults first.
  advanceEa(cpu, i, IMAGE_BYTES - 1);
  cpu.probeWrite(i.segment, cpu.ea32[0], cpu.ea32[1], 1);
  cpu.ea(i);
  cpu.probeWrite(i.segment, cpu.ea32[0], cpu.ea32[1], IMAGE_BYTES);
  writeImage(cpu, i, 0, end);
}

/** FXRSTOR, FXRSTOR64: reserved bits of MXCSR are #GP. */
function fxrstor(cpu: Cpu, i: Insn): void {
  requireX87(cpu);
  requireAlignment(cpu, i);
  const end = xmmEnd(cpu);
  advanceEa(cpu, i, IMAGE_BYTES - 1);
  cpu.touch(i.segment, cpu.ea32[0], cpu.ea32[1], ACCESS_READ);
  readImage(cpu, i, end);
  const mxcsr = image32[AT_MXCSR >> 2];
  const withMxcsr = (cpu.s32[CR4] & CR4_OSFXSR) !== 0;
  if (withMxcsr && (mxcsr & ~MXCSR_MASK) !== 0) cpu.raise(VECTOR_GP, 0);
  if ((i.rex & REX_W) === 0) {
    image32[(AT_FIP + 4) >> 2] = 0;
    image32[(AT_FDP + 4) >> 2] = 0;
  }
  image32[AT_MXCSR >> 2] = withMxcsr ? mxcsr : cpu.s32[MXCSR_WORD];
  image[AT_FTW + 1] = 0;
  for (let n = 0; n < 8; n++) image64[(AT_ST0 + 16 * n + 8) >> 3] &= 0xffffn;
  for (let at = 0; at < end; at++) cpu.s8[FX + at] = image[at];
  cpu.s32[(FX + AT_MXCSR_MASK) >> 2] = MXCSR_MASK;
  updateErrorSummary(cpu);
}

/** LDMXCSR: reserved bits are #GP. */
function ldmxcsr(cpu: Cpu, i: Insn): void {
  requireSse(cpu);
  const mxcsr = cpu.load32(i);
  if ((mxcsr & ~MXCSR_MASK) !== 0) cpu.raise(VECTOR_GP, 0);
  cpu.s32[MXCSR_WORD] = mxcsr;
}

/** STMXCSR. */
function stmxcsr(cpu: Cpu, i: Insn): void {
  requireSse(cpu);
  cpu.store32(i, cpu.s32[MXCSR_WORD]);
}

/** MFENCE, LFENCE, SFENCE: an atomic addition of nothing to shared memory, which is a full barrier. */
function fence(cpu: Cpu): void {
  Atomics.add(cpu.s32, MXCSR_WORD, 0);
}

/** CLFLUSH: there are no caches, but the address is checked as a read. */
function clflush(cpu: Cpu, i: Insn): void {
  cpu.load8(i);
}

/** A row of group 15 without a prefix. */
function group(reg: number, name: string, exec: Exec, mod: "mem" | "reg"): OpcodeRow {
  return row("0f", 0xae, name, mod === "mem" ? "M" : "", exec, { prefix: "none", reg, mod });
}

/** The opcode rows of this file. */
export const rows: readonly OpcodeRow[] = [
  group(0, "fxsave", fxsave, "mem"),
  group(1, "fxrstor", fxrstor, "mem"),
  group(2, "ldmxcsr", ldmxcsr, "mem"),
  group(3, "stmxcsr", stmxcsr, "mem"),
  group(7, "clflush", clflush, "mem"),
  group(5, "lfence", fence, "reg"),
  group(6, "mfence", fence, "reg"),
  group(7, "sfence", fence, "reg"),
];
