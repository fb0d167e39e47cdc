/**
 * SSE3, SSSE3 and SSE4.1 on XMM registers, with PCLMULQDQ (AMD APM volume 4, Intel SDM volume 2). SSE4.2's string and
 * CRC instructions are in `sse_string.ts`.
 *
 * @module
 */

import type { Cpu } from "../cpu.ts";
import { add32, mul32, round32, sub32 } from "../float/binary32.ts";
import { add64, mul64, round64, sub64 } from "../float/binary64.ts";
import {
  A_I16,
  A_I32,
  A_I64,
  A_I8,
  A_U16,
  A_U32,
  A_U64,
  A_U8,
  B_I16,
  B_I32,
  B_I64,
  B_I8,
  B_U16,
  B_U32,
  B_U64,
  B_U8,
  R_I16,
  R_I32,
  R_I64,
  R_I8,
  R_U16,
  R_U64,
  R_U8,
  sse,
} from "../float/lanes.ts";
import { type Exec, type Insn, type OpcodeRow, row } from "../insn.ts";
import { FLAG_CF, FLAG_ZF } from "../state.ts";
import { loadAligned, loadUnaligned } from "./sse_move.ts";
import {
  beginFloat,
  endFloat,
  lanes128,
  lanes128Immediate,
  putGpr32,
  registerToA,
  requireSse,
  resultToRegister,
  source128,
  source32,
  source64,
  X,
} from "./sse_operand.ts";

/** REX.W among the bits of `Insn.rex`. */
const REX_W = 8;
const INT16_MIN = -0x8000;
const INT16_MAX = 0x7fff;
const UINT16_MAX = 0xffff;

function saturate16(x: number): number {
  return x < INT16_MIN ? INT16_MIN : x > INT16_MAX ? INT16_MAX : x;
}

// ---- SSE3 ----

/** MOVDDUP. */
function movddup(cpu: Cpu, i: Insn): void {
  requireSse(cpu);
  source64(cpu, i);
  const s32 = cpu.s32;
  const target = X + 4 * i.reg;
  s32[target] = s32[target + 2] = B_I32[0];
  s32[target + 1] = s32[target + 3] = B_I32[1];
}

const movsldup = lanes128(() => {
  R_I32[0] = R_I32[1] = B_I32[0];
  R_I32[2] = R_I32[3] = B_I32[2];
});
const movshdup = lanes128(() => {
  R_I32[0] = R_I32[1] = B_I32[1];
  R_I32[2] = R_I32[3] = B_I32[3];
});

/**
 * Brings A and B to the working registers and, after `compute`, R to the destination, with floating-point exceptions.
 */
function float128(compute: () => void): Exec {
  return (cpu, i) => {
    requireSse(cpu);
    source128(cpu, i);
    registerToA(cpu, i.reg);
    beginFloat(cpu);
    compute();
    endFloat(cpu);
    resultToRegister(cpu, i.reg);
  };
}

/** Rearranges the lanes of A and B so that horizontal neighbours face each other. */
function pairNeighbours32(): void {
  const a1 = A_I32[1];
  const a3 = A_I32[3];
  A_I32[1] = A_I32[2];
  A_I32[2] = B_I32[0];
  A_I32[3] = B_I32[2];
  const b1 = B_I32[1];
  B_I32[0] = a1;
  B_I32[1] = a3;
  B_I32[2] = b1;
}

function pairNeighbours64(): void {
  const low = A_I32[2];
  const high = A_I32[3];
  A_I32[2] = B_I32[0];
  A_I32[3] = B_I32[1];
  B_I32[0] = low;
  B_I32[1] = high;
}

const haddps = float128(() => {
  pairNeighbours32();
  for (let k = 0; k < 4; k++) add32(k);
});
const haddpd = float128(() => {
  pairNeighbours64();
  for (let k = 0; k < 2; k++) add64(k);
});
const hsubps = float128(() => {
  pairNeighbours32();
  for (let k = 0; k < 4; k++) sub32(k);
});
const hsubpd = float128(() => {
  pairNeighbours64();
  for (let k = 0; k < 2; k++) sub64(k);
});
const addsubps = float128(() => {
  sub32(0);
  add32(1);
  sub32(2);
  add32(3);
});
const addsubpd = float128(() => {
  sub64(0);
  add64(1);
});

// ---- SSSE3 ----

const pshufb = lanes128(() => {
  for (let k = 0; k < 16; k++) R_U8[k] = B_I8[k] < 0 ? 0 : A_U8[B_U8[k] & 15];
});
const phaddw = lanes128(() => {
  for (let k = 0; k < 4; k++) {
    R_I16[k] = A_I16[2 * k] + A_I16[2 * k + 1];
    R_I16[k + 4] = B_I16[2 * k] + B_I16[2 * k + 1];
  }
});
const phaddd = lanes128(() => {
  for (let k = 0; k < 2; k++) {
    R_I32[k] = A_I32[2 * k] + A_I32[2 * k + 1];
    R_I32[k + 2] = B_I32[2 * k] + B_I32[2 * k + 1];
  }
});
const phaddsw = lanes128(() => {
  for (let k = 0; k < 4; k++) {
    R_I16[k] = saturate16(A_I16[2 * k] + A_I16[2 * k + 1]);
    R_I16[k + 4] = saturate16(B_I16[2 * k] + B_I16[2 * k + 1]);
  }
});
const phsubw = lanes128(() => {
  for (let k = 0; k < 4; k++) {
    R_I16[k] = A_I16[2 * k] - A_I16[2 * k + 1];
    R_I16[k + 4] = B_I16[2 * k] - B_I16[2 * k + 1];
  }
});
const phsubd = lanes128(() => {
  for (let k = 0; k < 2; k++) {
    R_I32[k] = A_I32[2 * k] - A_I32[2 * k + 1];
    R_I32[k + 2] = B_I32[2 * k] - B_I32[2 * k + 1];
  }
});
const phsubsw = lanes128(() => {
  for (let k = 0; k < 4; k++) {
    R_I16[k] = saturate16(A_I16[2 * k] - A_I16[2 * k + 1]);
    R_I16[k + 4] = saturate16(B_I16[2 * k] - B_I16[2 * k + 1]);
  }
});
const pmaddubsw = lanes128(() => {
  for (let k = 0; k < 8; k++) R_I16[k] = saturate16(A_U8[2 * k] * B_I8[2 * k] + A_U8[2 * k + 1] * B_I8[2 * k + 1]);
});
const psignb = lanes128(() => {
  for (let k = 0; k < 16; k++) R_I8[k] = B_I8[k] < 0 ? -A_I8[k] : B_I8[k] === 0 ? 0 : A_I8[k];
});
const psignw = lanes128(() => {
  for (let k = 0; k < 8; k++) R_I16[k] = B_I16[k] < 0 ? -A_I16[k] : B_I16[k] === 0 ? 0 : A_I16[k];
});
const psignd = lanes128(() => {
  for (let k = 0; k < 4; k++) R_I32[k] = B_I32[k] < 0 ? -A_I32[k] : B_I32[k] === 0 ? 0 : A_I32[k];
});
const pmulhrsw = lanes128(() => {
  for (let k = 0; k < 8; k++) R_I16[k] = (((A_I16[k] * B_I16[k]) >> 14) + 1) >> 1;
});
const pabsb = lanes128(() => {
  for (let k = 0; k < 16; k++) R_I8[k] = Math.abs(B_I8[k]);
});
const pabsw = lanes128(() => {
  for (let k = 0; k < 8; k++) R_I16[k] = Math.abs(B_I16[k]);
});
const pabsd = lanes128(() => {
  for (let k = 0; k < 4; k++) R_I32[k] = Math.abs(B_I32[k]);
});
const palignr = lanes128Immediate((immediate) => {
  for (let k = 0; k < 16; k++) {
    const from = k + immediate;
    R_U8[k] = from < 16 ? B_U8[from] : from < 32 ? A_U8[from - 16] : 0;
  }
});

// ---- SSE4.1: blends, moves, inserts and extracts ----

/** The mask of the variable blends is XMM0. */
function variableBlend(select: (mask: Int32Array) => void): Exec {
  const mask = new Int32Array(4);
  return (cpu, i) => {
    requireSse(cpu);
    source128(cpu, i);
    registerToA(cpu, i.reg);
    for (let k = 0; k < 4; k++) mask[k] = cpu.s32[X + k];
    select(mask);
    resultToRegister(cpu, i.reg);
  };
}

const pblendvb = variableBlend((mask) => {
  for (let k = 0; k < 16; k++) R_U8[k] = ((mask[k >> 2] >> (8 * (k & 3) + 7)) & 1) !== 0 ? B_U8[k] : A_U8[k];
});
const blendvps = variableBlend((mask) => {
  for (let k = 0; k < 4; k++) R_I32[k] = mask[k] < 0 ? B_I32[k] : A_I32[k];
});
const blendvpd = variableBlend((mask) => {
  for (let k = 0; k < 4; k++) R_I32[k] = mask[k | 1] < 0 ? B_I32[k] : A_I32[k];
});
const blendps = lanes128Immediate((immediate) => {
  for (let k = 0; k < 4; k++) R_I32[k] = ((immediate >> k) & 1) !== 0 ? B_I32[k] : A_I32[k];
});
const blendpd = lanes128Immediate((immediate) => {
  for (let k = 0; k < 4; k++) R_I32[k] = ((immediate >> (k >> 1)) & 1) !== 0 ? B_I32[k] : A_I32[k];
});
const pblendw = lanes128Immediate((immediate) => {
  for (let k = 0; k < 8; k++) R_I16[k] = ((immediate >> k) & 1) !== 0 ? B_I16[k] : A_I16[k];
});

/** PTEST. */
function ptest(cpu: Cpu, i: Insn): void {
  requireSse(cpu);
  source128(cpu, i);
  registerToA(cpu, i.reg);
  let common = 0;
  let extra = 0;
  for (let k = 0; k < 4; k++) {
    common |= A_I32[k] & B_I32[k];
    extra |= ~A_I32[k] & B_I32[k];
  }
  cpu.setArith((common === 0 ? FLAG_ZF : 0) | (extra === 0 ? FLAG_CF : 0));
}

/** PMOVSX and PMOVZX: `size` source bytes widened by `extend`. */
function widen(size: number, extend: () => void): Exec {
  return (cpu, i) => {
    requireSse(cpu);
    if (size === 8) source64(cpu, i);
    else if (size === 4) source32(cpu, i);
    else if (i.mem) B_U16[0] = cpu.load16(i);
    else B_I32[0] = cpu.s32[X + 4 * i.rm];
    extend();
    resultToRegister(cpu, i.reg);
  };
}

const pmovsxbw = widen(8, () => {
  for (let k = 0; k < 8; k++) R_I16[k] = B_I8[k];
});
const pmovsxbd = widen(4, () => {
  for (let k = 0; k < 4; k++) R_I32[k] = B_I8[k];
});
const pmovsxbq = widen(2, () => {
  for (let k = 0; k < 2; k++) R_I64[k] = BigInt(B_I8[k]);
});
const pmovsxwd = widen(8, () => {
  for (let k = 0; k < 4; k++) R_I32[k] = B_I16[k];
});
const pmovsxwq = widen(4, () => {
  for (let k = 0; k < 2; k++) R_I64[k] = BigInt(B_I16[k]);
});
const pmovsxdq = widen(8, () => {
  for (let k = 0; k < 2; k++) R_I64[k] = BigInt(B_I32[k]);
});
const pmovzxbw = widen(8, () => {
  for (let k = 0; k < 8; k++) R_I16[k] = B_U8[k];
});
const pmovzxbd = widen(4, () => {
  for (let k = 0; k < 4; k++) R_I32[k] = B_U8[k];
});
const pmovzxbq = widen(2, () => {
  for (let k = 0; k < 2; k++) R_U64[k] = BigInt(B_U8[k]);
});
const pmovzxwd = widen(8, () => {
  for (let k = 0; k < 4; k++) R_I32[k] = B_U16[k];
});
const pmovzxwq = widen(4, () => {
  for (let k = 0; k < 2; k++) R_U64[k] = BigInt(B_U16[k]);
});
const pmovzxdq = widen(8, () => {
  for (let k = 0; k < 2; k++) R_U64[k] = BigInt(B_U32[k]);
});

/** INSERTPS. */
function insertps(cpu: Cpu, i: Insn): void {
  requireSse(cpu);
  const immediate = i.immLo;
  const value = i.mem ? cpu.load32(i) : cpu.s32[X + 4 * i.rm + ((immediate >> 6) & 3)];
  const target = X + 4 * i.reg;
  cpu.s32[target + ((immediate >> 4) & 3)] = value;
  for (let k = 0; k < 4; k++) if (((immediate >> k) & 1) !== 0) cpu.s32[target + k] = 0;
}

/** PINSRB. */
function pinsrb(cpu: Cpu, i: Insn): void {
  requireSse(cpu);
  const value = i.mem ? cpu.load8(i) : cpu.g32[2 * i.rm];
  cpu.s8[4 * (X + 4 * i.reg) + (i.immLo & 15)] = value;
}

/** PINSRD, PINSRQ. */
function pinsrd(cpu: Cpu, i: Insn): void {
  requireSse(cpu);
  const target = X + 4 * i.reg;
  if ((i.rex & REX_W) === 0) {
    cpu.s32[target + (i.immLo & 3)] = i.mem ? cpu.load32(i) : cpu.g32[2 * i.rm];
    return;
  }
  const word = target + 2 * (i.immLo & 1);
  if (i.mem) {
    cpu.load64(i);
    cpu.s32[word] = cpu.v32[0];
    cpu.s32[word + 1] = cpu.v32[1];
  } else {
    cpu.s32[word] = cpu.g32[2 * i.rm];
    cpu.s32[word + 1] = cpu.g32[2 * i.rm + 1];
  }
}

/** PEXTRB. */
function pextrb(cpu: Cpu, i: Insn): void {
  requireSse(cpu);
  const value = cpu.s8[4 * (X + 4 * i.reg) + (i.immLo & 15)];
  if (i.mem) cpu.store8(i, value);
  else putGpr32(cpu, i.rm, value);
}

/** PEXTRW to memory or a register. */
function pextrw(cpu: Cpu, i: Insn): void {
  requireSse(cpu);
  const value = cpu.s16[2 * (X + 4 * i.reg) + (i.immLo & 7)];
  if (i.mem) cpu.store16(i, value);
  else putGpr32(cpu, i.rm, value);
}

/** EXTRACTPS; PEXTRD. */
function extractps(cpu: Cpu, i: Insn): void {
  requireSse(cpu);
  const value = cpu.s32[X + 4 * i.reg + (i.immLo & 3)];
  if (i.mem) cpu.store32(i, value);
  else putGpr32(cpu, i.rm, value);
}

/** PEXTRD, PEXTRQ. */
function pextrd(cpu: Cpu, i: Insn): void {
  if ((i.rex & REX_W) === 0) {
    extractps(cpu, i);
    return;
  }
  requireSse(cpu);
  const source = X + 4 * i.reg + 2 * (i.immLo & 1);
  const low = cpu.s32[source];
  const high = cpu.s32[source + 1];
  if (i.mem) {
    cpu.v32[0] = low;
    cpu.v32[1] = high;
    cpu.store64(i);
  } else {
    cpu.g32[2 * i.rm] = low;
    cpu.g32[2 * i.rm + 1] = high;
  }
}

// ---- SSE4.1: integers ----

const pmuldq = lanes128(() => {
  R_I64[0] = BigInt(A_I32[0]) * BigInt(B_I32[0]);
  R_I64[1] = BigInt(A_I32[2]) * BigInt(B_I32[2]);
});
const pcmpeqq = lanes128(() => {
  for (let k = 0; k < 4; k += 2) {
    R_I32[k] = R_I32[k + 1] = A_I32[k] === B_I32[k] && A_I32[k + 1] === B_I32[k + 1] ? -1 : 0;
  }
});
const pcmpgtq = lanes128(() => {
  for (let k = 0; k < 2; k++) R_I32[2 * k] = R_I32[2 * k + 1] = A_I64[k] > B_I64[k] ? -1 : 0;
});
const packusdw = lanes128(() => {
  for (let k = 0; k < 4; k++) {
    R_U16[k] = Math.max(0, Math.min(A_I32[k], UINT16_MAX));
    R_U16[k + 4] = Math.max(0, Math.min(B_I32[k], UINT16_MAX));
  }
});
const pminsb = lanes128(() => {
  for (let k = 0; k < 16; k++) R_I8[k] = Math.min(A_I8[k], B_I8[k]);
});
const pmaxsb = lanes128(() => {
  for (let k = 0; k < 16; k++) R_I8[k] = Math.max(A_I8[k], B_I8[k]);
});
const pminuw = lanes128(() => {
  for (let k = 0; k < 8; k++) R_U16[k] = Math.min(A_U16[k], B_U16[k]);
});
const pmaxuw = lanes128(() => {
  for (let k = 0; k < 8; k++) R_U16[k] = Math.max(A_U16[k], B_U16[k]);
});
const pminsd = lanes128(() => {
  for (let k = 0; k < 4; k++) R_I32[k] = Math.min(A_I32[k], B_I32[k]);
});
const pmaxsd = lanes128(() => {
  for (let k = 0; k < 4; k++) R_I32[k] = Math.max(A_I32[k], B_I32[k]);
});
const pminud = lanes128(() => {
  for (let k = 0; k < 4; k++) R_I32[k] = Math.min(A_U32[k], B_U32[k]);
});
const pmaxud = lanes128(() => {
  for (let k = 0; k < 4; k++) R_I32[k] = Math.max(A_U32[k], B_U32[k]);
});
const pmulld = lanes128(() => {
  for (let k = 0; k < 4; k++) R_I32[k] = Math.imul(A_I32[k], B_I32[k]);
});
const phminposuw = lanes128(() => {
  let index = 0;
  for (let k = 1; k < 8; k++) if (B_U16[k] < B_U16[index]) index = k;
  R_I32[0] = B_U16[index] | (index << 16);
  R_I32[1] = R_I32[2] = R_I32[3] = 0;
});
const mpsadbw = lanes128Immediate((immediate) => {
  const first = immediate & 4;
  const block = 4 * (immediate & 3);
  for (let k = 0; k < 8; k++) {
    let sum = 0;
    for (let n = 0; n < 4; n++) sum += Math.abs(A_U8[first + k + n] - B_U8[block + n]);
    R_U16[k] = sum;
  }
});

/** PCLMULQDQ: the product of two polynomials over GF(2). */
const pclmulqdq = lanes128Immediate((immediate) => {
  const a = A_U64[immediate & 1];
  let b = B_U64[(immediate >> 4) & 1];
  let product = 0n;
  for (let shift = 0n; b !== 0n; shift++, b >>= 1n) if ((b & 1n) !== 0n) product ^= a << shift;
  R_U64[0] = product;
  R_U64[1] = product >> 64n;
});

// ---- SSE4.1: floating point ----

/** Bit 2 of the rounding immediate: take the rounding of MXCSR. */
const ROUND_FROM_MXCSR = 4;
/** Bit 3: do not report the inexact exception. */
const ROUND_QUIETLY = 8;

/** ROUNDPS, ROUNDPD, ROUNDSS, ROUNDSD: `lanes` lanes of `words` 32-bit words. */
function round(
  lanes: number,
  words: number,
  operation: (lane: number, rounding: number, quiet: boolean) => void,
): Exec {
  const scalar = lanes === 1;
  return (cpu, i) => {
    requireSse(cpu);
    if (!scalar) source128(cpu, i);
    else if (words === 1) source32(cpu, i);
    else source64(cpu, i);
    beginFloat(cpu);
    const rounding = (i.immLo & ROUND_FROM_MXCSR) !== 0 ? sse.rounding : i.immLo & 3;
    for (let k = 0; k < lanes; k++) operation(k, rounding, (i.immLo & ROUND_QUIETLY) !== 0);
    endFloat(cpu);
    const target = X + 4 * i.reg;
    for (let k = 0; k < lanes * words; k++) cpu.s32[target + k] = R_I32[k];
  };
}

/** Reports the exceptions of one stage of a dot product and starts the next with its results as A. */
function nextStage(cpu: Cpu): void {
  endFloat(cpu);
  sse.flags = 0;
  for (let k = 0; k < 4; k++) A_I32[k] = R_I32[k];
}

/** DPPS: the products, then the sums of neighbours, then the sum of those; each stage reports its exceptions. */
function dpps(cpu: Cpu, i: Insn): void {
  requireSse(cpu);
  source128(cpu, i);
  registerToA(cpu, i.reg);
  beginFloat(cpu);
  for (let k = 0; k < 4; k++) {
    if (((i.immLo >> (4 + k)) & 1) !== 0) mul32(k);
    else R_I32[k] = 0;
  }
  nextStage(cpu);
  B_I32[0] = A_I32[1];
  B_I32[2] = A_I32[3];
  add32(0);
  add32(2);
  nextStage(cpu);
  B_I32[0] = A_I32[2];
  add32(0);
  endFloat(cpu);
  for (let k = 0; k < 4; k++) cpu.s32[X + 4 * i.reg + k] = ((i.immLo >> k) & 1) !== 0 ? R_I32[0] : 0;
}

/** DPPD. */
function dppd(cpu: Cpu, i: Insn): void {
  requireSse(cpu);
  source128(cpu, i);
  registerToA(cpu, i.reg);
  beginFloat(cpu);
  for (let k = 0; k < 2; k++) {
    if (((i.immLo >> (4 + k)) & 1) !== 0) mul64(k);
    else R_U64[k] = 0n;
  }
  nextStage(cpu);
  B_I32[0] = A_I32[2];
  B_I32[1] = A_I32[3];
  add64(0);
  endFloat(cpu);
  for (let k = 0; k < 4; k++) cpu.s32[X + 4 * i.reg + k] = ((i.immLo >> (k >> 1)) & 1) !== 0 ? R_I32[k & 1] : 0;
}

/** A row of the 66 0F 38 map with operands V,W. */
function op38(opcode: number, name: string, exec: Exec): OpcodeRow {
  return row("0f38", opcode, name, "V,W", exec, { prefix: "66" });
}

/** A row of the 66 0F 3A map with an immediate byte. */
function op3a(opcode: number, name: string, operands: string, exec: Exec): OpcodeRow {
  return row("0f3a", opcode, name, `${operands},Ib`, exec, { prefix: "66" });
}

/** The opcode rows of this file. */
export const rows: readonly OpcodeRow[] = [
  row("0f", 0x12, "movddup", "V,W", movddup, { prefix: "f2" }),
  row("0f", 0x12, "movsldup", "V,W", movsldup, { prefix: "f3" }),
  row("0f", 0x16, "movshdup", "V,W", movshdup, { prefix: "f3" }),
  row("0f", 0x7c, "haddpd", "V,W", haddpd, { prefix: "66" }),
  row("0f", 0x7c, "haddps", "V,W", haddps, { prefix: "f2" }),
  row("0f", 0x7d, "hsubpd", "V,W", hsubpd, { prefix: "66" }),
  row("0f", 0x7d, "hsubps", "V,W", hsubps, { prefix: "f2" }),
  row("0f", 0xd0, "addsubpd", "V,W", addsubpd, { prefix: "66" }),
  row("0f", 0xd0, "addsubps", "V,W", addsubps, { prefix: "f2" }),
  row("0f", 0xf0, "lddqu", "V,M", loadUnaligned, { prefix: "f2" }),
  op38(0x00, "pshufb", pshufb),
  op38(0x01, "phaddw", phaddw),
  op38(0x02, "phaddd", phaddd),
  op38(0x03, "phaddsw", phaddsw),
  op38(0x04, "pmaddubsw", pmaddubsw),
  op38(0x05, "phsubw", phsubw),
  op38(0x06, "phsubd", phsubd),
  op38(0x07, "phsubsw", phsubsw),
  op38(0x08, "psignb", psignb),
  op38(0x09, "psignw", psignw),
  op38(0x0a, "psignd", psignd),
  op38(0x0b, "pmulhrsw", pmulhrsw),
  op38(0x10, "pblendvb", pblendvb),
  op38(0x14, "blendvps", blendvps),
  op38(0x15, "blendvpd", blendvpd),
  op38(0x17, "ptest", ptest),
  op38(0x1c, "pabsb", pabsb),
  op38(0x1d, "pabsw", pabsw),
  op38(0x1e, "pabsd", pabsd),
  op38(0x20, "pmovsxbw", pmovsxbw),
  op38(0x21, "pmovsxbd", pmovsxbd),
  op38(0x22, "pmovsxbq", pmovsxbq),
  op38(0x23, "pmovsxwd", pmovsxwd),
  op38(0x24, "pmovsxwq", pmovsxwq),
  op38(0x25, "pmovsxdq", pmovsxdq),
  op38(0x28, "pmuldq", pmuldq),
  op38(0x29, "pcmpeqq", pcmpeqq),
  row("0f38", 0x2a, "movntdqa", "V,M", loadAligned, { prefix: "66" }),
  op38(0x2b, "packusdw", packusdw),
  op38(0x30, "pmovzxbw", pmovzxbw),
  op38(0x31, "pmovzxbd", pmovzxbd),
  op38(0x32, "pmovzxbq", pmovzxbq),
  op38(0x33, "pmovzxwd", pmovzxwd),
  op38(0x34, "pmovzxwq", pmovzxwq),
  op38(0x35, "pmovzxdq", pmovzxdq),
  op38(0x37, "pcmpgtq", pcmpgtq),
  op38(0x38, "pminsb", pminsb),
  op38(0x39, "pminsd", pminsd),
  op38(0x3a, "pminuw", pminuw),
  op38(0x3b, "pminud", pminud),
  op38(0x3c, "pmaxsb", pmaxsb),
  op38(0x3d, "pmaxsd", pmaxsd),
  op38(0x3e, "pmaxuw", pmaxuw),
  op38(0x3f, "pmaxud", pmaxud),
  op38(0x40, "pmulld", pmulld),
  op38(0x41, "phminposuw", phminposuw),
  op3a(0x08, "roundps", "V,W", round(4, 1, round32)),
  op3a(0x09, "roundpd", "V,W", round(2, 2, round64)),
  op3a(0x0a, "roundss", "V,W", round(1, 1, round32)),
  op3a(0x0b, "roundsd", "V,W", round(1, 2, round64)),
  op3a(0x0c, "blendps", "V,W", blendps),
  op3a(0x0d, "blendpd", "V,W", blendpd),
  op3a(0x0e, "pblendw", "V,W", pblendw),
  op3a(0x0f, "palignr", "V,W", palignr),
  op3a(0x14, "pextrb", "E,V", pextrb),
  op3a(0x15, "pextrw", "E,V", pextrw),
  op3a(0x16, "pextrd", "E,V", pextrd),
  op3a(0x17, "extractps", "E,V", extractps),
  op3a(0x20, "pinsrb", "V,E", pinsrb),
  op3a(0x21, "insertps", "V,W", insertps),
  op3a(0x22, "pinsrd", "V,E", pinsrd),
  op3a(0x40, "dpps", "V,W", dpps),
  op3a(0x41, "dppd", "V,W", dppd),
  op3a(0x42, "mpsadbw", "V,W", mpsadbw),
  op3a(0x44, "pclmulqdq", "V,W", pclmulqdq),
];
