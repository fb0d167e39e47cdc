import { assertEquals } from "@std/assert";
import {
  add32,
  cmp32,
  compare32,
  convert32toInt32,
  div32,
  max32,
  min32,
  mul32,
  rcp32,
  round32,
  rsqrt32,
  sqrt32,
} from "../../../lib/cpu/float/binary32.ts";
import {
  add64,
  convert64toInt32,
  convert64toInt64,
  convertInt64to64,
  div64,
  max64,
  min64,
  mul64,
} from "../../../lib/cpu/float/binary64.ts";
import {
  A_U32,
  A_U64,
  B_F64,
  B_I64,
  B_U32,
  B_U64,
  R_F32,
  R_I32,
  R_I64,
  R_U32,
  R_U64,
  sse,
} from "../../../lib/cpu/float/lanes.ts";
import { DE, IE, OE, PE, UE, ZE } from "./rational.ts";

const MXCSR_MASKED = 0x1f80;
const DAZ = 0x40;
const FTZ = 0x8000;

const ONE = 0x3f800000;
const ZERO = 0;
const MINUS_ZERO = 0x80000000;
const INFINITY = 0x7f800000;
const MINUS_INFINITY = 0xff800000;
const DEFAULT_NAN = 0xffc00000;
const QNAN = 0x7fc12345;
const OTHER_QNAN = 0xffd54321;
const SNAN = 0x7f812345;
const DENORMAL = 0x00000123;
const MIN_NORMAL = 0x00800000;

type Case = readonly [run: (lane: number) => void, a: number, b: number, result: number, flags: number];

function checkAll(cases: readonly Case[], mxcsr = MXCSR_MASKED): void {
  for (const [run, a, b, result, flags] of cases) {
    A_U32[0] = a;
    B_U32[0] = b;
    sse.loadMxcsr(mxcsr);
    run(0);
    const what = `${run.name} ${a.toString(16)} ${b.toString(16)}`;
    assertEquals(R_U32[0].toString(16), result.toString(16), what);
    assertEquals(sse.flags, flags, `flags of ${what}`);
  }
}

Deno.test("SDM table 4-7: the first operand's NaN is delivered, quiet; a signalling one is invalid", () => {
  checkAll([
    [add32, QNAN, ONE, QNAN, 0],
    [add32, ONE, QNAN, QNAN, 0],
    [mul32, QNAN, OTHER_QNAN, QNAN, 0],
    [mul32, OTHER_QNAN, QNAN, OTHER_QNAN, 0],
    [add32, SNAN, QNAN, SNAN | 0x400000, IE],
    [add32, QNAN, SNAN, QNAN, IE],
    [div32, ONE, SNAN, SNAN | 0x400000, IE],
    [sqrt32, ZERO, SNAN, SNAN | 0x400000, IE],
    [sqrt32, ZERO, OTHER_QNAN, OTHER_QNAN, 0],
  ]);
});

Deno.test("invalid operations deliver the default NaN", () => {
  checkAll([
    [add32, INFINITY, MINUS_INFINITY, DEFAULT_NAN, IE],
    [mul32, INFINITY, ZERO, DEFAULT_NAN, IE],
    [div32, ZERO, ZERO, DEFAULT_NAN, IE],
    [div32, INFINITY, INFINITY, DEFAULT_NAN, IE],
    [sqrt32, ZERO, 0xbf800000, DEFAULT_NAN, IE],
    [sqrt32, ZERO, 0x80000001, DEFAULT_NAN, IE],
  ]);
});

Deno.test("infinities and zeros are exact", () => {
  checkAll([
    [add32, INFINITY, ONE, INFINITY, 0],
    [div32, ONE, INFINITY, ZERO, 0],
    [div32, INFINITY, ZERO, INFINITY, 0],
    [sqrt32, ZERO, MINUS_ZERO, MINUS_ZERO, 0],
    [add32, ONE, 0xbf800000, ZERO, 0],
    [mul32, MINUS_ZERO, ONE, MINUS_ZERO, 0],
  ]);
  // The sum of opposite numbers is negative zero when rounding down (SDM volume 1, 4.8.3.1).
  checkAll([[add32, ONE, 0xbf800000, MINUS_ZERO, 0]], MXCSR_MASKED | (1 << 13));
});

Deno.test("priority of exceptions: a NaN and a division by zero win over a denormal operand", () => {
  checkAll([
    [add32, DENORMAL, QNAN, QNAN, 0],
    [add32, DENORMAL, SNAN, SNAN | 0x400000, IE],
    [div32, DENORMAL, ZERO, INFINITY, ZE],
    [div32, ONE, MINUS_ZERO, MINUS_INFINITY, ZE],
    [add32, DENORMAL, ZERO, DENORMAL, DE],
  ]);
});

Deno.test("an unmasked denormal operand stops the computation: no later exception is reported", () => {
  const mxcsr = MXCSR_MASKED & ~(DE << 7);
  A_U32[0] = DENORMAL;
  B_U32[0] = ONE;
  sse.loadMxcsr(mxcsr);
  add32(0);
  assertEquals(sse.flags, DE);
});

Deno.test("DAZ: denormal operands are zeros of the same sign, without an exception", () => {
  checkAll([
    [add32, DENORMAL, ZERO, ZERO, 0],
    [mul32, DENORMAL, 0xbf800000, MINUS_ZERO, 0],
    [div32, ONE, DENORMAL, INFINITY, ZE],
    [sqrt32, ZERO, MINUS_ZERO | DENORMAL, MINUS_ZERO, 0],
    [max32, 0xbf800000, DENORMAL, ZERO, 0],
  ], MXCSR_MASKED | DAZ);
});

Deno.test("FTZ: a tiny result becomes a zero with UE and PE, also an exact one", () => {
  checkAll([
    [mul32, MIN_NORMAL, 0x3f000000, ZERO, UE | PE],
    [mul32, MIN_NORMAL, 0xbf000000, MINUS_ZERO, UE | PE],
  ], MXCSR_MASKED | FTZ);
});

Deno.test("a masked underflow is reported only when the result is inexact, an unmasked one always", () => {
  checkAll([[mul32, MIN_NORMAL, 0x3f000000, MIN_NORMAL >> 1, 0]]);
  A_U32[0] = MIN_NORMAL;
  B_U32[0] = 0x3f000000;
  sse.loadMxcsr(MXCSR_MASKED & ~(UE << 7));
  mul32(0);
  assertEquals(sse.flags, UE);
});

Deno.test("tininess is detected after rounding", () => {
  // (1 - 2^-24) * 2^-126 rounds up to the smallest normal number at its own precision: not tiny. The same just below
  // is.
  checkAll([
    [mul32, 0x3f7fffff, MIN_NORMAL, MIN_NORMAL, UE | PE],
    [mul32, 0x3f800001, 0x007fffff, MIN_NORMAL, DE | PE],
  ]);
});

Deno.test("MIN and MAX deliver the second operand for NaNs and for two zeros", () => {
  checkAll([
    [min32, QNAN, ONE, ONE, IE],
    [min32, ONE, QNAN, QNAN, IE],
    [max32, ONE, SNAN, SNAN, IE],
    [min32, ZERO, MINUS_ZERO, MINUS_ZERO, 0],
    [max32, MINUS_ZERO, ZERO, ZERO, 0],
    [min32, MINUS_INFINITY, ONE, MINUS_INFINITY, 0],
    [max32, DENORMAL, ZERO, DENORMAL, DE],
  ]);
  for (const run of [min64, max64]) {
    A_U64[0] = 0x3ff0000000000000n;
    B_U64[0] = 0x7ff0000000000001n;
    sse.loadMxcsr(MXCSR_MASKED);
    run(0);
    assertEquals(R_U64[0], 0x7ff0000000000001n);
    assertEquals(sse.flags, IE);
  }
});

Deno.test("the eight predicates of CMPPS: LT, LE, NLT and NLE take a quiet NaN for invalid", () => {
  const TWO = 0x40000000;
  // Columns: less, equal, greater, unordered.
  const truth = ["0100", "1000", "1100", "0001", "1011", "0111", "0011", "1110"];
  const operands = [[ONE, TWO], [ONE, ONE], [TWO, ONE], [ONE, QNAN]];
  for (let predicate = 0; predicate < 8; predicate++) {
    operands.forEach(([a, b], column) => {
      A_U32[0] = a;
      B_U32[0] = b;
      sse.loadMxcsr(MXCSR_MASKED);
      cmp32(0, predicate);
      assertEquals(R_I32[0], truth[predicate][column] === "1" ? -1 : 0, `predicate ${predicate} column ${column}`);
      const signals = column === 3 && [1, 2, 5, 6].includes(predicate);
      assertEquals(sse.flags, signals ? IE : 0);
    });
  }
});

Deno.test("COMISS takes any NaN for invalid, UCOMISS a signalling one", () => {
  const flagsOf = (bits: number, quietIsInvalid: boolean): number => {
    A_U32[0] = ONE;
    B_U32[0] = bits;
    sse.loadMxcsr(MXCSR_MASKED);
    assertEquals(compare32(0, quietIsInvalid), 2);
    return sse.flags;
  };
  assertEquals(flagsOf(QNAN, true), IE);
  assertEquals(flagsOf(QNAN, false), 0);
  assertEquals(flagsOf(SNAN, false), IE);
});

Deno.test("conversion to integers: rounding control, truncation, and the integer indefinite outside the range", () => {
  const toInt32 = (x: number, mode: number, truncate: boolean): [number, number] => {
    B_F64[0] = x;
    sse.loadMxcsr(MXCSR_MASKED | (mode << 13));
    convert64toInt32(0, 0, truncate);
    return [R_I32[0], sse.flags];
  };
  assertEquals(toInt32(2.5, 0, false), [2, PE]);
  assertEquals(toInt32(3.5, 0, false), [4, PE]);
  assertEquals(toInt32(-2.5, 0, false), [-2, PE]);
  assertEquals(toInt32(2.5, 1, false), [2, PE]);
  assertEquals(toInt32(-2.5, 1, false), [-3, PE]);
  assertEquals(toInt32(2.5, 2, false), [3, PE]);
  assertEquals(toInt32(-2.5, 2, false), [-2, PE]);
  assertEquals(toInt32(-2.5, 3, false), [-2, PE]);
  assertEquals(toInt32(-2.9, 0, true), [-2, PE]);
  assertEquals(toInt32(-(2 ** 31), 0, false), [-0x80000000, 0]);
  assertEquals(toInt32(2 ** 31, 0, false), [-0x80000000, IE]);
  assertEquals(toInt32(2 ** 31 - 0.5, 0, false), [-0x80000000, IE]);
  assertEquals(toInt32(2 ** 31 - 0.5, 0, true), [0x7fffffff, PE]);
  assertEquals(toInt32(-(2 ** 31) - 0.25, 0, false), [-0x80000000, PE]);
  assertEquals(toInt32(Infinity, 0, true), [-0x80000000, IE]);
  assertEquals(toInt32(NaN, 0, true), [-0x80000000, IE]);
  B_F64[0] = 2 ** 62 + 2 ** 20;
  sse.loadMxcsr(MXCSR_MASKED);
  convert64toInt64(false);
  assertEquals(R_I64[0], 2n ** 62n + 2n ** 20n);
  B_F64[0] = 2 ** 63;
  convert64toInt64(true);
  assertEquals(R_I64[0], -(2n ** 63n));
  assertEquals(sse.flags, IE);
});

Deno.test("conversion of 64-bit integers to binary64 rounds to nearest even", () => {
  for (
    const [value, result, flags] of [[2n ** 53n + 1n, 2 ** 53, PE], [2n ** 53n + 3n, 2 ** 53 + 4, PE], [
      -5n,
      -5,
      0,
    ]] as const
  ) {
    B_I64[0] = value;
    sse.loadMxcsr(MXCSR_MASKED);
    convertInt64to64();
    B_F64[0] = result;
    assertEquals(R_U64[0], B_U64[0]);
    assertEquals(sse.flags, flags);
  }
});

Deno.test("ROUNDSS can leave the inexact exception unreported, but not the invalid one", () => {
  B_U32[0] = 0x3fc00000; // 1.5
  sse.loadMxcsr(MXCSR_MASKED);
  round32(0, 0, false);
  assertEquals([R_F32[0], sse.flags], [2, PE]);
  sse.loadMxcsr(MXCSR_MASKED);
  round32(0, 1, true);
  assertEquals([R_F32[0], sse.flags], [1, 0]);
  B_U32[0] = SNAN;
  round32(0, 0, true);
  assertEquals(sse.flags, IE);
});

Deno.test("overflow delivers infinity or the greatest number, as the rounding mode says", () => {
  const GREATEST = 0x7f7fffff;
  const results = [INFINITY, GREATEST, INFINITY, GREATEST];
  for (let mode = 0; mode < 4; mode++) {
    checkAll([[mul32, GREATEST, 0x40000000, results[mode], OE | PE]], MXCSR_MASKED | (mode << 13));
  }
  A_U64[0] = 0x7fefffffffffffffn;
  B_U64[0] = 0x7fefffffffffffffn;
  for (const run of [add64, mul64]) {
    sse.loadMxcsr(MXCSR_MASKED);
    run(0);
    assertEquals([R_U64[0], sse.flags], [0x7ff0000000000000n, OE | PE]);
  }
  B_U64[0] = 1n;
  sse.loadMxcsr(MXCSR_MASKED);
  div64(0);
  assertEquals([R_U64[0], sse.flags], [0x7ff0000000000000n, OE | PE | DE]);
});

Deno.test("CVTTPS2DQ of a binary32 at the border of the range", () => {
  for (
    const [bits, result, flags] of [[0x4f000000, -0x80000000, IE], [0xcf000000, -0x80000000, 0], [
      0x4effffff,
      0x7fffff80,
      0,
    ]]
  ) {
    B_U32[0] = bits;
    sse.loadMxcsr(MXCSR_MASKED);
    convert32toInt32(0, true);
    assertEquals([R_I32[0], sse.flags], [result, flags]);
  }
});

Deno.test("RCPPS and RSQRTPS are within their promised relative error and raise nothing", () => {
  const ERROR_MAX = 1.5 * 2 ** -12;
  for (let k = 1; k < 200; k++) {
    const x = Math.fround(k * 1.37);
    new Float32Array(B_U32.buffer, B_U32.byteOffset, 1)[0] = x;
    sse.loadMxcsr(MXCSR_MASKED);
    rcp32(0);
    assertEquals(Math.abs(R_F32[0] * x - 1) <= ERROR_MAX, true);
    rsqrt32(0);
    assertEquals(Math.abs(R_F32[0] * Math.sqrt(x) - 1) <= ERROR_MAX, true);
    assertEquals(sse.flags, 0);
  }
  checkAll([
    [rcp32, 0, MINUS_ZERO, MINUS_INFINITY, 0],
    [rcp32, 0, DENORMAL, INFINITY, 0],
    [rcp32, 0, MINUS_INFINITY, MINUS_ZERO, 0],
    [rcp32, 0, 0x7f7fffff, ZERO, 0],
    [rsqrt32, 0, 0xbf800000, DEFAULT_NAN, 0],
    [rsqrt32, 0, MINUS_ZERO, MINUS_INFINITY, 0],
    [rsqrt32, 0, INFINITY, ZERO, 0],
    [rsqrt32, 0, SNAN, SNAN | 0x400000, 0],
  ]);
});
