/**
 * The calling area of an SVSM (Secure VM Service Module specification; Linux `asm/sev.h`).
 *
 * @module
 */

import { bytes, u8 } from "../field_type.ts";
import { reserved, structure } from "../structure.ts";

/** The calling area. */
export const SVSM_CA = structure("SVSM_CA", 0x1000, [
  ["call_pending", 0x000, u8, "Not 0 while a call is being made"],
  ["mem_available", 0x001, u8, "Not 0 when the SVSM has memory to give back"],
  reserved(0x002, 6),
  ["svsm_buffer", 0x008, bytes(4088), "Arguments of a call"],
], "torvalds/linux: arch/x86/include/asm/sev.h svsm_ca");
