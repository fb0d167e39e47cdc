/**
 * Taking a processor out of the sidecar, so that Linux can start it: the prepare hook of bringing a CPU online
 * (OHCL-Linux-Kernel drivers/hv/mshv_vtl_sidecar.c, pull requests 82 and 83).
 *
 * @module
 */
import { SidecarDriverVpState } from "../../layout/hyperv/constants/sidecar.ts";
import { CpuStatus } from "../../layout/hyperv/sidecar.ts";
import { step, type StepId } from "../../memory/steps.ts";
import { DRIVER_REMOVE_WAIT } from "../policies.ts";
import { claim } from "./start.ts";
import { type DriverThread, WARNING } from "./thread.ts";

/** Removes the processor in `DRIVER_LOCAL.SLOT`. The result is 0, ENOENT or EBUSY. */
export const DRIVER_REMOVE: StepId = step<DriverThread>("driver.remove.claim", (thread) => {
  const error = claim(thread, SidecarDriverVpState.values.REMOVED);
  return error === 0 ? REMOVE_SET_REMOVE : thread.finish(error);
});

const REMOVE_SET_REMOVE: StepId = step<DriverThread>("driver.remove.set-remove", (thread) => {
  const { IDLE, REMOVE } = CpuStatus.values;
  if (thread.port.compareExchange8(thread.status, IDLE, REMOVE) !== IDLE) thread.warn(WARNING.REMOVE);
  return REMOVE_SEND_IPI;
});

const REMOVE_SEND_IPI: StepId = step<DriverThread>("driver.remove.send-ipi", (thread) => {
  thread.node.sendRequest(thread.port, thread.slot);
  return REMOVE_WAIT;
});

/** Sleeps until the status is the one that the policy names. */
const REMOVE_WAIT: StepId = step<DriverThread>(
  "driver.remove.wait-status",
  (thread) => thread.waitFor(isRemoved) ? thread.finish(0) : REMOVE_WAIT,
  (thread) => !thread.asleep,
);

function isRemoved(thread: DriverThread): boolean {
  const { REMOVE, REMOVED } = CpuStatus.values;
  const untilRemoved = thread.node.policy(DRIVER_REMOVE_WAIT) === DRIVER_REMOVE_WAIT.is["until-removed"];
  return thread.port.load8(thread.status) === (untilRemoved ? REMOVED : REMOVE);
}
