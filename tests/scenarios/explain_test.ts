import { assert, assertEquals, assertStringIncludes, assertThrows } from "@std/assert";
import { Engine } from "../../lib/explore/engine.ts";
import { costOf } from "../../lib/explore/minimise.ts";
import { choicesOf } from "../../lib/explore/replay.ts";
import { BadInput } from "../../lib/memory/bad_input.ts";
import { checkExplained, explainCombination, type Explanation, OBSERVABLE } from "../../lib/scenarios/explain.ts";
import { scenarioNamed } from "../../lib/scenarios/index.ts";
import {
  buildSystem,
  type Choices,
  completePolicies,
  parseOptions,
  splitSystemName,
} from "../../lib/scenarios/scenario.ts";
import { sidecarRax } from "../../lib/scenarios/sidecar_rax.ts";

const FINGERPRINT = "context.rax == ((message.rax + 0xB0) & 0xFFFFFFFF)";
/** The published driver with both parts of its repair taken out: the crash takes two preemptions. */
const PUBLISHED = { "driver.publish": "claim-then-start", "driver.rearm": "no", "driver.scan": "status-then-state" };

function explain(observe: string, policies: Choices, preemptions = 2): Explanation {
  const chosen = completePolicies(sidecarRax, policies);
  return explainCombination({ observe, policies: chosen, memoryModel: "sc", preemptions, interrupts: 0 }, () => false);
}

Deno.test("explain: the fingerprint fits a stale message under the published driver and a 32-bit addition of 0xB0", () => {
  const { possible, guest, device, schedule } = explain(FINGERPRINT, PUBLISHED);
  assert(possible);
  assertStringIncludes(guest!, "add EAX, 0xb0 (32-bit)");
  assertStringIncludes(guest!, "every start that was tried");
  assertEquals(device, "its answer does not matter");

  const { options } = splitSystemName(schedule!.scenario);
  const system = buildSystem(sidecarRax, schedule!.policies, parseOptions(sidecarRax, options));
  const engine = new Engine(system, "sc");
  costOf(engine, choicesOf(engine, schedule!));
  const crash = system.properties.find(({ name }) => name === "no-vmm-crash")!;
  assert(!crash.holds(), "the schedule ends in the crash");
});

Deno.test("explain: with upper bits in the message the addition is a 32-bit one; without carry out of them a 64-bit one", () => {
  const upper = explain(`${FINGERPRINT} && message.rax >> 32 != 0`, PUBLISHED);
  assertStringIncludes(upper.guest!, "add EAX, 0xb0 (32-bit), OUT; from RAX = 0x1234567800000078, 0xffff8000ffffff9a");
  const whole = explain("context.rax == message.rax + 0xB0", PUBLISHED);
  assertStringIncludes(whole.guest!, "add RAX, 0xb0 (64-bit)");
});

Deno.test("explain: a VTL entry that leaves VTL2's own values makes every context 0, which the fingerprint is not", () => {
  const restored = { "vtl.entry": "vtl2-restored" };
  assertEquals(explain(FINGERPRINT, restored).possible, false);
  assertEquals(explain("context.rax == 0", restored).possible, true);
});

Deno.test("explain: a constant is a coincidence, not an explanation", () => {
  assertEquals(explain("context.rax == 0x12e4", PUBLISHED).possible, false);
  assertEquals(explain("message.rax == 0x1234 && context.rax == 0x12e4", PUBLISHED).possible, false);
});

Deno.test("explain: without the assertion, and with the repaired driver, there is no crash to explain", () => {
  for (const policies of [{ ...PUBLISHED, "vmm.io-rax": "rax-from-message" }, {}]) {
    const { possible, reason } = explain("message.rax != context.rax", policies);
    assertEquals([possible, reason], [false, "no crash"]);
  }
});

Deno.test("explain: what the handler reads is stale while the guest has moved on", () => {
  const { possible } = explain("context.rax == guest.rax && message.rax != guest.rax", PUBLISHED);
  assert(possible);
});

Deno.test("explain: the driver's order of reading alone is enough for the fingerprint", () => {
  assertEquals(explain(FINGERPRINT, { "driver.scan": "status-then-state" }, 3).possible, true);
});

Deno.test("explain: an interrupted search knows nothing", () => {
  const policies = completePolicies(sidecarRax, {});
  const request = { observe: FINGERPRINT, policies, memoryModel: "sc", preemptions: 2, interrupts: 0 } as const;
  assertEquals(explainCombination(request, () => true).possible, null);
});

Deno.test("explain: a scenario without a guest has nothing to observe", () => {
  assertThrows(() => checkExplained(scenarioNamed("sidecar-completion")), BadInput, "explain takes sidecar-rax");
  assert(OBSERVABLE.includes("context.cr2") && OBSERVABLE.includes("page.rsp") && !OBSERVABLE.includes("context.rsp"));
});
