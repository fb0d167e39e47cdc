import { assert, assertEquals } from "@std/assert";
import type { Choice } from "../../lib/explore/engine.ts";
import { Engine } from "../../lib/explore/engine.ts";
import { preemption } from "../../lib/explore/exhaustive.ts";
import { explore } from "../../lib/explore/explorer.ts";
import { minimise } from "../../lib/explore/minimise.ts";
import { RandomScheduler } from "../../lib/explore/random_scheduler.ts";
import { lowest } from "../../lib/explore/scheduler.ts";
import { search } from "../../lib/explore/search.ts";
import { type Cost, isViolated } from "../../lib/explore/shortest.ts";
import type { Property } from "../../lib/explore/system.ts";
import { Random } from "../../lib/memory/random.ts";
import { type Instruction, randomProgram, type Toy, toy } from "./toy.ts";

/** Two agents that add one to a word without a lock. */
const UNLOCKED: Instruction[] = [{ op: "load", r: 0, x: 0 }, { op: "increment", r: 0 }, {
  op: "storeRegister",
  x: 0,
  r: 0,
}];

function lostUpdate(): Toy {
  return toy([UNLOCKED, UNLOCKED], 1, (system) => [{
    name: "no-lost-update",
    sentence: "Both additions count.",
    when: "end",
    kind: "one addition is lost",
    holds: () => system.word(0) === 2,
  }]);
}

Deno.test("A lost update needs one context switch and six steps, whatever schedule found it", () => {
  const engine = new Engine(lostUpdate());
  for (let seed = 1; seed <= 20; seed++) {
    const drawn = explore(engine, new RandomScheduler(Random.seeded(seed), { schedules: 50, depth: 100 }));
    const { switches, steps, exact, choices } = minimise(engine, drawn.violations[0]);
    assertEquals([switches, steps, exact], [1, 6, true]);
    assertEquals(choices.map(({ actor }) => actor), [0, 0, 1, 1, 1, 0]); // t0 goes on as far as it can
  }
});

Deno.test("Where the exact search gives up, steps are left out and moved until nothing improves", () => {
  const engine = new Engine(lostUpdate());
  for (let seed = 1; seed <= 20; seed++) {
    const drawn = explore(engine, new RandomScheduler(Random.seeded(seed), { schedules: 50, depth: 100 }));
    const { switches, steps, exact } = minimise(engine, drawn.violations[0], { states: 0 });
    assertEquals([switches, steps, exact], [1, 6, false]);
  }
});

/** The lowest cost of all schedules of at most `left` further steps that violate a property, by trying them all. */
function lowestCost(engine: Engine, property: Property, left: number): Cost | undefined {
  let best: Cost | undefined;
  const visit = (choices: readonly Choice[], switches: number) => {
    if (isViolated(engine, property)) {
      const steps = choices.length;
      if (best === undefined || switches < best.switches || (switches === best.switches && steps < best.steps)) {
        best = { switches, steps };
      }
      return;
    }
    if (choices.length === left) return;
    const enabled = engine.enabled();
    const { depth, mark, hashLow, hashHigh } = engine;
    for (let rest = enabled; rest !== 0; rest &= rest - 1) {
      const actor = lowest(rest);
      const price = switches + preemption(choices.at(-1)?.actor ?? -1, actor, enabled);
      for (let outcome = 0, outcomes = 1; outcome < outcomes; outcome++) {
        engine.chooser = { nextChoice: () => outcome };
        engine.execute(actor);
        outcomes = engine.outcomes;
        visit([...choices, { actor, outcome }], price);
        engine.undo(depth, mark, hashLow, hashHigh);
      }
    }
  };
  engine.restore();
  visit([], 0);
  return best;
}

Deno.test("The minimised schedule has the lowest cost of all schedules", () => {
  let compared = 0;
  for (let seed = 1; seed <= 300; seed++) {
    const random = Random.seeded(seed);
    const programs = [0, 1].map(() => randomProgram(random, 2).slice(0, 4));
    if (programs.flat().some((instruction) => instruction.op === "jumpUnless")) continue; // so that schedules are short
    const [a, b] = [random.below(4), random.below(4)];
    const system = toy(programs, 2, ({ word, shared }) => [{
      name: "p",
      sentence: "",
      when: "always",
      kind: "",
      holds: () => word(0) !== a || word(1) !== b,
      watches: [{ at: shared, bytes: 8 }],
    }]);
    const engine = new Engine(system, seed % 2 === 0 ? "sc" : "tso");
    const { violations } = search(engine, { firstPreemptions: [] });
    if (violations.length === 0) continue;
    const { switches, steps } = minimise(engine, violations[0]);
    assertEquals({ switches, steps }, lowestCost(engine, violations[0].property, 12), `seed ${seed}`);
    compared++;
  }
  assert(compared > 20);
});
