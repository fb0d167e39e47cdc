/**
 * Exact arithmetic on operands taken apart: add, subtract, multiply, divide, square root, compare, and the rules for
 * NaNs.
 *
 * Priority of exceptions and choice of the NaN: Intel SDM volume 1, 4.9.2 and table 4-7; AMD APM volume 1, 4.10 and
 * 6.8.
 *
 * @module
 */

import { FLAG_DENORMAL, FLAG_INVALID, FLAG_ZERO_DIVIDE, type FloatEnvironment, ROUND_DOWN } from "./environment.ts";
import {
  bitLength,
  type FloatFormat,
  type FloatResult,
  KIND_FINITE,
  KIND_INFINITY,
  KIND_QUIET_NAN,
  KIND_SIGNALLING_NAN,
  KIND_UNSUPPORTED,
  KIND_ZERO,
  type Operand,
  roundPack,
  setDefaultNan,
  setInfinity,
  setNan,
  setZero,
} from "./format.ts";

/** The bits of significand that arithmetic in `format` delivers: precision control applies to x87 alone. */
function precisionOf(env: FloatEnvironment, format: FloatFormat): number {
  return format.extended ? env.precision : format.precision;
}

/** Reports an invalid operation; the result is the default NaN. */
export function invalid(env: FloatEnvironment, format: FloatFormat, out: FloatResult): void {
  env.flags |= FLAG_INVALID;
  setDefaultNan(format, out);
}

/** The result of an operation of one operand that has no value. */
export function propagateNan1(env: FloatEnvironment, format: FloatFormat, a: Operand, out: FloatResult): void {
  if (a.kind === KIND_UNSUPPORTED) {
    invalid(env, format, out);
    return;
  }
  if (a.kind === KIND_SIGNALLING_NAN) env.flags |= FLAG_INVALID;
  setNan(format, a.sign, a.significand, out);
}

/** The result of an operation of two operands of which at least one has no value. */
export function propagateNan(
  env: FloatEnvironment,
  format: FloatFormat,
  a: Operand,
  b: Operand,
  out: FloatResult,
): void {
  if (a.kind === KIND_UNSUPPORTED || b.kind === KIND_UNSUPPORTED) {
    invalid(env, format, out);
    return;
  }
  if (a.kind === KIND_SIGNALLING_NAN || b.kind === KIND_SIGNALLING_NAN) env.flags |= FLAG_INVALID;
  let chosen = a;
  if (a.kind < KIND_QUIET_NAN) {
    chosen = b;
  } else if (format.extended && b.kind >= KIND_QUIET_NAN) {
    // x87 takes the quiet one of a quiet and a signalling NaN, else the greater significand, else the positive one.
    if (a.kind !== b.kind) chosen = a.kind === KIND_QUIET_NAN ? a : b;
    else if (a.significand !== b.significand) chosen = a.significand > b.significand ? a : b;
    else chosen = a.sign === 0 ? a : b;
  }
  setNan(format, chosen.sign, chosen.significand, out);
}

/** Reports denormal operands. True when that exception is not masked, so that no result is computed. */
function denormalStops(env: FloatEnvironment, a: Operand, b: Operand, out: FloatResult): boolean {
  if (!a.denormal && !b.denormal) return false;
  env.flags |= FLAG_DENORMAL;
  if (!env.unmasked(FLAG_DENORMAL)) return false;
  setZero(0, out);
  return true;
}

/** Makes `out` the value of `a`, which is finite and fits the format. */
function setValue(
  env: FloatEnvironment,
  format: FloatFormat,
  a: Operand,
  sign: number,
  out: FloatResult,
): void {
  roundPack(env, format, precisionOf(env, format), sign, a.exponent, a.significand, false, out);
}

/**
 * Beyond this distance of the leading bits the smaller addend only decides roundings: two significands of 64 bits and
 * room for guard bits.
 */
const ADD_DISTANCE_MAX = 140;
/** Guard bits below an addend whose partner is that far away: more than any precision. */
const ADD_GUARD = 70n;

/** `a + b`, or `a - b` with `negate` 1. */
export function add(
  env: FloatEnvironment,
  format: FloatFormat,
  a: Operand,
  b: Operand,
  negate: number,
  out: FloatResult,
): void {
  if (a.kind >= KIND_QUIET_NAN || b.kind >= KIND_QUIET_NAN) return propagateNan(env, format, a, b, out);
  const signB = b.sign ^ negate;
  if (a.kind === KIND_INFINITY && b.kind === KIND_INFINITY && a.sign !== signB) return invalid(env, format, out);
  if (denormalStops(env, a, b, out)) return;
  if (a.kind === KIND_INFINITY) return setInfinity(format, a.sign, out);
  if (b.kind === KIND_INFINITY) return setInfinity(format, signB, out);
  if (b.kind === KIND_ZERO) {
    if (a.kind !== KIND_ZERO) return setValue(env, format, a, a.sign, out);
    return setZero(a.sign === signB ? a.sign : env.rounding === ROUND_DOWN ? 1 : 0, out);
  }
  if (a.kind === KIND_ZERO) return setValue(env, format, b, signB, out);

  const topA = a.exponent + bitLength(a.significand);
  const topB = b.exponent + bitLength(b.significand);
  if (Math.abs(topA - topB) > ADD_DISTANCE_MAX) {
    const large = topA > topB ? a : b;
    const sign = topA > topB ? a.sign : signB;
    const wide = large.significand << ADD_GUARD;
    const significand = a.sign === signB ? wide : wide - 1n;
    roundPack(
      env,
      format,
      precisionOf(env, format),
      sign,
      large.exponent - Number(ADD_GUARD),
      significand,
      true,
      out,
    );
    return;
  }
  const exponent = Math.min(a.exponent, b.exponent);
  const alignedA = a.significand << BigInt(a.exponent - exponent);
  const alignedB = b.significand << BigInt(b.exponent - exponent);
  const sum = (a.sign ? -alignedA : alignedA) + (signB ? -alignedB : alignedB);
  if (sum === 0n) return setZero(env.rounding === ROUND_DOWN ? 1 : 0, out);
  const sign = sum < 0n ? 1 : 0;
  roundPack(env, format, precisionOf(env, format), sign, exponent, sign ? -sum : sum, false, out);
}

/** `a * b`. */
export function multiply(env: FloatEnvironment, format: FloatFormat, a: Operand, b: Operand, out: FloatResult): void {
  if (a.kind >= KIND_QUIET_NAN || b.kind >= KIND_QUIET_NAN) return propagateNan(env, format, a, b, out);
  const sign = a.sign ^ b.sign;
  const infinite = a.kind === KIND_INFINITY || b.kind === KIND_INFINITY;
  const zero = a.kind === KIND_ZERO || b.kind === KIND_ZERO;
  if (infinite && zero) return invalid(env, format, out);
  if (denormalStops(env, a, b, out)) return;
  if (infinite) return setInfinity(format, sign, out);
  if (zero) return setZero(sign, out);
  const precision = precisionOf(env, format);
  roundPack(env, format, precision, sign, a.exponent + b.exponent, a.significand * b.significand, false, out);
}

/** `a / b`. */
export function divide(env: FloatEnvironment, format: FloatFormat, a: Operand, b: Operand, out: FloatResult): void {
  if (a.kind >= KIND_QUIET_NAN || b.kind >= KIND_QUIET_NAN) return propagateNan(env, format, a, b, out);
  const sign = a.sign ^ b.sign;
  if (a.kind === KIND_INFINITY && b.kind === KIND_INFINITY) return invalid(env, format, out);
  if (b.kind === KIND_ZERO) {
    if (a.kind === KIND_ZERO) return invalid(env, format, out);
    // Infinity divided by zero is exact.
    if (a.kind !== KIND_INFINITY) env.flags |= FLAG_ZERO_DIVIDE;
    return setInfinity(format, sign, out);
  }
  if (denormalStops(env, a, b, out)) return;
  if (a.kind === KIND_INFINITY) return setInfinity(format, sign, out);
  if (a.kind === KIND_ZERO || b.kind === KIND_INFINITY) return setZero(sign, out);
  const precision = precisionOf(env, format);
  const shift = Math.max(0, precision + 2 + bitLength(b.significand) - bitLength(a.significand));
  const dividend = a.significand << BigInt(shift);
  const quotient = dividend / b.significand;
  const sticky = quotient * b.significand !== dividend;
  roundPack(env, format, precision, sign, a.exponent - b.exponent - shift, quotient, sticky, out);
}

/** The greatest integer whose square is at most `x`. */
export function integerSquareRoot(x: bigint): bigint {
  if (x === 0n) return 0n;
  let root = 1n << BigInt((bitLength(x) + 1) >> 1);
  while (true) {
    const next = (root + x / root) >> 1n;
    if (next >= root) return root;
    root = next;
  }
}

/** The square root of `a`. */
export function squareRoot(env: FloatEnvironment, format: FloatFormat, a: Operand, out: FloatResult): void {
  if (a.kind >= KIND_QUIET_NAN) return propagateNan1(env, format, a, out);
  if (a.kind === KIND_ZERO) return setZero(a.sign, out);
  if (a.sign === 1) return invalid(env, format, out);
  if (denormalStops(env, a, a, out)) return;
  if (a.kind === KIND_INFINITY) return setInfinity(format, 0, out);
  const precision = precisionOf(env, format);
  let shift = Math.max(0, 2 * (precision + 2) - bitLength(a.significand));
  if (((a.exponent - shift) & 1) !== 0) shift++;
  const radicand = a.significand << BigInt(shift);
  const root = integerSquareRoot(radicand);
  roundPack(env, format, precision, 0, (a.exponent - shift) / 2, root, root * root !== radicand, out);
}

/** Comparison: the first operand is smaller. */
export const COMPARE_LESS = -1;
/** Comparison: the operands are equal. */
export const COMPARE_EQUAL = 0;
/** Comparison: the first operand is greater. */
export const COMPARE_GREATER = 1;
/** Comparison: an operand is a NaN. */
export const COMPARE_UNORDERED = 2;

/** Compares the magnitudes of two operands that are not NaNs. */
function compareMagnitude(a: Operand, b: Operand): number {
  if (a.kind !== b.kind) return a.kind < b.kind ? COMPARE_LESS : COMPARE_GREATER;
  if (a.kind !== KIND_FINITE) return COMPARE_EQUAL;
  const topA = a.exponent + bitLength(a.significand);
  const topB = b.exponent + bitLength(b.significand);
  if (topA !== topB) return topA < topB ? COMPARE_LESS : COMPARE_GREATER;
  const exponent = Math.min(a.exponent, b.exponent);
  const alignedA = a.significand << BigInt(a.exponent - exponent);
  const alignedB = b.significand << BigInt(b.exponent - exponent);
  return alignedA === alignedB ? COMPARE_EQUAL : alignedA < alignedB ? COMPARE_LESS : COMPARE_GREATER;
}

/** Compares, one of `COMPARE_*`. A signalling NaN is invalid; a quiet one only with `quietIsInvalid`. */
export function compare(env: FloatEnvironment, a: Operand, b: Operand, quietIsInvalid: boolean): number {
  if (a.kind >= KIND_QUIET_NAN || b.kind >= KIND_QUIET_NAN) {
    if (quietIsInvalid || a.kind >= KIND_SIGNALLING_NAN || b.kind >= KIND_SIGNALLING_NAN) env.flags |= FLAG_INVALID;
    return COMPARE_UNORDERED;
  }
  if (a.denormal || b.denormal) env.flags |= FLAG_DENORMAL;
  if (a.kind === KIND_ZERO && b.kind === KIND_ZERO) return COMPARE_EQUAL;
  const signA = a.kind === KIND_ZERO ? b.sign ^ 1 : a.sign;
  const signB = b.kind === KIND_ZERO ? a.sign ^ 1 : b.sign;
  if (signA !== signB) return signA === 1 ? COMPARE_LESS : COMPARE_GREATER;
  const magnitude = compareMagnitude(a, b);
  return magnitude === COMPARE_EQUAL ? COMPARE_EQUAL : signA === 1 ? -magnitude : magnitude;
}
