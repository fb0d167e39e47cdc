/**
 * SSE and SSE2 floating-point arithmetic and comparisons, and the reciprocal approximations (AMD APM volume 4).
 *
 * The approximations RCPPS and RSQRTPS promise a relative error below 1.5 * 2^-12; here they deliver the nearest
 * binary32, which differs from every processor's tables in the
 * lower bits.
 *
 * @module
 */

import type { Cpu } from "../cpu.ts";
import {
  add32,
  cmp32,
  compare32,
  div32,
  max32,
  min32,
  mul32,
  rcp32,
  rsqrt32,
  sqrt32,
  sub32,
} from "../float/binary32.ts";
import { add64, cmp64, compare64, div64, max64, min64, mul64, sqrt64, sub64 } from "../float/binary64.ts";
import { A_I32, A_U64, B_F32, B_F64, R_I32, R_U64 } from "../float/lanes.ts";
import { type Exec, type Insn, type OpcodeRow, row } from "../insn.ts";
import { FLAG_CF, FLAG_PF, FLAG_ZF } from "../state.ts";
import {
  beginFloat,
  endFloat,
  registerToA,
  requireSse,
  resultToRegister,
  roundsQuietly,
  source128,
  source32,
  source64,
  X,
  X64,
} from "./sse_operand.ts";

/** An operation on one lane of the working registers. */
type LaneOperation = (lane: number) => void;

/** Opcodes of the operations that have a quick path. */
const OPCODE_ADD = 0x58;
const OPCODE_MUL = 0x59;
const OPCODE_SUB = 0x5c;
const OPCODE_DIV = 0x5e;

const MIN_NORMAL_32 = 2 ** -126;
const MIN_NORMAL_64 = 2 ** -1022;

/**
 * The binary64 result of the operation, or NaN when the exact way must be gone: an operand or the result is neither
 * zero nor a normal number.
 */
function quick64(opcode: number, x: number, y: number): number {
  const magnitudeX = Math.abs(x);
  const magnitudeY = Math.abs(y);
  if ((magnitudeX < MIN_NORMAL_64 && x !== 0) || (magnitudeY < MIN_NORMAL_64 && y !== 0)) return NaN;
  let r: number;
  switch (opcode) {
    case OPCODE_ADD:
      r = x + y;
      break;
    case OPCODE_SUB:
      r = x - y;
      break;
    case OPCODE_MUL:
      r = x * y;
      if (r === 0 && (x === 0 || y === 0)) return r;
      break;
    case OPCODE_DIV:
      r = x / y;
      break;
    default:
      return NaN;
  }
  const magnitude = Math.abs(r);
  // A sum is exact where it is this small; a product or quotient at the border may have been rounded up to it.
  if (magnitude > MIN_NORMAL_64 && magnitude < Infinity && magnitudeX < Infinity && magnitudeY < Infinity) return r;
  return r === 0 && (opcode === OPCODE_ADD || opcode === OPCODE_SUB) ? r : NaN;
}

/** As `quick64` for binary32; see `binary32.ts` for the double rounding. */
function quick32(opcode: number, x: number, y: number): number {
  const magnitudeX = Math.abs(x);
  const magnitudeY = Math.abs(y);
  if ((magnitudeX < MIN_NORMAL_32 && x !== 0) || (magnitudeY < MIN_NORMAL_32 && y !== 0)) return NaN;
  let r: number;
  switch (opcode) {
    case OPCODE_ADD:
      r = Math.fround(x + y);
      break;
    case OPCODE_SUB:
      r = Math.fround(x - y);
      break;
    case OPCODE_MUL:
      r = Math.fround(x * y);
      if (r === 0 && (x === 0 || y === 0)) return r;
      break;
    case OPCODE_DIV:
      r = Math.fround(x / y);
      break;
    default:
      return NaN;
  }
  const magnitude = Math.abs(r);
  if (magnitude > MIN_NORMAL_32 && magnitude < Infinity && magnitudeX < Infinity && magnitudeY < Infinity) return r;
  return r === 0 && (opcode === OPCODE_ADD || opcode === OPCODE_SUB) ? r : NaN;
}

/** Four binary32 lanes. */
function packed32(operation: LaneOperation): Exec {
  return (cpu, i) => {
    requireSse(cpu);
    source128(cpu, i);
    if (roundsQuietly(cpu)) {
      const f32 = cpu.sf32;
      const at = X + 4 * i.reg;
      const opcode = i.opcode;
      const r0 = quick32(opcode, f32[at], B_F32[0]);
      const r1 = quick32(opcode, f32[at + 1], B_F32[1]);
      const r2 = quick32(opcode, f32[at + 2], B_F32[2]);
      const r3 = quick32(opcode, f32[at + 3], B_F32[3]);
      if (r0 === r0 && r1 === r1 && r2 === r2 && r3 === r3) {
        f32[at] = r0;
        f32[at + 1] = r1;
        f32[at + 2] = r2;
        f32[at + 3] = r3;
        return;
      }
    }
    registerToA(cpu, i.reg);
    beginFloat(cpu);
    operation(0);
    operation(1);
    operation(2);
    operation(3);
    endFloat(cpu);
    resultToRegister(cpu, i.reg);
  };
}

/** Two binary64 lanes. */
function packed64(operation: LaneOperation): Exec {
  return (cpu, i) => {
    requireSse(cpu);
    source128(cpu, i);
    if (roundsQuietly(cpu)) {
      const f64 = cpu.sf64;
      const at = X64 + 2 * i.reg;
      const r0 = quick64(i.opcode, f64[at], B_F64[0]);
      const r1 = quick64(i.opcode, f64[at + 1], B_F64[1]);
      if (r0 === r0 && r1 === r1) {
        f64[at] = r0;
        f64[at + 1] = r1;
        return;
      }
    }
    registerToA(cpu, i.reg);
    beginFloat(cpu);
    operation(0);
    operation(1);
    endFloat(cpu);
    resultToRegister(cpu, i.reg);
  };
}

/** The lowest binary32 lane. */
function scalar32(operation: LaneOperation): Exec {
  return (cpu, i) => {
    requireSse(cpu);
    source32(cpu, i);
    const at = X + 4 * i.reg;
    if (roundsQuietly(cpu)) {
      const r = quick32(i.opcode, cpu.sf32[at], B_F32[0]);
      if (r === r) {
        cpu.sf32[at] = r;
        return;
      }
    }
    A_I32[0] = cpu.s32[at];
    beginFloat(cpu);
    operation(0);
    endFloat(cpu);
    cpu.s32[at] = R_I32[0];
  };
}

/** The lower binary64 lane. */
function scalar64(operation: LaneOperation): Exec {
  return (cpu, i) => {
    requireSse(cpu);
    source64(cpu, i);
    const at = X64 + 2 * i.reg;
    if (roundsQuietly(cpu)) {
      const r = quick64(i.opcode, cpu.sf64[at], B_F64[0]);
      if (r === r) {
        cpu.sf64[at] = r;
        return;
      }
    }
    A_U64[0] = cpu.s64[at];
    beginFloat(cpu);
    operation(0);
    endFloat(cpu);
    cpu.s64[at] = R_U64[0];
  };
}

/** The predicate of a comparison's immediate byte; the upper bits are ignored. */
function predicate(i: Insn): number {
  return i.immLo & 7;
}

/** CMPPS. */
function cmpps(cpu: Cpu, i: Insn): void {
  requireSse(cpu);
  source128(cpu, i);
  registerToA(cpu, i.reg);
  beginFloat(cpu);
  for (let k = 0; k < 4; k++) cmp32(k, predicate(i));
  endFloat(cpu);
  resultToRegister(cpu, i.reg);
}

/** CMPPD. */
function cmppd(cpu: Cpu, i: Insn): void {
  requireSse(cpu);
  source128(cpu, i);
  registerToA(cpu, i.reg);
  beginFloat(cpu);
  for (let k = 0; k < 2; k++) cmp64(k, predicate(i));
  endFloat(cpu);
  resultToRegister(cpu, i.reg);
}

/** CMPSS. */
function cmpss(cpu: Cpu, i: Insn): void {
  requireSse(cpu);
  source32(cpu, i);
  registerToA(cpu, i.reg);
  beginFloat(cpu);
  cmp32(0, predicate(i));
  endFloat(cpu);
  cpu.s32[X + 4 * i.reg] = R_I32[0];
}

/** CMPSD. */
function cmpsd(cpu: Cpu, i: Insn): void {
  requireSse(cpu);
  source64(cpu, i);
  registerToA(cpu, i.reg);
  beginFloat(cpu);
  cmp64(0, predicate(i));
  endFloat(cpu);
  cpu.s32[X + 4 * i.reg] = R_I32[0];
  cpu.s32[X + 4 * i.reg + 1] = R_I32[1];
}

/** RFLAGS for less, equal, greater, unordered. */
const COMPARE_FLAGS = [FLAG_CF, FLAG_ZF, 0, FLAG_ZF | FLAG_PF | FLAG_CF];

/** COMISS (`quietIsInvalid`), UCOMISS. */
function comiss(quietIsInvalid: boolean): Exec {
  return (cpu, i) => {
    requireSse(cpu);
    source32(cpu, i);
    A_I32[0] = cpu.s32[X + 4 * i.reg];
    beginFloat(cpu);
    const relation = compare32(0, quietIsInvalid);
    endFloat(cpu);
    cpu.setArith(COMPARE_FLAGS[relation + 1]);
  };
}

/** COMISD (`quietIsInvalid`), UCOMISD. */
function comisd(quietIsInvalid: boolean): Exec {
  return (cpu, i) => {
    requireSse(cpu);
    source64(cpu, i);
    A_U64[0] = cpu.s64[X64 + 2 * i.reg];
    beginFloat(cpu);
    const relation = compare64(0, quietIsInvalid);
    endFloat(cpu);
    cpu.setArith(COMPARE_FLAGS[relation + 1]);
  };
}

/** The four rows of an operation: PS, PD, SS, SD. */
function arithmetic(
  opcode: number,
  name: string,
  operation32: LaneOperation,
  operation64: LaneOperation,
): OpcodeRow[] {
  return [
    row("0f", opcode, `${name}ps`, "V,W", packed32(operation32), { prefix: "none" }),
    row("0f", opcode, `${name}pd`, "V,W", packed64(operation64), { prefix: "66" }),
    row("0f", opcode, `${name}ss`, "V,W", scalar32(operation32), { prefix: "f3" }),
    row("0f", opcode, `${name}sd`, "V,W", scalar64(operation64), { prefix: "f2" }),
  ];
}

/** The opcode rows of this file. */
export const rows: readonly OpcodeRow[] = [
  row("0f", 0x2e, "ucomiss", "V,W", comiss(false), { prefix: "none" }),
  row("0f", 0x2e, "ucomisd", "V,W", comisd(false), { prefix: "66" }),
  row("0f", 0x2f, "comiss", "V,W", comiss(true), { prefix: "none" }),
  row("0f", 0x2f, "comisd", "V,W", comisd(true), { prefix: "66" }),
  ...arithmetic(0x51, "sqrt", sqrt32, sqrt64),
  row("0f", 0x52, "rsqrtps", "V,W", packed32(rsqrt32), { prefix: "none" }),
  row("0f", 0x52, "rsqrtss", "V,W", scalar32(rsqrt32), { prefix: "f3" }),
  row("0f", 0x53, "rcpps", "V,W", packed32(rcp32), { prefix: "none" }),
  row("0f", 0x53, "rcpss", "V,W", scalar32(rcp32), { prefix: "f3" }),
  ...arithmetic(0x58, "add", add32, add64),
  ...arithmetic(0x59, "mul", mul32, mul64),
  ...arithmetic(0x5c, "sub", sub32, sub64),
  ...arithmetic(0x5d, "min", min32, min64),
  ...arithmetic(0x5e, "div", div32, div64),
  ...arithmetic(0x5f, "max", max32, max64),
  row("0f", 0xc2, "cmpps", "V,W,Ib", cmpps, { prefix: "none" }),
  row("0f", 0xc2, "cmppd", "V,W,Ib", cmppd, { prefix: "66" }),
  row("0f", 0xc2, "cmpss", "V,W,Ib", cmpss, { prefix: "f3" }),
  row("0f", 0xc2, "cmpsd", "V,W,Ib", cmpsd, { prefix: "f2" }),
];
