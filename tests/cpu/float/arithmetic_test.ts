import { assertEquals } from "@std/assert";
import { add32, convert32to64, div32, mul32, sqrt32, sub32 } from "../../../lib/cpu/float/binary32.ts";
import { add64, convert64to32, div64, mul64, sqrt64, sub64 } from "../../../lib/cpu/float/binary64.ts";
import { A_U32, A_U64, B_U32, B_U64, R_U32, R_U64, sse } from "../../../lib/cpu/float/lanes.ts";
import {
  awkward,
  DE,
  DOUBLE,
  type Format,
  negative,
  over,
  plus,
  random,
  type Rational,
  round,
  type Rounded,
  roundRoot,
  SINGLE,
  times,
  valueOf,
} from "./rational.ts";

const MXCSR_MASKED = 0x1f80;
const RC_SHIFT = 13;
const SIGN_32 = 1n << 31n;
const SIGN_64 = 1n << 63n;

interface Access {
  readonly format: Format;
  readonly sign: bigint;
  put(a: bigint, b: bigint): void;
  result(): bigint;
  readonly operations: readonly [name: string, run: (lane: number) => void][];
}

const ACCESS_32: Access = {
  format: SINGLE,
  sign: SIGN_32,
  put(a, b) {
    A_U32[0] = Number(a);
    B_U32[0] = Number(b);
  },
  result: () => BigInt(R_U32[0]),
  operations: [["add", add32], ["sub", sub32], ["mul", mul32], ["div", div32]],
};

const ACCESS_64: Access = {
  format: DOUBLE,
  sign: SIGN_64,
  put(a, b) {
    A_U64[0] = a;
    B_U64[0] = b;
  },
  result: () => R_U64[0],
  operations: [["add", add64], ["sub", sub64], ["mul", mul64], ["div", div64]],
};

function exactly(name: string, a: Rational, b: Rational): Rational {
  switch (name) {
    case "add":
      return plus(a, b);
    case "sub":
      return plus(a, negative(b));
    case "mul":
      return times(a, b);
    default:
      return over(a, b);
  }
}

function isDenormal(format: Format, magnitude: bigint): boolean {
  return magnitude < 1n << BigInt(format.precision - 1);
}

function check(access: Access, operations: readonly string[], count: number, seed: bigint): void {
  const { format, sign } = access;
  const next = random(seed);
  const magnitudes = awkward(format, next, count);
  for (const ma of magnitudes) {
    for (const mb of magnitudes) {
      const signs = next();
      const sa = (signs & 1n) === 1n;
      const sb = (signs & 2n) === 2n;
      const va = sa ? negative(valueOf(format, ma)) : valueOf(format, ma);
      const vb = sb ? negative(valueOf(format, mb)) : valueOf(format, mb);
      const mode = Number((signs >> 2n) & 7n) > 3 ? 0 : Number((signs >> 2n) & 3n);
      access.put(sa ? ma | sign : ma, sb ? mb | sign : mb);
      for (const [name, run] of access.operations) {
        if (!operations.includes(name)) continue;
        const exact = exactly(name, va, vb);
        if (exact.n === 0n) continue;
        const expected = round(format, exact, mode);
        const denormal = isDenormal(format, ma) || isDenormal(format, mb) ? DE : 0;
        sse.loadMxcsr(MXCSR_MASKED | (mode << RC_SHIFT));
        run(0);
        const bits = expected.sign ? expected.magnitude | sign : expected.magnitude;
        const what = `${name} ${sa ? "-" : ""}${ma.toString(16)} ${sb ? "-" : ""}${mb.toString(16)} mode ${mode}`;
        assertEquals(access.result().toString(16), bits.toString(16), what);
        assertEquals(sse.flags, expected.flags | denormal, `flags of ${what}`);
      }
    }
  }
}

Deno.test("binary32 addition and subtraction are correctly rounded in every mode, with exact flags", () => {
  check(ACCESS_32, ["add", "sub"], 50, 1n);
});

Deno.test("binary32 multiplication and division are correctly rounded in every mode, with exact flags", () => {
  check(ACCESS_32, ["mul", "div"], 50, 2n);
});

Deno.test("binary64 addition and subtraction are correctly rounded in every mode, with exact flags", () => {
  check(ACCESS_64, ["add", "sub"], 30, 3n);
});

Deno.test("binary64 multiplication and division are correctly rounded in every mode, with exact flags", () => {
  check(ACCESS_64, ["mul", "div"], 30, 4n);
});

function checkUnary(
  format: Format,
  put: (bits: bigint) => void,
  run: () => void,
  result: () => bigint,
  reference: (x: Rational, mode: number) => Rounded,
): void {
  for (const magnitude of awkward(format, random(5n), 60)) {
    for (let mode = 0; mode < 4; mode++) {
      const expected = reference(valueOf(format, magnitude), mode);
      put(magnitude);
      sse.loadMxcsr(MXCSR_MASKED | (mode << RC_SHIFT));
      run();
      const what = `${magnitude.toString(16)} mode ${mode}`;
      assertEquals(result().toString(16), expected.magnitude.toString(16), what);
      assertEquals(sse.flags, expected.flags | (isDenormal(format, magnitude) ? DE : 0), `flags of ${what}`);
    }
  }
}

const putB32 = (bits: bigint) => {
  B_U32[0] = Number(bits);
};
const putB64 = (bits: bigint) => {
  B_U64[0] = bits;
};
const resultR32 = () => BigInt(R_U32[0]);
const resultR64 = () => R_U64[0];

Deno.test("square roots are correctly rounded in every mode", () => {
  checkUnary(SINGLE, putB32, () => sqrt32(0), resultR32, (x, mode) => roundRoot(SINGLE, x, mode));
  checkUnary(DOUBLE, putB64, () => sqrt64(0), resultR64, (x, mode) => roundRoot(DOUBLE, x, mode));
});

Deno.test("conversion of binary64 to binary32 rounds, binary32 to binary64 is exact", () => {
  checkUnary(DOUBLE, putB64, () => convert64to32(0, 0), resultR32, (x, mode) => round(SINGLE, x, mode));
  checkUnary(SINGLE, putB32, () => convert32to64(0, 0), resultR64, (x, mode) => round(DOUBLE, x, mode));
});

Deno.test("a result that is inexact is reported also when the flag comes from an error term", () => {
  // 1 + 2^-52 squared is 1 + 2^-51 + 2^-104; 1/3 and 0.1 + 0.2 are not representable; 0.5 + 0.25 is.
  const cases: [run: (lane: number) => void, a: number, b: number, flags: number][] = [
    [mul64, 1 + 2 ** -52, 1 + 2 ** -52, 32],
    [mul64, 3, 5, 0],
    [div64, 1, 3, 32],
    [div64, 6, 3, 0],
    [add64, 0.1, 0.2, 32],
    [add64, 0.5, 0.25, 0],
    [add64, Number.MAX_VALUE, 1, 32],
    [sub64, Number.MAX_VALUE, Number.MAX_VALUE / 2, 0],
  ];
  const halves = new Float64Array(2);
  const bits = new BigUint64Array(halves.buffer);
  for (const [run, a, b, flags] of cases) {
    halves[0] = a;
    halves[1] = b;
    A_U64[0] = bits[0];
    B_U64[0] = bits[1];
    sse.loadMxcsr(MXCSR_MASKED);
    run(0);
    assertEquals(sse.flags, flags, `${a} ${b}`);
  }
});
