/**
 * Questions about KVM's handling of encrypted guests to which people give different answers.
 *
 * @module
 */
import { policy } from "../../memory/policy.ts";

/** Whether a scratch area in the GHCB is copied before it is used. */
export const SCRATCH = policy(
  "host.scratch",
  "How the host uses a scratch area that lies in the GHCB's shared buffer",
  {
    "in-place": "where it is: no snapshot covers it (Linux setup_vmgexit_scratch)",
    "copied":
      "it is copied to the host's memory first, as an area outside the GHCB is, and back when the request is done",
  },
);

/** How often the host reads a field of the GHCB. */
export const GHCB_READ = policy("host.ghcb-read", "How often the host reads a field of the GHCB during one VMGEXIT", {
  "snapshot": "once, into its own memory, before it is validated (Linux sev_es_sync_from_ghcb)",
  "in-place": "again when it is used, after it was validated (the mistake that the snapshot avoids)",
});
