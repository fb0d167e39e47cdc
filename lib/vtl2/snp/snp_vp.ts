/**
 * A processor of the `snp` platform with OpenHCL at VMPL0: VTL0 is VMPL2 and handles nothing itself (openvmm
 * `virt_mshv_vtl/src/processor/snp/mod.rs`; sev.md, section f).
 *
 * @module
 */
import type { CpuidTable } from "../../hypervisor/cpuid.ts";
import { GUEST_ASID, SHARED_PAGES } from "../../hypervisor/sev/machine.ts";
import { VmplVp, type VmplVpParts } from "../../hypervisor/sev/vmpl_vp.ts";
import type { VirtualProcessor } from "../../hypervisor/virtual_processor.ts";
import { PAGE_SIZE } from "../../memory/machine_memory.ts";
import type { Policy } from "../../memory/policy.ts";
import { ProtectedVmsa, VMSA_REGISTER_BYTES } from "../../sev/register_protection.ts";
import type { RmpCheck } from "../../sev/rmp.ts";
import type { InstructionEmulator } from "../emulator/emulator.ts";
import { VmmVpState } from "../vmm_state.ts";
import type { CopyingAgent, CrashCopy } from "./crash_copy.ts";
import { vmplOf } from "./init_vmsa.ts";
import { SNP_PAGES, SnpVmmState } from "./pages.ts";
import { SnpVmmVp, type SnpVmmVpParts } from "./snp_vmm_vp.ts";

const at = SnpVmmState.at;

/** What such a processor is put together from. */
export interface SnpVpParts extends VmplVpParts, SnpVmmVpParts {
  readonly emulator: InstructionEmulator;
  readonly cpuid: CpuidTable;
  /** Whether a device that was busy can take a value now. */
  readonly deviceReady: () => boolean;
  /** Records a triple fault of a lower VTL. */
  readonly onTripleFault: (vp: VirtualProcessor) => void;
  /** Another processor of the machine. */
  readonly peer: (vp: number) => SnpVp;
}

/** A 32-bit word of {@linkcode SnpVmmState}. */
export type SnpWord =
  | "vtl"
  | "has_message"
  | "offered"
  | "waited"
  | "guest_busy"
  | "interrupts"
  | "spurious"
  | "ignored"
  | "exits"
  | "told_crashes"
  | "entered"
  | "vtl1_enabled"
  | "psc_next"
  | "psc_end";

/** See the module's description. */
export class SnpVp extends VmplVp implements CopyingAgent {
  /** Byte offset of its run page. */
  readonly runPage: number;
  /** Byte offset of its {@linkcode SnpVmmState}. */
  readonly vmmState: number;
  /** The processor as the VMM's exit handlers see it. */
  readonly vmm: SnpVmmVp;
  /** The VMM's instruction emulator. */
  readonly emulator: InstructionEmulator;
  /** CPUID as the VMM answers it. */
  readonly cpuid: CpuidTable;
  /** Whether a device that was busy can take a value now. */
  readonly deviceReady: () => boolean;
  /** Records a triple fault of a lower VTL. */
  readonly onTripleFault: (vp: VirtualProcessor) => void;
  /** Another processor of the machine. */
  readonly peer: (vp: number) => SnpVp;
  /** What is copied of its VMSAs, and where the host can read it. */
  readonly crashCopy: CrashCopy;
  readonly #vmsas: readonly ProtectedVmsa[];

  /** Processor `index` over the agent block at byte offset `block`. */
  constructor(index: number, block: number, parts: SnpVpParts) {
    super(index, block, parts);
    const pages = parts.sev.paravisorPages(index);
    this.runPage = pages + SNP_PAGES.RUN * PAGE_SIZE;
    this.vmmState = pages + SNP_PAGES.STATE * PAGE_SIZE;
    this.emulator = parts.emulator;
    this.cpuid = parts.cpuid;
    this.deviceReady = parts.deviceReady;
    this.onTripleFault = parts.onTripleFault;
    this.peer = parts.peer;
    this.#vmsas = [0, 1].map((vtl) => new ProtectedVmsa(this.memory.view, this.vmsaPage(vtl), parts.tweakBitmap));
    this.vmm = new SnpVmmVp(this, parts);
    this.crashCopy = new VmsaCopy(this);
  }

  /** Byte offset of the VMSA of a lower VTL. */
  vmsaPage(vtl: number): number {
    return this.sev.vmsa(this.index, vmplOf(vtl));
  }

  /** The VMSA of a lower VTL, through its register protection. */
  vmsa(vtl: number): ProtectedVmsa {
    return this.#vmsas[vtl];
  }

  /** The VTL that runs next, or has left. */
  get vtl(): number {
    return this.get("vtl");
  }

  /** The RMP's answer to an access of the VTL to page `gpn` as private memory; `permissions` are PERMISSION_* bits. */
  checkPrivate(gpn: number, permissions: number): RmpCheck {
    return this.sev.rmp!.checkGuestPrivate(this.port, gpn, gpn, {
      asid: GUEST_ASID,
      vmpl: vmplOf(this.vtl),
      permissions,
    });
  }

  /** A word of the run loop's memory. */
  get(word: SnpWord): number {
    return this.memory.i32[(this.vmmState + at[word]) >>> 2];
  }

  /** Sets a word of the run loop's memory. */
  set(word: SnpWord, value: number): void {
    this.memory.i32[(this.vmmState + at[word]) >>> 2] = value;
  }

  /** Counts in a word of the run loop's memory. */
  count(word: SnpWord): void {
    this.memory.i32[(this.vmmState + at[word]) >>> 2]++;
  }

  /** The number of the chosen value of `policy`. */
  policy(policy: Policy): number {
    return this.partition.policy(policy);
  }
}

/** The copy of a running processor's VMSA. */
class VmsaCopy implements CrashCopy {
  readonly vp: number;
  readonly vmsaBytes = VMSA_REGISTER_BYTES;
  readonly page: number;
  readonly announcement: number;
  readonly state: number;
  readonly #vp: SnpVp;

  constructor(vp: SnpVp) {
    this.#vp = vp;
    this.vp = vp.index;
    this.page = vp.sev.sharedPage(vp.index, SHARED_PAGES.CRASH);
    this.announcement = vp.sev.sharedPage(vp.index, SHARED_PAGES.ANNOUNCEMENT);
    this.state = vp.vmmState + at.crash_copy;
  }

  get vtl(): number {
    return this.#vp.vtl;
  }
  get exit(): number {
    return this.#vp.get("exits");
  }
  get vmsa(): number {
    return this.#vp.vmsaPage(this.#vp.vtl);
  }

  is<V extends string>(question: Policy<V>, value: V): boolean {
    return this.#vp.policy(question as unknown as Policy) === question.is[value];
  }

  setParameters(p3: bigint, p4: bigint): void {
    const { u64 } = this.#vp.memory;
    const parameters = (this.#vp.vmm.state + VmmVpState.at.crash_parameters) >>> 3;
    u64[parameters + 3] = p3;
    u64[parameters + 4] = p4;
  }
}
