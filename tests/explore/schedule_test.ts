import { assert, assertEquals, assertMatch, assertThrows } from "@std/assert";
import { Engine } from "../../lib/explore/engine.ts";
import { explore } from "../../lib/explore/explorer.ts";
import { minimise } from "../../lib/explore/minimise.ts";
import { PctScheduler } from "../../lib/explore/pct_scheduler.ts";
import { RandomScheduler } from "../../lib/explore/random_scheduler.ts";
import { AskingScheduler, choicesOf, ReplayScheduler } from "../../lib/explore/replay.ts";
import { parseSchedule, record, scheduleText } from "../../lib/explore/schedule.ts";
import { lowest, STOP } from "../../lib/explore/scheduler.ts";
import { search } from "../../lib/explore/search.ts";
import { BadInput } from "../../lib/memory/bad_input.ts";
import { Random } from "../../lib/memory/random.ts";
import { type Instruction, type Toy, toy } from "./toy.ts";

const ADD: Instruction[] = [{ op: "load", r: 0, x: 0 }, { op: "increment", r: 0 }, { op: "storeRegister", x: 0, r: 0 }];
const CHOOSE: Instruction[] = [{ op: "choose", r: 1, count: 3 }, { op: "storeRegister", x: 1, r: 1 }];

/** Two agents that add to a word, and an environment that chooses another; `extra` instructions make it another model. */
function system(extra: Instruction[] = []): Toy {
  return toy([ADD, ADD, [...CHOOSE, ...extra]], 2, (self) => [{
    name: "no-lost-update",
    sentence: "Both additions count when the environment chose 2.",
    when: "end",
    kind: "one addition is lost",
    holds: () => self.word(0) === 2 || self.word(1) !== 2,
  }]);
}

function recorded(engine: Engine) {
  const found = minimise(engine, search(engine).violations[0]);
  return record(engine, found.choices, { property: found.property.name, kind: found.kind });
}

Deno.test("A schedule's file replays to the same states and the same violation", () => {
  const schedule = parseSchedule(scheduleText(recorded(new Engine(system()))), "a.json");
  assertEquals([schedule.version, schedule.scenario, schedule.property], [1, "toy", "no-lost-update"]);
  const scheduler = new ReplayScheduler(schedule);
  const engine = new Engine(system());
  const replayed = explore(engine, scheduler);
  assertEquals(scheduler.divergence, undefined);
  assertEquals(replayed.violations.map(({ property }) => property.name), ["no-lost-update"]);
  assertEquals(engine.path(), choicesOf(engine, schedule));
});

Deno.test("The text of a schedule has one line for each choice", () => {
  const schedule = recorded(new Engine(system()));
  const lines = scheduleText(schedule).split("\n").filter((line) => line.includes('"agent"'));
  assertEquals(lines.length, schedule.choices.length);
  assertMatch(lines[0], /^ {4}\{"agent":"t\d","step":"toy\.instruction-0",("outcome":\d,)?"state":"[0-9a-f]{16}"\},$/);
});

Deno.test("A replay says where the model takes another way than the recording", () => {
  const schedule = recorded(new Engine(system()));
  const scheduler = new ReplayScheduler(schedule);
  const changed = toy([ADD, [...ADD.slice(0, 1), { op: "fence" }], [...CHOOSE]], 2);
  explore(new Engine(changed), scheduler);
  const { at, reason } = scheduler.divergence!;
  assert(at > 0 && at < schedule.choices.length);
  assertMatch(reason, /'t1'|the state behind/);
});

Deno.test("A replay goes on behind a prefix as another scheduler decides", () => {
  const engine = new Engine(system());
  const schedule = recorded(engine);
  const random = new RandomScheduler(Random.seeded(3), { schedules: 1, depth: 1000 });
  const scheduler = new ReplayScheduler(schedule, 2, random);
  explore(engine, scheduler);
  assertEquals(scheduler.divergence, undefined);
  assertEquals(engine.path().slice(0, 2), choicesOf(engine, schedule).slice(0, 2));
  assertEquals(engine.enabled(), 0);
});

Deno.test("A search can begin where a prefix of a schedule ends", () => {
  const engine = new Engine(system());
  const whole = search(engine, { until: "never" }).states;
  const schedule = recorded(engine);
  explore(engine, new ReplayScheduler(schedule, 3));
  engine.rebase();
  const rest = search(engine, { until: "never" });
  assert(rest.states < whole);
  assertEquals(rest.violations.length, 1);
});

Deno.test("Interactive stepping asks for every step", () => {
  const engine = new Engine(system());
  const asked: number[] = [];
  const scheduler = new AskingScheduler((_, enabled) => asked.push(enabled) > 4 ? STOP : lowest(enabled), () => 2);
  explore(engine, scheduler);
  assertEquals(engine.path().map(({ actor }) => actor), [0, 0, 0, 1]);
  assertEquals(asked.length, 5);
});

for (
  const [name, make] of [
    ["Random", (seed: number) => new RandomScheduler(Random.seeded(seed), { schedules: 200, depth: 100 })],
    ["PCT", (seed: number) => new PctScheduler(Random.seeded(seed), { schedules: 200, depth: 100 })],
  ] as const
) {
  Deno.test(`${name} schedules find the lost update, and the same seed gives the same schedules`, () => {
    const [a, b, c] = [5, 5, 6].map((seed) => explore(new Engine(system()), make(seed)));
    assertEquals(a.violations.length, 1);
    assertEquals([a.transitions, a.violations[0].choices], [b.transitions, b.violations[0].choices]);
    assert(a.transitions !== c.transitions || a.violations[0].choices !== c.violations[0].choices);
  });
}

Deno.test("Schedules that cannot be used are refused in one line", () => {
  const text = scheduleText(recorded(new Engine(system())));
  const value = JSON.parse(text);
  const cases: [string, RegExp][] = [
    [text.slice(0, text.length / 2), /^a\.json: not a whole JSON document/],
    ["", /^a\.json: not a whole JSON document/],
    ["[]", /^a\.json: not a schedule/],
    ["{}", /field "version": the number 1 is expected/],
    [JSON.stringify({ ...value, version: 2 }), /schedule version 2; this release reads version 1/],
    [JSON.stringify({ ...value, choices: value.choices.slice(0, -1) }), /the schedule was cut or edited/],
    [JSON.stringify({ ...value, policies: { a: "b" } }), /the schedule was cut or edited/],
    [JSON.stringify({ ...value, kind: 3 }), /field "kind": text is expected/],
    [JSON.stringify({ ...value, choices: [{}] }), /field "choices\[0\]\.agent": text is expected/],
    [JSON.stringify({ ...value, more: 1 }), /field "more" is not one of a schedule/],
    [JSON.stringify({ ...value, memory_model: "arm" }), /field "memory_model": "sc" or "tso" is expected/],
    [JSON.stringify({ ...value, digest: undefined }), /field "digest": 16 hexadecimal digits is expected/],
  ];
  for (const [broken, message] of cases) {
    const error = assertThrows(() => parseSchedule(broken, "a.json"), BadInput);
    assertMatch(error.message, message);
    assert(!error.message.includes("\n"));
  }
});

Deno.test("A schedule of another scenario, policy or memory model is refused", () => {
  const schedule = recorded(new Engine(system()));
  const engine = new Engine({ ...system(), name: "other" });
  assertThrows(() => choicesOf(engine, schedule), BadInput, 'of scenario "toy", not of "other"');
  assertThrows(() => choicesOf(new Engine(system(), "tso"), schedule), BadInput, "memory model sc, not of tso");
  const policy = { ...schedule, policies: { "a.b": "c" } };
  assertThrows(() => choicesOf(new Engine(system()), policy), BadInput, 'policy "a.b" = "c"');
});
