/**
 * The `sidecar` platform: which agents a machine with sidecar nodes has, and on which processor's worker each lives.
 *
 * ```
 * worker of a node's base processor            worker of a sidecar processor
 *   vpB     guest, hypervisor, kernel, VMM       vpN        guest, hypervisor, sidecar kernel
 *   irqB    driver's interrupt handler           vpN.linux  the same processor after its conversion
 *   readerB client's wait loop
 *   vmm.vpN, online.vpN  for each processor of the node
 * ```
 *
 * The base processors run their own guest as on the `kernel` platform, once every other processor waits for its startup
 * IPI.
 *
 * @module
 */
import { ACTIVITY_WAIT_FOR_SIPI, CpuState } from "../cpu/state.ts";
import type { Facilities } from "../hypervisor/facilities.ts";
import type { HypercallContext } from "../hypervisor/hypercalls/context.ts";
import type { ProcessorParts, VirtualProcessor } from "../hypervisor/virtual_processor.ts";
import { HypervisorVpState } from "../hypervisor/vp_state.ts";
import { INTERCEPT_PAGE } from "../hypervisor/vtl_entry.ts";
import { ControlPage } from "../layout/hyperv/sidecar.ts";
import { type Agent, AgentBlock } from "../memory/agent.ts";
import { BadInput } from "../memory/bad_input.ts";
import type { MemoryPort } from "../memory/port.ts";
import { BaseCpuPort } from "../sidecar/base_port.ts";
import { HALTED, step, type StepId } from "../memory/steps.ts";
import { type NodeStart, probeNode, SIDECAR_AP_OFFLINE, SIDECAR_BOOT, SidecarBoot } from "../sidecar/boot.ts";
import { beginReader, ClientThread } from "../sidecar/client.ts";
import { SidecarClientState } from "../sidecar/client_state.ts";
import { DRIVER_INTERRUPT, ResponseHandler } from "../sidecar/driver/interrupt.ts";
import { CPU_ONLINE, CpuOnline, LINUX_CPU_OFFLINE, LinuxVp } from "../sidecar/hotplug.ts";
import { SidecarVp } from "../sidecar/kernel/sidecar_vp.ts";
import { layOutNodes, sidecarBytes, type SidecarNodeMemory, sidecarTopology } from "../sidecar/memory.ts";
import { SidecarNode } from "../sidecar/node.ts";
import { SIDECAR_TASK, SidecarTask } from "../sidecar/vmm_task.ts";
import { SidecarVmmVp } from "../sidecar/vmm_vp.ts";
import { MachineWires, requestWord } from "../sidecar/wires.ts";
import { KERNEL_PAGES, kernelPage, kernelPagesBytes } from "../vtl2/kernel_pages.ts";
import { KernelVp, type KernelVpParts } from "../vtl2/kernel_vp.ts";
import { RUN_VP } from "../vtl2/run_loop.ts";
import { wakeVmm } from "../vtl2/wake.ts";
import type { VmmCrash } from "../vtl2/vmm_vp.ts";
import type { MachineConfig } from "./config.ts";

/** Vector of Linux's platform IPI, to which the driver directs the sidecar's responses (X86_PLATFORM_IPI_VECTOR). */
const RESPONSE_VECTOR = 0xf7;
/** Agents of a node beside those of its processors: boot, reader, interrupt handler. */
const AGENTS_PER_NODE = 3;
/** Agents of a sidecar processor: itself, itself under Linux, the VMM's task, the thread that brings it online. */
const AGENTS_PER_VP = 4;

/** Threads of a node's driver for each sidecar processor, beside the reader: the VMM's task, the one that brings it online. */
const THREADS_PER_VP = 2;

/** The nodes of a machine. */
function topologyOf(config: MachineConfig): ReturnType<typeof sidecarTopology> {
  return config.platform === "sidecar" ? sidecarTopology(config.vps, config.sidecarNodes, config.sidecarVps) : [];
}

/** Bytes of VTL2's memory that the sidecar takes behind the kernel's pages. */
export function sidecarPagesBytes(config: MachineConfig): number {
  return sidecarBytes(topologyOf(config));
}

/** Agent blocks that a machine has beside one for each processor. */
export function sidecarAgents(config: MachineConfig): number {
  const topology = topologyOf(config);
  return topology.length * AGENTS_PER_NODE + config.vps * AGENTS_PER_VP;
}

/** What the platform is put together from. */
export interface SidecarPlatformParts {
  readonly config: MachineConfig;
  readonly facilities: Facilities;
  /** Guest-physical address at which VTL2's pages begin. */
  readonly vtl2: number;
  /** Byte offset of the policy area. */
  readonly policies: number;
  /** Byte offset of the first agent block behind those of the processors. */
  readonly agentBlocks: number;
  /** Byte offset of the hot-plug lock. */
  readonly hotplugLock: number;
  /** The parts of processor `vp`, shared by all of its objects in this thread. */
  readonly kernelParts: (vp: number) => KernelVpParts;
  /** VTL `vtl` of processor `vp` as a caller of hypercalls. */
  readonly hypercalls: (vp: number, vtl: number) => HypercallContext;
  /** Records a crash of the VMM. */
  readonly onCrash: (vp: number, crash: VmmCrash) => void;
  /** Records a triple fault. */
  readonly onTripleFault: (vp: number) => void;
}

/** See the module's description. One per thread. */
export class SidecarPlatform {
  readonly nodes: readonly SidecarNode[];
  readonly #memories: readonly SidecarNodeMemory[];
  readonly #parts: SidecarPlatformParts;
  readonly #vps = new Map<number, VirtualProcessor>();

  /** The platform that `parts` describe. */
  constructor(parts: SidecarPlatformParts) {
    this.#parts = parts;
    const { config, facilities, vtl2, policies } = parts;
    const { partition } = facilities;
    const { memory } = partition;
    this.#memories = layOutNodes(vtl2 + kernelPagesBytes(config.vps), topologyOf(config));
    this.nodes = this.#memories.map((node, index) =>
      new SidecarNode({
        memory,
        index,
        controlPage: node.controlPage,
        sharedPages: node.sharedPages,
        driver: node.driver,
        baseVp: node.baseVp,
        vpCount: node.vpCount,
        threads: 1 + THREADS_PER_VP * (node.vpCount - 1),
        requestWords: Array.from({ length: node.vpCount }, (_, slot) => requestWord(partition, node.baseVp + slot)),
        policies,
        wires: new MachineWires(partition, node),
      })
    );
  }

  /** Whether processor `vp` is a sidecar processor at power-on. */
  isSidecarVp(vp: number): boolean {
    return this.#nodeOf(vp) >= 0 && (this.#parts.config.sidecarVps?.includes(vp) ?? true);
  }

  /** Number of the node in which processor `vp` is and whose base processor it is not, or -1. */
  #nodeOf(vp: number): number {
    return this.nodes.findIndex(({ baseVp, vpCount }) => vp > baseVp && vp < baseVp + vpCount);
  }

  /** Byte offset of the block of agent `role` of processor `vp`, or of node `-1 - node`. */
  #block(owner: number, role: number): number {
    const { config, agentBlocks } = this.#parts;
    const index = owner >= 0
      ? owner * AGENTS_PER_VP + role
      : config.vps * AGENTS_PER_VP + (-1 - owner) * AGENTS_PER_NODE + role;
    return agentBlocks + index * AgentBlock.size;
  }

  /** The processor of index `vp`: its sidecar kernel's object, or Linux's. */
  processor(vp: number): VirtualProcessor {
    let found = this.#vps.get(vp);
    if (found === undefined) {
      found = this.isSidecarVp(vp)
        ? this.#sidecarVp(vp)
        : new KernelVp(vp, this.#block(vp, 0), this.#parts.kernelParts(vp));
      this.#vps.set(vp, found);
    }
    return found;
  }

  #sidecarVp(vp: number): SidecarVp {
    const index = this.#nodeOf(vp);
    const { kernelParts, hypercalls, onCrash } = this.#parts;
    const parts: Omit<ProcessorParts, "steps"> = kernelParts(vp);
    return new SidecarVp(vp, this.#block(vp, 0), {
      ...parts,
      node: this.nodes[index],
      slot: vp - this.nodes[index].baseVp,
      nodeMemory: this.#memories[index],
      vtl2Hypercalls: hypercalls(vp, 2),
      starts: this.#starts(),
      onPanic: (panicked, assertion) => onCrash(panicked.index, { assertion: `sidecar kernel: ${assertion}` }),
    });
  }

  #starts(): NodeStart[] {
    return this.nodes.map((node, index) => ({
      node,
      memory: this.#memories[index],
      starts: (slot) => this.isSidecarVp(node.baseVp + slot),
    }));
  }

  /** All agents that live on the worker of processor `vp`. */
  agents(vp: number): Agent[] {
    if (this.isSidecarVp(vp)) return [this.processor(vp), this.#linuxVp(vp)];
    const node = this.nodes.findIndex(({ baseVp }) => baseVp === vp);
    // The handler comes first: on the base processor an interrupt is taken before anything else goes on.
    const agents: Agent[] = node < 0 ? [] : this.#nodeAgents(node);
    if (vp === 0 && this.nodes.length > 0) agents.push(this.#boot());
    return [...agents, this.processor(vp)];
  }

  #linuxVp(vp: number): LinuxVp {
    const index = this.#nodeOf(vp);
    const slot = vp - this.nodes[index].baseVp;
    const { kernelParts, facilities: { partition } } = this.#parts;
    const wakeBase = () => partition.ring(this.nodes[index].baseVp);
    return new LinuxVp(vp, this.#block(vp, 1), kernelParts(vp), this.#memories[index].task(slot), wakeBase);
  }

  #boot(): SidecarBoot {
    const { facilities, hypercalls, onCrash } = this.#parts;
    return new ProbingBoot(
      this.nodes,
      this.#block(-1, 0),
      facilities.port,
      this.#starts(),
      hypercalls(0, 2),
      (assertion) => onCrash(0, { assertion: `sidecar boot: ${assertion}` }),
    );
  }

  #nodeAgents(index: number): Agent[] {
    const { partition } = this.#parts.facilities;
    const node = this.nodes[index];
    const { clients } = this.#memories[index];
    const port = new BaseCpuPort(partition.memory, this.#memories[index]);
    let thread = 0;
    const reader = new ClientThread(
      `reader${node.baseVp}`,
      node,
      this.#block(-1 - index, 1),
      port,
      thread++,
      clients,
      true,
    );
    const handler = new ResponseHandler(`irq${node.baseVp}`, node, this.#block(-1 - index, 2), port, reader);
    const agents: Agent[] = [handler, reader];
    for (let slot = 1; slot < node.vpCount; slot++) {
      if (!this.isSidecarVp(node.baseVp + slot)) continue;
      agents.push(this.#task(index, slot, thread++, port), this.#online(index, slot, thread++, port));
    }
    return agents;
  }

  #task(index: number, slot: number, thread: number, port: MemoryPort): SidecarTask {
    const { config, facilities, vtl2, kernelParts, onCrash, onTripleFault } = this.#parts;
    const node = this.nodes[index];
    const memory = this.#memories[index];
    const vp = node.baseVp + slot;
    const { devices, vmm, emulator, deviceReady } = kernelParts(vp);
    const taskState = memory.task(slot);
    return new SidecarTask({
      node,
      slot,
      block: this.#block(vp, 2),
      port,
      thread,
      clients: memory.clients,
      taskState,
      runState: kernelPage(vtl2, vp, KERNEL_PAGES.RUN_STATE),
      vmm: new SidecarVmmVp({
        facilities,
        index: vp,
        commandPage: node.commandPage(slot),
        taskState,
        state: kernelPage(vtl2, vp, KERNEL_PAGES.VMM),
        devices,
        vmm,
        onCrash,
      }),
      emulator,
      deviceReady,
      onTripleFault,
      boots: config.bootVp === vp,
    });
  }

  #online(index: number, slot: number, thread: number, port: MemoryPort): CpuOnline {
    const { facilities, vtl2, hotplugLock, onCrash } = this.#parts;
    const node = this.nodes[index];
    const memory = this.#memories[index];
    const vp = node.baseVp + slot;
    return new CpuOnline({
      node,
      slot,
      block: this.#block(vp, 3),
      port,
      thread,
      clients: memory.clients,
      taskState: memory.task(slot),
      lock: hotplugLock,
      runState: kernelPage(vtl2, vp, KERNEL_PAGES.RUN_STATE),
      started: () => facilities.partition.ring(vp),
      wakeRunner: () => wakeVmm(facilities, vtl2, vp, 0),
      unlocked: () => {
        for (const { baseVp } of this.nodes) facilities.partition.ring(baseVp);
      },
      onFailure: (failed, error) => onCrash(failed, { assertion: "CPU online failed", left: BigInt(error) }),
    });
  }

  /** Memory of the node of sidecar processor `vp`. */
  memoryOf(vp: number): SidecarNodeMemory {
    return this.#memories[this.#nodeOf(vp)];
  }

  /** Byte offset of the `SidecarTaskState` of sidecar processor `vp`. */
  taskState(vp: number): number {
    return this.place(vp).taskState;
  }

  /** Where the VMM's state of sidecar processor `vp` lies (`SidecarTaskState`, `SidecarClientState`), and its base processor. */
  place(vp: number): { readonly taskState: number; readonly client: number; readonly baseVp: number } {
    const memory = this.#memories[this.#nodeOf(vp)];
    const slot = vp - memory.baseVp;
    const client = memory.clients + slot * SidecarClientState.size;
    return { taskState: memory.task(slot), client, baseVp: memory.baseVp };
  }

  /** Sets every agent to its first step. Processors are reset by the caller. */
  powerOn(): void {
    const { config, facilities: { partition } } = this.#parts;
    // The sidecar kernel goes straight back after every interrupt, and would never see a message.
    if (partition.policy(INTERCEPT_PAGE) !== INTERCEPT_PAGE.is.available) {
      throw new BadInput(`Policy ${INTERCEPT_PAGE.name}=unavailable: the sidecar kernel needs the intercept page`);
    }
    for (let vp = 0; vp < config.vps; vp++) {
      for (const agent of this.agents(vp)) agent.step = firstStep(agent, config);
    }
  }
}

/** The step with which an agent begins. */
function firstStep(agent: Agent, config: MachineConfig): StepId {
  if (agent instanceof LinuxVp) return LINUX_CPU_OFFLINE;
  if (agent instanceof SidecarVp) return SIDECAR_AP_OFFLINE;
  if (agent instanceof KernelVp) return config.bootVp === undefined ? WAIT_FOR_PROCESSORS : RUN_VP;
  if (agent instanceof SidecarBoot) return agent.call(SIDECAR_BOOT, PROBE_NODES);
  if (agent instanceof SidecarTask) return agent.call(WAIT_FOR_PROBE, SIDECAR_TASK);
  if (agent instanceof CpuOnline) return CPU_ONLINE;
  if (agent instanceof ResponseHandler) return DRIVER_INTERRUPT;
  return beginReader(agent as ClientThread);
}

/** The boot code of a machine, which goes on as Linux: its driver finds the nodes. */
class ProbingBoot extends SidecarBoot {
  readonly nodes: readonly SidecarNode[];

  constructor(nodes: readonly SidecarNode[], ...parts: ConstructorParameters<typeof SidecarBoot>) {
    super(...parts);
    this.nodes = nodes;
  }
}

/** Linux has booted, and its driver probes the nodes that the boot code left in the device tree. */
const PROBE_NODES: StepId = step<ProbingBoot>("linux.sidecar-probe", (boot) => {
  for (const node of boot.nodes) {
    probeNode(node, RESPONSE_VECTOR);
    node.wires.woken();
  }
  return HALTED;
});

const RESPONSE_VECTOR_AT = ControlPage.at.response_vector;

/** The VMM opens a node's device when the driver has probed it. */
const WAIT_FOR_PROBE: StepId = step<SidecarTask>(
  "vmm.wait-for-probe",
  (task) => task.return(),
  ({ port, node }) => port.load32(node.controlPage + RESPONSE_VECTOR_AT) !== 0,
);

/** The VMM starts the bootstrap processor's guest when every other processor waits for its startup IPI. */
const WAIT_FOR_PROCESSORS: StepId = step<KernelVp>("vmm.wait-for-processors", () => RUN_VP, (vp) => {
  if (vp.index !== 0) return true;
  const { partition, port } = vp;
  for (let other = 1; other < partition.config.vps; other++) {
    const inVtl0 = port.load8(partition.vpState(other) + HypervisorVpState.at.active_vtl) === 0;
    const waits = port.load32(partition.cpuState(other) + CpuState.at.activity) === ACTIVITY_WAIT_FOR_SIPI;
    if (!inVtl0 || !waits) return false;
  }
  return true;
});
