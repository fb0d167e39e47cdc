/**
 * Events that VTL2 has asked the hypervisor to deliver to VTL0: registers PendingEvent0 and PendingEvent1
 * (`lib/layout/hyperv/events.ts`), applied at the next entry of VTL0.
 *
 * @module
 */
import {
  CpuState,
  EVENT_HAS_ERROR,
  EVENT_TYPE_EXCEPTION,
  EVENT_TYPE_INTERRUPT,
  EVENT_TYPE_SHIFT,
  EVENT_VALID,
} from "../cpu/state.ts";
import { VECTOR_DB, VECTOR_PF } from "../cpu/faults.ts";
import { HvX64PendingEventType, HvX64PendingExceptionEvent, HvX64PendingExtIntEvent } from "../layout/hyperv/events.ts";
import type { VirtualProcessor } from "./virtual_processor.ts";
import { HypervisorVpState } from "./vp_state.ts";

const cpu = CpuState.at;
const state = HypervisorVpState.at;
const PENDING = HvX64PendingExceptionEvent.low.event_pending;

/** Turns VTL0's pending event, if there is one, into the event that the processor delivers first. */
export function deliverPendingEvents(vp: VirtualProcessor): void {
  const { i32, u64 } = vp.memory;
  const at = vp.state + state.pending_event0;
  if ((i32[at >>> 2] & PENDING) === 0) return;
  const event = u64[at >>> 3];
  const base = vp.cpuState;
  const type = HvX64PendingExceptionEvent.get(event, "event_type");
  if (type === HvX64PendingEventType.values.EXCEPTION) {
    const vector = HvX64PendingExceptionEvent.get(event, "vector") & 0xff;
    const hasError = HvX64PendingExceptionEvent.get(event, "deliver_error_code") !== 0;
    i32[(base + cpu.event) >>> 2] = EVENT_VALID | EVENT_TYPE_EXCEPTION << EVENT_TYPE_SHIFT |
      (hasError ? EVENT_HAS_ERROR : 0) | vector;
    i32[(base + cpu.event_error) >>> 2] = HvX64PendingExceptionEvent.get(event, "error_code");
    if (vector === VECTOR_PF) u64[(base + cpu.event_cr2) >>> 3] = u64[(at >>> 3) + 1];
    if (vector === VECTOR_DB) u64[(base + cpu.dr6) >>> 3] |= u64[(at >>> 3) + 1];
  } else if (type === HvX64PendingEventType.values.EXT_INT) {
    const vector = HvX64PendingExtIntEvent.get(event, "vector");
    i32[(base + cpu.event) >>> 2] = EVENT_VALID | EVENT_TYPE_INTERRUPT << EVENT_TYPE_SHIFT | vector;
  }
  u64.fill(0n, at >>> 3, (at >>> 3) + 2);
  u64.fill(0n, (vp.state + state.pending_event1) >>> 3, ((vp.state + state.pending_event1) >>> 3) + 2);
}
