/**
 * The steps in which a processor's run loop handles an exit, whatever the platform.
 *
 * @module
 */
import type { VirtualProcessor } from "../hypervisor/virtual_processor.ts";
import { HALTED, step, type StepId } from "../memory/steps.ts";
import { BUSY, CRASHED, type HandlerResult, TRIPLE_FAULT } from "./vmm_vp.ts";

/** A processor whose own run loop handles its exits. */
interface HandlingVp extends VirtualProcessor {
  /** Whether a device that was busy can take a value now. */
  readonly deviceReady: () => boolean;
  /** Records a triple fault of a lower VTL. */
  readonly onTripleFault: (vp: VirtualProcessor) => void;
}

/**
 * Declares the step of an exit handler, and the one in which it waits for a device that is busy. The run loop goes on with
 * step `next`.
 */
export function exitHandler<Vp extends HandlingVp>(
  name: string,
  handle: (vp: Vp) => HandlerResult,
  next: StepId,
): StepId {
  const handling: StepId = step<Vp>(name, (vp) => {
    const result = handle(vp);
    if (result === BUSY) return waiting;
    if (result === CRASHED) return HALTED;
    if (result === TRIPLE_FAULT) {
      vp.onTripleFault(vp);
      return HALTED;
    }
    return next;
  });
  const waiting: StepId = step<Vp>(`${name}-busy`, () => handling, (vp) => vp.deviceReady());
  return handling;
}
