/**
 * The reverse map table: who owns each page of physical memory (AMD64 Architecture Programmer's Manual volume 2,
 * section 15.36; Linux `arch/x86/virt/svm/sev.c`).
 *
 * @module
 */

import { bits } from "../bits.ts";
import { u32, u64, u8 } from "../field_type.ts";
import { reserved, structure } from "../structure.ts";

/** Byte 8 of RMP_ENTRY_RMPREAD. */
export const RMP_ASSIGNED_BYTE = bits(
  "RMP_ASSIGNED_BYTE",
  u8,
  [[0, 1, "assigned", "The page belongs to a guest"]],
  "torvalds/linux: arch/x86/virt/svm/sev.c rmpentry",
);

/** Byte 9 of RMP_ENTRY_RMPREAD. */
export const RMP_SIZE_BYTE = bits("RMP_SIZE_BYTE", u8, [
  [0, 1, "pagesize", "0 for 4 KiB, 1 for 2 MiB"],
  [1, 1, "hpage_region_status", "Another page of the 2 MiB region is assigned"],
], "torvalds/linux: arch/x86/virt/svm/sev.c rmpentry");

/** Byte 10 of RMP_ENTRY_RMPREAD. */
export const RMP_IMMUTABLE_BYTE = bits(
  "RMP_IMMUTABLE_BYTE",
  u8,
  [[0, 1, "immutable", "RMPUPDATE may not change it"]],
  "torvalds/linux: arch/x86/virt/svm/sev.c rmpentry",
);

/** What RMPREAD returns; validation, VMSA bit and permissions do not show. */
export const RMP_ENTRY_RMPREAD = structure("RMP_ENTRY_RMPREAD", 0x10, [
  ["gpa", 0x00, u64, "Guest-physical address that the page backs"],
  ["assigned_byte", 0x08, RMP_ASSIGNED_BYTE, "Whether the page belongs to a guest"],
  ["size_byte", 0x09, RMP_SIZE_BYTE, "Page size"],
  ["immutable_byte", 0x0a, RMP_IMMUTABLE_BYTE, "Whether RMPUPDATE may change it"],
  reserved(0x0b, 1),
  ["asid", 0x0c, u32, "Guest that owns it; 0 is the hypervisor or firmware"],
], "torvalds/linux: arch/x86/virt/svm/sev.c rmpentry");

/** Low half of an entry as Zen 3 and Zen 4 keep it in memory. */
export const RMP_RAW_LO = bits("RMP_RAW_LO", u64, [
  [0, 1, "assigned", "The page belongs to a guest"],
  [1, 1, "pagesize", "0 for 4 KiB, 1 for 2 MiB"],
  [2, 1, "immutable", "RMPUPDATE may not change it"],
  [12, 39, "gpa_pfn", "Guest-physical page number that it backs"],
  [51, 10, "asid", "Guest that owns it"],
  [61, 1, "vmsa", "The page holds a VMSA"],
  [62, 1, "validated", "The guest has accepted it"],
], "torvalds/linux: arch/x86/virt/svm/sev.c rmpentry_raw");

/** An entry as Zen 3 and Zen 4 keep it in memory. */
export const RMP_ENTRY_RAW = structure("RMP_ENTRY_RAW", 0x10, [
  ["lo", 0x00, RMP_RAW_LO, "Owner and state"],
  ["hi", 0x08, u64, "Not documented; the VMPL permissions"],
], "torvalds/linux: arch/x86/virt/svm/sev.c rmpentry_raw");

/** Operand of RMPUPDATE. */
export const RMP_STATE = structure("RMP_STATE", 0x10, [
  ["gpa", 0x00, u64, "Guest-physical address that the page is to back"],
  ["assigned", 0x08, u8, "Not 0: to a guest"],
  ["pagesize", 0x09, u8, "0 for 4 KiB, 1 for 2 MiB"],
  ["immutable", 0x0a, u8, "Not 0: no later RMPUPDATE"],
  reserved(0x0b, 1),
  ["asid", 0x0c, u32, "Guest"],
], "torvalds/linux: arch/x86/include/asm/sev.h rmp_state");

/** RDX of RMPADJUST, and what RMPQUERY returns. */
export const RMPADJUST_ATTRS = bits("RMPADJUST_ATTRS", u64, [
  [0, 8, "target_vmpl", "VMPL whose permissions are meant"],
  [8, 1, "read", "Reads"],
  [9, 1, "write", "Writes"],
  [10, 1, "user_execute", "Execution at CPL 3"],
  [11, 1, "supervisor_execute", "Execution at CPL 0 to 2"],
  [16, 1, "vmsa", "The page holds a VMSA"],
], "microsoft/openvmm: vm/x86/x86defs/src/snp.rs SevRmpAdjust");
