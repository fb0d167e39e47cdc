/**
 * What each combination of a scenario's policies has to say of an observation, spread over workers. A combination that
 * differs from one that was looked at only in policies that nothing consulted is not looked at again.
 *
 * @module
 */
import { BadInput } from "../memory/bad_input.ts";
import type { ExplainRequest, Explanation } from "./explain.ts";
import type { ExplainReply, ExplainTask } from "./explain_worker.ts";
import "./explain_worker.ts"; // the workers' module: part of the program, so that a compiled binary has it
import { type Choices, combinations, type Scenario } from "./scenario.ts";

/** One combination and what it has to say. */
export interface ExplainRow {
  readonly policies: Choices;
  readonly explanation: Explanation;
}

/** How far it is. */
export interface ExplainProgress {
  /** Combinations that are known, and all of them. */
  readonly done: number;
  readonly of: number;
  readonly states: number;
}

/** How it is done. */
export interface ExplainOptions {
  readonly jobs: number;
  /** Policies that are not varied. */
  readonly fixed: Choices;
  /** Ends the work; what is not known then has hit a bound. */
  readonly signal: AbortSignal;
  readonly onProgress: (progress: ExplainProgress) => void;
}

const UNKNOWN: Explanation = {
  possible: null,
  guest: null,
  device: null,
  schedule: null,
  reason: "not looked at",
  consulted: [],
  states: 0,
};

/** What was asked and is known. */
interface Done {
  readonly policies: Choices;
  readonly explanation: Explanation;
}

/** Explains every combination. Throws `BadInput` for a malformed expression. */
export async function explainScenario(
  scenario: Scenario,
  request: Omit<ExplainRequest, "policies">,
  options: ExplainOptions,
): Promise<ExplainRow[]> {
  const { fixed, signal, jobs, onProgress } = options;
  const all = combinations(scenario).filter((chosen) =>
    Object.entries(fixed).every(([policy, value]) => chosen[policy] === value)
  );
  const simplest = scenario.policies.map(({ policy, values }) => [policy, fixed[policy] ?? values[0]]);
  const changed = (chosen: Choices) => simplest.filter(([policy, value]) => chosen[policy] !== value).length;
  const todo = [...all].sort((a, b) => changed(a) - changed(b));
  const done: Done[] = [];
  const known = (policies: Choices) =>
    done.find(({ policies: other, explanation: { consulted } }) =>
      consulted.every((name) => other[name] === policies[name])
    );
  const stop = new SharedArrayBuffer(4);
  const halt = () => Atomics.store(new Int32Array(stop), 0, 1);
  if (signal.aborted) halt();
  signal.addEventListener("abort", halt);
  const serve = async (worker: Worker): Promise<void> => {
    for (let policies = todo.shift(); policies !== undefined && !signal.aborted; policies = todo.shift()) {
      if (known(policies) !== undefined) continue;
      const explanation = await ask(worker, { request: { ...request, policies }, stop });
      // What was interrupted says nothing about other combinations.
      const consulted = signal.aborted ? Object.keys(policies) : explanation.consulted;
      done.push({ policies, explanation: { ...explanation, consulted } });
      const states = done.reduce((sum, of) => sum + of.explanation.states, 0);
      onProgress({ done: all.filter((other) => known(other) !== undefined).length, of: all.length, states });
    }
  };
  const workers = Array.from({ length: Math.min(jobs, all.length) }, startWorker);
  try {
    await Promise.all(workers.map(serve));
  } finally {
    signal.removeEventListener("abort", halt);
    for (const worker of workers) worker.terminate();
  }
  return all.map((policies) => ({ policies, explanation: known(policies)?.explanation ?? UNKNOWN }));
}

function startWorker(): Worker {
  return new Worker(new URL("./explain_worker.ts", import.meta.url), { type: "module", name: "explain" });
}

function ask(worker: Worker, task: ExplainTask): Promise<Explanation> {
  return new Promise((resolve, reject) => {
    worker.onmessage = ({ data }: MessageEvent<ExplainReply>) => {
      if (data.kind === "done") resolve(data.explanation);
      else reject(data.badInput ? new BadInput(data.message) : new Error(data.message));
    };
    worker.onerror = (event) => {
      event.preventDefault();
      reject(new Error(event.message));
    };
    worker.postMessage(task);
  });
}
