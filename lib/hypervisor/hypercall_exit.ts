/**
 * A hypercall instruction of VTL0: the hypervisor carries it out, passes it to VTL2, or switches to VTL2.
 *
 * @module
 */
import { VECTOR_UD } from "../cpu/faults.ts";
import { CpuState, EVENT_TYPE_EXCEPTION, EVENT_TYPE_SHIFT, EVENT_VALID } from "../cpu/state.ts";
import { step, type StepId } from "../memory/steps.ts";
import { GUEST_RUN } from "./guest.ts";
import { guestHypercall } from "./hypercalls/dispatch.ts";
import { WRITE_HYPERCALL_MESSAGE } from "./intercepts.ts";
import type { VirtualProcessor } from "./virtual_processor.ts";
import { ENTER_VTL2_CALL } from "./vtl_entry.ts";

const cpu = CpuState.at;

/** Decides what a hypercall instruction does, and does it when it is the hypervisor's. */
export const HYPERCALL: StepId = step<VirtualProcessor>("hypervisor.hypercall", (vp) => {
  vp.noteExit("hypercall");
  switch (guestHypercall(vp.hypercalls)) {
    case "intercept":
      return WRITE_HYPERCALL_MESSAGE;
    case "vtl-call":
      completeInstruction(vp);
      return ENTER_VTL2_CALL;
    case "undefined":
      vp.memory.i32[(vp.cpuState + cpu.event) >>> 2] = EVENT_VALID | EVENT_TYPE_EXCEPTION << EVENT_TYPE_SHIFT |
        VECTOR_UD;
      break;
    case "done":
      completeInstruction(vp);
  }
  vp.observer?.entry(vp);
  return GUEST_RUN;
});

/** Moves RIP behind the instruction; outside 64-bit code it wraps at 32 bits. */
function completeInstruction(vp: VirtualProcessor): void {
  const { u64, u32, i32 } = vp.memory;
  const rip = (vp.cpuState + cpu.rip) >>> 3;
  const next = u64[rip] + BigInt(u32[(vp.cpuState + cpu.exit_length) >>> 2]);
  u64[rip] = vp.cpu.long64 ? next : next & 0xffff_ffffn;
  i32[(vp.cpuState + cpu.interrupt_shadow) >>> 2] = 0;
}
