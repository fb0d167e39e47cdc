/**
 * Results of the instructions that read and change the reverse map table, and its geometry (AMD64 Architecture
 * Programmer's Manual volume 3; Linux `arch/x86/virt/svm/sev.c`).
 *
 * @module
 */

import { openEnum } from "../../open_enum.ts";

/** Result in EAX of PVALIDATE, RMPADJUST, RMPUPDATE, RMPQUERY, RMPREAD and PSMASH. */
export const RmpResult = openEnum("RmpResult", {
  SUCCESS: 0,
  FAIL_INPUT: 1,
  FAIL_PERMISSION: 2,
  FAIL_INUSE: 3,
  FAIL_OVERLAP: 4,
  FAIL_SIZEMISMATCH: 6,
});

/** What software makes of PVALIDATE's result 0 with CF set: nothing was changed. */
export const PVALIDATE_UNCHANGED = {
  /** Linux PVALIDATE_FAIL_NOUPDATE. */
  LINUX: 255,
  /** svsm FAIL_UNCHANGED. */
  SVSM: 16,
} as const;

/** Geometry of a table without segments: a page's entry is at RMP_BASE + BOOKKEEPING_BYTES + 16 * page number. */
export const RMP_GEOMETRY = {
  /** Bytes of an entry. */
  ENTRY_SIZE: 16,
  /** Bytes in front of the first entry. */
  BOOKKEEPING_BYTES: 0x4000,
  /** Page size of an entry: 4 KiB. */
  PAGE_SIZE_4K: 0,
  /** Page size of an entry: 2 MiB, told by the entry of the aligned address. */
  PAGE_SIZE_2M: 1,
} as const;

/** Virtual machine privilege levels: 0 is the most privileged. */
export const VMPL = {
  /** How many there are. */
  COUNT: 4,
  /** The most privileged one. */
  MOST_PRIVILEGED: 0,
  /** OpenHCL's level for VTL0. */
  VTL0: 2,
  /** OpenHCL's level for VTL1. */
  VTL1: 1,
  /** OpenHCL's level for VTL2. */
  VTL2: 0,
  /** RMPADJUST_ATTRS with every permission. */
  ATTRS_RWX: 0xf00,
  /** RMPADJUST_ATTRS with which svsm makes a VMSA page: read, and the VMSA bit. */
  ATTRS_VMSA_SVSM: 0x10100,
} as const;

/** Error-code bits of a page fault (AMD64 APM volume 2, section 8.4.2). */
export const PAGE_FAULT_ERROR_BIT = {
  P: 0,
  W: 1,
  U: 2,
  RSVD: 3,
  I: 4,
  PK: 5,
  SHSTK: 6,
  SGX: 15,
  RMP: 31,
} as const;

/** Bits that KVM adds to the error code of a nested page fault; hardware never sets them. */
export const KVM_SYNTHETIC_PFERR_BIT = {
  IMPLICIT_ACCESS: 48,
  PRIVATE_ACCESS: 49,
} as const;
