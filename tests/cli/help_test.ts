import { assertEquals, assertThrows } from "@std/assert";
import { command } from "../../lib/cli/command.ts";
import { COMMANDS } from "../../lib/cli/commands.ts";
import { UsageError } from "../../lib/cli/errors.ts";
import { EXIT, EXIT_CODE_TABLE, exitPortCode } from "../../lib/cli/exit_codes.ts";
import { integer, policyChoices } from "../../lib/cli/flags.ts";
import { helpLines } from "../../lib/cli/help.ts";

const SAMPLE = command({
  name: "verify sample",
  summary: "a command of the tests",
  details: [`Column 1 is ${"a word ".repeat(20)}long.`],
  examples: [["exitbox verify sample a", "one"], ["exitbox verify sample b", "two"], [
    "exitbox verify sample c",
    "three",
  ]],
  operands: { name: "FILE", min: 1, max: 9, meaning: "recordings" },
  flags: { Machine: { vps: integer("N", "virtual processors", "2", { min: 1 }), policy: policyChoices("a policy") } },
  run: () => 0,
});

Deno.test("help: purpose, three examples, usage, operands, grouped flags with defaults", () => {
  assertEquals(helpLines("verify sample", [SAMPLE]), [
    "exitbox verify sample: a command of the tests",
    "",
    "Examples:",
    "  exitbox verify sample a  one",
    "  exitbox verify sample b  two",
    "  exitbox verify sample c  three",
    "",
    "Usage:",
    "  exitbox verify sample FILE... [--vps N] [--policy NAME=VALUE]... [--color auto|always|never]",
    "    [--quiet] [--help]",
    "",
    "Operands:",
    "  FILE  recordings",
    "",
    "Machine:",
    "  --vps N              virtual processors (default 2)",
    "  --policy NAME=VALUE  a policy",
    "",
    "Output:",
    "  --color auto|always|never  colour; auto is on a terminal and without NO_COLOR (default auto)",
    "  --quiet                    no progress and no warnings on standard error",
    "  --help                     this help",
    "",
    "Column 1 is a word a word a word a word a word a word a word a word a word a word a word a word a",
    "word a word a word a word a word a word a word a word long.",
  ]);
});

Deno.test("help: a group lists its commands, an unknown topic suggests the nearest", () => {
  assertEquals(helpLines("verify", [SAMPLE]), ["Commands:", "  verify sample  a command of the tests"]);
  assertThrows(() => helpLines("verfy", [SAMPLE]), UsageError, 'did you mean "verify"?');
  assertThrows(() => helpLines("exit-code", [SAMPLE]), UsageError, 'did you mean "exit-codes"?');
});

Deno.test("help: no line of any help is wider than 100 columns", () => {
  for (const topic of ["", "exit-codes", ...COMMANDS.map(({ name }) => name)]) {
    assertEquals(helpLines(topic, COMMANDS).filter((line) => line.length > 100), [], topic);
  }
});

Deno.test("help: an operand that repeats is followed by one ellipsis", () => {
  assertEquals(COMMANDS.filter((command) => command.operands?.name.includes("...")), []);
  assertEquals(helpLines("merge", COMMANDS).some((line) => line.startsWith("  exitbox merge FILE... [")), true);
});

Deno.test("help: every exit code is in the table", () => {
  const first = EXIT_CODE_TABLE.map(([code]) => Number(code.split("-")[0]));
  assertEquals(first, Object.values(EXIT).toSorted((a, b) => a - b));
});

Deno.test("exit codes: an exit port value v is 0 for 0 and 64 + (v & 63) otherwise", () => {
  assertEquals([0, 1, 63, 64, 0xffff_ffff].map(exitPortCode), [0, 65, 127, 64, 127]);
});
