/**
 * The matrix of a scenario: every combination of its policies under every memory model, with a verdict for each property.
 *
 * A combination that differs from one that was searched only in policies that nothing looked at is not searched again.
 * Combinations are spread over workers; what each says does not depend on which worker searched it, or when.
 *
 * @module
 */
import { withPolicies } from "../explore/schedule.ts";
import type { MemoryModel } from "../explore/system.ts";
import { type CombinationResult, type PropertyResult, searchCombination, sharesWith } from "./combination.ts";
import { assign, startExplorer } from "./pool.ts";
import { type Choices, combinations, type Scenario } from "./scenario.ts";
import { scenarioOf, type ScenarioSource } from "./spec.ts";

/** A row of the matrix: one combination, one memory model, one property. */
export interface MatrixRow extends PropertyResult {
  /** Every policy of the scenario and its value. */
  readonly policies: Choices;
  /** The memory model under which it was searched. */
  readonly memoryModel: MemoryModel;
}

/** How far a matrix is. */
export interface MatrixProgress {
  /** Combinations that are done. */
  readonly done: number;
  /** All combinations. */
  readonly of: number;
  /** States of the searches that are done or under way. */
  readonly states: number;
}

/** How a matrix is made. */
export interface MatrixOptions {
  /** Workers; 0 searches in this thread. */
  readonly jobs: number;
  /** Ends the work; what is not done then is a bound that was hit. */
  readonly signal?: AbortSignal;
  /** Called a few times a second with how far it is. */
  readonly onProgress?: (progress: MatrixProgress) => void;
}

/** A matrix. */
export interface Matrix {
  /** By memory model, combination and property. */
  readonly rows: readonly MatrixRow[];
  /** How many combinations were searched; the others share theirs. */
  readonly searched: number;
  /** Whether it was ended early. */
  readonly interrupted: boolean;
}

/** A combination of the matrix. */
interface Cell {
  readonly policies: Choices;
  readonly memoryModel: MemoryModel;
}

/** Makes the matrix of a scenario. Throws `BadInput` when its systems cannot be built. */
export async function matrixOf(source: ScenarioSource, options: MatrixOptions): Promise<Matrix> {
  const scenario = scenarioOf(source);
  const cells = scenario.matrix.memoryModels.flatMap((memoryModel): Cell[] => {
    return combinations(scenario).map((policies) => ({ policies, memoryModel }));
  });
  const work = new Work(scenario, cells, options);
  if (options.jobs === 0) work.searchAll();
  else await work.spread(source, Math.min(options.jobs, cells.length));
  return work.matrix();
}

/** The combinations and what is known of them. */
class Work {
  readonly #scenario: Scenario;
  readonly #cells: readonly Cell[];
  readonly #options: MatrixOptions;
  readonly #done: CombinationResult[] = [];
  readonly #todo: Cell[];
  /** States of the searches under way. */
  readonly #states = new Map<Cell, number>();
  #interrupted = false;

  constructor(scenario: Scenario, cells: readonly Cell[], options: MatrixOptions) {
    this.#scenario = scenario;
    this.#cells = cells;
    this.#options = options;
    this.#todo = [...cells];
  }

  /** Searches one combination after the other in this thread. */
  searchAll(): void {
    for (let cell = this.#next(); cell !== undefined; cell = this.#next()) {
      const { policies, memoryModel } = cell;
      const { signal } = this.#options;
      const now = () => performance.now();
      this.#done.push(searchCombination(this.#scenario, policies, memoryModel, now, () => signal?.aborted ?? false));
      this.#report();
    }
    this.#interrupted = this.#options.signal?.aborted ?? false;
  }

  /** Spreads them over workers. */
  async spread(source: ScenarioSource, jobs: number): Promise<void> {
    const stop = new SharedArrayBuffer(4);
    const { signal } = this.#options;
    const halt = () => Atomics.store(new Int32Array(stop), 0, 1);
    signal?.addEventListener("abort", halt);
    const workers = Array.from({ length: jobs }, startExplorer);
    try {
      await Promise.all(workers.map((worker) => this.#serve(worker, source, stop)));
    } finally {
      signal?.removeEventListener("abort", halt);
      for (const worker of workers) worker.terminate();
    }
    this.#interrupted = signal?.aborted ?? false;
  }

  /** Gives a worker one combination after the other. */
  async #serve(worker: Worker, source: ScenarioSource, stop: SharedArrayBuffer): Promise<void> {
    for (let cell = this.#next(); cell !== undefined; cell = this.#next()) {
      const { policies, memoryModel } = cell;
      const current = cell;
      const task = { kind: "combination", source, policies, memoryModel, stop } as const;
      const { result, interrupted } = await assign(worker, task, ({ states }) => {
        this.#states.set(current, states);
        this.#report();
      });
      this.#states.delete(cell);
      // What was interrupted says nothing about other combinations.
      this.#done.push({ ...result, consulted: interrupted ? Object.keys(policies) : result.consulted });
      this.#report();
    }
  }

  /** The next combination that nobody has searched the like of. */
  #next(): Cell | undefined {
    while (this.#todo.length > 0 && this.#options.signal?.aborted !== true) {
      const cell = this.#todo.shift()!;
      if (this.#found(cell) === undefined) return cell;
    }
    return undefined;
  }

  #found({ policies, memoryModel }: Cell): CombinationResult | undefined {
    return this.#done.find((done) => sharesWith(done, policies, memoryModel));
  }

  #report(): void {
    const { onProgress } = this.#options;
    if (onProgress === undefined) return;
    const done = this.#done.flatMap(({ properties }) => properties.slice(0, 1).map(({ states }) => states));
    const states = [...done, ...this.#states.values()].reduce((total, count) => total + count, 0);
    onProgress({ done: this.#cells.length - this.#todo.length - this.#states.size, of: this.#cells.length, states });
  }

  matrix(): Matrix {
    const rows = this.#cells.flatMap((cell): MatrixRow[] => {
      const found = this.#found(cell);
      if (found === undefined) return this.#unsearched(cell);
      return found.properties.map((result) => ({
        ...result,
        ...cell,
        // It is the same run: only the names of what nothing looked at differ.
        schedule: result.schedule === null ? null : withPolicies(result.schedule, cell.policies),
      }));
    });
    return { rows, searched: this.#done.length, interrupted: this.#interrupted };
  }

  #unsearched(cell: Cell): MatrixRow[] {
    return this.#scenario.properties.map(({ name }): MatrixRow => {
      const nothing = { kind: "", states: 0, switches: null, steps: null, seconds: 0, schedule: null };
      return { ...cell, property: name, verdict: "bound", ...nothing };
    });
  }
}
