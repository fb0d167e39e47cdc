/**
 * Pending events: what VTL2 asks the hypervisor to deliver to the lower VTL at the next entry, in registers
 * PendingEvent0 and PendingEvent1 (openvmm `vm/hv1/hvdef`).
 *
 * @module
 */

import { bits } from "../bits.ts";
import { u128, u64, u8 } from "../field_type.ts";
import { openEnum } from "../open_enum.ts";
import { reserved, structure } from "../structure.ts";
import { HvInterceptAccessType } from "./constants/messages.ts";

/** Kind of a pending event, bits 3:1 of PendingEvent0. */
export const HvX64PendingEventType = openEnum("HvX64PendingEventType", {
  EXCEPTION: 0,
  MEMORY_INTERCEPT: 1,
  NESTED_MEMORY_INTERCEPT: 2,
  VIRTUALIZATION_FAULT: 3,
  HYPERCALL_OUTPUT: 4,
  EXT_INT: 5,
  SHADOW_IPT: 6,
});

/** An exception to be raised in the lower VTL. */
export const HvX64PendingExceptionEvent = bits("HvX64PendingExceptionEvent", u128, [
  [0, 1, "event_pending", "The event waits for delivery"],
  [1, 3, "event_type", "Which event this is, a HvX64PendingEventType"],
  [8, 1, "deliver_error_code", "Delivery pushes error_code"],
  [16, 16, "vector", "Exception vector"],
  [32, 32, "error_code", "Error code to push"],
  [64, 64, "exception_parameter", "CR2 of a page fault, DR6 bits of a debug exception"],
], "openvmm: vm/hv1/hvdef HvX64PendingExceptionEvent");

/** A virtualization fault to be raised in the lower VTL. */
export const HvX64PendingVirtualizationFaultEvent = bits("HvX64PendingVirtualizationFaultEvent", u128, [
  [0, 1, "event_pending", "The event waits for delivery"],
  [1, 3, "event_type", "Which event this is, a HvX64PendingEventType"],
  [16, 16, "parameter0", "First parameter"],
  [32, 32, "code", "Fault code"],
  [64, 64, "parameter1", "Second parameter"],
], "openvmm: vm/hv1/hvdef HvX64PendingVirtualizationFaultEvent");

/** First byte of a pending memory intercept. */
export const HvX64PendingEventMemoryInterceptPendingEventHeader = bits(
  "HvX64PendingEventMemoryInterceptPendingEventHeader",
  u8,
  [
    [0, 1, "event_pending", "The event waits for delivery"],
    [1, 3, "event_type", "Which event this is, a HvX64PendingEventType"],
  ],
  "openvmm: vm/hv1/hvdef HvX64PendingEventMemoryInterceptPendingEventHeader",
);

/** How the intercepted access came about. */
export const HvX64PendingEventMemoryInterceptAccessFlags = bits("HvX64PendingEventMemoryInterceptAccessFlags", u8, [
  [0, 1, "guest_linear_address_valid", "guest_linear_address is known"],
  [1, 1, "caused_by_gpa_access", "The access was by guest-physical address"],
], "openvmm: vm/hv1/hvdef HvX64PendingEventMemoryInterceptAccessFlags");

/** A memory intercept to be delivered to a VTL, over both registers. */
export const HvX64PendingEventMemoryIntercept = structure("HvX64PendingEventMemoryIntercept", 0x20, [
  ["event_header", 0x00, HvX64PendingEventMemoryInterceptPendingEventHeader, "Pending bit and type"],
  ["target_vtl", 0x01, u8, "VTL that is to handle it"],
  ["access_type", 0x02, HvInterceptAccessType.u8, "Read, write or execute"],
  ["access_flags", 0x03, HvX64PendingEventMemoryInterceptAccessFlags, "Which of the addresses count"],
  reserved(0x04, 4),
  ["guest_linear_address", 0x08, u64, "Linear address of the access"],
  ["guest_physical_address", 0x10, u64, "Guest-physical address of the access"],
  reserved(0x18, 8),
], "openvmm: vm/hv1/hvdef HvX64PendingEventMemoryIntercept");

/** Output of a hypercall that could not be written yet. */
export const HvX64PendingHypercallOutputEvent = bits("HvX64PendingHypercallOutputEvent", u128, [
  [0, 1, "event_pending", "The event waits for delivery"],
  [1, 3, "event_type", "Which event this is, a HvX64PendingEventType"],
  [8, 1, "retired", "The hypercall instruction is complete"],
  [32, 32, "output_size", "Bytes of output"],
  [64, 64, "output_gpa", "Guest-physical address of the output"],
], "openvmm: vm/hv1/hvdef HvX64PendingHypercallOutputEvent");

/** An interrupt of the 8259 to be delivered. */
export const HvX64PendingExtIntEvent = bits("HvX64PendingExtIntEvent", u128, [
  [0, 1, "event_pending", "The event waits for delivery"],
  [1, 3, "event_type", "Which event this is, a HvX64PendingEventType"],
  [8, 8, "vector", "Vector that the PIC gave"],
], "openvmm: vm/hv1/hvdef HvX64PendingExtIntEvent");

/** Processor-trace output that waits. */
export const HvX64PendingShadowIptEvent = bits("HvX64PendingShadowIptEvent", u128, [
  [0, 1, "event_pending", "The event waits for delivery"],
  [1, 4, "event_type", "Which event this is, a HvX64PendingEventType"],
], "openvmm: vm/hv1/hvdef HvX64PendingShadowIptEvent");

/** PendingEvent0, whatever the event is. */
export const HvX64PendingEventReg0 = bits("HvX64PendingEventReg0", u128, [
  [0, 1, "event_pending", "The event waits for delivery"],
  [1, 3, "event_type", "Which event this is, a HvX64PendingEventType"],
  [8, 120, "data", "Rest, as the type says"],
], "openvmm: vm/hv1/hvdef HvX64PendingEventReg0");

/** Both pending-event registers together. */
export const HvX64PendingEvent = structure("HvX64PendingEvent", 0x20, [
  ["reg_0", 0x00, HvX64PendingEventReg0, "PendingEvent0"],
  ["reg_1", 0x10, u128, "PendingEvent1"],
], "openvmm: vm/hv1/hvdef HvX64PendingEvent");
