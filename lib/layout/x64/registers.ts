/**
 * RFLAGS and the page-fault error code (AMD64 Architecture Programmer's Manual volume 2; openvmm `vm/x86/x86defs`).
 *
 * @module
 */

import { bits } from "../bits.ts";
import { u32, u64 } from "../field_type.ts";

/** The flags register. */
export const RFlags = bits("RFlags", u64, [
  [0, 1, "carry", "CF"],
  [1, 1, "reserved_must_be_1", "Always 1"],
  [2, 1, "parity", "PF"],
  [4, 1, "adjust", "AF"],
  [6, 1, "zero", "ZF"],
  [7, 1, "sign", "SF"],
  [8, 1, "trap", "TF: single step"],
  [9, 1, "interrupt_enable", "IF"],
  [10, 1, "direction", "DF"],
  [11, 1, "overflow", "OF"],
  [12, 2, "io_privilege_level", "IOPL"],
  [14, 1, "nested_task", "NT"],
  [15, 1, "mode", "Was the NEC V-series mode bit; 0"],
  [16, 1, "resume", "RF: the next instruction breakpoint is ignored"],
  [17, 1, "virtual_8086_mode", "VM"],
  [18, 1, "alignment_check", "AC"],
  [19, 1, "virtual_interrupt", "VIF"],
  [20, 1, "virtual_interrupt_pending", "VIP"],
  [21, 1, "cpuid_allowed", "ID: software can change it where CPUID exists"],
  [30, 1, "aes_key_schedule_loaded", "VIA PadLock's key schedule; 0 elsewhere"],
], "openvmm: vm/x86/x86defs RFlags");

/** Error code of a page fault. */
export const PageFaultErrorCode = bits("PageFaultErrorCode", u32, [
  [0, 1, "present", "P: the page was present, the access was refused"],
  [1, 1, "write", "W: the access was a write"],
  [2, 1, "user", "U: the access was at CPL 3"],
  [3, 1, "reserved", "RSVD: a reserved bit of an entry was set"],
  [4, 1, "fetch", "I: the access was an instruction fetch"],
], "openvmm: vm/x86/x86defs PageFaultErrorCode");
