import { assert, assertEquals } from "@std/assert";
import { Engine } from "../../lib/explore/engine.ts";
import { minimise } from "../../lib/explore/minimise.ts";
import { record } from "../../lib/explore/schedule.ts";
import { search } from "../../lib/explore/search.ts";
import type { Property } from "../../lib/explore/system.ts";
import { type Instruction, toy } from "./toy.ts";

const NO_LIVELOCK: Property = {
  name: "no-livelock",
  sentence: "The system comes to its end.",
  when: "cycle",
  kind: "the same steps repeat for ever",
  holds: () => true,
};

/** Loads word `x` until it is `value`. */
const spin = (x: number, value: number): Instruction[] => [
  { op: "load", r: 0, x },
  { op: "jumpUnless", r: 0, value, to: 0 },
];

function livelocks(programs: readonly Instruction[][], environment = false) {
  const system = toy(programs, 2, () => [NO_LIVELOCK]);
  const last = system.agents.length - 1;
  const agents = system.agents.map((agent, k) => ({ ...agent, environment: environment && k === last }));
  const engine = new Engine({ ...system, agents });
  return { engine, result: search(engine) };
}

Deno.test("Waiting in a loop for an agent that can always go on is no livelock: that agent goes on some time", () => {
  const { result } = livelocks([spin(0, 1), [{ op: "store", x: 0, value: 1 }]]);
  assertEquals([result.violations.length, result.exhausted], [0, true]);
});

Deno.test("Waiting in a loop for what nobody does is a livelock", () => {
  const { engine, result } = livelocks([spin(0, 1), [{ op: "store", x: 0, value: 2 }]]);
  const [{ choices, cycleFrom, property }] = result.violations;
  assertEquals([property.name, choices.length - cycleFrom!], ["no-livelock", 2]);
  const schedule = record(engine, choices, { cycleFrom: cycleFrom! });
  assertEquals(schedule.choices.at(-1)!.state, schedule.choices[cycleFrom! - 1]?.state ?? schedule.start);
});

Deno.test("Waiting in a loop for the environment is a livelock: it need not do anything", () => {
  const { result } = livelocks([spin(0, 1), [{ op: "store", x: 0, value: 1 }]], true);
  assertEquals(result.violations.length, 1);
});

Deno.test("Two agents that give way to each other can do so for ever, each taking steps", () => {
  const polite = (own: number, other: number): Instruction[] => [
    { op: "store", x: own, value: 1 },
    { op: "load", r: 0, x: other },
    { op: "jumpUnless", r: 0, value: 1, to: 5 },
    { op: "store", x: own, value: 0 },
    { op: "jump", to: 0 },
    { op: "store", x: own, value: 0 }, // done, and out of the way
  ];
  const { result } = livelocks([polite(0, 1), polite(1, 0)]);
  const [{ choices, cycleFrom }] = result.violations;
  const round = choices.slice(cycleFrom!);
  assert([0, 1].every((actor) => round.some((choice) => choice.actor === actor)));
});

Deno.test("A loop that a waiting agent cannot leave counts only where the others are blocked or take part", () => {
  const { result } = livelocks([spin(0, 1), [{ op: "wait", x: 1, value: 1 }, { op: "store", x: 0, value: 1 }]]);
  assertEquals(result.violations.length, 1); // t1 waits for a word that nobody sets
});

Deno.test("The round that repeats has the fewest context switches, then the fewest steps, among those that are fair", () => {
  // Both always could go on, so that both must come round: one after the other, with one switch between them.
  const { engine, result } = livelocks([spin(0, 1), spin(1, 1)]);
  const { choices, switches, steps, cycleFrom } = minimise(engine, result.violations[0]);
  assertEquals([switches, steps, cycleFrom], [1, 4, 0]);
  assertEquals(choices.map(({ actor }) => actor), [0, 0, 1, 1]);
});
