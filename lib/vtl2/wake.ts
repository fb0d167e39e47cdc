/**
 * How another processor makes a VP's run loop look after something (openvmm virt_mshv_vtl, processor wake; the kernel's
 * cancel flag and rescheduling interrupt).
 *
 * @module
 */
import type { Facilities } from "../hypervisor/facilities.ts";
import { hcl_run } from "../layout/hyperv/hcl_run.ts";
import { KERNEL_PAGES, kernelPage, VmmRunState } from "./kernel_pages.ts";

/** Linux's rescheduling interrupt (arch/x86/include/asm/irq_vectors.h, RESCHEDULE_VECTOR). */
const RESCHEDULE_VECTOR = 0xfd;

/** Notes the reasons `bits` (`WAKE`) for processor `vp`, and cancels its run of the lower VTL. */
export function wakeVmm(facilities: Facilities, kernelPages: number, vp: number, bits: number): void {
  const { port } = facilities;
  port.or32(kernelPage(kernelPages, vp, KERNEL_PAGES.RUN_STATE) + VmmRunState.at.wake, bits);
  port.exchange32(kernelPage(kernelPages, vp, KERNEL_PAGES.RUN) + hcl_run.at.cancel, 1);
  facilities.requestVtl2Interrupt(vp, RESCHEDULE_VECTOR);
}
