/**
 * A virtual processor of an encrypted guest: what the hardware does from VMRUN to the exit (sev.md, section a).
 *
 * The host hands the processor over by writing TURN.GUEST after its VMCB is complete, and has it again when the guest has
 * left. A step of the guest executes many instructions; VMRUN and the exit are one step each, as they are one action of the
 * processor.
 *
 * @module
 */
import { VECTOR_BP, VECTOR_OF, VECTOR_VC } from "../../cpu/faults.ts";
import {
  ACTIVITY_RUNNING,
  CpuState,
  CR0_PE,
  EVENT_HAS_ERROR,
  EVENT_TYPE_EXCEPTION,
  EVENT_TYPE_SHIFT,
  EVENT_TYPE_SOFTWARE,
  EVENT_VALID,
  EXIT_CPUID,
  EXIT_EXCEPTION,
  EXIT_IO,
  EXIT_NONE,
  EXIT_SHUTDOWN,
  FLAG_IF,
  FLAG_RF,
} from "../../cpu/state.ts";
import { SevExitCode } from "../../layout/sev/constants/exit_codes.ts";
import { SEV_EXCEPTION } from "../../layout/sev/constants/instructions.ts";
import { EventInjType, SEV_FEATURES, VMSA } from "../../layout/sev/vmsa.ts";
import { VMCB_CONTROL, VMCB_EVENT_INJ_LO, VMCB_INT_CTL, VMCB_INT_STATE } from "../../layout/sev/vmcb.ts";
import { PAGE_SIZE } from "../../memory/machine_memory.ts";
import { HALTED, step, type StepId } from "../../memory/steps.ts";
import { protectedQwords } from "../../sev/register_protection.ts";
import { invalidVmsa, isBusy, loadVmsa, saveVmsa } from "../../sev/vmsa.ts";
import { ATTENTION } from "../attention.ts";
import { type ProcessorParts, VirtualProcessor } from "../virtual_processor.ts";
import { EXIT_KIND } from "../vp_state.ts";
import { GUEST_ASID, type SevMachine } from "./machine.ts";
import { C_BIT_HIGH, type SevBus } from "./sev_bus.ts";
import { EXIT_AUTOMATIC, EXIT_VC, SevVpState, TURN, VIEW } from "./state.ts";

const EXIT = SevExitCode.values;
const at = SevVpState.at;
const cpuAt = CpuState.at;
const vmcbAt = VMCB_CONTROL.at;
const event = VMCB_EVENT_INJ_LO.mask;
/** Registers on which translations depend, as words of the state. */
const CR0 = cpuAt.cr0 >>> 2;
const CR3 = cpuAt.cr3 >>> 2;
const CR4 = cpuAt.cr4 >>> 2;
const EFER = cpuAt.efer >>> 2;
const TYPE = EventInjType.values;
/** Word of a table register that holds the low half of its base. */
const IDT_BASE_WORD = 2;
/** Bytes of a vector of real mode. */
const REAL_VECTOR_BYTES = 4;

/** What a processor of an encrypted guest is put together from. */
export interface SevVpParts extends Omit<ProcessorParts, "steps" | "haltIntercept" | "bus"> {
  readonly bus: SevBus;
  readonly sev: SevMachine;
  /** The tweak bitmap when the guest's registers are protected by a nonce. */
  readonly tweakBitmap?: Uint8Array;
  /** The guest has left: wakes whoever executes the host. */
  readonly onExit: () => void;
}

/** A virtual processor of an encrypted guest. */
export class SevVp extends VirtualProcessor {
  readonly bus: SevBus;
  readonly sev: SevMachine;
  /** Byte offset of its {@linkcode SevVpState}. */
  readonly sevState: number;
  /** Byte offset of its VMCB. */
  readonly vmcb: number;
  /** Quadwords of the VMSA that are stored XORed. */
  readonly protect: readonly number[];
  /** The guest has left: wakes whoever executes the host. */
  readonly onExit: () => void;

  /** Processor `index` over the agent block at byte offset `block`. */
  constructor(index: number, block: number, parts: SevVpParts) {
    const steps = { exit: RUN, hypercall: RUN, deliverable: RUN, apicEoi: RUN };
    super(index, block, { ...parts, steps, haltIntercept: true });
    this.bus = parts.bus;
    this.sev = parts.sev;
    this.sevState = parts.sev.vpState(index);
    this.vmcb = parts.sev.vmcb(index);
    this.protect = parts.tweakBitmap === undefined ? [] : protectedQwords(parts.tweakBitmap);
    this.onExit = parts.onExit;
    this.cpu.encryptionBit = C_BIT_HIGH;
  }

  /** Whose turn it is, TURN.HOST or TURN.GUEST. */
  get turn(): number {
    return this.port.load32(this.sevState + at.turn);
  }

  /** Exit code of the event that happened last. */
  get exitCode(): number {
    return this.memory.i32[(this.sevState + at.exit_code) >>> 2];
  }

  /** Exit code of the first #VC that found no handler, or undefined. */
  get unhandledVc(): number | undefined {
    const noted = this.memory.u32[(this.sevState + at.unhandled) >>> 2];
    return noted === 0 ? undefined : noted - 1;
  }

  /** Byte offset of the VMSA that was entered last. */
  get vmsa(): number {
    return this.memory.u32[(this.sevState + at.vmsa) >>> 2];
  }
}

/** VMRUN: state from the VMSA, event and interrupt state from the VMCB. */
export const VMRUN: StepId = step<SevVp>(
  "sev.vmrun",
  (vp) => {
    const failure = enter(vp);
    if (failure === undefined) return RUN;
    vp.bus.setExit(failure, 0n, 0n);
    writeExit(vp, failure);
    return handOver(vp);
  },
  (vp) => vp.turn === TURN.GUEST,
);

/** The guest executes, until something happens that the host or its own #VC handler must see, or its quantum is used up. */
const RUN: StepId = step<SevVp>("sev.run-guest", (vp) => {
  if (interrupted(vp)) return interrupt(vp);
  const reason = vp.cpu.run(vp.runQuantum);
  switch (reason) {
    case EXIT_NONE:
      return interrupted(vp) ? interrupt(vp) : RUN;
    case EXIT_VC:
      return RAISE_VC;
    case EXIT_AUTOMATIC:
      return VMEXIT;
    case EXIT_SHUTDOWN:
      if (vp.memory.i32[(vp.cpuState + cpuAt.exit_vector) >>> 2] === VECTOR_VC) noteUnhandled(vp);
      vp.bus.setExit(EXIT.SHUTDOWN, 0n, 0n);
      return VMEXIT;
    case EXIT_IO: // a whole string instruction
      vp.bus.setExit(EXIT.IOIO, 0n, 0n);
      return RAISE_VC;
    case EXIT_CPUID:
      vp.bus.setExit(EXIT.CPUID, 0n, 0n);
      return RAISE_VC;
    case EXIT_EXCEPTION:
      vp.bus.setExit(EXIT.EXCP0 + vp.memory.i32[(vp.cpuState + cpuAt.exit_vector) >>> 2], 0n, 0n);
      return RAISE_VC;
    default:
      throw new RangeError(`An encrypted guest left for reason ${reason}`);
  }
});

/** Whether another processor wants this one to leave the guest: an IPI of the host, a physical interrupt. */
function interrupted(vp: SevVp): boolean {
  const waiting = vp.memory.u32[(vp.sevState + at.window) >>> 2] !== 0;
  const ignored = ATTENTION.FLUSH_TLB | (waiting ? ATTENTION.VTL0_INTERRUPT : 0);
  return (vp.attention & ~ignored) !== 0;
}

/** A physical interrupt ends the guest's turn. */
function interrupt(vp: SevVp): StepId {
  if ((vp.attention & ATTENTION.SHUTDOWN) !== 0) return HALTED;
  vp.bus.setExit(EXIT.INTR, 0n, 0n);
  return VMEXIT;
}

/** An event that is not automatic becomes #VC, a fault with the exit code as error code (a8, a10). */
const RAISE_VC: StepId = step<SevVp>("sev.raise-vc", (vp) => {
  const { i32, u32 } = vp.memory;
  i32[(vp.cpuState + cpuAt.event) >>> 2] = EVENT_VALID | EVENT_HAS_ERROR | (EVENT_TYPE_EXCEPTION << EVENT_TYPE_SHIFT) |
    VECTOR_VC;
  i32[(vp.cpuState + cpuAt.event_error) >>> 2] = vp.exitCode;
  i32[(vp.cpuState + cpuAt.rflags) >>> 2] |= FLAG_RF;
  u32[(vp.sevState + at.exceptions) >>> 2]++;
  if ((i32[(vp.cpuState + cpuAt.cr0) >>> 2] & CR0_PE) === 0 && isRealVectorEmpty(vp)) noteUnhandled(vp);
  return RUN;
});

/** Whether real mode's vector of #VC is 0000:0000: memory that nobody has written. The processor goes there all the same. */
function isRealVectorEmpty(vp: SevVp): boolean {
  const { view, u32 } = vp.memory;
  const entry = u32[((vp.cpuState + cpuAt.idtr) >>> 2) + IDT_BASE_WORD] + VECTOR_VC * REAL_VECTOR_BYTES;
  return entry + REAL_VECTOR_BYTES <= vp.sev.config.ramBytes && view.getUint32(entry, true) === 0;
}

/** Keeps the first #VC that found no handler, for the report of the run. */
function noteUnhandled(vp: SevVp): void {
  const word = (vp.sevState + at.unhandled) >>> 2;
  if (vp.memory.u32[word] === 0) vp.memory.u32[word] = vp.exitCode + 1;
}

/** An automatic exit: the whole state goes into the VMSA, what the host may know into the VMCB (a3). */
const VMEXIT: StepId = step<SevVp>("sev.vmexit", (vp) => {
  const code = vp.exitCode;
  vp.noteExit(exitKind(code));
  saveVmsa(vp.memory, vp.cpuState, vp.vmsa, vp.protect);
  vp.sev.rmp?.leave(vp.port, vp.vmsa / PAGE_SIZE);
  writeExit(vp, code);
  return handOver(vp);
});

/** Under what an exit is counted. */
function exitKind(code: number): number {
  switch (code) {
    case EXIT.VMGEXIT:
      return EXIT_KIND.vmgexit;
    case EXIT.HLT:
      return EXIT_KIND.hlt;
    case EXIT.SHUTDOWN:
      return EXIT_KIND.shutdown;
    case EXIT.NPF:
      return EXIT_KIND.npf;
    case EXIT.INTR:
    case EXIT.VINTR:
      return EXIT_KIND.interrupt;
    default:
      return EXIT_KIND["write-trap"];
  }
}

/** Writes the exit's fields of the VMCB. */
function writeExit(vp: SevVp, code: number): void {
  const { i32, u32, u64, u8 } = vp.memory;
  const { vmcb, cpuState, sevState } = vp;
  i32[(vmcb + vmcbAt.exit_code) >>> 2] = code;
  i32[((vmcb + vmcbAt.exit_code) >>> 2) + 1] = code >> 31;
  u64[(vmcb + vmcbAt.exit_info_1) >>> 3] = u64[(sevState + at.exit_info_1) >>> 3];
  u64[(vmcb + vmcbAt.exit_info_2) >>> 3] = u64[(sevState + at.exit_info_2) >>> 3];
  noteInterruptedEvent(vp);
  u32[(vmcb + vmcbAt.event_inj) >>> 2] = 0;
  i32[(cpuState + cpuAt.event) >>> 2] = 0;
  const { interrupt_shadow, guest_interrupt_mask } = VMCB_INT_STATE.mask;
  const shadow = i32[(cpuState + cpuAt.interrupt_shadow) >>> 2] !== 0 ? interrupt_shadow : 0;
  const mask = (i32[(cpuState + cpuAt.rflags) >>> 2] & FLAG_IF) !== 0 ? guest_interrupt_mask : 0;
  u32[(vmcb + vmcbAt.int_state) >>> 2] = shadow | mask;
  u8[vmcb + vmcbAt.int_ctl] = u8[cpuState + cpuAt.cr8];
}

/** EXITINTINFO: the event whose delivery the exit interrupted. A #VC is not told: its instruction raises it again. */
function noteInterruptedEvent(vp: SevVp): void {
  const { i32 } = vp.memory;
  const pending = i32[(vp.cpuState + cpuAt.event) >>> 2];
  const told = (pending & EVENT_VALID) !== 0 && (pending & 0xff) !== VECTOR_VC;
  const word = (vp.vmcb + vmcbAt.exit_int_info) >>> 2;
  i32[word] = told ? pending : 0;
  i32[word + 1] = told && (pending & EVENT_HAS_ERROR) !== 0 ? i32[(vp.cpuState + cpuAt.event_error) >>> 2] : 0;
}

/** The host executes from here on. */
function handOver(vp: SevVp): StepId {
  const view = vp.sevState + at.view;
  if (vp.memory.u32[view >>> 2] === VIEW.WANTED) vp.port.store32(view, VIEW.WAITS);
  vp.port.exchange32(vp.sevState + at.turn, TURN.HOST);
  vp.onExit();
  return VMRUN;
}

/** What VMRUN does; the exit code with which it fails, or undefined. */
function enter(vp: SevVp): number | undefined {
  const { memory, sev, vmcb, cpuState, sevState, port } = vp;
  const { i32, u32, u64, u8 } = memory;
  const page = u32[(vmcb + vmcbAt.vmsa_pa) >>> 2];
  const above = u32[((vmcb + vmcbAt.vmsa_pa) >>> 2) + 1];
  const inMemory = above === 0 && page % PAGE_SIZE === 0 && page / PAGE_SIZE < sev.pages;
  if (!inMemory || (sev.rmp !== undefined && !sev.rmp.isVmsa(port, page / PAGE_SIZE, GUEST_ASID))) return EXIT.INVALID;
  if (isBusy(memory, page)) return EXIT.VMSA_BUSY;
  if (invalidVmsa(memory, page, vp.protect) !== undefined) return EXIT.INVALID;
  const injected = injectedEvent(vp, page);
  if (injected === REFUSED) return EXIT.INVALID;
  if (sev.rmp !== undefined && !sev.rmp.tryEnter(port, page / PAGE_SIZE)) return EXIT.VMSA_BUSY;

  u32[(sevState + at.vmsa) >>> 2] = page;
  u32[(sevState + at.vmpl) >>> 2] = u8[page + VMSA.at.vmpl];
  u64[(sevState + at.entries) >>> 3] = u64[(sevState + at.entries) >>> 3] + 1n;
  const word = cpuState >>> 2;
  const cr0 = i32[word + CR0];
  const cr3 = i32[word + CR3];
  const cr4 = i32[word + CR4];
  const efer = i32[word + EFER];
  loadVmsa(memory, cpuState, page, vp.protect);
  const same = i32[word + CR0] === cr0 && i32[word + CR3] === cr3 && i32[word + CR4] === cr4 &&
    i32[word + EFER] === efer;
  if (!same || u8[vmcb + vmcbAt.tlb_ctl] !== 0) vp.cpu.flushCaches();
  const control = u32[(vmcb + vmcbAt.int_ctl) >>> 2];
  i32[(cpuState + cpuAt.cr8) >>> 2] = control & VMCB_INT_CTL.mask.v_tpr;
  i32[((cpuState + cpuAt.cr8) >>> 2) + 1] = 0;
  i32[(cpuState + cpuAt.interrupt_shadow) >>> 2] = u32[(vmcb + vmcbAt.int_state) >>> 2] &
    VMCB_INT_STATE.mask.interrupt_shadow;
  i32[(cpuState + cpuAt.event) >>> 2] = injected;
  i32[(cpuState + cpuAt.event_error) >>> 2] = u32[(vmcb + vmcbAt.event_inj_err) >>> 2];
  i32[(cpuState + cpuAt.activity) >>> 2] = ACTIVITY_RUNNING;
  const window = (control & VMCB_INT_CTL.mask.v_irq) !== 0;
  u32[(sevState + at.window) >>> 2] = window ? 1 : 0;
  // The processor looks for an interruptible moment when the bit says so.
  if (window) port.or32(cpuState + cpuAt.attention, ATTENTION.VTL0_INTERRUPT);
  vp.cpu.updateMode();
  vp.observer?.entry(vp);
  return undefined;
}

/** Stands for an event that VMRUN refuses. */
const REFUSED = -1;

/** The event that the VMCB asks to inject, in the form of `CpuState.event`; 0 for none, REFUSED for a forbidden one. */
function injectedEvent(vp: SevVp, page: number): number {
  const { u32 } = vp.memory;
  const features = u32[(page + VMSA.at.sev_features) >>> 2];
  const { alternate_injection, restricted_injection } = SEV_FEATURES.low;
  // With alternate injection only VMPL0 software injects, through the VMSA (a17).
  const word = (features & alternate_injection) !== 0
    ? takeVmsaEvent(vp, page)
    : u32[(vp.vmcb + vmcbAt.event_inj) >>> 2];
  if ((word & event.valid) === 0) return 0;
  const vector = VMCB_EVENT_INJ_LO.get(word, "vector");
  const type = VMCB_EVENT_INJ_LO.get(word, "type");
  if ((features & restricted_injection) !== 0 && vector !== SEV_EXCEPTION.HV) return REFUSED;
  const software = type === TYPE.SOFTWARE_INTERRUPT ||
    (type === TYPE.EXCEPTION && (vector === VECTOR_BP || vector === VECTOR_OF));
  const unknown = type === 1 || type > EVENT_TYPE_SOFTWARE || (type === TYPE.EXCEPTION && vector > 31);
  return software || unknown ? REFUSED : word | 0;
}

/** The event in a VMSA, which is taken; its error code goes where that of the VMCB is looked for. */
function takeVmsaEvent(vp: SevVp, page: number): number {
  const { u32, u64 } = vp.memory;
  const word = u32[(page + VMSA.at.event_inj) >>> 2];
  u32[(vp.vmcb + vmcbAt.event_inj_err) >>> 2] = u32[((page + VMSA.at.event_inj) >>> 2) + 1];
  u64[(page + VMSA.at.event_inj) >>> 3] = 0n;
  return word;
}
