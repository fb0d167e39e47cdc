/**
 * Exact conversions: between formats, between floating point and integers, and to integral values.
 *
 * @module
 */

import { propagateNan1 } from "./arithmetic.ts";
import {
  FLAG_DENORMAL,
  FLAG_INEXACT,
  FLAG_INVALID,
  type FloatEnvironment,
  ROUND_DOWN,
  ROUND_NEAREST,
  ROUND_UP,
} from "./environment.ts";
import {
  bitLength,
  EXTENDED80,
  type FloatFormat,
  type FloatResult,
  KIND_INFINITY,
  KIND_QUIET_NAN,
  KIND_ZERO,
  type Operand,
  roundPack,
  setInfinity,
  setZero,
} from "./format.ts";

/**
 * Converts `a` to `format`, rounded to the format's full precision. `signalsDenormal`: a denormal operand is an
 * exception (loads and SSE, not x87 stores).
 */
export function convertFormat(
  env: FloatEnvironment,
  format: FloatFormat,
  a: Operand,
  signalsDenormal: boolean,
  out: FloatResult,
): void {
  if (a.kind >= KIND_QUIET_NAN) return propagateNan1(env, format, a, out);
  if (a.kind === KIND_INFINITY) return setInfinity(format, a.sign, out);
  if (a.kind === KIND_ZERO) return setZero(a.sign, out);
  if (a.denormal && signalsDenormal) {
    env.flags |= FLAG_DENORMAL;
    // SSE writes nothing then and reports nothing of the rounding; an x87 load is exact and takes place.
    if (format !== EXTENDED80 && env.unmasked(FLAG_DENORMAL)) return setZero(a.sign, out);
  }
  roundPack(env, format, format.precision, a.sign, a.exponent, a.significand, false, out);
}

/** Converts an integer to `format`. */
export function fromInteger(env: FloatEnvironment, format: FloatFormat, value: bigint, out: FloatResult): void {
  if (value === 0n) return setZero(0, out);
  const sign = value < 0n ? 1 : 0;
  roundPack(env, format, format.precision, sign, 0, sign ? -value : value, false, out);
}

/**
 * The magnitude of the finite operand `a` rounded to an integer. Sets `env.roundedUp` and, when `a` is not an integer,
 * the inexact flag.
 * The exponent of `a` must be small enough for the integer to be written down: callers exclude great numbers first.
 */
export function roundMagnitude(env: FloatEnvironment, a: Operand, rounding: number): bigint {
  env.roundedUp = false;
  if (a.exponent >= 0) return a.significand << BigInt(a.exponent);
  const length = bitLength(a.significand);
  // Less than a quarter: all that counts is that it is not zero.
  const far = -a.exponent > length + 1;
  const shift = BigInt(far ? length + 2 : -a.exponent);
  const quotient = a.significand >> shift;
  const rest = a.significand - (quotient << shift);
  if (rest === 0n) return quotient;
  env.flags |= FLAG_INEXACT;
  const half = 1n << (shift - 1n);
  const away = rounding === ROUND_NEAREST
    ? rest > half || (rest === half && (quotient & 1n) === 1n)
    : rounding === (a.sign === 0 ? ROUND_UP : ROUND_DOWN);
  env.roundedUp = away;
  return away ? quotient + 1n : quotient;
}

/**
 * Converts to a signed integer of `bits` bits. NaNs and values outside the range are invalid and give the integer
 * indefinite, the most negative value.
 */
export function toInteger(env: FloatEnvironment, a: Operand, bits: number, rounding: number): bigint {
  if (a.kind === KIND_ZERO) return 0n;
  const limit = 1n << BigInt(bits - 1);
  if (a.kind < KIND_INFINITY && a.exponent + bitLength(a.significand) <= bits + 1) {
    const before = env.flags;
    const magnitude = roundMagnitude(env, a, rounding);
    if (a.sign ? magnitude <= limit : magnitude < limit) return a.sign ? -magnitude : magnitude;
    env.flags = before;
  }
  env.roundedUp = false;
  env.flags |= FLAG_INVALID;
  return -limit;
}

/**
 * Rounds to an integral value of the same format. `signalsDenormal`: a denormal operand is an exception (FRNDINT, not
 * ROUNDPS and its kin).
 */
export function roundToIntegral(
  env: FloatEnvironment,
  format: FloatFormat,
  a: Operand,
  rounding: number,
  signalsDenormal: boolean,
  out: FloatResult,
): void {
  if (a.kind >= KIND_QUIET_NAN) return propagateNan1(env, format, a, out);
  if (a.kind === KIND_INFINITY) return setInfinity(format, a.sign, out);
  if (a.kind === KIND_ZERO) return setZero(a.sign, out);
  if (a.denormal && signalsDenormal) {
    env.flags |= FLAG_DENORMAL;
    if (env.unmasked(FLAG_DENORMAL)) return setZero(a.sign, out);
  }
  if (a.exponent >= 0) {
    roundPack(env, format, format.precision, a.sign, a.exponent, a.significand, false, out);
    return;
  }
  const magnitude = roundMagnitude(env, a, rounding);
  if (magnitude === 0n) return setZero(a.sign, out);
  const away = env.roundedUp;
  roundPack(env, format, format.precision, a.sign, 0, magnitude, false, out);
  env.roundedUp = away;
}
