import { assert, assertEquals } from "@std/assert";
import { Engine } from "../../lib/explore/engine.ts";
import { ALL_REDUCTIONS, DEFAULT_BOUNDS, type Reductions } from "../../lib/explore/exhaustive.ts";
import { mergeReports, reportOn } from "../../lib/explore/report.ts";
import { search } from "../../lib/explore/search.ts";
import { searchShard } from "../../lib/explore/shard.ts";
import type { Property } from "../../lib/explore/system.ts";
import { step } from "../../lib/memory/steps.ts";
import { buildSystem } from "../../lib/scenarios/scenario.ts";
import { sidecarCompletion } from "../../lib/scenarios/sidecar_completion.ts";
import { type Instruction, STEPS, toy, type ToyAgent } from "./toy.ts";

const NONE: Reductions = { ...ALL_REDUCTIONS, persistentSets: false, sleepSets: false };
const PERSISTENT: Reductions = { ...ALL_REDUCTIONS, sleepSets: false };

const NO_LIVELOCK: Property = {
  name: "no-livelock",
  sentence: "The system comes to its end.",
  when: "cycle",
  kind: "the same steps repeat for ever",
  holds: () => true,
};

Deno.test("Of the repaired driver's 61,300 states with two processors fewer than a fifth are looked at, and it holds", () => {
  const system = buildSystem(sidecarCompletion, {}, { vps: "2", rounds: "1" });
  const properties = system.properties.filter(({ when }) => when !== "cycle");
  const result = search(new Engine(system), { properties, firstPreemptions: [] });
  assertEquals([result.violations, result.exhausted], [[], true]);
  assert(result.states < 61_300 / 5, `${result.states}`);
});

/** Loads word 0 and keeps only whether it is more than 4. */
const LOOK = step<ToyAgent>("toy.look", (agent) => {
  agent.locals32[0] = agent.port.load32(agent.words) > 4 ? 1 : 0;
  return STEPS[1];
});

Deno.test("A load that leads to the same whichever of two values it finds does not depend on the store between them", () => {
  const states = (last: number, reductions: Reductions) => {
    const system = toy([[1, 2, last].map((value) => ({ op: "store", x: 0, value })), [{ op: "fence" }, {
      op: "fence",
    }]], 1);
    system.toys[1].step = LOOK;
    return search(new Engine(system), { reductions, properties: [], firstPreemptions: [] }).states;
  };
  assertEquals([states(3, NONE), states(3, PERSISTENT)], [12, 6]); // 4 x 3 states; one path of five steps
  // Two more where the load comes behind the last store; two stores, and then the load before the third or behind it.
  assertEquals([states(5, NONE), states(5, PERSISTENT)], [14, 9]);
});

Deno.test("A condition that is false with both values does not depend on the store between them", () => {
  // Each agent waits for a value that the other's first two stores do not bring.
  const program = (own: number, other: number): Instruction[] => [
    { op: "store", x: own, value: 1 },
    { op: "store", x: own, value: 2 },
    { op: "store", x: own, value: 5 },
    { op: "wait", x: other, value: 5 },
  ];
  const states = (reductions: Reductions) => {
    const system = toy([program(0, 1), program(1, 0)], 2);
    return search(new Engine(system), { reductions, properties: [], firstPreemptions: [] }).states;
  };
  assertEquals([states(NONE), states(PERSISTENT)], [19, 9]); // 5 x 5 without the six of one who cannot be so far; one path
});

Deno.test("What a handler keeps waiting may come before it: the handler comes to its end in any case", () => {
  // t1 takes word 0 and gives it back; t0 goes on only while it is free. Their other words have nothing to do with it.
  const free: Instruction = { op: "wait", x: 0, value: 0 };
  const t0: Instruction[] = [free, free, free, { op: "store", x: 1, value: 1 }];
  const t1: Instruction[] = [{ op: "swap", r: 0, x: 0, value: 1 }, { op: "store", x: 2, value: 1 }, {
    op: "swap",
    r: 0,
    x: 0,
    value: 0,
  }];
  const ends = (reductions: Reductions) => {
    const engine = new Engine(toy([t0, t1], 3));
    return search(engine, { reductions, properties: [], firstPreemptions: [] });
  };
  assert(ends(PERSISTENT).states < ends(NONE).states / 1.5);
});

Deno.test("An end that comes only where the environment does nothing is found although its step is independent", () => {
  const property: Property = { name: "y", sentence: "", when: "end", kind: "", holds: () => false };
  for (const reductions of [NONE, PERSISTENT, ALL_REDUCTIONS]) {
    const system = toy([[{ op: "store", x: 1, value: 1 }], [{ op: "store", x: 0, value: 1 }]], 2);
    const holds = () => system.word(1) === 1;
    const agents = system.agents.map((agent, k) => ({ ...agent, environment: k === 0 }));
    const engine = new Engine({ ...system, agents, properties: [{ ...property, holds }] });
    assertEquals(search(engine, { reductions, firstPreemptions: [] }).violations.length, 1, JSON.stringify(reductions));
  }
});

/** Loads word 0 past the port of its agent. */
const PEEK = step<ToyAgent>("toy.peek", (agent) => {
  agent.locals32[0] = agent.memory.i32[agent.words / 4];
  return STEPS[1];
});

Deno.test("A step that reads past its port is noticed, and then nothing is left out", () => {
  const make = () => {
    const system = toy([[{ op: "store", x: 0, value: 1 }, { op: "store", x: 0, value: 2 }], [
      { op: "load", r: 0, x: 0 },
      { op: "storeRegister", x: 1, r: 0 },
    ]], 2);
    system.toys[1].step = PEEK;
    return system;
  };
  const [all, some] = [NONE, PERSISTENT].map((reductions) => {
    return search(new Engine(make()), { reductions, properties: [], firstPreemptions: [] });
  });
  assertEquals([some.states, some.reductions], [all.states, NONE]);
});

Deno.test("Parts of a conjunction are told apart: steps that touch different ones may be reordered", () => {
  const states = (parts: boolean) => {
    const programs = [0, 1].map((x): Instruction[] => [1, 2, 3].map((value) => ({ op: "store", x, value })));
    const system = toy(programs, 2, ({ shared, word }) => {
      const watches = [{ at: shared, bytes: 4 }, { at: shared + 4, bytes: 4 }];
      const property: Property = {
        name: "p",
        sentence: "",
        when: "always",
        kind: "",
        holds: () => word(0) !== 9 && word(1) !== 9,
      };
      return [
        parts ? { ...property, parts: watches.map((range) => ({ watches: [range] })) } : { ...property, watches },
      ];
    });
    return search(new Engine(system), { reductions: PERSISTENT, firstPreemptions: [] }).states;
  };
  assertEquals([states(true), states(false)], [7, 16]);
});

Deno.test("Where no agent goes round, nothing is searched for cycles", () => {
  const programs = [0, 1, 2].map((x): Instruction[] => [1, 2, 3].map((value) => ({ op: "store", x, value })));
  const engine = new Engine(toy(programs, 3, () => [NO_LIVELOCK]));
  const result = search(engine, { firstPreemptions: [] });
  assertEquals([result.exhausted, result.states], [true, 10]);
  const learned = engine.transitions;
  assertEquals(search(engine, { firstPreemptions: [], properties: [] }).exhausted, true);
  assertEquals(engine.transitions - learned, learned); // as many steps as without the property
});

Deno.test("The driver's reader goes round only when somebody else does: no-livelock needs no search of its own", () => {
  const steps = (without: readonly string[]) => {
    const system = buildSystem(sidecarCompletion, {}, { vps: "1", rounds: "1" });
    const engine = new Engine(system);
    const properties = system.properties.filter(({ name }) => !without.includes(name));
    const result = search(engine, { properties, firstPreemptions: [] });
    assertEquals([result.violations, result.exhausted], [[], true]);
    return engine.transitions;
  };
  assertEquals(steps([]), steps(["no-livelock"]));
});

/** The verdict of two shards on a system of which only no-livelock is asked. */
function shardsOn(programs: readonly Instruction[][]) {
  const reports = [1, 2].map((index) => {
    const engine = new Engine(toy(programs, 2, () => [NO_LIVELOCK]));
    const shard = { index, count: 2 };
    const result = searchShard(engine, shard);
    const minimised = result.violations.map((found) => ({ ...found, switches: 0, steps: 0, exact: true }));
    const context = { seconds: 1, bounds: DEFAULT_BOUNDS, shard };
    return JSON.parse(JSON.stringify(reportOn(engine, result, minimised, context)));
  });
  return mergeReports(reports, ["a", "b"]).verdict;
}

Deno.test("Shards decide on no-livelock, too", () => {
  const spin: Instruction[] = [{ op: "load", r: 0, x: 0 }, { op: "jumpUnless", r: 0, value: 1, to: 0 }];
  assertEquals(shardsOn([spin, [{ op: "store", x: 0, value: 2 }]]), "violated");
  assertEquals(shardsOn([spin, [{ op: "store", x: 0, value: 1 }]]), "holds");
});
