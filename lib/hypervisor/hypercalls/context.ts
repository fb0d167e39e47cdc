/**
 * What a hypercall works on: who calls, and the partition. The same handlers serve a guest's hypercall instruction and
 * VTL2's code, which calls them as functions.
 *
 * @module
 */
import { HvStatus, HYPERCALL_ABI } from "../../layout/hyperv/constants/hypercalls.ts";
import { HvInputVtl } from "../../layout/hyperv/hypercalls.ts";
import { PAGE_SHIFT, PAGE_SIZE } from "../../memory/machine_memory.ts";
import type { Facilities } from "../facilities.ts";
import { MAP_GPA } from "../partition.ts";
import type { VpRegisters } from "../registers.ts";
import { HypervisorVpState } from "../vp_state.ts";

const { Success, InvalidPartitionId, InvalidVpIndex, InvalidVtlState, AccessDenied, InvalidParameter } =
  HvStatus.values;

/** What the platform does when a hypercall changes which code runs. */
export interface HypercallEvents {
  /** VTL2 of `vp` has been started; the `InitialVpContextX64` it starts with lies at `at` of `view`. */
  vtl2Started(vp: number, view: DataView, at: number): void;
  /** VTL0 of `vp` has been started with the registers now in its CPU state. */
  vtl0Started(vp: number): void;
}

/** A caller of hypercalls. */
export interface HypercallContext {
  readonly facilities: Facilities;
  readonly registers: VpRegisters;
  readonly events: HypercallEvents;
  /** Index of the calling VP. */
  readonly vp: number;
  /** The calling VTL, 0 or 2. */
  readonly vtl: number;
}

/** `Success` when the call is about the caller's own partition. */
export function checkPartition(view: DataView, at: number): number {
  return view.getBigUint64(at, true) === HYPERCALL_ABI.PARTITION_ID_SELF ? Success : InvalidPartitionId;
}

/** The VP that an index names, or -1. */
export function resolveVp(context: HypercallContext, index: number): number {
  if (index === HYPERCALL_ABI.VP_INDEX_SELF) return context.vp;
  return index < context.facilities.vps ? index : -1;
}

/** `Success` when the caller may name `vtl` of `vp` and it is enabled there. */
export function checkVtl(context: HypercallContext, vp: number, vtl: number): number {
  if (vtl > context.vtl) return AccessDenied;
  return vtlEnabled(context, vp, vtl) ? Success : InvalidVtlState;
}

/** Whether a VTL of a VP is enabled. */
export function vtlEnabled(context: HypercallContext, vp: number, vtl: number): boolean {
  if (vtl === 0) return true;
  const { partition } = context.facilities;
  return vtl === 2 && partition.memory.u8[partition.vpState(vp) + HypervisorVpState.at.vtl2_enabled] !== 0;
}

/** The VTL that an `HvInputVtl` byte names, or -1 when it has reserved bits set. */
export function resolveInputVtl(context: HypercallContext, byte: number): number {
  if ((byte & HvInputVtl.reserved) !== 0) return -1;
  return HvInputVtl.get(byte, "use_target_vtl") === 0 ? context.vtl : HvInputVtl.get(byte, "target_vtl_value");
}

/** A VP and VTL that a call's header names; `status` is not `Success` when it names none that the caller may reach. */
export interface Target {
  readonly status: number;
  readonly vp: number;
  readonly vtl: number;
}

/** Resolves partition, VP index and `HvInputVtl` byte, in this order (openhcl.md h). */
export function resolveTarget(
  context: HypercallContext,
  partitionStatus: number,
  index: number,
  vtlByte: number,
): Target {
  if (partitionStatus !== Success) return { status: partitionStatus, vp: -1, vtl: -1 };
  const vp = resolveVp(context, index);
  if (vp < 0) return { status: InvalidVpIndex, vp, vtl: -1 };
  const vtl = resolveInputVtl(context, vtlByte);
  if (vtl < 0) return { status: InvalidParameter, vp, vtl };
  return { status: checkVtl(context, vp, vtl), vp, vtl };
}

/**
 * Byte offset in the machine's memory of guest-physical address `gpa` for an access of the calling VTL, or -1 when there
 * is no memory that it may access so.
 */
export function guestOffset(context: HypercallContext, gpa: bigint, write: boolean): number {
  const { partition } = context.facilities;
  const gpn = Number(gpa >> BigInt(PAGE_SHIFT));
  const within = Number(gpa & BigInt(PAGE_SIZE - 1));
  if (context.vtl !== 0) return gpn < partition.pages ? gpn * PAGE_SIZE + within : -1;
  const page = partition.vtl0Page(gpn, write ? MAP_GPA.WRITE : MAP_GPA.READ);
  return page < 0 ? -1 : page + within;
}
