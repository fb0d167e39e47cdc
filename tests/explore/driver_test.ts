import { assert, assertEquals, assertMatch } from "@std/assert";
import { Engine } from "../../lib/explore/engine.ts";
import { ALL_REDUCTIONS } from "../../lib/explore/exhaustive.ts";
import { explore } from "../../lib/explore/explorer.ts";
import { mermaid } from "../../lib/explore/mermaid.ts";
import { minimise } from "../../lib/explore/minimise.ts";
import { ReplayScheduler } from "../../lib/explore/replay.ts";
import { parseSchedule, record, scheduleText } from "../../lib/explore/schedule.ts";
import { search } from "../../lib/explore/search.ts";
import { explainSwitches } from "../../lib/explore/switches.ts";
import type { MemoryModel } from "../../lib/explore/system.ts";
import { tableLines } from "../../lib/explore/table.ts";
import { trace } from "../../lib/explore/trace.ts";
import { verdictLine } from "../../lib/explore/verdict.ts";
import type { ProtocolOptions } from "../../lib/sidecar/protocol.ts";
import { SidecarProtocol } from "../../lib/sidecar/protocol.ts";
import { search as plainSearch } from "../sidecar/protocol_fixture.ts";
import { driverSystem } from "./driver_system.ts";

const PLAIN = { ...ALL_REDUCTIONS, persistentSets: false, sleepSets: false };

function violated(options: ProtocolOptions, model: MemoryModel = "sc", reductions = ALL_REDUCTIONS): string[] {
  const system = driverSystem(options);
  const properties = system.properties.filter(({ when }) => when !== "cycle");
  const result = search(new Engine(system, model), { properties, reductions, until: "never", firstPreemptions: [] });
  assert(result.exhausted);
  return result.violations.map(({ property }) => property.name).sort();
}

const POLICIES: readonly Record<string, string>[] = [
  {},
  { "driver.publish": "claim-then-start" },
  { "driver.rearm": "no" },
  { "driver.scan": "status-then-state" },
];

Deno.test("The explorer and a plain search over copies of the memory agree on the driver's protocol", () => {
  for (const policies of POLICIES) {
    const options = { vps: 1, rounds: 2, policies };
    const plain = plainSearch(new SidecarProtocol(options));
    const system = driverSystem(options);
    const engine = new Engine(system);
    const result = search(engine, { properties: [], reductions: PLAIN, firstPreemptions: [] });
    assertEquals(result.states, plain.states, JSON.stringify(policies));
    assertEquals(violated(options), plain.violations, JSON.stringify(policies));
  }
});

Deno.test("With and without reductions the same properties of the driver's protocol are violated", () => {
  for (const policies of POLICIES) {
    for (const model of ["sc", "tso"] as const) {
      const options = { vps: 1, rounds: 2, policies };
      assertEquals(violated(options, model), violated(options, model, PLAIN), `${model} ${JSON.stringify(policies)}`);
    }
  }
});

Deno.test("OHCL-Linux-Kernel 157: publication by a release store loses a wake-up, under x86-TSO only", () => {
  const options = { vps: 1, rounds: 1, policies: { "driver.publish": "starting-release" } };
  assertEquals(violated(options, "sc"), []);
  assertEquals(violated(options, "tso"), ["no-deadlock", "no-lost-wakeup"]);
});

/** The minimised schedule of the first violation of `property`. */
function minimisedOf(options: ProtocolOptions, property: string) {
  const engine = new Engine(driverSystem(options));
  const properties = engine.system.properties.filter(({ name }) => name === property);
  const [found] = search(engine, { properties }).violations;
  return { engine, minimised: minimise(engine, found) };
}

Deno.test("OHCL-Linux-Kernel 154: without the re-arm a wake-up is lost by one context switch, and that schedule replays", () => {
  const options = { vps: 1, rounds: 1, policies: { "driver.rearm": "no" } };
  const { engine, minimised } = minimisedOf(options, "no-lost-wakeup");
  assertEquals([minimised.switches, minimised.exact], [1, true]);
  const schedule = record(engine, minimised.choices, { property: "no-lost-wakeup", kind: minimised.kind });
  const scheduler = new ReplayScheduler(parseSchedule(scheduleText(schedule), "schedule.json"));
  const replayed = explore(new Engine(driverSystem(options)), scheduler);
  assertEquals(scheduler.divergence, undefined);
  assert(replayed.violations.some(({ property }) => property.name === "no-lost-wakeup"));
});

Deno.test("The reason of a switch names the step that comes too early and the field that it misses", () => {
  const { engine, minimised } = minimisedOf(
    { vps: 1, rounds: 1, policies: { "driver.rearm": "no" } },
    "no-lost-wakeup",
  );
  const reasons = explainSwitches(engine, minimised.choices, minimised.property);
  assertEquals(reasons.map(({ from, to }) => [from, to]), [["vmm1", "sidecar1"]]);
  assertMatch(
    reasons[0].reason,
    /^Without it 'vmm1' first takes 'driver\.start\.publish', so that 'driver\.scan\.load-state' of 'reader' comes after driver\.vp_state\[1\] ASYNC_STARTING → ASYNC, and no-lost-wakeup is not violated\.$/,
  );
});

Deno.test("The table has a column for each agent, the fields that each step changed, and a mark at context switches", () => {
  const { engine, minimised } = minimisedOf(
    { vps: 1, rounds: 1, policies: { "driver.rearm": "no" } },
    "no-lost-wakeup",
  );
  const lines = tableLines(trace(engine, minimised.choices));
  assertMatch(lines[0], /^ +\| vmm1 +\| reader +\| irq +\| sidecar1$/);
  assertMatch(lines[2], /^ 1 {3}\| driver\.start\.claim/);
  assertEquals(lines.filter((line) => /^ *\d+ \*/.test(line)).length, 1);
  assert(lines.some((line) => line.includes("· cpu_status[1]: IDLE → RUN")));
  assert(lines.some((line) => line.includes("· needs_attention: 0 → 1")));
  const diagram = mermaid(trace(engine, minimised.choices)).split("\n");
  assertEquals(diagram[0], "sequenceDiagram");
  assertEquals(diagram.filter((line) => line.includes("participant")).length, 4);
  assert(diagram.some((line) => /a\d+->>a\d+: \d+ driver\.interrupt\.load-attention/.test(line)));
});

Deno.test("Stores that wait in a store buffer are shown as such", () => {
  const system = driverSystem({ vps: 1, rounds: 1, policies: { "driver.publish": "starting-release" } });
  const engine = new Engine(system, "tso");
  const properties = system.properties.filter(({ name }) => name === "no-lost-wakeup");
  const { choices } = minimise(engine, search(engine, { properties }).violations[0]);
  const publish = trace(engine, choices).find(({ step }) => step === "driver.start.publish")!;
  assertEquals(publish.changes, [
    { field: "driver.vp_state[1]", before: "ASYNC_STARTING", after: "ASYNC", buffered: true },
  ]);
});

Deno.test("The verdict says what was looked at, and holds only when that was everything within the bounds", () => {
  const engine = new Engine(driverSystem({ vps: 1, rounds: 1 }));
  const line = (result: ReturnType<typeof search>) => verdictLine(result, { memoryModel: "sc", seconds: 1.5 });
  const properties = engine.system.properties.filter(({ when }) => when !== "cycle");
  assertMatch(
    line(search(engine, { properties })),
    /^holds within the whole space \(no bound on preemptions\); \d+ states, .*; sequential consistency; 1\.50 s$/,
  );
  assertMatch(line(search(engine, { properties, bounds: { preemptions: 1 } })), /^holds within 1 preemption; /);
  assertMatch(
    line(search(engine, { properties, bounds: { states: 50 }, firstPreemptions: [] })),
    /^nothing found, but not everything was looked at \(bound on states hit\); bounds: /,
  );
});
