import { assert, assertEquals } from "@std/assert";
import { Engine } from "../../lib/explore/engine.ts";
import { explore } from "../../lib/explore/explorer.ts";
import { minimise } from "../../lib/explore/minimise.ts";
import { ReplayScheduler } from "../../lib/explore/replay.ts";
import { parseSchedule, record, scheduleText } from "../../lib/explore/schedule.ts";
import { search } from "../../lib/explore/search.ts";
import { isViolated } from "../../lib/explore/shortest.ts";
import { scenarioNamed } from "../../lib/scenarios/index.ts";
import { buildSystem, type Choices, combinations } from "../../lib/scenarios/scenario.ts";

const FINGERPRINTS = { fingerprints: true, persistentSets: false, sleepSets: false };

/** Names of the properties that a combination violates, and whether everything was searched; each replays. */
function violated(scenario: string, policies: Choices, options: Choices): readonly string[] {
  const engine = new Engine(buildSystem(scenarioNamed(scenario), policies, options), "sc");
  const { violations, exhausted } = search(engine, { reductions: FINGERPRINTS, firstPreemptions: [] });
  for (const violation of violations) {
    const minimised = minimise(engine, violation);
    const property = { name: violation.property.name, kind: minimised.kind };
    const schedule = parseSchedule(scheduleText(record(engine, minimised.choices, property)), "found.json");
    const again = new Engine(buildSystem(scenarioNamed(scenario), policies, options), "sc");
    const scheduler = new ReplayScheduler(schedule);
    explore(again, scheduler, { until: "never" });
    assertEquals(scheduler.divergence, undefined);
    assert(isViolated(again, again.system.properties.find(({ name }) => name === property.name)!));
  }
  if (violations.length === 0) assert(exhausted);
  return violations.map(({ property }) => property.name).sort();
}

/** What each combination of a scenario's policies violates, summed over its matrix's parts. */
function matrixOf(scenario: string): Map<string, readonly string[]> {
  const { matrix } = scenarioNamed(scenario);
  return new Map(
    combinations(scenarioNamed(scenario)).map((policies) => {
      const all = new Set(matrix.parts.flatMap((options) => violated(scenario, policies, options)));
      return [Object.values(policies).join(" "), [...all].sort()] as const;
    }),
  );
}

Deno.test("ghcb-double-fetch: the snapshot covers the fields, the copy covers the shared buffer, both together hold", () => {
  assertEquals(
    [...matrixOf("ghcb-double-fetch")],
    [
      ["snapshot in-place", ["entries-once"]],
      ["snapshot copied", []],
      ["in-place in-place", ["entries-once", "used-as-validated"]],
      ["in-place copied", ["used-as-validated"]],
    ],
  );
});

Deno.test("rmp-fault: the mail's verdict, policy by policy", () => {
  const matrix = matrixOf("rmp-fault");
  assertEquals(matrix.size, 24);
  // Recovering by sharing takes from the guest what it has accepted; stopping on any fault lets the guest stop the host.
  assert(matrix.get("one-mapping none recover-by-sharing")!.includes("no-private-write"));
  assert(matrix.get("one-mapping at-conversion bug-any-fault")!.includes("no-guest-caused-stop"));
  assertEquals(matrix.get("one-mapping at-conversion bug-own-pages-only"), [
    "checked-is-used",
    "no-change-under-access",
  ]);
  // -EFAULT alone overlooks the host's own error, whatever else is done.
  for (const [policies, names] of matrix) {
    const overlooks = policies.endsWith(" efault") || policies.endsWith(" recover-by-sharing");
    assertEquals(names.includes("stops-on-own-error"), overlooks, policies);
    assert(!names.includes("harms-itself-only") && !names.includes("nothing-leaks"), policies);
  }
  // A lock, or backing that the host has not mapped, closes the window.
  for (const answer of ["one-mapping under-lock bug-own-pages-only", "guest-memfd none bug-own-pages-only"]) {
    assertEquals(matrix.get(answer), [], answer);
  }
});

const PR_3386 = {
  "vmsa.when": "every-exit",
  "vmsa.publish": "p3p4",
  "vmsa.build": "debug",
  "vmsa.opt-in": "no",
  "vmsa.disabled": "leave",
  "vmsa.size-check": "none",
  "vmsa.copy": "plain",
  "vmsa.raw": "public",
};

/** What a choice of policies violates with today's VMSA and with one that does not fit a page. */
function crashPage(policies: Choices): readonly string[] {
  const sizes = scenarioNamed("vmsa-crash-page").matrix.parts;
  return [...new Set(sizes.flatMap((options) => violated("vmsa-crash-page", policies, options)))].sort();
}

Deno.test("openvmm 3386: the pull request takes the guest's parameters, shows its registers, and is never whole", () => {
  assertEquals(crashPage(PR_3386), [
    "announced-is-written",
    "confidential",
    "cost",
    "guest-owns-crash-msrs",
    "identified",
    "raw-access",
    "size",
    "whole",
  ]);
});

Deno.test("openvmm 3386: the review's suggestions leave the guest without its parameters, built in or not", () => {
  const accessor = { "vmsa.raw": "accessor" };
  const disabled = { ...PR_3386, ...accessor, "vmsa.build": "release", "vmsa.disabled": "clear-p3p4" };
  assertEquals(crashPage(disabled), ["guest-owns-crash-msrs"]);
  assertEquals(crashPage({ ...PR_3386, "vmsa.when": "intercept" }), crashPage(PR_3386));
  // A debug build is no opt-in.
  assert(crashPage({ ...PR_3386, "vmsa.when": "crash-ctl" }).includes("confidential"));
});

Deno.test("openvmm 3386: one combination satisfies all and still shows a VMSA; without any of its parts it fails again", () => {
  const all = {
    ...PR_3386,
    "vmsa.when": "crash-ctl",
    "vmsa.publish": "host-notification",
    "vmsa.opt-in": "yes",
    "vmsa.size-check": "assert-where-used",
    "vmsa.copy": "sequence-word",
    "vmsa.raw": "accessor",
  };
  assertEquals(crashPage(all), []);
  const without: readonly (readonly [policy: keyof typeof PR_3386, names: readonly string[]])[] = [
    ["vmsa.when", ["cost"]],
    ["vmsa.publish", ["announced-is-written", "guest-owns-crash-msrs"]],
    ["vmsa.opt-in", ["confidential"]],
    ["vmsa.size-check", ["announced-is-written", "size"]],
    ["vmsa.copy", ["identified", "whole"]],
    ["vmsa.raw", ["raw-access"]],
  ];
  for (const [policy, names] of without) assertEquals(crashPage({ ...all, [policy]: PR_3386[policy] }), names, policy);
});
