import { assertEquals, assertRejects } from "@std/assert";
import { verifyVectors } from "../../lib/inspect/vectors.ts";
import { BadInput } from "../../lib/memory/bad_input.ts";

const DATA = new URL("../data/x86/", import.meta.url).pathname;

/** Classes that must pass completely. */
const COMPLETE = [
  "alu",
  "bits",
  "bmi",
  "branch",
  "decode",
  "flags",
  "lea",
  "legacy16",
  "legacy32",
  "mov",
  "muldiv",
  "shift",
  "stack",
  "string",
  "unary",
];

for (const name of COMPLETE) {
  Deno.test(`Every recorded instruction of class ${name} does what the real processor did`, async () => {
    const report = await verifyVectors([`${DATA}${name}.jsonl.gz`]);
    assertEquals(report.firstFailures, []);
    assertEquals(report.classes[name].failed, 0);
    assertEquals(report.classes[name].passed > 0, true);
  });
}

/** A header with one page of code and a vector of NOP. */
const HEADER = {
  format: "x86-vectors",
  version: 1,
  class: "test",
  mode: "long64",
  regions: [{ name: "code", at: "200000", size: "1000", perm: "rx", fill: "f4" }],
};
const NOP = {
  id: "test-0",
  code: "90",
  cpl: 3,
  in: { gpr: new Array(16).fill("0"), rip: "200000", rflags: "202" },
  out: { gpr: {}, rip: "200001", rflags: "202" },
};

/** Writes lines to a file and verifies it. */
async function verifyText(...lines: string[]) {
  const path = await Deno.makeTempFile({ suffix: ".jsonl" });
  try {
    await Deno.writeTextFile(path, lines.join("\n"));
    return await verifyVectors([path]);
  } finally {
    await Deno.remove(path);
  }
}

Deno.test("A plain file is read like a compressed one", async () => {
  const report = await verifyText(JSON.stringify(HEADER), JSON.stringify(NOP), "");
  assertEquals(report.classes, { test: { passed: 1, failed: 0 } });
});

Deno.test("Each kind of difference is found and named", async () => {
  const cases: [string, object][] = [
    ["rip", { ...NOP, out: { ...NOP.out, rip: "200002" } }],
    ["rcx", { ...NOP, out: { ...NOP.out, gpr: { rcx: "1" } } }],
    ["rflags", { ...NOP, out: { ...NOP.out, rflags: "203" } }],
    ["exc.vector", { ...NOP, out: { ...NOP.out, exc: { vector: 6 } } }],
    ["mem[200000]", { ...NOP, out: { ...NOP.out, mem: [["200000", "91"]] } }],
    ["xmm3", { ...NOP, out: { ...NOP.out, xmm: { 3: "00".repeat(16) } } }],
    ["mxcsr", { ...NOP, out: { ...NOP.out, mxcsr: "1f81" } }],
    ["seg.ds", { ...NOP, out: { ...NOP.out, seg: { ds: ["2b", "cf3", "ffffffff", "0"] } } }],
    ["cr2", { ...NOP, out: { ...NOP.out, sys: { cr2: "5" } } }],
    ["fpu.sw", {
      ...NOP,
      out: { ...NOP.out, fpu: { cw: "37f", sw: "1", tw: "0", st: new Array(8).fill("00".repeat(10)) } },
    }],
    ["io[0]", { ...NOP, out: { ...NOP.out, io: [{ dir: "in", port: "60", size: 1, count: 1, data: "00" }] } }],
    ["hlt", { ...NOP, out: { ...NOP.out, rip: "200001", hlt: true } }],
  ];
  for (const [field, vector] of cases) {
    const report = await verifyText(JSON.stringify(HEADER), JSON.stringify(vector));
    if (field === "hlt") assertEquals(report.classes.test.failed, 1);
    else assertEquals(report.firstFailures.map((failure) => failure.field), [field]);
  }
});

Deno.test("Bits named by undef are not compared", async () => {
  const vector = {
    ...NOP,
    out: { ...NOP.out, gpr: { rcx: "5" }, rflags: "203" },
    undef: { rflags: "1", gpr: { rcx: "7" } },
  };
  assertEquals((await verifyText(JSON.stringify(HEADER), JSON.stringify(vector))).classes.test.failed, 0);
});

Deno.test("A bad line is refused with file and line number", async () => {
  const header = JSON.stringify(HEADER);
  await assertRejects(() => verifyText(header, "{"), BadInput, "line 2");
  await assertRejects(() => verifyText(header, JSON.stringify(NOP), "[]"), BadInput, "line 3");
  await assertRejects(() => verifyText(header, JSON.stringify({ ...NOP, code: "9" })), BadInput, "code");
  await assertRejects(
    () => verifyText(header, JSON.stringify({ ...NOP, in: { ...NOP.in, rip: "xyz" } })),
    BadInput,
    "in.rip",
  );
  await assertRejects(() => verifyText(header, JSON.stringify({ ...NOP, in: undefined })), BadInput, "in");
  const refused: [part: "in" | "out", fields: Record<string, unknown>, message: string][] = [
    ["in", { seg: { xx: ["33", "0", "0", "0"] } }, 'in.seg: unknown register "xx"'],
    ["out", { sys: { cr7: "0" } }, 'out.sys: unknown register "cr7"'],
    ["in", { xmm: { 16: "00".repeat(16) } }, 'in.xmm: unknown register "16"'],
    ["out", { xmm: { 1: "0011" } }, "out.xmm.1: expected 16 bytes, got 2"],
    ["out", { gpr: { eax: "0" } }, 'out.gpr: unknown register "eax"'],
    ["in", { fpu: { cw: "37f", sw: "0", tw: "0", st: Array(8).fill("00") } }, "in.fpu.st: expected 10 bytes, got 1"],
  ];
  for (const [part, fields, message] of refused) {
    const vector = { ...NOP, [part]: { ...NOP[part], ...fields } };
    await assertRejects(() => verifyText(header, JSON.stringify(vector)), BadInput, `line 2: ${message}`);
  }
  const undef = { ...NOP, undef: { gpr: { r16: "1" } } };
  await assertRejects(() => verifyText(header, JSON.stringify(undef)), BadInput, 'undef.gpr: unknown register "r16"');
  await assertRejects(() => verifyText("{}"), BadInput, "line 1");
  await assertRejects(() => verifyText(JSON.stringify({ ...HEADER, regions: [{ at: "1" }] })), BadInput, "line 1");
  await assertRejects(() => verifyVectors(["/nonexistent/file"]), BadInput, "/nonexistent/file");
  const huge = { ...HEADER, regions: [{ name: "code", at: "0", size: "fffff000", perm: "rx", fill: "0" }] };
  await assertRejects(() => verifyText(JSON.stringify(huge)), BadInput, "line 1");
});
