/**
 * How KVM changes the state of pages: by the MSR protocol, by a GHCB request with a buffer of entries, and when a guest
 * touches a page in the other state (Linux snp_begin_psc, sev_gmem_prepare, sev_gmem_invalidate, sev_handle_rmp_fault;
 * sev.md d16 to d19, e18 to e21).
 *
 * @module
 */
import { ATTENTION } from "../../hypervisor/attention.ts";
import { GUEST_ASID } from "../../hypervisor/sev/machine.ts";
import { PSC_ERROR, PscOperation } from "../../layout/sev/constants/ghcb.ts";
import { RMP_GEOMETRY, RmpResult } from "../../layout/sev/constants/rmp.ts";
import { PSC_BUFFER } from "../../layout/sev/psc.ts";
import { step, type StepId } from "../../memory/steps.ts";
import { changesState, pscCompleted, pscEntryOffset, pscHeaderInvalid, pscStep } from "../../sev/psc.ts";
import { PAGES_PER_LARGE_PAGE } from "../../sev/rmp.ts";
import type { HostVcpu } from "../host_vcpu.ts";
import { loadScratch, storeScratch } from "./scratch.ts";
import { FINISH, replyDone } from "./vmgexit.ts";

const { SUCCESS, FAIL_INUSE } = RmpResult.values;

/**
 * Takes one step towards page `page` being private or shared: PSMASH of a large page that it is part of, or RMPUPDATE.
 * Returns whether the page is in that state now, or an `RmpResult` other than SUCCESS.
 */
export function changePage(host: HostVcpu, page: number, isPrivate: boolean): "done" | "again" | number {
  const { rmp, guestMemory } = host.sev;
  const { port } = host;
  if (rmp === undefined || !host.sev.isRam(page)) return RmpResult.values.FAIL_INPUT;
  if (rmp.isAssigned(port, page) === isPrivate && !rmp.isLarge(port, page)) return "done";
  const smash = rmp.isLarge(port, page);
  const result = smash ? rmp.psmash(port, page - page % PAGES_PER_LARGE_PAGE) : guestMemory.rmpupdate(port, page, {
    assigned: isPrivate,
    asid: isPrivate ? GUEST_ASID : 0,
    gpn: isPrivate ? page : 0,
    size: RMP_GEOMETRY.PAGE_SIZE_4K,
    immutable: false,
  });
  // The nested mapping goes away with the entry: no processor keeps a translation.
  host.vp.partition.signalAll(port, -1, ATTENTION.FLUSH_TLB);
  if (result === FAIL_INUSE) return "again"; // Linux tries again (e4)
  if (result !== SUCCESS) return result;
  return smash ? "again" : "done";
}

/** Changes a whole large page at once where its entries allow that; false when it must be done page by page. */
function changeLargePage(host: HostVcpu, page: number, isPrivate: boolean): boolean {
  const { guestMemory } = host.sev;
  const result = guestMemory.rmpupdate(host.port, page, {
    assigned: isPrivate,
    asid: isPrivate ? GUEST_ASID : 0,
    gpn: isPrivate ? page : 0,
    size: RMP_GEOMETRY.PAGE_SIZE_2M,
    immutable: false,
  });
  if (result === SUCCESS) host.vp.partition.signalAll(host.port, -1, ATTENTION.FLUSH_TLB);
  return result === SUCCESS;
}

/** Page state change by the MSR protocol: one page a time; `field` psc_page and psc_left say which and to what. */
export const CHANGE_ONE_PAGE: StepId = step<HostVcpu>("kvm.change-page-state", (host) => {
  const outcome = changePage(host, host.get32("psc_page"), host.get32("operation") === PscOperation.values.PRIVATE);
  if (outcome === "again") return CHANGE_ONE_PAGE;
  host.set32("psc_left", outcome === "done" ? 0 : 1);
  return host.return();
});

// --- Page state change by a buffer -----------------------------------------------------------------------------------

/** The request's header. What it says of the last entry counts once it has been checked; the entries may still change. */
export const PSC_BEGIN: StepId = step<HostVcpu>("kvm.psc-read-header", (host) => {
  const end = Number(loadScratch(host, PSC_BUFFER.at.end_entry, 2));
  if (pscHeaderInvalid(end)) return finishPsc(host, PSC_ERROR.INVALID_HEADER);
  host.set32("psc_end", end);
  host.set32("psc_done", 0);
  return PSC_NEXT;
});

/** The entry that `cur_entry` names. */
const PSC_NEXT: StepId = step<HostVcpu>("kvm.psc-next-entry", (host) => {
  const current = Number(loadScratch(host, PSC_BUFFER.at.cur_entry, 2));
  if (current > host.get32("psc_end")) return finishPsc(host, 0n);
  host.set32("element", current);
  const entry = loadScratch(host, pscEntryOffset(current), 8);
  const wanted = pscStep(entry);
  if (wanted === undefined) return finishPsc(host, PSC_ERROR.INVALID_ENTRY);
  host.set64("psc_entry", entry);
  if (!changesState(wanted.operation) || wanted.pages === 0) return PSC_COMPLETE;
  host.set32("operation", wanted.operation);
  host.set32("psc_page", wanted.gpn);
  host.set32("psc_left", wanted.pages);
  return wanted.large ? PSC_LARGE : PSC_PAGE;
});

/** A large page at once. */
const PSC_LARGE: StepId = step<HostVcpu>("kvm.psc-change-large-page", (host) => {
  const isPrivate = host.get32("operation") === PscOperation.values.PRIVATE;
  const first = host.get32("psc_page");
  const inRam = host.sev.isRam(first) && host.sev.isRam(first + PAGES_PER_LARGE_PAGE - 1);
  return inRam && changeLargePage(host, first, isPrivate) ? PSC_COMPLETE : PSC_PAGE;
});

/** One page of the entry. */
const PSC_PAGE: StepId = step<HostVcpu>("kvm.psc-change-page", (host) => {
  const page = host.get32("psc_page");
  const outcome = changePage(host, page, host.get32("operation") === PscOperation.values.PRIVATE);
  if (outcome === "again") return PSC_PAGE;
  if (outcome !== "done") return finishPsc(host, PSC_ERROR.GENERIC);
  host.set32("psc_page", page + 1);
  host.set32("psc_left", host.get32("psc_left") - 1);
  return host.get32("psc_left") === 0 ? PSC_COMPLETE : PSC_PAGE;
});

/** The entry is done: its page count and the header say so (d18). */
const PSC_COMPLETE: StepId = step<HostVcpu>("kvm.psc-complete-entry", (host) => {
  const current = host.get32("element");
  host.set32("psc_done", host.get32("psc_done") + 1);
  storeScratch(host, pscEntryOffset(current), 8, pscCompleted(host.get64("psc_entry")));
  storeScratch(host, PSC_BUFFER.at.cur_entry, 2, BigInt(current + 1));
  return PSC_NEXT;
});

/** The answer: SW_EXITINFO1 is 0, SW_EXITINFO2 the error (h14). The buffer goes back with it. */
function finishPsc(host: HostVcpu, error: bigint): StepId {
  replyDone(host, error);
  return FINISH;
}
