/**
 * What EXITINFO1 and EXITINFO2 say, by exit code, and the operands of INVLPGB (AMD64 Architecture Programmer's Manual
 * volumes 2 and 3; openvmm `vm/x86/x86defs`; Linux `asm/svm.h`).
 *
 * @module
 */

import { bits } from "../bits.ts";
import { u32, u64 } from "../field_type.ts";
import { AvicIpiFailure } from "./constants/msrs.ts";

/** A port access. */
export const IOIO_EXITINFO1 = bits("IOIO_EXITINFO1", u32, [
  [0, 1, "in", "IN or INS"],
  [2, 1, "string", "INS or OUTS"],
  [3, 1, "rep", "REP prefix"],
  [4, 1, "size8", "One byte"],
  [5, 1, "size16", "Two bytes"],
  [6, 1, "size32", "Four bytes"],
  [7, 1, "addr16", "16-bit address size"],
  [8, 1, "addr32", "32-bit address size"],
  [9, 1, "addr64", "64-bit address size"],
  [10, 3, "segment", "Segment of the memory operand: 0 ES, 1 CS, 2 SS, 3 DS, 4 FS, 5 GS"],
  [16, 16, "port", "Port"],
], "torvalds/linux: arch/x86/include/asm/svm.h SVM_IOIO_STR_SHIFT");

/** A nested page fault. */
export const NPF_EXITINFO1 = bits("NPF_EXITINFO1", u64, [
  [0, 1, "present", "The nested entry was present"],
  [1, 1, "write", "Write"],
  [2, 1, "user", "User access, as all guest accesses are"],
  [3, 1, "rsvd", "A reserved bit of a nested entry was set"],
  [4, 1, "fetch", "Instruction fetch"],
  [6, 1, "shadow_stack", "Shadow-stack access"],
  [31, 1, "rmp", "The RMP check failed"],
  [32, 1, "final_gpa", "The fault was on the final address"],
  [33, 1, "table_walk", "The fault was on a guest page table"],
  [34, 1, "enc", "The access had the C bit"],
  [35, 1, "sizem", "PVALIDATE or RMPADJUST of another page size"],
  [36, 1, "vmpl", "The VMPL's permissions do not suffice"],
  [37, 1, "sss", "Supervisor shadow stack"],
  [63, 1, "not_restartable", "The instruction cannot be restarted"],
], "microsoft/openvmm: vm/x86/x86defs/src/snp.rs SevNpfInfo");

/** A move to or from a control or debug register. */
export const MOV_CR_EXITINFO1 = bits("MOV_CR_EXITINFO1", u64, [
  [0, 4, "gpr_number", "General-purpose register in instruction-encoding order"],
  [63, 1, "mov_crx", "It was a MOV; 0 for LMSW, CLTS and SMSW"],
], "microsoft/openvmm: vm/x86/x86defs/src/snp.rs MovCrxDrxInfo");

/** An IPI that AVIC could not finish: the command. */
export const AVIC_IPI_EXITINFO1 = bits("AVIC_IPI_EXITINFO1", u64, [
  [0, 32, "icr_low", "ICR 31:0"],
  [32, 32, "icr_high", "ICR 63:32"],
], "microsoft/openvmm: vm/x86/x86defs/src/snp.rs SevAvicIncompleteIpiInfo1");

/** An IPI that AVIC could not finish: the reason. */
export const AVIC_IPI_EXITINFO2 = bits("AVIC_IPI_EXITINFO2", u64, [
  [0, 8, "index", "Entry of the id table"],
  [32, 32, "failure", "Why", AvicIpiFailure],
], "microsoft/openvmm: vm/x86/x86defs/src/snp.rs SevAvicIncompleteIpiInfo2");

/** An APIC access that AVIC does not do. */
export const AVIC_NOACCEL_EXITINFO1 = bits("AVIC_NOACCEL_EXITINFO1", u64, [
  [4, 8, "apic_register_number", "Register's offset divided by 16"],
  [32, 1, "write_access", "Write"],
], "microsoft/openvmm: vm/x86/x86defs/src/snp.rs SevAvicNoAccelInfo");

/** RAX of INVLPGB. */
export const INVLPGB_RAX = bits("INVLPGB_RAX", u64, [
  [0, 1, "va_valid", "The page number counts"],
  [1, 1, "pcid_valid", "The PCID counts"],
  [2, 1, "asid_valid", "The ASID counts"],
  [3, 1, "global", "Global entries too"],
  [4, 1, "final_only", "Leaf entries only"],
  [5, 1, "nested", "Nested entries too"],
  [12, 52, "virtual_page_number", "Linear page number"],
], "microsoft/openvmm: vm/x86/x86defs/src/snp.rs SevInvlpgbRax");

/** EDX of INVLPGB. */
export const INVLPGB_EDX = bits("INVLPGB_EDX", u32, [
  [0, 16, "asid", "Address space id"],
  [16, 12, "pcid", "Process context id"],
], "microsoft/openvmm: vm/x86/x86defs/src/snp.rs SevInvlpgbEdx");

/** ECX of INVLPGB. */
export const INVLPGB_ECX = bits("INVLPGB_ECX", u32, [
  [0, 16, "additional_count", "Pages beyond the first"],
  [31, 1, "large_page", "Pages are large"],
], "microsoft/openvmm: vm/x86/x86defs/src/snp.rs SevInvlpgbEcx");
