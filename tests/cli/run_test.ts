import { assert, assertEquals, assertMatch } from "@std/assert";
import { EXIT } from "../../lib/cli/exit_codes.ts";
import { exitbox, PROGRAM_MACHINES, withGuest } from "./fixture.ts";

const RUNTIMES = ["concurrent", "deterministic"] as const;

/** Prints a letter, writes 7 to the exit port, and would go on for ever. */
const SEVEN = `
        mov al, 'h'
        mov dx, 0x3f8
        out dx, al
        mov eax, 7
        out 0xf4, eax
on:     out 0x80, al
        inc ecx
        jmp on`;

const HALT = "        cli\n        hlt";

/** Exits for ever. */
const PORTS = "on:     out 0x80, al\n        inc ecx\n        jmp on";

/** An interrupt table without entries: the breakpoint becomes a triple fault. */
const TRIPLE = "        lidt [none]\n        int3\nnone:   dw 0\n        dd 0";

/** A guest of which each platform and runtime makes the same. */
async function everywhere(source: string, body: (words: string[]) => Promise<void>): Promise<void> {
  await withGuest(source, async (guest) => {
    for (const machine of PROGRAM_MACHINES) {
      for (const runtime of RUNTIMES) await body(["run", guest, ...machine, "--runtime", runtime]);
    }
  });
}

Deno.test("run: serial text is standard output; an exit port value v that is not 0 ends with 64 + (v & 63)", async () => {
  await everywhere(SEVEN, async (words) => {
    const { code, out, err } = await exitbox(...words);
    assertEquals([code, out], [71, "h"], words.join(" "));
    assertMatch(err, /^exitbox: exit port 7 after [\d.]+ s, \d+ instructions, 2 exits\n$/);
  });
});

Deno.test("run: all VPs halted with interrupts off ends with 0", async () => {
  await everywhere(HALT, async (words) => assertEquals((await exitbox(...words)).code, EXIT.CLEAN, words.join(" ")));
});

Deno.test("run: the exit limit ends with 20 and exactly as many lines", async () => {
  await everywhere(PORTS, async (words) => {
    const { code, out } = await exitbox(...words, "--exit-limit", "12", "--exits", "-");
    assertEquals(code, EXIT.LIMIT);
    const lines = out.trimEnd().split("\n").map((line) => JSON.parse(line));
    assertEquals(lines.map(({ seq }) => seq), Array.from({ length: 12 }, (_, number) => number));
    // Nothing is executed behind the limit.
    assertEquals(lines.map(({ gpr }) => Number(gpr[1])).slice(0, 10), [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]);
  });
});

Deno.test("run: the time limit ends with 20", async () => {
  await everywhere("on:     jmp on", async (words) => {
    assertEquals((await exitbox(...words, "--time-limit", "0.05")).code, EXIT.LIMIT, words.join(" "));
  });
});

Deno.test("run: a triple fault ends with 14, the VP's registers and the command that repeats it", async () => {
  await everywhere(TRIPLE, async (words) => {
    const { code, err } = await exitbox(...words);
    assertEquals(code, EXIT.GUEST_FAILURE, words.join(" "));
    assertMatch(err, /^exitbox: triple fault on VP 0\n/);
    assertMatch(err, / {2}rip {2}0000000000007c05 {2}rfl /);
    assert(err.endsWith(`repeat with: exitbox ${words.join(" ")}\n`), err);
  });
});

Deno.test("run: a VMM crash ends with 14 and names both values, VP and step; the policy that repairs it goes on", async () => {
  await withGuest(SEVEN, async (guest) => {
    const words = ["run", guest, "--policy", "vtl.entry=vtl2-restored"];
    for (const runtime of RUNTIMES) {
      const { code, err } = await exitbox(...words, "--runtime", runtime);
      assertEquals(code, EXIT.GUEST_FAILURE);
      assertMatch(
        err,
        /VMM crash on VP 0 in vmm\.handle-io-port: message\.rax == cpu_context\.gps\[RAX\]\n {2}left {2}0x68\n/,
      );
      const json = JSON.parse((await exitbox(...words, "--runtime", runtime, "--json")).out);
      assertEquals([json.end, json.vmm_crash.step, json.vmm_crash.left], ["vmm-crash", "vmm.handle-io-port", "0x68"]);
      const repaired = await exitbox(...words, "--policy", "vmm.io-rax=rax-from-message", "--runtime", runtime);
      assertEquals(repaired.code, 71);
    }
  });
});

Deno.test("run: the exit that the VMM crashed in is in the stream", async () => {
  await withGuest(SEVEN, async (guest) => {
    const { out } = await exitbox("run", guest, "--policy", "vtl.entry=vtl2-restored", "--exits", "-");
    const [exit] = out.trimEnd().split("\n").map((line) => JSON.parse(line));
    assertEquals([exit.type, exit.port, exit.intercept], ["out", "3f8", "HvMessageTypeX64IoPortIntercept"]);
  });
});

Deno.test("run: --json is one object with the end, counts and registers as the recordings write them", async () => {
  await everywhere(SEVEN, async (words) => {
    const { code, out, err } = await exitbox(...words, "--json");
    assertEquals(code, 71);
    assert(err.startsWith("h"), "serial text goes to standard error");
    const { end, exit_value, seconds, vps, problems } = JSON.parse(out);
    assertEquals([end, exit_value, typeof seconds, problems], ["exit-port", 7, "number", []]);
    const [{ vp, exits, registers }] = vps;
    assertEquals([vp, exits, vps.length], [0, { out: 2 }, 1]);
    assertEquals(Object.keys(registers), ["gpr", "rip", "rflags", "seg", "sys"]);
    // The instruction behind the OUT has not run.
    assertEquals([registers.gpr[0], registers.gpr[1], registers.seg.cs], ["7", "0", ["0", "9b", "ffff", "0"]]);
  });
});

Deno.test("run: --exits writes the same lines to a file, the last exit included", async () => {
  await withGuest(SEVEN, async (guest, folder) => {
    const path = `${folder}/exits.jsonl`;
    for (const machine of PROGRAM_MACHINES) {
      assertEquals((await exitbox("run", guest, ...machine, "--exits", path)).code, 71);
      const lines = (await Deno.readTextFile(path)).trimEnd().split("\n").map((line) => JSON.parse(line));
      assertEquals(lines.map(({ port, data }) => [port, data]), [["3f8", "68"], ["f4", "07000000"]]);
      assertEquals(lines.map(({ intercept }) => intercept !== undefined), Array(2).fill(!machine.includes("bare")));
    }
  });
});

Deno.test("run: the same seed gives the same exits and the same memory", async () => {
  await withGuest(PORTS, async (guest) => {
    for (const machine of PROGRAM_MACHINES) {
      const words = ["run", guest, ...machine, "--runtime", "deterministic", "--exit-limit", "200"];
      const hash = async (seed: string) =>
        JSON.parse((await exitbox(...words, "--seed", seed, "--json")).out).memory_hash;
      const exits = async (seed: string) => (await exitbox(...words, "--seed", seed, "--exits", "-")).out;
      assertEquals(await hash("5"), await hash("5"));
      assertMatch(await hash("5"), /^[0-9a-f]{16}$/);
      assertEquals(await exits("5"), await exits("5"));
    }
  });
});

Deno.test("run: an instruction that is not implemented is named with its bytes", async () => {
  // RDRAND AX raises #UD, whose handler halts.
  const source =
    "        mov word [6 * 4], end\n        mov word [6 * 4 + 2], 0\n        db 0x0f, 0xc7, 0xf0\nend:    cli\n        hlt";
  await everywhere(source, async (words) => {
    const { code, err } = await exitbox(...words);
    assertEquals(code, EXIT.CLEAN);
    assertMatch(err, /unimplemented instruction: rdrand\S* \(0f c7 f0 [^)]*\), 1 time\n/);
  });
});

Deno.test("run: a guest that nothing can wake is no progress in the deterministic runtime", async () => {
  await withGuest("        sti\n        hlt", async (guest) => {
    const { code, err } = await exitbox("run", guest, "--runtime", "deterministic");
    assertEquals(code, EXIT.TOOL_FAILURE);
    assertMatch(err, /no progress/);
  });
});

Deno.test("run: a flat image is loaded and entered where the flags say", async () => {
  await withGuest(HALT, async (guest) => {
    const json = async (...words: string[]) => JSON.parse((await exitbox("run", guest, "--json", ...words)).out);
    assertEquals((await json()).vps[0].registers.rip, "7c02");
    assertEquals((await json("--load", "0x8000")).vps[0].registers.rip, "8002");
    assertEquals((await json("--entry", "0x7c01")).vps[0].registers.rip, "7c02");
    assertEquals((await json("--mode", "long")).vps[0].registers.rip, "100002");
    assertEquals((await json("--mode", "protected", "--load", "0x200000")).vps[0].registers.rip, "200002");
  });
});

Deno.test("run: bad input is one clear line and exit code 2", async () => {
  await withGuest(HALT, async (guest, folder) => {
    await Deno.writeFile(`${folder}/empty`, new Uint8Array());
    await Deno.writeFile(`${folder}/arm`, elfHeader(0xb7));
    await Deno.writeFile(`${folder}/cut`, elfHeader(0x3e).subarray(0, 40));
    const cases: [string[], RegExp][] = [
      [[`${folder}/none`], /none: no such file$/],
      [[folder], /is a folder, expected a file$/],
      [[`${folder}/empty`], /file is empty/],
      [[`${folder}/arm`], /machine/],
      [[`${folder}/cut`], /truncated/],
      [[guest, "--load", "0xffffff"], /takes 0x2 bytes at 0xffffff, memory ends at 0x1000000$|real mode/],
      [[guest, "--entry", "0"], /lies outside the image/],
      [[guest, "--vps", "0"], /--vps: 0 is out of range/],
      [[guest, "--vps", "two"], /--vps: "two" is not a number/],
      [[guest, "--memory", "12Q"], /--memory: "12Q" is not a size/],
      [[guest, "--memory", "1000001"], /expected a multiple of 4096|out of range/],
      [[guest, "--policy", "vmm.io-raxx=assert"], /did you mean "vmm.io-rax"\?$/],
      [[guest, "--policy", "vmm.io-rax=none"], /expected assert, rax-from-message$/],
      [[guest, "--platfrom", "bare"], /did you mean "--platform"\?/],
      [[guest, "--platform", "bar"], /is not one of kernel, bare/],
      [[guest, "--seed", "1"], /--seed needs --runtime deterministic/],
      [[guest, "--json", "--exits", "-"], /both write to standard output/],
      [[guest, "--platform", "snp", "--exits", "-", "--host-view", "-"], /--exits - and --host-view - both write/],
      [[guest, "--platform", "snp", "--host", "xen"], /--host: "xen" is not one of kvm, vmd$/],
      [
        [guest, "--platform", "snp", "--host-view", "v", "--secret", "0x1000+7"],
        /only 8 bytes in a row are recognised$/,
      ],
      [[guest, "--workers", "3"], /3 workers, expected 1: one for each VP/],
      [[guest, "--exits", `${folder}/no/such`], /its folder does not exist$/],
      [[guest, "--module", guest], /modules need a multiboot kernel/],
      [[guest, "--exit-limit", "0"], /out of range/],
      [[guest, "--time-limit=-1"], /is not a time/],
    ];
    for (const [words, expected] of cases) {
      const { code, out, err } = await exitbox("run", ...words);
      assertEquals([code, out], [EXIT.USAGE, ""], words.join(" "));
      assertMatch(err, expected);
      assertMatch(err, /^exitbox: [ -~]+$/, words.join(" "));
    }
  });
});

/** The header of an ELF64 executable for `machine`, without segments (System V ABI, "ELF Header"). */
function elfHeader(machine: number): Uint8Array {
  const bytes = new Uint8Array(64);
  bytes.set([0x7f, 0x45, 0x4c, 0x46, 2, 1, 1]);
  const view = new DataView(bytes.buffer);
  view.setUint16(16, 2, true);
  view.setUint16(18, machine, true);
  view.setUint32(20, 1, true);
  view.setUint16(52, 64, true);
  return bytes;
}
