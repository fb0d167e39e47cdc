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
import type { SidecarNodeTopology } from "./memory.ts";
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

  /** Wires of the node that begins with the processor `baseVp`. */
  constructor(partition: Partition, { baseVp }: SidecarNodeTopology) {
    this.#partition = partition;
    this.#baseVp = baseVp;
  }

  requested(port: MemoryPort, slot: number): void {
    const vp = this.#baseVp + slot;
    port.or32(this.#partition.vpState(vp) + state.vtl2_irr_summary, SUMMARY_BIT);
    this.#partition.signal(port, vp, ATTENTION.VTL2_INTERRUPT);
  }

  taken(port: MemoryPort, slot: number): void {
    const vp = this.#baseVp + slot;
    port.and32(this.#partition.vpState(vp) + state.vtl2_irr_summary, ~SUMMARY_BIT);
    port.and32(this.#partition.cpuState(vp) + CpuState.at.attention, ~ATTENTION.VTL2_INTERRUPT);
  }

  responded(_port: MemoryPort): void {
    this.#partition.ring(this.#baseVp);
  }

  woken(): void {
    this.#partition.ring(this.#baseVp);
  }
}
