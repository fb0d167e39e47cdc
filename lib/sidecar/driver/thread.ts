/**
 * A thread in Linux's sidecar driver: what an ioctl, a read or the path that brings a processor online runs on.
 *
 * @module
 */
import { Agent } from "../../memory/agent.ts";
import type { MemoryPort } from "../../memory/port.ts";
import { type StepId } from "../../memory/steps.ts";
import { step } from "../../memory/steps.ts";
import { DRIVER_READER } from "../policies.ts";
import type { SidecarNode } from "../node.ts";
import { SidecarDriverState } from "./state.ts";

const at = SidecarDriverState.at;

/** Words of `Agent.locals32` that the driver's machines use. */
export const DRIVER_LOCAL = {
  /** Argument: the processor's number in its node. After a read: the processor that has stopped. */
  SLOT: 24,
  /** Result: 0 or one of {@linkcode ERRNO}. */
  RESULT: 25,
  /** Processor that a scan or a read looks at. */
  INDEX: 26,
  /** Value of `cpu_status` that was loaded last. */
  STATUS: 27,
  /** Warnings that the kernel logged for this thread so far: bits of {@linkcode WARNING}. */
  WARNINGS: 28,
} as const;

/** Error numbers of Linux that the driver returns. */
export const ERRNO = {
  /** ENOENT: the processor is gone. */
  ENOENT: 2,
  /** EIO: the processor is in a state that it should not be in. */
  EIO: 5,
  /** EBUSY: the processor runs for somebody else. */
  EBUSY: 16,
  /** EINVAL: there is no run that could be stopped. */
  EINVAL: 22,
} as const;

/** What the driver warns of. */
export const WARNING = {
  /** A processor that was to be started was not IDLE. */
  START: 1 << 0,
  /** A processor that was to be stopped was in no state of a run. */
  STOP: 1 << 1,
  /** A processor that was to be removed was not IDLE. */
  REMOVE: 1 << 2,
} as const;

/** One thread that can be in the driver. */
export class DriverThread extends Agent {
  /** The node of the sidecar. */
  readonly node: SidecarNode;
  /** Its number among the threads of the node's driver. */
  readonly thread: number;
  /** Whether it executes on the node's base processor under policy `driver.reader` `base-cpu`. */
  readonly onBaseCpu: boolean;
  /** Byte offset of the word of the wait queue in which it has its bit. */
  readonly waitWord: number;
  /** Byte offset of the word of pending signals in which it has its bit. */
  readonly signalWord: number;
  /** Its bit in both. */
  readonly waitBit: number;

  /** Thread number `thread` of the driver of `node`, over the agent block at byte offset `block`. */
  constructor(name: string, node: SidecarNode, block: number, port: MemoryPort, thread: number, onBaseCpu = false) {
    super(name, node.memory, block, port);
    this.node = node;
    this.thread = thread;
    this.onBaseCpu = onBaseCpu;
    const word = (thread >>> 5) * 4;
    this.waitWord = node.driver + at.waiters + word;
    this.signalWord = node.driver + at.signals + word;
    this.waitBit = 1 << (thread & 31);
  }

  /** The processor that the present operation is about. */
  get slot(): number {
    return this.locals32[DRIVER_LOCAL.SLOT];
  }

  /** Byte offset of `cpu_status` of the processor that the present operation is about. */
  get status(): number {
    return this.node.statuses + this.slot;
  }

  /** Byte offset of `vp_state` of the processor that the present operation is about. */
  get vpState(): number {
    return this.node.vpStates + this.slot;
  }

  /** Result of the last operation. */
  get result(): number {
    return this.locals32[DRIVER_LOCAL.RESULT];
  }

  /** Ends an operation with `result`; returns the caller's next step. */
  finish(result: number): StepId {
    this.locals32[DRIVER_LOCAL.RESULT] = result;
    return this.return();
  }

  /**
   * Ends an operation whose result is there already: back to user mode, which drains the store buffer. A store before it
   * in the same step is thereby seen by all at once; seen late, it would be the same as a step that is taken later.
   */
  returnToUser(): StepId {
    this.port.fence();
    return this.return();
  }

  /** What it has warned of so far: bits of {@linkcode WARNING}. */
  get warnings(): number {
    return this.locals32[DRIVER_LOCAL.WARNINGS];
  }

  /** Logs a warning. */
  warn(warning: number): void {
    this.locals32[DRIVER_LOCAL.WARNINGS] |= warning;
  }

  /** Whether it is on the wait queue and has not been woken. */
  get asleep(): boolean {
    return (this.port.load32(this.waitWord) & this.waitBit) !== 0;
  }

  /** Whether a signal is pending for it. */
  get signalled(): boolean {
    return (this.port.load32(this.signalWord) & this.waitBit) !== 0;
  }

  /** Takes the signal that is pending for it. */
  takeSignal(): void {
    this.port.and32(this.signalWord, ~this.waitBit);
  }

  /** Whether the response interrupt's handler keeps it from executing, because both are on the base processor. */
  get heldByHandler(): boolean {
    return this.onBaseCpu && this.node.policy(DRIVER_READER) === DRIVER_READER.is["base-cpu"] &&
      this.port.load32(this.node.driver + at.handler_active) !== 0;
  }

  /**
   * A condition wait: true when `condition` holds. Otherwise the thread is on the wait queue when this returns, and its
   * step is not enabled until somebody has woken it. It is put there before the condition is looked at for the last
   * time, so that no wake can fall in between.
   */
  waitFor(condition: (thread: this) => boolean): boolean {
    if (condition(this)) return true;
    this.port.or32(this.waitWord, this.waitBit);
    if (!condition(this)) return false;
    this.leaveQueue();
    return true;
  }

  /** Leaves the wait queue without having been woken. */
  leaveQueue(): void {
    this.port.and32(this.waitWord, ~this.waitBit);
  }
}

/** Back to user mode; the result is in {@linkcode DRIVER_LOCAL.RESULT}. */
export const RETURN_TO_USER: StepId = step<DriverThread>("driver.return-to-user", (thread) => thread.returnToUser());
