/**
 * Running an exploration for a command: in workers, with progress on standard error, a time limit, and Ctrl-C.
 *
 * @module
 */

import type { SearchProgress } from "../explore/search.ts";
import { type ExplorationOutcome, type ExplorationRequest, exploreWithWorkers } from "../scenarios/exploration.ts";
import { assign, startExplorer } from "../scenarios/pool.ts";
import { systemOf, type SystemSpec } from "../scenarios/spec.ts";
import { grouped } from "./explore_output.ts";
import { interruptible } from "./interrupt.ts";
import type { Printer } from "./printer.ts";

const MS = 1000;

/** How an exploration is run. */
export interface RunOptions {
  /** Workers that share it. */
  readonly jobs: number;
  /** Seconds after which it ends. */
  readonly timeLimit: number | undefined;
  readonly printer: Printer;
}

/** Runs an exploration in workers, so that Ctrl-C and the time limit are heard meanwhile. */
export async function runExploration(
  spec: SystemSpec,
  request: ExplorationRequest,
  { jobs, timeLimit, printer }: RunOptions,
): Promise<{ outcome: ExplorationOutcome; interrupted: boolean }> {
  const stop = new Int32Array(new SharedArrayBuffer(4));
  let late = false;
  const timer = timeLimit === undefined ? undefined : setTimeout(() => {
    late = true;
    Atomics.store(stop, 0, 1);
  }, timeLimit * MS);
  const begun = performance.now();
  const onProgress = (progress: SearchProgress) => printer.progress(progressText(progress, begun));
  try {
    return await interruptible(async (signal) => {
      signal.addEventListener("abort", () => Atomics.store(stop, 0, 1));
      const outcome = jobs > 1
        ? await exploreWithWorkers(
          systemOf(spec),
          request,
          { jobs, spawn: startExplorer, spec },
          () => performance.now(),
          (progress) => {
            onProgress(progress);
            return Atomics.load(stop, 0) !== 0;
          },
        )
        : await inOneWorker(spec, request, stop.buffer, onProgress);
      return { outcome: late ? atTimeLimit(outcome) : outcome, interrupted: signal.aborted };
    });
  } finally {
    clearTimeout(timer);
  }
}

async function inOneWorker(
  spec: SystemSpec,
  request: ExplorationRequest,
  stop: SharedArrayBuffer,
  onProgress: (progress: SearchProgress) => void,
): Promise<ExplorationOutcome> {
  const worker = startExplorer();
  try {
    return (await assign(worker, { kind: "exploration", spec, request, stop }, onProgress)).result;
  } finally {
    worker.terminate();
  }
}

/** What the time limit ended was not interrupted: a bound was hit. */
function atTimeLimit(outcome: ExplorationOutcome): ExplorationOutcome {
  const { result } = outcome;
  if (!result.interrupted) return outcome;
  return { ...outcome, result: { ...result, interrupted: false, hit: [...result.hit, "time"] } };
}

/** States, rate, frontier and time; before the first of them workers learn for persistent sets. */
function progressText({ states, transitions, frontier, preemptions }: SearchProgress, begun: number): string {
  const seconds = (performance.now() - begun) / MS;
  if (states === 0 && transitions === 0) {
    return `explore: learning which steps depend on each other, ${seconds.toFixed(0)} s`;
  }
  const rate = grouped(Math.round((states === 0 ? transitions : states) / seconds));
  const what = states === 0 ? `${grouped(transitions)} steps` : `${grouped(states)} states`;
  const bound = preemptions === Infinity ? "" : `, ${preemptions} preemptions`;
  return `explore: ${what}, ${rate}/s, at step ${grouped(frontier)}${bound}, ${seconds.toFixed(0)} s`;
}
