/**
 * The register page: what the hypervisor writes there at an intercept and takes from it at a VTL return
 * (`lib/layout/hyperv/register_page.ts`).
 *
 * @module
 */
import { CpuState, EVENT_HAS_ERROR, EVENT_TYPE_SHIFT, XMM } from "../cpu/state.ts";
import { HvX64RegisterPage, HvX64RegisterPageDirtyFlags } from "../layout/hyperv/register_page.ts";
import { HvX64InterruptStateRegister, HvX64PendingInterruptionRegister } from "../layout/hyperv/registers.ts";
import type { VirtualProcessor } from "./virtual_processor.ts";

const page = HvX64RegisterPage.at;
const cpu = CpuState.at;
const dirtyMask = HvX64RegisterPageDirtyFlags.mask;

/** Version that the C headers name; nothing examines it (openhcl.md b). */
export const VERSION = 1;
/** `is_valid` and `version` in one word; `vtl` 0 was interrupted. */
export const VALID_VTL0 = VERSION | 1 << 16;
const RSP = 4;
const SEGMENTS = 6;
/** XMM registers in the page. */
const XMM_REGISTERS = 6;

/** Fills the page from VTL0's registers and marks it valid. */
export function fillRegisterPage(vp: VirtualProcessor, at: number): void {
  const { i32 } = vp.memory;
  const base = vp.cpuState;
  vp.copies.registerPage(at, base);
  const event = i32[(base + cpu.event) >>> 2];
  i32[(at + page.pending_interruption) >>> 2] = event === 0 ? 0 : pendingInterruption(vp, event);
  i32[(at + page.pending_interruption + 4) >>> 2] = event === 0 ? 0 : i32[(base + cpu.event_error) >>> 2];
  const shadow = i32[(base + cpu.interrupt_shadow) >>> 2] !== 0 ? INTERRUPT_SHADOW : 0;
  i32[(at + page.interrupt_state) >>> 2] = shadow | (i32[(base + cpu.nmi_masked) >>> 2] & 1) << NMI_MASKED_SHIFT;
  i32[(at + page.dirty) >>> 2] = 0;
  i32[(at + page.version) >>> 2] = VALID_VTL0;
}

/** `interrupt_state`: an interrupt shadow. */
export const INTERRUPT_SHADOW: number = HvX64InterruptStateRegister.low.interrupt_shadow;
/** `interrupt_state`: position of the NMI mask. */
export const NMI_MASKED_SHIFT: number = HvX64InterruptStateRegister.shift.nmi_masked;
const pending = HvX64PendingInterruptionRegister;

/** Low half of `HvX64PendingInterruptionRegister` for an event whose delivery the exit interrupted. */
function pendingInterruption(vp: VirtualProcessor, event: number): number {
  const type = event >>> EVENT_TYPE_SHIFT & 7;
  const length = vp.memory.i32[(vp.cpuState + cpu.event_length) >>> 2] & 0xf;
  return pending.low.interruption_pending | type << pending.shift.interruption_type |
    (event & EVENT_HAS_ERROR ? pending.low.deliver_error_code : 0) | length << pending.shift.instruction_length |
    (event & 0xff) << pending.shift.interruption_vector;
}

/**
 * Loads what VTL2 changed in the page into VTL0 and takes the page back. Of the general-purpose registers only RSP is
 * applied: the others are shared and live in the processor (openhcl.md b, register page, model).
 */
export function applyRegisterPage(vp: VirtualProcessor, at: number): void {
  const { i32, u64 } = vp.memory;
  if ((i32[(at + page.version) >>> 2] & 0xff0000) === 0) return;
  const dirty = i32[(at + page.dirty) >>> 2];
  if (dirty !== 0) {
    const base = vp.cpuState;
    if (dirty & dirtyMask.instruction_pointer) u64[(base + cpu.rip) >>> 3] = u64[(at + page.rip) >>> 3];
    if (dirty & dirtyMask.general_purpose) {
      u64[((base + cpu.gpr) >>> 3) + RSP] = u64[((at + page.gp_registers) >>> 3) + RSP];
    }
    if (dirty & dirtyMask.flags) u64[(base + cpu.rflags) >>> 3] = u64[(at + page.rflags) >>> 3];
    if (dirty & dirtyMask.xmm) {
      const to = (base + XMM) >>> 3, from = (at + page.xmm) >>> 3;
      for (let k = 0; k < XMM_REGISTERS * 2; k++) u64[to + k] = u64[from + k];
    }
    if (dirty & dirtyMask.segments) {
      const to = (base + cpu.es) >>> 3, from = (at + page.segment) >>> 3;
      for (let k = 0; k < SEGMENTS * 2; k++) u64[to + k] = u64[from + k];
      vp.cpu.updateMode();
    }
    i32[(at + page.dirty) >>> 2] = 0;
  }
  i32[(at + page.version) >>> 2] = VERSION;
}
