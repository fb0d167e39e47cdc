/**
 * The register page: a virtual processor's VTL0 registers where VTL2 reads and writes them without a hypercall
 * (openvmm `vm/hv1/hvdef` HvX64RegisterPage).
 *
 * While the processor runs a lower VTL the page belongs to the hypervisor, while it runs VTL2 it belongs to VTL2. Its
 * slot 4 of the general-purpose registers is RSP; in `CpuContextX64` slot 4 is CR2.
 *
 * @module
 */

import { bits } from "../bits.ts";
import { array, u128, u16, u32, u64, u8 } from "../field_type.ts";
import { reserved, structure } from "../structure.ts";
import { GPR_NAMES, SEGMENT_NAMES, XMM_LOW_NAMES } from "../x64/names.ts";
import {
  HvInstructionEmulatorHintsRegister,
  HvX64InterruptStateRegister,
  HvX64PendingInterruptionRegister,
} from "./registers.ts";
import { HvX64SegmentRegister } from "./segments.ts";

/** Which groups of registers VTL2 has changed in the page and the hypervisor must load. */
export const HvX64RegisterPageDirtyFlags = bits("HvX64RegisterPageDirtyFlags", u32, [
  [0, 1, "general_purpose", "gp_registers"],
  [1, 1, "instruction_pointer", "rip"],
  [2, 1, "xmm", "xmm"],
  [3, 1, "segments", "segment"],
  [4, 1, "flags", "rflags"],
], "openvmm: vm/hv1/hvdef HvX64RegisterPageDirtyFlags");

/** The register page. */
export const HvX64RegisterPage = structure("HvX64RegisterPage", 0x1000, [
  ["version", 0x000, u16, "1 in the C headers; no VMM looks at it"],
  ["is_valid", 0x002, u8, "Not 0 when VTL2 was entered for an intercept; 0 means that the page must not be used"],
  ["vtl", 0x003, u8, "VTL that was interrupted"],
  ["dirty", 0x004, HvX64RegisterPageDirtyFlags, "Groups that were written by VTL2"],
  ["gp_registers", 0x008, array(u64, 16, GPR_NAMES), "General-purpose registers in instruction-encoding order", {
    dirty: "general_purpose",
  }],
  ["rip", 0x088, u64, "Instruction pointer", { dirty: "instruction_pointer" }],
  ["rflags", 0x090, u64, "Flags", { dirty: "flags" }],
  reserved(0x098, 8),
  ["xmm", 0x0a0, array(u128, 6, XMM_LOW_NAMES), "The first six XMM registers", { dirty: "xmm" }],
  ["segment", 0x100, array(HvX64SegmentRegister, 6, SEGMENT_NAMES), "Segment registers with their hidden parts", {
    dirty: "segments",
  }],
  ["cr0", 0x160, u64, "Control register 0", { access: "read-only" }],
  ["cr3", 0x168, u64, "Page-table base", { access: "read-only" }],
  ["cr4", 0x170, u64, "Control register 4", { access: "read-only" }],
  ["cr8", 0x178, u64, "Task priority", { access: "read-only" }],
  ["efer", 0x180, u64, "Extended feature enable", { access: "read-only" }],
  ["dr7", 0x188, u64, "Debug control", { access: "read-only" }],
  ["pending_interruption", 0x190, HvX64PendingInterruptionRegister, "Event whose delivery the intercept interrupted", {
    access: "read-only",
  }],
  ["interrupt_state", 0x198, HvX64InterruptStateRegister, "Interrupt shadow and NMI mask", { access: "read-only" }],
  [
    "instruction_emulation_hints",
    0x1a0,
    HvInstructionEmulatorHintsRegister,
    "What an instruction emulator has to respect",
    { access: "read-only" },
  ],
  reserved(0x1a8, 3672),
], "openvmm: vm/hv1/hvdef HvX64RegisterPage");
