/**
 * What a launch measures and checks (SEV-SNP firmware ABI; openvmm `vm/x86/x86defs`).
 *
 * @module
 */

import { bits } from "../bits.ts";
import { bytes, u16, u32, u64, u8 } from "../field_type.ts";
import { reserved, structure } from "../structure.ts";
import { SnpPageType } from "./constants/firmware.ts";

/** What the host may do with the guest. */
export const SNP_GUEST_POLICY = bits("SNP_GUEST_POLICY", u64, [
  [0, 8, "abi_minor", "Lowest minor version of the firmware"],
  [8, 8, "abi_major", "Lowest major version of the firmware"],
  [16, 1, "smt_allowed", "Simultaneous multithreading is allowed"],
  [17, 1, "must_be_one", "1"],
  [18, 1, "migrate_ma_allowed", "A migration agent is allowed"],
  [19, 1, "debug_allowed", "Debugging is allowed"],
  [20, 1, "single_socket_required", "One socket only"],
  [21, 1, "cxl_allowed", "CXL is allowed"],
  [22, 1, "mem_aes_256_xts", "Memory encryption must be AES-256-XTS"],
  [23, 1, "rapl_disabled", "Power measurement must be off"],
  [24, 1, "ciphertext_hiding", "Ciphertext must be hidden"],
  [25, 1, "page_swap_disabled", "Pages may not be swapped"],
], "virtee/sev: src/firmware/guest/types/snp.rs GuestPolicy");

/** What is hashed for each page: the next digest is SHA-384 of this. */
export const SNP_PAGE_INFO = structure("SNP_PAGE_INFO", 0x70, [
  ["digest_cur", 0x00, bytes(48), "Digest so far"],
  ["contents", 0x30, bytes(48), "SHA-384 of the page, or zero"],
  ["length", 0x60, u16, "112"],
  ["page_type", 0x62, SnpPageType.u8, "Type of the page"],
  ["imi_page", 0x63, u8, "Bit 0: belongs to a migration image"],
  ["vmpl3_perms", 0x64, u8, "Permissions of VMPL3"],
  ["vmpl2_perms", 0x65, u8, "Permissions of VMPL2"],
  ["vmpl1_perms", 0x66, u8, "Permissions of VMPL1"],
  reserved(0x67, 1),
  ["gpa", 0x68, u64, "Guest-physical address"],
], "microsoft/openvmm: vm/x86/x86defs/src/snp.rs SnpPageInfo");

/** What the owner of an image expects and signs. */
export const SNP_ID_BLOCK = structure("SNP_ID_BLOCK", 0x60, [
  ["ld", 0x00, bytes(48), "Launch digest"],
  ["family_id", 0x30, bytes(16), "Family id"],
  ["image_id", 0x40, bytes(16), "Image id"],
  ["version", 0x50, u32, "1"],
  ["guest_svn", 0x54, u32, "Security version of the guest"],
  ["policy", 0x58, SNP_GUEST_POLICY, "Policy"],
], "microsoft/openvmm: vm/x86/x86defs/src/snp.rs SnpPspIdBlock");

/** ECDSA signature. */
export const SNP_ID_BLOCK_SIGNATURE = structure("SNP_ID_BLOCK_SIGNATURE", 0x90, [
  ["r", 0x00, bytes(72), "First number, little endian"],
  ["s", 0x48, bytes(72), "Second number, little endian"],
], "microsoft/openvmm: vm/x86/x86defs/src/snp.rs SnpIdBlockSignature");

/** ECDSA public key. */
export const SNP_ID_BLOCK_PUBLIC_KEY = structure("SNP_ID_BLOCK_PUBLIC_KEY", 0x94, [
  ["curve", 0x00, u32, "2 for P-384"],
  ["qx", 0x04, bytes(72), "First coordinate, little endian"],
  ["qy", 0x4c, bytes(72), "Second coordinate, little endian"],
], "microsoft/openvmm: vm/x86/x86defs/src/snp.rs SnpIdBlockPublicKey");
