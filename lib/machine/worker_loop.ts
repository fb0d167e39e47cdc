/**
 * What a worker does: it takes steps of the agents that live on its processor until the machine shuts down.
 *
 * @module
 */
import type { Agent } from "../memory/agent.ts";
import { Doorbell } from "./doorbell.ts";
import { takeFusedSteps } from "./fused_steps.ts";
import type { Machine } from "./machine.ts";
import { settle } from "./settle.ts";

/** Steps taken of one agent before the worker looks at timers, at its other agents and at the shutdown word. */
const STEPS_PER_TURN = 256;
/** Looks for work before a worker sleeps, when every worker can have a core of its own. */
const SPINS = 2000;
/** Looks for work when there are more workers than cores: who spins keeps another from making the work. */
const SPINS_CROWDED = 8;
/** Longest sleep in milliseconds; a bound for a wake-up that should never be lost. */
const SLEEP_MS_MAX = 100;
/** Nanoseconds in a millisecond. */
const NS_PER_MS = 1e6;

/** Runs the agents of `worker` until the machine's shutdown word is set. */
export function runWorker(machine: Machine, worker: number): void {
  const agents = machine.agents(worker);
  const doorbell = new Doorbell(machine.memory, machine.doorbell(worker));
  const spins = machine.workers <= navigator.hardwareConcurrency ? SPINS : SPINS_CROWDED;
  let idle = 0;
  while (!machine.shutdown) {
    if (takeTurn(machine, agents)) {
      idle = 0;
    } else if (++idle > spins) {
      doorbell.sleep(() => machine.shutdown || agents.some((agent) => agent.enabled), sleepMs(machine, agents));
      idle = 0;
    }
  }
  settle(agents);
}

/** Gives each agent a turn; returns whether any took a step. */
function takeTurn(machine: Machine, agents: readonly Agent[]): boolean {
  let progress = false;
  for (const agent of agents) {
    if (takeFusedSteps(agent, STEPS_PER_TURN) > 0) progress = true;
    machine.poll(agent);
  }
  return progress;
}

/** How long the worker may sleep before one of its timers is due. */
function sleepMs(machine: Machine, agents: readonly Agent[]): number {
  let deadline = Infinity;
  for (const agent of agents) deadline = Math.min(deadline, machine.nextDeadline(agent));
  return Math.max(0, Math.min(SLEEP_MS_MAX, (deadline - machine.clock.now()) / NS_PER_MS));
}
