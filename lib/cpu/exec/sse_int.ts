/**
 * SSE2 integer arithmetic, logic, comparisons, packs and shifts on XMM registers, and the logical operations of SSE
 * (AMD APM volume 4).
 *
 * @module
 */

import type { Cpu } from "../cpu.ts";
import {
  A_I16,
  A_I32,
  A_I8,
  A_U16,
  A_U32,
  A_U64,
  A_U8,
  B_I16,
  B_I32,
  B_I8,
  B_U16,
  B_U32,
  B_U8,
  R_I16,
  R_I32,
  R_I8,
  R_U16,
  R_U64,
  R_U8,
} from "../float/lanes.ts";
import { type Exec, type Insn, type OpcodeRow, row } from "../insn.ts";
import { lanes128, registerToB, requireSse, resultToRegister, source128, X, X64 } from "./sse_operand.ts";

const INT8_MIN = -0x80;
const INT8_MAX = 0x7f;
const UINT8_MAX = 0xff;
const INT16_MIN = -0x8000;
const INT16_MAX = 0x7fff;
const UINT16_MAX = 0xffff;

function clamp(x: number, low: number, high: number): number {
  return x < low ? low : x > high ? high : x;
}

/** Loads the 128-bit source to `cpu.v64[0]` and `cpu.v64[1]`. */
function sourceToScratch(cpu: Cpu, i: Insn): void {
  if (i.mem) {
    cpu.load128(i, true);
    return;
  }
  const at = X64 + 2 * i.rm;
  cpu.v64[0] = cpu.s64[at];
  cpu.v64[1] = cpu.s64[at + 1];
}

/** PXOR, XORPS, XORPD. */
function pxor(cpu: Cpu, i: Insn): void {
  requireSse(cpu);
  const s64 = cpu.s64;
  const target = X64 + 2 * i.reg;
  if (!i.mem && i.rm === i.reg) {
    s64[target] = 0n;
    s64[target + 1] = 0n;
    return;
  }
  sourceToScratch(cpu, i);
  s64[target] ^= cpu.v64[0];
  s64[target + 1] ^= cpu.v64[1];
}

/** PAND, ANDPS, ANDPD. */
function pand(cpu: Cpu, i: Insn): void {
  requireSse(cpu);
  sourceToScratch(cpu, i);
  const target = X64 + 2 * i.reg;
  cpu.s64[target] &= cpu.v64[0];
  cpu.s64[target + 1] &= cpu.v64[1];
}

/** PANDN, ANDNPS, ANDNPD: the destination is the inverted operand. */
function pandn(cpu: Cpu, i: Insn): void {
  requireSse(cpu);
  sourceToScratch(cpu, i);
  const s64 = cpu.s64;
  const target = X64 + 2 * i.reg;
  // ~a & b without a negative intermediate.
  s64[target] = (s64[target] & cpu.v64[0]) ^ cpu.v64[0];
  s64[target + 1] = (s64[target + 1] & cpu.v64[1]) ^ cpu.v64[1];
}

/** POR, ORPS, ORPD. */
function por(cpu: Cpu, i: Insn): void {
  requireSse(cpu);
  sourceToScratch(cpu, i);
  const target = X64 + 2 * i.reg;
  cpu.s64[target] |= cpu.v64[0];
  cpu.s64[target + 1] |= cpu.v64[1];
}

/** PADDQ. */
function paddq(cpu: Cpu, i: Insn): void {
  requireSse(cpu);
  sourceToScratch(cpu, i);
  const target = X64 + 2 * i.reg;
  cpu.s64[target] += cpu.v64[0];
  cpu.s64[target + 1] += cpu.v64[1];
}

/** PSUBQ. */
function psubq(cpu: Cpu, i: Insn): void {
  requireSse(cpu);
  sourceToScratch(cpu, i);
  const target = X64 + 2 * i.reg;
  cpu.s64[target] -= cpu.v64[0];
  cpu.s64[target + 1] -= cpu.v64[1];
}

/** PADDD. */
function paddd(cpu: Cpu, i: Insn): void {
  requireSse(cpu);
  sourceToScratch(cpu, i);
  const s32 = cpu.s32;
  const v32 = cpu.v32;
  const target = X + 4 * i.reg;
  s32[target] += v32[0];
  s32[target + 1] += v32[1];
  s32[target + 2] += v32[2];
  s32[target + 3] += v32[3];
}

/** PSUBD. */
function psubd(cpu: Cpu, i: Insn): void {
  requireSse(cpu);
  sourceToScratch(cpu, i);
  const s32 = cpu.s32;
  const v32 = cpu.v32;
  const target = X + 4 * i.reg;
  s32[target] -= v32[0];
  s32[target + 1] -= v32[1];
  s32[target + 2] -= v32[2];
  s32[target + 3] -= v32[3];
}

/** PCMPEQD. */
function pcmpeqd(cpu: Cpu, i: Insn): void {
  requireSse(cpu);
  sourceToScratch(cpu, i);
  const s32 = cpu.s32;
  const v32 = cpu.v32;
  const target = X + 4 * i.reg;
  s32[target] = s32[target] === v32[0] ? -1 : 0;
  s32[target + 1] = s32[target + 1] === v32[1] ? -1 : 0;
  s32[target + 2] = s32[target + 2] === v32[2] ? -1 : 0;
  s32[target + 3] = s32[target + 3] === v32[3] ? -1 : 0;
}

/** PCMPGTD. */
function pcmpgtd(cpu: Cpu, i: Insn): void {
  requireSse(cpu);
  sourceToScratch(cpu, i);
  const s32 = cpu.s32;
  const v32 = cpu.v32;
  const target = X + 4 * i.reg;
  s32[target] = s32[target] > v32[0] ? -1 : 0;
  s32[target + 1] = s32[target + 1] > v32[1] ? -1 : 0;
  s32[target + 2] = s32[target + 2] > v32[2] ? -1 : 0;
  s32[target + 3] = s32[target + 3] > v32[3] ? -1 : 0;
}

const paddb = lanes128(() => {
  for (let k = 0; k < 16; k++) R_I8[k] = A_I8[k] + B_I8[k];
});
const paddw = lanes128(() => {
  for (let k = 0; k < 8; k++) R_I16[k] = A_I16[k] + B_I16[k];
});
const psubb = lanes128(() => {
  for (let k = 0; k < 16; k++) R_I8[k] = A_I8[k] - B_I8[k];
});
const psubw = lanes128(() => {
  for (let k = 0; k < 8; k++) R_I16[k] = A_I16[k] - B_I16[k];
});
const paddsb = lanes128(() => {
  for (let k = 0; k < 16; k++) R_I8[k] = clamp(A_I8[k] + B_I8[k], INT8_MIN, INT8_MAX);
});
const paddsw = lanes128(() => {
  for (let k = 0; k < 8; k++) R_I16[k] = clamp(A_I16[k] + B_I16[k], INT16_MIN, INT16_MAX);
});
const paddusb = lanes128(() => {
  for (let k = 0; k < 16; k++) R_U8[k] = Math.min(A_U8[k] + B_U8[k], UINT8_MAX);
});
const paddusw = lanes128(() => {
  for (let k = 0; k < 8; k++) R_U16[k] = Math.min(A_U16[k] + B_U16[k], UINT16_MAX);
});
const psubsb = lanes128(() => {
  for (let k = 0; k < 16; k++) R_I8[k] = clamp(A_I8[k] - B_I8[k], INT8_MIN, INT8_MAX);
});
const psubsw = lanes128(() => {
  for (let k = 0; k < 8; k++) R_I16[k] = clamp(A_I16[k] - B_I16[k], INT16_MIN, INT16_MAX);
});
const psubusb = lanes128(() => {
  for (let k = 0; k < 16; k++) R_U8[k] = Math.max(A_U8[k] - B_U8[k], 0);
});
const psubusw = lanes128(() => {
  for (let k = 0; k < 8; k++) R_U16[k] = Math.max(A_U16[k] - B_U16[k], 0);
});
const pavgb = lanes128(() => {
  for (let k = 0; k < 16; k++) R_U8[k] = (A_U8[k] + B_U8[k] + 1) >> 1;
});
const pavgw = lanes128(() => {
  for (let k = 0; k < 8; k++) R_U16[k] = (A_U16[k] + B_U16[k] + 1) >> 1;
});
const pminub = lanes128(() => {
  for (let k = 0; k < 16; k++) R_U8[k] = Math.min(A_U8[k], B_U8[k]);
});
const pmaxub = lanes128(() => {
  for (let k = 0; k < 16; k++) R_U8[k] = Math.max(A_U8[k], B_U8[k]);
});
const pminsw = lanes128(() => {
  for (let k = 0; k < 8; k++) R_I16[k] = Math.min(A_I16[k], B_I16[k]);
});
const pmaxsw = lanes128(() => {
  for (let k = 0; k < 8; k++) R_I16[k] = Math.max(A_I16[k], B_I16[k]);
});

const pcmpeqb = lanes128(() => {
  for (let k = 0; k < 16; k++) R_I8[k] = A_I8[k] === B_I8[k] ? -1 : 0;
});
const pcmpeqw = lanes128(() => {
  for (let k = 0; k < 8; k++) R_I16[k] = A_I16[k] === B_I16[k] ? -1 : 0;
});
const pcmpgtb = lanes128(() => {
  for (let k = 0; k < 16; k++) R_I8[k] = A_I8[k] > B_I8[k] ? -1 : 0;
});
const pcmpgtw = lanes128(() => {
  for (let k = 0; k < 8; k++) R_I16[k] = A_I16[k] > B_I16[k] ? -1 : 0;
});

const pmullw = lanes128(() => {
  for (let k = 0; k < 8; k++) R_I16[k] = A_I16[k] * B_I16[k];
});
const pmulhw = lanes128(() => {
  for (let k = 0; k < 8; k++) R_I16[k] = (A_I16[k] * B_I16[k]) >> 16;
});
const pmulhuw = lanes128(() => {
  for (let k = 0; k < 8; k++) R_U16[k] = (A_U16[k] * B_U16[k]) >>> 16;
});
const pmuludq = lanes128(() => {
  R_U64[0] = BigInt(A_U32[0]) * BigInt(B_U32[0]);
  R_U64[1] = BigInt(A_U32[2]) * BigInt(B_U32[2]);
});
const pmaddwd = lanes128(() => {
  for (let k = 0; k < 4; k++) {
    // Four times 2^30 wraps: -32768 * -32768 twice is 80000000 as the hardware delivers it.
    R_I32[k] = A_I16[2 * k] * B_I16[2 * k] + A_I16[2 * k + 1] * B_I16[2 * k + 1];
  }
});
const psadbw = lanes128(() => {
  for (let half = 0; half < 2; half++) {
    let sum = 0;
    for (let k = 8 * half; k < 8 * half + 8; k++) sum += Math.abs(A_U8[k] - B_U8[k]);
    R_I32[2 * half] = sum;
    R_I32[2 * half + 1] = 0;
  }
});

const packsswb = lanes128(() => {
  for (let k = 0; k < 8; k++) {
    R_I8[k] = clamp(A_I16[k], INT8_MIN, INT8_MAX);
    R_I8[k + 8] = clamp(B_I16[k], INT8_MIN, INT8_MAX);
  }
});
const packuswb = lanes128(() => {
  for (let k = 0; k < 8; k++) {
    R_U8[k] = clamp(A_I16[k], 0, UINT8_MAX);
    R_U8[k + 8] = clamp(B_I16[k], 0, UINT8_MAX);
  }
});
const packssdw = lanes128(() => {
  for (let k = 0; k < 4; k++) {
    R_I16[k] = clamp(A_I32[k], INT16_MIN, INT16_MAX);
    R_I16[k + 4] = clamp(B_I32[k], INT16_MIN, INT16_MAX);
  }
});

/**
 * A shift of the lanes of A to R by `count`, which is less than the lanes' width (for arithmetic shifts: at most the
 * width minus one).
 */
type Shift = (count: number) => void;

function shiftLeftWords(count: number): void {
  for (let k = 0; k < 8; k++) R_U16[k] = A_U16[k] << count;
}
function shiftRightWords(count: number): void {
  for (let k = 0; k < 8; k++) R_U16[k] = A_U16[k] >> count;
}
function shiftArithmeticWords(count: number): void {
  for (let k = 0; k < 8; k++) R_I16[k] = A_I16[k] >> count;
}
function shiftLeftDwords(count: number): void {
  for (let k = 0; k < 4; k++) R_I32[k] = A_I32[k] << count;
}
function shiftRightDwords(count: number): void {
  for (let k = 0; k < 4; k++) R_I32[k] = A_I32[k] >>> count;
}
function shiftArithmeticDwords(count: number): void {
  for (let k = 0; k < 4; k++) R_I32[k] = A_I32[k] >> count;
}
function shiftLeftQwords(count: number): void {
  const by = BigInt(count);
  R_U64[0] = A_U64[0] << by;
  R_U64[1] = A_U64[1] << by;
}
function shiftRightQwords(count: number): void {
  const by = BigInt(count);
  R_U64[0] = A_U64[0] >> by;
  R_U64[1] = A_U64[1] >> by;
}
function shiftLeftBytes(count: number): void {
  for (let k = 15; k >= 0; k--) R_U8[k] = k >= count ? A_U8[k - count] : 0;
}
function shiftRightBytes(count: number): void {
  for (let k = 0; k < 16; k++) R_U8[k] = k + count < 16 ? A_U8[k + count] : 0;
}

/** Copies register `r` to A, shifts, and writes the result back. A count from `width` on gives zeros, or sign bits. */
function shiftRegister(cpu: Cpu, r: number, shift: Shift, count: number, width: number, arithmetic: boolean): void {
  const s32 = cpu.s32;
  const at = X + 4 * r;
  if (count >= width && !arithmetic) {
    s32[at] = 0;
    s32[at + 1] = 0;
    s32[at + 2] = 0;
    s32[at + 3] = 0;
    return;
  }
  A_I32[0] = s32[at];
  A_I32[1] = s32[at + 1];
  A_I32[2] = s32[at + 2];
  A_I32[3] = s32[at + 3];
  shift(Math.min(count, width - 1));
  resultToRegister(cpu, r);
}

/** A shift by the lower 64 bits of the source. */
function shiftBySource(shift: Shift, width: number, arithmetic = false): Exec {
  return (cpu, i) => {
    requireSse(cpu);
    if (i.mem) source128(cpu, i);
    else registerToB(cpu, i.rm);
    const count = B_I32[1] !== 0 ? width : Math.min(B_U32[0], width);
    shiftRegister(cpu, i.reg, shift, count, width, arithmetic);
  };
}

/** A shift by the immediate byte. */
function shiftByImmediate(shift: Shift, width: number, arithmetic = false): Exec {
  return (cpu, i) => {
    requireSse(cpu);
    shiftRegister(cpu, i.rm, shift, Math.min(i.immLo & 0xff, width), width, arithmetic);
  };
}

/** A row of the 66 0F map with operands V,W. */
function op(opcode: number, name: string, exec: Exec): OpcodeRow {
  return row("0f", opcode, name, "V,W", exec, { prefix: "66" });
}

/** A row of the shift groups 12 to 14: register operand and immediate. */
function group(opcode: number, reg: number, name: string, exec: Exec): OpcodeRow {
  return row("0f", opcode, name, "U,Ib", exec, { prefix: "66", reg, mod: "reg" });
}

/** The opcode rows of this file. */
export const rows: readonly OpcodeRow[] = [
  row("0f", 0x54, "andps", "V,W", pand, { prefix: "none" }),
  op(0x54, "andpd", pand),
  row("0f", 0x55, "andnps", "V,W", pandn, { prefix: "none" }),
  op(0x55, "andnpd", pandn),
  row("0f", 0x56, "orps", "V,W", por, { prefix: "none" }),
  op(0x56, "orpd", por),
  row("0f", 0x57, "xorps", "V,W", pxor, { prefix: "none" }),
  op(0x57, "xorpd", pxor),
  op(0x63, "packsswb", packsswb),
  op(0x64, "pcmpgtb", pcmpgtb),
  op(0x65, "pcmpgtw", pcmpgtw),
  op(0x66, "pcmpgtd", pcmpgtd),
  op(0x67, "packuswb", packuswb),
  op(0x6b, "packssdw", packssdw),
  group(0x71, 2, "psrlw", shiftByImmediate(shiftRightWords, 16)),
  group(0x71, 4, "psraw", shiftByImmediate(shiftArithmeticWords, 16, true)),
  group(0x71, 6, "psllw", shiftByImmediate(shiftLeftWords, 16)),
  group(0x72, 2, "psrld", shiftByImmediate(shiftRightDwords, 32)),
  group(0x72, 4, "psrad", shiftByImmediate(shiftArithmeticDwords, 32, true)),
  group(0x72, 6, "pslld", shiftByImmediate(shiftLeftDwords, 32)),
  group(0x73, 2, "psrlq", shiftByImmediate(shiftRightQwords, 64)),
  group(0x73, 3, "psrldq", shiftByImmediate(shiftRightBytes, 16)),
  group(0x73, 6, "psllq", shiftByImmediate(shiftLeftQwords, 64)),
  group(0x73, 7, "pslldq", shiftByImmediate(shiftLeftBytes, 16)),
  op(0x74, "pcmpeqb", pcmpeqb),
  op(0x75, "pcmpeqw", pcmpeqw),
  op(0x76, "pcmpeqd", pcmpeqd),
  op(0xd1, "psrlw", shiftBySource(shiftRightWords, 16)),
  op(0xd2, "psrld", shiftBySource(shiftRightDwords, 32)),
  op(0xd3, "psrlq", shiftBySource(shiftRightQwords, 64)),
  op(0xd4, "paddq", paddq),
  op(0xd5, "pmullw", pmullw),
  op(0xd8, "psubusb", psubusb),
  op(0xd9, "psubusw", psubusw),
  op(0xda, "pminub", pminub),
  op(0xdb, "pand", pand),
  op(0xdc, "paddusb", paddusb),
  op(0xdd, "paddusw", paddusw),
  op(0xde, "pmaxub", pmaxub),
  op(0xdf, "pandn", pandn),
  op(0xe0, "pavgb", pavgb),
  op(0xe1, "psraw", shiftBySource(shiftArithmeticWords, 16, true)),
  op(0xe2, "psrad", shiftBySource(shiftArithmeticDwords, 32, true)),
  op(0xe3, "pavgw", pavgw),
  op(0xe4, "pmulhuw", pmulhuw),
  op(0xe5, "pmulhw", pmulhw),
  op(0xe8, "psubsb", psubsb),
  op(0xe9, "psubsw", psubsw),
  op(0xea, "pminsw", pminsw),
  op(0xeb, "por", por),
  op(0xec, "paddsb", paddsb),
  op(0xed, "paddsw", paddsw),
  op(0xee, "pmaxsw", pmaxsw),
  op(0xef, "pxor", pxor),
  op(0xf1, "psllw", shiftBySource(shiftLeftWords, 16)),
  op(0xf2, "pslld", shiftBySource(shiftLeftDwords, 32)),
  op(0xf3, "psllq", shiftBySource(shiftLeftQwords, 64)),
  op(0xf4, "pmuludq", pmuludq),
  op(0xf5, "pmaddwd", pmaddwd),
  op(0xf6, "psadbw", psadbw),
  op(0xf8, "psubb", psubb),
  op(0xf9, "psubw", psubw),
  op(0xfa, "psubd", psubd),
  op(0xfb, "psubq", psubq),
  op(0xfc, "paddb", paddb),
  op(0xfd, "paddw", paddw),
  op(0xfe, "paddd", paddd),
];
