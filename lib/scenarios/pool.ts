/**
 * The explorer's workers as the main thread sees them.
 *
 * @module
 */
import type { SearchProgress } from "../explore/search.ts";
import { BadInput } from "../memory/bad_input.ts";
import type { CombinationResult } from "./combination.ts";
import type { ExplorationOutcome } from "./exploration.ts";
import type { CombinationTask, ExplorationTask, WorkerReply } from "./worker.ts";
import "./worker.ts"; // the workers' module: part of the program, so that a compiled binary has it

/** Starts a worker. */
export function startExplorer(): Worker {
  return new Worker(new URL("./worker.ts", import.meta.url), { type: "module", name: "explorer" });
}

/** What a worker has done. */
export interface Done<T> {
  readonly result: T;
  /** Whether the work was ended before its end. */
  readonly interrupted: boolean;
}

/** Gives a worker a task. Throws `BadInput` for what the user must change, and `Error` when the worker fails. */
export function assign(
  worker: Worker,
  task: CombinationTask,
  onProgress: (progress: SearchProgress) => void,
): Promise<Done<CombinationResult>>;
export function assign(
  worker: Worker,
  task: ExplorationTask,
  onProgress: (progress: SearchProgress) => void,
): Promise<Done<ExplorationOutcome>>;
export function assign(
  worker: Worker,
  task: CombinationTask | ExplorationTask,
  onProgress: (progress: SearchProgress) => void,
): Promise<Done<unknown>> {
  return new Promise((resolve, reject) => {
    worker.onmessage = ({ data }: MessageEvent<WorkerReply<unknown>>) => {
      if (data.kind === "progress") onProgress(data.progress);
      else if (data.kind === "done") resolve(data);
      else reject(data.badInput ? new BadInput(data.message) : new Error(data.message));
    };
    worker.onerror = (event) => {
      event.preventDefault();
      reject(new Error(event.message));
    };
    worker.postMessage(task);
  });
}
