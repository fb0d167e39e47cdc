/**
 * The x87 transcendental functions: F2XM1, FYL2X, FYL2XP1, FSIN, FCOS, FPTAN, FPATAN (Intel SDM volume 1, 8.3.7; volume
 * 2).
 *
 * They are computed in fixed point with far more bits than the result has, and rounded once. Processors promise less
 * (an error below one unit in the last place), so that
 * their last bit can differ.
 *
 * @module
 */

import { invalid, propagateNan, propagateNan1 } from "./arithmetic.ts";
import { FLAG_DENORMAL, FLAG_INEXACT, FLAG_UNDERFLOW, FLAG_ZERO_DIVIDE, type FloatEnvironment } from "./environment.ts";
import {
  bitLength,
  EXTENDED80,
  type FloatResult,
  KIND_FINITE,
  KIND_INFINITY,
  KIND_QUIET_NAN,
  KIND_ZERO,
  type Operand,
  roundPack,
  setInfinity,
  setZero,
} from "./format.ts";

/** Bits after the point. */
const POINT = 512;
const SHIFT = BigInt(POINT);
const ONE = 1n << SHIFT;
/** Arguments below 2 to this are so small that the first term of the series decides the result. */
const TINY_EXPONENT = -140;
/** Arguments of the trigonometric functions must be below 2 to this. */
const TRIGONOMETRIC_EXPONENT_MAX = 63;
/** Guard bits under a value that is a little less, or more, than a number. */
const GUARD = 80n;

function times(a: bigint, b: bigint): bigint {
  return (a * b) >> SHIFT;
}

/**
 * The sum of x^n/n (n odd), with alternating signs (arctangent) or not (hyperbolic arctangent), for |x| well below 1.
 */
function oddSeries(x: bigint, alternating: boolean): bigint {
  const square = times(x, x);
  let power = x;
  let sum = 0n;
  for (let n = 1n; power !== 0n && power !== -1n; n += 2n) {
    sum += alternating && (n & 2n) !== 0n ? -(power / n) : power / n;
    power = times(power, square);
  }
  return sum;
}

/** Machin's formula. */
const PI = 16n * oddSeries(ONE / 5n, true) - 4n * oddSeries(ONE / 239n, true);
const HALF_PI = PI >> 1n;
/**
 * Bits of the value of pi with which processors reduce the arguments of trigonometric functions (Intel SDM volume 1,
 * 8.3.8), and that value. A better one would be
 * more accurate far from zero than any processor.
 */
const REDUCTION_BITS = 66;
const REDUCTION_DROP = BigInt(POINT + 2 - REDUCTION_BITS);
const REDUCTION_PI = (PI >> REDUCTION_DROP) << REDUCTION_DROP;
/** ln 2 = 2 artanh(1/3). */
const LN2 = 2n * oddSeries(ONE / 3n, false);

/** The finite operand in fixed point, with its sign. Exact for what is not tiny. */
function toFixed(a: Operand): bigint {
  const shift = a.exponent + POINT;
  const magnitude = shift >= 0 ? a.significand << BigInt(shift) : a.significand >> BigInt(-shift);
  return a.sign === 1 ? -magnitude : magnitude;
}

/** The exponent of the operand's first bit, plus one. */
function topOf(a: Operand): number {
  return a.exponent + bitLength(a.significand);
}

/** Rounds a fixed-point value times 2^exponent, which is not exact. */
function putFixed(env: FloatEnvironment, value: bigint, exponent: number, out: FloatResult): void {
  const sign = value < 0n ? 1 : 0;
  roundPack(env, EXTENDED80, 64, sign, exponent - POINT, sign === 1 ? -value : value, true, out);
}

/** Rounds a magnitude that is a very little greater (or with `less`, smaller) than `significand * 2^exponent`. */
function putBeside(
  env: FloatEnvironment,
  sign: number,
  significand: bigint,
  exponent: number,
  less: boolean,
  out: FloatResult,
): void {
  const wide = significand << GUARD;
  roundPack(env, EXTENDED80, 64, sign, exponent - Number(GUARD), less ? wide - 1n : wide, true, out);
}

/** Reports denormal operands; true when the exception is not masked. */
function denormalStops(env: FloatEnvironment, a: Operand, b: Operand, out: FloatResult): boolean {
  if (!a.denormal && !b.denormal) return false;
  env.flags |= FLAG_DENORMAL;
  setZero(0, out);
  return env.unmasked(FLAG_DENORMAL);
}

/** The sum of t^n/n! from n = 1 on. */
function exponentialLessOne(t: bigint): bigint {
  let term = t;
  let sum = 0n;
  for (let n = 2n; term !== 0n && term !== -1n; n++) {
    sum += term;
    term = times(term, t) / n;
  }
  return sum;
}

/**
 * The response to an operand for which the manuals leave the result undefined: the operand itself, called inexact, as
 * AMD's processors do.
 */
function putUndefined(env: FloatEnvironment, a: Operand, out: FloatResult): void {
  roundPack(env, EXTENDED80, 64, a.sign, a.exponent, a.significand, false, out);
  env.flags |= FLAG_INEXACT;
}

/** F2XM1: 2^a - 1 for a from -1 to 1; undefined outside. */
export function exponential(env: FloatEnvironment, a: Operand, out: FloatResult): void {
  if (a.kind >= KIND_QUIET_NAN) return propagateNan1(env, EXTENDED80, a, out);
  if (a.kind === KIND_ZERO) return setZero(a.sign, out);
  if (a.kind === KIND_INFINITY) {
    if (a.sign === 0) return setInfinity(EXTENDED80, 0, out);
    return roundPack(env, EXTENDED80, 64, 1, 0, 1n, false, out);
  }
  if (denormalStops(env, a, a, out)) return;
  const top = topOf(a);
  if (top > 0) {
    const isOne = top === 1 && a.significand === 1n << BigInt(bitLength(a.significand) - 1);
    if (!isOne || a.sign === 0) return putUndefined(env, a, out);
    roundPack(env, EXTENDED80, 64, 1, -1, 1n, false, out);
    env.flags |= FLAG_INEXACT;
    return;
  }
  if (top < TINY_EXPONENT) {
    const product = a.significand * LN2;
    return putFixed(env, a.sign === 1 ? -product : product, a.exponent, out);
  }
  putFixed(env, exponentialLessOne(times(toFixed(a), LN2)), 0, out);
}

/** log2 of the positive number a in fixed point; exact when a is a power of two. */
function logarithm(a: Operand): bigint {
  const length = bitLength(a.significand);
  let exponent = a.exponent + length;
  let mantissa = a.significand << BigInt(POINT - length);
  // From 1/sqrt(2) to sqrt(2), so that the series converges fast.
  if (times(mantissa, mantissa) < ONE >> 1n) {
    mantissa <<= 1n;
    exponent--;
  }
  const whole = BigInt(exponent) << SHIFT;
  if (mantissa === ONE) return whole;
  const ln = 2n * oddSeries(((mantissa - ONE) << SHIFT) / (mantissa + ONE), false);
  return whole + (ln << SHIFT) / LN2;
}

/** The finite factor times a fixed-point logarithm that is not zero. */
function putProduct(
  env: FloatEnvironment,
  factor: Operand,
  log: bigint,
  exponent: number,
  exact: boolean,
  out: FloatResult,
): void {
  const magnitude = (log < 0n ? -log : log) * factor.significand;
  const sign = factor.sign ^ (log < 0n ? 1 : 0);
  roundPack(env, EXTENDED80, 64, sign, exponent + factor.exponent - POINT, magnitude, !exact, out);
  // Processors report every logarithm that is not zero as inexact.
  env.flags |= out.exponent === 0 ? FLAG_INEXACT | FLAG_UNDERFLOW : FLAG_INEXACT;
}

/** Zero or infinity times a logarithm whose sign is `logSign`; `logZero`: the logarithm is zero. */
function putSpecialProduct(
  env: FloatEnvironment,
  factor: Operand,
  logSign: number,
  logZero: boolean,
  out: FloatResult,
): void {
  if (factor.kind !== KIND_INFINITY) return setZero(factor.sign ^ logSign, out);
  if (logZero) return invalid(env, EXTENDED80, out);
  setInfinity(EXTENDED80, factor.sign ^ logSign, out);
}

/** FYL2X: `y * log2(x)`. */
export function yLog2(env: FloatEnvironment, x: Operand, y: Operand, out: FloatResult): void {
  if (x.kind >= KIND_QUIET_NAN || y.kind >= KIND_QUIET_NAN) return propagateNan(env, EXTENDED80, x, y, out);
  if (x.sign === 1 && x.kind !== KIND_ZERO) return invalid(env, EXTENDED80, out);
  if (x.kind === KIND_ZERO) {
    if (y.kind === KIND_ZERO) return invalid(env, EXTENDED80, out);
    if (y.kind === KIND_FINITE) env.flags |= FLAG_ZERO_DIVIDE;
    return setInfinity(EXTENDED80, y.sign ^ 1, out);
  }
  if (x.kind === KIND_INFINITY) {
    if (y.kind === KIND_ZERO) return invalid(env, EXTENDED80, out);
    if (denormalStops(env, y, y, out)) return;
    return setInfinity(EXTENDED80, y.sign, out);
  }
  const log = logarithm(x);
  if (y.kind === KIND_INFINITY && log === 0n) return invalid(env, EXTENDED80, out);
  if (denormalStops(env, x, y, out)) return;
  if (y.kind !== KIND_FINITE || log === 0n) return putSpecialProduct(env, y, log < 0n ? 1 : 0, log === 0n, out);
  const isPowerOfTwo = x.significand === 1n << BigInt(bitLength(x.significand) - 1);
  putProduct(env, y, log, 0, isPowerOfTwo, out);
}

/** FYL2XP1: `y * log2(x + 1)`; undefined from x = -1 downwards. */
export function yLog2Plus1(env: FloatEnvironment, x: Operand, y: Operand, out: FloatResult): void {
  if (x.kind >= KIND_QUIET_NAN || y.kind >= KIND_QUIET_NAN) return propagateNan(env, EXTENDED80, x, y, out);
  if (x.sign === 1 && x.kind === KIND_INFINITY) return invalid(env, EXTENDED80, out);
  if (x.kind === KIND_ZERO) {
    if (denormalStops(env, y, y, out)) return;
    return putSpecialProduct(env, y, x.sign, true, out);
  }
  if (x.kind === KIND_INFINITY) {
    if (y.kind === KIND_ZERO) return invalid(env, EXTENDED80, out);
    if (denormalStops(env, y, y, out)) return;
    return setInfinity(EXTENDED80, y.sign, out);
  }
  if (denormalStops(env, x, y, out)) return;
  if (y.kind !== KIND_FINITE) return putSpecialProduct(env, y, x.sign, false, out);
  const top = topOf(x);
  if (x.sign === 1 && top > 0) return putUndefined(env, x, out);
  if (top < TINY_EXPONENT) {
    const log = (x.significand << (2n * SHIFT)) / LN2;
    return putProduct(env, y, x.sign === 1 ? -log : log, x.exponent, false, out);
  }
  if (top > POINT) {
    // x + 1 and x have the same logarithm to every bit that counts.
    return putProduct(env, y, logarithm(x), 0, false, out);
  }
  const value = toFixed(x);
  const sum: Operand = { ...x, sign: 0, significand: ONE + value, exponent: -POINT };
  const isPowerOfTwo = sum.significand === 1n << BigInt(bitLength(sum.significand) - 1);
  if (isPowerOfTwo || top > -1) return putProduct(env, y, logarithm(sum), 0, isPowerOfTwo, out);
  const ln = 2n * oddSeries((value << SHIFT) / (2n * ONE + value), false);
  putProduct(env, y, (ln << SHIFT) / LN2, 0, false, out);
}

/** sin and cos of the fixed-point x, reduced to a quarter turn around a multiple of pi/2. */
function sineCosine(x: bigint): [sine: bigint, cosine: bigint] {
  const quarters = (2n * x + (x < 0n ? -HALF_PI : HALF_PI)) / REDUCTION_PI;
  const r = x - quarters * REDUCTION_PI / 2n;
  const square = times(r, r);
  let sine = 0n;
  let cosine = 0n;
  let term = ONE;
  for (let n = 1n; term !== 0n; n += 2n) {
    cosine += term;
    const odd = times(term, r) / n;
    sine += odd;
    term = -(times(term, square) / (n * (n + 1n)));
  }
  switch (Number(BigInt.asUintN(2, quarters))) {
    case 0:
      return [sine, cosine];
    case 1:
      return [cosine, -sine];
    case 2:
      return [-sine, -cosine];
    default:
      return [-cosine, sine];
  }
}

/** Whether the operand is too great for the trigonometric functions, which then do nothing but set C2. */
export function isOutOfRange(a: Operand): boolean {
  return a.kind === KIND_FINITE && topOf(a) > TRIGONOMETRIC_EXPONENT_MAX;
}

/** What a trigonometric function does with an operand that is not a number to compute with; true when that was all. */
function trigonometricSpecial(env: FloatEnvironment, a: Operand, out: FloatResult): boolean {
  if (a.kind >= KIND_QUIET_NAN) {
    propagateNan1(env, EXTENDED80, a, out);
    return true;
  }
  if (a.kind === KIND_INFINITY) {
    invalid(env, EXTENDED80, out);
    return true;
  }
  return a.kind === KIND_FINITE && denormalStops(env, a, a, out);
}

/** FSIN. */
export function sine(env: FloatEnvironment, a: Operand, out: FloatResult): void {
  if (trigonometricSpecial(env, a, out)) return;
  if (a.kind === KIND_ZERO) return setZero(a.sign, out);
  if (topOf(a) < TINY_EXPONENT) return putBeside(env, a.sign, a.significand, a.exponent, true, out);
  putFixed(env, sineCosine(toFixed(a))[0], 0, out);
}

/** FCOS. */
export function cosine(env: FloatEnvironment, a: Operand, out: FloatResult): void {
  if (trigonometricSpecial(env, a, out)) return;
  if (a.kind === KIND_ZERO) return roundPack(env, EXTENDED80, 64, 0, 0, 1n, false, out);
  if (topOf(a) < TINY_EXPONENT) return putBeside(env, 0, 1n, 0, true, out);
  putFixed(env, sineCosine(toFixed(a))[1], 0, out);
}

/** FPTAN. */
export function tangent(env: FloatEnvironment, a: Operand, out: FloatResult): void {
  if (trigonometricSpecial(env, a, out)) return;
  if (a.kind === KIND_ZERO) return setZero(a.sign, out);
  if (topOf(a) < TINY_EXPONENT) return putBeside(env, a.sign, a.significand, a.exponent, false, out);
  const [s, c] = sineCosine(toFixed(a));
  putFixed(env, (s << SHIFT) / c, 0, out);
}

/** The square root of a fixed-point value, by Newton's method from above. */
function fixedRoot(x: bigint): bigint {
  const radicand = x << SHIFT;
  let root = 1n << BigInt((bitLength(radicand) + 1) >> 1);
  while (true) {
    const next = (root + radicand / root) >> 1n;
    if (next >= root) return root;
    root = next;
  }
}

/** The arctangent of a fixed-point value from 0 to 1: the angle is halved until the series converges fast. */
function arctangent(t: bigint): bigint {
  const HALVINGS = 4;
  for (let n = 0; n < HALVINGS; n++) t = (t << SHIFT) / (ONE + fixedRoot(ONE + times(t, t)));
  return oddSeries(t, true) << BigInt(HALVINGS);
}

/** The quotient of two magnitudes as a fixed-point value, at most about 1. */
function ratio(a: Operand, b: Operand): bigint {
  const shift = a.exponent - b.exponent + POINT;
  if (shift >= 0) return (a.significand << BigInt(shift)) / b.significand;
  return (a.significand >> BigInt(Math.min(-shift, POINT))) / b.significand;
}

/** Puts `quarters` * pi/4 with the sign. */
function putQuarters(env: FloatEnvironment, sign: number, quarters: bigint, out: FloatResult): void {
  const angle = (PI * quarters) >> 2n;
  putFixed(env, sign === 1 ? -angle : angle, 0, out);
}

/** FPATAN: the angle of the point (x, y), from -pi to pi. */
export function angle(env: FloatEnvironment, x: Operand, y: Operand, out: FloatResult): void {
  if (x.kind >= KIND_QUIET_NAN || y.kind >= KIND_QUIET_NAN) return propagateNan(env, EXTENDED80, x, y, out);
  if (denormalStops(env, x, y, out)) return;
  if (x.kind === KIND_INFINITY && y.kind === KIND_INFINITY) {
    return putQuarters(env, y.sign, x.sign === 1 ? 3n : 1n, out);
  }
  if (y.kind === KIND_ZERO || x.kind === KIND_INFINITY) {
    if (x.sign === 0) return setZero(y.sign, out);
    return putQuarters(env, y.sign, 4n, out);
  }
  if (x.kind === KIND_ZERO || y.kind === KIND_INFINITY) return putQuarters(env, y.sign, 2n, out);
  const distance = topOf(y) - topOf(x);
  if (distance < TINY_EXPONENT && x.sign === 0) {
    // The angle is the quotient, a very little less.
    const shift = BigInt(2 * POINT);
    return putBeside(
      env,
      y.sign,
      (y.significand << shift) / x.significand,
      y.exponent - x.exponent - 2 * POINT,
      true,
      out,
    );
  }
  let value: bigint;
  if (distance > 0 || (distance === 0 && ratio(y, x) > ONE)) {
    value = HALF_PI - (x.sign === 1 ? -1n : 1n) * arctangent(ratio(x, y));
  } else value = x.sign === 1 ? PI - arctangent(ratio(y, x)) : arctangent(ratio(y, x));
  putFixed(env, y.sign === 1 ? -value : value, 0, out);
}
