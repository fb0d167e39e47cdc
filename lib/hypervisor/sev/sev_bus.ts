/**
 * What surrounds the processor while it executes an SEV-ES or SNP guest: memory that the C bit and the RMP divide into
 * private and shared, and events that are either automatic exits or exceptions for the guest's own #VC handler (sev.md a7
 * to a15, e6, e7).
 *
 * Which events happen at all is told by the intercept bits of the VMCB, which the host writes; they are read here at each
 * event. MSRs are passed through by a list of the host's.
 *
 * @module
 */
import { ACCESS_READ, ACCESS_SHARED, ACCESS_WRITE, PAGE_PVALIDATE, PAGE_RMPADJUST } from "../../cpu/bus.ts";
import type { Cpu } from "../../cpu/cpu.ts";
import { VECTOR_GP, VECTOR_UD, VECTOR_VC } from "../../cpu/faults.ts";
import type { Insn } from "../../cpu/insn.ts";
import { FLAG_CF, RAX, RCX, RDX } from "../../cpu/state.ts";
import { SevExitCode } from "../../layout/sev/constants/exit_codes.ts";
import { SEV_MSR } from "../../layout/sev/constants/msrs.ts";
import { VMPL } from "../../layout/sev/constants/rmp.ts";
import { NPF_EXITINFO1 } from "../../layout/sev/exit_info.ts";
import { VMCB_CONTROL } from "../../layout/sev/vmcb.ts";
import { PAGE_SHIFT, PAGE_SIZE, pageNumber } from "../../memory/machine_memory.ts";
import { npfBits, RMP_CHECK, type RmpCheck } from "../../sev/rmp.ts";
import { ATTENTION } from "../attention.ts";
import { EncryptedBus, type EncryptedBusParts, sevStatus } from "./encrypted_bus.ts";
import { C_BIT, GUEST_ASID } from "./machine.ts";
import { EXIT_AUTOMATIC, EXIT_VC, SevVpState } from "./state.ts";

const EXIT = SevExitCode.values;
const at = SevVpState.at;
const vmcbAt = VMCB_CONTROL.at;
const npf = NPF_EXITINFO1.mask;

/** The C bit in the high half of an entry or an address. */
export const C_BIT_HIGH: number = 1 << (C_BIT - 32);
const OFFSET_MASK = PAGE_SIZE - 1;

/** What a bus of an encrypted guest is made from. */
export interface SevBusParts extends EncryptedBusParts {
  /** MSRs that the guest accesses without an exit: what the host's MSR permission map lets through. */
  readonly passedMsrs: ReadonlySet<number>;
}

/** The bus of an encrypted guest. */
export class SevBus extends EncryptedBus {
  readonly #passed: ReadonlySet<number>;

  /** A bus made from `parts`. */
  constructor(parts: SevBusParts) {
    super(parts);
    this.#passed = parts.passedMsrs;
  }

  // --- Memory -------------------------------------------------------------------------------------------------------

  override page(gpn: number, access: number): number {
    if (!this.sev.isRam(gpn)) return -1;
    const { port } = this.processor;
    const { guestMemory, rmp } = this.sev;
    const shared = (access & ACCESS_SHARED) !== 0;
    if (rmp !== undefined) {
      const check = this.check(gpn, access, shared);
      // A shared read of an assigned page is not refused, but what is there is ciphertext.
      const readable = check === RMP_CHECK.PASS && !(shared && rmp.isAssigned(port, gpn));
      return readable ? gpn * PAGE_SIZE : -1;
    }
    if (guestMemory.isPrivate(port, gpn) !== shared) return gpn * PAGE_SIZE;
    if ((access & ACCESS_WRITE) === 0) return -1;
    guestMemory.changeView(port, gpn, !shared);
    this.processor.cpu.flushTlb();
    this.processor.partition.signalAll(port, this.parts.vp, ATTENTION.FLUSH_TLB);
    return gpn * PAGE_SIZE;
  }

  override mmioRead(cpu: Cpu, gpaLo: number, gpaHi: number, size: number, access: number = ACCESS_READ): void {
    if (!this.#admit(cpu, gpaLo, gpaHi, access)) return;
    const { guestMemory } = this.sev;
    const { port } = this.processor;
    // RAM whose storage is of the other view; a page that became accessible meanwhile is simply read.
    const alien = guestMemory.isPrivate(port, gpaLo >>> PAGE_SHIFT) === ((gpaHi & C_BIT_HIGH) === 0);
    cpu.v64[0] = alien ? guestMemory.loadAlien(port, gpaLo >>> 0, size) : guestMemory.loadStored(gpaLo >>> 0, size);
  }

  override mmioWrite(cpu: Cpu, gpaLo: number, gpaHi: number, size: number): void {
    const value = cpu.v64[0];
    if (!this.#admit(cpu, gpaLo, gpaHi, ACCESS_WRITE)) return;
    const { guestMemory } = this.sev;
    const { port } = this.processor;
    const alien = guestMemory.isPrivate(port, gpaLo >>> PAGE_SHIFT) === ((gpaHi & C_BIT_HIGH) === 0);
    if (alien) guestMemory.storeAlien(port, gpaLo >>> 0, size, value);
    else guestMemory.storeStored(gpaLo >>> 0, size, value);
  }

  /** Whether an access that `page` refused may go on byte by byte; otherwise the guest leaves or takes a #VC. */
  #admit(cpu: Cpu, gpaLo: number, gpaHi: number, access: number): boolean {
    const table = cpu.tableAccess;
    cpu.tableAccess = false;
    const gpn = pageNumber(gpaLo, gpaHi & ~C_BIT_HIGH);
    const encrypted = (gpaHi & C_BIT_HIGH) !== 0;
    // The nested entry of device memory has a reserved bit set: that fault is the guest's to handle (a9).
    if (!this.sev.isRam(gpn)) return this.#raiseVc(cpu, EXIT.NPF);
    const check = this.check(gpn, access, !encrypted);
    if (check === RMP_CHECK.PASS) return true;
    if (check === RMP_CHECK.NOT_VALIDATED) return this.#raiseVc(cpu, EXIT.PAGE_NOT_VALIDATED);
    const gpa = BigInt(gpn) << BigInt(PAGE_SHIFT) | BigInt(gpaLo & OFFSET_MASK);
    this.leaveToNestedFault(cpu, check, gpa, { access, encrypted, table });
    return false;
  }

  /** An event of a memory access that the guest's #VC handler deals with; false, for the caller to return. */
  #raiseVc(cpu: Cpu, code: number): false {
    this.setExit(code, 0n, 0n);
    if (cpu.softLeave) {
      cpu.leave(EXIT_VC);
      return false;
    }
    // It may be an access of an event's delivery: the two together make what two faults make.
    this.sev.memory.u32[(this.sevState + at.exceptions) >>> 2]++;
    cpu.raise(VECTOR_VC, code);
  }

  // --- Events -------------------------------------------------------------------------------------------------------

  /** A write trap: the register has its new value already (a11). */
  override wrote(cpu: Cpu, code: number, low: number): void {
    if (this.intercepted(code)) this.leaveAfter(cpu, code, BigInt(low >>> 0));
  }

  override hlt(cpu: Cpu): void {
    this.leaveAfter(cpu, EXIT.HLT, 0n);
  }

  /** VMGEXIT always leaves; VMMCALL is #UD unless it is intercepted, and then a #VC; VMCALL is another vendor's. */
  override hypercall(cpu: Cpu, i: Insn): boolean {
    if (i.rep !== 0) {
      this.leaveAfter(cpu, EXIT.VMGEXIT, 0n);
      return true;
    }
    return i.mnemonic === "vmmcall" && this.intercepts(cpu, EXIT.VMMCALL);
  }

  override cpuid(cpu: Cpu): void {
    this.setExit(EXIT.CPUID, 0n, 0n);
    cpu.exit(EXIT_VC);
  }

  override in(cpu: Cpu, _i: Insn, _port: number, _size: number): number {
    this.#raiseIo(cpu);
    return 0;
  }

  override out(cpu: Cpu, _i: Insn, _port: number, _size: number, _value: number): void {
    this.#raiseIo(cpu);
  }

  #raiseIo(cpu: Cpu): void {
    this.setExit(EXIT.IOIO, 0n, 0n);
    cpu.exit(EXIT_VC);
  }

  // --- MSRs ---------------------------------------------------------------------------------------------------------

  override interceptsMsr(msr: number): boolean {
    return !this.#passed.has(msr >>> 0);
  }

  override rdmsr(cpu: Cpu, msr: number): boolean {
    switch (msr >>> 0) {
      case SEV_MSR.SEV_STATUS:
        cpu.v64[0] = sevStatus(this.sev.features);
        return true;
      case SEV_MSR.SEV_ES_GHCB:
        cpu.v64[0] = this.processor.port.load64(this.vmcb + vmcbAt.ghcb_gpa);
        return true;
    }
    this.#raiseMsr(cpu);
    return true;
  }

  /** A write of the GHCB MSR changes the VMCB and nothing else (a15). */
  override wrmsr(cpu: Cpu, msr: number): boolean {
    if (msr >>> 0 === SEV_MSR.SEV_STATUS) return false;
    if (msr >>> 0 === SEV_MSR.SEV_ES_GHCB) this.processor.port.store64(this.vmcb + vmcbAt.ghcb_gpa, cpu.v64[0]);
    else this.#raiseMsr(cpu);
    return true;
  }

  #raiseMsr(cpu: Cpu): void {
    this.setExit(EXIT.MSR, 0n, 0n);
    cpu.exit(EXIT_VC);
  }

  // --- Interrupts ---------------------------------------------------------------------------------------------------

  /** The guest is interruptible: it leaves, for the host to inject what waits. */
  override acceptInterrupt(cpu: Cpu): number {
    const window = this.sev.memory.u32[(this.sevState + at.window) >>> 2] !== 0;
    this.setExit(window ? EXIT.VINTR : EXIT.INTR, 0n, 0n);
    cpu.exit(EXIT_AUTOMATIC);
    return -1;
  }

  // --- PVALIDATE, RMPADJUST, RMPQUERY -------------------------------------------------------------------------------

  /** An instruction on the RMP entry of guest page `gpn`. */
  pageInstruction(cpu: Cpu, instruction: number, gpn: number, encrypted: boolean): void {
    const { rmp } = this.sev;
    if (rmp === undefined) cpu.raise(VECTOR_UD);
    const { port } = this.processor;
    const vmpl = this.vmpl;
    const asid = GUEST_ASID;
    if (!this.sev.isRam(gpn)) {
      this.#raiseVc(cpu, EXIT.NPF);
      return;
    }
    if (instruction === PAGE_PVALIDATE) {
      if (vmpl !== VMPL.MOST_PRIVILEGED) cpu.raise(VECTOR_GP, 0);
      const size = cpu.g32[2 * RCX] >>> 0;
      const validate = (cpu.g32[2 * RDX] & 1) !== 0;
      const answer = rmp.pvalidate(port, gpn, gpn, { asid, size, validate, mappedPrivate: encrypted });
      if (this.#faults(cpu, answer.check, gpn)) return;
      setResult(cpu, answer.result);
      cpu.setFlags(answer.unchanged ? cpu.flags() | FLAG_CF : cpu.flags() & ~FLAG_CF);
      if (!validate) this.#flushAll(cpu);
    } else if (instruction === PAGE_RMPADJUST) {
      const size = cpu.g32[2 * RCX + 1] !== 0 ? -1 >>> 0 : cpu.g32[2 * RCX] >>> 0;
      const answer = rmp.rmpadjust(port, gpn, gpn, { asid, vmpl, size, attributes: cpu.g64[RDX] });
      if (this.#faults(cpu, answer.check, gpn)) return;
      setResult(cpu, answer.result);
      this.#flushAll(cpu);
    } else {
      const answer = rmp.rmpquery(port, gpn, gpn, { asid, vmpl, target: cpu.g32[2 * RDX] & 0xff });
      if (this.#faults(cpu, answer.check, gpn)) return;
      setResult(cpu, answer.result);
      if (answer.result !== 0) return;
      cpu.g64[RDX] = answer.attributes;
      cpu.g64[RCX] = BigInt(answer.size);
    }
  }

  /** Permissions were taken away: no processor may go on with a translation that has them. */
  #flushAll(cpu: Cpu): void {
    cpu.flushTlb();
    this.processor.partition.signalAll(this.processor.port, this.parts.vp, ATTENTION.FLUSH_TLB);
  }

  /** Whether a failed check ends the instruction: with an automatic exit, or a #VC. */
  #faults(cpu: Cpu, check: RmpCheck, gpn: number): boolean {
    if (check === RMP_CHECK.PASS) return false;
    if (check === RMP_CHECK.NOT_VALIDATED) {
      this.setExit(EXIT.PAGE_NOT_VALIDATED, 0n, 0n);
      cpu.exit(EXIT_VC);
      return true;
    }
    const bits = npfBits(check, true) | npf.present | npf.user | npf.final_gpa;
    this.setExit(EXIT.NPF, bits, BigInt(gpn) << BigInt(PAGE_SHIFT));
    cpu.exit(EXIT_AUTOMATIC);
    return true;
  }
}

/** Puts an instruction's result into RAX. */
function setResult(cpu: Cpu, result: number): void {
  cpu.g64[RAX] = BigInt(result);
}
