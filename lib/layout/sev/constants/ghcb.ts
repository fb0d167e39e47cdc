/**
 * Numbers of the GHCB protocol (AMD, SEV-ES Guest-Hypervisor Communication Block Standardization; Linux
 * `asm/sev-common.h`).
 *
 * @module
 */

import { bits } from "../../bits.ts";
import { u64 } from "../../field_type.ts";
import { openEnum } from "../../open_enum.ts";

/** Format of a GHCB. 1 and 2 are Hyper-V's. */
export const GhcbUsage = openEnum("GhcbUsage", {
  BASE: 0,
  HYPERV_HYPERCALL: 1,
  VTL_RETURN: 2,
  INVALID: 0xffffffff,
});

/** Bytes of GHCB protocol. */
export const GHCB_PROTOCOL = {
  /** Lowest protocol version in use. */
  VERSION_MIN: 1,
  /** Highest protocol version in use. */
  VERSION_MAX: 2,
  /** SW_EXITINFO2 with which KVM asks the guest to raise #GP: valid, exception, vector 13, no error code. */
  KVM_GP: 0x8000030d,
  /** SW_EXITINFO2 with which KVM asks the guest to raise #UD: valid, exception, vector 6. */
  KVM_UD: 0x80000306,
} as const;

/** What SW_EXITINFO1 says after an exit, in its low 32 bits. */
export const GhcbExitResult = openEnum("GhcbExitResult", {
  /** Nothing more to do. */
  NO_ACTION: 0,
  /** SW_EXITINFO2 is an EVENT_INJ that the guest must raise. */
  ISSUE_EXCEPTION: 1,
  /** The request was malformed; SW_EXITINFO2 says why. */
  MALFORMED_INPUT: 2,
});

/** Why a request was malformed. */
export const GhcbMalformedInput = openEnum("GhcbMalformedInput", {
  NOT_REGISTERED: 1,
  INVALID_USAGE: 2,
  INVALID_SCRATCH_AREA: 3,
  MISSING_INPUT: 4,
  INVALID_INPUT: 5,
  INVALID_EVENT: 6,
});

/** SW_EXITINFO2 after a page state change that failed. */
export const PSC_ERROR = {
  GENERIC: 0x0000010000000000n,
  INVALID_HEADER: 0x0000000100000001n,
  INVALID_ENTRY: 0x0000000100000002n,
} as const;

/** What a page state change makes of a page. KVM does nothing for PSMASH and UNSMASH. */
export const PscOperation = openEnum("PscOperation", {
  PRIVATE: 1,
  SHARED: 2,
  PSMASH: 3,
  UNSMASH: 4,
});

/** Upper half of SW_EXITINFO2 after a guest request. */
export const GuestRequestVmmError = openEnum("GuestRequestVmmError", {
  NONE: 0,
  /** The data pages are too few; RBX says how many are needed. */
  INVALID_LENGTH: 1,
  /** Try again. */
  BUSY: 2,
});

/** Request of SNP_AP_CREATION, bits 15:0 of SW_EXITINFO1. */
export const ApCreationRequest = openEnum("ApCreationRequest", {
  CREATE_ON_INIT: 0,
  CREATE: 1,
  DESTROY: 2,
});

/** Request of HV_DOORBELL_PAGE, SW_EXITINFO1. */
export const DoorbellRequest = openEnum("DoorbellRequest", {
  GET_PREFERRED: 0,
  SET: 1,
  QUERY: 2,
  CLEAR: 3,
});

/** Features of a hypervisor, by HV_FEATURES or the MSR protocol. (torvalds/linux: asm/sev-common.h GHCB_HV_FT) */
export const GHCB_HV_FEATURES = bits("GHCB_HV_FEATURES", u64, [
  [0, 1, "snp", "SEV-SNP"],
  [1, 1, "ap_creation", "SNP_AP_CREATION"],
  [2, 1, "restricted_injection", "Restricted injection"],
  [3, 1, "restricted_injection_timer", "Timers under restricted injection"],
  [4, 1, "apic_id_list", "List of APIC ids"],
  [5, 1, "multi_vmpl", "More than one VMPL"],
  [6, 1, "psc", "Page state changes"],
  [9, 1, "extended_interrupts", "Extended interrupt information"],
], "torvalds/linux: arch/x86/include/asm/sev-common.h GHCB_HV_FT_SNP");

/** Why a guest terminates, reason set 0: those of the specification. */
export const TerminationGeneral = openEnum("TerminationGeneral", {
  GENERAL: 0,
  PROTOCOL_VERSION_UNSUPPORTED: 1,
  SNP_UNSUPPORTED: 2,
});

/** Why a guest terminates, reason set 1: Linux's own. */
export const TerminationLinux = openEnum("TerminationLinux", {
  GHCB_REGISTRATION: 0,
  PSC: 1,
  PVALIDATE: 2,
  NOT_VMPL0: 3,
  CPUID: 4,
  CPUID_HV: 5,
  SECRETS_PAGE: 6,
  NO_SVSM: 7,
  SVSM_VMPL0: 8,
  SVSM_CAA: 9,
  SECURE_TSC: 10,
});

/** A host's rule for one or more exits: which fields of the GHCB must be marked valid beside the three exit fields. */
export interface RequiredFields {
  /** Exit codes by name, as in `SevExitCode`. */
  readonly exits: readonly string[];
  /** Fields of the GHCB that must be valid in any case. */
  readonly needs: readonly string[];
  /** Fields that must be valid, or a further rule, under a condition. */
  readonly conditional?: string;
}

/** Fields that every request must mark valid, with KVM and with OpenBSD's vmm. */
export const GHCB_ALWAYS_REQUIRED = ["sw_exit_code", "sw_exit_info_1", "sw_exit_info_2"] as const;

/** KVM's rules (torvalds/linux: arch/x86/kvm/svm/sev.c sev_es_validate_vmgexit). Any other exit is INVALID_EVENT. */
export const KVM_REQUIRED_FIELDS: readonly RequiredFields[] = [
  {
    exits: [
      ...["DR7_READ", "RDTSC", "RDTSCP", "INVD", "WBINVD", "NMI_COMPLETE", "AP_RESET_HOLD", "AP_JUMP_TABLE"],
      ...["UNSUPPORTED_EVENT", "HV_FEATURES", "TERM_REQUEST"],
    ],
    needs: [],
  },
  { exits: ["DR7_WRITE"], needs: ["rax"] },
  { exits: ["RDPMC"], needs: ["rcx"] },
  { exits: ["CPUID"], needs: ["rax", "rcx"], conditional: "xcr0 where RAX is 0xd" },
  { exits: ["IOIO"], needs: [], conditional: "sw_scratch for a string, else rax for OUT" },
  { exits: ["MSR"], needs: ["rcx"], conditional: "rax and rdx for a write, SW_EXITINFO1 not 0" },
  { exits: ["VMMCALL"], needs: ["rax", "cpl"] },
  { exits: ["MONITOR"], needs: ["rax", "rcx", "rdx"] },
  { exits: ["MWAIT"], needs: ["rax", "rcx"] },
  { exits: ["MMIO_READ", "MMIO_WRITE"], needs: ["sw_scratch"] },
  { exits: ["SNP_AP_CREATION"], needs: ["rax"], conditional: "SNP only; rax not for DESTROY" },
  { exits: ["SNP_PSC"], needs: ["sw_scratch"], conditional: "SNP only" },
  {
    exits: ["SNP_GUEST_REQUEST", "SNP_EXT_GUEST_REQUEST"],
    needs: [],
    conditional: "SNP only; the two pages aligned and different",
  },
];
