import { assert, assertEquals, assertMatch, assertThrows } from "@std/assert";
import { BadInput } from "../../lib/memory/bad_input.ts";
import { EXPLORE_WORKLOADS, measureExplore } from "../../lib/scenarios/bench.ts";
import { scenarioFile } from "../../lib/scenarios/file.ts";
import { scenarioNamed, SCENARIOS } from "../../lib/scenarios/index.ts";
import { matrixOf } from "../../lib/scenarios/matrix.ts";
import { buildSystem, combinations, completeOptions, parseOptions, systemName } from "../../lib/scenarios/scenario.ts";

/** The driver alone with a policy that it looks at and one that it does not. */
const SHARED = {
  name: "shared.json",
  text: JSON.stringify({
    machine: { platform: "sidecar-driver", vps: 1, rounds: 1 },
    environment: [{ agent: "cpu-hotplug" }],
    policies: {
      "driver.remove-wait": ["until-removed", "until-remove"],
      "vtl.entry": ["shared-live", "vtl2-restored"],
    },
    properties: ["no-early-start"],
  }),
};

Deno.test("the matrix: combinations that differ in a policy that nothing looked at share a search", async () => {
  const { rows, searched } = await matrixOf(SHARED, { jobs: 0 });
  assertEquals([rows.length, searched], [4, 2]);
  assertEquals(rows.map(({ verdict }) => verdict), ["holds", "holds", "violated", "violated"]);
  // The schedule of a combination that was not searched is its own: it names its own policies.
  for (const { policies, schedule } of rows) if (schedule !== null) assertEquals(schedule.policies, policies);
});

Deno.test("the matrix: it is the same in one thread and with workers", async () => {
  const told = async (jobs: number) => {
    const { rows } = await matrixOf({ name: "sidecar-remove" }, { jobs });
    return rows.map(({ seconds: _, ...row }) => row);
  };
  assertEquals(await told(2), await told(0));
});

Deno.test("the matrix: what is interrupted is a bound that was hit, never a verdict", async () => {
  const signal = AbortSignal.abort();
  const { rows, interrupted } = await matrixOf({ name: "sidecar-stop" }, { jobs: 0, signal });
  assertEquals(interrupted, true);
  assert(rows.length > 0 && rows.every(({ verdict }) => verdict === "bound"));
});

Deno.test("scenarios: every combination is there once, and each builds a system that knows its choice", () => {
  for (const scenario of SCENARIOS) {
    const all = combinations(scenario);
    assertEquals(new Set(all.map((choice) => JSON.stringify(choice))).size, all.length);
    assertEquals(all.length, scenario.policies.reduce((count, { values }) => count * values.length, 1));
  }
  const scenario = scenarioNamed("sidecar-completion");
  const system = buildSystem(scenario, { "driver.rearm": "no" }, { vps: "3" });
  assertEquals([system.name, system.policies["driver.rearm"]], ["sidecar-completion:vps=3", "no"]);
  const options = parseOptions(scenario, "rounds=2,vps=1");
  assertEquals(systemName(scenario, options), "sidecar-completion:vps=1,rounds=2");
  assertEquals(systemName(scenario, completeOptions(scenario, {})), "sidecar-completion");
  for (const text of ["vps", "vps=1,vps=2", "vps=0", "=", "vps=1=2"]) {
    assertThrows(() => parseOptions(scenario, text), BadInput);
  }
});

Deno.test("README: the scenario file in it is one", async () => {
  const readme = await Deno.readTextFile(new URL("../../README.md", import.meta.url));
  const blocks = [...readme.matchAll(/^```json\n([^]*?)^```$/gm)].map(([, text]) => text);
  const files = blocks.filter((text) => text.includes('"guests"'));
  assertEquals(files.length, 1);
  const scenario = scenarioFile(files[0], "README.md");
  assertEquals(buildSystem(scenario).properties.map(({ name }) => name), ["no-vmm-crash", "transparency"]);
});

Deno.test("bench explore: a small measurement of each workload", () => {
  for (const workload of EXPLORE_WORKLOADS) {
    let time = 0;
    const result = measureExplore({ ...workload, states: 2000 }, false, () => time += 500);
    assertEquals(result.workload, workload.name);
    assert(result.states > 2000 && result.transitions > result.states);
    assertEquals([result.seconds, result.states_per_second], [0.5, result.states / 0.5]);
  }
});

Deno.test("scenarios: an unknown one is refused with the nearest name", () => {
  assertMatch(
    assertThrows(() => scenarioNamed("sidecar-rex"), BadInput).message,
    /^Unknown scenario "sidecar-rex", did you mean "sidecar-rax"\?$/,
  );
});
