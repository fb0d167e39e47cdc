/**
 * The hypercall page and the reference TSC page: overlay pages whose contents the hypervisor writes (Hyper-V TLFS,
 * "Establishing the Hypercall Interface", "Reference Time Stamp Counter (TSC) page").
 *
 * @module
 */
import { HYPERCALL_PAGE_CODE_OFFSETS, HypercallCode } from "../layout/hyperv/constants/hypercalls.ts";
import { HvReferenceTscPage } from "../layout/hyperv/synic.ts";
import { PAGE_SIZE } from "../memory/machine_memory.ts";
import { REFERENCE_TSC_SCALE } from "./time.ts";

/** VMMCALL, the hypercall instruction of an AMD processor. */
const VMMCALL = [0x0f, 0x01, 0xd9];
/** RET. */
const RET = [0xc3];
/** MOV EAX, ECX. */
const MOV_EAX_ECX = [0x8b, 0xc1];
/** MOV RAX, RCX. */
const MOV_RAX_RCX = [0x48, 0x8b, 0xc1];
/** MOV ECX, imm32: first byte. */
const MOV_ECX = 0xb9;
/** INT3, which fills the rest of the page. */
const INT3 = 0xcc;

/** The stub of a VTL switch: its control input moves from RCX to RAX, the hypercall's code goes to ECX. */
function vtlSwitch(moveInput: readonly number[], code: number): number[] {
  return [...moveInput, MOV_ECX, code & 0xff, code >>> 8, 0, 0, ...VMMCALL, ...RET];
}

/** Writes the hypercall page at byte `at` of `bytes`: the hypercall entry, and VTL call and return for 32 and 64 bits. */
export function writeHypercallPage(bytes: Uint8Array, at: number): void {
  const { HvCallVtlCall, HvCallVtlReturn } = HypercallCode.values;
  const offsets = HYPERCALL_PAGE_CODE_OFFSETS;
  bytes.fill(INT3, at, at + PAGE_SIZE);
  bytes.set([...VMMCALL, ...RET], at + offsets.HYPERCALL_ENTRY);
  bytes.set(vtlSwitch(MOV_EAX_ECX, HvCallVtlCall), at + offsets.VTL_CALL_32);
  bytes.set(vtlSwitch(MOV_RAX_RCX, HvCallVtlCall), at + offsets.VTL_CALL_64);
  bytes.set(vtlSwitch(MOV_EAX_ECX, HvCallVtlReturn), at + offsets.VTL_RETURN_32);
  bytes.set(vtlSwitch(MOV_RAX_RCX, HvCallVtlReturn), at + offsets.VTL_RETURN_64);
}

/** `tsc_sequence` of a valid reference TSC page; 0 sends its reader to HV_X64_MSR_TIME_REF_COUNT. */
const SEQUENCE_VALID = 1;

/** Writes the reference TSC page at byte `at` of `view`; `valid` is false once a guest has written its TSC. */
export function writeReferenceTscPage(view: DataView, at: number, valid: boolean): void {
  const offsets = HvReferenceTscPage.at;
  view.setBigUint64(at + offsets.tsc_scale, REFERENCE_TSC_SCALE, true);
  view.setBigInt64(at + offsets.tsc_offset, 0n, true);
  view.setUint32(at + offsets.tsc_sequence, valid ? SEQUENCE_VALID : 0, true);
}
