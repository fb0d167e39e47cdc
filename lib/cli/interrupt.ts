/**
 * Ctrl-C, for commands that have something to finish first.
 *
 * @module
 */

import { EXIT } from "./exit_codes.ts";

/**
 * Runs `body` with a signal that Ctrl-C aborts; a second Ctrl-C ends the process at once.
 *
 * @param body What may be interrupted; it looks at the signal and returns early.
 * @returns What `body` returns.
 */
export async function interruptible<T>(body: (signal: AbortSignal) => Promise<T>): Promise<T> {
  const controller = new AbortController();
  const onInterrupt = () => {
    if (controller.signal.aborted) Deno.exit(EXIT.INTERRUPTED);
    controller.abort();
  };
  Deno.addSignalListener("SIGINT", onInterrupt);
  try {
    return await body(controller.signal);
  } finally {
    Deno.removeSignalListener("SIGINT", onInterrupt);
  }
}
