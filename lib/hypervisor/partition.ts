/**
 * The partition: guest-physical address space, VTL protections, overlay pages, and where the hypervisor's own state lies.
 *
 * Guest-physical addresses [0, ram) are VTL0's RAM and [ram, ram + vtl2) are VTL2's pages, which VTL0 may not touch
 * (openhcl.md a; HvCallModifyVtlProtectionMask). Everything else has no memory behind it. In the shared memory a
 * guest-physical address is its own offset.
 *
 * @module
 */
import { u32, u64, u8 } from "../layout/field_type.ts";
import { reserved, structure } from "../layout/structure.ts";
import { type MachineMemory, PAGE_SHIFT, PAGE_SIZE } from "../memory/machine_memory.ts";
import { HOST_IS_X86, type MemoryPort } from "../memory/port.ts";
import { type Policy, policyAt } from "../memory/policy.ts";
import { ATTENTION } from "./attention.ts";
import { HypervisorVpState } from "./vp_state.ts";

/** Access rights of a VTL to a page (`HvMapGpaFlags` bits 0-3). */
export const MAP_GPA = {
  READ: 1 << 0,
  WRITE: 1 << 1,
  KERNEL_EXECUTE: 1 << 2,
  USER_EXECUTE: 1 << 3,
  ALL: 0xf,
} as const;

/** Number of overlay pages that a VP can have enabled in its lower VTLs (hypercall, assist, SIMP, SIEFP, reference TSC, spare). */
export const OVERLAYS_PER_VP = 8;

/** One overlay page: a guest-physical page that shows hypervisor memory instead of RAM while enabled. */
export const Overlay = structure("Overlay", 16, [
  ["enabled", 0, u8, "1 while the overlay is mapped"],
  reserved(1, 3),
  ["gpn", 4, u32, "Guest page number that it covers"],
  ["backing", 8, u32, "Byte offset of the page's contents in the machine's memory"],
  reserved(12, 4),
], "Not a structure of the modelled machine");

/** State of the whole partition. */
export const PartitionState = structure("PartitionState", 64, [
  ["vsm_partition_config", 0, u64, "HvRegisterVsmPartitionConfig as VTL2 set it"],
  ["overlay_generation", 8, u32, "Counts changes of the guest-physical address space"],
  ["intercept_all_cpuid", 12, u8, "1 when HvCallInstallIntercept asked for every CPUID leaf"],
  ["apic_eoi_intercept", 13, u8, "1 when VTL2 asked to see EOIs of level-triggered interrupts"],
  ["synic_intercept", 14, u8, "1 when VTL2 asked to see messages and events for connections unknown to the hypervisor"],
  [
    "retarget_intercept",
    15,
    u8,
    "1 when VTL2 asked to see interrupts retargeted for devices unknown to the hypervisor",
  ],
  ["guest_os_id", 16, u64, "HV_X64_MSR_GUEST_OS_ID of VTL0"],
  ["hypercall_msr", 24, u64, "HV_X64_MSR_HYPERCALL of VTL0 (MsrHypercallContents)"],
  ["reference_tsc", 32, u64, "HV_X64_MSR_REFERENCE_TSC of VTL0"],
  ["exception_intercepts", 40, u32, "Bit per exception vector 0-31 that VTL2 asked to see"],
  ["hypercall_intercept", 44, u8, "1 when VTL2 asked to see every hypercall"],
  reserved(45, 19),
], "Not a structure of the modelled machine");

/** What a partition is made of; plain data that a worker can be sent. */
export interface PartitionConfig {
  /** Number of virtual processors. */
  readonly vps: number;
  /** Bytes of VTL0's RAM, a multiple of the page size. */
  readonly ramBytes: number;
  /** Bytes of VTL2's pages behind it, a multiple of the page size; 0 without VTL2. */
  readonly vtl2Bytes: number;
  /** Byte offset of the policy area: one byte a policy, by {@linkcode Policy.index}. */
  readonly policies: number;
  /** Byte offset at which the hypervisor's state begins, page-aligned. */
  readonly base: number;
  /** Byte offset and stride of the VPs' CPU states. */
  readonly cpuState: { readonly base: number; readonly stride: number; readonly attention: number };
  /**
   * Byte offset and stride of the doorbells: a sequence word, then a word that says whether anyone sleeps on it. `of` says
   * which of them is each VP's; VP n has doorbell n when it is absent.
   */
  readonly doorbells: { readonly base: number; readonly stride: number; readonly of?: readonly number[] };
  /** Byte offset of the doorbell of a worker that serves all VPs: the host's. */
  readonly hostDoorbell?: number;
}

/** Alignment in bytes of per-VP state, so that two VPs share no cache line. */
const CACHE_LINE = 64;
const VP_STRIDE = Math.ceil(HypervisorVpState.size / CACHE_LINE) * CACHE_LINE;

/** Bytes that the hypervisor's state of such a partition takes from {@linkcode PartitionConfig.base} on. */
export function partitionBytes(config: Pick<PartitionConfig, "vps" | "ramBytes" | "vtl2Bytes">): number {
  const pages = (config.ramBytes + config.vtl2Bytes) >>> PAGE_SHIFT;
  const tables = PartitionState.size + config.vps * (VP_STRIDE + OVERLAYS_PER_VP * Overlay.size) + pages;
  return Math.ceil(tables / PAGE_SIZE) * PAGE_SIZE + config.vps * OVERLAYS_PER_VP * PAGE_SIZE;
}

/** A partition as one processor sees it. Everything changeable is in the shared memory. */
export class Partition {
  readonly memory: MachineMemory;
  readonly config: PartitionConfig;
  /** Byte offset of the {@linkcode PartitionState}. */
  readonly state: number;
  /** First guest page number without memory behind it. */
  readonly pages: number;
  readonly #vps: number;
  readonly #overlays: number;
  readonly #permissions: number;
  readonly #overlayPages: number;
  /** Index of the first word of each VP's doorbell. */
  readonly #doorbells: Int32Array;

  /** The partition that `config` describes, in `memory`. */
  constructor(memory: MachineMemory, config: PartitionConfig) {
    this.memory = memory;
    this.config = config;
    this.pages = (config.ramBytes + config.vtl2Bytes) >>> PAGE_SHIFT;
    this.state = config.base;
    const { base, stride, of } = config.doorbells;
    this.#doorbells = Int32Array.from({ length: config.vps }, (_, vp) => (base + (of?.[vp] ?? vp) * stride) >>> 2);
    this.#vps = this.state + PartitionState.size;
    this.#overlays = this.#vps + config.vps * VP_STRIDE;
    this.#permissions = this.#overlays + config.vps * OVERLAYS_PER_VP * Overlay.size;
    this.#overlayPages = Math.ceil((this.#permissions + this.pages) / PAGE_SIZE) * PAGE_SIZE;
  }

  /** Sets the state of a partition that has just been created. */
  initialize(): void {
    const { ramBytes } = this.config;
    this.memory.u8.fill(MAP_GPA.ALL, this.#permissions, this.#permissions + (ramBytes >>> PAGE_SHIFT));
    this.memory.u8.fill(0, this.#permissions + (ramBytes >>> PAGE_SHIFT), this.#permissions + this.pages);
    for (let vp = 0; vp < this.config.vps; vp++) {
      for (let slot = 0; slot < OVERLAYS_PER_VP; slot++) {
        this.memory.view.setUint32(this.#overlay(vp, slot) + Overlay.at.backing, this.#overlayPage(vp, slot), true);
      }
    }
  }

  /** Byte offset of a VP's {@linkcode HypervisorVpState}. */
  vpState(vp: number): number {
    return this.#vps + vp * VP_STRIDE;
  }

  /** Byte offset of a VP's CPU state. */
  cpuState(vp: number): number {
    return this.config.cpuState.base + vp * this.config.cpuState.stride;
  }

  /** The number of the chosen value of `policy`. */
  policy(policy: Policy): number {
    return policyAt(this.memory.u8, this.config.policies, policy);
  }

  /** Whether VTL2 has set the bits `mask` of the low half of VsmPartitionConfig. */
  vsmConfigured(mask: number): boolean {
    return (this.memory.i32[(this.state + PartitionState.at.vsm_partition_config) >>> 2] & mask) !== 0;
  }

  /** Whether VTL2 asked by HvCallInstallIntercept for what the flag `field` of {@linkcode PartitionState} stands for. */
  intercepts(field: number): boolean {
    return this.memory.u8[this.state + field] !== 0;
  }

  /** Whether guest page `gpn` is RAM of the lower VTLs. */
  isRam(gpn: number): boolean {
    return gpn < this.config.ramBytes >>> PAGE_SHIFT;
  }

  /** Whether guest page `gpn` shows an overlay. */
  isOverlay(gpn: number): boolean {
    return this.#overlayAt(gpn) >= 0;
  }

  /**
   * Byte offset in the memory of guest page `gpn` for an access of VTL0 that needs all of `rights`
   * ({@linkcode MAP_GPA}); -1 when there is no memory behind it, -2 when VTL0 may not.
   */
  vtl0Page(gpn: number, rights: number): number {
    const overlay = this.#overlayAt(gpn);
    if (overlay >= 0) return overlay;
    if (gpn >= this.pages) return -1;
    return (this.memory.u8[this.#permissions + gpn] & rights) === rights ? gpn * PAGE_SIZE : -2;
  }

  /** VTL0's rights to guest page `gpn`. */
  vtl0Rights(gpn: number): number {
    return gpn < this.pages ? this.memory.u8[this.#permissions + gpn] : 0;
  }

  /** Sets VTL0's rights to guest page `gpn` (HvCallModifyVtlProtectionMask); the caller flushes. */
  setVtl0Rights(gpn: number, rights: number): void {
    if (gpn < this.pages) this.memory.u8[this.#permissions + gpn] = rights;
  }

  /** Maps the overlay in `slot` of `vp` at guest page `gpn`, or removes it; returns the offset of its contents. The caller flushes. */
  setOverlay(vp: number, slot: number, enabled: boolean, gpn: number): number {
    const at = this.#overlay(vp, slot);
    this.memory.view.setUint32(at + Overlay.at.gpn, gpn, true);
    this.memory.u8[at + Overlay.at.enabled] = enabled ? 1 : 0;
    Atomics.add(this.memory.i32, (this.state + PartitionState.at.overlay_generation) >>> 2, 1);
    return this.#overlayPage(vp, slot);
  }

  /** Raises bits of a VP's attention word and wakes it: what reaches another processor as an IPI. */
  signal(port: MemoryPort, vp: number, bits: number): void {
    port.or32(this.cpuState(vp) + this.config.cpuState.attention, bits);
    this.ring(vp);
  }

  /** Raises bits in the attention word of every VP but `except` (-1: of all). */
  signalAll(port: MemoryPort, except: number, bits: number): void {
    for (let vp = 0; vp < this.config.vps; vp++) if (vp !== except) this.signal(port, vp, bits);
  }

  /** Makes every VP drop its cached translations. The caller's own are dropped at its next block boundary too. */
  flushTlbs(port: MemoryPort): void {
    this.signalAll(port, -1, ATTENTION.FLUSH_TLB);
  }

  /**
   * Wakes whoever sleeps on the doorbell of `vp`: the conditions that it waits for may have changed. A sleeper says so
   * before it looks for the last time, so that nobody needs to be told who has not said it.
   */
  ring(vp: number): void {
    this.#ringAt(this.#doorbells[vp]);
    if (this.config.hostDoorbell !== undefined) this.#ringAt(this.config.hostDoorbell >>> 2);
  }

  #ringAt(word: number): void {
    const { i32 } = this.memory;
    if ((HOST_IS_X86 ? i32[word + 1] : Atomics.load(i32, word + 1)) === 0) return;
    Atomics.add(i32, word, 1);
    Atomics.notify(i32, word);
  }

  #overlay(vp: number, slot: number): number {
    return this.#overlays + (vp * OVERLAYS_PER_VP + slot) * Overlay.size;
  }

  #overlayPage(vp: number, slot: number): number {
    return this.#overlayPages + (vp * OVERLAYS_PER_VP + slot) * PAGE_SIZE;
  }

  /** Offset of the contents of an enabled overlay at `gpn`, or -1. Overlays are few and this runs on TLB misses only. */
  #overlayAt(gpn: number): number {
    const { u8, view } = this.memory;
    const end = this.#overlays + this.config.vps * OVERLAYS_PER_VP * Overlay.size;
    for (let at = this.#overlays; at < end; at += Overlay.size) {
      if (u8[at] === 1 && view.getUint32(at + Overlay.at.gpn, true) === gpn) {
        return view.getUint32(at + Overlay.at.backing, true);
      }
    }
    return -1;
  }
}
