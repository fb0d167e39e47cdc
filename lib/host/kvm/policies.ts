/**
 * Questions about KVM's handling of encrypted guests to which people give different answers.
 *
 * @module
 */
import { policy } from "../../memory/policy.ts";

/** How often the host reads a field of the GHCB. */
export const GHCB_READ = policy("host.ghcb-read", "How often the host reads a field of the GHCB during one VMGEXIT", {
  "snapshot": "once, into its own memory, before it is validated (Linux sev_es_sync_from_ghcb)",
  "in-place": "again when it is used, after it was validated (the mistake that the snapshot avoids)",
});
