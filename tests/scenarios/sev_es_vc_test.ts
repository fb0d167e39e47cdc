import { assert, assertEquals } from "@std/assert";
import { Engine } from "../../lib/explore/engine.ts";
import { explore } from "../../lib/explore/explorer.ts";
import { ReplayScheduler } from "../../lib/explore/replay.ts";
import { parseSchedule, scheduleText } from "../../lib/explore/schedule.ts";
import { search as searchSystem } from "../../lib/explore/search.ts";
import { isViolated } from "../../lib/explore/shortest.ts";
import { vcLabel } from "../../lib/guest/programs/vc/kernel.ts";
import { GHCB } from "../../lib/layout/sev/ghcb.ts";
import { type PropertyResult, searchCombination } from "../../lib/scenarios/combination.ts";
import { scenarioNamed } from "../../lib/scenarios/index.ts";
import {
  buildSystem,
  type Choices,
  parseOptions,
  type Scenario,
  splitSystemName,
} from "../../lib/scenarios/scenario.ts";
import { reference } from "../../lib/scenarios/vc_system.ts";

const scenario = scenarioNamed("sev-es-vc");
/** What was committed, and what the draft of June 2025 had. */
const COMMITTED: Choices = {
  "vc.early-handler": "32",
  "vc.boot": "legacy",
  "vc.port-promotion": "64-bit",
  "vc.result-merge": "zero-extend",
  "vc.exitinfo1": "ignored",
  "vc.execute-only": "no",
  "vc.opcode-check": "as-published",
  "vmm.xsetbv-intercept": "no",
  "vmm.cr8-shadow": "no",
  "vmm.host-fpu-save": "yes",
};
const DRAFT: Choices = {
  ...COMMITTED,
  "vc.early-handler": "both",
  "vc.boot": "compat",
  "vc.port-promotion": "signed",
  "vc.result-merge": "upper-32-kept",
};
/** What satisfies every property. */
const REPAIRED: Choices = {
  ...COMMITTED,
  "vc.early-handler": "both",
  "vc.exitinfo1": "checked",
  "vc.opcode-check": "every-exit",
  "vmm.cr8-shadow": "yes",
};

/** Searches a combination with every program on both hosts. */
function search(policies: Choices, of: Scenario = scenario): readonly PropertyResult[] {
  const { properties } = searchCombination(of, policies, "sc", () => 0);
  assert(properties.every(({ verdict }) => verdict !== "bound"));
  return properties.filter(({ verdict }) => verdict === "violated");
}

const names = (results: readonly PropertyResult[]) => results.map(({ property }) => property);

/** Replays a schedule from its text to its end; the memory there. */
function replayed({ property, schedule }: PropertyResult) {
  const parsed = parseSchedule(scheduleText(schedule!), "found.json");
  const options = parseOptions(scenario, splitSystemName(parsed.scenario).options);
  const engine = new Engine(buildSystem(scenario, parsed.policies, options), "sc");
  const scheduler = new ReplayScheduler(parsed);
  explore(engine, scheduler, { until: "never" });
  assertEquals(scheduler.divergence, undefined);
  assert(isViolated(engine, engine.system.properties.find(({ name }) => name === property)!), property);
  return engine.system.memory;
}

Deno.test("sev-es-vc: with both early handlers, every answer checked and every opcode looked at, all holds in both boots", () => {
  assertEquals(names(search(REPAIRED)), []);
  assertEquals(names(search({ ...REPAIRED, "vc.boot": "compat" })), []);
  assertEquals(names(search({ ...REPAIRED, "vmm.host-fpu-save": "no" })), []);
});

Deno.test("sev-es-vc: each part of that taken away brings its own violation back, which replays", () => {
  const without: readonly (readonly [choice: Choices, violated: readonly string[]])[] = [
    [{ "vc.early-handler": "32" }, []],
    [{ "vc.early-handler": "32", "vc.boot": "compat" }, ["listed-work"]],
    [{ "vc.early-handler": "64" }, ["listed-work"]],
    [{ "vc.early-handler": "64", "vc.boot": "compat" }, []],
    [{ "vc.port-promotion": "signed" }, ["exit-info-exact"]],
    [{ "vc.result-merge": "upper-32-kept" }, ["as-silicon"]],
    [{ "vc.exitinfo1": "ignored" }, ["as-silicon", "bad-answer-stops"]],
    [{ "vc.execute-only": "yes" }, ["listed-work"]],
    [{ "vc.opcode-check": "as-published" }, ["forged-vc-stops"]],
    [{ "vmm.xsetbv-intercept": "yes" }, ["listed-work"]],
    [{ "vmm.cr8-shadow": "no" }, ["host-record"]],
  ];
  for (const [choice, violated] of without) {
    const found = search({ ...REPAIRED, ...choice });
    assertEquals(names(found), violated, JSON.stringify(choice));
    for (const result of found) replayed(result);
  }
});

Deno.test("sev-es-vc: what was committed repairs the draft's ports and results, and the host's verdict is still ignored", () => {
  const left = ["as-silicon", "bad-answer-stops", "forged-vc-stops", "host-record"];
  assertEquals(names(search(COMMITTED)), left);
  const draft = search(DRAFT);
  assertEquals(names(draft), ["exit-info-exact", ...left]);
  // The draft's OUT to port 8000: a 16-bit number promoted to int, shifted, and extended.
  const memory = replayed(draft[0]);
  const info = memory.u64[(vcLabel("GHCB") + GHCB.at.sw_exit_info_1) >>> 3];
  assertEquals(info, 0xffff_ffff_8000_0020n);
  // A search shared by combinations is retold for each: the schedule names the combination's own policies, and replays.
  for (const result of draft) {
    assertEquals(result.schedule!.policies, DRAFT);
    replayed(result);
  }
});

/** What is violated when bytes of the handler are others: places as label and distance. */
function withBytes(program: string, host: string, patches: readonly (readonly [string, number, number[]])[]): string[] {
  const system = buildSystem(scenario, REPAIRED, { program, host });
  for (const [label, distance, bytes] of patches) system.memory.u8.set(bytes, vcLabel(label) + distance);
  system.afterRestore!();
  const engine = new Engine(system, "sc");
  const reductions = { fingerprints: true, persistentSets: false, sleepSets: false };
  const { violations } = searchSystem(engine, { reductions, firstPreemptions: [], bounds: { depth: 2000 } });
  return violations.map(({ property }) => property.name).sort();
}

Deno.test("sev-es-vc: properties that no version violates are violated by a handler with the mistake", () => {
  const RET = 0xc3;
  // All of RAX goes out, whatever the exit uses of it.
  assertEquals(withBytes("ports", "vmd", [["only_size", 0, [RET]]]), ["needed-fields-only", "secrets-hidden"]);
  // The operand-size forms are taken for three bytes long: CALL, then the immediate of MOV EBX.
  assert(withBytes("ports", "vmd", [["vctrap_entry.operand", 6, [3]]]).includes("rip-exact"));
  // Ports of user mode are not told apart: the mask of TEST [CS], 3.
  assert(withBytes("user", "vmd", [["vctrap_entry.ioio", 6, [0]]]).includes("user-refused"));
  // What is not decoded is asked for anyway: JMP.
  const request = vcLabel("vctrap_entry.request") - vcLabel("vctrap_entry.undecoded") - 5;
  const jump = [0xe9, ...[0, 8, 16, 24].map((shift) => request >> shift & 0xff)];
  assert(withBytes("unlisted", "vmd", [["vctrap_entry.undecoded", 0, jump]]).includes("unlisted-stop"));
});

Deno.test("sev-es-vc: KVM refuses CPUID leaf D without XCR0, and a guest that ignores EXITINFO1 takes its own RAX for the answer", () => {
  const part = { ...scenario, matrix: { ...scenario.matrix, parts: [{ program: "xsave-leaf", host: "kvm" }] } };
  const [found] = search(COMMITTED, part);
  assertEquals([found.property, found.kind], ["as-silicon", "entry 0: RAX is d, on bare 0"]);
});

Deno.test("sev-es-vc: the reference is what the instructions' definitions say", () => {
  const answer = 0x8badf00dn;
  const rax = 0x5ec2e700a1b2c3d4n;
  const { log, accesses } = reference("ports");
  const entry = (k: number) => BigInt(log[12 * k]) | BigInt(log[12 * k + 1]) << 32n;
  // OUT DX,AX; IN AX,DX; IN AL,DX; OUT DX,AL; IN EAX,DX; OUT DX,EAX of the first port.
  const expected = [
    rax,
    rax & ~0xffffn | answer & 0xffffn,
    rax & ~0xffn | answer & 0xffn,
    rax,
    answer, // 32 bits clear the upper half
    rax,
  ];
  assertEquals(expected.map((_, k) => entry(k)), expected);
  const [first, value] = accesses;
  assertEquals([first, value], [0x8000 | 2 << 16, 0xc3d4]);
});

Deno.test("sev-es-vc: which instructions the host intercepts makes no difference to programs that execute none of them", () => {
  const part = (program: string) => ({
    ...scenario,
    matrix: { ...scenario.matrix, parts: [{ program, host: "vmd" }] },
  });
  for (const program of ["boot", "forged-vc"]) {
    const of = part(program);
    const told = (choice: Choices) => {
      return searchCombination({ ...of }, { ...COMMITTED, ...choice }, "sc", () => 0).properties
        .map(({ schedule: _, ...result }) => result);
    };
    assertEquals(told({ "vmm.xsetbv-intercept": "yes", "vmm.cr8-shadow": "yes" }), told({}));
  }
});
