/**
 * Where everything lies in a machine's memory.
 *
 * ```
 * 0            guest RAM, at its guest-physical addresses
 * ramBytes     VTL2's pages, guest-physical too
 *              -- not guest-addressable from here on --
 *              header, doorbells, agent blocks, CPU states, hypervisor, facilities, devices, mailboxes, exit rings
 * ```
 *
 * @module
 */
import { CpuState } from "../cpu/state.ts";
import { DeviceMailbox } from "../devices/backend.ts";
import { DEVICES_SIZE } from "../devices/device_set.ts";
import { HOST_MSRS_SIZE } from "../host/host_msrs.ts";
import { facilityBytes } from "../hypervisor/facilities.ts";
import { EXIT_RING_SIZE } from "../hypervisor/exit_log.ts";
import { partitionBytes, type PartitionConfig } from "../hypervisor/partition.ts";
import { AgentBlock } from "../memory/agent.ts";
import { PAGE_SIZE } from "../memory/machine_memory.ts";
import { kernelPagesBytes } from "../vtl2/kernel_pages.ts";
import type { MachineConfig } from "./config.ts";
import { DoorbellWords } from "./doorbell.ts";
import { MachineHeader } from "./header.ts";
import { seatCount, workersOfSeats } from "./seats.ts";
import { hostAgents, hostWorkers, sevRegionBytes } from "./sev_platform.ts";
import { sidecarAgents, sidecarPagesBytes } from "./sidecar_platform.ts";

/** Alignment of regions that different processors use. */
const CACHE_LINE = 64;

/** Whether a platform has VTL2. */
export function hasVtl2(config: MachineConfig): boolean {
  return config.platform === "kernel" || config.platform === "sidecar";
}

/** Byte offsets of the regions of a machine. */
export class MachineMap {
  /** VTL2's pages: the kernel's pages of every processor come first. */
  readonly vtl2: number;
  readonly vtl2Bytes: number;
  /** The {@linkcode MachineHeader}. */
  readonly header: number;
  readonly doorbells: number;
  readonly agents: number;
  readonly cpuStates: number;
  /** State of the `Partition`. */
  readonly partition: number;
  readonly facilities: number;
  /** State of the devices: of a PC or of the recorded programs. */
  readonly devices: number;
  /** The MSRs that a host's VMM keeps, {@linkcode HOST_MSRS_SIZE} bytes a VP. */
  readonly hostMsrs: number;
  /** One `DeviceMailbox` a VP. */
  readonly mailboxes: number;
  /** One exit ring a VP, when exits are recorded. */
  readonly exitRings: number;
  /** State of an encrypted guest and of its host. */
  readonly sev: number;
  /** Bytes in all. */
  readonly bytes: number;

  /** The map of a machine of this configuration. */
  constructor(config: MachineConfig) {
    const { vps, ramBytes } = config;
    this.vtl2 = ramBytes;
    this.vtl2Bytes = hasVtl2(config) ? kernelPagesBytes(vps) + sidecarPagesBytes(config) : 0;
    let next = ramBytes + this.vtl2Bytes;
    const take = (bytes: number, alignment = CACHE_LINE): number => {
      const at = Math.ceil(next / alignment) * alignment;
      next = at + bytes;
      return at;
    };
    this.header = take(MachineHeader.size, PAGE_SIZE);
    this.doorbells = take(seatCount(config) * DoorbellWords.size);
    this.agents = take((vps + sidecarAgents(config) + hostAgents(config)) * AgentBlock.size);
    this.cpuStates = take(vps * CpuState.size);
    this.partition = take(partitionBytes({ vps, ramBytes, vtl2Bytes: this.vtl2Bytes }), PAGE_SIZE);
    this.facilities = take(facilityBytes(vps));
    this.devices = take(DEVICES_SIZE);
    this.hostMsrs = take(vps * HOST_MSRS_SIZE);
    this.mailboxes = take(vps * DeviceMailbox.size);
    this.exitRings = take(config.recordExits ? vps * EXIT_RING_SIZE : 0);
    this.sev = take(0, PAGE_SIZE);
    next += sevRegionBytes(config, this.sev);
    this.bytes = next;
  }

  /** The partition in this map. */
  partitionConfig(config: MachineConfig): PartitionConfig {
    return {
      vps: config.vps,
      ramBytes: config.ramBytes,
      vtl2Bytes: this.vtl2Bytes,
      policies: this.header + MachineHeader.at.policies,
      base: this.partition,
      cpuState: { base: this.cpuStates, stride: CpuState.size, attention: CpuState.at.attention },
      doorbells: { base: this.doorbells, stride: DoorbellWords.size, of: workersOfSeats(config) },
      ...(hostWorkers(config) === 0 ? {} : { hostDoorbell: this.hostDoorbell(config) }),
    };
  }

  /** Byte offset of the doorbell of the worker on which the host's agents live; of the first without such a seat. */
  hostDoorbell(config: MachineConfig): number {
    return this.doorbells + (workersOfSeats(config)[config.vps] ?? 0) * DoorbellWords.size;
  }
}
