/**
 * The scenario `sidecar-rax`: the assertion of OpenHCL pull request 3360, its explanations and its fixes.
 *
 * @module
 */
import { assemble } from "../guest/assembler/assemble.ts";
import { MACHINE_PROPERTIES, machineProperties } from "./machine_properties.ts";
import { DEVICE_MEMORY, GUEST_ORIGIN, machineSystem } from "./machine_system.ts";
import type { Scenario } from "./scenario.ts";

/** What the guest has in RAX before its first exit. */
const RAX_START = 0x1234;
/** By how much RAX changes between two exits: what the report's values always differed by. */
const RAX_STEP = 0xb0;
/** Addresses of the guest's string buffer and stack, in the memory that its steps may change. */
const BUFFER: number = GUEST_ORIGIN + 0x200;
const STACK: number = GUEST_ORIGIN + 0x300;
/** MXCSR after reset, but rounding up (AMD manual, volume 1, section 4.2.2). */
const MXCSR_ROUND_UP = 0x5f80;
/** Port of the guest's accesses; the environment's device answers at every port. */
const PORT = 0x300;

/** The exits that the guest makes, by the value of the option `exit`: two of them, RAX changing in between. */
export const SIDECAR_RAX_GUESTS: Readonly<Record<string, string>> = {
  out: twice("out dx, al"),
  in: twice("in al, dx"),
  outs: twice("mov esi, BUFFER\n outsb"),
  ins: twice("mov edi, BUFFER\n insb"),
  cpuid: twice("push rax\n mov eax, 0x40000080\n cpuid\n pop rax"),
  msr: twice("mov ecx, 0x40000100\n xor edx, edx\n wrmsr"),
  mmio: twice(`mov ecx, 0x${DEVICE_MEMORY.toString(16)}\n mov [rcx], eax`),
};

/**
 * A program that makes one exit twice. RAX changes in between by 32-bit arithmetic; whatever else VTLs share changes, too,
 * so that a value of the exit before is not taken for the present one.
 */
function twice(exit: string): string {
  return `
    bits 64
    org 0x${GUEST_ORIGIN.toString(16)}
    mov esp, STACK
    mov edx, 0x${PORT.toString(16)}
    mov ebx, 0x11111111
    mov eax, 0x${RAX_START.toString(16)}
    movd xmm0, ebx
    movd xmm6, ebx
    ${exit}
    add eax, 0x${RAX_STEP.toString(16)}
    add ebx, 1
    mov cr2, rbx
    movd xmm0, ebx
    movd xmm6, ebx
    ldmxcsr [rounding]
    ${exit}
    cli
    hlt
    rounding: dd 0x${MXCSR_ROUND_UP.toString(16)}
  `.replaceAll("BUFFER", `0x${BUFFER.toString(16)}`).replaceAll("STACK", `0x${STACK.toString(16)}`);
}

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
    { name: "exit", meaning: "what the guest does twice", values: Object.keys(SIDECAR_RAX_GUESTS), default: "out" },
    { name: "interrupts", meaning: "VTL2 interrupts", values: ["0", "1", "2"], default: "1" },
    { name: "hotplug", meaning: "conversion to a Linux processor", values: ["off", "on"], default: "off" },
  ],
  properties: MACHINE_PROPERTIES,
  memoryModels: ["sc", "tso"],
  bounds: { preemptions: 2 },
  matrix: { parts: [{}], memoryModels: ["sc"], bounds: { preemptions: 2 } },
  build: (policies, options, system) => {
    const setting = {
      platform: options.platform === "kernel" ? "kernel" : "sidecar",
      code: assemble(SIDECAR_RAX_GUESTS[options.exit]).bytes,
      answer: 0x5a,
      interrupts: Number(options.interrupts),
      converts: options.hotplug === "on",
    } as const;
    return machineSystem(system, setting, policies, machineProperties);
  },
};
