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
import { GHCB_VALID_BIT, type GhcbValidField } from "../../layout/sev/ghcb.ts";
import { PAGE_SIZE } from "../../memory/machine_memory.ts";
import { type HostVcpu, HostVcpuState } from "../host_vcpu.ts";

const EXIT = SevExitCode.values;
const REASON = GhcbMalformedInput.values;
const ioio = IOIO_EXITINFO1.mask;
const BITMAP = HostVcpuState.at.valid_bitmap;

/** Fields that a request needs, as the words of a bitmap of valid fields. */
type FieldSet = readonly number[];
/** 32-bit words of the bitmap. */
const BITMAP_WORDS = 4;

function fieldSet(fields: readonly GhcbValidField[]): FieldSet {
  const words = new Array<number>(BITMAP_WORDS).fill(0);
  for (const field of fields) words[GHCB_VALID_BIT[field] >>> 5] |= 1 << (GHCB_VALID_BIT[field] & 31);
  return words;
}

/** Fields needed by exit code, from the published table. */
const NEEDS: ReadonlyMap<number, FieldSet> = new Map(
  KVM_REQUIRED_FIELDS.flatMap(({ exits, needs }) =>
    exits.map((name) => [SevExitCode.valueOf(name)!, fieldSet(needs as readonly GhcbValidField[])] as const)
  ),
);
const ALWAYS = fieldSet(GHCB_ALWAYS_REQUIRED);
const NONE = fieldSet([]);
const RAX = fieldSet(["rax"]);
const RAX_RDX = fieldSet(["rax", "rdx"]);
const XCR0 = fieldSet(["xcr0"]);
const SCRATCH = fieldSet(["sw_scratch"]);

/** Whether the guest has marked all these fields valid in the bitmap that the host copied. */
function allValid(host: HostVcpu, fields: FieldSet): boolean {
  const { i32 } = host.memory;
  const word = (host.state + BITMAP) >>> 2;
  for (let k = 0; k < BITMAP_WORDS; k++) if ((fields[k] & ~i32[word + k]) !== 0) return false;
  return true;
}

/** Whether only an SNP guest may ask for an exit. */
function isSnpOnly(exit: number): boolean {
  switch (exit) {
    case EXIT.SNP_AP_CREATION:
    case EXIT.SNP_PSC:
    case EXIT.SNP_GUEST_REQUEST:
    case EXIT.SNP_EXT_GUEST_REQUEST:
      return true;
    default:
      return false;
  }
}
/** CPUID leaf that needs XCR0. */
const XSAVE_LEAF = 0xd;

/** Why the request is malformed, or `undefined`. */
export function malformedReason(host: HostVcpu, standardUsage: boolean): number | undefined {
  if (!standardUsage) return REASON.INVALID_USAGE;
  if (!allValid(host, ALWAYS)) return REASON.MISSING_INPUT;
  const exit = host.requestCode;
  const needs = NEEDS.get(exit);
  if (needs === undefined || (isSnpOnly(exit) && host.sev.rmp === undefined)) return REASON.INVALID_EVENT;
  const apDestroy = exit === EXIT.SNP_AP_CREATION &&
    host.low("sw_exit_info_1") === ApCreationRequest.values.DESTROY;
  if (!apDestroy && !allValid(host, needs)) return REASON.MISSING_INPUT;
  return allValid(host, conditionalNeeds(host, exit)) ? undefined : REASON.MISSING_INPUT;
}

/** Fields that are needed under a condition. */
function conditionalNeeds(host: HostVcpu, exit: number): FieldSet {
  const info1 = host.low("sw_exit_info_1");
  switch (exit) {
    case EXIT.CPUID:
      return host.low("rax") === XSAVE_LEAF && host.high("rax") === 0 ? XCR0 : NONE;
    case EXIT.IOIO:
      if ((info1 & ioio.string) !== 0) return SCRATCH;
      return (info1 & ioio.in) !== 0 ? NONE : RAX;
    case EXIT.MSR:
      return (info1 | host.high("sw_exit_info_1")) !== 0 ? RAX_RDX : NONE;
    default:
      return NONE;
  }
}

/** Whether a guest request names two different whole pages (d15). */
export function guestRequestPagesValid(request: bigint, response: bigint): boolean {
  const page = BigInt(PAGE_SIZE);
  return request % page === 0n && response % page === 0n && request !== response;
}
