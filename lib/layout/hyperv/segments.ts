/**
 * Segment and descriptor-table registers as Hyper-V interfaces carry them (openvmm `vm/hv1/hvdef`).
 *
 * The VMSA of AMD SEV has the same contents in another order and with packed attributes: see `../sev/vmsa.ts`.
 *
 * @module
 */

import { u16, u32, u64 } from "../field_type.ts";
import { reserved, structure } from "../structure.ts";
import { SegmentAttributes } from "../x64/segments.ts";

/** A segment register with its hidden part. */
export const HvX64SegmentRegister = structure("HvX64SegmentRegister", 0x10, [
  ["base", 0x00, u64, "Linear base address"],
  ["limit", 0x08, u32, "Last valid offset in bytes, after the granularity bit has been applied"],
  ["selector", 0x0c, u16, "Selector as the segment register shows it"],
  ["attributes", 0x0e, SegmentAttributes, "Access rights of the descriptor"],
], "openvmm: vm/hv1/hvdef HvX64SegmentRegister");

/** GDTR or IDTR; the six leading bytes make it as long as a segment register. */
export const HvX64TableRegister = structure("HvX64TableRegister", 0x10, [
  reserved(0x00, 6),
  ["limit", 0x06, u16, "Last valid byte of the table"],
  ["base", 0x08, u64, "Linear address of the table"],
], "openvmm: vm/hv1/hvdef HvX64TableRegister");
