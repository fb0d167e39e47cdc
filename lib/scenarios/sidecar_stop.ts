/**
 * The scenario `sidecar-stop`: asking a run to stop while it is picked up, runs, is intercepted or completes.
 *
 * @module
 */
import { driverSystem, protocolProperties } from "./driver_system.ts";
import type { Scenario } from "./scenario.ts";

const PROPERTIES = [
  "page-ownership",
  "no-fabricated-completion",
  "exactly-once",
  "no-vmm-crash",
  "no-lost-wakeup",
  "no-deadlock",
  "no-livelock",
];

/** Stops at any time, and the start interrupt. */
export const sidecarStop: Scenario = {
  name: "sidecar-stop",
  summary: "stopping a run while it is picked up, runs, is intercepted or completes; and the start interrupt",
  shows: [
    "The VMM runs a sidecar processor several times. At any step another thread may ask for a stop (stop=thread), or the " +
    "thread that waits for the run cancels it (stop=cancel). VTL0 leaves by itself after each run, or only ever by a stop " +
    "(stop=needed).",
    "The interrupt that starts a command may still be pending at the first VTL return (sidecar.start-ipi); the one that " +
    "follows a stop always may.",
  ],
  source: "openvmm openhcl/sidecar park_until and run_vp; OHCL-Linux-Kernel drivers/hv/mshv_vtl_sidecar.c",
  policies: [{ policy: "sidecar.start-ipi", values: ["absorbed", "pending"] }],
  options: [
    {
      name: "stop",
      meaning:
        "who asks for a stop: another thread once, the waiting thread at any time, the same where a run ends only so, nobody",
      values: ["thread", "cancel", "needed", "none"],
      default: "thread",
    },
    { name: "vps", meaning: "sidecar processors, of which the first is stopped", values: ["1", "2"], default: "1" },
    { name: "rounds", meaning: "runs of each", values: ["1", "2", "3"], default: "2" },
  ],
  properties: protocolProperties(PROPERTIES),
  memoryModels: ["sc", "tso"],
  bounds: {},
  matrix: {
    parts: [{ stop: "thread" }, { stop: "cancel" }, { stop: "needed" }, { stop: "none" }],
    memoryModels: ["sc", "tso"],
    bounds: {},
  },
  build: (policies, { stop, vps, rounds }, system) =>
    driverSystem({
      name: system,
      policies,
      protocol: {
        vps: Number(vps),
        rounds: Number(rounds),
        stop: stop === "thread" ? [1] : [],
        cancel: stop === "cancel" ? [1] : stop === "needed" ? all(Number(vps)) : [],
        ...(stop === "needed" ? { intercepts: 0 } : {}),
      },
      properties: PROPERTIES,
      stopsAreOptional: stop === "cancel",
    }),
};

/** The numbers of `vps` processors. */
function all(vps: number): number[] {
  return Array.from({ length: vps }, (_, index) => index + 1);
}
