/**
 * The scenario `sidecar-completion`: how Linux's sidecar driver finds out that a run has ended (OHCL-Linux-Kernel 154, 157).
 *
 * @module
 */
import { driverSystem, protocolProperties } from "./driver_system.ts";
import type { Scenario } from "./scenario.ts";

const PROPERTIES = [
  "no-fabricated-completion",
  "page-ownership",
  "exactly-once",
  "no-vmm-crash",
  "no-lost-wakeup",
  "no-deadlock",
  "no-livelock",
];

/** The driver alone, one to four processors. */
export const sidecarCompletion: Scenario = {
  name: "sidecar-completion",
  summary: "how the sidecar driver finds out that a run has ended: the published races and their repair",
  shows: [
    "A node of one to four sidecar processors without a guest. One VMM thread for each processor starts its runs; the " +
    "client's reader sleeps in the driver, scans for processors that are IDLE again and completes their runs; the response " +
    "interrupt's handler marks that a scan is wanted.",
    "The first version lets a scan take a processor that is claimed but not yet started, or started since the scan looked " +
    "at its status, for one whose run has ended: the VMM then reads the command page of a processor that runs.",
  ],
  source: "OHCL-Linux-Kernel drivers/hv/mshv_vtl_sidecar.c, pull requests 154 and 157",
  policies: [
    { policy: "driver.publish", values: ["starting-xchg", "starting-release", "claim-then-start"] },
    { policy: "driver.rearm", values: ["yes", "no"] },
    { policy: "driver.scan", values: ["state-then-status", "status-then-state"] },
    { policy: "driver.interrupt", values: ["mark-then-clear", "proposed-clear-then-mark"] },
    { policy: "driver.reader", values: ["base-cpu", "any-cpu"] },
  ],
  options: [
    { name: "vps", meaning: "sidecar processors", values: ["1", "2", "3", "4"], default: "2" },
    { name: "rounds", meaning: "runs of each", values: ["1", "2", "3", "4"], default: "1" },
  ],
  properties: protocolProperties(PROPERTIES),
  memoryModels: ["sc", "tso"],
  bounds: {},
  matrix: {
    parts: [{ vps: "1", rounds: "2" }, { vps: "2", rounds: "1" }],
    memoryModels: ["sc", "tso"],
    bounds: {},
  },
  build: (policies, options, system) =>
    driverSystem({
      name: system,
      policies,
      protocol: { vps: Number(options.vps), rounds: Number(options.rounds) },
      properties: PROPERTIES,
    }),
};
