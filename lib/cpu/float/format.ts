/**
 * Floating-point formats, operands taken apart, and the one place where a result is rounded and put together.
 *
 * Follows IEEE 754-2008 as x86 does it: tininess is detected after rounding, a masked underflow is signalled only when
 * the result is also inexact, an unmasked one always (Intel SDM volume 1, 4.9.1). This is the exact path, written over
 * BigInt for all three formats; `binary32.ts` and `binary64.ts` take the common cases away from it.
 *
 * @module
 */

import {
  FLAG_INEXACT,
  FLAG_OVERFLOW,
  FLAG_UNDERFLOW,
  type FloatEnvironment,
  ROUND_DOWN,
  ROUND_NEAREST,
  ROUND_UP,
} from "./environment.ts";

/** A binary floating-point format. */
export interface FloatFormat {
  /** Bits of the significand with its integer bit. */
  readonly precision: number;
  /** Bits of the biased exponent. */
  readonly exponentBits: number;
  /** Added to the exponent to bias it; also the greatest exponent of a finite number. */
  readonly bias: number;
  /** The smallest exponent of a normal number. */
  readonly minExponent: number;
  /** The biased exponent of infinities and NaNs. */
  readonly specialExponent: number;
  /** The integer bit is stored, and x87's rules for NaNs and for unmasked overflow hold (double extended precision). */
  readonly extended: boolean;
}

function format(precision: number, exponentBits: number, extended: boolean): FloatFormat {
  const bias = 2 ** (exponentBits - 1) - 1;
  return { precision, exponentBits, bias, minExponent: 1 - bias, specialExponent: 2 ** exponentBits - 1, extended };
}

/** IEEE 754 binary32, "single precision". */
export const BINARY32: FloatFormat = format(24, 8, false);
/** IEEE 754 binary64, "double precision". */
export const BINARY64: FloatFormat = format(53, 11, false);
/** The 80-bit double extended precision of x87. */
export const EXTENDED80: FloatFormat = format(64, 15, true);

/** Kind of operand: plus or minus zero. */
export const KIND_ZERO = 0;
/** Kind of operand: a finite number that is not zero. */
export const KIND_FINITE = 1;
/** Kind of operand: an infinity. */
export const KIND_INFINITY = 2;
/** Kind of operand: a quiet NaN. Kinds from here on have no value. */
export const KIND_QUIET_NAN = 3;
/** Kind of operand: a signalling NaN. */
export const KIND_SIGNALLING_NAN = 4;
/**
 * Kind of operand: an encoding that x87 does not support (unnormal, pseudo-infinity, pseudo-NaN; Intel SDM volume 1,
 * 8.2.2).
 */
export const KIND_UNSUPPORTED = 5;

/** Bit 62 of a significand aligned to 64 bits: the NaN is quiet. */
export const QUIET_BIT = 1n << 62n;
const INTEGER_BIT = 1n << 63n;

/**
 * An operand taken apart. A finite value is `significand * 2^exponent`; a NaN keeps its significand aligned to 64 bits
 * in `significand`.
 */
export class Operand {
  /** One of `KIND_*`. */
  kind: number = KIND_ZERO;
  /** 1 for negative. */
  sign = 0;
  /** Exponent of the significand's last bit. */
  exponent = 0;
  /** The significand, not necessarily normalised. */
  significand = 0n;
  /** The operand is denormal in the format it came from. */
  denormal = false;
}

/** A result put together: sign, biased exponent and the significand of the format's precision, with the integer bit. */
export class FloatResult {
  /** 1 for negative. */
  sign = 0;
  /** The biased exponent. */
  exponent = 0;
  /** The significand with its integer bit, as many bits as the format's precision. */
  significand = 0n;
}

const float = new Float64Array(1);
const words = new Uint32Array(float.buffer);

/** Number of significant bits of `x`, 0 for 0. */
export function bitLength(x: bigint): number {
  if (x === 0n) return 0;
  let above = 0;
  let approximate = Number(x);
  while (approximate === Infinity) {
    x >>= 512n;
    above += 512;
    approximate = Number(x);
  }
  float[0] = approximate;
  const length = (words[1] >>> 20) - 1022;
  // The conversion may have rounded up to a power of two.
  const isPower = words[0] === 0 && (words[1] & 0xf_ffff) === 0;
  return above + (isPower && x >> BigInt(length - 1) === 0n ? length - 1 : length);
}

/** Takes a binary32 or binary64 value apart. Denormals become zeros under DAZ. */
export function unpack(env: FloatEnvironment, format: FloatFormat, bits: bigint, out: Operand): void {
  const fractionBits = format.precision - 1;
  const shift = BigInt(fractionBits);
  const fraction = bits & ((1n << shift) - 1n);
  const high = Number(bits >> shift);
  const biased = high & format.specialExponent;
  out.sign = high >> format.exponentBits;
  out.denormal = false;
  if (biased === format.specialExponent) {
    out.significand = INTEGER_BIT | (fraction << BigInt(63 - fractionBits));
    out.kind = fraction === 0n
      ? KIND_INFINITY
      : (out.significand & QUIET_BIT) !== 0n
      ? KIND_QUIET_NAN
      : KIND_SIGNALLING_NAN;
  } else if (biased !== 0) {
    out.kind = KIND_FINITE;
    out.significand = fraction | (1n << shift);
    out.exponent = biased - format.bias - fractionBits;
  } else if (fraction === 0n || env.denormalsAreZeros) {
    out.kind = KIND_ZERO;
    out.significand = 0n;
  } else {
    out.kind = KIND_FINITE;
    out.significand = fraction;
    out.exponent = format.minExponent - fractionBits;
    out.denormal = true;
  }
}

/** Takes an 80-bit value apart: `signExponent` is its upper 16 bits, `significand` its lower 64. */
export function unpackExtended(signExponent: number, significand: bigint, out: Operand): void {
  const biased = signExponent & 0x7fff;
  out.sign = (signExponent >> 15) & 1;
  out.significand = significand;
  out.denormal = false;
  out.exponent = (biased === 0 ? 1 : biased) - EXTENDED80.bias - 63;
  if (biased === 0) {
    out.kind = significand === 0n ? KIND_ZERO : KIND_FINITE;
    out.denormal = significand !== 0n;
  } else if (significand < INTEGER_BIT) {
    out.kind = KIND_UNSUPPORTED;
  } else if (biased !== 0x7fff) {
    out.kind = KIND_FINITE;
  } else if (significand === INTEGER_BIT) {
    out.kind = KIND_INFINITY;
  } else {
    out.kind = (significand & QUIET_BIT) !== 0n ? KIND_QUIET_NAN : KIND_SIGNALLING_NAN;
  }
}

/** The bits of a binary32 or binary64 result. */
export function pack(format: FloatFormat, r: FloatResult): bigint {
  const shift = BigInt(format.precision - 1);
  const high = BigInt(r.sign * 2 ** format.exponentBits + r.exponent);
  return (high << shift) | (r.significand & ((1n << shift) - 1n));
}

/** Makes `out` a signed zero. */
export function setZero(sign: number, out: FloatResult): void {
  out.sign = sign;
  out.exponent = 0;
  out.significand = 0n;
}

/** Makes `out` a signed infinity. */
export function setInfinity(format: FloatFormat, sign: number, out: FloatResult): void {
  out.sign = sign;
  out.exponent = format.specialExponent;
  out.significand = 1n << BigInt(format.precision - 1);
}

/** Makes `out` the NaN with the 64-bit significand `significand`, made quiet. */
export function setNan(format: FloatFormat, sign: number, significand: bigint, out: FloatResult): void {
  out.sign = sign;
  out.exponent = format.specialExponent;
  out.significand = (significand | QUIET_BIT | INTEGER_BIT) >> BigInt(64 - format.precision);
}

/** Makes `out` the default NaN, "QNaN floating-point indefinite": negative, quiet, no payload. */
export function setDefaultNan(format: FloatFormat, out: FloatResult): void {
  setNan(format, 1, QUIET_BIT, out);
}

/**
 * What is added to or taken from the exponent of a result whose overflow or underflow is not masked (x87; Intel SDM
 * volume 1, 8.5.4 and 8.5.5).
 */
const EXTENDED_EXPONENT_WRAP = 0x6000;

/**
 * Whether the magnitude `quotient` with the remainder `rest` (of `2 * half` units, `sticky`: and a bit more) rounds
 * away from zero.
 */
function roundsAway(
  rounding: number,
  sign: number,
  quotient: bigint,
  rest: bigint,
  half: bigint,
  sticky: boolean,
): boolean {
  if (rest === 0n && !sticky) return false;
  switch (rounding) {
    case ROUND_NEAREST:
      if (rest !== half) return rest > half;
      return sticky || (quotient & 1n) === 1n;
    case ROUND_DOWN:
      return sign === 1;
    case ROUND_UP:
      return sign === 0;
    default:
      return false;
  }
}

/**
 * Rounds `significand * 2^exponent` (with `sticky`: plus less than one unit of its last bit) to `precision` bits in the
 * range of `format` and puts it together.
 * The significand is greater than 0; with `sticky` it has at least two bits more than `precision`.
 */
export function roundPack(
  env: FloatEnvironment,
  format: FloatFormat,
  precision: number,
  sign: number,
  exponent: number,
  significand: bigint,
  sticky: boolean,
  out: FloatResult,
): void {
  const length = bitLength(significand);
  let top = exponent + length - 1;
  const drop = length - precision;
  let quotient = significand;
  let inexact = false;
  let away = false;
  if (drop > 0) {
    const shift = BigInt(drop);
    quotient = significand >> shift;
    const rest = significand - (quotient << shift);
    inexact = rest !== 0n || sticky;
    away = roundsAway(env.rounding, sign, quotient, rest, 1n << (shift - 1n), sticky);
    if (away) {
      quotient += 1n;
      if (quotient >> BigInt(precision) !== 0n) {
        quotient >>= 1n;
        top++;
      }
    }
  } else if (drop < 0) {
    quotient = significand << BigInt(-drop);
  }
  out.sign = sign;
  env.roundedUp = away;
  if (top > format.bias) {
    packOverflow(env, format, precision, sign, top, quotient, inexact, out);
    return;
  }
  if (top < format.minExponent) {
    if (!env.unmasked(FLAG_UNDERFLOW)) {
      packDenormal(env, format, precision, sign, exponent, significand, sticky, out);
      return;
    }
    env.flags |= FLAG_UNDERFLOW;
    if (format.extended) top += EXTENDED_EXPONENT_WRAP;
    if (format.extended && top < format.minExponent) {
      // So small that even the wrapped exponent does not fit.
      env.flags |= FLAG_INEXACT;
      env.roundedUp = false;
      setZero(sign, out);
      return;
    }
  }
  if (inexact) env.flags |= FLAG_INEXACT;
  out.exponent = top + format.bias;
  out.significand = quotient << BigInt(format.precision - precision);
}

/** A result too great for the format. */
function packOverflow(
  env: FloatEnvironment,
  format: FloatFormat,
  precision: number,
  sign: number,
  top: number,
  quotient: bigint,
  inexact: boolean,
  out: FloatResult,
): void {
  env.flags |= FLAG_OVERFLOW;
  const spare = BigInt(format.precision - precision);
  if (env.unmasked(FLAG_OVERFLOW)) {
    const wrapped = top - EXTENDED_EXPONENT_WRAP;
    if (format.extended && wrapped > format.bias) {
      env.flags |= FLAG_INEXACT;
      env.roundedUp = true;
      setInfinity(format, sign, out);
      return;
    }
    if (inexact) env.flags |= FLAG_INEXACT;
    out.exponent = wrapped + format.bias;
    out.significand = quotient << spare;
    return;
  }
  env.flags |= FLAG_INEXACT;
  const toInfinity = env.rounding === ROUND_NEAREST || env.rounding === (sign === 0 ? ROUND_UP : ROUND_DOWN);
  env.roundedUp = toInfinity;
  if (toInfinity) {
    setInfinity(format, sign, out);
  } else {
    out.exponent = format.specialExponent - 1;
    out.significand = ((1n << BigInt(precision)) - 1n) << spare;
  }
}

/**
 * A tiny result under masked underflow: rounded once more from the exact value, at the place of the last bit of a
 * denormal.
 */
function packDenormal(
  env: FloatEnvironment,
  format: FloatFormat,
  precision: number,
  sign: number,
  exponent: number,
  significand: bigint,
  sticky: boolean,
  out: FloatResult,
): void {
  if (env.flushToZero) {
    env.flags |= FLAG_UNDERFLOW | FLAG_INEXACT;
    env.roundedUp = false;
    setZero(sign, out);
    return;
  }
  const drop = format.minExponent - (precision - 1) - exponent;
  let quotient: bigint;
  let away = false;
  if (drop <= 0) {
    quotient = significand << BigInt(-drop);
  } else {
    const shift = BigInt(drop);
    quotient = significand >> shift;
    const rest = significand - (quotient << shift);
    if (rest !== 0n || sticky) env.flags |= FLAG_UNDERFLOW | FLAG_INEXACT;
    away = roundsAway(env.rounding, sign, quotient, rest, 1n << (shift - 1n), sticky);
    if (away) quotient += 1n;
  }
  env.roundedUp = away;
  out.exponent = quotient >> BigInt(precision - 1) !== 0n ? 1 : 0;
  out.significand = quotient << BigInt(format.precision - precision);
}
