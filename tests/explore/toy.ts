/**
 * Small concurrent programs as agents, for tests of the explorer: each instruction is one step on shared words.
 */
import type { Property, System } from "../../lib/explore/system.ts";
import { Agent, AgentBlock } from "../../lib/memory/agent.ts";
import { MachineMemory } from "../../lib/memory/machine_memory.ts";
import { DirectPort } from "../../lib/memory/port.ts";
import type { Random } from "../../lib/memory/random.ts";
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

/** What a plain search over copies of the memory finds: the values of every state, and of those in which nobody can go on. */
export function plainSearch(system: Toy): { states: number; ends: Set<string> } {
  const { memory } = system;
  const bytes = system.mutable[0].bytes;
  const save = () => memory.u8.slice(0, bytes);
  const seen = new Set<string>();
  const ends = new Set<string>();
  const stack: Uint8Array[] = [];
  const visit = () => {
    const state = save();
    const key = state.join();
    if (seen.has(key)) return;
    seen.add(key);
    stack.push(state);
  };
  for (const agent of system.toys) agent.port = new DirectPort(memory);
  const initial = save();
  visit();
  for (let state = stack.pop(); state !== undefined; state = stack.pop()) {
    let ended = true;
    for (const agent of system.toys) {
      memory.u8.set(state);
      if (!agent.enabled) continue;
      ended = false;
      const outcomes = outcomesOf(agent);
      for (let outcome = 0; outcome < outcomes; outcome++) {
        memory.u8.set(state);
        agent.port = new ChoosingPort(memory, outcome);
        agent.takeSteps(1);
        memory.i32[(agent.block + AgentBlock.at.steps) / 4] = 0; // a counter, not part of the state
        visit();
      }
    }
    memory.u8.set(state);
    if (ended) ends.add(finalValues(system));
  }
  memory.u8.set(initial);
  return { states: seen.size, ends };
}

/** A port with a given outcome. */
class ChoosingPort extends DirectPort {
  readonly #outcome: number;
  constructor(memory: MachineMemory, outcome: number) {
    super(memory);
    this.#outcome = outcome;
  }
  override choose(): number {
    return this.#outcome;
  }
}

function outcomesOf(agent: ToyAgent): number {
  const instruction = agent.program[STEPS.indexOf(agent.step)];
  return instruction?.op === "choose" ? instruction.count : 1;
}

/** The shared words and the agents' registers of the present state. */
export function finalValues(system: Toy): string {
  const words = Array.from({ length: (system.mutable[0].bytes - system.shared) / 4 }, (_, x) => system.word(x));
  const agents = system.toys.map((agent) => `${agent.halted ? "ended" : "waits"} ${[...agent.locals32.slice(0, 2)]}`);
  return `${words} | ${agents.join(" | ")}`;
}

/** A random program: loads, stores, exchanges, waits, jumps and choices over `words` shared words. */
export function randomProgram(random: Random, words: number): Instruction[] {
  const length = 2 + random.below(4);
  return Array.from({ length }, (): Instruction => {
    const x = random.below(words);
    const r = random.below(2);
    const value = random.below(3);
    switch (random.below(8)) {
      case 0:
      case 1:
        return { op: "load", r, x };
      case 2:
      case 3:
        return { op: "store", x, value: 1 + value };
      case 4:
        return { op: "storeRegister", x, r };
      case 5:
        return { op: "swap", r, x, value };
      case 6:
        return random.below(2) === 0 ? { op: "wait", x, value } : { op: "choose", r, count: 2 };
      default:
        return { op: "jumpUnless", r, value, to: random.below(length + 1) };
    }
  });
}
