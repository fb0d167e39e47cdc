/**
 * The register page: what the hypervisor writes there at an intercept and takes from it at a VTL return
 * (`lib/layout/hyperv/register_page.ts`).
 *
 * @module
 */
import { CpuState, XMM } from "../cpu/state.ts";
import { HvX64RegisterPage, HvX64RegisterPageDirtyFlags } from "../layout/hyperv/register_page.ts";
import type { VirtualProcessor } from "./virtual_processor.ts";
import { HypervisorVpState } from "./vp_state.ts";

const page = HvX64RegisterPage.at;
const cpu = CpuState.at;
const dirtyMask = HvX64RegisterPageDirtyFlags.mask;

/** Version that the C headers name; nothing examines it (openhcl.md b). */
const VERSION = 1;
/** `is_valid` and `version` in one word; `vtl` 0 was interrupted. */
const VALID_VTL0 = VERSION | 1 << 16;
const GPRS = 16;
const RSP = 4;
const SEGMENTS = 6;
/** XMM registers in the page. */
const XMM_REGISTERS = 6;

/** Copies the x87/SSE part: XMM0-5. */
export function fillRegisterPageXmm(vp: VirtualProcessor, at: number): void {
  const { u64 } = vp.memory;
  for (let k = 0, to = (at + page.xmm) >>> 3, from = (vp.cpuState + XMM) >>> 3; k < XMM_REGISTERS * 2; k++) {
    u64[to + k] = u64[from + k];
  }
}

/** Fills everything but XMM from VTL0's registers and marks the page valid. */
export function fillRegisterPage(vp: VirtualProcessor, at: number): void {
  const { i32, u64 } = vp.memory;
  const base = vp.cpuState;
  let to = (at + page.gp_registers) >>> 3;
  let from = (base + cpu.gpr) >>> 3;
  for (let k = 0; k < GPRS; k++) u64[to + k] = u64[from + k];
  u64[(at + page.rip) >>> 3] = u64[(base + cpu.rip) >>> 3];
  u64[(at + page.rflags) >>> 3] = u64[(base + cpu.rflags) >>> 3];
  to = (at + page.segment) >>> 3;
  from = (base + cpu.es) >>> 3;
  for (let k = 0; k < SEGMENTS * 2; k++) u64[to + k] = u64[from + k];
  u64[(at + page.cr0) >>> 3] = u64[(base + cpu.cr0) >>> 3];
  u64[(at + page.cr3) >>> 3] = u64[(base + cpu.cr3) >>> 3];
  u64[(at + page.cr4) >>> 3] = u64[(base + cpu.cr4) >>> 3];
  u64[(at + page.cr8) >>> 3] = u64[(base + cpu.cr8) >>> 3];
  u64[(at + page.efer) >>> 3] = u64[(base + cpu.efer) >>> 3];
  u64[(at + page.dr7) >>> 3] = u64[(base + cpu.dr7) >>> 3];
  u64[(at + page.pending_interruption) >>> 3] = u64[(vp.state + HypervisorVpState.at.pending_interruption) >>> 3];
  const shadow = i32[(base + cpu.interrupt_shadow) >>> 2] !== 0 ? 1 : 0;
  i32[(at + page.interrupt_state) >>> 2] = shadow | (i32[(base + cpu.nmi_masked) >>> 2] & 1) << 1;
  i32[(at + page.dirty) >>> 2] = 0;
  i32[(at + page.version) >>> 2] = VALID_VTL0;
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
