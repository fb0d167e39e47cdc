/**
 * Numbers of the security processor's firmware and of an SVSM (SEV-SNP firmware ABI; Linux `asm/sev.h`; openvmm
 * `vm/x86/x86defs`).
 *
 * @module
 */

import { openEnum } from "../../open_enum.ts";

/** Type of a page that is added at launch. */
export const SnpPageType = openEnum("SnpPageType", {
  NORMAL: 1,
  VMSA: 2,
  ZERO: 3,
  UNMEASURED: 4,
  SECRETS: 5,
  CPUID: 6,
});

/** Numbers of a launch. */
export const SNP_LAUNCH = {
  /** Guest-physical address under which KVM measures every VMSA. */
  VMSA_GPA: 0xfffffffff000n,
  /** Bytes of SNP_PAGE_INFO, and what its length field says. */
  PAGE_INFO_LENGTH: 0x70,
} as const;

/**
 * Firmware error, in bits 31:0 of a guest request's answer, that says that the firmware was not called at all (Linux
 * `uapi/linux/psp-sev.h` SEV_RET_NO_FW_CALL, -1). The VMM's error is in bits 63:32.
 */
export const SEV_RET_NO_FW_CALL = 0xffff_ffffn;

/** Type of a message to or from the firmware. */
export const SnpMsgType = openEnum("SnpMsgType", {
  INVALID: 0,
  CPUID_REQ: 1,
  CPUID_RSP: 2,
  KEY_REQ: 3,
  KEY_RSP: 4,
  REPORT_REQ: 5,
  REPORT_RSP: 6,
  EXPORT_REQ: 7,
  EXPORT_RSP: 8,
  IMPORT_REQ: 9,
  IMPORT_RSP: 10,
  ABSORB_REQ: 11,
  ABSORB_RSP: 12,
  VMRK_REQ: 13,
  VMRK_RSP: 14,
  TSC_INFO_REQ: 17,
  TSC_INFO_RSP: 18,
});

/** Format of a message to or from the firmware. */
export const SNP_GUEST_MESSAGE = {
  /** algo: AES-256-GCM. */
  AES_256_GCM: 1,
  /** hdr_version. */
  HEADER_VERSION: 1,
  /** First byte that is authenticated. */
  AAD_OFFSET: 48,
  /** Bytes that are authenticated. */
  AAD_LENGTH: 48,
  /** Bytes of the tag. */
  TAG_LENGTH: 16,
  /** Bytes of the initialisation vector: the message number in the low 8, then zeros. */
  IV_LENGTH: 12,
  /** Bytes of payload at most. */
  MAX_PAYLOAD: 4000,
} as const;

/** Result of a call to an SVSM. */
export const SvsmResult = openEnum("SvsmResult", {
  SUCCESS: 0,
  INCOMPLETE: 0x80000000,
  UNSUPPORTED_PROTOCOL: 0x80000001,
  UNSUPPORTED_CALL: 0x80000002,
  INVALID_ADDRESS: 0x80000003,
  INVALID_FORMAT: 0x80000004,
  INVALID_PARAMETER: 0x80000005,
  INVALID_REQUEST: 0x80000006,
  BUSY: 0x80000007,
  PVALIDATE_SIZEMISMATCH: 0x80001006,
});

/** magic of CC_BLOB_SEV_INFO: "AMDE". */
export const CC_BLOB_SEV_INFO_MAGIC = 0x45444d41;
