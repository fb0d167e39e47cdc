/**
 * OpenHCL's kernel in VTL2 (OHCL-Linux-Kernel, drivers/hv/mshv_vtl_main.c): what the VTL device does between the VMM's
 * request to run the lower VTL and its answer.
 *
 * The registers that VTLs share go from the run page into the processor and back; RAX and RCX travel through the assist
 * page, because the hypercall needs them. The x87/SSE image is saved at every exit and loaded at every entry, unless the
 * machine saves it lazily: then `fxState` saves it for the first reader.
 *
 * Intercept messages come in the assist page or, on hypervisors that cannot do that, in SINT0's slot of the message page.
 *
 * @module
 */
import { CpuState } from "../cpu/state.ts";
import { INTERCEPT_SINT } from "../hypervisor/virtual_processor.ts";
import { VTL_RETURN } from "../hypervisor/vtl_return.ts";
import { HypervisorVpState } from "../hypervisor/vp_state.ts";
import { HvVpAssistPage } from "../layout/hyperv/assist_page.ts";
import { HvMessageType, HvVtlEntryReason } from "../layout/hyperv/constants/messages.ts";
import { hcl_run } from "../layout/hyperv/hcl_run.ts";
import { HvMessage, HvMessageFlags, HvMessageHeader } from "../layout/hyperv/messages.ts";
import { HALTED, step, type StepId } from "../memory/steps.ts";
import type { KernelVp } from "./kernel_vp.ts";

const cpu = CpuState.at;
const run = hcl_run.at;
const assistAt = HvVpAssistPage.at;
const header = HvMessageHeader.at;
const RAX = 0;
const RCX = 1;
/** What the hypercall page's VTL-return code leaves in RAX and RCX: a control input of 0, and the call code. */
const STUB_RAX = 0n;
const STUB_RCX = 0x12n;
/** Index among the agent's 32-bit locals of the result of the VMM's last request to run the lower VTL. */
export const REQUEST_RESULT = 0;
/** The request was cancelled: no exit has happened (Linux errno 4). */
export const EINTR = 4;
/** IRR words of VTL2's local APIC. */
const IRR_WORDS = 8;

/** The VMM asks for the lower VTL to run: the request is refused at once when somebody has cancelled it. */
export const MSHV_RETURN_TO_LOWER_VTL: StepId = step<KernelVp>("mshv.check-cancel", (vp) => {
  if (vp.port.load32(vp.runPage + run.cancel) === 0) return MSHV_LOAD_REGISTERS;
  vp.locals32[REQUEST_RESULT] = EINTR;
  return vp.return();
});

/** Puts the lower VTL's registers into the processor. */
export const MSHV_LOAD_REGISTERS: StepId = step<KernelVp>("mshv.load-registers", (vp) => {
  const { u64 } = vp.memory;
  vp.kernelCopies.vtlControl(vp.assistPage, vp.runPage);
  vp.kernelCopies.loadRegisters(vp.cpuState, vp.runPage);
  const gpr = (vp.cpuState + cpu.gpr) >>> 3;
  u64[gpr + RAX] = STUB_RAX;
  u64[gpr + RCX] = STUB_RCX;
  if (vp.getState(HypervisorVpState.at.fx_saved) !== 0) {
    vp.kernelCopies.loadFx(vp.cpuState, vp.runPage);
    vp.setState(HypervisorVpState.at.fx_saved, 0);
  }
  vp.vtl2Step = MSHV_SAVE_REGISTERS;
  return VTL_RETURN;
});

/** VTL2 is entered again: the lower VTL's registers are in the processor and must be put away before anything else. */
export const MSHV_SAVE_REGISTERS: StepId = step<KernelVp>("mshv.save-registers", (vp) => {
  vp.kernelCopies.saveRegisters(vp.runPage, vp.cpuState);
  if (vp.savesFxEagerly) saveFxState(vp);
  const reason = vp.memory.i32[(vp.assistPage + assistAt["vtl_control.entry_reason"]) >>> 2];
  if (reason === HvVtlEntryReason.values.INTERCEPT) return MSHV_COPY_MESSAGE;
  return reason === HvVtlEntryReason.values.INTERRUPT ? MSHV_SERVICE_INTERRUPTS : MSHV_UNKNOWN_ENTRY;
});

/** Saves the x87/SSE image into the run page, once an exit. */
export function saveFxState(vp: KernelVp): void {
  if (vp.getState(HypervisorVpState.at.fx_saved) !== 0) return;
  vp.kernelCopies.saveFx(vp.runPage, vp.cpuState);
  vp.setState(HypervisorVpState.at.fx_saved, 1);
}

/** Copies the intercept message from the assist page to the run page, and answers the VMM's request. */
export const MSHV_COPY_MESSAGE: StepId = step<KernelVp>("mshv.copy-message", (vp) => {
  vp.kernelCopies.message(vp.runPage, vp.assistPage);
  vp.locals32[REQUEST_RESULT] = 0;
  return vp.return();
});

/** Entered by an interrupt: the request is taken note of before the vectors are, so that a later one is seen again. */
const MSHV_SERVICE_INTERRUPTS: StepId = step<KernelVp>("mshv.service-interrupts", (vp) => {
  vp.port.exchange32(vp.state + HypervisorVpState.at.vtl2_irr_summary, 0);
  return MSHV_TAKE_VECTORS;
});

/** Takes every vector that is requested for VTL2 on this processor, then goes back to the lower VTL. */
const MSHV_TAKE_VECTORS: StepId = step<KernelVp>("mshv.take-vectors", (vp) => {
  for (let word = 0; word < IRR_WORDS; word++) {
    vp.port.exchange32(vp.state + HypervisorVpState.at.vtl2_irr + word * 4, 0);
  }
  return vp.messagesInAssistPage ? MSHV_RETURN_TO_LOWER_VTL : MSHV_PROCESS_INTERCEPT;
});

/** Without an intercept page an interrupt may have been SINT0's: the message in its slot is the VMM's answer. */
const MSHV_PROCESS_INTERCEPT: StepId = step<KernelVp>("mshv.process-intercept", (vp) => {
  const slot = vp.vtl2Synic.slot(INTERCEPT_SINT);
  if (vp.port.load32(slot + header.typ) === HvMessageType.values.HvMessageTypeNone) return MSHV_RETURN_TO_LOWER_VTL;
  vp.port.copy(vp.runPage + run.exit_message, slot, HvMessage.size);
  return MSHV_FREE_SLOT;
});

/** Empties the slot. */
const MSHV_FREE_SLOT: StepId = step<KernelVp>("mshv.free-slot", (vp) => {
  const slot = vp.vtl2Synic.slot(INTERCEPT_SINT);
  vp.port.exchange32(slot + header.typ, HvMessageType.values.HvMessageTypeNone);
  vp.locals32[REQUEST_RESULT] = 0;
  return (vp.memory.u8[slot + header.flags] & HvMessageFlags.mask.message_pending) === 0 ? vp.return() : MSHV_EOM;
});

/** Another message waits for the slot: the hypervisor is told that it is empty. */
const MSHV_EOM: StepId = step<KernelVp>("mshv.signal-eom", (vp) => {
  vp.vtl2Synic.eom();
  return vp.return();
});

/** The driver knows two entry reasons; any other stops VTL2. */
const MSHV_UNKNOWN_ENTRY: StepId = step<KernelVp>("mshv.unknown-entry-reason", (vp) => {
  const reason = vp.memory.i32[(vp.assistPage + assistAt["vtl_control.entry_reason"]) >>> 2];
  vp.vmm.crash({ assertion: "unknown entry reason", left: BigInt(reason) });
  return HALTED;
});
