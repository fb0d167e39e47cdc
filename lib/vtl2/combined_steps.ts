/**
 * The exit path of the `kernel` platform in two strokes: what hypervisor and kernel do from the intercept message to the
 * VMM's dispatch, and from the VMM's request to the guest, when nothing unusual is to be done.
 *
 * All of it touches pages and state of one VP only, in an order that nobody else can observe, so that a runtime in which
 * nobody looks between the steps can do them at once. They are the same moves and words as in the steps themselves
 * (`hypervisor/vtl_entry.ts`, `hypervisor/vtl_return.ts`, `mshv_vtl.ts`).
 *
 * @module
 */
import { ACTIVITY_RUNNING, CpuState } from "../cpu/state.ts";
import { GUEST_RUN } from "../hypervisor/guest.ts";
import { INTERRUPT_SHADOW, NMI_MASKED_SHIFT, VALID_VTL0, VERSION } from "../hypervisor/register_page.ts";
import { REGISTER_PAGE_MOVES } from "../hypervisor/vp_copies.ts";
import { HypervisorVpState } from "../hypervisor/vp_state.ts";
import {
  FILL_REGISTER_PAGE,
  REGISTER_PAGE,
  vtl2InterruptPending,
  VTL_ENTRY,
  WRITE_ENTRY_REASON,
} from "../hypervisor/vtl_entry.ts";
import { ENTER_VTL0, VTL_RETURN } from "../hypervisor/vtl_return.ts";
import { HvVpAssistPage } from "../layout/hyperv/assist_page.ts";
import { HvVtlEntryReason } from "../layout/hyperv/constants/messages.ts";
import { HvX64PendingExceptionEvent } from "../layout/hyperv/events.ts";
import { hcl_run } from "../layout/hyperv/hcl_run.ts";
import { HvMessage } from "../layout/hyperv/messages.ts";
import { HvX64RegisterPage, HvX64RegisterPageDirtyFlags } from "../layout/hyperv/register_page.ts";
import type { MachineMemory } from "../memory/machine_memory.ts";
import type { Policy } from "../memory/policy.ts";
import { combineSteps, NOT_COMBINED } from "../memory/steps.ts";
import * as wasm from "../memory/wasm_code.ts";
import { backwards, SHARED_REGISTERS, VTL_CONTROL_MOVES } from "./kernel_copies.ts";
import type { KernelVp } from "./kernel_vp.ts";
import { MSHV_COPY_MESSAGE, MSHV_LOAD_REGISTERS, MSHV_SAVE_REGISTERS, REQUEST_RESULT } from "./mshv_vtl.ts";

const state = HypervisorVpState.at;
const cpu = CpuState.at;
const page = HvX64RegisterPage.at;
const assist = HvVpAssistPage.at;
const run = hcl_run.at;
/**
 * Bytes of a message that are copied always: as many as the messages of ports, CPUID and MSRs have. Behind `message_span`
 * both copies hold zeros.
 */
const MESSAGE_FIRST = 144;
/** Bits 63:12 of an overlay register hold the page's address. */
const GPA_MASK = ~0xfff;
const ENABLED = 1;
const RIP_DIRTY = HvX64RegisterPageDirtyFlags.mask.instruction_pointer;
const IS_VALID = 0xff << 16;

// Parameters and locals of the functions.
const CPU_STATE = wasm.local(0);
const VP_STATE = wasm.local(1);
const RUN_PAGE = wasm.local(2);
const POLICIES = wasm.local(3);
const ASSIST_LOCAL = 4;
const PAGE_LOCAL = 5;
const ASSIST = wasm.local(ASSIST_LOCAL);
const PAGE = wasm.local(PAGE_LOCAL);

/** One of the functions: 1 when it has done everything, 0 when it has done nothing. */
type Stroke = (cpuState: number, vpState: number, runPage: number, policies: number) => number;

/** Whether a policy has another value than its first. */
function deviates(policy: Policy): wasm.I32 {
  return wasm.load8(POLICIES, policy.index);
}

/** Sets {@linkcode ASSIST} and {@linkcode PAGE}; ends with 0 unless both pages are enabled and all of `usual` are zero. */
function begin(...usual: readonly wasm.I32[]): wasm.Code {
  const disabled = wasm.isZero(wasm.and(wasm.and(ASSIST, PAGE), wasm.constant(ENABLED)));
  return [
    ...wasm.setLocal(ASSIST_LOCAL, wasm.load32(VP_STATE, state.assist_page)),
    ...wasm.setLocal(PAGE_LOCAL, wasm.load32(VP_STATE, state.register_page)),
    ...wasm.when(
      wasm.or(disabled, deviates(REGISTER_PAGE), deviates(VTL_ENTRY), ...usual),
      wasm.result(wasm.constant(0)),
    ),
    ...wasm.setLocal(ASSIST_LOCAL, wasm.and(ASSIST, wasm.constant(GPA_MASK))),
    ...wasm.setLocal(PAGE_LOCAL, wasm.and(PAGE, wasm.constant(GPA_MASK))),
  ];
}

/** From the written message to the copy of it in the run page. */
function enterVtl2(): wasm.WasmFunction {
  const reason = wasm.constant(HvVtlEntryReason.values.INTERCEPT);
  const shadow = wasm.shiftLeft(
    wasm.isNotZero(wasm.load32(CPU_STATE, cpu.interrupt_shadow)),
    Math.log2(INTERRUPT_SHADOW),
  );
  const nmiMasked = wasm.shiftLeft(
    wasm.and(wasm.load32(CPU_STATE, cpu.nmi_masked), wasm.constant(1)),
    NMI_MASKED_SHIFT,
  );
  const message = (from: number, bytes: number): wasm.Code =>
    wasm.copy(RUN_PAGE, ASSIST, [[assist.intercept_message + from, run.exit_message + from, bytes]]);
  const longer = wasm.exceeds(wasm.load32(VP_STATE, state.message_span), wasm.constant(MESSAGE_FIRST));
  return {
    parameters: 4,
    locals: 2,
    gives: "i32",
    body: [
      begin(
        wasm.load8(VP_STATE, state.vtl2_runnable),
        wasm.load32(CPU_STATE, cpu.event),
        wasm.differs(wasm.load32(VP_STATE, state.vtl2_step), wasm.constant(MSHV_SAVE_REGISTERS)),
      ),
      wasm.store32(VP_STATE, state.entry_reason, reason),
      wasm.store32(ASSIST, assist["vtl_control.entry_reason"], reason),
      wasm.copy(PAGE, CPU_STATE, REGISTER_PAGE_MOVES),
      wasm.zero64(PAGE, page.pending_interruption),
      wasm.store32(PAGE, page.interrupt_state, wasm.or(shadow, nmiMasked)),
      wasm.store32(PAGE, page.dirty, wasm.constant(0)),
      wasm.store32(PAGE, page.version, wasm.constant(VALID_VTL0)),
      wasm.store8(VP_STATE, state.vtl2_runnable, wasm.constant(1)),
      wasm.store8(VP_STATE, state.active_vtl, wasm.constant(2)),
      wasm.copy(RUN_PAGE, CPU_STATE, SHARED_REGISTERS),
      message(0, MESSAGE_FIRST),
      wasm.when(longer, message(MESSAGE_FIRST, HvMessage.size - MESSAGE_FIRST)),
      wasm.constant(1),
    ],
  };
}

/** From the VMM's request to the guest's first instruction. */
function enterVtl0(): wasm.WasmFunction {
  const dirty = wasm.load32(PAGE, page.dirty);
  const valid = wasm.and(wasm.load32(PAGE, page.version), wasm.constant(IS_VALID));
  const eventPending = wasm.and(
    wasm.load32(VP_STATE, state.pending_event0),
    wasm.constant(HvX64PendingExceptionEvent.low.event_pending),
  );
  return {
    parameters: 4,
    locals: 2,
    gives: "i32",
    body: [
      begin(
        wasm.load32(VP_STATE, state.fx_saved),
        eventPending,
        wasm.isNotZero64(wasm.load64(VP_STATE, state.deliverability)),
        wasm.differs(wasm.load32(CPU_STATE, cpu.activity), wasm.constant(ACTIVITY_RUNNING)),
      ),
      wasm.when(
        wasm.or(
          wasm.isNotZero64(wasm.load64(ASSIST, assist.vtl_return_actions)),
          wasm.and(dirty, wasm.constant(~RIP_DIRTY)),
        ),
        wasm.result(wasm.constant(0)),
      ),
      wasm.copy(ASSIST, RUN_PAGE, VTL_CONTROL_MOVES),
      // RAX and RCX too: what the kernel's code leaves in them goes at the return, which takes them from the assist page.
      wasm.copy(CPU_STATE, RUN_PAGE, backwards(SHARED_REGISTERS)),
      wasm.store32(VP_STATE, state.vtl2_step, wasm.constant(MSHV_SAVE_REGISTERS)),
      wasm.when(
        valid,
        wasm.when(dirty, wasm.copy(CPU_STATE, PAGE, [[page.rip, cpu.rip, 8]])),
        wasm.store32(PAGE, page.dirty, wasm.constant(0)),
        wasm.store32(PAGE, page.version, wasm.constant(VERSION)),
      ),
      wasm.store8(VP_STATE, state.vtl2_runnable, wasm.constant(0)),
      wasm.store8(VP_STATE, state.active_vtl, wasm.constant(0)),
      wasm.constant(1),
    ],
  };
}

let compiled: { readonly enterVtl2: wasm.WasmCode<Stroke>; readonly enterVtl0: wasm.WasmCode<Stroke> } | undefined;

/** The two functions on a machine's memory. */
export class KernelStrokes {
  /** From the written message to the copy of it in the run page. */
  readonly enterVtl2: Stroke;
  /** From the VMM's request to the guest's first instruction. */
  readonly enterVtl0: Stroke;

  /** The functions on `memory`. Policies must have their numbers. */
  constructor(memory: MachineMemory) {
    compiled ??= { enterVtl2: new wasm.WasmCode(enterVtl2()), enterVtl0: new wasm.WasmCode(enterVtl0()) };
    this.enterVtl2 = compiled.enterVtl2.on(memory);
    this.enterVtl0 = compiled.enterVtl0.on(memory);
  }
}

combineSteps<KernelVp>(
  [WRITE_ENTRY_REASON, FILL_REGISTER_PAGE, MSHV_SAVE_REGISTERS, MSHV_COPY_MESSAGE],
  (vp) => {
    if (vp.savesFxEagerly || vp.observer !== undefined) return NOT_COMBINED;
    if (vp.strokes.enterVtl2(vp.cpuState, vp.state, vp.runPage, vp.policies) === 0) return NOT_COMBINED;
    vp.port.fence();
    vp.locals32[REQUEST_RESULT] = 0;
    return vp.return();
  },
);

combineSteps<KernelVp>([MSHV_LOAD_REGISTERS, VTL_RETURN, ENTER_VTL0], (vp) => {
  // An interrupt that is requested after this look is one that came after the VTL return.
  if (vp.observer !== undefined || vtl2InterruptPending(vp)) return NOT_COMBINED;
  if (vp.strokes.enterVtl0(vp.cpuState, vp.state, vp.runPage, vp.policies) === 0) return NOT_COMBINED;
  vp.port.fence();
  return GUEST_RUN;
});
