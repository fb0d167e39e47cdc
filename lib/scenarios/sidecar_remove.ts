/**
 * The scenario `sidecar-remove`: taking a processor out of the sidecar so that Linux can start it (OHCL-Linux-Kernel 82,
 * 83).
 *
 * @module
 */
import { driverSystem, protocolProperties } from "./driver_system.ts";
import type { Scenario } from "./scenario.ts";

const PROPERTIES = [
  "no-early-start",
  "page-ownership",
  "no-fabricated-completion",
  "exactly-once",
  "no-vmm-crash",
  "no-lost-wakeup",
  "no-deadlock",
  "no-livelock",
];

/** Linux brings a sidecar processor online at any time. */
export const sidecarRemove: Scenario = {
  name: "sidecar-remove",
  summary: "what bringing a processor online waits for: a slow processor starts too early, a fast one never",
  shows: [
    "Linux brings a sidecar processor online while the VMM may run it. The driver's prepare hook claims the processor, asks " +
    "it to leave the sidecar and waits for its status. The first version waits for REMOVE, the value that it has just " +
    "written itself: with a slow processor the wait is over at once and Linux starts a processor that is still in the " +
    "sidecar; with a fast one the status is REMOVED by then, and the wait never ends.",
  ],
  source: "OHCL-Linux-Kernel drivers/hv/mshv_vtl_sidecar.c, pull requests 82 and 83",
  policies: [{ policy: "driver.remove-wait", values: ["until-removed", "until-remove"] }],
  options: [
    { name: "vps", meaning: "sidecar processors, of which the first leaves", values: ["1", "2"], default: "1" },
    { name: "rounds", meaning: "runs of each beside the removal", values: ["0", "1", "2"], default: "0" },
  ],
  properties: protocolProperties(PROPERTIES),
  memoryModels: ["sc", "tso"],
  bounds: {},
  matrix: { parts: [{ rounds: "0" }, { rounds: "1" }, { rounds: "2" }], memoryModels: ["sc", "tso"], bounds: {} },
  build: (policies, options, system) =>
    driverSystem({
      name: system,
      policies,
      protocol: { vps: Number(options.vps), rounds: Number(options.rounds), remove: [1] },
      properties: PROPERTIES,
    }),
};
