/**
 * SSE and SSE2 moves, shuffles and unpacks (AMD APM volume 4).
 *
 * @module
 */

import type { Cpu } from "../cpu.ts";
import { A_I16, A_I32, A_I8, B_I16, B_I32, B_I8, R_I16, R_I32, R_I8 } from "../float/lanes.ts";
import { type Insn, type OpcodeRow, row } from "../insn.ts";
import { RDI } from "../state.ts";
import { lanes128, lanes128Immediate, putGpr32, registerToA, registerToB, requireSse, X, X64 } from "./sse_operand.ts";

/** REX.W among the bits of `Insn.rex`. */
const REX_W = 8;

/** Copies one register to another. */
function copyRegister(cpu: Cpu, from: number, to: number): void {
  const s64 = cpu.s64;
  const source = X64 + 2 * from;
  const target = X64 + 2 * to;
  s64[target] = s64[source];
  s64[target + 1] = s64[source + 1];
}

function load(cpu: Cpu, i: Insn, aligned: boolean): void {
  requireSse(cpu);
  if (!i.mem) {
    copyRegister(cpu, i.rm, i.reg);
    return;
  }
  cpu.load128(i, aligned);
  const s64 = cpu.s64;
  const v64 = cpu.v64;
  const target = X64 + 2 * i.reg;
  s64[target] = v64[0];
  s64[target + 1] = v64[1];
}

function store(cpu: Cpu, i: Insn, aligned: boolean): void {
  requireSse(cpu);
  if (!i.mem) {
    copyRegister(cpu, i.reg, i.rm);
    return;
  }
  const s64 = cpu.s64;
  const v64 = cpu.v64;
  const source = X64 + 2 * i.reg;
  v64[0] = s64[source];
  v64[1] = s64[source + 1];
  cpu.store128(i, aligned);
}

/** MOVAPS, MOVAPD, MOVDQA load; MOVNTDQA. */
export function loadAligned(cpu: Cpu, i: Insn): void {
  load(cpu, i, true);
}

/** MOVUPS, MOVUPD, MOVDQU load; LDDQU. */
export function loadUnaligned(cpu: Cpu, i: Insn): void {
  load(cpu, i, false);
}

/** MOVAPS, MOVAPD, MOVDQA, MOVNTPS, MOVNTPD, MOVNTDQ store. */
function storeAligned(cpu: Cpu, i: Insn): void {
  store(cpu, i, true);
}

/** MOVUPS, MOVUPD, MOVDQU store. */
function storeUnaligned(cpu: Cpu, i: Insn): void {
  store(cpu, i, false);
}

/** MOVSS load: a register keeps the destination's upper bits, memory clears them. */
function movssLoad(cpu: Cpu, i: Insn): void {
  requireSse(cpu);
  const s32 = cpu.s32;
  const target = X + 4 * i.reg;
  if (!i.mem) {
    s32[target] = s32[X + 4 * i.rm];
    return;
  }
  s32[target] = cpu.load32(i);
  s32[target + 1] = 0;
  s32[target + 2] = 0;
  s32[target + 3] = 0;
}

/** MOVSS store. */
function movssStore(cpu: Cpu, i: Insn): void {
  requireSse(cpu);
  const value = cpu.s32[X + 4 * i.reg];
  if (i.mem) cpu.store32(i, value);
  else cpu.s32[X + 4 * i.rm] = value;
}

/** MOVSD load: a register keeps the destination's upper half, memory clears it. */
function movsdLoad(cpu: Cpu, i: Insn): void {
  requireSse(cpu);
  const s64 = cpu.s64;
  const target = X64 + 2 * i.reg;
  if (!i.mem) {
    s64[target] = s64[X64 + 2 * i.rm];
    return;
  }
  cpu.load64(i);
  s64[target] = cpu.v64[0];
  s64[target + 1] = 0n;
}

/** MOVSD store. */
function movsdStore(cpu: Cpu, i: Insn): void {
  requireSse(cpu);
  const value = cpu.s64[X64 + 2 * i.reg];
  if (!i.mem) {
    cpu.s64[X64 + 2 * i.rm] = value;
    return;
  }
  cpu.v64[0] = value;
  cpu.store64(i);
}

/** Loads 64 bits of memory to one half of the destination, or copies `fromHalf` of the source register there. */
function moveHalf(cpu: Cpu, i: Insn, toHalf: number, fromHalf: number): void {
  requireSse(cpu);
  const s64 = cpu.s64;
  const target = X64 + 2 * i.reg + toHalf;
  if (i.mem) {
    cpu.load64(i);
    s64[target] = cpu.v64[0];
  } else {
    s64[target] = s64[X64 + 2 * i.rm + fromHalf];
  }
}

/** MOVLPS and MOVLPD load, MOVHLPS. */
function movlpsLoad(cpu: Cpu, i: Insn): void {
  moveHalf(cpu, i, 0, 1);
}

/** MOVHPS and MOVHPD load, MOVLHPS. */
function movhpsLoad(cpu: Cpu, i: Insn): void {
  moveHalf(cpu, i, 1, 0);
}

/** MOVLPS and MOVLPD store. */
function movlpsStore(cpu: Cpu, i: Insn): void {
  requireSse(cpu);
  cpu.v64[0] = cpu.s64[X64 + 2 * i.reg];
  cpu.store64(i);
}

/** MOVHPS and MOVHPD store. */
function movhpsStore(cpu: Cpu, i: Insn): void {
  requireSse(cpu);
  cpu.v64[0] = cpu.s64[X64 + 2 * i.reg + 1];
  cpu.store64(i);
}

/** MOVD and MOVQ from a general-purpose register or memory. */
function movdLoad(cpu: Cpu, i: Insn): void {
  requireSse(cpu);
  const s64 = cpu.s64;
  const target = X64 + 2 * i.reg;
  if ((i.rex & REX_W) !== 0) {
    if (i.mem) {
      cpu.load64(i);
      s64[target] = cpu.v64[0];
    } else {
      s64[target] = cpu.g64[i.rm];
    }
  } else {
    const value = i.mem ? cpu.load32(i) : cpu.g32[2 * i.rm];
    cpu.s32[2 * target] = value;
    cpu.s32[2 * target + 1] = 0;
  }
  s64[target + 1] = 0n;
}

/** MOVD and MOVQ to a general-purpose register or memory. */
function movdStore(cpu: Cpu, i: Insn): void {
  requireSse(cpu);
  const source = X64 + 2 * i.reg;
  if ((i.rex & REX_W) !== 0) {
    if (i.mem) {
      cpu.v64[0] = cpu.s64[source];
      cpu.store64(i);
    } else {
      cpu.g64[i.rm] = cpu.s64[source];
    }
  } else if (i.mem) {
    cpu.store32(i, cpu.s32[2 * source]);
  } else {
    putGpr32(cpu, i.rm, cpu.s32[2 * source]);
  }
}

/** MOVQ load: the upper half becomes zero from a register too. */
function movqLoad(cpu: Cpu, i: Insn): void {
  moveHalf(cpu, i, 0, 0);
  cpu.s64[X64 + 2 * i.reg + 1] = 0n;
}

/** MOVQ store: to a register it clears the upper half. */
function movqStore(cpu: Cpu, i: Insn): void {
  movsdStore(cpu, i);
  if (!i.mem) cpu.s64[X64 + 2 * i.rm + 1] = 0n;
}

/** MOVNTI: a store of a general-purpose register that does not depend on SSE being enabled. */
function movnti(cpu: Cpu, i: Insn): void {
  if ((i.rex & REX_W) !== 0) {
    cpu.v64[0] = cpu.g64[i.reg];
    cpu.store64(i);
  } else {
    cpu.store32(i, cpu.g32[2 * i.reg]);
  }
}

/** MOVMSKPS. */
function movmskps(cpu: Cpu, i: Insn): void {
  requireSse(cpu);
  const s32 = cpu.s32;
  const source = X + 4 * i.rm;
  const mask = (s32[source] >>> 31) | ((s32[source + 1] >>> 31) << 1) | ((s32[source + 2] >>> 31) << 2) |
    ((s32[source + 3] >>> 31) << 3);
  putGpr32(cpu, i.reg, mask);
}

/** MOVMSKPD. */
function movmskpd(cpu: Cpu, i: Insn): void {
  requireSse(cpu);
  const source = X + 4 * i.rm;
  putGpr32(cpu, i.reg, (cpu.s32[source + 1] >>> 31) | ((cpu.s32[source + 3] >>> 31) << 1));
}

/** PMOVMSKB. */
function pmovmskb(cpu: Cpu, i: Insn): void {
  requireSse(cpu);
  const source = X + 4 * i.rm;
  let mask = 0;
  for (let k = 0; k < 4; k++) {
    // The sign bits of four bytes, gathered in the upper four bits by a multiplication without carries.
    const signs = (cpu.s32[source + k] >>> 7) & 0x0101_0101;
    mask |= (Math.imul(signs, 0x1020_4080) >>> 28) << (4 * k);
  }
  putGpr32(cpu, i.reg, mask);
}

/** MASKMOVDQU: stores the bytes of the first operand whose mask byte is negative at DS:rDI. */
function maskmovdqu(cpu: Cpu, i: Insn): void {
  requireSse(cpu);
  registerToA(cpu, i.reg);
  registerToB(cpu, i.rm);
  const segment = i.override >= 0 ? i.override : i.segment;
  for (let k = 0; k < 16; k++) {
    if (B_I8[k] >= 0) continue;
    const start = cpu.g32[2 * RDI] >>> 0;
    const sum = start + k;
    let low = sum | 0;
    let high = 0;
    if (i.addrsize === 8) high = (cpu.g32[2 * RDI + 1] + (sum > 0xffff_ffff ? 1 : 0)) | 0;
    else if (i.addrsize === 2) low &= 0xffff;
    cpu.write8(segment, low, high, A_I8[k] & 0xff);
  }
}

const unpcklps = lanes128(() => {
  R_I32[0] = A_I32[0];
  R_I32[1] = B_I32[0];
  R_I32[2] = A_I32[1];
  R_I32[3] = B_I32[1];
});

const unpckhps = lanes128(() => {
  R_I32[0] = A_I32[2];
  R_I32[1] = B_I32[2];
  R_I32[2] = A_I32[3];
  R_I32[3] = B_I32[3];
});

const unpcklpd = lanes128(() => {
  R_I32[0] = A_I32[0];
  R_I32[1] = A_I32[1];
  R_I32[2] = B_I32[0];
  R_I32[3] = B_I32[1];
});

const unpckhpd = lanes128(() => {
  R_I32[0] = A_I32[2];
  R_I32[1] = A_I32[3];
  R_I32[2] = B_I32[2];
  R_I32[3] = B_I32[3];
});

const shufps = lanes128Immediate((immediate) => {
  R_I32[0] = A_I32[immediate & 3];
  R_I32[1] = A_I32[(immediate >> 2) & 3];
  R_I32[2] = B_I32[(immediate >> 4) & 3];
  R_I32[3] = B_I32[immediate >> 6];
});

const shufpd = lanes128Immediate((immediate) => {
  const first = 2 * (immediate & 1);
  const second = immediate & 2;
  R_I32[0] = A_I32[first];
  R_I32[1] = A_I32[first + 1];
  R_I32[2] = B_I32[second];
  R_I32[3] = B_I32[second + 1];
});

const pshufd = lanes128Immediate((immediate) => {
  R_I32[0] = B_I32[immediate & 3];
  R_I32[1] = B_I32[(immediate >> 2) & 3];
  R_I32[2] = B_I32[(immediate >> 4) & 3];
  R_I32[3] = B_I32[immediate >> 6];
});

/** Shuffles the four words of one half (first word `base`) and copies the other half. */
function shuffleWords(immediate: number, base: number): void {
  R_I32[0] = B_I32[0];
  R_I32[1] = B_I32[1];
  R_I32[2] = B_I32[2];
  R_I32[3] = B_I32[3];
  R_I16[base] = B_I16[base + (immediate & 3)];
  R_I16[base + 1] = B_I16[base + ((immediate >> 2) & 3)];
  R_I16[base + 2] = B_I16[base + ((immediate >> 4) & 3)];
  R_I16[base + 3] = B_I16[base + (immediate >> 6)];
}

const pshuflw = lanes128Immediate((immediate) => shuffleWords(immediate, 0));
const pshufhw = lanes128Immediate((immediate) => shuffleWords(immediate, 4));

/** Interleaves eight bytes of each operand, from byte `from`. */
function interleaveBytes(from: number): void {
  for (let k = 0; k < 8; k++) {
    R_I8[2 * k] = A_I8[from + k];
    R_I8[2 * k + 1] = B_I8[from + k];
  }
}

/** Interleaves four words of each operand, from word `from`. */
function interleaveWords(from: number): void {
  for (let k = 0; k < 4; k++) {
    R_I16[2 * k] = A_I16[from + k];
    R_I16[2 * k + 1] = B_I16[from + k];
  }
}

const punpcklbw = lanes128(() => interleaveBytes(0));
const punpckhbw = lanes128(() => interleaveBytes(8));
const punpcklwd = lanes128(() => interleaveWords(0));
const punpckhwd = lanes128(() => interleaveWords(4));

/** PINSRW. */
function pinsrw(cpu: Cpu, i: Insn): void {
  requireSse(cpu);
  const word = i.mem ? cpu.load16(i) : cpu.g32[2 * i.rm] & 0xffff;
  cpu.s16[2 * (X + 4 * i.reg) + (i.immLo & 7)] = word;
}

/** PEXTRW to a general-purpose register. */
function pextrw(cpu: Cpu, i: Insn): void {
  requireSse(cpu);
  putGpr32(cpu, i.reg, cpu.s16[2 * (X + 4 * i.rm) + (i.immLo & 7)]);
}

const NONE = { prefix: "none" } as const;
const P66 = { prefix: "66" } as const;
const F3 = { prefix: "f3" } as const;
const F2 = { prefix: "f2" } as const;

/** The opcode rows of this file. */
export const rows: readonly OpcodeRow[] = [
  row("0f", 0x10, "movups", "V,W", loadUnaligned, NONE),
  row("0f", 0x11, "movups", "W,V", storeUnaligned, NONE),
  row("0f", 0x10, "movupd", "V,W", loadUnaligned, P66),
  row("0f", 0x11, "movupd", "W,V", storeUnaligned, P66),
  row("0f", 0x10, "movss", "V,W", movssLoad, F3),
  row("0f", 0x11, "movss", "W,V", movssStore, F3),
  row("0f", 0x10, "movsd", "V,W", movsdLoad, F2),
  row("0f", 0x11, "movsd", "W,V", movsdStore, F2),
  row("0f", 0x12, "movlps", "V,W", movlpsLoad, NONE),
  row("0f", 0x13, "movlps", "M,V", movlpsStore, NONE),
  row("0f", 0x12, "movlpd", "V,M", movlpsLoad, P66),
  row("0f", 0x13, "movlpd", "M,V", movlpsStore, P66),
  row("0f", 0x14, "unpcklps", "V,W", unpcklps, NONE),
  row("0f", 0x14, "unpcklpd", "V,W", unpcklpd, P66),
  row("0f", 0x15, "unpckhps", "V,W", unpckhps, NONE),
  row("0f", 0x15, "unpckhpd", "V,W", unpckhpd, P66),
  row("0f", 0x16, "movhps", "V,W", movhpsLoad, NONE),
  row("0f", 0x17, "movhps", "M,V", movhpsStore, NONE),
  row("0f", 0x16, "movhpd", "V,M", movhpsLoad, P66),
  row("0f", 0x17, "movhpd", "M,V", movhpsStore, P66),
  row("0f", 0x28, "movaps", "V,W", loadAligned, NONE),
  row("0f", 0x29, "movaps", "W,V", storeAligned, NONE),
  row("0f", 0x28, "movapd", "V,W", loadAligned, P66),
  row("0f", 0x29, "movapd", "W,V", storeAligned, P66),
  row("0f", 0x2b, "movntps", "M,V", storeAligned, NONE),
  row("0f", 0x2b, "movntpd", "M,V", storeAligned, P66),
  row("0f", 0x50, "movmskps", "G,U", movmskps, NONE),
  row("0f", 0x50, "movmskpd", "G,U", movmskpd, P66),
  row("0f", 0x60, "punpcklbw", "V,W", punpcklbw, P66),
  row("0f", 0x61, "punpcklwd", "V,W", punpcklwd, P66),
  row("0f", 0x62, "punpckldq", "V,W", unpcklps, P66),
  row("0f", 0x68, "punpckhbw", "V,W", punpckhbw, P66),
  row("0f", 0x69, "punpckhwd", "V,W", punpckhwd, P66),
  row("0f", 0x6a, "punpckhdq", "V,W", unpckhps, P66),
  row("0f", 0x6c, "punpcklqdq", "V,W", unpcklpd, P66),
  row("0f", 0x6d, "punpckhqdq", "V,W", unpckhpd, P66),
  row("0f", 0x6e, "movd", "V,E", movdLoad, P66),
  row("0f", 0x7e, "movd", "E,V", movdStore, P66),
  row("0f", 0x6f, "movdqa", "V,W", loadAligned, P66),
  row("0f", 0x7f, "movdqa", "W,V", storeAligned, P66),
  row("0f", 0x6f, "movdqu", "V,W", loadUnaligned, F3),
  row("0f", 0x7f, "movdqu", "W,V", storeUnaligned, F3),
  row("0f", 0x70, "pshufd", "V,W,Ib", pshufd, P66),
  row("0f", 0x70, "pshufhw", "V,W,Ib", pshufhw, F3),
  row("0f", 0x70, "pshuflw", "V,W,Ib", pshuflw, F2),
  row("0f", 0x7e, "movq", "V,W", movqLoad, F3),
  row("0f", 0xd6, "movq", "W,V", movqStore, P66),
  row("0f", 0xc3, "movnti", "M,G", movnti, NONE),
  row("0f", 0xc4, "pinsrw", "V,E,Ib", pinsrw, P66),
  row("0f", 0xc5, "pextrw", "G,U,Ib", pextrw, P66),
  row("0f", 0xc6, "shufps", "V,W,Ib", shufps, NONE),
  row("0f", 0xc6, "shufpd", "V,W,Ib", shufpd, P66),
  row("0f", 0xd7, "pmovmskb", "G,U", pmovmskb, P66),
  row("0f", 0xe7, "movntdq", "M,V", storeAligned, P66),
  row("0f", 0xf7, "maskmovdqu", "V,U", maskmovdqu, P66),
];
