/**
 * A processor of the `bare` platform: no VTL2, the host's VMM handles every exit in place. It is the reference to which
 * the other platforms are compared, so it does what silicon and a well-behaved machine do: the instruction that left is
 * executed by the processor itself, this time with the devices connected.
 *
 * @module
 */
import { ACCESS_EXECUTE } from "../cpu/bus.ts";
import type { Cpu } from "../cpu/cpu.ts";
import type { Insn } from "../cpu/insn.ts";
import { CpuState, EXIT_CPUID, EXIT_IN, EXIT_IO, EXIT_MMIO, EXIT_MSR, EXIT_SHUTDOWN } from "../cpu/state.ts";
import { DEVICE_BUSY, type Devices } from "../devices/devices.ts";
import { GUEST_RUN } from "../hypervisor/guest.ts";
import { GuestBus, type GuestBusParts, loadCpuid } from "../hypervisor/guest_bus.ts";
import { HYPERCALL } from "../hypervisor/hypercall_exit.ts";
import { type ProcessorParts, VirtualProcessor } from "../hypervisor/virtual_processor.ts";
import { EXIT_KIND } from "../hypervisor/vp_state.ts";
import { HALTED, step, type StepId } from "../memory/steps.ts";

const cpuAt = CpuState.at;

/** Model-specific registers that the host's VMM emulates. */
export interface HostMsrs {
  /** RDMSR into `cpu.v64[0]`; false for #GP. */
  read(cpu: Cpu, msr: number): boolean;
  /** WRMSR of `cpu.v64[0]`; false for #GP. */
  write(cpu: Cpu, msr: number): boolean;
}

/** What is connected while the host's VMM executes an instruction for the guest. */
export interface HostSide {
  readonly devices: Devices;
  readonly msrs: HostMsrs;
  /** Overlays the host's answers on a leaf that the hypervisor does not answer: EAX, EBX, ECX, EDX. */
  readonly cpuid: (leaf: number, results: Uint32Array) => void;
  /** Called while a device is busy; returns when it may be asked again. */
  readonly waitForDevice: () => void;
}

/** The bus of a guest under a host VMM: while `connected`, devices complete accesses instead of leaving. */
export class BareBus extends GuestBus {
  /** Whether the host's VMM is executing the instruction for the guest. */
  connected = false;
  readonly #host: HostSide;

  /** A bus to `host`. */
  constructor(parts: GuestBusParts, host: HostSide) {
    super(parts);
    this.#host = host;
  }

  override get interceptsStringIo(): boolean {
    return !this.connected;
  }

  protected override deviceRead(cpu: Cpu, gpaLo: number, gpaHi: number, size: number, access: number): void {
    if (!this.connected && access !== ACCESS_EXECUTE) return super.deviceRead(cpu, gpaLo, gpaHi, size, access);
    const { devices } = this.#host;
    devices.mmioRead(gpaLo, gpaHi, size);
    cpu.v32[0] = devices.value[0];
    cpu.v32[1] = devices.value[1];
  }

  protected override deviceWrite(cpu: Cpu, gpaLo: number, gpaHi: number, size: number): void {
    if (!this.connected) return super.deviceWrite(cpu, gpaLo, gpaHi, size);
    const [low, high] = [cpu.v32[0], cpu.v32[1]];
    while (this.#host.devices.mmioWrite(gpaLo, gpaHi, size, low, high) === DEVICE_BUSY) this.#host.waitForDevice();
  }

  override in(cpu: Cpu, i: Insn, port: number, size: number): number {
    return this.connected ? this.#host.devices.portIn(port, size) : super.in(cpu, i, port, size);
  }

  override out(cpu: Cpu, i: Insn, port: number, size: number, value: number): void {
    if (!this.connected) return super.out(cpu, i, port, size, value);
    while (this.#host.devices.portOut(port, size, value) === DEVICE_BUSY) this.#host.waitForDevice();
  }

  /** A leaf that the hypervisor does not answer has the defaults of its intercept, or the host's answer. */
  override cpuid(cpu: Cpu): void {
    if (!this.connected) return super.cpuid(cpu);
    this.#host.cpuid(cpu.g32[0] >>> 0, this.processor.cpuidDefaults);
    loadCpuid(cpu, this.processor.cpuidDefaults);
  }

  override rdmsr(cpu: Cpu, msr: number): boolean {
    return this.connected ? this.#host.msrs.read(cpu, msr) : super.rdmsr(cpu, msr);
  }

  override wrmsr(cpu: Cpu, msr: number): boolean {
    return this.connected ? this.#host.msrs.write(cpu, msr) : super.wrmsr(cpu, msr);
  }

  /** The instruction that left comes first: an interrupt waits until it is complete. */
  override acceptInterrupt(cpu: Cpu): number {
    return this.connected ? -1 : super.acceptInterrupt(cpu);
  }
}

/** What a processor of the `bare` platform is put together from. */
export interface BareVpParts extends Omit<ProcessorParts, "steps" | "bus"> {
  readonly bus: BareBus;
  /** Records a triple fault. */
  readonly onTripleFault: (vp: VirtualProcessor) => void;
  /** The guest ended a level-triggered interrupt. */
  readonly onEndOfInterrupt: (vector: number) => void;
}

/** A processor of the `bare` platform. */
export class BareVp extends VirtualProcessor {
  readonly bus: BareBus;
  /** Records a triple fault. */
  readonly onTripleFault: (vp: VirtualProcessor) => void;
  /** The guest ended a level-triggered interrupt. */
  readonly onEndOfInterrupt: (vector: number) => void;

  /** Processor `index` over the agent block at byte offset `block`. */
  constructor(index: number, block: number, parts: BareVpParts) {
    const steps = { exit: HANDLE_EXIT, hypercall: HYPERCALL, deliverable: GUEST_RUN, apicEoi: END_OF_INTERRUPT };
    super(index, block, { ...parts, steps });
    this.bus = parts.bus;
    this.onTripleFault = parts.onTripleFault;
    this.onEndOfInterrupt = parts.onEndOfInterrupt;
  }
}

/** The host's VMM finds out what the guest left for. */
const HANDLE_EXIT: StepId = step<BareVp>("host.handle-exit", (vp) => {
  const { i32, u8 } = vp.memory;
  const reason = i32[(vp.cpuState + cpuAt.exit_reason) >>> 2];
  const write = i32[(vp.cpuState + cpuAt.exit_write) >>> 2] !== 0;
  switch (reason) {
    case EXIT_IO:
      vp.noteExit(u8[vp.cpuState + cpuAt.exit_flags] & EXIT_IN ? EXIT_KIND.in : EXIT_KIND.out);
      break;
    case EXIT_MMIO:
      vp.noteExit(write ? EXIT_KIND["mmio-write"] : EXIT_KIND["mmio-read"]);
      break;
    case EXIT_MSR:
      vp.noteExit(write ? EXIT_KIND.wrmsr : EXIT_KIND.rdmsr);
      break;
    case EXIT_CPUID:
      vp.noteExit(EXIT_KIND.cpuid);
      break;
    case EXIT_SHUTDOWN:
      vp.noteExit(EXIT_KIND.shutdown);
      break;
    default:
      throw new RangeError(`The host's VMM does not know exit reason ${reason}`);
  }
  return reason === EXIT_SHUTDOWN ? TRIPLE_FAULT : EXECUTE;
});

/** The host's VMM executes the instruction for the guest, devices connected, and lets the guest go on. */
const EXECUTE: StepId = step<BareVp>("host.execute-instruction", (vp) => {
  // What raised the attention word meanwhile is looked at behind the instruction.
  const attention = vp.port.exchange32(vp.cpuState + cpuAt.attention, 0);
  vp.bus.connected = true;
  try {
    vp.cpu.run(1);
  } finally {
    vp.bus.connected = false;
  }
  if (attention !== 0) vp.port.or32(vp.cpuState + cpuAt.attention, attention);
  vp.observer?.entry(vp);
  return GUEST_RUN;
});

/** A triple fault: the processor stops, and the machine with it. */
const TRIPLE_FAULT: StepId = step<BareVp>("host.triple-fault", (vp) => {
  vp.observer?.entry(vp);
  vp.onTripleFault(vp);
  return HALTED;
});

/** The guest ended a level-triggered interrupt: the I/O APIC may send it again. */
const END_OF_INTERRUPT: StepId = step<BareVp>("host.end-of-interrupt", (vp) => {
  vp.onEndOfInterrupt(vp.takeEoi());
  return GUEST_RUN;
});
