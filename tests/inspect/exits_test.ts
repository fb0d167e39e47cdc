import { assertEquals, assertRejects } from "@std/assert";
import { ExitComparer, type SeenExit } from "../../lib/inspect/exit_compare.ts";
import { type ExitRecord, type ExitRegisters, type ExitStream, readExitStream } from "../../lib/inspect/exit_stream.ts";
import { ExitMachine } from "../../lib/inspect/exit_machine.ts";
import { assemble } from "../../lib/guest/assembler/assemble.ts";
import { findExitStreams, readRecordedProgram, verifyExits } from "../../lib/inspect/exits.ts";
import { BadInput } from "../../lib/memory/bad_input.ts";

const DATA = new URL("../data/exits/", import.meta.url).pathname;
const INSTRUCTIONS_MAX = 100_000_000;

Deno.test("recorded programs: every exit and every register of each is what a real processor showed", async () => {
  const matched: Record<string, number> = {};
  for (const path of await findExitStreams([DATA])) {
    const { stream, image } = await readRecordedProgram(path);
    const comparer = new ExitComparer(stream);
    const machine = new ExitMachine(stream.header, image, (exit) => comparer.accept(exit));
    assertEquals(machine.run(INSTRUCTIONS_MAX), stream.header.ended);
    assertEquals(comparer.end("end"), true);
    assertEquals(comparer.difference, undefined);
    assertEquals([...machine.cpu.unimplemented], []);
    matched[stream.header.program] = comparer.matched;
  }
  assertEquals(matched, { devices: 933, faults: 1414, modes: 257, realmode: 273, sorting: 866 });
});

/** A recorded program of two records, in a folder of its own: it shows FCW and MXCSR. */
async function floatingPointStart(folder: string): Promise<string> {
  const { header } = await readExitStream(`${DATA}sorting.jsonl.gz`);
  const code = `
    stmxcsr [0x200002]
    fnstcw [0x200000]
    mov ebx, [0x200000]
    mov edx, 0x80
    mov eax, ebx
    out dx, eax
    hlt`;
  const { bytes } = assemble(code, { origin: 0x100000, bits: 64 });
  await Deno.writeFile(`${folder}/float.bin`, bytes);
  const packed = (await Deno.open(`${DATA}sorting.jsonl.gz`)).readable;
  const text = await new Response(packed.pipeThrough(new DecompressionStream("gzip"))).text();
  const first = JSON.parse(text.slice(0, text.indexOf("\n")));
  const gpr = ["1f80037f", "0", "80", "1f80037f", "80000", ...Array(11).fill("0")];
  const out = {
    seq: 0,
    type: "out",
    port: "80",
    size: 4,
    string: false,
    count: 1,
    data: "7f03801f",
    gpr,
    rip: (Number(header.load) + bytes.length - 2).toString(16),
    rflags: "2",
  };
  const hlt = { seq: 1, type: "hlt", gpr, rip: (Number(header.load) + bytes.length - 1).toString(16), rflags: "2" };
  const lines = [{ ...first, program: "float", image: "float.bin", records: 2 }, out, hlt];
  const path = `${folder}/float.jsonl`;
  await Deno.writeTextFile(path, lines.map((line) => JSON.stringify(line)).join("\n") + "\n");
  return path;
}

Deno.test("recorded programs start with the x87 control word 37f and MXCSR 1f80, on every platform with or without VTL2", async () => {
  const folder = await Deno.makeTempDir();
  try {
    const path = await floatingPointStart(folder);
    for (const platform of ["bare", "kernel", "sidecar"] as const) {
      const report = await verifyExits([path], { platform, runtime: "deterministic" });
      assertEquals([platform, report.firstFailures, report.classes], [platform, [], {
        float: { passed: 2, failed: 0 },
      }]);
    }
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
});

/** A stream with the given records. */
async function streamOf(change: (records: ExitRecord[]) => ExitRecord[]): Promise<ExitStream> {
  const stream = await readExitStream(`${DATA}devices.jsonl.gz`);
  return { header: stream.header, records: change([...stream.records]) };
}

/** Feeds records to a comparer as if a platform had seen them; how many it matched. */
function feed(stream: ExitStream, seen: readonly SeenExit[]): ExitComparer {
  const comparer = new ExitComparer(stream);
  for (const exit of seen) comparer.accept(exit);
  comparer.end("hlt");
  return comparer;
}

/** The registers that `elements` elements of a string instruction leave. */
function moved(registers: ExitRegisters, elements: number, size: number): ExitRegisters {
  const gpr = [...registers.gpr];
  const step = BigInt(elements * size) * ((registers.rflags & 0x400n) !== 0n ? -1n : 1n);
  gpr[1] -= BigInt(elements);
  gpr[6] += step;
  gpr[7] += step;
  return { ...registers, gpr };
}

/** Splits string records into accesses of at most `most` elements. */
function split(records: readonly ExitRecord[], most: number): SeenExit[] {
  return records.flatMap((record) => {
    const parts: SeenExit[] = [];
    for (let done = 0; done < record.count; done += most) {
      const count = Math.min(most, record.count - done);
      const data = record.data.subarray(done * record.size, (done + count) * record.size);
      parts.push({ ...record, count, data, registers: moved(record.registers, done, record.size) });
    }
    return parts;
  });
}

Deno.test("comparison: string elements may be grouped in any way", async () => {
  const stream = await readExitStream(`${DATA}devices.jsonl.gz`);
  for (const most of [1, 2, 3, 100]) assertEquals(feed(stream, split(stream.records, most)).difference, undefined);
  const whole = stream.records;
  const elements = { header: stream.header, records: split(whole, 1) as ExitRecord[] };
  assertEquals(feed(elements, whole).difference, undefined, "records of one element, accesses of many");
});

Deno.test("comparison: device-memory elements may come as one access, or with the registers of the first", async () => {
  const stream = await streamOf((records) => records.filter((record) => record.type === "mmio-write").slice(23, 27));
  const [first] = stream.records;
  const size = first.size;
  assertEquals(stream.records.map((record) => record.gpa - first.gpa), [0n, 1n, 2n, 3n].map((n) => n * BigInt(size)));
  const data = new Uint8Array(4 * size);
  stream.records.forEach((record, n) => data.set(record.data, n * size));
  assertEquals(feed(stream, [{ ...first, count: 4, data }]).difference, undefined);
  const late = stream.records.map((record, n) => ({ ...record, registers: first.registers, elementsBefore: n }));
  assertEquals(feed(stream, late).difference, undefined);
  const wrong = stream.records.map((record) => ({ ...record, registers: first.registers }));
  assertEquals(feed(stream, wrong).difference?.field, "rcx");
});

Deno.test("comparison: every part of an exit and every register counts", async () => {
  const stream = await streamOf((records) => records.slice(0, 3));
  const changes: [field: string, change: (exit: SeenExit) => SeenExit][] = [
    ["type", (exit) => ({ ...exit, type: "in" })],
    ["port", (exit) => ({ ...exit, port: exit.port + 1 })],
    ["size", (exit) => ({ ...exit, size: 2 })],
    ["string", (exit) => ({ ...exit, string: true })],
    ["data", (exit) => ({ ...exit, data: Uint8Array.of(0) })],
    ["rip", (exit) => ({ ...exit, registers: { ...exit.registers, rip: 0n } })],
    ["rflags", (exit) => ({ ...exit, registers: { ...exit.registers, rflags: exit.registers.rflags ^ 1n } })],
    ["r11", (exit) => ({ ...exit, registers: { ...exit.registers, gpr: exit.registers.gpr.with(11, 1n) } })],
    ["cr2", (exit) => ({ ...exit, registers: { ...exit.registers, sys: { ...exit.registers.sys, cr2: 1n } } })],
    ["idtr.limit", (exit) => {
      const { sys } = exit.registers;
      return { ...exit, registers: { ...exit.registers, sys: { ...sys, idtr: [sys.idtr[0], 1] } } };
    }],
    ["tr.base", (exit) => {
      const { seg } = exit.registers;
      return { ...exit, registers: { ...exit.registers, seg: { ...seg, tr: [0x40, 0x8b, 0x2068, 1n] } } };
    }],
  ];
  for (const [field, change] of changes) {
    const comparer = feed(stream, [stream.records[0], change(stream.records[1]), stream.records[2]]);
    assertEquals([comparer.difference?.id, comparer.difference?.field, comparer.matched], ["#1", field, 1]);
  }
});

Deno.test("comparison: RF and undefined flags do not count", async () => {
  const stream = await streamOf((records) => [{ ...records[0], undefinedFlags: 0x10n }]);
  const [record] = stream.records;
  const rflags = record.registers.rflags ^ 0x10010n;
  assertEquals(feed(stream, [{ ...record, registers: { ...record.registers, rflags } }]).difference, undefined);
});

Deno.test("comparison: ending early and going past the last record are failures", async () => {
  const stream = await streamOf((records) => records.slice(0, 3));
  const early = feed(stream, stream.records.slice(0, 2));
  assertEquals([early.matched, early.unmatched, early.difference?.actual], [2, 1, "hlt"]);
  const late = feed(stream, [...stream.records, stream.records[0]]);
  assertEquals([late.matched, late.difference?.id, late.difference?.expected], [3, "#3", "end of the recording"]);
});

/** Writes a stream, reads it, and returns the error's message. */
async function refused(change: (lines: string[]) => string[]): Promise<string> {
  const folder = await Deno.makeTempDir();
  try {
    const gunzip = new DecompressionStream("gzip");
    const text = await new Response((await Deno.open(`${DATA}modes.jsonl.gz`)).readable.pipeThrough(gunzip)).text();
    await Deno.writeTextFile(`${folder}/modes.jsonl`, change(text.trimEnd().split("\n")).join("\n"));
    const error = await assertRejects(() => readRecordedProgram(`${folder}/modes.jsonl`), BadInput);
    return error.message.replace(folder, "");
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
}

Deno.test("bad streams are refused with file and line", async () => {
  const line = (n: number, from: string | RegExp, to: string) => (lines: string[]) =>
    lines.with(n, lines[n].replace(from, to));
  const cases: [message: RegExp, change: (lines: string[]) => string[]][] = [
    [/modes\.jsonl: line 1: expected format/, line(0, "x86-exits", "x86-vectors")],
    [/line 1: mode: expected one of/, line(0, "real16", "real64")],
    [/line 1: image: expected a file name/, line(0, "modes.bin", "../modes.bin")],
    [/line 1: memory: expected whole pages/, line(0, '"memory":"1000000"', '"memory":"fffff001"')],
    [/line 1: gpr: expected 16 elements/, line(0, '"gpr":["0",', '"gpr":[')],
    [/line 4: type: expected one of/, line(3, '"out"', '"outs"')],
    [/line 4: seq: expected/, line(3, '"seq":2', '"seq":3')],
    [/line 5: /, (lines) => lines.with(4, lines[4].slice(0, 40))],
    [/line 6: data: expected 1 bytes, found 2/, line(5, /"data":"..\"/, '"data":"0000"')],
    [/line 7: rip: expected a hexadecimal/, line(6, /"rip":"[^"]*"/, '"rip":"0x7c38"')],
    [/line 100: the header announces 257 records, the stream ends after 99/, (lines) => lines.slice(0, 100)],
    [/image '.*modes\.bin' cannot be read/, (lines) => lines],
  ];
  for (const [message, change] of cases) {
    const text = await refused(change);
    assertEquals(message.test(text), true, `${message} does not match: ${text}`);
  }
});

Deno.test("streams are found in folders by their names; a folder without one is refused", async () => {
  const names = (await findExitStreams([DATA.slice(0, -1)])).map((path) => path.slice(path.lastIndexOf("/") + 1));
  assertEquals(names, ["devices", "faults", "modes", "realmode", "sorting"].map((name) => `${name}.jsonl.gz`));
  await assertRejects(() => findExitStreams([new URL("../cpu", import.meta.url).pathname]), BadInput, "no stream");
  await assertRejects(() => findExitStreams(["/nonexistent"]), BadInput, "no such file");
});
