/**
 * Where OpenHCL's kernel keeps the pages of each processor in VTL2's memory.
 *
 * @module
 */
import { PAGE_SIZE } from "../memory/machine_memory.ts";

/** The pages of one processor, in order. */
export const KERNEL_PAGES = {
  /** VP assist page of VTL2. */
  ASSIST: 0,
  /** Register page. */
  REGISTER: 1,
  /** Run page (`hcl_run`), which the VTL device shares with the VMM. */
  RUN: 2,
  /** SynIC message page of VTL2. */
  MESSAGES: 3,
  /** What the VMM keeps for the VP ({@linkcode VmmVpState}). */
  VMM: 4,
} as const;

/** Pages of VTL2's memory that each processor takes. */
export const KERNEL_PAGES_PER_VP = 5;

/** Bytes of VTL2's memory that `vps` processors take. */
export function kernelPagesBytes(vps: number): number {
  return vps * KERNEL_PAGES_PER_VP * PAGE_SIZE;
}

/** Guest-physical address of a page of processor `vp`, with the kernel's pages beginning at `base`. */
export function kernelPage(base: number, vp: number, page: number): number {
  return base + (vp * KERNEL_PAGES_PER_VP + page) * PAGE_SIZE;
}
