/**
 * What all processors and hosts of an encrypted guest share: the RMP or the table of views, the key, and where the VMCBs,
 * VMSAs and private state of each virtual processor lie.
 *
 * ```
 * base   VMCBs                 one page a VP, the host's
 *        VMSAs                 one page a VP, the guest's from launch on; with a paravisor one more for each lower VMPL
 *        shared                SHARED_PAGES of each VP, between paravisor and host (with a paravisor only)
 *        paravisor             a secrets page, then the paravisor's own pages of each VP, private to VMPL0
 *        SevVpState            64 bytes a VP
 *        key                   16 bytes
 *        views                 one byte a page (SEV-ES), or the RMP, 16 bytes a page (SNP)
 * ```
 *
 * @module
 */
import { RMP_GEOMETRY, VMPL } from "../../layout/sev/constants/rmp.ts";
import { SEV_FEATURES } from "../../layout/sev/vmsa.ts";
import { type MachineMemory, PAGE_SIZE } from "../../memory/machine_memory.ts";
import type { MemoryPort } from "../../memory/port.ts";
import { KEY_WORDS } from "../../sev/encryption.ts";
import { GuestMemory } from "../../sev/guest_memory.ts";
import { Rmp, rmpBytes } from "../../sev/rmp.ts";
import { SevVpState } from "./state.ts";

/** Bit number of the C bit in page-table entries: CPUID 8000001f EBX 5:0. */
export const C_BIT = 51;
/** Physical address bits that encryption takes: CPUID 8000001f EBX 11:6. */
export const PHYSICAL_ADDRESS_REDUCTION = 5;
/** Address space id of the guest. */
export const GUEST_ASID = 1;

/** What decides the size and form of an encrypted guest's state. */
export interface SevConfig {
  /** Virtual processors. */
  readonly vps: number;
  /** Guest RAM in bytes, a multiple of the page size. */
  readonly ramBytes: number;
  /** Whether the machine has an RMP. */
  readonly snp: boolean;
  /** Byte offset at which the state begins, page-aligned, behind the RAM. */
  readonly base: number;
  /** Pages that a paravisor at VMPL0 has for each VP; absent or 0 when the guest has VMPL0 to itself. */
  readonly paravisorPages?: number;
}

/** Pages of each VP that a paravisor shares with the host, in order. */
export const SHARED_PAGES = {
  /** What the host tells the paravisor of an exit. */
  MESSAGE: 0,
  /** The copy of a VMSA, where the paravisor makes one. */
  CRASH: 1,
  /** What belongs to that copy. */
  ANNOUNCEMENT: 2,
  /** How many there are. */
  COUNT: 3,
} as const;

/** VMSAs of a VP below a paravisor: VMPL0's own, and those of the lower VMPLs that run guests. */
const PARAVISOR_VMSAS: number = VMPL.VTL0 + 1;

const CACHE_LINE = 64;
const KEY_BYTES = 4 * KEY_WORDS;

/** Rounds up to a multiple of `unit`. */
function roundUp(value: number, unit: number): number {
  return Math.ceil(value / unit) * unit;
}

/** VMSAs of each VP. */
function vmsasPerVp(config: SevConfig): number {
  return (config.paravisorPages ?? 0) === 0 ? 1 : PARAVISOR_VMSAS;
}

/** Byte offsets that follow from a configuration. */
function places(config: SevConfig) {
  const { vps, base } = config;
  const vmcbs = base;
  const vmsas = vmcbs + vps * PAGE_SIZE;
  const own = config.paravisorPages ?? 0;
  const shared = vmsas + vps * vmsasPerVp(config) * PAGE_SIZE;
  const paravisor = shared + (own === 0 ? 0 : vps * SHARED_PAGES.COUNT * PAGE_SIZE);
  const vpStates = paravisor + (own === 0 ? 0 : (1 + vps * own) * PAGE_SIZE);
  // Everything up to here has an entry in the table; the table and what follows belongs to the host alone.
  const pages = roundUp(vpStates, PAGE_SIZE) / PAGE_SIZE;
  const key = roundUp(vpStates + vps * SevVpState.size, CACHE_LINE);
  const table = roundUp(key + KEY_BYTES, PAGE_SIZE);
  const tableBytes = config.snp ? rmpBytes(pages) : pages;
  return {
    vmcbs,
    vmsas,
    shared,
    paravisor,
    vpStates,
    pages,
    key,
    table,
    end: roundUp(table + tableBytes, PAGE_SIZE),
  };
}

/** Bytes that the state of such a guest takes from {@linkcode SevConfig.base} on. */
export function sevBytes(config: SevConfig): number {
  return places(config).end - config.base;
}

/** The state of an encrypted guest, as one thread sees it. */
export class SevMachine {
  readonly memory: MachineMemory;
  readonly config: SevConfig;
  readonly guestMemory: GuestMemory;
  /** The reverse map table, on SNP. */
  readonly rmp: Rmp | undefined;
  /** SEV_FEATURES of the guest's VMSAs. */
  readonly features: bigint;
  /** Pages from address 0 on that the guest may own. */
  readonly pages: number;
  readonly #vmcbs: number;
  readonly #vmsas: number;
  readonly #vmsasPerVp: number;
  readonly #shared: number;
  readonly #paravisor: number;
  readonly #vpStates: number;

  /** The state that `config` describes, in `memory`. */
  constructor(memory: MachineMemory, config: SevConfig) {
    const place = places(config);
    this.memory = memory;
    this.config = config;
    this.pages = place.pages;
    this.#vmcbs = place.vmcbs;
    this.#vmsas = place.vmsas;
    this.#vmsasPerVp = vmsasPerVp(config);
    this.#shared = place.shared;
    this.#paravisor = place.paravisor;
    this.#vpStates = place.vpStates;
    this.rmp = config.snp ? new Rmp(memory, { base: place.table, pages: place.pages }) : undefined;
    this.guestMemory = new GuestMemory(memory, { key: place.key, views: place.table, pages: place.pages }, this.rmp);
    this.features = !config.snp ? 0n : this.hasParavisor ? PARAVISOR_FEATURES : SEV_FEATURES.mask.snp;
  }

  /** Chooses the guest's key: different for each `seed`. */
  setKey(seed: number): void {
    const word = this.guestMemory.place.key >>> 2;
    for (let k = 0; k < KEY_WORDS; k++) {
      this.memory.i32[word + k] = Math.imul(seed + k + 1, KEY_FACTOR) ^ (KEY_FACTOR >>> k);
    }
  }

  /** Byte offset of a VP's VMCB. */
  vmcb(vp: number): number {
    return this.#vmcbs + vp * PAGE_SIZE;
  }

  /** Whether a paravisor has VMPL0, and the guest a lower one. */
  get hasParavisor(): boolean {
    return (this.config.paravisorPages ?? 0) !== 0;
  }

  /** Byte offset of the VMSA that a VP is launched with, or with a paravisor of that of a lower VMPL (1 or 2). */
  vmsa(vp: number, vmpl = 0): number {
    return this.#vmsas + (vp * this.#vmsasPerVp + vmpl) * PAGE_SIZE;
  }

  /** Byte offset of one of the SHARED_PAGES of a VP; with a paravisor. */
  sharedPage(vp: number, page: number): number {
    return this.#shared + (vp * SHARED_PAGES.COUNT + page) * PAGE_SIZE;
  }

  /** Byte offset of the paravisor's secrets page. */
  get secretsPage(): number {
    return this.#paravisor;
  }

  /** Byte offset of the first of the paravisor's own pages of a VP. */
  paravisorPages(vp: number): number {
    return this.#paravisor + (1 + vp * (this.config.paravisorPages ?? 0)) * PAGE_SIZE;
  }

  /** Byte offset of a VP's {@linkcode SevVpState}. */
  vpState(vp: number): number {
    return this.#vpStates + vp * SevVpState.size;
  }

  /** Whether guest page `gpn` is RAM. */
  isRam(gpn: number): boolean {
    return gpn < this.config.ramBytes / PAGE_SIZE;
  }

  /** Gives page `page` to the guest at guest page `gpn`, as measured contents: validated, and a VMSA if `vmsa`. */
  launchPage(port: MemoryPort, page: number, gpn: number, vmsa: boolean): void {
    if (this.rmp !== undefined) this.rmp.launch(port, page, gpn, GUEST_ASID, vmsa);
    else this.guestMemory.setPrivate(port, page, true);
  }

  /** Gives page `page` to the guest without contents: with an RMP the guest must validate it. */
  assignPage(port: MemoryPort, page: number): void {
    if (this.rmp === undefined) {
      this.guestMemory.setPrivate(port, page, true);
      return;
    }
    const size = RMP_GEOMETRY.PAGE_SIZE_4K;
    this.rmp.rmpupdate(port, page, { assigned: true, asid: GUEST_ASID, gpn: page, size, immutable: false });
  }
}

/** SEV_FEATURES of OpenHCL's own VMSA: restricted injection and no vTOM (sev.md f2), and what it hands on (f1). */
const PARAVISOR_FEATURES: bigint = SEV_FEATURES.make({
  snp: 1,
  restricted_injection: 1,
  debug_swap: 1,
  vmsa_reg_prot: 1,
});

/** Odd constant that spreads a seed over the key's words (2^32 divided by the golden ratio). */
const KEY_FACTOR = 0x9e3779b1 | 0;
