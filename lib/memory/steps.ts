/**
 * Named steps: the instructions of which agents are made (DESIGN rule 2).
 *
 * A step is one atomic action. Its function does the action and returns the number of the step that follows; the runtime
 * stores that number in the agent's block in shared memory, where it is the agent's program counter. A step that may
 * have to wait has an `enabled` condition that only reads; the runtime does not run it while the condition is false.
 *
 * Numbers are given in the order in which modules are loaded and mean nothing outside a process: traces and schedules
 * carry names.
 *
 * @module
 */

/** The number of a step in this process. */
export type StepId = number;

/** One step of agents of kind `A`. */
export interface Step<A> {
  /** `area.action`, unique, such as `hypervisor.write-entry-reason`: what a trace shows and a reader searches for. */
  readonly name: string;
  /** Does the action; returns the step that follows. */
  readonly run: (agent: A) => StepId;
  /** Whether the step may run now; absent means always. Reads only. */
  readonly enabled?: (agent: A) => boolean;
}

// deno-lint-ignore no-explicit-any -- one table holds the steps of every kind of agent
const table: Step<any>[] = [];
const ids = new Map<string, StepId>();

/** Declares a step and returns its number. Throws `TypeError` when the name is taken or not of the form `area.action`. */
export function step<A>(name: string, run: (agent: A) => StepId, enabled?: (agent: A) => boolean): StepId {
  if (!/^[a-z0-9-]+(\.[a-z0-9-]+)+$/.test(name)) {
    throw new TypeError(`Step name '${name}' is not of the form area.action`);
  }
  if (ids.has(name)) throw new TypeError(`Step '${name}' is declared twice`);
  const id = table.length;
  table.push(enabled === undefined ? { name, run } : { name, run, enabled });
  ids.set(name, id);
  return id;
}

/** The table of all steps, indexed by {@linkcode StepId}. */
// deno-lint-ignore no-explicit-any -- see above
export const STEPS: readonly Step<any>[] = table;

/** The name of step `id`, or `step(N)` for a number that no step has. */
export function stepName(id: StepId): string {
  return table[id]?.name ?? `step(${id})`;
}

/** The number of the step called `name`, or -1. */
export function stepId(name: string): StepId {
  return ids.get(name) ?? -1;
}

/** The step of an agent that has ended: it is never enabled. */
export const HALTED: StepId = step<unknown>("agent.halted", () => HALTED, () => false);
