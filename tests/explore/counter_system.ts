/** A system for tests of parallel searches, which every worker builds for itself. */
import { type Instruction, type Toy, toy } from "./toy.ts";

/** How many agents, and how often each adds one to a word without a lock. */
export interface CounterSpec {
  readonly agents: number;
  readonly rounds: number;
  /** The value that the word may not have at the end. */
  readonly wrong: number;
}

/** Agents that add to a shared word, each load and store a step of its own. */
export function counters({ agents, rounds, wrong }: CounterSpec): Toy {
  const add: Instruction[] = [
    { op: "load", r: 0, x: 0 },
    { op: "increment", r: 0 },
    { op: "storeRegister", x: 0, r: 0 },
  ];
  const program = Array.from({ length: rounds }, () => add).flat();
  return toy(Array.from({ length: agents }, () => program), 1, (system) => [{
    name: "not-wrong",
    sentence: `The word does not end with ${wrong}.`,
    when: "end",
    kind: "additions are lost",
    holds: () => system.word(0) !== wrong,
  }]);
}
