/**
 * The x87 operations that take numbers apart: partial remainder, scaling, extraction (Intel SDM volume 2, FPREM,
 * FPREM1, FSCALE, FXTRACT).
 *
 * @module
 */

import { invalid, propagateNan, propagateNan1 } from "./arithmetic.ts";
import { FLAG_DENORMAL, FLAG_ZERO_DIVIDE, type FloatEnvironment } from "./environment.ts";
import {
  bitLength,
  EXTENDED80,
  type FloatResult,
  KIND_INFINITY,
  KIND_QUIET_NAN,
  KIND_ZERO,
  type Operand,
  roundPack,
  setInfinity,
  setZero,
} from "./format.ts";

/** The quotient of the last {@linkcode remainder}: its lowest three bits, or -1 when the reduction is not complete. */
export let quotientBits = 0;

/** Exponent differences up to this are reduced at once. */
const COMPLETE_DIFFERENCE = 63;

/** Rounds the exact `significand * 2^exponent` to extended precision whatever the precision control says. */
function put(env: FloatEnvironment, sign: number, exponent: number, significand: bigint, out: FloatResult): void {
  if (significand === 0n) setZero(sign, out);
  else roundPack(env, EXTENDED80, 64, sign, exponent, significand, false, out);
}

function reportsDenormal(env: FloatEnvironment, a: Operand, b: Operand): boolean {
  if (!a.denormal && !b.denormal) return false;
  env.flags |= FLAG_DENORMAL;
  return env.unmasked(FLAG_DENORMAL);
}

/** FPREM, or FPREM1 with `nearest`: the remainder of `a / b`, or a partial one; `quotientBits` tells which. */
export function remainder(
  env: FloatEnvironment,
  a: Operand,
  b: Operand,
  nearest: boolean,
  out: FloatResult,
): void {
  quotientBits = 0;
  if (a.kind >= KIND_QUIET_NAN || b.kind >= KIND_QUIET_NAN) return propagateNan(env, EXTENDED80, a, b, out);
  if (a.kind === KIND_INFINITY || b.kind === KIND_ZERO) return invalid(env, EXTENDED80, out);
  if (reportsDenormal(env, a, b)) return setZero(a.sign, out);
  if (a.kind === KIND_ZERO) return setZero(a.sign, out);
  if (b.kind === KIND_INFINITY) return put(env, a.sign, a.exponent, a.significand, out);
  const difference = a.exponent + bitLength(a.significand) - b.exponent - bitLength(b.significand);
  if (difference < -1) return put(env, a.sign, a.exponent, a.significand, out);
  if (difference > COMPLETE_DIFFERENCE) return reducePartially(env, a, b, difference, out);
  const exponent = Math.min(a.exponent, b.exponent);
  const dividend = a.significand << BigInt(a.exponent - exponent);
  const divisor = b.significand << BigInt(b.exponent - exponent);
  let quotient = dividend / divisor;
  let rest = dividend - quotient * divisor;
  let sign = a.sign;
  if (nearest) {
    const twice = rest << 1n;
    if (twice > divisor || (twice === divisor && (quotient & 1n) === 1n)) {
      quotient++;
      rest = divisor - rest;
      sign ^= 1;
    }
  }
  quotientBits = Number(quotient & 7n);
  put(env, rest === 0n ? a.sign : sign, exponent, rest, out);
}

/** Takes away as much as a step of the hardware does: between 32 and 63 bits of the quotient. */
function reducePartially(
  env: FloatEnvironment,
  a: Operand,
  b: Operand,
  difference: number,
  out: FloatResult,
): void {
  quotientBits = -1;
  const bits = (difference & 31) | 32;
  // The divisor, moved up so that the quotient has about `bits` bits.
  const divisorExponent = b.exponent + difference - bits;
  const exponent = Math.min(a.exponent, divisorExponent);
  const dividend = a.significand << BigInt(a.exponent - exponent);
  const divisor = b.significand << BigInt(divisorExponent - exponent);
  put(env, a.sign, exponent, dividend % divisor, out);
}

/** Exponents beyond this overflow or underflow whatever the operand. */
const SCALE_MAX = 0x10000;

/** FSCALE: `a * 2^trunc(b)`. */
export function scale(env: FloatEnvironment, a: Operand, b: Operand, out: FloatResult): void {
  if (a.kind >= KIND_QUIET_NAN || b.kind >= KIND_QUIET_NAN) return propagateNan(env, EXTENDED80, a, b, out);
  if (b.kind === KIND_INFINITY) {
    if (b.sign === 0 ? a.kind === KIND_ZERO : a.kind === KIND_INFINITY) return invalid(env, EXTENDED80, out);
    if (reportsDenormal(env, a, b)) return setZero(a.sign, out);
    if (b.sign === 0) return setInfinity(EXTENDED80, a.sign, out);
    return setZero(a.sign, out);
  }
  if (reportsDenormal(env, a, b)) return setZero(a.sign, out);
  if (a.kind === KIND_INFINITY) return setInfinity(EXTENDED80, a.sign, out);
  if (a.kind === KIND_ZERO) return setZero(a.sign, out);
  let by = 0;
  if (b.kind !== KIND_ZERO) {
    const magnitudeBits = b.exponent + bitLength(b.significand);
    if (magnitudeBits > 17) by = SCALE_MAX;
    else if (magnitudeBits > 0) {
      by = Number(b.exponent >= 0 ? b.significand << BigInt(b.exponent) : b.significand >> BigInt(-b.exponent));
    }
    if (b.sign === 1) by = -by;
  }
  roundPack(env, EXTENDED80, 64, a.sign, a.exponent + by, a.significand, false, out);
}

/** FXTRACT: the significand of `a`, between 1 and 2, to `significand`, and its exponent as a number to `exponent`. */
export function extract(
  env: FloatEnvironment,
  a: Operand,
  significand: FloatResult,
  exponent: FloatResult,
): void {
  if (a.kind >= KIND_QUIET_NAN) {
    propagateNan1(env, EXTENDED80, a, significand);
    propagateNan1(env, EXTENDED80, a, exponent);
    return;
  }
  if (a.kind === KIND_INFINITY) {
    setInfinity(EXTENDED80, a.sign, significand);
    setInfinity(EXTENDED80, 0, exponent);
    return;
  }
  if (a.kind === KIND_ZERO) {
    env.flags |= FLAG_ZERO_DIVIDE;
    setZero(a.sign, significand);
    setInfinity(EXTENDED80, 1, exponent);
    return;
  }
  if (reportsDenormal(env, a, a)) return;
  const length = bitLength(a.significand);
  const value = a.exponent + length - 1;
  put(env, a.sign, 1 - length, a.significand, significand);
  put(env, value < 0 ? 1 : 0, 0, BigInt(Math.abs(value)), exponent);
}
