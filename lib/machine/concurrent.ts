/**
 * The concurrent runtime: one worker per processor (in a large machine for several of them, see `seats.ts`), meeting only
 * in the shared memory.
 *
 * Workers leave by the shutdown word, never by `terminate()`, which does not stop a busy worker on every Deno version.
 *
 * @module
 */
import { policyOrder } from "../memory/policy.ts";
import { stepName } from "../memory/steps.ts";
import { Doorbell } from "./doorbell.ts";
import { END } from "./header.ts";
import type { Machine } from "./machine.ts";
import type { WorkerReport, WorkerTask } from "./worker.ts";
import "./worker.ts";

/** Milliseconds between two looks of the main thread at the machine. */
const POLL_MS = 2;
/** Milliseconds without a step of an agent that could take one, after which the run is ended as stuck. */
const STANDSTILL_MS = 5_000;
/** The same for the first step: many workers take their time to load their modules on few cores. */
const START_MS = 60_000;
/** Milliseconds that workers are given to leave. */
const LEAVE_MS = 2_000;

/** How a concurrent run ended, beyond what the machine's header says. */
export interface ConcurrentResult {
  /** What went wrong in a worker or stood still: agent, step and message, one line each. */
  readonly problems: readonly string[];
  /** Whether every worker has left; if not, the process must be ended with `Deno.exit`. */
  readonly clean: boolean;
  /** Instructions that guests used and that are not implemented, with how often; of the workers that left. */
  readonly unimplemented: ReadonlyMap<string, number>;
}

/** Runs a machine's workers. */
export class ConcurrentRuntime {
  readonly machine: Machine;
  readonly #problems: string[] = [];
  readonly #workers: Worker[] = [];
  readonly #unimplemented = new Map<string, number>();
  #left = 0;

  readonly #standstillMs: number;

  /**
   * A runtime over `machine`, whose memory is initialised and whose guest is loaded. `standstillMs` is how many milliseconds
   * an agent that could take a step may go without one.
   */
  constructor(machine: Machine, standstillMs: number = STANDSTILL_MS) {
    this.machine = machine;
    this.#standstillMs = standstillMs;
  }

  /** Runs until the machine ends; `onPoll` is called every few milliseconds, for output and limits. */
  async run(onPoll?: () => void): Promise<ConcurrentResult> {
    const { machine } = this;
    machine.clock.start();
    for (let worker = 0; worker < machine.workers; worker++) this.#start(worker);
    const watchdog = new Watchdog(machine, this.#standstillMs);
    while (machine.end === END.NONE && this.#left === 0) {
      await delay(POLL_MS);
      onPoll?.();
      if (machine.allHalted()) machine.finish(END.HALT, 0);
      const stuck = watchdog.check();
      if (stuck !== undefined) {
        this.#problems.push(stuck);
        machine.finish(END.STUCK, 0);
      }
    }
    machine.requestShutdown();
    for (let worker = 0; worker < machine.workers; worker++) {
      new Doorbell(machine.memory, machine.doorbell(worker)).ring();
    }
    for (let waited = 0; this.#left < machine.workers && waited < LEAVE_MS; waited += POLL_MS) {
      await delay(POLL_MS);
      onPoll?.();
    }
    onPoll?.();
    return {
      problems: this.#problems,
      clean: this.#left === machine.workers,
      unimplemented: this.#unimplemented,
    };
  }

  #start(worker: number): void {
    const { machine } = this;
    const created = new Worker(new URL("./worker.ts", import.meta.url), {
      type: "module",
      name: workerName(machine, worker),
    });
    created.onmessage = (event: MessageEvent<WorkerReport>) => this.#report(event.data);
    created.onerror = (event) => {
      event.preventDefault();
      this.#report({ worker, kind: "failed", agent: "", step: "", message: event.message });
    };
    const task: WorkerTask = { config: machine.config, memory: machine.memory.wasm, worker, policies: policyOrder() };
    created.postMessage(task);
    this.#workers.push(created);
  }

  #report(report: WorkerReport): void {
    this.#left++;
    if (report.kind === "left") {
      for (const [name, times] of report.unimplemented) {
        this.#unimplemented.set(name, (this.#unimplemented.get(name) ?? 0) + times);
      }
      return;
    }
    this.machine.finish(END.WORKER_FAILED, 0);
    const where = report.agent === "" ? `worker ${report.worker}` : `${report.agent} in ${report.step}`;
    this.#problems.push(`${where}: ${report.message}`);
  }
}

/** Notices agents that could take a step and do not. */
class Watchdog {
  readonly #machine: Machine;
  readonly #limitMs: number;
  readonly #seen: { steps: number; since: number }[];

  constructor(machine: Machine, limitMs: number) {
    this.#machine = machine;
    this.#limitMs = limitMs;
    this.#seen = Array.from({ length: machine.workers }, () => ({ steps: -1, since: performance.now() }));
  }

  /** One line about a processor without progress, or nothing. */
  check(): string | undefined {
    const now = performance.now();
    for (let worker = 0; worker < this.#seen.length; worker++) {
      const seen = this.#seen[worker];
      const { steps, waiting, agent, step } = this.#machine.progress(worker);
      if (steps !== seen.steps || waiting) {
        seen.steps = steps;
        seen.since = now;
      } else if (now - seen.since > (steps === 0 ? START_MS : this.#limitMs)) {
        const seconds = Math.round(now - seen.since) / 1000;
        return `${agent} made no progress for ${seconds} s in step ${stepName(step)}`;
      }
    }
    return undefined;
  }
}

/** The name of a worker, as a debugger shows it: its VP when that has it alone. */
function workerName(machine: Machine, worker: number): string {
  const seats = machine.seatsOf(worker);
  return seats.length === 1 && seats[0] < machine.config.vps ? `vp${seats[0]}` : `worker${worker}`;
}

/** Resolves after `milliseconds`. */
function delay(milliseconds: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, milliseconds));
}
