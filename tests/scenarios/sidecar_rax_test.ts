import { assert, assertEquals } from "@std/assert";
import { Engine } from "../../lib/explore/engine.ts";
import { DEFAULT_BOUNDS } from "../../lib/explore/exhaustive.ts";
import { explore } from "../../lib/explore/explorer.ts";
import { minimise, type Minimised } from "../../lib/explore/minimise.ts";
import { ReplayScheduler } from "../../lib/explore/replay.ts";
import { parseSchedule, record, scheduleText } from "../../lib/explore/schedule.ts";
import { search } from "../../lib/explore/search.ts";
import { isViolated } from "../../lib/explore/shortest.ts";
import type { System } from "../../lib/explore/system.ts";
import { HvVpAssistPage } from "../../lib/layout/hyperv/assist_page.ts";
import { HvMessage, HvX64IoPortInterceptMessage } from "../../lib/layout/hyperv/messages.ts";
import { buildSystem, type Choices } from "../../lib/scenarios/scenario.ts";
import { sidecarRax } from "../../lib/scenarios/sidecar_rax.ts";

const FINGERPRINTS = { fingerprints: true, persistentSets: false, sleepSets: false };

/** The driver as it was when the crash was reported: none of the parts of pull requests 154 and 157. */
const FIRST_VERSION = {
  "driver.publish": "claim-then-start",
  "driver.rearm": "no",
  "driver.scan": "status-then-state",
};
const RESTORED = { "vtl.entry": "vtl2-restored" };

function searchOf(system: System, preemptions: number) {
  const engine = new Engine(system, "sc");
  const bounds = { ...DEFAULT_BOUNDS, preemptions };
  const { violations, exhausted, states, transitions } = search(engine, {
    bounds,
    reductions: FINGERPRINTS,
    firstPreemptions: [],
  });
  const names = violations.map(({ property }) => property.name).sort();
  return { engine, violations, exhausted, names, states, transitions };
}

/** Searches everything within the bound; returns what is violated. */
function violated(policies: Choices, options: Choices = {}, preemptions = 2): string[] {
  const { exhausted, names } = searchOf(buildSystem(sidecarRax, policies, options), preemptions);
  assert(exhausted);
  return names;
}

/** The crash of a version, minimised. */
function crash(policies: Choices, options: Choices = {}): { readonly engine: Engine; readonly found: Minimised } {
  const { engine, violations } = searchOf(buildSystem(sidecarRax, policies, options), 2);
  const found = violations.find(({ property }) => property.name === "no-vmm-crash");
  assert(found !== undefined, "no crash");
  return { engine, found: minimise(engine, found) };
}

// --- The driver explains the report ---------------------------------------------------------------------------------

Deno.test("openvmm 3360: with the first driver the VMM meets a context 0xB0 above the message, after two context switches", () => {
  const { found } = crash(FIRST_VERSION);
  assertEquals(found.switches, 2);
  assert(found.exact);
  assertEquals(found.kind, "message.rax == cpu_context.gps[RAX]: 0x1234 and 0x12e4");
});

Deno.test("openvmm 3360: a 64-bit addition leaves another difference than the report's, in the upper half", () => {
  const start = "0xffff8000ffffff9a";
  assertEquals(
    crash(FIRST_VERSION, { start }).found.kind,
    "message.rax == cpu_context.gps[RAX]: 0xffff8000ffffff9a and 0x4a",
  );
  assertEquals(
    crash(FIRST_VERSION, { start, bits: "64" }).found.kind,
    "message.rax == cpu_context.gps[RAX]: 0xffff8000ffffff9a and 0xffff80010000004a",
  );
});

Deno.test("openvmm 3360: the schedule of the crash replays from its file", () => {
  const { engine, found } = crash(FIRST_VERSION);
  const text = scheduleText(record(engine, found.choices, { property: "no-vmm-crash", kind: found.kind }));
  const schedule = parseSchedule(text, "crash.json");
  const again = new Engine(buildSystem(sidecarRax, FIRST_VERSION, {}), "sc");
  const scheduler = new ReplayScheduler(schedule);
  explore(again, scheduler, { until: "never" });
  assertEquals(scheduler.divergence, undefined);
  assert(isViolated(again, again.system.properties.find(({ name }) => name === "no-vmm-crash")!));
});

Deno.test("openvmm 3360: the repaired driver holds, exhausted within two preemptions and one VTL2 interrupt", () => {
  assertEquals(violated({}), []);
});

Deno.test("openvmm 3360: without one part of the driver's repair the guest does not get what it has on bare", () => {
  for (const [policy, value] of Object.entries(FIRST_VERSION)) {
    const names = violated({ [policy]: value });
    assert(names.includes("transparency"), `${policy}=${value}: ${names}`);
  }
});

Deno.test("openvmm 3360: taking RAX from the message hides the crash; the guest's accesses are still made twice", () => {
  const names = violated({ ...FIRST_VERSION, "vmm.io-rax": "rax-from-message" });
  assert(!names.includes("no-vmm-crash"));
  assert(names.includes("transparency"));
  assert(names.includes("no-fabricated-completion"));
});

Deno.test("openvmm 3360: copying registers from the register page does not prevent the driver's crash", () => {
  for (const sync of ["sync-page", "sync-page-with-slot-4"]) {
    assert(violated({ ...FIRST_VERSION, "sidecar.sync": sync }).includes("no-vmm-crash"), sync);
  }
});

// --- A VTL entry that restores VTL2's registers does not --------------------------------------------------------------

Deno.test("openvmm 3360: if a VTL entry restored VTL2's registers every first exit would crash, with RAX 0", () => {
  const { found } = crash(RESTORED);
  assertEquals([found.switches, found.kind], [0, "message.rax == cpu_context.gps[RAX]: 0x1234 and 0x0"]);
});

Deno.test("openvmm 3360: under such entries RAX from the message corrupts the guest's other registers", () => {
  const names = violated({ ...RESTORED, "vmm.io-rax": "rax-from-message" });
  assert(!names.includes("no-vmm-crash"));
  for (const name of ["transparency", "regs.gpr", "regs.cr2", "regs.xmm0-5", "regs.xmm6-15", "regs.fpctl"]) {
    assert(names.includes(name), name);
  }
});

Deno.test("openvmm 3360: the register page repairs RAX and XMM0 to XMM5 there; CR2, XMM6 to XMM15, FCW and MXCSR stay wrong", () => {
  assertEquals(violated({ ...RESTORED, "sidecar.sync": "sync-page" }), [
    "regs.cr2",
    "regs.fpctl",
    "regs.xmm6-15",
    "transparency",
  ]);
});

Deno.test("openvmm 3360: copying slot 4 of the register page puts the guest's RSP into CR2", () => {
  assertEquals(violated({ "sidecar.sync": "sync-page-with-slot-4" }), ["regs.cr2", "transparency"]);
});

Deno.test("openvmm 3360: without a register page nothing is copied", () => {
  for (const page of ["unmapped", "mapped-unpopulated"]) {
    const names = violated({ ...RESTORED, "sidecar.sync": "sync-page", "register-page": page });
    assert(names.includes("no-vmm-crash"), page);
  }
});

Deno.test("openvmm 3360: a copy that does not look whether the page is valid breaks what works", () => {
  assertEquals(violated({ "sidecar.sync": "sync-page" }), []);
  const ungated = { "sidecar.sync": "sync-page-ungated", "register-page": "mapped-unpopulated" };
  assert(violated(ungated).includes("no-vmm-crash"));
});

// --- The thread's conditions ------------------------------------------------------------------------------------------

Deno.test("openvmm 3360, condition 1, a sidecar processor: on kernel the driver's version does not matter", () => {
  assertEquals(violated(FIRST_VERSION, { platform: "kernel" }), []);
});

Deno.test("openvmm 3360, condition 2, an interrupt before the intercept, is not necessary for the driver's crash", () => {
  assert(violated(FIRST_VERSION, { interrupts: "0" }).includes("no-vmm-crash"));
});

Deno.test("openvmm 3360, condition 3, the VMM compares RAX for this exit: CPUID, MSR, MMIO and hypercall exits do not crash and are wrong all the same", () => {
  for (const exit of ["cpuid", "msr", "mmio", "hypercall"]) {
    const names = violated(FIRST_VERSION, { exit });
    assert(!names.includes("no-vmm-crash"), exit);
    assert(names.includes("no-fabricated-completion"), exit);
  }
});

Deno.test("openvmm 3360: under entries that restore VTL2's registers no interrupt is needed either", () => {
  assert(violated(RESTORED, { interrupts: "0" }).includes("no-vmm-crash"));
});

Deno.test("openvmm 3360: 0xB0 is where RAX lies in a port intercept's message in the assist page", () => {
  const { intercept_message } = HvVpAssistPage.at;
  assertEquals(intercept_message + HvMessage.at.payload_buffer + HvX64IoPortInterceptMessage.at.rax, 0xb0);
});

Deno.test("openvmm 3360: RAX from the message is safe where there is no sidecar", () => {
  assertEquals(violated({ "vmm.io-rax": "rax-from-message" }, { platform: "kernel" }), []);
});

Deno.test("openvmm 3360: that Linux takes the processor after its first exit does not close the window", () => {
  assert(violated(FIRST_VERSION, { hotplug: "on", interrupts: "0" }).includes("no-vmm-crash"));
});

// --- The system -------------------------------------------------------------------------------------------------------

Deno.test("sidecar-rax: agents write nothing but what they declare", () => {
  const OPTIONS: Choices[] = [{}, { exit: "ins" }, { exit: "mmio" }, { exit: "cpuid" }, { exit: "hypercall" }];
  for (const options of OPTIONS) {
    const declared = searchOf(buildSystem(sidecarRax, FIRST_VERSION, options), 1);
    const system = buildSystem(sidecarRax, FIRST_VERSION, options);
    const agents = system.agents.map(({ writes: _, ...rest }) => rest);
    const anything = searchOf(Object.assign(system, { agents }), 1);
    assertEquals(
      [declared.states, declared.transitions, declared.names],
      [anything.states, anything.transitions, anything.names],
    );
  }
});

Deno.test("sidecar-rax: IN, OUTS, INS, CPUID, MSR, MMIO and hypercall exits hold with the repaired driver", () => {
  for (const exit of ["in", "outs", "ins", "cpuid", "msr", "mmio", "hypercall"]) {
    assertEquals(violated({}, { exit }, 1), [], exit);
  }
});

Deno.test("sidecar-rax: a conversion to a Linux processor in between holds", () => {
  assertEquals(violated({}, { hotplug: "on" }, 0), []);
});
