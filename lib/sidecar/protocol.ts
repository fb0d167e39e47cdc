/**
 * The driver's protocol alone: a node whose processors have no guest, and one VMM thread for each, which runs its
 * processor a number of times. Reader, response interrupt and, where wanted, threads that stop or remove a processor, or
 * ask for the stop of a run, are the real ones. All of its state is in a few words of the memory, so that its
 * interleavings can be searched.
 *
 * @module
 */
import { type Agent, AgentBlock } from "../memory/agent.ts";
import { MachineMemory, PAGE_SIZE } from "../memory/machine_memory.ts";
import { DirectPort, type MemoryPort } from "../memory/port.ts";
import { POLICIES_MAX, policyNamed, policyValue } from "../memory/policy.ts";
import { HALTED, step, type StepId } from "../memory/steps.ts";
import { SidecarDriverVpState } from "../layout/hyperv/constants/sidecar.ts";
import { ControlPage, CpuStatus, SidecarVpSharedMemory } from "../layout/hyperv/sidecar.ts";
import { beginReader, beginRun, CLIENT_INTERCEPT, ClientThread, RUN_WAIT, RUN_WAIT_CANCELLED } from "./client.ts";
import { ClientRunState, SidecarClientState } from "./client_state.ts";
import { DRIVER_INTERRUPT, ResponseHandler } from "./driver/interrupt.ts";
import { DRIVER_REMOVE } from "./driver/remove.ts";
import { DRIVER_STOP } from "./driver/stop.ts";
import { SidecarDriverState } from "./driver/state.ts";
import { DRIVER_LOCAL } from "./driver/thread.ts";
import { park } from "./kernel/command_loop.ts";
import { GuestlessProcessor, INTERCEPTS_LEFT } from "./kernel/guestless.ts";
import { KERNEL_LOCAL } from "./kernel/processor.ts";
import { SidecarNode } from "./node.ts";

const control = ControlPage.at;
const driver = SidecarDriverState.at;
const { IDLE, REMOVED } = CpuStatus.values;
/** Vector of Linux's platform IPI; any but 0 makes the processors interrupt. */
const RESPONSE_VECTOR = 0xf7;
/** Words of `Agent.locals32` of the VMM's threads here. */
export const THREAD_LOCAL = {
  /** Runs that the thread makes. */
  ROUNDS: 0,
  /** Runs that it has begun. */
  BEGUN: 1,
} as const;

const { ROUNDS, BEGUN } = THREAD_LOCAL;
const STOP_REQUESTED = SidecarClientState.at.stop_requested;
const RUN_STATE = SidecarClientState.at.run_state;

/** A thread of the VMM that can be asked to stop its run. */
class VmmThread extends ClientThread {
  override get stopRequested(): boolean {
    return this.port.load32(this.client + STOP_REQUESTED) !== 0;
  }
}

/** Runs its processor until no rounds are left. What the VMM does with an exit here is to begin the next round. */
export const VMM_RUN: StepId = step<ClientThread>(
  "vmm.begin-run",
  beginRound,
  (thread) => thread.locals32[BEGUN] < thread.locals32[ROUNDS] && thread.result === 0,
);

function beginRound(thread: ClientThread): StepId {
  thread.locals32[BEGUN]++;
  // Nobody asks for a stop between two runs, so that this is seen by nobody.
  if (thread.stopRequested) thread.port.exchange32(thread.client + STOP_REQUESTED, 0);
  thread.call(VMM_RUN, VMM_RUN); // where the run returns to
  return beginRun(thread);
}

/** Somebody in the VMM wants the run under way to stop: the thread that waits for its end cancels it. */
const REQUEST_STOP: StepId = step<ClientThread>("vmm.request-stop", (thread) => {
  thread.port.exchange32(thread.client + STOP_REQUESTED, 1);
  return REQUEST_STOP;
}, ({ port, client }) => {
  return port.load32(client + RUN_STATE) === ClientRunState.values.RUNNING &&
    port.load32(client + STOP_REQUESTED) === 0;
});

/** The prepare hook of bringing a processor online has returned; an error keeps Linux from starting it. */
export const CPU_PREPARED: StepId = step<ClientThread>("linux.start-cpu", (thread) => {
  return thread.result === 0 ? CPU_STARTED : HALTED;
});

/** Whether Linux starts the thread's processor now, or has. */
export function startsProcessor(thread: ClientThread): boolean {
  return thread.step === CPU_STARTED || thread.step === CPU_PREPARED && thread.result === 0;
}

/** Linux has started the processor, which must have left the sidecar. */
export const CPU_STARTED: StepId = step<ClientThread>("linux.cpu-started", () => CPU_STARTED, () => false);

/** What a protocol is made of. */
export interface ProtocolOptions {
  /** Sidecar processors, 1 to 31. */
  readonly vps: number;
  /** Runs of each. */
  readonly rounds: number;
  /** Chosen policy values by policy name; the others have their defaults. */
  readonly policies?: Readonly<Record<string, string>>;
  /** Processors, from 1, each of which a further thread asks once to stop. */
  readonly stop?: readonly number[];
  /** Processors, from 1, each of whose runs the VMM may want to stop at any time. */
  readonly cancel?: readonly number[];
  /** Processors, from 1, each of which Linux brings online at any time. */
  readonly remove?: readonly number[];
  /** Intercepts that VTL0 of each processor makes before it runs on until it is interrupted; `rounds` when absent. */
  readonly intercepts?: number;
}

/** A range of the memory in bytes. */
export interface Range {
  /** Byte offset. */
  readonly at: number;
  /** Number of bytes. */
  readonly bytes: number;
}

const LINE = 64;
const up = (bytes: number, unit: number): number => Math.ceil(bytes / unit) * unit;

/** A node without guests and everything around it. The same options give the same memory, byte by byte. */
export class SidecarProtocol {
  /** What it was made of. */
  readonly options: ProtocolOptions;
  /** The machine's memory. */
  readonly memory: MachineMemory;
  /** The node of the sidecar. */
  readonly node: SidecarNode;
  /** The VMM's threads, one for each processor: of processor 1, 2, ... */
  readonly starters: readonly ClientThread[];
  /** The client's task that reads which runs have ended. */
  readonly reader: ClientThread;
  /** The response interrupt's handler. */
  readonly handler: ResponseHandler;
  /** The processors 1, 2, ... */
  readonly processors: readonly GuestlessProcessor[];
  /** Threads that stop a run, as `options.stop` asks. */
  readonly stoppers: readonly ClientThread[];
  /** Who wants runs to stop, as `options.cancel` asks. */
  readonly cancellers: readonly ClientThread[];
  /** Linux's threads that bring a processor online, as `options.remove` asks. */
  readonly removers: readonly ClientThread[];
  /** All of them, in a fixed order. */
  readonly agents: readonly Agent[];
  /** Byte offset of the policy area. */
  readonly policies: number;
  /** Every byte of the memory that a step can change lies in one of these; offsets and sizes are multiples of 4. */
  readonly mutable: readonly Range[];
  readonly #clients: number;

  /** Lays out and initialises a protocol: every processor is IDLE and parked. Throws `BadInput` on unknown policies. */
  constructor(options: ProtocolOptions, port?: (memory: MachineMemory) => MemoryPort) {
    this.options = options;
    const { vps, rounds, stop = [], cancel = [], remove = [] } = options;
    const slots = vps + 1;
    const threads = vps + 1 + stop.length + cancel.length + remove.length;
    const sharedPages = PAGE_SIZE;
    const driverState = sharedPages + slots * SidecarVpSharedMemory.size;
    const clients = driverState + up(SidecarDriverState.size, LINE);
    const requests = clients + slots * SidecarClientState.size;
    this.policies = requests + up(slots * 4, LINE);
    const blocks = this.policies + POLICIES_MAX;
    const memory = MachineMemory.allocate(blocks + (threads + 1 + vps) * AgentBlock.size);
    this.memory = memory;
    this.#clients = clients;
    const direct = port?.(memory) ?? new DirectPort(memory);
    this.node = new SidecarNode({
      memory,
      index: 0,
      controlPage: 0,
      sharedPages,
      driver: driverState,
      baseVp: 0,
      vpCount: slots,
      threads,
      requestWords: Array.from({ length: slots }, (_, slot) => requests + slot * 4),
      policies: this.policies,
    });
    const { node } = this;

    let block = blocks;
    let thread = 0;
    const nextBlock = () => (block += AgentBlock.size) - AgentBlock.size;
    const newThread = (name: string, slot: number, onBaseCpu = false) => {
      const created = new VmmThread(name, node, nextBlock(), direct, thread++, clients, onBaseCpu);
      created.locals32[DRIVER_LOCAL.SLOT] = slot;
      return created;
    };
    const numbers = Array.from({ length: vps }, (_, vp) => vp + 1);
    this.starters = numbers.map((slot) => newThread(`vmm${slot}`, slot));
    this.reader = newThread("reader", 0, true);
    this.stoppers = stop.map((slot) => newThread(`stop${slot}`, slot));
    this.cancellers = cancel.map((slot) => newThread(`cancel${slot}`, slot));
    this.removers = remove.map((slot) => newThread(`online${slot}`, slot));
    this.handler = new ResponseHandler("irq", node, nextBlock(), direct);
    const stays = stop.length + cancel.length > 0;
    this.processors = numbers.map((slot) => new GuestlessProcessor(node, slot, nextBlock(), direct, stays));
    this.agents = [
      ...this.starters,
      this.reader,
      this.handler,
      ...this.stoppers,
      ...this.cancellers,
      ...this.removers,
      ...this.processors,
    ];

    for (const [name, value] of Object.entries(options.policies ?? {})) {
      const chosen = policyNamed(name);
      memory.u8[this.policies + chosen.index] = policyValue(chosen, value);
    }
    memory.u32[control.cpu_count >>> 2] = slots;
    memory.u32[control.response_vector >>> 2] = RESPONSE_VECTOR;
    memory.u8.fill(IDLE, node.statuses + 1, node.statuses + slots);
    memory.u8[node.statuses] = REMOVED;
    memory.u8.fill(SidecarDriverVpState.values.AVAILABLE, node.vpStates, node.vpStates + slots);
    memory.u8[node.vpStates] = SidecarDriverVpState.values.REMOVED;
    for (const starter of this.starters) {
      starter.locals32[ROUNDS] = rounds;
      starter.step = rounds > 0 ? beginRound(starter) : VMM_RUN;
    }
    this.reader.step = beginReader(this.reader);
    this.handler.step = DRIVER_INTERRUPT;
    for (const stopper of this.stoppers) stopper.step = stopper.call(DRIVER_STOP, HALTED);
    for (const canceller of this.cancellers) canceller.step = REQUEST_STOP;
    for (const remover of this.removers) remover.step = remover.call(DRIVER_REMOVE, CPU_PREPARED);
    for (const processor of this.processors) {
      processor.locals32[INTERCEPTS_LEFT] = options.intercepts ?? rounds;
      processor.step = park(processor);
    }

    const statusWords = up(slots, 4);
    this.mutable = [
      { at: node.needsAttention, bytes: 4 },
      { at: node.statuses, bytes: statusWords },
      ...numbers.flatMap((slot) => [
        { at: node.commandPage(slot), bytes: 8 },
        { at: node.requestData(slot), bytes: 4 },
        { at: node.requestWords[slot], bytes: 4 },
        { at: this.client(slot) + RUN_STATE, bytes: 4 },
        { at: this.client(slot) + SidecarClientState.at.panicked, bytes: 4 },
        ...(cancel.includes(slot) ? [{ at: this.client(slot) + STOP_REQUESTED, bytes: 4 }] : []),
      ]),
      { at: node.vpStates, bytes: statusWords },
      { at: node.needsVpScan, bytes: driver.waiters - driver.needs_vp_scan + 4 * Math.ceil(threads / 32) },
      { at: driverState + driver.request_due, bytes: statusWords },
      { at: driverState + driver.response_irr, bytes: 4 },
      ...this.agents.flatMap(changingWords),
    ];
  }

  /** Byte offset of the client's state of processor `slot`. */
  client(slot: number): number {
    return this.#clients + slot * SidecarClientState.size;
  }

  /** How many exits the VMM's thread of processor `slot` has handled. */
  handled(slot: number): number {
    const starter = this.starters[slot - 1];
    return starter.locals32[BEGUN] - (starter.step === VMM_RUN && starter.result === 0 ? 0 : 1);
  }

  /** How many runs the VMM's thread of processor `slot` has begun. */
  begun(slot: number): number {
    return this.starters[slot - 1].locals32[BEGUN];
  }

  /** How many runs processor `slot` has completed. */
  completed(slot: number): number {
    return this.processors[slot - 1].locals32[KERNEL_LOCAL.COMMANDS];
  }

  /** Whether the next step of the VMM's thread of processor `slot` touches the command page, and can be taken. */
  touchesPage(slot: number): boolean {
    const starter = this.starters[slot - 1];
    if (starter.step === VMM_RUN) return starter.enabled;
    const waits = starter.step === RUN_WAIT || starter.step === RUN_WAIT_CANCELLED;
    return waits && this.memory.i32[(this.client(slot) + RUN_STATE) >>> 2] === ClientRunState.values.FINISHED;
  }

  /** Whether no agent can take a step. */
  get quiescent(): boolean {
    return this.agents.every((agent) => !agent.enabled);
  }

  /** Whether every thread of the VMM and of Linux has come to its end. */
  get done(): boolean {
    return this.starters.every((thread) => thread.step === VMM_RUN && !thread.enabled) &&
      this.stoppers.every((thread) => thread.halted) &&
      this.removers.every((thread) => thread.halted || thread.step === CPU_STARTED);
  }
}

/** The words of an agent's block that its steps change here. */
function changingWords(agent: Agent): Range[] {
  const local = (index: number) => ({ at: agent.block + AgentBlock.at.locals + index * 4, bytes: 4 });
  const calls = { at: agent.block, bytes: AgentBlock.at.returns + 8 };
  if (agent instanceof ResponseHandler) return [{ at: agent.block, bytes: 4 }];
  if (agent instanceof GuestlessProcessor) {
    return [calls, local(KERNEL_LOCAL.COMMANDS), local(KERNEL_LOCAL.PANICKED), local(INTERCEPTS_LEFT)];
  }
  const { SLOT, RESULT, INDEX, WARNINGS } = DRIVER_LOCAL;
  return [calls, ...[BEGUN, CLIENT_INTERCEPT, SLOT, RESULT, INDEX, WARNINGS].map(local)];
}
