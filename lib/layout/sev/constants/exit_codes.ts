/**
 * Exit codes of SVM and SEV, and the software exits that a guest asks for through the GHCB (AMD64 Architecture
 * Programmer's Manual volume 2, appendix C; SEV-ES GHCB standardization; Linux `uapi/asm/svm.h`; openvmm
 * `vm/x86/x86defs` SevExitCode).
 *
 * @module
 */

import { openEnum } from "../../open_enum.ts";

/**
 * Why a guest left, or the error code of a #VC: they are the same numbers. The negative ones are what the processor
 * reports as 64-bit all ones and below.
 *
 * VMCB intercept bit n makes exit code n, for 0 to 0xa6. Codes from 0x80000001 on are written by the guest into
 * SW_EXITCODE.
 */
export const SevExitCode = openEnum("SevExitCode", {
  CR0_READ: 0x00,
  CR1_READ: 0x01,
  CR2_READ: 0x02,
  CR3_READ: 0x03,
  CR4_READ: 0x04,
  CR5_READ: 0x05,
  CR6_READ: 0x06,
  CR7_READ: 0x07,
  CR8_READ: 0x08,
  CR9_READ: 0x09,
  CR10_READ: 0x0a,
  CR11_READ: 0x0b,
  CR12_READ: 0x0c,
  CR13_READ: 0x0d,
  CR14_READ: 0x0e,
  CR15_READ: 0x0f,
  CR0_WRITE: 0x10,
  CR1_WRITE: 0x11,
  CR2_WRITE: 0x12,
  CR3_WRITE: 0x13,
  CR4_WRITE: 0x14,
  CR5_WRITE: 0x15,
  CR6_WRITE: 0x16,
  CR7_WRITE: 0x17,
  CR8_WRITE: 0x18,
  CR9_WRITE: 0x19,
  CR10_WRITE: 0x1a,
  CR11_WRITE: 0x1b,
  CR12_WRITE: 0x1c,
  CR13_WRITE: 0x1d,
  CR14_WRITE: 0x1e,
  CR15_WRITE: 0x1f,
  DR0_READ: 0x20,
  DR1_READ: 0x21,
  DR2_READ: 0x22,
  DR3_READ: 0x23,
  DR4_READ: 0x24,
  DR5_READ: 0x25,
  DR6_READ: 0x26,
  DR7_READ: 0x27,
  DR8_READ: 0x28,
  DR9_READ: 0x29,
  DR10_READ: 0x2a,
  DR11_READ: 0x2b,
  DR12_READ: 0x2c,
  DR13_READ: 0x2d,
  DR14_READ: 0x2e,
  DR15_READ: 0x2f,
  DR0_WRITE: 0x30,
  DR1_WRITE: 0x31,
  DR2_WRITE: 0x32,
  DR3_WRITE: 0x33,
  DR4_WRITE: 0x34,
  DR5_WRITE: 0x35,
  DR6_WRITE: 0x36,
  DR7_WRITE: 0x37,
  DR8_WRITE: 0x38,
  DR9_WRITE: 0x39,
  DR10_WRITE: 0x3a,
  DR11_WRITE: 0x3b,
  DR12_WRITE: 0x3c,
  DR13_WRITE: 0x3d,
  DR14_WRITE: 0x3e,
  DR15_WRITE: 0x3f,
  EXCP0: 0x40,
  EXCP1: 0x41,
  EXCP2: 0x42,
  EXCP3: 0x43,
  EXCP4: 0x44,
  EXCP5: 0x45,
  EXCP6: 0x46,
  EXCP7: 0x47,
  EXCP8: 0x48,
  EXCP9: 0x49,
  EXCP10: 0x4a,
  EXCP11: 0x4b,
  EXCP12: 0x4c,
  EXCP13: 0x4d,
  EXCP14: 0x4e,
  EXCP15: 0x4f,
  EXCP16: 0x50,
  EXCP17: 0x51,
  /** Machine check; of the exceptions only this one is automatic. */
  EXCP18: 0x52,
  EXCP19: 0x53,
  EXCP20: 0x54,
  EXCP21: 0x55,
  EXCP22: 0x56,
  EXCP23: 0x57,
  EXCP24: 0x58,
  EXCP25: 0x59,
  EXCP26: 0x5a,
  EXCP27: 0x5b,
  /** #HV, hypervisor injection. */
  EXCP28: 0x5c,
  /** #VC, VMM communication. */
  EXCP29: 0x5d,
  EXCP30: 0x5e,
  EXCP31: 0x5f,
  INTR: 0x60,
  NMI: 0x61,
  SMI: 0x62,
  INIT: 0x63,
  VINTR: 0x64,
  CR0_SEL_WRITE: 0x65,
  IDTR_READ: 0x66,
  GDTR_READ: 0x67,
  LDTR_READ: 0x68,
  TR_READ: 0x69,
  IDTR_WRITE: 0x6a,
  GDTR_WRITE: 0x6b,
  LDTR_WRITE: 0x6c,
  TR_WRITE: 0x6d,
  RDTSC: 0x6e,
  RDPMC: 0x6f,
  PUSHF: 0x70,
  POPF: 0x71,
  CPUID: 0x72,
  RSM: 0x73,
  IRET: 0x74,
  SWINT: 0x75,
  INVD: 0x76,
  PAUSE: 0x77,
  HLT: 0x78,
  INVLPG: 0x79,
  INVLPGA: 0x7a,
  IOIO: 0x7b,
  MSR: 0x7c,
  TASK_SWITCH: 0x7d,
  FERR_FREEZE: 0x7e,
  SHUTDOWN: 0x7f,
  VMRUN: 0x80,
  VMMCALL: 0x81,
  VMLOAD: 0x82,
  VMSAVE: 0x83,
  STGI: 0x84,
  CLGI: 0x85,
  SKINIT: 0x86,
  RDTSCP: 0x87,
  ICEBP: 0x88,
  WBINVD: 0x89,
  MONITOR: 0x8a,
  /** MWAIT, whatever the monitor's state. */
  MWAIT: 0x8b,
  /** MWAIT while the monitor is armed. */
  MWAIT_CONDITIONAL: 0x8c,
  XSETBV: 0x8d,
  RDPRU: 0x8e,
  EFER_WRITE_TRAP: 0x8f,
  CR0_WRITE_TRAP: 0x90,
  CR1_WRITE_TRAP: 0x91,
  CR2_WRITE_TRAP: 0x92,
  CR3_WRITE_TRAP: 0x93,
  CR4_WRITE_TRAP: 0x94,
  CR5_WRITE_TRAP: 0x95,
  CR6_WRITE_TRAP: 0x96,
  CR7_WRITE_TRAP: 0x97,
  CR8_WRITE_TRAP: 0x98,
  CR9_WRITE_TRAP: 0x99,
  CR10_WRITE_TRAP: 0x9a,
  CR11_WRITE_TRAP: 0x9b,
  CR12_WRITE_TRAP: 0x9c,
  CR13_WRITE_TRAP: 0x9d,
  CR14_WRITE_TRAP: 0x9e,
  CR15_WRITE_TRAP: 0x9f,
  INVLPGB: 0xa0,
  ILLEGAL_INVLPGB: 0xa1,
  INVPCID: 0xa2,
  MCOMMIT: 0xa3,
  TLBSYNC: 0xa4,
  BUSLOCK: 0xa5,
  IDLE_HLT: 0xa6,
  /** Nested page fault; one on a reserved bit (device memory) becomes #VC instead. */
  NPF: 0x400,
  AVIC_INCOMPLETE_IPI: 0x401,
  AVIC_NOACCEL: 0x402,
  VMGEXIT: 0x403,
  /** Only as the error code of a #VC: the page was not accepted. */
  PAGE_NOT_VALIDATED: 0x404,
  /** The instruction cannot be restarted. */
  NOT_RESTARTABLE: 0x406,
  /** SW_EXITINFO1 address, SW_EXITINFO2 bytes; the data go to the scratch buffer. */
  MMIO_READ: 0x80000001,
  /** SW_EXITINFO1 address, SW_EXITINFO2 bytes; the data are in the scratch buffer. */
  MMIO_WRITE: 0x80000002,
  /** The NMI handler has returned. */
  NMI_COMPLETE: 0x80000003,
  /** Wait for a SIPI; SW_EXITINFO2 becomes 1, or 0 for a spurious wake. */
  AP_RESET_HOLD: 0x80000004,
  /** SW_EXITINFO1 0 sets, 1 gets; SW_EXITINFO2 is the address. */
  AP_JUMP_TABLE: 0x80000005,
  /** The scratch buffer holds a PSC_BUFFER; SW_EXITINFO2 becomes 0 or a PSC error. */
  SNP_PSC: 0x80000010,
  /** SW_EXITINFO1 request page, SW_EXITINFO2 response page. */
  SNP_GUEST_REQUEST: 0x80000011,
  /** As SNP_GUEST_REQUEST; RAX is the address and RBX the number of data pages. */
  SNP_EXT_GUEST_REQUEST: 0x80000012,
  /** SW_EXITINFO1: 15:0 request, 19:16 VMPL, 63:32 APIC id; SW_EXITINFO2 VMSA; RAX its SEV_FEATURES. */
  SNP_AP_CREATION: 0x80000013,
  /** SW_EXITINFO1: request; SW_EXITINFO2: page. */
  HV_DOORBELL_PAGE: 0x80000014,
  /** SW_EXITINFO1: interrupt command. */
  HV_IPI: 0x80000015,
  /** SW_EXITINFO1: VMPL to run. */
  SNP_RUN_VMPL: 0x80000018,
  /** SW_EXITINFO1 0 registers the APIC page, 1 takes it back; RAX is the APIC id, all ones for the own one. */
  SECURE_AVIC: 0x8000001a,
  CONFIGURE_INT_INJECTION: 0x8000001b,
  DISABLE_ALT_INJECTION: 0x8000001c,
  SPECIFIC_EOI: 0x8000001d,
  /** SW_EXITINFO2 becomes the hypervisor's features. */
  HV_FEATURES: 0x8000fffd,
  /** SW_EXITINFO1: 3:0 reason set, 11:4 reason. */
  TERM_REQUEST: 0x8000fffe,
  /** SW_EXITINFO1: the exit code that the guest could not handle. */
  UNSUPPORTED_EVENT: 0x8000ffff,
  /** Private to KVM. */
  SW_RESERVED: 0xf0000000,
  /** The VMSA or VMCB is not valid. */
  INVALID: -1,
  /** The VMSA is in use. */
  VMSA_BUSY: -2,
  IDLE_REQUIRED: -3,
  INVALID_PMC: -4,
});

/**
 * Exit codes with which an SEV-ES guest leaves by itself (automatic exits), as inclusive ranges. Every other
 * intercepted event becomes a #VC in the guest. A nested page fault is automatic unless it is of the device-memory
 * kind.
 *
 * BUSLOCK, IDLE_HLT, the AVIC exits and NOT_RESTARTABLE are not documented as either; they are taken to be automatic.
 */
export const AUTOMATIC_EXITS: readonly (readonly [first: number, last: number])[] = [
  [SevExitCode.values.EXCP18, SevExitCode.values.EXCP18],
  [SevExitCode.values.INTR, SevExitCode.values.VINTR],
  [SevExitCode.values.PAUSE, SevExitCode.values.HLT],
  [SevExitCode.values.SHUTDOWN, SevExitCode.values.SHUTDOWN],
  [SevExitCode.values.EFER_WRITE_TRAP, SevExitCode.values.CR15_WRITE_TRAP],
  [SevExitCode.values.BUSLOCK, SevExitCode.values.IDLE_HLT],
  [SevExitCode.values.NPF, SevExitCode.values.VMGEXIT],
  [SevExitCode.values.NOT_RESTARTABLE, SevExitCode.values.NOT_RESTARTABLE],
];

/** Whether an exit with this code leaves an SEV-ES guest without a #VC; a VMRUN that failed, below 0, does. */
export function isAutomaticExit(code: number): boolean {
  return code < 0 || AUTOMATIC_EXITS.some(([first, last]) => code >= first && code <= last);
}
