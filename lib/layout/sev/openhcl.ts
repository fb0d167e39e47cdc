/**
 * What OpenHCL's kernel and VMM share on SNP (openvmm `openhcl/hcl` protocol).
 *
 * @module
 */

import { bits } from "../bits.ts";
import { bytes, u32, u64, u8 } from "../field_type.ts";
import { reserved, structure } from "../structure.ts";
import { RMPADJUST_ATTRS } from "./rmp.ts";

/** State of timer 0 in SNP_VP_CONTEXT. */
export const STIMER0_FLAGS = bits("STIMER0_FLAGS", u32, [
  [0, 1, "config_valid", "The configuration counts"],
  [1, 1, "kernel_update", "The kernel has changed it"],
  [2, 1, "expired", "The timer has expired"],
], "microsoft/openvmm: openhcl/hcl/src/protocol.rs hcl_vp_context");

/** The context part of the run page on SNP. */
export const SNP_VP_CONTEXT = structure("SNP_VP_CONTEXT", 0x400, [
  ["vmsa_tweak_bitmap", 0x000, bytes(64), "Which qwords of a VMSA are protected by the nonce, one bit each"],
  ["stimer0_config", 0x040, u64, "Configuration of synthetic timer 0"],
  ["stimer0_count", 0x048, u64, "Its count, in 100 ns"],
  ["stimer0_programmed_ref_time", 0x050, u64, "Reference time at which it was programmed, in 100 ns"],
  ["stimer0_flags", 0x058, STIMER0_FLAGS, "Its state"],
  reserved(0x05c, 932),
], "microsoft/openvmm: openhcl/hcl/src/protocol.rs snp_vp_context");

/** Argument of the VTL device's PVALIDATE request. */
export const MSHV_PVALIDATE = structure("MSHV_PVALIDATE", 0x14, [
  ["start_pfn", 0x00, u64, "First page number"],
  ["page_count", 0x08, u64, "Pages"],
  ["validate", 0x10, u8, "1 to validate, 0 to rescind"],
  ["terminate_on_failure", 0x11, u8, "Not 0: the kernel stops the machine when a page fails"],
  ["ram", 0x12, u8, "Not 0: the pages are RAM"],
  reserved(0x13, 1),
], "microsoft/openvmm: openhcl/hcl/src/ioctl.rs mshv_pvalidate");

/** Argument of the VTL device's RMPADJUST request. */
export const MSHV_RMPADJUST = structure("MSHV_RMPADJUST", 0x20, [
  ["start_pfn", 0x00, u64, "First page number"],
  ["page_count", 0x08, u64, "Pages"],
  ["value", 0x10, RMPADJUST_ATTRS, "Permissions to set"],
  ["terminate_on_failure", 0x18, u8, "Not 0: the kernel stops the machine when a page fails"],
  ["ram", 0x19, u8, "Not 0: the pages are RAM"],
  reserved(0x1a, 6),
], "microsoft/openvmm: openhcl/hcl/src/ioctl.rs mshv_rmpadjust");

/** Argument of the VTL device's RMPQUERY request. */
export const MSHV_RMPQUERY = structure("MSHV_RMPQUERY", 0x30, [
  ["start_pfn", 0x00, u64, "First page number"],
  ["page_count", 0x08, u64, "Pages"],
  ["terminate_on_failure", 0x10, u8, "Not 0: the kernel stops the machine when a page fails"],
  ["ram", 0x11, u8, "Not 0: the pages are RAM"],
  reserved(0x12, 6),
  ["flags", 0x18, u64, "User address for the permissions"],
  ["page_size", 0x20, u64, "User address for the page sizes"],
  ["pages_processed", 0x28, u64, "User address for the number of pages done"],
], "microsoft/openvmm: openhcl/hcl/src/ioctl.rs mshv_rmpquery");
