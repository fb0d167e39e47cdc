/**
 * The register page: what the hypervisor writes there at an intercept and takes from it at a VTL return
 * (`lib/layout/hyperv/register_page.ts`).
 *
 * @module
 */
import { CpuState, EVENT_HAS_ERROR, EVENT_TYPE_SHIFT, XMM } from "../cpu/state.ts";
import { HvX64RegisterPage, HvX64RegisterPageDirtyFlags } from "../layout/hyperv/register_page.ts";
import { HvX64InterruptStateRegister, HvX64PendingInterruptionRegister } from "../layout/hyperv/registers.ts";
import { backwards, type Move } from "../memory/copy_plan.ts";
import * as wasm from "../memory/wasm_code.ts";
import type { VirtualProcessor } from "./virtual_processor.ts";

const page = HvX64RegisterPage.at;
const cpu = CpuState.at;
const dirtyMask = HvX64RegisterPageDirtyFlags.mask;

/** Version that the C headers name; nothing examines it (openhcl.md b). */
const VERSION = 1;
const IS_VALID = 0xff << 16;
/** `is_valid` and `version` in one word; `vtl` 0 was interrupted. */
const VALID_VTL0 = VERSION | 1 << 16;
const RSP = 4;
const WORD = 8;
/** RIP has been stored by halves, and is loaded so: see `message_code.ts`. */
const HALF = 4;
const GPRS = 16;
const SEGMENTS_BYTES = 6 * 16;
/** Bytes of the XMM registers in the page: the first six. */
const XMM_BYTES = 6 * 16;

/** What both hold, from the state to the page. */
const RIP: readonly Move[] = [[cpu.rip, page.rip, HALF], [cpu.rip + HALF, page.rip + HALF, HALF]];
const FLAGS: readonly Move[] = [[cpu.rflags, page.rflags, WORD]];
const SEGMENTS: readonly Move[] = [[cpu.es, page.segment, SEGMENTS_BYTES]];
const XMM_REGISTERS: readonly Move[] = [[XMM, page.xmm, XMM_BYTES]];
const ALL: readonly Move[] = [
  ...RIP,
  ...FLAGS,
  ...SEGMENTS,
  [cpu.cr0, page.cr0, WORD],
  [cpu.cr3, page.cr3, 4 * WORD], // and CR4, CR8, EFER
  [cpu.dr7, page.dr7, WORD],
  ...XMM_REGISTERS,
  [cpu.gpr, page.gp_registers, GPRS * WORD],
];

/** `interrupt_state`: an interrupt shadow, and the position of the NMI mask. */
const INTERRUPT_SHADOW = HvX64InterruptStateRegister.low.interrupt_shadow;
const NMI_MASKED_SHIFT = HvX64InterruptStateRegister.shift.nmi_masked;

/** Code that fills the page from VTL0's registers, without an event that waits for its delivery, and marks it valid. */
export function fillCode(at: wasm.I32, cpuState: wasm.I32): wasm.Code {
  const shadow = wasm.bitWhen(wasm.load32(cpuState, cpu.interrupt_shadow), INTERRUPT_SHADOW);
  const nmiMasked = wasm.and(wasm.load32(cpuState, cpu.nmi_masked), wasm.constant(1));
  return [
    ...wasm.copy(at, cpuState, ALL),
    ...wasm.zero64(at, page.pending_interruption),
    ...wasm.store32(at, page.interrupt_state, wasm.or(shadow, wasm.shiftLeft(nmiMasked, NMI_MASKED_SHIFT))),
    ...wasm.store32(at, page.dirty, wasm.constant(0)),
    ...wasm.store32(at, page.version, wasm.constant(VALID_VTL0)),
  ];
}

/** Fills the page from VTL0's registers and marks it valid. */
export function fillRegisterPage(vp: VirtualProcessor, at: number): void {
  const { i32 } = vp.memory;
  const base = vp.cpuState;
  vp.copies.fillRegisterPage(at, base);
  const event = i32[(base + cpu.event) >>> 2];
  if (event === 0) return;
  i32[(at + page.pending_interruption) >>> 2] = pendingInterruption(vp, event);
  i32[(at + page.pending_interruption + HALF) >>> 2] = i32[(base + cpu.event_error) >>> 2];
}

const pending = HvX64PendingInterruptionRegister;

/** Low half of `HvX64PendingInterruptionRegister` for an event whose delivery the exit interrupted. */
function pendingInterruption(vp: VirtualProcessor, event: number): number {
  const type = event >>> EVENT_TYPE_SHIFT & 7;
  const length = vp.memory.i32[(vp.cpuState + cpu.event_length) >>> 2] & 0xf;
  return pending.low.interruption_pending | type << pending.shift.interruption_type |
    (event & EVENT_HAS_ERROR ? pending.low.deliver_error_code : 0) | length << pending.shift.instruction_length |
    (event & 0xff) << pending.shift.interruption_vector;
}

/** Whether VTL2 has changed what dirty bit `bit` stands for. */
function isDirty(at: wasm.I32, bit: number): wasm.I32 {
  return wasm.and(wasm.load32(at, page.dirty), wasm.constant(bit));
}

/** Whether VTL2 has changed segments, from which the processor derives its mode. */
export function segmentsDirty(at: wasm.I32): wasm.I32 {
  return isDirty(at, dirtyMask.segments);
}

/**
 * Code that loads what VTL2 changed in the page into VTL0 and takes the page back. Of the general-purpose registers only
 * RSP is applied: the others are shared and live in the processor (openhcl.md b, register page, model).
 */
export function applyCode(at: wasm.I32, cpuState: wasm.I32): wasm.Code {
  const apply = (bit: number, moves: readonly Move[]) =>
    wasm.when(isDirty(at, bit), wasm.copy(cpuState, at, backwards(moves)));
  const valid = wasm.and(wasm.load32(at, page.version), wasm.constant(IS_VALID));
  return wasm.when(
    valid,
    wasm.when(
      wasm.load32(at, page.dirty),
      apply(dirtyMask.instruction_pointer, RIP),
      apply(dirtyMask.general_purpose, [[cpu.gpr + RSP * WORD, page.gp_registers + RSP * WORD, WORD]]),
      apply(dirtyMask.flags, FLAGS),
      apply(dirtyMask.xmm, XMM_REGISTERS),
      apply(dirtyMask.segments, SEGMENTS),
      wasm.store32(at, page.dirty, wasm.constant(0)),
    ),
    wasm.store32(at, page.version, wasm.constant(VERSION)),
  );
}

/** Loads what VTL2 changed in the page into VTL0 and takes the page back. */
export function applyRegisterPage(vp: VirtualProcessor, at: number): void {
  const { i32 } = vp.memory;
  const valid = (i32[(at + page.version) >>> 2] & IS_VALID) !== 0;
  const segments = valid && (i32[(at + page.dirty) >>> 2] & dirtyMask.segments) !== 0;
  vp.copies.applyRegisterPage(at, vp.cpuState);
  if (segments) vp.cpu.updateMode();
}
