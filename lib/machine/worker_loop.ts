/**
 * What a worker does: it takes steps of the agents that live on it until the machine shuts down. They are those of one
 * processor, or in a large machine of several (`seats.ts`).
 *
 * While there is work, the agents get their turns one after the other. While there is none, the worker spins: it looks
 * again and again at the agent that began the last work (an interrupt's handler, a parked processor), and at one of the
 * others each time. After a while it sleeps on its doorbell. A worker never sleeps before it has found every agent waiting.
 *
 * A guest that waits for another processor in a loop of PAUSEs is work without end. Where others wait for its worker or its
 * core, such a guest has short turns, and a worker that has nothing else to do leaves its core for a moment from time to time.
 *
 * @module
 */
import type { Cpu } from "../cpu/cpu.ts";
import { VirtualProcessor } from "../hypervisor/virtual_processor.ts";
import type { Agent } from "../memory/agent.ts";
import { Doorbell, DoorbellWords } from "./doorbell.ts";
import { StepRunner } from "./fused_steps.ts";
import type { Machine } from "./machine.ts";
import { settle } from "./settle.ts";

/** Steps taken of one agent before the worker looks at timers, at its other agents and at the shutdown word. */
const STEPS_PER_TURN = 256;
/** The same of a processor that shares its worker with others: a step of a guest that computes takes long. */
const STEPS_PER_SHARED_TURN = 16;
/** Looks for work before a worker sleeps, when every worker can have a core of its own. */
const SPINS = 4000;
/** Looks for work when there are more workers than cores: who spins keeps another from making the work. */
const SPINS_CROWDED = 32;
/**
 * PAUSEs of a guest after which its step ends, when its worker or its core has other work: it waits for another processor.
 * Short delays and locks that are soon free take less.
 */
const PAUSES_MAX = 128;
/** The same of a guest whose last step ended so, and steps of its turn: most often it waits still. */
const PAUSES_AGAIN = 16;
const STEPS_AGAIN = 1;
/** Turns without any use after which a worker leaves its core to others: when there are enough cores, and when not. */
const USELESS_TURNS = 512;
const USELESS_TURNS_CROWDED = 2;
/** Milliseconds for which it does. */
const PAUSE_MS = 0.2;
/** Turns between two looks at the timers, beside those after every turn of a processor. */
const TURNS_PER_POLL = 16;
/** Longest sleep in milliseconds; a bound for a wake-up that should never be lost. */
const SLEEP_MS_MAX = 100;
/** Nanoseconds in a millisecond. */
const NS_PER_MS = 1e6;

/** Runs the agents of `worker` until the machine's shutdown word is set. */
export function runWorker(machine: Machine, worker: number): void {
  const loop = new WorkerLoop(machine, worker);
  try {
    while (!machine.shutdown) loop.turn();
    loop.settle();
  } catch (error) {
    throw new AgentFailed(loop.agent, error);
  }
}

/** A step of an agent has thrown. */
export class AgentFailed extends Error {
  /** The agent, which stands at that step. */
  readonly agent: Agent;

  /** The failure of a step of `agent`. */
  constructor(agent: Agent, cause: unknown) {
    super(cause instanceof Error ? cause.stack ?? cause.message : String(cause), { cause });
    this.agent = agent;
  }
}

/** A worker's loop, turn by turn. */
export class WorkerLoop {
  readonly #machine: Machine;
  readonly #agents: readonly Agent[];
  readonly #runners: readonly StepRunner[];
  /** Most steps of each agent's turn. */
  readonly #steps: readonly number[];
  /** The CPU of each agent that is a processor. */
  readonly #cpus: readonly (Cpu | undefined)[];
  /** The processors whose timers the worker looks after: more than one agent may stand for a processor. */
  readonly #processors: readonly VirtualProcessor[];
  readonly #doorbell: Doorbell;
  readonly #i32: Int32Array<SharedArrayBuffer>;
  /** Index of the word that says whose turn it is. */
  readonly #turn: number;
  readonly #spins: number;
  /** Turns without any use after which the worker gives way. */
  readonly #uselessMax: number;
  /** Turns since the last one of use: those of waiting agents, and of processors whose guests wait in a loop of PAUSEs. */
  #useless = 0;
  /** The agent whose turn is next. */
  #next = 0;
  /** The agent that began the last work. */
  #watched = 0;
  /** Agents found waiting since the last step of any. */
  #waiting = 0;
  /** Looks for work since the last step. */
  #idle = 0;
  /** Turns since the last look at the timers. */
  #unpolled = 0;

  /** The loop of worker number `worker`, which looks for work `spins` times before it sleeps. */
  constructor(machine: Machine, worker: number, spins: number = spinsOf(machine)) {
    this.#machine = machine;
    this.#agents = machine.workerAgents(worker);
    this.#runners = this.#agents.map((agent) => new StepRunner(agent));
    const shared = this.#agents.length > 1;
    this.#steps = this.#agents.map((agent) =>
      agent instanceof VirtualProcessor && shared ? STEPS_PER_SHARED_TURN : STEPS_PER_TURN
    );
    this.#cpus = this.#agents.map((agent) => agent instanceof VirtualProcessor ? agent.cpu : undefined);
    const crowded = isCrowded(machine);
    this.#uselessMax = Math.max(this.#agents.length, crowded ? USELESS_TURNS_CROWDED : USELESS_TURNS);
    const seen = new Set<number>();
    const processors = this.#agents.filter((agent) => agent instanceof VirtualProcessor);
    this.#processors = processors.filter(({ index }) => !seen.has(index) && seen.add(index));
    const others = this.#processors.length > 1 || processors.length < this.#agents.length;
    if (others || crowded) { for (const { cpu } of processors) cpu.pauseLimit = PAUSES_MAX; }
    this.#doorbell = new Doorbell(machine.memory, machine.doorbell(worker));
    this.#i32 = machine.memory.i32;
    this.#turn = (machine.doorbell(worker) + DoorbellWords.at.turn) >>> 2;
    this.#spins = spins;
  }

  /** The agent that had its turn last. */
  get agent(): Agent {
    const agents = this.#agents;
    return agents[(this.#next + agents.length - 1) % agents.length];
  }

  /** Gives the next agent a turn, or looks for work, or sleeps. */
  turn(): void {
    const runners = this.#runners;
    const idle = this.#waiting >= runners.length;
    const found = idle && runners[this.#watched].enabled;
    if (found) this.#next = this.#watched;
    const index = this.#next;
    this.#next = index + 1 < runners.length ? index + 1 : 0;
    const runner = runners[index];
    if (++this.#unpolled === TURNS_PER_POLL) this.#poll();
    this.#i32[this.#turn] = index;
    const cpu = this.#cpus[index];
    if (
      (found || runner.enabled) && runner.take(cpu === undefined ? this.#steps[index] : this.#stepsOf(index, cpu)) > 0
    ) {
      if (idle) this.#watched = index;
      this.#waiting = 0;
      this.#idle = 0;
      if (cpu === undefined) {
        this.#useless = 0;
        return;
      }
      this.#machine.poll(runner.agent);
      if (!cpu.pausing) this.#useless = 0;
      else if (++this.#useless > this.#uselessMax) this.#giveWay();
      return;
    }
    this.#useless++;
    if (this.#waiting < runners.length) {
      this.#waiting++;
      return;
    }
    if (++this.#idle > this.#spins) this.#sleep();
  }

  /** How many steps the processor `index` may take, whose guest executes in `cpu`. */
  #stepsOf(index: number, cpu: Cpu): number {
    if (cpu.pauseLimit === 0) return this.#steps[index];
    const again = cpu.pausing;
    cpu.pauseLimit = again ? PAUSES_AGAIN : PAUSES_MAX;
    cpu.pauses = 0;
    return again ? STEPS_AGAIN : this.#steps[index];
  }

  /** Takes the last steps of a machine that has ended. */
  settle(): void {
    settle(this.#agents);
  }

  #poll(): void {
    this.#unpolled = 0;
    for (const processor of this.#processors) this.#machine.poll(processor);
  }

  /** Every guest of this worker that could go on waits for another processor: leaves the core to that for a moment. */
  #giveWay(): void {
    this.#useless = 0;
    this.#doorbell.sleep(() => this.#machine.shutdown, Math.min(PAUSE_MS, this.#sleepMs()));
  }

  #sleep(): void {
    const machine = this.#machine;
    this.#poll();
    this.#doorbell.sleep(() => machine.shutdown || this.#runners.some((runner) => runner.enabled), this.#sleepMs());
    this.#poll();
    this.#waiting = 0;
    this.#idle = 0;
  }

  /** How long the worker may sleep before one of its timers is due. */
  #sleepMs(): number {
    const machine = this.#machine;
    let deadline = Infinity;
    for (const processor of this.#processors) deadline = Math.min(deadline, machine.nextDeadline(processor));
    if (deadline === Infinity) return SLEEP_MS_MAX;
    return Math.max(0, Math.min(SLEEP_MS_MAX, (deadline - machine.clock.now()) / NS_PER_MS));
  }
}

/** Whether workers have to take turns on the cores. */
function isCrowded(machine: Machine): boolean {
  return machine.workers > navigator.hardwareConcurrency;
}

function spinsOf(machine: Machine): number {
  return isCrowded(machine) ? SPINS_CROWDED : SPINS;
}
