/**
 * The module that the workers of `explain` run: one combination of policies after the other.
 *
 * @module
 */
import { BadInput } from "../memory/bad_input.ts";
import { explainCombination, type ExplainRequest, type Explanation } from "./explain.ts";

/** A request to a worker. */
export interface ExplainTask {
  readonly request: ExplainRequest;
  /** A word that is not 0 once the work is to end. */
  readonly stop: SharedArrayBuffer;
}

/** What a worker answers. */
export type ExplainReply =
  | { readonly kind: "done"; readonly explanation: Explanation }
  | { readonly kind: "failed"; readonly message: string; readonly badInput: boolean };

/** The part of a worker's global scope that is used here. */
interface WorkerScope {
  onmessage: ((event: MessageEvent<ExplainTask>) => void) | null;
  postMessage(reply: ExplainReply): void;
}

if ("DedicatedWorkerGlobalScope" in globalThis) {
  const scope = globalThis as unknown as WorkerScope;
  scope.onmessage = ({ data: { request, stop } }) => {
    const word = new Int32Array(stop);
    try {
      const explanation = explainCombination(request, () => Atomics.load(word, 0) !== 0);
      scope.postMessage({ kind: "done", explanation });
    } catch (error) {
      const message = error instanceof Error ? error.message : String(error);
      scope.postMessage({ kind: "failed", message, badInput: error instanceof BadInput });
    }
  };
}
