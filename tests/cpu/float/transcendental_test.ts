import { assertEquals } from "@std/assert";
import { FloatEnvironment } from "../../../lib/cpu/float/environment.ts";
import { FloatResult, Operand, unpackExtended } from "../../../lib/cpu/float/format.ts";
import {
  angle,
  cosine,
  exponential,
  isOutOfRange,
  sine,
  tangent,
  yLog2,
  yLog2Plus1,
} from "../../../lib/cpu/float/transcendental.ts";
import { DE, IE, PE, ZE } from "./rational.ts";

const FCW_MASKED = 0x37f;
const INTEGER_BIT = 1n << 63n;

const environment = new FloatEnvironment();
const result = new FloatResult();

/** An operand from a number that has a few bits, or a special value. */
function operand(value: number): Operand {
  const out = new Operand();
  const sign = value < 0 || Object.is(value, -0) ? 0x8000 : 0;
  let magnitude = Math.abs(value);
  if (magnitude === 0) unpackExtended(sign, 0n, out);
  else if (magnitude === Infinity) unpackExtended(sign | 0x7fff, INTEGER_BIT, out);
  else {
    let exponent = 16383 + 52;
    while (!Number.isInteger(magnitude) || magnitude < 2 ** 52) {
      magnitude *= 2;
      exponent--;
    }
    while (magnitude >= 2 ** 53) {
      magnitude /= 2;
      exponent++;
    }
    unpackExtended(sign | exponent, BigInt(magnitude) << 11n, out);
  }
  return out;
}

/** Sign, exponent and significand of the result in hexadecimal. */
function text(): string {
  const high = (result.sign << 15) | result.exponent;
  return `${high.toString(16).padStart(4, "0")} ${result.significand.toString(16).padStart(16, "0")}`;
}

function begin(): void {
  environment.loadControlWord(FCW_MASKED);
}

type Unary = (environment: FloatEnvironment, a: Operand, out: FloatResult) => void;
type Binary = (environment: FloatEnvironment, x: Operand, y: Operand, out: FloatResult) => void;

// The expectations were computed with decimal arithmetic of 120 digits and rounded to 64 bits.

Deno.test("functions of one operand are rounded from far more bits", () => {
  const cases: [Unary, number, string][] = [
    [sine, 1, "3ffe d76aa47848677021"],
    [cosine, 1, "3ffe 8a51407da8345c92"],
    [sine, -0.75, "bffe ae7fe0b5fc786b2e"],
    [tangent, 0.5, "3ffe 8bda7adf9a3a5219"],
    [exponential, 0.25, "3ffc c1bf828c6dc54b7a"],
    [exponential, -0.75, "bffd cf901f5ce48ead21"],
    [exponential, 2 ** -150, "3f68 b17217f7d1cf79ac"],
    [exponential, -1, "bffe 8000000000000000"],
    [sine, 2 ** -200, "3f37 8000000000000000"],
  ];
  for (const [run, value, expected] of cases) {
    begin();
    run(environment, operand(value), result);
    assertEquals(text(), expected, `${run.name} ${value}`);
    assertEquals(environment.flags, PE);
  }
});

Deno.test("FPATAN knows the quadrant, FYL2X and FYL2XP1 multiply", () => {
  const cases: [Binary, x: number, y: number, string][] = [
    [angle, 3, 1, "3ffd a4bc7d1934f70924"],
    [angle, -3, 1, "4000 b4784afefac9e110"],
    [angle, 1, -3, "bfff 9fe0bb5bd42affec"],
    [yLog2, 10, 1, "4000 d49a784bcd1b8afe"],
    [yLog2, 0.6875, 3, "bfff cf9408bece83a60b"],
    [yLog2Plus1, 2 ** -20, 1, "3feb b8aa35640a7c33ec"],
    [yLog2Plus1, 2 ** -100, 1, "3f9b b8aa3b295c17f0bc"],
    [yLog2, 8, 5, "4002 f000000000000000"],
  ];
  for (const [run, x, y, expected] of cases) {
    begin();
    run(environment, operand(x), operand(y), result);
    assertEquals(text(), expected, `${run.name} ${x} ${y}`);
  }
});

Deno.test("special operands follow the tables of FPATAN and FYL2X", () => {
  const PI = "4000 c90fdaa22168c235";
  const HALF = "3fff c90fdaa22168c235";
  const QUARTER = "3ffe c90fdaa22168c235";
  const THREE_QUARTERS = "4000 96cbe3f9990e91a8";
  const DEFAULT_NAN = "ffff c000000000000000";
  const cases: [Binary, x: number, y: number, string, flags: number][] = [
    [angle, 1, 0, "0000 0000000000000000", 0],
    [angle, -1, 0, PI, PE],
    [angle, 0, 1, HALF, PE],
    [angle, Infinity, Infinity, QUARTER, PE],
    [angle, -Infinity, Infinity, THREE_QUARTERS, PE],
    [yLog2, -1, 1, DEFAULT_NAN, IE],
    [yLog2, 0, 1, "ffff 8000000000000000", ZE],
    [yLog2, 0, 0, DEFAULT_NAN, IE],
    [yLog2, 1, Infinity, DEFAULT_NAN, IE],
    [yLog2, 1, 7, "0000 0000000000000000", 0],
    [yLog2, Infinity, -2, "ffff 8000000000000000", 0],
    [yLog2Plus1, 0, Infinity, DEFAULT_NAN, IE],
  ];
  for (const [run, x, y, expected, flags] of cases) {
    begin();
    run(environment, operand(x), operand(y), result);
    assertEquals(text(), expected, `${run.name} ${x} ${y}`);
    assertEquals(environment.flags, flags, `${run.name} ${x} ${y}`);
  }
});

Deno.test("trigonometric functions take arguments below 2^63 and no infinities", () => {
  assertEquals(isOutOfRange(operand(2 ** 63)), true);
  assertEquals(isOutOfRange(operand(2 ** 62)), false);
  for (const run of [sine, cosine, tangent]) {
    begin();
    run(environment, operand(Infinity), result);
    assertEquals(environment.flags, IE);
  }
  const denormal = new Operand();
  unpackExtended(0, 1n, denormal);
  begin();
  sine(environment, denormal, result);
  assertEquals(environment.flags & DE, DE);
});
