/**
 * Page state changes that a guest asks for (SEV-ES GHCB standardization; Linux `asm/sev-common.h`).
 *
 * @module
 */

import { bits } from "../bits.ts";
import { array, u16, u64 } from "../field_type.ts";
import { reserved, structure } from "../structure.ts";
import { PscOperation } from "./constants/ghcb.ts";

/** A page state change. */
export const PSC_ENTRY = bits("PSC_ENTRY", u64, [
  [0, 12, "cur_page", "4 KiB pages done: 1, or 512 for a large page, when finished"],
  [12, 40, "gfn", "Guest frame number"],
  [52, 4, "operation", "What to make of the page", PscOperation],
  [56, 1, "pagesize", "0 for 4 KiB, 1 for 2 MiB"],
], "torvalds/linux: arch/x86/include/asm/sev-common.h psc_entry");

/** A request, in the GHCB's shared buffer or in other shared memory. */
export const PSC_BUFFER = structure("PSC_BUFFER", 0x7f0, [
  ["cur_entry", 0x000, u16, "Next entry to do; the host advances it"],
  ["end_entry", 0x002, u16, "Last entry, included"],
  reserved(0x004, 4),
  ["entries", 0x008, array(PSC_ENTRY, 253), "Entries"],
], "torvalds/linux: arch/x86/include/asm/sev-common.h snp_psc_desc");
