import { CpuState } from "../../lib/cpu/state.ts";
import { Facilities, facilityBytes } from "../../lib/hypervisor/facilities.ts";
import type { HypercallContext } from "../../lib/hypervisor/hypercalls/context.ts";
import type { MsrValue } from "../../lib/hypervisor/msrs.ts";
import { Partition, partitionBytes } from "../../lib/hypervisor/partition.ts";
import { VpRegisters } from "../../lib/hypervisor/registers.ts";
import { HypervisorVpState } from "../../lib/hypervisor/vp_state.ts";
import { MachineMemory } from "../../lib/memory/machine_memory.ts";
import { DirectPort } from "../../lib/memory/port.ts";

/** Guest RAM of a bench: 1 MiB. VTL2's pages follow: 64 KiB. */
export const RAM = 0x10_0000;
export const VTL2 = 0x1_0000;

/** A partition with facilities and registers, whose clock is set by hand and whose attention words nobody clears. */
export class Bench {
  readonly memory: MachineMemory;
  readonly partition: Partition;
  readonly facilities: Facilities;
  readonly registers: VpRegisters;
  readonly started: string[] = [];
  readonly eois: [number, number][] = [];
  readonly changes: [number, number][] = [];
  readonly value: MsrValue;
  now = 1_000_000;

  constructor(vps = 2) {
    const policies = RAM + VTL2;
    const cpuStates = policies + 0x1000;
    const doorbells = cpuStates + vps * 0x800;
    const facilities = Math.ceil((doorbells + vps * 64) / 64) * 64;
    const base = Math.ceil((facilities + facilityBytes(vps)) / 4096) * 4096;
    const sizes = { vps, ramBytes: RAM, vtl2Bytes: VTL2 };
    this.memory = MachineMemory.allocate(base + partitionBytes(sizes));
    this.partition = new Partition(this.memory, {
      ...sizes,
      policies,
      base,
      cpuState: { base: cpuStates, stride: 0x800, attention: CpuState.at.attention },
      doorbells: { base: doorbells, stride: 64 },
    });
    this.partition.initialize();
    this.facilities = new Facilities(this.partition, new DirectPort(this.memory), facilities, {
      now: () => this.now,
    }, {
      levelEoi: (vp, vector) => this.eois.push([vp, vector]),
      tripleFault: () => {},
      synicChanged: (vp, vtl) => this.changes.push([vp, vtl]),
    });
    this.facilities.reset();
    this.registers = new VpRegisters(this.facilities);
    const v64 = new BigUint64Array(1);
    this.value = { v64, v32: new Int32Array(v64.buffer) };
    this.memory.u8[this.partition.vpState(0) + HypervisorVpState.at.vtl2_enabled] = 1;
  }

  /** A caller of hypercalls. */
  caller(vp: number, vtl: number): HypercallContext {
    return {
      facilities: this.facilities,
      registers: this.registers,
      events: {
        vtl2Started: (target) => this.started.push(`vtl2 of ${target}`),
        vtl0Started: (target) => this.started.push(`vtl0 of ${target}`),
      },
      vp,
      vtl,
    };
  }

  /** Bits of a VP's attention word since the last call. */
  attention(vp: number): number {
    return Atomics.exchange(this.memory.i32, (this.partition.cpuState(vp) + CpuState.at.attention) >>> 2, 0);
  }

  /** A 64-bit field of a VP's CPU state. */
  cpu64(vp: number, offset: number): bigint {
    return this.memory.u64[(this.partition.cpuState(vp) + offset) >>> 3];
  }
  setCpu64(vp: number, offset: number, value: bigint): void {
    this.memory.u64[(this.partition.cpuState(vp) + offset) >>> 3] = value;
  }
  setCpu32(vp: number, offset: number, value: number): void {
    this.memory.i32[(this.partition.cpuState(vp) + offset) >>> 2] = value;
  }
}
