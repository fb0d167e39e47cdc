/**
 * The VP assist page: the page that the hypervisor and a virtual processor's VTL share for VTL switches (Hyper-V
 * TLFS, "Virtual Secure Mode" and "VP assist page"; openvmm `vm/hv1/hvdef`).
 *
 * A VTL enables its own page with register VpAssistPage or MSR 40000073. At an entry by intercept the hypervisor
 * writes the message first and the entry reason after it.
 *
 * @module
 */

import { array, bytes, u16, u32, u64, u8 } from "../field_type.ts";
import { reserved, structure } from "../structure.ts";
import { HvVtlEntryReason } from "./constants/messages.ts";
import { HvMessage } from "./messages.ts";

/** The part of the VP assist page that a VTL entry and a VTL return use. */
export const HvVpVtlControl = structure("HvVpVtlControl", 0x18, [
  [
    "entry_reason",
    0x00,
    HvVtlEntryReason.u32,
    "Why this VTL was entered; written only when the VTL was not runnable before",
  ],
  ["vina_status", 0x04, u8, "Bit 0: an interrupt of a lower VTL waits for this VTL to return"],
  reserved(0x05, 1),
  reserved(0x06, 2),
  [
    "registers",
    0x08,
    array(u64, 2, ["rax", "rcx"]),
    "RAX and RCX that a normal VTL return loads for the lower VTL; the hypervisor never writes them",
  ],
], "openvmm: vm/hv1/hvdef HvVpVtlControl");

/** A VTL return action: signal an event on the way out. */
export const HvVpAssistPageActionSignalEvent = structure("HvVpAssistPageActionSignalEvent", 0x10, [
  ["action_type", 0x00, u64, "1 for this action; 0 ends the list"],
  ["target_vp", 0x08, u32, "Index of the virtual processor to signal"],
  ["target_vtl", 0x0c, u8, "VTL to signal"],
  ["target_sint", 0x0d, u8, "Synthetic interrupt source"],
  ["flag_number", 0x0e, u16, "Event flag to set"],
], "openvmm: vm/hv1/hvdef HvVpAssistPageActionSignalEvent");

/** The VP assist page; the rest of the 4096 bytes is not declared. */
export const HvVpAssistPage = structure("HvVpAssistPage", 0x270, [
  ["apic_assist", 0x000, u32, "Bit 0: the current interrupt needs no EOI write"],
  reserved(0x004, 4),
  ["vtl_control", 0x008, HvVpVtlControl, "VTL entry reason and the registers of a VTL return"],
  ["nested_enlightenments_control", 0x020, u64, "Enlightenments of a nested hypervisor"],
  ["enlighten_vm_entry", 0x028, u8, "A nested hypervisor uses the enlightened VMCS"],
  reserved(0x029, 7),
  ["current_nested_vmcs", 0x030, u64, "Guest-physical address of the enlightened VMCS"],
  ["synthetic_time_unhalted_timer_expired", 0x038, u8, "The time-unhalted timer has expired"],
  reserved(0x039, 7),
  ["virtualization_fault_information", 0x040, bytes(40), "Details of a virtualization fault"],
  reserved(0x068, 8),
  [
    "intercept_message",
    0x070,
    HvMessage,
    "Copy of the intercept's message, when VTL2 asked for it (VsmPartitionConfig.intercept_page)",
  ],
  [
    "vtl_return_actions",
    0x170,
    array(HvVpAssistPageActionSignalEvent, 16),
    "Actions for the hypervisor to take at the next VTL return; it clears them",
  ],
], "openvmm: vm/hv1/hvdef HvVpAssistPage");
