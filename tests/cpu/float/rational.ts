/**
 * An independent reference for rounding: exact rational numbers over BigInt. A result is found by bisection over the
 * format's encodings, which ascend with their values,
 * and not by shifting bits.
 */

/** numerator / denominator; the denominator is positive. */
export interface Rational {
  readonly n: bigint;
  readonly d: bigint;
}

/** A format: bits of the significand with its integer bit, and the greatest exponent. */
export interface Format {
  readonly precision: number;
  readonly emax: number;
}

export const SINGLE: Format = { precision: 24, emax: 127 };
export const DOUBLE: Format = { precision: 53, emax: 1023 };
/** Double extended, encoded here like the others, without its stored integer bit. */
export const EXTENDED: Format = { precision: 64, emax: 16383 };

export const IE = 1, DE = 2, ZE = 4, OE = 8, UE = 16, PE = 32;
export const NEAREST = 0, DOWN = 1, UP = 2, ZERO = 3;

const power = (e: number): Rational => e >= 0 ? { n: 1n << BigInt(e), d: 1n } : { n: 1n, d: 1n << BigInt(-e) };
export const times = (a: Rational, b: Rational): Rational => ({ n: a.n * b.n, d: a.d * b.d });
export const plus = (a: Rational, b: Rational): Rational => ({ n: a.n * b.d + b.n * a.d, d: a.d * b.d });
export const over = (a: Rational, b: Rational): Rational =>
  b.n < 0n ? { n: -a.n * b.d, d: a.d * -b.n } : { n: a.n * b.d, d: a.d * b.n };
export const negative = (a: Rational): Rational => ({ n: -a.n, d: a.d });
const compare = (a: Rational, b: Rational): number => {
  const x = a.n * b.d, y = b.n * a.d;
  return x < y ? -1 : x > y ? 1 : 0;
};

/** The value of a finite encoding's magnitude. */
export function valueOf(format: Format, magnitude: bigint): Rational {
  const p = BigInt(format.precision - 1);
  const fraction = magnitude & ((1n << p) - 1n);
  const biased = Number(magnitude >> p);
  const exponent = (biased === 0 ? 1 : biased) - format.emax - (format.precision - 1);
  return times({ n: biased === 0 ? fraction : fraction | (1n << p), d: 1n }, power(exponent));
}

/**
 * The greatest encoding whose value is at most the magnitude; may be that of the greatest finite number for anything
 * above.
 */
function below(format: Format, x: Rational): bigint {
  let low = 0n;
  let high = BigInt(2 * format.emax + 1) << BigInt(format.precision - 1);
  while (high - low > 1n) {
    const middle = (low + high) >> 1n;
    if (compare(valueOf(format, middle), x) <= 0) low = middle;
    else high = middle;
  }
  return low;
}

export interface Rounded {
  /** Sign and magnitude of the encoding. */
  readonly sign: number;
  readonly magnitude: bigint;
  readonly flags: number;
}

/** Rounds the number x, which is not zero, as IEEE 754 with x86's tininess after rounding and masked responses. */
export function round(format: Format, x: Rational, mode: number): Rounded {
  const sign = x.n < 0n ? 1 : 0;
  const m = sign ? negative(x) : x;
  const infinity = BigInt(2 * format.emax + 1) << BigInt(format.precision - 1);
  const greatest = infinity - 1n;
  const down = below(format, m);
  const exact = compare(valueOf(format, down), m) === 0;
  if (exact && down < infinity) return { sign, magnitude: down, flags: 0 };
  const outward = mode === UP ? sign === 0 : mode === DOWN ? sign === 1 : false;
  // The place after the greatest finite number, as if the exponent went on.
  const lower = valueOf(format, down);
  const upper = valueOf(format, down + 1n);
  let magnitude = down;
  if (mode === NEAREST) {
    const half = compare(plus(m, m), plus(lower, upper));
    if (half > 0 || (half === 0 && (down & 1n) === 1n)) magnitude++;
  } else if (outward) {
    magnitude++;
  }
  if (compare(m, upper) >= 0 || magnitude === infinity) {
    const infinite = mode === NEAREST || outward;
    return { sign, magnitude: infinite ? infinity : greatest, flags: OE | PE };
  }
  let flags = PE;
  // Tiny after rounding: the same number moved up by a power of two, rounded there, is below the moved border.
  const lift = power(format.emax);
  const border = valueOf(format, 1n << BigInt(format.precision - 1));
  if (compare(m, border) < 0) {
    const lifted = round(format, times(sign ? negative(m) : m, lift), mode);
    if (compare(valueOf(format, lifted.magnitude), times(border, lift)) < 0) flags |= UE;
  }
  return { sign, magnitude, flags };
}

/** Rounds the square root of x > 0, without ever writing it down. */
export function roundRoot(format: Format, x: Rational, mode: number): Rounded {
  let low = 0n;
  let high = BigInt(2 * format.emax + 1) << BigInt(format.precision - 1);
  while (high - low > 1n) {
    const middle = (low + high) >> 1n;
    const v = valueOf(format, middle);
    if (compare(times(v, v), x) <= 0) low = middle;
    else high = middle;
  }
  const lower = valueOf(format, low);
  if (compare(times(lower, lower), x) === 0) return { sign: 0, magnitude: low, flags: 0 };
  const sum = plus(lower, valueOf(format, low + 1n));
  const half = compare(times(sum, sum), times({ n: 4n, d: 1n }, x));
  const up = mode === UP || (mode === NEAREST && half < 0);
  return { sign: 0, magnitude: up ? low + 1n : low, flags: PE };
}

/** Seeded random 64-bit words (splitmix64). */
export function random(seed: bigint): () => bigint {
  let state = seed;
  return () => {
    state = BigInt.asUintN(64, state + 0x9e3779b97f4a7c15n);
    let z = state;
    z = BigInt.asUintN(64, (z ^ (z >> 30n)) * 0xbf58476d1ce4e5b9n);
    z = BigInt.asUintN(64, (z ^ (z >> 27n)) * 0x94d049bb133111ebn);
    return z ^ (z >> 31n);
  };
}

/**
 * Encodings of a format that make trouble: around 0, 1, the borders of the exponent range, and random ones. Magnitudes
 * only.
 */
export function awkward(format: Format, next: () => bigint, count: number): bigint[] {
  const p = BigInt(format.precision - 1);
  const one = BigInt(format.emax) << p;
  const infinity = BigInt(2 * format.emax + 1) << p;
  const list = [1n, 2n, (1n << p) - 1n, 1n << p, (1n << p) + 1n, one - 1n, one, one + 1n, one + (1n << (p - 1n))];
  list.push(infinity - 1n, infinity - (1n << p), one + (1n << p) * p, one - (1n << p) * p);
  for (let k = 0; k < count; k++) {
    const fraction = next() & ((1n << p) - 1n);
    const near = BigInt(format.emax - 30) + (next() % 60n);
    const any = next() % BigInt(2 * format.emax + 1);
    list.push(((k & 1) === 0 ? near : any) << p | ((k & 2) === 0 ? fraction : fraction >> (p / 2n) << (p / 2n)));
  }
  return list;
}
