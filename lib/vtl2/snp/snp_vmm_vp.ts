/**
 * A processor of an SNP guest as the VMM's instruction emulator and crash handlers see it: registers are those of the VMSA of
 * the VTL that has left, read and written through its register protection.
 *
 * The emulator works on a copy of general-purpose and XMM registers in the run page, which {@linkcode SnpVmmVp.stage} makes
 * and {@linkcode SnpVmmVp.unstage} gives back.
 *
 * @module
 */
import { VECTOR_DB, VECTOR_PF } from "../../cpu/faults.ts";
import { CR0_PE, EFER_LMA } from "../../cpu/state.ts";
import type { Devices } from "../../devices/devices.ts";
import { exceptionEvent } from "../../hypervisor/sev/vmpl_vp.ts";
import type { VirtualProcessor } from "../../hypervisor/virtual_processor.ts";
import { HvX64PendingEventType, HvX64PendingExceptionEvent } from "../../layout/hyperv/events.ts";
import { HvX64RegisterName } from "../../layout/hyperv/constants/registers.ts";
import { HypercallInputControl } from "../../layout/hyperv/hypercalls.ts";
import { HvX64VpExecutionState } from "../../layout/hyperv/messages.ts";
import { hcl_run } from "../../layout/hyperv/hcl_run.ts";
import { HvX64SegmentRegister } from "../../layout/hyperv/segments.ts";
import { EVENT_INJ, V_INTR_CTRL, VMSA } from "../../layout/sev/vmsa.ts";
import { Fxsave } from "../../layout/x64/fxsave.ts";
import { type MachineMemory, PAGE_SIZE } from "../../memory/machine_memory.ts";
import type { Policy } from "../../memory/policy.ts";
import { PERMISSION_READ, PERMISSION_WRITE, RMP_CHECK } from "../../sev/rmp.ts";
import { CONTEXT, CS_SEGMENT, EXECUTION_STATE, RFLAGS, RIP } from "../context.ts";
import { CRASHED, type HandlerResult, type VmmCrash, type VmmPartition, type VmmVp } from "../vmm_vp.ts";
import { SNP_PAGES, SnpVmmState } from "./pages.ts";
import type { SnpVp } from "./snp_vp.ts";

const names = HvX64RegisterName.values;
const execution = HvX64VpExecutionState.mask;
/** Bytes of an `HvRegisterValue`. */
const VALUE_BYTES = 16;
/** General-purpose registers in the context's order; slot 4 is CR2 there. */
const GPRS = [
  ...["rax", "rcx", "rdx", "rbx", "cr2", "rbp", "rsi", "rdi"] as const,
  ...["r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15"] as const,
] as const;
const XMM_QWORDS = 32;
/** The event has sixteen bits for a vector of eight. */
const VECTOR_MASK = 0xff;

/** Registers of 64 bits that the emulator gets or sets, by the VMSA's name. */
const WORDS = new Map<number, "rip" | "rflags" | "rsp" | "cr0" | "cr3" | "cr4" | "efer">([
  [names.Rip, "rip"],
  [names.Rflags, "rflags"],
  [names.Rsp, "rsp"],
  [names.Cr0, "cr0"],
  [names.Cr3, "cr3"],
  [names.Cr4, "cr4"],
  [names.Efer, "efer"],
]);

/** A segment register by the VMSA's name. */
type SegmentName = "es" | "cs" | "ss" | "ds" | "fs" | "gs" | "tr";

/** Segment registers. */
const SEGMENTS = new Map<number, SegmentName>([
  [names.Es, "es"],
  [names.Cs, "cs"],
  [names.Ss, "ss"],
  [names.Ds, "ds"],
  [names.Fs, "fs"],
  [names.Gs, "gs"],
  [names.Tr, "tr"],
]);

/** What a {@linkcode SnpVmmVp} is put together from. */
export interface SnpVmmVpParts {
  readonly devices: Devices;
  readonly vmm: VmmPartition;
  /** Records a crash of the VMM. */
  readonly onCrash: (vp: VirtualProcessor, crash: VmmCrash) => void;
}

/** See the module's description. */
export class SnpVmmVp implements VmmVp {
  readonly memory: MachineMemory;
  readonly index: number;
  readonly context: number;
  readonly message: number;
  readonly state: number;
  readonly devices: Devices;
  readonly partition: VmmPartition;
  readonly #vp: SnpVp;
  readonly #onCrash: (vp: VirtualProcessor, crash: VmmCrash) => void;

  /** The view of `vp`. */
  constructor(vp: SnpVp, parts: SnpVmmVpParts) {
    this.memory = vp.memory;
    this.index = vp.index;
    this.context = vp.runPage + hcl_run.at.context;
    this.message = vp.vmmState + SnpVmmState.at.emulated_message;
    this.state = vp.sev.paravisorPages(vp.index) + SNP_PAGES.VMM * PAGE_SIZE;
    this.devices = parts.devices;
    this.partition = parts.vmm;
    this.#vp = vp;
    this.#onCrash = parts.onCrash;
  }

  get interceptedVtl(): number {
    return this.#vp.vtl;
  }

  get #vmsa() {
    return this.#vp.vmsa(this.#vp.vtl);
  }

  policy(policy: Policy): number {
    return this.#vp.policy(policy);
  }

  /** Copies registers for the emulator; `interrupted` when the exit came in the middle of an event's delivery. */
  stage(interrupted: boolean): void {
    const { u16, u64 } = this.memory;
    const vmsa = this.#vmsa;
    GPRS.forEach((name, slot) => u64[(this.context >>> 3) + slot] = vmsa.get64(name));
    const xmm = (this.context + CONTEXT.FX + Fxsave.at.xmm) >>> 3;
    for (let k = 0; k < XMM_QWORDS; k++) u64[xmm + k] = vmsa.qword(VMSA.at.fpreg_xmm + 8 * k);
    this.memory.u32[(this.context + CONTEXT.FX + Fxsave.at.mxcsr) >>> 2] = vmsa.get32("mxcsr");
    u64[(this.message + RIP) >>> 3] = vmsa.get64("rip");
    u64[(this.message + RFLAGS) >>> 3] = vmsa.get64("rflags");
    this.#getSegment("cs", this.message + CS_SEGMENT);
    const shadow = (vmsa.get64("vintr_ctrl") & V_INTR_CTRL.mask.intr_shadow) !== 0n;
    u16[(this.message + EXECUTION_STATE) >>> 1] = vmsa.get8("cpl") & execution.cpl |
      ((vmsa.get64("cr0") & BigInt(CR0_PE)) !== 0n ? execution.cr0_pe : 0) |
      ((vmsa.get64("efer") & BigInt(EFER_LMA)) !== 0n ? execution.efer_lma : 0) |
      (interrupted ? execution.interruption_pending : 0) | (shadow ? execution.interrupt_shadow : 0);
  }

  /** Gives the emulator's registers back to the VMSA. */
  unstage(): void {
    const { u64 } = this.memory;
    const vmsa = this.#vmsa;
    GPRS.forEach((name, slot) => {
      if (name !== "cr2") vmsa.set64(name, u64[(this.context >>> 3) + slot]);
    });
    const xmm = (this.context + CONTEXT.FX + Fxsave.at.xmm) >>> 3;
    for (let k = 0; k < XMM_QWORDS; k++) vmsa.setQword(VMSA.at.fpreg_xmm + 8 * k, u64[xmm + k]);
  }

  getRegisters(wanted: readonly number[], at: number): boolean {
    const { u64 } = this.memory;
    wanted.forEach((name, k) => {
      const to = at + k * VALUE_BYTES;
      const word = WORDS.get(name);
      const segment = SEGMENTS.get(name);
      if (segment !== undefined) this.#getSegment(segment, to);
      else {
        u64[to >>> 3] = word === undefined ? 0n : this.#vmsa.get64(word);
        u64[(to >>> 3) + 1] = 0n;
      }
    });
    return true;
  }

  setRegisters(given: readonly number[], at: number): void {
    given.forEach((name, k) => {
      const word = WORDS.get(name);
      if (word !== undefined) this.#vmsa.set64(word, this.memory.u64[(at + k * VALUE_BYTES) >>> 3]);
    });
  }

  #getSegment(name: SegmentName, to: number): void {
    const { selector, attributes, limit, base } = this.#vmsa.segment(name);
    const { u16, u32, u64 } = this.memory;
    u64[(to + HvX64SegmentRegister.at.base) >>> 3] = base;
    u32[(to + HvX64SegmentRegister.at.limit) >>> 2] = limit;
    u16[(to + HvX64SegmentRegister.at.selector) >>> 1] = selector;
    u16[(to + HvX64SegmentRegister.at.attributes) >>> 1] = attributes;
  }

  setRip(low: number, high: number): void {
    this.#vmsa.set64("rip", (BigInt(high >>> 0) << 32n) | BigInt(low >>> 0));
  }

  /** Completes the instruction that left: RIP moves behind it, and an interrupt shadow ends. */
  completeInstruction(): void {
    this.#vmsa.set64("rip", this.#vmsa.get64("guest_nrip"));
    this.clearInterruptShadow();
  }

  clearInterruptShadow(): void {
    const vmsa = this.#vmsa;
    vmsa.set64("vintr_ctrl", vmsa.get64("vintr_ctrl") & ~V_INTR_CTRL.mask.intr_shadow);
  }

  injectEvent(at: number): void {
    const event = this.memory.u64[at >>> 3];
    if (HvX64PendingExceptionEvent.get(event, "event_type") !== HvX64PendingEventType.values.EXCEPTION) return;
    const vector = HvX64PendingExceptionEvent.get(event, "vector") & VECTOR_MASK;
    const hasError = HvX64PendingExceptionEvent.get(event, "deliver_error_code") !== 0;
    this.inject(vector, hasError, HvX64PendingExceptionEvent.get(event, "error_code"), this.memory.u64[(at >>> 3) + 1]);
  }

  /** Injects an exception; `parameter` is CR2 of a page fault or the DR6 bits of a debug exception. */
  inject(vector: number, hasError: boolean, error: number, parameter: bigint): void {
    const vmsa = this.#vmsa;
    if (vector === VECTOR_PF) vmsa.set64("cr2", parameter);
    if (vector === VECTOR_DB) vmsa.set64("dr6", vmsa.get64("dr6") | parameter);
    vmsa.set64("event_inj", exceptionEvent(vector, hasError, error));
  }

  /** Whether an event waits to be injected already. */
  get eventPending(): boolean {
    return (this.#vmsa.get64("event_inj") & EVENT_INJ.mask.valid) !== 0n;
  }

  postMessageDirect(sint: number, message: number): number {
    return this.#vp.synic.postMessage(sint, this.memory.view, message);
  }

  /** RAM that the VTL itself may read and write: what it may not, OpenHCL does not touch for it. */
  guestOffset(gpa: number, length: number): number {
    const { sev, port } = this.#vp;
    const permissions = PERMISSION_READ | PERMISSION_WRITE;
    const last = Math.floor((gpa + Math.max(length, 1) - 1) / PAGE_SIZE);
    for (let gpn = Math.floor(gpa / PAGE_SIZE); gpn <= last; gpn++) {
      if (!sev.isRam(gpn)) return -1;
      const check = this.#vp.checkPrivate(gpn, permissions);
      if (check !== RMP_CHECK.PASS && !(check === RMP_CHECK.OWNER && !sev.rmp!.isAssigned(port, gpn))) return -1;
    }
    return gpa;
  }

  /**
   * Byte offset of the input, of `bytes` bytes, of the hypercall that left; -1 when the call is fast, or its input is not
   * where the TLFS wants it: aligned to 8 bytes, within a page, in memory of the guest.
   */
  hypercallInput(bytes: number): number {
    const gpa = this.#vmsa.get64("rdx");
    const fast = HypercallInputControl.get(this.#vmsa.get64("rcx"), "fast") !== 0;
    const placed = (gpa & 7n) === 0n && Number(gpa & BigInt(PAGE_SIZE - 1)) + bytes <= PAGE_SIZE;
    if (fast || !placed || gpa > BigInt(Number.MAX_SAFE_INTEGER)) return -1;
    return this.guestOffset(Number(gpa), bytes);
  }

  isOverlay(gpn: number): boolean {
    return this.#vp.partition.isOverlay(gpn);
  }

  crash(report: VmmCrash): HandlerResult {
    this.#onCrash(this.#vp, report);
    return CRASHED;
  }
}
