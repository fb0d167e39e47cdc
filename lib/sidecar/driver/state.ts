/**
 * What Linux's sidecar driver keeps for a node, in VTL2's memory (OHCL-Linux-Kernel drivers/hv/mshv_vtl_sidecar.c).
 *
 * @module
 */
import { array, u32, u8 } from "../../layout/field_type.ts";
import { SIDECAR, SidecarDriverVpState } from "../../layout/hyperv/constants/sidecar.ts";
import { reserved, structure } from "../../layout/structure.ts";

/** Words of a mask of the driver's threads. */
export const THREAD_WORDS = 2;
/** Threads that can be in the driver of one node at a time. */
export const THREADS_MAX: number = THREAD_WORDS * 32;

/**
 * The driver's state of one node. Everything in it is shared between the driver's threads. `response_irr`, which the
 * sidecar processors write, has a cache line of its own.
 */
export const SidecarDriverState = structure("SidecarDriverState", 256, [
  [
    "vp_state",
    0,
    array(SidecarDriverVpState.u8, SIDECAR.MAX_SIDECAR_NODE_SIZE),
    "What each processor of the node does for the VMM; the node's base processor is REMOVED",
  ],
  ["needs_vp_scan", 32, u32, "1 when a processor may have finished since the last scan"],
  ["num_vps_stopped", 36, u32, "Processors that are ASYNC_STOPPED"],
  ["scan_mutex", 40, u32, "0, or one more than the number of the thread that scans"],
  reserved(44, 4),
  ["handler_active", 48, u32, "1 while the response interrupt's handler runs"],
  reserved(52, 4),
  ["waiters", 56, array(u32, THREAD_WORDS), "The wait queue: bit n is set while thread n sleeps"],
  ["signals", 64, array(u32, THREAD_WORDS), "Bit n is set while a signal is pending for thread n"],
  [
    "request_due",
    72,
    array(u8, SIDECAR.MAX_SIDECAR_NODE_SIZE),
    "1 between the start of a processor and its request interrupt (policy sidecar.start-ipi)",
  ],
  reserved(104, 24),
  ["response_irr", 128, u32, "1 while the response interrupt is requested of the base processor and not taken"],
  reserved(132, 60),
  [
    "requests_left",
    192,
    array(u8, SIDECAR.MAX_SIDECAR_NODE_SIZE),
    "1 once a processor has been sent a request interrupt that is not a start's, until it is known to be taken",
  ],
  reserved(224, 32),
], "OHCL-Linux-Kernel drivers/hv/mshv_vtl_sidecar.c, with what Linux itself keeps for it");
