/**
 * What the VMM remembers about one virtual processor from one exit to the next, in the shared memory.
 *
 * @module
 */
import { HvX64PendingEvent } from "../layout/hyperv/events.ts";
import { VtlCrashNotification } from "../layout/hyperv/hcl_run.ts";
import { HvMessage } from "../layout/hyperv/messages.ts";
import { HvDeliverabilityNotificationsRegister, HvRegisterValue } from "../layout/hyperv/registers.ts";
import { array, bytes, u32, u64, u8 } from "../layout/field_type.ts";
import { reserved, structure } from "../layout/structure.ts";

/** Crash parameters P0 to P4. */
export const CRASH_PARAMETERS = 5;
/** Most bytes of a guest's crash text that are read (openvmm: virt_mshv_vtl write_crash_msr). */
export const CRASH_TEXT_MAX = 4096;
/** Messages for VTL0 that the VMM holds for one processor. */
export const QUEUED_MESSAGES = 8;
/** Registers that a handler gets or sets in one batch. */
export const REGISTER_SLOTS = 16;

/** The VMM's state of one virtual processor. */
export const VmmVpState = structure("VmmVpState", 0x3b80, [
  ["phase", 0x000, u32, "How far the instruction emulator is with the present exit; 0 between exits"],
  ["queued", 0x004, u32, "Messages in the queue"],
  ["deliverability_current", 0x008, HvDeliverabilityNotificationsRegister, "What the hypervisor was asked to notify"],
  ["deliverability_next", 0x010, HvDeliverabilityNotificationsRegister, "What it is to be asked before the next run"],
  ["crash_parameters", 0x018, array(u64, CRASH_PARAMETERS), "Crash MSRs P0 to P4"],
  ["get_values", 0x040, array(HvRegisterValue, REGISTER_SLOTS), "Registers that a handler asked for"],
  ["set_values", 0x140, array(HvRegisterValue, REGISTER_SLOTS), "Registers that a handler sets"],
  ["event", 0x240, HvX64PendingEvent, "Event that a handler injects"],
  ["crashes", 0x260, u32, "Guest crashes reported so far"],
  ["crash_text_bytes", 0x264, u32, "Bytes of the last crash's text"],
  ["crash_text_missing", 0x268, u32, "1 when the last crash named a text that could not be read"],
  reserved(0x26c, 4),
  ["crash_notification", 0x270, VtlCrashNotification, "Record of the last crash as the host gets it"],
  reserved(0x2b0, 0x50),
  ["crash_text", 0x300, bytes(CRASH_TEXT_MAX), "The last crash's text, UTF-8"],
  ["hypercall_input", 0x1300, bytes(4096), "Input of the guest's hypercall, copied so that the guest cannot change it"],
  ["hypercall_output", 0x2300, bytes(4096), "Output of the guest's hypercall before it is handed over"],
  ["queue_sints", 0x3300, array(u8, QUEUED_MESSAGES), "Synthetic interrupt source of each queued message"],
  reserved(0x3308, 0x78),
  ["queue", 0x3380, array(HvMessage, QUEUED_MESSAGES), "Queued messages, oldest first"],
], "The VMM's own memory; not a structure of OpenHCL");
