/**
 * A virtual processor as an agent: guest, hypervisor and the VTL2 code of that processor run on it in turn.
 *
 * @module
 */
import type { Cpu } from "../cpu/cpu.ts";
import { resetCpu, startCpuAt } from "../cpu/reset.ts";
import { ACTIVITY_RUNNING, ACTIVITY_WAIT_FOR_SIPI, CpuState, FLAG_IF } from "../cpu/state.ts";
import { HvVpAssistPage } from "../layout/hyperv/assist_page.ts";
import { HvX64PendingInterruptionType } from "../layout/hyperv/constants/messages.ts";
import { HvDeliverabilityNotificationsRegister, HvRegisterVsmPartitionConfig } from "../layout/hyperv/registers.ts";
import { Agent } from "../memory/agent.ts";
import type { StepId } from "../memory/steps.ts";
import type { LocalApic } from "./apic/local_apic.ts";
import { CPU_SIGNATURE } from "./cpuid.ts";
import type { Facilities } from "./facilities.ts";
import type { GuestBus } from "./guest_bus.ts";
import type { HypercallContext } from "./hypercalls/context.ts";
import { ATTENTION } from "./attention.ts";
import type { Partition } from "./partition.ts";
import type { Synic } from "./synic.ts";
import { VpCopies } from "./vp_copies.ts";
import { type ExitKindNumber, HypervisorVpState, IRR_WORDS } from "./vp_state.ts";

/** Bits 63:12 of an overlay register hold the page's guest-physical address. */
const GPA_MASK = ~0xfff;
/** Bits 63:48 of the deliverability register are the SINTs: the upper half of its high word. */
const SINTS_SHIFT = 16;

/** EAX, EBX, ECX, EDX. */
const CPUID_REGISTERS = 4;

const at = HypervisorVpState.at;
const cpuAt = CpuState.at;
const notify = HvDeliverabilityNotificationsRegister.low;
const INTERCEPT_PAGE = HvRegisterVsmPartitionConfig.low.intercept_page;
/** The SINT of VTL2 whose message slot intercepts use (Linux, HV_SYNIC_INTERCEPTION_SINT_INDEX). */
export const INTERCEPT_SINT = 0;

/** Called with every exit whose register state is complete, before anyone handles it. */
export interface ExitObserver {
  /** An exit of `kind` has happened; the CPU's state is as before the instruction. */
  exit(vp: VirtualProcessor, kind: ExitKindNumber): void;
  /** The guest goes on. */
  entry(vp: VirtualProcessor): void;
  /** VTL2 is entered for it with a message of this type. */
  message(type: number): void;
}

/** Where the exits of a processor go: what a platform puts behind the hypervisor. */
export interface ExitSteps {
  /** Ports, device memory, CPUID, MSRs, exceptions, triple faults. */
  readonly exit: StepId;
  /** A hypercall instruction. */
  readonly hypercall: StepId;
  /** Something whose deliverability VTL2 asked for can now be delivered. */
  readonly deliverable: StepId;
  /** The guest ended a level-triggered interrupt. */
  readonly apicEoi: StepId;
}

/** What a processor is put together from. */
export interface ProcessorParts {
  readonly facilities: Facilities;
  readonly cpu: Cpu;
  readonly bus: GuestBus;
  readonly steps: ExitSteps;
  readonly hypercalls: HypercallContext;
  /** HLT leaves to VTL2 with a Halt message instead of parking the processor. */
  readonly haltIntercept: boolean;
  /** Vector of the interrupt controllers, when their output is up and this processor takes it; acknowledges it. -1 for none. */
  readonly acknowledgePic: () => number;
}

/** One virtual processor. */
export class VirtualProcessor extends Agent {
  /** VP index; also its APIC id. */
  readonly index: number;
  readonly partition: Partition;
  readonly facilities: Facilities;
  /** The processor that executes guest code. */
  readonly cpu: Cpu;
  readonly apic: LocalApic;
  /** VTL0's SynIC. */
  readonly synic: Synic;
  /** VTL2's SynIC. */
  readonly vtl2Synic: Synic;
  readonly steps: ExitSteps;
  /** VTL0 of this processor as a caller of hypercalls. */
  readonly hypercalls: HypercallContext;
  /** Whether HLT leaves to VTL2 instead of parking the processor. */
  readonly haltIntercept: boolean;
  /** What moves between its state and the pages that VTL2 shares. */
  readonly copies: VpCopies;
  /** Byte offset of its {@linkcode HypervisorVpState}. */
  readonly state: number;
  /** Byte offset of its `CpuState`. */
  readonly cpuState: number;
  /** EAX, EBX, ECX, EDX that the hypervisor would have returned for an intercepted CPUID. */
  readonly cpuidDefaults: Uint32Array;
  /** Sees exits; `undefined` costs nothing. */
  observer: ExitObserver | undefined = undefined;
  readonly #i32: Int32Array<SharedArrayBuffer>;
  readonly #u64: BigUint64Array<SharedArrayBuffer>;
  readonly #acknowledgePic: () => number;

  /** Processor `index` over the agent block at byte offset `block`. */
  constructor(index: number, block: number, parts: ProcessorParts) {
    const { facilities } = parts;
    super(`vp${index}`, facilities.partition.memory, block, facilities.port);
    this.index = index;
    this.partition = facilities.partition;
    this.facilities = facilities;
    this.cpu = parts.cpu;
    this.apic = facilities.apic(index);
    this.synic = facilities.synic(index, 0);
    this.vtl2Synic = facilities.synic(index, 2);
    this.steps = parts.steps;
    this.copies = new VpCopies(this.memory);
    this.hypercalls = parts.hypercalls;
    this.haltIntercept = parts.haltIntercept;
    this.state = this.partition.vpState(index);
    this.cpuState = this.partition.cpuState(index);
    this.cpuidDefaults = new Uint32Array(this.memory.buffer, this.state + at.cpuid_defaults, CPUID_REGISTERS);
    this.#i32 = this.memory.i32;
    this.#u64 = this.memory.u64;
    this.#acknowledgePic = parts.acknowledgePic;
    parts.bus.processor = this;
  }

  // --- Pages that VTL2 shares with the hypervisor -------------------------------------------------------------------

  /** Guest-physical address of VTL2's assist page, or 0 while it is not enabled. */
  get assistPage(): number {
    const low = this.#i32[(this.state + at.assist_page) >>> 2];
    return low & 1 ? (low & GPA_MASK) >>> 0 : 0;
  }

  /** Guest-physical address of the register page, or 0 while there is none. */
  get registerPage(): number {
    const low = this.#i32[(this.state + at.register_page) >>> 2];
    return low & 1 ? (low & GPA_MASK) >>> 0 : 0;
  }

  /** Whether VTL2 asked for the messages of intercepts in its assist page (VsmPartitionConfig). */
  get messagesInAssistPage(): boolean {
    return this.partition.vsmConfigured(INTERCEPT_PAGE);
  }

  /**
   * Byte offset of the intercept message: in the assist page, which must be enabled, or in SINT0's slot of VTL2's message
   * page, which VTL2 empties before it returns.
   */
  get message(): number {
    if (this.messagesInAssistPage) return this.assistPage + HvVpAssistPage.at.intercept_message;
    return this.vtl2Synic.slot(INTERCEPT_SINT);
  }

  // --- Words of the hypervisor's state ------------------------------------------------------------------------------

  /** Most instructions that one step of the guest executes. */
  get runQuantum(): number {
    return this.#i32[(this.state + at.run_quantum) >>> 2];
  }
  set runQuantum(instructions: number) {
    this.#i32[(this.state + at.run_quantum) >>> 2] = instructions;
  }

  /** Step at which VTL2 goes on when it is entered next: its private RIP. */
  get vtl2Step(): StepId {
    return this.#i32[(this.state + at.vtl2_step) >>> 2];
  }
  set vtl2Step(step: StepId) {
    this.#i32[(this.state + at.vtl2_step) >>> 2] = step;
  }

  /** A 32-bit word of the hypervisor's state, by its `HypervisorVpState.at` offset. */
  getState(offset: number): number {
    return this.#i32[(this.state + offset) >>> 2];
  }

  /** Sets a 32-bit word of the hypervisor's state. */
  setState(offset: number, value: number): void {
    this.#i32[(this.state + offset) >>> 2] = value;
  }

  // --- Activity -----------------------------------------------------------------------------------------------------

  /** ACTIVITY_* of VTL0. */
  get activity(): number {
    return this.#i32[(this.cpuState + cpuAt.activity) >>> 2];
  }
  set activity(activity: number) {
    this.#i32[(this.cpuState + cpuAt.activity) >>> 2] = activity;
    this.cpu.updateSlow();
  }

  /** Bits of the attention word, which others set. */
  get attention(): number {
    return this.port.load32(this.cpuState + cpuAt.attention);
  }

  /** Whether VTL0 has interrupts on and no interrupt shadow. */
  get interruptible(): boolean {
    return (this.#i32[(this.cpuState + cpuAt.rflags) >>> 2] & FLAG_IF) !== 0 &&
      this.#i32[(this.cpuState + cpuAt.interrupt_shadow) >>> 2] === 0;
  }

  /** Whether an event ends a HLT of VTL0 now. */
  get canWake(): boolean {
    if (this.#i32[(this.cpuState + cpuAt.nmi_pending) >>> 2] !== 0) return true;
    if (this.#i32[(this.cpuState + cpuAt.event) >>> 2] !== 0) return true;
    return this.interruptible && (this.apic.highestPending() >= 0 || this.apic.extIntPending);
  }

  /** INIT: VTL0 loses its state and waits for a startup IPI; the bootstrap processor does not wait. */
  init(): void {
    this.apic.reset("init");
    resetCpu(this.cpu, "init", CPU_SIGNATURE);
    if (this.index !== 0) this.activity = ACTIVITY_WAIT_FOR_SIPI;
  }

  /** Startup IPI: VTL0 begins in real mode at page `vector`, if it waits for that. */
  startup(vector: number): void {
    if (this.activity !== ACTIVITY_WAIT_FOR_SIPI) return;
    startCpuAt(this.cpu, vector);
    this.activity = ACTIVITY_RUNNING;
  }

  /** Notes an NMI for VTL0. */
  raiseNmi(): void {
    this.#i32[(this.cpuState + cpuAt.nmi_pending) >>> 2] = 1;
    this.cpu.updateSlow();
  }

  // --- Interrupts of VTL0 -------------------------------------------------------------------------------------------

  /**
   * Vector of the interrupt that VTL0 takes now, acknowledged; -1 for none. VTL0 is interruptible. When VTL2 waits for
   * just that, the processor leaves the guest first.
   */
  acceptInterrupt(): number {
    if (this.interruptionDeliverable) {
      this.port.or32(this.cpuState + cpuAt.attention, ATTENTION.STOP);
      return -1;
    }
    if (this.apic.extIntPending && this.apic.acknowledgeExtInt()) {
      const vector = this.#acknowledgePic();
      if (vector >= 0) return vector;
    }
    const vector = this.apic.acknowledge();
    if (vector < 0) this.#forgetInterrupt();
    return vector;
  }

  /**
   * The guest need not ask again before something is requested. Who requests an interrupt does so before it raises the
   * attention: what came before that was taken back is seen here.
   */
  #forgetInterrupt(): void {
    if (this.deliverabilityWanted || this.#isInterruptRequested) return;
    const attention = this.cpuState + cpuAt.attention;
    this.port.and32(attention, ~ATTENTION.VTL0_INTERRUPT);
    if (this.#isInterruptRequested) this.port.or32(attention, ATTENTION.VTL0_INTERRUPT);
  }

  get #isInterruptRequested(): boolean {
    return this.apic.highestRequested() >= 0 || this.apic.extIntPending;
  }

  /** Whether VTL2 asked to be told that an interrupt can be injected, and it can. */
  get interruptionDeliverable(): boolean {
    const wanted = this.#i32[(this.state + at.deliverability) >>> 2];
    return (wanted & notify.interrupt_notification) !== 0 && this.interruptible;
  }

  /** Whether VTL2 asked to be told when something can be delivered. */
  get deliverabilityWanted(): boolean {
    const word = (this.state + at.deliverability) >>> 2;
    return (this.#i32[word] | this.#i32[word + 1]) !== 0;
  }

  /** Whether anything whose deliverability VTL2 asked for can be delivered now. */
  get deliverable(): boolean {
    const sints = this.#i32[(this.state + at.deliverability + 4) >>> 2] >>> SINTS_SHIFT;
    return this.interruptionDeliverable || (sints !== 0 && this.synic.deliverable(sints) !== 0);
  }

  /** The SINTs that VTL2 asked for and that can be delivered now, as a mask; they are no longer asked for. */
  takeDeliverableSints(): number {
    const word = (this.state + at.deliverability + 4) >>> 2;
    const sints = this.synic.deliverable(this.#i32[word] >>> SINTS_SHIFT);
    this.#i32[word] &= ~(sints << SINTS_SHIFT);
    return sints;
  }

  /** Takes the notification of a deliverable interruption; returns its `HvX64PendingInterruptionType`. */
  takeDeliverableInterruption(): number {
    this.#i32[(this.state + at.deliverability) >>> 2] &= ~notify.interrupt_notification;
    return HvX64PendingInterruptionType.values.HV_X64_PENDING_INTERRUPT;
  }

  /** The highest vector of a level-triggered interrupt whose EOI has not been reported; it then has. */
  takeEoi(): number {
    const words = (this.state + at.eoi_vectors) >>> 2;
    let vector = 0;
    let left = 0;
    for (let word = 0; word < IRR_WORDS; word++) {
      const bits = this.#i32[words + word];
      if (bits !== 0) vector = word * 32 + 31 - Math.clz32(bits);
    }
    this.#i32[words + (vector >>> 5)] &= ~(1 << (vector & 31));
    for (let word = 0; word < IRR_WORDS; word++) left |= this.#i32[words + word];
    if (left === 0) this.setState(at.eoi_pending, 0);
    return vector;
  }

  /** Moves RIP behind the instruction that left and ends its interrupt shadow; outside 64-bit code RIP wraps at 32 bits. */
  skipInstruction(): void {
    const rip = (this.cpuState + cpuAt.rip) >>> 2;
    const old = this.#i32[rip];
    const low = (old + this.#i32[(this.cpuState + cpuAt.exit_length) >>> 2]) | 0;
    this.#i32[rip] = low;
    if (!this.cpu.long64) this.#i32[rip + 1] = 0;
    else if ((low >>> 0) < (old >>> 0)) this.#i32[rip + 1]++;
    this.#i32[(this.cpuState + cpuAt.interrupt_shadow) >>> 2] = 0;
  }

  // --- Exits --------------------------------------------------------------------------------------------------------

  /** Counts an exit and tells the observer. */
  noteExit(kind: ExitKindNumber): void {
    const word = ((this.state + at.exits) >>> 3) + kind;
    this.#u64[word] = this.#u64[word] + 1n;
    if (this.observer !== undefined) this.observer.exit(this, kind);
  }
}
