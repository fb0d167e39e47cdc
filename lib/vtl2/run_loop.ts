/**
 * The VMM's run loop for a VP of the `kernel` platform (openvmm virt_mshv_vtl, processor/mod.rs run_vp and
 * processor/mshv/x64.rs run_vp): look after the VP, run the lower VTL, handle the exit.
 *
 * @module
 */
import { HvMessageType } from "../layout/hyperv/constants/messages.ts";
import { HvX64RegisterName } from "../layout/hyperv/constants/registers.ts";
import { hcl_run } from "../layout/hyperv/hcl_run.ts";
import { HvMessageHeader, HvX64IoPortAccessInfo, HvX64IoPortInterceptMessage } from "../layout/hyperv/messages.ts";
import { step, type StepId } from "../memory/steps.ts";
import { PAYLOAD } from "./context.ts";
import { exitHandler } from "./exit_handler.ts";
import { handleApicEoi } from "./handlers/apic_eoi.ts";
import { handleCpuid } from "./handlers/cpuid.ts";
import {
  handleInterruptionDeliverable,
  handleSintDeliverable,
  requestInterruptNotification,
} from "./handlers/deliverability.ts";
import { handleException } from "./handlers/exception.ts";
import { handleHypercall } from "./handlers/hypercall.ts";
import { handleIoPort } from "./handlers/io_port.ts";
import { handleMmio } from "./handlers/mmio.ts";
import { handleMsr } from "./handlers/msr.ts";
import { handleUnrecoverable } from "./handlers/unrecoverable.ts";
import { VmmRunState, WAKE } from "./kernel_pages.ts";
import type { KernelVp } from "./kernel_vp.ts";
import { EINTR, MSHV_RETURN_TO_LOWER_VTL, REQUEST_RESULT, saveFxState } from "./mshv_vtl.ts";
import type { HandlerResult } from "./vmm_vp.ts";
import { VmmVpState } from "./vmm_state.ts";

const type = HvMessageType.values;
const state = VmmVpState.at;
const ACCESS_INFO = PAYLOAD + HvX64IoPortInterceptMessage.at.access_info;
const STRING_OR_REP = HvX64IoPortAccessInfo.mask.string_op | HvX64IoPortAccessInfo.mask.rep_prefix;

/** Start of the loop: stops when somebody asked for it. */
export const RUN_VP: StepId = step<KernelVp>("vmm.check-stop", (vp) => {
  if (vp.port.load32(vp.runState + VmmRunState.at.stop) !== 0) return vp.return();
  return vp.port.load32(vp.runPage + hcl_run.at.cancel) !== 0 ? CLEAR_CANCEL : HANDLE_WAKE;
});

/** Forgets a cancellation before looking at its reasons, so that a later one is seen again. */
const CLEAR_CANCEL: StepId = step<KernelVp>("vmm.clear-cancel", (vp) => {
  vp.port.exchange32(vp.runPage + hcl_run.at.cancel, 0);
  return HANDLE_WAKE;
});

/** Looks after what woke the VP's task. */
export const HANDLE_WAKE: StepId = step<KernelVp>("vmm.handle-wake", (vp) => {
  const wake = vp.runState + VmmRunState.at.wake;
  if (vp.port.load32(wake) !== 0) {
    const reasons = vp.port.exchange32(wake, 0);
    if (reasons & WAKE.EXTINT) requestInterruptNotification(vp.vmm);
  }
  const { i32 } = vp.memory;
  const next = (vp.vmm.state + state.deliverability_next) >>> 2;
  const current = (vp.vmm.state + state.deliverability_current) >>> 2;
  const same = i32[next] === i32[current] && i32[next + 1] === i32[current + 1];
  return same ? ENTER_LOWER_VTL : SET_DELIVERABILITY;
});

/** Tells the hypervisor which deliverability notifications are wanted from now on. */
const SET_DELIVERABILITY: StepId = step<KernelVp>("vmm.set-deliverability", (vp) => {
  const { u64 } = vp.memory;
  const at = vp.vmm.state;
  u64[(at + state.deliverability_current) >>> 3] = u64[(at + state.deliverability_next) >>> 3];
  u64[(at + state.set_values) >>> 3] = u64[(at + state.deliverability_next) >>> 3];
  u64[((at + state.set_values) >>> 3) + 1] = 0n;
  vp.vmm.setRegisters(DELIVERABILITY, at + state.set_values);
  return ENTER_LOWER_VTL;
});

const DELIVERABILITY: readonly number[] = [HvX64RegisterName.values.DeliverabilityNotifications];

/** Asks the kernel to run the lower VTL. */
export const ENTER_LOWER_VTL: StepId = step<KernelVp>("vmm.run", (vp) => vp.call(MSHV_RETURN_TO_LOWER_VTL, DISPATCH));

/** The request is answered: an intercept's message is in the run page, or there was no exit. Finds the handler. */
export const DISPATCH: StepId = step<KernelVp>("vmm.dispatch", (vp) => {
  if (vp.locals32[REQUEST_RESULT] === EINTR) return RUN_VP;
  switch (vp.memory.u32[(vp.vmm.message + HvMessageHeader.at.typ) >>> 2]) {
    case type.HvMessageTypeX64IoPortIntercept:
      return vp.memory.u8[vp.vmm.message + ACCESS_INFO] & STRING_OR_REP ? SAVE_FX : HANDLE_IO_PORT;
    case type.HvMessageTypeX64CpuidIntercept:
      return HANDLE_CPUID;
    case type.HvMessageTypeMsrIntercept:
      return HANDLE_MSR;
    case type.HvMessageTypeX64ApicEoi:
      return HANDLE_APIC_EOI;
    case type.HvMessageTypeSynicSintDeliverable:
      return HANDLE_SINT_DELIVERABLE;
    case type.HvMessageTypeX64InterruptionDeliverable:
      return HANDLE_INTERRUPTION_DELIVERABLE;
    case type.HvMessageTypeUnrecoverableException:
      return HANDLE_UNRECOVERABLE;
    case type.HvMessageTypeExceptionIntercept:
      return HANDLE_EXCEPTION;
    case type.HvMessageTypeUnmappedGpa:
    case type.HvMessageTypeGpaIntercept:
    case type.HvMessageTypeUnacceptedGpa:
    case type.HvMessageTypeHypercallIntercept:
      return SAVE_FX;
    default:
      return UNEXPECTED_EXIT;
  }
});

/** The handler will look at the x87/SSE state, which may still be in the processor. */
export const SAVE_FX: StepId = step<KernelVp>("mshv.save-fx", (vp) => {
  saveFxState(vp);
  switch (vp.memory.u32[(vp.vmm.message + HvMessageHeader.at.typ) >>> 2]) {
    case type.HvMessageTypeX64IoPortIntercept:
      return HANDLE_IO_PORT;
    case type.HvMessageTypeHypercallIntercept:
      return HANDLE_HYPERCALL;
    default:
      return HANDLE_MMIO;
  }
});

/** Handles a port intercept. */
export const HANDLE_IO_PORT: StepId = handler("vmm.handle-io-port", (vp) => handleIoPort(vp.vmm, vp.emulator));
/** Handles a CPUID intercept. */
export const HANDLE_CPUID: StepId = handler("vmm.handle-cpuid", (vp) => handleCpuid(vp.vmm));
/** Handles an MSR intercept. */
export const HANDLE_MSR: StepId = handler("vmm.handle-msr", (vp) => handleMsr(vp.vmm));
const HANDLE_MMIO = handler("vmm.handle-mmio", (vp) => handleMmio(vp.vmm, vp.emulator));
const HANDLE_HYPERCALL = handler("vmm.handle-hypercall", (vp) => handleHypercall(vp.vmm));
const HANDLE_APIC_EOI = handler("vmm.handle-apic-eoi", (vp) => handleApicEoi(vp.vmm));
const HANDLE_EXCEPTION = handler("vmm.handle-exception", (vp) => handleException(vp.vmm));
const HANDLE_UNRECOVERABLE = handler("vmm.handle-unrecoverable", (vp) => handleUnrecoverable(vp.vmm));
const HANDLE_SINT_DELIVERABLE = handler("vmm.handle-sint-deliverable", (vp) => handleSintDeliverable(vp.vmm));
const HANDLE_INTERRUPTION_DELIVERABLE = handler(
  "vmm.handle-interruption-deliverable",
  (vp) => handleInterruptionDeliverable(vp.vmm),
);
/** The message is of a type that the VMM's dispatch does not know: it panics (openhcl.md e, "anything else"). */
const UNEXPECTED_EXIT = handler("vmm.unexpected-exit", (vp) => {
  const typ = vp.memory.u32[(vp.vmm.message + HvMessageHeader.at.typ) >>> 2];
  return vp.vmm.crash({ assertion: `unknown exit message ${HvMessageType.name(typ)}`, left: BigInt(typ) });
});

/** Declares the step of an exit handler, behind which the loop begins again. */
function handler(name: string, handle: (vp: KernelVp) => HandlerResult): StepId {
  return exitHandler(name, handle, RUN_VP);
}
