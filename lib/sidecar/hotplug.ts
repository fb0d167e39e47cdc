/**
 * Conversion of a sidecar processor to a Linux one (openvmm underhill_core vp.rs, underhill_threadpool): the thread that
 * brings the CPU online, and what the processor does when Linux has started it.
 *
 * The way back is this model's own: in OpenHCL the conversion is one-way. Linux's processor saves its state and goes
 * offline, the sidecar kernel starts on it as at boot, the driver has it available again, and the VMM's task restores the
 * state through commands.
 *
 * @module
 */
import type { VpRegisters } from "../hypervisor/registers.ts";
import { HypervisorVpState } from "../hypervisor/vp_state.ts";
import { SidecarDriverVpState } from "../layout/hyperv/constants/sidecar.ts";
import { hcl_run } from "../layout/hyperv/hcl_run.ts";
import { HvRegisterValue } from "../layout/hyperv/registers.ts";
import { CpuContextX64, CpuStatus } from "../layout/hyperv/sidecar.ts";
import { HALTED, step, type StepId } from "../memory/steps.ts";
import { STOP, VmmRunState, WAKE } from "../vtl2/kernel_pages.ts";
import { startKernelVp } from "../vtl2/kernel_start.ts";
import { KernelVp, type KernelVpParts } from "../vtl2/kernel_vp.ts";
import { saveFxState } from "../vtl2/mshv_vtl.ts";
import { RUN_VP } from "../vtl2/run_loop.ts";
import { VmmVpState } from "../vtl2/vmm_state.ts";
import { ClientThread } from "./client.ts";
import { DRIVER_REMOVE } from "./driver/remove.ts";
import { DRIVER_LOCAL } from "./driver/thread.ts";
import { SidecarTaskState } from "./memory.ts";
import type { SidecarNode } from "./node.ts";
import type { MemoryPort } from "../memory/port.ts";
import { SAVED_REGISTERS } from "./vmm_task.ts";

const taskAt = SidecarTaskState.at;

/** What a {@linkcode CpuOnline} is put together from. */
export interface CpuOnlineParts {
  /** The node of the sidecar. */
  readonly node: SidecarNode;
  /** Number of its processor in the node. */
  readonly slot: number;
  /** Byte offset of its agent block. */
  readonly block: number;
  /** Access to memory that others can see. */
  readonly port: MemoryPort;
  /** Its number among the threads of the node's driver. */
  readonly thread: number;
  /** Byte offset of the node's first `SidecarClientState`. */
  readonly clients: number;
  /** Byte offset of the processor's `SidecarTaskState`. */
  readonly taskState: number;
  /** Byte offset of the machine's hot-plug lock, a 32-bit word: one processor is brought online at a time. */
  readonly lock: number;
  /** Byte offset of the processor's `VmmRunState`. */
  readonly runState: number;
  /** Wakes the processor when Linux, or the sidecar kernel again, has been started on it. */
  readonly started: () => void;
  /** Makes Linux's run loop of the processor look at its `VmmRunState`. */
  readonly wakeRunner: () => void;
  /** Wakes whoever waits for the lock. */
  readonly unlocked: () => void;
  /** Takes note of a removal that the driver refused, with its error number. */
  readonly onFailure: (vp: number, error: number) => void;
}

/** The thread that brings one processor online. Its first step is {@linkcode CPU_ONLINE}. */
export class CpuOnline extends ClientThread {
  /** Byte offset of the `SidecarTaskState` of the processor's task. */
  readonly taskState: number;
  /** Byte offset of the machine's hot-plug lock. */
  readonly lock: number;
  /** Byte offset of the processor's `VmmRunState`. */
  readonly runState: number;
  /** Wakes the processor when Linux, or the sidecar kernel again, has been started on it. */
  readonly started: () => void;
  /** Makes Linux's run loop of the processor look at its `VmmRunState`. */
  readonly wakeRunner: () => void;
  /** Wakes whoever waits for the lock. */
  readonly unlocked: () => void;
  /** Takes note of a removal that the driver refused. */
  readonly onFailure: (vp: number, error: number) => void;

  /** The thread that `parts` describe. */
  constructor(parts: CpuOnlineParts) {
    const { node, slot } = parts;
    super(`online.vp${node.baseVp + slot}`, node, parts.block, parts.port, parts.thread, parts.clients);
    this.taskState = parts.taskState;
    this.lock = parts.lock;
    this.runState = parts.runState;
    this.started = parts.started;
    this.wakeRunner = parts.wakeRunner;
    this.unlocked = parts.unlocked;
    this.onFailure = parts.onFailure;
    this.locals32[DRIVER_LOCAL.SLOT] = slot;
  }
}

/** Somebody wants the processor for Linux: takes the lock. */
export const CPU_ONLINE: StepId = step<CpuOnline>("linux.hotplug.lock", (thread) => {
  const free = thread.port.compareExchange32(thread.lock, 0, thread.node.baseVp + thread.slot) === 0;
  return free ? CANCEL_RUNNER : CPU_ONLINE;
}, ({ port, taskState, lock }) => port.load32(taskState + taskAt.wanted_by_linux) !== 0 && port.load32(lock) === 0);

/** The VMM's task, which runs the processor again by now, is to stop. */
const CANCEL_RUNNER: StepId = step<CpuOnline>("linux.hotplug.cancel-runner", (thread) => {
  thread.port.exchange32(thread.taskState + taskAt.cancel, 1);
  thread.node.wires.woken();
  return WAIT_SAVED;
});

/** The processor's state has been saved: the CPU is brought online, beginning with the driver's prepare hook. */
const WAIT_SAVED: StepId = step<CpuOnline>(
  "linux.hotplug.wait-saved",
  (thread) => thread.call(DRIVER_REMOVE, START_CPU),
  ({ port, taskState }) => port.load32(taskState + taskAt.saved) !== 0,
);

/** Linux starts the CPU as any other. */
const START_CPU: StepId = step<CpuOnline>("linux.hotplug.start-cpu", (thread) => {
  if (thread.result !== 0) {
    thread.onFailure(thread.node.baseVp + thread.slot, thread.result);
    return HALTED;
  }
  thread.port.exchange32(thread.taskState + taskAt.online, 1);
  thread.started();
  return UNLOCK;
});

const UNLOCK: StepId = step<CpuOnline>("linux.hotplug.unlock", (thread) => {
  thread.memory.i32[(thread.taskState + taskAt.removals) >>> 2]++;
  thread.port.exchange32(thread.lock, 0);
  thread.unlocked();
  return CPU_OFFLINE;
});

// --- The way back -------------------------------------------------------------------------------------------------

/** Linux is to give the processor back: takes the lock. */
const CPU_OFFLINE: StepId = step<CpuOnline>("linux.unplug.lock", (thread) => {
  const free = thread.port.compareExchange32(thread.lock, 0, thread.node.baseVp + thread.slot) === 0;
  return free ? STOP_RUNNER : CPU_OFFLINE;
}, ({ port, taskState, lock }) => port.load32(taskState + taskAt.wanted_by_sidecar) !== 0 && port.load32(lock) === 0);

/** Linux's run loop of the processor is to end. */
const STOP_RUNNER: StepId = step<CpuOnline>("linux.unplug.stop-runner", (thread) => {
  thread.port.or32(thread.runState + VmmRunState.at.stop, STOP.OFFLINE);
  thread.wakeRunner();
  return WAIT_OFFLINE;
});

/** The processor's state has been saved, and it executes nothing of Linux's. */
const WAIT_OFFLINE: StepId = step<CpuOnline>("linux.unplug.wait-offline", (thread) => {
  thread.port.exchange32(thread.taskState + taskAt.offline, 0);
  thread.port.and32(thread.runState + VmmRunState.at.stop, ~STOP.OFFLINE);
  return SET_RUN;
}, ({ port, taskState }) => port.load32(taskState + taskAt.offline) !== 0);

/** As at boot: the processor is RUN until its sidecar kernel has come up. */
const SET_RUN: StepId = step<CpuOnline>("linux.unplug.set-run", (thread) => {
  thread.port.exchange8(thread.status, CpuStatus.values.RUN);
  return START_SIDECAR;
});

const START_SIDECAR: StepId = step<CpuOnline>("linux.unplug.start-sidecar", (thread) => {
  thread.port.exchange32(thread.taskState + taskAt.restart, 1);
  thread.started();
  return WAIT_IDLE;
});

/** The sidecar kernel is in its command loop: nobody is about to take the processor away. */
const WAIT_IDLE: StepId = step<CpuOnline>("linux.unplug.wait-idle", ({ port, taskState }) => {
  for (const word of [taskAt.wanted_by_linux, taskAt.cancel, taskAt.saved]) port.exchange32(taskState + word, 0);
  return SET_AVAILABLE;
}, ({ port, status }) => port.load8(status) === CpuStatus.values.IDLE);

const SET_AVAILABLE: StepId = step<CpuOnline>("linux.unplug.set-available", (thread) => {
  thread.port.exchange8(thread.vpState, SidecarDriverVpState.values.AVAILABLE);
  return RETURN_TO_TASK;
});

const RETURN_TO_TASK: StepId = step<CpuOnline>("linux.unplug.return-to-task", (thread) => {
  thread.port.exchange32(thread.taskState + taskAt.returned, 1);
  return UNLOCK_OFFLINE;
});

const UNLOCK_OFFLINE: StepId = step<CpuOnline>("linux.unplug.unlock", (thread) => {
  thread.memory.i32[(thread.taskState + taskAt.returns) >>> 2]++;
  thread.port.exchange32(thread.taskState + taskAt.wanted_by_sidecar, 0);
  thread.port.exchange32(thread.lock, 0);
  thread.unlocked();
  return CPU_ONLINE;
});

// --- The processor as Linux's -------------------------------------------------------------------------------------

/** A sidecar processor after its conversion. Its first step is {@linkcode LINUX_CPU_OFFLINE}. */
export class LinuxVp extends KernelVp {
  /** Byte offset of the `SidecarTaskState` of the task that has run it. */
  readonly taskState: number;
  /** Registers of the partition by name. */
  readonly registers: VpRegisters;
  /** Guest-physical address at which Linux's kernel pages begin. */
  readonly kernelPages: number;
  /** Wakes the base processor of its node. */
  readonly wakeBase: () => void;

  /**
   * Processor `index` over the agent block at byte offset `block`, which is not its sidecar kernel's. `wakeBase` wakes the
   * base processor of its node.
   */
  constructor(index: number, block: number, parts: KernelVpParts, taskState: number, wakeBase: () => void) {
    super(index, block, parts);
    this.taskState = taskState;
    this.wakeBase = wakeBase;
    this.registers = parts.registers;
    this.kernelPages = parts.kernelPages;
  }
}

/** Linux has not started the CPU. When it has, its kernel sets up VTL2's pages of this processor. */
export const LINUX_CPU_OFFLINE: StepId = step<LinuxVp>("linux.cpu-start", (vp) => {
  vp.cpu.flushTlb();
  vp.cpu.updateMode();
  startKernelVp(vp, vp.kernelPages);
  return RESTORE_CONTEXT;
}, (vp) => vp.port.load32(vp.taskState + taskAt.online) !== 0);

/** The VMM restores the saved state into the new processor. */
const RESTORE_CONTEXT: StepId = step<LinuxVp>("vmm.restore-context", (vp) => {
  vp.port.copy(vp.runPage + hcl_run.at.context, vp.taskState + taskAt.saved_context, CpuContextX64.size);
  return RESTORE_REGISTERS;
});

/** Deliverability starts at nothing asked for; the first wake looks after the message queues. */
const RESTORE_REGISTERS: StepId = step<LinuxVp>("vmm.restore-registers", (vp) => {
  const { memory: { view, u64 }, index } = vp;
  const values = vp.taskState + taskAt.saved_values;
  SAVED_REGISTERS.forEach((name, k) => vp.registers.set(index, 0, name, view, values + k * HvRegisterValue.size));
  vp.cpu.updateMode();
  u64[(vp.vmm.state + VmmVpState.at.deliverability_current) >>> 3] = 0n;
  vp.port.or32(vp.runState + VmmRunState.at.wake, WAKE.MESSAGE_QUEUES);
  return vp.call(RUN_VP, RUNNER_ENDED);
});

/** The run loop has ended, as it was asked to. */
const RUNNER_ENDED: StepId = step<LinuxVp>("vmm.stopped", (vp) => {
  if ((vp.port.load32(vp.runState + VmmRunState.at.stop) & STOP.VMM) !== 0) {
    vp.memory.i32[(vp.runState + VmmRunState.at.stops) >>> 2]++;
  }
  return RUNNER_STOPPED;
});

/** Runs no more until that is over, or until the sidecar wants the processor. */
const RUNNER_STOPPED: StepId = step<LinuxVp>("vmm.wait-resumed", (vp) => {
  const stop = vp.port.load32(vp.runState + VmmRunState.at.stop);
  return (stop & STOP.OFFLINE) !== 0 ? FLUSH_REGISTER_PAGE : vp.call(RUN_VP, RUNNER_ENDED);
}, ({ port, runState }) =>
  (port.load32(runState + VmmRunState.at.stop) & ~STOP.VMM) !== 0 ||
  port.load32(runState + VmmRunState.at.stop) === 0);

/** The VMM saves the processor's state, as the task of a sidecar processor does. */
const FLUSH_REGISTER_PAGE: StepId = step<LinuxVp>("vmm.flush-register-page", (vp) => {
  vp.vmm.flushRegisterPage();
  return SAVE_REGISTERS;
});

const SAVE_REGISTERS: StepId = step<LinuxVp>("vmm.save-registers", (vp) => {
  const { memory: { view }, index } = vp;
  const values = vp.taskState + taskAt.saved_values;
  SAVED_REGISTERS.forEach((name, k) => vp.registers.get(index, 0, name, view, values + k * HvRegisterValue.size));
  return SAVE_CONTEXT;
});

const SAVE_CONTEXT: StepId = step<LinuxVp>("vmm.save-context", (vp) => {
  saveFxState(vp);
  vp.port.copy(vp.taskState + taskAt.saved_context, vp.runPage + hcl_run.at.context, CpuContextX64.size);
  return CPU_DEAD;
});

/** Linux's kernel gives up VTL2's pages of the processor, and executes nothing on it any more. */
const CPU_DEAD: StepId = step<LinuxVp>("linux.cpu-dead", (vp) => {
  const { u64 } = vp.memory;
  u64[(vp.state + HypervisorVpState.at.assist_page) >>> 3] = 0n;
  u64[(vp.state + HypervisorVpState.at.register_page) >>> 3] = 0n;
  vp.port.exchange32(vp.taskState + taskAt.online, 0);
  vp.port.exchange32(vp.taskState + taskAt.offline, 1);
  vp.wakeBase();
  return LINUX_CPU_OFFLINE;
});
