/**
 * How a node's interrupts and sleeps reach the processors of a machine.
 *
 * @module
 */
import { CpuState } from "../cpu/state.ts";
import { ATTENTION } from "../hypervisor/attention.ts";
import type { Partition } from "../hypervisor/partition.ts";
import { HypervisorVpState } from "../hypervisor/vp_state.ts";
import { SIDECAR } from "../layout/hyperv/constants/sidecar.ts";
import type { MemoryPort } from "../memory/port.ts";
import { SidecarClientState } from "./client_state.ts";
import { SidecarDriverState } from "./driver/state.ts";
import type { SidecarNodeMemory } from "./memory.ts";
import type { SidecarWires } from "./node.ts";

const state = HypervisorVpState.at;
const WORD_BITS = 32;
const WORD_BYTES = 4;
/** Word of the interrupt request register that holds the request vector. */
const REQUEST_WORD = SIDECAR.IRQ_VECTOR / WORD_BITS;
const SUMMARY_BIT = 1 << REQUEST_WORD;

/** Byte offset of the word of VTL2's interrupt request register of `vp` that holds the request vector. */
export function requestWord(partition: Partition, vp: number): number {
  return partition.vpState(vp) + state.vtl2_irr + REQUEST_WORD * WORD_BYTES;
}

/** The wires of a node of a machine: VTL2's interrupts of its processors, and the doorbell of the base processor. */
export class MachineWires implements SidecarWires {
  readonly #partition: Partition;
  readonly #baseVp: number;
  readonly #requestsLeft: number;
  readonly #requests: number;

  /** Wires of a node. */
  constructor(partition: Partition, { baseVp, driver, clients }: SidecarNodeMemory) {
    this.#partition = partition;
    this.#baseVp = baseVp;
    this.#requestsLeft = driver + SidecarDriverState.at.requests_left;
    this.#requests = (clients + SidecarClientState.at.requests) >>> 2;
  }

  requested(port: MemoryPort, slot: number): void {
    const vp = this.#baseVp + slot;
    port.store8(this.#requestsLeft + slot, 1);
    this.#count(slot);
    port.or32(this.#partition.vpState(vp) + state.vtl2_irr_summary, SUMMARY_BIT);
    this.#partition.signal(port, vp, ATTENTION.VTL2_INTERRUPT);
  }

  /** The processor is in VTL2 and takes the interrupt before it leaves that: nobody else has to look for it. */
  started(_port: MemoryPort, slot: number): void {
    this.#count(slot);
    this.#partition.ring(this.#baseVp + slot);
  }

  /** Only threads of the base processor send requests, so that none can come while one of them asks. */
  mayBePending(port: MemoryPort, slot: number): boolean {
    const left = this.#requestsLeft + slot;
    if (port.load8(left) === 0) return false;
    if ((port.load32(requestWord(this.#partition, this.#baseVp + slot)) & 1) !== 0) return true;
    port.store8(left, 0);
    return false;
  }

  /** Counts a request, which only the base processor's worker sends. */
  #count(slot: number): void {
    this.#partition.memory.i32[this.#requests + slot * (SidecarClientState.size / WORD_BYTES)]++;
  }

  taken(port: MemoryPort, slot: number): void {
    const vp = this.#baseVp + slot;
    clear(port, this.#partition.vpState(vp) + state.vtl2_irr_summary, SUMMARY_BIT);
    clear(port, this.#partition.cpuState(vp) + CpuState.at.attention, ATTENTION.VTL2_INTERRUPT);
  }

  responded(_port: MemoryPort): void {
    this.#partition.ring(this.#baseVp);
  }

  woken(): void {
    this.#partition.ring(this.#baseVp);
  }
}

/** Clears a bit that is seldom set. */
function clear(port: MemoryPort, at: number, bit: number): void {
  if ((port.load32(at) & bit) !== 0) port.and32(at, ~bit);
}
