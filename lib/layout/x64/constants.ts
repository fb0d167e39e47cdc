/**
 * Bits, values and numbers of the x86-64 architecture (AMD64 Architecture Programmer's Manual volumes 2 and 3;
 * openvmm `vm/x86/x86defs`).
 *
 * @module
 */

import { openEnum } from "../open_enum.ts";

/** Bits of CR0. (openvmm: vm/x86/x86defs) */
export const CR0 = {
  PE: 0x00000001,
  MP: 0x00000002,
  EM: 0x00000004,
  TS: 0x00000008,
  ET: 0x00000010,
  NE: 0x00000020,
  WP: 0x00010000,
  AM: 0x00040000,
  NW: 0x20000000,
  CD: 0x40000000,
  PG: 0x80000000,
  RSVDZ_MASK: 0x1ffaffc0,
} as const;

/** Bits of CR4. (openvmm: vm/x86/x86defs) */
export const CR4 = {
  VME: 0x000001,
  PVI: 0x000002,
  TSD: 0x000004,
  DE: 0x000008,
  PSE: 0x000010,
  PAE: 0x000020,
  MCE: 0x000040,
  PGE: 0x000080,
  PCE: 0x000100,
  FXSR: 0x000200,
  XMMEXCPT: 0x000400,
  UMIP: 0x000800,
  LA57: 0x001000,
  VMXE: 0x002000,
  RWFSGS: 0x010000,
  PCIDE: 0x020000,
  OSXSAVE: 0x040000,
  SMEP: 0x100000,
  SMAP: 0x200000,
  CET: 0x800000,
} as const;

/** Bits of EFER. (openvmm: vm/x86/x86defs) */
export const EFER = {
  SCE: 0x0001,
  LME: 0x0100,
  LMA: 0x0400,
  NXE: 0x0800,
  SVME: 0x1000,
  FFXSR: 0x4000,
  TCE: 0x8000,
} as const;

/** Values at reset and other single numbers. (openvmm: vm/x86/x86defs) */
export const X64 = {
  /** PAT at reset. */
  DEFAULT_PAT: 0x7040600070406,
  /** DR7 without breakpoints. */
  EMPTY_DR7: 0x400,
  /** DR6 bits that name the breakpoint. */
  DR6_BREAKPOINT_MASK: 0xf,
  /** DR6.BS. */
  DR6_SINGLE_STEP: 0x4000,
  /** RFLAGS at reset. */
  RFLAGS_AT_RESET: 0x2,
  /** 64-bit code, present, accessed. */
  DEFAULT_CODE_SEGMENT_ATTRIBUTES: 0xa09b,
  /** 32-bit data, present, accessed. */
  DEFAULT_DATA_SEGMENT_ATTRIBUTES: 0xc093,
  /** Busy task-state segment, present. */
  BUSY_TSS_SEGMENT_ATTRIBUTES: 0x8b,
  /** Bytes of a large page. */
  LARGE_PAGE_SIZE: 0x200000,
  /** x87 control word after FNINIT. */
  FXSAVE_FCW_INIT: 0x37f,
  /** MXCSR at reset. */
  FXSAVE_MXCSR_INIT: 0x1f80,
  /** Bytes of the FXSAVE part of an XSAVE area. */
  XSAVE_LEGACY_LEN: 0x200,
  /** Bytes of its header. */
  XSAVE_HEADER_LEN: 0x40,
} as const;

/** Exception vectors. (openvmm: vm/x86/x86defs Exception) */
export const Exception = openEnum("Exception", {
  DIVIDE_ERROR: 0x00,
  DEBUG: 0x01,
  BREAKPOINT: 0x03,
  OVERFLOW: 0x04,
  BOUND_RANGE_EXCEEDED: 0x05,
  INVALID_OPCODE: 0x06,
  DEVICE_NOT_AVAILABLE: 0x07,
  DOUBLE_FAULT: 0x08,
  INVALID_TSS: 0x0a,
  SEGMENT_NOT_PRESENT: 0x0b,
  STACK_SEGMENT_FAULT: 0x0c,
  GENERAL_PROTECTION_FAULT: 0x0d,
  PAGE_FAULT: 0x0e,
  FLOATING_POINT_EXCEPTION: 0x10,
  ALIGNMENT_CHECK: 0x11,
  MACHINE_CHECK: 0x12,
  SIMD_FLOATING_POINT_EXCEPTION: 0x13,
  CONTROL_PROTECTION_EXCEPTION: 0x15,
  SEV_VMM_COMMUNICATION: 0x1d,
});

/**
 * Local APIC registers: MMIO offset is 16 times the number, x2APIC MSR is 0x800 plus the number. (openvmm:
 * vm/x86/x86defs/src/apic.rs ApicRegister)
 */
export const ApicRegister = openEnum("ApicRegister", {
  ID: 0x02,
  VERSION: 0x03,
  TPR: 0x08,
  APR: 0x09,
  PPR: 0x0a,
  EOI: 0x0b,
  RRD: 0x0c,
  LDR: 0x0d,
  DFR: 0x0e,
  SVR: 0x0f,
  ISR0: 0x10,
  ISR1: 0x11,
  ISR2: 0x12,
  ISR3: 0x13,
  ISR4: 0x14,
  ISR5: 0x15,
  ISR6: 0x16,
  ISR7: 0x17,
  TMR0: 0x18,
  TMR1: 0x19,
  TMR2: 0x1a,
  TMR3: 0x1b,
  TMR4: 0x1c,
  TMR5: 0x1d,
  TMR6: 0x1e,
  TMR7: 0x1f,
  IRR0: 0x20,
  IRR1: 0x21,
  IRR2: 0x22,
  IRR3: 0x23,
  IRR4: 0x24,
  IRR5: 0x25,
  IRR6: 0x26,
  IRR7: 0x27,
  ESR: 0x28,
  INTEL_LVT_CMCI: 0x2f,
  ICR0: 0x30,
  ICR1: 0x31,
  LVT_TIMER: 0x32,
  LVT_THERMAL: 0x33,
  LVT_PMC: 0x34,
  LVT_LINT0: 0x35,
  LVT_LINT1: 0x36,
  LVT_ERROR: 0x37,
  TIMER_ICR: 0x38,
  TIMER_CCR: 0x39,
  TIMER_DCR: 0x3e,
  SELF_IPI: 0x3f,
});

/** Delivery modes of the APIC. (openvmm: vm/x86/x86defs/src/apic.rs DeliveryMode) */
export const ApicDeliveryMode = openEnum("ApicDeliveryMode", {
  FIXED: 0x0,
  LOWEST_PRIORITY: 0x1,
  SMI: 0x2,
  REMOTE_READ: 0x3,
  NMI: 0x4,
  INIT: 0x5,
  SIPI: 0x6,
  EXTINT: 0x7,
});

/** Destination shorthands of the interrupt command. (openvmm: vm/x86/x86defs/src/apic.rs DestinationShorthand) */
export const ApicDestinationShorthand = openEnum("ApicDestinationShorthand", {
  NONE: 0x0,
  SELF: 0x1,
  ALL_INCLUDING_SELF: 0x2,
  ALL_EXCLUDING_SELF: 0x3,
});

/** Addresses and MSR numbers of the local APIC. (openvmm: vm/x86/x86defs/src/apic.rs) */
export const APIC = {
  BASE_ADDRESS: 0xfee00000,
  X2APIC_MSR_BASE: 0x800,
  X2APIC_MSR_END: 0x83f,
  X2APIC_MSR_EOI: 0x80b,
  X2APIC_MSR_SVR: 0x80f,
  X2APIC_MSR_ICR: 0x830,
  LEGACY_ID_COUNT: 0xff,
  ICR_EXAMPLE_VECTOR20_DEST3: 0x300000020,
} as const;

/** Addresses, register indices and values of the I/O APIC. (openvmm: vm/devices/chipset/src/ioapic/mod.rs) */
export const IOAPIC = {
  /** Guest-physical address of the registers. */
  MMIO_BASE: 0xfec00000,
  /** Bytes of them. */
  MMIO_SIZE: 0x00000020,
  /** Index register. */
  REG_INDEX_OFFSET: 0x00000000,
  /** Data register. */
  REG_DATA_OFFSET: 0x00000010,
  INDEX_ID: 0x00000000,
  INDEX_VERSION: 0x00000001,
  INDEX_ARBITRATION_ID: 0x00000002,
  /** First redirection entry; two indices for each. */
  INDEX_REDIRECTION_START: 0x00000010,
  /** Contents of the version register; this version has no EOI register. */
  VERSION: 0x00000011,
  /** Logical destination, masked. */
  REDIRECTION_ENTRY_RESET: 0x00010800,
} as const;
