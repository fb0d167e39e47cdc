/**
 * The platforms `sev-es` and `snp`: an encrypted guest whose exits a host serves that reads nothing but the VMCB and what
 * the guest shares.
 *
 * ```
 * worker of a processor        worker of the host
 *   vpN   guest, hardware        host.vp0, host.vp1, ...   one agent a processor
 * ```
 *
 * With `hostPlacement: "processor"` an agent of the host lives on the worker of its processor instead, as a real host's
 * thread runs on the physical processor that the guest has just left.
 *
 * @module
 */
import type { Cpu } from "../cpu/cpu.ts";
import { CpuState, CR0_ET } from "../cpu/state.ts";
import { CR4_MCE } from "../cpu/control_bits.ts";
import { findResetBlock } from "../guest/sev_reset_block.ts";
import { MaliciousHost } from "../host/malicious.ts";
import { HOST_STOP, type HostServices, HostVcpu, HostVcpuState, SCRATCH_BYTES } from "../host/host_vcpu.ts";
import { KVM_PASSED_MSRS, resetKvmVcpu } from "../host/kvm/reset.ts";
import { resetVmdVcpu, VMD_PASSED_MSRS } from "../host/vmd/exit.ts";
import type { Facilities } from "../hypervisor/facilities.ts";
import type { GuestBus, GuestBusParts } from "../hypervisor/guest_bus.ts";
import type { HypercallContext } from "../hypervisor/hypercalls/context.ts";
import { GUEST_ASID, sevBytes, type SevConfig, SevMachine } from "../hypervisor/sev/machine.ts";
import { C_BIT_HIGH, SevBus } from "../hypervisor/sev/sev_bus.ts";
import { SevVp, VMRUN } from "../hypervisor/sev/sev_vp.ts";
import type { VirtualProcessor } from "../hypervisor/virtual_processor.ts";
import { SNP_LAUNCH } from "../layout/sev/constants/firmware.ts";
import { VMSA } from "../layout/sev/vmsa.ts";
import { type Agent, AgentBlock } from "../memory/agent.ts";
import { BadInput } from "../memory/bad_input.ts";
import { type MachineMemory, PAGE_SHIFT, PAGE_SIZE } from "../memory/machine_memory.ts";
import type { MemoryPort } from "../memory/port.ts";
import { saveVmsa } from "../sev/vmsa.ts";
import { SNP_PAGES_PER_VP } from "../vtl2/snp/pages.ts";
import type { MachineConfig } from "./config.ts";
import { Doorbell } from "./doorbell.ts";
import { END } from "./header.ts";

/** The hosts of encrypted guests. */
export const HOSTS = {
  kvm: "Linux KVM: GHCB protocol version 2, any number of processors",
  vmd: "OpenBSD vmm and vmd: SEV-ES only, one processor",
} as const;

/** A host's name. */
export type HostName = keyof typeof HOSTS;

/** Whether a machine's guest is encrypted. */
export function isEncrypted(config: Pick<MachineConfig, "platform">): boolean {
  return config.platform === "sev-es" || config.platform === "snp";
}

/**
 * Workers that a machine has beside one for each processor. The host of a guest with a paravisor handles every exit twice and
 * does little each time: it shares the processors' workers unless it is asked not to.
 */
export function hostWorkers(config: MachineConfig): number {
  const usual = config.paravisor === undefined ? "worker" : "processor";
  return isEncrypted(config) && (config.hostPlacement ?? usual) === "worker" ? 1 : 0;
}

/** Agents that a machine has beside one for each processor. */
export function hostAgents(config: MachineConfig): number {
  return isEncrypted(config) ? config.vps + (config.maliciousHost === undefined ? 0 : 1) : 0;
}

/** Throws {@linkcode BadInput} when the host cannot have such a guest. */
export function checkHost(config: MachineConfig): void {
  if (config.paravisor !== undefined) {
    if (config.platform !== "snp") throw new BadInput(`Paravisor "${config.paravisor}" needs platform "snp"`);
    if (config.host !== undefined) throw new BadInput(`Host "${config.host}" runs no paravisor; its host is Hyper-V`);
  }
  if (config.host !== "vmd" || !isEncrypted(config)) return;
  if (config.platform === "snp") throw new BadInput('Host "vmd" has no SNP guests, expected --platform sev-es');
  if (config.vps !== 1) throw new BadInput(`Host "vmd" has guests with one VP, not ${config.vps}`);
}

/** Bytes of everything that an encrypted guest adds to a machine's memory, from page-aligned `base` on. */
export function sevRegionBytes(config: MachineConfig, base: number): number {
  return isEncrypted(config) ? places(config, base).end - base : 0;
}

function places(config: MachineConfig, base: number) {
  const { vps, ramBytes, platform, paravisor } = config;
  const own = paravisor === undefined ? {} : { paravisorPages: SNP_PAGES_PER_VP };
  const sev: SevConfig = { vps, ramBytes, snp: platform === "snp", base, ...own };
  const states = base + sevBytes(sev);
  const scratch = states + Math.ceil((config.vps * HostVcpuState.size) / PAGE_SIZE) * PAGE_SIZE;
  return { sev, states, scratch, end: scratch + config.vps * SCRATCH_BYTES };
}

/** What the platform is made from. */
export interface SevPlatformParts {
  readonly config: MachineConfig;
  readonly memory: MachineMemory;
  readonly facilities: Facilities;
  readonly port: MemoryPort;
  /** Byte offset of the guest's state and the host's. */
  readonly region: number;
  /** Byte offset of the host's agent blocks. */
  readonly agentBlocks: number;
  /** Byte offset of the doorbell of the host's worker. */
  readonly doorbell: number;
  readonly busParts: (vp: number) => GuestBusParts;
  readonly cpu: (vp: number, bus: GuestBus) => Cpu;
  readonly hypercalls: (vp: number) => HypercallContext;
  readonly agentBlock: (vp: number) => number;
  /** The virtual processor, one object in this thread. */
  readonly processor: (vp: number) => VirtualProcessor;
  readonly services: (vp: number) => Omit<HostServices, "stop" | "ring">;
  /** Ends the machine: one of END. */
  readonly finish: (reason: number, vp: number, value: number) => void;
}

/** Bits of a page-table entry. */
const ENTRY_PRESENT = 1;
const ENTRY_LARGE = 1 << 7;
const TABLE_ENTRIES = 512;
const TABLE_LEVELS = 4;

/** See the module's description. One per thread. */
export class SevPlatform {
  readonly sev: SevMachine;
  /** What it is made from. */
  protected readonly parts: SevPlatformParts;
  readonly #states: number;
  readonly #scratch: number;
  readonly #hosts = new Map<number, HostVcpu>();
  readonly #doorbell: Doorbell;

  /** The platform over `parts`. */
  constructor(parts: SevPlatformParts) {
    const { sev, states, scratch } = places(parts.config, parts.region);
    this.parts = parts;
    this.#states = states;
    this.#scratch = scratch;
    this.sev = new SevMachine(parts.memory, sev);
    this.#doorbell = new Doorbell(parts.memory, parts.doorbell);
  }

  /** Called when a processor has left for the host. */
  protected get onExit(): () => void {
    return hostWorkers(this.parts.config) === 0 ? () => {} : () => this.#doorbell.ring();
  }

  /** Makes the object for processor `index`; its state is in the memory. */
  processor(index: number): VirtualProcessor {
    const { config, facilities, agentBlock, busParts, cpu, hypercalls, services } = this.parts;
    const passedMsrs = config.host === "vmd" ? VMD_PASSED_MSRS : KVM_PASSED_MSRS;
    const bus = new SevBus({ ...busParts(index), sev: this.sev, passedMsrs });
    return new SevVp(index, agentBlock(index), {
      facilities,
      hypercalls: hypercalls(index),
      cpu: cpu(index, bus),
      bus,
      sev: this.sev,
      acknowledgePic: services(index).acknowledgePic,
      onExit: this.onExit,
    });
  }

  /** The host's side of processor `index`. */
  host(index: number): HostVcpu {
    let host = this.#hosts.get(index);
    if (host === undefined) {
      const { agentBlocks, port, processor, services, config, finish } = this.parts;
      const vp = processor(index);
      host = new HostVcpu(agentBlocks + index * AgentBlock.size, {
        vp,
        sev: this.sev,
        services: {
          ...services(index),
          stop: (stopped, reason, value) => finish(END_OF_STOP[reason], stopped, Number(value & 0xffff_ffffn)),
          ring: hostWorkers(config) === 0 ? () => {} : (target) => vp.partition.ring(target),
        },
        port,
        state: this.#states + index * HostVcpuState.size,
        scratch: this.#scratch + index * SCRATCH_BYTES,
        peer: (other) => this.host(other),
      });
      this.#hosts.set(index, host);
    }
    return host;
  }

  /** The agents that live on `worker`. */
  agents(worker: number): readonly Agent[] {
    const { config, processor } = this.parts;
    if (worker >= config.vps) {
      return [...Array.from({ length: config.vps }, (_, index) => this.host(index)), ...this.#malicious()];
    }
    if (hostWorkers(config) !== 0) return [processor(worker)];
    return [processor(worker), this.host(worker), ...(worker === 0 ? this.#malicious() : [])];
  }

  #malicious(): readonly Agent[] {
    const { agentBlocks, config, port, facilities } = this.parts;
    if (config.maliciousHost === undefined) return [];
    const block = agentBlocks + config.vps * AgentBlock.size;
    return [new MaliciousHost(block, this.sev, facilities.partition, port, config.maliciousHost)];
  }

  /** Chooses the guest's key. */
  protected setKey(): void {
    this.sev.setKey(KEY_SEED);
  }

  /** Puts everything into its state at power-on; the guest is not loaded yet. */
  powerOn(): void {
    const { config, processor } = this.parts;
    this.setKey();
    for (let index = 0; index < config.vps; index++) {
      processor(index).step = VMRUN;
      if (config.host === "vmd") resetVmdVcpu(this.host(index));
      else resetKvmVcpu(this.host(index));
    }
  }

  /**
   * Encrypts the loaded guest: its memory, and the registers of every processor into VMSAs. On SNP the pages that hold
   * something, and those of `ranges`, are measured and validated; the others belong to nobody until they are used.
   */
  launch(ranges: readonly { readonly address: number; readonly memSize: number }[]): void {
    const { config, memory, port, processor } = this.parts;
    const pages = config.ramBytes / PAGE_SIZE;
    this.#markBootTables(processor(0));
    this.#startOthers();
    for (let index = 0; index < config.vps; index++) this.#makeVmsa(index);
    if (this.sev.rmp === undefined) {
      for (let page = 0; page < pages; page++) this.sev.launchPage(port, page, page, false);
      return;
    }
    const used = new Uint8Array(pages);
    for (const { address, memSize } of ranges) {
      used.fill(1, address >>> PAGE_SHIFT, Math.ceil((address + memSize) / PAGE_SIZE));
    }
    const words = memory.u32;
    for (let page = 0; page < pages; page++) {
      const first = page * PAGE_SIZE >>> 2;
      for (let word = first; used[page] === 0 && word < first + (PAGE_SIZE >>> 2); word++) {
        if (words[word] !== 0) used[page] = 1;
      }
      if (used[page] !== 0) this.sev.launchPage(port, page, page, false);
    }
  }

  /** The C bit in every entry of the tables that a long-mode guest starts with: its memory is private. */
  #markBootTables(vp: VirtualProcessor): void {
    const { s32 } = vp.cpu;
    if ((s32[CpuState.at.cr0 >>> 2] >>> 31) === 0) return;
    this.#markTable((s32[CpuState.at.cr3 >>> 2] & ~(PAGE_SIZE - 1)) >>> 0, TABLE_LEVELS);
  }

  #markTable(table: number, level: number): void {
    const { memory, config } = this.parts;
    for (let entry = table >>> 2; entry < (table >>> 2) + 2 * TABLE_ENTRIES; entry += 2) {
      const low = memory.u32[entry];
      const address = (low & ~(PAGE_SIZE - 1)) >>> 0;
      const inRam = address < config.ramBytes && (memory.u32[entry + 1] & 0xffff) === 0;
      if ((low & ENTRY_PRESENT) === 0 || !inRam) continue;
      memory.u32[entry + 1] |= C_BIT_HIGH;
      if (level > 1 && (low & ENTRY_LARGE) === 0) this.#markTable(address, level - 1);
    }
  }

  /** The other processors start where the image's reset block says, as firmware does it; else at the reset vector. */
  #startOthers(): void {
    const { config, memory, processor } = this.parts;
    const address = findResetBlock(memory.u8.subarray(0, config.ramBytes));
    if (address === undefined) return;
    for (let index = 1; index < config.vps; index++) {
      const { cpu } = processor(index);
      const word = CpuState.at.rip >>> 2;
      cpu.s32[word] = address & 0xffff;
      cpu.s32[CpuState.at.cs >>> 2] = address & 0xffff0000;
    }
  }

  /** Writes a processor's registers into its VMSA and gives the page to the guest. */
  #makeVmsa(index: number): void {
    const { memory, port, processor } = this.parts;
    const { cpuState, cpu } = processor(index);
    const page = this.sev.vmsa(index);
    // What KVM adds to the registers that user space has set (g5).
    cpu.s32[CpuState.at.cr4 >>> 2] |= CR4_MCE;
    cpu.s32[CpuState.at.cr0 >>> 2] |= CR0_ET;
    saveVmsa(memory, cpuState, page);
    memory.u64[(page + VMSA.at.sev_features) >>> 3] = this.sev.features;
    this.sev.launchPage(port, page / PAGE_SIZE, Number(SNP_LAUNCH.VMSA_GPA / BigInt(PAGE_SIZE)), true);
  }
}

/** Seed of the guest's key: every launch of the model has the same one, so that runs can be compared. */
const KEY_SEED: number = GUEST_ASID;

/** How a machine ends when its host stops it. */
const END_OF_STOP: readonly number[] = (() => {
  const ends: number[] = [];
  ends[HOST_STOP.NONE] = END.NONE;
  ends[HOST_STOP.TERMINATED] = END.GUEST_TERMINATED;
  ends[HOST_STOP.INVALID] = END.HOST_STOPPED;
  ends[HOST_STOP.ENTRY_FAILED] = END.ENTRY_FAILED;
  ends[HOST_STOP.SHUTDOWN] = END.TRIPLE_FAULT;
  return ends;
})();
