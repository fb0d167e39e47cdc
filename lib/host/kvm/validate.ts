/**
 * Which fields KVM insists on, by exit code (Linux sev_es_validate_vmgexit; sev.md d5).
 *
 * @module
 */
import {
  ApCreationRequest,
  GHCB_ALWAYS_REQUIRED,
  GhcbMalformedInput,
  KVM_REQUIRED_FIELDS,
} from "../../layout/sev/constants/ghcb.ts";
import { SevExitCode } from "../../layout/sev/constants/exit_codes.ts";
import { IOIO_EXITINFO1 } from "../../layout/sev/exit_info.ts";
import type { GhcbValidField } from "../../layout/sev/ghcb.ts";
import { PAGE_SIZE } from "../../memory/machine_memory.ts";
import type { HostVcpu } from "../host_vcpu.ts";
import { isValid } from "./vmgexit.ts";

const EXIT = SevExitCode.values;
const REASON = GhcbMalformedInput.values;

/** Fields needed by exit code, from the published table. */
const NEEDS: ReadonlyMap<number, readonly GhcbValidField[]> = new Map(
  KVM_REQUIRED_FIELDS.flatMap(({ exits, needs }) =>
    exits.map((name) => [SevExitCode.valueOf(name)!, needs as readonly GhcbValidField[]] as const)
  ),
);
/** Exits that only an SNP guest may ask for. */
const SNP_ONLY: ReadonlySet<number> = new Set<number>([
  EXIT.SNP_AP_CREATION,
  EXIT.SNP_PSC,
  EXIT.SNP_GUEST_REQUEST,
  EXIT.SNP_EXT_GUEST_REQUEST,
]);
/** CPUID leaf that needs XCR0. */
const XSAVE_LEAF = 0xdn;

/** Why the request is malformed, or `undefined`. */
export function malformedReason(host: HostVcpu, standardUsage: boolean): number | undefined {
  if (!standardUsage) return REASON.INVALID_USAGE;
  if (!GHCB_ALWAYS_REQUIRED.every((field) => isValid(host, field))) return REASON.MISSING_INPUT;
  const code = host.get64("sw_exit_code");
  const exit = code <= 0xffff_ffffn ? Number(code) : -1;
  const needs = NEEDS.get(exit);
  if (needs === undefined || (SNP_ONLY.has(exit) && host.sev.rmp === undefined)) return REASON.INVALID_EVENT;
  const apDestroy = exit === EXIT.SNP_AP_CREATION &&
    (host.get64("sw_exit_info_1") & 0xffff_ffffn) === BigInt(ApCreationRequest.values.DESTROY);
  const all = [...(apDestroy ? [] : needs), ...conditionalNeeds(host, exit)];
  if (!all.every((field) => isValid(host, field))) return REASON.MISSING_INPUT;
  return undefined;
}

/** Fields that are needed under a condition. */
function conditionalNeeds(host: HostVcpu, exit: number): readonly GhcbValidField[] {
  const info1 = host.get64("sw_exit_info_1");
  switch (exit) {
    case EXIT.CPUID:
      return host.get64("rax") === XSAVE_LEAF ? ["xcr0"] : [];
    case EXIT.IOIO: {
      const bits = Number(info1 & 0xffff_ffffn);
      if ((bits & IOIO_EXITINFO1.mask.string) !== 0) return ["sw_scratch"];
      return (bits & IOIO_EXITINFO1.mask.in) !== 0 ? [] : ["rax"];
    }
    case EXIT.MSR:
      return info1 !== 0n ? ["rax", "rdx"] : [];
    default:
      return [];
  }
}

/** Whether a guest request names two different whole pages (d15). */
export function guestRequestPagesValid(request: bigint, response: bigint): boolean {
  const page = BigInt(PAGE_SIZE);
  return request % page === 0n && response % page === 0n && request !== response;
}
