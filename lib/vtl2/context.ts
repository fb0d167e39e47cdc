/**
 * Byte offsets in messages and in the processor context that the handlers use, and what several of them do.
 *
 * @module
 */
import { hcl_cpu_context_x64 } from "../layout/hyperv/hcl_run.ts";
import { HvMessage, HvX64InterceptMessageHeader, HvX64VpExecutionState } from "../layout/hyperv/messages.ts";
import { HvX64PendingEventType, HvX64PendingExceptionEvent, HvX64PendingExtIntEvent } from "../layout/hyperv/events.ts";
import { HvX64RegisterName } from "../layout/hyperv/constants/registers.ts";
import { RFlags } from "../layout/x64/registers.ts";
import { IO_SINGLE_STEP } from "./policies.ts";
import { HANDLED, type HandlerResult, type VmmVp } from "./vmm_vp.ts";
import { VmmVpState } from "./vmm_state.ts";

/** Offset of the payload in a message. */
export const PAYLOAD: number = HvMessage.at.payload_buffer;
/** Offset in a message of the byte with the instruction's length. */
export const LENGTH_AND_CR8: number = PAYLOAD + HvX64InterceptMessageHeader.at.instruction_length_and_cr8;
/** Offset in a message of the access type. */
export const ACCESS_TYPE: number = PAYLOAD + HvX64InterceptMessageHeader.at.intercept_access_type;
/** Offset in a message of the execution state. */
export const EXECUTION_STATE: number = PAYLOAD + HvX64InterceptMessageHeader.at.execution_state;
/** Offset in a message of the code segment. */
export const CS_SEGMENT: number = PAYLOAD + HvX64InterceptMessageHeader.at.cs_segment;
/** Offset in a message of RIP. */
export const RIP: number = PAYLOAD + HvX64InterceptMessageHeader.at.rip;
/** Offset in a message of RFLAGS. */
export const RFLAGS: number = PAYLOAD + HvX64InterceptMessageHeader.at.rflags;

/** Offsets in the processor context. Slot 4 holds CR2, not RSP. */
export const CONTEXT = {
  /** RAX. */
  RAX: hcl_cpu_context_x64.at["gps_no_rsp.rax"],
  /** RCX. */
  RCX: hcl_cpu_context_x64.at["gps_no_rsp.rcx"],
  /** RDX. */
  RDX: hcl_cpu_context_x64.at["gps_no_rsp.rdx"],
  /** RBX. */
  RBX: hcl_cpu_context_x64.at["gps_no_rsp.rbx"],
  /** CR2. */
  CR2: hcl_cpu_context_x64.at["gps_no_rsp.cr2"],
  /** RSI. */
  RSI: hcl_cpu_context_x64.at["gps_no_rsp.rsi"],
  /** RDI. */
  RDI: hcl_cpu_context_x64.at["gps_no_rsp.rdi"],
  /** R8. */
  R8: hcl_cpu_context_x64.at["gps_no_rsp.r8"],
  /** The x87 and SSE image. */
  FX: hcl_cpu_context_x64.at.fx_state,
} as const;

const INSTRUCTION_LENGTH = 0xf;
const FLAG_TF = RFlags.low.trap;
const FLAG_RF = RFlags.low.resume;
const SHADOW = HvX64VpExecutionState.mask.interrupt_shadow;
const EVENT = VmmVpState.at.event;
const SET_VALUES = VmmVpState.at.set_values;
/** #DB. */
const VECTOR_DB = 1;
/** DR6.BS: the trap is a single step. */
const DR6_SINGLE_STEP = 0x4000n;
/** 64-bit words of a pending event, and 32-bit words of a register value. */
const EVENT_WORDS = 4;

/** The instruction length that the message gives, 0 to 15. */
export function instructionLength(vp: VmmVp): number {
  return vp.memory.u8[vp.message + LENGTH_AND_CR8] & INSTRUCTION_LENGTH;
}

/**
 * Completes the intercepted instruction: RIP moves `length` bytes past it, and is cut to 32 bits with `ip32`. What else completing an instruction does on a
 * processor is a policy.
 */
export function completeInstruction(vp: VmmVp, length: number, ip32 = false): HandlerResult {
  const { i32 } = vp.memory;
  const at = vp.message >>> 2;
  const old = i32[at + (RIP >>> 2)];
  const low = (old + length) | 0;
  const carry = (low >>> 0) < (old >>> 0) ? 1 : 0;
  vp.setRip(low, ip32 ? 0 : (i32[at + (RIP >>> 2) + 1] + carry) | 0);
  const flags = i32[at + (RFLAGS >>> 2)];
  const shadow = vp.memory.u16[(vp.message + EXECUTION_STATE) >>> 1] & SHADOW;
  if ((flags & (FLAG_TF | FLAG_RF)) === 0 && shadow === 0) return HANDLED;
  return vp.policy(IO_SINGLE_STEP) === IO_SINGLE_STEP.is.silicon ? retire(vp, flags, shadow !== 0) : HANDLED;
}

const RFLAGS_ONLY: readonly number[] = [HvX64RegisterName.values.Rflags];

/** Sets RFLAGS, whose upper half is zero. */
function setFlags(vp: VmmVp, flags: number): void {
  const { i32 } = vp.memory;
  const at = (vp.state + SET_VALUES) >>> 2;
  i32.fill(0, at, at + EVENT_WORDS);
  i32[at] = flags;
  vp.setRegisters(RFLAGS_ONLY, vp.state + SET_VALUES);
}

/** What retiring an instruction does beside moving RIP. */
function retire(vp: VmmVp, flags: number, shadow: boolean): HandlerResult {
  if (flags & FLAG_RF) setFlags(vp, flags & ~FLAG_RF);
  if (shadow) vp.clearInterruptShadow();
  if (flags & FLAG_TF) injectException(vp, VECTOR_DB, false, 0, DR6_SINGLE_STEP);
  return HANDLED;
}

/** Injects an exception; `parameter` is CR2 of a page fault or the DR6 bits of a debug exception. */
export function injectException(vp: VmmVp, vector: number, hasError: boolean, error: number, parameter: bigint): void {
  const { u64 } = vp.memory;
  const at = (vp.state + EVENT) >>> 3;
  const event = HvX64PendingExceptionEvent.make({
    event_pending: 1,
    event_type: HvX64PendingEventType.values.EXCEPTION,
    deliver_error_code: hasError,
    vector,
    error_code: error >>> 0,
    exception_parameter: parameter,
  });
  u64[at] = BigInt.asUintN(64, event);
  u64[at + 1] = event >> 64n;
  u64[at + 2] = 0n;
  u64[at + 3] = 0n;
  vp.injectEvent(vp.state + EVENT);
}

/** Makes the intercepted instruction fault: RIP stays. A processor saves the flags of a fault with RF set. */
export function injectFault(vp: VmmVp, vector: number, error: number): void {
  if (vp.policy(IO_SINGLE_STEP) === IO_SINGLE_STEP.is.silicon) {
    setFlags(vp, vp.memory.i32[(vp.message + RFLAGS) >>> 2] | FLAG_RF);
  }
  injectException(vp, vector, true, error, 0n);
}

/** Injects an interrupt of the 8259 interrupt controllers. */
export function injectExtInt(vp: VmmVp, vector: number): void {
  const { u64 } = vp.memory;
  const at = (vp.state + EVENT) >>> 3;
  u64.fill(0n, at, at + EVENT_WORDS);
  u64[at] = HvX64PendingExtIntEvent.make({
    event_pending: 1,
    event_type: HvX64PendingEventType.values.EXT_INT,
    vector,
  });
  vp.injectEvent(vp.state + EVENT);
}
