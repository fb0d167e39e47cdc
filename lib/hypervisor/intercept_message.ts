/**
 * Builds the message of an intercept in the VP assist page from the processor's state at the exit
 * (TLFS, partition and VP intercepts; field meanings in `lib/layout/hyperv/messages.ts`).
 *
 * Each message overwrites what an earlier, longer one left behind, so that all 256 bytes are the message's own.
 *
 * @module
 */
import { CpuState, XMM } from "../cpu/state.ts";
import { HvVpAssistPage } from "../layout/hyperv/assist_page.ts";
import { HvInterceptAccessType, HvMessageType } from "../layout/hyperv/constants/messages.ts";
import {
  HvMessage,
  HvMessageHeader,
  HvX64ApicEoiMessage,
  HvX64CpuidInterceptMessage,
  HvX64ExceptionInfo,
  HvX64ExceptionInterceptMessage,
  HvX64HypercallInterceptMessage,
  HvX64InterruptionDeliverableMessage,
  HvX64IoPortInterceptMessage,
  HvX64MemoryInterceptMessage,
  HvX64MsrInterceptMessage,
  HvX64SynicSintDeliverableMessage,
  HvX64UnrecoverableExceptionMessage,
} from "../layout/hyperv/messages.ts";
import type { MachineMemory } from "../memory/machine_memory.ts";
import type { VirtualProcessor } from "./virtual_processor.ts";
import type { WriteMessage } from "./vp_copies.ts";
import { HypervisorVpState } from "./vp_state.ts";

const PAYLOAD = HvMessage.at.payload_buffer;
const cpu = CpuState.at;
const SEGMENT_WORDS = 2;
/** Instruction bytes that a message has room for. */
const BYTES_MAX = 16;

/** Writes 64-bit words one by one: records here are too short for `copyWithin` to pay. */
function copy(vp: VirtualProcessor, to: number, from: number, words: number): void {
  const u64 = vp.memory.u64;
  for (let k = 0, a = to >>> 3, b = from >>> 3; k < words; k++) u64[a + k] = u64[b + k];
}

/**
 * VTL2 has enabled the assist page at guest-physical address `page`: what was left in another one says nothing about this
 * one, and a message in it may be from a time before.
 */
export function assistPageEnabled(memory: MachineMemory, vpState: number, page: number): void {
  messagePlaceChanged(memory, vpState, page + HvVpAssistPage.at.intercept_message);
}

/** Messages are written at byte offset `message` from now on; nothing is known of what is there. */
export function messagePlaceChanged(memory: MachineMemory, vpState: number, message: number): void {
  const { u32 } = memory;
  u32[(message + HvMessageHeader.at.typ) >>> 2] = HvMessageType.values.HvMessageTypeNone;
  u32[(vpState + HypervisorVpState.at.message_length) >>> 2] = HvMessage.size;
  u32[(vpState + HypervisorVpState.at.message_span) >>> 2] = HvMessage.size;
}

/** Starts a message of a type that writes every one of its fields: nothing of one of the same type has to be cleared. */
function beginAgain(vp: VirtualProcessor, type: number, payloadBytes: number): void {
  if (vp.memory.u32[vp.message >>> 2] !== type) begin(vp, type, payloadBytes);
}

/** Starts the message: clears what the last one left, writes its header. Returns the payload's byte offset. */
function begin(vp: VirtualProcessor, type: number, payloadBytes: number): number {
  const message = vp.message;
  const { u64, i32 } = vp.memory;
  const length = PAYLOAD + payloadBytes;
  const used = Math.max(length, vp.getState(HypervisorVpState.at.message_length));
  for (let word = message >>> 3, end = (message + used) >>> 3; word < end; word++) u64[word] = 0n;
  vp.setState(HypervisorVpState.at.message_length, length);
  vp.setState(HypervisorVpState.at.message_span, used);
  i32[(message + HvMessageHeader.at.typ) >>> 2] = type;
  i32[(message + HvMessageHeader.at.len) >>> 2] = payloadBytes;
  return message + PAYLOAD;
}

/** Writes the header that most intercepts begin with. */
function interceptHeader(vp: VirtualProcessor, access: number): void {
  write(vp, vp.copies.header, access);
}

/** Writes the part of a message that its code writes. */
function write(vp: VirtualProcessor, code: WriteMessage, access: number = READ): void {
  code(vp.message, vp.cpuState, vp.state, vp.index, vp.cpu.cpl, access);
}

/** Writes the instruction's bytes and their count. */
function instructionBytes(vp: VirtualProcessor, count: number, bytes: number): void {
  const { u8, u64, i32 } = vp.memory;
  const valid = Math.min(i32[(vp.cpuState + cpu.exit_byte_count) >>> 2], BYTES_MAX);
  u8[count] = valid;
  u64[bytes >>> 3] = u64[(vp.cpuState + cpu.exit_bytes) >>> 3];
  u64[(bytes >>> 3) + 1] = u64[((vp.cpuState + cpu.exit_bytes) >>> 3) + 1];
}

/** Types of the frequent messages. */
export const MESSAGE_TYPE = {
  IO_PORT: HvMessageType.values.HvMessageTypeX64IoPortIntercept,
  CPUID: HvMessageType.values.HvMessageTypeX64CpuidIntercept,
  MSR: HvMessageType.values.HvMessageTypeMsrIntercept,
  /** Nothing is at the guest-physical address. */
  UNMAPPED: HvMessageType.values.HvMessageTypeUnmappedGpa,
  /** The page exists and VTL0 may not have it. */
  DENIED: HvMessageType.values.HvMessageTypeGpaIntercept,
} as const;
const { READ, EXECUTE } = HvInterceptAccessType.values;

/** HvMessageTypeX64IoPortIntercept. */
export function writeIoPortMessage(vp: VirtualProcessor): void {
  beginAgain(vp, MESSAGE_TYPE.IO_PORT, HvX64IoPortInterceptMessage.size);
  write(vp, vp.copies.ioPortMessage);
}

/** HvMessageTypeUnmappedGpa, or HvMessageTypeGpaIntercept when the page exists and VTL0 may not have it. */
export function writeMemoryMessage(vp: VirtualProcessor, mapped: boolean): void {
  beginAgain(vp, mapped ? MESSAGE_TYPE.DENIED : MESSAGE_TYPE.UNMAPPED, HvX64MemoryInterceptMessage.size);
  write(vp, vp.copies.memoryMessage);
}

/** HvMessageTypeMsrIntercept. */
export function writeMsrMessage(vp: VirtualProcessor): void {
  beginAgain(vp, MESSAGE_TYPE.MSR, HvX64MsrInterceptMessage.size);
  write(vp, vp.copies.msrMessage);
}

/** HvMessageTypeX64CpuidIntercept; the default results are in the hypervisor's state. */
export function writeCpuidMessage(vp: VirtualProcessor): void {
  beginAgain(vp, MESSAGE_TYPE.CPUID, HvX64CpuidInterceptMessage.size);
  write(vp, vp.copies.cpuidMessage);
}

const hypercall = HvX64HypercallInterceptMessage.at;
/** XMM registers that a hypercall intercept carries. */
const HYPERCALL_XMM = 6;

/** HvMessageTypeHypercallIntercept. */
export function writeHypercallMessage(vp: VirtualProcessor): void {
  const payload = begin(vp, HvMessageType.values.HvMessageTypeHypercallIntercept, HvX64HypercallInterceptMessage.size);
  const { u64 } = vp.memory;
  interceptHeader(vp, EXECUTE);
  const gpr = (vp.cpuState + cpu.gpr) >>> 3;
  u64[(payload + hypercall.rax) >>> 3] = u64[gpr];
  u64[(payload + hypercall.rbx) >>> 3] = u64[gpr + 3];
  u64[(payload + hypercall.rcx) >>> 3] = u64[gpr + 1];
  u64[(payload + hypercall.rdx) >>> 3] = u64[gpr + 2];
  u64[(payload + hypercall.r8) >>> 3] = u64[gpr + 8];
  u64[(payload + hypercall.rsi) >>> 3] = u64[gpr + 6];
  u64[(payload + hypercall.rdi) >>> 3] = u64[gpr + 7];
  copy(vp, payload + hypercall.xmm_registers, vp.cpuState + XMM, HYPERCALL_XMM * 2);
}

const exception = HvX64ExceptionInterceptMessage.at;

/** HvMessageTypeExceptionIntercept. */
export function writeExceptionMessage(vp: VirtualProcessor): void {
  const payload = begin(vp, HvMessageType.values.HvMessageTypeExceptionIntercept, HvX64ExceptionInterceptMessage.size);
  const { i32, u8, u16, u64 } = vp.memory;
  const base = vp.cpuState;
  interceptHeader(vp, EXECUTE);
  const vector = i32[(base + cpu.exit_vector) >>> 2];
  u16[(payload + exception.vector) >>> 1] = vector;
  if (i32[(base + cpu.exit_has_error) >>> 2]) {
    u8[payload + exception.exception_info] = HvX64ExceptionInfo.mask.error_code_valid;
    i32[(payload + exception.error_code) >>> 2] = i32[(base + cpu.exit_error) >>> 2];
  }
  u64[(payload + exception.exception_parameter) >>> 3] = u64[(base + cpu.exit_gva) >>> 3];
  instructionBytes(vp, payload + exception.instruction_byte_count, payload + exception.instruction_bytes);
  copy(vp, payload + exception.ds_segment, base + cpu.ds, SEGMENT_WORDS);
  copy(vp, payload + exception.ss_segment, base + cpu.ss, SEGMENT_WORDS);
  copy(vp, payload + exception.rax, base + cpu.gpr, 16);
}

/** HvMessageTypeUnrecoverableException: a triple fault of VTL0. */
export function writeUnrecoverableMessage(vp: VirtualProcessor): void {
  begin(
    vp,
    HvMessageType.values.HvMessageTypeUnrecoverableException,
    HvX64UnrecoverableExceptionMessage.size,
  );
  interceptHeader(vp, EXECUTE);
}

/** HvMessageTypeX64Halt; sent only when a caller of the library asked for it. */
export function writeHaltMessage(vp: VirtualProcessor): void {
  begin(vp, HvMessageType.values.HvMessageTypeX64Halt, HvX64UnrecoverableExceptionMessage.size);
  interceptHeader(vp, EXECUTE);
}

/** HvMessageTypeX64ApicEoi: the guest ended level-triggered interrupt `vector`. */
export function writeApicEoiMessage(vp: VirtualProcessor, vector: number): void {
  const payload = begin(vp, HvMessageType.values.HvMessageTypeX64ApicEoi, HvX64ApicEoiMessage.size);
  const { i32 } = vp.memory;
  i32[(payload + HvX64ApicEoiMessage.at.vp_index) >>> 2] = vp.index;
  i32[(payload + HvX64ApicEoiMessage.at.interrupt_vector) >>> 2] = vector;
}

/** HvMessageTypeX64InterruptionDeliverable for an interruption of `type` (HvX64PendingInterruptionType). */
export function writeInterruptionDeliverableMessage(vp: VirtualProcessor, type: number): void {
  const payload = begin(
    vp,
    HvMessageType.values.HvMessageTypeX64InterruptionDeliverable,
    HvX64InterruptionDeliverableMessage.size,
  );
  interceptHeader(vp, EXECUTE);
  vp.memory.u8[payload + HvX64InterruptionDeliverableMessage.at.deliverable_type] = type;
}

/** HvMessageTypeSynicSintDeliverable for the SINTs in the mask `sints`. */
export function writeSintDeliverableMessage(vp: VirtualProcessor, sints: number): void {
  const payload = begin(
    vp,
    HvMessageType.values.HvMessageTypeSynicSintDeliverable,
    HvX64SynicSintDeliverableMessage.size,
  );
  interceptHeader(vp, EXECUTE);
  vp.memory.u16[(payload + HvX64SynicSintDeliverableMessage.at.deliverable_sints) >>> 1] = sints;
}
