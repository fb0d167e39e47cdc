import { assertEquals } from "@std/assert";
import { add, divide, multiply, squareRoot } from "../../../lib/cpu/float/arithmetic.ts";
import { fromInteger, roundToIntegral, toInteger } from "../../../lib/cpu/float/convert.ts";
import { FloatEnvironment } from "../../../lib/cpu/float/environment.ts";
import {
  EXTENDED80,
  FloatResult,
  KIND_UNSUPPORTED,
  Operand,
  setDefaultNan,
  unpackExtended,
} from "../../../lib/cpu/float/format.ts";
import { extract, quotientBits, remainder, scale } from "../../../lib/cpu/float/remainder.ts";
import {
  awkward,
  DE,
  EXTENDED,
  type Format,
  IE,
  OE,
  over,
  PE,
  plus,
  random,
  type Rational,
  round,
  roundRoot,
  times,
  UE,
  valueOf,
  ZE,
} from "./rational.ts";

const FCW_MASKED = 0x37f;
const INTEGER_BIT = 1n << 63n;

const environment = new FloatEnvironment();
const a = new Operand();
const b = new Operand();
const result = new FloatResult();

/** Sets an operand from an encoding without the stored integer bit. */
function put(operand: Operand, sign: number, magnitude: bigint): void {
  const biased = magnitude >> 63n;
  const fraction = magnitude & (INTEGER_BIT - 1n);
  unpackExtended((sign << 15) | Number(biased), biased === 0n ? fraction : fraction | INTEGER_BIT, operand);
}

function encoding(): bigint {
  return (BigInt(result.exponent) << 63n) | (result.significand & (INTEGER_BIT - 1n));
}

function begin(mode: number, precisionControl = 3): void {
  environment.loadControlWord((FCW_MASKED & ~0x300) | (precisionControl << 8) | (mode << 10));
}

Deno.test("double extended addition, multiplication, division and square root are correctly rounded in every mode", () => {
  const next = random(11n);
  const magnitudes = awkward(EXTENDED, next, 12);
  for (const ma of magnitudes) {
    for (const mb of magnitudes) {
      const mode = Number(next() & 3n);
      const va = valueOf(EXTENDED, ma);
      const vb = valueOf(EXTENDED, mb);
      const denormal = (ma >> 63n) === 0n || (mb >> 63n) === 0n ? DE : 0;
      const cases: [string, Rational, () => void][] = [
        ["add", plus(va, vb), () => add(environment, EXTENDED80, a, b, 0, result)],
        ["multiply", times(va, vb), () => multiply(environment, EXTENDED80, a, b, result)],
        ["divide", over(va, vb), () => divide(environment, EXTENDED80, a, b, result)],
      ];
      for (const [name, exact, run] of cases) {
        const expected = round(EXTENDED, exact, mode);
        put(a, 0, ma);
        put(b, 0, mb);
        begin(mode);
        run();
        const what = `${name} ${ma.toString(16)} ${mb.toString(16)} mode ${mode}`;
        assertEquals(encoding().toString(16), expected.magnitude.toString(16), what);
        assertEquals(environment.flags, expected.flags | denormal, what);
      }
    }
    for (let mode = 0; mode < 4; mode++) {
      put(a, 0, ma);
      begin(mode);
      squareRoot(environment, EXTENDED80, a, result);
      assertEquals(encoding(), roundRoot(EXTENDED, valueOf(EXTENDED, ma), mode).magnitude);
    }
  }
});

Deno.test("precision control shortens the significand and keeps the range", () => {
  for (const [precisionControl, precision] of [[0, 24], [2, 53]]) {
    const format: Format = { precision, emax: 16383 };
    const next = random(12n);
    for (let k = 0; k < 200; k++) {
      const near = () => ((16383n - 20n + (next() % 40n)) << 63n) | (next() >> 1n);
      const ma = near();
      const mb = near();
      const mode = Number(next() & 3n);
      put(a, 0, ma);
      put(b, 0, mb);
      begin(mode, precisionControl);
      divide(environment, EXTENDED80, a, b, result);
      const expected = round(format, over(valueOf(EXTENDED, ma), valueOf(EXTENDED, mb)), mode);
      assertEquals(encoding() >> BigInt(64 - precision), expected.magnitude);
      assertEquals(result.significand & ((1n << BigInt(64 - precision)) - 1n), 0n);
      assertEquals(environment.flags, expected.flags);
    }
  }
});

Deno.test("C1's source: the rounded result is greater in magnitude than the exact one", () => {
  const third = (mode: number): boolean => {
    put(a, 0, 16383n << 63n);
    put(b, 0, (16384n << 63n) | (INTEGER_BIT >> 1n)); // 3
    begin(mode);
    divide(environment, EXTENDED80, a, b, result);
    return environment.roundedUp;
  };
  // 1/3 in binary is 0.0101…: to 64 bits it rounds up to nearest, as the 65th and 66th are 1 and 0.
  assertEquals([0, 1, 2, 3].map(third), [true, false, true, false]);
});

Deno.test("unmasked overflow and underflow deliver a result whose exponent is wrapped by 24576", () => {
  put(a, 0, (32766n << 63n) | 5n);
  environment.loadControlWord(FCW_MASKED & ~OE);
  multiply(environment, EXTENDED80, a, a, result);
  assertEquals(environment.flags & OE, OE);
  // 2^16383 squared is 2^32766.
  assertEquals(result.exponent, 32766 + 16383 - 24576);
  put(a, 0, 1n << 63n);
  environment.loadControlWord(FCW_MASKED & ~UE);
  multiply(environment, EXTENDED80, a, a, result);
  assertEquals(environment.flags, UE);
  assertEquals(result.exponent, -2 * 16382 + 16383 + 24576);
});

Deno.test("SDM table 4-7: x87 delivers the quiet NaN of the two, or the greater significand", () => {
  const nan = (operand: Operand, sign: number, fraction: bigint) =>
    unpackExtended((sign << 15) | 0x7fff, INTEGER_BIT | fraction, operand);
  const QUIET = 1n << 62n;
  const cases: [
    aSign: number,
    aFraction: bigint,
    bSign: number,
    bFraction: bigint,
    sign: number,
    fraction: bigint,
    flags: number,
  ][] = [
    [0, QUIET | 1n, 0, QUIET | 2n, 0, QUIET | 2n, 0],
    [1, QUIET | 2n, 0, QUIET | 1n, 1, QUIET | 2n, 0],
    [1, QUIET | 2n, 0, QUIET | 2n, 0, QUIET | 2n, 0],
    [0, 5n, 0, QUIET | 1n, 0, QUIET | 1n, IE],
    [0, QUIET | 1n, 0, 5n, 0, QUIET | 1n, IE],
    [0, 5n, 1, 6n, 1, QUIET | 6n, IE],
  ];
  for (const [aSign, aFraction, bSign, bFraction, sign, fraction, flags] of cases) {
    nan(a, aSign, aFraction);
    nan(b, bSign, bFraction);
    begin(0);
    add(environment, EXTENDED80, a, b, 0, result);
    assertEquals([result.sign, result.significand, environment.flags], [sign, INTEGER_BIT | fraction, flags]);
  }
});

Deno.test("unnormals, pseudo-infinities and pseudo-NaNs are invalid, pseudo-denormals are denormal operands", () => {
  const expected = new FloatResult();
  setDefaultNan(EXTENDED80, expected);
  for (const [signExponent, significand] of [[0x3fff, 1n << 62n], [0x7fff, 0n], [0x7fff, 1n], [0x1234, 0n]] as const) {
    unpackExtended(signExponent, significand, a);
    assertEquals(a.kind, KIND_UNSUPPORTED);
    put(b, 0, 16383n << 63n);
    begin(0);
    add(environment, EXTENDED80, a, b, 0, result);
    assertEquals(result, expected);
    assertEquals(environment.flags, IE);
  }
  unpackExtended(0, INTEGER_BIT, a);
  unpackExtended(0, 0n, b);
  begin(0);
  add(environment, EXTENDED80, a, b, 0, result);
  assertEquals([result.exponent, result.significand, environment.flags], [1, INTEGER_BIT, DE]);
});

Deno.test("FPREM is exact: the dividend less the truncated quotient times the divisor", () => {
  const next = random(13n);
  for (let k = 0; k < 500; k++) {
    const ma = ((16383n + (next() % 60n)) << 63n) | (next() >> 1n);
    const mb = (16383n << 63n) | (next() >> 1n);
    const x = valueOf(EXTENDED, ma);
    const y = valueOf(EXTENDED, mb);
    const quotient = over(x, y);
    for (const nearest of [false, true]) {
      put(a, 0, ma);
      put(b, 0, mb);
      begin(0);
      remainder(environment, a, b, nearest, result);
      let q = quotient.n / quotient.d;
      const rest = quotient.n - q * quotient.d;
      if (nearest && (2n * rest > quotient.d || (2n * rest === quotient.d && (q & 1n) === 1n))) q++;
      const expected = plus(x, times(y, { n: -q, d: 1n }));
      assertEquals(quotientBits, Number(q & 7n));
      const value = valueOf(EXTENDED, encoding());
      assertEquals((result.sign === 1 ? -value.n : value.n) * expected.d, expected.n * value.d);
      assertEquals(environment.flags, 0);
    }
  }
});

Deno.test("FPREM of far operands reduces partially and leaves the final remainder the same", () => {
  put(a, 0, ((16383n + 200n) << 63n) | 0x123456789abcdefn);
  const y = (16383n << 63n) | 0x7654321n;
  const exact = (() => {
    const x = valueOf(EXTENDED, ((16383n + 200n) << 63n) | 0x123456789abcdefn);
    const d = valueOf(EXTENDED, y);
    const q = over(x, d);
    return plus(x, times(d, { n: -(q.n / q.d), d: 1n }));
  })();
  let turns = 0;
  do {
    put(b, 0, y);
    begin(0);
    remainder(environment, a, b, false, result);
    unpackExtended(result.exponent, result.significand, a);
    turns++;
  } while (quotientBits < 0);
  assertEquals(turns > 1, true);
  const value = valueOf(EXTENDED, encoding());
  assertEquals(value.n * exact.d, exact.n * value.d);
});

Deno.test("FSCALE multiplies by a power of two, truncating its exponent", () => {
  put(a, 0, (16383n << 63n) | 7n);
  fromInteger(environment, EXTENDED80, -5n, result);
  unpackExtended((result.sign << 15) | result.exponent, result.significand, b);
  begin(0);
  scale(environment, a, b, result);
  assertEquals([result.exponent, result.significand], [16383 - 5, INTEGER_BIT | 7n]);
  unpackExtended(16383, (INTEGER_BIT >> 1n) | INTEGER_BIT, b); // 1.5
  scale(environment, a, b, result);
  assertEquals(result.exponent, 16384);
  unpackExtended(0x7fff, INTEGER_BIT, b);
  unpackExtended(0, 0n, a);
  begin(0);
  scale(environment, a, b, result);
  assertEquals(environment.flags, IE);
});

Deno.test("FXTRACT separates exponent and significand; zero is a division by zero", () => {
  const exponent = new FloatResult();
  put(a, 1, ((16383n - 3n) << 63n) | 9n);
  begin(0);
  extract(environment, a, result, exponent);
  assertEquals([result.sign, result.exponent, result.significand], [1, 16383, INTEGER_BIT | 9n]);
  // -3 is 1.1b * 2^1.
  assertEquals([exponent.sign, exponent.exponent, exponent.significand], [1, 16384, 3n << 62n]);
  unpackExtended(0x8000, 0n, a);
  begin(0);
  extract(environment, a, result, exponent);
  assertEquals([result.sign, result.exponent, exponent.sign, exponent.exponent], [1, 0, 1, 0x7fff]);
  assertEquals(environment.flags, ZE);
});

Deno.test("FRNDINT and FIST round as the control word says", () => {
  // 2.5, rounded to nearest even, down, up and towards zero.
  const expected = [2n, 2n, 3n, 2n];
  for (let mode = 0; mode < 4; mode++) {
    unpackExtended(16384, (INTEGER_BIT >> 2n) | INTEGER_BIT, a);
    begin(mode);
    assertEquals(toInteger(environment, a, 16, mode), expected[mode]);
    assertEquals([environment.flags, environment.roundedUp], [PE, mode === 2]);
    begin(mode);
    roundToIntegral(environment, EXTENDED80, a, mode, true, result);
    assertEquals(result.significand >> 62n, expected[mode]);
    assertEquals([environment.flags, environment.roundedUp], [PE, mode === 2]);
  }
  unpackExtended(16383 + 15, INTEGER_BIT, a); // 32768 does not fit 16 bits
  begin(0);
  assertEquals(toInteger(environment, a, 16, 0), -32768n);
  assertEquals(environment.flags, IE);
});
