/**
 * The module that the explorer's workers run: shares of one search, and combinations of a matrix.
 *
 * @module
 */
import { serveShares } from "../explore/parallel_worker.ts";
import type { MemoryModel } from "../explore/system.ts";
import { BadInput } from "../memory/bad_input.ts";
import { type CombinationResult, searchCombination } from "./combination.ts";
import type { Choices, Scenario } from "./scenario.ts";
import { scenarioOf, type ScenarioSource, systemOf, type SystemSpec } from "./spec.ts";

/** A request for one combination. */
export interface CombinationTask {
  readonly source: ScenarioSource;
  readonly policies: Choices;
  readonly memoryModel: MemoryModel;
  /** A word that is not 0 once the work is to end. */
  readonly stop: SharedArrayBuffer;
}

/** What a worker reports on a combination: how far it is, then what it has found. */
export type CombinationReply =
  | { readonly kind: "progress"; readonly states: number }
  | { readonly kind: "done"; readonly result: CombinationResult; readonly interrupted: boolean }
  | { readonly kind: "failed"; readonly message: string; readonly badInput: boolean };

/** Milliseconds between two reports of progress. */
const PROGRESS_MS = 500;

/** The part of a worker's global scope that is used here. */
interface WorkerScope {
  onmessage: ((event: MessageEvent) => void) | null;
  postMessage(reply: CombinationReply): void;
}

/** Searches a combination and reports on it. */
function combination(task: CombinationTask, scenario: Scenario, post: (reply: CombinationReply) => void): void {
  const stop = new Int32Array(task.stop);
  let interrupted = false;
  let reported = performance.now();
  const now = () => performance.now();
  const result = searchCombination(scenario, task.policies, task.memoryModel, now, ({ states }) => {
    if (now() - reported > PROGRESS_MS) {
      reported = now();
      post({ kind: "progress", states });
    }
    interrupted ||= Atomics.load(stop, 0) !== 0;
    return interrupted;
  });
  post({ kind: "done", result, interrupted });
}

serveShares((spec: SystemSpec) => systemOf(spec));

if ("DedicatedWorkerGlobalScope" in globalThis) {
  const scope = globalThis as unknown as WorkerScope;
  const shares = scope.onmessage;
  scope.onmessage = (event) => {
    const task = event.data as CombinationTask | string;
    if (typeof task === "string" || task.source === undefined) return shares?.(event);
    try {
      combination(task, scenarioOf(task.source), (reply) => scope.postMessage(reply));
    } catch (error) {
      const message = error instanceof Error ? error.message : String(error);
      scope.postMessage({ kind: "failed", message, badInput: error instanceof BadInput });
    }
  };
}
