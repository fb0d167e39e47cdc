import { assert, assertEquals } from "@std/assert";
import { Engine } from "../../lib/explore/engine.ts";
import { ALL_REDUCTIONS, type Reductions } from "../../lib/explore/exhaustive.ts";
import { search } from "../../lib/explore/search.ts";
import type { MemoryModel, Property } from "../../lib/explore/system.ts";
import { Random } from "../../lib/memory/random.ts";
import { finalValues, type Instruction, plainSearch, randomProgram, type Toy, toy } from "./toy.ts";

const NONE: Reductions = { fingerprints: true, persistentSets: false, sleepSets: false };
const VARIANTS: readonly Reductions[] = [
  { ...NONE, persistentSets: true },
  { ...NONE, sleepSets: true },
  ALL_REDUCTIONS,
];

/** What a search finds of a system: violated properties, and the values in states in which nobody can go on. */
function findings(system: Toy, model: MemoryModel, reductions: Reductions) {
  const engine = new Engine(system, model);
  const ends = new Set<string>();
  const watch: Property = {
    name: "ends",
    sentence: "",
    when: "end",
    kind: "",
    holds: () => ends.add(finalValues(system)) !== undefined,
  };
  const properties = [...system.properties, watch];
  const result = search(engine, { reductions, properties, until: "never", firstPreemptions: [] });
  assert(result.exhausted);
  return { result, ends, violated: result.violations.map(({ property }) => property.name).sort() };
}

/** A random system with three random predicates over its words. */
function randomSystem(seed: number, agentsMax = 4): () => Toy {
  const random = Random.seeded(seed);
  const words = 2 + random.below(3);
  const programs = Array.from({ length: 2 + random.below(agentsMax - 1) }, () => randomProgram(random, words));
  const wrong = [0, 1, 2].map(() => [random.below(words), random.below(4), random.below(words), random.below(4)]);
  return () =>
    toy(programs, words, ({ word, shared }) =>
      wrong.map(([a, valueA, b, valueB], number): Property => ({
        name: `p${number}`,
        sentence: "",
        when: "always",
        kind: "",
        holds: () => word(a) !== valueA || word(b) !== valueB,
        watches: [{ at: shared + a * 4, bytes: 4 }, { at: shared + b * 4, bytes: 4 }],
      })));
}

Deno.test("Exhaustive search reaches exactly the states that a plain search over copies of the memory reaches", () => {
  for (let seed = 1; seed <= 60; seed++) {
    const make = randomSystem(seed);
    const plain = plainSearch(make());
    const { result, ends } = findings(make(), "sc", NONE);
    assertEquals(result.states, plain.states, `seed ${seed}`);
    assertEquals(ends, plain.ends, `seed ${seed}`);
  }
});

for (const [model, seeds, agentsMax] of [["sc", 60, 4], ["tso", 40, 3]] as const) {
  Deno.test(`Each reduction finds the same violations and ends as none, under ${model}`, () => {
    let full = 0;
    let reduced = 0;
    for (let seed = 1; seed <= seeds; seed++) {
      const make = randomSystem(seed, agentsMax);
      const without = findings(make(), model, NONE);
      for (const reductions of VARIANTS) {
        const found = findings(make(), model, reductions);
        assertEquals(found.violated, without.violated, `seed ${seed}`);
        assertEquals(found.ends, without.ends, `seed ${seed}`);
        if (reductions !== ALL_REDUCTIONS) continue;
        full += without.result.transitions;
        reduced += found.result.transitions;
      }
    }
    assert(reduced < full);
  });
}

Deno.test("Without fingerprints every schedule is run, and the same is found", () => {
  const programs: Instruction[][] = [[{ op: "store", x: 0, value: 1 }, { op: "load", r: 0, x: 1 }], [
    { op: "store", x: 1, value: 1 },
    { op: "load", r: 0, x: 0 },
  ]];
  const all = findings(toy(programs, 2), "sc", { fingerprints: false, persistentSets: false, sleepSets: false });
  assertEquals(all.result.schedules, 6); // 4! / (2! 2!)
  assertEquals(all.ends, findings(toy(programs, 2), "sc", ALL_REDUCTIONS).ends);
});

Deno.test("Independent agents take one order of their steps under partial-order reduction", () => {
  const programs = [0, 1, 2, 3].map((x): Instruction[] => [{ op: "store", x, value: 1 }, { op: "store", x, value: 2 }]);
  const { result } = findings(toy(programs, 4), "sc", ALL_REDUCTIONS);
  assertEquals(result.states, 9); // one path of eight steps
  assertEquals(findings(toy(programs, 4), "sc", NONE).result.states, 81); // 3^4
});

Deno.test("A step of the environment is tried with each of its outcomes", () => {
  const system = toy([[{ op: "choose", r: 0, count: 5 }, { op: "storeRegister", x: 0, r: 0 }]], 1);
  const { ends } = findings(system, "sc", ALL_REDUCTIONS);
  assertEquals(ends.size, 5);
});

// --- Memory models (Sewell, Sarkar, Owens, Zappa Nardelli, Myreen: "x86-TSO", CACM 2010) --------------------------

/** Pairs of final values of register 0 of the two agents. */
function outcomes(programs: readonly Instruction[][], model: MemoryModel, reductions = ALL_REDUCTIONS): string[] {
  const system = toy(programs, 2);
  const engine = new Engine(system, model);
  const found = new Set<string>();
  const holds = () => found.add(system.toys.map(({ locals32 }) => locals32[0]).join(",")) !== undefined;
  const watch: Property = { name: "ends", sentence: "", when: "end", kind: "", holds };
  assert(search(engine, { properties: [watch], reductions, until: "never", firstPreemptions: [] }).exhausted);
  return [...found].sort();
}

const STORE_X: Instruction = { op: "store", x: 0, value: 1 };
const STORE_Y: Instruction = { op: "store", x: 1, value: 1 };
const LOAD_X: Instruction = { op: "load", r: 0, x: 0 };
const LOAD_Y: Instruction = { op: "load", r: 0, x: 1 };

Deno.test("SB: both loads see 0 under x86-TSO and not under sequential consistency", () => {
  const programs = [[STORE_X, LOAD_Y], [STORE_Y, LOAD_X]];
  assertEquals(outcomes(programs, "sc"), ["0,1", "1,0", "1,1"]);
  assertEquals(outcomes(programs, "tso"), ["0,0", "0,1", "1,0", "1,1"]);
  assertEquals(outcomes(programs, "tso", NONE), ["0,0", "0,1", "1,0", "1,1"]);
});

Deno.test("SB with fences, or with locked exchanges, is as under sequential consistency", () => {
  const fenced: Instruction[][] = [[STORE_X, { op: "fence" }, LOAD_Y], [STORE_Y, { op: "fence" }, LOAD_X]];
  assertEquals(outcomes(fenced, "tso"), ["0,1", "1,0", "1,1"]);
  const locked: Instruction[][] = [
    [{ op: "swap", r: 1, x: 0, value: 1 }, LOAD_Y],
    [{ op: "swap", r: 1, x: 1, value: 1 }, LOAD_X],
  ];
  assertEquals(outcomes(locked, "tso"), ["0,1", "1,0", "1,1"]);
});

Deno.test("MP: stores become visible in program order, so that flag without data is never seen", () => {
  const programs: Instruction[][] = [[STORE_X, STORE_Y], [
    { op: "wait", x: 1, value: 1 },
    LOAD_X,
  ]];
  assertEquals(outcomes(programs, "tso"), ["0,1"]);
});

Deno.test("A processor sees its own store before others do", () => {
  // n5 and n4b of the x86-TSO paper in one: own stores are forwarded.
  const programs: Instruction[][] = [[STORE_X, LOAD_X], [{ op: "store", x: 0, value: 2 }, LOAD_X]];
  for (const outcome of outcomes(programs, "tso")) {
    assert(!outcome.startsWith("0,") && !outcome.endsWith(",0"), outcome);
  }
});

Deno.test("Agents of one processor share its store buffer", () => {
  const system = toy([[STORE_X, LOAD_Y], [STORE_Y, LOAD_X]], 2);
  const agents = system.agents.map((agent) => ({ ...agent, processor: 0 }));
  const engine = new Engine({ ...system, agents }, "tso");
  assertEquals(engine.actorNames, ["t0", "t1", "t0.store-buffer"]);
  const found = new Set<string>();
  const holds = () => found.add(system.toys.map(({ locals32 }) => locals32[0]).join(",")) !== undefined;
  search(engine, { properties: [{ name: "e", sentence: "", when: "end", kind: "", holds }], until: "never" });
  assertEquals([...found].sort(), ["0,1", "1,0", "1,1"]);
});

// --- Bounds -------------------------------------------------------------------------------------------------------

/** t1 must come between two steps of t0, and t0 between two of t1. */
function twoSwitches(): Toy {
  const programs: Instruction[][] = [
    [STORE_X, { op: "load", r: 0, x: 1 }, { op: "store", x: 1, value: 3 }],
    [{ op: "load", r: 0, x: 0 }, { op: "store", x: 1, value: 2 }, { op: "load", r: 1, x: 1 }],
  ];
  return toy(programs, 2, ({ toys, shared }) => [{
    name: "never",
    sentence: "t0 does not see 2 while t1 saw 1 and then sees 3.",
    when: "always",
    kind: "it does",
    holds: () => !(toys[0].locals32[0] === 2 && toys[1].locals32[0] === 1 && toys[1].locals32[1] === 3),
    watches: [{ at: 0, bytes: shared }],
  }]);
}

Deno.test("A violation that needs two preemptions is not found with one", () => {
  const one = search(new Engine(twoSwitches()), { bounds: { preemptions: 1 } });
  assertEquals([one.violations.length, one.exhausted, one.preemptions], [0, true, 1]);
  const two = search(new Engine(twoSwitches()), { bounds: { preemptions: 2 } });
  assertEquals([two.violations.length, two.preemptions], [1, 2]);
});

Deno.test("A bound on preemptions that leaves nothing out counts as none", () => {
  const result = search(new Engine(toy([[STORE_X], [STORE_Y]], 2)), { bounds: { preemptions: 5 } });
  assertEquals([result.exhausted, result.preemptions], [true, Infinity]);
});

Deno.test("Bounds on states and steps are reported when they are hit, and then nothing is said to hold", () => {
  const states = search(new Engine(twoSwitches()), { bounds: { states: 5 }, firstPreemptions: [] });
  assertEquals([states.exhausted, [...states.hit]], [false, ["states"]]);
  const steps = search(new Engine(twoSwitches()), { bounds: { depth: 3 }, firstPreemptions: [] });
  assertEquals([steps.exhausted, [...steps.hit]], [false, ["depth"]]);
});

Deno.test("Two searches of the same system are the same, step by step", () => {
  const make = randomSystem(17);
  const [a, b] = [make(), make()].map((system) => {
    const { result } = findings(system, "tso", ALL_REDUCTIONS);
    return { ...result, violations: result.violations.map(({ choices }) => choices) };
  });
  assertEquals(a, b);
});

Deno.test("A step that writes what was not declared to change is a defect of the system, and named", () => {
  const system = toy([[STORE_X]], 1);
  const engine = new Engine({ ...system, mutable: [{ at: 0, bytes: system.shared }] });
  let message = "";
  try {
    search(engine, { properties: [] });
  } catch (error) {
    message = error instanceof Error ? error.message : "";
  }
  assert(message.startsWith("Step 'toy.instruction-0' of 't0' failed: A step writes byte"), message);
});
