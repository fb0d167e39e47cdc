/**
 * Measures workloads: what an exit, or an instruction, costs, and the raw limit of the host in the same run.
 *
 * @module
 */
import { takeFusedSteps } from "../../machine/fused_steps.ts";
import { timeMessages } from "./message_limit.ts";
import { measureParavisor } from "./paravisor_exits.ts";
import { counter, median, STEPS_PER_TURN, timed } from "./rounds.ts";
import { compareWithBare, measureSev, type SevBenchPlatform } from "./sev_exits.ts";
import { measureSidecar, WORKER_NAMES } from "./sidecar_exits.ts";
import { type BenchPlatform, type Workload, workloadMachine } from "./workloads.ts";

/** Rounds of a measurement; the median counts. */
const ROUNDS = 9;
/** Times in milliseconds: until V8 has compiled everything, and one round. */
const FULL = { warmUpMs: 700, roundMs: 100 };
const QUICK = { warmUpMs: 100, roundMs: 10 };
const NS_PER_S = 1e9;

/** A result, in the form of `--json`. */
export interface BenchResult {
  readonly platform: string;
  readonly workload: string;
  /** Of one VP; absent for a guest that only computes. */
  readonly exits_per_second?: number;
  /** Of a guest that only computes. */
  readonly instructions_per_second?: number;
  /** Nanoseconds of one exit, from guest instruction to next guest instruction, or of one instruction. */
  readonly cost_ns: number;
  /**
   * What the cost is compared with: writing one message; a round trip between two threads; the exit on `bare` and the
   * handler's instructions; an instruction on `bare`; the same exit without a copy of the VMSA; or nothing.
   */
  readonly limit: "message" | "pingpong" | "bare-and-handler" | "bare" | "no-copy" | null;
  /** Nanoseconds of the limit, measured in the same rounds. */
  readonly limit_ns: number | null;
  /** Cost divided by limit. */
  readonly ratio: number | null;
  /** Nanoseconds of the same exit on `bare`, where the guest's own handler puts it to the host. */
  readonly bare_ns?: number;
  /** Instructions that the handler executes for one exit. */
  readonly handler_instructions?: number;
  /** Nanoseconds of one of the handler's instructions on `bare`. */
  readonly instruction_ns?: number;
  /** Names of the workers in which the VMM and the VP run, where these are two. */
  readonly workers?: { readonly vmm: string; readonly vp: string };
  /** Sleeps of both workers in an exit. */
  readonly wakeups_per_exit?: number;
  /** Nanoseconds of an exit when neither worker spins. */
  readonly parked_cost_ns?: number;
  /** Sleeps of both workers in such an exit. */
  readonly parked_wakeups_per_exit?: number;
}

/** Measures one workload on any platform. Throws `Error` when its guest does not do what it is made for. */
export async function measure(platform: BenchPlatform, workload: Workload, quick: boolean): Promise<BenchResult> {
  if (platform === "sev-es" || platform === "snp") return measureEncrypted(platform, workload, quick);
  if (platform !== "sidecar") return measureInThread(platform, workload, quick);
  const result = await measureSidecar(workload, quick);
  return {
    platform,
    workload: workload.name,
    exits_per_second: NS_PER_S / result.costNs,
    cost_ns: result.costNs,
    limit: "pingpong",
    limit_ns: result.limitNs,
    ratio: result.costNs / result.limitNs,
    workers: WORKER_NAMES,
    wakeups_per_exit: result.wakeupsPerExit,
    parked_cost_ns: result.parkedCostNs,
    parked_wakeups_per_exit: result.parkedWakeupsPerExit,
  };
}

/** Measures exits below OpenHCL on SNP, and what copies of the VMSA cost there. */
export function measureBelowOpenhcl(quick: boolean, onProgress: (workload: string) => void = () => {}): BenchResult[] {
  const size = { rounds: ROUNDS, ...(quick ? QUICK : FULL) };
  return measureParavisor(size, onProgress).map(({ workload, costNs, offNs }) => ({
    platform: "snp, openhcl",
    workload,
    exits_per_second: NS_PER_S / costNs,
    cost_ns: costNs,
    limit: offNs === undefined ? null : "no-copy",
    limit_ns: offNs ?? null,
    ratio: offNs === undefined ? null : costNs / offNs,
  }));
}

/** Measures one workload of an encrypted guest. */
function measureEncrypted(platform: SevBenchPlatform, workload: Workload, quick: boolean): BenchResult {
  const size = { rounds: ROUNDS, ...(quick ? QUICK : FULL) };
  if (workload.exit === undefined) {
    const { costNs, bareNs } = compareWithBare(platform, workload, size);
    return {
      platform,
      workload: workload.name,
      instructions_per_second: NS_PER_S / costNs,
      cost_ns: costNs,
      limit: "bare",
      limit_ns: bareNs,
      ratio: costNs / bareNs,
    };
  }
  const { costNs, bareNs, handlerInstructions, instructionNs } = measureSev(platform, workload, size);
  const limit = bareNs + handlerInstructions * instructionNs;
  return {
    platform,
    workload: workload.name,
    exits_per_second: NS_PER_S / costNs,
    cost_ns: costNs,
    limit: "bare-and-handler",
    limit_ns: limit,
    ratio: costNs / limit,
    bare_ns: bareNs,
    handler_instructions: handlerInstructions,
    instruction_ns: instructionNs,
  };
}

/** Measures one workload on a platform whose exits are handled where they happen. */
function measureInThread(platform: BenchPlatform, workload: Workload, quick: boolean): BenchResult {
  const machine = workloadMachine(platform, workload);
  const vp = machine.processor(0);
  const { warmUpMs, roundMs } = quick ? QUICK : FULL;
  const run = timed(() => {
    takeFusedSteps(vp, STEPS_PER_TURN);
    machine.poll(vp);
  }, counter(machine, workload.exit));
  const limited = workload.message && platform === "kernel";
  run(warmUpMs);
  for (let round = 0; round < ROUNDS; round++) timeMessages();
  const costs: number[] = [];
  const messages: number[][] = [];
  for (let round = 0; round < ROUNDS; round++) {
    if (limited) messages.push(timeMessages());
    costs.push(run(roundMs));
  }
  const cost = median(costs);
  if (!Number.isFinite(cost)) throw new Error(`Workload "${workload.name}" made no exits on platform "${platform}"`);
  // The fastest way is the one whose median is least.
  const limit = limited ? Math.min(...messages[0].map((_, way) => median(messages.map((round) => round[way])))) : null;
  return {
    platform,
    workload: workload.name,
    ...(workload.exit === undefined
      ? { instructions_per_second: NS_PER_S / cost }
      : { exits_per_second: NS_PER_S / cost }),
    cost_ns: cost,
    limit: limit === null ? null : "message",
    limit_ns: limit,
    ratio: limit === null ? null : cost / limit,
  };
}
