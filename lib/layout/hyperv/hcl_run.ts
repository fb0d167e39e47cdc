/**
 * What OpenHCL's kernel and VMM share: the run page of each processor and the arguments of the VTL device's requests
 * (openvmm `openhcl/hcl` protocol), and the record of a guest crash that the VMM sends to the host.
 *
 * @module
 */

import { bits } from "../bits.ts";
import { array, i32, u16, u32, u64, u8 } from "../field_type.ts";
import { openEnum } from "../open_enum.ts";
import { reserved, structure } from "../structure.ts";
import { Fxsave } from "../x64/fxsave.ts";
import { CONTEXT_GPR_NAMES } from "../x64/names.ts";
import { HvInputVtl, HypercallInputControl, HypercallOutput } from "./hypercalls.ts";
import { HvMessage } from "./messages.ts";

/** Registers that Linux loads before and stores after running a lower VTL. */
export const hcl_cpu_context_x64 = structure("hcl_cpu_context_x64", 0x400, [
  [
    "gps_no_rsp",
    0x000,
    array(u64, 16, CONTEXT_GPR_NAMES),
    "General-purpose registers; slot 4 is CR2, because RSP is private to each VTL",
  ],
  ["fx_state", 0x080, Fxsave, "x87, MXCSR and XMM registers"],
  reserved(0x280, 384),
], "openvmm: openhcl/hcl/src/protocol.rs hcl_cpu_context_x64");

/** A VTL return action in the run page: signal an event on the way out. */
export const hv_vp_assist_page_signal_event = structure("hv_vp_assist_page_signal_event", 0x10, [
  ["action_type", 0x00, u64, "1 for this action; 0 ends the list"],
  ["vp", 0x08, u32, "Index of the virtual processor to signal"],
  ["vtl", 0x0c, u8, "VTL to signal"],
  ["sint", 0x0d, u8, "Synthetic interrupt source"],
  ["flag", 0x0e, u16, "Event flag to set"],
], "openvmm: openhcl/hcl/src/protocol.rs hv_vp_assist_page_signal_event");

/** Interrupt work that the kernel does for the VMM. */
export const hcl_intr_offload_flags = bits("hcl_intr_offload_flags", u8, [
  [0, 1, "offload_intr_inject", "The kernel injects interrupts"],
  [1, 1, "offload_x2apic", "The kernel handles x2APIC accesses"],
  [5, 1, "halted_other", "The lower VTL is halted for another reason"],
  [6, 1, "halted_hlt", "The lower VTL has executed HLT"],
  [7, 1, "halted_idle", "The lower VTL has read the guest-idle MSR"],
], "openvmm: openhcl/hcl/src/protocol.rs hcl_intr_offload_flags");

/** How the kernel enters a lower VTL. */
export const EnterMode = openEnum("EnterMode", {
  FAST: 0,
  PLAY_IDLE: 1,
  IDLE_TO_VTL0: 2,
});

/** How the kernel enters the lower VTL. */
export const EnterModes = bits("EnterModes", u8, [
  [0, 4, "first", "Mode of the first entry", EnterMode],
  [4, 4, "second", "Mode of the following ones", EnterMode],
], "openvmm: openhcl/hcl/src/protocol.rs EnterModes");

/** The run page: one for each processor that Linux runs. */
export const hcl_run = structure("hcl_run", 0x674, [
  ["cancel", 0x000, u32, "Set by anyone to keep the processor from entering, or to make it leave, the lower VTL"],
  ["vtl_ret_action_size", 0x004, u32, "Bytes of VTL return actions that count"],
  ["flags", 0x008, u32, "Bit 0: halted, do not enter the lower VTL but wait"],
  ["scan_proxy_irr", 0x00c, u8, "Not 0 when proxy_irr has news"],
  ["offload_flags", 0x00d, hcl_intr_offload_flags, "Interrupt work that the kernel does"],
  reserved(0x00e, 1),
  ["mode", 0x00f, EnterModes, "How to enter"],
  ["exit_message", 0x010, HvMessage, "Message of the last intercept"],
  ["context", 0x110, hcl_cpu_context_x64, "Shared registers of the lower VTL, on partitions without isolation"],
  ["vtl_ret_actions", 0x510, array(hv_vp_assist_page_signal_event, 16), "Actions for the next VTL return"],
  ["proxy_irr", 0x610, array(u32, 8), "Device vectors that wait for the lower VTL, one bit each"],
  ["target_vtl", 0x630, HvInputVtl, "VTL to enter"],
  reserved(0x631, 3),
  ["proxy_irr_blocked", 0x634, array(u32, 8), "Vectors that the kernel may not deliver itself"],
  ["proxy_irr_exit", 0x654, array(u32, 8), "Vectors whose arrival must end the run"],
], "openvmm: openhcl/hcl/src/protocol.rs hcl_run");

/** Argument of the VTL device's hypercall request. */
export const hcl_hvcall = structure("hcl_hvcall", 0x30, [
  ["control", 0x00, HypercallInputControl, "Control word"],
  ["input_size", 0x08, u64, "Bytes of input"],
  ["input_data", 0x10, u64, "User address of the input"],
  ["status", 0x18, HypercallOutput, "Result of the hypercall"],
  ["output_size", 0x20, u64, "Bytes of output"],
  ["output_data", 0x28, u64, "User address of the output"],
], "openvmm: openhcl/hcl/src/protocol.rs hcl_hvcall");

/** Argument of the VTL device's request that lists the allowed hypercalls. */
export const hcl_hvcall_setup = structure("hcl_hvcall_setup", 0x10, [
  ["allow_bitmap_size", 0x00, u64, "Bytes of the bitmap"],
  ["allow_bitmap_ptr", 0x08, u64, "User address of the bitmap"],
], "openvmm: openhcl/hcl/src/protocol.rs hcl_hvcall_setup");

/** Argument of the VTL device's request that lets a processor wait for a file. */
export const hcl_set_poll_file = structure("hcl_set_poll_file", 0x08, [
  ["cpu", 0x00, i32, "Processor"],
  ["fd", 0x04, i32, "File descriptor"],
], "openvmm: openhcl/hcl/src/protocol.rs hcl_set_poll_file");

/** A range of pages, the last one not included. */
export const hcl_pfn_range_t = structure("hcl_pfn_range_t", 0x10, [
  ["start_pfn", 0x00, u64, "First page number"],
  ["last_pfn", 0x08, u64, "Page number behind the last"],
], "openvmm: openhcl/hcl/src/protocol.rs hcl_pfn_range_t");

/** What the VMM tells the host about a guest crash; the message header comes flattened. */
export const VtlCrashNotification = structure("VtlCrashNotification", 0x40, [
  ["header_message_version", 0x00, u8, "Version of the protocol"],
  ["header_message_type", 0x01, u8, "Kind of message"],
  ["header_message_id", 0x02, u16, "Which notification"],
  ["vp_index", 0x04, u32, "Virtual processor that wrote the crash control register"],
  ["last_vtl", 0x08, u8, "VTL that wrote it"],
  reserved(0x09, 1),
  reserved(0x0a, 2),
  reserved(0x0c, 4),
  ["control", 0x10, u64, "Value written, GuestCrashCtl"],
  ["parameters", 0x18, array(u64, 5), "Crash parameters P0 to P4"],
], "openvmm: vm/devices/get/get_protocol");
