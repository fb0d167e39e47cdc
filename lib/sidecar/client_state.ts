/**
 * What the VMM's sidecar client keeps for each sidecar processor (openvmm openhcl/sidecar_client).
 *
 * @module
 */
import { u32 } from "../layout/field_type.ts";
import { openEnum } from "../layout/open_enum.ts";
import { reserved, structure } from "../layout/structure.ts";

/** Whether a run of the processor is under way. */
export const ClientRunState = openEnum("ClientRunState", {
  STOPPED: 0,
  RUNNING: 1,
  FINISHED: 2,
});

/** The client's state of one processor. */
export const SidecarClientState = structure("SidecarClientState", 64, [
  [
    "run_state",
    0,
    ClientRunState.u32,
    "STOPPED, RUNNING while a run is under way, FINISHED until its caller has seen it",
  ],
  ["in_use", 4, u32, "1 while somebody holds the processor's only handle"],
  ["panicked", 8, u32, "1 after a completion that nobody waited for"],
  ["runs", 12, u32, "Runs begun, modulo 2^32"],
  ["commands", 16, u32, "Other commands, modulo 2^32"],
  ["cancels", 20, u32, "Runs that were asked to stop, modulo 2^32"],
  ["stop_requested", 24, u32, "1 while the VMM wants the run under way to stop, where nothing else says so"],
  ["requests", 28, u32, "Request interrupts that the driver has sent to the processor, modulo 2^32"],
  reserved(32, 32),
], "openvmm: openhcl/sidecar_client, in the model's own layout");
