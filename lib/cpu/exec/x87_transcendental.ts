/**
 * x87 transcendental instructions (Intel SDM volume 2): stack discipline; the mathematics is in
 * `float/transcendental.ts`.
 *
 * @module
 */

import type { Cpu } from "../cpu.ts";
import { FLAG_INVALID } from "../float/environment.ts";
import { FloatResult, KIND_FINITE, KIND_ZERO, Operand } from "../float/format.ts";
import { angle, cosine, exponential, isOutOfRange, sine, tangent, yLog2, yLog2Plus1 } from "../float/transcendental.ts";
import { type Exec, type OpcodeRow, row } from "../insn.ts";
import {
  beginX87,
  finish,
  FSW,
  FSW_C2,
  isEmpty,
  loadRegister,
  pop,
  preparePush,
  putBits,
  putDefaultNan,
  putRegister,
  turnStack,
  underflow,
  x87,
  x87Result,
} from "./x87_stack.ts";

const first = new Operand();
const second = new Operand();
const pushed = new FloatResult();

/** Exponent and significand of 1. */
const ONE_EXPONENT = 0x3fff;
const ONE_SIGNIFICAND = 1n << 63n;

/** F2XM1. */
function f2xm1(cpu: Cpu): void {
  beginX87(cpu);
  if (isEmpty(cpu, 0)) {
    if (underflow(cpu)) putDefaultNan(cpu, 0);
    return;
  }
  loadRegister(cpu, 0, first);
  exponential(x87, first, x87Result);
  if (finish(cpu)) putRegister(cpu, 0, x87Result);
}

/** FYL2X, FYL2XP1, FPATAN: of ST(0) and ST(1); the result replaces ST(1) and ST(0) is popped. */
function ofTwo(operation: () => void): Exec {
  return (cpu) => {
    beginX87(cpu);
    if (isEmpty(cpu, 0) || isEmpty(cpu, 1)) {
      if (!underflow(cpu)) return;
      putDefaultNan(cpu, 1);
    } else {
      loadRegister(cpu, 0, first);
      loadRegister(cpu, 1, second);
      operation();
      if (!finish(cpu)) return;
      putRegister(cpu, 1, x87Result);
    }
    pop(cpu);
  };
}

/**
 * Loads ST(0) for a trigonometric function. False when there is nothing to compute: stack fault, or out of range, which
 * sets C2.
 */
function loadAngle(cpu: Cpu): boolean {
  beginX87(cpu);
  cpu.s16[FSW] &= ~FSW_C2;
  if (isEmpty(cpu, 0)) {
    if (underflow(cpu)) putDefaultNan(cpu, 0);
    return false;
  }
  loadRegister(cpu, 0, first);
  if (!isOutOfRange(first)) return true;
  cpu.s16[FSW] |= FSW_C2;
  return false;
}

/** FSIN, FCOS. */
function ofAngle(operation: () => void): Exec {
  return (cpu) => {
    if (!loadAngle(cpu)) return;
    operation();
    if (finish(cpu)) putRegister(cpu, 0, x87Result);
  };
}

/**
 * Whether ST(7) is free for the second result; otherwise the stack overflow is reported, and when masked both results
 * are default NaNs.
 */
function roomForSecond(cpu: Cpu): boolean {
  if (preparePush(cpu)) return true;
  if (!x87.unmasked(FLAG_INVALID)) putDefaultNan(cpu, 1);
  return false;
}

/** FSINCOS: the sine replaces ST(0), then the cosine is pushed. */
function fsincos(cpu: Cpu): void {
  if (!loadAngle(cpu) || !roomForSecond(cpu)) return;
  sine(x87, first, x87Result);
  cosine(x87, first, pushed);
  if (!finish(cpu)) return;
  putRegister(cpu, 0, x87Result);
  turnStack(cpu, -1);
  putRegister(cpu, 0, pushed);
}

/** FPTAN: the tangent replaces ST(0), then 1 is pushed (the NaN again when there is no tangent). */
function fptan(cpu: Cpu): void {
  if (!loadAngle(cpu) || !roomForSecond(cpu)) return;
  tangent(x87, first, x87Result);
  if (!finish(cpu)) return;
  putRegister(cpu, 0, x87Result);
  turnStack(cpu, -1);
  if (first.kind === KIND_FINITE || first.kind === KIND_ZERO) putBits(cpu, 0, ONE_EXPONENT, ONE_SIGNIFICAND);
  else putRegister(cpu, 0, x87Result);
}

function plain(reg: number, rm: number, name: string, exec: Exec): OpcodeRow {
  return row("1", 0xd9, name, "", exec, { reg, rm, mod: "reg" });
}

/** The opcode rows of this file. */
export const rows: readonly OpcodeRow[] = [
  plain(6, 0, "f2xm1", f2xm1),
  plain(6, 1, "fyl2x", ofTwo(() => yLog2(x87, first, second, x87Result))),
  plain(6, 2, "fptan", fptan),
  plain(6, 3, "fpatan", ofTwo(() => angle(x87, first, second, x87Result))),
  plain(7, 1, "fyl2xp1", ofTwo(() => yLog2Plus1(x87, first, second, x87Result))),
  plain(7, 3, "fsincos", fsincos),
  plain(7, 6, "fsin", ofAngle(() => sine(x87, first, x87Result))),
  plain(7, 7, "fcos", ofAngle(() => cosine(x87, first, x87Result))),
];
