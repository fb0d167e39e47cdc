/**
 * A worker's share of a parallel search: it takes parts of the search that others give away, and gives parts away itself
 * as soon as somebody has nothing to do.
 *
 * @module
 */
import type { Choice } from "./engine.ts";
import { Engine } from "./engine.ts";
import type { Behaviour } from "./behaviour.ts";
import { ExhaustiveScheduler, type SearchBounds, type Task } from "./exhaustive.ts";
import { explore } from "./explorer.ts";
import { learnThoroughly } from "./search.ts";
import { SharedFingerprints } from "./shared_fingerprints.ts";
import type { MemoryModel, System } from "./system.ts";

/** Words of the control block that the workers share. */
export const CONTROL = {
  /** One of {@linkcode STOPPED}. */
  STOP: 0,
  /** Workers that have nothing to do. */
  IDLE: 1,
  /** State of the mailbox: one of `MAIL`. */
  MAIL: 2,
  /** Choices of the task in the mailbox. */
  LENGTH: 3,
  /** Actors of that task. */
  TODO: 4,
  /** Properties that were violated so far, as a mask over the properties that are asked for. */
  VIOLATED: 5,
  /** First of a pair of words for each worker: states that it has added, and its present depth. */
  WORKERS: 8,
} as const;

/** Why the workers stop. */
export const STOPPED = { NO: 0, DONE: 1, TABLE_FULL: 2, INTERRUPTED: 3, ALL_VIOLATED: 4, BOUND: 5, STALE: 6 } as const;

/** States of the mailbox. */
const MAIL = { EMPTY: 0, WRITING: 1, FULL: 2, TAKING: 3 } as const;

/** Workers at most. */
export const JOBS_MAX = 64;
const CHOICES = CONTROL.WORKERS + 2 * JOBS_MAX;
/** Choices that fit into the mailbox; a search that is deeper is not given away there. */
const MAIL_CHOICES = 1 << 16;
/** Bits of an outcome in the mailbox; the actor is above them. */
const OUTCOME_BITS = 24;
/** Bytes of the control block. */
export const CONTROL_BYTES: number = (CHOICES + MAIL_CHOICES) * 4;
/** Longest wait for mail in milliseconds, so that a worker whose partner died ends. */
const WAIT_MS = 50;

/** What a worker is sent. `spec` is for the caller's function that builds the system. */
export interface ShareRequest<Spec = unknown> {
  readonly spec: Spec;
  readonly memoryModel: MemoryModel;
  readonly bounds: SearchBounds;
  /** Names of the properties to check. */
  readonly properties: readonly string[];
  readonly until: "all" | "first" | "never";
  readonly jobs: number;
  /** Number of this worker, from 0. */
  readonly worker: number;
  /** What it is to begin with. */
  readonly tasks: readonly Task[];
  /** Steps from which to learn for persistent sets; 0 for a search without them. */
  readonly learning: number;
  /** States that were found with earlier tables. */
  readonly statesBefore: number;
  readonly control: SharedArrayBuffer;
  readonly table: SharedArrayBuffer;
}

/** A violation as workers report it. */
export interface SharedViolation {
  readonly property: string;
  readonly kind: string;
  readonly choices: readonly Choice[];
}

/** What a worker reports when it is done. */
export interface ShareResult {
  readonly violations: readonly SharedViolation[];
  readonly transitions: number;
  readonly schedules: number;
  readonly depth: number;
  readonly preemptionsLeftOut: boolean;
  readonly depthHit: boolean;
  /** What was left when somebody stopped the search. */
  readonly rest: readonly Task[];
  /** Whether no execution can go on for ever, by what this worker knows. */
  readonly acyclic: boolean;
}

/** A system, and what is known of it. */
export interface Learned {
  readonly system: System;
  readonly engine: Engine;
  readonly behaviour: Behaviour | undefined;
}

/** Learns what a request says of a system. */
export function learnFor(system: System, request: ShareRequest): Learned {
  const engine = new Engine(system, request.memoryModel);
  const control = new Int32Array(request.control);
  const learn = () => learnThoroughly(engine, request.learning, () => isStopped(control));
  return { system, engine, behaviour: request.learning > 0 ? learn() : undefined };
}

/** Does a worker's share of a search, until all of it is done or somebody stops it. */
export function doShare({ system, engine, behaviour }: Learned, request: ShareRequest): ShareResult {
  const control = new Int32Array(request.control);
  const table = new SharedFingerprints(request.table);
  const properties = system.properties.filter(({ name }) => request.properties.includes(name));
  const violations: SharedViolation[] = [];
  const rest: Task[] = [];
  engine.recording = behaviour !== undefined;
  const total = { transitions: 0, schedules: 0, depth: 0, preemptionsLeftOut: false, depthHit: false };
  const reductions = { fingerprints: true, persistentSets: behaviour !== undefined, sleepSets: false };
  const own = [...request.tasks];
  const next = () => isStopped(control) ? undefined : own.shift() ?? nextTask(control, request.jobs);
  for (let task = next(); task !== undefined; task = next()) {
    // The bound on states counts all workers' together; it is looked at below.
    const bounds = { ...request.bounds, states: Infinity, memoryBytes: Infinity };
    const scheduler = new ExhaustiveScheduler(engine, bounds, reductions, { states: table, task, behaviour });
    const missing = properties.filter(({ name }) => !violations.some(({ property }) => property === name));
    const result = explore(engine, scheduler, {
      properties: missing,
      until: request.until,
      interrupted: () => {
        if (Atomics.load(control, CONTROL.IDLE) > 0) give(control, () => scheduler.donate(engine, MAIL_CHOICES));
        control[CONTROL.WORKERS + 2 * request.worker] = table.size;
        control[CONTROL.WORKERS + 2 * request.worker + 1] = engine.depth;
        lookAtBounds(control, request, table.capacity);
        if (isStale(behaviour)) stop(control, STOPPED.STALE);
        return isStopped(control);
      },
    });
    if (result.interrupted) rest.push(...scheduler.rest(engine));
    if (isStale(behaviour)) stop(control, STOPPED.STALE);
    for (const { property, kind, choices } of result.violations) {
      violations.push({ property: property.name, kind, choices });
      const number = request.properties.indexOf(property.name);
      const seen = Atomics.or(control, CONTROL.VIOLATED, 1 << number) | 1 << number;
      const all = request.until === "all" && seen === (1 << request.properties.length) - 1;
      if (all || request.until === "first") stop(control, STOPPED.ALL_VIOLATED);
    }
    total.transitions += result.transitions;
    total.schedules += result.schedules;
    total.depth = Math.max(total.depth, result.depth);
    total.preemptionsLeftOut ||= scheduler.preemptionsLeftOut;
    total.depthHit ||= scheduler.hit.has("depth");
    control[CONTROL.WORKERS + 2 * request.worker] = table.size;
  }
  engine.recording = false;
  return { violations, ...total, rest: [...rest, ...own], acyclic: behaviour?.acyclic === true };
}

/** Whether something was seen that is at odds with what all workers know. */
function isStale(behaviour: Behaviour | undefined): boolean {
  return behaviour !== undefined && (behaviour.stale || behaviour.broken);
}

function isStopped(control: Int32Array<SharedArrayBuffer>): boolean {
  return Atomics.load(control, CONTROL.STOP) !== STOPPED.NO;
}

/** Ends the search for a reason; the first one stays. */
export function stop(control: Int32Array<SharedArrayBuffer>, reason: number): void {
  Atomics.compareExchange(control, CONTROL.STOP, STOPPED.NO, reason);
  Atomics.notify(control, CONTROL.MAIL);
}

/** What a worker answers to a request. */
export type ShareReply = { readonly result: ShareResult } | { readonly failure: string };

/** The part of a worker's global scope that is used here. */
interface WorkerScope {
  onmessage: ((event: MessageEvent<ShareRequest | "leave">) => void) | null;
  postMessage(reply: ShareReply): void;
  close(): void;
}

/**
 * Makes the present worker answer requests for shares of searches, until it is told to leave. `build` makes the system that
 * a request's `spec` stands for: in the same initial state in every worker, with the same agents in the same order. Does
 * nothing outside a worker, so that the module that calls it can be part of the main program as well.
 */
export function serveShares<Spec>(build: (spec: Spec) => System): void {
  if (!("DedicatedWorkerGlobalScope" in globalThis)) return;
  const scope = globalThis as unknown as WorkerScope;
  let learned: Learned | undefined;
  let learnedFor = "";
  scope.onmessage = ({ data }) => {
    if (data === "leave") return scope.close();
    try {
      const request = JSON.stringify([data.spec, data.memoryModel, data.learning]);
      if (learned === undefined || request !== learnedFor) learned = learnFor(build(data.spec as Spec), data);
      // Who was stopped while learning knows less than the others, and must not go on with it.
      learnedFor = isStopped(new Int32Array(data.control)) ? "" : request;
      scope.postMessage({ result: doShare(learned, data) });
    } catch (error) {
      stop(new Int32Array(data.control), STOPPED.INTERRUPTED);
      scope.postMessage({ failure: error instanceof Error ? error.message : String(error) });
    }
  };
}

/** States that all workers have added so far. */
export function statesOf(control: Int32Array<SharedArrayBuffer>, jobs: number): number {
  let states = 0;
  for (let worker = 0; worker < jobs; worker++) states += control[CONTROL.WORKERS + 2 * worker];
  return states;
}

function lookAtBounds(control: Int32Array<SharedArrayBuffer>, request: ShareRequest, capacity: number): void {
  const states = statesOf(control, request.jobs);
  if (states + request.statesBefore > request.bounds.states) stop(control, STOPPED.BOUND);
  if (states + request.statesBefore > capacity) stop(control, STOPPED.TABLE_FULL);
}

/** Puts a task into the mailbox, if it is empty and there is one to give. */
function give(control: Int32Array<SharedArrayBuffer>, donate: () => Task | undefined): void {
  if (Atomics.compareExchange(control, CONTROL.MAIL, MAIL.EMPTY, MAIL.WRITING) !== MAIL.EMPTY) return;
  const task = donate();
  if (task !== undefined) {
    control[CONTROL.LENGTH] = task.choices.length;
    control[CONTROL.TODO] = task.todo;
    task.choices.forEach(({ actor, outcome }, k) => control[CHOICES + k] = actor << OUTCOME_BITS | outcome);
  }
  Atomics.store(control, CONTROL.MAIL, task === undefined ? MAIL.EMPTY : MAIL.FULL);
  Atomics.notify(control, CONTROL.MAIL);
}

/** The next task that somebody gives; waits for one. Nothing when the search is over. */
function nextTask(control: Int32Array<SharedArrayBuffer>, jobs: number): Task | undefined {
  Atomics.add(control, CONTROL.IDLE, 1);
  for (;;) {
    if (isStopped(control)) return undefined;
    if (Atomics.compareExchange(control, CONTROL.MAIL, MAIL.FULL, MAIL.TAKING) === MAIL.FULL) {
      const task = readMail(control);
      Atomics.sub(control, CONTROL.IDLE, 1); // before the mailbox is empty: else all might seem idle
      Atomics.store(control, CONTROL.MAIL, MAIL.EMPTY);
      return task;
    }
    // With the mailbox held and empty, nobody is giving or taking: if all are idle now, nothing is left.
    if (Atomics.compareExchange(control, CONTROL.MAIL, MAIL.EMPTY, MAIL.TAKING) === MAIL.EMPTY) {
      const over = Atomics.load(control, CONTROL.IDLE) === jobs;
      Atomics.store(control, CONTROL.MAIL, MAIL.EMPTY);
      if (over) stop(control, STOPPED.DONE);
    }
    if (!isStopped(control)) Atomics.wait(control, CONTROL.MAIL, MAIL.EMPTY, WAIT_MS);
  }
}

function readMail(control: Int32Array<SharedArrayBuffer>): Task {
  const choices = Array.from(control.subarray(CHOICES, CHOICES + control[CONTROL.LENGTH]), (word): Choice => {
    return { actor: word >>> OUTCOME_BITS, outcome: word & ((1 << OUTCOME_BITS) - 1) };
  });
  return { choices, todo: control[CONTROL.TODO] };
}

/** The task that nobody has taken out of the mailbox; when all workers have stopped. */
export function taskInMail(control: Int32Array<SharedArrayBuffer>): Task[] {
  return control[CONTROL.MAIL] === MAIL.FULL ? [readMail(control)] : [];
}
