/**
 * From an exit of VTL0 to an intercept in VTL2: the message that says what happened.
 *
 * @module
 */
import {
  CpuState,
  EXIT_CPUID,
  EXIT_EXCEPTION,
  EXIT_HLT,
  EXIT_IN,
  EXIT_IO,
  EXIT_MMIO,
  EXIT_MSR,
  EXIT_SHUTDOWN,
} from "../cpu/state.ts";
import { HvRegisterVsmPartitionConfig } from "../layout/hyperv/registers.ts";
import { pageNumber } from "../memory/machine_memory.ts";
import { step, type StepId } from "../memory/steps.ts";
import { ATTEND, PARKED } from "./guest.ts";
import {
  writeApicEoiMessage,
  writeCpuidMessage,
  writeExceptionMessage,
  writeHaltMessage,
  writeHypercallMessage,
  writeInterruptionDeliverableMessage,
  writeIoPortMessage,
  writeMemoryMessage,
  writeMsrMessage,
  writeSintDeliverableMessage,
  writeUnrecoverableMessage,
} from "./intercept_message.ts";
import type { VirtualProcessor } from "./virtual_processor.ts";
import { EXIT_KIND } from "./vp_state.ts";
import { WRITE_ENTRY_REASON } from "./vtl_entry.ts";

const cpu = CpuState.at;
const UNRECOVERABLE = HvRegisterVsmPartitionConfig.low.intercept_unrecoverable_exception;

/** Writes the message of the exit that the processor has just made. */
export const WRITE_INTERCEPT_MESSAGE: StepId = step<VirtualProcessor>("hypervisor.write-intercept-message", (vp) => {
  const { i32, u8 } = vp.memory;
  const base = vp.cpuState;
  switch (i32[(base + cpu.exit_reason) >>> 2]) {
    case EXIT_IO:
      vp.noteExit(u8[base + cpu.exit_flags] & EXIT_IN ? EXIT_KIND["in"] : EXIT_KIND["out"]);
      writeIoPortMessage(vp);
      break;
    case EXIT_MMIO:
      vp.noteExit(i32[(base + cpu.exit_write) >>> 2] ? EXIT_KIND["mmio-write"] : EXIT_KIND["mmio-read"]);
      writeMemoryMessage(vp, accessedPageExists(vp));
      break;
    case EXIT_CPUID:
      vp.noteExit(EXIT_KIND.cpuid);
      writeCpuidMessage(vp);
      break;
    case EXIT_MSR:
      vp.noteExit(i32[(base + cpu.exit_write) >>> 2] ? EXIT_KIND["wrmsr"] : EXIT_KIND["rdmsr"]);
      writeMsrMessage(vp);
      break;
    case EXIT_EXCEPTION:
      vp.noteExit(EXIT_KIND.exception);
      writeExceptionMessage(vp);
      break;
    case EXIT_HLT:
      vp.noteExit(EXIT_KIND.hlt);
      writeHaltMessage(vp);
      break;
    case EXIT_SHUTDOWN:
      vp.noteExit(EXIT_KIND.unrecoverable);
      if (!vp.partition.vsmConfigured(UNRECOVERABLE)) {
        vp.facilities.tripleFault(vp.index);
        return PARKED;
      }
      forgetInstruction(vp);
      writeUnrecoverableMessage(vp);
      break;
    default:
      throw new RangeError(`Exit reason ${i32[(base + cpu.exit_reason) >>> 2]} has no intercept message`);
  }
  return WRITE_ENTRY_REASON;
});

/** Writes the message of a hypercall that VTL2 handles. */
export const WRITE_HYPERCALL_MESSAGE: StepId = step<VirtualProcessor>("hypervisor.write-hypercall-message", (vp) => {
  writeHypercallMessage(vp);
  return WRITE_ENTRY_REASON;
});

/** Writes the message that says which interruption, or which SINTs, can now be delivered. */
export const WRITE_DELIVERABLE_MESSAGE: StepId = step<VirtualProcessor>(
  "hypervisor.write-deliverable-message",
  (vp) => {
    const sints = vp.takeDeliverableSints();
    // What was deliverable a step ago may have been delivered by another processor meanwhile.
    if (sints === 0 && !vp.interruptionDeliverable) return ATTEND;
    vp.noteExit(EXIT_KIND.deliverable);
    forgetInstruction(vp);
    if (sints !== 0) writeSintDeliverableMessage(vp, sints);
    else writeInterruptionDeliverableMessage(vp, vp.takeDeliverableInterruption());
    return WRITE_ENTRY_REASON;
  },
);

/** Writes the message of a level-triggered interrupt's EOI. */
export const WRITE_APIC_EOI_MESSAGE: StepId = step<VirtualProcessor>("hypervisor.write-apic-eoi-message", (vp) => {
  vp.noteExit(EXIT_KIND["apic-eoi"]);
  writeApicEoiMessage(vp, vp.takeEoi());
  return WRITE_ENTRY_REASON;
});

/** No instruction was intercepted: the length of an earlier one is not the message's. */
function forgetInstruction(vp: VirtualProcessor): void {
  vp.memory.i32[(vp.cpuState + cpu.exit_length) >>> 2] = 0;
}

/** Whether the page of a memory exit exists, so that VTL0 was denied it, rather than that nothing is there. */
function accessedPageExists(vp: VirtualProcessor): boolean {
  const { u32 } = vp.memory;
  const at = (vp.cpuState + cpu.exit_gpa) >>> 2;
  return pageNumber(u32[at], u32[at + 1]) < vp.partition.pages;
}
