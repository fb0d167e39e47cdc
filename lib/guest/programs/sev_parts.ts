/**
 * What the kernels of encrypted guests have in common: numbers that the layouts declare, under the names that the kernels'
 * texts use, and the ends of a #VC handler.
 *
 * @module
 */
import { X86_MSR } from "../../layout/hyperv/constants/msrs.ts";
import { SevExitCode } from "../../layout/sev/constants/exit_codes.ts";
import { SEV_EXCEPTION } from "../../layout/sev/constants/instructions.ts";
import { SEV_MSR } from "../../layout/sev/constants/msrs.ts";
import { IOIO_EXITINFO1 } from "../../layout/sev/exit_info.ts";
import { GHCB, GHCB_VALID_BIT } from "../../layout/sev/ghcb.ts";
import { SEV_STATUS_MSR } from "../../layout/sev/status.ts";

/** Bytes of VMGEXIT, which the assembler knows as VMMCALL with a prefix. */
export const VMGEXIT = "db 0xf3, 0x0f, 0x01, 0xd9";

/** Exit codes that a kernel has a handler for. */
const CODES: readonly (keyof typeof SevExitCode.values)[] = [
  "DR6_WRITE",
  "DR7_READ",
  "DR7_WRITE",
  "RDTSC",
  "RDPMC",
  "CPUID",
  "IOIO",
  "MSR",
  "VMMCALL",
  "RDTSCP",
  "WBINVD",
  "MONITOR",
  "MWAIT",
  "NPF",
];

/** Fields of the GHCB that have a valid bit, under shorter names. */
const FIELDS = {
  CPL: "cpl",
  RAX: "rax",
  RCX: "rcx",
  RDX: "rdx",
  RBX: "rbx",
  CODE: "sw_exit_code",
  INFO1: "sw_exit_info_1",
  INFO2: "sw_exit_info_2",
  SCRATCH: "sw_scratch",
  XCR0: "xcr0",
} as const;

/** Bits of a half of the valid bitmap. */
const HALF_BITS = 64;

/**
 * MSR_, EXIT_ (exit codes), GHCB_ (offsets), VALID_ (bits within their half of the valid bitmap: RAX and CPL in the low one,
 * the others in the high one), IO_ (bits of EXITINFO1 of a port access).
 */
export const SEV_CONSTANTS: string = Object.entries({
  MSR_EFER: X86_MSR.X86X_MSR_EFER,
  MSR_GHCB: SEV_MSR.SEV_ES_GHCB,
  MSR_SEV_STATUS: SEV_MSR.SEV_STATUS,
  SEV_STATUS_ES: SEV_STATUS_MSR.low.es_enabled,
  SEV_STATUS_SNP: SEV_STATUS_MSR.low.snp_enabled,
  VECTOR_VC: SEV_EXCEPTION.VC,
  ...Object.fromEntries(CODES.map((name) => [`EXIT_${name}`, SevExitCode.values[name]])),
  ...Object.fromEntries(
    Object.entries(FIELDS).flatMap(([name, field]) => [
      [`GHCB_${name}`, GHCB.at[field]],
      [`VALID_${name}`, GHCB_VALID_BIT[field] % HALF_BITS],
    ]),
  ),
  GHCB_VALID_LOW: GHCB.at.valid_bitmap,
  GHCB_VALID_HIGH: GHCB.at.valid_bitmap + HALF_BITS / 8,
  GHCB_BUFFER: GHCB.at.shared_buffer,
  GHCB_VERSION: GHCB.at.protocol_version,
  GHCB_USAGE: GHCB.at.ghcb_usage,
  IO_IN: IOIO_EXITINFO1.low.in,
  IO_STRING: IOIO_EXITINFO1.low.string,
  IO_REP: IOIO_EXITINFO1.low.rep,
  IO_SIZE8: IOIO_EXITINFO1.low.size8,
  IO_SIZE16: IOIO_EXITINFO1.low.size16,
  IO_SIZE32: IOIO_EXITINFO1.low.size32,
}).map(([name, value]) => `${name} equ 0x${value.toString(16)}`).join("\n");

/** Pushes the registers from R15 down to RSI, as a #VC handler begins. */
export const PUSH_R15_TO_RSI: string = names(
  ["r15", "r14", "r13", "r12", "r11", "r10", "r9", "r8", "rdi", "rsi"],
  "push",
);
/** Its counterpart. */
export const POP_RSI_TO_R15: string = names(
  ["rsi", "rdi", "r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15"],
  "pop",
);

function names(registers: readonly string[], mnemonic: string): string {
  return registers.map((register) => `        ${mnemonic} ${register}`).join("\n");
}
