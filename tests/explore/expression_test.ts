import { assert, assertEquals, assertThrows } from "@std/assert";
import { parseExpression } from "../../lib/explore/expression.ts";
import { BadInput } from "../../lib/memory/bad_input.ts";

const KNOWN = ["message.rax", "context.rax"];

/** Whether `text` is true of two values of RAX. */
function holds(text: string, message = 0n, context = 0n): boolean {
  return parseExpression(text, KNOWN, "EXPR").holds((name) => name === "message.rax" ? message : context);
}

function message(text: string): string {
  return assertThrows(() => parseExpression(text, KNOWN, "EXPR"), BadInput).message;
}

Deno.test("expression: sums and differences wrap at 64 bits, shifts by 64 or more leave nothing", () => {
  assert(holds("message.rax + 1 == 0", 0xffff_ffff_ffff_ffffn));
  assert(holds("message.rax - 1 == 0xFFFFFFFFFFFFFFFF", 0n));
  assert(holds("1 << 63 == 0x8000000000000000 && 1 << 64 == 0 && message.rax >> 64 == 0", 5n));
  assert(holds("message.rax << 4 == 0xfffffffffffffff0", 0xffff_ffff_ffff_ffffn));
});

Deno.test("expression: numbers are unsigned", () => {
  assert(holds("message.rax > 1 && !context".replace("!context", "0 < message.rax"), 0xffff_ffff_ffff_ffffn));
});

Deno.test("expression: arithmetic binds stronger than bits, bits stronger than comparisons, && stronger than ||", () => {
  assert(holds("1 | 2 ^ 2 & 3 == 1"));
  assert(holds("1 << 2 + 1 == 8"));
  assert(holds("5 - 2 - 1 == 2"));
  assert(holds("1 == 1 || 1 == 2 && 1 == 3"));
  assert(!holds("(1 == 1 || 1 == 2) && 1 == 3"));
  assert(holds("message.rax & 0xff == 0x34", 0x1234n));
});

Deno.test("expression: the fingerprint of pull request 3360", () => {
  const text = "context.rax == ((message.rax + 0xB0) & 0xFFFFFFFF)";
  assert(holds(text, 0xffff_8000_0000_1234n, 0x12e4n));
  assert(!holds(text, 0xffff_8000_0000_1234n, 0xffff_8000_0000_12e4n));
  assertEquals(parseExpression(text, KNOWN, "EXPR").names, ["context.rax", "message.rax"]);
});

Deno.test("expression: what is wrong is said with its column", () => {
  assertEquals(
    message("message.rax == "),
    'EXPR: column 16: the end where a number, a register such as message.rax, or "(" is expected',
  );
  assertEquals(message("(message.rax == 1"), 'EXPR: column 18: the end where ")" for the "(" of column 1 is expected');
  assertEquals(message("message.rax = 1"), 'EXPR: column 13: "=" is not part of an expression');
  assertEquals(message("message.rax + 1"), "EXPR: column 1: a number where a comparison is expected");
  assertEquals(message("1 + (1 == 1) == 2"), "EXPR: column 5: a comparison where a number is expected");
  assertEquals(message("1 == 1 1"), 'EXPR: column 8: "1" where an operator or the end is expected');
  assertEquals(message("0x10000000000000000 == 1"), "EXPR: column 1: 0x10000000000000000 does not fit into 64 bits");
  assert(message("mesage.rax == 1").startsWith('EXPR: column 1: "mesage.rax" is not a register that can be observed'));
  assert(message("0xZZ == 1").startsWith("EXPR: column 1: "));
  assert(message("").startsWith("EXPR: column 1: the end where "));
});

Deno.test("expression: hostile lengths and depths end at once", () => {
  assert(message(`${"(".repeat(5000)}`).includes("more than 200 parentheses"));
  assert(message("1".repeat(20_000)).includes("at most 10000"));
  assert(holds(`${"0+".repeat(4000)}0 == 0`));
});
