/**
 * The platform `snp` with OpenHCL as paravisor: OpenHCL at VMPL0, an unmodified guest at VMPL2, and Hyper-V's host, which
 * runs what VMPL0 asks for.
 *
 * ```
 * worker of a processor
 *   vpN        guest at VMPL2, hardware, OpenHCL at VMPL0
 *   host.vpN   Hyper-V
 * ```
 *
 * OpenHCL has accepted the guest's memory and given VTL0 and VTL1 all rights to it when the machine starts; the guest is loaded
 * by it, not measured.
 *
 * @module
 */
import { ACTIVITY_WAIT_FOR_SIPI } from "../cpu/state.ts";
import { resetHypervVcpu } from "../host/hyperv/exit.ts";
import type { CpuidTable } from "../hypervisor/cpuid.ts";
import { LowerVtlBus, VTOM_BIT } from "../hypervisor/sev/lower_vtl_bus.ts";
import { SevVpState, TURN } from "../hypervisor/sev/state.ts";
import type { VirtualProcessor } from "../hypervisor/virtual_processor.ts";
import { SNP_LAUNCH } from "../layout/sev/constants/firmware.ts";
import { VMPL } from "../layout/sev/constants/rmp.ts";
import { RMPADJUST_ATTRS } from "../layout/sev/rmp.ts";
import { SNP_SECRETS_PAGE } from "../layout/sev/secrets_page.ts";
import { PAGE_SIZE } from "../memory/machine_memory.ts";
import { nextNonce, ProtectedVmsa, protectingBitmap, TWEAK_BITMAP_BYTES } from "../sev/register_protection.ts";
import { InstructionEmulator } from "../vtl2/emulator/emulator.ts";
import { ApicDevices } from "../vtl2/snp/apic_devices.ts";
import { initVmsa, initVtl2Vmsa, vmplOf } from "../vtl2/snp/init_vmsa.ts";
import { lowerVmplRights, rmpadjust } from "../vtl2/snp/page_visibility.ts";
import { EMULATOR_STATE_OFFSET, SNP_PAGES, SNP_PAGES_PER_VP } from "../vtl2/snp/pages.ts";
import { ATTEND } from "../vtl2/snp/run_loop.ts";
import { SnpVp } from "../vtl2/snp/snp_vp.ts";
import type { VmmCrash, VmmPartition } from "../vtl2/vmm_vp.ts";
import { SevPlatform, type SevPlatformParts } from "./sev_platform.ts";

/** What the platform is made from beside an encrypted guest's. */
export interface ParavisorPlatformParts extends SevPlatformParts {
  readonly cpuid: CpuidTable;
  readonly vmm: VmmPartition;
  /** Byte offset of the word that serialises misaligned locked accesses. */
  readonly splitLock: number;
  readonly deviceReady: () => boolean;
  readonly onCrash: (vp: number, crash: VmmCrash) => void;
  readonly onTripleFault: (vp: number) => void;
}

const at = SevVpState.at;

/** See the module's description. One per thread. */
export class ParavisorPlatform extends SevPlatform {
  readonly #own: ParavisorPlatformParts;

  /** The platform over `parts`. */
  constructor(parts: ParavisorPlatformParts) {
    super(parts);
    this.#own = parts;
    // The firmware has written it before anything runs; it is the same whoever writes it.
    parts.memory.u8.set(protectingBitmap(), this.#tweakBitmap);
  }

  /** Byte offset of the tweak bitmap, in the secrets page. */
  get #tweakBitmap(): number {
    return this.sev.secretsPage + SNP_SECRETS_PAGE.at.vmsa_tweak_bitmap;
  }

  override processor(index: number): VirtualProcessor {
    const { config, memory, facilities, agentBlock, busParts, cpu, hypercalls, services, cpuid, vmm } = this.#own;
    const { splitLock, deviceReady, onCrash, onTripleFault } = this.#own;
    const bus = new LowerVtlBus({ ...busParts(index), sev: this.sev });
    const { devices } = services(index);
    const state = this.sev.paravisorPages(index) + SNP_PAGES.STATE * PAGE_SIZE;
    return new SnpVp(index, agentBlock(index), {
      facilities,
      hypercalls: hypercalls(index),
      cpu: cpu(index, bus),
      bus,
      sev: this.sev,
      tweakBitmap: memory.u8.slice(this.#tweakBitmap, this.#tweakBitmap + TWEAK_BITMAP_BYTES),
      acknowledgePic: () => -1,
      onExit: this.onExit,
      devices: config.devices === "recorded" ? devices : new ApicDevices(devices, facilities.apic(index)),
      vmm,
      cpuid,
      emulator: new InstructionEmulator(memory, state + EMULATOR_STATE_OFFSET, splitLock),
      deviceReady,
      onCrash: (vp, crash) => onCrash(vp.index, crash),
      onTripleFault: (vp) => onTripleFault(vp.index),
      peer: (vp) => this.#own.processor(vp) as SnpVp,
    });
  }

  override powerOn(): void {
    const { config, processor } = this.#own;
    this.setKey();
    this.#acceptMemory();
    for (let index = 0; index < config.vps; index++) {
      const vp = processor(index) as SnpVp;
      this.#makeVmsas(vp);
      resetHypervVcpu(this.host(index));
      // VMPL0 of every processor executes already.
      const word = (offset: number) => (vp.sevState + offset) >>> 2;
      vp.memory.u32[word(at.turn)] = TURN.GUEST;
      vp.memory.u32[word(at.vmsa)] = this.sev.vmsa(index);
      this.sev.rmp!.tryEnter(vp.port, this.sev.vmsa(index) / PAGE_SIZE);
      vp.set("waited", vp.activity === ACTIVITY_WAIT_FOR_SIPI ? 1 : 0);
      vp.step = ATTEND;
    }
  }

  /** The guest's memory was accepted before it was loaded, and its registers go into its VMSA as they are set. */
  override launch(): void {}

  /** What OpenHCL's boot loader does: the lower VTLs may use all of the guest's memory, and none of OpenHCL's own. */
  #acceptMemory(): void {
    const { config, port } = this.#own;
    const { sev } = this;
    for (let page = 0; page < config.ramBytes / PAGE_SIZE; page++) {
      sev.launchPage(port, page, page, false);
      this.#adjust(page, lowerVmplRights(VMPL.VTL1, 1));
      this.#adjust(page, lowerVmplRights(VMPL.VTL0, 1));
    }
    const first = sev.secretsPage / PAGE_SIZE;
    for (let page = first; page < first + 1 + config.vps * SNP_PAGES_PER_VP; page++) {
      sev.launchPage(port, page, page, false);
    }
  }

  /** RMPADJUST by VMPL0, at a time when it cannot fail. */
  #adjust(page: number, attributes: bigint): void {
    const { sev } = this;
    if (!rmpadjust({ sev, port: this.#own.port }, page, attributes)) {
      throw new RangeError(`RMPADJUST of page ${page} fails`);
    }
  }

  /** OpenHCL's own VMSA is measured at launch; those of the lower VTLs are made by it. */
  #makeVmsas(vp: SnpVp): void {
    const { memory, port } = this.#own;
    const { sev } = this;
    const bitmap = memory.u8.slice(this.#tweakBitmap, this.#tweakBitmap + TWEAK_BITMAP_BYTES);
    const own = sev.vmsa(vp.index);
    let nonce = nextNonce(NONCE_SEED + BigInt(vp.index));
    initVtl2Vmsa(new ProtectedVmsa(memory.view, own, bitmap), sev.features, nonce);
    sev.launchPage(port, own / PAGE_SIZE, Number(SNP_LAUNCH.VMSA_GPA / BigInt(PAGE_SIZE)), true);
    for (const vtl of [0, 1] as const) {
      const page = sev.vmsa(vp.index, vmplOf(vtl));
      nonce = nextNonce(nonce);
      initVmsa(vp.vmsa(vtl), { vtl, inherited: sev.features, vtom: 1n << BigInt(VTOM_BIT), nonce });
      sev.launchPage(port, page / PAGE_SIZE, page / PAGE_SIZE, false);
      this.#adjust(page / PAGE_SIZE, RMPADJUST_ATTRS.make({ target_vmpl: VMPL.VTL1, vmsa: 1 }));
    }
    vp.saveRegisters(vp.vmsaPage(0));
  }
}

/** Where the sequence of nonces begins: every machine has the same, so that runs can be compared. */
const NONCE_SEED = 0x0123_4567_89ab_cdefn;
