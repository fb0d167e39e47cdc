/**
 * The secrets page, filled in by the firmware at launch, and the block that tells a kernel where it is (SEV-SNP
 * firmware ABI; Linux `asm/sev.h`).
 *
 * @module
 */

import { bytes, u16, u32, u64, u8 } from "../field_type.ts";
import { reserved, structure } from "../structure.ts";

/** The page. */
export const SNP_SECRETS_PAGE = structure("SNP_SECRETS_PAGE", 0x1000, [
  ["version", 0x000, u32, "Version of the format"],
  ["imien_word", 0x004, u32, "Bit 0: the launch came from a migration image"],
  ["fms", 0x008, u32, "Family, model and stepping"],
  reserved(0x00c, 4),
  ["gosvw", 0x010, bytes(16), "OS-visible workarounds"],
  ["vmpck0", 0x020, bytes(32), "Key for messages of VMPL0"],
  ["vmpck1", 0x040, bytes(32), "Key for messages of VMPL1"],
  ["vmpck2", 0x060, bytes(32), "Key for messages of VMPL2"],
  ["vmpck3", 0x080, bytes(32), "Key for messages of VMPL3"],
  ["os_msg_seqno_0", 0x0a0, u32, "Next message number with vmpck0"],
  ["os_msg_seqno_1", 0x0a4, u32, "Next message number with vmpck1"],
  ["os_msg_seqno_2", 0x0a8, u32, "Next message number with vmpck2"],
  ["os_msg_seqno_3", 0x0ac, u32, "Next message number with vmpck3"],
  ["os_ap_jump_table_pa", 0x0b0, u64, "Guest-physical address of the AP jump table"],
  reserved(0x0b8, 40),
  ["os_guest_usage", 0x0e0, bytes(32), "Free for the guest"],
  ["vmsa_tweak_bitmap", 0x100, bytes(64), "Which qwords of a VMSA are protected by the nonce, one bit each"],
  ["svsm_base", 0x140, u64, "Guest-physical address of the SVSM"],
  ["svsm_size", 0x148, u64, "Bytes of it"],
  ["svsm_caa", 0x150, u64, "Guest-physical address of its calling area"],
  ["svsm_max_version", 0x158, u32, "Highest protocol version"],
  ["svsm_guest_vmpl", 0x15c, u8, "VMPL at which the guest runs"],
  reserved(0x15d, 3),
  ["tsc_factor", 0x160, u32, "Correction of the TSC frequency, in 1/100000"],
  reserved(0x164, 3740),
], "torvalds/linux: arch/x86/include/asm/sev.h snp_secrets_page");

/** Where secrets page and CPUID page lie. */
export const CC_BLOB_SEV_INFO = structure("CC_BLOB_SEV_INFO", 0x28, [
  ["magic", 0x00, u32, '45444d41, "AMDE"'],
  ["version", 0x04, u16, "Version of the format"],
  reserved(0x06, 2),
  ["secrets_phys", 0x08, u64, "Guest-physical address of the secrets page"],
  ["secrets_len", 0x10, u32, "Bytes of it"],
  reserved(0x14, 4),
  ["cpuid_phys", 0x18, u64, "Guest-physical address of the CPUID page"],
  ["cpuid_len", 0x20, u32, "Bytes of it"],
  reserved(0x24, 4),
], "torvalds/linux: arch/x86/include/asm/sev.h cc_blob_sev_info");
