/**
 * Model-specific registers of SEV, and its CPUID leaf (AMD64 Architecture Programmer's Manual volumes 2 and 3).
 *
 * @module
 */

import { bits } from "../../bits.ts";
import { u32 } from "../../field_type.ts";
import { openEnum } from "../../open_enum.ts";

/** Model-specific registers. */
export const SEV_MSR = {
  /** Bits 19 MFDM, 23 memory encryption, 24 SNP, 25 SNP VMPL. */
  SYSCFG: 0xc0010010,
  HWCR: 0xc0010015,
  /** Host save area; VMSA-shaped state from offset 400 on. */
  VM_HSAVE_PA: 0xc0010117,
  VM_PAGE_FLUSH: 0xc001011e,
  /** GHCB address, or a request of the MSR protocol; passed through to the guest. */
  SEV_ES_GHCB: 0xc0010130,
  /** SEV_STATUS_MSR; read only. */
  SEV_STATUS: 0xc0010131,
  RMP_BASE: 0xc0010132,
  /** Address of the last byte. */
  RMP_END: 0xc0010133,
  /** MHz, with Secure TSC. */
  GUEST_TSC_FREQ: 0xc0010134,
  /** Bit 0 segmented table; 13:8 base-2 logarithm of a segment's size. */
  RMP_CFG: 0xc0010136,
  SECURE_AVIC_CONTROL: 0xc0010138,
  /** No real register: the guest's #VC handler answers with the calling area's address. */
  SVSM_CAA: 0xc001f000,
  EFER: 0xc0000080,
  HV_X64_MSR_CRASH_P0: 0x40000100,
  HV_X64_MSR_CRASH_P1: 0x40000101,
  HV_X64_MSR_CRASH_P2: 0x40000102,
  HV_X64_MSR_CRASH_P3: 0x40000103,
  HV_X64_MSR_CRASH_P4: 0x40000104,
  HV_X64_MSR_CRASH_CTL: 0x40000105,
} as const;

/** EAX of CPUID leaf 8000001f. ECX is the number of guests, EDX the lowest ASID of a guest without SEV-ES. */
export const CPUID_8000001F_EAX = bits("CPUID_8000001F_EAX", u32, [
  [0, 1, "sme", "SME"],
  [1, 1, "sev", "SEV"],
  [2, 1, "page_flush_msr", "MSR VM_PAGE_FLUSH"],
  [3, 1, "sev_es", "SEV-ES"],
  [4, 1, "sev_snp", "SEV-SNP"],
  [5, 1, "vmpl", "VMPLs"],
  [6, 1, "rmpquery", "RMPQUERY"],
  [7, 1, "vmpl_sss", "VMPL checks of supervisor shadow stacks"],
  [8, 1, "secure_tsc", "Secure TSC"],
  [9, 1, "tsc_aux_virtualization", "TSC_AUX is virtualised"],
  [10, 1, "hw_cache_coherency", "Caches are coherent across encryption domains"],
  [11, 1, "guest_64bit_host_required", "The host must be in 64-bit mode"],
  [12, 1, "restricted_injection", "Restricted injection"],
  [13, 1, "alternate_injection", "Alternate injection"],
  [14, 1, "debug_swap", "Hardware swaps debug registers"],
  [15, 1, "prevent_host_ibs", "The host's instruction-based sampling can be stopped"],
  [16, 1, "vte", "Virtual transparent encryption"],
  [17, 1, "vmgexit_parameter", "VMGEXIT takes a parameter"],
  [18, 1, "virtual_tom_msr", "MSR VIRTUAL_TOM"],
  [19, 1, "ibs_virtualization", "Instruction-based sampling is virtualised"],
  [22, 1, "guest_intercept_control", "VMPL0 software chooses intercepts"],
  [23, 1, "segmented_rmp", "Segmented reverse map table"],
  [24, 1, "vmsa_register_protection", "VMSA register protection"],
  [26, 1, "secure_avic", "Secure AVIC"],
  [27, 1, "allowed_sev_features", "VMCB_CONTROL.allowed_sev_features"],
  [29, 1, "nested_virtualization_msr", "Nested virtualisation MSR for SNP"],
], "microsoft/openvmm: vm/x86/x86defs/src/cpuid.rs ExtendedSevFeaturesEax");

/** EBX of CPUID leaf 8000001f. */
export const CPUID_8000001F_EBX = bits("CPUID_8000001F_EBX", u32, [
  [0, 6, "c_bit_position", "Bit number of the C bit"],
  [6, 6, "physical_address_reduction", "Physical address bits that encryption takes"],
  [12, 4, "number_of_vmpls", "VMPLs"],
], "AMD64 APM volume 3, appendix E.4.17");

/** Why AVIC could not finish an IPI, upper half of EXITINFO2. */
export const AvicIpiFailure = openEnum("AvicIpiFailure", {
  INVALID_INTERRUPT_TYPE: 0,
  TARGET_NOT_RUNNING: 1,
  INVALID_TARGET: 2,
  INVALID_BACKING_PAGE_POINTER: 3,
  INVALID_VECTOR: 4,
  IPI_COULD_NOT_BE_ACCELERATED: 5,
});
