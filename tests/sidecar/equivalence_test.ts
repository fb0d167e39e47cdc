import { assert, assertEquals } from "@std/assert";
import { readExit } from "../../lib/inspect/exit_records.ts";
import { verifyExits } from "../../lib/inspect/exits.ts";
import type { MachineConfig } from "../../lib/machine/config.ts";
import { loadDemoGuest } from "../../lib/machine/load.ts";
import { Machine } from "../../lib/machine/machine.ts";
import { gpr, guestMachine, runGuest } from "../machine/guest_fixture.ts";
import { SILICON_CASES } from "../vtl2/silicon_cases.ts";

const DATA = new URL("../data/exits/", import.meta.url).pathname;
const RUNTIMES = ["deterministic", "concurrent"] as const;
const HOTPLUG = ["on", "off"] as const;

for (const runtime of RUNTIMES) {
  for (const hotplug of HOTPLUG) {
    Deno.test(`recorded programs: every exit on a sidecar processor is the recorded one, hotplug ${hotplug}, ${runtime}`, async () => {
      const policies = { "sidecar.hotplug": hotplug };
      const { classes, firstFailures } = await verifyExits([DATA], { platform: "sidecar", runtime, policies, seed: 3 });
      assertEquals(firstFailures, []);
      assertEquals(Object.keys(classes).length, 5);
      assert(Object.values(classes).every(({ passed, failed }) => passed > 200 && failed === 0));
    });
  }
}

Deno.test("recorded programs: a processor that moves to Linux and back makes the recorded exits", async () => {
  const actions = Array.from({ length: 40 }, (_, k) => ({
    vp: 1,
    action: k % 2 === 0 ? "hotplug" as const : "unplug" as const,
    seconds: 0.00003 + k * 0.00002,
  }));
  const policies = { "sidecar.hotplug": "off" };
  const options = { platform: "sidecar", runtime: "deterministic", seed: 1, policies, actions } as const;
  assertEquals((await verifyExits([DATA], options)).firstFailures, []);
});

/** What the demo guest prints on a platform, in the order of the alphabet: VPs take turns as they like. */
async function demo(config: Partial<MachineConfig>, concurrent: boolean): Promise<string[]> {
  const machine = Machine.create({
    platform: "kernel",
    vps: 2,
    ramBytes: 4 << 20,
    policies: {},
    devices: "pc",
    recordExits: false,
    ...config,
  }, !concurrent);
  loadDemoGuest(machine);
  const { end, exitValue, text, problems, vmmCrash } = await runGuest(machine, { seed: 5, timeLimitSeconds: 60 });
  assertEquals([end, exitValue, problems, vmmCrash], ["exit-port", 0, [], undefined], JSON.stringify(config));
  return text.split("\n").sort();
}

/** Machines of the sidecar platform: one and several processors and nodes, all of them or some the sidecar's. */
const TOPOLOGIES: readonly Partial<MachineConfig>[] = [
  { vps: 1 },
  { vps: 2 },
  { vps: 5 },
  { vps: 6, sidecarNodes: 2 },
  { vps: 5, sidecarVps: [2, 4] },
  { vps: 6, sidecarNodes: 2, sidecarVps: [5] },
];

Deno.test("demo: the same port output on bare, kernel and sidecar, for every topology, hotplug on and off", async () => {
  for (const topology of TOPOLOGIES) {
    const { vps = 2 } = topology;
    const kernel = await demo({ vps }, false);
    assertEquals(await demo({ platform: "bare", vps }, false), kernel);
    for (const hotplug of HOTPLUG) {
      const policies = { "sidecar.hotplug": hotplug };
      assertEquals(await demo({ platform: "sidecar", policies, ...topology }, false), kernel);
    }
  }
});

Deno.test("demo: the same port output on the sidecar's own workers", async () => {
  for (const hotplug of HOTPLUG) {
    const policies = { "sidecar.hotplug": hotplug };
    const sidecar = await demo({ platform: "sidecar", vps: 4, sidecarNodes: 2, policies }, true);
    assertEquals(sidecar, await demo({ vps: 4 }, false));
  }
});

/** A machine whose guest starts on VP 1, which stays the sidecar's. */
const ON_SIDECAR = { platform: "sidecar", vps: 2, bootVp: 1 } as const;
const STAYS = { "sidecar.hotplug": "off" };

for (const { policy, source, see, openhcl, silicon } of SILICON_CASES) {
  Deno.test(`policy ${policy}: openhcl and silicon differ on the sidecar as they should`, async () => {
    const run = async (value: string) => {
      const machine = guestMachine(source, { ...ON_SIDECAR, policies: { ...STAYS, [policy]: value } });
      return see(await runGuest(machine), 1);
    };
    assertEquals(await run("openhcl"), openhcl);
    assertEquals(await run("silicon"), silicon);
  });
}

Deno.test("policy vmm.mmio-cmpxchg: openhcl writes device memory only when equal, silicon always, on the sidecar too", async () => {
  const accesses = async (value: string) => {
    const machine = guestMachine("mov edi, 0xd0000000\n xor eax, eax\n lock cmpxchg [rdi], ecx\n cli\n hlt", {
      ...ON_SIDECAR,
      policies: { ...STAYS, "vmm.mmio-cmpxchg": value },
      recordExits: true,
    });
    const seen: string[] = [];
    await runGuest(machine, { onExit: (record) => seen.push(...readExit(record).accesses.map(({ type }) => type)) });
    return [seen, gpr(machine, 1, 0)];
  };
  assertEquals(await accesses("openhcl"), [["mmio-read"], 0xffff_ffffn]);
  assertEquals(await accesses("silicon"), [["mmio-read", "mmio-write"], 0xffff_ffffn]);
});
