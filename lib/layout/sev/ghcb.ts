/**
 * The GHCB: the shared page through which an SEV-ES guest talks to its hypervisor (AMD, SEV-ES Guest-Hypervisor
 * Communication Block Standardization; Linux `asm/svm.h`).
 *
 * @module
 */

import { bytes, u16, u64, u8 } from "../field_type.ts";
import { reserved, structure } from "../structure.ts";
import { SevExitCode } from "./constants/exit_codes.ts";
import { GhcbUsage } from "./constants/ghcb.ts";

/** The page. Offsets of registers equal those of the VMSA. */
export const GHCB = structure("GHCB", 0x1000, [
  reserved(0x000, 203),
  ["cpl", 0x0cb, u8, "Privilege level of the VMMCALL"],
  reserved(0x0cc, 116),
  ["xss", 0x140, u64, "XSS, for CPUID leaf D subleaf 1"],
  reserved(0x148, 24),
  ["dr7", 0x160, u64, "Not used: DR7 travels in RAX"],
  reserved(0x168, 16),
  ["rip", 0x178, u64, "Not used"],
  reserved(0x180, 88),
  ["rsp", 0x1d8, u64, "Not used"],
  reserved(0x1e0, 24),
  ["rax", 0x1f8, u64, "RAX"],
  reserved(0x200, 264),
  ["rcx", 0x308, u64, "RCX"],
  ["rdx", 0x310, u64, "RDX"],
  ["rbx", 0x318, u64, "RBX"],
  reserved(0x320, 8),
  ["rbp", 0x328, u64, "RBP"],
  ["rsi", 0x330, u64, "RSI"],
  ["rdi", 0x338, u64, "RDI"],
  ["r8", 0x340, u64, "R8"],
  ["r9", 0x348, u64, "R9"],
  ["r10", 0x350, u64, "R10"],
  ["r11", 0x358, u64, "R11"],
  ["r12", 0x360, u64, "R12"],
  ["r13", 0x368, u64, "R13"],
  ["r14", 0x370, u64, "R14"],
  ["r15", 0x378, u64, "R15"],
  reserved(0x380, 16),
  ["sw_exit_code", 0x390, SevExitCode.u64, "SW_EXITCODE: what the guest asks for"],
  ["sw_exit_info_1", 0x398, u64, "SW_EXITINFO1"],
  ["sw_exit_info_2", 0x3a0, u64, "SW_EXITINFO2"],
  [
    "sw_scratch",
    0x3a8,
    u64,
    "SW_SCRATCH: guest-physical address of the buffer for string I/O, MMIO and page state changes",
  ],
  reserved(0x3b0, 56),
  ["xcr0", 0x3e8, u64, "XCR0, for CPUID leaf D"],
  ["valid_bitmap", 0x3f0, bytes(16), "One bit for each qword up to here: the field was written"],
  ["x87_state_gpa", 0x400, u64, "Guest-physical address of x87 state; it has no valid bit"],
  reserved(0x408, 1016),
  ["shared_buffer", 0x800, bytes(2032), "Scratch space"],
  reserved(0xff0, 10),
  ["protocol_version", 0xffa, u16, "Protocol version of the request"],
  ["ghcb_usage", 0xffc, GhcbUsage.u32, "Format of the page"],
], "torvalds/linux: arch/x86/include/asm/svm.h ghcb");

/**
 * The page as an enlightened Hyper-V hypercall, ghcb_usage 1. Its last 8 bytes are those of the standard page.
 */
export const HV_GHCB_HYPERCALL_PAGE = structure("HV_GHCB_HYPERCALL_PAGE", 0x1000, [
  ["data", 0x000, bytes(4072), "Hypercall input"],
  ["output_gpa", 0xfe8, u64, "Guest-physical address of the output"],
  ["io", 0xff0, u64, "Control word, then the result"],
  reserved(0xff8, 8),
], "microsoft/openvmm: vm/x86/x86defs/src/snp.rs GhcbPageHvHypercall");

/** Fields of the GHCB that have a bit in `valid_bitmap`. */
export type GhcbValidField = Exclude<
  keyof typeof GHCB.at,
  "valid_bitmap" | "x87_state_gpa" | "shared_buffer" | "protocol_version" | "ghcb_usage"
>;

/** Bit of `valid_bitmap` for each field that has one: byte offset / 8. */
export const GHCB_VALID_BIT = Object.fromEntries(
  GHCB.fields.filter((field) => !field.reserved && field.offset < GHCB.at.valid_bitmap)
    .map((field) => [field.name, Math.floor(field.offset / 8)]),
) as Readonly<Record<GhcbValidField, number>>;
