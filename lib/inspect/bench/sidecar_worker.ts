/**
 * One of the two workers of `bench exits --platform sidecar`: the base processor with the VMM, or the sidecar processor with
 * the guest. Both take turns between exits of the guest and bare round trips, so that both are measured under the same
 * conditions.
 *
 * @module
 */
import { EXIT_KIND, type ExitKind, HypervisorVpState } from "../../hypervisor/vp_state.ts";
import type { MachineConfig } from "../../machine/config.ts";
import { Doorbell } from "../../machine/doorbell.ts";
import { Machine } from "../../machine/machine.ts";
import { WorkerLoop } from "../../machine/worker_loop.ts";
import { numberPolicies } from "../../memory/policy.ts";
import { RoundTrips } from "./round_trips.ts";
import { NS_PER_MS } from "./rounds.ts";

/** The worker of the base processor, where the VMM is. */
export const VMM_WORKER = 0;
/** The worker of the sidecar processor, where the guest is. */
export const VP_WORKER = 1;

/** 32-bit words of the control buffer. */
export const CONTROL = {
  /** How many workers have come to each of the two barriers in turn. */
  ARRIVED: 0,
  /** Rounds whose exits have been made. */
  ROUNDS_DONE: 1,
  /** Not 0 when the measurement is given up. */
  GIVEN_UP: 2,
  /** Rounds whose round trips have been made. */
  TRIPS_DONE: 3,
  WORDS: 16,
} as const;

/** What a worker is sent. */
export interface SidecarBenchTask {
  readonly config: MachineConfig;
  readonly memory: WebAssembly.Memory;
  /** The policies in the order of their numbers in the machine's policy area. */
  readonly policies: readonly string[];
  readonly worker: number;
  readonly control: SharedArrayBuffer;
  /** Memory of the round trips. */
  readonly trips: SharedArrayBuffer;
  readonly exit: ExitKind;
  /** Rounds that are not measured, and rounds that are. */
  readonly warmUpRounds: number;
  readonly rounds: number;
  /** Milliseconds of a round's exits, and of its round trips. */
  readonly roundMs: number;
  /** Looks for work before a worker sleeps; absent for the runtime's own number. */
  readonly spins?: number;
}

/** What a worker answers: the base processor's has timed the round trips, the sidecar processor's the exits. */
export interface SidecarBenchSamples {
  /** Nanoseconds of one exit, a value for each sample. */
  readonly exits: number[];
  /** Nanoseconds of one round trip, a value for each sample. */
  readonly trips: number[];
  /** Sleeps of both workers in an exit, in the measured rounds. */
  readonly wakeupsPerExit: number;
}

/** Exits or round trips in one sample. */
const SAMPLE = 16;

/** The worker's part of the measurement. */
function work(task: SidecarBenchTask): SidecarBenchSamples {
  numberPolicies(task.policies);
  const machine = Machine.attach(task.config, task.memory);
  const control = new Int32Array(task.control);
  const loop = new WorkerLoop(machine, task.worker, task.spins);
  const trips = new RoundTrips(task.trips, task.worker);
  const isVp = task.worker === VP_WORKER;
  const result = { exits: [] as number[], trips: [] as number[] };
  const bells = [VMM_WORKER, VP_WORKER].map((worker) => new Doorbell(machine.memory, machine.doorbell(worker)));
  const wakeups = () => bells.reduce((sum, bell) => sum + bell.wakeups, 0);
  const counted = ((machine.platform.partition.vpState(1) + HypervisorVpState.at.exits) >>> 2) +
    2 * EXIT_KIND[task.exit];
  const { i32 } = machine.memory;
  let slept = 0, made = 0;
  const givenUp = () => machine.shutdown || Atomics.load(control, CONTROL.GIVEN_UP) !== 0;

  for (let round = 0; round < task.warmUpRounds + task.rounds && !givenUp(); round++) {
    barrier(control, 2 * round, givenUp);
    const samples = round < task.warmUpRounds ? undefined : result;
    if (isVp) {
      trips.answer(() => Atomics.load(control, CONTROL.TRIPS_DONE) > round || givenUp());
    } else {
      const began = performance.now();
      for (let start = began; start - began < task.roundMs && !givenUp();) {
        trips.make(SAMPLE, givenUp);
        const now = performance.now();
        samples?.trips.push((now - start) * NS_PER_MS / SAMPLE);
        start = now;
      }
      Atomics.store(control, CONTROL.TRIPS_DONE, round + 1);
    }
    barrier(control, 2 * round + 1, givenUp);
    if (!isVp) {
      while (Atomics.load(control, CONTROL.ROUNDS_DONE) <= round && !givenUp()) loop.turn();
      continue;
    }
    const before = wakeups();
    const firstOfRound = i32[counted];
    const began = performance.now();
    for (let start = began; start - began < task.roundMs && !givenUp();) {
      const first = i32[counted];
      while (((i32[counted] - first) | 0) < SAMPLE && !givenUp()) loop.turn();
      const now = performance.now();
      samples?.exits.push((now - start) * NS_PER_MS / ((i32[counted] - first) | 0));
      start = now;
    }
    if (samples !== undefined) {
      slept += wakeups() - before;
      made += (i32[counted] - firstOfRound) | 0;
    }
    Atomics.store(control, CONTROL.ROUNDS_DONE, round + 1);
    bells[VMM_WORKER].ring();
  }
  return { ...result, wakeupsPerExit: slept / made };
}

/** Waits until both workers have come to barrier `number`. */
function barrier(control: Int32Array, number: number, givenUp: () => boolean): void {
  Atomics.add(control, CONTROL.ARRIVED, 1);
  while (Atomics.load(control, CONTROL.ARRIVED) < 2 * (number + 1) && !givenUp());
}

/** The part of a worker's global scope that this module uses. */
interface WorkerScope {
  onmessage: ((event: MessageEvent<SidecarBenchTask>) => void) | null;
  postMessage(samples: SidecarBenchSamples | string): void;
  close(): void;
}

// The main thread imports this module as well, so that a compiled binary embeds it; only a worker runs it.
if ("DedicatedWorkerGlobalScope" in globalThis) {
  const scope = globalThis as unknown as WorkerScope;
  scope.onmessage = (event) => {
    let answer: SidecarBenchSamples | string;
    try {
      answer = work(event.data);
    } catch (error) {
      answer = error instanceof Error ? error.stack ?? error.message : String(error);
    }
    scope.postMessage(answer);
    scope.close();
  };
}
