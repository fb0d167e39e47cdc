/**
 * Policies of the sidecar kernel and of Linux's sidecar driver: what the published versions do, and what their repairs
 * do. The first value of each is the repaired one.
 *
 * @module
 */
import { policy } from "../memory/policy.ts";

/** How ioctl START makes a run visible to the scan. */
export const DRIVER_PUBLISH = policy("driver.publish", "How the driver's START makes its run visible to the scan", {
  "starting-xchg":
    "claims ASYNC_STARTING, which the scan does not accept, starts, then exchanges it for ASYNC (OHCL-Linux-Kernel 154, 157)",
  "starting-release": "the same with a release store in place of the exchange (OHCL-Linux-Kernel 154)",
  "claim-then-start": "claims ASYNC and starts (drivers/hv/mshv_vtl_sidecar.c, first version)",
});

/** What ioctl START does once its run is visible. */
export const DRIVER_REARM = policy("driver.rearm", "Whether START looks for a run that ended before it was visible", {
  "yes": "loads the status; if it is IDLE already, asks for a scan and wakes all waiters (OHCL-Linux-Kernel 154, 157)",
  "no": "leaves (drivers/hv/mshv_vtl_sidecar.c, first version)",
});

/** Order of the scan's two loads. */
export const DRIVER_SCAN = policy("driver.scan", "Which of a processor's two words the scan loads first", {
  "state-then-status": "the driver's state, then the processor's status (OHCL-Linux-Kernel 154, 157)",
  "status-then-state": "the processor's status, then the driver's state (drivers/hv/mshv_vtl_sidecar.c, first version)",
});

/** Order in which the response interrupt's handler asks for a scan and takes note of the attention. */
export const DRIVER_INTERRUPT_ORDER = policy(
  "driver.interrupt",
  "What the response interrupt's handler does first when a processor needs attention",
  {
    "mark-then-clear":
      "stores needs_vp_scan, then exchanges needs_attention with 0 (drivers/hv/mshv_vtl_sidecar.c, all versions)",
    "proposed-clear-then-mark":
      "exchanges needs_attention with 0, then stores needs_vp_scan (exitbox: a scan on another processor cannot come in between)",
  },
);

/** What bringing a processor online waits for. */
export const DRIVER_REMOVE_WAIT = policy("driver.remove-wait", "Which status the driver's removal waits for", {
  "until-removed": "REMOVED, which the processor stores when it has left (OHCL-Linux-Kernel 82, 83)",
  "until-remove": "REMOVE, which the driver itself has stored (drivers/hv/mshv_vtl_sidecar.c, first version)",
});

/** Where the client's reader runs. */
export const DRIVER_READER = policy("driver.reader", "On which processor the reader of completed runs executes", {
  "base-cpu":
    "the node's base processor, where the response interrupt's handler runs to completion between two of its steps (openvmm sidecar_client)",
  "any-cpu": "another processor, beside the handler",
});

/** What the sidecar kernel copies from the register page when an intercept ends a run. */
export const SIDECAR_SYNC = policy("sidecar.sync", "What the sidecar kernel copies from the register page", {
  "none": "nothing (openvmm openhcl/sidecar run_vp_once)",
  "sync-page":
    "GPRs except slot 4 and XMM0-5, when the page is mapped and is_valid is set (openvmm 3360, after its review)",
  "sync-page-with-slot-4": "the same with slot 4, which is RSP in the page and CR2 in the context (openvmm 3360)",
  "sync-page-ungated": "GPRs except slot 4 and XMM0-5, without a look at is_valid (openvmm 3360)",
});

/** What becomes of the interrupt that starts a command. */
export const SIDECAR_START_IPI = policy("sidecar.start-ipi", "Whether the start interrupt outlives the park", {
  "absorbed": "it is taken before the first VTL return (the model; no source says what happens in between)",
  "pending":
    "a processor that saw RUN before it came returns to VTL0 with it pending, and is sent back at once (what openvmm openhcl/sidecar park_until leaves possible)",
});

/** Whether a sidecar processor becomes a Linux one. */
export const SIDECAR_HOTPLUG = policy(
  "sidecar.hotplug",
  "Whether a processor leaves the sidecar after its first exit",
  {
    "on": "it is converted to a Linux processor after the first exit that was handled (openvmm underhill_core)",
    "off": "it stays (openvmm underhill_core, no_sidecar_hotplug)",
  },
);
