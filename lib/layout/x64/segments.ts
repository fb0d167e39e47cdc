/**
 * Segmentation: selectors, access rights, descriptors and gates (AMD64 Architecture Programmer's Manual volume 2,
 * chapter 4; openvmm `vm/x86/x86defs`).
 *
 * @module
 */

import { bits } from "../bits.ts";
import { u16, u32, u8 } from "../field_type.ts";
import { reserved, structure } from "../structure.ts";

/** A segment selector. */
export const SegmentSelector = bits("SegmentSelector", u16, [
  [0, 2, "rpl", "Requested privilege level"],
  [2, 1, "ti", "The descriptor is in the local table"],
  [3, 13, "index", "Number of the descriptor"],
], "openvmm: vm/x86/x86defs SegmentSelector");

/** Access rights of a segment as the descriptor has them: bits 15:8 and 23:20 of its upper half, with a gap. */
export const SegmentAttributes = bits("SegmentAttributes", u16, [
  [0, 4, "segment_type", "Type of code, data or system segment"],
  [4, 1, "non_system_segment", "Code or data, not a system segment"],
  [5, 2, "descriptor_privilege_level", "Privilege level of the descriptor"],
  [7, 1, "present", "The segment is present"],
  [12, 1, "available", "Free for software"],
  [13, 1, "long", "64-bit code"],
  [14, 1, "default", "Default operand size is 32 bits"],
  [15, 1, "granularity", "The limit counts pages"],
], "openvmm: vm/x86/x86defs SegmentAttributes");

/** A segment descriptor of 8 bytes. */
export const GdtEntry = structure("GdtEntry", 0x08, [
  ["limit_low", 0x00, u16, "Limit 15:0"],
  ["base_low", 0x02, u16, "Base 15:0"],
  ["base_middle", 0x04, u8, "Base 23:16"],
  ["attr_low", 0x05, u8, "Type, S, DPL and P"],
  ["attr_high", 0x06, u8, "Limit 19:16, AVL, L, D and G"],
  ["base_high", 0x07, u8, "Base 31:24"],
], "openvmm: vm/x86/x86defs GdtEntry");

/** Attributes of a 64-bit gate. */
export const IdtAttributes = bits("IdtAttributes", u16, [
  [0, 3, "ist", "Interrupt stack table index; 0 for none"],
  [8, 4, "gate_type", "14 interrupt gate, 15 trap gate"],
  [13, 2, "dpl", "Privilege level that INT n needs"],
  [15, 1, "present", "The gate is present"],
], "openvmm: vm/x86/x86defs IdtAttributes");

/** A gate of the 64-bit interrupt descriptor table. */
export const IdtEntry64 = structure("IdtEntry64", 0x10, [
  ["offset_low", 0x00, u16, "Entry point 15:0"],
  ["selector", 0x02, u16, "Code segment"],
  ["attributes", 0x04, IdtAttributes, "Stack, type, privilege level and presence"],
  ["offset_middle", 0x06, u16, "Entry point 31:16"],
  ["offset_high", 0x08, u32, "Entry point 63:32"],
  reserved(0x0c, 4),
], "openvmm: vm/x86/x86defs IdtEntry64");
