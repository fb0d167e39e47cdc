/**
 * Ending a run of a sidecar processor early: ioctl STOP (OHCL-Linux-Kernel drivers/hv/mshv_vtl_sidecar.c).
 *
 * @module
 */
import { SidecarDriverVpState } from "../../layout/hyperv/constants/sidecar.ts";
import { CpuStatus } from "../../layout/hyperv/sidecar.ts";
import { step, type StepId } from "../../memory/steps.ts";
import { type DriverThread, ERRNO, WARNING } from "./thread.ts";

const { ASYNC, ASYNC_STOPPING, ASYNC_STOPPED } = SidecarDriverVpState.values;
const { IDLE, RUN, STOP } = CpuStatus.values;

/** Ioctl STOP of the processor in `DRIVER_LOCAL.SLOT`. The result is 0, EINVAL without a run to stop, or EIO. */
export const DRIVER_STOP: StepId = step<DriverThread>("driver.stop.mark-stopping", (thread) => {
  const found = thread.port.compareExchange8(thread.vpState, ASYNC, ASYNC_STOPPING);
  if (found === ASYNC) return STOP_LOAD_STATUS;
  return thread.finish(found === ASYNC_STOPPED || found === ASYNC_STOPPING ? 0 : ERRNO.EINVAL);
});

const STOP_LOAD_STATUS: StepId = step<DriverThread>("driver.stop.load-status", (thread) => {
  const status = thread.port.load8(thread.status);
  return status === RUN ? STOP_SET_STOP : leave(thread, status);
});

const STOP_SET_STOP: StepId = step<DriverThread>("driver.stop.set-stop", (thread) => {
  const found = thread.port.compareExchange8(thread.status, RUN, STOP);
  return found === RUN ? STOP_SEND_IPI : leave(thread, found);
});

const STOP_SEND_IPI: StepId = step<DriverThread>("driver.stop.send-ipi", (thread) => {
  thread.node.sendRequest(thread.port, thread.slot);
  return thread.finish(0);
});

/** There was nothing to stop: fine when the run had just ended. */
function leave(thread: DriverThread, status: number): StepId {
  if (status === IDLE) return thread.finish(0);
  thread.warn(WARNING.STOP);
  return thread.finish(ERRNO.EIO);
}
