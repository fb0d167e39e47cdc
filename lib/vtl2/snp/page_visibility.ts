/**
 * HvCallModifySparseGpaPageHostVisibility on SNP: a guest lets the host see pages of its memory, or takes them back (openvmm
 * `underhill_mem`; sev.md f28, e22, e23).
 *
 * Sharing takes the lower VTLs' rights away, makes the page invalid, and asks the host to make it its own; taking back asks the
 * host first, validates, and then grants. What a page held is lost either way. The guest reaches shared pages through the alias
 * above the virtual top of memory.
 *
 * @module
 */
import { GUEST_ASID } from "../../hypervisor/sev/machine.ts";
import { vmgexit } from "../../hypervisor/sev/vmpl_vp.ts";
import { HvStatus, HYPERCALL_ABI } from "../../layout/hyperv/constants/hypercalls.ts";
import { HypercallInputControl, HypercallOutput, ModifySparsePageVisibility } from "../../layout/hyperv/hypercalls.ts";
import { PscOperation } from "../../layout/sev/constants/ghcb.ts";
import { RMP_GEOMETRY, VMPL } from "../../layout/sev/constants/rmp.ts";
import { GHCB_MSR_PSC_REQ, GHCB_MSR_PSC_RESP, GhcbMsrInfo } from "../../layout/sev/msr_protocol.ts";
import { RMPADJUST_ATTRS } from "../../layout/sev/rmp.ts";
import { VMCB_CONTROL } from "../../layout/sev/vmcb.ts";
import { PAGE_SIZE } from "../../memory/machine_memory.ts";
import { step, type StepId } from "../../memory/steps.ts";
import { RMP_CHECK } from "../../sev/rmp.ts";
import { VmmVpState } from "../vmm_state.ts";
import { SNP_PAGES, SnpVmmState } from "./pages.ts";
import type { SnpVp } from "./snp_vp.ts";

const { Success, InvalidHypercallInput, InvalidParameter, InvalidPartitionId, OperationDenied } = HvStatus.values;
const at = SnpVmmState.at;
/** Visibility that the host can be given: none, or to read and write. */
const VISIBILITY = { NONE: 0, READ_WRITE: 3 } as const;
const GPN_BYTES = 8;
const SIZE_4K = RMP_GEOMETRY.PAGE_SIZE_4K;

/** Looks at the call's input; a status when it is refused, or undefined when {@linkcode CHANGE_PAGES} is to carry it out. */
export function beginVisibility(vp: SnpVp): number | undefined {
  const control = vp.vmsa(0).get64("rcx");
  const count = HypercallInputControl.get(control, "rep_count");
  const start = HypercallInputControl.get(control, "rep_start");
  const bytes = ModifySparsePageVisibility.size + count * GPN_BYTES;
  const from = vp.vmm.hypercallInput(bytes);
  if (count === 0 || start >= count || from < 0) return InvalidHypercallInput;
  // A copy, so that the guest cannot change it.
  const input = vp.vmm.state + VmmVpState.at.hypercall_input;
  vp.memory.u8.copyWithin(input, from, from + bytes);
  const { u32, u64 } = vp.memory;
  if (u64[(input + ModifySparsePageVisibility.at.partition_id) >>> 3] !== HYPERCALL_ABI.PARTITION_ID_SELF) {
    return InvalidPartitionId;
  }
  const visibility = u32[(input + ModifySparsePageVisibility.at.host_visibility) >>> 2];
  if (visibility !== VISIBILITY.NONE && visibility !== VISIBILITY.READ_WRITE) return InvalidParameter;
  vp.set("psc_next", start);
  vp.set("psc_end", count);
  return undefined;
}

/** Byte offset of the word by which processors take turns at this; VP 0's. */
function lockWord(vp: SnpVp): number {
  return vp.sev.paravisorPages(0) + SNP_PAGES.STATE * PAGE_SIZE + at.psc_lock;
}

/** Guest page of the element under way. */
function pageOf(vp: SnpVp): number {
  const input = vp.vmm.state + VmmVpState.at.hypercall_input;
  const gpn = vp.memory.u64[((input + ModifySparsePageVisibility.size) >>> 3) + vp.get("psc_next")];
  return gpn > BigInt(Number.MAX_SAFE_INTEGER) ? -1 : Number(gpn);
}

/** Whether pages become the host's. */
function shares(vp: SnpVp): boolean {
  const input = vp.vmm.state + VmmVpState.at.hypercall_input;
  return vp.memory.u32[(input + ModifySparsePageVisibility.at.host_visibility) >>> 2] !== VISIBILITY.NONE;
}

/** One processor changes pages at a time. Returns to the caller when the call's result is in RAX. */
export const CHANGE_PAGES: StepId = step<SnpVp>(
  "openhcl-snp.lock-pages",
  (vp) => vp.port.exchange32(lockWord(vp), 1) === 0 ? CHANGE_PAGE : CHANGE_PAGES,
  (vp) => vp.port.load32(lockWord(vp)) === 0,
);

/** The next page: taken from the lower VTLs when the host is to have it, then asked of the host. */
const CHANGE_PAGE: StepId = step<SnpVp>("openhcl-snp.change-page", (vp) => {
  const page = pageOf(vp);
  const { sev, port } = vp;
  if (page < 0 || !sev.isRam(page)) return finish(vp, InvalidParameter);
  const share = shares(vp);
  if (sev.rmp!.isAssigned(port, page) !== share) return next(vp);
  if (share && !(revoke(vp, page) && validate(vp, page, false))) return finish(vp, OperationDenied);
  const { PRIVATE, SHARED } = PscOperation.values;
  const operation = share ? SHARED : PRIVATE;
  return vmgexit(vp, GHCB_MSR_PSC_REQ.make({ info: GhcbMsrInfo.values.PSC_REQ, gfn: page, operation }), PAGE_CHANGED);
});

/** The host has answered: a page that is the guest's again is validated, then given to the lower VTLs. */
const PAGE_CHANGED: StepId = step<SnpVp>("openhcl-snp.page-changed", (vp) => {
  const response = vp.port.load64(vp.vmcb + VMCB_CONTROL.at.ghcb_gpa);
  const answered = GHCB_MSR_PSC_RESP.get(response, "info") === GhcbMsrInfo.values.PSC_RESP;
  if (!answered || GHCB_MSR_PSC_RESP.get(response, "error") !== 0) return finish(vp, OperationDenied);
  const page = pageOf(vp);
  if (!shares(vp) && !(validate(vp, page, true) && grant(vp, page))) return finish(vp, OperationDenied);
  return next(vp);
});

/** Goes on with the next element, or ends the call. */
function next(vp: SnpVp): StepId {
  vp.count("psc_next");
  return vp.get("psc_next") < vp.get("psc_end") ? CHANGE_PAGE : finish(vp, Success);
}

/** The call ends: its result goes into RAX. */
function finish(vp: SnpVp, status: number): StepId {
  const done = vp.get("psc_next");
  vp.set("psc_end", 0);
  vp.vmsa(0).set64("rax", HypercallOutput.make({ call_status: status, elements_processed: done }));
  vp.port.exchange32(lockWord(vp), 0);
  // Whoever waits for the lock looks again.
  for (let other = 0; other < vp.facilities.vps; other++) vp.partition.ring(other);
  return vp.return();
}

function revoke(vp: SnpVp, page: number): boolean {
  return adjust(vp, page, VMPL.VTL0, 0) && adjust(vp, page, VMPL.VTL1, 0);
}

function grant(vp: SnpVp, page: number): boolean {
  return adjust(vp, page, VMPL.VTL1, 1) && adjust(vp, page, VMPL.VTL0, 1);
}

/** RMPADJUST: all rights for `vmpl`, or none. */
function adjust(vp: SnpVp, page: number, vmpl: number, all: 0 | 1): boolean {
  return rmpadjust(vp, page, lowerVmplRights(vmpl, all));
}

/** Attributes with which `vmpl` may do everything with a page, or nothing. */
export function lowerVmplRights(vmpl: number, all: 0 | 1): bigint {
  const rights = { read: all, write: all, user_execute: all, supervisor_execute: all };
  return RMPADJUST_ATTRS.make({ target_vmpl: vmpl, ...rights });
}

/** RMPADJUST of a page by VMPL0; false when it fails. */
export function rmpadjust({ sev, port }: Pick<SnpVp, "sev" | "port">, page: number, attributes: bigint): boolean {
  const options = { asid: GUEST_ASID, vmpl: VMPL.MOST_PRIVILEGED, size: SIZE_4K, attributes };
  const { check, result } = sev.rmp!.rmpadjust(port, page, page, options);
  return check === RMP_CHECK.PASS && result === 0;
}

/** PVALIDATE. One that changes nothing has been done before: that is not taken for success (e25). */
function validate(vp: SnpVp, page: number, valid: boolean): boolean {
  const options = { asid: GUEST_ASID, size: SIZE_4K, validate: valid, mappedPrivate: true };
  const { check, result, unchanged } = vp.sev.rmp!.pvalidate(vp.port, page, page, options);
  return check === RMP_CHECK.PASS && result === 0 && !unchanged;
}
