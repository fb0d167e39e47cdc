/**
 * Finding out which runs have ended: the scan, and the read, which begins with one (OHCL-Linux-Kernel
 * drivers/hv/mshv_vtl_sidecar.c).
 *
 * @module
 */
import { SidecarDriverVpState } from "../../layout/hyperv/constants/sidecar.ts";
import { CpuStatus } from "../../layout/hyperv/sidecar.ts";
import { step, type StepId } from "../../memory/steps.ts";
import { DRIVER_SCAN } from "../policies.ts";
import { SidecarDriverState } from "./state.ts";
import { DRIVER_LOCAL, type DriverThread } from "./thread.ts";

const { AVAILABLE, ASYNC, ASYNC_STOPPING, ASYNC_STOPPED } = SidecarDriverVpState.values;
const { IDLE } = CpuStatus.values;
const { INDEX, SLOT } = DRIVER_LOCAL;
const MUTEX = SidecarDriverState.at.scan_mutex;
/** Slot 0 is the base processor, which runs Linux. */
const FIRST_SLOT = 1;

const runs = (thread: DriverThread): boolean => !thread.heldByHandler;

/** Begins a scan, which marks the processors whose runs have ended. */
const SCAN_CLEAR: StepId = step<DriverThread>("driver.scan.clear-needs-scan", (thread) => {
  thread.port.exchange32(thread.node.needsVpScan, 0);
  return SCAN_LOCK;
}, runs);

const SCAN_LOCK: StepId = step<DriverThread>("driver.scan.lock", (thread) => {
  const { node, port } = thread;
  if (port.compareExchange32(node.driver + MUTEX, 0, thread.thread + 1) !== 0) return SCAN_LOCK;
  return scanFrom(thread, FIRST_SLOT);
}, (thread) => !thread.heldByHandler && thread.port.load32(thread.node.driver + MUTEX) === 0);

/** Goes on with processor `slot`, or unlocks and returns when there are no more. */
function scanFrom(thread: DriverThread, slot: number): StepId {
  const { node, port, locals32 } = thread;
  if (slot >= node.vpCount) {
    locals32[INDEX] = 0;
    port.exchange32(node.driver + MUTEX, 0);
    return thread.return();
  }
  locals32[INDEX] = slot;
  return node.policy(DRIVER_SCAN) === DRIVER_SCAN.is["state-then-status"] ? SCAN_LOAD_STATE : SCAN_LOAD_STATUS;
}

const SCAN_LOAD_STATE: StepId = step<DriverThread>("driver.scan.load-state", (thread) => {
  const { node } = thread;
  const slot = thread.locals32[INDEX];
  const state = thread.port.load8(node.vpStates + slot);
  if (state !== ASYNC && state !== ASYNC_STOPPING) return scanFrom(thread, slot + 1);
  return node.policy(DRIVER_SCAN) === DRIVER_SCAN.is["state-then-status"] ? SCAN_LOAD_STATUS : SCAN_SET_STOPPED;
}, runs);

const SCAN_LOAD_STATUS: StepId = step<DriverThread>("driver.scan.load-status", (thread) => {
  const { node } = thread;
  const slot = thread.locals32[INDEX];
  if (thread.port.load8(node.statuses + slot) !== IDLE) return scanFrom(thread, slot + 1);
  return node.policy(DRIVER_SCAN) === DRIVER_SCAN.is["state-then-status"] ? SCAN_SET_STOPPED : SCAN_LOAD_STATE;
}, runs);

const SCAN_SET_STOPPED: StepId = step<DriverThread>("driver.scan.set-stopped", (thread) => {
  thread.port.store8(thread.node.vpStates + thread.locals32[INDEX], ASYNC_STOPPED);
  return SCAN_COUNT;
}, runs);

const SCAN_COUNT: StepId = step<DriverThread>("driver.scan.count", (thread) => {
  thread.port.add32(thread.node.numVpsStopped, 1);
  return scanFrom(thread, thread.locals32[INDEX] + 1);
}, runs);

/**
 * Reads the number of one processor whose run has ended into `DRIVER_LOCAL.SLOT`; sleeps while there is none. The
 * processor can be claimed again.
 */
export const DRIVER_READ: StepId = step<DriverThread>("driver.read.load-needs-scan", (thread) => {
  return thread.port.load32(thread.node.needsVpScan) !== 0 ? thread.call(SCAN_CLEAR, READ_WAIT) : READ_WAIT;
}, runs);

/** Sleeps while no run is known to have ended and no scan is wanted. */
export const READ_WAIT: StepId = step<DriverThread>("driver.read.wait-stopped", (thread) => {
  const { node, port, locals32 } = thread;
  if (!thread.waitFor(somethingStopped)) return READ_WAIT;
  if (port.load32(node.numVpsStopped) === 0) return DRIVER_READ;
  locals32[INDEX] = FIRST_SLOT;
  return READ_LOAD_STATE;
}, (thread) => !thread.heldByHandler && !thread.asleep);

function somethingStopped({ node, port }: DriverThread): boolean {
  return port.load32(node.numVpsStopped) !== 0 || port.load32(node.needsVpScan) !== 0;
}

const READ_LOAD_STATE: StepId = step<DriverThread>("driver.read.load-state", (thread) => {
  const { node, port, locals32 } = thread;
  if (port.load8(node.vpStates + locals32[INDEX]) === ASYNC_STOPPED) return READ_COUNT;
  if (++locals32[INDEX] < node.vpCount) return READ_LOAD_STATE;
  locals32[INDEX] = 0; // another reader was faster
  return DRIVER_READ;
}, runs);

const READ_COUNT: StepId = step<DriverThread>("driver.read.uncount", (thread) => {
  thread.port.add32(thread.node.numVpsStopped, -1);
  return READ_RELEASE;
}, runs);

const READ_RELEASE: StepId = step<DriverThread>("driver.read.release", (thread) => {
  const { node, port, locals32 } = thread;
  port.store8(node.vpStates + locals32[INDEX], AVAILABLE);
  locals32[SLOT] = locals32[INDEX];
  locals32[INDEX] = 0;
  return thread.returnToUser();
}, runs);
