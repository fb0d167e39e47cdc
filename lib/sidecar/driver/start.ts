/**
 * Starting a run of a sidecar processor: ioctl START, which leaves it running, and ioctl RUN, which waits for its end
 * (OHCL-Linux-Kernel drivers/hv/mshv_vtl_sidecar.c).
 *
 * @module
 */
import { SidecarDriverVpState } from "../../layout/hyperv/constants/sidecar.ts";
import { CpuStatus } from "../../layout/hyperv/sidecar.ts";
import { step, type StepId } from "../../memory/steps.ts";
import type { SidecarNode } from "../node.ts";
import { DRIVER_PUBLISH, DRIVER_REARM, SIDECAR_START_IPI } from "../policies.ts";
import { DRIVER_LOCAL, type DriverThread, ERRNO, RETURN_TO_USER, WARNING } from "./thread.ts";

const { AVAILABLE, SYNC, ASYNC, ASYNC_STARTING, REMOVED } = SidecarDriverVpState.values;
const { IDLE, RUN, STOP } = CpuStatus.values;

/** Claims the thread's processor for `use`; 0 or an error number. */
export function claim(thread: DriverThread, use: number): number {
  const found = thread.port.compareExchange8(thread.vpState, AVAILABLE, use);
  if (found === AVAILABLE) return 0;
  return found === REMOVED ? ERRNO.ENOENT : ERRNO.EBUSY;
}

/** IDLE to RUN. Anything else that is found is logged, and the run goes on. */
function setRun(thread: DriverThread): void {
  const { node, port, slot } = thread;
  if (absorbs(node)) node.announceStart(port, slot);
  if (port.compareExchange8(thread.status, IDLE, RUN) !== IDLE) thread.warn(WARNING.START);
}

/** Sends the request interrupt of a start. A thread that has never met anything but IDLE has started a parked processor. */
function sendStart(thread: DriverThread): void {
  const { node, port, slot } = thread;
  if (absorbs(node)) node.sendAnnounced(port, slot, (thread.warnings & WARNING.START) === 0);
  else node.sendRequest(port, slot);
}

function absorbs(node: SidecarNode): boolean {
  return node.policy(SIDECAR_START_IPI) === SIDECAR_START_IPI.is.absorbed;
}

/** Ioctl START of the processor in `DRIVER_LOCAL.SLOT`; the result is 0, ENOENT or EBUSY. */
export const DRIVER_START: StepId = step<DriverThread>("driver.start.claim", (thread) => {
  const startsVisibly = thread.node.policy(DRIVER_PUBLISH) === DRIVER_PUBLISH.is["claim-then-start"];
  const error = claim(thread, startsVisibly ? ASYNC : ASYNC_STARTING);
  return error === 0 ? START_SET_RUN : thread.finish(error);
});

const START_SET_RUN: StepId = step<DriverThread>("driver.start.set-run", (thread) => {
  setRun(thread);
  return START_SEND_IPI;
});

const START_SEND_IPI: StepId = step<DriverThread>("driver.start.send-ipi", (thread) => {
  sendStart(thread);
  if (thread.node.policy(DRIVER_PUBLISH) !== DRIVER_PUBLISH.is["claim-then-start"]) return START_PUBLISH;
  return afterPublishing(thread);
});

/** From here on a scan may find that the run has ended. */
const START_PUBLISH: StepId = step<DriverThread>("driver.start.publish", (thread) => {
  if (thread.node.policy(DRIVER_PUBLISH) === DRIVER_PUBLISH.is["starting-xchg"]) {
    thread.port.exchange8(thread.vpState, ASYNC);
  } else {
    thread.port.store8(thread.vpState, ASYNC);
  }
  return afterPublishing(thread);
});

function afterPublishing(thread: DriverThread): StepId {
  return thread.node.policy(DRIVER_REARM) === DRIVER_REARM.is.yes ? REARM_LOAD_STATUS : leaveStart(thread);
}

/** A scan that came before the run was visible has not seen its end: was there one? */
export const REARM_LOAD_STATUS: StepId = step<DriverThread>("driver.rearm.load-status", (thread) => {
  return thread.port.load8(thread.status) === IDLE ? REARM_MARK_SCAN : leaveStart(thread);
});

const REARM_MARK_SCAN: StepId = step<DriverThread>("driver.rearm.mark-scan", (thread) => {
  thread.port.store32(thread.node.needsVpScan, 1);
  return REARM_WAKE;
});

const REARM_WAKE: StepId = step<DriverThread>("driver.rearm.wake-all", (thread) => {
  thread.node.wakeAll(thread.port);
  return thread.finish(0);
});

/** A release store may still wait in the store buffer: leaving the driver is then an action of its own. */
function leaveStart(thread: DriverThread): StepId {
  thread.locals32[DRIVER_LOCAL.RESULT] = 0;
  const released = thread.node.policy(DRIVER_PUBLISH) === DRIVER_PUBLISH.is["starting-release"];
  return released ? RETURN_TO_USER : thread.returnToUser();
}

/** Ioctl RUN of the processor in `DRIVER_LOCAL.SLOT`: starts it and sleeps until it is IDLE. The result is as for START. */
export const DRIVER_RUN: StepId = step<DriverThread>("driver.run.claim", (thread) => {
  const error = claim(thread, SYNC);
  return error === 0 ? RUN_SET_RUN : thread.finish(error);
});

const RUN_SET_RUN: StepId = step<DriverThread>("driver.run.set-run", (thread) => {
  setRun(thread);
  return RUN_SEND_IPI;
});

const RUN_SEND_IPI: StepId = step<DriverThread>("driver.run.send-ipi", (thread) => {
  sendStart(thread);
  return RUN_WAIT_IDLE;
});

/** Sleeps until the processor is IDLE or a signal comes. */
export const RUN_WAIT_IDLE: StepId = step<DriverThread>("driver.run.wait-idle", (thread) => {
  if (thread.signalled) {
    thread.leaveQueue();
    thread.takeSignal();
    return RUN_SIGNAL_LOAD;
  }
  return thread.waitFor(isIdle) ? RUN_RELEASE : RUN_WAIT_IDLE;
}, (thread) => !thread.asleep || thread.signalled);

/** A signal came: the run is to end early. */
const RUN_SIGNAL_LOAD: StepId = step<DriverThread>("driver.run.load-status", (thread) => {
  const status = thread.port.load8(thread.status);
  if (status === RUN) return RUN_SIGNAL_STOP;
  return status === STOP ? RUN_SIGNAL_WAIT : RUN_RELEASE;
});

/** RUN to STOP, without an interrupt. */
const RUN_SIGNAL_STOP: StepId = step<DriverThread>("driver.run.set-stop", (thread) => {
  thread.port.compareExchange8(thread.status, RUN, STOP);
  return RUN_SIGNAL_LOAD;
});

/** Sleeps, signals or not, until the processor has seen STOP. */
const RUN_SIGNAL_WAIT: StepId = step<DriverThread>(
  "driver.run.wait-stopped",
  (thread) => thread.waitFor(isNotStop) ? RUN_SIGNAL_LOAD : RUN_SIGNAL_WAIT,
  (thread) => !thread.asleep,
);

const RUN_RELEASE: StepId = step<DriverThread>("driver.run.release", (thread) => {
  thread.port.store8(thread.vpState, AVAILABLE);
  thread.locals32[DRIVER_LOCAL.RESULT] = 0;
  return thread.returnToUser();
});

function isIdle(thread: DriverThread): boolean {
  return thread.port.load8(thread.status) === IDLE;
}

function isNotStop(thread: DriverThread): boolean {
  return thread.port.load8(thread.status) !== STOP;
}
