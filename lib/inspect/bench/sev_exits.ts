/**
 * Measures exits of encrypted guests: from the instruction through #VC, the built-in kernel's handler, VMGEXIT and the host
 * back to the instruction behind it. Host and guest share one thread, so that no hand-over between threads is measured.
 *
 * The limit is what such an exit cannot do without: the exit itself, as it is on `bare`, and the handler's instructions,
 * each at what it costs on `bare`. All three are measured in the same rounds.
 *
 * @module
 */
import { CpuState } from "../../cpu/state.ts";
import { sevHandlerMeasurement } from "../../guest/programs/sev_handler_measurement.ts";
import { EXIT_KIND, HypervisorVpState } from "../../hypervisor/vp_state.ts";
import { StepRunner } from "../../machine/fused_steps.ts";
import { loadSevGuest } from "../../machine/load.ts";
import { Machine } from "../../machine/machine.ts";
import {
  type BenchPlatform,
  HANDLER_PLACES,
  SEV_EXITS,
  type SevExit,
  type Workload,
  workloadMachine,
} from "./workloads.ts";

/** The encrypted platforms. */
export type SevBenchPlatform = "sev-es" | "snp";

/** What was measured. */
export interface SevMeasurement {
  /** Nanoseconds of an exit. */
  readonly costNs: number;
  /** Nanoseconds of the same exit on `bare`. */
  readonly bareNs: number;
  /** Instructions that the handler executes for an exit. */
  readonly handlerInstructions: number;
  /** Nanoseconds of one of them on `bare`. */
  readonly instructionNs: number;
}

/** How long to measure: rounds, whose median counts, and milliseconds. */
export interface SevBenchSize {
  readonly rounds: number;
  readonly warmUpMs: number;
  readonly roundMs: number;
}

/** Steps of the host or a processor before the other has its turn; each stops where it has to wait. */
const STEPS_PER_TURN = 256;
/** Further warm-ups of a guest and its host: there is more to compile. */
const GUEST_WARM_UPS = 3;
/** Hand-overs between two looks at the timers. */
const HAND_OVERS_PER_POLL = 64;
const NS_PER_MS = 1e6;
/** The kernel's RAM, with room. */
const RAM_BYTES = 16 << 20;

/** A machine that has been running for some milliseconds: what of which it does, and how often it has. */
interface Runner {
  /** Runs for about `milliseconds`; nanoseconds of one of what it counts. */
  readonly run: (milliseconds: number) => number;
}

/** Measures the exits of a workload that is one of {@linkcode SEV_EXITS}. */
export function measureSev(
  platform: SevBenchPlatform,
  workload: Workload,
  { rounds, warmUpMs, roundMs }: SevBenchSize,
): SevMeasurement {
  const exit = workload.name as SevExit;
  const guest = encryptedGuest(platform, exit);
  const exits = inPlace("bare", workload);
  const source = sevHandlerMeasurement(SEV_EXITS[exit], HANDLER_PLACES);
  const handler = inPlace("bare", { name: `${exit} handler`, source, message: false });
  const runners = [guest, exits, handler];
  for (const { run } of runners) run(warmUpMs);
  guest.run(GUEST_WARM_UPS * warmUpMs);
  const samples = runners.map(() => [] as number[]);
  const [exitsBefore, instructionsBefore] = guest.counts();
  for (let round = 0; round < rounds; round++) runners.forEach(({ run }, k) => samples[k].push(run(roundMs)));
  const [exitsAfter, instructionsAfter] = guest.counts();
  const [costNs, bareNs, instructionNs] = samples.map(median);
  return {
    costNs,
    bareNs,
    // The instruction that leaves is not the handler's.
    handlerInstructions: (instructionsAfter - instructionsBefore) / (exitsAfter - exitsBefore) - 1,
    instructionNs,
  };
}

/** Measures a guest that only computes, beside the same one on `bare`: nanoseconds of an instruction. */
export function compareWithBare(
  platform: SevBenchPlatform,
  workload: Workload,
  { rounds, warmUpMs, roundMs }: SevBenchSize,
): Pick<SevMeasurement, "costNs" | "bareNs"> {
  const runners = [inPlace(platform, workload), inPlace("bare", workload)];
  for (const { run } of runners) run(warmUpMs);
  const samples = runners.map(() => [] as number[]);
  for (let round = 0; round < rounds; round++) runners.forEach(({ run }, k) => samples[k].push(run(roundMs)));
  const [costNs, bareNs] = samples.map(median);
  return { costNs, bareNs };
}

/** The built-in kernel, making one kind of exit. */
function encryptedGuest(
  platform: SevBenchPlatform,
  bench: SevExit,
): Runner & { readonly counts: () => [number, number] } {
  const machine = Machine.create({
    platform,
    vps: 1,
    ramBytes: RAM_BYTES,
    policies: {},
    devices: "pc",
    recordExits: false,
    hostPlacement: "processor",
  }, false);
  loadSevGuest(machine, { bench });
  machine.clock.start();
  const vp = machine.processor(0);
  const agents = machine.agents(0).map((agent) => new StepRunner(agent));
  const { u64 } = machine.memory;
  const left = ((vp.state + HypervisorVpState.at.exits) >>> 3) + EXIT_KIND.vmgexit;
  const executed = (vp.cpuState + CpuState.at.instructions) >>> 3;
  const run = (milliseconds: number): number => {
    const before = u64[left];
    const start = performance.now();
    let now = start;
    do {
      for (let k = 0; k < HAND_OVERS_PER_POLL; k++) for (const agent of agents) agent.take(STEPS_PER_TURN);
      machine.poll(vp);
      now = performance.now();
    } while (now - start < milliseconds);
    return (now - start) * NS_PER_MS / Number(u64[left] - before);
  };
  return { run, counts: () => [Number(u64[left]), Number(u64[executed])] };
}

/**
 * A workload whose exits are handled where they happen, or that makes none: exits are counted, or instructions. On an
 * encrypted platform the host enters the guest once, and the guest stays in.
 */
function inPlace(platform: BenchPlatform, workload: Workload): Runner {
  const machine = workloadMachine(platform, workload);
  const vp = machine.processor(0);
  const agents = machine.agents(0).map((agent) => new StepRunner(agent));
  const { u64 } = machine.memory;
  // A guest that makes no exits uses up its quantum in every step.
  const steps = workload.exit === undefined ? 1 : STEPS_PER_TURN;
  const word = workload.exit === undefined
    ? (vp.cpuState + CpuState.at.instructions) >>> 3
    : ((vp.state + HypervisorVpState.at.exits) >>> 3) + EXIT_KIND[workload.exit];
  return {
    run(milliseconds) {
      const before = u64[word];
      const start = performance.now();
      let now = start;
      do {
        for (const agent of agents) agent.take(steps);
        machine.poll(vp);
        now = performance.now();
      } while (now - start < milliseconds);
      return (now - start) * NS_PER_MS / Number(u64[word] - before);
    },
  };
}

/** The middle value. */
function median(values: readonly number[]): number {
  return values.toSorted((a, b) => a - b)[values.length >> 1];
}
