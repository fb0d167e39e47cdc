/**
 * A virtual processor of an SNP guest with a paravisor: what the hardware does with its VMSAs, of which VMPL0's is the
 * paravisor's and the others are those of the guest's VTLs (sev.md a3, a17, a19, a20; section f).
 *
 * The paravisor's code is an agent's: entering VMPL0's VMSA goes on at its step. A lower VMPL's registers are loaded from its
 * VMSA and saved into it; what it has left for is written there and nowhere else, unless the event is the host's.
 *
 * @module
 */
import {
  ACTIVITY_RUNNING,
  CpuState,
  EVENT_HAS_ERROR,
  EVENT_TYPE_EXCEPTION,
  EVENT_TYPE_SHIFT,
  EVENT_VALID,
  EXIT_CPUID,
  EXIT_EXCEPTION,
  EXIT_HLT,
  EXIT_HYPERCALL,
  EXIT_IN,
  EXIT_IO,
  EXIT_MMIO,
  EXIT_MSR,
  EXIT_NONE,
  EXIT_REP,
  EXIT_SHUTDOWN,
  EXIT_STRING,
  FLAG_IF,
  SHADOW_STI,
} from "../../cpu/state.ts";
import { ACCESS_EXECUTE } from "../../cpu/bus.ts";
import { SevExitCode } from "../../layout/sev/constants/exit_codes.ts";
import { SEV_EXCEPTION } from "../../layout/sev/constants/instructions.ts";
import { VMPL } from "../../layout/sev/constants/rmp.ts";
import { IOIO_EXITINFO1, NPF_EXITINFO1 } from "../../layout/sev/exit_info.ts";
import { VMCB_CONTROL, VMCB_INT_STATE } from "../../layout/sev/vmcb.ts";
import { EVENT_INJ, V_INTR_CTRL, VMSA } from "../../layout/sev/vmsa.ts";
import { PAGE_SIZE } from "../../memory/machine_memory.ts";
import { step, type StepId } from "../../memory/steps.ts";
import { maskQwords, protectedQwords } from "../../sev/register_protection.ts";
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
import type { LowerVtlBus } from "./lower_vtl_bus.ts";
import { EXIT_AUTOMATIC, EXIT_VC, SevVpState, TURN, VIRTUAL_INTERRUPT } from "./state.ts";

const EXIT = SevExitCode.values;
const at = SevVpState.at;
const cpuAt = CpuState.at;
const vmcbAt = VMCB_CONTROL.at;
const vmsaAt = VMSA.at;
const npf = NPF_EXITINFO1.mask;
const io = IOIO_EXITINFO1.low;
const control = V_INTR_CTRL.low;
const GUEST_BUSY_HIGH = V_INTR_CTRL.high.guest_busy;
/** Bits of the high word of V_INTR_CTRL that are the vector. */
const VECTOR_HIGH = V_INTR_CTRL.high.v_intr_vector;
/** Interrupt priority in the low word. */
const PRIORITY_SHIFT = V_INTR_CTRL.shift.v_intr_prio;
const CLASS_SHIFT = 4;
const EVENT = EVENT_INJ.low;
const PORT_SHIFT = IOIO_EXITINFO1.shift.port;
const SIZE_SHIFT = IOIO_EXITINFO1.shift.size8;

/** What such a processor is put together from. */
export interface VmplVpParts extends EncryptedVpParts<LowerVtlBus> {
  /** Which quadwords of VMSAs are stored XORed with their nonce. */
  readonly tweakBitmap: Uint8Array;
}

/** See the module's description. */
export class VmplVp extends EncryptedVp<LowerVtlBus> {
  /** Quadwords of VMSAs that are stored XORed. */
  readonly protect: readonly number[];

  /** Processor `index` over the agent block at byte offset `block`. */
  constructor(index: number, block: number, parts: VmplVpParts) {
    super(index, block, parts, RUN);
    this.protect = protectedQwords(parts.tweakBitmap);
  }

  /**
   * Saves the processor's registers into the VMSA at byte `page`, protected with a nonce that it has not had before, and what
   * holds interrupts back.
   */
  saveRegisters(page: number): void {
    const { memory, protect, cpuState } = this;
    const { i32 } = memory;
    saveVmsa(memory, cpuState, page, protect);
    const intr = (page + vmsaAt.vintr_ctrl) >>> 2;
    const kept = i32[intr] & ~(control.v_tpr | control.intr_shadow | control.v_nmi | control.v_nmi_mask);
    i32[intr] = kept | (i32[(cpuState + cpuAt.cr8) >>> 2] & control.v_tpr) |
      (i32[(cpuState + cpuAt.interrupt_shadow) >>> 2] !== 0 ? control.intr_shadow : 0) |
      (i32[(cpuState + cpuAt.nmi_pending) >>> 2] !== 0 ? control.v_nmi : 0) |
      (i32[(cpuState + cpuAt.nmi_masked) >>> 2] !== 0 ? control.v_nmi_mask : 0);
  }
}

// --- Entry ------------------------------------------------------------------------------------------------------------

/** VMRUN of the VMSA that the VMCB names. */
export const VMRUN: StepId = step<VmplVp>(
  "sev.vmrun-vmpl",
  (vp) => {
    const failure = enter(vp);
    if (failure !== undefined) {
      writeVmcb(vp, failure, 0n, 0n);
      return handOver(vp, VMRUN);
    }
    return vp.memory.u8[vp.enteredVmsa + vmsaAt.vmpl] === VMPL.MOST_PRIVILEGED ? vp.vtl2Step : RUN;
  },
  (vp) => vp.turn === TURN.GUEST,
);

/** Enters the VMSA that the VMCB names; the exit code with which VMRUN fails, or undefined. */
function enter(vp: VmplVp): number | undefined {
  const { memory, sev, port, protect, sevState } = vp;
  const page = namedVmsa(vp);
  if (page === undefined) return EXIT.INVALID;
  if (isBusy(memory, page) || !sev.rmp!.tryEnter(port, page / PAGE_SIZE)) return EXIT.VMSA_BUSY;
  const vmpl = memory.u8[page + vmsaAt.vmpl];
  // Nothing has changed VMPL0's own VMSA since its launch, and its code needs no registers.
  if (vmpl !== VMPL.MOST_PRIVILEGED) {
    maskQwords(memory.i32, page, protect);
    const valid = invalidVmsa(memory, page) === undefined && !refusesEvent(vp, page);
    if (valid) load(vp, page);
    maskQwords(memory.i32, page, protect);
    if (!valid) {
      sev.rmp!.leave(port, page / PAGE_SIZE);
      // VMPL0's software is told where it looks for it.
      memory.u64[(page + vmsaAt.guest_exit_code) >>> 3] = BigInt.asUintN(64, BigInt(EXIT.INVALID));
      return EXIT.INVALID;
    }
  }
  memory.u32[(sevState + at.vmsa) >>> 2] = page;
  memory.u32[(sevState + at.vmpl) >>> 2] = vmpl;
  if (vmpl !== VMPL.MOST_PRIVILEGED) vp.observer?.entry(vp);
  return undefined;
}

/** Whether the event that the VMSA asks to inject is one that the processor does not inject (a18). */
function refusesEvent(vp: VmplVp, page: number): boolean {
  const event = vp.memory.u32[(page + vmsaAt.event_inj) >>> 2];
  if ((event & EVENT.valid) === 0) return false;
  return !isInjectable(EVENT_INJ.get(BigInt(event), "type"), event & EVENT.vector);
}

/** Loads a lower VMPL, whose protected registers are plain: registers, the event to inject, virtual interrupt control. */
function load(vp: VmplVp, page: number): void {
  const { memory, cpuState, sevState, port } = vp;
  const { i32, u32, u64, u8 } = memory;
  loadRegisters(vp, page);
  // Translations hold the permissions of the VMPL for which they were made.
  const vmpl = u8[page + vmsaAt.vmpl];
  const sameVmpl = u32[(sevState + at.lower_vmpl) >>> 2] === vmpl;
  u32[(sevState + at.lower_vmpl) >>> 2] = vmpl;
  if (!sameVmpl) vp.cpu.flushCaches();

  const event = (page + vmsaAt.event_inj) >>> 2;
  i32[(cpuState + cpuAt.event) >>> 2] = (u32[event] & EVENT.valid) === 0 ? 0 : u32[event];
  i32[(cpuState + cpuAt.event_error) >>> 2] = u32[event + 1];
  // The page-fault address of an injected #PF is the one that the VMSA holds.
  u64[(cpuState + cpuAt.event_cr2) >>> 3] = u64[(cpuState + cpuAt.cr2) >>> 3];
  i32[event] = 0;
  i32[event + 1] = 0;

  const intr = (page + vmsaAt.vintr_ctrl) >>> 2;
  const low = i32[intr];
  u64[(cpuState + cpuAt.cr8) >>> 3] = BigInt(low & control.v_tpr);
  i32[(cpuState + cpuAt.interrupt_shadow) >>> 2] = (low & control.intr_shadow) === 0 ? 0 : SHADOW_STI;
  i32[(cpuState + cpuAt.nmi_pending) >>> 2] = (low & control.v_nmi) === 0 ? 0 : 1;
  i32[(cpuState + cpuAt.nmi_masked) >>> 2] = (low & control.v_nmi_mask) === 0 ? 0 : 1;
  i32[(cpuState + cpuAt.activity) >>> 2] = ACTIVITY_RUNNING;
  const offered = (low & control.v_irq) !== 0;
  u32[(sevState + at.virtual_interrupt) >>> 2] = offered
    ? VIRTUAL_INTERRUPT.PENDING | (i32[intr + 1] & VECTOR_HIGH)
    : 0;
  // The processor looks for an interruptible moment when the bit says so.
  if (offered) port.or32(cpuState + cpuAt.attention, ATTENTION.VTL0_INTERRUPT);
  vp.cpu.updateMode();
}

// --- The guest runs ---------------------------------------------------------------------------------------------------

/** A lower VMPL executes, until something happens that VMPL0 or the host must see, or its quantum is used up. */
const RUN: StepId = step<VmplVp>("sev.run-lower-vmpl", (vp) => {
  if (interrupted(vp)) return leave(vp, EXIT_KIND.interrupt, EXIT.INTR);
  const reason = vp.cpu.run(vp.runQuantum);
  if (reason === EXIT_NONE) return interrupted(vp) ? leave(vp, EXIT_KIND.interrupt, EXIT.INTR) : RUN;
  return LEAVE;
});

/** Whether another processor wants this one to leave the guest: an IPI, a physical interrupt. */
function interrupted(vp: VmplVp): boolean {
  return (vp.attention & ~(ATTENTION.FLUSH_TLB | ATTENTION.VTL0_INTERRUPT)) !== 0;
}

/** The lower VMPL has left: what for is in the processor's exit record. */
const LEAVE: StepId = step<VmplVp>("sev.leave-lower-vmpl", (vp) => {
  const { i32, u8, u64 } = vp.memory;
  const base = vp.cpuState;
  const write = i32[(base + cpuAt.exit_write) >>> 2] !== 0;
  const gpa = u64[(base + cpuAt.exit_gpa) >>> 3];
  const reason = i32[(base + cpuAt.exit_reason) >>> 2];
  switch (reason) {
    case EXIT_IO: {
      const kind = u8[base + cpuAt.exit_flags] & EXIT_IN ? EXIT_KIND.in : EXIT_KIND.out;
      return reflect(vp, kind, EXIT.IOIO, BigInt(portInfo(vp)), 0n);
    }
    case EXIT_MMIO:
      return reflect(vp, write ? EXIT_KIND["mmio-write"] : EXIT_KIND["mmio-read"], EXIT.NPF, deviceInfo(vp), gpa);
    case EXIT_CPUID:
      return reflect(vp, EXIT_KIND.cpuid, EXIT.CPUID, 0n, 0n);
    case EXIT_MSR:
      return reflect(vp, write ? EXIT_KIND.wrmsr : EXIT_KIND.rdmsr, EXIT.MSR, write ? 1n : 0n, 0n);
    case EXIT_HYPERCALL:
      return reflect(vp, EXIT_KIND.hypercall, EXIT.VMMCALL, 0n, 0n);
    case EXIT_EXCEPTION:
      return reflect(vp, EXIT_KIND.exception, EXIT.EXCP0 + i32[(base + cpuAt.exit_vector) >>> 2], 0n, 0n);
    case EXIT_HLT:
      return leave(vp, EXIT_KIND.hlt, EXIT.HLT);
    case EXIT_SHUTDOWN:
      return leave(vp, EXIT_KIND.shutdown, EXIT.SHUTDOWN);
    case EXIT_VC:
    case EXIT_AUTOMATIC: {
      const code = vp.exitCode;
      const info1 = u64[(vp.sevState + at.exit_info_1) >>> 3];
      const info2 = u64[(vp.sevState + at.exit_info_2) >>> 3];
      if (reason === EXIT_VC) return reflect(vp, EXIT_KIND.exception, code, info1, info2);
      return leave(vp, automaticKind(code), code, info1, info2);
    }
    default:
      throw new RangeError(`A guest below a paravisor left for reason ${reason}`);
  }
});

/** Under what an automatic exit is counted. */
function automaticKind(code: number): ExitKindNumber {
  if (code === EXIT.VMGEXIT) return EXIT_KIND.vmgexit;
  return code === EXIT.NPF ? EXIT_KIND.npf : EXIT_KIND.interrupt;
}

/** EXITINFO1 of a port access. */
function portInfo(vp: VmplVp): number {
  const { u8, u16 } = vp.memory;
  const flags = u8[vp.cpuState + cpuAt.exit_flags];
  // The bits for one, two and four bytes follow one another.
  const size = 1 << (SIZE_SHIFT + Math.log2(u8[vp.cpuState + cpuAt.exit_size]));
  return ((flags & EXIT_IN ? io.in : 0) | (flags & EXIT_STRING ? io.string : 0) | (flags & EXIT_REP ? io.rep : 0) |
    size |
    (u16[(vp.cpuState + cpuAt.exit_port) >>> 1] << PORT_SHIFT)) >>> 0;
}

/** EXITINFO1 of an access to device memory, whose nested entry has a reserved bit set (a9). */
function deviceInfo(vp: VmplVp): bigint {
  const { i32 } = vp.memory;
  const write = i32[(vp.cpuState + cpuAt.exit_write) >>> 2] !== 0;
  const fetch = i32[(vp.cpuState + cpuAt.exit_access) >>> 2] === ACCESS_EXECUTE;
  return npf.present | npf.user | npf.rsvd | npf.final_gpa | (write ? npf.write : 0n) | (fetch ? npf.fetch : 0n);
}

// --- Exit -------------------------------------------------------------------------------------------------------------

/** An event that is VMPL0's: the host learns only that there was one. */
function reflect(vp: VmplVp, kind: ExitKindNumber, code: number, info1: bigint, info2: bigint): StepId {
  vp.noteExit(kind);
  save(vp, code, info1, info2);
  vp.sev.rmp!.leave(vp.port, vp.enteredVmsa / PAGE_SIZE);
  writeVmcb(vp, EXIT.EXCP0 + SEV_EXCEPTION.VC, 0n, 0n);
  return handOver(vp, VMRUN);
}

/** An automatic exit: the host has its exit code, and the address of a nested page fault. */
function leave(vp: VmplVp, kind: ExitKindNumber, code: number, info1 = 0n, info2 = 0n): StepId {
  vp.noteExit(kind);
  if (code === EXIT.HLT) vp.skipInstruction(); // RIP is already past the instruction (a12)
  save(vp, code, info1, info2);
  vp.sev.rmp!.leave(vp.port, vp.enteredVmsa / PAGE_SIZE);
  writeVmcb(vp, code, info1, info2);
  return handOver(vp, VMRUN);
}

/** The registers, and what happened, go into the VMSA. */
function save(vp: VmplVp, code: number, info1: bigint, info2: bigint): void {
  const { memory, cpuState, sevState } = vp;
  const { i32, u32, u64 } = memory;
  const page = vp.enteredVmsa;
  const length = i32[(cpuState + cpuAt.exit_length) >>> 2];
  const next = u64[(cpuState + cpuAt.rip) >>> 3] + BigInt(length);
  vp.saveRegisters(page);
  const covered = vp.protect.includes(vmsaAt.guest_nrip) ? u64[(page + vmsaAt.reg_prot_nonce) >>> 3] : 0n;
  u64[(page + vmsaAt.guest_nrip) >>> 3] = BigInt.asUintN(64, vp.cpu.long64 ? next : next & 0xffff_ffffn) ^ covered;
  u64[(page + vmsaAt.guest_exit_code) >>> 3] = BigInt.asUintN(64, BigInt(code));
  u64[(page + vmsaAt.guest_exit_info_1) >>> 3] = info1;
  u64[(page + vmsaAt.guest_exit_info_2) >>> 3] = info2;

  // An exit in the middle of an event's delivery leaves the VMSA busy until VMPL0 has looked after the event (f21).
  const interrupted = storeInterruptedEvent(vp, page + vmsaAt.guest_exit_int_info);

  const intr = (page + vmsaAt.vintr_ctrl) >>> 2;
  if ((u32[(sevState + at.virtual_interrupt) >>> 2] & VIRTUAL_INTERRUPT.PENDING) === 0) i32[intr] &= ~control.v_irq;
  if (interrupted) i32[intr + 1] |= GUEST_BUSY_HIGH;
}

/** What the host can read of the exit. */
function writeVmcb(vp: VmplVp, code: number, info1: bigint, info2: bigint): void {
  const { i32, u32, u64 } = vp.memory;
  const { vmcb } = vp;
  u64[(vmcb + vmcbAt.exit_code) >>> 3] = BigInt.asUintN(64, BigInt(code));
  u64[(vmcb + vmcbAt.exit_info_1) >>> 3] = info1;
  u64[(vmcb + vmcbAt.exit_info_2) >>> 3] = info2;
  const open = (i32[(vp.cpuState + cpuAt.rflags) >>> 2] & FLAG_IF) !== 0;
  u32[(vmcb + vmcbAt.int_state) >>> 2] = open ? VMCB_INT_STATE.mask.guest_interrupt_mask : 0;
}

/** VMPL0 leaves for the host: its VMGEXIT with the request that is in the GHCB MSR. It goes on at `next`. */
export function vmgexit(vp: VmplVp, request: bigint, next: StepId): StepId {
  vp.vtl2Step = next;
  vp.port.store64(vp.vmcb + vmcbAt.ghcb_gpa, request);
  vp.sev.rmp!.leave(vp.port, vp.enteredVmsa / PAGE_SIZE);
  writeVmcb(vp, EXIT.VMGEXIT, 0n, 0n);
  return handOver(vp, VMRUN);
}

/** V_INTR_CTRL's words with the virtual interrupt `vector`, or with none (-1), and task priority `cr8`. */
export function offerInterrupt(
  low: number,
  vector: number,
  cr8: number,
): { readonly low: number; readonly high: number } {
  const rest = low & ~(control.v_irq | control.v_intr_prio | control.v_ign_tpr | control.v_tpr) | (cr8 & control.v_tpr);
  if (vector < 0) return { low: rest, high: 0 };
  return { low: rest | control.v_irq | ((vector >>> CLASS_SHIFT) << PRIORITY_SHIFT), high: vector };
}

/** The event of an exception with `vector`, in the form of a VMSA's `event_inj`. */
export function exceptionEvent(vector: number, hasError: boolean, error: number): bigint {
  const low = EVENT_VALID | (hasError ? EVENT_HAS_ERROR : 0) | (EVENT_TYPE_EXCEPTION << EVENT_TYPE_SHIFT) | vector;
  return (BigInt(hasError ? error >>> 0 : 0) << 32n) | BigInt(low >>> 0);
}
