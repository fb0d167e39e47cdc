/**
 * SEV_STATUS and the Hyper-V registers of SEV (AMD64 Architecture Programmer's Manual volume 2; openvmm
 * `vm/x86/x86defs`, `vm/hv1/hvdef`).
 *
 * @module
 */

import { bits } from "../bits.ts";
import { u64 } from "../field_type.ts";

/** MSR c0010131: SEV_FEATURES shifted left by two, below it SEV and SEV-ES. */
export const SEV_STATUS_MSR = bits("SEV_STATUS_MSR", u64, [
  [0, 1, "sev_enabled", "SEV"],
  [1, 1, "es_enabled", "SEV-ES"],
  [2, 1, "snp_enabled", "SEV-SNP"],
  [3, 1, "vtom", "SEV_FEATURES.vtom"],
  [4, 1, "reflect_vc", "SEV_FEATURES.reflect_vc"],
  [5, 1, "restricted_injection", "SEV_FEATURES.restricted_injection"],
  [6, 1, "alternate_injection", "SEV_FEATURES.alternate_injection"],
  [7, 1, "debug_swap", "SEV_FEATURES.debug_swap"],
  [8, 1, "prevent_host_ibs", "SEV_FEATURES.prevent_host_ibs"],
  [9, 1, "btb_isolation", "SEV_FEATURES.btb_isolation"],
  [10, 1, "vmpl_sss", "SEV_FEATURES.vmpl_sss"],
  [11, 1, "secure_tsc", "SEV_FEATURES.secure_tsc"],
  [12, 1, "vmgexit_param", "SEV_FEATURES.vmgexit_param"],
  [14, 1, "ibs_virt", "SEV_FEATURES.ibs_virt"],
  [16, 1, "vmsa_reg_prot", "SEV_FEATURES.vmsa_reg_prot"],
  [17, 1, "smt_prot", "SEV_FEATURES.smt_prot"],
  [18, 1, "secure_avic", "SEV_FEATURES.secure_avic"],
  [23, 1, "ibpb_on_entry", "SEV_FEATURES.ibpb_on_entry"],
], "microsoft/openvmm: vm/x86/x86defs/src/snp.rs SevStatusMsr");

/** Hyper-V register SevControl. */
export const HV_SEV_CONTROL_REGISTER = bits("HV_SEV_CONTROL_REGISTER", u64, [
  [0, 1, "enable_encrypted_state", "The virtual processor runs from a VMSA"],
  [12, 52, "vmsa_gpa_page_number", "Guest-physical page number of the VMSA"],
], "microsoft/openvmm: vm/hv1/hvdef/src/lib.rs HvX64RegisterSevControl");

/** Hyper-V register SevAvicGpa. */
export const HV_SEV_AVIC_REGISTER = bits("HV_SEV_AVIC_REGISTER", u64, [
  [0, 1, "enable_secure_apic", "Secure AVIC is used"],
  [12, 52, "avic_gpa_page_number", "Guest-physical page number of the APIC backing page"],
], "microsoft/openvmm: vm/hv1/hvdef/src/lib.rs HvX64RegisterSevAvic");
