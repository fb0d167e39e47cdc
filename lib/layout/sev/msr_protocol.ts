/**
 * The GHCB MSR protocol: requests and answers in MSR c0010130 (SEV-ES GHCB standardization; openvmm `vm/x86/x86defs`
 * GhcbInfo; Linux `asm/sev-common.h`).
 *
 * Bits 11:0 say which request or answer it is; 0 there means that the rest is the address of a GHCB page. Each table
 * below is one request or answer; all begin with `info`.
 *
 * @module
 */

import { type BitRow, bits } from "../bits.ts";
import { u64 } from "../field_type.ts";
import { openEnum } from "../open_enum.ts";
import { PscOperation } from "./constants/ghcb.ts";

/** Bits 11:0 of the MSR. The host leaves SEV_INFO_RESP there at reset, so that a guest may read it without asking. */
export const GhcbMsrInfo = openEnum("GhcbMsrInfo", {
  NORMAL: 0x000,
  SEV_INFO_RESP: 0x001,
  SEV_INFO_REQ: 0x002,
  AP_JUMP_TABLE: 0x003,
  CPUID_REQ: 0x004,
  CPUID_RESP: 0x005,
  AP_RESET_HOLD_REQ: 0x006,
  AP_RESET_HOLD_RESP: 0x007,
  PREFERRED_GPA_REQ: 0x010,
  PREFERRED_GPA_RESP: 0x011,
  REGISTER_GPA_REQ: 0x012,
  REGISTER_GPA_RESP: 0x013,
  PSC_REQ: 0x014,
  PSC_RESP: 0x015,
  RUN_VMPL_REQ: 0x016,
  RUN_VMPL_RESP: 0x017,
  HV_FEATURES_REQ: 0x080,
  HV_FEATURES_RESP: 0x081,
  TERM_REQ: 0x100,
  HV_SPECIAL_HYPERCALL: 0xf00,
  HV_SPECIAL_FAST_CALL: 0xf01,
  HV_HYPERCALL_OUTPUT: 0xf02,
  HV_SPECIAL_DBGPRINT: 0xf03,
});

/** The MSR, whatever it holds. */
export const GHCB_MSR = bits("GHCB_MSR", u64, [
  [0, 12, "info", "Which request or answer; 0 for a page address", GhcbMsrInfo],
  [12, 40, "pfn", "Guest frame number"],
  [52, 12, "extra_data", "Upper bits of an answer"],
], "microsoft/openvmm: vm/x86/x86defs/src/snp.rs GhcbMsr");

/** Declares the MSR of one request or answer. */
function message<const Rows extends readonly BitRow[]>(name: string, rows: Rows) {
  const info = [0, 12, "info", "Which request or answer", GhcbMsrInfo] as const;
  return bits(name, u64, [info, ...rows] as const, "AMD GHCB standardization, MSR protocol");
}

/** SEV_INFO_RESP: what the host can do. */
export const GHCB_MSR_SEV_INFO_RESP = message("GHCB_MSR_SEV_INFO_RESP", [
  [24, 8, "cbit_position", "Bit number of the C bit"],
  [32, 16, "min_version", "Lowest protocol version"],
  [48, 16, "max_version", "Highest protocol version"],
]);

/** CPUID_REQ: one register of a leaf; there is no room for a subleaf. */
export const GHCB_MSR_CPUID_REQ = message("GHCB_MSR_CPUID_REQ", [
  [30, 2, "register", "0 EAX, 1 EBX, 2 ECX, 3 EDX"],
  [32, 32, "function", "Leaf"],
]);

/** CPUID_RESP: the register's value. */
export const GHCB_MSR_CPUID_RESP = message("GHCB_MSR_CPUID_RESP", [
  [30, 2, "register", "As in the request; guests do not look"],
  [32, 32, "value", "Value of the register"],
]);

/** AP_RESET_HOLD_RESP: the wait has ended. */
export const GHCB_MSR_AP_RESET_HOLD_RESP = message("GHCB_MSR_AP_RESET_HOLD_RESP", [
  [12, 52, "result", "Not 0 after a SIPI"],
]);

/** PREFERRED_GPA_RESP: where the host would like the GHCB. */
export const GHCB_MSR_PREFERRED_GPA_RESP = message("GHCB_MSR_PREFERRED_GPA_RESP", [
  [12, 52, "gfn", "Guest frame number; all ones for no preference"],
]);

/** REGISTER_GPA_REQ: where the guest puts its GHCB. */
export const GHCB_MSR_REGISTER_GPA_REQ = message("GHCB_MSR_REGISTER_GPA_REQ", [
  [12, 52, "gfn", "Guest frame number"],
]);

/** REGISTER_GPA_RESP: whether the host agrees. */
export const GHCB_MSR_REGISTER_GPA_RESP = message("GHCB_MSR_REGISTER_GPA_RESP", [
  [12, 52, "gfn", "As in the request; all ones for a refusal"],
]);

/** PSC_REQ: change the state of one 4 KiB page. */
export const GHCB_MSR_PSC_REQ = message("GHCB_MSR_PSC_REQ", [
  [12, 40, "gfn", "Guest frame number"],
  [52, 4, "operation", "PRIVATE or SHARED", PscOperation],
]);

/** PSC_RESP: how it went. */
export const GHCB_MSR_PSC_RESP = message("GHCB_MSR_PSC_RESP", [
  [12, 20, "reserved", "0"],
  [32, 32, "error", "0 when done"],
]);

/** RUN_VMPL_REQ: run another VMPL of this processor. */
export const GHCB_MSR_RUN_VMPL_REQ = message("GHCB_MSR_RUN_VMPL_REQ", [
  [32, 8, "vmpl", "VMPL to run"],
]);

/** RUN_VMPL_RESP: how it went. */
export const GHCB_MSR_RUN_VMPL_RESP = message("GHCB_MSR_RUN_VMPL_RESP", [
  [32, 32, "error", "0 when done"],
]);

/** HV_FEATURES_RESP: what the hypervisor can do. */
export const GHCB_MSR_HV_FEATURES_RESP = message("GHCB_MSR_HV_FEATURES_RESP", [
  [12, 52, "features", "GHCB_HV_FEATURES"],
]);

/** TERM_REQ: the guest gives up. */
export const GHCB_MSR_TERM_REQ = message("GHCB_MSR_TERM_REQ", [
  [12, 4, "reason_set", "0 for the specification's reasons, 1 for Linux's"],
  [16, 8, "reason_code", "Reason"],
]);
