/**
 * The VMM's side of a sidecar processor: run it, wait for it, cancel it, and give it commands (openvmm
 * openhcl/sidecar_client/src/lib.rs).
 *
 * While a processor is IDLE its command page belongs to the VMM. A run is started and ends later; a thread that reads
 * the numbers of the processors whose runs have ended completes the future that the starter waits for. Any other
 * command is a run that the driver itself waits for.
 *
 * @module
 */
import { HvStatus } from "../layout/hyperv/constants/hypercalls.ts";
import { SIDECAR } from "../layout/hyperv/constants/sidecar.ts";
import { HvRegisterAssoc, HvRegisterValue } from "../layout/hyperv/registers.ts";
import {
  CommandPage,
  GetSetVpRegisterRequest,
  SidecarCommand,
  TranslateGvaRequest,
  TranslateGvaResponse,
} from "../layout/hyperv/sidecar.ts";
import type { MemoryPort } from "../memory/port.ts";
import { NOT_COMBINED, step, type StepId } from "../memory/steps.ts";
import { ClientRunState, SidecarClientState } from "./client_state.ts";
import { mayLeap } from "./driver/leaps.ts";
import { DRIVER_READ, READ_WAIT } from "./driver/scan.ts";
import { DRIVER_RUN, DRIVER_START } from "./driver/start.ts";
import { DRIVER_STOP } from "./driver/stop.ts";
import { DRIVER_LOCAL, DriverThread } from "./driver/thread.ts";
import type { SidecarNode } from "./node.ts";
import { ReaderCourse } from "./reader_leaps.ts";

const { STOPPED, RUNNING, FINISHED } = ClientRunState.values;
const client = SidecarClientState.at;
const page = CommandPage.at;
const assoc = HvRegisterAssoc.at;
const { SLOT } = DRIVER_LOCAL;

/** Word of `Agent.locals32`: 1 when the last run was ended by an intercept. */
export const CLIENT_INTERCEPT = 23;

/** Results of the client's operations beside the driver's error numbers. */
export const CLIENT_RESULT = {
  /** It worked. */
  OK: 0,
  /** The sidecar kernel reports an error; its text is in the command page. */
  SIDECAR_ERROR: 1000,
  /** Somebody else holds the processor's handle. */
  IN_USE: 1001,
  /** Added to the HvStatus of a register access or a translation that the hypervisor refused. */
  HV_STATUS: 0x1_0000,
} as const;

/** Words of `Agent.locals32` that are arguments of commands. */
export const CLIENT_LOCAL = {
  /** Byte offset of the names (`u32`) of registers to get, or of the `HvRegisterAssoc` records of registers to set. */
  LIST: 16,
  /** How many. */
  COUNT: 17,
  /** Byte offset at which the `HvRegisterValue`s of a get are wanted. */
  VALUES: 18,
  /** How many are done. */
  DONE: 19,
} as const;

const { LIST, COUNT, VALUES, DONE } = CLIENT_LOCAL;
/** Bytes of a register's name. */
const NAME_BYTES = 4;
/** `HvInputVtl` of VTL0: its number, and "use it". */
export const TARGET_VTL0 = 0x10;

/** A thread of the VMM that uses sidecar processors. Which one is in `DRIVER_LOCAL.SLOT`. */
export class ClientThread extends DriverThread {
  /** Byte offset of the {@linkcode SidecarClientState} of the node's first processor. */
  readonly clients: number;
  /** What it leaps as a reader; null where it takes its steps one by one. */
  #course: ReaderCourse | null | undefined;

  /** Thread number `thread` of the driver of `node`; `clients` is where the node's client states lie. */
  constructor(
    name: string,
    node: SidecarNode,
    block: number,
    port: MemoryPort,
    thread: number,
    clients: number,
    onBaseCpu = false,
  ) {
    super(name, node, block, port, thread, onBaseCpu);
    this.clients = clients;
  }

  /** Byte offset of the client's state of the processor in `DRIVER_LOCAL.SLOT`. */
  get client(): number {
    return this.clients + this.slot * SidecarClientState.size;
  }

  /** Byte offset of the command page of the processor in `DRIVER_LOCAL.SLOT`. */
  get commandPage(): number {
    return this.node.commandPage(this.slot);
  }

  /** Whether somebody wants the thread to stop its processor. */
  get stopRequested(): boolean {
    return false;
  }

  override leap(next: StepId): StepId {
    if (next !== READ_WAIT) return NOT_COMBINED;
    if (this.#course === undefined) this.#course = mayLeap(this.node) ? new ReaderCourse(this, this.clients) : null;
    return this.#course?.take() === true ? READ_WAIT : NOT_COMBINED;
  }

  /** Adds one to a counter of the client's state. */
  count(offset: number): void {
    this.memory.i32[(this.client + offset) >>> 2]++;
  }
}

// --- Runs ---------------------------------------------------------------------------------------------------------

/**
 * Runs the processor until it leaves VTL0 or until the thread is asked to stop. The result is 0, the driver's error number
 * or `SIDECAR_ERROR`; {@linkcode CLIENT_INTERCEPT} says whether an intercept ended the run.
 */
export const CLIENT_RUN: StepId = step<ClientThread>("client.run.write-command", beginRun);

/**
 * The first action of a run, for a step of a caller that has decided on one: leaves the command in the page, and expects a
 * completion from here on. Returns the step that follows.
 */
export function beginRun(thread: ClientThread): StepId {
  const { port } = thread;
  port.store32(thread.commandPage + page.command, SidecarCommand.values.RUN_VP);
  port.exchange32(thread.client + client.run_state, RUNNING);
  thread.count(client.runs);
  return thread.call(DRIVER_START, RUN_WAIT);
}

/** Waits for the run's end, or for a request to stop it. */
export const RUN_WAIT: StepId = step<ClientThread>("client.run.wait", (thread) => {
  if (hasFinished(thread)) return takeCompletion(thread);
  if (thread.result === 0) {
    thread.count(client.cancels);
    return thread.call(DRIVER_STOP, RUN_WAIT_CANCELLED);
  }
  thread.port.exchange32(thread.client + client.run_state, STOPPED); // it has not been started
  return thread.return();
}, (thread) => thread.result !== 0 || hasFinished(thread) || thread.stopRequested);

/** The run has been asked to stop: its end comes, by an intercept after all or not. */
export const RUN_WAIT_CANCELLED: StepId = step<ClientThread>("client.run.wait-cancelled", takeCompletion, hasFinished);

/** The processor is IDLE and its command page is the VMM's again. */
function takeCompletion(thread: ClientThread): StepId {
  const { port, commandPage } = thread;
  port.exchange32(thread.client + client.run_state, STOPPED);
  const failed = port.load8(commandPage + page.has_error) !== 0;
  thread.locals32[CLIENT_INTERCEPT] = failed ? 0 : port.load8(commandPage + page.request_data);
  return thread.finish(failed ? CLIENT_RESULT.SIDECAR_ERROR : CLIENT_RESULT.OK);
}

/** Whether the run of the thread's processor has been reported complete. */
function hasFinished(thread: ClientThread): boolean {
  return thread.port.load32(thread.client + client.run_state) === FINISHED;
}

// --- Other commands -----------------------------------------------------------------------------------------------

/** Takes the only handle of the processor; the result is 0 or `IN_USE`. */
export const CLIENT_OPEN: StepId = step<ClientThread>("client.open", (thread) => {
  const used = thread.port.exchange32(thread.client + client.in_use, 1);
  return thread.finish(used === 0 ? CLIENT_RESULT.OK : CLIENT_RESULT.IN_USE);
});

/** Gives the handle back (a release store). */
export const CLIENT_CLOSE: StepId = step<ClientThread>("client.close", (thread) => {
  thread.port.store32(thread.client + client.in_use, 0);
  return thread.finish(CLIENT_RESULT.OK);
});

/**
 * Gets registers of VTL0: names and values are where {@linkcode CLIENT_LOCAL} says. Each part of 31 is a command. The
 * result is 0, the driver's error number, `SIDECAR_ERROR` or `HV_STATUS` plus a status.
 */
export const CLIENT_GET: StepId = step<ClientThread>("client.get.write-command", (thread) => {
  const { port, locals32 } = thread;
  const count = writeRequest(thread, SidecarCommand.values.GET_VP_REGISTERS);
  const names = locals32[LIST] + locals32[DONE] * NAME_BYTES;
  for (let k = 0; k < count; k++) port.store32(record(thread, k) + assoc.name, port.load32(names + k * NAME_BYTES));
  return thread.call(DRIVER_RUN, GET_READ_RESPONSE);
});

export const GET_READ_RESPONSE: StepId = step<ClientThread>("client.get.read-response", (thread) => {
  const error = commandResult(thread);
  if (error !== 0) return endBatch(thread, error);
  const { locals32 } = thread;
  const count = part(thread);
  for (let k = 0; k < count; k++) {
    const to = locals32[VALUES] + (locals32[DONE] + k) * HvRegisterValue.size;
    thread.port.copy(to, record(thread, k) + assoc.value, HvRegisterValue.size);
  }
  return nextPart(thread, count, CLIENT_GET);
});

/** Sets registers of VTL0 from records; otherwise like {@linkcode CLIENT_GET}. Records before a refused one are set. */
export const CLIENT_SET: StepId = step<ClientThread>("client.set.write-command", beginSet);

/** The first action of a set, for a step of a caller that has decided on one. Returns the step that follows. */
export function beginSet(thread: ClientThread): StepId {
  const { locals32 } = thread;
  const count = writeRequest(thread, SidecarCommand.values.SET_VP_REGISTERS);
  const from = locals32[LIST] + locals32[DONE] * HvRegisterAssoc.size;
  thread.port.copy(record(thread, 0), from, count * HvRegisterAssoc.size);
  return thread.call(DRIVER_RUN, SET_READ_RESPONSE);
}

export const SET_READ_RESPONSE: StepId = step<ClientThread>("client.set.read-response", (thread) => {
  const error = commandResult(thread);
  return error !== 0 ? endBatch(thread, error) : nextPart(thread, part(thread), CLIENT_SET);
});

/** Registers in the present command. */
function part({ locals32 }: ClientThread): number {
  return Math.min(locals32[COUNT] - locals32[DONE], SIDECAR.MAX_GET_SET_VP_REGISTERS);
}

/** Byte offset of record `k` of the present command. */
function record(thread: ClientThread, k: number): number {
  return thread.commandPage + page.request_data + GetSetVpRegisterRequest.size + k * HvRegisterAssoc.size;
}

/** Writes command and header of a register access; returns the number of records. */
function writeRequest(thread: ClientThread, command: number): number {
  const { port } = thread;
  const count = part(thread);
  const at = thread.commandPage + page.request_data;
  port.zero(at, GetSetVpRegisterRequest.size);
  port.store16(at + GetSetVpRegisterRequest.at.count, count);
  port.store8(at + GetSetVpRegisterRequest.at.target_vtl, TARGET_VTL0);
  port.store32(thread.commandPage + page.command, command);
  thread.count(client.commands);
  return count;
}

/** What the driver, the sidecar kernel and the hypervisor say of a register access: 0 when it worked. */
function commandResult(thread: ClientThread): number {
  if (thread.result !== 0) return thread.result;
  if (thread.port.load8(thread.commandPage + page.has_error) !== 0) return CLIENT_RESULT.SIDECAR_ERROR;
  const status = thread.port.load16(thread.commandPage + page.request_data + GetSetVpRegisterRequest.at.status);
  return status === HvStatus.values.Success ? 0 : CLIENT_RESULT.HV_STATUS + status;
}

function nextPart(thread: ClientThread, count: number, again: StepId): StepId {
  const { locals32 } = thread;
  locals32[DONE] += count;
  return locals32[DONE] < locals32[COUNT] ? again : endBatch(thread, CLIENT_RESULT.OK);
}

function endBatch(thread: ClientThread, result: number): StepId {
  thread.locals32[DONE] = 0;
  return thread.finish(result);
}

/** 64-bit words of `Agent.locals` that are arguments of {@linkcode CLIENT_TRANSLATE}. */
export const TRANSLATE_LOCAL = {
  /** Guest-virtual page number. */
  GVN: 5,
  /** `TranslateGvaControlFlagsX64`. */
  FLAGS: 6,
} as const;

/** Translates a page; a `TranslateGvaResponse` is in the command page's request data when the result is 0. */
export const CLIENT_TRANSLATE: StepId = step<ClientThread>("client.translate.write-command", (thread) => {
  const { port, locals } = thread;
  const at = thread.commandPage + page.request_data;
  port.store64(at + TranslateGvaRequest.at.gvn, locals[TRANSLATE_LOCAL.GVN]);
  port.store64(at + TranslateGvaRequest.at.control_flags, locals[TRANSLATE_LOCAL.FLAGS]);
  return runCommand(thread, SidecarCommand.values.TRANSLATE_GVA, TRANSLATE_READ_RESPONSE);
});

const TRANSLATE_READ_RESPONSE: StepId = step<ClientThread>("client.translate.read-response", (thread) => {
  if (thread.result !== 0) return thread.return();
  if (thread.port.load8(thread.commandPage + page.has_error) !== 0) return thread.finish(CLIENT_RESULT.SIDECAR_ERROR);
  const status = thread.port.load16(thread.commandPage + page.request_data + TranslateGvaResponse.at.status);
  return thread.finish(status === HvStatus.values.Success ? CLIENT_RESULT.OK : CLIENT_RESULT.HV_STATUS + status);
});

/** NONE, which does nothing: whether the processor answers. */
export const CLIENT_PING: StepId = step<ClientThread>(
  "client.ping.write-command",
  (thread) => runCommand(thread, SidecarCommand.values.NONE, PING_READ_RESPONSE),
);

const PING_READ_RESPONSE: StepId = step<ClientThread>("client.ping.read-response", (thread) => {
  if (thread.result !== 0) return thread.return();
  const failed = thread.port.load8(thread.commandPage + page.has_error) !== 0;
  return thread.finish(failed ? CLIENT_RESULT.SIDECAR_ERROR : CLIENT_RESULT.OK);
});

function runCommand(thread: ClientThread, command: number, after: StepId): StepId {
  thread.port.store32(thread.commandPage + page.command, command);
  thread.count(client.commands);
  return thread.call(DRIVER_RUN, after);
}

// --- The reader ---------------------------------------------------------------------------------------------------

/** Begins the task that reads the numbers of processors whose runs have ended. Returns its first step. */
export function beginReader(thread: ClientThread): StepId {
  return thread.call(DRIVER_READ, READER_NOTIFY);
}

/** Completes the future of the processor whose number was read. A completion that nobody waits for is a panic of the VMM. */
const READER_NOTIFY: StepId = step<ClientThread>("client.reader.notify", (thread) => {
  const found = thread.port.compareExchange32(thread.client + client.run_state, RUNNING, FINISHED);
  if (found !== RUNNING) {
    thread.memory.i32[(thread.client + client.panicked) >>> 2] = 1;
    return CLIENT_PANICKED;
  }
  thread.node.wires.woken();
  thread.locals32[SLOT] = 0;
  return beginReader(thread);
}, (thread) => !thread.heldByHandler);

/** The VMM has panicked. */
export const CLIENT_PANICKED: StepId = step<ClientThread>("client.panicked", () => CLIENT_PANICKED, () => false);
