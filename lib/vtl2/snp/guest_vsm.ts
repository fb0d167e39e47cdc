/**
 * Virtual secure mode of the guest on SNP: VTL1 with a VMSA of its own at VMPL1, and the switches between it and VTL0 (openvmm
 * `virt_mshv_vtl/src/processor/hardware_cvm/mod.rs`, `snp/mod.rs` switch_vtl; sev.md f30 to f32; TLFS, Virtual Secure Mode).
 *
 * Not modelled: a local APIC and SynIC of VTL1 (interrupts wait for VTL0), and VTL1's protections and intercepts of VTL0. From
 * VTL1 the VTL return is the one hypercall that is served.
 *
 * @module
 */
import { CpuState } from "../../cpu/state.ts";
import { vtlReturnAllowed } from "../../hypervisor/hypercalls/dispatch.ts";
import { HvVpAssistPage, HvVpVtlControl } from "../../layout/hyperv/assist_page.ts";
import { HvStatus, HYPERCALL_ABI, HypercallCode } from "../../layout/hyperv/constants/hypercalls.ts";
import { HvVtlEntryReason } from "../../layout/hyperv/constants/messages.ts";
import {
  EnablePartitionVtl,
  EnableVpVtlX64,
  HypercallInputControl,
  HypercallOutput,
  InitialVpContextX64,
} from "../../layout/hyperv/hypercalls.ts";
import { HvX64SegmentRegister, HvX64TableRegister } from "../../layout/hyperv/segments.ts";
import { X64 } from "../../layout/x64/constants.ts";
import { V_INTR_CTRL } from "../../layout/sev/vmsa.ts";
import { PAGE_SIZE } from "../../memory/machine_memory.ts";
import type { ProtectedVmsa } from "../../sev/register_protection.ts";
import { EFER_SVME } from "../../sev/vmsa.ts";
import { SNP_PAGES, SnpVmmState } from "./pages.ts";
import type { SnpVp } from "./snp_vp.ts";
import { copySharedRegisters, restoreReturnRegisters } from "./vtl_switch.ts";

const code = HypercallCode.values;
const { Success, AccessDenied, InvalidParameter, InvalidPartitionId, InvalidVpIndex, InvalidVtlState } =
  HvStatus.values;
const { VtlAlreadyEnabled, InvalidHypercallInput } = HvStatus.values;
const initial = InitialVpContextX64.at;
const VTL1 = 1;
/** Bit 0 of the assist page's MSR: enabled. Bits 63:12 are the page's address. */
const ENABLED = 1n;
const GPA_MASK = ~0xfffn;
/** What a VTL starts with where its initial context says nothing: no breakpoints, no state components but x87's. */
const RESET = { xcr0: 1n, dr6: 0xffff_0ff0n, dr7: BigInt(X64.EMPTY_DR7) } as const;

const WORDS = [
  ["rip", initial.rip],
  ["rsp", initial.rsp],
  ["rflags", initial.rflags],
  ["cr0", initial.cr0],
  ["cr3", initial.cr3],
  ["cr4", initial.cr4],
  ["g_pat", initial.msr_cr_pat],
] as const;
const SEGMENTS = ["cs", "ds", "es", "fs", "gs", "ss", "tr", "ldtr"] as const;
const TABLES = ["idtr", "gdtr"] as const;

/** What became of a hypercall: a status for the guest, a switch of VTLs, #UD, or none of this file's business. */
export type VsmCall = { readonly status: number } | "switched" | "undefined" | undefined;

/** A hypercall of a guest in 64-bit mode, as far as it is about VTL1. */
export function vsmHypercall(vp: SnpVp): VsmCall {
  const vmsa = vp.vmsa(vp.vtl);
  const control = vmsa.get64("rcx");
  const named = HypercallInputControl.get(control, "code");
  if (vp.vtl === VTL1) {
    if (named !== code.HvCallVtlReturn) return { status: AccessDenied };
    return vtlReturnAllowed(control, vmsa.get64("rax")) ? vtlReturn(vp, vmsa.get64("rax") !== 0n) : "undefined";
  }
  switch (named) {
    case code.HvCallVtlCall: {
      const allowed = control === BigInt(named) && vmsa.get64("rax") === 0n && vp.get("vtl1_enabled") !== 0;
      return allowed ? vtlCall(vp) : undefined;
    }
    case code.HvCallEnablePartitionVtl:
      return input(vp, EnablePartitionVtl.size, enablePartitionVtl);
    case code.HvCallEnableVpVtl:
      return input(vp, EnableVpVtlX64.size, enableVpVtl);
    default:
      return undefined;
  }
}

/** Carries out a call whose input lies in the guest's memory. */
function input(vp: SnpVp, bytes: number, run: (vp: SnpVp, view: DataView) => number | undefined): VsmCall {
  const at = vp.vmm.hypercallInput(bytes);
  if (at < 0) return { status: InvalidHypercallInput };
  // A copy, so that the guest cannot change it.
  const status = run(vp, new DataView(vp.memory.u8.slice(at, at + bytes).buffer));
  return status === undefined ? undefined : { status };
}

/** Word of VP 0's state that says for the whole partition whether VTL1 is enabled. */
function partitionWord(vp: SnpVp): number {
  const state = vp.sev.paravisorPages(0) + SNP_PAGES.STATE * PAGE_SIZE;
  return state + SnpVmmState.at.partition_vtl1;
}

/** HvCallEnablePartitionVtl for VTL1. */
function enablePartitionVtl(vp: SnpVp, view: DataView): number {
  if (view.getBigUint64(EnablePartitionVtl.at.partition_id, true) !== HYPERCALL_ABI.PARTITION_ID_SELF) {
    return InvalidPartitionId;
  }
  if (view.getUint8(EnablePartitionVtl.at.target_vtl) !== VTL1) return AccessDenied;
  if (view.getUint8(EnablePartitionVtl.at.flags) !== 0) return InvalidParameter;
  return vp.port.exchange32(partitionWord(vp), 1) === 0 ? Success : VtlAlreadyEnabled;
}

/** HvCallEnableVpVtl for VTL1: its registers go into its VMSA; no shared register is copied (f32). */
function enableVpVtl(vp: SnpVp, view: DataView): number | undefined {
  if (view.getUint8(EnableVpVtlX64.at.target_vtl) !== VTL1) return undefined;
  if (view.getBigUint64(EnableVpVtlX64.at.partition_id, true) !== HYPERCALL_ABI.PARTITION_ID_SELF) {
    return InvalidPartitionId;
  }
  const index = view.getUint32(EnableVpVtlX64.at.vp_index, true);
  const target = index === HYPERCALL_ABI.VP_INDEX_SELF ? vp.index : index;
  if (target >= vp.facilities.vps) return InvalidVpIndex;
  if (vp.port.load32(partitionWord(vp)) === 0) return InvalidVtlState;
  const other = vp.peer(target);
  const word = other.vmmState + SnpVmmState.at.vtl1_enabled;
  if (vp.port.load32(word) !== 0) return VtlAlreadyEnabled;
  setInitialContext(other.vmsa(VTL1), view, EnableVpVtlX64.at.vp_vtl_context);
  vp.port.exchange32(word, 1);
  return Success;
}

/** The registers with which a VTL starts. */
function setInitialContext(vmsa: ProtectedVmsa, view: DataView, at: number): void {
  for (const [name, offset] of WORDS) vmsa.set64(name, view.getBigUint64(at + offset, true));
  vmsa.set64("efer", view.getBigUint64(at + initial.efer, true) | BigInt(EFER_SVME));
  for (const name of SEGMENTS) {
    const from = at + initial[name];
    vmsa.setSegment(name, {
      selector: view.getUint16(from + HvX64SegmentRegister.at.selector, true),
      attributes: view.getUint16(from + HvX64SegmentRegister.at.attributes, true),
      limit: view.getUint32(from + HvX64SegmentRegister.at.limit, true),
      base: view.getBigUint64(from + HvX64SegmentRegister.at.base, true),
    });
  }
  for (const name of TABLES) {
    const from = at + initial[name];
    const limit = view.getUint16(from + HvX64TableRegister.at.limit, true);
    vmsa.setSegment(name, {
      selector: 0,
      attributes: 0,
      limit,
      base: view.getBigUint64(from + HvX64TableRegister.at.base, true),
    });
  }
  for (const name of ["xcr0", "dr6", "dr7"] as const) vmsa.set64(name, RESET[name]);
  vmsa.set32("mxcsr", X64.FXSAVE_MXCSR_INIT);
  vmsa.set32("x87_fcw", X64.FXSAVE_FCW_INIT);
}

/** VTL0 calls VTL1, which goes on behind its last return. */
function vtlCall(vp: SnpVp): VsmCall {
  vp.vmm.completeInstruction();
  switchVtl(vp, VTL1);
  const control = assistControl(vp);
  if (control >= 0) vp.port.store32(control, HvVtlEntryReason.values.VTL_CALL);
  return "switched";
}

/** VTL1 returns; unless the return is fast, VTL0 has RAX and RCX of VTL1's assist page. */
function vtlReturn(vp: SnpVp, fast: boolean): VsmCall {
  vp.vmm.completeInstruction();
  const control = fast ? -1 : assistControl(vp);
  switchVtl(vp, 0);
  if (control < 0) return "switched";
  const rax = vp.port.load64(control + HvVpVtlControl.at["registers.rax"]);
  const rcx = vp.port.load64(control + HvVpVtlControl.at["registers.rcx"]);
  restoreReturnRegisters(vp.vmsa(0), rax, rcx);
  return "switched";
}

/** Lets the other VTL run next, with the registers that both share (f30). */
function switchVtl(vp: SnpVp, target: number): void {
  copySharedRegisters(vp.vmsa(vp.vtl), vp.vmsa(target));
  vp.set("vtl", target);
  // Each VTL has a task priority of its own.
  const tpr = vp.vmsa(target).get64("vintr_ctrl") & V_INTR_CTRL.mask.v_tpr;
  vp.memory.u64[(vp.cpuState + CpuState.at.cr8) >>> 3] = tpr;
}

/** Byte offset of the VTL control in VTL1's assist page; -1 while VTL1 has not enabled one. */
function assistControl(vp: SnpVp): number {
  const msr = vp.memory.u64[(vp.vmmState + SnpVmmState.at.vtl1_assist_page) >>> 3];
  const gpa = msr & GPA_MASK;
  if ((msr & ENABLED) === 0n || gpa > BigInt(Number.MAX_SAFE_INTEGER)) return -1;
  const at = vp.vmm.guestOffset(Number(gpa), PAGE_SIZE);
  return at < 0 ? -1 : at + HvVpAssistPage.at.vtl_control;
}

/** The status in the form in which a hypercall returns it. */
export function vsmResult(status: number): bigint {
  return HypercallOutput.make({ call_status: status, elements_processed: 0 });
}
