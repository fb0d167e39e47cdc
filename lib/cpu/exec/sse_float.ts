/**
 * SSE and SSE2 floating-point arithmetic and comparisons, and the reciprocal approximations (AMD APM volume 4).
 *
 * The approximations RCPPS and RSQRTPS promise a relative error below 1.5 * 2^-12; here they deliver the nearest binary32, which differs from every processor's tables in the
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
import { R_I32 } from "../float/lanes.ts";
import { type Exec, type Insn, type OpcodeRow, row } from "../insn.ts";
import { FLAG_CF, FLAG_PF, FLAG_ZF } from "../state.ts";
import {
  beginFloat,
  endFloat,
  registerToA,
  requireSse,
  resultToRegister,
  source128,
  source32,
  source64,
  X,
} from "./sse_operand.ts";

/** An operation on one lane of the working registers. */
type LaneOperation = (lane: number) => void;

/** Four binary32 lanes. */
function packed32(operation: LaneOperation): Exec {
  return (cpu, i) => {
    requireSse(cpu);
    source128(cpu, i);
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
    registerToA(cpu, i.reg);
    beginFloat(cpu);
    operation(0);
    endFloat(cpu);
    cpu.s32[X + 4 * i.reg] = R_I32[0];
  };
}

/** The lower binary64 lane. */
function scalar64(operation: LaneOperation): Exec {
  return (cpu, i) => {
    requireSse(cpu);
    source64(cpu, i);
    registerToA(cpu, i.reg);
    beginFloat(cpu);
    operation(0);
    endFloat(cpu);
    cpu.s32[X + 4 * i.reg] = R_I32[0];
    cpu.s32[X + 4 * i.reg + 1] = R_I32[1];
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
    registerToA(cpu, i.reg);
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
    registerToA(cpu, i.reg);
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
