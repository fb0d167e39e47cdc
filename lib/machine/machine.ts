/**
 * A machine: memory, partition, devices and processors, put together for a platform.
 *
 * Every worker has a `Machine` of its own over the same memory; it holds views and caches, the state is in the memory.
 *
 * @module
 */
import { ACTIVITY_HALTED, ACTIVITY_RUNNING, ACTIVITY_WAIT_FOR_SIPI, CpuState, FLAG_IF } from "../cpu/state.ts";
import { resetCpu } from "../cpu/reset.ts";
import type { DeviceBackend } from "../devices/backend.ts";
import { ATTENTION } from "../hypervisor/attention.ts";
import { CPU_SIGNATURE } from "../hypervisor/cpuid.ts";
import { VirtualProcessor } from "../hypervisor/virtual_processor.ts";
import { EXIT_KIND, HypervisorVpState } from "../hypervisor/vp_state.ts";
import { Agent } from "../memory/agent.ts";
import { MachineMemory } from "../memory/machine_memory.ts";
import { DirectPort } from "../memory/port.ts";
import { policies, policyNamed, policyValue } from "../memory/policy.ts";
import { GUEST_RUN, PARKED } from "../hypervisor/guest.ts";
import type { StepId } from "../memory/steps.ts";
import { RUN_VP } from "../vtl2/run_loop.ts";
import { KernelVp } from "../vtl2/kernel_vp.ts";
import { SnpVp } from "../vtl2/snp/snp_vp.ts";
import { startKernelPartition, startKernelVp } from "../vtl2/kernel_start.ts";
import { MachineClock } from "./clock.ts";
import { checkConfig, type MachineConfig } from "./config.ts";
import { DoorbellWords } from "./doorbell.ts";
import { END, HEADER_MAGIC, MachineHeader } from "./header.ts";
import { hasVtl2, MachineMap } from "./machine_map.ts";
import { Platform } from "./platform.ts";
import { checkWorkers, workerCount, workersOfSeats } from "./seats.ts";
import { checkHost, isEncrypted } from "./sev_platform.ts";

const header = MachineHeader.at;
const cpu = CpuState.at;

/** How far a worker's agents are, for the watchdog. */
export interface Progress {
  /** A number that changes with every step. */
  readonly steps: number;
  /** Whether no agent could take a step now. */
  readonly waiting: boolean;
  /** The agent, and the step it is at. */
  readonly agent: string;
  readonly step: StepId;
}

/** See the module's description. */
export class Machine {
  /** What it is made of. */
  readonly config: MachineConfig;
  /** All of its memory: the guest's RAM from offset 0, then everything else. */
  readonly memory: MachineMemory;
  /**
   * Where everything lies in the memory.
   *
   * @internal
   */
  readonly map: MachineMap;
  /** Its time. */
  readonly clock: MachineClock;
  /** How many workers the concurrent runtime takes. */
  readonly workers: number;
  /** How many seats they have to run: one for each VP, and the host's. */
  readonly seats: number;
  /**
   * What the processors are put together from.
   *
   * @internal
   */
  readonly platform: Platform;
  /** Empties the output rings, where the thread that fills them is also the one that empties them. */
  onFull: (() => void) | undefined = undefined;
  readonly #workerOf: readonly number[];
  readonly #seatsOf: readonly number[][];
  readonly #agents = new Map<number, readonly Agent[]>();
  readonly #workerAgents = new Map<number, readonly Agent[]>();
  readonly #processors = new Map<number, VirtualProcessor>();
  readonly #i32: Int32Array<SharedArrayBuffer>;

  private constructor(config: MachineConfig, memory: MachineMemory, map: MachineMap, backend?: DeviceBackend) {
    this.config = config;
    this.memory = memory;
    this.map = map;
    this.workers = workerCount(config);
    this.#workerOf = workersOfSeats(config);
    this.seats = this.#workerOf.length;
    this.#seatsOf = Array.from({ length: this.workers }, () => []);
    this.#workerOf.forEach((worker, seat) => this.#seatsOf[worker].push(seat));
    this.#i32 = memory.i32;
    this.clock = new MachineClock(memory, map.header);
    this.platform = new Platform(this, new DirectPort(memory, this.seats === 1), backend);
  }

  /**
   * Makes a machine at power-on; load a guest and set VP 0's registers before it runs. Throws `BadInput` for a
   * configuration that makes no sense. `backend` serves the ports and addresses that it claims, in this thread.
   */
  static create(config: MachineConfig, deterministic: boolean, backend?: DeviceBackend): Machine {
    checkConfig(config);
    checkHost(config);
    checkWorkers(config);
    const map = new MachineMap(config);
    const memory = MachineMemory.allocate(map.bytes);
    memory.u32[(map.header + header.magic) >>> 2] = HEADER_MAGIC;
    memory.u32[(map.header + header.deterministic) >>> 2] = deterministic ? 1 : 0;
    setPolicies(memory, map.header + header.policies, config);
    const machine = new Machine(config, memory, map, backend);
    machine.#powerOn();
    return machine;
  }

  /** The machine in a memory that another thread has made. */
  static attach(config: MachineConfig, wasm: WebAssembly.Memory): Machine {
    return new Machine(config, new MachineMemory(wasm), new MachineMap(config));
  }

  /** Byte offset of the {@linkcode MachineHeader}. */
  get header(): number {
    return this.map.header;
  }

  /** Whether time is virtual and all agents run in one thread. */
  get deterministic(): boolean {
    return this.memory.u32[(this.header + header.deterministic) >>> 2] !== 0;
  }

  /** Byte offset of a worker's doorbell. */
  doorbell(worker: number): number {
    return this.map.doorbells + worker * DoorbellWords.size;
  }

  // --- Agents -------------------------------------------------------------------------------------------------------

  /**
   * The agents of `seat`: of the VP with that index, or behind them of the host.
   *
   * @internal
   */
  agents(seat: number): readonly Agent[] {
    let agents = this.#agents.get(seat);
    if (agents === undefined) {
      agents = this.platform.agents(seat);
      this.#agents.set(seat, agents);
    }
    return agents;
  }

  /** The worker that runs `seat`. */
  workerOf(seat: number): number {
    return this.#workerOf[seat];
  }

  /** The seats that `worker` runs. */
  seatsOf(worker: number): readonly number[] {
    return this.#seatsOf[worker];
  }

  /**
   * The agents that live on `worker`.
   *
   * @internal
   */
  workerAgents(worker: number): readonly Agent[] {
    let agents = this.#workerAgents.get(worker);
    if (agents === undefined) {
      agents = this.seatsOf(worker).flatMap((seat) => this.agents(seat));
      this.#workerAgents.set(worker, agents);
    }
    return agents;
  }

  /**
   * The virtual processor `index`; made at the first call in this thread.
   *
   * @internal
   */
  processor(index: number): VirtualProcessor {
    let vp = this.#processors.get(index);
    if (vp === undefined) {
      vp = this.platform.processor(index);
      this.#processors.set(index, vp);
    }
    return vp;
  }

  /**
   * Lets timers expire that `agent`'s processor looks after.
   *
   * @internal
   */
  poll(agent: Agent): void {
    if (agent instanceof VirtualProcessor) this.platform.poll(agent);
  }

  /**
   * Nanosecond of the machine's clock at which {@linkcode Machine.poll} of `agent` has something to do; Infinity for never.
   *
   * @internal
   */
  nextDeadline(agent: Agent): number {
    return agent instanceof VirtualProcessor ? this.platform.nextDeadline(agent) : Infinity;
  }

  /**
   * Sets how many instructions a step of `agent` may execute, when it is a processor.
   *
   * @internal
   */
  setQuantum(agent: Agent, instructions: number): void {
    if (agent instanceof VirtualProcessor) agent.runQuantum = instructions;
  }

  /**
   * Instructions that `agent` has executed; 0 when it is no processor.
   *
   * @internal
   */
  instructions(agent: Agent): number {
    if (!(agent instanceof VirtualProcessor)) return 0;
    return Number(this.memory.u64[(agent.cpuState + cpu.instructions) >>> 3]);
  }

  /** Instructions that this thread's processors of `worker` met and do not implement, with how often. */
  unimplemented(worker: number): Map<string, number> {
    const all = new Map<string, number>();
    for (const seat of this.seatsOf(worker)) {
      if (seat >= this.config.vps) continue;
      const vp = this.processor(seat);
      const emulated = vp instanceof KernelVp || vp instanceof SnpVp ? vp.emulator.notEmulated : [];
      for (const [name, times] of [...vp.cpu.unimplemented, ...emulated]) all.set(name, (all.get(name) ?? 0) + times);
    }
    return all;
  }

  /**
   * How far `worker` is, with the agent that had its turn last, or else the first that could go on. Reads memory only.
   *
   * @internal
   */
  progress(worker: number): Progress {
    const agents = this.workerAgents(worker);
    const last = agents[this.#i32[(this.doorbell(worker) + DoorbellWords.at.turn) >>> 2]];
    const next = last.enabled ? last : agents.find((agent) => agent.enabled);
    let steps = 0;
    for (const agent of agents) steps += agent.stepsTaken;
    for (const seat of this.seatsOf(worker)) {
      if (seat < this.config.vps) steps += this.#i32[(this.processor(seat).cpuState + cpu.instructions) >>> 2];
    }
    return { steps, waiting: next === undefined, agent: (next ?? last).name, step: (next ?? last).step };
  }

  // --- End ----------------------------------------------------------------------------------------------------------

  /** One of {@linkcode END}. */
  get end(): number {
    return Atomics.load(this.#i32, (this.header + header.end) >>> 2);
  }

  /**
   * Ends the machine for `reason` and asks everybody to leave: no guest executes another instruction once it has heard of
   * it. The first reason stays; returns whether this was the first.
   */
  finish(reason: number, vp: number, exitValue = 0): boolean {
    const word = (this.header + header.end) >>> 2;
    // The details are written first; of two that end the machine at once, the words of either may stay.
    if (Atomics.load(this.#i32, word) !== END.NONE) return false;
    this.#i32[(this.header + header.end_vp) >>> 2] = vp;
    this.#i32[(this.header + header.exit_value) >>> 2] = exitValue;
    if (Atomics.compareExchange(this.#i32, word, END.NONE, reason) !== END.NONE) return false;
    this.requestShutdown();
    return true;
  }

  /** Whether workers are to leave. */
  get shutdown(): boolean {
    return Atomics.load(this.#i32, (this.header + header.shutdown) >>> 2) !== 0;
  }

  /** Asks every worker to leave. */
  requestShutdown(): void {
    Atomics.store(this.#i32, (this.header + header.shutdown) >>> 2, 1);
    for (let vp = 0; vp < this.config.vps; vp++) {
      Atomics.or(
        this.#i32,
        (this.map.cpuStates + vp * CpuState.size + cpu.attention) >>> 2,
        ATTENTION.SHUTDOWN | ATTENTION.STOP,
      );
    }
  }

  /**
   * Whether no VP can ever run again: each is halted with interrupts off or was never started. A VP that has shut down is
   * about to end the machine with its triple fault.
   */
  allHalted(): boolean {
    // A processor looked at early may have been woken by one that halted before it was looked at itself. Then the former
    // has not halted again without counting it.
    const halts = this.#halts();
    for (let look = 0; look < 2; look++) {
      for (let vp = 0; vp < this.config.vps; vp++) if (!this.#isHalted(vp)) return false;
    }
    return this.#halts() === halts;
  }

  /** How often processors have executed HLT. */
  #halts(): number {
    let halts = 0;
    for (let vp = 0; vp < this.config.vps; vp++) {
      const exits = this.platform.partition.vpState(vp) + HypervisorVpState.at.exits;
      halts += this.memory.u32[(exits >>> 2) + 2 * EXIT_KIND.hlt];
    }
    return halts;
  }

  #isHalted(vp: number): boolean {
    const base = this.map.cpuStates + vp * CpuState.size;
    const word = (offset: number) => Atomics.load(this.#i32, (base + offset) >>> 2);
    if (word(cpu.attention) !== 0 || word(cpu.nmi_pending) !== 0) return false;
    // Looked at behind the attention word, which the processor clears after it has said that it attends to it.
    const attending = this.platform.partition.vpState(vp) + HypervisorVpState.at.attending;
    if (Atomics.load(this.#i32, attending >>> 2) !== 0) return false;
    switch (word(cpu.activity)) {
      case ACTIVITY_HALTED:
        return (word(cpu.rflags) & FLAG_IF) === 0 && word(cpu.event) === 0;
      case ACTIVITY_WAIT_FOR_SIPI:
        return true;
      default:
        return false;
    }
  }

  // --- Power-on -----------------------------------------------------------------------------------------------------

  #powerOn(): void {
    const { partition, facilities } = this.platform;
    partition.initialize();
    facilities.reset();
    this.platform.resetDevices();
    if (hasVtl2(this.config)) startKernelPartition(partition);
    const boots = this.config.bootVp ?? 0;
    for (let index = 0; index < this.config.vps; index++) {
      const vp = this.processor(index);
      resetCpu(vp.cpu, "power-up", CPU_SIGNATURE);
      vp.activity = index === boots ? ACTIVITY_RUNNING : ACTIVITY_WAIT_FOR_SIPI;
      vp.runQuantum = RUN_QUANTUM;
      if (vp instanceof KernelVp) startKernelVp(vp, this.map.vtl2);
      vp.step = hasVtl2(this.config) ? RUN_VP : index === boots ? GUEST_RUN : PARKED;
      this.memory.u8[vp.state + HypervisorVpState.at.active_vtl] = hasVtl2(this.config) ? 2 : 0;
    }
    if (this.config.platform === "sidecar") this.platform.sidecar.powerOn();
    if (isEncrypted(this.config)) this.platform.sev.powerOn();
  }
}

/** Instructions that a step of the guest executes in the concurrent runtime: some ten microseconds. */
const RUN_QUANTUM = 4096;

/** Writes the number of every policy's chosen value to the policy area at `area`. */
function setPolicies(memory: MachineMemory, area: number, config: MachineConfig): void {
  for (const name of Object.keys(config.policies)) policyNamed(name);
  for (const policy of policies()) {
    const chosen = config.policies[policy.name];
    memory.u8[area + policy.index] = chosen === undefined ? 0 : policyValue(policy, chosen);
  }
}
