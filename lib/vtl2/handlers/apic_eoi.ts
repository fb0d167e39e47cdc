/**
 * APIC EOI intercepts (openvmm: openhcl/virt_mshv_vtl, processor/mshv/x64.rs handle_eoi).
 *
 * @module
 */
import { HvX64ApicEoiMessage } from "../../layout/hyperv/messages.ts";
import { PAYLOAD } from "../context.ts";
import { HANDLED, type HandlerResult, type VmmVp } from "../vmm_vp.ts";

const VECTOR = PAYLOAD + HvX64ApicEoiMessage.at.interrupt_vector;

/** Passes the vector to the I/O APIC. The guest's instruction has completed: RIP stays. */
export function handleApicEoi(vp: VmmVp): HandlerResult {
  vp.partition.endOfInterrupt(vp.memory.u32[(vp.message + VECTOR) >>> 2]);
  return HANDLED;
}
