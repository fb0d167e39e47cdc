/**
 * A machine for tests: processor 0 is Linux's and idle, the others run a guest program, on the sidecar or as Linux's. Agents
 * take turns in a random order that a seed decides, or one after the other.
 */
import { Cpu } from "../../lib/cpu/cpu.ts";
import { resetCpu } from "../../lib/cpu/reset.ts";
import { ACTIVITY_HALTED, ACTIVITY_WAIT_FOR_SIPI, CpuState } from "../../lib/cpu/state.ts";
import { assemble } from "../../lib/guest/assembler/assemble.ts";
import { ATTENTION } from "../../lib/hypervisor/attention.ts";
import { CPU_SIGNATURE, MachineCpuid } from "../../lib/hypervisor/cpuid.ts";
import { Facilities, facilityBytes } from "../../lib/hypervisor/facilities.ts";
import { GuestBus } from "../../lib/hypervisor/guest_bus.ts";
import { PARKED } from "../../lib/hypervisor/guest.ts";
import { Partition, partitionBytes, type PartitionConfig } from "../../lib/hypervisor/partition.ts";
import { VpRegisters } from "../../lib/hypervisor/registers.ts";
import type { VirtualProcessor } from "../../lib/hypervisor/virtual_processor.ts";
import { HypervisorVpState } from "../../lib/hypervisor/vp_state.ts";
import { type Agent, AgentBlock } from "../../lib/memory/agent.ts";
import { MachineMemory, PAGE_SIZE } from "../../lib/memory/machine_memory.ts";
import { POLICIES_MAX, policyNamed, policyValue } from "../../lib/memory/policy.ts";
import { DirectPort } from "../../lib/memory/port.ts";
import { Random } from "../../lib/memory/random.ts";
import { HALTED, type StepId, stepName } from "../../lib/memory/steps.ts";
import { DRIVER_LOCAL } from "../../lib/sidecar/driver/thread.ts";
import { probeNode, SIDECAR_AP_OFFLINE, SIDECAR_BOOT, SidecarBoot } from "../../lib/sidecar/boot.ts";
import { beginReader, ClientThread } from "../../lib/sidecar/client.ts";
import { DRIVER_INTERRUPT, ResponseHandler } from "../../lib/sidecar/driver/interrupt.ts";
import { CPU_ONLINE, CpuOnline, LINUX_CPU_OFFLINE, LinuxVp } from "../../lib/sidecar/hotplug.ts";
import { SidecarVp } from "../../lib/sidecar/kernel/sidecar_vp.ts";
import { layOutNodes, sidecarBytes, type SidecarNodeMemory, sidecarTopology } from "../../lib/sidecar/memory.ts";
import { SidecarNode } from "../../lib/sidecar/node.ts";
import { SidecarVmmVp } from "../../lib/sidecar/vmm_vp.ts";
import { SIDECAR_TASK, SIDECAR_TASK_STOPPED, SidecarTask } from "../../lib/sidecar/vmm_task.ts";
import { MachineWires, requestWord } from "../../lib/sidecar/wires.ts";
import { InstructionEmulator } from "../../lib/vtl2/emulator/emulator.ts";
import { overlayVirtualizationStackCpuid } from "../../lib/vtl2/handlers/cpuid.ts";
import { NO_HYPERCALL_SERVICES } from "../../lib/vtl2/handlers/hypercall.ts";
import {
  EMULATOR_STATE_OFFSET,
  KERNEL_PAGES,
  kernelPage,
  kernelPagesBytes,
  STOP,
  VmmRunState,
} from "../../lib/vtl2/kernel_pages.ts";
import { wakeVmm } from "../../lib/vtl2/wake.ts";
import { startKernelPartition, startKernelVp } from "../../lib/vtl2/kernel_start.ts";
import { KernelVp } from "../../lib/vtl2/kernel_vp.ts";
import { RUN_VP } from "../../lib/vtl2/run_loop.ts";
import type { VmmCrash, VmmPartition } from "../../lib/vtl2/vmm_vp.ts";
import { NotedDevices } from "../vtl2/fixture.ts";

const RAM = 0x80000;
/** Where the program of processor n begins: page n * 16, which a startup IPI can name. */
const CODE_PAGES = 16;
const RESPONSE_VECTOR = 0xf7;

/** What a test machine is made of. */
export interface MachineOptions {
  /** Processors, the base processor included. */
  readonly vps: number;
  /** Who handles exits. */
  readonly platform: "kernel" | "sidecar";
  /** Program of each processor from 1 on, in 16-bit code; it ends with `cli` and `hlt`. */
  readonly programs: readonly string[];
  readonly policies?: Readonly<Record<string, string>>;
  readonly seed?: number;
  readonly numaNodes?: number;
  /** No tasks of the VMM: the test itself uses the client, by {@linkcode TestMachine.client}. */
  readonly withoutTasks?: boolean;
}

/** See the module's description. */
export class TestMachine {
  readonly memory: MachineMemory;
  readonly partition: Partition;
  readonly facilities: Facilities;
  readonly registers: VpRegisters;
  readonly port: DirectPort;
  readonly nodes: readonly SidecarNode[];
  readonly nodeMemories: readonly SidecarNodeMemory[];
  readonly agents: Agent[] = [];
  /** Devices of each processor. */
  readonly devices: NotedDevices[] = [];
  readonly tasks: SidecarTask[] = [];
  /** A thread of the client for each node, in a machine without tasks; it uses the node's first sidecar processor. */
  readonly clients: ClientThread[] = [];
  readonly crashes: { readonly vp: number; readonly crash: VmmCrash }[] = [];
  readonly panics: string[] = [];
  /** Names of the steps taken, with their agents', when asked for. */
  trace: string[] | undefined = undefined;
  readonly #options: MachineOptions;
  readonly #random: Random;
  readonly #kernelPages = RAM;
  readonly #started = new Set<number>();
  readonly #processors = new Map<number, VirtualProcessor[]>();
  #next = 0;

  constructor(options: MachineOptions) {
    this.#options = options;
    const { vps, platform, policies = {}, seed = 1, numaNodes = 1 } = options;
    const topology = platform === "sidecar" ? sidecarTopology(vps, numaNodes) : [];
    const sidecarPages = RAM + kernelPagesBytes(vps);
    const vtl2Bytes = kernelPagesBytes(vps) + sidecarBytes(topology);
    let next = RAM + vtl2Bytes;
    const take = (bytes: number) => {
      const at = Math.ceil(next / PAGE_SIZE) * PAGE_SIZE;
      next = at + bytes;
      return at;
    };
    const area = take(POLICIES_MAX);
    const words = take(PAGE_SIZE);
    const doorbells = take(vps * 64);
    const cpuStates = take(vps * CpuState.size);
    const blocks = take((4 * vps + 8) * AgentBlock.size);
    const partitionAt = take(partitionBytes({ vps, ramBytes: RAM, vtl2Bytes }));
    const facilitiesAt = take(facilityBytes(vps));
    this.memory = MachineMemory.allocate(next);
    const { memory } = this;
    for (const [name, value] of Object.entries(policies)) {
      memory.u8[area + policyNamed(name).index] = policyValue(policyNamed(name), value);
    }
    memory.i32[words >>> 2] = seed;
    this.#random = new Random(memory.i32, words >>> 2);
    const hotplugLock = words + 64;
    const config: PartitionConfig = {
      vps,
      ramBytes: RAM,
      vtl2Bytes,
      policies: area,
      base: partitionAt,
      cpuState: { base: cpuStates, stride: CpuState.size, attention: CpuState.at.attention },
      doorbells: { base: doorbells, stride: 64 },
    };
    this.port = new DirectPort(memory);
    const { port } = this;
    this.partition = new Partition(memory, config);
    this.partition.initialize();
    let now = 0;
    this.facilities = new Facilities(this.partition, port, facilitiesAt, { now: () => now++ }, {
      levelEoi: () => {},
      tripleFault: () => {},
      synicChanged: (vp) => this.partition.signal(port, vp, ATTENTION.STOP),
    });
    this.facilities.reset();
    startKernelPartition(this.partition);
    this.registers = new VpRegisters(this.facilities);
    const { facilities, registers, partition } = this;
    const vmm: VmmPartition = {
      ...NO_HYPERCALL_SERVICES,
      overlayCpuid: (leaf, _subleaf, results) => overlayVirtualizationStackCpuid(leaf, results),
      endOfInterrupt: () => {},
      acknowledgeExtInt: () => -1,
      guestCrashed: () => {},
      vpIndexOfApicId: (id) => id,
    };
    let block = blocks;
    const nextBlock = () => (block += AgentBlock.size) - AgentBlock.size;
    const hypercalls = (vp: number, vtl: number) => ({
      facilities,
      registers,
      events: { vtl0Started: () => {}, vtl2Started: () => {} },
      vp,
      vtl,
    });
    const emulator = (vp: number) =>
      new InstructionEmulator(
        memory,
        kernelPage(this.#kernelPages, vp, KERNEL_PAGES.RUN_STATE) + EMULATOR_STATE_OFFSET,
        words + 128,
      );
    const cpuid = new MachineCpuid(vps);
    const processorParts = (vp: number) => {
      const bus = new GuestBus({ facilities, vp, cpuid, recorded: false });
      const cpu = new Cpu(memory, cpuStates + vp * CpuState.size, bus, { splitLock: words + 128 });
      return { facilities, cpu, bus, hypercalls: hypercalls(vp, 0), haltIntercept: false, acknowledgePic: () => -1 };
    };
    const kernelParts = (vp: number) => ({
      ...processorParts(vp),
      kernelPages: this.#kernelPages,
      registers,
      devices: this.devices[vp],
      vmm,
      emulator: emulator(vp),
      savesFxEagerly: true,
      deviceReady: () => true,
      onCrash: (crashed: VirtualProcessor, crash: VmmCrash) => void this.crashes.push({ vp: crashed.index, crash }),
      onTripleFault: (vp: VirtualProcessor) => void this.panics.push(`triple fault of vp${vp.index}`),
    });
    for (let vp = 0; vp < vps; vp++) {
      this.devices.push(new NotedDevices());
      this.devices[vp].answers = Array.from({ length: 64 }, (_, k) => BigInt((k * 0x01234567 + vp) >>> 0));
      if (vp > 0) memory.u8.set(assemble(options.programs[vp - 1]).bytes, vp * CODE_PAGES * PAGE_SIZE);
    }

    this.nodeMemories = layOutNodes(sidecarPages, topology);
    this.nodes = this.nodeMemories.map((node, index) =>
      new SidecarNode({
        memory,
        index,
        controlPage: node.controlPage,
        sharedPages: node.sharedPages,
        driver: node.driver,
        baseVp: node.baseVp,
        vpCount: node.vpCount,
        threads: 2 * node.vpCount + 1,
        requestWords: Array.from({ length: node.vpCount }, (_, slot) => requestWord(partition, node.baseVp + slot)),
        policies: area,
        wires: new MachineWires(partition, node),
      })
    );
    const starts = this.nodes.map((node, index) => ({ node, memory: this.nodeMemories[index] }));
    for (let vp = 1; vp < vps; vp++) {
      const index = topology.findIndex(({ baseVp, vpCount }) => vp > baseVp && vp < baseVp + vpCount);
      if (index >= 0) this.#addSidecarVp(vp, index, starts, hypercalls(vp, 2), processorParts(vp), nextBlock());
      else this.#addKernelVp(vp, new KernelVp(vp, nextBlock(), kernelParts(vp)));
    }
    if (starts.length === 0) return;
    const boot = new SidecarBoot(nextBlock(), port, starts, hypercalls(0, 2), (text) => void this.panics.push(text));
    boot.step = SIDECAR_BOOT;
    this.agents.push(boot);
    this.#take(() => boot.halted || this.panics.length > 0, 100_000);
    this.agents.splice(this.agents.indexOf(boot), 1);

    this.nodes.forEach((node, index) => {
      const nodeMemory = this.nodeMemories[index];
      const { clients } = nodeMemory;
      probeNode(node, RESPONSE_VECTOR);
      let thread = 0;
      const reader = new ClientThread(`reader${index}`, node, nextBlock(), port, thread++, clients, true);
      reader.step = beginReader(reader);
      const handler = new ResponseHandler(`irq${index}`, node, nextBlock(), port);
      handler.step = DRIVER_INTERRUPT;
      this.agents.push(reader, handler);
      if (options.withoutTasks) {
        const client = new ClientThread(`client${index}`, node, nextBlock(), port, thread++, clients);
        client.locals32[DRIVER_LOCAL.SLOT] = 1;
        client.step = HALTED;
        this.clients.push(client);
        this.agents.push(client);
        return;
      }
      for (let slot = 1; slot < node.vpCount; slot++) {
        const vp = node.baseVp + slot;
        const taskState = nodeMemory.task(slot);
        const task = new SidecarTask({
          node,
          slot,
          block: nextBlock(),
          port,
          thread: thread++,
          clients,
          taskState,
          runState: kernelPage(this.#kernelPages, vp, KERNEL_PAGES.RUN_STATE),
          vmm: new SidecarVmmVp({
            facilities,
            index: vp,
            commandPage: node.commandPage(slot),
            taskState,
            state: kernelPage(this.#kernelPages, vp, KERNEL_PAGES.VMM),
            devices: this.devices[vp],
            vmm,
            onCrash: (crashed, crash) => void this.crashes.push({ vp: crashed, crash }),
          }),
          emulator: emulator(vp),
          deviceReady: () => true,
          onTripleFault: (crashed) => void this.panics.push(`triple fault of vp${crashed}`),
        });
        task.step = SIDECAR_TASK;
        this.tasks.push(task);
        const online = new CpuOnline({
          node,
          slot,
          block: nextBlock(),
          port,
          thread: thread++,
          clients,
          taskState,
          lock: hotplugLock,
          runState: kernelPage(this.#kernelPages, vp, KERNEL_PAGES.RUN_STATE),
          started: () => {},
          wakeRunner: () => wakeVmm(this.facilities, this.#kernelPages, vp, 0),
          unlocked: () => {},
          onFailure: (failed, error) => void this.panics.push(`cpu ${failed}: ${error}`),
        });
        online.step = CPU_ONLINE;
        const linux = new LinuxVp(vp, nextBlock(), kernelParts(vp), taskState, () => {});
        linux.step = LINUX_CPU_OFFLINE;
        this.#processors.get(vp)?.push(linux);
        this.agents.push(task, online, linux);
      }
    });
  }

  #addSidecarVp(
    vp: number,
    index: number,
    starts: SidecarVp["starts"],
    vtl2Hypercalls: SidecarVp["vtl2Hypercalls"],
    parts: ConstructorParameters<typeof SidecarVp>[2] extends infer P
      ? Omit<P & object, "node" | "slot" | "nodeMemory" | "vtl2Hypercalls" | "starts" | "onPanic">
      : never,
    block: number,
  ): void {
    const added = new SidecarVp(vp, block, {
      ...(parts as ConstructorParameters<typeof SidecarVp>[2]),
      node: this.nodes[index],
      slot: vp - this.nodes[index].baseVp,
      nodeMemory: this.nodeMemories[index],
      vtl2Hypercalls,
      starts,
      onPanic: (_vp, text) => void this.panics.push(text),
    });
    this.#reset(added);
    added.step = SIDECAR_AP_OFFLINE;
    this.#processors.set(vp, [added]);
    this.agents.push(added);
  }

  #addKernelVp(index: number, vp: KernelVp): void {
    this.#reset(vp);
    startKernelVp(vp, this.#kernelPages);
    vp.step = RUN_VP;
    this.#processors.set(index, [vp]);
    this.agents.push(vp);
  }

  #reset(vp: VirtualProcessor): void {
    resetCpu(vp.cpu, "power-up", CPU_SIGNATURE);
    vp.activity = ACTIVITY_WAIT_FOR_SIPI;
    vp.runQuantum = 3;
    this.memory.u8[vp.state + HypervisorVpState.at.active_vtl] = 2;
  }

  /** Objects of processor `vp`: its sidecar kernel's, then its Linux's. */
  processors(vp: number): readonly VirtualProcessor[] {
    return this.#processors.get(vp) ?? [];
  }

  /** Takes steps until `done`, or until no agent can take one; throws after `most` steps. */
  #take(done: () => boolean, most: number): void {
    const { agents } = this;
    for (let taken = 0; taken < most; taken++) {
      if (done()) return;
      const enabled = agents.filter((agent) => agent.enabled);
      if (enabled.length === 0) return;
      const roundRobin = this.#options.seed === 0;
      const agent = enabled[roundRobin ? this.#next++ % enabled.length : this.#random.below(enabled.length)];
      this.trace?.push(`${agent.name} ${stepName(agent.step)}`);
      agent.takeSteps(1);
      this.#startGuests();
    }
    throw new Error(`Not done: ${agents.map((agent) => `${agent.name} ${stepName(agent.step)}`).join(", ")}`);
  }

  /** Sends the startup IPI to a processor whose VTL0 waits for it. */
  #startGuests(): void {
    for (const [index, [vp]] of this.#processors) {
      if (this.#started.has(index) || vp.activity !== ACTIVITY_WAIT_FOR_SIPI) continue;
      if (this.memory.u8[vp.state + HypervisorVpState.at.active_vtl] !== 0) continue;
      this.#started.add(index);
      this.memory.u32[(vp.state + HypervisorVpState.at.sipi_vector) >>> 2] = index * CODE_PAGES;
      this.partition.signal(this.port, index, ATTENTION.SIPI);
    }
  }

  /** Lets a thread carry out the machine that begins with `first`; returns its result. */
  call(thread: ClientThread, first: StepId): number {
    thread.step = thread.call(first, HALTED);
    this.#take(() => thread.halted, 100_000);
    if (!thread.halted) throw new Error(`${thread.name} sleeps for ever in ${stepName(thread.step)}`);
    return thread.result;
  }

  /** Runs until every guest has halted and every other agent rests, or until the VMM has crashed. */
  run(most = 400_000): void {
    this.#take(() => this.crashes.length > 0 || this.panics.length > 0, most);
  }

  /** Asks the task of processor `vp` to stop, waits until it has, and lets it go on again later. */
  stopAndResume(task: SidecarTask, steps: number): void {
    let left = steps;
    this.#take(() => left-- <= 0 || task.halted, steps + 1);
    const stop = (task.runState + VmmRunState.at.stop) >>> 2;
    this.memory.u32[stop] = STOP.VMM;
    this.#take(() => task.step === SIDECAR_TASK_STOPPED, 100_000);
    if (task.step !== SIDECAR_TASK_STOPPED) throw new Error(`The task of ${task.name} does not stop`);
    this.memory.u32[stop] = 0;
  }

  /** Whether the guest of processor `vp` has come to its end. */
  finished(vp: number): boolean {
    const halted = this.processors(vp)[0].activity === ACTIVITY_HALTED;
    return halted && this.processors(vp).some((object) => object.step === PARKED);
  }

  /** The registers with which the guest of processor `vp` has ended: GPRs, RIP, RFLAGS, CR2 and the x87/SSE image. */
  final(vp: number): bigint[] {
    const { u64 } = this.memory;
    const base = this.partition.cpuState(vp) >>> 3;
    const at = CpuState.at;
    return [
      ...u64.slice(base + at.gpr / 8, base + at.gpr / 8 + 16),
      u64[base + at.rip / 8],
      u64[base + at.rflags / 8],
      u64[base + at.cr2 / 8],
      ...u64.slice(base + at.fx / 8, base + at.fx / 8 + 64),
    ];
  }
}
