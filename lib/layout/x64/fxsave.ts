/**
 * The x87 and SSE state in memory (AMD64 Architecture Programmer's Manual volume 2, section 11.4; openvmm
 * `vm/x86/x86defs`).
 *
 * @module
 */

import { array, bytes, u16, u32, u64, u8 } from "../field_type.ts";
import { reserved, structure } from "../structure.ts";
import { ST_NAMES, XMM_NAMES } from "./names.ts";

/** What FXSAVE stores. */
export const Fxsave = structure("Fxsave", 0x200, [
  ["fcw", 0x000, u16, "x87 control word"],
  ["fsw", 0x002, u16, "x87 status word"],
  ["ftw", 0x004, u8, "Abridged tag word: one bit for each register that is not empty"],
  reserved(0x005, 1),
  ["fop", 0x006, u16, "Last x87 opcode"],
  ["fip", 0x008, u64, "Last x87 instruction's address"],
  ["fdp", 0x010, u64, "Last x87 operand's address"],
  ["mxcsr", 0x018, u32, "SSE control and status"],
  ["mxcsr_mask", 0x01c, u32, "Bits of MXCSR that exist"],
  ["st", 0x020, array(bytes(16), 8, ST_NAMES), "x87 registers in stack order; 10 bytes of each slot count"],
  ["xmm", 0x0a0, array(bytes(16), 16, XMM_NAMES), "XMM registers"],
  reserved(0x1a0, 48),
  ["unused", 0x1d0, bytes(48), "Free for software"],
], "openvmm: vm/x86/x86defs/src/xsave.rs Fxsave");

/** Header of an XSAVE area. */
export const XsaveHeader = structure("XsaveHeader", 0x40, [
  ["xstate_bv", 0x00, u64, "Components that the area holds"],
  ["xcomp_bv", 0x08, u64, "Components of the compacted form; bit 63 says that it is compacted"],
  reserved(0x10, 48),
], "openvmm: vm/x86/x86defs/src/xsave.rs XsaveHeader");
