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
import { EXIT_KIND } from "./vp_state.ts";
import { ENTER_VTL2_CALL } from "./vtl_entry.ts";

const cpu = CpuState.at;

/** Decides what a hypercall instruction does, and does it when it is the hypervisor's. */
export const HYPERCALL: StepId = step<VirtualProcessor>("hypervisor.hypercall", (vp) => {
  vp.noteExit(EXIT_KIND.hypercall);
  switch (guestHypercall(vp.hypercalls)) {
    case "intercept":
      return WRITE_HYPERCALL_MESSAGE;
    case "vtl-call":
      vp.skipInstruction();
      return ENTER_VTL2_CALL;
    case "undefined":
      vp.memory.i32[(vp.cpuState + cpu.event) >>> 2] = EVENT_VALID | EVENT_TYPE_EXCEPTION << EVENT_TYPE_SHIFT |
        VECTOR_UD;
      break;
    case "done":
      vp.skipInstruction();
  }
  vp.observer?.entry(vp);
  return GUEST_RUN;
});
