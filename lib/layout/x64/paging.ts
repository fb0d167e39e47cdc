/**
 * Page-table entries of long mode and PAE (AMD64 Architecture Programmer's Manual volume 2, chapter 5; openvmm
 * `vm/x86/x86defs`).
 *
 * @module
 */

import { bits } from "../bits.ts";
import { u64 } from "../field_type.ts";

/** An entry that points to a table or maps a page of 4 KiB. */
export const Pte = bits("Pte", u64, [
  [0, 1, "present", "P"],
  [1, 1, "read_write", "R/W: writes are allowed"],
  [2, 1, "user", "U/S: CPL 3 is allowed"],
  [3, 1, "write_through", "PWT"],
  [4, 1, "cache_disable", "PCD"],
  [5, 1, "accessed", "A: the entry was used"],
  [6, 1, "dirty", "D: the page was written; leaf entries only"],
  [7, 1, "pat", "PAT; in a directory entry the page-size bit"],
  [8, 1, "global", "G: survives a CR3 write"],
  [9, 3, "available0", "Free for software"],
  [12, 40, "pfn", "Physical page number"],
  [52, 11, "available1", "Free for software"],
  [63, 1, "no_execute", "NX"],
], "openvmm: vm/x86/x86defs Pte");

/** An entry that maps a page of 2 MiB. */
export const LargePde = bits("LargePde", u64, [
  [0, 1, "present", "P"],
  [1, 1, "read_write", "R/W: writes are allowed"],
  [2, 1, "user", "U/S: CPL 3 is allowed"],
  [3, 1, "write_through", "PWT"],
  [4, 1, "cache_disable", "PCD"],
  [5, 1, "accessed", "A: the entry was used"],
  [6, 1, "dirty", "D: the page was written"],
  [7, 1, "large_page", "PS: 1"],
  [8, 1, "global", "G: survives a CR3 write"],
  [9, 3, "available0", "Free for software"],
  [12, 1, "pat", "PAT"],
  [21, 31, "large_page_base", "Physical address 51:21"],
  [52, 11, "available1", "Free for software"],
  [63, 1, "no_execute", "NX"],
], "openvmm: vm/x86/x86defs LargePde");
