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
import { ACTIVITY_RUNNING, CpuState, EXIT_IN, EXIT_IO, EXIT_REP, EXIT_STRING } from "../cpu/state.ts";
import { GUEST_RUN } from "../hypervisor/guest.ts";
import { INTERRUPT_SHADOW, NMI_MASKED_SHIFT, VALID_VTL0, VERSION } from "../hypervisor/register_page.ts";
import { IO_PORT } from "../hypervisor/intercept_message.ts";
import { WRITE_INTERCEPT_MESSAGE } from "../hypervisor/intercepts.ts";
import { ioPortMessage, REGISTER_PAGE_MOVES } from "../hypervisor/vp_copies.ts";
import { EXIT_KIND, HypervisorVpState } from "../hypervisor/vp_state.ts";
import { FILL_REGISTER_PAGE, REGISTER_PAGE, VTL_ENTRY, WRITE_ENTRY_REASON } from "../hypervisor/vtl_entry.ts";
import { ENTER_VTL0, VTL_RETURN } from "../hypervisor/vtl_return.ts";
import { HvVpAssistPage } from "../layout/hyperv/assist_page.ts";
import { HvVtlEntryReason } from "../layout/hyperv/constants/messages.ts";
import { HvX64PendingExceptionEvent } from "../layout/hyperv/events.ts";
import { hcl_run } from "../layout/hyperv/hcl_run.ts";
import { HvMessage } from "../layout/hyperv/messages.ts";
import { HvX64RegisterPage, HvX64RegisterPageDirtyFlags } from "../layout/hyperv/register_page.ts";
import { AgentBlock, RETURN_STACK_DEPTH } from "../memory/agent.ts";
import { type MachineMemory, PAGE_SIZE } from "../memory/machine_memory.ts";
import type { Policy } from "../memory/policy.ts";
import { combineSteps, NOT_COMBINED, type StepId } from "../memory/steps.ts";
import * as wasm from "../memory/wasm_code.ts";
import { backwards, SHARED_REGISTERS, VTL_CONTROL_MOVES } from "./kernel_copies.ts";
import type { KernelVp } from "./kernel_vp.ts";
import { KERNEL_PAGES, VmmRunState } from "./kernel_pages.ts";
import {
  MSHV_COPY_MESSAGE,
  MSHV_LOAD_REGISTERS,
  MSHV_RETURN_TO_LOWER_VTL,
  MSHV_SAVE_REGISTERS,
  REQUEST_RESULT,
} from "./mshv_vtl.ts";
import { DISPATCH, ENTER_LOWER_VTL, HANDLE_IO_PORT, HANDLE_WAKE, RUN_VP } from "./run_loop.ts";
import { VmmVpState } from "./vmm_state.ts";

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

const PORT_OUT = EXIT_KIND["out"];
const PORT_IN = EXIT_KIND["in"];
const block = AgentBlock.at;
const RETURN_BYTES = 4;
/** Distances of the kernel's pages of a VP from its run page. */
const RUN_STATE = (KERNEL_PAGES.RUN_STATE - KERNEL_PAGES.RUN) * PAGE_SIZE;
const VMM_STATE = (KERNEL_PAGES.VMM - KERNEL_PAGES.RUN) * PAGE_SIZE;

// Parameters and locals of the functions.
const CPU_STATE = wasm.local(0);
const VP_STATE = wasm.local(1);
const RUN_PAGE = wasm.local(2);
const POLICIES = wasm.local(3);
const BLOCK = wasm.local(4);
const VP_INDEX = wasm.local(5);
const CPL = wasm.local(6);
const PARAMETERS = 7;
const ASSIST_LOCAL = 7;
const PAGE_LOCAL = 8;
const DEPTH_LOCAL = 9;
const LOCALS = 3;
const ASSIST = wasm.local(ASSIST_LOCAL);
const PAGE = wasm.local(PAGE_LOCAL);
const DEPTH = wasm.local(DEPTH_LOCAL);
/** What the innermost return step is at, but for the offset of the first. */
const RETURN = wasm.add(BLOCK, wasm.shiftLeft(DEPTH, Math.log2(RETURN_BYTES)));

/** One of the functions: 1 when it has done everything, 0 when it has done nothing. */
type Stroke = (
  cpuState: number,
  vpState: number,
  runPage: number,
  policies: number,
  block: number,
  vpIndex: number,
  cpl: number,
) => number;

/** Ends with 0 unless all of `usual` are zero. */
function require(...usual: readonly [wasm.I32, ...wasm.I32[]]): wasm.Code {
  return wasm.when(wasm.or(...usual), wasm.result(wasm.constant(0)));
}

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
    ...wasm.setLocal(DEPTH_LOCAL, wasm.load32(BLOCK, block.depth)),
    ...require(disabled, deviates(REGISTER_PAGE), deviates(VTL_ENTRY), ...usual),
    ...wasm.setLocal(ASSIST_LOCAL, wasm.and(ASSIST, wasm.constant(GPA_MASK))),
    ...wasm.setLocal(PAGE_LOCAL, wasm.and(PAGE, wasm.constant(GPA_MASK))),
  ];
}

/** Entry of VTL2: reason, register page, registers into the run page. */
function enterVtl2(): wasm.Code {
  const reason = wasm.constant(HvVtlEntryReason.values.INTERCEPT);
  const shadow = wasm.bitWhen(wasm.load32(CPU_STATE, cpu.interrupt_shadow), INTERRUPT_SHADOW);
  const nmiMasked = wasm.shiftLeft(
    wasm.and(wasm.load32(CPU_STATE, cpu.nmi_masked), wasm.constant(1)),
    NMI_MASKED_SHIFT,
  );
  return [
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
  ].flat();
}

/** Copies the message to the run page. */
function copyMessage(): wasm.Code {
  const message = (from: number, bytes: number): wasm.Code =>
    wasm.copy(RUN_PAGE, ASSIST, [[assist.intercept_message + from, run.exit_message + from, bytes]]);
  const longer = wasm.exceeds(wasm.load32(VP_STATE, state.message_span), wasm.constant(MESSAGE_FIRST));
  return [
    ...message(0, MESSAGE_FIRST),
    ...wasm.when(longer, message(MESSAGE_FIRST, HvMessage.size - MESSAGE_FIRST)),
  ];
}

/** What must be zero for an entry of VTL2 to take its usual course. */
const ENTRY_USUAL: readonly wasm.I32[] = [
  wasm.load8(VP_STATE, state.vtl2_runnable),
  wasm.load32(CPU_STATE, cpu.event),
  wasm.differs(wasm.load32(VP_STATE, state.vtl2_step), wasm.constant(MSHV_SAVE_REGISTERS)),
];

/** Takes the innermost return step, which is the VMM's dispatch: a condition that must be zero, and the action. */
const NOT_FROM_VMM = wasm.differs(wasm.load32(RETURN, block.returns - RETURN_BYTES), wasm.constant(DISPATCH));
const RETURN_TO_VMM: wasm.Code = [
  ...wasm.store32(RETURN, block.returns - RETURN_BYTES, wasm.constant(0)),
  ...wasm.store32(BLOCK, block.depth, wasm.add(DEPTH, wasm.constant(-1))),
  ...wasm.store32(BLOCK, block.locals + REQUEST_RESULT * 4, wasm.constant(0)),
];

function stroke(...body: readonly wasm.Code[]): wasm.WasmCode<Stroke> {
  return new wasm.WasmCode({ parameters: PARAMETERS, locals: LOCALS, gives: "i32", body: [...body, wasm.constant(1)] });
}

/** From the written message to the VMM, which has it in the run page. */
const fromMessage = () => stroke(begin(...ENTRY_USUAL, NOT_FROM_VMM), enterVtl2(), copyMessage(), RETURN_TO_VMM);

/** From a port exit to the VMM's handler. */
function fromPort(): wasm.WasmCode<Stroke> {
  const flags = wasm.load8(CPU_STATE, cpu.exit_flags);
  const message = wasm.add(ASSIST, wasm.constant(assist.intercept_message));
  const out = wasm.isZero(wasm.and(flags, wasm.constant(EXIT_IN)));
  const kind = wasm.xor(wasm.constant(PORT_IN), wasm.and(out, wasm.constant(PORT_IN ^ PORT_OUT)));
  return stroke(
    begin(
      ...ENTRY_USUAL,
      NOT_FROM_VMM,
      wasm.differs(wasm.load32(CPU_STATE, cpu.exit_reason), wasm.constant(EXIT_IO)),
      wasm.and(flags, wasm.constant(EXIT_STRING | EXIT_REP)),
    ),
    // The message before was one of the same type, so that every word that is not zero is written.
    require(wasm.differs(wasm.load32(ASSIST, assist.intercept_message), wasm.constant(IO_PORT))),
    wasm.increment64(wasm.add(VP_STATE, wasm.shiftLeft(kind, 3)), state.exits),
    ioPortMessage({ message, cpuState: CPU_STATE, vpIndex: VP_INDEX, cpl: CPL }),
    enterVtl2(),
    copyMessage(),
    RETURN_TO_VMM,
  );
}

/** From the VMM's run loop to the guest's first instruction. */
function toGuest(): wasm.WasmCode<Stroke> {
  const dirty = wasm.load32(PAGE, page.dirty);
  const valid = wasm.and(wasm.load32(PAGE, page.version), wasm.constant(IS_VALID));
  const eventPending = wasm.and(
    wasm.load32(VP_STATE, state.pending_event0),
    wasm.constant(HvX64PendingExceptionEvent.low.event_pending),
  );
  const vmm = (offset: number) => wasm.load32(RUN_PAGE, VMM_STATE + offset);
  const { deliverability_next: next, deliverability_current: current } = VmmVpState.at;
  return stroke(
    begin(
      wasm.load32(RUN_PAGE, RUN_STATE + VmmRunState.at.stop),
      wasm.load32(RUN_PAGE, run.cancel),
      wasm.load32(RUN_PAGE, RUN_STATE + VmmRunState.at.wake),
      wasm.differs(vmm(next), vmm(current)),
      wasm.differs(vmm(next + 4), vmm(current + 4)),
      wasm.load32(VP_STATE, state.vtl2_irr_summary),
      wasm.load32(VP_STATE, state.fx_saved),
      eventPending,
      wasm.isNotZero64(wasm.load64(VP_STATE, state.deliverability)),
      wasm.differs(wasm.load32(CPU_STATE, cpu.activity), wasm.constant(ACTIVITY_RUNNING)),
      wasm.exceeds(DEPTH, wasm.constant(RETURN_STACK_DEPTH - 1)),
    ),
    require(
      wasm.isNotZero64(wasm.load64(ASSIST, assist.vtl_return_actions)),
      wasm.and(dirty, wasm.constant(~RIP_DIRTY)),
    ),
    wasm.store32(RETURN, block.returns, wasm.constant(DISPATCH)),
    wasm.store32(BLOCK, block.depth, wasm.add(DEPTH, wasm.constant(1))),
    wasm.copy(ASSIST, RUN_PAGE, VTL_CONTROL_MOVES),
    // RAX and RCX too: what the kernel's code leaves in them goes at the return, which takes them from the assist page.
    wasm.copy(CPU_STATE, RUN_PAGE, backwards(SHARED_REGISTERS)),
    wasm.store32(VP_STATE, state.vtl2_step, wasm.constant(MSHV_SAVE_REGISTERS)),
    wasm.when(
      valid,
      wasm.when(dirty, wasm.copy(CPU_STATE, PAGE, [[page.rip, cpu.rip, 4], [page.rip + 4, cpu.rip + 4, 4]])),
      wasm.store32(PAGE, page.dirty, wasm.constant(0)),
      wasm.store32(PAGE, page.version, wasm.constant(VERSION)),
    ),
    wasm.store8(VP_STATE, state.vtl2_runnable, wasm.constant(0)),
    wasm.store8(VP_STATE, state.active_vtl, wasm.constant(0)),
  );
}

let compiled:
  | { readonly [K in "fromMessage" | "fromPort" | "toGuest"]: wasm.WasmCode<Stroke> }
  | undefined;

/** The functions on a machine's memory. */
export class KernelStrokes {
  /** From the written message to the VMM. */
  readonly fromMessage: Stroke;
  /** From a port exit to the VMM's handler. */
  readonly fromPort: Stroke;
  /** From the VMM's run loop to the guest's first instruction. */
  readonly toGuest: Stroke;

  /** The functions on `memory`. Policies must have their numbers. */
  constructor(memory: MachineMemory) {
    compiled ??= { fromMessage: fromMessage(), fromPort: fromPort(), toGuest: toGuest() };
    this.fromMessage = compiled.fromMessage.on(memory);
    this.fromPort = compiled.fromPort.on(memory);
    this.toGuest = compiled.toGuest.on(memory);
  }
}

/**
 * Whether nobody wants to see what happens between the steps. A sidecar processor, which takes some of the same steps on the
 * same worker, has no kernel whose pages they use.
 */
function unseen(vp: KernelVp): boolean {
  return vp.observer === undefined && vp.savesFxEagerly === false;
}

/** Does a stroke and returns `next`, or {@linkcode NOT_COMBINED}. */
function strike(vp: KernelVp, stroke: Stroke, next: StepId): StepId {
  const done = stroke(vp.cpuState, vp.state, vp.runPage, vp.policies, vp.block, vp.index, vp.cpu.cpl);
  if (done === 0) return NOT_COMBINED;
  vp.port.fence();
  return next;
}

combineSteps<KernelVp>(
  [WRITE_ENTRY_REASON, FILL_REGISTER_PAGE, MSHV_SAVE_REGISTERS, MSHV_COPY_MESSAGE],
  (vp) => unseen(vp) ? strike(vp, vp.strokes.fromMessage, DISPATCH) : NOT_COMBINED,
);

combineSteps<KernelVp>(
  [WRITE_INTERCEPT_MESSAGE, WRITE_ENTRY_REASON, FILL_REGISTER_PAGE, MSHV_SAVE_REGISTERS, MSHV_COPY_MESSAGE, DISPATCH],
  (vp) => unseen(vp) ? strike(vp, vp.strokes.fromPort, HANDLE_IO_PORT) : NOT_COMBINED,
);

// An interrupt or a wake-up that comes after the stroke's look at it is one that came after the step that looks.
combineSteps<KernelVp>(
  [
    RUN_VP,
    HANDLE_WAKE,
    ENTER_LOWER_VTL,
    MSHV_RETURN_TO_LOWER_VTL,
    MSHV_LOAD_REGISTERS,
    VTL_RETURN,
    ENTER_VTL0,
  ],
  (vp) => unseen(vp) ? strike(vp, vp.strokes.toGuest, GUEST_RUN) : NOT_COMBINED,
);
