/**
 * Which worker runs which of a machine's processors.
 *
 * A seat is what stands for one processor: the agents of a VP, or those of the host that serves an encrypted guest. A seat
 * stays on one worker. Up to {@linkcode OWN_WORKERS_MAX} seats have a worker each, which costs tens of megabytes and, where
 * there are fewer cores, a switch of threads for every hand-over. The seats of a larger machine take turns on as many workers as
 * there are cores: those who serve others, the sidecar's base processors and the host, apart from those whom they serve.
 *
 * ```
 *                                worker 0          worker 1                  worker 2
 * 3 VPs of the sidecar           vp0               vp1                       vp2
 * 40 VPs of it, 2 cores          vp0, vp20         vp1-vp19, vp21-vp39       -
 * 40 VPs of the kernel, 3 cores  vp0, vp3, vp6 ... vp1, vp4, vp7 ...         vp2, vp5, vp8 ...
 * ```
 *
 * @module
 */
import { BadInput } from "../memory/bad_input.ts";
import { sidecarTopology } from "../sidecar/memory.ts";
import type { MachineConfig } from "./config.ts";
import { hostWorkers } from "./sev_platform.ts";

/**
 * Most seats that have a worker each where there are fewer cores: their processors meet each other anywhere, not only between
 * two steps, and the workers take about a gigabyte.
 */
export const OWN_WORKERS_MAX = 24;
/** Least workers of a machine that has fewer workers than seats: who serves and who is served run at the same time. */
const SHARED_WORKERS_MIN = 2;

/** How many seats a machine has: one a VP, and the host's. */
export function seatCount(config: MachineConfig): number {
  return config.vps + hostWorkers(config);
}

/** How many workers a machine has: as many as its configuration says, or as many as the module's description does. */
export function workerCount(config: MachineConfig): number {
  const seats = seatCount(config);
  if (config.workers !== undefined) return config.workers;
  const cores = navigator.hardwareConcurrency;
  return seats <= Math.max(OWN_WORKERS_MAX, cores) ? seats : Math.max(SHARED_WORKERS_MIN, cores);
}

/** Throws {@linkcode BadInput} unless the number of workers makes sense. */
export function checkWorkers(config: MachineConfig): void {
  const { workers } = config;
  const seats = seatCount(config);
  if (workers === undefined || (Number.isInteger(workers) && workers >= 1 && workers <= seats)) return;
  const expected = seats === 1 ? "1" : `1 to ${seats}`;
  throw new BadInput(`${workers} workers, expected ${expected}: one for each VP and the host at most`);
}

/** The worker of each seat. */
export function workersOfSeats(config: MachineConfig): readonly number[] {
  const seats = Array.from({ length: seatCount(config) }, (_, seat) => seat);
  const workers = workerCount(config);
  if (workers === seats.length) return seats;
  if (workers === 1) return seats.map(() => 0);
  const servers = serversOf(config);
  const serving = Math.min(servers.length, workers >> 1);
  let others = 0;
  return seats.map((seat) => {
    const server = servers.indexOf(seat);
    return server >= 0 ? server % serving : serving + others++ % (workers - serving);
  });
}

/** The seats that serve others. */
function serversOf(config: MachineConfig): readonly number[] {
  if (config.platform === "sidecar") {
    return sidecarTopology(config.vps, config.sidecarNodes, config.sidecarVps).map(({ baseVp }) => baseVp);
  }
  return Array.from({ length: hostWorkers(config) }, (_, host) => config.vps + host);
}
