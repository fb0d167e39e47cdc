/**
 * What moves between a processor's state, its assist page and its run page, as copy plans.
 *
 * @module
 */
import { CpuState, FX } from "../cpu/state.ts";
import { HvVpAssistPage } from "../layout/hyperv/assist_page.ts";
import { hcl_run } from "../layout/hyperv/hcl_run.ts";
import { HvMessage } from "../layout/hyperv/messages.ts";
import { backwards, CopyPlan, type CopyRecord, type Move } from "../memory/copy_plan.ts";
import type { MachineMemory } from "../memory/machine_memory.ts";

const cpu = CpuState.at;
const run = hcl_run.at;
const assist = HvVpAssistPage.at;
const WORD = 8;
/** Bytes of the x87/SSE image. */
const FX_BYTES = 512;
/** Slots before and after the one in which the run page's context has CR2 and the processor's registers have RSP. */
const BEFORE_CR2 = 4;
const AFTER_CR2 = 11;
const context = (slot: number): number => run["context.gps_no_rsp"] + slot * WORD;

/** The shared registers: processor's state and run page. RSP is private to each VTL. */
export const SHARED_REGISTERS: readonly Move[] = [
  [cpu.gpr, context(0), BEFORE_CR2 * WORD],
  [cpu.cr2, context(BEFORE_CR2), WORD],
  [cpu.gpr + (BEFORE_CR2 + 1) * WORD, context(BEFORE_CR2 + 1), AFTER_CR2 * WORD],
];
/** The x87/SSE image: processor's state and run page. */
export const FX_IMAGE: readonly Move[] = [[FX, run["context.fx_state"], FX_BYTES]];
const SAVE_REGISTERS = new CopyPlan(SHARED_REGISTERS);
const LOAD_REGISTERS = new CopyPlan(backwards(SHARED_REGISTERS));
/** RAX and RCX: run page and assist page. */
export const VTL_CONTROL_MOVES: readonly Move[] = [
  [context(0), assist["vtl_control.registers.rax"], WORD],
  [context(1), assist["vtl_control.registers.rcx"], WORD],
];
const SAVE_FX = new CopyPlan(FX_IMAGE);
const LOAD_FX = new CopyPlan(backwards(FX_IMAGE));
const VTL_CONTROL = new CopyPlan(VTL_CONTROL_MOVES);
const MESSAGE = new CopyPlan([[assist.intercept_message, run.exit_message, HvMessage.size]]);

/** The copies, bound to a machine's memory. Each takes the target's and the source's byte offset. */
export class KernelCopies {
  /** Shared registers from the processor's state to the run page. */
  readonly saveRegisters: CopyRecord;
  /** Shared registers from the run page to the processor's state. */
  readonly loadRegisters: CopyRecord;
  /** The x87/SSE image from the processor's state to the run page. */
  readonly saveFx: CopyRecord;
  /** The x87/SSE image from the run page to the processor's state. */
  readonly loadFx: CopyRecord;
  /** RAX and RCX from the run page to the assist page, for a normal VTL return. */
  readonly vtlControl: CopyRecord;
  /** The whole intercept message from the assist page to the run page. */
  readonly message: CopyRecord;

  /** The copies on `memory`. */
  constructor(memory: MachineMemory) {
    this.saveRegisters = SAVE_REGISTERS.on(memory);
    this.loadRegisters = LOAD_REGISTERS.on(memory);
    this.saveFx = SAVE_FX.on(memory);
    this.loadFx = LOAD_FX.on(memory);
    this.vtlControl = VTL_CONTROL.on(memory);
    this.message = MESSAGE.on(memory);
  }
}
