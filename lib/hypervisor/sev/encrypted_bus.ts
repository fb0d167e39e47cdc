/**
 * What surrounds the processor while it executes an encrypted guest, whoever handles its exits: intercepts are told by the
 * VMCB, which the host writes and which is read at each event, and the RMP has a say in every access to RAM (sev.md e6, e7).
 *
 * Which half of the address space is private, and what becomes of an event, is for `sev_bus.ts` and `lower_vtl_bus.ts`.
 *
 * @module
 */
import { ACCESS_EXECUTE, ACCESS_READ, ACCESS_WRITE } from "../../cpu/bus.ts";
import type { Cpu } from "../../cpu/cpu.ts";
import { CpuState, STOP_AFTER } from "../../cpu/state.ts";
import { SevExitCode } from "../../layout/sev/constants/exit_codes.ts";
import { NPF_EXITINFO1 } from "../../layout/sev/exit_info.ts";
import { SEV_STATUS_MSR } from "../../layout/sev/status.ts";
import { VMCB_CONTROL } from "../../layout/sev/vmcb.ts";
import {
  npfBits,
  PERMISSION_READ,
  PERMISSION_SUPERVISOR_EXECUTE,
  PERMISSION_USER_EXECUTE,
  PERMISSION_WRITE,
  RMP_CHECK,
  type RmpCheck,
} from "../../sev/rmp.ts";
import { GuestBus, type GuestBusParts } from "../guest_bus.ts";
import { GUEST_ASID, type SevMachine } from "./machine.ts";
import { EXIT_AUTOMATIC, EXIT_VC, SevVpState } from "./state.ts";

const EXIT = SevExitCode.values;
const at = SevVpState.at;
const npf = NPF_EXITINFO1.mask;

/** What the bus of an encrypted guest is made from. */
export interface EncryptedBusParts extends GuestBusParts {
  readonly sev: SevMachine;
}

/** See the module's description. */
export abstract class EncryptedBus extends GuestBus {
  protected readonly sev: SevMachine;
  /** Byte offset of the processor's {@linkcode SevVpState}. */
  protected readonly sevState: number;
  /** Byte offset of its VMCB. */
  protected readonly vmcb: number;

  /** A bus made from `parts`. */
  constructor(parts: EncryptedBusParts) {
    super(parts);
    this.sev = parts.sev;
    this.sevState = parts.sev.vpState(parts.vp);
    this.vmcb = parts.sev.vmcb(parts.vp);
  }

  // --- Memory -------------------------------------------------------------------------------------------------------

  /** The RMP's answer to an access to RAM; it passes where there is no RMP. */
  protected check(gpn: number, access: number, shared: boolean): RmpCheck {
    const { rmp } = this.sev;
    const { port, cpu } = this.processor;
    if (rmp === undefined) return RMP_CHECK.PASS;
    if (shared) return (access & ACCESS_WRITE) === 0 ? RMP_CHECK.PASS : rmp.checkGuestSharedWrite(port, gpn);
    let permissions = 0;
    if (access & ACCESS_READ) permissions |= PERMISSION_READ;
    if (access & ACCESS_WRITE) permissions |= PERMISSION_WRITE;
    if (access & ACCESS_EXECUTE) {
      permissions |= cpu.cpl === 3 ? PERMISSION_USER_EXECUTE : PERMISSION_SUPERVISOR_EXECUTE;
    }
    return rmp.checkGuestPrivate(port, gpn, gpn, { asid: GUEST_ASID, vmpl: this.vmpl, permissions });
  }

  /** The privilege level that executes. */
  protected get vmpl(): number {
    return this.sev.memory.u32[(this.sevState + at.vmpl) >>> 2];
  }

  /**
   * Leaves with the nested page fault of an access to `gpa` that the RMP refuses, which is automatic.
   *
   * @param table The access was one of the processor's own, to a page table.
   */
  protected leaveToNestedFault(
    cpu: Cpu,
    check: RmpCheck,
    gpa: bigint,
    { access, encrypted, table }: { access: number; encrypted: boolean; table: boolean },
  ): void {
    const bits = npfBits(check, encrypted) | npf.present | npf.user | (table ? npf.table_walk : npf.final_gpa) |
      (access === ACCESS_WRITE ? npf.write : 0n) | (access === ACCESS_EXECUTE ? npf.fetch : 0n);
    this.setExit(EXIT.NPF, bits, gpa);
    cpu.leave(EXIT_AUTOMATIC);
  }

  // --- Events -------------------------------------------------------------------------------------------------------

  /** Notes what happened, where the processor's own exit record does not describe it. */
  setExit(code: number, info1: bigint, info2: bigint): void {
    const { memory } = this.sev;
    memory.i32[(this.sevState + at.exit_code) >>> 2] = code;
    memory.u64[(this.sevState + at.exit_info_1) >>> 3] = info1;
    memory.u64[(this.sevState + at.exit_info_2) >>> 3] = info2;
  }

  /** Whether the VMCB intercepts the event with this exit code. */
  intercepted(code: number): boolean {
    const word = this.sev.memory.u32[((this.vmcb + VMCB_CONTROL.at.intercepts) >>> 2) + (code >>> 5)];
    return (word >>> (code & 31) & 1) !== 0;
  }

  /** An instruction that is intercepted and not automatic: whoever stands for the host handles it. */
  intercepts(cpu: Cpu, code: number): boolean {
    if (!this.intercepted(code)) return false;
    this.setExit(code, 0n, 0n);
    cpu.exit(EXIT_VC);
    return true;
  }

  override interceptsException(vector: number): boolean {
    return this.intercepted(EXIT.EXCP0 + vector);
  }

  /** An automatic exit behind the instruction. */
  protected leaveAfter(cpu: Cpu, code: number, info1: bigint): void {
    this.setExit(code, info1, 0n);
    cpu.s32[CpuState.at.exit_reason >>> 2] = EXIT_AUTOMATIC;
    cpu.stop |= STOP_AFTER;
  }
}

/** SEV_STATUS of a guest with these SEV_FEATURES: they lie above SEV and SEV-ES (AMD64 APM volume 2, 15.34.10). */
export function sevStatus(features: bigint): bigint {
  const { sev_enabled, es_enabled } = SEV_STATUS_MSR.mask;
  return (features << BigInt(SEV_STATUS_MSR.shift.snp_enabled)) | sev_enabled | es_enabled;
}
