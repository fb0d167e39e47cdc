import { assertEquals, assertThrows } from "@std/assert";
import { BadInput } from "../../lib/memory/bad_input.ts";
import { SidecarProtocol } from "../../lib/sidecar/protocol.ts";
import { follow, search, violated } from "./protocol_fixture.ts";

const FIRST_VERSION = {
  "driver.publish": "claim-then-start",
  "driver.rearm": "no",
  "driver.scan": "status-then-state",
};

/** A processor runs, leaves, and tells so. */
const AP_RUNS = `
  sidecar1 sidecar.park.halt sidecar.run.load-status sidecar.store-idle sidecar.raise-attention sidecar.send-response-ipi`;

Deno.test("the repaired driver: one processor, two rounds, every interleaving", () => {
  const protocol = new SidecarProtocol({ vps: 1, rounds: 2 });
  assertEquals(search(protocol).violations, []);
});

Deno.test("the repaired driver: two processors, one round, every interleaving", () => {
  const protocol = new SidecarProtocol({ vps: 2, rounds: 1 });
  assertEquals(search(protocol).violations, []);
});

Deno.test("the repaired driver: a run that another thread stops", () => {
  for (const intercepts of [0, 1]) {
    const protocol = new SidecarProtocol({ vps: 1, rounds: 1, stop: [1], intercepts });
    const { violations } = search(protocol);
    // A stop that comes before the run ends nothing, and VTL0 may never leave by itself.
    assertEquals(violations, intercepts === 0 ? ["no-deadlock"] : []);
  }
});

Deno.test("the repaired driver: a processor that leaves the sidecar", () => {
  assertEquals(search(new SidecarProtocol({ vps: 1, rounds: 1, remove: [1] })).violations, []);
});

Deno.test("OHCL-Linux-Kernel 154, 157: a scan between claim and start reports a run that never began", () => {
  const protocol = new SidecarProtocol({ vps: 2, rounds: 1, policies: FIRST_VERSION });
  follow(
    protocol,
    `
  reader driver.read.load-needs-scan driver.read.wait-stopped
  vmm1 driver.start.claim driver.start.set-run driver.start.send-ipi
  ${AP_RUNS.trim()}
  vmm2 driver.start.claim
  irq driver.interrupt.load-attention driver.interrupt.mark-scan driver.interrupt.clear-attention driver.interrupt.wake-all
  reader driver.read.wait-stopped driver.read.load-needs-scan driver.scan.clear-needs-scan driver.scan.lock
  reader driver.scan.load-status driver.scan.load-state driver.scan.set-stopped driver.scan.count
  reader driver.scan.load-status driver.scan.load-state`,
  );
  assertEquals(violated(protocol), []);
  follow(protocol, "reader driver.scan.set-stopped");
  assertEquals(violated(protocol), ["no-fabricated-completion"]);
});

Deno.test("OHCL-Linux-Kernel 154, 157: the first version takes what never began, or is under way, for complete", () => {
  const protocol = new SidecarProtocol({ vps: 2, rounds: 1, policies: FIRST_VERSION });
  assertEquals(search(protocol).violations, ["exactly-once", "no-fabricated-completion", "page-ownership"]);
});

Deno.test("OHCL-Linux-Kernel 154, 157: no part of the repair can be left out", () => {
  const fabricates = ["exactly-once", "no-fabricated-completion", "page-ownership"];
  const parts: [Record<string, string>, string[]][] = [
    [{ "driver.publish": "claim-then-start" }, fabricates],
    [{ "driver.scan": "status-then-state" }, fabricates],
    [{ "driver.rearm": "no" }, ["no-deadlock", "no-lost-wakeup"]],
  ];
  for (const [policies, expected] of parts) {
    assertEquals(search(new SidecarProtocol({ vps: 1, rounds: 2, policies })).violations, expected);
  }
});

Deno.test("a reader on another processor can take the handler's mark before the attention is cleared", () => {
  const policies = { "driver.reader": "any-cpu" };
  const lost = ["no-deadlock", "no-lost-wakeup"];
  assertEquals(search(new SidecarProtocol({ vps: 1, rounds: 2, policies })).violations, lost);
  const repaired = { ...policies, "driver.interrupt": "proposed-clear-then-mark" };
  assertEquals(search(new SidecarProtocol({ vps: 1, rounds: 2, policies: repaired })).violations, []);
  assertEquals(search(new SidecarProtocol({ vps: 2, rounds: 1, policies: repaired })).violations, []);
});

Deno.test("OHCL-Linux-Kernel 154, 157: without the look after publishing, a run that has ended is never reported", () => {
  const protocol = new SidecarProtocol({ vps: 1, rounds: 1, policies: { "driver.rearm": "no" } });
  follow(
    protocol,
    `
  reader driver.read.load-needs-scan driver.read.wait-stopped
  vmm1 driver.start.claim driver.start.set-run driver.start.send-ipi
  ${AP_RUNS.trim()}
  irq driver.interrupt.load-attention driver.interrupt.mark-scan driver.interrupt.clear-attention driver.interrupt.wake-all
  reader driver.read.wait-stopped driver.read.load-needs-scan driver.scan.clear-needs-scan driver.scan.lock
  reader driver.scan.load-state driver.read.wait-stopped
  vmm1 driver.start.publish`,
  );
  assertEquals(violated(protocol), ["no-lost-wakeup", "no-deadlock"]);
});

Deno.test("OHCL-Linux-Kernel 82, 83: removal returns while the processor is still in the sidecar", () => {
  const policies = { "driver.remove-wait": "until-remove" };
  const protocol = new SidecarProtocol({ vps: 1, rounds: 0, remove: [1], policies });
  follow(
    protocol,
    "online1 driver.remove.claim driver.remove.set-remove driver.remove.send-ipi driver.remove.wait-status",
  );
  assertEquals(violated(protocol), ["no-early-start"]);
});

Deno.test("OHCL-Linux-Kernel 82, 83: removal of a fast processor sleeps for ever", () => {
  const policies = { "driver.remove-wait": "until-remove" };
  const protocol = new SidecarProtocol({ vps: 1, rounds: 0, remove: [1], policies });
  follow(
    protocol,
    `
  reader driver.read.load-needs-scan driver.read.wait-stopped
  online1 driver.remove.claim driver.remove.set-remove driver.remove.send-ipi
  sidecar1 sidecar.park.halt sidecar.remove.store-removed sidecar.raise-attention sidecar.send-response-ipi
  irq driver.interrupt.load-attention driver.interrupt.mark-scan driver.interrupt.clear-attention driver.interrupt.wake-all
  reader driver.read.wait-stopped driver.read.load-needs-scan driver.scan.clear-needs-scan driver.scan.lock
  reader driver.scan.load-state driver.read.wait-stopped
  online1 driver.remove.wait-status`,
  );
  assertEquals(violated(protocol), ["no-lost-wakeup", "no-deadlock"]);
});

Deno.test("a stop's interrupt that comes late finds the next run, and bounces every VTL return", () => {
  const { spins, violations } = search(new SidecarProtocol({ vps: 1, rounds: 2, stop: [1] }));
  assertEquals(violations, []);
  assertEquals(spins > 0, true);
  assertEquals(search(new SidecarProtocol({ vps: 1, rounds: 2 })).spins, 0);
});

Deno.test("a policy value that does not exist is refused", () => {
  const policies = { "driver.scan": "backwards" };
  assertThrows(() => new SidecarProtocol({ vps: 1, rounds: 1, policies }), BadInput, "driver.scan");
});
