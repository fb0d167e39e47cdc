/**
 * A sidecar node as its agents see it: where its control page, its processors' shared pages and the driver's state lie.
 *
 * @module
 */
import { CommandPage, ControlPage, SidecarVpSharedMemory } from "../layout/hyperv/sidecar.ts";
import type { MachineMemory } from "../memory/machine_memory.ts";
import { type Policy, policyAt } from "../memory/policy.ts";
import type { MemoryPort } from "../memory/port.ts";
import { SidecarDriverState, THREAD_WORDS } from "./driver/state.ts";

const THREADS_PER_WORD = 32;
const driver = SidecarDriverState.at;
/** The request vector is the first of its word of the interrupt request register. */
const REQUEST_BIT = 1;

/** What surrounds a node's interrupts and sleeps, beyond the words that the agents themselves look at. */
export interface SidecarWires {
  /** Processor `slot` has been sent the request interrupt. */
  requested(port: MemoryPort, slot: number): void;
  /** Processor `slot`, which is parked, has been sent the request interrupt of a start. */
  started(port: MemoryPort, slot: number): void;
  /** Whether a request interrupt that is not a start's may be pending on processor `slot`. */
  mayBePending(port: MemoryPort, slot: number): boolean;
  /** Processor `slot` has taken the request interrupt. */
  taken(port: MemoryPort, slot: number): void;
  /** The base processor has been sent the response interrupt. */
  responded(port: MemoryPort): void;
  /** Threads of the driver may go on. */
  woken(): void;
}

/** Nobody but the agents themselves looks: the explorer asks each whether it is enabled. */
const NO_WIRES: SidecarWires = {
  requested() {},
  started() {},
  mayBePending: () => true,
  taken() {},
  responded() {},
  woken() {},
};

/** Where the parts of a node lie. */
export interface SidecarNodeParts {
  /** The machine's memory. */
  readonly memory: MachineMemory;
  /** Number of the node, in the order of creation. */
  readonly index: number;
  /** Byte offset of its `ControlPage`. */
  readonly controlPage: number;
  /** Byte offset of the first processor's `SidecarVpSharedMemory`. */
  readonly sharedPages: number;
  /** Byte offset of its {@linkcode SidecarDriverState}. */
  readonly driver: number;
  /** VP index of its first processor, which runs Linux. */
  readonly baseVp: number;
  /** Processors, the base processor included. */
  readonly vpCount: number;
  /** Number of the driver's threads. */
  readonly threads: number;
  /** Byte offset of the word of each processor's interrupt request register that holds the request vector. */
  readonly requestWords: readonly number[];
  /** Byte offset of the machine's policy area. */
  readonly policies: number;
  /** Absent in the explorer. */
  readonly wires?: SidecarWires;
}

/** A node. Everything changeable is in the shared memory. */
export class SidecarNode {
  /** The machine's memory. */
  readonly memory: MachineMemory;
  /** Number of the node, in the order of creation. */
  readonly index: number;
  /** Byte offset of its `ControlPage`. */
  readonly controlPage: number;
  /** Byte offset of its first processor's shared pages. */
  readonly sharedPages: number;
  /** Byte offset of its `SidecarDriverState`. */
  readonly driver: number;
  /** VP index of its first processor, which runs Linux. */
  readonly baseVp: number;
  /** Processors in it, the base processor included. */
  readonly vpCount: number;
  /** What surrounds its interrupts and sleeps. */
  readonly wires: SidecarWires;
  /** Byte offset of `cpu_status[0]`. */
  readonly statuses: number;
  /** Byte offset of `needs_attention`. */
  readonly needsAttention: number;
  /** Byte offset of `vp_state[0]`. */
  readonly vpStates: number;
  /** Byte offset of `needs_vp_scan`. */
  readonly needsVpScan: number;
  /** Byte offset of `num_vps_stopped`. */
  readonly numVpsStopped: number;
  /** Byte offset of the word of each processor's interrupt request register that holds the request vector. */
  readonly requestWords: readonly number[];
  readonly #policies: number;
  readonly #threadWords: number;

  /** The node that `parts` describes. */
  constructor(parts: SidecarNodeParts) {
    this.memory = parts.memory;
    this.index = parts.index;
    this.controlPage = parts.controlPage;
    this.sharedPages = parts.sharedPages;
    this.driver = parts.driver;
    this.baseVp = parts.baseVp;
    this.vpCount = parts.vpCount;
    this.wires = parts.wires ?? NO_WIRES;
    this.statuses = parts.controlPage + ControlPage.at.cpu_status;
    this.needsAttention = parts.controlPage + ControlPage.at.needs_attention;
    this.vpStates = parts.driver + driver.vp_state;
    this.needsVpScan = parts.driver + driver.needs_vp_scan;
    this.numVpsStopped = parts.driver + driver.num_vps_stopped;
    this.requestWords = parts.requestWords;
    this.#policies = parts.policies;
    this.#threadWords = Math.ceil(parts.threads / THREADS_PER_WORD);
    if (this.#threadWords > THREAD_WORDS) throw new RangeError(`${parts.threads} threads in one sidecar driver`);
  }

  /** Byte offset of the command page of processor `slot`. */
  commandPage(slot: number): number {
    return this.sharedPages + slot * SidecarVpSharedMemory.size + SidecarVpSharedMemory.at.command_page;
  }

  /** Byte offset of the register page of processor `slot`. */
  registerPage(slot: number): number {
    return this.sharedPages + slot * SidecarVpSharedMemory.size + SidecarVpSharedMemory.at.register_page;
  }

  /** Byte offset of `request_data` of processor `slot`. */
  requestData(slot: number): number {
    return this.commandPage(slot) + CommandPage.at.request_data;
  }

  /** The number of the chosen value of `policy`. */
  policy(policy: Policy): number {
    return policyAt(this.memory.u8, this.#policies, policy);
  }

  /** Sends the request interrupt to processor `slot`. Sending an IPI drains the sender's store buffer. */
  sendRequest(port: MemoryPort, slot: number): void {
    port.fence();
    port.or32(this.requestWords[slot], REQUEST_BIT);
    this.wires.requested(port, slot);
  }

  /**
   * Notes that a start of processor `slot` is on its way whose request interrupt has not been sent. Where no other one can
   * be pending, the processor does not look at the status before this one anyway.
   */
  announceStart(port: MemoryPort, slot: number): void {
    if (this.wires.mayBePending(port, slot)) port.exchange8(this.driver + driver.request_due + slot, 1);
  }

  /** Whether such a start is on its way. */
  startIsDue(port: MemoryPort, slot: number): boolean {
    return port.load8(this.driver + driver.request_due + slot) !== 0;
  }

  /** Sends the request interrupt of an announced start; `parked` says that the processor was IDLE. */
  sendAnnounced(port: MemoryPort, slot: number, parked: boolean): void {
    port.fence();
    port.or32(this.requestWords[slot], REQUEST_BIT);
    if (this.startIsDue(port, slot)) port.exchange8(this.driver + driver.request_due + slot, 0);
    if (parked) this.wires.started(port, slot);
    else this.wires.requested(port, slot);
  }

  /** Whether the request interrupt is pending on processor `slot`. */
  requestPending(port: MemoryPort, slot: number): boolean {
    return (port.load32(this.requestWords[slot]) & REQUEST_BIT) !== 0;
  }

  /** Processor `slot` takes the request interrupt, if it is pending. */
  takeRequest(port: MemoryPort, slot: number): void {
    port.and32(this.requestWords[slot], ~REQUEST_BIT);
    this.wires.taken(port, slot);
  }

  /** Sends the response interrupt to the base processor. */
  sendResponse(port: MemoryPort): void {
    port.fence();
    port.or32(this.driver + driver.response_irr, 1);
    this.wires.responded(port);
  }

  /** Wakes every thread that sleeps on the driver's wait queue. */
  wakeAll(port: MemoryPort): void {
    for (let word = 0; word < this.#threadWords; word++) {
      port.exchange32(this.driver + driver.waiters + word * 4, 0);
    }
    this.wires.woken();
  }

  /** Makes a signal pending for thread `thread` of the driver. */
  signal(port: MemoryPort, thread: number): void {
    port.or32(this.driver + driver.signals + (thread >>> 5) * 4, 1 << (thread & 31));
    this.wires.woken();
  }
}
