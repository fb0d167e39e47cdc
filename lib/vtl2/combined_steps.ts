/**
 * The exit path of the `kernel` platform in two strokes: what hypervisor and kernel do from the exit to the VMM's handler,
 * and from the VMM's run loop to the guest, when nothing unusual is to be done.
 *
 * All of it touches pages and state of one VP only, in an order that nobody else can observe, so that a runtime in which
 * nobody looks between the steps can do them at once. A stroke is made of the code of the steps' own modules, and says for
 * itself only what the usual course is. It is compiled for one VP, whose addresses are constants in it.
 *
 * The kernel's copy of the message is written together with the message, from the same registers, instead of being read
 * back: both hold a message of the same type before, so that no other word of either can be other than zero.
 *
 * @module
 */
import {
  ACTIVITY_RUNNING,
  CpuState,
  EXIT_CPUID,
  EXIT_IN,
  EXIT_IO,
  EXIT_MMIO,
  EXIT_MSR,
  EXIT_REP,
  EXIT_STRING,
} from "../cpu/state.ts";
import { GUEST_RUN } from "../hypervisor/guest.ts";
import { MESSAGE_TYPE } from "../hypervisor/intercept_message.ts";
import { WRITE_INTERCEPT_MESSAGE } from "../hypervisor/intercepts.ts";
import {
  cpuidMessage,
  ioPortMessage,
  memoryMessage,
  type MessageOperands,
  msrMessage,
} from "../hypervisor/message_code.ts";
import { applyCode, fillCode, segmentsDirty } from "../hypervisor/register_page.ts";
import { EXIT_KIND, type ExitKind, HypervisorVpState } from "../hypervisor/vp_state.ts";
import {
  FILL_REGISTER_PAGE,
  INTERCEPT_PAGE,
  interceptEntryCode,
  REGISTER_PAGE,
  VTL_ENTRY,
  WRITE_ENTRY_REASON,
} from "../hypervisor/vtl_entry.ts";
import { ENTER_VTL0, returnCode, VTL_RETURN } from "../hypervisor/vtl_return.ts";
import { HvVpAssistPage } from "../layout/hyperv/assist_page.ts";
import { HvX64PendingExceptionEvent } from "../layout/hyperv/events.ts";
import { hcl_run } from "../layout/hyperv/hcl_run.ts";
import { callCode, localAt, mayCall, returnCode as agentReturnCode, returnsTo } from "../memory/agent_code.ts";
import { backwards } from "../memory/copy_plan.ts";
import { PAGE_SHIFT } from "../memory/machine_memory.ts";
import type { Policy } from "../memory/policy.ts";
import { combineSteps, NOT_COMBINED, type StepId } from "../memory/steps.ts";
import * as wasm from "../memory/wasm_code.ts";
import { FX_IMAGE, SHARED_REGISTERS, VTL_CONTROL_MOVES } from "./kernel_copies.ts";
import { VmmRunState } from "./kernel_pages.ts";
import type { KernelVp } from "./kernel_vp.ts";
import {
  MSHV_COPY_MESSAGE,
  MSHV_LOAD_REGISTERS,
  MSHV_RETURN_TO_LOWER_VTL,
  MSHV_SAVE_REGISTERS,
  REQUEST_RESULT,
} from "./mshv_vtl.ts";
import {
  DISPATCH,
  ENTER_LOWER_VTL,
  HANDLE_CPUID,
  HANDLE_IO_PORT,
  HANDLE_MSR,
  HANDLE_WAKE,
  RUN_VP,
  SAVE_FX,
} from "./run_loop.ts";
import { VmmVpState } from "./vmm_state.ts";

const state = HypervisorVpState.at;
const cpu = CpuState.at;
const assist = HvVpAssistPage.at;
const run = hcl_run.at;
/** Bit 0 of an overlay register: enabled. */
const ENABLED = 1;

/** Parameter and locals of the functions. */
const CPL = wasm.local(0);
const NEXT_LOCAL = 1;
const SCRATCH_LOCAL = 2;

/**
 * The strokes of a VP. Each does its steps and returns the one that follows, or does nothing and returns
 * {@linkcode NOT_COMBINED}.
 */
export class KernelStrokes {
  /** From an exit of VTL0, which runs at privilege level `cpl`, to the VMM's handler. */
  readonly fromExit: (cpl: number) => StepId;
  /** From the VMM's run loop to the guest's next instruction. */
  readonly toGuest: () => StepId;
  readonly #vp: KernelVp;
  readonly #cpuState: wasm.I32;
  readonly #vpState: wasm.I32;
  readonly #runPage: wasm.I32;
  readonly #assist: wasm.I32;
  readonly #page: wasm.I32;
  readonly #block: wasm.I32;

  /** The strokes of `vp`, whose assist and register page are where they will stay. Policies must have their numbers. */
  constructor(vp: KernelVp) {
    this.#vp = vp;
    this.#cpuState = wasm.constant(vp.cpuState);
    this.#vpState = wasm.constant(vp.state);
    this.#runPage = wasm.constant(vp.runPage);
    this.#assist = wasm.constant(vp.assistPage);
    this.#page = wasm.constant(vp.registerPage);
    this.#block = wasm.constant(vp.block);
    this.fromExit = this.#compile(1, this.#fromExit());
    this.toGuest = this.#compile(0, this.#toGuest());
  }

  #compile<F extends (...parameters: number[]) => StepId>(parameters: number, body: readonly wasm.Code[]): F {
    return wasm.codeFor<F>(this.#vp.memory, { parameters, locals: 2, gives: "i32", body });
  }

  /** Whether a policy has another value than its first. */
  #deviates(policy: Policy): wasm.I32 {
    return wasm.load8(wasm.constant(this.#vp.partition.config.policies), policy.index);
  }

  /** What must be zero for either stroke: the pages are where they were, the policies are the usual ones. */
  #usual(): readonly [wasm.I32, ...wasm.I32[]] {
    const elsewhere = (register: number, page: number) =>
      wasm.differs(wasm.load32(this.#vpState, register), wasm.constant(page | ENABLED));
    return [
      elsewhere(state.assist_page, this.#vp.assistPage),
      elsewhere(state.register_page, this.#vp.registerPage),
      this.#deviates(INTERCEPT_PAGE),
      this.#deviates(REGISTER_PAGE),
      this.#deviates(VTL_ENTRY),
    ];
  }

  #fromExit(): readonly wasm.Code[] {
    const vpState = this.#vpState;
    const word = (offset: number) => wasm.load32(this.#cpuState, offset);
    const flags = wasm.load8(this.#cpuState, cpu.exit_flags);
    const isIn = wasm.and(flags, wasm.constant(EXIT_IN));
    const isWrite = word(cpu.exit_write);
    const { partition } = this.#vp;
    const page = wasm.shiftRight(word(cpu.exit_gpa), PAGE_SHIFT);
    return [
      require(
        ...this.#usual(),
        wasm.load8(vpState, state.vtl2_runnable),
        word(cpu.event),
        wasm.differs(wasm.load32(vpState, state.vtl2_step), wasm.constant(MSHV_SAVE_REGISTERS)),
        wasm.isZero(returnsTo(this.#block, DISPATCH)),
      ),
      this.#exit(EXIT_IO, {
        unless: [wasm.and(flags, wasm.constant(EXIT_STRING | EXIT_REP))],
        type: MESSAGE_TYPE.IO_PORT,
        kind: kindOf(isIn, "in", "out"),
        message: ioPortMessage,
        handler: HANDLE_IO_PORT,
      }),
      this.#exit(EXIT_CPUID, {
        unless: [],
        type: MESSAGE_TYPE.CPUID,
        kind: wasm.constant(EXIT_KIND.cpuid),
        message: cpuidMessage,
        handler: HANDLE_CPUID,
      }),
      this.#exit(EXIT_MSR, {
        unless: [],
        type: MESSAGE_TYPE.MSR,
        kind: kindOf(isWrite, "wrmsr", "rdmsr"),
        message: msrMessage,
        handler: HANDLE_MSR,
      }),
      this.#exit(EXIT_MMIO, {
        // Memory that is there, and above 4 GiB, is for the step.
        unless: [word(cpu.exit_gpa + 4), wasm.exceeds(wasm.constant(partition.pages), page)],
        type: MESSAGE_TYPE.UNMAPPED,
        kind: kindOf(isWrite, "mmio-write", "mmio-read"),
        message: memoryMessage,
        handler: SAVE_FX,
      }),
      require(wasm.isZero(wasm.local(NEXT_LOCAL))),
      interceptEntryCode(vpState, this.#assist),
      fillCode(this.#page, this.#cpuState),
      wasm.copy(this.#runPage, this.#cpuState, SHARED_REGISTERS),
      agentReturnCode(this.#block),
      wasm.store32(this.#block, localAt(REQUEST_RESULT), wasm.constant(0)),
      wasm.local(NEXT_LOCAL),
    ];
  }

  /** Writes the message of an exit for `reason`, if it is that and usual, and notes the step that handles it. */
  #exit(reason: number, exit: UsualExit): wasm.Code {
    const vpState = this.#vpState;
    const messages = [
      wasm.constant(this.#vp.assistPage + assist.intercept_message),
      wasm.constant(this.#vp.runPage + run.exit_message),
    ];
    const other = messages.map((message) => wasm.differs(wasm.load32(message, 0), wasm.constant(exit.type)));
    const operands: MessageOperands = {
      targets: messages,
      cpuState: this.#cpuState,
      vpState,
      vpIndex: wasm.constant(this.#vp.index),
      cpl: CPL,
      scratch: SCRATCH_LOCAL,
    };
    return wasm.when(
      wasm.equals(wasm.load32(this.#cpuState, cpu.exit_reason), reason),
      require(wasm.constant(0), ...exit.unless, ...other),
      wasm.increment64(wasm.add(vpState, wasm.shiftLeft(exit.kind, 3)), state.exits),
      exit.message(operands),
      wasm.setLocal(NEXT_LOCAL, wasm.constant(exit.handler)),
    );
  }

  #toGuest(): readonly wasm.Code[] {
    const vpState = this.#vpState;
    const runPage = this.#runPage;
    const runState = (offset: number) => wasm.load32(wasm.constant(this.#vp.runState), offset);
    const vmm = (offset: number) => wasm.load32(wasm.constant(this.#vp.vmm.state), offset);
    const { deliverability_next: next, deliverability_current: current } = VmmVpState.at;
    const eventPending = wasm.and(
      wasm.load32(vpState, state.pending_event0),
      wasm.constant(HvX64PendingExceptionEvent.low.event_pending),
    );
    return [
      require(
        ...this.#usual(),
        runState(VmmRunState.at.stop),
        runState(VmmRunState.at.wake),
        wasm.load32(runPage, run.cancel),
        wasm.differs(vmm(next), vmm(current)),
        wasm.differs(vmm(next + 4), vmm(current + 4)),
        wasm.load32(vpState, state.vtl2_irr_summary),
        eventPending,
        wasm.isNotZero64(wasm.load64(vpState, state.deliverability)),
        wasm.differs(wasm.load32(this.#cpuState, cpu.activity), wasm.constant(ACTIVITY_RUNNING)),
        wasm.isZero(mayCall(this.#block)),
        wasm.isNotZero64(wasm.load64(this.#assist, assist.vtl_return_actions)),
        segmentsDirty(this.#page),
      ),
      callCode(this.#block, DISPATCH),
      wasm.copy(this.#assist, runPage, VTL_CONTROL_MOVES),
      // RAX and RCX too: what the kernel's code leaves in them goes at the return, which takes them from the assist page.
      wasm.copy(this.#cpuState, runPage, backwards(SHARED_REGISTERS)),
      wasm.when(
        wasm.load32(vpState, state.fx_saved),
        wasm.copy(this.#cpuState, runPage, backwards(FX_IMAGE)),
        wasm.store32(vpState, state.fx_saved, wasm.constant(0)),
      ),
      wasm.store32(vpState, state.vtl2_step, wasm.constant(MSHV_SAVE_REGISTERS)),
      applyCode(this.#page, this.#cpuState),
      returnCode(vpState),
      wasm.constant(GUEST_RUN),
    ];
  }
}

/** What is usual about an exit, and what is done about it. */
interface UsualExit {
  /** What must be zero. */
  readonly unless: readonly wasm.I32[];
  /** Type of the message. */
  readonly type: number;
  /** Number of the kind of exit. */
  readonly kind: wasm.I32;
  /** The message's words. */
  readonly message: (operands: MessageOperands) => wasm.Code;
  /** The step to which the VMM's dispatch goes. */
  readonly handler: StepId;
}

/** The number of one kind of exit or of another. */
function kindOf(condition: wasm.I32, kind: ExitKind, otherwise: ExitKind): wasm.I32 {
  return wasm.select(condition, wasm.constant(EXIT_KIND[kind]), wasm.constant(EXIT_KIND[otherwise]));
}

/** Ends with {@linkcode NOT_COMBINED} unless all of `usual` are zero. */
function require(...usual: readonly [wasm.I32, ...wasm.I32[]]): wasm.Code {
  return wasm.orElse(NOT_COMBINED, ...usual);
}

/** The strokes of `vp`, unless somebody wants to see what happens between the steps. */
function unseen(vp: KernelVp): KernelStrokes | undefined {
  return vp.observer === undefined ? vp.strokes : undefined;
}

/** A stroke has been done, or not: its switch of VTLs drains the store buffer. */
function struck(vp: KernelVp, next: StepId): StepId {
  if (next !== NOT_COMBINED) vp.port.fence();
  return next;
}

combineSteps<KernelVp>(
  [WRITE_INTERCEPT_MESSAGE, WRITE_ENTRY_REASON, FILL_REGISTER_PAGE, MSHV_SAVE_REGISTERS, MSHV_COPY_MESSAGE, DISPATCH],
  (vp) => {
    const strokes = unseen(vp);
    return strokes === undefined ? NOT_COMBINED : struck(vp, strokes.fromExit(vp.cpu.cpl));
  },
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
  (vp) => {
    const strokes = unseen(vp);
    return strokes === undefined ? NOT_COMBINED : struck(vp, strokes.toGuest());
  },
);
