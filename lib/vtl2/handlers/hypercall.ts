/**
 * Hypercalls of the guest that the hypervisor passes on to VTL2 (openvmm: openhcl/virt_mshv_vtl, processor/mshv/x64.rs
 * handle_hypercall_exit; vm/hv1/hv1_hypercall; TLFS, Hypercall Interface).
 *
 * Registers come from the processor context; the message gives only RIP and the execution state. Input is copied before
 * it is looked at.
 *
 * @module
 */
import { HvStatus, HYPERCALL_ABI, HypercallCode } from "../../layout/hyperv/constants/hypercalls.ts";
import {
  GetSetVpRegisters,
  GetVpIndexFromApicId,
  HvInputVtl,
  HypercallInputControl,
  HypercallOutput,
  ModifyVtlProtectionMask,
  PostMessage,
  RestorePartitionTime,
  RetargetDeviceInterrupt,
  SignalEvent,
} from "../../layout/hyperv/hypercalls.ts";
import { HvX64VpExecutionState } from "../../layout/hyperv/messages.ts";
import { Fxsave } from "../../layout/x64/fxsave.ts";
import { completeInstruction, CONTEXT, EXECUTION_STATE, instructionLength } from "../context.ts";
import { HYPERCALL_RIP } from "../policies.ts";
import { HANDLED, type HandlerResult, type VmmVp } from "../vmm_vp.ts";
import { VmmVpState } from "../vmm_state.ts";

const { Success, InvalidHypercallCode, InvalidHypercallInput, InvalidAlignment, InvalidParameter, AccessDenied } =
  HvStatus.values;
const { InvalidPartitionId, InvalidConnectionId, Timeout } = HvStatus.values;
const INPUT = VmmVpState.at.hypercall_input;
const OUTPUT = VmmVpState.at.hypercall_output;
const XMM = CONTEXT.FX + Fxsave.at.xmm;
const LONG = HvX64VpExecutionState.mask.cr0_pe | HvX64VpExecutionState.mask.efer_lma;
const RESERVED = HypercallInputControl.reserved;
const PAGE_SIZE = HYPERCALL_ABI.PAGE_SIZE;
/** Bytes of one register pair of the fast form. */
const PAIR = 16;
/** Pairs of the fast form in 64-bit mode: RDX:R8 and XMM0 to XMM5. */
const PAIRS_64 = 7;
/** Pairs in 32-bit mode: EBX:ECX and EDI:ESI. */
const PAIRS_32 = 1;
/** Addresses above this are outside any guest's memory. */
const GPA_MAX = BigInt(Number.MAX_SAFE_INTEGER);

/** A call in progress: plain fields, one object for all calls. */
class Call {
  long = false;
  control = 0n;
  repCount = 0;
  repStart = 0;
  /** Byte offset of the copied input. */
  input = 0;
  /** Byte offset of the output. */
  output = 0;
  /** Elements done in all. */
  completed = 0;
}

/** How a call is made up, and what carries it out. */
interface CallForm {
  /** Bytes of the fixed input. */
  readonly header: number;
  /** Bytes of each input element of a rep call; absent for a simple call. */
  readonly element?: number;
  /** Bytes of the output: of each element for a rep call. */
  readonly output: number;
  /** Whether a variable header may follow the fixed one. */
  readonly variableHeader?: boolean;
  /** Carries out the whole call (simple) or element `index` (rep); an HvStatus. */
  readonly run: (vp: VmmVp, call: Call, index: number) => number;
}

/** The calls that the VMM carries out; every other code is invalid. */
const FORMS: ReadonlyMap<number, CallForm> = new Map<number, CallForm>([
  [HypercallCode.values.HvCallPostMessage, { header: PostMessage.size, output: 0, run: postMessage }],
  [HypercallCode.values.HvCallSignalEvent, { header: SignalEvent.size, output: 0, run: signalEvent }],
  [HypercallCode.values.HvCallRetargetDeviceInterrupt, {
    header: RetargetDeviceInterrupt.size,
    output: 0,
    variableHeader: true,
    run: (vp, call) => onOwnPartition(vp, call, () => vp.partition.retargetDeviceInterrupt(call.input)),
  }],
  [HypercallCode.values.HvCallGetVpIndexFromApicId, {
    header: GetVpIndexFromApicId.size,
    element: 4,
    output: 4,
    run: getVpIndexFromApicId,
  }],
  // Only VsmPartitionConfig of a hardware-isolated guest is set this way, and there is none here.
  [HypercallCode.values.HvCallSetVpRegisters, {
    header: GetSetVpRegisters.size,
    element: HYPERCALL_ABI.REGISTER_ASSOC_SIZE,
    output: 0,
    run: (vp, call) => onOwnPartition(vp, call, () => InvalidParameter),
  }],
  [HypercallCode.values.HvCallModifyVtlProtectionMask, {
    header: ModifyVtlProtectionMask.size,
    element: 8,
    output: 0,
    run: modifyVtlProtectionMask,
  }],
  [HypercallCode.values.HvCallRestorePartitionTime, {
    header: RestorePartitionTime.size,
    output: 0,
    run: (vp, call) => onOwnPartition(vp, call, () => vp.partition.restorePartitionTime(call.input)),
  }],
]);

const call = new Call();

/** Handles a hypercall intercept: carries the call out, stores its result and moves RIP past the instruction. */
export function handleHypercall(vp: VmmVp): HandlerResult {
  const { u16, u64 } = vp.memory;
  const context = vp.context >>> 3;
  call.long = (u16[(vp.message + EXECUTION_STATE) >>> 1] & LONG) === LONG;
  call.control = call.long ? u64[context + (CONTEXT.RCX >>> 3)] : pair32(vp, CONTEXT.RDX, CONTEXT.RAX);
  call.completed = 0;
  const status = dispatch(vp);
  if (status === Timeout) {
    // The guest executes the instruction again and goes on with the first element that is not done.
    const again = HypercallInputControl.with(call.control, "rep_start", call.completed);
    if (call.long) u64[context + (CONTEXT.RCX >>> 3)] = again;
    else setPair32(vp, CONTEXT.RDX, CONTEXT.RAX, again);
    return HANDLED;
  }
  const result = HypercallOutput.make({ call_status: status, elements_processed: call.completed });
  if (call.long) u64[context + (CONTEXT.RAX >>> 3)] = result;
  else setPair32(vp, CONTEXT.RDX, CONTEXT.RAX, result);
  const byMessage = vp.policy(HYPERCALL_RIP) === HYPERCALL_RIP.is.silicon;
  const length = byMessage ? instructionLength(vp) : HYPERCALL_ABI.HYPERCALL_INSTRUCTION_RIP_ADVANCE;
  return completeInstruction(vp, length, !call.long);
}

/** Checks the control word, fetches the input, carries the call out and hands the output over. */
function dispatch(vp: VmmVp): number {
  const form = FORMS.get(HypercallInputControl.get(call.control, "code"));
  if (form === undefined) return InvalidHypercallCode;
  const variable = HypercallInputControl.get(call.control, "variable_header_size") * 8;
  call.repCount = HypercallInputControl.get(call.control, "rep_count");
  call.repStart = HypercallInputControl.get(call.control, "rep_start");
  if (call.control & RESERVED || (variable !== 0 && !form.variableHeader)) return InvalidHypercallInput;
  if (form.element === undefined) {
    if (call.repCount !== 0 || call.repStart !== 0) return InvalidHypercallInput;
  } else if (call.repCount === 0 || call.repStart >= call.repCount) {
    return InvalidHypercallInput;
  }
  const inputBytes = form.header + variable + (form.element ?? 0) * call.repCount;
  const outputBytes = form.output * (form.element === undefined ? 1 : call.repCount);
  call.input = vp.state + INPUT;
  call.output = vp.state + OUTPUT;
  call.completed = call.repStart;

  const fast = HypercallInputControl.get(call.control, "fast") !== 0;
  const inputPairs = Math.ceil(inputBytes / PAIR);
  let outputAt = -1;
  if (fast) {
    const outputPairs = Math.ceil(outputBytes / PAIR);
    if (inputPairs + outputPairs > (call.long ? PAIRS_64 : PAIRS_32)) return InvalidHypercallInput;
    if (!call.long && outputBytes !== 0) return InvalidHypercallInput;
    for (let pair = 0; pair < inputPairs; pair++) loadPair(vp, pair, call.input + pair * PAIR);
    // What the call does not write of its output registers stays as it is.
    for (let pair = 0; pair < outputPairs; pair++) loadPair(vp, inputPairs + pair, call.output + pair * PAIR);
  } else {
    const status = copyInput(vp, inputBytes);
    if (status !== Success) return status;
    const gpa = call.long ? gpr(vp, CONTEXT.R8) : pair32(vp, CONTEXT.RDI, CONTEXT.RSI);
    if (outputBytes !== 0) {
      if (!aligned(gpa, outputBytes)) return InvalidAlignment;
      outputAt = offsetOf(vp, gpa, outputBytes);
      if (outputAt < 0) return InvalidHypercallInput;
    }
  }

  let status: number = Success;
  if (form.element === undefined) {
    status = form.run(vp, call, 0);
  } else {
    while (call.completed < call.repCount) {
      status = form.run(vp, call, call.completed);
      if (status !== Success) break;
      call.completed++;
    }
  }
  // A rep call's finished elements are handed over even when a later one failed; a simple call's output only on success.
  const from = form.element === undefined ? 0 : form.output * call.repStart;
  const to = form.element === undefined ? (status === Success ? form.output : 0) : form.output * call.completed;
  if (to <= from) return status;
  if (fast) {
    for (let pair = 0; pair * PAIR < to; pair++) storePair(vp, inputPairs + pair, call.output + pair * PAIR);
  } else {
    vp.memory.u8.copyWithin(outputAt + from, call.output + from, call.output + to);
  }
  return status;
}

/** A 64-bit register of the context. */
function gpr(vp: VmmVp, register: number): bigint {
  return vp.memory.u64[(vp.context + register) >>> 3];
}

/** The 64-bit value that two 32-bit registers hold together. */
function pair32(vp: VmmVp, high: number, low: number): bigint {
  const { u32 } = vp.memory;
  return BigInt(u32[(vp.context + high) >>> 2]) << 32n | BigInt(u32[(vp.context + low) >>> 2]);
}

/** Splits a 64-bit value over two 32-bit registers, zero-extending each. */
function setPair32(vp: VmmVp, high: number, low: number, value: bigint): void {
  vp.memory.u64[(vp.context + high) >>> 3] = value >> 32n;
  vp.memory.u64[(vp.context + low) >>> 3] = value & 0xffffffffn;
}

/** Byte offset in the context of the first half of a fast pair in 64-bit mode. */
function pairAt(vp: VmmVp, pair: number): number {
  return vp.context + XMM + (pair - 1) * PAIR;
}

/** Copies a register pair of the fast form to byte offset `to`. */
function loadPair(vp: VmmVp, pair: number, to: number): void {
  const { u64 } = vp.memory;
  if (!call.long) {
    u64[to >>> 3] = pair32(vp, CONTEXT.RBX, CONTEXT.RCX);
    u64[(to >>> 3) + 1] = pair32(vp, CONTEXT.RDI, CONTEXT.RSI);
  } else if (pair === 0) {
    u64[to >>> 3] = gpr(vp, CONTEXT.RDX);
    u64[(to >>> 3) + 1] = gpr(vp, CONTEXT.R8);
  } else {
    u64.copyWithin(to >>> 3, pairAt(vp, pair) >>> 3, (pairAt(vp, pair) + PAIR) >>> 3);
  }
}

/** Copies byte offset `from` to a register pair. Output never reaches pair 0: input is never empty. */
function storePair(vp: VmmVp, pair: number, from: number): void {
  vp.memory.u64.copyWithin(pairAt(vp, pair) >>> 3, from >>> 3, (from + PAIR) >>> 3);
}

/** Whether `bytes` bytes at `gpa` are eight-byte aligned and within one page. */
function aligned(gpa: bigint, bytes: number): boolean {
  return (gpa & 7n) === 0n && Number(gpa & BigInt(PAGE_SIZE - 1)) + bytes <= PAGE_SIZE;
}

/** Byte offset of guest memory, or -1. */
function offsetOf(vp: VmmVp, gpa: bigint, bytes: number): number {
  return gpa > GPA_MAX ? -1 : vp.guestOffset(Number(gpa), bytes);
}

/** Copies the input from guest memory. */
function copyInput(vp: VmmVp, bytes: number): number {
  const gpa = call.long ? gpr(vp, CONTEXT.RDX) : pair32(vp, CONTEXT.RBX, CONTEXT.RCX);
  if (!aligned(gpa, bytes)) return InvalidAlignment;
  const at = offsetOf(vp, gpa, bytes);
  if (at < 0) return InvalidHypercallInput;
  vp.memory.u8.copyWithin(call.input, at, at + bytes);
  return Success;
}

/** Runs `body` when the input, which begins with a partition id, names the caller's own partition. */
function onOwnPartition(vp: VmmVp, { input }: Call, body: () => number): number {
  return vp.memory.u64[input >>> 3] === HYPERCALL_ABI.PARTITION_ID_SELF ? body() : InvalidPartitionId;
}

function postMessage(vp: VmmVp, { input }: Call): number {
  const { u32 } = vp.memory;
  const size = u32[(input + PostMessage.at.payload_size) >>> 2];
  const type = u32[(input + PostMessage.at.message_type) >>> 2];
  // Types with bit 31 set are the hypervisor's.
  if (size > HYPERCALL_ABI.MESSAGE_PAYLOAD_SIZE || type >>> 31 !== 0) return InvalidParameter;
  const connection = u32[(input + PostMessage.at.connection_id) >>> 2];
  return vp.partition.postMessage(connection, type, input + PostMessage.at.payload, size);
}

function signalEvent(vp: VmmVp, { input }: Call): number {
  const connection = vp.memory.u32[(input + SignalEvent.at.connection_id) >>> 2];
  return vp.partition.signalEvent(connection, vp.memory.u16[(input + SignalEvent.at.flag_number) >>> 1]);
}

function getVpIndexFromApicId(vp: VmmVp, current: Call, index: number): number {
  return onOwnPartition(vp, current, () => {
    const { u8, u32 } = vp.memory;
    if (u8[current.input + GetVpIndexFromApicId.at.target_vtl] !== 0) return AccessDenied;
    const vpIndex = vp.partition.vpIndexOfApicId(u32[((current.input + GetVpIndexFromApicId.size) >>> 2) + index]);
    if (vpIndex < 0) return InvalidParameter;
    u32[(current.output >>> 2) + index] = vpIndex;
    return Success;
  });
}

function modifyVtlProtectionMask(vp: VmmVp, current: Call, index: number): number {
  return onOwnPartition(vp, current, () => {
    const { u8, u32, u64 } = vp.memory;
    const target = u8[current.input + ModifyVtlProtectionMask.at.target_vtl];
    const vtl = HvInputVtl.get(target, "use_target_vtl")
      ? HvInputVtl.get(target, "target_vtl_value")
      : vp.interceptedVtl;
    if (vtl > vp.interceptedVtl) return AccessDenied;
    const gpn = u64[((current.input + ModifyVtlProtectionMask.size) >>> 3) + index];
    if (gpn > GPA_MAX) return InvalidParameter;
    const flags = u32[(current.input + ModifyVtlProtectionMask.at.map_flags) >>> 2];
    return vp.partition.modifyVtlProtectionMask(vtl, flags, Number(gpn));
  });
}

/** What a partition without VMBus, assigned devices or guest VSM answers; partitions spread it into their own. */
export const NO_HYPERCALL_SERVICES = {
  /** No connection exists. */
  postMessage: (): number => InvalidConnectionId,
  /** No connection exists. */
  signalEvent: (): number => InvalidConnectionId,
  /** No device has an interrupt to retarget. */
  retargetDeviceInterrupt: (): number => HvStatus.values.InvalidDeviceId,
  /** The guest has no VTL that could protect pages. */
  modifyVtlProtectionMask: (): number => AccessDenied,
  /** Time is not restored. */
  restorePartitionTime: (): number => AccessDenied,
} as const;
