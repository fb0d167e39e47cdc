import { assert, assertEquals, assertMatch, assertThrows } from "@std/assert";
import { Engine } from "../../lib/explore/engine.ts";
import { ALL_REDUCTIONS, DEFAULT_BOUNDS, type SearchBounds, type Task, WHOLE } from "../../lib/explore/exhaustive.ts";
import { minimise } from "../../lib/explore/minimise.ts";
import { parallelSearch } from "../../lib/explore/parallel.ts";
import { CONTROL_BYTES, doShare, learnFor, statesOf } from "../../lib/explore/parallel_worker.ts";
import { mergeReports, type Report, reportOn } from "../../lib/explore/report.ts";
import { search, type SearchResult } from "../../lib/explore/search.ts";
import { searchShard } from "../../lib/explore/shard.ts";
import { SharedFingerprints } from "../../lib/explore/shared_fingerprints.ts";
import { BadInput } from "../../lib/memory/bad_input.ts";
import { counters, type CounterSpec } from "./counter_system.ts";

const PLAIN = { ...ALL_REDUCTIONS, persistentSets: false, sleepSets: false };
const spawn = () => new Worker(new URL("./counter_worker.ts", import.meta.url), { type: "module" });

function shapes(engine: Engine, result: SearchResult) {
  return result.violations.map((violation) => {
    const { property, switches, steps, choices } = minimise(engine, violation);
    return { property: property.name, switches, steps, choices };
  });
}

for (const jobs of [1, 3]) {
  Deno.test(`${jobs} workers reach the same states as one thread, and the verdict is the same`, async () => {
    const spec: CounterSpec = { agents: 3, rounds: 3, wrong: -1 };
    const engine = new Engine(counters(spec));
    const single = search(engine, { reductions: PLAIN });
    const parallel = await parallelSearch(engine, { jobs, spec, spawn, reductions: PLAIN });
    assertEquals(parallel.states, single.states);
    assertEquals(parallel.transitions, single.transitions);
    assertEquals([parallel.exhausted, parallel.preemptions, parallel.violations], [true, Infinity, []]);
  });
}

Deno.test("With persistent sets one worker and three look at the same states, fewer than there are", async () => {
  const spec: CounterSpec = { agents: 3, rounds: 3, wrong: -1 };
  const engine = new Engine(counters(spec));
  const [one, three] = [
    await parallelSearch(engine, { jobs: 1, spec, spawn, firstPreemptions: [] }),
    await parallelSearch(engine, { jobs: 3, spec, spawn, firstPreemptions: [] }),
  ];
  assertEquals([one.states, one.transitions], [three.states, three.transitions]);
  assertEquals([three.exhausted, three.reductions.persistentSets], [true, true]);
  assert(one.states < search(engine, { reductions: PLAIN }).states);
});

Deno.test("Workers whose table is full go on with a larger one", () => {
  const spec: CounterSpec = { agents: 3, rounds: 3, wrong: -1 };
  const whole = search(new Engine(counters(spec)), { reductions: PLAIN, firstPreemptions: [] });
  const control = new Int32Array(new SharedArrayBuffer(CONTROL_BYTES));
  const request = { memoryModel: "sc", properties: [], until: "never", jobs: 1, worker: 0, learning: 0 } as const;
  const bounds = DEFAULT_BOUNDS;
  let table = SharedFingerprints.allocate(14);
  let tasks: readonly Task[] = [WHOLE];
  let states = 0;
  for (let bits = 15; tasks.length > 0; bits++) {
    control.fill(0);
    const shared = { spec, bounds, tasks, statesBefore: states, control: control.buffer, table };
    tasks = doShare(learnFor(counters(spec), { ...request, ...shared }), { ...request, ...shared }).rest;
    states += statesOf(control, 1);
    const larger = SharedFingerprints.allocate(bits);
    new SharedFingerprints(larger).addAll(new SharedFingerprints(table));
    table = larger;
  }
  assertEquals(states, whole.states);
});

Deno.test("Workers find the violation that one thread finds, and it is minimised to the same schedule", async () => {
  const spec: CounterSpec = { agents: 3, rounds: 2, wrong: 2 };
  const engine = new Engine(counters(spec));
  const single = shapes(engine, search(engine));
  const parallel = shapes(engine, await parallelSearch(engine, { jobs: 2, spec, spawn }));
  assertEquals(parallel, single);
  assertEquals(single.length, 1);
});

Deno.test("Workers keep to a bound on preemptions and to a bound on states", async () => {
  const spec: CounterSpec = { agents: 3, rounds: 2, wrong: -1 };
  const engine = new Engine(counters(spec));
  const single = search(engine, { bounds: { preemptions: 1 } });
  const bounded = await parallelSearch(engine, { jobs: 2, spec, spawn, bounds: { preemptions: 1 } });
  assertEquals([bounded.states, bounded.exhausted, bounded.preemptions], [single.states, true, 1]);
  const few = await parallelSearch(engine, { jobs: 2, spec, spawn, bounds: { states: 100 }, firstPreemptions: [] });
  assertEquals(few.exhausted, few.states <= 100);
});

Deno.test("A search with workers can be interrupted", async () => {
  const spec: CounterSpec = { agents: 6, rounds: 4, wrong: -1 };
  const engine = new Engine(counters(spec));
  const result = await parallelSearch(engine, { jobs: 2, spec, spawn, progress: () => true, firstPreemptions: [] });
  assertEquals([result.interrupted, result.exhausted], [true, false]);
});

Deno.test("A shared set of fingerprints keeps the lower of two notes", () => {
  const buffer = SharedFingerprints.allocate(8);
  const [a, b] = [new SharedFingerprints(buffer), new SharedFingerprints(buffer)];
  a.add(0, 0, 5);
  const place = b.add(0, 0, 7);
  assertEquals([b.known, b.notes(place), a.size, b.size], [true, 5, 1, 0]);
  b.note(place, 6);
  assertEquals(a.notes(a.find(0, 0)), 5);
  b.note(place, 2);
  assertEquals(a.notes(a.find(0, 0)), 2);
});

// --- Shards -------------------------------------------------------------------------------------------------------

/** The reports of all shards, as JSON documents. */
function shards(spec: CounterSpec, count: number, bounds: Partial<SearchBounds> = {}): unknown[] {
  return Array.from({ length: count }, (_, k) => {
    const engine = new Engine(counters(spec));
    const shard = { index: k + 1, count };
    const result = searchShard(engine, shard, { bounds, firstPreemptions: [] });
    const minimised = result.violations.map((violation) => minimise(engine, violation));
    const context = { seconds: 1, bounds: { ...DEFAULT_BOUNDS, ...bounds }, shard };
    return JSON.parse(JSON.stringify(reportOn(engine, result, minimised, context)));
  });
}

const names = (count: number) => Array.from({ length: count }, (_, k) => `shard${k + 1}.json`);

Deno.test("Shards together look at everything: the merged verdict is that of the whole search", () => {
  const holds = mergeReports(shards({ agents: 3, rounds: 2, wrong: -1 }, 3), names(3));
  const whole = search(new Engine(counters({ agents: 3, rounds: 2, wrong: -1 })), { reductions: PLAIN });
  assertEquals([holds.verdict, holds.bounds.preemptions, holds.shard], ["holds", null, undefined]);
  assert(holds.states >= whole.states);
});

for (const preemptions of [Infinity, 3]) {
  Deno.test(`Shards find what the whole search finds, with the same minimised schedule (preemptions ${preemptions})`, () => {
    for (const wrong of [2, 3, 4, 5]) {
      const spec: CounterSpec = { agents: 3, rounds: 2, wrong };
      const engine = new Engine(counters(spec));
      const whole = shapes(engine, search(engine, { bounds: { preemptions } }));
      const merged = mergeReports(shards(spec, 4, { preemptions }), names(4));
      assertEquals(
        merged.violations.map(({ property, switches, steps }) => ({ property, switches, steps })),
        whole.map(({ property, switches, steps }) => ({ property, switches, steps })),
      );
      const agents = merged.violations[0].schedule.choices.map(({ agent }) => agent);
      assertEquals(agents, whole[0].choices.map(({ actor }) => engine.actorNames[actor]));
    }
  });
}

Deno.test("Results that do not belong together are not merged", () => {
  const [a, b] = shards({ agents: 2, rounds: 1, wrong: -1 }, 2) as Report[];
  const cases: [unknown[], RegExp][] = [
    [[], /^No results to merge$/],
    [[a], /^Shard 2\/2 is missing$/],
    [[a, a], /^shard2\.json: shard 1\/2 is in shard1\.json already$/],
    [[a, { ...b, scenario: "x" }], /^shard2\.json: its scenario differs/],
    [[a, { ...b, policies: { p: "v" } }], /its choice of policies differs/],
    [[a, { ...b, memory_model: "tso" }], /its memory model differs/],
    [[a, { ...b, shard: undefined }], /field "shard"/],
    [[a, { ...b, violations: [{}] }], /field "violations\[0\]": a violation is expected/],
    [[a, "x"], /^shard2\.json: not the result of a shard/],
  ];
  for (const [reports, message] of cases) {
    assertMatch(assertThrows(() => mergeReports(reports, names(2)), BadInput).message, message);
  }
});
