/**
 * MUL, IMUL, DIV and IDIV.
 *
 * @module
 */

import type { Cpu } from "../cpu.ts";
import { VECTOR_DE } from "../faults.ts";
import { LZ_IMUL32, LZ_IMUL64, LZ_SHIFT } from "../flags.ts";
import { HOT } from "../hot_ops.ts";
import { type Exec, type ExecBySize, type Insn, type OpcodeRow, row } from "../insn.ts";
import { RAX, RDX } from "../state.ts";
import { readE16, readE32, readE64, readE8, sext16, sext8, write32 } from "./operand.ts";

/** CF and OF as given, the others from the result, sign-extended. */
function setProductFlags(cpu: Cpu, overflow: boolean, r: number): void {
  const { lz } = cpu;
  lz[0] = lz[1] = overflow ? 1 : 0;
  lz[4] = r;
  lz[5] = r;
  cpu.lzOp = LZ_SHIFT;
}

const mul8: Exec = (cpu, i) => {
  const product = cpu.g8[0] * readE8(cpu, i);
  cpu.g16[0] = product;
  setProductFlags(cpu, product > 0xff, sext8(product));
};

const imul8: Exec = (cpu, i) => {
  const product = sext8(cpu.g8[0]) * sext8(readE8(cpu, i));
  cpu.g16[0] = product;
  setProductFlags(cpu, product !== sext8(product), sext8(product));
};

/** DX:AX = AX * E. */
function mul16(cpu: Cpu, a: number, b: number, signed: boolean): void {
  const product = signed ? Math.imul(sext16(a), sext16(b)) : Math.imul(a, b);
  cpu.g16[RAX << 2] = product;
  cpu.g16[RDX << 2] = product >>> 16;
  setProductFlags(cpu, signed ? product !== sext16(product) : product >>> 16 !== 0, sext16(product));
}

/** EDX:EAX = EAX * E, through 64-bit scratch words. */
function mul32(cpu: Cpu, b: number, signed: boolean): void {
  const { v64, i64, v32, g32 } = cpu;
  v32[0] = g32[RAX << 1];
  v32[1] = signed ? v32[0] >> 31 : 0;
  v32[2] = b;
  v32[3] = signed ? b >> 31 : 0;
  if (signed) i64[2] = BigInt.asIntN(64, i64[0] * i64[1]);
  else v64[2] = BigInt.asUintN(64, v64[0] * v64[1]);
  write32(cpu, RAX, v32[4]);
  write32(cpu, RDX, v32[5]);
  setProductFlags(cpu, signed ? v32[5] !== v32[4] >> 31 : v32[5] !== 0, v32[4]);
}

/**
 * `v64[2]`:`v64[3]` (low, high) = `v64[0]` * `v64[1]`, unsigned. In halves, so that no intermediate is wider than 64 bits:
 * wider ones are allocated.
 */
export function multiply128(cpu: Cpu): void {
  const { v64 } = cpu;
  const a = v64[0];
  const b = v64[1];
  const aLo = a & 0xffffffffn;
  const aHi = a >> 32n;
  const bLo = b & 0xffffffffn;
  const bHi = b >> 32n;
  const ll = BigInt.asUintN(64, aLo * bLo);
  const lh = BigInt.asUintN(64, aLo * bHi);
  const hl = BigInt.asUintN(64, aHi * bLo);
  const hh = BigInt.asUintN(64, aHi * bHi);
  const middle = BigInt.asUintN(64, (ll >> 32n) + (lh & 0xffffffffn) + (hl & 0xffffffffn));
  v64[2] = BigInt.asUintN(64, a * b);
  v64[3] = BigInt.asUintN(64, hh + (lh >> 32n) + (hl >> 32n) + (middle >> 32n));
}

/** RDX:RAX = RAX * `v64[0]`. */
function mul64(cpu: Cpu, signed: boolean): void {
  const { v64, v32, g64 } = cpu;
  const b = v64[0];
  const a = g64[RAX];
  v64[1] = a;
  const bNegative = v32[1] < 0;
  const aNegative = v32[3] < 0;
  multiply128(cpu);
  if (signed) {
    if (aNegative) v64[3] = BigInt.asUintN(64, v64[3] - b);
    if (bNegative) v64[3] = BigInt.asUintN(64, v64[3] - a);
  }
  g64[RAX] = v64[2];
  g64[RDX] = v64[3];
  const sign = signed ? v32[5] >> 31 : 0;
  const overflow = v32[6] !== sign || v32[7] !== sign;
  const { lz } = cpu;
  lz[0] = lz[1] = overflow ? 1 : 0;
  cpu.lz64[2] = v64[2];
  cpu.lzOp = LZ_SHIFT;
}

/** The product of two 16-bit operands into a register. */
function imulTo16(cpu: Cpu, register: number, a: number, b: number): void {
  const product = Math.imul(sext16(a), sext16(b));
  cpu.g16[register << 2] = product;
  setProductFlags(cpu, product !== sext16(product), sext16(product));
}

/** The product of two 32-bit operands into a register. */
function imulTo32(cpu: Cpu, register: number, a: number, b: number): void {
  const { lz } = cpu;
  const r = Math.imul(a, b);
  lz[0] = a;
  lz[2] = b;
  lz[4] = r;
  lz[5] = r;
  cpu.lzOp = LZ_IMUL32;
  write32(cpu, register, r);
}

/** The product of `v64[0]` and `v64[1]` into a register. */
function imulTo64(cpu: Cpu, register: number): void {
  const { v64, lz64 } = cpu;
  lz64[0] = v64[0];
  lz64[1] = v64[1];
  lz64[2] = BigInt.asUintN(64, v64[0] * v64[1]);
  cpu.lzOp = LZ_IMUL64;
  cpu.g64[register] = lz64[2];
}

const imulGE: ExecBySize = {
  16: (cpu, i) => imulTo16(cpu, i.reg, cpu.g16[i.reg << 2], readE16(cpu, i)),
  32: (cpu, i) => imulTo32(cpu, i.reg, cpu.g32[i.reg << 1], readE32(cpu, i)),
  64: (cpu, i) => {
    readE64(cpu, i);
    cpu.v64[1] = cpu.g64[i.reg];
    imulTo64(cpu, i.reg);
  },
};

const imulGEI: ExecBySize = {
  16: (cpu, i) => imulTo16(cpu, i.reg, readE16(cpu, i), i.immLo),
  32: (cpu, i) => imulTo32(cpu, i.reg, readE32(cpu, i), i.immLo),
  64: (cpu, i) => {
    readE64(cpu, i);
    cpu.v32[2] = i.immLo;
    cpu.v32[3] = i.immHi;
    imulTo64(cpu, i.reg);
  },
};

const div8: Exec = (cpu, i) => {
  const divisor = readE8(cpu, i);
  const dividend = cpu.g16[0];
  if (divisor === 0) cpu.raise(VECTOR_DE);
  const quotient = Math.trunc(dividend / divisor);
  if (quotient > 0xff) cpu.raise(VECTOR_DE);
  cpu.g16[0] = quotient | ((dividend % divisor) << 8);
};

const idiv8: Exec = (cpu, i) => {
  const divisor = sext8(readE8(cpu, i));
  const dividend = sext16(cpu.g16[0]);
  if (divisor === 0) cpu.raise(VECTOR_DE);
  const quotient = Math.trunc(dividend / divisor);
  if (quotient !== sext8(quotient)) cpu.raise(VECTOR_DE);
  cpu.g16[0] = (quotient & 0xff) | (((dividend % divisor) & 0xff) << 8);
};

const div16: Exec = (cpu, i) => {
  const divisor = readE16(cpu, i);
  const dividend = ((cpu.g16[RDX << 2] << 16) | cpu.g16[0]) >>> 0;
  if (divisor === 0) cpu.raise(VECTOR_DE);
  const quotient = Math.floor(dividend / divisor);
  if (quotient > 0xffff) cpu.raise(VECTOR_DE);
  cpu.g16[0] = quotient;
  cpu.g16[RDX << 2] = dividend % divisor;
};

const idiv16: Exec = (cpu, i) => {
  const divisor = sext16(readE16(cpu, i));
  const dividend = (cpu.g16[RDX << 2] << 16) | cpu.g16[0];
  if (divisor === 0) cpu.raise(VECTOR_DE);
  const quotient = Math.trunc(dividend / divisor);
  if (quotient !== sext16(quotient)) cpu.raise(VECTOR_DE);
  cpu.g16[0] = quotient;
  cpu.g16[RDX << 2] = dividend % divisor;
};

/** EDX:EAX divided by an unsigned 32-bit value. */
const div32: Exec = (cpu, i) => {
  const { g32, v32, v64 } = cpu;
  const divisor = readE32(cpu, i) >>> 0;
  const high = g32[RDX << 1] >>> 0;
  const low = g32[RAX << 1] >>> 0;
  if (high >= divisor) cpu.raise(VECTOR_DE);
  if (high === 0) {
    write32(cpu, RAX, Math.floor(low / divisor));
    write32(cpu, RDX, low % divisor);
    return;
  }
  v32[0] = low;
  v32[1] = high;
  v32[2] = divisor;
  v32[3] = 0;
  v64[2] = v64[0] / v64[1];
  v64[3] = v64[0] % v64[1];
  write32(cpu, RAX, v32[4]);
  write32(cpu, RDX, v32[6]);
};

/** EDX:EAX divided by a signed 32-bit value. */
const idiv32: Exec = (cpu, i) => {
  const { g32, v32, i64 } = cpu;
  const divisor = readE32(cpu, i);
  if (divisor === 0) cpu.raise(VECTOR_DE);
  const low = g32[RAX << 1];
  const high = g32[RDX << 1];
  if (high === low >> 31) {
    const quotient = Math.trunc(low / divisor);
    if (quotient !== (quotient | 0)) cpu.raise(VECTOR_DE);
    write32(cpu, RAX, quotient);
    write32(cpu, RDX, low % divisor);
    return;
  }
  v32[0] = low;
  v32[1] = high;
  v32[2] = divisor;
  v32[3] = divisor >> 31;
  const quotient = i64[0] / i64[1];
  if (quotient !== BigInt.asIntN(32, quotient)) cpu.raise(VECTOR_DE);
  i64[3] = i64[0] % i64[1];
  i64[2] = quotient;
  write32(cpu, RAX, v32[4]);
  write32(cpu, RDX, v32[6]);
};

const div64: Exec = (cpu, i) => {
  const { g64, g32, v64 } = cpu;
  readE64(cpu, i);
  const divisor = v64[0];
  if (divisor === 0n || g64[RDX] >= divisor) cpu.raise(VECTOR_DE);
  if ((g32[RDX << 1] | g32[(RDX << 1) + 1]) === 0) {
    v64[1] = g64[RAX];
    g64[RAX] = v64[1] / v64[0];
    g64[RDX] = v64[1] % v64[0];
    return;
  }
  const dividend = (g64[RDX] << 64n) | g64[RAX];
  g64[RAX] = BigInt.asUintN(64, dividend / divisor);
  g64[RDX] = dividend % divisor;
};

const idiv64: Exec = (cpu, i) => {
  const { g64, v64 } = cpu;
  readE64(cpu, i);
  const divisor = BigInt.asIntN(64, v64[0]);
  if (divisor === 0n) cpu.raise(VECTOR_DE);
  const dividend = (BigInt.asIntN(64, g64[RDX]) << 64n) | g64[RAX];
  const quotient = dividend / divisor;
  if (quotient !== BigInt.asIntN(64, quotient)) cpu.raise(VECTOR_DE);
  g64[RAX] = BigInt.asUintN(64, quotient);
  g64[RDX] = BigInt.asUintN(64, dividend % divisor);
};

/** MUL or IMUL of the accumulator. */
function accumulator(signed: boolean): ExecBySize {
  return {
    16: (cpu, i: Insn) => mul16(cpu, cpu.g16[0], readE16(cpu, i), signed),
    32: (cpu, i: Insn) => mul32(cpu, readE32(cpu, i), signed),
    64: (cpu, i: Insn) => {
      readE64(cpu, i);
      mul64(cpu, signed);
    },
  };
}

/** The opcode rows of this file. */
export const MULDIV_ROWS: readonly OpcodeRow[] = [
  row("1", 0xf6, "mul", "Eb", mul8, { reg: 4 }),
  row("1", 0xf7, "mul", "Ev", accumulator(false), { reg: 4 }),
  row("1", 0xf6, "imul", "Eb", imul8, { reg: 5 }),
  row("1", 0xf7, "imul", "Ev", accumulator(true), { reg: 5 }),
  row("1", 0xf6, "div", "Eb", div8, { reg: 6 }),
  row("1", 0xf7, "div", "Ev", { 16: div16, 32: div32, 64: div64 }, { reg: 6 }),
  row("1", 0xf6, "idiv", "Eb", idiv8, { reg: 7 }),
  row("1", 0xf7, "idiv", "Ev", { 16: idiv16, 32: idiv32, 64: idiv64 }, { reg: 7 }),
  row("0f", 0xaf, "imul", "Gv,Ev", imulGE, { op: { 32: HOT.imul32, 64: HOT.imul64 } }),
  row("1", 0x69, "imul", "Gv,Ev,Iz", imulGEI),
  row("1", 0x6b, "imul", "Gv,Ev,Ibs", imulGEI),
];
