/**
 * The usual courses of the VMM's task for a sidecar processor, each at once (`Agent.leap`): from the end of a run to its
 * exit's handler, from the handler to a command that gets or sets registers, and from that command's end to the handler or
 * to the next run. See `driver/leaps.ts`.
 *
 * @module
 */
import { HvStatus } from "../layout/hyperv/constants/hypercalls.ts";
import { SIDECAR, SidecarDriverVpState } from "../layout/hyperv/constants/sidecar.ts";
import { HvRegisterAssoc, HvRegisterValue } from "../layout/hyperv/registers.ts";
import { CommandPage, CpuStatus, GetSetVpRegisterRequest, SidecarCommand } from "../layout/hyperv/sidecar.ts";
import { AgentBlock, RETURN_STACK_DEPTH } from "../memory/agent.ts";
import { NOT_COMBINED, type StepId } from "../memory/steps.ts";
import { VmmRunState } from "../vtl2/kernel_pages.ts";
import { VmmVpState } from "../vtl2/vmm_state.ts";
import {
  CLIENT_INTERCEPT,
  CLIENT_LOCAL,
  GET_READ_RESPONSE,
  RUN_WAIT,
  SET_READ_RESPONSE,
  TARGET_VTL0,
} from "./client.ts";
import { ClientRunState, SidecarClientState } from "./client_state.ts";
import { REARM_LOAD_STATUS, RUN_WAIT_IDLE } from "./driver/start.ts";
import { SidecarDriverState } from "./driver/state.ts";
import { DRIVER_LOCAL, WARNING } from "./driver/thread.ts";
import { SidecarTaskState } from "./memory.ts";
import type { SidecarTask } from "./vmm_task.ts";

const taskAt = SidecarTaskState.at;
const client = SidecarClientState.at;
const page = CommandPage.at;
const request = GetSetVpRegisterRequest.at;
const block = AgentBlock.at;
const { AVAILABLE, SYNC, ASYNC_STARTING, ASYNC } = SidecarDriverVpState.values;
const { IDLE, RUN } = CpuStatus.values;
const { STOPPED, RUNNING, FINISHED } = ClientRunState.values;
const { GET_VP_REGISTERS, SET_VP_REGISTERS, RUN_VP } = SidecarCommand.values;
const RECORD_WORDS = HvRegisterAssoc.size / 4;
const VALUE_AT_WORD = HvRegisterAssoc.at.value / 4;
const VALUE_WORDS = HvRegisterValue.size / 4;
const REQUEST_WORDS = GetSetVpRegisterRequest.size / 4;

/** Steps of the task that a course begins, passes or ends at. */
export interface TaskSteps {
  /** Looks whether the task is to stop. */
  readonly checkStop: StepId;
  /** Looks after what woke the task. */
  readonly handleWake: StepId;
  /** Sets the registers that are waiting. */
  readonly flush: StepId;
  /** The registers are set. */
  readonly flushed: StepId;
  /** Gets the registers that a handler asked for. */
  readonly getWanted: StepId;
  /** They are there. */
  readonly gotWanted: StepId;
  /** The run has ended. */
  readonly runEnded: StepId;
  /** The handler of a message of a type, or undefined. */
  readonly handlerOf: (type: number) => StepId | undefined;
}

/** The courses of one task. */
export class TaskCourses {
  readonly #task: SidecarTask;
  readonly #steps: TaskSteps;
  readonly #u8: Uint8Array<SharedArrayBuffer>;
  readonly #u16: Uint16Array<SharedArrayBuffer>;
  readonly #i32: Int32Array<SharedArrayBuffer>;
  readonly #locals: Int32Array<SharedArrayBuffer>;
  readonly #slot: number;
  /** Byte offsets. */
  readonly #status: number;
  readonly #vpState: number;
  readonly #requestsLeft: number;
  readonly #hasError: number;
  readonly #data: number;
  /** Words. */
  readonly #command: number;
  readonly #message: number;
  readonly #request: number;
  readonly #client: number;
  readonly #taskState: number;
  readonly #runState: number;
  readonly #vmmState: number;
  readonly #depth: number;
  readonly #returns: number;
  readonly #wait: number;
  readonly #signal: number;
  readonly #bit: number;
  /** The last message's type and its handler: exits of one kind come one after the other. */
  #type = -1;
  #handler: StepId | undefined;

  /** The courses of `task`. */
  constructor(task: SidecarTask, steps: TaskSteps) {
    const { node, slot, memory, commandPage } = task;
    this.#task = task;
    this.#steps = steps;
    this.#u8 = memory.u8;
    this.#u16 = memory.u16;
    this.#i32 = memory.i32;
    this.#locals = task.locals32;
    this.#slot = slot;
    this.#status = task.status;
    this.#vpState = task.vpState;
    this.#requestsLeft = node.driver + SidecarDriverState.at.requests_left + slot;
    this.#hasError = commandPage + page.has_error;
    this.#data = commandPage + page.request_data;
    this.#command = (commandPage + page.command) >>> 2;
    this.#message = task.vmm.message >>> 2;
    this.#request = node.requestWords[slot] >>> 2;
    this.#client = task.client >>> 2;
    this.#taskState = task.taskState >>> 2;
    this.#runState = task.runState >>> 2;
    this.#vmmState = task.vmm.state >>> 2;
    this.#depth = (task.block + block.depth) >>> 2;
    this.#returns = (task.block + block.returns) >>> 2;
    this.#wait = task.waitWord >>> 2;
    this.#signal = task.signalWord >>> 2;
    this.#bit = task.waitBit;
  }

  /** The course that begins at `next`; as for `Agent.leap`. */
  take(next: StepId): StepId {
    const { checkStop, flush, getWanted } = this.#steps;
    switch (next) {
      case RUN_WAIT:
        return this.#endRun();
      case flush:
        return this.#setRegisters();
      case getWanted:
        return this.#getRegisters();
      case RUN_WAIT_IDLE:
        return this.#endCommand();
      case checkStop: {
        const after = this.#run();
        return after === checkStop ? NOT_COMBINED : after;
      }
      default:
        return NOT_COMBINED;
    }
  }

  /** The step to which the task's innermost machine returns. */
  get #top(): StepId {
    const i32 = this.#i32;
    return i32[this.#returns + i32[this.#depth] - 1];
  }

  #handlerOf(type: number): StepId | undefined {
    if (type !== this.#type) {
      this.#type = type;
      this.#handler = this.#steps.handlerOf(type);
    }
    return this.#handler;
  }

  #push(step: StepId): void {
    const i32 = this.#i32;
    const depth = i32[this.#depth];
    if (depth >= RETURN_STACK_DEPTH) throw new RangeError(`Agent '${this.#task.name}' calls too deep`);
    i32[this.#returns + depth] = step;
    i32[this.#depth] = depth + 1;
  }

  #pop(): void {
    const i32 = this.#i32;
    const depth = --i32[this.#depth];
    i32[this.#returns + depth] = 0;
  }

  /** client.run.wait, sidecar-vmm.dispatch. */
  #endRun(): StepId {
    const i32 = this.#i32;
    const { runEnded } = this.#steps;
    const intercept = this.#u8[this.#data];
    if (i32[this.#client + (client.run_state >>> 2)] !== FINISHED || this.#u8[this.#hasError] !== 0) {
      return NOT_COMBINED;
    }
    if (intercept === 0 || this.#top !== runEnded) return NOT_COMBINED;
    const handler = this.#handlerOf(i32[this.#message] >>> 0);
    if (handler === undefined) return NOT_COMBINED;
    i32[this.#client + (client.run_state >>> 2)] = STOPPED;
    this.#locals[CLIENT_INTERCEPT] = intercept;
    this.#locals[DRIVER_LOCAL.RESULT] = 0;
    this.#pop();
    return handler;
  }

  /** sidecar-vmm.set-registers, then {@linkcode #begin}. */
  #setRegisters(): StepId {
    const i32 = this.#i32;
    const count = i32[this.#taskState + (taskAt.set_count >>> 2)];
    if (!this.#mayBegin(count)) return NOT_COMBINED;
    const records = this.#taskState + (taskAt.set_records >>> 2);
    const to = (this.#data >>> 2) + REQUEST_WORDS;
    for (let word = 0; word < count * RECORD_WORDS; word++) i32[to + word] = i32[records + word];
    this.#push(this.#steps.flushed);
    this.#push(SET_READ_RESPONSE);
    return this.#begin(SET_VP_REGISTERS, records, count);
  }

  /** sidecar-vmm.get-registers, client.get.write-command, then {@linkcode #begin}. */
  #getRegisters(): StepId {
    const i32 = this.#i32;
    const count = i32[this.#taskState + (taskAt.get_count >>> 2)];
    if (!this.#mayBegin(count)) return NOT_COMBINED;
    const names = this.#taskState + (taskAt.get_names >>> 2);
    const to = (this.#data >>> 2) + REQUEST_WORDS;
    for (let k = 0; k < count; k++) i32[to + k * RECORD_WORDS] = i32[names + k];
    this.#locals[CLIENT_LOCAL.VALUES] = i32[this.#taskState + (taskAt.get_at >>> 2)];
    this.#push(this.#steps.gotWanted);
    this.#push(GET_READ_RESPONSE);
    return this.#begin(GET_VP_REGISTERS, names, count);
  }

  /** Whether a command for `count` registers can take its usual course. */
  #mayBegin(count: number): boolean {
    return count > 0 && count <= SIDECAR.MAX_GET_SET_VP_REGISTERS && this.#locals[CLIENT_LOCAL.DONE] === 0 &&
      this.#parked;
  }

  /** driver.run.claim, driver.run.set-run, driver.run.send-ipi, driver.run.wait-idle, for the registers in the list at word `list`. */
  #begin(command: number, list: number, count: number): StepId {
    const i32 = this.#i32;
    const locals = this.#locals;
    const data = this.#data >>> 2;
    locals[CLIENT_LOCAL.LIST] = list << 2;
    locals[CLIENT_LOCAL.COUNT] = count;
    for (let word = 0; word < REQUEST_WORDS; word++) i32[data + word] = 0;
    this.#u16[(this.#data + request.count) >>> 1] = count;
    this.#u8[this.#data + request.target_vtl] = TARGET_VTL0;
    i32[this.#command] = command;
    i32[this.#client + (client.commands >>> 2)]++;
    this.#u8[this.#vpState] = SYNC;
    this.#start();
    i32[this.#wait] |= this.#bit;
    if (this.#u8[this.#status] === IDLE) i32[this.#wait] &= ~this.#bit; // as fast as that: the step finds it
    return RUN_WAIT_IDLE;
  }

  /** driver.run.wait-idle, driver.run.release, client.set.read-response or client.get.read-response, and what follows. */
  #endCommand(): StepId {
    const i32 = this.#i32;
    const locals = this.#locals;
    const top = this.#returns + i32[this.#depth] - 1;
    const { flushed, gotWanted } = this.#steps;
    const sets = i32[top] === SET_READ_RESPONSE && i32[top - 1] === flushed;
    const gets = i32[top] === GET_READ_RESPONSE && i32[top - 1] === gotWanted;
    if (!sets && !gets) return NOT_COMBINED;
    if ((i32[this.#signal] & this.#bit) !== 0 || this.#u8[this.#status] !== IDLE) return NOT_COMBINED;
    if (this.#u8[this.#hasError] !== 0 || locals[CLIENT_LOCAL.DONE] !== 0) return NOT_COMBINED;
    if (this.#u16[(this.#data + request.status) >>> 1] !== HvStatus.values.Success) return NOT_COMBINED;
    const handler = gets ? this.#handlerOf(i32[this.#message] >>> 0) : undefined;
    if (gets && handler === undefined) return NOT_COMBINED;
    this.#u8[this.#vpState] = AVAILABLE;
    locals[DRIVER_LOCAL.RESULT] = 0;
    this.#pop();
    this.#pop();
    if (handler === undefined) {
      i32[this.#taskState + (taskAt.set_count >>> 2)] = 0;
      return this.#run();
    }
    const from = (this.#data >>> 2) + REQUEST_WORDS + VALUE_AT_WORD;
    const to = locals[CLIENT_LOCAL.VALUES] >>> 2;
    for (let k = 0, count = locals[CLIENT_LOCAL.COUNT]; k < count; k++) {
      for (let word = 0; word < VALUE_WORDS; word++) {
        i32[to + k * VALUE_WORDS + word] = i32[from + k * RECORD_WORDS + word];
      }
    }
    return handler;
  }

  /** sidecar-vmm.check-stop, sidecar-vmm.handle-wake, sidecar-vmm.run, driver.start.claim to driver.rearm.load-status. */
  #run(): StepId {
    const i32 = this.#i32;
    const { checkStop, handleWake, runEnded } = this.#steps;
    const task = this.#taskState;
    const stops = i32[task + (taskAt.cancel >>> 2)] | i32[task + (taskAt.kick >>> 2)] |
      i32[this.#runState + (VmmRunState.at.stop >>> 2)];
    if (stops !== 0 || !this.#parked) return checkStop;
    const vmm = this.#vmmState;
    const { deliverability_next: next, deliverability_current: current } = VmmVpState.at;
    const changes = (i32[vmm + (next >>> 2)] ^ i32[vmm + (current >>> 2)]) |
      (i32[vmm + (next >>> 2) + 1] ^ i32[vmm + (current >>> 2) + 1]);
    if (changes !== 0 || i32[this.#runState + (VmmRunState.at.wake >>> 2)] !== 0) return handleWake;
    this.#push(runEnded);
    i32[this.#command] = RUN_VP;
    i32[this.#client + (client.run_state >>> 2)] = RUNNING;
    i32[this.#client + (client.runs >>> 2)]++;
    this.#u8[this.#vpState] = ASYNC_STARTING;
    this.#start();
    this.#u8[this.#vpState] = ASYNC;
    if (this.#u8[this.#status] === IDLE) {
      this.#push(RUN_WAIT);
      return REARM_LOAD_STATUS;
    }
    this.#locals[DRIVER_LOCAL.RESULT] = 0;
    return RUN_WAIT;
  }

  /** Whether the processor can be claimed, is parked, and nothing but a start will wake it. */
  get #parked(): boolean {
    const u8 = this.#u8;
    return u8[this.#vpState] === AVAILABLE && u8[this.#status] === IDLE && u8[this.#requestsLeft] === 0 &&
      (this.#locals[DRIVER_LOCAL.WARNINGS] & WARNING.START) === 0;
  }

  /** The request goes to the processor, which is {@linkcode #parked}. */
  #start(): void {
    const { node, port } = this.#task;
    Atomics.compareExchange(this.#u8, this.#status, IDLE, RUN);
    Atomics.or(this.#i32, this.#request, 1);
    node.wires.started(port, this.#slot);
  }
}
