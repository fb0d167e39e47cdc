/**
 * The guest's turn on a processor: it executes until it leaves, and the hypervisor finds out why.
 *
 * @module
 */
import {
  ACTIVITY_HALTED,
  ACTIVITY_RUNNING,
  ACTIVITY_SHUTDOWN,
  CpuState,
  EXIT_HLT,
  EXIT_HYPERCALL,
  EXIT_NONE,
  EXIT_SHUTDOWN,
} from "../cpu/state.ts";
import { HALTED, step, type StepId } from "../memory/steps.ts";
import { ATTENTION } from "./attention.ts";
import type { VirtualProcessor } from "./virtual_processor.ts";
import { EXIT_KIND, HypervisorVpState } from "./vp_state.ts";
import { ENTER_VTL2_INTERRUPT, vtl2InterruptPending } from "./vtl_entry.ts";

const ATTENTION_AT = CpuState.at.attention;

/** The guest executes instructions, until it leaves or its quantum is used up. */
export const GUEST_RUN: StepId = step<VirtualProcessor>("guest.run", (vp) => {
  const reason = vp.cpu.run(vp.runQuantum);
  if (reason === EXIT_NONE) {
    if (vp.getState(EOI_PENDING) !== 0) return vp.steps.apicEoi;
    if ((vp.attention & ~ATTENTION.VTL0_INTERRUPT) !== 0) return ATTEND;
    return vp.activity === ACTIVITY_RUNNING ? GUEST_RUN : PARKED;
  }
  if (reason === EXIT_HLT && !vp.haltIntercept) return HALT;
  if (reason === EXIT_HYPERCALL) return vp.steps.hypercall;
  if (reason === EXIT_SHUTDOWN) vp.activity = ACTIVITY_SHUTDOWN;
  return vp.steps.exit;
});

/** Whether the guest ended a level-triggered interrupt and that has not been reported. */
const EOI_PENDING = HypervisorVpState.at.eoi_pending;

/** HLT: the processor leaves the guest, is behind the instruction, and parks unless an interrupt waits already. */
const HALT: StepId = step<VirtualProcessor>("hypervisor.halt", (vp) => {
  vp.noteExit(EXIT_KIND.hlt);
  vp.observer?.entry(vp);
  vp.skipInstruction();
  vp.activity = ACTIVITY_HALTED;
  return vp.attention !== 0 || vp.canWake ? ATTEND : PARKED;
});

/** Waits, out of the guest, for an interrupt, an NMI, INIT, SIPI or the end. */
export const PARKED: StepId = step<VirtualProcessor>(
  "hypervisor.parked",
  () => ATTEND,
  (vp) => vp.attention !== 0,
);

/** 1 while {@linkcode ATTEND} carries out what it took from the attention word. */
const ATTENDING = HypervisorVpState.at.attending;

/** Takes note of everything that raised the attention word. An interrupt of VTL0 stays noted until it is taken. */
export const ATTEND: StepId = step<VirtualProcessor>("hypervisor.attend", (vp) => {
  // What is no longer in the attention word and not yet carried out: a processor must not look idle meanwhile.
  vp.port.exchange32(vp.state + ATTENDING, 1);
  const bits = vp.port.exchange32(vp.cpuState + ATTENTION_AT, 0);
  if (bits & ATTENTION.SHUTDOWN) return HALTED;
  if (bits & ATTENTION.FLUSH_TLB) vp.cpu.flushCaches();
  if (bits & ATTENTION.INIT) vp.init();
  if (bits & ATTENTION.SIPI) vp.startup(vp.getState(HypervisorVpState.at.sipi_vector));
  if (bits & ATTENTION.NMI) vp.raiseNmi();
  if (vp.activity === ACTIVITY_HALTED && vp.canWake) vp.activity = ACTIVITY_RUNNING;
  if (vp.activity === ACTIVITY_RUNNING) vp.port.or32(vp.cpuState + ATTENTION_AT, ATTENTION.VTL0_INTERRUPT);
  vp.port.exchange32(vp.state + ATTENDING, 0);
  if (vtl2InterruptPending(vp)) return ENTER_VTL2_INTERRUPT;
  if (vp.deliverable) return vp.steps.deliverable;
  return vp.activity === ACTIVITY_RUNNING ? GUEST_RUN : PARKED;
});
