/**
 * OpenBSD's vmm and vmd as the host of an SEV-ES guest with one processor: exits, the MSR protocol of two requests, and the
 * GHCB that is read in place (OpenBSD `sys/arch/amd64/amd64/vmm_machdep.c`; sev.md b30 to b42).
 *
 * @module
 */
import { ACTIVITY_HALTED, CpuState, FX } from "../../cpu/state.ts";
import { DEVICE_BUSY } from "../../devices/devices.ts";
import { ATTENTION } from "../../hypervisor/attention.ts";
import { X86_MSR } from "../../layout/hyperv/constants/msrs.ts";
import { SevExitCode } from "../../layout/sev/constants/exit_codes.ts";
import { SEV_MSR } from "../../layout/sev/constants/msrs.ts";
import { IOIO_EXITINFO1 } from "../../layout/sev/exit_info.ts";
import { GHCB, GHCB_VALID_BIT, type GhcbValidField } from "../../layout/sev/ghcb.ts";
import { GHCB_MSR, GhcbMsrInfo } from "../../layout/sev/msr_protocol.ts";
import { VMCB_CONTROL } from "../../layout/sev/vmcb.ts";
import { X64 } from "../../layout/x64/constants.ts";
import { Fxsave } from "../../layout/x64/fxsave.ts";
import { PAGE_SHIFT, PAGE_SIZE } from "../../memory/machine_memory.ts";
import { HALTED, step, type StepId } from "../../memory/steps.ts";
import { HOST_STOP, type HostVcpu, HostVcpuState, MP_STATE } from "../host_vcpu.ts";
import { cpuidAnswer } from "../kvm/msr_protocol.ts";
import { resetVmcb } from "../kvm/reset.ts";
import { answerCpuid, answerReadMsr, answerWriteMsr } from "../sev_answers.ts";
import { closeWindow, injectEvent, interruptWaits, NMI_WAITS, reportEnds, takesInterrupts } from "../sev_events.ts";
import { CR8_SHADOW, HOST_FPU_SAVE, XSETBV_INTERCEPT } from "./policies.ts";

const EXIT = SevExitCode.values;
const INFO = GhcbMsrInfo.values;
const vmcbAt = VMCB_CONTROL.at;
const at = HostVcpuState.at;
const ioio = IOIO_EXITINFO1.mask;

/** What vmm says it is, in CPUID leaf 40000000. */
const VMM_SIGNATURE = "OpenBSDVMM58";
const U32 = 0xffff_ffffn;

/** Events that vmm intercepts (b30), beside XSETBV and CR8, on which opinions differ. */
const INTERCEPTS: readonly number[] = [
  ...[EXIT.INTR, EXIT.NMI, EXIT.VINTR, EXIT.CPUID, EXIT.HLT, EXIT.IOIO, EXIT.MSR, EXIT.SHUTDOWN, EXIT.INVLPGA],
  ...[EXIT.VMRUN, EXIT.VMMCALL, EXIT.VMLOAD, EXIT.VMSAVE, EXIT.STGI, EXIT.CLGI, EXIT.SKINIT, EXIT.ICEBP],
  ...[EXIT.MWAIT, EXIT.MWAIT_CONDITIONAL, EXIT.MONITOR, EXIT.RDTSCP],
  ...[EXIT.EFER_WRITE_TRAP, EXIT.CR0_WRITE_TRAP, EXIT.CR4_WRITE_TRAP],
];

/** MSRs that the guest accesses without an exit (b31). */
export const VMD_PASSED_MSRS: ReadonlySet<number> = new Set([
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
  SEV_MSR.EFER,
  SEV_MSR.SEV_ES_GHCB,
]);

/** Makes the only processor ready to run. */
export function resetVmdVcpu(host: HostVcpu): void {
  const { partition } = host.vp;
  host.interceptAll(INTERCEPTS);
  if (partition.policy(XSETBV_INTERCEPT) === XSETBV_INTERCEPT.is.yes) host.interceptAll([EXIT.XSETBV]);
  if (partition.policy(CR8_SHADOW) === CR8_SHADOW.is.yes) host.interceptAll([EXIT.CR8_WRITE_TRAP]);
  resetVmcb(host);
  host.setVmcb64(vmcbAt.ghcb_gpa, 0n);
  host.set32("mp_state", MP_STATE.RUNNABLE);
  host.step = REQUESTS;
}

/** The guest has left: svm_handle_exit. Codes that it does not know end the machine (b39). */
export const VMD_EXIT: StepId = step<HostVcpu>("vmm.handle-exit", (host) => {
  const next = afterExit(host);
  return savesFpu(host) && next !== HALTED ? host.call(SAVE_FPU, next) : next;
}, (host) => host.hasTurn);

/** What the exit code asks for. */
function afterExit(host: HostVcpu): StepId {
  switch (host.exitCode) {
    case EXIT.VMGEXIT:
      return READ_GHCB_MSR;
    case EXIT.INTR:
    case EXIT.NMI:
      return REQUESTS;
    case EXIT.VINTR:
      closeWindow(host);
      return REQUESTS;
    case EXIT.HLT:
      host.set32("mp_state", MP_STATE.HALTED);
      host.vp.activity = ACTIVITY_HALTED;
      return REQUESTS;
    case EXIT.EFER_WRITE_TRAP:
    case EXIT.CR0_WRITE_TRAP:
    case EXIT.CR4_WRITE_TRAP:
    case EXIT.CR8_WRITE_TRAP:
      return WRITE_TRAP;
    case EXIT.SHUTDOWN:
      return host.stop(HOST_STOP.SHUTDOWN, 0n, HALTED);
    default:
      return host.stop(HOST_STOP.INVALID, BigInt.asUintN(64, BigInt(host.exitCode)), HALTED);
  }
}

// --- x87 and SSE registers ------------------------------------------------------------------------------------------

/** Whether vmm saves them around the guest. */
function savesFpu(host: HostVcpu): boolean {
  return host.vp.partition.policy(HOST_FPU_SAVE) === HOST_FPU_SAVE.is.yes;
}

/** FXSAVE of what an exit has left: the guest's registers are in its VMSA, the processor's are reset (a4, type C). */
const SAVE_FPU: StepId = step<HostVcpu>("vmm.save-guest-fpu", (host) => {
  const { u16, u32, u8 } = host.memory;
  u8.fill(0, host.scratch, host.scratch + Fxsave.size);
  u16[(host.scratch + Fxsave.at.fcw) >>> 1] = X64.FXSAVE_FCW_INIT;
  u32[(host.scratch + Fxsave.at.mxcsr) >>> 2] = X64.FXSAVE_MXCSR_INIT;
  return host.return();
});

/** FXRSTOR of the same before the guest goes on; VMRUN then loads the guest's. */
const RESTORE_FPU: StepId = step<HostVcpu>("vmm.restore-guest-fpu", (host) => {
  host.memory.u8.copyWithin(host.vp.cpuState + FX, host.scratch, host.scratch + Fxsave.size);
  return host.return();
});

/** svm_handle_efercr: EXITINFO1 goes into the VMCB's save area as a shadow. */
const WRITE_TRAP: StepId = step<HostVcpu>("vmm.write-trap", (host) => {
  const value = host.vmcb64(vmcbAt.exit_info_1);
  if (host.exitCode === EXIT.EFER_WRITE_TRAP) host.set64("efer", value);
  else if (host.exitCode === EXIT.CR0_WRITE_TRAP) host.set64("cr0", value);
  else if (host.exitCode === EXIT.CR8_WRITE_TRAP) host.set64("cr8", value);
  else host.set64("cr4", value);
  return REQUESTS;
});

/** What has been asked of the processor since it last ran. */
const REQUESTS: StepId = step<HostVcpu>("vmm.take-requests", (host) => {
  const bits = host.port.and32(host.vp.cpuState + CpuState.at.attention, ATTENTION.FLUSH_TLB | ATTENTION.SHUTDOWN);
  if ((bits & ATTENTION.SHUTDOWN) !== 0) return HALTED;
  if ((bits & ATTENTION.NMI) !== 0) host.set32("nmi", NMI_WAITS);
  reportEnds(host);
  return canRun(host) ? INJECT : WAIT;
});

function canRun(host: HostVcpu): boolean {
  if (host.get32("mp_state") === MP_STATE.RUNNABLE) return true;
  return (host.get32("nmi") & NMI_WAITS) !== 0 || (takesInterrupts(host) && interruptWaits(host));
}

/** vmd's thread of the processor sleeps until something happens. */
const WAIT: StepId = step<HostVcpu>(
  "vmd.vcpu-wait",
  () => REQUESTS,
  (host) => host.isAsked,
);

/** Decides about the event at the next entry. */
const INJECT: StepId = step<HostVcpu>("vmm.inject-event", (host) => {
  host.set32("mp_state", MP_STATE.RUNNABLE);
  injectEvent(host);
  host.set32("nmi", host.get32("nmi") & NMI_WAITS); // vmm has no window for NMIs of an encrypted guest
  return savesFpu(host) && host.get32("started") !== 0 ? host.call(RESTORE_FPU, ENTER) : ENTER;
});

/** svm_seves_enter_guest. */
const ENTER: StepId = step<HostVcpu>("vmm.vmrun", (host) => {
  host.memory.u8[host.vmcb + vmcbAt.int_ctl] = host.memory.u8[host.vp.cpuState + CpuState.at.cr8];
  host.set32("started", 1);
  return host.vmrun(VMD_EXIT);
});

// --- VMGEXIT ---------------------------------------------------------------------------------------------------------

/** svm_handle_gexit: the GHCB MSR says which protocol. */
const READ_GHCB_MSR: StepId = step<HostVcpu>("vmm.read-ghcb-msr", (host) => {
  const msr = host.port.load64(host.vmcb + vmcbAt.ghcb_gpa);
  host.count("requests");
  host.set64("sw_scratch", msr);
  return GHCB_MSR.get(msr, "info") === 0 ? MAP_GHCB : MSR_PROTOCOL;
});

/** CPUID and termination; anything else is EINVAL (b34). */
const MSR_PROTOCOL: StepId = step<HostVcpu>("vmm.msr-protocol", (host) => {
  const request = host.get64("sw_scratch");
  switch (GHCB_MSR.get(request, "info")) {
    case INFO.CPUID_REQ:
      host.port.store64(host.vmcb + vmcbAt.ghcb_gpa, cpuidAnswer(host, request, VMM_SIGNATURE));
      return REQUESTS;
    case INFO.TERM_REQ:
      return host.stop(HOST_STOP.TERMINATED, request, HALTED);
    default:
      return host.stop(HOST_STOP.INVALID, request, HALTED);
  }
});

/** The first address is taken and kept; a later, different one is ignored (b34). */
const MAP_GHCB: StepId = step<HostVcpu>("vmm.map-ghcb", (host) => {
  if (host.get64("registered") === 0n) {
    const address = host.get64("sw_scratch");
    const outside = address >> BigInt(PAGE_SHIFT) >= BigInt(host.sev.config.ramBytes / PAGE_SIZE);
    if (address === 0n || outside) return host.stop(HOST_STOP.INVALID, address, HALTED);
    host.set64("registered", address);
  }
  host.set32("ghcb", Number(host.get64("registered")));
  host.set32("field", 0);
  return COPY_BITMAP;
});

/** The bitmap of valid fields, eight bytes a time. */
const COPY_BITMAP: StepId = step<HostVcpu>("vmm.read-valid-bitmap", (host) => {
  const half = host.get32("field");
  const value = host.guest.load64(host.get32("ghcb") + GHCB.at.valid_bitmap + 8 * half);
  host.memory.u64[((host.state + at.valid_bitmap) >>> 3) + half] = value;
  host.set32("field", half === 0 ? 1 : 0);
  return half === 0 ? COPY_BITMAP : READ_EXIT_FIELD;
});

const EXIT_FIELDS = ["sw_exit_code", "sw_exit_info_1", "sw_exit_info_2"] as const;
const REGISTERS = ["rax", "rbx", "rcx", "rdx"] as const;

/** The three exit fields. */
const READ_EXIT_FIELD: StepId = step<HostVcpu>("vmm.read-exit-field", (host) => {
  const index = host.get32("field");
  host.set64(EXIT_FIELDS[index], host.guest.load64(host.get32("ghcb") + GHCB.at[EXIT_FIELDS[index]]));
  host.set32("field", index + 1);
  return index + 1 < EXIT_FIELDS.length ? READ_EXIT_FIELD : VERIFY;
});

/** Fields that must be valid, by exit code (b36); `undefined` for a code that is EINVAL. */
function required(host: HostVcpu): readonly GhcbValidField[] | undefined {
  const info = host.low("sw_exit_info_1");
  switch (Number(host.get64("sw_exit_code"))) {
    case EXIT.CPUID:
      return ["rax", "rcx"];
    case EXIT.IOIO:
      return (info & ioio.in) !== 0 ? [] : ["rax"];
    case EXIT.MSR:
      return info === 1 ? ["rax", "rcx", "rdx"] : ["rcx"];
    default:
      return undefined;
  }
}

function isValid(host: HostVcpu, field: GhcbValidField): boolean {
  const bit = GHCB_VALID_BIT[field];
  return (host.memory.u8[host.state + at.valid_bitmap + (bit >> 3)] & (1 << (bit & 7))) !== 0;
}

/** svm_gexit_sync_host: what the exit code needs must be valid, else the machine stops. */
const VERIFY: StepId = step<HostVcpu>("vmm.verify-valid-bitmap", (host) => {
  const needs = required(host);
  const valid = needs !== undefined && [...EXIT_FIELDS, ...needs].every((field) => isValid(host, field));
  if (!valid) {
    host.count("refused");
    return host.stop(HOST_STOP.INVALID, host.get64("sw_exit_code"), HALTED);
  }
  host.set32("field", 0);
  return READ_REGISTER;
});

/** Registers that the guest has marked valid. */
const READ_REGISTER: StepId = step<HostVcpu>("vmm.read-register", (host) => {
  const index = host.get32("field");
  const register = REGISTERS[index];
  const value = isValid(host, register) ? host.guest.load64(host.get32("ghcb") + GHCB.at[register]) : 0n;
  host.set64(register, value);
  host.set32("field", index + 1);
  return index + 1 < REGISTERS.length ? READ_REGISTER : SERVE;
});

const SERVE: StepId = step<HostVcpu>("vmm.serve-request", (host) => {
  switch (Number(host.get64("sw_exit_code"))) {
    case EXIT.CPUID:
      return CPUID;
    case EXIT.MSR:
      return MSR;
    default:
      return PORT;
  }
});

const CPUID: StepId = step<HostVcpu>("vmm.emulate-cpuid", (host) => {
  const result = answerCpuid(host, host.low("rax"), host.low("rcx"), VMM_SIGNATURE);
  REGISTERS.forEach((register, index) => host.set64(register, BigInt(result[index])));
  return CLEAR_GHCB;
});

/** MSRs that vmm does not know read as zero, and writes to them do nothing. */
const MSR: StepId = step<HostVcpu>("vmm.emulate-msr", (host) => {
  const msr = host.low("rcx");
  if (host.low("sw_exit_info_1") === 1) {
    answerWriteMsr(host, msr, ((host.get64("rdx") & U32) << 32n) | (host.get64("rax") & U32));
    return CLEAR_GHCB;
  }
  const value = answerReadMsr(host, msr) ?? 0n;
  host.set64("rax", value & U32);
  host.set64("rdx", value >> 32n);
  return CLEAR_GHCB;
});

/** EAGAIN to vmd, which does the access; string forms are not supported. */
const PORT: StepId = step<HostVcpu>("vmd.port-access", (host) => {
  const info = host.low("sw_exit_info_1");
  const port = IOIO_EXITINFO1.get(info, "port");
  const size = (info & ioio.size8) !== 0 ? 1 : (info & ioio.size16) !== 0 ? 2 : (info & ioio.size32) !== 0 ? 4 : 0;
  if (size === 0 || (info & ioio.string) !== 0) return host.stop(HOST_STOP.INVALID, BigInt(info), HALTED);
  if ((info & ioio.in) !== 0) {
    host.set64("rax", BigInt(host.services.devices.portIn(port, size) >>> 0));
  } else {
    const value = Number(host.get64("rax") & ((1n << BigInt(8 * size)) - 1n)) | 0;
    if (host.services.devices.portOut(port, size, value) === DEVICE_BUSY) {
      host.services.waitForDevice();
      return PORT;
    }
  }
  return CLEAR_GHCB;
});

/** svm_gexit_sync_guest: the page is cleared; then the fields of the reply are written (b37). */
const CLEAR_GHCB: StepId = step<HostVcpu>("vmm.clear-ghcb", (host) => {
  const page = host.get32("ghcb");
  for (let offset = 0; offset < PAGE_SIZE; offset += 8) host.guest.store64(page + offset, 0n);
  host.set32("field", 0);
  return WRITE_FIELD;
});

/** Fields of the reply: the exit information always, and what the request returns. */
function replyFields(host: HostVcpu): readonly ("sw_exit_info_1" | "sw_exit_info_2" | (typeof REGISTERS)[number])[] {
  const info = ["sw_exit_info_1", "sw_exit_info_2"] as const;
  const bits = host.low("sw_exit_info_1");
  switch (Number(host.get64("sw_exit_code"))) {
    case EXIT.CPUID:
      return [...info, ...REGISTERS];
    case EXIT.IOIO:
      return (bits & ioio.in) !== 0 ? [...info, "rax"] : info;
    default:
      return bits === 1 ? info : [...info, "rax", "rdx"];
  }
}

/** One field, with its valid bit. */
const WRITE_FIELD: StepId = step<HostVcpu>("vmm.write-field", (host) => {
  const fields = replyFields(host);
  const index = host.get32("field");
  const field = fields[index];
  const value = field === "sw_exit_info_1" || field === "sw_exit_info_2" ? 0n : host.get64(field);
  const page = host.get32("ghcb");
  host.guest.store64(page + GHCB.at[field], value);
  const bit = GHCB_VALID_BIT[field];
  const byte = page + GHCB.at.valid_bitmap + (bit >> 3);
  host.guest.store8(byte, host.guest.load8(byte) | (1 << (bit & 7)));
  host.set32("field", index + 1);
  return index + 1 < fields.length ? WRITE_FIELD : REQUESTS;
});
