/**
 * Agents: machines of named steps whose program counter and locals live in shared memory (DESIGN rule 2).
 *
 * @module
 */
import { array, u32, u64 } from "../layout/field_type.ts";
import { reserved, structure } from "../layout/structure.ts";
import type { MachineMemory } from "./machine_memory.ts";
import type { MemoryPort } from "./port.ts";
import { CONDITIONAL, HALTED, NOT_COMBINED, type StepId, STEPS } from "./steps.ts";

/** Depth of an agent's stack of return steps. */
export const RETURN_STACK_DEPTH = 12;
/** Number of 64-bit locals of an agent. */
export const LOCALS = 16;

/** An agent's block in shared memory; only the agent itself writes it. */
export const AgentBlock = structure("AgentBlock", 192, [
  ["step", 0, u32, "Program counter: the number of the step to run next"],
  ["depth", 4, u32, "How many return steps are on the stack"],
  ["returns", 8, array(u32, RETURN_STACK_DEPTH), "Steps to go on with when a called machine returns, innermost last"],
  ["steps", 56, u32, "How many steps the agent has taken, modulo 2^32"],
  reserved(60, 4),
  ["locals", 64, array(u64, LOCALS), "Values that live across steps; each machine documents the ones it uses"],
], "An agent's program counter and locals; not a structure of the modelled machine");

const STEP = AgentBlock.at.step;
const DEPTH = AgentBlock.at.depth;
const RETURNS = AgentBlock.at.returns;
const STEPS_TAKEN = AgentBlock.at.steps;
const LOCALS_AT = AgentBlock.at.locals;

/** One agent: a name, a block of shared memory and a port through which it touches what others can see. */
export class Agent {
  /** What traces and schedules call it, such as `vp1` or `vmm.vp2`. */
  readonly name: string;
  /** The machine's memory. */
  readonly memory: MachineMemory;
  /** Byte offset of its {@linkcode AgentBlock}. */
  readonly block: number;
  /** Its locals as 64-bit words. */
  readonly locals: BigUint64Array<SharedArrayBuffer>;
  /** Its locals as 32-bit words: local n's low half is at 2n. */
  readonly locals32: Int32Array<SharedArrayBuffer>;
  /** Access to memory that other agents can see. The runtime may replace it before the agent runs. */
  port: MemoryPort;
  readonly #i32: Int32Array<SharedArrayBuffer>;
  readonly #stepWord: number;

  /** An agent over the block at byte offset `block`, a multiple of eight. */
  constructor(name: string, memory: MachineMemory, block: number, port: MemoryPort) {
    this.name = name;
    this.memory = memory;
    this.block = block;
    this.port = port;
    this.#i32 = memory.i32;
    this.#stepWord = (block + STEP) >>> 2;
    this.locals = new BigUint64Array(memory.buffer, block + LOCALS_AT, LOCALS);
    this.locals32 = new Int32Array(memory.buffer, block + LOCALS_AT, LOCALS * 2);
  }

  /** The step that runs next. */
  get step(): StepId {
    return this.#i32[this.#stepWord];
  }
  set step(step: StepId) {
    this.#i32[this.#stepWord] = step;
  }

  /** Steps taken so far, for traces and for the watchdog. Modulo 2^32. */
  get stepsTaken(): number {
    return this.memory.u32[(this.block + STEPS_TAKEN) >>> 2];
  }

  /** Adds to the steps taken, for who takes them otherwise than by {@linkcode Agent.takeSteps}. */
  countSteps(steps: number): void {
    this.#i32[(this.block + STEPS_TAKEN) >>> 2] += steps;
  }

  /** Whether the agent has ended. */
  get halted(): boolean {
    return this.step === HALTED;
  }

  /** Whether its next step may run now. */
  get enabled(): boolean {
    const enabled = STEPS[this.step]?.enabled;
    return enabled === undefined || enabled(this);
  }

  /**
   * Takes up to `count` steps, stopping before one that is not enabled, and returns how many it took.
   */
  takeSteps(count: number): number {
    const i32 = this.#i32;
    const word = this.#stepWord;
    let taken = 0;
    let next = i32[word];
    try {
      while (taken < count) {
        const step = STEPS[next];
        if ((next & CONDITIONAL) !== 0 && !step.enabled!(this)) break;
        next = step.run(this);
        taken++;
      }
    } finally {
      i32[word] = next;
      this.countSteps(taken);
    }
    return taken;
  }

  /**
   * Takes several steps from `next` on at once, for a runtime in which nobody looks between them: does what they do, in their
   * order, as far as they take their usual course, and returns the step that follows. `next` may run now. Returns
   * {@linkcode NOT_COMBINED}, having done nothing, where `next` has to be taken by itself. It counts as one step.
   */
  leap(_next: StepId): StepId {
    return NOT_COMBINED;
  }

  /** Goes on with `callee`'s machine, and with `after` when that returns. Returns `callee`, for a step to return. */
  call(callee: StepId, after: StepId): StepId {
    const i32 = this.#i32;
    const depth = i32[(this.block + DEPTH) >>> 2];
    if (depth >= RETURN_STACK_DEPTH) {
      throw new RangeError(`Agent '${this.name}' calls more than ${RETURN_STACK_DEPTH} deep`);
    }
    i32[((this.block + RETURNS) >>> 2) + depth] = after;
    i32[(this.block + DEPTH) >>> 2] = depth + 1;
    return callee;
  }

  /** The step that the innermost caller asked to go on with; {@linkcode HALTED} when nobody called. */
  return(): StepId {
    const i32 = this.#i32;
    const depth = i32[(this.block + DEPTH) >>> 2];
    if (depth === 0) return HALTED;
    const word = ((this.block + RETURNS) >>> 2) + depth - 1;
    const after = i32[word];
    i32[(this.block + DEPTH) >>> 2] = depth - 1;
    i32[word] = 0; // so that two agents in the same state have the same bytes
    return after;
  }
}
