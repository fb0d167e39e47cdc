/**
 * binary64 operations on one lane of the working registers (`lanes.ts`): R[lane] = A[lane] op B[lane], exceptions into
 * `sse.flags`.
 *
 * The fast path is JavaScript's own arithmetic, which is binary64 rounded to nearest. Whether a result is inexact
 * follows from the error terms of TwoSum and TwoProduct
 * (Knuth; Dekker 1971), which are exact in the range where nothing overflows or becomes denormal. Everything else goes
 * the exact way.
 *
 * @module
 */

import { add, compare, divide, multiply, squareRoot } from "./arithmetic.ts";
import { predicateHolds, predicateSignals } from "./binary32.ts";
import { convertFormat, fromInteger, roundToIntegral, toInteger } from "./convert.ts";
import { FLAG_DENORMAL, FLAG_INEXACT, FLAG_INVALID, ROUND_NEAREST, ROUND_TRUNCATE } from "./environment.ts";
import { BINARY32, BINARY64, FloatResult, Operand, pack, unpack } from "./format.ts";
import {
  A_F64,
  A_I32,
  A_U64,
  B_F64,
  B_I32,
  B_I64,
  B_U64,
  R_F32,
  R_F64,
  R_I32,
  R_I64,
  R_U32,
  R_U64,
  sse,
} from "./lanes.ts";

/** The smallest normal binary64 number. */
const MIN_NORMAL = 2 ** -1022;
/** The smallest normal binary32 number. */
const MIN_NORMAL_32 = 2 ** -126;
/** Upper half of a binary64 without its sign. */
const MAGNITUDE_HIGH = 0x7fff_ffff;
/** Upper half of the smallest normal binary64 number. */
const MIN_NORMAL_HIGH = 0x0010_0000;
/** Upper half of the binary64 infinity. */
const INFINITY_HIGH = 0x7ff0_0000;
/** Magnitudes between which the error of a product can be computed in binary64. */
const PRODUCT_MIN = 2 ** -400;
const PRODUCT_MAX = 2 ** 400;
/** Dekker's constant to split 53 bits into 26 and 27. */
const SPLITTER = 2 ** 27 + 1;

const a = new Operand();
const b = new Operand();
const result = new FloatResult();

/** Zero or a finite normal number. */
function isRegular(x: number): boolean {
  const magnitude = Math.abs(x);
  return x === 0 || (magnitude >= MIN_NORMAL && magnitude < Infinity);
}

/** A magnitude for which `productError` is exact. */
function isModerate(x: number): boolean {
  const magnitude = Math.abs(x);
  return magnitude > PRODUCT_MIN && magnitude < PRODUCT_MAX;
}

/** Dekker's TwoProduct: the exact `x * y - product`, where `product` is the rounded product of two moderate numbers. */
function productError(x: number, y: number, product: number): number {
  const splitX = SPLITTER * x;
  const highX = splitX - (splitX - x);
  const lowX = x - highX;
  const splitY = SPLITTER * y;
  const highY = splitY - (splitY - y);
  const lowY = y - highY;
  return highX * highY - product + highX * lowY + lowX * highY + lowX * lowY;
}

function unpackA(lane: number): void {
  unpack(sse, BINARY64, A_U64[lane], a);
}

function unpackB(lane: number): void {
  unpack(sse, BINARY64, B_U64[lane], b);
}

function putResult(lane: number): void {
  R_U64[lane] = pack(BINARY64, result);
}

/** ADDPD, ADDSD. */
export function add64(lane: number): void {
  const x = A_F64[lane];
  const y = B_F64[lane];
  if (sse.rounding === ROUND_NEAREST && isRegular(x) && isRegular(y)) {
    addRegular(lane, x, y, 0);
  } else {
    addExact(lane, 0);
  }
}

/** SUBPD, SUBSD. */
export function sub64(lane: number): void {
  const x = A_F64[lane];
  const y = B_F64[lane];
  if (sse.rounding === ROUND_NEAREST && isRegular(x) && isRegular(y)) {
    addRegular(lane, x, -y, 1);
  } else {
    addExact(lane, 1);
  }
}

function addExact(lane: number, negate: number): void {
  unpackA(lane);
  unpackB(lane);
  add(sse, BINARY64, a, b, negate, result);
  putResult(lane);
}

function addRegular(lane: number, x: number, y: number, negate: number): void {
  const sum = x + y;
  if (!isRegular(sum)) {
    addExact(lane, negate);
    return;
  }
  R_F64[lane] = sum;
  if (!sse.inexactIsSticky) {
    const back = sum - x;
    const error = x - (sum - back) + (y - back);
    // Next to the largest numbers an intermediate can overflow; the error is then not zero but no number.
    if (error !== 0) {
      if (Math.abs(error) < Infinity) sse.flags |= FLAG_INEXACT;
      else addExact(lane, negate);
    }
  }
}

/** MULPD, MULSD. */
export function mul64(lane: number): void {
  const x = A_F64[lane];
  const y = B_F64[lane];
  const product = x * y;
  if (sse.rounding === ROUND_NEAREST) {
    if (sse.inexactIsSticky) {
      const magnitude = Math.abs(product);
      if (magnitude > MIN_NORMAL && magnitude < Infinity && isRegular(x) && isRegular(y)) {
        R_F64[lane] = product;
        return;
      }
    } else if (isModerate(x) && isModerate(y)) {
      R_F64[lane] = product;
      if (productError(x, y, product) !== 0) sse.flags |= FLAG_INEXACT;
      return;
    }
  }
  unpackA(lane);
  unpackB(lane);
  multiply(sse, BINARY64, a, b, result);
  putResult(lane);
}

/** DIVPD, DIVSD. */
export function div64(lane: number): void {
  const x = A_F64[lane];
  const y = B_F64[lane];
  const quotient = x / y;
  if (sse.rounding === ROUND_NEAREST) {
    if (sse.inexactIsSticky) {
      const magnitude = Math.abs(quotient);
      if (magnitude > MIN_NORMAL && magnitude < Infinity && isRegular(x) && isRegular(y)) {
        R_F64[lane] = quotient;
        return;
      }
    } else if (isModerate(x) && isModerate(y) && isModerate(quotient)) {
      R_F64[lane] = quotient;
      const product = quotient * y;
      if (product !== x || productError(quotient, y, product) !== 0) sse.flags |= FLAG_INEXACT;
      return;
    }
  }
  unpackA(lane);
  unpackB(lane);
  divide(sse, BINARY64, a, b, result);
  putResult(lane);
}

/** SQRTPD, SQRTSD: of B. */
export function sqrt64(lane: number): void {
  const x = B_F64[lane];
  if (sse.rounding === ROUND_NEAREST && x >= 0 && (x === 0 || isModerate(x))) {
    const root = Math.sqrt(x);
    R_F64[lane] = root;
    if (x !== 0 && !sse.inexactIsSticky) {
      const square = root * root;
      if (square !== x || productError(root, root, square) !== 0) sse.flags |= FLAG_INEXACT;
    }
    return;
  }
  unpackB(lane);
  squareRoot(sse, BINARY64, b, result);
  putResult(lane);
}

const KIND_CODE_ZERO = 0;
const KIND_CODE_DENORMAL = 1;
const KIND_CODE_NORMAL = 2;
const KIND_CODE_NAN = 3;

/** What the halves of a binary64 are; an infinity counts as normal. */
function classify(low: number, high: number): number {
  const magnitude = high & MAGNITUDE_HIGH;
  if (magnitude < MIN_NORMAL_HIGH) return (magnitude | low) === 0 ? KIND_CODE_ZERO : KIND_CODE_DENORMAL;
  return magnitude > INFINITY_HIGH || (magnitude === INFINITY_HIGH && low !== 0) ? KIND_CODE_NAN : KIND_CODE_NORMAL;
}

/** Copies the bits of an operand to R; under DAZ a denormal number becomes a zero. */
function putOperand(lane: number, low: number, high: number, kind: number): void {
  const flush = kind === KIND_CODE_DENORMAL && sse.denormalsAreZeros;
  R_I32[2 * lane] = flush ? 0 : low;
  R_I32[2 * lane + 1] = flush ? high & ~MAGNITUDE_HIGH : high;
}

/** MINPD, MINSD (`greater` false), MAXPD, MAXSD: the second operand unless the first is truly smaller (greater). */
function minMax(lane: number, greater: boolean): void {
  const lowA = A_I32[2 * lane];
  const highA = A_I32[2 * lane + 1];
  const lowB = B_I32[2 * lane];
  const highB = B_I32[2 * lane + 1];
  const kindA = classify(lowA, highA);
  const kindB = classify(lowB, highB);
  if (kindA === KIND_CODE_NAN || kindB === KIND_CODE_NAN) {
    sse.flags |= FLAG_INVALID;
    putOperand(lane, lowB, highB, kindB);
    return;
  }
  const denormal = kindA === KIND_CODE_DENORMAL || kindB === KIND_CODE_DENORMAL;
  if (denormal && !sse.denormalsAreZeros) sse.flags |= FLAG_DENORMAL;
  const smallest = sse.denormalsAreZeros ? KIND_CODE_NORMAL : KIND_CODE_DENORMAL;
  const bothZero = kindA < smallest && kindB < smallest;
  const x = A_F64[lane];
  const y = B_F64[lane];
  if (!bothZero && (greater ? x > y : x < y)) putOperand(lane, lowA, highA, kindA);
  else putOperand(lane, lowB, highB, kindB);
}

/** MINPD, MINSD. */
export function min64(lane: number): void {
  minMax(lane, false);
}

/** MAXPD, MAXSD. */
export function max64(lane: number): void {
  minMax(lane, true);
}

/** Compares A with B, one of `COMPARE_*`. `quietIsInvalid`: a quiet NaN is an exception too. */
export function compare64(lane: number, quietIsInvalid: boolean): number {
  const x = A_F64[lane];
  const y = B_F64[lane];
  if (isRegular(x) && isRegular(y)) return x < y ? -1 : x > y ? 1 : 0;
  unpackA(lane);
  unpackB(lane);
  return compare(sse, a, b, quietIsInvalid);
}

/** CMPPD, CMPSD with the predicate 0 to 7 (EQ LT LE UNORD NEQ NLT NLE ORD): R is all ones or zero. */
export function cmp64(lane: number, predicate: number): void {
  const mask = predicateHolds(compare64(lane, predicateSignals(predicate)), predicate) ? -1 : 0;
  R_I32[2 * lane] = mask;
  R_I32[2 * lane + 1] = mask;
}

/** CVTPD2PS, CVTSD2SS: B[from], binary64, to R[to], binary32. */
export function convert64to32(from: number, to: number): void {
  const x = B_F64[from];
  const r = Math.fround(x);
  const magnitude = Math.abs(r);
  if (sse.rounding === ROUND_NEAREST && magnitude > MIN_NORMAL_32 && magnitude < Infinity) {
    R_F32[to] = r;
    if (r !== x) sse.flags |= FLAG_INEXACT;
    return;
  }
  unpackB(from);
  convertFormat(sse, BINARY32, b, true, result);
  R_U32[to] = Number(pack(BINARY32, result));
}

/** CVTDQ2PD, CVTSI2SD r/m32: the 32-bit integer B[from] to binary64 R[to]. Always exact. */
export function convertInt32to64(from: number, to: number): void {
  R_F64[to] = B_I32[from];
}

/** CVTSI2SD r/m64: the 64-bit integer B[0] to binary64 R[0]. */
export function convertInt64to64(): void {
  const low = B_I32[0];
  const high = B_I32[1];
  if (high === low >> 31) {
    R_F64[0] = low;
    return;
  }
  fromInteger(sse, BINARY64, B_I64[0], result);
  putResult(0);
}

/** Magnitude under which a binary64 converts to int32 without a check of the range. */
const INT32_SAFE = 2 ** 31 - 1;
/** Added and taken away again, it rounds a magnitude below 2^51 to the nearest integer. */
const ROUND_TO_INTEGER = 1.5 * 2 ** 52;

/** CVTPD2DQ, CVTTPD2DQ, CVTSD2SI and CVTTSD2SI r32: binary64 B[from] to the integer R[to], a 32-bit lane. */
export function convert64toInt32(from: number, to: number, truncate: boolean): void {
  const x = B_F64[from];
  if (isRegular(x) && Math.abs(x) < INT32_SAFE) {
    if (truncate || sse.rounding === ROUND_TRUNCATE) {
      const r = x | 0;
      R_I32[to] = r;
      if (r !== x) sse.flags |= FLAG_INEXACT;
      return;
    }
    if (sse.rounding === ROUND_NEAREST) {
      const r = x + ROUND_TO_INTEGER - ROUND_TO_INTEGER;
      R_I32[to] = r;
      if (r !== x) sse.flags |= FLAG_INEXACT;
      return;
    }
  }
  unpackB(from);
  R_I32[to] = Number(toInteger(sse, b, 32, truncate ? ROUND_TRUNCATE : sse.rounding));
}

/** CVTSD2SI, CVTTSD2SI r64: binary64 B[0] to the 64-bit integer R[0]. */
export function convert64toInt64(truncate: boolean): void {
  const x = B_F64[0];
  if ((truncate || sse.rounding === ROUND_TRUNCATE) && isRegular(x) && Math.abs(x) < INT32_SAFE) {
    const r = x | 0;
    R_I32[0] = r;
    R_I32[1] = r >> 31;
    if (r !== x) sse.flags |= FLAG_INEXACT;
    return;
  }
  unpackB(0);
  R_I64[0] = toInteger(sse, b, 64, truncate ? ROUND_TRUNCATE : sse.rounding);
}

/** ROUNDPD, ROUNDSD: B[lane] to an integral value. `quiet`: the inexact flag stays as it is. */
export function round64(lane: number, rounding: number, quiet: boolean): void {
  unpackB(lane);
  const before = sse.flags;
  roundToIntegral(sse, BINARY64, b, rounding, false, result);
  if (quiet) sse.flags = before | (sse.flags & ~FLAG_INEXACT);
  putResult(lane);
}
