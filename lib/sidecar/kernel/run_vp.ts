/**
 * One iteration of a run of VTL0 by the sidecar kernel (openvmm openhcl/sidecar run_vp, run_vp_once).
 *
 * The registers that all VTLs share travel between the command page and the processor around the VTL return; RAX and RCX,
 * which the hypercall needs, go through the assist page on the way out.
 *
 * @module
 */
import { CpuState, FX } from "../../cpu/state.ts";
import { VTL_RETURN } from "../../hypervisor/vtl_return.ts";
import { HypervisorVpState } from "../../hypervisor/vp_state.ts";
import { HvVpAssistPage } from "../../layout/hyperv/assist_page.ts";
import { HypercallCode } from "../../layout/hyperv/constants/hypercalls.ts";
import { HvVtlEntryReason } from "../../layout/hyperv/constants/messages.ts";
import { HvX64RegisterPage } from "../../layout/hyperv/register_page.ts";
import { CommandPage } from "../../layout/hyperv/sidecar.ts";
import { Fxsave } from "../../layout/x64/fxsave.ts";
import type { Move } from "../../memory/copy_plan.ts";
import { step, type StepId } from "../../memory/steps.ts";
import { SidecarVpGlobals } from "../memory.ts";
import { SIDECAR_SYNC } from "../policies.ts";
import { CHECK_STOP, COMMAND_DONE, WRITE_RESPONSE } from "./command_loop.ts";
import { MAP_OVERLAYS } from "./overlays.ts";
import { KERNEL_LOCAL, setError } from "./processor.ts";
import type { SidecarVp } from "./sidecar_vp.ts";

const cpu = CpuState.at;
const command = CommandPage.at;
const assist = HvVpAssistPage.at;
const page = HvX64RegisterPage.at;
const globals = SidecarVpGlobals.at;
const GPS = command["cpu_context.gps"];
const FX_STATE = command["cpu_context.fx_state"];
/** Bytes of a register. */
const WORD = 8;
const GPRS = 16;
/** Slot 4 of the context is CR2. */
const CR2_SLOT = 4;
/** Byte offset of the registers behind that slot. */
const REST: number = (CR2_SLOT + 1) * WORD;
const RCX = 1;
/** Bytes of the x87/SSE image. */
const FX_BYTES = 512;
/** Byte offset of XMM0 in the image. */
const FX_XMM: number = Fxsave.at.xmm;
/** Bytes of the register page's XMM registers. */
const PAGE_XMM_BYTES = 96;
/** What the hypercall page's code leaves in RAX and RCX: the control input of a normal return, and the call's code. */
const STUB_RAX = 0n;
const STUB_RCX = BigInt(HypercallCode.values.HvCallVtlReturn);

/** First step of RUN_VP. */
export function firstStepOfRun(vp: SidecarVp): StepId {
  return vp.getGlobal(globals.overlays_mapped) !== 0 ? CHECK_STOP : MAP_OVERLAYS;
}

/** Leaves VTL0's RAX and RCX for the hypervisor. */
export const RUN_ONCE: StepId = step<SidecarVp>("sidecar.run.write-vtl-control", (vp) => {
  vp.port.copy(vp.assistPage + assist["vtl_control.registers"], vp.commandPage + GPS, 2 * WORD);
  return LOAD_REGISTERS;
});

/** The registers that VTLs share: in the command page, and in the processor's state. RSP is private to each VTL. */
export const CONTEXT: readonly Move[] = [
  [FX_STATE, FX, FX_BYTES],
  [GPS, cpu.gpr, CR2_SLOT * WORD],
  [GPS + CR2_SLOT * WORD, cpu.cr2, WORD],
  [GPS + REST, cpu.gpr + REST, GPRS * WORD - REST],
];

/** fxrstor, CR2, RBP and RBX, the registers of the call, and the call into the hypercall page. */
const LOAD_REGISTERS: StepId = step<SidecarVp>("sidecar.run.load-registers", (vp) => {
  const { port, cpuState, commandPage, memory: { u64 } } = vp;
  for (const [from, to, bytes] of CONTEXT) port.copy(cpuState + to, commandPage + from, bytes);
  u64[(cpuState + cpu.gpr) >>> 3] = STUB_RAX;
  u64[((cpuState + cpu.gpr) >>> 3) + RCX] = STUB_RCX;
  vp.vtl2Step = SAVE_REGISTERS;
  return VTL_RETURN;
});

/** VTL2 is entered again, behind the hypercall: all 16 slots and the x87/SSE image are written, whatever the reason. */
export const SAVE_REGISTERS: StepId = step<SidecarVp>("sidecar.run.save-registers", (vp) => {
  const { port, cpuState, commandPage } = vp;
  for (const [to, from, bytes] of CONTEXT) port.copy(commandPage + to, cpuState + from, bytes);
  return READ_ENTRY_REASON;
});

const READ_ENTRY_REASON: StepId = step<SidecarVp>("sidecar.run.read-entry-reason", (vp) => {
  const { INTERCEPT, INTERRUPT } = HvVtlEntryReason.values;
  const reason = vp.memory.u32[(vp.assistPage + assist["vtl_control.entry_reason"]) >>> 2];
  if (reason === INTERCEPT) return COPY_MESSAGE;
  if (reason === INTERRUPT) {
    vp.setGlobal(globals.entries_by_interrupt, vp.getGlobal(globals.entries_by_interrupt) + 1);
    return CHECK_STOP;
  }
  setError(vp, `unexpected entry reason ${HvVtlEntryReason.name(reason)}`);
  return COMMAND_DONE;
});

/** Copies the intercept message. Entries by interrupt leave the old one in place. */
const COPY_MESSAGE: StepId = step<SidecarVp>("sidecar.run.copy-message", (vp) => {
  vp.port.copy(
    vp.commandPage + command.intercept_message,
    vp.message,
    vp.getState(HypervisorVpState.at.message_span),
  );
  vp.locals32[KERNEL_LOCAL.INTERCEPT] = 1;
  return vp.partition.policy(SIDECAR_SYNC) === SIDECAR_SYNC.is.none ? WRITE_RESPONSE : SYNC_REGISTERS;
});

/** Proposed repairs: copies registers from the register page over the ones that were saved. */
const SYNC_REGISTERS: StepId = step<SidecarVp>("sidecar.run.sync-registers", (vp) => {
  const { port } = vp;
  const policy = vp.partition.policy(SIDECAR_SYNC);
  const from = vp.node.registerPage(vp.slot);
  const valid = port.load8(from + page.is_valid) !== 0 || policy === SIDECAR_SYNC.is["sync-page-ungated"];
  if (!vp.registerPageMapped || !valid) return WRITE_RESPONSE;
  const gps = vp.commandPage + GPS;
  port.copy(gps, from + page.gp_registers, CR2_SLOT * WORD);
  if (policy === SIDECAR_SYNC.is["sync-page-with-slot-4"]) {
    port.copy(gps + CR2_SLOT * WORD, from + page.gp_registers + CR2_SLOT * WORD, WORD);
  }
  port.copy(gps + REST, from + page.gp_registers + REST, GPRS * WORD - REST);
  port.copy(vp.commandPage + FX_STATE + FX_XMM, from + page.xmm, PAGE_XMM_BYTES);
  return WRITE_RESPONSE;
});
