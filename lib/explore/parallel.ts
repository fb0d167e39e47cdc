/**
 * One search spread over workers: they share the table of fingerprints and give one another parts of the search. The
 * verdict is that of a search in one thread, and so is the minimised schedule, because it does not depend on which
 * violating schedule was met first. The only reduction is by fingerprints.
 *
 * @module
 */
import type { Engine } from "./engine.ts";
import { type BoundHit, DEFAULT_BOUNDS, type SearchBounds } from "./exhaustive.ts";
import type { FoundViolation } from "./explorer.ts";
import {
  CONTROL,
  CONTROL_BYTES,
  JOBS_MAX,
  type ShareReply,
  type ShareRequest,
  type ShareResult,
  statesOf,
  stop,
  STOPPED,
} from "./parallel_worker.ts";
import { preemptionBounds, type SearchOptions, type SearchResult, withCycles } from "./search.ts";
import { SharedFingerprints } from "./shared_fingerprints.ts";

/** What a parallel search needs beside what a search does. */
export interface ParallelOptions<Spec> extends SearchOptions {
  /** Workers, 1 to 64. */
  readonly jobs: number;
  /** Starts a worker whose module calls `serveShares`. */
  readonly spawn: (number: number) => Worker;
  /** What that module builds the system from: the one that the engine has. */
  readonly spec: Spec;
}

/** log2 of the first table's entries; a table that is full is replaced by one of eight times as many. */
const TABLE_BITS = 23;
const TABLE_GROWTH_BITS = 3;
const TABLE_BITS_MAX = 26;
/** Milliseconds between two looks at the workers. */
const POLL_MS = 20;

/** The answers of all workers to one request each. */
interface Round {
  readonly results: readonly ShareResult[];
  readonly states: number;
  /** One of `STOPPED`. */
  readonly stopped: number;
}

/** Searches with workers. `engine` has the same system and is used for what is not worth a worker. */
export async function parallelSearch<Spec>(engine: Engine, options: ParallelOptions<Spec>): Promise<SearchResult> {
  const jobs = Math.max(1, Math.min(JOBS_MAX, options.jobs));
  const workers = Array.from({ length: jobs }, (_, number) => options.spawn(number));
  try {
    return withCycles(engine, options, await searchStates(engine, workers, { ...options, jobs }));
  } finally {
    for (const worker of workers) worker.postMessage("leave");
  }
}

/** Searches the states, one bound on preemptions after the other. */
async function searchStates<Spec>(
  engine: Engine,
  workers: readonly Worker[],
  options: ParallelOptions<Spec>,
): Promise<SearchResult> {
  const bounds = { ...DEFAULT_BOUNDS, ...options.bounds };
  const wanted = (options.properties ?? engine.system.properties).filter(({ when }) => when !== "cycle");
  const found: FoundViolation[] = [];
  let bits = TABLE_BITS;
  const { until = "all" } = options;
  for (const preemptions of preemptionBounds(bounds.preemptions, options.firstPreemptions)) {
    let round: Round;
    for (;; bits += TABLE_GROWTH_BITS) {
      const properties = wanted.filter(({ name }) => !found.some(({ property }) => property.name === name));
      const names = properties.map(({ name }) => name);
      round = await oneRound(engine, workers, options, { ...bounds, preemptions }, names, bits);
      for (const violation of round.results.flatMap(({ violations }) => violations)) {
        const property = properties.find(({ name }) => name === violation.property)!;
        if (!found.some((other) => other.property === property)) found.push({ ...violation, property });
      }
      if (round.stopped !== STOPPED.TABLE_FULL || bits + TABLE_GROWTH_BITS > TABLE_BITS_MAX) break;
    }
    const result = summary(round, preemptions, found);
    if (!result.exhausted || preemptions === bounds.preemptions || result.preemptions === Infinity) return result;
    if (until === "first" && found.length > 0) return result;
    if (until === "all" && wanted.length > 0 && found.length === wanted.length) return result;
  }
  throw new RangeError("No bound on preemptions to search with");
}

function summary(round: Round, preemptions: number, found: readonly FoundViolation[]): SearchResult {
  const { results, states, stopped } = round;
  const sum = (of: (result: ShareResult) => number) => results.reduce((total, result) => total + of(result), 0);
  const hit: BoundHit[] = [];
  if (results.some(({ depthHit }) => depthHit)) hit.push("depth");
  if (stopped === STOPPED.BOUND) hit.push("states");
  if (stopped === STOPPED.TABLE_FULL) hit.push("memory");
  return {
    violations: [...found],
    states,
    transitions: sum(({ transitions }) => transitions),
    schedules: sum(({ schedules }) => schedules),
    depth: Math.max(...results.map(({ depth }) => depth)),
    hit,
    exhausted: stopped === STOPPED.DONE && hit.length === 0,
    interrupted: stopped === STOPPED.INTERRUPTED,
    preemptions: stopped !== STOPPED.DONE || results.some(({ preemptionsLeftOut }) => preemptionsLeftOut)
      ? preemptions
      : Infinity,
    reductions: { fingerprints: true, persistentSets: false, sleepSets: false },
  };
}

/** Asks every worker once. Throws an `Error` with the message of a worker that failed. */
async function oneRound<Spec>(
  engine: Engine,
  workers: readonly Worker[],
  options: ParallelOptions<Spec>,
  bounds: SearchBounds,
  properties: readonly string[],
  bits: number,
): Promise<Round> {
  const control = new Int32Array(new SharedArrayBuffer(CONTROL_BYTES));
  const table = SharedFingerprints.allocate(bits);
  const replies = workers.map((worker, number) => {
    const request: ShareRequest<Spec> = {
      spec: options.spec,
      memoryModel: engine.memoryModel,
      bounds,
      properties,
      until: options.until ?? "all",
      jobs: workers.length,
      worker: number,
      control: control.buffer,
      table,
    };
    return answer(worker, request);
  });
  let waiting = true;
  const all = Promise.all(replies).finally(() => waiting = false);
  const watch = async () => {
    while (waiting) {
      await new Promise((resolve) => setTimeout(resolve, POLL_MS));
      const states = statesOf(control, workers.length);
      const frontier = control[CONTROL.WORKERS + 1];
      const progress = { states, transitions: 0, frontier, preemptions: bounds.preemptions };
      if (options.progress?.(progress)) stop(control, STOPPED.INTERRUPTED);
    }
  };
  const [answers] = await Promise.all([all, watch()]);
  const results = answers.map((reply) => {
    if ("failure" in reply) throw new Error(reply.failure);
    return reply.result;
  });
  return { results, states: statesOf(control, workers.length), stopped: control[CONTROL.STOP] };
}

function answer<Spec>(worker: Worker, request: ShareRequest<Spec>): Promise<ShareReply> {
  return new Promise((resolve) => {
    worker.onmessage = ({ data }: MessageEvent<ShareReply>) => resolve(data);
    worker.onerror = (event) => {
      event.preventDefault();
      stop(new Int32Array(request.control), STOPPED.INTERRUPTED);
      resolve({ failure: event.message });
    };
    worker.postMessage(request);
  });
}
