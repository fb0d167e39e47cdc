/**
 * The last steps of a machine that has ended: exits that are being handled are completed, so that registers, counts and
 * exit records are those between two instructions of the guest.
 *
 * @module
 */
import type { Agent } from "../memory/agent.ts";

/** Most rounds over a worker's agents; an exit takes some dozens of steps. */
const ROUNDS_MAX = 4096;

/**
 * Lets agents of a machine that has been asked to shut down go on until each has left or waits for somebody. A guest
 * leaves instead of executing an instruction.
 */
export function settle(agents: readonly Agent[]): void {
  for (let round = 0; round < ROUNDS_MAX; round++) {
    let taken = 0;
    for (const agent of agents) taken += agent.takeSteps(1);
    if (taken === 0) return;
  }
}
