/**
 * Messages between a guest and the security processor's firmware (SEV-SNP firmware ABI; Linux `asm/sev.h`; openvmm
 * `vm/x86/x86defs`).
 *
 * @module
 */

import { bits } from "../bits.ts";
import { bytes, u128, u16, u32, u64, u8 } from "../field_type.ts";
import { reserved, structure } from "../structure.ts";
import { SnpMsgType } from "./constants/firmware.ts";
import { SNP_GUEST_POLICY } from "./launch.ts";

/** Head of a message page; the encrypted payload follows at byte 96. */
export const SNP_GUEST_MSG_HDR = structure("SNP_GUEST_MSG_HDR", 0x60, [
  ["authtag", 0x00, bytes(32), "Authentication tag; the first 16 bytes count"],
  ["msg_seqno", 0x20, u64, "Message number; requests are odd, replies even"],
  reserved(0x28, 8),
  ["algo", 0x30, u8, "1 for AES-256-GCM"],
  ["hdr_version", 0x31, u8, "Version of this head: 1"],
  ["hdr_sz", 0x32, u16, "Bytes of this head: 96"],
  ["msg_type", 0x34, SnpMsgType.u8, "Type of the message"],
  ["msg_version", 0x35, u8, "Version of the payload"],
  ["msg_sz", 0x36, u16, "Bytes of payload"],
  reserved(0x38, 4),
  ["msg_vmpck", 0x3c, u8, "Which key"],
  reserved(0x3d, 35),
], "torvalds/linux: arch/x86/include/asm/sev.h snp_guest_msg_hdr");

/** Payload of TSC_INFO_RSP. */
export const SNP_TSC_INFO_RESP = structure("SNP_TSC_INFO_RESP", 0x80, [
  ["status", 0x00, u32, "0, or why the firmware refused"],
  reserved(0x04, 4),
  ["tsc_scale", 0x08, u64, "TSC scale for the VMSA"],
  ["tsc_offset", 0x10, u64, "TSC offset for the VMSA"],
  ["tsc_factor", 0x18, u32, "Correction of the TSC frequency, in 1/100000"],
  reserved(0x1c, 100),
], "torvalds/linux: arch/x86/include/asm/sev.h snp_tsc_info_resp");

/** Payload of REPORT_REQ. */
export const SNP_REPORT_REQ = structure("SNP_REPORT_REQ", 0x60, [
  ["user_data", 0x00, bytes(64), "Data to be put into the report"],
  ["vmpl", 0x40, u32, "Level to be put into the report"],
  reserved(0x44, 28),
], "microsoft/openvmm: vm/x86/x86defs/src/snp.rs SnpReportReq");

/** An attestation report. */
export const SNP_REPORT = structure("SNP_REPORT", 0x4a0, [
  ["version", 0x000, u32, "Version of the format"],
  ["guest_svn", 0x004, u32, "Security version of the guest"],
  ["policy", 0x008, SNP_GUEST_POLICY, "Policy of the guest"],
  ["family", 0x010, u128, "Family id"],
  ["image_id", 0x020, u128, "Image id"],
  ["vmpl", 0x030, u32, "Level that asked"],
  ["signature_algo", 0x034, u32, "1 for ECDSA P-384 with SHA-384"],
  ["current_tcb", 0x038, u64, "Version of the platform's firmware"],
  ["platform_info", 0x040, u64, "State of the platform"],
  ["flags", 0x048, u32, "Signing key, and whether the author key is present"],
  reserved(0x04c, 4),
  ["report_data", 0x050, bytes(64), "What the guest gave"],
  ["measurement", 0x090, bytes(48), "Launch digest"],
  ["host_data", 0x0c0, bytes(32), "What the host gave at launch"],
  ["id_key_digest", 0x0e0, bytes(48), "Digest of the id key"],
  ["author_key_digest", 0x110, bytes(48), "Digest of the author key"],
  ["report_id", 0x140, bytes(32), "Id of this guest"],
  ["report_id_ma", 0x160, bytes(32), "Id of its migration agent"],
  ["reported_tcb", 0x180, u64, "Version of the firmware that is reported"],
  reserved(0x188, 24),
  ["chip_id", 0x1a0, bytes(64), "Id of the chip"],
  ["committed_tcb", 0x1e0, u64, "Lowest version to which the firmware can go back"],
  ["current_build", 0x1e8, u8, "Firmware build"],
  ["current_minor", 0x1e9, u8, "Firmware minor version"],
  ["current_major", 0x1ea, u8, "Firmware major version"],
  reserved(0x1eb, 1),
  ["committed_build", 0x1ec, u8, "Committed build"],
  ["committed_minor", 0x1ed, u8, "Committed minor version"],
  ["committed_major", 0x1ee, u8, "Committed major version"],
  reserved(0x1ef, 1),
  ["launch_tcb", 0x1f0, u64, "Version of the firmware at launch"],
  reserved(0x1f8, 168),
  ["signature", 0x2a0, bytes(512), "Signature"],
], "microsoft/openvmm: vm/x86/x86defs/src/snp.rs SnpReport");

/** Payload of REPORT_RSP. */
export const SNP_REPORT_RESP = structure("SNP_REPORT_RESP", 0x4c0, [
  ["status", 0x000, u32, "0, or why the firmware refused"],
  ["report_size", 0x004, u32, "Bytes of the report"],
  reserved(0x008, 24),
  ["report", 0x020, SNP_REPORT, "The report"],
], "microsoft/openvmm: vm/x86/x86defs/src/snp.rs SnpReportResp");

/** What goes into a derived key. */
export const DERIVED_KEY_FIELD_SELECT = bits("DERIVED_KEY_FIELD_SELECT", u64, [
  [0, 1, "guest_policy", "Policy"],
  [1, 1, "image_id", "Image id"],
  [2, 1, "family_id", "Family id"],
  [3, 1, "measurement", "Launch digest"],
  [4, 1, "guest_svn", "Security version of the guest"],
  [5, 1, "tcb_version", "Version of the firmware"],
], "microsoft/openvmm: vm/x86/x86defs/src/snp.rs GuestFieldSelect");

/** Payload of KEY_REQ. */
export const SNP_DERIVED_KEY_REQ = structure("SNP_DERIVED_KEY_REQ", 0x20, [
  ["root_key_select", 0x00, u32, "Root of the derivation"],
  reserved(0x04, 4),
  ["guest_field_select", 0x08, DERIVED_KEY_FIELD_SELECT, "What goes into it"],
  ["vmpl", 0x10, u32, "Level"],
  ["guest_svn", 0x14, u32, "Security version of the guest"],
  ["tcb_version", 0x18, u64, "Version of the firmware"],
], "microsoft/openvmm: vm/x86/x86defs/src/snp.rs SnpDerivedKeyReq");

/** Payload of KEY_RSP. */
export const SNP_DERIVED_KEY_RESP = structure("SNP_DERIVED_KEY_RESP", 0x40, [
  ["status", 0x00, u32, "0, or why the firmware refused"],
  reserved(0x04, 28),
  ["derived_key", 0x20, bytes(32), "The key"],
], "microsoft/openvmm: vm/x86/x86defs/src/snp.rs SnpDerivedKeyResp");
