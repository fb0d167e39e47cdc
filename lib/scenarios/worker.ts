/**
 * The module that the explorer's workers run: whole explorations, shares of one search, and combinations of a matrix.
 *
 * @module
 */
import { serveShares } from "../explore/parallel_worker.ts";
import type { SearchProgress } from "../explore/search.ts";
import type { MemoryModel } from "../explore/system.ts";
import { BadInput } from "../memory/bad_input.ts";
import { type CombinationResult, searchCombination } from "./combination.ts";
import { type ExplorationOutcome, type ExplorationRequest, exploreSystem } from "./exploration.ts";
import type { Choices } from "./scenario.ts";
import { scenarioOf, type ScenarioSource, systemOf, type SystemSpec } from "./spec.ts";

/** A request for one exploration. */
export interface ExplorationTask {
  readonly kind: "exploration";
  readonly spec: SystemSpec;
  readonly request: ExplorationRequest;
  /** A word that is not 0 once the work is to end. */
  readonly stop: SharedArrayBuffer;
}

/** A request for one combination. */
export interface CombinationTask {
  readonly kind: "combination";
  readonly source: ScenarioSource;
  readonly policies: Choices;
  readonly memoryModel: MemoryModel;
  /** A word that is not 0 once the work is to end. */
  readonly stop: SharedArrayBuffer;
}

/** What a worker reports: how far it is, then what it has found. */
export type WorkerReply<T> =
  | { readonly kind: "progress"; readonly progress: SearchProgress }
  | { readonly kind: "done"; readonly result: T; readonly interrupted: boolean }
  | { readonly kind: "failed"; readonly message: string; readonly badInput: boolean };

/** Milliseconds between two reports of progress. */
const PROGRESS_MS = 200;

/** The part of a worker's global scope that is used here. */
interface WorkerScope {
  onmessage: ((event: MessageEvent) => void) | null;
  postMessage(reply: WorkerReply<unknown>): void;
}

const now = () => performance.now();

/** Does what a task asks for, and reports on it. */
function work(task: ExplorationTask | CombinationTask, post: (reply: WorkerReply<unknown>) => void): void {
  const stop = new Int32Array(task.stop);
  let interrupted = false;
  let reported = now();
  const watch = (progress: SearchProgress): boolean => {
    if (now() - reported > PROGRESS_MS) {
      reported = now();
      post({ kind: "progress", progress });
    }
    interrupted ||= Atomics.load(stop, 0) !== 0;
    return interrupted;
  };
  const result: ExplorationOutcome | CombinationResult = task.kind === "exploration"
    ? exploreSystem(systemOf(task.spec), task.request, now, watch)
    : searchCombination(scenarioOf(task.source), task.policies, task.memoryModel, now, watch);
  post({ kind: "done", result, interrupted });
}

serveShares((spec: SystemSpec) => systemOf(spec));

if ("DedicatedWorkerGlobalScope" in globalThis) {
  const scope = globalThis as unknown as WorkerScope;
  const shares = scope.onmessage;
  scope.onmessage = (event) => {
    const task = event.data as ExplorationTask | CombinationTask;
    if (task.kind !== "exploration" && task.kind !== "combination") return shares?.(event);
    try {
      work(task, (reply) => scope.postMessage(reply));
    } catch (error) {
      const message = error instanceof Error ? error.message : String(error);
      scope.postMessage({ kind: "failed", message, badInput: error instanceof BadInput });
    }
  };
}
