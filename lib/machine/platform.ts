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
import { hostMsrs } from "../host/host_msrs.ts";
import { deliver } from "../hypervisor/apic/delivery.ts";
import { ATTENTION } from "../hypervisor/attention.ts";
import { type CpuidTable, MachineCpuid, RecordedCpuid } from "../hypervisor/cpuid.ts";
import { EXIT_RING_SIZE, ExitLog } from "../hypervisor/exit_log.ts";
import { Facilities } from "../hypervisor/facilities.ts";
import type { HypercallContext } from "../hypervisor/hypercalls/context.ts";
import { GuestBus, type GuestBusParts } from "../hypervisor/guest_bus.ts";
import { Partition } from "../hypervisor/partition.ts";
import { VpRegisters } from "../hypervisor/registers.ts";
import type { VirtualProcessor } from "../hypervisor/virtual_processor.ts";
import { HypervisorVpState } from "../hypervisor/vp_state.ts";
import { AgentBlock } from "../memory/agent.ts";
import type { MemoryPort } from "../memory/port.ts";
import { InstructionEmulator } from "../vtl2/emulator/emulator.ts";
import { overlayVirtualizationStackCpuid } from "../vtl2/handlers/cpuid.ts";
import { NO_HYPERCALL_SERVICES } from "../vtl2/handlers/hypercall.ts";
import { EMULATOR_STATE_OFFSET, KERNEL_PAGES, kernelPage, WAKE } from "../vtl2/kernel_pages.ts";
import { KernelVp } from "../vtl2/kernel_vp.ts";
import { wakeVmm } from "../vtl2/wake.ts";
import type { VmmCrash, VmmPartition } from "../vtl2/vmm_vp.ts";
import { decodeMsi } from "../hypervisor/apic/msi.ts";
import { CRASH_TEXT_MAX, END, MachineHeader } from "./header.ts";
import type { Machine } from "./machine.ts";

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

  /** The platform of `machine`, whose agents touch shared memory through `port`. */
  constructor(machine: Machine, port: MemoryPort, backend?: DeviceBackend) {
    const { config, map, memory, clock } = machine;
    this.#machine = machine;
    this.#port = port;
    this.#backend = backend === undefined ? undefined : new DirectLink(backend);
    this.partition = new Partition(memory, map.partitionConfig(config));
    this.facilities = new Facilities(this.partition, port, map.facilities, clock, {
      levelEoi: (vp, vector) => this.#levelEoi(vp, vector),
      synicChanged: (vp) => this.partition.signal(port, vp, ATTENTION.STOP),
    });
    this.registers = new VpRegisters(this.facilities);
    this.#cpuid = config.cpuid === undefined ? new MachineCpuid(config.vps) : new RecordedCpuid(config.cpuid);
    this.pc = config.devices === "recorded" ? undefined : new DeviceSet(memory, port, map.devices, {
      raiseInterrupt: (address, data) => deliver(this.facilities, decodeMsi(address, data)),
      setExtInt: (level) => this.#setExtInt(level),
      clock: () => clock.now(),
      onExit: (value) => machine.finish(END.EXIT_PORT, 0, value),
    });
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

  /** Makes the object for virtual processor `index`; its state is in the memory. */
  processor(index: number): VirtualProcessor {
    const { config, map, memory } = this.#machine;
    const log = this.#exitLog(index);
    const devices = this.#devices(index, log);
    const block = map.agents + index * AgentBlock.size;
    const busParts: GuestBusParts = {
      facilities: this.facilities,
      vp: index,
      cpuid: this.#cpuid,
      recorded: config.devices === "recorded",
    };
    const splitLock = map.header + header.split_lock;
    const newCpu = (bus: GuestBus) => new Cpu(memory, map.cpuStates + index * CpuState.size, bus, { splitLock });
    const onTripleFault = (vp: VirtualProcessor) => void this.#machine.finish(END.TRIPLE_FAULT, vp.index);
    let vp: VirtualProcessor;
    if (config.platform === "kernel") {
      const bus = new GuestBus(busParts);
      vp = new KernelVp(index, block, {
        facilities: this.facilities,
        registers: this.registers,
        hypercalls: this.#hypercalls(index),
        haltIntercept: config.haltIntercept ?? false,
        cpu: newCpu(bus),
        bus,
        kernelPages: map.vtl2,
        devices,
        vmm: this.#vmm,
        emulator: new InstructionEmulator(
          memory,
          kernelPage(map.vtl2, index, KERNEL_PAGES.RUN_STATE) + EMULATOR_STATE_OFFSET,
          splitLock,
        ),
        savesFxEagerly: this.#machine.deterministic,
        deviceReady: () => this.#deviceReady(),
        acknowledgePic: () => -1,
        onCrash: (crashed, crash) => this.#crash(crashed, crash),
        onTripleFault,
      });
    } else {
      const bus = new BareBus(busParts, {
        devices,
        msrs: hostMsrs(memory, map.header + header.host_msrs, devices),
        cpuid: (leaf, results) => this.#overlayCpuid(leaf, results),
        waitForDevice: () => this.#waitForMain(),
      });
      vp = new BareVp(index, block, {
        facilities: this.facilities,
        hypercalls: this.#hypercalls(index),
        haltIntercept: false,
        cpu: newCpu(bus),
        bus,
        acknowledgePic: () => this.#acknowledgeExtInt(),
        onTripleFault,
        onEndOfInterrupt: (vector) => this.#endOfInterrupt(vector),
      });
    }
    vp.observer = log;
    return vp;
  }

  /** Lets timers expire: those of the processor, and with VP 0 those of the devices. */
  poll(vp: VirtualProcessor): void {
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

  /** VTL0 of a processor as a caller of hypercalls. */
  #hypercalls(vp: number): HypercallContext {
    const started = (target: number) => this.partition.signal(this.#port, target, ATTENTION.FLUSH_TLB | ATTENTION.STOP);
    const events = { vtl0Started: started, vtl2Started: () => {} };
    return { facilities: this.facilities, registers: this.registers, events, vp, vtl: 0 };
  }

  #exitLog(index: number): ExitLog | undefined {
    const machine = this.#machine;
    const { config, map, memory } = machine;
    if (!config.recordExits) return undefined;
    const at = {
      ring: map.exitRings + index * EXIT_RING_SIZE,
      sequence: map.header + header.exit_sequence,
      limit: map.header + header.exit_limit,
    };
    return new ExitLog(memory, at, () => machine.finish(END.LIMIT, index), () => this.#waitForMain());
  }

  #devices(index: number, log: ExitLog | undefined): Devices {
    const machine = this.#machine;
    const { config, map, memory } = machine;
    const devices = this.pc === undefined
      ? new RecordedDevices(memory, map.devices, config.endPort ?? -1, () => machine.finish(END.EXIT_PORT, index))
      : new LockedDevices(this.pc, this.#port, this.#backend);
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
   * the machine ends.
   */
  #waitForMain(): boolean {
    const machine = this.#machine;
    if (machine.onFull !== undefined) machine.onFull();
    else Atomics.wait(machine.memory.i32, (machine.header + header.shutdown) >>> 2, 0, FULL_WAIT_MS);
    return !machine.shutdown;
  }

  #acknowledgeExtInt(): number {
    const { pc } = this;
    if (pc === undefined) return -1;
    pc.lock.lock(this.#port);
    const vector = pc.acknowledgeExtInt();
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
    if (this.#machine.config.platform === "bare") this.facilities.apic(0).assertLint(0);
    else wakeVmm(this.facilities, this.#machine.map.vtl2, 0, WAKE.EXTINT);
  }

  #levelEoi(vp: number, vector: number): void {
    const { memory } = this.#machine;
    memory.u32[(this.partition.vpState(vp) + HypervisorVpState.at.eoi_vector) >>> 2] = vector;
    this.partition.signal(this.#port, vp, ATTENTION.STOP);
  }

  #crash(vp: VirtualProcessor, crash: VmmCrash): void {
    const machine = this.#machine;
    const { memory, header: at } = machine;
    if (machine.end !== END.NONE) return;
    const text = new TextEncoder().encode(crash.assertion).subarray(0, CRASH_TEXT_MAX);
    memory.u8.set(text, at + header.crash_text);
    memory.u32[(at + header.crash_text_length) >>> 2] = text.length;
    memory.u32[(at + header.crash_step) >>> 2] = vp.step;
    memory.u64[(at + header.crash_left) >>> 3] = crash.left ?? 0n;
    memory.u64[(at + header.crash_right) >>> 3] = crash.right ?? 0n;
    machine.finish(END.VMM_CRASH, vp.index);
  }
}

/** Longest wait in milliseconds of a processor whose device's output ring is full. */
const FULL_WAIT_MS = 1;
/** Time of day at which a deterministic machine starts: 2026-01-01T00:00:00Z in milliseconds since 1970. */
const DETERMINISTIC_EPOCH_MS = 1_767_225_600_000;
