/**
 * One search spread over workers: they share the table of fingerprints and give one another parts of the search. The
 * verdict is that of a search in one thread, and so is the minimised schedule, because it does not depend on which
 * violating schedule was met first. Persistent sets depend on the state alone once everybody has learned the same; sleep
 * sets, which depend on the way to it, are not used.
 *
 * @module
 */
import type { Engine } from "./engine.ts";
import {
  ALL_REDUCTIONS,
  type BoundHit,
  DEFAULT_BOUNDS,
  type Reductions,
  type SearchBounds,
  type Task,
  WHOLE,
} from "./exhaustive.ts";
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
  taskInMail,
} from "./parallel_worker.ts";
import { canReduce, preemptionBounds, type SearchOptions, type SearchResult, withCycles } from "./search.ts";
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
const TABLE_BITS = 22;
const TABLE_GROWTH_BITS = 3;
/** Steps from which each worker learns at first; where that was not enough, it is eight times as many. */
const LEARNING_STEPS = 250_000;
const LEARNING_GROWTH = 8;
/** Most of them: where still something new is met, the search does without persistent sets. */
const LEARNING_STEPS_MAX = 20_000_000;
/** Milliseconds between two looks at the workers. */
const POLL_MS = 20;

/** What the workers have done of a search under one bound on preemptions. */
interface Round {
  readonly results: readonly ShareResult[];
  readonly states: number;
  /** One of `STOPPED`. */
  readonly stopped: number;
  readonly reductions: Reductions;
}

/** Searches with workers. `engine` has the same system and is used for what is not worth a worker. */
export async function parallelSearch<Spec>(engine: Engine, options: ParallelOptions<Spec>): Promise<SearchResult> {
  const jobs = Math.max(1, Math.min(JOBS_MAX, options.jobs));
  const workers = Array.from({ length: jobs }, (_, number) => options.spawn(number));
  try {
    const { result, acyclic } = await searchStates(engine, workers, { ...options, jobs });
    return acyclic ? result : withCycles(engine, options, result);
  } finally {
    for (const worker of workers) worker.postMessage("leave");
  }
}

/** Searches the states, one bound on preemptions after the other; whether that shows that nothing goes on for ever. */
async function searchStates<Spec>(
  engine: Engine,
  workers: readonly Worker[],
  options: ParallelOptions<Spec>,
): Promise<{ result: SearchResult; acyclic: boolean }> {
  const bounds = { ...DEFAULT_BOUNDS, ...options.bounds };
  const wanted = (options.properties ?? engine.system.properties).filter(({ when }) => when !== "cycle");
  const found: FoundViolation[] = [];
  const { until = "all" } = options;
  for (const preemptions of preemptionBounds(bounds.preemptions, options.firstPreemptions)) {
    const properties = wanted.filter(({ name }) => !found.some(({ property }) => property.name === name));
    const names = properties.map(({ name }) => name);
    const round = await searchWithin(engine, workers, options, { ...bounds, preemptions }, names);
    for (const violation of round.results.flatMap(({ violations }) => violations)) {
      const property = properties.find(({ name }) => name === violation.property)!;
      if (!found.some((other) => other.property === property)) found.push({ ...violation, property });
    }
    const result = summary(round, preemptions, found);
    const acyclic = result.exhausted && round.results.every((share) => share.acyclic);
    if (!result.exhausted || preemptions === bounds.preemptions || result.preemptions === Infinity) {
      return { result, acyclic };
    }
    if (until === "first" && found.length > 0) return { result, acyclic };
    if (until === "all" && wanted.length > 0 && found.length === wanted.length) return { result, acyclic };
  }
  throw new RangeError("No bound on preemptions to search with");
}

/** Searches under one bound, with as much learning and as large a table as it takes. */
async function searchWithin<Spec>(
  engine: Engine,
  workers: readonly Worker[],
  options: ParallelOptions<Spec>,
  bounds: SearchBounds,
  properties: readonly string[],
): Promise<Round> {
  const { persistentSets } = options.reductions ?? ALL_REDUCTIONS;
  const reduces = bounds.preemptions === Infinity &&
    canReduce(engine, { fingerprints: true, persistentSets, sleepSets: false });
  for (let learning = reduces ? LEARNING_STEPS : 0;; learning *= LEARNING_GROWTH) {
    if (learning > LEARNING_STEPS_MAX) learning = 0;
    const round = await searchKnowing(engine, workers, options, bounds, properties, learning);
    if (round.stopped !== STOPPED.STALE) return round;
  }
}

/** The same with what is learned from so many steps; with larger and larger tables. */
async function searchKnowing<Spec>(
  engine: Engine,
  workers: readonly Worker[],
  options: ParallelOptions<Spec>,
  bounds: SearchBounds,
  properties: readonly string[],
  learning: number,
): Promise<Round> {
  const reductions = { fingerprints: true, persistentSets: learning > 0, sleepSets: false };
  const results: ShareResult[] = [];
  let table = SharedFingerprints.allocate(TABLE_BITS);
  let tasks: readonly Task[] = [WHOLE];
  for (let bits = TABLE_BITS, states = 0;;) {
    const control = new Int32Array(new SharedArrayBuffer(CONTROL_BYTES));
    const shared = { properties, until: options.until ?? "all", learning, bounds, statesBefore: states } as const;
    const request = { ...shared, spec: options.spec, memoryModel: engine.memoryModel, control: control.buffer, table };
    const shares = await shareOut(workers, options, request, tasks);
    results.push(...shares);
    states += statesOf(control, workers.length);
    const stopped = control[CONTROL.STOP];
    bits += TABLE_GROWTH_BITS;
    const full = stopped === STOPPED.TABLE_FULL;
    if (!full || SharedFingerprints.bytesOf(bits) > bounds.memoryBytes) return { results, states, stopped, reductions };
    tasks = [...shares.flatMap(({ rest }) => rest), ...taskInMail(control)];
    const larger = SharedFingerprints.allocate(bits);
    new SharedFingerprints(larger).addAll(new SharedFingerprints(table));
    table = larger;
  }
}

function summary(round: Round, preemptions: number, found: readonly FoundViolation[]): SearchResult {
  const { results, states, stopped, reductions } = round;
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
    reductions,
  };
}

/** Has every worker do its share of some tasks. Throws an `Error` with the message of a worker that failed. */
async function shareOut<Spec>(
  workers: readonly Worker[],
  options: ParallelOptions<Spec>,
  request: Omit<ShareRequest<Spec>, "jobs" | "worker" | "tasks">,
  tasks: readonly Task[],
): Promise<readonly ShareResult[]> {
  const control = new Int32Array(request.control);
  const { bounds, statesBefore } = request;
  const replies = workers.map((worker, number) => {
    const own = tasks.filter((_, k) => k % workers.length === number);
    return answer(worker, { ...request, jobs: workers.length, worker: number, tasks: own });
  });
  let waiting = true;
  const all = Promise.all(replies).finally(() => waiting = false);
  const watch = async () => {
    while (waiting) {
      await new Promise((resolve) => setTimeout(resolve, POLL_MS));
      const states = statesBefore + statesOf(control, workers.length);
      const frontier = control[CONTROL.WORKERS + 1];
      const progress = { states, transitions: 0, frontier, preemptions: bounds.preemptions };
      if (options.progress?.(progress)) stop(control, STOPPED.INTERRUPTED);
    }
  };
  const [answers] = await Promise.all([all, watch()]);
  return answers.map((reply) => {
    if ("failure" in reply) throw new Error(reply.failure);
    return reply.result;
  });
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
