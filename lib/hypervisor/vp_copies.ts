/**
 * What moves between a processor's state and the pages that VTL2 shares with the hypervisor, as copy plans. Sources and
 * targets are `CpuState`, `HvMessage` and `HvX64RegisterPage`.
 *
 * @module
 */
import { CpuState, XMM } from "../cpu/state.ts";
import {
  HvMessage,
  HvX64CpuidInterceptMessage,
  HvX64InterceptMessageHeader,
  HvX64IoPortInterceptMessage,
  HvX64MsrInterceptMessage,
} from "../layout/hyperv/messages.ts";
import { HvX64RegisterPage } from "../layout/hyperv/register_page.ts";
import { CopyPlan, type CopyRecord, type Move } from "../memory/copy_plan.ts";
import type { MachineMemory } from "../memory/machine_memory.ts";

const cpu = CpuState.at;
const page = HvX64RegisterPage.at;
const PAYLOAD = HvMessage.at.payload_buffer;
const WORD = 8;
const SEGMENT = 16;
const INSTRUCTION_BYTES = 16;
const gpr = (number: number): number => cpu.gpr + number * WORD;

/** CS, RIP and RFLAGS of an intercept message's header. */
const HEADER: readonly Move[] = [
  [cpu.cs, PAYLOAD + HvX64InterceptMessageHeader.at.cs_segment, SEGMENT],
  [cpu.rip, PAYLOAD + HvX64InterceptMessageHeader.at.rip, WORD],
  [cpu.rflags, PAYLOAD + HvX64InterceptMessageHeader.at.rflags, WORD],
];

const io = HvX64IoPortInterceptMessage.at;
const IO_PORT_MESSAGE = new CopyPlan([
  ...HEADER,
  [cpu.exit_bytes, PAYLOAD + io.instruction_bytes, INSTRUCTION_BYTES],
  [gpr(0), PAYLOAD + io.rax, WORD],
  [cpu.ds, PAYLOAD + io.ds_segment, SEGMENT],
  [cpu.es, PAYLOAD + io.es_segment, SEGMENT],
  [gpr(1), PAYLOAD + io.rcx, WORD],
  [gpr(6), PAYLOAD + io.rsi, WORD],
  [gpr(7), PAYLOAD + io.rdi, WORD],
]);

const cpuid = HvX64CpuidInterceptMessage.at;
const CPUID_MESSAGE = new CopyPlan([
  ...HEADER,
  [gpr(0), PAYLOAD + cpuid.rax, WORD],
  [gpr(1), PAYLOAD + cpuid.rcx, WORD],
  [gpr(2), PAYLOAD + cpuid.rdx, WORD],
  [gpr(3), PAYLOAD + cpuid.rbx, WORD],
]);

const msr = HvX64MsrInterceptMessage.at;
const MSR_MESSAGE = new CopyPlan([
  ...HEADER,
  [gpr(2), PAYLOAD + msr.rdx, WORD],
  [gpr(0), PAYLOAD + msr.rax, WORD],
]);

const HEADER_ONLY = new CopyPlan(HEADER);

/** Number of general-purpose registers, of segments and of XMM registers in the register page. */
const [GPRS, SEGMENTS, XMM_REGISTERS] = [16, 6, 6];
/** What the register page takes from the state. */
export const REGISTER_PAGE_MOVES: readonly Move[] = [
  [cpu.gpr, page.gp_registers, GPRS * WORD],
  [cpu.rip, page.rip, WORD],
  [cpu.rflags, page.rflags, WORD],
  [cpu.es, page.segment, SEGMENTS * SEGMENT],
  [cpu.cr0, page.cr0, WORD],
  [cpu.cr3, page.cr3, WORD],
  [cpu.cr4, page.cr4, WORD],
  [cpu.cr8, page.cr8, WORD],
  [cpu.efer, page.efer, WORD],
  [cpu.dr7, page.dr7, WORD],
  [XMM, page.xmm, XMM_REGISTERS * 2 * WORD],
];
const REGISTER_PAGE = new CopyPlan(REGISTER_PAGE_MOVES);

/** The copies, bound to a machine's memory. Each takes the target's and the source's byte offset. */
export class VpCopies {
  /** CS, RIP, RFLAGS from the state to a message. */
  readonly header: CopyRecord;
  /** What a port intercept takes from the state. */
  readonly ioPortMessage: CopyRecord;
  /** What a CPUID intercept takes from the state. */
  readonly cpuidMessage: CopyRecord;
  /** What an MSR intercept takes from the state. */
  readonly msrMessage: CopyRecord;
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
