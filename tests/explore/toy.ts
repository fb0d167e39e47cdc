/**
 * Small concurrent programs as agents, for tests of the explorer: each instruction is one step on shared words.
 */
import type { Engine } from "../../lib/explore/engine.ts";
import type { Property, System } from "../../lib/explore/system.ts";
import { Agent, AgentBlock } from "../../lib/memory/agent.ts";
import { MachineMemory } from "../../lib/memory/machine_memory.ts";
import { DirectPort } from "../../lib/memory/port.ts";
import { HALTED, step, type StepId } from "../../lib/memory/steps.ts";

/** One instruction. `x` is a shared word's number, `r` one of the agent's eight registers. */
export type Instruction =
  | { op: "load"; r: number; x: number }
  | { op: "store"; x: number; value: number }
  | { op: "storeRegister"; x: number; r: number }
  | { op: "increment"; r: number }
  | { op: "add"; x: number; value: number }
  | { op: "swap"; r: number; x: number; value: number }
  | { op: "fence" }
  /** Waits until the word has the value. */
  | { op: "wait"; x: number; value: number }
  | { op: "jumpUnless"; r: number; value: number; to: number }
  | { op: "jump"; to: number }
  | { op: "choose"; r: number; count: number };

const PROGRAM_MAX = 16;

/** An agent that executes a program. */
export class ToyAgent extends Agent {
  readonly program: readonly Instruction[];
  readonly words: number;

  constructor(name: string, memory: MachineMemory, block: number, words: number, program: readonly Instruction[]) {
    super(name, memory, block, new DirectPort(memory));
    this.program = program;
    this.words = words;
  }
}

function run(agent: ToyAgent, pc: number): StepId {
  const instruction = agent.program[pc];
  const { port, locals32, words } = agent;
  let next = pc + 1;
  switch (instruction.op) {
    case "load":
      locals32[instruction.r] = port.load32(words + instruction.x * 4);
      break;
    case "store":
      port.store32(words + instruction.x * 4, instruction.value);
      break;
    case "storeRegister":
      port.store32(words + instruction.x * 4, locals32[instruction.r]);
      break;
    case "increment":
      locals32[instruction.r]++;
      break;
    case "add":
      port.add32(words + instruction.x * 4, instruction.value);
      break;
    case "swap":
      locals32[instruction.r] = port.exchange32(words + instruction.x * 4, instruction.value);
      break;
    case "fence":
      port.fence();
      break;
    case "wait":
      break;
    case "jumpUnless":
      if (locals32[instruction.r] !== instruction.value) next = instruction.to;
      break;
    case "jump":
      next = instruction.to;
      break;
    case "choose":
      locals32[instruction.r] = port.choose(instruction.count);
  }
  return at(agent, next);
}

function at(agent: ToyAgent, pc: number): StepId {
  return pc < agent.program.length ? STEPS[pc] : HALTED;
}

/** Whether the agent's present instruction may run. */
function ready(agent: ToyAgent, pc: number): boolean {
  const instruction = agent.program[pc];
  return instruction.op !== "wait" || agent.port.load32(agent.words + instruction.x * 4) === instruction.value;
}

/** The step of the instruction at each place of a program. */
export const STEPS: readonly StepId[] = Array.from(
  { length: PROGRAM_MAX },
  (_, pc) => step<ToyAgent>(`toy.instruction-${pc}`, (agent) => run(agent, pc), (agent) => ready(agent, pc)),
);

/** A system of programs over `words` shared words, all zero at first. */
export interface Toy extends System {
  readonly toys: readonly ToyAgent[];
  /** Byte offset of the shared words. */
  readonly shared: number;
  /** Value of a shared word. */
  word(x: number): number;
}

/** Builds a system; `properties` gets it to build predicates. */
export function toy(
  programs: readonly (readonly Instruction[])[],
  words: number,
  properties: (toy: Toy) => readonly Property[] = () => [],
): Toy {
  const shared = programs.length * AgentBlock.size;
  const memory = MachineMemory.allocate(shared + words * 4);
  const toys = programs.map((program, k) => {
    const agent = new ToyAgent(`t${k}`, memory, k * AgentBlock.size, shared, program);
    agent.step = at(agent, 0);
    return agent;
  });
  const list: Property[] = [];
  const system: Toy = {
    name: "toy",
    policies: {},
    memory,
    agents: toys.map((agent) => ({ agent, writes: [] })),
    mutable: [{ at: 0, bytes: shared + words * 4 }],
    properties: list,
    finished: () => toys.every((agent) => agent.halted),
    toys,
    shared,
    word: (x) => memory.i32[shared / 4 + x],
  };
  list.push(...properties(system));
  return system;
}

/** The shared words and registers of the present state, for comparisons. */
export function valuesOf(system: Toy, engine: Engine): string {
  const words = Array.from({ length: (system.mutable[0].bytes - system.shared) / 4 }, (_, x) => system.word(x));
  const agents = system.toys.map((agent) => `${agent.step === HALTED ? "." : "w"}${[...agent.locals32.slice(0, 4)]}`);
  return `${words}|${agents}|${engine.actorNames.length}`;
}
