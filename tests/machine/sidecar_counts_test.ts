import { assert, assertEquals } from "@std/assert";
import { loadDemoGuest } from "../../lib/machine/load.ts";
import { Machine } from "../../lib/machine/machine.ts";
import { runMachine } from "../../lib/machine/run.ts";

Deno.test("a report counts what passes between each sidecar processor and the VMM", async () => {
  const machine = Machine.create({
    platform: "sidecar",
    vps: 3,
    ramBytes: 16 << 20,
    policies: { "sidecar.hotplug": "off" },
    devices: "pc",
    recordExits: false,
  }, true);
  loadDemoGuest(machine);
  const report = await runMachine(machine, { seed: 1, timeLimitSeconds: 60 });
  assertEquals([report.end, report.vps[0].sidecar], ["exit-port", undefined]);
  for (const { sidecar } of report.vps.slice(1)) {
    const { runs, commands, requestIpis, responseIpis, handOvers } = sidecar!;
    assert(runs > 0 && commands > 0);
    // Every run and every command begins with a request and ends with a response; the last run may be under way.
    assert(requestIpis >= runs + commands - 1, `${requestIpis} requests of ${runs} runs and ${commands} commands`);
    assert(responseIpis <= runs + commands && responseIpis >= runs + commands - 1);
    assertEquals(handOvers, runs + commands + responseIpis);
  }
});
