/**
 * Where OpenHCL's kernel and VMM keep the pages of each processor in VTL2's memory.
 *
 * @module
 */
import { u32 } from "../layout/field_type.ts";
import { reserved, structure } from "../layout/structure.ts";
import { PAGE_SIZE } from "../memory/machine_memory.ts";
import { VmmVpState } from "./vmm_state.ts";

/** The pages of one processor, in order. */
export const KERNEL_PAGES = {
  /** VP assist page of VTL2. */
  ASSIST: 0,
  /** Register page. */
  REGISTER: 1,
  /** Run page (`hcl_run`), which the VTL device shares with the VMM. */
  RUN: 2,
  /** {@linkcode VmmRunState}, then the instruction emulator's processor state. */
  RUN_STATE: 3,
  /** What the VMM keeps for the VP (`VmmVpState`), as many pages as that takes. */
  VMM: 4,
} as const;

const VMM_PAGES = Math.ceil(VmmVpState.size / PAGE_SIZE);
/** The message page of VTL2's SynIC (SIMP), behind the VMM's pages. */
export const MESSAGE_PAGE: number = KERNEL_PAGES.VMM + VMM_PAGES;
/** Pages of VTL2's memory that each processor takes. */
const KERNEL_PAGES_PER_VP: number = MESSAGE_PAGE + 1;
/** Offset of the instruction emulator's processor state in the page {@linkcode KERNEL_PAGES}.RUN_STATE. */
export const EMULATOR_STATE_OFFSET = 0x100;

/** Reasons for which the VMM looks after a VP before it runs it. */
export const WAKE = {
  /** The interrupt controllers' output came up: an external interrupt waits for the VP. */
  EXTINT: 1 << 0,
  /** A message waits for one of the VP's SINTs. */
  MESSAGE_QUEUES: 1 << 1,
} as const;

/** Who asks a VP's run loop to end. */
export const STOP = {
  /** The VMM: servicing, a pause, the end of the machine. */
  VMM: 1 << 0,
  /** Linux, which is to give the processor back to the sidecar. */
  OFFLINE: 1 << 1,
} as const;

/** How others reach a VP's run loop. */
export const VmmRunState = structure("VmmRunState", 64, [
  ["stop", 0, u32, "STOP bits; not 0 asks the VMM to run the VP no more (shared)"],
  ["wake", 4, u32, "WAKE bits (shared)"],
  ["stops", 8, u32, "Times that the run loop has ended because it was asked to, modulo 2^32"],
  reserved(12, 52),
], "Not a structure of the modelled machine");

/** Bytes of VTL2's memory that `vps` processors take. */
export function kernelPagesBytes(vps: number): number {
  return vps * KERNEL_PAGES_PER_VP * PAGE_SIZE;
}

/** Guest-physical address of a page of processor `vp`, with the kernel's pages beginning at `base`. */
export function kernelPage(base: number, vp: number, page: number): number {
  return base + (vp * KERNEL_PAGES_PER_VP + page) * PAGE_SIZE;
}
