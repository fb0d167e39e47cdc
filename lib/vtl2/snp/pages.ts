/**
 * The pages that OpenHCL keeps for each processor of an SNP guest, private to VMPL0, and its own state in them.
 *
 * @module
 */
import { bytes, i32, u32, u64 } from "../../layout/field_type.ts";
import { HvMessage } from "../../layout/hyperv/messages.ts";
import { reserved, structure } from "../../layout/structure.ts";
import { PAGE_SIZE } from "../../memory/machine_memory.ts";
import { VmmVpState } from "../vmm_state.ts";
import { CrashCopyState } from "./crash_copy.ts";

/** The pages of one processor, in order. */
export const SNP_PAGES = {
  /** Run page (`hcl_run`): the host's message and, for the instruction emulator, the registers that it works on. */
  RUN: 0,
  /** {@linkcode SnpVmmState}, then the instruction emulator's processor state. */
  STATE: 1,
  /** What the VMM keeps for the VP (`VmmVpState`), as many pages as that takes. */
  VMM: 2,
} as const;

/** Pages that each processor takes. */
export const SNP_PAGES_PER_VP: number = SNP_PAGES.VMM + Math.ceil(VmmVpState.size / PAGE_SIZE);
/** Offset of the instruction emulator's processor state in the page {@linkcode SNP_PAGES}.STATE. */
export const EMULATOR_STATE_OFFSET = 0x400;

/** What the run loop remembers of a processor. */
export const SnpVmmState = structure("SnpVmmState", 0x200, [
  ["vtl", 0x00, u32, "VTL that runs next: 0 or 1"],
  ["has_message", 0x04, u32, "1 while the host's message of the last exit has not been handled"],
  ["offered", 0x08, i32, "Vector of the virtual interrupt that the VMSA was entered with; -1 for none"],
  ["waited", 0x0c, u32, "1 while the processor has not been started since its INIT"],
  ["guest_busy", 0x10, u32, "Exits that found the VMSA busy: in the middle of an event's delivery"],
  ["interrupts", 0x14, u32, "Virtual interrupts that the processor has delivered"],
  ["spurious", 0x18, u32, "Nested page faults that needed nothing"],
  ["ignored", 0x1c, u32, "Automatic exits and messages that needed nothing"],
  ["exits", 0x20, u32, "Runs of a lower VTL, modulo 2^32"],
  ["told_crashes", 0x24, u32, "Crashes of the guest for which the VMSA has been copied, or need not be"],
  ["entered", 0x28, u32, "VTL that was run last"],
  ["vtl1_enabled", 0x2c, u32, "1 once VTL1 of this processor has been enabled (shared)"],
  ["partition_vtl1", 0x30, u32, "Of VP 0 only: 1 once VTL1 of the partition has been enabled (shared)"],
  reserved(0x34, 4),
  ["vtl1_assist_page", 0x38, u64, "VTL1's assist page MSR: bit 0 enable, address in bits 63:12"],
  ["crash_copy", 0x40, CrashCopyState, "What is kept about copies of the VMSA"],
  ["psc_next", 0x60, u32, "Element of the change of pages under way"],
  ["psc_end", 0x64, u32, "Elements of it; 0 when none is under way"],
  ["psc_lock", 0x68, u32, "Of VP 0 only: 1 while a processor changes pages (shared)"],
  reserved(0x6c, 0x14),
  ["emulated_message", 0x80, bytes(HvMessage.size), "What the instruction emulator is given in place of a message"],
  reserved(0x180, 0x80),
], "The VMM's own memory; not a structure of OpenHCL");
