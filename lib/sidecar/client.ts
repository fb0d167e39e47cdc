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
import { CommandPage, SidecarCommand } from "../layout/hyperv/sidecar.ts";
import type { MemoryPort } from "../memory/port.ts";
import { step, type StepId } from "../memory/steps.ts";
import { ClientRunState, SidecarClientState } from "./client_state.ts";
import { DRIVER_READ } from "./driver/scan.ts";
import { DRIVER_START } from "./driver/start.ts";
import { DRIVER_STOP } from "./driver/stop.ts";
import { DRIVER_LOCAL, DriverThread } from "./driver/thread.ts";
import type { SidecarNode } from "./node.ts";

const { STOPPED, RUNNING, FINISHED } = ClientRunState.values;
const client = SidecarClientState.at;
const page = CommandPage.at;
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
} as const;

/** A thread of the VMM that uses sidecar processors. Which one is in `DRIVER_LOCAL.SLOT`. */
export class ClientThread extends DriverThread {
  /** Byte offset of the {@linkcode SidecarClientState} of the node's first processor. */
  readonly clients: number;

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
const RUN_WAIT_CANCELLED: StepId = step<ClientThread>("client.run.wait-cancelled", takeCompletion, hasFinished);

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
