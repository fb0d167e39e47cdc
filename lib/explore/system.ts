/**
 * What is explored: agents, the memory that they can change, and what must hold.
 *
 * @module
 */
import type { Agent } from "../memory/agent.ts";
import type { MachineMemory } from "../memory/machine_memory.ts";
import type { StepId } from "../memory/steps.ts";
import type { AnyStructure } from "../layout/structure.ts";

/** Bytes of the memory. Where they are said to change, `at` and `bytes` are multiples of four. */
export interface Range {
  /** Byte offset. */
  readonly at: number;
  /** How many bytes. */
  readonly bytes: number;
}

/** An agent and what the explorer must know of it. */
export interface SystemAgent {
  /** The machine of named steps. */
  readonly agent: Agent;
  /** The processor that it executes on: agents of one processor share its store buffer. Absent: one of its own. */
  readonly processor?: number;
  /**
   * What its steps write without its port, beside its own block. Absent: anything in `System.mutable`, which is always
   * right and looks at every word after each of its steps.
   */
  readonly writes?: readonly Range[];
  /** Whether it is part of the environment, which need not do anything: weak fairness does not cover it. */
  readonly environment?: boolean;
}

/** What a predicate looks at. */
export interface Watched {
  /**
   * The bytes that it looks at, so that steps that touch nothing of it may be reordered. Absent: anything, and then no
   * order of two steps is left out.
   */
  readonly watches?: readonly Range[];
  /** What it knows of an agent's program counter: only whether it is one of these steps. */
  readonly watchesSteps?: readonly { readonly agent: Agent; readonly steps: readonly StepId[] }[];
}

/** A predicate over the memory that has to hold. */
export interface Property extends Watched {
  /** Its name on the command line. */
  readonly name: string;
  /** The sentence that it enforces. */
  readonly sentence: string;
  /** `always`: after every step. `end`: when no agent can go on. `cycle`: of what can repeat for ever. */
  readonly when: "always" | "end" | "cycle";
  /** Whether it holds in the present state; reads only. Not asked of a property of cycles. */
  holds(): boolean;
  /** What is wrong, in a few words, in a state in which it does not hold. */
  readonly kind: string | (() => string);
  /**
   * For a property that is a conjunction: what each of its parts looks at, instead of `watches` and `watchesSteps`. The
   * order of steps that touch different parts does not matter.
   */
  readonly parts?: readonly Watched[];
}

/** A structure in the memory whose fields the trace shows by name. */
export interface NamedStructure {
  /** What the trace calls it, such as `command page 1`. */
  readonly name: string;
  /** Byte offset. */
  readonly at: number;
  /** Its fields. */
  readonly layout: AnyStructure;
}

/** Notes that a step reads or writes bytes without its agent's port. */
export type NoteAccess = (at: number, bytes: number, write: boolean) => void;

/** What is explored. */
export interface System {
  /** The scenario's name, which schedules carry. */
  readonly name: string;
  /** Every policy of the scenario and its value, which schedules carry. */
  readonly policies: Readonly<Record<string, string>>;
  /** All state of all agents. */
  readonly memory: MachineMemory;
  /** The agents, in the order in which choices number them. */
  readonly agents: readonly SystemAgent[];
  /** Everything that a step can change. */
  readonly mutable: readonly Range[];
  /** What has to hold. */
  readonly properties: readonly Property[];
  /** Whether everything that was to be done is done. A state from which nobody can go on is a deadlock otherwise. */
  finished?(): boolean;
  /** Whether nothing that follows matters, such as after a crash: nobody can go on then. */
  over?(): boolean;
  /** Drops what is only cached of the memory, because the explorer has just put an earlier state back. */
  afterRestore?(): void;
  /**
   * Accesses that a step is about to make without its agent's port, beside its own block. Partial-order reduction takes a
   * step for a function of its agent's own block and of what it reads.
   */
  footprint?(agent: Agent, step: StepId, note: NoteAccess): void;
  /** Byte offsets of words, outside the agents' blocks, that hold numbers of steps: fingerprints in files use the names. */
  readonly stepWords?: readonly number[];
  /** What the trace decodes. */
  readonly structures?: readonly NamedStructure[];
}

/** Which stores other processors may see late. */
export type MemoryModel = "sc" | "tso";

/** Most agents and store buffers together: their sets are masks of one word. */
export const ACTORS_MAX = 31;
