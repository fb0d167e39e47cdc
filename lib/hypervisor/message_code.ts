/**
 * The words of the frequent intercept messages, as code: which word of the processor's state goes where in the message
 * (TLFS, partition and VP intercepts; field meanings in `lib/layout/hyperv/messages.ts`).
 *
 * `intercept_message.ts` compiles them one by one; who does several steps at once makes them part of a longer function.
 * They write every word of the message that can be other than zero, except its type and length.
 *
 * @module
 */
import { ACCESS_EXECUTE, ACCESS_WRITE } from "../cpu/bus.ts";
import { CpuState, CR0_AM, CR0_PE, EFER_LMA, EVENT_VALID, EXIT_IN, EXIT_REP, EXIT_STRING } from "../cpu/state.ts";
import { HvInterceptAccessType } from "../layout/hyperv/constants/messages.ts";
import {
  HvMessage,
  HvX64CpuidInterceptMessage,
  HvX64InterceptMessageHeader,
  HvX64IoPortAccessInfo,
  HvX64IoPortInterceptMessage,
  HvX64MemoryAccessInfo,
  HvX64MemoryInterceptMessage,
  HvX64MsrInterceptMessage,
  HvX64VpExecutionState,
} from "../layout/hyperv/messages.ts";
import type { Move } from "../memory/copy_plan.ts";
import * as wasm from "../memory/wasm_code.ts";
import { HypervisorVpState } from "./vp_state.ts";

const cpu = CpuState.at;
const PAYLOAD = HvMessage.at.payload_buffer;
const WORD = 8;
const SEGMENT = 16;
/**
 * RIP is moved by halves because it has just been stored so: a load that needs the data of two stores waits until both are
 * out of the host's store buffer.
 */
const HALF = 4;
const gpr = (number: number): number => cpu.gpr + number * WORD;
const { READ, WRITE, EXECUTE } = HvInterceptAccessType.values;

/** What a message's code works on. */
export interface MessageOperands {
  /** Where the message is written: in the assist page, and in the page to which VTL2's kernel would copy it. */
  readonly targets: readonly wasm.I32[];
  /** `CpuState` of the processor. */
  readonly cpuState: wasm.I32;
  /** Its {@linkcode HypervisorVpState}. */
  readonly vpState: wasm.I32;
  readonly vpIndex: wasm.I32;
  /** Its privilege level. */
  readonly cpl: wasm.I32;
  /** Number of a local that the code may change. */
  readonly scratch: number;
}

/** Stores a word of the message. */
function put({ targets, scratch }: MessageOperands, offset: number, value: wasm.I32): wasm.Code {
  const word = wasm.local(scratch);
  return [
    ...wasm.setLocal(scratch, value),
    ...targets.flatMap((target) => wasm.store32(target, PAYLOAD + offset, word)),
  ];
}

/** Moves words of the processor's state to the message. */
function take({ targets, cpuState }: MessageOperands, moves: readonly Move[]): wasm.Code {
  return targets.flatMap((target) =>
    wasm.copy(target, cpuState, moves.map(([from, to, bytes]) => [from, PAYLOAD + to, bytes]))
  );
}

/** DR7 bits that enable a breakpoint locally or globally. */
const DR7_ENABLES = 0xff;
const header = HvX64InterceptMessageHeader.at;

/** `HvX64VpExecutionState` of the processor. */
function executionState({ cpuState, cpl }: MessageOperands): wasm.I32 {
  const word = (offset: number) => wasm.load32(cpuState, offset);
  const mask = HvX64VpExecutionState.mask;
  return wasm.or(
    cpl,
    wasm.moveBit(word(cpu.cr0), CR0_PE, mask.cr0_pe),
    wasm.moveBit(word(cpu.cr0), CR0_AM, mask.cr0_am),
    wasm.moveBit(word(cpu.efer), EFER_LMA, mask.efer_lma),
    wasm.bitWhen(wasm.and(word(cpu.dr7), wasm.constant(DR7_ENABLES)), mask.debug_active),
    wasm.moveBit(word(cpu.event), EVENT_VALID, mask.interruption_pending),
    wasm.bitWhen(word(cpu.interrupt_shadow), mask.interrupt_shadow),
  );
}

/** The header that most intercepts begin with, for an access of type `access`. */
export function interceptHeader(operands: MessageOperands, access: wasm.I32): wasm.Code {
  const low = (offset: number) => wasm.and(wasm.load32(operands.cpuState, offset), wasm.constant(0xf));
  return [
    ...take(operands, [
      [cpu.cs, header.cs_segment, SEGMENT],
      [cpu.rip, header.rip, HALF],
      [cpu.rip + HALF, header.rip + HALF, HALF],
      [cpu.rflags, header.rflags, WORD],
    ]),
    ...put(operands, header.vp_index, operands.vpIndex),
    ...put(
      operands,
      header.instruction_length_and_cr8,
      wasm.or(
        low(cpu.exit_length),
        wasm.shiftLeft(low(cpu.cr8), 4),
        wasm.shiftLeft(access, 8),
        wasm.shiftLeft(executionState(operands), 16),
      ),
    ),
  ];
}

const io = HvX64IoPortInterceptMessage.at;

/** A port intercept. */
export function ioPortMessage(operands: MessageOperands): wasm.Code {
  const { cpuState } = operands;
  const flags = wasm.load8(cpuState, cpu.exit_flags);
  const isOut = wasm.isZero(wasm.and(flags, wasm.constant(EXIT_IN)));
  const info = wasm.or(
    wasm.load8(cpuState, cpu.exit_size),
    wasm.moveBit(flags, EXIT_STRING, HvX64IoPortAccessInfo.mask.string_op),
    wasm.moveBit(flags, EXIT_REP, HvX64IoPortAccessInfo.mask.rep_prefix),
  );
  // Port, access info and count of the instruction's bytes are one word.
  const port = wasm.and(wasm.load32(cpuState, cpu.exit_port), wasm.constant(0xffff));
  const count = wasm.load8(cpuState, cpu.exit_byte_count);
  return [
    ...interceptHeader(operands, wasm.select(isOut, wasm.constant(WRITE), wasm.constant(READ))),
    ...put(operands, io.port_number, wasm.or(port, wasm.shiftLeft(info, 16), wasm.shiftLeft(count, 24))),
    ...take(operands, [
      [cpu.exit_bytes, io.instruction_bytes, WORD],
      [cpu.exit_bytes + WORD, io.instruction_bytes + WORD, WORD],
      [gpr(0), io.rax, WORD],
      [cpu.ds, io.ds_segment, SEGMENT],
      [cpu.es, io.es_segment, SEGMENT],
      [gpr(1), io.rcx, WORD],
      [gpr(6), io.rsi, WORD],
      [gpr(7), io.rdi, WORD],
    ]),
  ];
}

const cpuid = HvX64CpuidInterceptMessage.at;
const DEFAULTS = HypervisorVpState.at.cpuid_defaults;

/** A CPUID intercept. */
export function cpuidMessage(operands: MessageOperands): wasm.Code {
  const results = [
    cpuid.default_result_rax,
    cpuid.default_result_rbx,
    cpuid.default_result_rcx,
    cpuid.default_result_rdx,
  ];
  return [
    ...interceptHeader(operands, wasm.constant(EXECUTE)),
    ...take(operands, [
      [gpr(0), cpuid.rax, WORD],
      [gpr(1), cpuid.rcx, WORD],
      [gpr(2), cpuid.rdx, WORD],
      [gpr(3), cpuid.rbx, WORD],
    ]),
    ...results.flatMap((field, k) => put(operands, field, wasm.load32(operands.vpState, DEFAULTS + k * HALF))),
  ];
}

const msr = HvX64MsrInterceptMessage.at;

/** An MSR intercept. */
export function msrMessage(operands: MessageOperands): wasm.Code {
  const { cpuState } = operands;
  const access = wasm.select(wasm.load32(cpuState, cpu.exit_write), wasm.constant(WRITE), wasm.constant(READ));
  return [
    ...interceptHeader(operands, access),
    ...put(operands, msr.msr_number, wasm.load32(cpuState, cpu.exit_msr)),
    ...take(operands, [[gpr(2), msr.rdx, WORD], [gpr(0), msr.rax, WORD]]),
  ];
}

const memory = HvX64MemoryInterceptMessage.at;
/** `HvCacheType` of ordinary memory: write-back (TLFS, HV_CACHE_TYPE). */
const CACHE_TYPE_WRITE_BACK = 6;
const ADDRESS_VALID = HvX64MemoryAccessInfo.mask.gva_valid | HvX64MemoryAccessInfo.mask.gva_gpa_valid;

/** A memory intercept. */
export function memoryMessage(operands: MessageOperands): wasm.Code {
  const { cpuState } = operands;
  const word = (offset: number) => wasm.load32(cpuState, offset);
  const accessIs = (access: number) => wasm.equals(word(cpu.exit_access), access);
  const kind = wasm.select(
    accessIs(ACCESS_WRITE),
    wasm.constant(WRITE),
    wasm.select(accessIs(ACCESS_EXECUTE), wasm.constant(EXECUTE), wasm.constant(READ)),
  );
  const valid = wasm.select(word(cpu.exit_gva_valid), wasm.constant(ADDRESS_VALID), wasm.constant(0));
  const linear = (half: number) => wasm.select(word(cpu.exit_gva_valid), word(cpu.exit_gva + half), wasm.constant(0));
  const priority = wasm.and(word(cpu.cr8), wasm.constant(0xf));
  return [
    ...interceptHeader(operands, kind),
    ...put(operands, memory.cache_type, wasm.constant(CACHE_TYPE_WRITE_BACK)),
    // Count of the instruction's bytes, access info and priority are one word.
    ...put(
      operands,
      memory.instruction_byte_count,
      wasm.or(wasm.load8(cpuState, cpu.exit_byte_count), wasm.shiftLeft(valid, 8), wasm.shiftLeft(priority, 16)),
    ),
    ...put(operands, memory.guest_virtual_address, linear(0)),
    ...put(operands, memory.guest_virtual_address + HALF, linear(HALF)),
    ...take(operands, [
      [cpu.exit_gpa, memory.guest_physical_address, HALF],
      [cpu.exit_gpa + HALF, memory.guest_physical_address + HALF, HALF],
      [cpu.exit_bytes, memory.instruction_bytes, WORD],
      [cpu.exit_bytes + WORD, memory.instruction_bytes + WORD, WORD],
    ]),
  ];
}
