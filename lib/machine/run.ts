/**
 * Runs a machine to its end in either runtime, with its output, its exits and its limits looked after.
 *
 * @module
 */
import { CpuState } from "../cpu/state.ts";
import { drainExitRing, EXIT_RING_SIZE, takeOpenRecord } from "../hypervisor/exit_log.ts";
import { EXIT_KINDS, type ExitKind, HypervisorVpState } from "../hypervisor/vp_state.ts";
import { stepName } from "../memory/steps.ts";
import { type GuestCrash, lastGuestCrash } from "../vtl2/handlers/msr.ts";
import { SidecarClientState } from "../sidecar/client_state.ts";
import { KERNEL_LOCAL } from "../sidecar/kernel/processor.ts";
import { KernelVp } from "../vtl2/kernel_vp.ts";
import { SnpVp } from "../vtl2/snp/snp_vp.ts";
import { Doorbell } from "./doorbell.ts";
import { type ConcurrentResult, ConcurrentRuntime } from "./concurrent.ts";
import { DeterministicRuntime } from "./deterministic.ts";
import { END, END_NAMES, type EndName, MachineHeader } from "./header.ts";
import type { Machine } from "./machine.ts";
import { type TimedVpAction, VpTimeline } from "./vp_actions.ts";

const header = MachineHeader.at;

/** Which runtime. */
export type RuntimeName = "concurrent" | "deterministic";

/** What {@linkcode runMachine} can be told. */
export interface RunOptions {
  /** Seed of the deterministic runtime's choices. */
  readonly seed?: number;
  /** Recorded exits after which the machine ends; 0 or absent for no limit. */
  readonly exitLimit?: number;
  /** Seconds of wall-clock time after which the machine ends; absent for no limit. */
  readonly timeLimitSeconds?: number;
  /** Concurrent runtime: milliseconds without a step of an agent that could take one, after which the run ends as stuck. */
  readonly standstillMs?: number;
  /** Receives what the guest wrote to its serial port and to the debug port, as it comes. */
  readonly onSerial?: (bytes: Uint8Array) => void;
  /** Receives every recorded exit as its ring's record, each VP's in order. */
  readonly onExit?: (record: DataView) => void;
  /** Called every few milliseconds of a long run. */
  readonly onProgress?: () => void;
  /** What is done to sidecar processors while the machine runs. */
  readonly actions?: readonly TimedVpAction[];
  /** Ends the run when it is aborted. */
  readonly signal?: AbortSignal;
  /** Deterministic runtime: called after every step. */
  readonly onStep?: (agent: string, step: string) => void;
}

/** A crash of the VMM in VTL2. */
export interface VmmCrashReport {
  /** VP whose exit was being handled. */
  readonly vp: number;
  /** The step in which it happened. */
  readonly step: string;
  /** The assertion that failed, or what was fatal. */
  readonly assertion: string;
  /** Left value of a comparison. */
  readonly left: bigint;
  /** Right value of it. */
  readonly right: bigint;
}

/** What passed between a sidecar processor and the VMM on its base processor. Each count is modulo 2^32. */
export interface SidecarCounts {
  /** Runs of the guest. */
  readonly runs: number;
  /** Other commands. */
  readonly commands: number;
  /** Runs that the VMM asked to stop. */
  readonly cancels: number;
  /** Interrupts that the driver sent to the processor. */
  readonly requestIpis: number;
  /** Interrupts that the processor sent to its base processor. */
  readonly responseIpis: number;
  /** How often its command page changed hands. */
  readonly handOvers: number;
}

/** What became of one VP. */
export interface VpReport {
  /** Its index. */
  readonly vp: number;
  /** Instructions executed. */
  readonly instructions: number;
  /** Exits by kind. */
  readonly exits: Readonly<Partial<Record<ExitKind, number>>>;
  /** How often its worker went to sleep and was woken. */
  readonly wakeups: number;
  /** Hand-overs between it and the VMM; of a processor that the sidecar has, or had. */
  readonly sidecar?: SidecarCounts;
  /** The last crash that its guest reported through the crash MSRs. */
  readonly guestCrash?: GuestCrash;
}

/** How a run ended. */
export interface RunReport {
  /** Why it ended. */
  readonly end: EndName;
  /** VP that ended the machine. */
  readonly endVp: number;
  /** What the guest wrote to the exit port. */
  readonly exitValue: number;
  /** Wall-clock seconds. */
  readonly seconds: number;
  /** Every VP. */
  readonly vps: readonly VpReport[];
  /** The crash that ended the run, if one did. */
  readonly vmmCrash?: VmmCrashReport;
  /** Instructions that the guest used and that are not implemented: mnemonic and bytes, with how often. */
  readonly unimplemented: ReadonlyMap<string, number>;
  /** Worker failures and standstills, one line each. */
  readonly problems: readonly string[];
  /** Whether every worker has left; if not, the process must be ended with `Deno.exit`. */
  readonly clean: boolean;
}

/** Runs `machine`, whose guest is loaded, to its end. The runtime is the one that the machine was made for. */
export async function runMachine(machine: Machine, options: RunOptions = {}): Promise<RunReport> {
  const started = performance.now();
  machine.memory.u32[(machine.header + header.exit_limit) >>> 2] = options.exitLimit ?? 0;
  const drain = () => drainOutput(machine, options);
  const timeline = new VpTimeline(machine, options.actions ?? []);
  const turn = () => {
    drain();
    if (!machine.deterministic) timeline.perform();
    const seconds = (performance.now() - started) / 1000;
    if (options.timeLimitSeconds !== undefined && seconds >= options.timeLimitSeconds) machine.finish(END.LIMIT, 0);
    if (options.signal?.aborted) machine.finish(END.INTERRUPTED, 0);
    options.onProgress?.();
  };
  let result: ConcurrentResult;
  if (machine.deterministic) {
    machine.onFull = drain;
    const onStep = options.onStep;
    const runtime = new DeterministicRuntime(machine, {
      seed: options.seed ?? 0,
      timeline,
      ...(onStep === undefined ? {} : { onStep: (agent, step) => onStep(agent.name, step) }),
    });
    await runtime.run(turn);
    result = { problems: [], clean: true, unimplemented: unimplementedOf(machine) };
  } else {
    result = await new ConcurrentRuntime(machine, options.standstillMs).run(turn);
  }
  drain();
  if (result.clean) takeOpenRecords(machine, options);
  return report(machine, (performance.now() - started) / 1000, result);
}

/** Empties the output rings and the exit rings. */
function drainOutput(machine: Machine, options: RunOptions): void {
  const { pc } = machine.platform;
  // Nothing tells in which order the two were written; firmware's debug text comes before a console's.
  for (const ring of pc === undefined ? [] : [pc.debugOutput, pc.serialOutput]) {
    const bytes = ring.drain();
    if (bytes.length > 0) options.onSerial?.(bytes);
  }
  if (!machine.config.recordExits) return;
  for (let vp = 0; vp < machine.config.vps; vp++) {
    for (const record of drainExitRing(machine.memory, machine.map.exitRings + vp * EXIT_RING_SIZE)) {
      options.onExit?.(record);
    }
  }
}

/** Passes on the records of exits that were under way at the end. */
function takeOpenRecords(machine: Machine, options: RunOptions): void {
  if (!machine.config.recordExits) return;
  for (let vp = 0; vp < machine.config.vps; vp++) {
    const record = takeOpenRecord(machine.memory, machine.map.exitRings + vp * EXIT_RING_SIZE);
    if (record !== undefined) options.onExit?.(record);
  }
}

/** What all processors of a machine that runs in this thread met and do not implement. */
function unimplementedOf(machine: Machine): Map<string, number> {
  const all = new Map<string, number>();
  for (let worker = 0; worker < machine.workers; worker++) {
    for (const [name, times] of machine.unimplemented(worker)) all.set(name, (all.get(name) ?? 0) + times);
  }
  return all;
}

function report(machine: Machine, seconds: number, runtime: ConcurrentResult): RunReport {
  const { memory, header: at } = machine;
  const end = END_NAMES[machine.end];
  const vps = Array.from({ length: machine.config.vps }, (_, vp) => vpReport(machine, vp));
  const exitValue = memory.u32[(at + header.exit_value) >>> 2];
  const result = { end, endVp: memory.u32[(at + header.end_vp) >>> 2], exitValue, seconds, vps, ...runtime };
  return machine.end === END.VMM_CRASH ? { ...result, vmmCrash: vmmCrash(machine) } : result;
}

function vpReport(machine: Machine, index: number): VpReport {
  const { memory, map } = machine;
  const vp = machine.processor(index);
  const exits: Partial<Record<ExitKind, number>> = {};
  EXIT_KINDS.forEach((kind, number) => {
    const count = Number(memory.u64[(vp.state + HypervisorVpState.at.exits) / 8 + number]);
    if (count > 0) exits[kind] = count;
  });
  const instructions = Number(memory.u64[(map.cpuStates + index * CpuState.size + CpuState.at.instructions) >>> 3]);
  const crash = vp instanceof KernelVp || vp instanceof SnpVp ? lastGuestCrash(memory, vp.vmm.state) : undefined;
  const sidecar = sidecarCounts(machine, index);
  return {
    vp: index,
    instructions,
    exits,
    wakeups: new Doorbell(memory, machine.doorbell(machine.workerOf(index))).wakeups,
    ...(sidecar === undefined ? {} : { sidecar }),
    ...(crash === undefined ? {} : { guestCrash: crash }),
  };
}

function sidecarCounts(machine: Machine, index: number): SidecarCounts | undefined {
  if (machine.config.platform !== "sidecar" || !machine.platform.sidecar.isSidecarVp(index)) return undefined;
  const { u32 } = machine.memory;
  const { client } = machine.platform.sidecar.place(index);
  const word = (offset: number) => u32[(client + offset) >>> 2];
  const at = SidecarClientState.at;
  const [runs, commands] = [word(at.runs), word(at.commands)];
  const completed = machine.processor(index).locals32[KERNEL_LOCAL.COMMANDS] >>> 0;
  return {
    runs,
    commands,
    cancels: word(at.cancels),
    requestIpis: word(at.requests),
    responseIpis: completed,
    handOvers: runs + commands + completed,
  };
}

function vmmCrash(machine: Machine): VmmCrashReport {
  const { memory, header: at } = machine;
  const length = memory.u32[(at + header.crash_text_length) >>> 2];
  const text = memory.u8.slice(at + header.crash_text, at + header.crash_text + length);
  return {
    vp: memory.u32[(at + header.end_vp) >>> 2],
    step: stepName(memory.u32[(at + header.crash_step) >>> 2]),
    assertion: new TextDecoder().decode(text),
    left: memory.u64[(at + header.crash_left) >>> 3],
    right: memory.u64[(at + header.crash_right) >>> 3],
  };
}
