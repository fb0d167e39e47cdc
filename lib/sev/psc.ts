/**
 * Page state change requests as a host reads them: which entry comes next, what is wrong with it, and what the answer is
 * (SEV-ES GHCB standardization, "SNP Page State Change"; Linux `arch/x86/kvm/svm/sev.c` snp_begin_psc; sev.md d16 to d18).
 *
 * Everything here works on values that have already been read from the request's buffer; it keeps no state.
 *
 * @module
 */
import { PscOperation } from "../layout/sev/constants/ghcb.ts";
import { PSC_BUFFER, PSC_ENTRY } from "../layout/sev/psc.ts";
import { PAGES_PER_LARGE_PAGE } from "./rmp.ts";

/** Entries that a buffer has room for. */
export const PSC_ENTRIES_MAX = 253;
/** Bytes of an entry. */
const ENTRY_BYTES = 8;

/** Byte offset of entry `index` in a PSC_BUFFER. */
export function pscEntryOffset(index: number): number {
  return PSC_BUFFER.at.entries + index * ENTRY_BYTES;
}

/** What to do for one entry. */
export interface PscStep {
  /** First guest page still to be changed. */
  readonly gpn: number;
  /** How many 4 KiB pages: 1, or what is left of a large page. */
  readonly pages: number;
  /** Whether they can be changed as one large page. */
  readonly large: boolean;
  /** A `PscOperation`; others than PRIVATE and SHARED count as done at once. */
  readonly operation: number;
}

/** Whether the header of a request is malformed: `PSC_ERROR.INVALID_HEADER` is the answer. */
export function pscHeaderInvalid(endEntry: number): boolean {
  return endEntry >= PSC_ENTRIES_MAX;
}

/** What `entry` asks for, or `undefined` when it is malformed: `PSC_ERROR.INVALID_ENTRY` is the answer. */
export function pscStep(entry: bigint): PscStep | undefined {
  const done = PSC_ENTRY.get(entry, "cur_page");
  const gfn = PSC_ENTRY.get(entry, "gfn");
  const huge = PSC_ENTRY.get(entry, "pagesize") === 1;
  const pages = huge ? PAGES_PER_LARGE_PAGE : 1;
  if (done > pages || (huge && gfn % PAGES_PER_LARGE_PAGE !== 0)) return undefined;
  return {
    gpn: gfn + done,
    pages: pages - done,
    large: huge && done === 0,
    operation: PSC_ENTRY.get(entry, "operation"),
  };
}

/** Whether an operation changes anything. */
export function changesState(operation: number): boolean {
  return operation === PscOperation.values.PRIVATE || operation === PscOperation.values.SHARED;
}

/** `entry` with its page count at what it is when the whole entry is done. */
export function pscCompleted(entry: bigint): bigint {
  const huge = PSC_ENTRY.get(entry, "pagesize") === 1;
  return PSC_ENTRY.with(entry, "cur_page", huge ? PAGES_PER_LARGE_PAGE : 1);
}
