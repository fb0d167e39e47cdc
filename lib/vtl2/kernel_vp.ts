/**
 * A processor of the `kernel` platform: its exits are handled where they happened, by OpenHCL's VMM on OpenHCL's kernel.
 *
 * @module
 */
import { HYPERCALL } from "../hypervisor/hypercall_exit.ts";
import {
  WRITE_APIC_EOI_MESSAGE,
  WRITE_DELIVERABLE_MESSAGE,
  WRITE_INTERCEPT_MESSAGE,
} from "../hypervisor/intercepts.ts";
import { type ProcessorParts, VirtualProcessor } from "../hypervisor/virtual_processor.ts";
import type { InstructionEmulator } from "./emulator/emulator.ts";
import { KernelStrokes } from "./combined_steps.ts";
import { KernelCopies } from "./kernel_copies.ts";
import { KERNEL_PAGES, kernelPage } from "./kernel_pages.ts";
import { KernelVmmVp, type KernelVmmVpParts } from "./kernel_vmm_vp.ts";

/** What a processor of the `kernel` platform is put together from. */
export interface KernelVpParts extends Omit<ProcessorParts, "steps">, KernelVmmVpParts {
  readonly emulator: InstructionEmulator;
  /** Saves the x87/SSE state at every exit, not only when somebody reads it. */
  readonly savesFxEagerly: boolean;
  /** Whether a device that was busy can take a value now. */
  readonly deviceReady: () => boolean;
  /** Records a triple fault of VTL0. */
  readonly onTripleFault: (vp: VirtualProcessor) => void;
}

/** A processor of the `kernel` platform. */
export class KernelVp extends VirtualProcessor {
  /** Guest-physical address of its run page. */
  readonly runPage: number;
  /** Guest-physical address of its `VmmRunState`. */
  readonly runState: number;
  /** The processor as the VMM's exit handlers see it. */
  readonly vmm: KernelVmmVp;
  /** What moves between its state, its assist page and its run page. */
  readonly kernelCopies: KernelCopies;
  /** The VMM's instruction emulator. */
  readonly emulator: InstructionEmulator;
  /** Whether the x87/SSE state is saved at every exit. */
  readonly savesFxEagerly: boolean;
  /** Whether a device that was busy can take a value now. */
  readonly deviceReady: () => boolean;
  /** Records a triple fault of VTL0. */
  readonly onTripleFault: (vp: VirtualProcessor) => void;
  #strokes: KernelStrokes | undefined;

  /** Processor `index` over the agent block at byte offset `block`. */
  constructor(index: number, block: number, parts: KernelVpParts) {
    super(index, block, {
      ...parts,
      steps: {
        exit: WRITE_INTERCEPT_MESSAGE,
        hypercall: HYPERCALL,
        deliverable: WRITE_DELIVERABLE_MESSAGE,
        apicEoi: WRITE_APIC_EOI_MESSAGE,
      },
    });
    this.runPage = kernelPage(parts.kernelPages, index, KERNEL_PAGES.RUN);
    this.runState = kernelPage(parts.kernelPages, index, KERNEL_PAGES.RUN_STATE);
    this.kernelCopies = new KernelCopies(this.memory);
    this.emulator = parts.emulator;
    this.savesFxEagerly = parts.savesFxEagerly;
    this.deviceReady = parts.deviceReady;
    this.onTripleFault = parts.onTripleFault;
    this.vmm = new KernelVmmVp(this, parts);
  }
  /** The usual way into VTL2 and out of it, each at once; there is none when the x87/SSE state goes along. */
  get strokes(): KernelStrokes | undefined {
    return this.savesFxEagerly ? undefined : this.#strokes ??= new KernelStrokes(this);
  }
}
