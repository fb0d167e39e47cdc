/**
 * What surrounds the processor while it executes a guest below a paravisor, at VMPL1 or VMPL2 of an SNP guest: every event
 * that is not automatic is reflected to VMPL0 instead of becoming #VC (ReflectVC; sev.md a19), and memory is private below
 * the virtual top of memory and shared above it, whatever the guest's page tables say.
 *
 * The exit record of the processor's state says what happened; `vmpl_vp.ts` turns it into the VMSA's fields.
 *
 * @module
 */
import { ACCESS_READ, ACCESS_WRITE } from "../../cpu/bus.ts";
import type { Cpu } from "../../cpu/cpu.ts";
import type { Insn } from "../../cpu/insn.ts";
import { CpuState, EXIT_CPUID, EXIT_HYPERCALL, EXIT_MSR } from "../../cpu/state.ts";
import { SevExitCode } from "../../layout/sev/constants/exit_codes.ts";
import { SEV_MSR } from "../../layout/sev/constants/msrs.ts";
import { VMPL } from "../../layout/sev/constants/rmp.ts";
import { VMSA } from "../../layout/sev/vmsa.ts";
import { PAGE_SHIFT, PAGE_SIZE, pageNumber } from "../../memory/machine_memory.ts";
import { type Rmp, RMP_CHECK } from "../../sev/rmp.ts";
import { ATTENTION } from "../attention.ts";
import { EncryptedBus, type EncryptedBusParts, sevStatus } from "./encrypted_bus.ts";
import { EXIT_AUTOMATIC, EXIT_VC, SevVpState, VIRTUAL_INTERRUPT } from "./state.ts";

const EXIT = SevExitCode.values;
const at = SevVpState.at;
const cpuAt = CpuState.at;
const CLASS_SHIFT = 4;

/** Bit of a guest-physical address that Hyper-V chooses as virtual top of memory on SNP. */
export const VTOM_BIT = 46;
/** First guest page of the shared alias. */
const VTOM_GPN = 2 ** (VTOM_BIT - PAGE_SHIFT);

/** See the module's description. */
export class LowerVtlBus extends EncryptedBus {
  readonly #rmp: Rmp;

  /** A bus made from `parts`; the machine must have an RMP. */
  constructor(parts: EncryptedBusParts) {
    super(parts);
    if (parts.sev.rmp === undefined) throw new TypeError("A paravisor needs an RMP");
    this.#rmp = parts.sev.rmp;
  }

  // --- Memory -------------------------------------------------------------------------------------------------------

  override page(gpn: number, access: number): number {
    const shared = gpn >= VTOM_GPN;
    const page = shared ? gpn - VTOM_GPN : gpn;
    if (!shared) {
      const offset = super.page(page, access);
      // The local APIC, which VMPL0 emulates, and pages that it lays over the guest's memory.
      if (offset !== page * PAGE_SIZE) return offset < 0 ? -1 : offset;
    }
    if (!this.sev.isRam(page) || this.check(page, access, shared) !== RMP_CHECK.PASS) return -1;
    // A shared read of an assigned page is not refused, but what is there is ciphertext.
    return shared && this.#rmp.isAssigned(this.processor.port, page) ? -1 : page * PAGE_SIZE;
  }

  override mmioRead(cpu: Cpu, gpaLo: number, gpaHi: number, size: number, access: number = ACCESS_READ): void {
    const offset = this.#admit(cpu, gpaLo, gpaHi, access);
    if (offset < 0) return this.deviceRead(cpu, gpaLo, gpaHi, size, access);
    const { port } = this.processor;
    cpu.v64[0] = this.#isAlien(gpaLo, gpaHi)
      ? this.sev.guestMemory.loadAlien(port, offset, size)
      : this.sev.guestMemory.loadStored(offset, size);
  }

  override mmioWrite(cpu: Cpu, gpaLo: number, gpaHi: number, size: number): void {
    const value = cpu.v64[0];
    const offset = this.#admit(cpu, gpaLo, gpaHi, ACCESS_WRITE);
    if (offset < 0) return this.deviceWrite(cpu, gpaLo, gpaHi, size);
    // Another processor has made the page accessible since `page` refused it.
    this.sev.guestMemory.storeStored(offset, size, value);
  }

  /** Whether the access sees another view of the page than the one that is stored. */
  #isAlien(gpaLo: number, gpaHi: number): boolean {
    const gpn = pageNumber(gpaLo, gpaHi);
    return gpn >= VTOM_GPN && this.#rmp.isAssigned(this.processor.port, gpn - VTOM_GPN);
  }

  /** Byte offset of RAM that may be accessed byte by byte; -1 where there is none. Leaves when the RMP refuses it. */
  #admit(cpu: Cpu, gpaLo: number, gpaHi: number, access: number): number {
    const table = cpu.tableAccess;
    cpu.tableAccess = false;
    const gpn = pageNumber(gpaLo, gpaHi);
    const shared = gpn >= VTOM_GPN;
    const page = shared ? gpn - VTOM_GPN : gpn;
    if (!this.sev.isRam(page) || (!shared && gpn === this.processor.apic.mmioPage && !this.parts.recorded)) return -1;
    const check = this.check(page, access, shared);
    if (check === RMP_CHECK.PASS) return page * PAGE_SIZE + (gpaLo & (PAGE_SIZE - 1));
    const gpa = (BigInt(gpaHi >>> 0) << 32n) | BigInt(gpaLo >>> 0);
    if (check === RMP_CHECK.NOT_VALIDATED) {
      this.setExit(EXIT.PAGE_NOT_VALIDATED, 0n, gpa);
      cpu.leave(EXIT_VC);
    } else {
      this.leaveToNestedFault(cpu, check, gpa, { access, encrypted: !shared, table });
    }
    return -1;
  }

  // --- Events -------------------------------------------------------------------------------------------------------

  /** VMGEXIT leaves behind the instruction; VMMCALL is intercepted; VMCALL is another vendor's. */
  override hypercall(cpu: Cpu, i: Insn): boolean {
    if (i.mnemonic !== "vmmcall") return false;
    if (i.rep === 0) {
      cpu.exit(EXIT_HYPERCALL);
      return true;
    }
    this.leaveAfter(cpu, EXIT.VMGEXIT, 0n);
    return true;
  }

  override cpuid(cpu: Cpu): void {
    cpu.exit(EXIT_CPUID);
  }

  override rdmsr(cpu: Cpu, msr: number): boolean {
    if (msr >>> 0 === SEV_MSR.SEV_STATUS) {
      cpu.v64[0] = sevStatus(this.#features);
      return true;
    }
    this.#leaveToMsr(cpu, msr, 0);
    return true;
  }

  override wrmsr(cpu: Cpu, msr: number): boolean {
    if (msr >>> 0 === SEV_MSR.SEV_STATUS) return false;
    cpu.s64[cpuAt.exit_value >>> 3] = cpu.v64[0];
    this.#leaveToMsr(cpu, msr, 1);
    return true;
  }

  #leaveToMsr(cpu: Cpu, msr: number, write: number): void {
    cpu.s32[cpuAt.exit_msr >>> 2] = msr;
    cpu.s32[cpuAt.exit_write >>> 2] = write;
    cpu.exit(EXIT_MSR);
  }

  /** SEV_FEATURES of the VMSA that runs. */
  get #features(): bigint {
    const { u32, u64 } = this.sev.memory;
    const vmsa = u32[(this.sevState + at.vmsa) >>> 2];
    return u64[(vmsa + VMSA.at.sev_features) >>> 3];
  }

  // --- Interrupts ---------------------------------------------------------------------------------------------------

  /**
   * The guest is interruptible. The interrupt that VMPL0 has put into the VMSA is delivered, without an exit, unless the
   * task priority holds it back; one that has been requested since then ends the run, as the IPI of who requested it does.
   */
  override acceptInterrupt(cpu: Cpu): number {
    const { port, apic } = this.processor;
    const word = (this.sevState + at.virtual_interrupt) >>> 2;
    const { u32 } = this.sev.memory;
    // Cleared before the look at what is requested, so that a later request is seen again.
    port.and32(this.processor.cpuState + cpuAt.attention, ~ATTENTION.VTL0_INTERRUPT);
    const { PENDING, DELIVERED, VECTOR } = VIRTUAL_INTERRUPT;
    // VTL1 takes no interrupts of VTL0, which wait until it has returned.
    if (u32[(this.sevState + at.vmpl) >>> 2] !== VMPL.VTL0) return -1;
    const offered = u32[word];
    const known = (offered & (PENDING | DELIVERED)) === 0 ? -1 : offered & VECTOR;
    if (apic.extIntPending || apic.highestOffered() > known) {
      this.setExit(EXIT.INTR, 0n, 0n);
      cpu.exit(EXIT_AUTOMATIC);
      return -1;
    }
    const priority = cpu.s32[cpuAt.cr8 >>> 2];
    if ((offered & PENDING) === 0 || (offered & VECTOR) >>> CLASS_SHIFT <= priority) return -1;
    u32[word] = (offered & VECTOR) | DELIVERED;
    return offered & VECTOR;
  }
}
