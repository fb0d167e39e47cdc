import { assert, assertEquals, assertMatch } from "@std/assert";
import { EXIT } from "../../lib/cli/exit_codes.ts";
import { Engine } from "../../lib/explore/engine.ts";
import { record, scheduleText } from "../../lib/explore/schedule.ts";
import { driverSystem } from "../../lib/scenarios/driver_system.ts";

const ROOT = new URL("../../", import.meta.url);
const RUN = [
  "run",
  "--quiet",
  "--no-check",
  "--cached-only",
  "--allow-read",
  "--allow-write",
  new URL("main.ts", ROOT).href,
];

interface Ran {
  readonly code: number;
  readonly out: string;
  readonly err: string;
}

/** Runs `exitbox` as a process in `cwd`. */
async function exitbox(words: readonly string[], cwd: string | URL = ROOT, input = ""): Promise<Ran> {
  const args = [...RUN, ...words];
  const child = new Deno.Command(Deno.execPath(), {
    args,
    cwd,
    env: { NO_COLOR: "1" },
    stdin: "piped",
    stdout: "piped",
    stderr: "piped",
  }).spawn();
  const writer = child.stdin.getWriter();
  await writer.write(new TextEncoder().encode(input)).catch(() => {});
  await writer.close().catch(() => {});
  const { code, stdout, stderr } = await child.output();
  const decoder = new TextDecoder();
  return { code, out: decoder.decode(stdout), err: decoder.decode(stderr) };
}

const lastLine = (text: string) => text.trimEnd().split("\n").at(-1)!;
/** The words of the command in a last line. */
const wordsOf = (line: string) => line.split(" ").slice(1);

Deno.test("explore: exit codes are 11 for a lost wake-up, 12 for safety, 13 for a livelock, 0 when it holds", async () => {
  const cases: [string[], number][] = [
    [["sidecar-remove"], EXIT.CLEAN],
    [["sidecar-remove", "--policy", "driver.remove-wait=until-remove", "--property", "no-lost-wakeup"], EXIT.DEADLOCK],
    [["sidecar-remove", "--policy", "driver.remove-wait=until-remove"], EXIT.SAFETY],
    [["sidecar-stop:rounds=2", "--property", "no-livelock"], EXIT.LIVENESS],
    [["sidecar-completion", "--states", "100"], EXIT.LIMIT],
    [["sidecar-completion", "--scheduler", "random", "--schedules", "5", "--seed", "3"], EXIT.LIMIT],
  ];
  for (const [words, code] of cases) {
    const ran = await exitbox(["explore", ...words, "--quiet"]);
    assertEquals(ran.code, code, `${words.join(" ")}: ${ran.err}`);
    assertMatch(lastLine(ran.out), /^exitbox explore sidecar-/);
  }
});

Deno.test("explore: the last line reproduces what was found, and schedules in files replay", async () => {
  const folder = await Deno.makeTempDir();
  try {
    const words = ["explore", "sidecar-remove", "--policy", "driver.remove-wait=until-remove"];
    const first = await exitbox(words);
    const again = await exitbox(wordsOf(lastLine(first.out)));
    assertEquals(again.code, first.code);
    assertEquals(lastLine(again.out), lastLine(first.out));
    const written = await exitbox([...words, "--out", folder, "--quiet"]);
    const replay = await exitbox(wordsOf(lastLine(written.out)));
    assertEquals(replay.code, EXIT.SAFETY);
    assertMatch(replay.out, /no-early-start is violated again at step 4/);
    const files = [...Deno.readDirSync(folder)].map(({ name }) => name).sort();
    assertEquals(files.filter((name) => name.endsWith(".json")).length, 3);
    const text = await Deno.readTextFile(`${folder}/${files.find((name) => name.endsWith(".md"))}`);
    assertMatch(text, /sequenceDiagram/);
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
});

Deno.test("explore --json: one object with the fields of the report; --jobs gives the same verdict and schedules", async () => {
  const words = ["explore", "sidecar-completion:vps=1,rounds=2", "--policy", "driver.rearm=no", "--json"];
  const [one, two] = [await exitbox(words), await exitbox([...words, "--jobs", "2"])];
  assertEquals([one.code, two.code], [EXIT.DEADLOCK, EXIT.DEADLOCK]);
  const [a, b] = [JSON.parse(one.out), JSON.parse(two.out)];
  assertEquals(Object.keys(a), [
    "scenario",
    "policies",
    "verdict",
    "memory_model",
    "violations",
    "states",
    "transitions",
    "schedules",
    "seconds",
    "bounds",
  ]);
  assertEquals(Object.keys(a.violations[0]), ["property", "kind", "switches", "steps", "schedule"]);
  assertEquals([b.verdict, b.violations], [a.verdict, a.violations]);
});

Deno.test("explore: a violation that only store buffers show is reported as such", async () => {
  const words = ["explore", "sidecar-completion:vps=1", "--policy", "driver.publish=starting-release", "--json"];
  const { out } = await exitbox([...words, "--memory-model", "tso"]);
  const kinds = JSON.parse(out).violations.map(({ kind }: { kind: string }) => kind);
  assert(kinds.length > 0 && kinds.every((kind: string) => kind.endsWith("(only under x86-TSO)")), kinds.join("; "));
});

Deno.test("merge: shards join to the whole search's verdict; a missing one is said", async () => {
  const folder = await Deno.makeTempDir();
  try {
    const words = [
      "explore",
      "sidecar-completion:vps=1,rounds=2",
      "--policy",
      "driver.scan=status-then-state",
      "--json",
    ];
    for (const index of [1, 2]) {
      const { out } = await exitbox([...words, "--shard", `${index}/2`]);
      await Deno.writeTextFile(`${folder}/part${index}.json`, out);
    }
    const merged = await exitbox(["merge", "part1.json", "part2.json", "--json"], folder);
    const whole = await exitbox(words);
    const names = (text: string) => JSON.parse(text).violations.map(({ property }: { property: string }) => property);
    assertEquals([merged.code, names(merged.out)], [whole.code, names(whole.out)]);
    const missing = await exitbox(["merge", "part1.json"], folder);
    assertEquals([missing.code, missing.err], [EXIT.USAGE, "exitbox: Shard 2/2 is missing\n"]);
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
});

Deno.test("check: the matrix of sidecar-remove, as text and as JSON", async () => {
  const text = await exitbox(["check", "sidecar-remove", "--jobs", "2"]);
  assertEquals(text.code, EXIT.CLEAN);
  assertMatch(
    text.out,
    /^holds\n {2}driver\.remove-wait=until-removed \(2 combinations of [\d,]+ to [\d,]+ states\)$/m,
  );
  assertMatch(
    text.out,
    /^violated: no-early-start \(0 switches\); no-lost-wakeup.* \(1 switch\)\n {2}driver.remove-wait=until-remove /m,
  );
  assertEquals(lastLine(text.out), "exitbox check sidecar-remove");
  const { rows, bounds } = JSON.parse((await exitbox(["check", "sidecar-remove", "--json"])).out);
  assertEquals(rows.length, 2 * 2 * 8);
  assertEquals(bounds.preemptions, null);
  assertEquals(Object.keys(rows[0]), [
    "policies",
    "memory_model",
    "property",
    "verdict",
    "kind",
    "states",
    "switches",
    "steps",
    "seconds",
    "schedule",
  ]);
});

Deno.test("replay: --from and --to, --step, --json, and a schedule that was edited", async () => {
  const folder = await Deno.makeTempDir();
  try {
    const policy = "driver.remove-wait=until-remove";
    await exitbox(["explore", "sidecar-remove", "--policy", policy, "--property", "no-lost-wakeup", "--out", folder]);
    const file = "sidecar-remove-no-lost-wakeup-sc.json";
    const part = await exitbox(["replay", file, "--from", "2", "--to", "3"], folder);
    assertEquals(part.code, EXIT.CLEAN);
    assertEquals(part.out.match(/^ *\d+ /gm)?.map((number) => number.trim()), ["2", "3"]);
    const json = JSON.parse((await exitbox(["replay", file, "--json"], folder)).out);
    assertEquals([json.violated, json.divergence, json.steps.length], [true, null, 17]);
    assertMatch(json.mermaid, /^sequenceDiagram/);
    const stepped = await exitbox(["replay", file, "--step"], folder, "\nnobody\nreader\n\nq\n");
    assertMatch(stepped.out, /"nobody" cannot take a step now/);
    assertMatch(stepped.out, /driver\.read\.load-needs-scan/);
    const schedule = JSON.parse(await Deno.readTextFile(`${folder}/${file}`));
    await Deno.writeTextFile(`${folder}/edited.json`, JSON.stringify({ ...schedule, kind: "x" }));
    const edited = await exitbox(["replay", "edited.json"], folder);
    assertEquals(edited.code, EXIT.USAGE);
    assertMatch(edited.err, /^exitbox: edited\.json: the schedule was cut or edited: [^\n]+\n$/);
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
});

Deno.test("replay --scheduler: any prefix of a recording is where another scheduler goes on", async () => {
  const folder = await Deno.makeTempDir();
  try {
    const policy = "driver.remove-wait=until-remove";
    await exitbox(["explore", "sidecar-remove", "--policy", policy, "--property", "no-lost-wakeup", "--out", folder]);
    const file = "sidecar-remove-no-lost-wakeup-sc.json";
    const on = (...words: string[]) => exitbox(["replay", file, ...words, "--json"], folder);
    // Behind the claim and the change of the status both failures are still to come.
    const early = JSON.parse((await on("--to", "2", "--scheduler", "exhaustive")).out);
    const found = early.violations.map((violation: { property: string; steps: number }) => violation.property);
    assertEquals([early.prefix, found], [2, ["no-early-start", "no-lost-wakeup", "no-deadlock"]]);
    assertEquals(early.violations[1].schedule.choices.length, early.violations[1].steps);
    // Behind the processor's departure Linux cannot start too early any more.
    const late = await on("--to", "5", "--scheduler", "exhaustive", "--property", "no-early-start");
    assertEquals([late.code, JSON.parse(late.out).verdict], [EXIT.CLEAN, "holds"]);
    // What was found from a prefix is a schedule from the beginning.
    await exitbox(["replay", file, "--to", "3", "--scheduler", "random", "--out", "on"], folder);
    assertEquals((await exitbox(["replay", `on/${file}`], folder)).code, EXIT.DEADLOCK);
    assertEquals((await exitbox(["replay", file, "--seed", "1"], folder)).code, EXIT.USAGE);
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
});

Deno.test("replay: a recording that cannot be followed says where it diverges, exit code 21", async () => {
  const folder = await Deno.makeTempDir();
  try {
    // What an earlier release might have left: the same agents and policies, but other states and steps.
    const policies = { "driver.remove-wait": "until-removed" };
    const recorded = (rounds: number, actors: readonly number[]) => {
      const protocol = { vps: 1, rounds, remove: [1] };
      const engine = new Engine(
        driverSystem({ name: "sidecar-remove", policies, protocol, properties: ["no-deadlock"] }),
      );
      return scheduleText(record(engine, actors.map((actor) => ({ actor, outcome: 0 }))));
    };
    await Deno.writeTextFile(`${folder}/other.json`, recorded(1, [0]));
    const start = await exitbox(["replay", "other.json"], folder);
    assertEquals([start.code, start.err], [EXIT.DIVERGED, ""]);
    assertMatch(start.out, /^diverged at the beginning: the initial state was [0-9a-f]{16}, now it is [0-9a-f]{16}$/m);
    const json = await exitbox(["replay", "other.json", "--json"], folder);
    const { divergence, violated } = JSON.parse(json.out);
    assertEquals([json.code, divergence.step, violated], [EXIT.DIVERGED, 0, false]);
    await Deno.writeTextFile(`${folder}/same.json`, recorded(0, [1]));
    assertEquals((await exitbox(["replay", "same.json"], folder)).code, EXIT.CLEAN);
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
});

Deno.test("bad input is one line on standard error, exit code 2", async () => {
  const folder = await Deno.makeTempDir();
  try {
    const schedule = {
      version: 1,
      scenario: "sidecar-remove",
      policies: {},
      memory_model: "sc",
      property: "",
      kind: "",
      start: "0000000000000000",
      choices: [],
      digest: "0000000000000000",
    };
    const files: Record<string, unknown> = {
      "old.json": { ...schedule, version: 0 },
      "cut.json": '{"version": 1, "scen',
      "empty.json": "",
      "wrong.json": { machine: { platform: "kernel" }, guest: {} },
      "endless.json": { machine: { platform: "kernel" }, guests: { g: { bytes: "eb fe" } } },
    };
    for (const [name, value] of Object.entries(files)) {
      await Deno.writeTextFile(`${folder}/${name}`, typeof value === "string" ? value : JSON.stringify(value));
    }
    const cases: [string[], RegExp][] = [
      [["explore", "sidecar-completon"], /Unknown scenario "sidecar-completon", did you mean "sidecar-completion"\?/],
      [["check", "sidecar-completon"], /Unknown scenario/],
      [["check", "nothing"], /Unknown scenario "nothing", expected sidecar-rax, .*, sev-es-vc$/m],
      [["explore", "sidecar-remove", "--policy", "driver.remove-wat=x"], /did you mean "driver\.remove-wait"\?/],
      [["explore", "sidecar-remove", "--policy", "driver.remove-wait=x"], /has no value "x", expected until-removed/],
      [
        ["explore", "sidecar-remove", "--policy", "driver.scan=state-then-status"],
        /does not vary policy "driver\.scan"/,
      ],
      [["explore", "sidecar-remove", "--property", "no-deadlok"], /did you mean "no-deadlock"\?/],
      [["explore", "sidecar-remove", "--property", "zero"], /has no property "zero", expected .*no-deadlock/],
      [["explore", "sidecar-remove:vps=9"], /Option "vps" has no value "9", expected 1, 2/],
      [["explore", "sidecar-remove:vsp=1"], /has no option "vsp", did you mean "vps"\?/],
      [["explore", "sidecar-remove", "--shard", "3/2"], /--shard: 3 is out of range, expected 1 to 2/],
      [["explore", "sidecar-remove", "--preemptions", "few"], /--preemptions: "few" is not a number/],
      [["explore", "sidecar-remove", "--shard", "1/2", "--jobs", "2"], /exclude each other/],
      [["explore", "nowhere.json"], /nowhere\.json: no such file/],
      [["explore", "wrong.json"], /wrong\.json: field "guest": unknown, did you mean "guests"\?/],
      [["explore", "endless.json"], /endless\.json: guests\.[a-z]+: the guest does not come to its end/],
      [["replay", "old.json"], /old\.json: schedule version 0; this release reads version 1/],
      [["replay", "cut.json"], /cut\.json: not a whole JSON document/],
      [["replay", "empty.json"], /empty\.json: not a whole JSON document/],
      [["replay", "wrong.json"], /wrong\.json: field "version"/],
      [["merge", "old.json"], /old\.json: field "shard"/],
    ];
    for (const [words, message] of cases) {
      const { code, out, err } = await exitbox(words, folder);
      assertEquals([code, out], [EXIT.USAGE, ""], `${words.join(" ")}: ${err}`);
      assertMatch(err, /^exitbox: [^\n]+\n$/);
      assertMatch(err, message);
    }
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
});

Deno.test("explore: Ctrl-C ends a long search with what was found", async () => {
  const child = new Deno.Command(Deno.execPath(), {
    args: [...RUN, "explore", "sidecar-completion:vps=4", "--json"],
    cwd: ROOT,
    stdout: "piped",
    stderr: "null",
  }).spawn();
  await new Promise((resolve) => setTimeout(resolve, 3000));
  child.kill("SIGINT");
  const { code, stdout } = await child.output();
  assertEquals(code, EXIT.INTERRUPTED);
  const report = JSON.parse(new TextDecoder().decode(stdout));
  assertEquals([report.verdict, report.violations], ["bound", []]);
});
