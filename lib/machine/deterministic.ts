/**
 * The deterministic runtime: all agents of a machine in one thread, one step at a time, chosen by a seeded stream of
 * random numbers. The same seed gives the same run, bit by bit.
 *
 * @module
 */
import type { Agent } from "../memory/agent.ts";
import { Random } from "../memory/random.ts";
import { stepName } from "../memory/steps.ts";
import { STEP_NS } from "./clock.ts";
import { takeStep } from "./fused_steps.ts";
import { END, MachineHeader } from "./header.ts";
import type { Machine } from "./machine.ts";
import { settle } from "./settle.ts";
import type { VpTimeline } from "./vp_actions.ts";

/** A guest's step executes at most 2 to the power of this many instructions, less one. */
const QUANTUM_BITS = 7;
/** Steps between two looks at the timers of processors that take none. */
const STEPS_PER_POLL = 64;
/** Steps between two looks at the event loop, so that timers and signals of the process are served. */
const STEPS_PER_TURN = 20_000;

/** Options of a deterministic run. */
export interface DeterministicOptions {
  /** Seed of every choice. */
  readonly seed: number;
  /** What is done to sidecar processors, by the machine's virtual time. */
  readonly timeline?: VpTimeline;
  /** Called after every step with the agent and the name of the step that it took. */
  readonly onStep?: (agent: Agent, step: string) => void;
  /** Called between turns of steps, for output that is waiting. */
  readonly onTurn?: () => void;
}

/** Chooses and takes steps of a machine's agents. */
export class DeterministicRuntime {
  readonly machine: Machine;
  readonly agents: readonly Agent[];
  readonly #random: Random;
  readonly #onStep: DeterministicOptions["onStep"];
  readonly #timeline: VpTimeline | undefined;
  readonly #enabled: Agent[] = [];
  #steps = 0;

  /** A runtime over all agents of `machine`, whose configuration must be a deterministic one. */
  constructor(machine: Machine, options: DeterministicOptions) {
    this.machine = machine;
    this.agents = Array.from({ length: machine.seats }, (_, seat) => machine.agents(seat)).flat();
    const word = (machine.header + MachineHeader.at.random) >>> 2;
    machine.memory.i32[word] = options.seed;
    this.#random = new Random(machine.memory.i32, word);
    this.#onStep = options.onStep;
    this.#timeline = options.timeline;
  }

  /** Takes one step; false when the machine has ended or no agent can ever go on. */
  step(): boolean {
    const { machine } = this;
    if (machine.end !== END.NONE) return false;
    this.#timeline?.perform();
    const agent = this.#choose();
    if (agent === undefined) return this.#passTime();
    machine.setQuantum(agent, 1 + this.#random.below(1 << this.#random.below(QUANTUM_BITS + 1)));
    const name = this.#onStep === undefined ? "" : stepName(agent.step);
    const before = machine.instructions(agent);
    takeStep(agent);
    machine.clock.advance(STEP_NS + machine.instructions(agent) - before);
    machine.poll(agent);
    if (++this.#steps % STEPS_PER_POLL === 0) this.#pollWaiting();
    this.#onStep?.(agent, name);
    return true;
  }

  /** Lets timers of processors expire that wait while others run. */
  #pollWaiting(): void {
    const { machine } = this;
    const now = machine.clock.now();
    for (const agent of this.agents) if (machine.nextDeadline(agent) <= now) machine.poll(agent);
  }

  /** Runs until the machine ends, giving way to the event loop from time to time. */
  async run(onTurn?: () => void): Promise<void> {
    for (let more = true; more;) {
      for (let k = 0; k < STEPS_PER_TURN && more; k++) more = this.step();
      onTurn?.();
      await new Promise((resolve) => setTimeout(resolve, 0));
    }
    settle(this.agents);
    onTurn?.();
  }

  #choose(): Agent | undefined {
    const enabled = this.#enabled;
    enabled.length = 0;
    for (const agent of this.agents) if (agent.enabled) enabled.push(agent);
    return enabled.length === 0 ? undefined : enabled[enabled.length === 1 ? 0 : this.#random.below(enabled.length)];
  }

  /** Nobody can go on now: lets time pass to the next deadline, or ends the machine when there is none. */
  #passTime(): boolean {
    const { machine } = this;
    let deadline = this.#timeline?.next ?? Infinity;
    for (const agent of this.agents) deadline = Math.min(deadline, machine.nextDeadline(agent));
    if (machine.allHalted()) {
      machine.finish(END.HALT, 0);
      return false;
    }
    if (deadline === Infinity) {
      machine.finish(END.STUCK, 0);
      return false;
    }
    machine.clock.advanceTo(deadline);
    for (const agent of this.agents) machine.poll(agent);
    return true;
  }
}
