/**
 * The VMM's task for a sidecar processor, on the node's base processor (openvmm virt_mshv_vtl processor/mshv/x64.rs
 * run_vp, underhill_core spawn_sidecar_vp): runs the processor through the client, handles its exits with the same
 * handlers as a Linux processor's, and gives it up when Linux wants it.
 *
 * @module
 */
import type { InstructionEmulator } from "../vtl2/emulator/emulator.ts";
import { handleApicEoi } from "../vtl2/handlers/apic_eoi.ts";
import { handleCpuid } from "../vtl2/handlers/cpuid.ts";
import {
  handleInterruptionDeliverable,
  handleSintDeliverable,
  requestInterruptNotification,
} from "../vtl2/handlers/deliverability.ts";
import { handleException } from "../vtl2/handlers/exception.ts";
import { handleHypercall } from "../vtl2/handlers/hypercall.ts";
import { handleIoPort } from "../vtl2/handlers/io_port.ts";
import { handleMmio, handleUnacceptedGpa } from "../vtl2/handlers/mmio.ts";
import { handleMsr } from "../vtl2/handlers/msr.ts";
import { handleUnrecoverable } from "../vtl2/handlers/unrecoverable.ts";
import { VmmRunState, WAKE } from "../vtl2/kernel_pages.ts";
import { BUSY, CRASHED, type HandlerResult, PENDING, TRIPLE_FAULT } from "../vtl2/vmm_vp.ts";
import { VmmVpState } from "../vtl2/vmm_state.ts";
import { CPU_SIGNATURE } from "../hypervisor/cpuid.ts";
import { HvMessageType } from "../layout/hyperv/constants/messages.ts";
import { HvX64RegisterName, SIDECAR_NATIVE_MSR_REGISTERS } from "../layout/hyperv/constants/registers.ts";
import { HvMessageHeader } from "../layout/hyperv/messages.ts";
import { SIDECAR } from "../layout/hyperv/constants/sidecar.ts";
import {
  HvInternalActivityRegister,
  HvRegisterValue,
  HvX64InterruptStateRegister,
} from "../layout/hyperv/registers.ts";
import { CommandPage, CpuContextX64 } from "../layout/hyperv/sidecar.ts";
import { Fxsave } from "../layout/x64/fxsave.ts";
import type { MemoryPort } from "../memory/port.ts";
import { HALTED, NOT_COMBINED, step, type StepId } from "../memory/steps.ts";
import {
  beginRun,
  beginSet,
  CLIENT_CLOSE,
  CLIENT_GET,
  CLIENT_INTERCEPT,
  CLIENT_LOCAL,
  CLIENT_OPEN,
  CLIENT_PING,
  CLIENT_RESULT,
  CLIENT_SET,
  ClientThread,
} from "./client.ts";
import { mayLeap } from "./driver/leaps.ts";
import { DRIVER_LOCAL } from "./driver/thread.ts";
import { commandError } from "./kernel/processor.ts";
import { SidecarTaskState } from "./memory.ts";
import type { SidecarNode } from "./node.ts";
import { SIDECAR_HOTPLUG } from "./policies.ts";
import { TaskCourses, type TaskSteps } from "./task_leaps.ts";
import type { SidecarVmmVp } from "./vmm_vp.ts";

const taskAt = SidecarTaskState.at;
const vmmAt = VmmVpState.at;
const type = HvMessageType.values;
const { LIST, COUNT, VALUES } = CLIENT_LOCAL;
const register = HvX64RegisterName.values;
/**
 * FCW and MXCSR after a reset (AMD64 APM volume 2, table 14-1). OpenHCL writes an FCW of 37F here, which a guest could tell
 * from a processor's; no guest is known to look before its FNINIT.
 */
const FCW_RESET = 0x40;
const MXCSR_RESET = 0x1f80;

/** What a task is put together from. */
export interface SidecarTaskParts {
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
  /** Byte offset of its `SidecarTaskState`. */
  readonly taskState: number;
  /** Byte offset of the processor's `VmmRunState`. */
  readonly runState: number;
  /** The processor as exit handlers see it. */
  readonly vmm: SidecarVmmVp;
  /** The VMM's instruction emulator. */
  readonly emulator: InstructionEmulator;
  /** Whether a device that was busy can take a value now. */
  readonly deviceReady: () => boolean;
  /** Records a triple fault of VTL0. */
  readonly onTripleFault: (vp: number) => void;
  /** The guest starts on this processor, with the registers in its state and the context in `saved_context`. */
  readonly boots?: boolean;
}

/** The task. Its first step is {@linkcode SIDECAR_TASK}. */
export class SidecarTask extends ClientThread {
  /** The processor as exit handlers see it. */
  readonly vmm: SidecarVmmVp;
  /** The VMM's instruction emulator. */
  readonly emulator: InstructionEmulator;
  /** Byte offset of the `SidecarTaskState` of the processor's task. */
  readonly taskState: number;
  /** Byte offset of the processor's `VmmRunState`. */
  readonly runState: number;
  /** Whether a device that was busy can take a value now. */
  readonly deviceReady: () => boolean;
  /** Records a triple fault of VTL0. */
  readonly onTripleFault: (vp: number) => void;
  /** Whether VTL0 runs at once instead of waiting for a startup IPI. */
  readonly boots: boolean;
  /** What it leaps; null where it takes its steps one by one. */
  #courses: TaskCourses | null | undefined;

  /** The task that `parts` describe. */
  constructor(parts: SidecarTaskParts) {
    super(`vmm.vp${parts.vmm.index}`, parts.node, parts.block, parts.port, parts.thread, parts.clients);
    this.vmm = parts.vmm;
    this.emulator = parts.emulator;
    this.taskState = parts.taskState;
    this.runState = parts.runState;
    this.deviceReady = parts.deviceReady;
    this.onTripleFault = parts.onTripleFault;
    this.boots = parts.boots ?? false;
    this.locals32[DRIVER_LOCAL.SLOT] = parts.slot;
  }

  /** Whether the machine stops, Linux wants the processor, or the run is to be cancelled. */
  override get stopRequested(): boolean {
    return this.cancelled || this.stopped || this.port.load32(this.taskState + taskAt.kick) !== 0;
  }

  /** Whether Linux wants the processor. */
  get cancelled(): boolean {
    return this.port.load32(this.taskState + taskAt.cancel) !== 0;
  }

  /** Whether the processor is to run no more. */
  get stopped(): boolean {
    return this.port.load32(this.runState + VmmRunState.at.stop) !== 0;
  }

  /** A word of its `SidecarTaskState`. */
  getWord(offset: number): number {
    return this.memory.i32[(this.taskState + offset) >>> 2];
  }

  /** Sets a word of its `SidecarTaskState` that nobody else writes. */
  setWord(offset: number, value: number): void {
    this.memory.i32[(this.taskState + offset) >>> 2] = value;
  }

  override leap(next: StepId): StepId {
    if (this.#courses === undefined) this.#courses = mayLeap(this.node) ? new TaskCourses(this, COURSE_STEPS) : null;
    return this.#courses === null ? NOT_COMBINED : this.#courses.take(next);
  }

  /** The VMM panics. */
  panic(assertion: string, left: number): StepId {
    this.vmm.crash({ assertion, left: BigInt(left) });
    return HALTED;
  }
}

// --- Start --------------------------------------------------------------------------------------------------------

/** Takes the processor's handle. */
export const SIDECAR_TASK: StepId = step<SidecarTask>("sidecar-vmm.open", (task) => task.call(CLIENT_OPEN, INIT));

/** Begins with a command that does nothing, which shows that the processor answers. */
export const SIDECAR_TASK_PING: StepId = step<SidecarTask>(
  "sidecar-vmm.ping",
  (task) => task.call(CLIENT_PING, PINGED),
);

const PINGED: StepId = step<SidecarTask>("sidecar-vmm.pinged", (task) => {
  return task.result === 0 ? SIDECAR_TASK : task.panic("sidecar processor does not answer", task.result);
});

/**
 * The task has stopped, as it was asked to. When that is over, or when Linux wants the processor, it goes on with the
 * registers that it left.
 */
export const SIDECAR_TASK_STOPPED: StepId = step<SidecarTask>(
  "sidecar-vmm.stopped",
  (task) => task.call(CLIENT_OPEN, REOPENED),
  (task) => !task.stopped || task.cancelled,
);

const REOPENED: StepId = step<SidecarTask>("sidecar-vmm.reopened", (task) => {
  return task.result === 0 ? CHECK_STOP : task.panic("sidecar processor is in use", task.result);
});

/** Registers after a reset; VTL0 waits for its startup IPI again, which starting VTL2 has cleared. */
const INIT: StepId = step<SidecarTask>("sidecar-vmm.init", (task) => {
  if (task.result !== 0) return task.panic("sidecar processor is in use", task.result);
  const { memory: { u8, u16, u32 }, vmm } = task;
  if (task.boots) {
    const saved = task.taskState + taskAt.saved_context;
    u8.copyWithin(vmm.context, saved, saved + CpuContextX64.size);
    return CHECK_STOP;
  }
  u8.fill(0, vmm.context, vmm.context + CpuContextX64.size);
  u32[(vmm.context + CpuContextX64.at["gps.rdx"]) >>> 2] = CPU_SIGNATURE;
  u16[(vmm.context + CpuContextX64.at.fx_state + Fxsave.at.fcw) >>> 1] = FCW_RESET;
  u32[(vmm.context + CpuContextX64.at.fx_state + Fxsave.at.mxcsr) >>> 2] = MXCSR_RESET;
  setOne(task, register.InternalActivityState, HvInternalActivityRegister.make({ startup_suspend: true }));
  return FLUSH;
});

/** Adds one register to the ones that go to the processor before it runs. */
function setOne(task: SidecarTask, name: number, value: bigint): void {
  const at = task.vmm.state + vmmAt.set_values;
  task.memory.u64[at >>> 3] = value;
  task.memory.u64[(at >>> 3) + 1] = 0n;
  task.vmm.setRegisters([name], at);
}

// --- The run loop -------------------------------------------------------------------------------------------------

/** Start of the loop: ends when somebody asked for it, or when Linux wants the processor. */
const CHECK_STOP: StepId = step<SidecarTask>("sidecar-vmm.check-stop", (task) => {
  if (task.cancelled) return SAVE_REGISTERS;
  if (task.stopped) return CLOSE;
  return task.port.load32(task.taskState + taskAt.kick) !== 0 ? CLEAR_KICK : HANDLE_WAKE;
});

/** Gives the processor's handle back. */
const CLOSE: StepId = step<SidecarTask>("sidecar-vmm.close", (task) => {
  const stops = (task.runState + VmmRunState.at.stops) >>> 2;
  task.memory.i32[stops]++;
  return task.call(CLIENT_CLOSE, SIDECAR_TASK_STOPPED);
});

/** The run has been cancelled, and the next one begins. */
const CLEAR_KICK: StepId = step<SidecarTask>("sidecar-vmm.clear-kick", (task) => {
  task.setWord(taskAt.kicks, task.getWord(taskAt.kicks) + 1);
  task.port.exchange32(task.taskState + taskAt.kick, 0);
  return HANDLE_WAKE;
});

/** Looks after what woke the task, and tells the hypervisor which deliverability notifications are wanted from now on. */
const HANDLE_WAKE: StepId = step<SidecarTask>("sidecar-vmm.handle-wake", (task) => {
  const { port, vmm, memory: { u64 } } = task;
  const wake = task.runState + VmmRunState.at.wake;
  if (port.load32(wake) !== 0 && port.exchange32(wake, 0) & WAKE.EXTINT) requestInterruptNotification(vmm);
  const next = (vmm.state + vmmAt.deliverability_next) >>> 3;
  const current = (vmm.state + vmmAt.deliverability_current) >>> 3;
  if (u64[next] === u64[current]) return RUN;
  u64[current] = u64[next];
  setOne(task, register.DeliverabilityNotifications, u64[next]);
  return FLUSH;
});

/** Begins a run of VTL0. */
const RUN: StepId = step<SidecarTask>("sidecar-vmm.run", (task) => {
  task.call(RUN, RUN_ENDED); // where the run returns to
  return beginRun(task);
});

/** An intercept ended the run, or a stop did. Finds the handler. */
const RUN_ENDED: StepId = step<SidecarTask>("sidecar-vmm.dispatch", (task) => {
  if (task.result === CLIENT_RESULT.SIDECAR_ERROR) {
    return task.panic(`sidecar error: ${commandError(task.memory, task.commandPage)}`, task.result);
  }
  if (task.result !== 0) return task.panic("running a sidecar processor failed", task.result);
  return task.locals32[CLIENT_INTERCEPT] !== 0 ? dispatch(task) : CHECK_STOP;
});

/** The step of the handler of the message in the command page. */
function dispatch(task: SidecarTask): StepId {
  const typ = task.memory.u32[(task.vmm.message + HvMessageHeader.at.typ) >>> 2];
  return HANDLERS.get(typ) ?? task.panic(`unknown exit message ${HvMessageType.name(typ)}`, typ);
}

const HANDLERS: ReadonlyMap<number, StepId> = new Map([
  [
    type.HvMessageTypeX64IoPortIntercept,
    handler("sidecar-vmm.handle-io-port", (task) => handleIoPort(task.vmm, task.emulator)),
  ],
  [type.HvMessageTypeX64CpuidIntercept, handler("sidecar-vmm.handle-cpuid", (task) => handleCpuid(task.vmm))],
  [type.HvMessageTypeMsrIntercept, handler("sidecar-vmm.handle-msr", (task) => handleMsr(task.vmm))],
  [
    type.HvMessageTypeUnmappedGpa,
    handler("sidecar-vmm.handle-unmapped-gpa", (task) => handleMmio(task.vmm, task.emulator)),
  ],
  [type.HvMessageTypeGpaIntercept, handler("sidecar-vmm.handle-gpa", (task) => handleMmio(task.vmm, task.emulator))],
  [
    type.HvMessageTypeUnacceptedGpa,
    handler("sidecar-vmm.handle-unaccepted-gpa", (task) => handleUnacceptedGpa(task.vmm, task.emulator)),
  ],
  [
    type.HvMessageTypeHypercallIntercept,
    handler("sidecar-vmm.handle-hypercall", (task) => handleHypercall(task.vmm)),
  ],
  [type.HvMessageTypeX64ApicEoi, handler("sidecar-vmm.handle-apic-eoi", (task) => handleApicEoi(task.vmm))],
  [
    type.HvMessageTypeSynicSintDeliverable,
    handler("sidecar-vmm.handle-sint-deliverable", (task) => handleSintDeliverable(task.vmm)),
  ],
  [
    type.HvMessageTypeX64InterruptionDeliverable,
    handler("sidecar-vmm.handle-interruption-deliverable", (task) => handleInterruptionDeliverable(task.vmm)),
  ],
  [
    type.HvMessageTypeUnrecoverableException,
    handler("sidecar-vmm.handle-unrecoverable", (task) => handleUnrecoverable(task.vmm)),
  ],
  [
    type.HvMessageTypeExceptionIntercept,
    handler("sidecar-vmm.handle-exception", (task) => handleException(task.vmm)),
  ],
]);

/** Declares the step of an exit handler, and the one in which it waits for a device that is busy. */
function handler(name: string, handle: (task: SidecarTask) => HandlerResult): StepId {
  const handling: StepId = step<SidecarTask>(name, (task) => {
    switch (handle(task)) {
      case BUSY:
        return waiting;
      case PENDING:
        return GET_WANTED;
      case CRASHED:
        return HALTED;
      case TRIPLE_FAULT:
        task.onTripleFault(task.vmm.index);
        return HALTED;
      default:
        return handled(task);
    }
  });
  const waiting: StepId = step<SidecarTask>(`${name}-busy`, () => handling, (task) => task.deviceReady());
  return handling;
}

/** The exit has been handled: what the handler has set goes to the processor. The first time, Linux asks for it. */
function handled(task: SidecarTask): StepId {
  task.setWord(taskAt.exits, task.getWord(taskAt.exits) + 1);
  if (task.getWord(taskAt.wanted_by_linux) === 0 && task.node.policy(SIDECAR_HOTPLUG) === SIDECAR_HOTPLUG.is.on) {
    task.port.exchange32(task.taskState + taskAt.wanted_by_linux, 1);
    task.node.wires.woken();
  }
  if (task.getWord(taskAt.clear_shadow) !== 0) return GET_SHADOW;
  return task.getWord(taskAt.set_count) !== 0 ? FLUSH : CHECK_STOP;
}

/** Gets the registers that a handler asked for, and calls it again. */
const GET_WANTED: StepId = step<SidecarTask>("sidecar-vmm.get-registers", (task) => {
  task.locals32[LIST] = task.taskState + taskAt.get_names;
  task.locals32[COUNT] = task.getWord(taskAt.get_count);
  task.locals32[VALUES] = task.getWord(taskAt.get_at);
  return task.call(CLIENT_GET, GOT_WANTED);
});

const GOT_WANTED: StepId = step<SidecarTask>("sidecar-vmm.got-registers", (task) => {
  if (task.result !== 0) return task.panic("getting registers of a sidecar processor failed", task.result);
  return dispatch(task);
});

/** The interrupt shadow shares its register with the NMI mask, which stays as it is. */
const GET_SHADOW: StepId = step<SidecarTask>("sidecar-vmm.get-interrupt-state", (task) => {
  task.setWord(taskAt.get_names, register.InterruptState);
  task.locals32[LIST] = task.taskState + taskAt.get_names;
  task.locals32[COUNT] = 1;
  task.locals32[VALUES] = task.vmm.state + vmmAt.get_values;
  return task.call(CLIENT_GET, CLEAR_SHADOW);
});

const CLEAR_SHADOW: StepId = step<SidecarTask>("sidecar-vmm.clear-interrupt-shadow", (task) => {
  if (task.result !== 0) return task.panic("getting registers of a sidecar processor failed", task.result);
  const state = task.memory.u64[(task.vmm.state + vmmAt.get_values) >>> 3];
  setOne(task, register.InterruptState, state & ~HvX64InterruptStateRegister.mask.interrupt_shadow);
  task.setWord(taskAt.clear_shadow, 0);
  return FLUSH;
});

/** Sets the registers that are waiting. */
const FLUSH: StepId = step<SidecarTask>("sidecar-vmm.set-registers", (task) => {
  task.locals32[LIST] = task.taskState + taskAt.set_records;
  task.locals32[COUNT] = task.getWord(taskAt.set_count);
  task.call(FLUSH, FLUSHED); // where the command returns to
  return beginSet(task);
});

const FLUSHED: StepId = step<SidecarTask>("sidecar-vmm.registers-set", (task) => {
  if (task.result !== 0) return task.panic("setting registers of a sidecar processor failed", task.result);
  task.setWord(taskAt.set_count, 0);
  return CHECK_STOP;
});

const COURSE_STEPS: TaskSteps = {
  checkStop: CHECK_STOP,
  handleWake: HANDLE_WAKE,
  flush: FLUSH,
  flushed: FLUSHED,
  getWanted: GET_WANTED,
  gotWanted: GOT_WANTED,
  runEnded: RUN_ENDED,
  handlerOf: (type) => HANDLERS.get(type),
};

// --- Conversion to a Linux processor ------------------------------------------------------------------------------

/** Registers beside the processor context that go to the new processor. DR6 is not shared. */
export const SAVED_REGISTERS: readonly number[] = [
  register.Dr0,
  register.Dr1,
  register.Dr2,
  register.Dr3,
  ...Object.keys(SIDECAR_NATIVE_MSR_REGISTERS).map((name) => register[name as keyof typeof register]),
  register.InternalActivityState,
];

/** Saves the processor's state: what the command page has not is got by commands. */
const SAVE_REGISTERS: StepId = step<SidecarTask>("sidecar-vmm.save-registers", (task) => {
  const names = (task.taskState + taskAt.get_names) >>> 2;
  for (let k = 0; k < SAVED_REGISTERS.length; k++) task.memory.u32[names + k] = SAVED_REGISTERS[k];
  task.locals32[LIST] = task.taskState + taskAt.get_names;
  task.locals32[COUNT] = SAVED_REGISTERS.length;
  task.locals32[VALUES] = task.taskState + taskAt.saved_values;
  return task.call(CLIENT_GET, SAVE_CONTEXT);
});

const SAVE_CONTEXT: StepId = step<SidecarTask>("sidecar-vmm.save-context", (task) => {
  if (task.result !== 0) return task.panic("saving a sidecar processor failed", task.result);
  task.port.copy(
    task.taskState + taskAt.saved_context,
    task.commandPage + CommandPage.at.cpu_context,
    CpuContextX64.size,
  );
  return task.call(CLIENT_CLOSE, SAVED);
});

/** The task's work is done, until the processor comes back. */
const SAVED: StepId = step<SidecarTask>("sidecar-vmm.saved", (task) => {
  task.port.exchange32(task.taskState + taskAt.saved, 1);
  task.node.wires.woken();
  return WAIT_RETURNED;
});

// --- Return of the processor to the sidecar -----------------------------------------------------------------------

const WAIT_RETURNED: StepId = step<SidecarTask>(
  "sidecar-vmm.wait-returned",
  (task) => {
    task.port.exchange32(task.taskState + taskAt.returned, 0);
    return task.call(CLIENT_OPEN, RESTORE_CONTEXT);
  },
  (task) => task.port.load32(task.taskState + taskAt.returned) !== 0,
);

/** The command page is the task's: it takes the context that Linux's processor has left. */
const RESTORE_CONTEXT: StepId = step<SidecarTask>("sidecar-vmm.restore-context", (task) => {
  if (task.result !== 0) return task.panic("sidecar processor is in use", task.result);
  task.port.copy(
    task.commandPage + CommandPage.at.cpu_context,
    task.taskState + taskAt.saved_context,
    CpuContextX64.size,
  );
  task.setWord(taskAt.get_count, 0);
  return RESTORE_REGISTERS;
});

/** The other saved registers go back by commands, as many at a time as one command takes; `get_count` says how far it is. */
const RESTORE_REGISTERS: StepId = step<SidecarTask>("sidecar-vmm.restore-registers", (task) => {
  if (task.result !== 0) return task.panic("restoring a sidecar processor failed", task.result);
  const done = task.getWord(taskAt.get_count);
  if (done === SAVED_REGISTERS.length) return RESTORED;
  const names = SAVED_REGISTERS.slice(done, done + SIDECAR.MAX_GET_SET_VP_REGISTERS);
  task.setWord(taskAt.set_count, 0);
  task.vmm.setRegisters(names, task.taskState + taskAt.saved_values + done * HvRegisterValue.size);
  task.setWord(taskAt.get_count, done + names.length);
  task.locals32[LIST] = task.taskState + taskAt.set_records;
  task.locals32[COUNT] = names.length;
  return task.call(CLIENT_SET, RESTORE_REGISTERS);
});

/** Deliverability starts at nothing asked for; the first wake looks after the message queues. */
const RESTORED: StepId = step<SidecarTask>("sidecar-vmm.restored", (task) => {
  task.setWord(taskAt.set_count, 0);
  task.setWord(taskAt.get_count, 0);
  task.memory.u64[(task.vmm.state + vmmAt.deliverability_current) >>> 3] = 0n;
  task.port.or32(task.runState + VmmRunState.at.wake, WAKE.MESSAGE_QUEUES);
  return CHECK_STOP;
});
