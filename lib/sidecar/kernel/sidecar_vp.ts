/**
 * A processor whose VTL2 executes the sidecar kernel, with a guest in VTL0 (openvmm openhcl/sidecar).
 *
 * @module
 */
import { HYPERCALL } from "../../hypervisor/hypercall_exit.ts";
import type { HypercallContext } from "../../hypervisor/hypercalls/context.ts";
import {
  WRITE_APIC_EOI_MESSAGE,
  WRITE_DELIVERABLE_MESSAGE,
  WRITE_INTERCEPT_MESSAGE,
} from "../../hypervisor/intercepts.ts";
import { type ProcessorParts, VirtualProcessor } from "../../hypervisor/virtual_processor.ts";
import { HypervisorVpState, IRR_WORDS } from "../../hypervisor/vp_state.ts";
import { CRASH_MSR } from "../../layout/hyperv/constants/msrs.ts";
import { HvX64RegisterName } from "../../layout/hyperv/constants/registers.ts";
import { SIDECAR_PRIVATE_PAGE } from "../../layout/hyperv/constants/sidecar.ts";
import { SidecarCommand } from "../../layout/hyperv/sidecar.ts";
import { NOT_COMBINED, type StepId } from "../../memory/steps.ts";
import { AP_ENABLE_APIC, type SidecarStarter } from "../boot.ts";
import { type SidecarNodeMemory, SidecarTaskState, SidecarVpGlobals } from "../memory.ts";
import type { SidecarNode } from "../node.ts";
import { PANICKED } from "./command_loop.ts";
import { KernelCourses } from "./leaps.ts";
import { KERNEL_LOCAL, type SidecarProcessor } from "./processor.ts";
import { GET_VP_REGISTERS, SET_VP_REGISTERS, TRANSLATE_GVA } from "./registers.ts";
import { firstStepOfRun, RUN_ONCE } from "./run_vp.ts";
import { UNMAP_OVERLAYS } from "./overlays.ts";

const command = SidecarCommand.values;
const { GuestCrashP0, GuestCrashP1, GuestCrashP2, GuestCrashP3, GuestCrashP4, GuestCrashCtl } =
  HvX64RegisterName.values;

/** What a sidecar processor is put together from. */
export interface SidecarVpParts extends Omit<ProcessorParts, "steps"> {
  /** The node of the sidecar. */
  readonly node: SidecarNode;
  /** Its number in the node. */
  readonly slot: number;
  /** Where the node's pages lie. */
  readonly nodeMemory: SidecarNodeMemory;
  /** Hypercalls of VTL2 of this processor. */
  readonly vtl2Hypercalls: HypercallContext;
  /** All nodes: a processor that has been started helps to start others. */
  readonly starts: SidecarStarter["starts"];
  /** Takes note of a panic of the sidecar kernel. */
  readonly onPanic: (vp: SidecarVp, text: string) => void;
}

/** See the module's description. Its first step is `SIDECAR_AP_OFFLINE` (`lib/sidecar/boot.ts`). */
export class SidecarVp extends VirtualProcessor implements SidecarProcessor, SidecarStarter {
  /** The node of the sidecar. */
  readonly node: SidecarNode;
  readonly slot: number;
  readonly commandPage: number;
  readonly unmap: StepId = UNMAP_OVERLAYS;
  readonly starts: SidecarStarter["starts"];
  readonly vtl2Hypercalls: HypercallContext;
  /** Guest-physical address of the page that becomes VTL2's assist page. */
  readonly ownAssistPage: number;
  /** Byte offset of its `SidecarVpGlobals`. */
  readonly globals: number;
  readonly #taskState: number;
  readonly #onPanic: SidecarVpParts["onPanic"];
  /** What it leaps; null where it takes its steps one by one. */
  #courses: KernelCourses | null | undefined;

  /** Processor `index` over the agent block at byte offset `block`. */
  constructor(index: number, block: number, parts: SidecarVpParts) {
    super(index, block, {
      ...parts,
      steps: {
        exit: WRITE_INTERCEPT_MESSAGE,
        hypercall: HYPERCALL,
        deliverable: WRITE_DELIVERABLE_MESSAGE,
        apicEoi: WRITE_APIC_EOI_MESSAGE,
      },
    });
    const { node, slot, nodeMemory } = parts;
    this.node = node;
    this.slot = slot;
    this.commandPage = node.commandPage(slot);
    this.starts = parts.starts;
    this.vtl2Hypercalls = parts.vtl2Hypercalls;
    this.ownAssistPage = nodeMemory.privatePage(slot, SIDECAR_PRIVATE_PAGE.ASSIST_PAGE);
    this.globals = nodeMemory.privatePage(slot, SIDECAR_PRIVATE_PAGE.GLOBALS);
    this.#taskState = nodeMemory.task(slot);
    this.#onPanic = parts.onPanic;
  }

  override leap(next: StepId): StepId {
    if (this.#courses === undefined) this.#courses = KernelCourses.apply(this) ? new KernelCourses(this) : null;
    return this.#courses === null || this.observer !== undefined ? NOT_COMBINED : this.#courses.take(next);
  }

  /** A word of its globals, by its `SidecarVpGlobals.at` offset. */
  getGlobal(offset: number): number {
    return this.memory.i32[(this.globals + offset) >>> 2];
  }

  /** Sets a word of its globals. */
  setGlobal(offset: number, value: number): void {
    this.memory.i32[(this.globals + offset) >>> 2] = value;
  }

  /** Whether the hypervisor has taken the register page. */
  get registerPageMapped(): boolean {
    return this.getGlobal(SidecarVpGlobals.at.register_page_mapped) !== 0;
  }

  get restarted(): boolean {
    return this.port.load32(this.#taskState + SidecarTaskState.at.restart) !== 0;
  }

  /** VTL2 starts with its initial context, and with an APIC without a request. */
  restart(): StepId {
    const { port, state } = this;
    port.exchange32(this.#taskState + SidecarTaskState.at.restart, 0);
    for (let word = 0; word < IRR_WORDS; word++) port.exchange32(state + HypervisorVpState.at.vtl2_irr + word * 4, 0);
    this.setGlobal(SidecarVpGlobals.at.overlays_mapped, 0);
    return AP_ENABLE_APIC;
  }

  commandStep(number: number): StepId {
    switch (number) {
      case command.RUN_VP:
        return firstStepOfRun(this);
      case command.GET_VP_REGISTERS:
        return GET_VP_REGISTERS;
      case command.SET_VP_REGISTERS:
        return SET_VP_REGISTERS;
      case command.TRANSLATE_GVA:
        return TRANSLATE_GVA;
      default:
        return -1;
    }
  }

  runOnce(): StepId {
    return RUN_ONCE;
  }

  /** A panic tells the hypervisor through the crash MSRs; the text is not on the stack, so it has no address. */
  panic(text: string): StepId {
    const { registers } = this.vtl2Hypercalls;
    registers.set64(this.index, 2, GuestCrashP0, CRASH_MSR.SIDECAR_PANIC_P0);
    registers.set64(this.index, 2, GuestCrashP1, CRASH_MSR.SIDECAR_PANIC_P1);
    registers.set64(this.index, 2, GuestCrashP2, CRASH_MSR.SIDECAR_PANIC_P2);
    registers.set64(this.index, 2, GuestCrashP3, 0n);
    registers.set64(this.index, 2, GuestCrashP4, 0n);
    registers.set64(this.index, 2, GuestCrashCtl, CRASH_MSR.CTL_sidecar_panic_with_message);
    this.locals32[KERNEL_LOCAL.PANICKED] = 1;
    this.#onPanic(this, text);
    return PANICKED;
  }
}
