/**
 * Return of a processor from VTL2 to VTL0 (openhcl.md a; TLFS, "VTL Return").
 *
 * VTL2's code has put the lower VTL's registers back into the processor. A normal return loads RAX and RCX, which the
 * hypercall itself needed, from the assist page.
 *
 * @module
 */
import { ACTIVITY_HALTED, ACTIVITY_RUNNING, CpuState } from "../cpu/state.ts";
import { HvVpAssistPage } from "../layout/hyperv/assist_page.ts";
import { step, type StepId } from "../memory/steps.ts";
import * as wasm from "../memory/wasm_code.ts";
import { ATTENTION } from "./attention.ts";
import { GUEST_RUN, PARKED } from "./guest.ts";
import { deliverPendingEvents } from "./pending_events.ts";
import { applyRegisterPage } from "./register_page.ts";
import { processReturnActions } from "./return_actions.ts";
import type { VirtualProcessor } from "./virtual_processor.ts";
import { HypervisorVpState } from "./vp_state.ts";
import { ENTER_VTL2_INTERRUPT, saveVtl2Registers, vtl2InterruptPending, VTL_ENTRY } from "./vtl_entry.ts";

const at = HypervisorVpState.at;
const control = HvVpAssistPage.at;

/**
 * HvCallVtlReturn, normal form. The caller has left the step at which VTL2 goes on in `vtl2_step`. An interrupt that
 * waits for VTL2 sends it straight back, whatever its IF (openhcl.md a).
 */
export const VTL_RETURN: StepId = step<VirtualProcessor>("hypervisor.vtl-return", (vp) => {
  const { u64, u8 } = vp.memory;
  if (vp.partition.policy(VTL_ENTRY) === VTL_ENTRY.is["vtl2-restored"]) saveVtl2Registers(vp);
  const assist = vp.assistPage;
  if (assist !== 0) {
    const gpr = (vp.cpuState + CpuState.at.gpr) >>> 3;
    u64[gpr] = u64[(assist + control["vtl_control.registers.rax"]) >>> 3];
    u64[gpr + 1] = u64[(assist + control["vtl_control.registers.rcx"]) >>> 3];
    processReturnActions(vp, assist + control.vtl_return_actions);
  }
  const page = vp.registerPage;
  if (page !== 0) applyRegisterPage(vp, page);
  u8[vp.state + at.vtl2_runnable] = 0;
  vp.port.fence();
  return vtl2InterruptPending(vp) ? ENTER_VTL2_INTERRUPT : ENTER_VTL0;
});

/** Code of a return from which nothing keeps VTL0: RAX and RCX are in the processor already. */
export function returnCode(vpState: wasm.I32): wasm.Code {
  return [
    ...wasm.store8(vpState, at.vtl2_runnable, wasm.constant(0)),
    ...wasm.store8(vpState, at.active_vtl, wasm.constant(0)),
  ];
}

/** VTL0 becomes active: pending events are delivered and the guest goes on where it stood. */
export const ENTER_VTL0: StepId = step<VirtualProcessor>("hypervisor.enter-vtl0", (vp) => {
  vp.memory.u8[vp.state + at.active_vtl] = 0;
  deliverPendingEvents(vp);
  vp.observer?.entry(vp);
  if (vp.deliverabilityWanted) {
    if (vp.deliverable) return vp.steps.deliverable;
    vp.port.or32(vp.cpuState + CpuState.at.attention, ATTENTION.VTL0_INTERRUPT);
  }
  if (vp.activity === ACTIVITY_HALTED && vp.canWake) vp.activity = ACTIVITY_RUNNING;
  return vp.activity === ACTIVITY_RUNNING ? GUEST_RUN : PARKED;
});
