/**
 * The scenario `sidecar-rax`: the assertion of OpenHCL pull request 3360, its explanations and its fixes.
 *
 * @module
 */
import { MACHINE_PROPERTIES, machineProperties } from "./machine_properties.ts";
import { machineSystem } from "./machine_system.ts";
import type { Scenario } from "./scenario.ts";
import { GUEST_VARIATIONS, guestCode } from "./sidecar_rax_guests.ts";

const { exits, bits, steps, starts, answers, usualStep, usualAnswer } = GUEST_VARIATIONS;

/** The scenario. */
export const sidecarRax: Scenario = {
  name: "sidecar-rax",
  summary: "the VMM's port handler finds another RAX in the message than in the processor context",
  shows: [
    "A guest on a sidecar processor makes two port exits and changes RAX in between, while VTL2 may be interrupted at any " +
    "step. The VMM's handler asserts that the message's RAX is the saved context's.",
    "Explanations: what a VTL entry leaves in the registers that VTLs share (vtl.entry), and a driver that takes a " +
    "processor for stopped before it has run (driver.publish, driver.rearm, driver.scan). Fixes: the handler takes RAX " +
    "from the message (vmm.io-rax), the sidecar copies registers from the register page (sidecar.sync), the driver's repair.",
  ],
  source: "openvmm pull request 3360; OHCL-Linux-Kernel pull requests 154 and 157",
  policies: [
    { policy: "vtl.entry", values: ["shared-live", "vtl2-restored"] },
    { policy: "driver.publish", values: ["starting-xchg", "claim-then-start"] },
    { policy: "driver.rearm", values: ["yes", "no"] },
    { policy: "driver.scan", values: ["state-then-status", "status-then-state"] },
    { policy: "vmm.io-rax", values: ["assert", "rax-from-message"] },
    { policy: "sidecar.sync", values: ["none", "sync-page", "sync-page-with-slot-4", "sync-page-ungated"] },
    { policy: "register-page", values: ["mapped", "mapped-unpopulated", "unmapped"] },
  ],
  options: [
    { name: "platform", meaning: "who handles exits", values: ["sidecar", "kernel"], default: "sidecar" },
    { name: "exit", meaning: "what the guest does twice", values: exits, default: exits[0] },
    { name: "bits", meaning: "width of the addition to RAX in between", values: bits, default: bits[0] },
    { name: "step", meaning: "what it adds to RAX", values: steps, default: usualStep },
    { name: "start", meaning: "RAX at the first exit", values: starts, default: starts[0] },
    { name: "answer", meaning: "what the device answers", values: answers, default: usualAnswer },
    { name: "interrupts", meaning: "VTL2 interrupts", values: ["0", "1", "2"], default: "1" },
    { name: "hotplug", meaning: "conversion to a Linux processor", values: ["off", "on"], default: "off" },
  ],
  properties: MACHINE_PROPERTIES,
  memoryModels: ["sc", "tso"],
  bounds: { preemptions: 2 },
  matrix: { parts: [{}], memoryModels: ["sc"], bounds: { preemptions: 2 } },
  build: (policies, options, system) => {
    const { exit, bits, step, start, answer, interrupts } = options;
    const setting = {
      platform: options.platform === "kernel" ? "kernel" : "sidecar",
      code: guestCode({ exit, bits, step }, start),
      answer: Number(answer),
      interrupts: Number(interrupts),
      converts: options.hotplug === "on",
    } as const;
    return machineSystem(system, setting, policies, machineProperties);
  },
};
