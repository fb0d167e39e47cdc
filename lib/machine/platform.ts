/**
 * What a machine's processors are put together from, and how each platform wires them.
 *
 * @module
 */
import { Cpu } from "../cpu/cpu.ts";
import { CpuState } from "../cpu/state.ts";
import { type BackendLink, type DeviceBackend, DirectLink } from "../devices/backend.ts";
import type { Devices } from "../devices/devices.ts";
import { DeviceSet, LockedDevices } from "../devices/device_set.ts";
import { LoggedDevices } from "../devices/logged.ts";
import { RecordedDevices } from "../devices/recorded.ts";
import { BareBus, BareVp } from "../host/bare_vp.ts";
import { HOST_MSRS_SIZE, hostMsrs } from "../host/host_msrs.ts";
import { deliver, type InterruptRequest } from "../hypervisor/apic/delivery.ts";
import { DELIVERY_MODE } from "../hypervisor/apic/registers.ts";
import { ATTENTION } from "../hypervisor/attention.ts";
import { type CpuidTable, MachineCpuid, RecordedCpuid } from "../hypervisor/cpuid.ts";
import { EXIT_RING_SIZE, ExitLog } from "../hypervisor/exit_log.ts";
import { Facilities } from "../hypervisor/facilities.ts";
import type { HypercallContext } from "../hypervisor/hypercalls/context.ts";
import { GuestBus, type GuestBusParts } from "../hypervisor/guest_bus.ts";
import { Partition, PartitionState } from "../hypervisor/partition.ts";
import { VpRegisters } from "../hypervisor/registers.ts";
import { VirtualProcessor } from "../hypervisor/virtual_processor.ts";
import { HypervisorVpState } from "../hypervisor/vp_state.ts";
import { type Agent, AgentBlock } from "../memory/agent.ts";
import type { MemoryPort } from "../memory/port.ts";
import { InstructionEmulator } from "../vtl2/emulator/emulator.ts";
import { overlayVirtualizationStackCpuid } from "../vtl2/handlers/cpuid.ts";
import { NO_HYPERCALL_SERVICES } from "../vtl2/handlers/hypercall.ts";
import { EMULATOR_STATE_OFFSET, KERNEL_PAGES, kernelPage, WAKE } from "../vtl2/kernel_pages.ts";
import { KernelVp, type KernelVpParts } from "../vtl2/kernel_vp.ts";
import { wakeVmm } from "../vtl2/wake.ts";
import type { VmmCrash, VmmPartition } from "../vtl2/vmm_vp.ts";
import { decodeMsi } from "../hypervisor/apic/msi.ts";
import { stepUnderWay } from "./fused_steps.ts";
import { CRASH_TEXT_MAX, END, MachineHeader } from "./header.ts";
import type { Machine } from "./machine.ts";
import { hasVtl2 } from "./machine_map.ts";
import { isEncrypted, SevPlatform, type SevPlatformParts } from "./sev_platform.ts";
import { ParavisorPlatform } from "./paravisor_platform.ts";
import { SidecarPlatform } from "./sidecar_platform.ts";

const header = MachineHeader.at;

/** See the module's description. One per thread. */
export class Platform {
  readonly partition: Partition;
  readonly facilities: Facilities;
  readonly registers: VpRegisters;
  /** The PC's devices; absent in the machine of the recorded programs. */
  readonly pc: DeviceSet | undefined;
  readonly #machine: Machine;
  readonly #port: MemoryPort;
  readonly #backend: BackendLink | undefined;
  readonly #cpuid: CpuidTable;
  readonly #vmm: VmmPartition;
  #waitsAfterEnd = 0;
  readonly #kernel = new Map<number, KernelVpParts>();
  readonly #logs = new Map<number, ExitLog>();
  #sidecar: SidecarPlatform | undefined;
  #sev: SevPlatform | undefined;

  /** The platform of `machine`, whose agents touch shared memory through `port`. */
  constructor(machine: Machine, port: MemoryPort, backend?: DeviceBackend) {
    const { config, map, memory, clock } = machine;
    this.#machine = machine;
    this.#port = port;
    this.#backend = backend === undefined ? undefined : new DirectLink(backend);
    this.partition = new Partition(memory, map.partitionConfig(config));
    this.facilities = new Facilities(this.partition, port, map.facilities, clock, {
      levelEoi: (vp, vector) => this.#levelEoi(vp, vector),
      tripleFault: (vp) => void machine.finish(END.TRIPLE_FAULT, vp),
      synicChanged: (vp) => this.partition.signal(port, vp, ATTENTION.STOP),
    });
    this.registers = new VpRegisters(this.facilities);
    this.#cpuid = config.cpuid === undefined ? new MachineCpuid(config.vps) : new RecordedCpuid(config.cpuid);
    this.pc = config.devices === "recorded" ? undefined : new DeviceSet(memory, port, map.devices, {
      raiseInterrupt: (address, data) => this.#raiseInterrupt(decodeMsi(address, data)),
      setExtInt: (level) => this.#setExtInt(level),
      clock: () => clock.now(),
      onExit: (value) => machine.finish(END.EXIT_PORT, 0, value),
    }, machine.seats === 1);
    this.#vmm = {
      ...NO_HYPERCALL_SERVICES,
      overlayCpuid: (leaf, _subleaf, results) => this.#overlayCpuid(leaf, results),
      endOfInterrupt: (vector) => this.#endOfInterrupt(vector),
      acknowledgeExtInt: () => this.#acknowledgeExtInt(),
      guestCrashed: () => {},
      vpIndexOfApicId: (apicId) => (apicId < config.vps ? apicId : -1),
    };
  }

  /** Puts the devices into their state at power-on. */
  resetDevices(): void {
    const { config } = this.#machine;
    const epochMs = this.#machine.deterministic ? DETERMINISTIC_EPOCH_MS : Date.now();
    this.pc?.reset({ ramBytes: config.ramBytes, epochMs, pmTimerWide: true });
  }

  /** The virtual processor `index`; its state is in the memory. */
  processor(index: number): VirtualProcessor {
    const { config, map } = this.#machine;
    const block = map.agents + index * AgentBlock.size;
    switch (config.platform) {
      case "kernel":
        return this.#observed(new KernelVp(index, block, this.#kernelParts(index)));
      case "sidecar":
        return this.#observed(this.sidecar.processor(index));
      case "sev-es":
      case "snp":
        return this.#observed(this.sev.processor(index));
      default:
        return this.#observed(this.#bareVp(index, block));
    }
  }

  /** The agents of seat `index`: of that processor, or of the host of an encrypted guest. */
  agents(index: number): readonly Agent[] {
    const { config } = this.#machine;
    if (isEncrypted(config)) return this.sev.agents(index);
    if (config.platform !== "sidecar") return [this.#machine.processor(index)];
    const agents = this.sidecar.agents(index);
    for (const agent of agents) if (agent instanceof VirtualProcessor) this.#observed(agent);
    return agents;
  }

  /** The sidecar's agents; of a machine of that platform. */
  get sidecar(): SidecarPlatform {
    const { config, map } = this.#machine;
    return this.#sidecar ??= new SidecarPlatform({
      config,
      facilities: this.facilities,
      vtl2: map.vtl2,
      policies: map.header + header.policies,
      agentBlocks: map.agents + config.vps * AgentBlock.size,
      hotplugLock: map.header + header.hotplug_lock,
      kernelParts: (vp) => this.#kernelParts(vp),
      hypercalls: (vp, vtl) => this.#hypercalls(vp, vtl),
      onCrash: (vp, crash) => this.#crash(vp, crash),
      onTripleFault: (vp) => void this.#machine.finish(END.TRIPLE_FAULT, vp),
    });
  }

  /** The encrypted guest and its host; of a machine of the platforms `sev-es` and `snp`. */
  get sev(): SevPlatform {
    const machine = this.#machine;
    const { config, map, memory } = machine;
    if (this.#sev !== undefined) return this.#sev;
    const parts = {
      config,
      memory,
      facilities: this.facilities,
      port: this.#port,
      region: map.sev,
      agentBlocks: map.agents + config.vps * AgentBlock.size,
      doorbell: map.hostDoorbell(config),
      busParts: (vp) => this.#busParts(vp),
      cpu: (vp, bus) => this.#cpu(vp, bus).cpu,
      hypercalls: (vp) => this.#hypercalls(vp, 0),
      agentBlock: (vp) => map.agents + vp * AgentBlock.size,
      processor: (vp) => machine.processor(vp),
      services: (vp) => ({
        devices: this.#devices(vp),
        cpuid: this.#cpuid,
        overlayCpuid: (leaf, results) => this.#overlayCpuid(leaf, results),
        waitForDevice: () => void this.#waitForMain(),
        acknowledgePic: () => this.#acknowledgeExtInt(),
        onEndOfInterrupt: (vector) => this.#endOfInterrupt(vector),
      }),
      finish: (reason, vp, value) => void machine.finish(reason, vp, value),
    } satisfies SevPlatformParts;
    return this.#sev = config.paravisor === undefined ? new SevPlatform(parts) : new ParavisorPlatform({
      ...parts,
      cpuid: this.#cpuid,
      vmm: this.#vmm,
      splitLock: this.#splitLock,
      deviceReady: () => this.#deviceReady(),
      onCrash: (vp, crash) => this.#crash(vp, crash),
      onTripleFault: (vp) => void machine.finish(END.TRIPLE_FAULT, vp),
    });
  }

  /** What an object of processor `index` that runs under VTL2 is put together from; one for all of them in this thread. */
  #kernelParts(index: number): KernelVpParts {
    let parts = this.#kernel.get(index);
    if (parts !== undefined) return parts;
    const { config, map, memory } = this.#machine;
    const { cpu, bus } = this.#cpu(index, new GuestBus(this.#busParts(index)));
    const emulatorState = kernelPage(map.vtl2, index, KERNEL_PAGES.RUN_STATE) + EMULATOR_STATE_OFFSET;
    parts = {
      facilities: this.facilities,
      registers: this.registers,
      hypercalls: this.#hypercalls(index, 0),
      haltIntercept: config.haltIntercept ?? false,
      cpu,
      bus,
      kernelPages: map.vtl2,
      devices: this.#devices(index),
      vmm: this.#vmm,
      emulator: new InstructionEmulator(memory, emulatorState, this.#splitLock),
      savesFxEagerly: this.#machine.deterministic,
      deviceReady: () => this.#deviceReady(),
      acknowledgePic: () => -1,
      onCrash: (crashed, crash) => this.#crash(crashed.index, crash),
      onTripleFault: (vp) => void this.#machine.finish(END.TRIPLE_FAULT, vp.index),
    };
    this.#kernel.set(index, parts);
    return parts;
  }

  #bareVp(index: number, block: number): BareVp {
    const { map, memory } = this.#machine;
    const devices = this.#devices(index);
    const { cpu, bus } = this.#cpu(
      index,
      new BareBus(this.#busParts(index), {
        devices,
        msrs: hostMsrs(memory, map.hostMsrs + index * HOST_MSRS_SIZE, devices),
        cpuid: (leaf, results) => this.#overlayCpuid(leaf, results),
        waitForDevice: () => this.#waitForMain(),
      }),
    );
    return new BareVp(index, block, {
      facilities: this.facilities,
      hypercalls: this.#hypercalls(index, 0),
      haltIntercept: false,
      cpu,
      bus,
      acknowledgePic: () => this.#acknowledgeExtInt(),
      onTripleFault: (vp) => void this.#machine.finish(END.TRIPLE_FAULT, vp.index),
      onEndOfInterrupt: (vector) => this.#endOfInterrupt(vector),
    });
  }

  #observed<Vp extends VirtualProcessor>(vp: Vp): Vp {
    vp.observer = this.#exitLog(vp.index);
    return vp;
  }

  #busParts(vp: number): GuestBusParts {
    const recorded = this.#machine.config.devices === "recorded";
    return { facilities: this.facilities, vp, cpuid: this.#cpuid, recorded };
  }

  /** The processor that executes guest code of VP `index` on `bus`. */
  #cpu<Bus extends GuestBus>(index: number, bus: Bus): { readonly cpu: Cpu; readonly bus: Bus } {
    const { map, memory } = this.#machine;
    const cpu = new Cpu(memory, map.cpuStates + index * CpuState.size, bus, { splitLock: this.#splitLock });
    return { cpu, bus };
  }

  get #splitLock(): number {
    return this.#machine.header + header.split_lock;
  }

  /** Lets timers expire: those of the processor, and with VP 0 those of the devices. */
  poll(vp: VirtualProcessor): void {
    if (this.nextDeadline(vp) === Infinity) return; // the clock costs more than the rest
    const now = this.#machine.clock.now();
    if (this.facilities.nextDeadline(vp.index) <= now) this.facilities.pollTimers(vp.index);
    const { pc } = this;
    if (vp.index !== 0 || pc === undefined || pc.nextDeadline() > now) return;
    pc.lock.lock(this.#port);
    pc.poll(now);
    pc.lock.unlock(this.#port);
  }

  /** When {@linkcode Platform.poll} of `vp` has something to do. */
  nextDeadline(vp: VirtualProcessor): number {
    const own = this.facilities.nextDeadline(vp.index);
    return vp.index === 0 && this.pc !== undefined ? Math.min(own, this.pc.nextDeadline()) : own;
  }

  /** A VTL of a processor as a caller of hypercalls. */
  #hypercalls(vp: number, vtl: number): HypercallContext {
    const started = (target: number) => this.partition.signal(this.#port, target, ATTENTION.FLUSH_TLB | ATTENTION.STOP);
    const events = { vtl0Started: started, vtl2Started: () => {} };
    return { facilities: this.facilities, registers: this.registers, events, vp, vtl };
  }

  /** The exit log of processor `index`, one for all who use it in this thread. */
  #exitLog(index: number): ExitLog | undefined {
    const machine = this.#machine;
    const { config, map, memory } = machine;
    if (!config.recordExits) return undefined;
    let log = this.#logs.get(index);
    if (log === undefined) {
      const at = {
        ring: map.exitRings + index * EXIT_RING_SIZE,
        sequence: map.header + header.exit_sequence,
        limit: map.header + header.exit_limit,
      };
      log = new ExitLog(memory, at, () => machine.finish(END.LIMIT, index), () => this.#waitForMain());
      this.#logs.set(index, log);
    }
    return log;
  }

  #devices(index: number): Devices {
    const machine = this.#machine;
    const { config, map, memory } = machine;
    const devices = this.pc === undefined
      ? new RecordedDevices(memory, map.devices, config.endPort ?? -1, () => machine.finish(END.EXIT_PORT, index))
      : new LockedDevices(this.pc, this.#port, this.#backend);
    const log = this.#exitLog(index);
    return log === undefined ? devices : new LoggedDevices(devices, log);
  }

  #overlayCpuid(leaf: number, results: Int32Array | Uint32Array): void {
    if (this.#machine.config.devices !== "recorded") overlayVirtualizationStackCpuid(leaf, results);
  }

  #deviceReady(): boolean {
    return this.pc === undefined || (this.pc.serialOutput.hasRoom() && this.pc.debugOutput.hasRoom());
  }

  /**
   * A ring is full: waits a moment for the main thread to empty it, or empties it where this is that thread. False when
   * the machine has ended and nobody empties it any more.
   */
  #waitForMain(): boolean {
    const machine = this.#machine;
    if (machine.onFull !== undefined) {
      machine.onFull();
      return true;
    }
    const shutdown = machine.shutdown ? 1 : 0;
    Atomics.wait(machine.memory.i32, (machine.header + header.shutdown) >>> 2, shutdown, FULL_WAIT_MS);
    return shutdown === 0 || this.#waitsAfterEnd++ < FULL_WAITS_AFTER_END;
  }

  #acknowledgeExtInt(): number {
    const { pc } = this;
    if (pc === undefined) return -1;
    pc.lock.lock(this.#port);
    const vector = pc.acknowledgeExtInt();
    // The output may have stayed high, for a further request: that is no change that would be told.
    if (pc.pic.output) this.#setExtInt(true);
    pc.lock.unlock(this.#port);
    return vector;
  }

  #endOfInterrupt(vector: number): void {
    const { pc } = this;
    if (pc === undefined) return;
    pc.lock.lock(this.#port);
    pc.endOfInterrupt(vector);
    pc.lock.unlock(this.#port);
  }

  /** The interrupt controllers' output changed: VP 0 is the one that takes their interrupts. */
  #setExtInt(level: boolean): void {
    if (!level) return;
    if (!hasVtl2(this.#machine.config)) this.facilities.apic(0).raiseExtInt();
    else wakeVmm(this.facilities, this.#machine.map.vtl2, 0, WAKE.EXTINT);
  }

  /** A message of the I/O APIC. One of type ExtINT goes the way of the interrupt controllers' own output. */
  #raiseInterrupt(request: InterruptRequest): void {
    if (request.mode === DELIVERY_MODE.EXTINT) this.#setExtInt(true);
    else deliver(this.facilities, request);
  }

  #levelEoi(vp: number, vector: number): void {
    const { partition } = this;
    if (hasVtl2(this.#machine.config) && !partition.intercepts(PartitionState.at.apic_eoi_intercept)) return;
    const { u32 } = this.#machine.memory;
    const state = partition.vpState(vp);
    u32[((state + HypervisorVpState.at.eoi_vectors) >>> 2) + (vector >>> 5)] |= 1 << (vector & 31);
    u32[(state + HypervisorVpState.at.eoi_pending) >>> 2] = 1;
    partition.signal(this.#port, vp, ATTENTION.STOP);
  }

  #crash(vp: number, crash: VmmCrash): void {
    const machine = this.#machine;
    const { memory, header: at } = machine;
    if (machine.end !== END.NONE) return;
    const text = new TextEncoder().encode(crash.assertion).subarray(0, CRASH_TEXT_MAX);
    memory.u8.set(text, at + header.crash_text);
    memory.u32[(at + header.crash_text_length) >>> 2] = text.length;
    memory.u32[(at + header.crash_step) >>> 2] = stepUnderWay() ?? machine.processor(vp).step;
    memory.u64[(at + header.crash_left) >>> 3] = crash.left ?? 0n;
    memory.u64[(at + header.crash_right) >>> 3] = crash.right ?? 0n;
    machine.finish(END.VMM_CRASH, vp);
  }
}

/** Longest wait in milliseconds of a processor whose device's output ring is full. */
const FULL_WAIT_MS = 1;
/** How often it waits when the machine has ended: the main thread empties the rings while it waits for the workers. */
const FULL_WAITS_AFTER_END = 200;
/** Time of day at which a deterministic machine starts: 2026-01-01T00:00:00Z in milliseconds since 1970. */
const DETERMINISTIC_EPOCH_MS = 1_767_225_600_000;
