/**
 * Named steps: the instructions of which agents are made (DESIGN rule 2).
 *
 * A step is one atomic action. Its function does the action and returns the number of the step that follows; the runtime
 * stores that number in the agent's block in shared memory, where it is the agent's program counter. A step that may
 * have to wait has an `enabled` condition that only reads; the runtime does not run it while the condition is false.
 *
 * A step's number is a hash of its name, so that every worker, and a dump, agrees on it whatever was loaded first.
 *
 * @module
 */

/** The number of a step: see {@linkcode STEP_NUMBERS}. */
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

/** Bit of the number of a step that has a condition: the runtime need not look at the others' declarations. */
export const CONDITIONAL = 1 << 16;
/** Steps have numbers below this. */
export const STEP_NUMBERS: number = CONDITIONAL << 1;
/** FNV-1a: the 32-bit prime; its offset basis is replaced by one under which no two steps have the same number. */
const FNV_PRIME = 0x01000193;
const HASH_BASIS = 0x811c9dc5;

/** The number of a step of that name: FNV-1a over its characters, folded to 16 bits. */
function numberOf(name: string): StepId {
  let hash = HASH_BASIS;
  for (let k = 0; k < name.length; k++) hash = Math.imul(hash ^ name.charCodeAt(k), FNV_PRIME);
  return (hash ^ hash >>> 16) & (CONDITIONAL - 1);
}

/** A table with a place for each step number. Filled one by one: V8 makes an array that begins so long a hash table. */
export function denseTable<T>(): T[] {
  const places: unknown[] = [];
  for (let number = 0; number < STEP_NUMBERS; number++) places.push(undefined);
  return places as T[];
}

// deno-lint-ignore no-explicit-any -- one table holds the steps of every kind of agent
const table: Step<any>[] = denseTable();

/**
 * Declares a step and returns its number. Throws `TypeError` when the name is not of the form `area.action` or is taken, or
 * when another step has the same number.
 */
export function step<A>(name: string, run: (agent: A) => StepId, enabled?: (agent: A) => boolean): StepId {
  if (!/^[a-z0-9-]+(\.[a-z0-9-]+)+$/.test(name)) {
    throw new TypeError(`Step name '${name}' is not of the form area.action`);
  }
  const number = numberOf(name);
  const other = table[number] ?? table[number | CONDITIONAL];
  if (other !== undefined) throw new TypeError(`Steps '${other.name}' and '${name}' have the same number`);
  const id = enabled === undefined ? number : number | CONDITIONAL;
  table[id] = enabled === undefined ? { name, run } : { name, run, enabled };
  return id;
}

/** The table of all steps, indexed by {@linkcode StepId}; most numbers have no step. */
// deno-lint-ignore no-explicit-any -- see above
export const STEPS: readonly Step<any>[] = table;

/** The name of step `id`, or `step(N)` for a number that no step has. */
export function stepName(id: StepId): string {
  return table[id]?.name ?? `step(${id})`;
}

/** The number of the step called `name`, or -1. */
export function stepId(name: string): StepId {
  const number = numberOf(name);
  return [number, number | CONDITIONAL].find((id) => table[id]?.name === name) ?? -1;
}

/** The step of an agent that has ended: it is never enabled. */
export const HALTED: StepId = step<unknown>("agent.halted", () => HALTED, () => false);

/** Several steps that always follow one another, done at once where nobody looks in between. */
export interface CombinedSteps<A> {
  /** The steps, in order. */
  readonly ids: readonly StepId[];
  /**
   * Does what the steps do, in their order, and returns the step that follows; or does nothing and returns
   * {@linkcode NOT_COMBINED} where one of them is not to take its usual course.
   */
  readonly run: (agent: A) => StepId;
  /** The functions of the steps for which `run` stands: it is not used for others that have been put in their place. */
  readonly steps: readonly ((agent: A) => StepId)[];
}

/** No step: the steps have to be taken one by one. */
export const NOT_COMBINED: StepId = -1;

// deno-lint-ignore no-explicit-any -- see above
const combined = new Map<StepId, CombinedSteps<any>>();

const inside = new Set<StepId>();

/** Whether step `id` is part of a combination, but not its first: no place to begin a sequence that repeats. */
export function isInsideCombination(id: StepId): boolean {
  return inside.has(id) && !combined.has(id);
}

/** Declares that the steps `ids` can be done at once by `run`. Throws `TypeError` when there is one for the first step. */
export function combineSteps<A>(ids: readonly StepId[], run: (agent: A) => StepId): void {
  if (combined.has(ids[0])) throw new TypeError(`Step '${stepName(ids[0])}' begins two combinations`);
  for (const id of ids.slice(1)) inside.add(id);
  combined.set(ids[0], { ids, run, steps: ids.map((id) => table[id].run) });
}

/** The combination that begins at `ids[at]` and whose steps `ids` has there, if there is one. */
// deno-lint-ignore no-explicit-any -- see above
export function combinationAt(ids: readonly StepId[], at: number): CombinedSteps<any> | undefined {
  const found = combined.get(ids[at]);
  const same = (id: StepId, k: number) => ids[at + k] === id && table[id].run === found!.steps[k];
  return found?.ids.every(same) ? found : undefined;
}
