/**
 * The module that every worker runs: it is sent a machine's configuration and memory, runs its agents, and says when it
 * has left.
 *
 * @module
 */
import { numberPolicies } from "../memory/policy.ts";
import { stepName } from "../memory/steps.ts";
import type { MachineConfig } from "./config.ts";
import { Machine } from "./machine.ts";
import { AgentFailed, runWorker } from "./worker_loop.ts";

/** What a worker is sent. */
export interface WorkerTask {
  /** The machine's configuration. */
  readonly config: MachineConfig;
  /** The machine's memory. */
  readonly memory: WebAssembly.Memory;
  /** Which worker this is. */
  readonly worker: number;
  /** The policies in the order of their numbers in the machine's policy area. */
  readonly policies: readonly string[];
}

/** What a worker answers, once. */
export type WorkerReport =
  | {
    readonly worker: number;
    readonly kind: "left";
    /** Instructions that it met and that are not implemented, with how often. */
    readonly unimplemented: ReadonlyMap<string, number>;
  }
  | {
    readonly worker: number;
    readonly kind: "failed";
    readonly agent: string;
    readonly step: string;
    readonly message: string;
  };

/** The part of a worker's global scope that this module uses. */
interface WorkerScope {
  onmessage: ((event: MessageEvent<WorkerTask>) => void) | null;
  postMessage(report: WorkerReport): void;
  close(): void;
}

/** Runs a worker's share of a machine and describes how that ended. */
function work(task: WorkerTask): WorkerReport {
  const { worker } = task;
  let machine: Machine | undefined;
  try {
    numberPolicies(task.policies);
    machine = Machine.attach(task.config, task.memory);
    runWorker(machine, worker);
    return { worker, kind: "left", unimplemented: machine.unimplemented(worker) };
  } catch (error) {
    if (error instanceof AgentFailed) {
      const { agent: { name, step }, message } = error;
      return { worker, kind: "failed", agent: name, step: stepName(step), message };
    }
    const message = error instanceof Error ? error.stack ?? error.message : String(error);
    return { worker, kind: "failed", agent: "", step: "", message };
  }
}

// The main thread imports this module as well, so that a compiled binary embeds it; only a worker runs it.
if ("DedicatedWorkerGlobalScope" in globalThis) {
  const scope = globalThis as unknown as WorkerScope;
  scope.onmessage = (event) => {
    scope.postMessage(work(event.data));
    scope.close();
  };
}
