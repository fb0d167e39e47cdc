/**
 * From a control word to a hypercall's handler and back: the checks of the control word, of buffers and of repetitions,
 * and the conventions of registers and memory (Hyper-V TLFS, "Hypercall Interface"; openhcl.md e, f and h).
 *
 * Who handles a guest's hypercall: the hypervisor, all but these, which leave to VTL2 with a hypercall intercept:
 * - HvCallPostMessage and HvCallSignalEvent, when VTL2 installed the intercept of unknown SynIC connections: all
 *   connections are VTL2's;
 * - HvCallRetargetDeviceInterrupt, when VTL2 installed the intercept of unknown devices: all devices are VTL2's;
 * - every hypercall, when VTL2 installed the hypercall intercept.
 * HvCallVtlCall and HvCallVtlReturn are checked here; the platform makes the switch.
 *
 * @module
 */
import { CpuState, CR0_PE, EFER_LMA, FX, SEG_LONG } from "../../cpu/state.ts";
import { HvStatus, HypercallCode } from "../../layout/hyperv/constants/hypercalls.ts";
import { HypercallInputControl, HypercallOutput } from "../../layout/hyperv/hypercalls.ts";
import { PAGE_SIZE } from "../../memory/machine_memory.ts";
import { PartitionState } from "../partition.ts";
import { guestOffset, type HypercallContext, vtlEnabled } from "./context.ts";
import { type Call, isRep } from "./definition.ts";
import {
  assertVirtualInterrupt,
  postMessage,
  postMessageDirect,
  signalEvent,
  signalEventDirect,
} from "./interrupt_calls.ts";
import { installIntercept, modifyVtlProtectionMask } from "./protection_calls.ts";
import { getVpRegisters, setVpRegisters } from "./register_calls.ts";
import { translateVirtualAddress, translateVirtualAddressEx } from "./translate_calls.ts";
import { enableVpVtl, getVpIndexFromApicId, startVirtualProcessor } from "./vp_calls.ts";

const { Success, InvalidHypercallCode, InvalidHypercallInput, InvalidAlignment } = HvStatus.values;
const code = HypercallCode.values;

/** Every hypercall that the hypervisor knows, by code. */
export const HYPERCALLS: ReadonlyMap<number, Call> = new Map(
  [
    getVpRegisters,
    setVpRegisters,
    installIntercept,
    translateVirtualAddress,
    translateVirtualAddressEx,
    enableVpVtl,
    startVirtualProcessor,
    getVpIndexFromApicId,
    assertVirtualInterrupt,
    postMessageDirect,
    signalEventDirect,
    modifyVtlProtectionMask,
    postMessage,
    signalEvent,
  ].map((call: Call) => [call.code, call]),
);

/** A control word, taken apart. */
interface Control {
  readonly code: number;
  readonly fast: boolean;
  readonly repCount: number;
  readonly repStart: number;
  /** Nothing is set that must be zero: reserved bits, a variable header, the nested bit. */
  readonly clean: boolean;
}

const UNCLEAN: bigint = HypercallInputControl.reserved | HypercallInputControl.mask.variable_header_size |
  HypercallInputControl.mask.nested;

function decode(control: bigint): Control {
  const get = HypercallInputControl.get;
  return {
    code: get(control, "code"),
    fast: get(control, "fast") !== 0,
    repCount: get(control, "rep_count"),
    repStart: get(control, "rep_start"),
    clean: (control & UNCLEAN) === 0n,
  };
}

/** What became of a hypercall. */
export interface HypercallResult {
  /** HvStatus. */
  readonly status: number;
  /** Elements done in all, those before rep_start included. */
  readonly reps: number;
}

/** Input and output of the hypercall under way; they live no longer than a call. */
const inputBytes = new Uint8Array(PAGE_SIZE);
const outputBytes = new Uint8Array(PAGE_SIZE);
const inputView = new DataView(inputBytes.buffer);
const outputView = new DataView(outputBytes.buffer);

/** The call that a control word names for this caller, or the status that refuses it. */
function find(context: HypercallContext, control: Control): Call | number {
  const call = HYPERCALLS.get(control.code);
  if (call === undefined || (call.vtl2Only && context.vtl === 0)) return InvalidHypercallCode;
  if (!control.clean) return InvalidHypercallInput;
  const { repCount, repStart } = control;
  if (isRep(call)) return repCount > 0 && repStart < repCount ? call : InvalidHypercallInput;
  return repCount === 0 && repStart === 0 ? call : InvalidHypercallInput;
}

/** Bytes of input that a call takes. */
function inputLength(call: Call, control: Control): number {
  return isRep(call) ? call.headerBytes + control.repCount * call.elementBytes : call.inputBytes;
}

/** Bytes of output that a call gives. */
function outputLength(call: Call, control: Control): number {
  return isRep(call) ? control.repCount * call.outputElementBytes : call.outputBytes;
}

/** Runs a call whose input is in {@linkcode inputBytes}; its output is left in {@linkcode outputBytes}. */
function run(context: HypercallContext, call: Call, control: Control): HypercallResult {
  outputBytes.fill(0);
  if (!isRep(call)) return { status: call.run(context, inputView, outputView), reps: 0 };
  let reps = control.repStart;
  let status: number = Success;
  while (reps < control.repCount) {
    const element = call.headerBytes + reps * call.elementBytes;
    status = call.element(context, inputView, element, outputView, reps * call.outputElementBytes);
    if (status !== Success) break;
    reps++;
  }
  if (reps > control.repStart) call.after?.(context, inputView);
  return { status, reps };
}

/**
 * The part of the output that the caller gets: of a simple call all of it on success, of a repeating one the elements
 * done by this invocation, whatever followed them.
 */
function outputRange(call: Call, control: Control, result: HypercallResult): readonly [from: number, to: number] {
  if (isRep(call)) return [control.repStart * call.outputElementBytes, result.reps * call.outputElementBytes];
  return [0, result.status === Success ? call.outputBytes : 0];
}

/**
 * A hypercall made by VTL2's code as a function: `input` holds header and elements; the result's output is a fresh copy.
 *
 * @param hypercall The hypercall's code.
 * @param repCount Elements of a repeating call, 0 for others.
 */
export function callHypercall(
  context: HypercallContext,
  hypercall: number,
  input: Uint8Array,
  repCount = 0,
): HypercallResult & { readonly output: Uint8Array } {
  const control: Control = { code: hypercall, fast: false, repCount, repStart: 0, clean: true };
  const call = find(context, control);
  const none = new Uint8Array(0);
  if (typeof call === "number") return { status: call, reps: 0, output: none };
  const length = inputLength(call, control);
  if (length > PAGE_SIZE || outputLength(call, control) > PAGE_SIZE || input.length < length) {
    return { status: InvalidHypercallInput, reps: 0, output: none };
  }
  inputBytes.set(input.subarray(0, length));
  const result = run(context, call, control);
  const [from, to] = outputRange(call, control, result);
  return { ...result, output: outputBytes.slice(from, to) };
}

// --- A guest's hypercall instruction ----------------------------------------------------------------------------------

/**
 * What the platform does after a guest's hypercall instruction: go on behind it ("done"), leave to VTL2 with a hypercall
 * intercept, enter VTL2 by a VTL call, or raise #UD at it.
 */
export type GuestHypercall = "done" | "intercept" | "vtl-call" | "undefined";

const cpu = CpuState.at;
/** Bytes of a register pair, the unit of fast input and output. */
const PAIR_BYTES = 16;
/** Pairs of a fast call in 64-bit code: RDX and R8, then XMM0 to XMM5. */
const PAIRS_64 = 7;
/** In 32-bit code: EBX:ECX and EDI:ESI. */
const PAIRS_32 = 1;
const XMM0 = FX + 160;
const HALF = 0xffff_ffffn;

/** Register numbers in encoding order. */
const [RAX, RCX, RDX, RBX, RSI, RDI, R8] = [0, 1, 2, 3, 6, 7, 8];

/** Register conventions of the guest's hypercall: where its words are. */
interface GuestRegisters {
  readonly long: boolean;
  readonly control: bigint;
  /** RDX, or EBX:ECX. */
  readonly input: bigint;
  /** R8, or EDI:ESI. */
  readonly output: bigint;
}

/** The calling VTL0's registers, in the convention of its mode: 64-bit code in long mode, else 32-bit. */
function guestRegisters(context: HypercallContext): GuestRegisters {
  const { partition } = context.facilities;
  const { u64, i32 } = partition.memory;
  const base = partition.cpuState(context.vp);
  const gpr = (number: number) => u64[((base + cpu.gpr) >>> 3) + number];
  const low = (number: number) => gpr(number) & HALF;
  const csAttributes = i32[(base + cpu.cs + 12) >>> 2] >>> 16;
  const long = (i32[(base + cpu.cr0) >>> 2] & CR0_PE) !== 0 && (i32[(base + cpu.efer) >>> 2] & EFER_LMA) !== 0 &&
    (csAttributes & SEG_LONG) !== 0;
  if (long) return { long, control: gpr(RCX), input: gpr(RDX), output: gpr(R8) };
  return {
    long,
    control: low(RDX) << 32n | low(RAX),
    input: low(RBX) << 32n | low(RCX),
    output: low(RDI) << 32n | low(RSI),
  };
}

/**
 * A hypercall instruction of VTL0 of `context.vp`, in its CPU state; CPL and hypercall page have been checked. "done"
 * has left the result in RAX (or EDX:EAX); RIP is the caller's to advance.
 */
export function guestHypercall(context: HypercallContext): GuestHypercall {
  const registers = guestRegisters(context);
  const vtl = vtlSwitch(context, registers);
  if (vtl !== undefined) return vtl;
  const control = decode(registers.control);
  if (leavesToVtl2(context, control.code)) return "intercept";
  const { status, reps } = callFromGuest(context, control, registers);
  setResult(context, registers.long, HypercallOutput.make({ call_status: status, elements_processed: reps }));
  return "done";
}

/** Whether VTL2 has asked to see this hypercall of VTL0. */
function leavesToVtl2(context: HypercallContext, hypercall: number): boolean {
  const { memory: { u8 }, state } = context.facilities.partition;
  const asked = PartitionState.at;
  if (u8[state + asked.hypercall_intercept] !== 0) return true;
  if (hypercall === code.HvCallPostMessage || hypercall === code.HvCallSignalEvent) {
    return u8[state + asked.synic_intercept] !== 0;
  }
  return hypercall === code.HvCallRetargetDeviceInterrupt && u8[state + asked.retarget_intercept] !== 0;
}

/**
 * VTL call and return: the code is in RCX and the control input in RAX. A VTL call takes 0 only and needs a higher VTL;
 * VTL0 has nowhere to return to; anything else in RCX's upper bits is no control word (openhcl.md a). In 32-bit code
 * these are told from other calls by EAX, where those have a code that is never 0 or 1.
 */
function vtlSwitch(context: HypercallContext, { long, control }: GuestRegisters): GuestHypercall | undefined {
  const { partition } = context.facilities;
  const { u64 } = partition.memory;
  const base = (partition.cpuState(context.vp) + cpu.gpr) >>> 3;
  const rax = long ? u64[base + RAX] : u64[base + RAX] & HALF;
  const rcx = long ? u64[base + RCX] : u64[base + RCX] & HALF;
  const named = HypercallInputControl.get(rcx, "code");
  if (named !== code.HvCallVtlCall && named !== code.HvCallVtlReturn) return undefined;
  if (!long && (control & HALF) > 1n) return undefined;
  const allowed = rcx === BigInt(code.HvCallVtlCall) && rax === 0n && vtlEnabled(context, context.vp, 2);
  return allowed ? "vtl-call" : "undefined";
}

/** Checks buffers, copies the input, runs the call, and copies the output. */
function callFromGuest(context: HypercallContext, control: Control, registers: GuestRegisters): HypercallResult {
  const call = find(context, control);
  if (typeof call === "number") return { status: call, reps: 0 };
  return control.fast
    ? callInRegisters(context, call, control, registers)
    : callInMemory(context, call, control, registers);
}

/** A call whose input and output lie in guest memory. */
function callInMemory(
  context: HypercallContext,
  call: Call,
  control: Control,
  registers: GuestRegisters,
): HypercallResult {
  const { memory } = context.facilities.partition;
  const inputSize = inputLength(call, control);
  const outputSize = outputLength(call, control);
  const refused = { status: InvalidAlignment, reps: control.repStart };
  if (!placed(registers.input, inputSize) || !placed(registers.output, outputSize)) return refused;
  const from = inputSize === 0 ? 0 : guestOffset(context, registers.input, false);
  const to = outputSize === 0 ? 0 : guestOffset(context, registers.output, true);
  if (from < 0 || to < 0) return { status: InvalidHypercallInput, reps: control.repStart };
  inputBytes.set(memory.u8.subarray(from, from + inputSize));
  const result = run(context, call, control);
  const [start, end] = outputRange(call, control, result);
  memory.u8.set(outputBytes.subarray(start, end), to + start);
  return result;
}

/** Whether a buffer is aligned to 8 bytes and lies in one page; one without bytes may lie anywhere. */
function placed(gpa: bigint, size: number): boolean {
  return size === 0 || ((gpa & 7n) === 0n && Number(gpa & BigInt(PAGE_SIZE - 1)) + size <= PAGE_SIZE);
}

/** A call whose input, and in 64-bit code also output, is in registers: the output's pairs follow the input's. */
function callInRegisters(
  context: HypercallContext,
  call: Call,
  control: Control,
  registers: GuestRegisters,
): HypercallResult {
  const { memory } = context.facilities.partition;
  const fx = context.facilities.partition.cpuState(context.vp) + XMM0;
  const inputPairs = Math.ceil(inputLength(call, control) / PAIR_BYTES);
  const outputPairs = Math.ceil(outputLength(call, control) / PAIR_BYTES);
  const pairs = registers.long ? PAIRS_64 : PAIRS_32;
  const outputFits = outputPairs === 0 || (registers.long && inputPairs + outputPairs <= pairs);
  if (inputPairs > pairs || !outputFits) return { status: InvalidHypercallInput, reps: control.repStart };
  inputView.setBigUint64(0, registers.input, true);
  inputView.setBigUint64(8, registers.output, true);
  inputBytes.set(memory.u8.subarray(fx, fx + (PAIRS_64 - 1) * PAIR_BYTES), PAIR_BYTES);
  const result = run(context, call, control);
  const [start, end] = outputRange(call, control, result);
  // Input fills the first pair at least, so output is in XMM registers alone.
  const to = fx + (Math.max(inputPairs, 1) - 1) * PAIR_BYTES;
  memory.u8.set(outputBytes.subarray(start, end), to + start);
  return result;
}

/** Puts a result into RAX, or into EDX:EAX with the upper halves zero. */
function setResult(context: HypercallContext, long: boolean, result: bigint): void {
  const { partition } = context.facilities;
  const base = (partition.cpuState(context.vp) + cpu.gpr) >>> 3;
  partition.memory.u64[base + RAX] = long ? result : result & HALF;
  if (!long) partition.memory.u64[base + RDX] = result >> 32n;
}

/**
 * Whether VTL2 may make the VTL return that it asks for: control word zero but for the code, control input 0 (normal) or
 * 1 (fast). Anything else is #UD (openhcl.md a).
 */
export function vtlReturnAllowed(rcx: bigint, rax: bigint): boolean {
  return rcx === BigInt(code.HvCallVtlReturn) && rax <= 1n;
}
