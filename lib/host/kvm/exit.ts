/**
 * KVM's run loop for an encrypted guest: what it does with each exit, and how it enters again (Linux
 * `arch/x86/kvm/svm/sev.c`, `svm.c`; sev.md, section d).
 *
 * @module
 */
import { ACTIVITY_HALTED, ACTIVITY_RUNNING, ACTIVITY_WAIT_FOR_SIPI, CpuState } from "../../cpu/state.ts";
import { ATTENTION } from "../../hypervisor/attention.ts";
import { SevExitCode } from "../../layout/sev/constants/exit_codes.ts";
import { NPF_EXITINFO1 } from "../../layout/sev/exit_info.ts";
import { VMCB_CONTROL } from "../../layout/sev/vmcb.ts";
import { PAGE_SHIFT } from "../../memory/machine_memory.ts";
import { HALTED, step, type StepId } from "../../memory/steps.ts";
import { HOST_STOP, type HostVcpu, HostVcpuState, MP_STATE } from "../host_vcpu.ts";
import {
  closeWindow,
  injectEvent,
  interruptWaits,
  NMI_BLOCKED,
  NMI_WAITS,
  reportEnds,
  takesInterrupts,
} from "../sev_events.ts";
import { changePage } from "./page_state.ts";
import { FINISH, READ_GHCB_MSR } from "./vmgexit.ts";

const EXIT = SevExitCode.values;
const vmcbAt = VMCB_CONTROL.at;
const npf = NPF_EXITINFO1.mask;
const GROUPS = HostVcpuState.at.exits;
/** Groups under which exits are counted. */
const GROUP = { VMGEXIT: 0, MSR_PROTOCOL: 1, HALT: 2, INTERRUPT: 3, NPF: 4, TRAP: 5, OTHER: 6 } as const;

/** The guest has left: the host's run loop looks at the exit code. */
export const KVM_EXIT: StepId = step<HostVcpu>("kvm.handle-exit", (host) => {
  switch (host.exitCode) {
    case EXIT.VMGEXIT:
      countExit(host, GROUP.VMGEXIT);
      return READ_GHCB_MSR;
    case EXIT.INTR:
      countExit(host, GROUP.INTERRUPT);
      return REQUESTS;
    case EXIT.VINTR:
      countExit(host, GROUP.INTERRUPT);
      return INTERRUPT_WINDOW;
    case EXIT.HLT:
      countExit(host, GROUP.HALT);
      host.set32("mp_state", MP_STATE.HALTED);
      host.vp.activity = ACTIVITY_HALTED;
      return REQUESTS;
    case EXIT.NPF:
      countExit(host, GROUP.NPF);
      return NESTED_FAULT;
    case EXIT.EFER_WRITE_TRAP:
    case EXIT.CR0_WRITE_TRAP:
    case EXIT.CR4_WRITE_TRAP:
    case EXIT.CR8_WRITE_TRAP:
      countExit(host, GROUP.TRAP);
      return WRITE_TRAP;
    case EXIT.SHUTDOWN:
      return host.stop(HOST_STOP.SHUTDOWN, 0n, HALTED);
    case EXIT.VMSA_BUSY:
      countExit(host, GROUP.OTHER);
      return REQUESTS; // another processor runs this VMSA: tried again
    default:
      return host.stop(HOST_STOP.ENTRY_FAILED, BigInt.asUintN(64, BigInt(host.exitCode)), HALTED);
  }
}, (host) => host.hasTurn);

function countExit(host: HostVcpu, group: number): void {
  const word = ((host.state + GROUPS) >>> 3) + group;
  host.memory.u64[word] = host.memory.u64[word] + 1n;
}

/** A write trap: KVM keeps a shadow of the register. */
const WRITE_TRAP: StepId = step<HostVcpu>("kvm.write-trap", (host) => {
  const value = host.vmcb64(vmcbAt.exit_info_1);
  switch (host.exitCode) {
    case EXIT.EFER_WRITE_TRAP:
      host.set64("efer", value);
      break;
    case EXIT.CR0_WRITE_TRAP:
      host.set64("cr0", value);
      break;
    case EXIT.CR4_WRITE_TRAP:
      host.set64("cr4", value);
      break;
    default:
      host.set64("cr8", value);
      host.vp.apic.cr8Written(Number(value));
  }
  return REQUESTS;
});

/** The guest is interruptible now: the window is closed. */
const INTERRUPT_WINDOW: StepId = step<HostVcpu>("kvm.interrupt-window", (host) => {
  closeWindow(host);
  return REQUESTS;
});

/** A nested page fault: the guest used a page in another state than the host has it in (e18, e19). */
const NESTED_FAULT: StepId = step<HostVcpu>("kvm.nested-page-fault", (host) => {
  const info = host.vmcb64(vmcbAt.exit_info_1);
  const page = Number(host.vmcb64(vmcbAt.exit_info_2) >> BigInt(PAGE_SHIFT));
  const { rmp } = host.sev;
  if (rmp === undefined || !host.sev.isRam(page)) return host.stop(HOST_STOP.INVALID, info, HALTED);
  host.set32("page_faults", host.get32("page_faults") + 1);
  const assigned = rmp.isAssigned(host.port, page);
  const isPrivate = (info & npf.enc) !== 0n;
  // Neither owner nor size is wrong: nothing that the host does would let the access pass.
  if ((info & npf.sizem) === 0n && isPrivate === assigned) return host.stop(HOST_STOP.INVALID, info, HALTED);
  changePage(host, page, isPrivate);
  return REQUESTS;
});

/**
 * Takes what other processors and devices have asked of this one since it last looked. INIT and a startup IPI that came
 * together are taken one after the other.
 */
export const REQUESTS: StepId = step<HostVcpu>("kvm.take-requests", (host) => {
  const bits = host.attention;
  if ((bits & ATTENTION.SHUTDOWN) !== 0) return HALTED;
  if ((bits & ATTENTION.INIT) !== 0) return takeRequest(host, ATTENTION.INIT, INIT);
  if ((bits & ATTENTION.SIPI) !== 0) return takeRequest(host, ATTENTION.SIPI, STARTUP);
  if (host.get32("ap_request") !== 0) return RUN_NEW_VMSA;
  const taken = bits & ~ATTENTION.FLUSH_TLB;
  if (taken !== 0) host.port.and32(host.vp.cpuState + CpuState.at.attention, ~taken);
  if ((taken & ATTENTION.NMI) !== 0) host.set32("nmi", host.get32("nmi") | NMI_WAITS);
  reportEnds(host);
  return canRun(host) ? INJECT : WAIT;
});

/** Takes one request, whose processor counts as running until it has been dealt with. */
function takeRequest(host: HostVcpu, bit: number, next: StepId): StepId {
  host.vp.activity = ACTIVITY_RUNNING;
  host.port.and32(host.vp.cpuState + CpuState.at.attention, ~bit);
  return next;
}

/** Whether the processor has a reason to execute. */
function canRun(host: HostVcpu): boolean {
  switch (host.get32("mp_state")) {
    case MP_STATE.RUNNABLE:
      return true;
    case MP_STATE.HALTED:
      if ((host.get32("nmi") & (NMI_WAITS | NMI_BLOCKED)) === NMI_WAITS) return true;
      return takesInterrupts(host) && interruptWaits(host);
    default:
      return false;
  }
}

/** The processor sleeps until somebody asks something of it. */
const WAIT: StepId = step<HostVcpu>(
  "kvm.vcpu-block",
  (host) => {
    if (host.get32("mp_state") === MP_STATE.HALTED && canRun(host)) host.set32("mp_state", MP_STATE.RUNNABLE);
    return REQUESTS;
  },
  (host) => host.isAsked || host.get32("ap_request") !== 0,
);

/**
 * INIT: a processor that has run waits for its next startup; its registers are the guest's own. One for which a VMSA has
 * been made takes it now.
 */
const INIT: StepId = step<HostVcpu>("kvm.init", (host) => {
  host.vp.apic.reset("init");
  if (host.get64("ap_vmsa") !== 0n && host.get64("ap_vmsa") !== host.vmcb64(vmcbAt.vmsa_pa)) return RUN_NEW_VMSA;
  if (host.index !== 0 && host.get32("mp_state") === MP_STATE.RUNNABLE) host.set32("mp_state", MP_STATE.WAIT_FOR_SIPI);
  return showActivity(host);
});

/** Makes the processor's activity what the host's state says, for those who ask whether anybody can go on. */
function showActivity(host: HostVcpu): StepId {
  const state = host.get32("mp_state");
  if (state === MP_STATE.HALTED) host.vp.activity = ACTIVITY_HALTED;
  else if (state !== MP_STATE.RUNNABLE) host.vp.activity = ACTIVITY_WAIT_FOR_SIPI;
  return REQUESTS;
}

/** A startup IPI: the first starts the processor from its launch VMSA, a later one ends its reset hold (d13). */
const STARTUP: StepId = step<HostVcpu>("kvm.startup-ipi", (host) => {
  const state = host.get32("mp_state");
  if (state === MP_STATE.RESET_HOLD_GHCB) return END_HOLD_GHCB;
  if (state === MP_STATE.RESET_HOLD_MSR) return END_HOLD_MSR;
  if (state === MP_STATE.WAIT_FOR_SIPI) host.set32("mp_state", MP_STATE.RUNNABLE);
  return showActivity(host);
});

/** Takes the VMSA that another processor has made for this one. */
const RUN_NEW_VMSA: StepId = step<HostVcpu>("kvm.use-new-vmsa", (host) => {
  host.vp.activity = ACTIVITY_RUNNING;
  host.set32("ap_request", 0);
  const vmsa = host.get64("ap_vmsa");
  host.setVmcb64(vmcbAt.vmsa_pa, vmsa);
  host.set32("mp_state", vmsa === 0n ? MP_STATE.WAIT_FOR_SIPI : MP_STATE.RUNNABLE);
  return showActivity(host);
});

/** Decides which event the guest takes at its entry. */
const INJECT: StepId = step<HostVcpu>("kvm.inject-event", (host) => {
  host.set32("mp_state", MP_STATE.RUNNABLE);
  injectEvent(host);
  return ENTER;
});

/** Enters the guest. */
const ENTER: StepId = step<HostVcpu>("kvm.vmrun", (host) => {
  host.memory.u8[host.vmcb + vmcbAt.int_ctl] = host.memory.u8[host.vp.cpuState + CpuState.at.cr8];
  host.set32("started", 1);
  return host.vmrun(KVM_EXIT);
});

/** SIPI ends a reset hold that was asked for through the GHCB: SW_EXITINFO2 becomes 1. */
const END_HOLD_GHCB: StepId = step<HostVcpu>("kvm.end-reset-hold", (host) => {
  host.set32("mp_state", MP_STATE.RUNNABLE);
  host.set64("reply_info_2", 1n);
  return FINISH;
});

/** SIPI ends a reset hold that was asked for through the MSR protocol: the answer has result 1. */
const END_HOLD_MSR: StepId = step<HostVcpu>("kvm.end-reset-hold-msr", (host) => {
  host.set32("mp_state", MP_STATE.RUNNABLE);
  host.setVmcb64(vmcbAt.ghcb_gpa, RESET_HOLD_ANSWER);
  return INJECT;
});

/** AP_RESET_HOLD_RESP with result 1. */
const RESET_HOLD_ANSWER = 0x1007n;
