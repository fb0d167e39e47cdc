/**
 * binary32 operations on one lane of the working registers (`lanes.ts`): R[lane] = A[lane] op B[lane], exceptions into
 * `sse.flags`.
 *
 * The fast path computes in binary64 and rounds once more with `Math.fround`. For +, -, *, / and square root that
 * double rounding is innocuous, because 53 >= 2 * 24 + 2
 * (Figueroa, "When is double rounding innocuous?", 1995). It is taken for round-to-nearest when operands and result are
 * zero or normal numbers; everything else goes the
 * exact way.
 *
 * @module
 */

import { add, compare, COMPARE_UNORDERED, divide, multiply, squareRoot } from "./arithmetic.ts";
import { convertFormat, fromInteger, roundToIntegral, toInteger } from "./convert.ts";
import { FLAG_DENORMAL, FLAG_INEXACT, FLAG_INVALID, ROUND_NEAREST, ROUND_TRUNCATE } from "./environment.ts";
import { BINARY32, BINARY64, FloatResult, Operand, pack, unpack } from "./format.ts";
import { A_F32, A_U32, B_F32, B_I32, B_I64, B_U32, R_F32, R_F64, R_I32, R_I64, R_U32, R_U64, sse } from "./lanes.ts";

/** The smallest normal binary32 number. */
const MIN_NORMAL = 2 ** -126;
/** Bits of a binary32 without its sign. */
const MAGNITUDE = 0x7fff_ffff;
/** Bits of the smallest normal binary32 number. */
const MIN_NORMAL_BITS = 0x0080_0000;
/** Bits of the binary32 infinity. */
const INFINITY_BITS = 0x7f80_0000;

const a = new Operand();
const b = new Operand();
const result = new FloatResult();

/** Zero or a finite normal number. */
function isRegular(x: number): boolean {
  const magnitude = Math.abs(x);
  return x === 0 || (magnitude >= MIN_NORMAL && magnitude < Infinity);
}

function unpackA(lane: number): void {
  unpack(sse, BINARY32, BigInt(A_U32[lane]), a);
}

function unpackB(lane: number): void {
  unpack(sse, BINARY32, BigInt(B_U32[lane]), b);
}

function putResult(lane: number): void {
  R_U32[lane] = Number(pack(BINARY32, result));
}

/** ADDPS, ADDSS. */
export function add32(lane: number): void {
  const x = A_F32[lane];
  const y = B_F32[lane];
  if (sse.rounding === ROUND_NEAREST && isRegular(x) && isRegular(y)) {
    addRegular(lane, x, y, 0);
  } else {
    addExact(lane, 0);
  }
}

/** SUBPS, SUBSS. */
export function sub32(lane: number): void {
  const x = A_F32[lane];
  const y = B_F32[lane];
  if (sse.rounding === ROUND_NEAREST && isRegular(x) && isRegular(y)) {
    addRegular(lane, x, -y, 1);
  } else {
    addExact(lane, 1);
  }
}

function addExact(lane: number, negate: number): void {
  unpackA(lane);
  unpackB(lane);
  add(sse, BINARY32, a, b, negate, result);
  putResult(lane);
}

function addRegular(lane: number, x: number, y: number, negate: number): void {
  const sum = x + y;
  const r = Math.fround(sum);
  if (!isRegular(r)) {
    addExact(lane, negate);
    return;
  }
  R_F32[lane] = r;
  if (!sse.inexactIsSticky) {
    // Knuth's TwoSum: the error of the binary64 addition.
    const back = sum - x;
    const error = x - (sum - back) + (y - back);
    if (error !== 0 || r !== sum) sse.flags |= FLAG_INEXACT;
  }
}

/** MULPS, MULSS. */
export function mul32(lane: number): void {
  const x = A_F32[lane];
  const y = B_F32[lane];
  // The binary64 product of two binary32 numbers is exact.
  const product = x * y;
  const r = Math.fround(product);
  const magnitude = Math.abs(r);
  if (
    sse.rounding === ROUND_NEAREST && magnitude > MIN_NORMAL && magnitude < Infinity && isRegular(x) && isRegular(y)
  ) {
    R_F32[lane] = r;
    if (r !== product) sse.flags |= FLAG_INEXACT;
    return;
  }
  unpackA(lane);
  unpackB(lane);
  multiply(sse, BINARY32, a, b, result);
  putResult(lane);
}

/** DIVPS, DIVSS. */
export function div32(lane: number): void {
  const x = A_F32[lane];
  const y = B_F32[lane];
  const r = Math.fround(x / y);
  const magnitude = Math.abs(r);
  if (
    sse.rounding === ROUND_NEAREST && magnitude > MIN_NORMAL && magnitude < Infinity && isRegular(x) && isRegular(y)
  ) {
    R_F32[lane] = r;
    if (r * y !== x) sse.flags |= FLAG_INEXACT;
    return;
  }
  unpackA(lane);
  unpackB(lane);
  divide(sse, BINARY32, a, b, result);
  putResult(lane);
}

/** SQRTPS, SQRTSS: of B. */
export function sqrt32(lane: number): void {
  const x = B_F32[lane];
  if (sse.rounding === ROUND_NEAREST && x >= 0 && isRegular(x)) {
    const r = Math.fround(Math.sqrt(x));
    R_F32[lane] = r;
    if (r * r !== x) sse.flags |= FLAG_INEXACT;
    return;
  }
  unpackB(lane);
  squareRoot(sse, BINARY32, b, result);
  putResult(lane);
}

/** The bits under DAZ: a denormal number becomes a zero. */
function denormalToZero(bits: number): number {
  return sse.denormalsAreZeros && (bits & MAGNITUDE) < MIN_NORMAL_BITS ? bits & ~MAGNITUDE : bits;
}

/** MINPS, MINSS (`greater` false), MAXPS, MAXSS: the second operand unless the first is truly smaller (greater). */
function minMax(lane: number, greater: boolean): void {
  const bitsA = denormalToZero(A_U32[lane]);
  const bitsB = denormalToZero(B_U32[lane]);
  const magnitudeA = bitsA & MAGNITUDE;
  const magnitudeB = bitsB & MAGNITUDE;
  if (magnitudeA > INFINITY_BITS || magnitudeB > INFINITY_BITS) {
    sse.flags |= FLAG_INVALID;
    R_I32[lane] = bitsB;
    return;
  }
  if (
    (magnitudeA < MIN_NORMAL_BITS && magnitudeA !== 0) || (magnitudeB < MIN_NORMAL_BITS && magnitudeB !== 0)
  ) sse.flags |= FLAG_DENORMAL;
  const x = A_F32[lane];
  const y = B_F32[lane];
  const bothZero = magnitudeA === 0 && magnitudeB === 0;
  R_I32[lane] = !bothZero && (greater ? x > y : x < y) ? bitsA : bitsB;
}

/** MINPS, MINSS. */
export function min32(lane: number): void {
  minMax(lane, false);
}

/** MAXPS, MAXSS. */
export function max32(lane: number): void {
  minMax(lane, true);
}

/** Compares A with B, one of `COMPARE_*`. `quietIsInvalid`: a quiet NaN is an exception too. */
export function compare32(lane: number, quietIsInvalid: boolean): number {
  const x = A_F32[lane];
  const y = B_F32[lane];
  if (isRegular(x) && isRegular(y)) return x < y ? -1 : x > y ? 1 : 0;
  unpackA(lane);
  unpackB(lane);
  return compare(sse, a, b, quietIsInvalid);
}

/** CMPPS, CMPSS with the predicate 0 to 7 (EQ LT LE UNORD NEQ NLT NLE ORD): R is all ones or zero. */
export function cmp32(lane: number, predicate: number): void {
  R_I32[lane] = predicateHolds(compare32(lane, predicateSignals(predicate)), predicate) ? -1 : 0;
}

/** Whether the predicate takes a quiet NaN for invalid: LT, LE, NLT and NLE do. */
export function predicateSignals(predicate: number): boolean {
  return (predicate & 3) === 1 || (predicate & 3) === 2;
}

/** Whether the relation, one of `COMPARE_*`, satisfies the predicate 0 to 7. */
export function predicateHolds(relation: number, predicate: number): boolean {
  let holds: boolean;
  switch (predicate & 3) {
    case 0:
      holds = relation === 0;
      break;
    case 1:
      holds = relation === -1;
      break;
    case 2:
      holds = relation <= 0;
      break;
    default:
      holds = relation === COMPARE_UNORDERED;
  }
  return predicate >= 4 ? !holds : holds;
}

/** CVTPS2PD, CVTSS2SD: B[from], binary32, to R[to], binary64. */
export function convert32to64(from: number, to: number): void {
  const x = B_F32[from];
  if (isRegular(x)) {
    R_F64[to] = x;
    return;
  }
  unpackB(from);
  convertFormat(sse, BINARY64, b, true, result);
  R_U64[to] = pack(BINARY64, result);
}

/** CVTDQ2PS, CVTSI2SS r/m32: the integer B[lane] to binary32 R[lane]. */
export function convertInt32to32(lane: number): void {
  const x = B_I32[lane];
  const r = Math.fround(x);
  if (r === x) {
    R_F32[lane] = r;
    return;
  }
  if (sse.rounding === ROUND_NEAREST) {
    R_F32[lane] = r;
    sse.flags |= FLAG_INEXACT;
    return;
  }
  fromInteger(sse, BINARY32, BigInt(x), result);
  putResult(lane);
}

/** CVTSI2SS r/m64: the 64-bit integer B[0] to binary32 R[0]. */
export function convertInt64to32(): void {
  fromInteger(sse, BINARY32, B_I64[0], result);
  putResult(0);
}

/** Magnitude under which a binary32 converts to int32 without a check of the range. */
const INT32_SAFE = 2 ** 30;

/** CVTPS2DQ, CVTTPS2DQ, CVTSS2SI and CVTTSS2SI r32: binary32 B[lane] to the integer R[lane]. */
export function convert32toInt32(lane: number, truncate: boolean): void {
  const x = B_F32[lane];
  if ((truncate || sse.rounding === ROUND_TRUNCATE) && isRegular(x) && Math.abs(x) < INT32_SAFE) {
    const r = x | 0;
    R_I32[lane] = r;
    if (r !== x) sse.flags |= FLAG_INEXACT;
    return;
  }
  unpackB(lane);
  R_I32[lane] = Number(toInteger(sse, b, 32, truncate ? ROUND_TRUNCATE : sse.rounding));
}

/** CVTSS2SI, CVTTSS2SI r64: binary32 B[0] to the 64-bit integer R[0]. */
export function convert32toInt64(truncate: boolean): void {
  unpackB(0);
  R_I64[0] = toInteger(sse, b, 64, truncate ? ROUND_TRUNCATE : sse.rounding);
}

/** ROUNDPS, ROUNDSS: B[lane] to an integral value. `quiet`: the inexact flag stays as it is. */
export function round32(lane: number, rounding: number, quiet: boolean): void {
  unpackB(lane);
  const before = sse.flags;
  roundToIntegral(sse, BINARY32, b, rounding, false, result);
  if (quiet) sse.flags = before | (sse.flags & ~FLAG_INEXACT);
  putResult(lane);
}

/** The quiet bit of a binary32 NaN. */
const QUIET_NAN_BIT = 0x0040_0000;
/** The default NaN. */
const DEFAULT_NAN_BITS = 0xffc0_0000;

/**
 * RCPPS, RCPSS: the reciprocal of B, without exceptions; denormals count as zeros and tiny results become zeros (Intel
 * SDM volume 2, RCPPS).
 */
export function rcp32(lane: number): void {
  const bits = B_U32[lane];
  const magnitude = bits & MAGNITUDE;
  if (magnitude > INFINITY_BITS) {
    R_U32[lane] = bits | QUIET_NAN_BIT;
  } else if (magnitude < MIN_NORMAL_BITS) {
    R_U32[lane] = (bits & ~MAGNITUDE) | INFINITY_BITS;
  } else {
    const r = 1 / B_F32[lane];
    R_F32[lane] = Math.abs(r) < MIN_NORMAL ? (r < 0 || Object.is(r, -0) ? -0 : 0) : r;
  }
}

/**
 * RSQRTPS, RSQRTSS: the reciprocal of the square root of B, without exceptions; denormals count as zeros (Intel SDM
 * volume 2, RSQRTPS).
 */
export function rsqrt32(lane: number): void {
  const bits = B_U32[lane];
  const magnitude = bits & MAGNITUDE;
  if (magnitude > INFINITY_BITS) {
    R_U32[lane] = bits | QUIET_NAN_BIT;
  } else if (magnitude < MIN_NORMAL_BITS) {
    R_U32[lane] = (bits & ~MAGNITUDE) | INFINITY_BITS;
  } else if (bits !== magnitude) {
    R_U32[lane] = DEFAULT_NAN_BITS;
  } else {
    R_F32[lane] = 1 / Math.sqrt(B_F32[lane]);
  }
}
