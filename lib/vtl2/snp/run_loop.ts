/**
 * OpenHCL's run loop for a processor of an SNP guest (openvmm `virt_mshv_vtl/src/processor/snp/mod.rs` run_vp_snp; sev.md f20
 * to f25): look after the processor, offer it an interrupt, run the lower VTL, handle the exit that its VMSA tells of.
 *
 * @module
 */
import {
  ACTIVITY_HALTED,
  ACTIVITY_RUNNING,
  ACTIVITY_WAIT_FOR_SIPI,
  CpuState,
  EVENT_TYPE_INTERRUPT,
  EVENT_TYPE_SHIFT,
  EVENT_VALID,
  FLAG_IF,
} from "../../cpu/state.ts";
import { ATTENTION } from "../../hypervisor/attention.ts";
import { isInjectable } from "../../hypervisor/sev/encrypted_vp.ts";
import { SHARED_PAGES } from "../../hypervisor/sev/machine.ts";
import { offerInterrupt, vmgexit } from "../../hypervisor/sev/vmpl_vp.ts";
import { HypervisorVpState } from "../../hypervisor/vp_state.ts";
import { hcl_run } from "../../layout/hyperv/hcl_run.ts";
import { HvMessage, HvMessageHeader } from "../../layout/hyperv/messages.ts";
import { SevExitCode } from "../../layout/sev/constants/exit_codes.ts";
import { GHCB_MSR_RUN_VMPL_REQ, GhcbMsrInfo } from "../../layout/sev/msr_protocol.ts";
import { NPF_EXITINFO1 } from "../../layout/sev/exit_info.ts";
import { EVENT_INJ, V_INTR_CTRL, VMSA } from "../../layout/sev/vmsa.ts";
import { HALTED, step, type StepId } from "../../memory/steps.ts";
import { exitHandler } from "../exit_handler.ts";
import { VmmVpState } from "../vmm_state.ts";
import type { HandlerResult } from "../vmm_vp.ts";
import {
  handleCpuid,
  handleHalt,
  handleHypercall,
  handleIgnored,
  handleInstruction,
  handleIoPort,
  handleMsr,
  handleNestedFault,
  handleShutdown,
  handleUnexpected,
} from "./exits.ts";
import { UPDATE, updatesAfterRun, updatesAtCrash, updatesAtSwitch } from "./crash_copy.ts";
import { vmplOf } from "./init_vmsa.ts";
import { CHANGE_PAGES } from "./page_visibility.ts";
import type { SnpVp } from "./snp_vp.ts";

const EXIT = SevExitCode.values;
const vmsaAt = VMSA.at;
const control = V_INTR_CTRL.low;
const GUEST_BUSY_HIGH = V_INTR_CTRL.high.guest_busy;
const ATTENTION_AT = CpuState.at.attention;
const hypervisor = HypervisorVpState.at;
const MESSAGE = hcl_run.at.exit_message;

/** Takes note of everything that others have asked of the processor, and carries it out. */
export const ATTEND: StepId = step<SnpVp>("openhcl-snp.attend", (vp) => {
  // What is no longer in the attention word and not yet carried out: a processor must not look idle meanwhile.
  vp.port.exchange32(vp.state + hypervisor.attending, 1);
  const bits = vp.port.exchange32(vp.cpuState + ATTENTION_AT, 0);
  if (bits & ATTENTION.SHUTDOWN) return HALTED;
  if (bits & ATTENTION.FLUSH_TLB) vp.cpu.flushCaches();
  if (bits & ATTENTION.INIT) {
    vp.init();
    vp.set("vtl", 0);
  }
  if (bits & ATTENTION.SIPI) vp.startup(vp.getState(hypervisor.sipi_vector));
  if (bits & ATTENTION.NMI) raiseNmi(vp);
  const started = vp.get("waited") !== 0 && vp.activity === ACTIVITY_RUNNING;
  if (started || (bits & ATTENTION.INIT) !== 0) {
    // The registers with which a processor starts are made in its state; from there they go where it takes them.
    vp.saveRegisters(vp.vmsaPage(0));
    vp.cpu.flushCaches();
    // A processor that has VTL1 enters it first (f32).
    if (started && vp.get("vtl1_enabled") !== 0) vp.set("vtl", 1);
  }
  vp.set("waited", vp.activity === ACTIVITY_WAIT_FOR_SIPI ? 1 : 0);
  while (vp.getState(hypervisor.eoi_pending) !== 0) vp.vmm.partition.endOfInterrupt(vp.takeEoi());
  if (vp.activity === ACTIVITY_HALTED && vp.canWake) vp.activity = ACTIVITY_RUNNING;
  vp.port.exchange32(vp.state + hypervisor.attending, 0);
  return vp.activity === ACTIVITY_RUNNING ? OFFER_INTERRUPT : IDLE;
});

/** An NMI waits for VTL0: in its VMSA, and where the processor's activity is decided. */
function raiseNmi(vp: SnpVp): void {
  vp.raiseNmi();
  vp.memory.i32[(vp.vmsaPage(0) + vmsaAt.vintr_ctrl) >>> 2] |= control.v_nmi;
}

/** The lower VTL is halted, or has not been started. */
const IDLE: StepId = step<SnpVp>("openhcl-snp.idle", () => ATTEND, (vp) => vp.attention !== 0);

/**
 * Gives the lower VTL what waits for it: an interrupt of the interrupt controllers as an event when it can take one now, one of
 * its local APIC as a virtual interrupt that the processor delivers when it can (f23).
 */
const OFFER_INTERRUPT: StepId = step<SnpVp>("openhcl-snp.offer-interrupt", (vp) => {
  const { i32 } = vp.memory;
  const intr = (vp.vmsaPage(vp.vtl) + vmsaAt.vintr_ctrl) >>> 2;
  // Interrupts are VTL0's.
  const takes = vp.vtl === 0;
  if (takes && vp.apic.extIntPending) injectExtInt(vp);
  const vector = takes ? vp.apic.highestOffered() : -1;
  const words = offerInterrupt(i32[intr], vector, i32[(vp.cpuState + CpuState.at.cr8) >>> 2]);
  i32[intr] = words.low;
  i32[intr + 1] = (i32[intr + 1] & GUEST_BUSY_HIGH) | words.high;
  vp.set("offered", vector);
  return CLEAR_GUEST_BUSY;
});

/** An interrupt of the interrupt controllers: now, or when the guest opens its window, which then ends the run. */
function injectExtInt(vp: SnpVp): void {
  const vmsa = vp.vmsa(vp.vtl);
  const shadow = (vmsa.get64("vintr_ctrl") & V_INTR_CTRL.mask.intr_shadow) !== 0n;
  const open = (vmsa.get64("rflags") & BigInt(FLAG_IF)) !== 0n && !shadow;
  if (!open || vp.vmm.eventPending) {
    vp.port.or32(vp.cpuState + ATTENTION_AT, ATTENTION.VTL0_INTERRUPT);
    return;
  }
  const vector = vp.apic.acknowledgeExtInt() ? vp.vmm.partition.acknowledgeExtInt() : -1;
  if (vector < 0) return;
  vmsa.set64("event_inj", BigInt((EVENT_VALID | EVENT_TYPE_INTERRUPT << EVENT_TYPE_SHIFT | vector) >>> 0));
}

/** The VMSA is the processor's: VMRUN may enter it (f20). */
const CLEAR_GUEST_BUSY: StepId = step<SnpVp>("openhcl-snp.clear-guest-busy", (vp) => {
  vp.port.and32(vp.vmsaPage(vp.vtl) + vmsaAt.vintr_ctrl + 4, ~GUEST_BUSY_HIGH);
  return RUN;
});

/** Asks the host to run the lower VTL's VMPL. */
const RUN: StepId = step<SnpVp>("openhcl-snp.run-vmpl", (vp) => {
  vp.count("exits");
  vp.set("entered", vp.vtl);
  const request = GHCB_MSR_RUN_VMPL_REQ.make({ info: GhcbMsrInfo.values.RUN_VMPL_REQ, vmpl: vmplOf(vp.vtl) });
  return vmgexit(vp, request, SET_GUEST_BUSY);
});

/**
 * The host must not enter the VMSA again while the exit is handled. One that was busy already left in the middle of an event's
 * delivery: the event is given again, unless its instruction raises it again (f20 to f22).
 */
const SET_GUEST_BUSY: StepId = step<SnpVp>("openhcl-snp.test-and-set-guest-busy", (vp) => {
  const page = vp.vmsaPage(vp.vtl);
  const intr = page + vmsaAt.vintr_ctrl;
  const wasBusy = (vp.port.or32(intr + 4, GUEST_BUSY_HIGH) & GUEST_BUSY_HIGH) !== 0;
  const vmsa = vp.vmsa(vp.vtl);
  if (wasBusy) {
    vp.count("guest_busy");
    const info1 = vmsa.get64("guest_exit_info_1");
    const restartable = vmsa.exitCode !== EXIT.NOT_RESTARTABLE &&
      !(vmsa.exitCode === EXIT.NPF && (info1 & NPF_EXITINFO1.mask.not_restartable) !== 0n);
    if (!restartable) return NOT_RESTARTABLE;
    const interrupted = vmsa.get64("guest_exit_int_info");
    // A software event comes again with its instruction.
    const again = isInjectable(EVENT_INJ.get(interrupted, "type"), EVENT_INJ.get(interrupted, "vector"));
    if ((interrupted & EVENT_INJ.mask.valid) !== 0n && again) vmsa.set64("event_inj", interrupted);
  }
  const offered = vp.get("offered");
  const { i32 } = vp.memory;
  if (offered >= 0 && (i32[intr >>> 2] & control.v_irq) === 0) {
    vp.count("interrupts");
    vp.apic.acknowledgeVector(offered);
  }
  i32[intr >>> 2] &= ~control.v_irq;
  return TAKE_MESSAGE;
});

/** The instruction that was interrupted cannot be run again: the VTL is lost (f21). */
const NOT_RESTARTABLE: StepId = step<SnpVp>("openhcl-snp.not-restartable", (vp) => {
  vp.vmm.crash({ assertion: "the exit is restartable", left: vp.vmsa(vp.vtl).get64("guest_exit_code") });
  return HALTED;
});

/** Takes the host's message out of the page that the host can write, so that it no longer changes. */
const TAKE_MESSAGE: StepId = step<SnpVp>("openhcl-snp.take-message", (vp) => {
  const page = vp.sev.sharedPage(vp.index, SHARED_PAGES.MESSAGE);
  vp.port.copy(vp.runPage + MESSAGE, page, HvMessage.size);
  vp.port.store32(page + HvMessageHeader.at.typ, 0);
  const type = vp.memory.u32[(vp.runPage + MESSAGE) >>> 2];
  vp.set("has_message", type === 0 ? 0 : 1);
  if (type !== 0) vp.observer?.message(type);
  return updatesAfterRun(vp.crashCopy, type !== 0) ? vp.call(UPDATE, DISPATCH) : DISPATCH;
});

/** Finds the handler of the exit. */
const DISPATCH: StepId = step<SnpVp>("openhcl-snp.dispatch", (vp) => {
  const code = vp.vmsa(vp.vtl).exitCode;
  return HANDLERS.get(code) ?? UNEXPECTED;
});

/** The exit is handled: it is not handled again (f24). A message that nobody has asked for is dropped (f25). */
const DONE: StepId = step<SnpVp>("openhcl-snp.exit-handled", (vp) => {
  const left = vp.get("entered");
  vp.vmsa(left).setHarmlessExit();
  vp.set("has_message", 0);
  if (left !== vp.vtl && updatesAtSwitch(vp.crashCopy)) return vp.call(UPDATE, ATTEND);
  if (vp.get("psc_end") !== 0) return vp.call(CHANGE_PAGES, ATTEND);
  const crashes = vp.memory.u32[(vp.vmm.state + VmmVpState.at.crashes) >>> 2];
  if (crashes === vp.get("told_crashes")) return ATTEND;
  vp.set("told_crashes", crashes);
  return updatesAtCrash(vp.crashCopy) ? vp.call(UPDATE, ATTEND) : ATTEND;
});

/** Declares the step of an exit handler. */
function handler(name: string, handle: (vp: SnpVp) => HandlerResult): StepId {
  return exitHandler(`openhcl-snp.handle-${name}`, handle, DONE);
}

const INSTRUCTION = handler("instruction", handleInstruction);
const IGNORED = handler("ignored", handleIgnored);
const UNEXPECTED = handler("unexpected", handleUnexpected);

/** OpenHCL's exit table, by exit code (sev.md, section f). */
const HANDLERS: ReadonlyMap<number, StepId> = new Map([
  [EXIT.CPUID, handler("cpuid", handleCpuid)],
  [EXIT.MSR, handler("msr", handleMsr)],
  [EXIT.IOIO, handler("io-port", handleIoPort)],
  [EXIT.VMMCALL, handler("hypercall", handleHypercall)],
  [EXIT.NPF, handler("nested-fault", handleNestedFault)],
  [EXIT.HLT, handler("halt", handleHalt)],
  [EXIT.SHUTDOWN, handler("shutdown", handleShutdown)],
  ...[
    EXIT.RDPMC,
    EXIT.INVD,
    EXIT.WBINVD,
    EXIT.XSETBV,
    EXIT.INVLPGB,
    EXIT.ILLEGAL_INVLPGB,
    EXIT.CR0_WRITE,
    EXIT.CR4_WRITE,
  ]
    .map((code): [number, StepId] => [code, INSTRUCTION]),
  ...[EXIT.INTR, EXIT.BUSLOCK, EXIT.PAUSE, EXIT.NMI, EXIT.SMI, EXIT.EXCP1, EXIT.VMGEXIT, EXIT.IDLE_HLT]
    .map((code): [number, StepId] => [code, IGNORED]),
]);
