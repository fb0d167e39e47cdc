/**
 * Entry of VTL2 on a processor (openhcl.md a; TLFS, "Virtual Secure Mode").
 *
 * The general-purpose registers, CR2, DR0-3 and the x87/SSE state are one physical set that both VTLs see: nothing here
 * saves them. A VTL entry leaves the lower VTL's values in them, and VTL2's code must put them away. VTL2's private
 * registers reduce to the step at which its code goes on.
 *
 * @module
 */
import { CpuState, FX } from "../cpu/state.ts";
import { HvVpAssistPage } from "../layout/hyperv/assist_page.ts";
import { HvVtlEntryReason } from "../layout/hyperv/constants/messages.ts";
import { HvMessageHeader } from "../layout/hyperv/messages.ts";
import { policy } from "../memory/policy.ts";
import { step, type StepId } from "../memory/steps.ts";
import * as wasm from "../memory/wasm_code.ts";
import { fillRegisterPage } from "./register_page.ts";
import { INTERCEPT_SINT, type VirtualProcessor } from "./virtual_processor.ts";
import { EXIT_KIND, HypervisorVpState, IRR_WORDS } from "./vp_state.ts";

const at = HypervisorVpState.at;
const cpu = CpuState.at;
const MESSAGE_TYPE = HvMessageHeader.at.typ;
const GPRS = 16;
const RSP = 4;
/** 64-bit words of the x87/SSE image. */
const FX_WORDS = 64;

/** What VTL2 finds in the registers that it shares with the lower VTLs when it is entered. */
export const VTL_ENTRY = policy("vtl.entry", "What a VTL entry leaves in the registers that all VTLs share", {
  "shared-live": "the lower VTL's live values (TLFS, Virtual Secure Mode, private and shared state)",
  "vtl2-restored": "the values that VTL2 itself had at its VTL return (openvmm 3360, first version)",
});

/** What the register page does for VTL2. */
export const REGISTER_PAGE = policy("register-page", "Whether the hypervisor offers a register page", {
  "mapped": "the page can be mapped and is filled at every intercept (openvmm hvdef, HvX64RegisterPage)",
  "mapped-unpopulated": "the page can be mapped, but is_valid stays 0 (openvmm 3360, review)",
  "unmapped": "enabling the page fails, as on older hypervisors (openvmm 3360, limitations)",
});

/** Where VTL2 finds the messages of intercepts. */
export const INTERCEPT_PAGE = policy("intercept-page", "Whether intercept messages can come in the assist page", {
  "available": "they can, and VTL2 asks for that (openvmm hvdef, HvRegisterVsmCapabilities.intercept_page_available)",
  "unavailable": "they come through SINT0, and there is no register page (OHCL-Linux-Kernel, mshv_vtl_main.c)",
});

/** Enters VTL2 because of an intercept whose message has been written. */
export const WRITE_ENTRY_REASON: StepId = step<VirtualProcessor>("hypervisor.write-entry-reason", (vp) => {
  if (!vp.messagesInAssistPage) return REQUEST_INTERCEPT_SINT;
  writeEntryReason(vp, HvVtlEntryReason.values.INTERCEPT);
  observeMessage(vp);
  return FILL_REGISTER_PAGE;
});

/** The message lies in SINT0's slot: its interrupt is what VTL2 is entered for. */
const REQUEST_INTERCEPT_SINT: StepId = step<VirtualProcessor>("hypervisor.request-intercept-sint", (vp) => {
  observeMessage(vp);
  vp.vtl2Synic.interrupt(INTERCEPT_SINT);
  return ENTER_VTL2_SINT;
});

/** Enters VTL2 for SINT0's interrupt. */
const ENTER_VTL2_SINT: StepId = step<VirtualProcessor>("hypervisor.enter-vtl2-sint", (vp) => {
  writeEntryReason(vp, HvVtlEntryReason.values.INTERRUPT);
  return enterVtl2(vp);
});

function observeMessage(vp: VirtualProcessor): void {
  if (vp.observer !== undefined) vp.observer.message(vp.memory.u32[(vp.message + MESSAGE_TYPE) >>> 2]);
}

/** Fills the register page, which belongs to the hypervisor until VTL2 runs. */
export const FILL_REGISTER_PAGE: StepId = step<VirtualProcessor>("hypervisor.fill-register-page", (vp) => {
  const page = vp.registerPage;
  if (page !== 0 && vp.partition.policy(REGISTER_PAGE) === REGISTER_PAGE.is.mapped) {
    fillRegisterPage(vp, page);
  }
  return enterVtl2(vp);
});

/** Enters VTL2 because of an interrupt: no message, and the register page stays invalid. */
export const ENTER_VTL2_INTERRUPT: StepId = step<VirtualProcessor>("hypervisor.enter-vtl2-interrupt", (vp) => {
  vp.noteExit(EXIT_KIND.interrupt);
  writeEntryReason(vp, HvVtlEntryReason.values.INTERRUPT);
  return enterVtl2(vp);
});

/** Enters VTL2 because VTL0 made a VTL call. */
export const ENTER_VTL2_CALL: StepId = step<VirtualProcessor>("hypervisor.enter-vtl2-call", (vp) => {
  vp.noteExit(EXIT_KIND["vtl-call"]);
  writeEntryReason(vp, HvVtlEntryReason.values.VTL_CALL);
  return enterVtl2(vp);
});

/** Writes the reason into the assist page, only when VTL2 was not runnable before. */
function writeEntryReason(vp: VirtualProcessor, reason: number): void {
  vp.setState(at.entry_reason, reason);
  const assist = vp.assistPage;
  if (assist !== 0 && vp.memory.u8[vp.state + at.vtl2_runnable] === 0) {
    vp.memory.i32[(assist + HvVpAssistPage.at["vtl_control.entry_reason"]) >>> 2] = reason;
  }
}

/** Code of an entry of VTL2 for an intercept, of a VTL2 that was not runnable and has its assist page at `assist`. */
export function interceptEntryCode(vpState: wasm.I32, assist: wasm.I32): wasm.Code {
  const reason = wasm.constant(HvVtlEntryReason.values.INTERCEPT);
  return [
    ...wasm.store32(vpState, at.entry_reason, reason),
    ...wasm.store32(assist, HvVpAssistPage.at["vtl_control.entry_reason"], reason),
    ...wasm.store8(vpState, at.vtl2_runnable, wasm.constant(1)),
    ...wasm.store8(vpState, at.active_vtl, wasm.constant(2)),
  ];
}

/** Makes VTL2 the active VTL; its code goes on behind its last VTL return. */
function enterVtl2(vp: VirtualProcessor): StepId {
  const { u8 } = vp.memory;
  u8[vp.state + at.vtl2_runnable] = 1;
  u8[vp.state + at.active_vtl] = 2;
  if (vp.partition.policy(VTL_ENTRY) === VTL_ENTRY.is["vtl2-restored"]) restoreVtl2Registers(vp);
  vp.port.fence();
  return vp.getState(at.vtl2_step);
}

/**
 * Whether an interrupt is requested for VTL2. Its task priority is 0 and IF does not matter (openhcl.md a). The summary
 * may name a word whose requests have been taken.
 */
export function vtl2InterruptPending(vp: VirtualProcessor): boolean {
  const { port, state } = vp;
  const words = port.load32(state + at.vtl2_irr_summary);
  if (words === 0) return false;
  for (let word = 0; word < IRR_WORDS; word++) {
    if ((words >>> word & 1) !== 0 && port.load32(state + at.vtl2_irr + word * 4) !== 0) return true;
  }
  return false;
}

/** Policy `vtl2-restored`: remembers what VTL2 has in the shared registers as it executes its VTL return. */
export function saveVtl2Registers(vp: VirtualProcessor): void {
  const { u64 } = vp.memory;
  const gpr = (vp.cpuState + cpu.gpr) >>> 3;
  for (let k = 0; k < GPRS; k++) u64[((vp.state + at.vtl2_gpr) >>> 3) + k] = u64[gpr + k];
  u64[(vp.state + at.vtl2_cr2) >>> 3] = u64[(vp.cpuState + cpu.cr2) >>> 3];
  for (let k = 0; k < FX_WORDS; k++) u64[((vp.state + at.vtl2_fx) >>> 3) + k] = u64[((vp.cpuState + FX) >>> 3) + k];
}

/** Policy `vtl2-restored`: puts them back over the lower VTL's. RSP is private and stays. */
function restoreVtl2Registers(vp: VirtualProcessor): void {
  const { u64 } = vp.memory;
  const gpr = (vp.cpuState + cpu.gpr) >>> 3;
  for (let k = 0; k < GPRS; k++) if (k !== RSP) u64[gpr + k] = u64[((vp.state + at.vtl2_gpr) >>> 3) + k];
  u64[(vp.cpuState + cpu.cr2) >>> 3] = u64[(vp.state + at.vtl2_cr2) >>> 3];
  for (let k = 0; k < FX_WORDS; k++) u64[((vp.cpuState + FX) >>> 3) + k] = u64[((vp.state + at.vtl2_fx) >>> 3) + k];
}
