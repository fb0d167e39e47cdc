import { assertEquals, assertThrows } from "@std/assert";
import { verifyExits } from "../../lib/inspect/exits.ts";
import type { MachineConfig } from "../../lib/machine/config.ts";
import { loadDemoGuest } from "../../lib/machine/load.ts";
import { Machine } from "../../lib/machine/machine.ts";
import { runMachine } from "../../lib/machine/run.ts";
import { BadInput } from "../../lib/memory/bad_input.ts";
import { guestMachine, runGuest, siliconPolicies } from "./guest_fixture.ts";
import { outcome, RANDOM_GUEST_RAM, randomGuest } from "./random_guest.ts";

const OPENHCL = { platform: "snp", paravisor: "openhcl" } as const;

/** Kinds of exit that OpenHCL sees on either platform. CPUID and MSRs that a hypervisor answers on kernel are its own on SNP. */
const COMMON = ["in", "out", "mmio-read", "mmio-write", "hypercall"] as const;

/** What the demo guest wrote, and how often its VPs left, by kind. */
async function demo(config: Partial<MachineConfig>, vps: number, deterministic: boolean): Promise<unknown> {
  const machine = Machine.create({
    platform: "kernel",
    vps,
    ramBytes: 16 << 20,
    policies: {},
    devices: "pc",
    recordExits: false,
    ...config,
  }, deterministic);
  loadDemoGuest(machine);
  let text = "";
  const report = await runMachine(machine, {
    seed: vps,
    timeLimitSeconds: 30,
    onSerial: (bytes) => text += new TextDecoder().decode(bytes),
  });
  assertEquals([report.end, report.exitValue, report.problems], ["exit-port", 0, []], text);
  // Processors write their lines in any order.
  const exits = report.vps.map((vp) => COMMON.map((kind) => vp.exits[kind] ?? 0));
  return { text: text.split("\n").sort().join("\n"), exits };
}

Deno.test("OpenHCL on SNP: the demo guest, which has no #VC handler, boots as on kernel", async () => {
  for (const [vps, deterministic] of [[1, true], [3, true], [2, false]] as const) {
    assertEquals(await demo(OPENHCL, vps, deterministic), await demo({}, vps, deterministic), `${vps} VPs`);
  }
});

Deno.test("OpenHCL on SNP: every exit of the recorded programs, with all registers, is what a real processor showed", async () => {
  const data = new URL("../data/exits/", import.meta.url).pathname;
  const { classes, firstFailures } = await verifyExits([data], { ...OPENHCL, runtime: "deterministic", seed: 3 });
  assertEquals(firstFailures, []);
  assertEquals(Object.values(classes).reduce((sum, { passed }) => sum + passed, 0), 933 + 1414 + 257 + 273 + 866);
});

Deno.test("OpenHCL on SNP and bare: random guests leave the same registers, memory and output", async () => {
  const run = async (seed: number, vps: number, config: Partial<MachineConfig>, concurrent: boolean) => {
    const machine = guestMachine(randomGuest(seed, vps), {
      vps,
      ramBytes: RANDOM_GUEST_RAM,
      policies: siliconPolicies(),
      concurrent,
      ...config,
    });
    const result = await runGuest(machine, { seed });
    assertEquals([result.end, result.problems], ["halt", []], `guest ${seed}`);
    return outcome(machine, result.text);
  };
  for (
    const [first, count, vps, concurrent] of [[1100, 12, 1, false], [2100, 8, 3, false], [3100, 1, 2, true]] as const
  ) {
    for (let seed = first; seed < first + count; seed++) {
      const bare = await run(seed, vps, { platform: "bare" }, concurrent);
      assertEquals(await run(seed, vps, OPENHCL, concurrent), bare, `guest ${seed} with ${vps} VPs`);
    }
  }
});

Deno.test("a paravisor needs platform snp, and its host is Hyper-V", () => {
  const make = (config: Partial<MachineConfig>) => () => guestMachine("hlt", { paravisor: "openhcl", ...config });
  for (const platform of ["kernel", "sev-es"] as const) {
    assertThrows(make({ platform }), BadInput, 'needs platform "snp"');
  }
  assertThrows(make({ platform: "snp", host: "kvm" }), BadInput, "Hyper-V");
});
