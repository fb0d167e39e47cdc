/**
 * Measures exits of encrypted guests: from the instruction through #VC, the built-in kernel's handler, VMGEXIT and the host
 * back to the instruction behind it. Host and guest share one thread, so that no hand-over between threads is measured.
 *
 * The limit is what such an exit cannot do without: the exit itself, as it is on `bare`, and the handler's instructions,
 * each at what it costs on `bare`. All three are measured in the same rounds.
 *
 * @module
 */
import { sevHandlerMeasurement } from "../../guest/programs/sev_handler_measurement.ts";
import { StepRunner } from "../../machine/fused_steps.ts";
import { loadSevGuest } from "../../machine/load.ts";
import { Machine } from "../../machine/machine.ts";
import { counter, medians, type RoundSize, STEPS_PER_TURN, type Timed, timed } from "./rounds.ts";
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

/** Further warm-ups of a guest and its host: there is more to compile. */
const GUEST_WARM_UPS = 3;
/** Hand-overs between two looks at the timers. */
const HAND_OVERS_PER_POLL = 64;
/** The kernel's RAM, with room. */
const RAM_BYTES = 16 << 20;

/** Measures the exits of a workload that is one of {@linkcode SEV_EXITS}. */
export function measureSev(
  platform: SevBenchPlatform,
  workload: Workload,
  size: RoundSize,
): SevMeasurement {
  const exit = workload.name as SevExit;
  const guest = encryptedGuest(platform, exit);
  const exits = inPlace("bare", workload);
  const source = sevHandlerMeasurement(SEV_EXITS[exit], HANDLER_PLACES);
  const handler = inPlace("bare", { name: `${exit} handler`, source, message: false });
  const runners = [guest.run, exits, handler];
  for (const run of runners) run(size.warmUpMs);
  guest.run(GUEST_WARM_UPS * size.warmUpMs);
  const [exitsBefore, instructionsBefore] = [guest.exits(), guest.instructions()];
  const [costNs, bareNs, instructionNs] = medians(runners, size);
  const [exitsAfter, instructionsAfter] = [guest.exits(), guest.instructions()];
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
  size: RoundSize,
): Pick<SevMeasurement, "costNs" | "bareNs"> {
  const runners = [inPlace(platform, workload), inPlace("bare", workload)];
  for (const run of runners) run(size.warmUpMs);
  const [costNs, bareNs] = medians(runners, size);
  return { costNs, bareNs };
}

/** The built-in kernel, making one kind of exit. */
function encryptedGuest(
  platform: SevBenchPlatform,
  bench: SevExit,
): { readonly run: Timed; readonly exits: () => number; readonly instructions: () => number } {
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
  const exits = counter(machine, "vmgexit");
  const run = timed(() => {
    // Each stops where it has to wait for the other.
    for (let k = 0; k < HAND_OVERS_PER_POLL; k++) for (const agent of agents) agent.take(STEPS_PER_TURN);
    machine.poll(vp);
  }, exits);
  return { run, exits, instructions: counter(machine, undefined) };
}

/**
 * A workload whose exits are handled where they happen, or that makes none: exits are counted, or instructions. On an
 * encrypted platform the host enters the guest once, and the guest stays in.
 */
function inPlace(platform: BenchPlatform, workload: Workload): Timed {
  const machine = workloadMachine(platform, workload);
  const vp = machine.processor(0);
  const agents = machine.agents(0).map((agent) => new StepRunner(agent));
  // A guest that makes no exits uses up its quantum in every step.
  const steps = workload.exit === undefined ? 1 : STEPS_PER_TURN;
  return timed(() => {
    for (const agent of agents) agent.take(steps);
    machine.poll(vp);
  }, counter(machine, workload.exit));
}
