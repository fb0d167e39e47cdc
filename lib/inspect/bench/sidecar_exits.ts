/**
 * Measures exits on the `sidecar` platform: VMM and guest in two workers, and between their rounds the raw limit, a round
 * trip of 256 bytes each way between the same workers.
 *
 * Each value is the median over samples of 16 exits, so that a moment in which one of the workers does not run counts for
 * one sample only.
 *
 * @module
 */
import { policyOrder } from "../../memory/policy.ts";
import { ROUND_TRIP_BYTES } from "./round_trips.ts";
import { median } from "./rounds.ts";
import { CONTROL, type SidecarBenchSamples, type SidecarBenchTask } from "./sidecar_worker.ts";
import { type Workload, workloadMachine } from "./workloads.ts";

/** Rounds, and milliseconds of each half of one. */
const FULL = { warmUpRounds: 8, rounds: 9, roundMs: 60 };
const QUICK = { warmUpRounds: 4, rounds: 3, roundMs: 20 };
/** Milliseconds after which a measurement is given up. */
const TIME_LIMIT_MS = 60_000;

/** What was measured of one workload. */
export interface SidecarMeasurement {
  /** Nanoseconds of an exit whose workers spin. */
  readonly costNs: number;
  /** Nanoseconds of a round trip in the same rounds. */
  readonly limitNs: number;
  /** Sleeps of both workers in such an exit. */
  readonly wakeupsPerExit: number;
  /** Nanoseconds of an exit whose workers sleep as soon as they have nothing to do. */
  readonly parkedCostNs: number;
  /** Sleeps of both workers in such an exit. */
  readonly parkedWakeupsPerExit: number;
}

/** Names of the workers in which the VMM and the VP run. */
export const WORKER_NAMES = { vmm: "vp0", vp: "vp1" } as const;

/** Measures one workload. Throws `Error` when it makes no exits in time. */
export async function measureSidecar(workload: Workload, quick: boolean): Promise<SidecarMeasurement> {
  const size = quick ? QUICK : FULL;
  const spinning = await run(workload, size);
  const parked = await run(workload, { ...size, spins: 0 });
  return {
    costNs: median(spinning.exits),
    limitNs: median(spinning.trips),
    wakeupsPerExit: spinning.wakeupsPerExit,
    parkedCostNs: median(parked.exits),
    parkedWakeupsPerExit: parked.wakeupsPerExit,
  };
}

/** Runs a workload in two workers. */
async function run(
  workload: Workload,
  size: Pick<SidecarBenchTask, "warmUpRounds" | "rounds" | "roundMs" | "spins">,
): Promise<SidecarBenchSamples> {
  const machine = workloadMachine("sidecar", workload);
  const control = new SharedArrayBuffer(4 * CONTROL.WORDS);
  const trips = new SharedArrayBuffer(ROUND_TRIP_BYTES);
  const giveUp = () => {
    Atomics.store(new Int32Array(control), CONTROL.GIVEN_UP, 1);
    machine.requestShutdown();
  };
  const timer = setTimeout(giveUp, TIME_LIMIT_MS);
  const answers = await Promise.all(
    [WORKER_NAMES.vmm, WORKER_NAMES.vp].map((name, worker) =>
      new Promise<SidecarBenchSamples | string>((resolve) => {
        const created = new Worker(new URL("./sidecar_worker.ts", import.meta.url), { type: "module", name });
        const answer = (message: SidecarBenchSamples | string) => {
          if (typeof message === "string") giveUp();
          resolve(message);
        };
        created.onmessage = (event: MessageEvent<SidecarBenchSamples | string>) => answer(event.data);
        created.onerror = (event) => {
          event.preventDefault();
          answer(event.message);
        };
        const task: SidecarBenchTask = {
          ...size,
          config: machine.config,
          memory: machine.memory.wasm,
          policies: policyOrder(),
          worker,
          control,
          trips,
          exit: workload.exit!,
        };
        created.postMessage(task);
      })
    ),
  );
  clearTimeout(timer);
  const failed = answers.find((answer) => typeof answer === "string");
  if (failed !== undefined) throw new Error(failed);
  const [{ trips: tripSamples }, samples] = answers as SidecarBenchSamples[];
  if (samples.exits.length === 0 || tripSamples.length === 0 || machine.shutdown) {
    throw new Error(`Workload "${workload.name}" made no exits on platform "sidecar" in ${TIME_LIMIT_MS} ms`);
  }
  return { ...samples, trips: tripSamples };
}
