import { assert, assertEquals } from "@std/assert";
import { Engine } from "../../lib/explore/engine.ts";
import { minimise, type Minimised } from "../../lib/explore/minimise.ts";
import { ReplayScheduler } from "../../lib/explore/replay.ts";
import { parseSchedule, record, scheduleText } from "../../lib/explore/schedule.ts";
import { explore } from "../../lib/explore/explorer.ts";
import { search } from "../../lib/explore/search.ts";
import { isViolated } from "../../lib/explore/shortest.ts";
import type { MemoryModel } from "../../lib/explore/system.ts";
import { scenarioNamed } from "../../lib/scenarios/index.ts";
import { buildSystem, type Choices } from "../../lib/scenarios/scenario.ts";

const FINGERPRINTS = { fingerprints: true, persistentSets: false, sleepSets: false };
const MODELS: readonly MemoryModel[] = ["sc", "tso"];

/** Searches everything, and minimises what is violated. */
function searched(scenario: string, policies: Choices, options: Choices, memoryModel: MemoryModel) {
  const engine = new Engine(buildSystem(scenarioNamed(scenario), policies, options), memoryModel);
  const { violations, exhausted } = search(engine, { reductions: FINGERPRINTS, firstPreemptions: [] });
  const found = new Map<string, Minimised>();
  for (const violation of violations) found.set(violation.property.name, minimise(engine, violation));
  return { engine, found, exhausted, names: [...found.keys()].sort() };
}

/** The minimised schedule: the steps of each agent in a row, agents in the order in which they come. */
function shape(engine: Engine, { choices }: Minimised): string[] {
  const rows: string[] = [];
  let last = -1;
  engine.restore();
  engine.chooser = { nextChoice: () => 0 };
  for (const { actor } of choices) {
    const step = engine.stepName(actor).replace(/^(driver|sidecar|client)\./, "");
    if (actor === last) rows[rows.length - 1] += ` ${step}`;
    else rows.push(`${engine.actorNames[actor]}: ${step}`);
    last = actor;
    engine.execute(actor);
  }
  return rows;
}

/** Writes the schedule down, reads it again and follows it in a new system: its property is violated at its end. */
function assertReplays(engine: Engine, minimised: Minimised, scenario: string, policies: Choices, options: Choices) {
  const { name } = minimised.property;
  const text = scheduleText(record(engine, minimised.choices, { property: name, kind: minimised.kind }));
  const schedule = parseSchedule(text, "found.json");
  const again = new Engine(buildSystem(scenarioNamed(scenario), policies, options), schedule.memory_model);
  const scheduler = new ReplayScheduler(schedule);
  explore(again, scheduler, { until: "never" });
  assertEquals(scheduler.divergence, undefined);
  assertEquals(again.depth, schedule.choices.length);
  assert(isViolated(again, again.system.properties.find((property) => property.name === name)!));
}

// --- OHCL-Linux-Kernel 154 and 157 ------------------------------------------------------------------------------

const FIRST_VERSION = {
  "driver.publish": "claim-then-start",
  "driver.rearm": "no",
  "driver.scan": "status-then-state",
};
const PARTS = [{ vps: "1", rounds: "2" }, { vps: "2", rounds: "1" }];
const FABRICATES = ["exactly-once", "no-fabricated-completion", "page-ownership"];
const LOSES = ["no-deadlock", "no-lost-wakeup"];

for (const model of MODELS) {
  Deno.test(`OHCL-Linux-Kernel 154, 157 (${model}): a scan between claim and start takes what never began for complete`, () => {
    const { engine, found, names } = searched("sidecar-completion", FIRST_VERSION, {}, model);
    assertEquals(names, FABRICATES);
    const violation = found.get("no-fabricated-completion")!;
    const rows = shape(engine, violation);
    // The starter of processor 1 stops between its claim and its start; processor 2, which was started before, finishes
    // and says so; the reader's scan goes over both.
    const claims = rows.filter((row) => row.endsWith("start.claim"));
    assertEquals(claims, ["vmm1: start.claim"]);
    assert(rows.some((row) => row.startsWith("vmm2: start.claim start.set-run start.send-ipi")), rows.join("; "));
    // Under x86-TSO others see the reader's store when its next locked instruction drains the store buffer.
    const end = model === "sc" ? "scan.set-stopped" : "scan.set-stopped scan.count";
    assert(rows.at(-1)!.startsWith("reader: ") && rows.at(-1)!.endsWith(end), rows.at(-1));
    assertEquals([violation.switches, violation.exact], [1, true]);
    assertEquals(violation.kind, "a run of processor 1 that has not begun is taken for complete");
    assertReplays(engine, violation, "sidecar-completion", FIRST_VERSION, {});
  });

  Deno.test(`OHCL-Linux-Kernel 154, 157 (${model}): the repaired driver holds with the reader on the base processor`, () => {
    for (const options of PARTS) {
      const { names, exhausted } = searched("sidecar-completion", { "driver.reader": "base-cpu" }, options, model);
      assertEquals([names, exhausted], [[], true]);
    }
  });

  Deno.test(`OHCL-Linux-Kernel 154, 157 (${model}): removing any one part of the repair fails again`, () => {
    const parts: [Choices, string[]][] = [
      [{ "driver.publish": "claim-then-start" }, FABRICATES],
      [{ "driver.scan": "status-then-state" }, FABRICATES],
      [{ "driver.rearm": "no" }, LOSES],
    ];
    for (const [policies, expected] of parts) {
      const { engine, found, names } = searched("sidecar-completion", policies, { vps: "1", rounds: "2" }, model);
      assertEquals(names, expected);
      const [violation] = found.values();
      assertReplays(engine, violation, "sidecar-completion", policies, { vps: "1", rounds: "2" });
    }
  });

  Deno.test(`a finding (${model}): a reader on any processor loses a wake-up under the published repair`, () => {
    const policies = { "driver.reader": "any-cpu" };
    const { engine, found, names } = searched("sidecar-completion", policies, { vps: "1", rounds: "2" }, model);
    assertEquals(names, LOSES);
    const violation = found.get("no-lost-wakeup")!;
    assertEquals(violation.switches, 1);
    // The handler has marked that a scan is wanted; before it clears the attention, the reader takes the mark and sees
    // nothing, the processor finishes, and its attention is cleared.
    const handler = shape(engine, violation).filter((row) => row.startsWith("irq: "));
    assert(handler.some((row) => row.endsWith("interrupt.mark-scan")), handler.join("; "));
    assert(handler.some((row) => row.startsWith("irq: driver") || row.startsWith("irq: interrupt.clear-attention")));
    assertReplays(engine, violation, "sidecar-completion", policies, { vps: "1", rounds: "2" });
  });

  Deno.test(`a finding (${model}): clearing the attention before marking the scan repairs that, on any processor`, () => {
    for (const reader of ["any-cpu", "base-cpu"]) {
      const policies = { "driver.reader": reader, "driver.interrupt": "proposed-clear-then-mark" };
      const { names, exhausted } = searched("sidecar-completion", policies, { vps: "1", rounds: "2" }, model);
      assertEquals([names, exhausted], [[], true]);
    }
    const policies = { "driver.reader": "any-cpu", "driver.interrupt": "proposed-clear-then-mark" };
    const { names, exhausted } = searched("sidecar-completion", policies, { vps: "2", rounds: "1" }, model);
    assertEquals([names, exhausted], [[], true]);
  });
}

Deno.test("the weakest ordering (sc): publishing by a release store holds when every store is seen at once", () => {
  for (const options of PARTS) {
    const { names, exhausted } = searched(
      "sidecar-completion",
      { "driver.publish": "starting-release" },
      options,
      "sc",
    );
    assertEquals([names, exhausted], [[], true]);
  }
});

Deno.test("the weakest ordering (tso): publishing by a release store loses a wake-up, only under x86-TSO", () => {
  const policies = { "driver.publish": "starting-release" };
  const options = { vps: "1", rounds: "2" };
  const { engine, found, names } = searched("sidecar-completion", policies, options, "tso");
  assertEquals(names, LOSES);
  const violation = found.get("no-lost-wakeup")!;
  // The store of ASYNC is still in the store buffer when the look at the status finds RUN, and the scan finds it after
  // the end of the run.
  const rows = shape(engine, violation);
  assert(rows[0].endsWith("start.publish rearm.load-status"), rows[0]);
  assert(rows.some((row) => row.endsWith("scan.load-state read.wait-stopped")), rows.join("; "));
  assertEquals(rows.at(-1), "vmm1: return-to-user");
  assertReplays(engine, violation, "sidecar-completion", policies, options);
});

// --- OHCL-Linux-Kernel 82 and 83 --------------------------------------------------------------------------------

for (const model of MODELS) {
  const FIRST_WAIT = { "driver.remove-wait": "until-remove" };

  Deno.test(`OHCL-Linux-Kernel 82, 83 (${model}): a slow processor is started while it is in the sidecar`, () => {
    const { engine, found } = searched("sidecar-remove", FIRST_WAIT, {}, model);
    const violation = found.get("no-early-start")!;
    assertEquals(shape(engine, violation), [
      "online1: remove.claim remove.set-remove remove.send-ipi remove.wait-status",
    ]);
    assertEquals([violation.switches, violation.kind], [0, "Linux starts a processor whose status is REMOVE"]);
    assertReplays(engine, violation, "sidecar-remove", FIRST_WAIT, {});
  });

  Deno.test(`OHCL-Linux-Kernel 82, 83 (${model}): the removal of a fast processor sleeps for ever`, () => {
    const { engine, found, names } = searched("sidecar-remove", FIRST_WAIT, {}, model);
    assertEquals(names, ["no-deadlock", "no-early-start", "no-lost-wakeup"]);
    const violation = found.get("no-lost-wakeup")!;
    const rows = shape(engine, violation);
    assertEquals(rows[0], "online1: remove.claim remove.set-remove remove.send-ipi");
    assert(rows[1].startsWith("sidecar1: park.halt remove.store-removed"), rows[1]);
    assert(rows.at(-1)!.endsWith("remove.wait-status"), rows.at(-1));
    assertEquals(violation.switches, 1);
    assertReplays(engine, violation, "sidecar-remove", FIRST_WAIT, {});
  });

  Deno.test(`OHCL-Linux-Kernel 82, 83 (${model}): waiting for REMOVED holds, beside runs and without`, () => {
    for (const options of [{ rounds: "0" }, { rounds: "1" }, { rounds: "2" }]) {
      const { names, exhausted } = searched("sidecar-remove", {}, options, model);
      assertEquals([names, exhausted], [[], true]);
    }
  });
}

// --- Stops ------------------------------------------------------------------------------------------------------

for (const model of MODELS) {
  Deno.test(`a finding (${model}): a stop's interrupt that comes after the stop was seen bounces the next run for ever`, () => {
    const { engine, found, names, exhausted } = searched("sidecar-stop", {}, {}, model);
    assertEquals([names, exhausted], [["no-livelock"], true]);
    const { choices, cycleFrom } = found.get("no-livelock")!;
    const rows = shape(engine, found.get("no-livelock")!);
    // STOP is stored, the processor sees it and leaves, the next run begins, and then the interrupt is sent.
    const text = rows.join(" ");
    assert(text.indexOf("stop.set-stop") < text.indexOf("store-idle"), text);
    assert(text.indexOf("store-idle") < text.indexOf("stop.send-ipi"), text);
    assert(text.endsWith("vtl0.run"), text);
    assert(choices.length - cycleFrom! === 2, "sidecar.run.load-status and vtl0.run in turn");
  });

  Deno.test(`a finding (${model}): a start interrupt that outlives the park bounces its own run for ever`, () => {
    const policies = { "sidecar.start-ipi": "pending" };
    const { engine, found, names } = searched("sidecar-stop", policies, { stop: "none", rounds: "1" }, model);
    assertEquals(names, ["no-livelock"]);
    // The processor has seen RUN before the interrupt of its start came, and enters VTL0 with it pending.
    const rows = shape(engine, found.get("no-livelock")!);
    const processor = rows.filter((row) => row.startsWith("sidecar1: ")).map((row) => row.slice("sidecar1: ".length));
    assertEquals(processor.join(" "), "park.load-status run.load-status vtl0.run");
    assertEquals(searched("sidecar-stop", {}, { stop: "none" }, model).names, []);
  });
}

Deno.test("cancelling: a run that only a stop ends always ends when the thread that waits for it cancels it", () => {
  // What cancelling does not repair is the interrupt that comes late: it is the same as with another thread.
  for (const model of MODELS) {
    const { names, exhausted } = searched("sidecar-stop", {}, { stop: "needed", rounds: "1" }, model);
    assertEquals([names, exhausted], [[], true]);
  }
});
