/**
 * What moves between a processor's state and the pages that VTL2 shares with the hypervisor. Sources and targets are
 * `CpuState`, `HvMessage` and `HvX64RegisterPage`.
 *
 * @module
 */
import { CpuState, CR0_AM, CR0_PE, EFER_LMA, EVENT_VALID, EXIT_IN, EXIT_REP, EXIT_STRING, XMM } from "../cpu/state.ts";
import {
  HvMessage,
  HvX64CpuidInterceptMessage,
  HvX64InterceptMessageHeader,
  HvX64IoPortAccessInfo,
  HvX64IoPortInterceptMessage,
  HvX64MsrInterceptMessage,
  HvX64VpExecutionState,
} from "../layout/hyperv/messages.ts";
import { HvX64RegisterPage } from "../layout/hyperv/register_page.ts";
import { CopyPlan, type CopyRecord, type Move } from "../memory/copy_plan.ts";
import type { MachineMemory } from "../memory/machine_memory.ts";
import * as wasm from "../memory/wasm_code.ts";

const cpu = CpuState.at;
const page = HvX64RegisterPage.at;
const PAYLOAD = HvMessage.at.payload_buffer;
const WORD = 8;
const SEGMENT = 16;
/**
 * RIP is moved by halves, and instruction bytes by words, because they have just been stored so: a load that needs the data
 * of two stores waits until both are out of the host's store buffer.
 */
const HALF = 4;
const gpr = (number: number): number => cpu.gpr + number * WORD;

/** CS, RIP and RFLAGS of an intercept message's header. */
const HEADER: readonly Move[] = [
  [cpu.cs, PAYLOAD + HvX64InterceptMessageHeader.at.cs_segment, SEGMENT],
  [cpu.rip, PAYLOAD + HvX64InterceptMessageHeader.at.rip, HALF],
  [cpu.rip + HALF, PAYLOAD + HvX64InterceptMessageHeader.at.rip + HALF, HALF],
  [cpu.rflags, PAYLOAD + HvX64InterceptMessageHeader.at.rflags, WORD],
];

const io = HvX64IoPortInterceptMessage.at;
const IO_PORT: readonly Move[] = [
  [cpu.exit_bytes, PAYLOAD + io.instruction_bytes, WORD],
  [cpu.exit_bytes + WORD, PAYLOAD + io.instruction_bytes + WORD, WORD],
  [gpr(0), PAYLOAD + io.rax, WORD],
  [cpu.ds, PAYLOAD + io.ds_segment, SEGMENT],
  [cpu.es, PAYLOAD + io.es_segment, SEGMENT],
  [gpr(1), PAYLOAD + io.rcx, WORD],
  [gpr(6), PAYLOAD + io.rsi, WORD],
  [gpr(7), PAYLOAD + io.rdi, WORD],
];

const cpuid = HvX64CpuidInterceptMessage.at;
const CPUID: readonly Move[] = [
  [gpr(0), PAYLOAD + cpuid.rax, WORD],
  [gpr(1), PAYLOAD + cpuid.rcx, WORD],
  [gpr(2), PAYLOAD + cpuid.rdx, WORD],
  [gpr(3), PAYLOAD + cpuid.rbx, WORD],
];

const msr = HvX64MsrInterceptMessage.at;
const MSR: readonly Move[] = [
  [gpr(2), PAYLOAD + msr.rdx, WORD],
  [gpr(0), PAYLOAD + msr.rax, WORD],
];

/** What a message's code is told: where message and state are, VP index, access type, and the privilege level. */
export interface MessageOperands {
  readonly message: wasm.I32;
  readonly cpuState: wasm.I32;
  readonly vpIndex: wasm.I32;
  readonly cpl: wasm.I32;
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
function interceptHeader(operands: MessageOperands, access: wasm.I32): wasm.Code {
  const { message, cpuState, vpIndex } = operands;
  const low = (offset: number) => wasm.and(wasm.load32(cpuState, offset), wasm.constant(0xf));
  return [
    ...wasm.copy(message, cpuState, HEADER),
    ...wasm.store32(message, PAYLOAD + header.vp_index, vpIndex),
    ...wasm.store32(
      message,
      PAYLOAD + header.instruction_length_and_cr8,
      wasm.or(
        low(cpu.exit_length),
        wasm.shiftLeft(low(cpu.cr8), 4),
        wasm.shiftLeft(access, 8),
        wasm.shiftLeft(executionState(operands), 16),
      ),
    ),
  ];
}

/** Everything of a port intercept but its type and length. */
export function ioPortMessage(operands: MessageOperands): wasm.Code {
  const { message, cpuState } = operands;
  const flags = wasm.load8(cpuState, cpu.exit_flags);
  const isOut = wasm.isZero(wasm.and(flags, wasm.constant(EXIT_IN)));
  const info = wasm.or(
    wasm.load8(cpuState, cpu.exit_size),
    wasm.moveBit(flags, EXIT_STRING, HvX64IoPortAccessInfo.mask.string_op),
    wasm.moveBit(flags, EXIT_REP, HvX64IoPortAccessInfo.mask.rep_prefix),
  );
  // Port, access info and count of the instruction's bytes are one word. The types of access are READ 0 and WRITE 1.
  const port = wasm.and(wasm.load32(cpuState, cpu.exit_port), wasm.constant(0xffff));
  const count = wasm.load8(cpuState, cpu.exit_byte_count);
  return [
    ...interceptHeader(operands, isOut),
    ...wasm.store32(
      message,
      PAYLOAD + io.port_number,
      wasm.or(port, wasm.shiftLeft(info, 16), wasm.shiftLeft(count, 24)),
    ),
    ...wasm.copy(message, cpuState, IO_PORT),
  ];
}

/** Parameters of the functions that write messages: {@linkcode MessageOperands} and the access type. */
const OPERANDS: MessageOperands = {
  message: wasm.local(0),
  cpuState: wasm.local(1),
  vpIndex: wasm.local(2),
  cpl: wasm.local(3),
};
const ACCESS = wasm.local(4);

/** Writes what of a message comes from the processor's state. */
export type WriteMessage = (message: number, cpuState: number, vpIndex: number, cpl: number, access: number) => void;

function messageCode(...body: wasm.Code[]): wasm.WasmCode<WriteMessage> {
  return new wasm.WasmCode({ parameters: 5, locals: 0, gives: "nothing", body });
}

const HEADER_ONLY = messageCode(interceptHeader(OPERANDS, ACCESS));
const IO_PORT_MESSAGE = messageCode(ioPortMessage(OPERANDS));
const CPUID_MESSAGE = messageCode(
  interceptHeader(OPERANDS, ACCESS),
  wasm.copy(OPERANDS.message, OPERANDS.cpuState, CPUID),
);
const MSR_MESSAGE = messageCode(interceptHeader(OPERANDS, ACCESS), wasm.copy(OPERANDS.message, OPERANDS.cpuState, MSR));

/** Number of general-purpose registers, of segments and of XMM registers in the register page. */
const [GPRS, SEGMENTS, XMM_REGISTERS] = [16, 6, 6];
/** What the register page takes from the state. */
export const REGISTER_PAGE_MOVES: readonly Move[] = [
  [cpu.gpr, page.gp_registers, GPRS * WORD],
  [cpu.rip, page.rip, 2 * WORD], // and RFLAGS
  [cpu.es, page.segment, SEGMENTS * SEGMENT],
  [cpu.cr0, page.cr0, WORD],
  [cpu.cr3, page.cr3, 4 * WORD], // and CR4, CR8, EFER
  [cpu.dr7, page.dr7, WORD],
  [XMM, page.xmm, XMM_REGISTERS * 2 * WORD],
];
const REGISTER_PAGE = new CopyPlan(REGISTER_PAGE_MOVES);

/** The copies, bound to a machine's memory. */
export class VpCopies {
  /** CS, RIP, RFLAGS from the state to a message. */
  readonly header: WriteMessage;
  /** What a port intercept takes from the state. */
  readonly ioPortMessage: WriteMessage;
  /** What a CPUID intercept takes from the state. */
  readonly cpuidMessage: WriteMessage;
  /** What an MSR intercept takes from the state. */
  readonly msrMessage: WriteMessage;
  /** What the register page takes from the state. */
  readonly registerPage: CopyRecord;

  /** The copies on `memory`. */
  constructor(memory: MachineMemory) {
    this.header = HEADER_ONLY.on(memory);
    this.ioPortMessage = IO_PORT_MESSAGE.on(memory);
    this.cpuidMessage = CPUID_MESSAGE.on(memory);
    this.msrMessage = MSR_MESSAGE.on(memory);
    this.registerPage = REGISTER_PAGE.on(memory);
  }
}
