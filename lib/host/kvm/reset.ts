/**
 * What KVM puts into a VMCB before it runs an encrypted guest's processor (Linux init_vmcb, sev_es_init_vmcb,
 * sev_es_vcpu_reset; sev.md a16, d20).
 *
 * @module
 */
import { GUEST_ASID } from "../../hypervisor/sev/machine.ts";
import { SevExitCode } from "../../layout/sev/constants/exit_codes.ts";
import { SEV_MSR } from "../../layout/sev/constants/msrs.ts";
import { X86_MSR } from "../../layout/hyperv/constants/msrs.ts";
import { VMCB_CONTROL, VMCB_MISC_CTL } from "../../layout/sev/vmcb.ts";
import { type HostVcpu, MP_STATE } from "../host_vcpu.ts";
import { REQUESTS } from "./exit.ts";
import { sevInfo } from "./msr_protocol.ts";

const EXIT = SevExitCode.values;
const at = VMCB_CONTROL.at;

/** Events that KVM intercepts in a guest whose state is encrypted. #GP, #UD and XSETBV are not among them. */
const INTERCEPTS: readonly number[] = [
  ...[EXIT.DR7_READ, EXIT.DR7_WRITE, EXIT.EXCP1, EXIT.EXCP17, EXIT.EXCP18],
  ...[EXIT.INTR, EXIT.NMI, EXIT.SMI, EXIT.INIT, EXIT.VINTR],
  ...[EXIT.RDPMC, EXIT.CPUID, EXIT.RSM, EXIT.INVD, EXIT.HLT, EXIT.INVLPGA, EXIT.IOIO, EXIT.MSR, EXIT.TASK_SWITCH],
  ...[EXIT.SHUTDOWN, EXIT.VMRUN, EXIT.VMMCALL, EXIT.VMLOAD, EXIT.VMSAVE, EXIT.STGI, EXIT.CLGI, EXIT.SKINIT],
  ...[EXIT.WBINVD, EXIT.MONITOR, EXIT.MWAIT, EXIT.RDPRU],
  ...[EXIT.EFER_WRITE_TRAP, EXIT.CR0_WRITE_TRAP, EXIT.CR4_WRITE_TRAP, EXIT.CR8_WRITE_TRAP],
];

/** MSRs that the guest accesses without an exit. */
export const KVM_PASSED_MSRS: ReadonlySet<number> = new Set([
  X86_MSR.X86X_MSR_SYSENTER_CS,
  X86_MSR.X86X_MSR_SYSENTER_ESP,
  X86_MSR.X86X_MSR_SYSENTER_EIP,
  X86_MSR.X86X_MSR_STAR,
  X86_MSR.X86X_MSR_LSTAR,
  X86_MSR.X86X_MSR_CSTAR,
  X86_MSR.X86X_MSR_SFMASK,
  X86_MSR.X64_MSR_FS_BASE,
  X86_MSR.X64_MSR_GS_BASE,
  X86_MSR.X64_MSR_KERNEL_GS_BASE,
  X86_MSR.X86X_MSR_TSC_AUX,
  X86_MSR.X86X_MSR_CR_PAT,
  SEV_MSR.EFER,
  SEV_MSR.SEV_ES_GHCB,
]);

/** Makes a processor ready to run: the boot processor at once, another one after its startup. */
export function resetKvmVcpu(host: HostVcpu): void {
  host.interceptAll(INTERCEPTS);
  resetVmcb(host);
  host.setVmcb64(at.ghcb_gpa, sevInfo());
  host.set32("mp_state", host.index === 0 ? MP_STATE.RUNNABLE : MP_STATE.WAIT_FOR_SIPI);
  host.step = REQUESTS;
}

/** The fields of a VMCB that do not depend on who the host is. */
export function resetVmcb(host: HostVcpu): void {
  host.setVmcb64(at.misc_ctl, VMCB_MISC_CTL.make({ np_enable: 1, sev_enable: 1, sev_es_enable: 1 }));
  host.setVmcb32(at.asid, GUEST_ASID);
  host.setVmcb64(at.vmsa_pa, BigInt(host.sev.vmsa(host.index)));
  host.setVmcb64(at.allowed_sev_features, host.sev.features);
}
