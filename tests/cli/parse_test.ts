import { assertEquals, assertThrows } from "@std/assert";
import { type Command, command } from "../../lib/cli/command.ts";
import { COMMANDS } from "../../lib/cli/commands.ts";
import { UsageError } from "../../lib/cli/errors.ts";
import { integer, optionalSeconds, policyChoices, size, text, toggle, u64, word } from "../../lib/cli/flags.ts";
import { asksForHelp, findCommand, helpTopic, parseCommandLine } from "../../lib/cli/parse.ts";
import { BadInput } from "../../lib/memory/bad_input.ts";

const EXAMPLES = [["exitbox", "one"], ["exitbox", "two"], ["exitbox", "three"]] as const;

/** A command with a flag of each kind. */
const SAMPLE = command({
  name: "sample",
  summary: "a command of the tests",
  examples: EXAMPLES,
  operands: { name: "IMAGE", min: 1, max: 1, meaning: "a file" },
  flags: {
    Machine: {
      platform: word(["kernel", "bare"], "who handles an exit"),
      vps: integer("N", "virtual processors", "2", { min: 1, max: 64 }),
      memory: size("SIZE", "guest RAM", "16M", { min: 4096 }),
      seed: u64("N", "seed", "0"),
      policy: policyChoices("a policy"),
    },
    Limits: { exits: text("FILE", "exit stream"), "time-limit": optionalSeconds("S", "limit"), json: toggle("JSON") },
  },
  run: () => 0,
});

const VECTORS: Command = { ...SAMPLE, name: "verify vectors" };
const LAYOUTS: Command = { ...SAMPLE, name: "verify layouts" };
const ALL = [SAMPLE, VECTORS, LAYOUTS];

function parse(...words: string[]): Readonly<Record<string, unknown>> {
  return parseCommandLine(SAMPLE, words).values;
}

Deno.test("parse: a flag that is not given has its default, parsed like a value", () => {
  const { values, operands } = parseCommandLine(SAMPLE, ["boot.elf"]);
  assertEquals(values, {
    platform: "kernel",
    vps: 2,
    memory: 16 * 1024 * 1024,
    seed: 0n,
    policy: new Map(),
    exits: undefined,
    "time-limit": undefined,
    json: false,
    color: "auto",
    quiet: false,
    help: false,
  });
  assertEquals(operands, ["boot.elf"]);
});

Deno.test("parse: values follow their flag or an equals sign, and flags may follow operands", () => {
  const { values, operands } = parseCommandLine(SAMPLE, [
    "a.bin",
    "--vps",
    "0x10",
    "--memory=1G",
    "--exits",
    "-",
    "--json",
  ]);
  assertEquals(values.vps, 16);
  assertEquals(values.memory, 2 ** 30);
  assertEquals(values.exits, "-");
  assertEquals(values.json, true);
  assertEquals(operands, ["a.bin"]);
});

Deno.test("parse: the word after a switch is an operand whatever it says", () => {
  assertEquals(parseCommandLine(SAMPLE, ["--json", "true"]).operands, ["true"]);
});

Deno.test("parse: operands are text, and everything after -- is one", () => {
  assertEquals(parseCommandLine(SAMPLE, ["0x10"]).operands, ["0x10"]);
  assertEquals(parseCommandLine(SAMPLE, ["--", "--vps"]).operands, ["--vps"]);
  assertEquals(parseCommandLine(SAMPLE, ["-"]).operands, ["-"]);
});

Deno.test("parse: an unknown flag is refused with the nearest name", () => {
  assertThrows(() => parse("a", "--vp", "2"), UsageError, 'Unknown flag "--vp", did you mean "--vps"?');
  const error = assertThrows(() => parse("a", "--capacity=1"), UsageError, 'Unknown flag "--capacity" (see');
  assertEquals(error.message.includes("did you mean"), false);
  for (const flag of ["--__proto__=1", "--constructor", "--vps.x=1", "-v", "--no-json", "---json", "-vps=1"]) {
    assertThrows(() => parse("a", flag), UsageError, "Unknown flag");
  }
});

Deno.test("parse: a value that is missing, given twice or given to a switch is refused", () => {
  assertThrows(() => parse("a", "--vps"), UsageError, "--vps needs a value, N");
  assertThrows(() => parse("a", "--vps="), UsageError, "--vps needs a value, N");
  assertThrows(() => parse("a", "--exits", "--json"), UsageError, "--exits needs a value, FILE");
  assertThrows(() => parse("a", "--vps=1", "--vps=1"), UsageError, "--vps is given 2 times");
  assertThrows(() => parse("a", "--json=false"), UsageError, "--json takes no value");
});

Deno.test("parse: a malformed value is refused with the flag and the text", () => {
  assertThrows(() => parse("a", "--vps=two"), BadInput, '--vps: "two" is not a number');
  assertThrows(() => parse("a", "--vps", "-1"), BadInput, '--vps: "-1" is not a number');
  assertThrows(() => parse("a", "--vps=65"), BadInput, "--vps: 65 is out of range, expected 1 to 64");
  assertThrows(() => parse("a", "--platform=kernal"), BadInput, '--platform: "kernal" is not one of kernel, bare');
});

Deno.test("parse: too few and too many operands are refused", () => {
  assertThrows(() => parse(), UsageError, "sample needs IMAGE");
  assertThrows(() => parse("a", "b"), UsageError, 'sample does not expect "b"');
});

Deno.test("parse: commands of one and of two words are found", () => {
  assertEquals(findCommand(["sample", "x"], ALL), { command: SAMPLE, rest: ["x"] });
  assertEquals(findCommand(["verify", "vectors", "x", "y"], ALL), { command: VECTORS, rest: ["x", "y"] });
});

Deno.test("parse: an unknown command is refused with the nearest name", () => {
  assertThrows(() => findCommand(["smaple"], ALL), UsageError, 'Unknown command "smaple", did you mean "sample"?');
  assertThrows(() => findCommand(["verify", "vector"], ALL), UsageError, '"verify vector", did you mean "vectors"?');
  assertThrows(() => findCommand(["verify"], ALL), UsageError, "verify needs one of vectors, layouts");
  assertThrows(() => findCommand(["verify", "--json"], ALL), UsageError, "verify needs one of vectors, layouts");
});

Deno.test("parse: --help asks about the command, the group or everything, unless it follows --", () => {
  assertEquals(asksForHelp(["sample", "a", "-h"]), true);
  assertEquals(asksForHelp(["sample", "--", "--help"]), false);
  assertEquals(helpTopic(["--help"], ALL), "");
  assertEquals(helpTopic(["sample", "a", "--help"], ALL), "sample");
  assertEquals(helpTopic(["verify", "--help"], ALL), "verify");
  assertEquals(helpTopic(["verify", "layouts", "--help"], ALL), "verify layouts");
});

/** The words of a command line; single quotes join some. */
function shellWords(line: string): string[] {
  return [...line.matchAll(/'([^']*)'|\S+/g)].map(([word, quoted]) => quoted ?? word);
}

Deno.test("parse: every example in the help is a command line that parses", () => {
  for (const { examples } of COMMANDS) {
    for (const [line] of examples) {
      const words = shellWords(line.split(/ [|>] /)[0]).slice(1);
      if (words[0] === "--version" || asksForHelp(words)) continue;
      const { command, rest } = findCommand(words, COMMANDS);
      parseCommandLine(command, rest);
    }
  }
});
