import { assertEquals, assertThrows } from "@std/assert";
import { parseInteger, parsePolicies, parseSeconds, parseSize, parseU64, parseWord } from "../../lib/cli/values.ts";
import { BadInput } from "../../lib/memory/bad_input.ts";
import { policy } from "../../lib/memory/policy.ts";

policy("cli-test.first", "a policy of this test", { one: "the default", two: "the other" });

Deno.test("values: numbers are decimal or 0x", () => {
  assertEquals(parseInteger("010", "--n"), 10);
  assertEquals(parseInteger("0xFf", "--n"), 255);
  assertEquals(parseU64("0xffffffffffffffff", "--n"), 2n ** 64n - 1n);
  assertEquals(parseU64("18446744073709551615", "--n"), 2n ** 64n - 1n);
});

Deno.test("values: what is no whole number is refused with flag and text", () => {
  for (
    const text of ["", " 1", "1 ", "-1", "+1", "1.0", "1e3", "0x", "0b1", "1_000", "x", "NaN", "٣", "9".repeat(65)]
  ) {
    assertThrows(() => parseInteger(text, "--n"), BadInput, `--n: "${text}" is not a number`);
    assertThrows(() => parseU64(text, "--n"), BadInput, `--n: "${text}" is not a number`);
  }
});

Deno.test("values: a number out of range is refused with the range", () => {
  assertThrows(() => parseInteger("0", "--n", { min: 1, max: 8 }), BadInput, "--n: 0 is out of range, expected 1 to 8");
  assertThrows(() => parseInteger("9007199254740992", "--n"), BadInput, "out of range, expected 0 to 9007199254740991");
  assertThrows(() => parseU64("0x10000000000000000", "--n"), BadInput, "out of range");
});

Deno.test("values: sizes take K, M and G, powers of 1024", () => {
  assertEquals(parseSize("4096", "--m"), 4096);
  assertEquals(parseSize("64K", "--m"), 65536);
  assertEquals(parseSize("16m", "--m"), 16777216);
  assertEquals(parseSize("0x2G", "--m"), 2147483648);
  assertThrows(() => parseSize("16MB", "--m"), BadInput, '--m: "16MB" is not a size');
  assertThrows(() => parseSize("K", "--m"), BadInput, "is not a size");
  assertThrows(() => parseSize("1T", "--m"), BadInput, "is not a size");
  assertThrows(() => parseSize("9999999999G", "--m"), BadInput, "out of range");
});

Deno.test("values: times are seconds with or without a fraction", () => {
  assertEquals(parseSeconds("10", "--t"), 10);
  assertEquals(parseSeconds(".5", "--t"), 0.5);
  for (const text of ["", ".", "-1", "1e9", "10s", "Infinity"]) {
    assertThrows(() => parseSeconds(text, "--t"), BadInput, `--t: "${text}" is not a time`);
  }
});

Deno.test("values: one of several words", () => {
  assertEquals(parseWord("bare", "--p", ["kernel", "bare"]), "bare");
  assertThrows(() => parseWord("Bare", "--p", ["kernel", "bare"]), BadInput, '"Bare" is not one of kernel, bare');
});

Deno.test("values: policies are NAME=VALUE of a declared policy, each at most once", () => {
  assertEquals(parsePolicies(["cli-test.first=two"], "--policy"), new Map([["cli-test.first", "two"]]));
  for (const text of ["cli-test.first", "=two", "cli-test.first=", ""]) {
    assertThrows(() => parsePolicies([text], "--policy"), BadInput, "expected NAME=VALUE");
  }
  assertThrows(() => parsePolicies(["cli-test.frist=two"], "--policy"), BadInput, 'did you mean "cli-test.first"?');
  assertThrows(() => parsePolicies(["cli-test.first=three"], "--policy"), BadInput, "expected one, two");
  const twice = ["cli-test.first=one", "cli-test.first=two"];
  assertThrows(() => parsePolicies(twice, "--policy"), BadInput, 'policy "cli-test.first" is given twice');
});
