/**
 * x87 instructions that look into numbers: FXAM, FXTRACT, FSCALE, FPREM, FPREM1, the constants, packed decimal (Intel
 * SDM volume 2).
 *
 * @module
 */

import type { Cpu } from "../cpu.ts";
import { toInteger } from "../float/convert.ts";
import { FLAG_INVALID } from "../float/environment.ts";
import {
  EXTENDED80,
  FloatResult,
  KIND_FINITE,
  KIND_INFINITY,
  KIND_UNSUPPORTED,
  KIND_ZERO,
  Operand,
  roundPack,
} from "../float/format.ts";
import { extract, quotientBits, remainder, scale } from "../float/remainder.ts";
import { type Exec, type Insn, type OpcodeRow, row } from "../insn.ts";
import { advanceEa, beginStore, storeTenBytes } from "./x87.ts";
import {
  beginX87,
  checkX87,
  finish,
  FSW,
  FSW_C0,
  FSW_C1,
  FSW_C2,
  FSW_C3,
  isEmpty,
  loadRegister,
  pop,
  preparePush,
  putBits,
  putDefaultNan,
  putRegister,
  ST,
  startX87,
  turnStack,
  underflow,
  x87,
  x87Result,
} from "./x87_stack.ts";

const first = new Operand();
const second = new Operand();
const exponentResult = new FloatResult();

const CONDITION_CODES = FSW_C0 | FSW_C1 | FSW_C2 | FSW_C3;

/** The class of ST(0) as C3, C2 and C0. */
function examine(cpu: Cpu): number {
  if (isEmpty(cpu, 0)) return FSW_C3 | FSW_C0;
  loadRegister(cpu, 0, first);
  if (first.kind === KIND_UNSUPPORTED) return 0;
  if (first.kind === KIND_ZERO) return FSW_C3;
  if (first.kind === KIND_INFINITY) return FSW_C2 | FSW_C0;
  if (first.kind !== KIND_FINITE) return FSW_C0;
  return first.denormal ? FSW_C3 | FSW_C2 : FSW_C2;
}

/** FXAM: the class of ST(0) in C3, C2 and C0, its sign in C1, even of an empty register. */
function fxam(cpu: Cpu): void {
  checkX87(cpu);
  const sign = (cpu.s16[(ST + 8) >> 1] & 0x8000) !== 0 ? FSW_C1 : 0;
  cpu.s16[FSW] = (cpu.s16[FSW] & ~CONDITION_CODES) | examine(cpu) | sign;
}

/** Loads ST(0) and ST(1); false after a stack underflow, which leaves the default NaN in ST(0) when it is masked. */
function loadTwo(cpu: Cpu): boolean {
  if (isEmpty(cpu, 0) || isEmpty(cpu, 1)) {
    if (underflow(cpu)) putDefaultNan(cpu, 0);
    return false;
  }
  loadRegister(cpu, 0, first);
  loadRegister(cpu, 1, second);
  return true;
}

/** FPREM, FPREM1: C2 tells that the reduction is incomplete, else C0, C3 and C1 are bits 2, 1 and 0 of the quotient. */
function fprem(nearest: boolean): Exec {
  return (cpu) => {
    beginX87(cpu);
    cpu.s16[FSW] &= ~FSW_C2;
    if (!loadTwo(cpu)) return;
    remainder(x87, first, second, nearest, x87Result);
    if (!finish(cpu)) return;
    putRegister(cpu, 0, x87Result);
    // Without a value, C0 and C3 stay as they were.
    if (x87Result.exponent === EXTENDED80.specialExponent) return;
    let codes = FSW_C2;
    if (quotientBits >= 0) {
      codes = ((quotientBits & 4) !== 0 ? FSW_C0 : 0) | ((quotientBits & 2) !== 0 ? FSW_C3 : 0) |
        ((quotientBits & 1) !== 0 ? FSW_C1 : 0);
    }
    cpu.s16[FSW] = (cpu.s16[FSW] & ~CONDITION_CODES) | codes;
  };
}

/** FSCALE. */
function fscale(cpu: Cpu): void {
  beginX87(cpu);
  if (!loadTwo(cpu)) return;
  scale(x87, first, second, x87Result);
  if (finish(cpu)) putRegister(cpu, 0, x87Result);
}

/** FXTRACT: the exponent replaces ST(0), then the significand is pushed. */
function fxtract(cpu: Cpu): void {
  beginX87(cpu);
  if (isEmpty(cpu, 0)) {
    if (!underflow(cpu)) return;
    putDefaultNan(cpu, 0);
    turnStack(cpu, -1);
    putDefaultNan(cpu, 0);
    return;
  }
  if (!isEmpty(cpu, 7)) {
    if (preparePush(cpu)) return;
    if (!x87.unmasked(FLAG_INVALID)) putDefaultNan(cpu, 1);
    return;
  }
  loadRegister(cpu, 0, first);
  extract(x87, first, x87Result, exponentResult);
  if (!finish(cpu)) return;
  putRegister(cpu, 0, exponentResult);
  turnStack(cpu, -1);
  putRegister(cpu, 0, x87Result);
}

/** Pushes 1.0 or 0.0. */
function loadExact(signExponent: number, significand: bigint): Exec {
  return (cpu) => {
    beginX87(cpu);
    if (!preparePush(cpu)) return;
    turnStack(cpu, -1);
    putBits(cpu, 0, signExponent, significand);
  };
}

/** Pushes a constant given to 128 bits, `digits * 2^exponent`, rounded as RC says. Neither PE nor C1 is set. */
function loadConstant(digits: bigint, exponent: number): Exec {
  return (cpu) => {
    beginX87(cpu);
    if (!preparePush(cpu)) return;
    roundPack(x87, EXTENDED80, 64, 0, exponent, digits, true, x87Result);
    turnStack(cpu, -1);
    putRegister(cpu, 0, x87Result);
  };
}

/** Digits of a packed decimal. */
const DECIMAL_DIGITS = 18;
/** The greatest magnitude of a packed decimal. */
const DECIMAL_MAX = 10n ** 18n - 1n;
/** The packed decimal indefinite: upper 16 bits and lower 64. */
const DECIMAL_INDEFINITE_HIGH = 0xffff;
const DECIMAL_INDEFINITE_LOW = 0xc000_0000_0000_0000n;
/** Bits that hold any packed decimal as an integer. */
const DECIMAL_BITS = 64;

/** FBLD: digits that are not decimal count with the value of their four bits. */
function fbld(cpu: Cpu, i: Insn): void {
  checkX87(cpu);
  cpu.load64(i);
  const low = cpu.v64[0];
  advanceEa(cpu, i, 8);
  const high = cpu.read16(i.segment, cpu.ea32[0], cpu.ea32[1]);
  const packed = (BigInt(high & 0xff) << 64n) | low;
  startX87(cpu);
  if (!preparePush(cpu)) return;
  let value = 0n;
  for (let digit = DECIMAL_DIGITS - 1; digit >= 0; digit--) value = value * 10n + ((packed >> BigInt(4 * digit)) & 15n);
  const sign = high >> 15;
  turnStack(cpu, -1);
  if (value === 0n) {
    putBits(cpu, 0, sign << 15, 0n);
    return;
  }
  roundPack(x87, EXTENDED80, 64, sign, 0, value, false, x87Result);
  putRegister(cpu, 0, x87Result);
}

/** FBSTP. */
function fbstp(cpu: Cpu, i: Insn): void {
  beginStore(cpu, i, 10);
  let high = DECIMAL_INDEFINITE_HIGH;
  let low = DECIMAL_INDEFINITE_LOW;
  if (isEmpty(cpu, 0)) {
    if (!underflow(cpu)) return;
  } else {
    loadRegister(cpu, 0, first);
    let value = toInteger(x87, first, DECIMAL_BITS, x87.rounding);
    if (value < 0n) value = -value;
    if (value > DECIMAL_MAX) {
      x87.flags = FLAG_INVALID;
      x87.roundedUp = false;
    }
    if (!finish(cpu)) return;
    if ((x87.flags & FLAG_INVALID) === 0) {
      let packed = 0n;
      for (let digit = 0; digit < DECIMAL_DIGITS; digit++) {
        packed |= (value % 10n) << BigInt(4 * digit);
        value /= 10n;
      }
      low = packed & 0xffff_ffff_ffff_ffffn;
      high = Number(packed >> 64n) | (first.sign << 15);
    }
  }
  storeTenBytes(cpu, i, low, high);
  pop(cpu);
}

/** FINCSTP, FDECSTP: TOP alone changes. */
function moveTop(delta: number): Exec {
  return (cpu) => {
    beginX87(cpu);
    turnStack(cpu, delta);
  };
}

/** FNOP. */
function fnop(cpu: Cpu): void {
  checkX87(cpu);
}

function plain(reg: number, rm: number, name: string, exec: Exec): OpcodeRow {
  return row("1", 0xd9, name, "", exec, { reg, rm, mod: "reg" });
}

/** The opcode rows of this file. */
export const rows: readonly OpcodeRow[] = [
  plain(2, 0, "fnop", fnop),
  plain(4, 5, "fxam", fxam),
  plain(5, 0, "fld1", loadExact(0x3fff, 1n << 63n)),
  // log2(10), log2(e), pi, log10(2) and ln(2), each to 128 bits.
  plain(5, 1, "fldl2t", loadConstant(0xd49a784bcd1b8afe492bf6ff4dafdb4cn, -126)),
  plain(5, 2, "fldl2e", loadConstant(0xb8aa3b295c17f0bbbe87fed0691d3e88n, -127)),
  plain(5, 3, "fldpi", loadConstant(0xc90fdaa22168c234c4c6628b80dc1cd1n, -126)),
  plain(5, 4, "fldlg2", loadConstant(0x9a209a84fbcff7988f8959ac0b7c9178n, -129)),
  plain(5, 5, "fldln2", loadConstant(0xb17217f7d1cf79abc9e3b39803f2f6afn, -128)),
  plain(5, 6, "fldz", loadExact(0, 0n)),
  plain(6, 4, "fxtract", fxtract),
  plain(6, 5, "fprem1", fprem(true)),
  plain(6, 6, "fdecstp", moveTop(-1)),
  plain(6, 7, "fincstp", moveTop(1)),
  plain(7, 0, "fprem", fprem(false)),
  plain(7, 5, "fscale", fscale),
  row("1", 0xdf, "fbld", "M", fbld, { reg: 4, mod: "mem" }),
  row("1", 0xdf, "fbstp", "M", fbstp, { reg: 6, mod: "mem" }),
];
