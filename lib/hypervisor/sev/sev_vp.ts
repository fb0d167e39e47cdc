/**
 * A virtual processor of an encrypted guest: what the hardware does from VMRUN to the exit (sev.md, section a).
 *
 * A step of the guest executes many instructions; VMRUN and the exit are one step each, as they are one action of the
 * processor.
 *
 * @module
 */
import { VECTOR_VC } from "../../cpu/faults.ts";
import {
  ACTIVITY_RUNNING,
  CpuState,
  CR0_PE,
  EVENT_HAS_ERROR,
  EVENT_TYPE_EXCEPTION,
  EVENT_TYPE_SHIFT,
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
import { SEV_FEATURES, VMSA } from "../../layout/sev/vmsa.ts";
import { VMCB_CONTROL, VMCB_EVENT_INJ_LO, VMCB_INT_CTL, VMCB_INT_STATE } from "../../layout/sev/vmcb.ts";
import { PAGE_SIZE } from "../../memory/machine_memory.ts";
import { HALTED, step, type StepId } from "../../memory/steps.ts";
import { invalidVmsa, isBusy, saveVmsa } from "../../sev/vmsa.ts";
import { ATTENTION } from "../attention.ts";
import { EXIT_KIND, type ExitKindNumber } from "../vp_state.ts";
import {
  EncryptedVp,
  type EncryptedVpParts,
  handOver,
  isInjectable,
  loadRegisters,
  namedVmsa,
  storeInterruptedEvent,
} from "./encrypted_vp.ts";
import { C_BIT_HIGH, type SevBus } from "./sev_bus.ts";
import { EXIT_AUTOMATIC, EXIT_VC, SevVpState, TURN } from "./state.ts";

const EXIT = SevExitCode.values;
const at = SevVpState.at;
const cpuAt = CpuState.at;
const vmcbAt = VMCB_CONTROL.at;
const event = VMCB_EVENT_INJ_LO.mask;
/** The vector in `CpuState.event`. */
const VECTOR_MASK = 0xff;
/** Word of a table register that holds the low half of its base. */
const IDT_BASE_WORD = 2;
/** Bytes of a vector of real mode. */
const REAL_VECTOR_BYTES = 4;

/** A virtual processor of an encrypted guest. */
export class SevVp extends EncryptedVp<SevBus> {
  /** Processor `index` over the agent block at byte offset `block`. */
  constructor(index: number, block: number, parts: EncryptedVpParts<SevBus>) {
    super(index, block, parts, RUN);
    this.cpu.encryptionBit = C_BIT_HIGH;
  }

  /** Exit code of the first #VC that found no handler, or undefined. */
  get unhandledVc(): number | undefined {
    const noted = this.memory.u32[(this.sevState + at.unhandled) >>> 2];
    return noted === 0 ? undefined : noted - 1;
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
    return handOver(vp, VMRUN);
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
  saveVmsa(vp.memory, vp.cpuState, vp.enteredVmsa);
  vp.sev.rmp?.leave(vp.port, vp.enteredVmsa / PAGE_SIZE);
  writeExit(vp, code);
  return handOver(vp, VMRUN);
});

/** Under what an exit is counted. */
function exitKind(code: number): ExitKindNumber {
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
  // A #VC is not told: its instruction raises it again.
  const event = (cpuState + cpuAt.event) >>> 2;
  if ((i32[event] & VECTOR_MASK) === VECTOR_VC) i32[event] = 0;
  storeInterruptedEvent(vp, vmcb + vmcbAt.exit_int_info);
  u32[(vmcb + vmcbAt.event_inj) >>> 2] = 0;
  const { interrupt_shadow, guest_interrupt_mask } = VMCB_INT_STATE.mask;
  const shadow = i32[(cpuState + cpuAt.interrupt_shadow) >>> 2] !== 0 ? interrupt_shadow : 0;
  const mask = (i32[(cpuState + cpuAt.rflags) >>> 2] & FLAG_IF) !== 0 ? guest_interrupt_mask : 0;
  u32[(vmcb + vmcbAt.int_state) >>> 2] = shadow | mask;
  u8[vmcb + vmcbAt.int_ctl] = u8[cpuState + cpuAt.cr8];
}

/** What VMRUN does; the exit code with which it fails, or undefined. */
function enter(vp: SevVp): number | undefined {
  const { memory, sev, vmcb, cpuState, sevState, port } = vp;
  const { i32, u32, u8 } = memory;
  const page = namedVmsa(vp);
  if (page === undefined) return EXIT.INVALID;
  if (isBusy(memory, page)) return EXIT.VMSA_BUSY;
  if (invalidVmsa(memory, page) !== undefined) return EXIT.INVALID;
  const injected = injectedEvent(vp, page);
  if (injected === REFUSED) return EXIT.INVALID;
  if (sev.rmp !== undefined && !sev.rmp.tryEnter(port, page / PAGE_SIZE)) return EXIT.VMSA_BUSY;

  u32[(sevState + at.vmsa) >>> 2] = page;
  u32[(sevState + at.vmpl) >>> 2] = u8[page + VMSA.at.vmpl];
  loadRegisters(vp, page);
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
  return isInjectable(type, vector) ? word | 0 : REFUSED;
}

/** The event in a VMSA, which is taken; its error code goes where that of the VMCB is looked for. */
function takeVmsaEvent(vp: SevVp, page: number): number {
  const { u32, u64 } = vp.memory;
  const word = u32[(page + VMSA.at.event_inj) >>> 2];
  u32[(vp.vmcb + vmcbAt.event_inj_err) >>> 2] = u32[((page + VMSA.at.event_inj) >>> 2) + 1];
  u64[(page + VMSA.at.event_inj) >>> 3] = 0n;
  return word;
}
