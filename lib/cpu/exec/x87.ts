/**
 * x87 arithmetic, loads, stores and comparisons in double extended precision (Intel SDM volume 1, chapter 8, and volume
 * 2).
 *
 * @module
 */

import type { Cpu } from "../cpu.ts";
import { add, compare, COMPARE_UNORDERED, divide, multiply, squareRoot } from "../float/arithmetic.ts";
import { convertFormat, roundToIntegral, toInteger } from "../float/convert.ts";
import {
  FLAG_INVALID,
  FLAG_OVERFLOW,
  FLAG_UNDERFLOW,
  FLAGS_PRE_COMPUTATION,
  ROUND_TRUNCATE,
} from "../float/environment.ts";
import {
  BINARY32,
  BINARY64,
  EXTENDED80,
  type FloatFormat,
  KIND_FINITE,
  KIND_ZERO,
  Operand,
  pack,
  setDefaultNan,
  unpack,
} from "../float/format.ts";
import { type Exec, type Insn, type OpcodeRow, row } from "../insn.ts";
import { FLAG_CF, FLAG_PF, FLAG_ZF } from "../state.ts";
import {
  beginX87,
  checkX87,
  finish,
  FSW,
  FSW_C0,
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
  ST_BYTES,
  startKeepingC1,
  startX87,
  turnStack,
  underflow,
  x87,
  x87Result,
} from "./x87_stack.ts";

const first = new Operand();
const second = new Operand();

// ---- memory operands ----

/** Loads the instruction's memory operand into `second`. */
type MemorySource = (cpu: Cpu, i: Insn) => void;

function integerOperand(value: bigint, out: Operand): void {
  out.kind = value === 0n ? KIND_ZERO : KIND_FINITE;
  out.sign = value < 0n ? 1 : 0;
  out.exponent = 0;
  out.significand = value < 0n ? -value : value;
  out.denormal = false;
}

function sourceBinary32(cpu: Cpu, i: Insn): void {
  unpack(x87, BINARY32, BigInt(cpu.load32(i) >>> 0), second);
}

function sourceBinary64(cpu: Cpu, i: Insn): void {
  cpu.load64(i);
  unpack(x87, BINARY64, cpu.v64[0], second);
}

function sourceInt16(cpu: Cpu, i: Insn): void {
  integerOperand(BigInt((cpu.load16(i) << 16) >> 16), second);
}

function sourceInt32(cpu: Cpu, i: Insn): void {
  integerOperand(BigInt(cpu.load32(i) | 0), second);
}

function sourceInt64(cpu: Cpu, i: Insn): void {
  cpu.load64(i);
  integerOperand(cpu.i64[0], second);
}

// ---- arithmetic ----

/** ModRM.reg of the arithmetic opcodes. */
const ADD = 0;
const MUL = 1;
const COM = 2;
const COMP = 3;
const SUB = 4;
const SUBR = 5;
const DIV = 6;
const DIVR = 7;
const ARITHMETIC_NAMES = ["fadd", "fmul", "fcom", "fcomp", "fsub", "fsubr", "fdiv", "fdivr"];

/** Computes ST(0) `kind` the other operand, `first` and `second`, into the result. */
function compute(kind: number): void {
  switch (kind) {
    case ADD:
      return add(x87, EXTENDED80, first, second, 0, x87Result);
    case MUL:
      return multiply(x87, EXTENDED80, first, second, x87Result);
    case SUB:
      return add(x87, EXTENDED80, first, second, 1, x87Result);
    case SUBR:
      return add(x87, EXTENDED80, second, first, 1, x87Result);
    case DIV:
      return divide(x87, EXTENDED80, first, second, x87Result);
    default: // DIVR
      return divide(x87, EXTENDED80, second, first, x87Result);
  }
}

/** FADD to FDIVR with a memory operand; FCOM and FCOMP too. */
function arithmeticMemory(kind: number, source: MemorySource): Exec {
  return (cpu, i) => {
    checkX87(cpu);
    source(cpu, i);
    startX87(cpu);
    if (kind === COM || kind === COMP) {
      compareToStatus(cpu, isEmpty(cpu, 0), true, kind === COMP ? 1 : 0);
      return;
    }
    if (isEmpty(cpu, 0)) {
      if (underflow(cpu)) putDefaultNan(cpu, 0);
      return;
    }
    loadRegister(cpu, 0, first);
    compute(kind);
    if (finish(cpu)) putRegister(cpu, 0, x87Result);
  };
}

/** FADD to FDIVR of registers: the destination is ST(0), or with `toOther` ST(i), which may be followed by a pop. */
function arithmeticRegister(kind: number, toOther: boolean, pops: boolean): Exec {
  return (cpu, i) => {
    beginX87(cpu);
    const other = i.rm & 7;
    const target = toOther ? other : 0;
    if (isEmpty(cpu, 0) || isEmpty(cpu, other)) {
      if (!underflow(cpu)) return;
      putDefaultNan(cpu, target);
    } else {
      loadRegister(cpu, 0, first);
      loadRegister(cpu, other, second);
      compute(kind);
      if (!finish(cpu)) return;
      putRegister(cpu, target, x87Result);
    }
    if (pops) pop(cpu);
  };
}

// ---- comparisons ----

/** C3, C2 and C0 for less, equal, greater, unordered. */
const STATUS_OF_RELATION = [FSW_C0, FSW_C3, 0, FSW_C3 | FSW_C2 | FSW_C0];
const STATUS_MASK = FSW_C3 | FSW_C2 | FSW_C0;
/** ZF, PF and CF for the same. */
const FLAGS_OF_RELATION = [FLAG_CF, FLAG_ZF, 0, FLAG_ZF | FLAG_PF | FLAG_CF];

/**
 * Compares ST(0) with `second`; the relation goes to C3, C2 and C0 even when an exception is not masked, but then
 * nothing is popped. `empty`: an operand is an empty register.
 */
function compareToStatus(cpu: Cpu, empty: boolean, quietIsInvalid: boolean, pops: number): void {
  let relation = COMPARE_UNORDERED;
  let goOn: boolean;
  if (empty) {
    goOn = underflow(cpu);
  } else {
    loadRegister(cpu, 0, first);
    relation = compare(x87, first, second, quietIsInvalid);
    goOn = finish(cpu);
  }
  cpu.s16[FSW] = (cpu.s16[FSW] & ~STATUS_MASK) | STATUS_OF_RELATION[relation + 1];
  if (!goOn) return;
  for (let n = 0; n < pops; n++) pop(cpu);
}

/** FCOM, FCOMP, FCOMPP (`quietIsInvalid`), FUCOM, FUCOMP, FUCOMPP. */
function fcom(quietIsInvalid: boolean, pops: number): Exec {
  return (cpu, i) => {
    beginX87(cpu);
    const other = i.rm & 7;
    loadRegister(cpu, other, second);
    compareToStatus(cpu, isEmpty(cpu, 0) || isEmpty(cpu, other), quietIsInvalid, pops);
  };
}

/** FCOMI, FCOMIP (`quietIsInvalid`), FUCOMI, FUCOMIP. */
function fcomi(quietIsInvalid: boolean, pops: boolean): Exec {
  return (cpu, i) => {
    checkX87(cpu);
    startKeepingC1(cpu);
    const other = i.rm & 7;
    let relation = COMPARE_UNORDERED;
    let goOn: boolean;
    if (isEmpty(cpu, 0) || isEmpty(cpu, other)) {
      goOn = underflow(cpu);
    } else {
      loadRegister(cpu, 0, first);
      loadRegister(cpu, other, second);
      relation = compare(x87, first, second, quietIsInvalid);
      goOn = finish(cpu);
    }
    cpu.setArith(FLAGS_OF_RELATION[relation + 1]);
    if (goOn && pops) pop(cpu);
  };
}

/** FTST: compares ST(0) with zero. */
function ftst(cpu: Cpu): void {
  beginX87(cpu);
  integerOperand(0n, second);
  compareToStatus(cpu, isEmpty(cpu, 0), true, 0);
}

// ---- one operand ----

/** An operation on ST(0), from `first` to the result. */
function unary(operation: () => void): Exec {
  return (cpu) => {
    beginX87(cpu);
    if (isEmpty(cpu, 0)) {
      if (underflow(cpu)) putDefaultNan(cpu, 0);
      return;
    }
    loadRegister(cpu, 0, first);
    operation();
    if (finish(cpu)) putRegister(cpu, 0, x87Result);
  };
}

const fsqrt = unary(() => squareRoot(x87, EXTENDED80, first, x87Result));
const frndint = unary(() => roundToIntegral(x87, EXTENDED80, first, x87.rounding, true, x87Result));

/** Changes the sign bit of ST(0), whatever it holds. */
function changeSign(change: (signExponent: number) => number): Exec {
  return (cpu) => {
    beginX87(cpu);
    if (isEmpty(cpu, 0)) {
      if (underflow(cpu)) putDefaultNan(cpu, 0);
      return;
    }
    const at = (ST + 8) >> 1;
    cpu.s16[at] = change(cpu.s16[at]);
  };
}

const fchs = changeSign((signExponent) => signExponent ^ 0x8000);
const fabs = changeSign((signExponent) => signExponent & 0x7fff);

// ---- loads ----

/** FLD m32, FLD m64, FILD: converts to extended precision (always exact) and pushes. */
function loadMemory(source: MemorySource): Exec {
  return (cpu, i) => {
    checkX87(cpu);
    source(cpu, i);
    startX87(cpu);
    if (!preparePush(cpu)) return;
    convertFormat(x87, EXTENDED80, second, true, x87Result);
    finish(cpu);
    // A denormal number is loaded whether its exception is masked or not; an invalid one is not.
    if (x87.unmasked(x87.flags & FLAG_INVALID)) return;
    turnStack(cpu, -1);
    putRegister(cpu, 0, x87Result);
  };
}

/** The offset `by` bytes after the memory operand, into `cpu.ea32`. */
export function advanceEa(cpu: Cpu, i: Insn, by: number): void {
  cpu.ea(i);
  const sum = (cpu.ea32[0] >>> 0) + by;
  cpu.ea32[0] = sum;
  if (i.addrsize === 8) cpu.ea32[1] += sum > 0xffff_ffff ? 1 : 0;
  else if (i.addrsize === 2) cpu.ea32[0] &= 0xffff;
}

/** FLD m80: the bits as they are. */
function loadExtended(cpu: Cpu, i: Insn): void {
  checkX87(cpu);
  cpu.load64(i);
  const significand = cpu.v64[0];
  advanceEa(cpu, i, 8);
  const signExponent = cpu.read16(i.segment, cpu.ea32[0], cpu.ea32[1]);
  startX87(cpu);
  if (!preparePush(cpu)) return;
  turnStack(cpu, -1);
  putBits(cpu, 0, signExponent, significand);
}

/** FLD ST(i). */
function loadStack(cpu: Cpu, i: Insn): void {
  beginX87(cpu);
  const source = i.rm & 7;
  if (isEmpty(cpu, source)) {
    if (!underflow(cpu)) return;
    turnStack(cpu, -1);
    putDefaultNan(cpu, 0);
    return;
  }
  const at = ST + source * ST_BYTES;
  const signExponent = cpu.s16[(at + 8) >> 1];
  const significand = cpu.s64[at >> 3];
  if (!preparePush(cpu)) return;
  turnStack(cpu, -1);
  putBits(cpu, 0, signExponent, significand);
}

// ---- stores ----

/** Starts a waiting instruction that stores `size` bytes: every fault of the store comes before anything changes. */
export function beginStore(cpu: Cpu, i: Insn, size: number): void {
  checkX87(cpu);
  cpu.ea(i);
  cpu.probeWrite(i.segment, cpu.ea32[0], cpu.ea32[1], size);
  startX87(cpu);
}

/**
 * Puts ST(0), in `first`, as binary32 or binary64 into the result. False when it is not to be stored: an exception is
 * not masked.
 */
function convertForStore(cpu: Cpu, format: FloatFormat): boolean {
  if (isEmpty(cpu, 0)) {
    if (!underflow(cpu)) return false;
    setDefaultNan(format, x87Result);
    return true;
  }
  loadRegister(cpu, 0, first);
  convertFormat(x87, format, first, false, x87Result);
  const prevented = FLAGS_PRE_COMPUTATION | FLAG_OVERFLOW | FLAG_UNDERFLOW;
  if (!x87.unmasked(x87.flags & prevented)) return true;
  // Nothing is rounded when nothing is stored.
  x87.flags &= prevented;
  x87.roundedUp = false;
  return false;
}

/** FST, FSTP m32. */
function storeBinary32(pops: boolean): Exec {
  return (cpu, i) => {
    beginStore(cpu, i, 4);
    if (convertForStore(cpu, BINARY32)) {
      cpu.store32(i, Number(pack(BINARY32, x87Result)) | 0);
      finish(cpu);
      if (pops) pop(cpu);
    } else {
      finish(cpu);
    }
  };
}

/** FST, FSTP m64. */
function storeBinary64(pops: boolean): Exec {
  return (cpu, i) => {
    beginStore(cpu, i, 8);
    if (convertForStore(cpu, BINARY64)) {
      cpu.v64[0] = pack(BINARY64, x87Result);
      cpu.store64(i);
      finish(cpu);
      if (pops) pop(cpu);
    } else {
      finish(cpu);
    }
  };
}

/** FSTP m80: the bits as they are. */
function storeExtended(cpu: Cpu, i: Insn): void {
  beginStore(cpu, i, 10);
  let low = cpu.s64[ST >> 3];
  let high = cpu.s16[(ST + 8) >> 1];
  if (isEmpty(cpu, 0)) {
    if (!underflow(cpu)) return;
    setDefaultNan(EXTENDED80, x87Result);
    low = x87Result.significand;
    high = (x87Result.sign << 15) | x87Result.exponent;
  }
  storeTenBytes(cpu, i, low, high);
  pop(cpu);
}

/** Stores the ten bytes of an 80-bit operand, which `beginStore` has checked. */
export function storeTenBytes(cpu: Cpu, i: Insn, low: bigint, high: number): void {
  cpu.v64[0] = low;
  cpu.store64(i);
  advanceEa(cpu, i, 8);
  cpu.write16(i.segment, cpu.ea32[0], cpu.ea32[1], high);
}

/** FIST, FISTP, FISTTP to `bits` bits. */
function storeInteger(bits: number, truncate: boolean, pops: boolean): Exec {
  return (cpu, i) => {
    beginStore(cpu, i, bits >> 3);
    let value = -(1n << BigInt(bits - 1));
    if (isEmpty(cpu, 0)) {
      if (!underflow(cpu)) return;
    } else {
      loadRegister(cpu, 0, first);
      value = toInteger(x87, first, bits, truncate ? ROUND_TRUNCATE : x87.rounding);
      if (x87.unmasked(x87.flags & FLAG_INVALID)) {
        finish(cpu);
        return;
      }
    }
    if (bits === 64) {
      cpu.i64[0] = value;
      cpu.store64(i);
    } else if (bits === 32) {
      cpu.store32(i, Number(value));
    } else {
      cpu.store16(i, Number(value) & 0xffff);
    }
    finish(cpu);
    if (pops) pop(cpu);
  };
}

/** FST ST(i), FSTP ST(i). */
function storeStack(pops: boolean): Exec {
  return (cpu, i) => {
    beginX87(cpu);
    const target = i.rm & 7;
    if (isEmpty(cpu, 0)) {
      if (!underflow(cpu)) return;
      putDefaultNan(cpu, target);
    } else {
      putBits(cpu, target, cpu.s16[(ST + 8) >> 1], cpu.s64[ST >> 3]);
    }
    if (pops) pop(cpu);
  };
}

/** FXCH: empty registers are exchanged as default NaNs. */
function fxch(cpu: Cpu, i: Insn): void {
  beginX87(cpu);
  const other = i.rm & 7;
  if (isEmpty(cpu, 0) || isEmpty(cpu, other)) {
    if (!underflow(cpu)) return;
    if (isEmpty(cpu, 0)) putDefaultNan(cpu, 0);
    if (isEmpty(cpu, other)) putDefaultNan(cpu, other);
  }
  const at = ST + other * ST_BYTES;
  const signExponent = cpu.s16[(at + 8) >> 1];
  const significand = cpu.s64[at >> 3];
  putBits(cpu, other, cpu.s16[(ST + 8) >> 1], cpu.s64[ST >> 3]);
  putBits(cpu, 0, signExponent, significand);
}

/** FCMOVcc: `test` is the mask of RFLAGS bits, one of which must be set (or with `negate` none). */
function fcmov(test: number, negate: boolean): Exec {
  return (cpu, i) => {
    checkX87(cpu);
    startKeepingC1(cpu);
    const source = i.rm & 7;
    if (isEmpty(cpu, 0) || isEmpty(cpu, source)) {
      if (underflow(cpu)) putDefaultNan(cpu, 0);
      return;
    }
    if (((cpu.flags() & test) !== 0) === negate) return;
    const at = ST + source * ST_BYTES;
    putBits(cpu, 0, cpu.s16[(at + 8) >> 1], cpu.s64[at >> 3]);
  };
}

/** Rows of the eight arithmetic operations with memory. */
function memoryRows(opcode: number, prefix: string, source: MemorySource): OpcodeRow[] {
  return ARITHMETIC_NAMES.map((name, reg) =>
    row("1", opcode, prefix + name.slice(1), "M", arithmeticMemory(reg, source), { reg, mod: "mem" })
  );
}

/** Rows of the six arithmetic operations of registers, without the comparisons. */
function registerRows(opcode: number, toOther: boolean, pops: boolean): OpcodeRow[] {
  const rows: OpcodeRow[] = [];
  for (const reg of [ADD, MUL, SUB, SUBR, DIV, DIVR]) {
    // With the destination ST(i), the names of the reversed forms are exchanged; what they compute is not.
    const named = toOther && reg >= SUB ? reg ^ 1 : reg;
    rows.push(stack(opcode, reg, ARITHMETIC_NAMES[named] + (pops ? "p" : ""), arithmeticRegister(reg, toOther, pops)));
  }
  return rows;
}

/** A row with a stack register in ModRM.rm. */
function stack(opcode: number, reg: number, name: string, exec: Exec): OpcodeRow {
  return row("1", opcode, name, "ST", exec, { reg, mod: "reg" });
}

/** A row with a memory operand. */
function memory(opcode: number, reg: number, name: string, exec: Exec): OpcodeRow {
  return row("1", opcode, name, "M", exec, { reg, mod: "mem" });
}

/** A row without an operand. */
function plain(opcode: number, reg: number, rm: number, name: string, exec: Exec): OpcodeRow {
  return row("1", opcode, name, "", exec, { reg, rm, mod: "reg" });
}

/** The opcode rows of this file. */
export const rows: readonly OpcodeRow[] = [
  ...memoryRows(0xd8, "f", sourceBinary32),
  ...memoryRows(0xdc, "f", sourceBinary64),
  ...memoryRows(0xda, "fi", sourceInt32),
  ...memoryRows(0xde, "fi", sourceInt16),
  ...registerRows(0xd8, false, false),
  ...registerRows(0xdc, true, false),
  ...registerRows(0xde, true, true),
  stack(0xd8, 2, "fcom", fcom(true, 0)),
  stack(0xd8, 3, "fcomp", fcom(true, 1)),
  stack(0xdc, 2, "fcom", fcom(true, 0)),
  stack(0xdc, 3, "fcomp", fcom(true, 1)),
  stack(0xde, 2, "fcomp", fcom(true, 1)),
  plain(0xde, 3, 1, "fcompp", fcom(true, 2)),
  plain(0xda, 5, 1, "fucompp", fcom(false, 2)),
  stack(0xdd, 4, "fucom", fcom(false, 0)),
  stack(0xdd, 5, "fucomp", fcom(false, 1)),
  stack(0xdb, 5, "fucomi", fcomi(false, false)),
  stack(0xdb, 6, "fcomi", fcomi(true, false)),
  stack(0xdf, 5, "fucomip", fcomi(false, true)),
  stack(0xdf, 6, "fcomip", fcomi(true, true)),
  plain(0xd9, 4, 0, "fchs", fchs),
  plain(0xd9, 4, 1, "fabs", fabs),
  plain(0xd9, 4, 4, "ftst", ftst),
  plain(0xd9, 7, 2, "fsqrt", fsqrt),
  plain(0xd9, 7, 4, "frndint", frndint),
  memory(0xd9, 0, "fld", loadMemory(sourceBinary32)),
  memory(0xdd, 0, "fld", loadMemory(sourceBinary64)),
  memory(0xdb, 5, "fld", loadExtended),
  memory(0xdf, 0, "fild", loadMemory(sourceInt16)),
  memory(0xdb, 0, "fild", loadMemory(sourceInt32)),
  memory(0xdf, 5, "fild", loadMemory(sourceInt64)),
  stack(0xd9, 0, "fld", loadStack),
  memory(0xd9, 2, "fst", storeBinary32(false)),
  memory(0xd9, 3, "fstp", storeBinary32(true)),
  memory(0xdd, 2, "fst", storeBinary64(false)),
  memory(0xdd, 3, "fstp", storeBinary64(true)),
  memory(0xdb, 7, "fstp", storeExtended),
  memory(0xdf, 1, "fisttp", storeInteger(16, true, true)),
  memory(0xdb, 1, "fisttp", storeInteger(32, true, true)),
  memory(0xdd, 1, "fisttp", storeInteger(64, true, true)),
  memory(0xdf, 2, "fist", storeInteger(16, false, false)),
  memory(0xdb, 2, "fist", storeInteger(32, false, false)),
  memory(0xdf, 3, "fistp", storeInteger(16, false, true)),
  memory(0xdb, 3, "fistp", storeInteger(32, false, true)),
  memory(0xdf, 7, "fistp", storeInteger(64, false, true)),
  stack(0xdd, 2, "fst", storeStack(false)),
  stack(0xdd, 3, "fstp", storeStack(true)),
  stack(0xd9, 1, "fxch", fxch),
  // Encodings that the manuals do not list and every processor has.
  stack(0xdd, 1, "fxch", fxch),
  stack(0xdf, 1, "fxch", fxch),
  stack(0xd9, 3, "fstp", storeStack(true)),
  stack(0xdf, 2, "fstp", storeStack(true)),
  stack(0xdf, 3, "fstp", storeStack(true)),
  stack(0xda, 0, "fcmovb", fcmov(FLAG_CF, false)),
  stack(0xda, 1, "fcmove", fcmov(FLAG_ZF, false)),
  stack(0xda, 2, "fcmovbe", fcmov(FLAG_CF | FLAG_ZF, false)),
  stack(0xda, 3, "fcmovu", fcmov(FLAG_PF, false)),
  stack(0xdb, 0, "fcmovnb", fcmov(FLAG_CF, true)),
  stack(0xdb, 1, "fcmovne", fcmov(FLAG_ZF, true)),
  stack(0xdb, 2, "fcmovnbe", fcmov(FLAG_CF | FLAG_ZF, true)),
  stack(0xdb, 3, "fcmovnu", fcmov(FLAG_PF, true)),
];
