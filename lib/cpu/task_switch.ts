/**
 * Hardware task switches of legacy protected mode: far JMP and CALL to a TSS or task gate, interrupts through a task gate,
 * IRET with NT set (AMD64 Architecture Programmer's Manual volume 2, chapter 12; Intel SDM volume 3, chapter 8).
 *
 * The new task's TSS is read completely before anything changes. What is wrong with the new task's segments is raised in
 * its own context, as the manuals say: RIP is then the new task's.
 *
 * @module
 */
import type { Cpu } from "./cpu.ts";
import { VECTOR_GP, VECTOR_NP, VECTOR_TS } from "./faults.ts";
import { directoryPointersValid } from "./paging.ts";
import {
  baseWord,
  checkStackSegment,
  commitDescriptor,
  descriptor,
  descriptorBase,
  descriptorDpl,
  descriptorKind,
  descriptorLimit,
  descriptorPresent,
  loadDataSegment,
  markAccessed,
  readDescriptor,
  SELECTOR_ERROR,
  SELECTOR_INDEX,
  SELECTOR_LOCAL,
  selectorError,
  setNull,
  setV86Segment,
  SYSTEM_LDT,
  SYSTEM_TASK_GATE,
  SYSTEM_TSS16,
  SYSTEM_TSS32,
  SYSTEM_TSS_BUSY,
  writeAccessByte,
} from "./segments.ts";
import { commitFrame, framePush, openCurrentStack } from "./stack_frame.ts";
import {
  CpuState,
  CR0_PG,
  CR0_TS,
  CS,
  DS,
  ES,
  FLAG_NT,
  FLAG_ONE,
  FLAG_VM,
  FLAGS_DEFINED,
  FS,
  GS,
  LDTR,
  RFLAGS,
  RIP,
  SEG_CODE,
  SEG_EXPAND_DOWN,
  SEG_S,
  SS,
  TR,
} from "./state.ts";
import { CR4_PAE } from "./control_bits.ts";

/** What asked for a task switch. */
export const TASK_JUMP = 0;
/** A far CALL. */
export const TASK_CALL = 1;
/** An IRET with NT set. */
const TASK_RETURN = 2;
/** An interrupt or exception. */
const TASK_EVENT = 3;

const CR0 = CpuState.at.cr0 >>> 2;
const CR3 = CpuState.at.cr3 >>> 2;
const CR4 = CpuState.at.cr4 >>> 2;
const DR6 = CpuState.at.dr6 >>> 2;
const DR7 = CpuState.at.dr7 >>> 2;
const PENDING_DB = CpuState.at.pending_db >>> 2;

/** Type bit of a 32-bit TSS. */
const TYPE_32 = 8;
/** Smallest limits of a TSS. */
const LIMIT_MIN_32 = 0x67;
const LIMIT_MIN_16 = 0x2b;
/** Offsets in a 32-bit TSS. */
const CR3_32 = 0x1c;
const EIP_32 = 0x20;
const EFLAGS_32 = 0x24;
const EAX_32 = 0x28;
const ES_32 = 0x48;
const LDT_32 = 0x60;
const TRAP_32 = 0x64;
/** Offsets in a 16-bit TSS. */
const IP_16 = 0x0e;
const FLAGS_16 = 0x10;
const AX_16 = 0x12;
const ES_16 = 0x22;
const LDT_16 = 0x2a;
/** Local breakpoint enables of DR7, which a task switch clears. */
const DR7_LOCAL = 0x155;
/** DR6: a task switch to a TSS whose T bit is set. */
const DR6_BT = 1 << 15;
const GPR_COUNT = 8;
const SEGMENT_COUNT_32 = 6;
const SEGMENT_COUNT_16 = 4;

/** Registers read from the new TSS. */
const next = {
  cr3: 0,
  eip: 0,
  eflags: 0,
  gpr: new Int32Array(GPR_COUNT),
  segments: new Int32Array(SEGMENT_COUNT_32),
  ldt: 0,
  trap: false,
};

/** Switches to the task that the task gate just read names by `selector`. */
export function switchThroughGate(
  cpu: Cpu,
  selector: number,
  ext: number,
  hasError: boolean,
  error: number,
  source: number = TASK_EVENT,
): void {
  if ((selector & SELECTOR_LOCAL) !== 0) cpu.raise(VECTOR_GP, selectorError(selector, ext));
  readDescriptor(cpu, selector, VECTOR_GP, ext);
  switchTask(cpu, selector, source, ext, hasError, error);
}

/**
 * Switches to the task of TSS `selector`, whose descriptor was read last and is in the GDT. Raises #GP, #NP or #TS with the
 * old task unchanged, or anything in the new task's context.
 */
export function switchTask(
  cpu: Cpu,
  selector: number,
  source: number,
  ext: number,
  hasError: boolean,
  error: number,
): void {
  const returning = source === TASK_RETURN;
  const kind = descriptorKind();
  const wanted = returning ? SYSTEM_TSS_BUSY : 0;
  if (kind !== (SYSTEM_TSS16 | wanted) && kind !== (SYSTEM_TSS32 | wanted)) {
    cpu.raise(returning ? VECTOR_TS : VECTOR_GP, selectorError(selector, ext));
  }
  if (!descriptorPresent()) cpu.raise(VECTOR_NP, selectorError(selector, ext));
  const wide = (kind & TYPE_32) !== 0;
  if (descriptorLimit() >>> 0 < (wide ? LIMIT_MIN_32 : LIMIT_MIN_16)) {
    cpu.raise(VECTOR_TS, selectorError(selector, ext));
  }
  const base = descriptorBase();
  readTask(cpu, base, wide);
  const nested = source === TASK_CALL || source === TASK_EVENT;
  const oldSelector = cpu.segmentSelector(TR);
  let flags = cpu.flags();
  if (returning) flags &= ~FLAG_NT;
  saveTask(cpu, flags);

  const addressLo = descriptor.addressLo;
  const newLo = descriptor.lo;
  const newHi = descriptor.hi;
  if (!nested) clearBusy(cpu, oldSelector);
  descriptor.lo = newLo;
  descriptor.hi = newHi | (SYSTEM_TSS_BUSY << 8);
  descriptor.addressLo = addressLo;
  if (!returning) writeAccessByte(cpu);
  if (nested) {
    cpu.writeLinear16(base, 0, oldSelector, true);
    next.eflags |= FLAG_NT;
  }
  commitDescriptor(cpu, TR, selector);
  try {
    loadTask(cpu, wide, hasError, error);
  } catch (thrown) {
    if (thrown === cpu.fault) cpu.fault.trap = true; // RIP is the new task's already
    cpu.updateMode();
    throw thrown;
  }
  if (next.trap) {
    cpu.s32[DR6] |= DR6_BT;
    cpu.s32[PENDING_DB] |= DR6_BT;
  }
}

/** Reads the TSS at linear address `base` into {@linkcode next}. */
function readTask(cpu: Cpu, base: number, wide: boolean): void {
  if (wide) {
    next.cr3 = cpu.readLinear32((base + CR3_32) | 0, 0, true);
    next.eip = cpu.readLinear32((base + EIP_32) | 0, 0, true);
    next.eflags = cpu.readLinear32((base + EFLAGS_32) | 0, 0, true);
    for (let r = 0; r < GPR_COUNT; r++) next.gpr[r] = cpu.readLinear32((base + EAX_32 + 4 * r) | 0, 0, true);
    for (let s = 0; s < SEGMENT_COUNT_32; s++) {
      next.segments[s] = cpu.readLinear16((base + ES_32 + 4 * s) | 0, 0, true);
    }
    next.ldt = cpu.readLinear16((base + LDT_32) | 0, 0, true);
    next.trap = (cpu.readLinear16((base + TRAP_32) | 0, 0, true) & 1) !== 0;
    return;
  }
  next.cr3 = cpu.s32[CR3];
  next.eip = cpu.readLinear16((base + IP_16) | 0, 0, true);
  next.eflags = cpu.readLinear16((base + FLAGS_16) | 0, 0, true);
  for (let r = 0; r < GPR_COUNT; r++) next.gpr[r] = cpu.readLinear16((base + AX_16 + 2 * r) | 0, 0, true);
  for (let s = 0; s < SEGMENT_COUNT_16; s++) {
    next.segments[s] = cpu.readLinear16((base + ES_16 + 2 * s) | 0, 0, true);
  }
  next.segments[FS] = next.segments[GS] = 0;
  next.ldt = cpu.readLinear16((base + LDT_16) | 0, 0, true);
  next.trap = false;
}

/** Writes the running task's registers to the TSS that TR names. */
function saveTask(cpu: Cpu, flags: number): void {
  const base = cpu.s32[baseWord(TR)];
  const g32 = cpu.g32;
  if ((cpu.segmentAttributes(TR) & TYPE_32) !== 0) {
    cpu.writeLinear32((base + EIP_32) | 0, 0, cpu.s32[RIP], true);
    cpu.writeLinear32((base + EFLAGS_32) | 0, 0, flags, true);
    for (let r = 0; r < GPR_COUNT; r++) cpu.writeLinear32((base + EAX_32 + 4 * r) | 0, 0, g32[2 * r], true);
    for (let s = 0; s < SEGMENT_COUNT_32; s++) {
      cpu.writeLinear16((base + ES_32 + 4 * s) | 0, 0, cpu.segmentSelector(s), true);
    }
    return;
  }
  cpu.writeLinear16((base + IP_16) | 0, 0, cpu.s32[RIP], true);
  cpu.writeLinear16((base + FLAGS_16) | 0, 0, flags, true);
  for (let r = 0; r < GPR_COUNT; r++) cpu.writeLinear16((base + AX_16 + 2 * r) | 0, 0, g32[2 * r], true);
  for (let s = 0; s < SEGMENT_COUNT_16; s++) {
    cpu.writeLinear16((base + ES_16 + 2 * s) | 0, 0, cpu.segmentSelector(s), true);
  }
}

/** Makes the TSS of the task that ends available again. */
function clearBusy(cpu: Cpu, selector: number): void {
  readDescriptor(cpu, selector & SELECTOR_INDEX, VECTOR_TS, 0);
  descriptor.hi &= ~(SYSTEM_TSS_BUSY << 8);
  writeAccessByte(cpu);
}

/** Makes {@linkcode next} the processor's registers, with every check in the new task's context. */
function loadTask(cpu: Cpu, wide: boolean, hasError: boolean, error: number): void {
  const s32 = cpu.s32;
  s32[CR0] |= CR0_TS;
  s32[DR7] &= ~DR7_LOCAL;
  s32[RIP] = next.eip;
  s32[RIP + 1] = 0;
  s32[RFLAGS] = (next.eflags & FLAGS_DEFINED) | FLAG_ONE;
  for (let r = 0; r < GPR_COUNT; r++) {
    cpu.g32[2 * r] = next.gpr[r];
    cpu.g32[2 * r + 1] = 0;
  }
  const v86 = (next.eflags & FLAG_VM) !== 0;
  const cpl = v86 ? 3 : next.segments[CS] & 3;
  for (let s = ES; s <= GS; s++) {
    // Not usable until its own check has passed; SS carries the privilege level.
    if (v86) setV86Segment(cpu, s, next.segments[s]);
    else cpu.setSegment(s, next.segments[s], s === SS ? cpl << 5 : 0, 0, 0);
  }
  setNull(cpu, LDTR, next.ldt);
  if (wide && (s32[CR0] & CR0_PG) !== 0) {
    if ((s32[CR4] & CR4_PAE) !== 0 && !directoryPointersValid(cpu, next.cr3)) cpu.raise(VECTOR_TS, 0);
    s32[CR3] = next.cr3;
    s32[CR3 + 1] = 0;
    cpu.flushTlb();
  }
  cpu.updateMode();
  loadTaskLocalTable(cpu, next.ldt);
  if (!v86) loadTaskSegments(cpu, cpl);
  cpu.updateMode();
  if (next.eip >>> 0 > cpu.segmentLimit(CS)) cpu.raise(VECTOR_GP, 0);
  if (hasError) {
    openCurrentStack(cpu, 0);
    framePush(cpu, error, wide ? 4 : 2);
    commitFrame(cpu);
  }
}

/** LDTR of the new task. */
function loadTaskLocalTable(cpu: Cpu, selector: number): void {
  if ((selector & SELECTOR_ERROR) === 0) return;
  if ((selector & SELECTOR_LOCAL) !== 0) cpu.raise(VECTOR_TS, selectorError(selector, 0));
  readDescriptor(cpu, selector, VECTOR_TS, 0);
  if (descriptorKind() !== SYSTEM_LDT || !descriptorPresent()) cpu.raise(VECTOR_TS, selectorError(selector, 0));
  commitDescriptor(cpu, LDTR, selector);
}

/** CS, SS and the data segments of the new task at level `cpl`. */
function loadTaskSegments(cpu: Cpu, cpl: number): void {
  const code = next.segments[CS];
  readDescriptor(cpu, code, VECTOR_TS, 0);
  const kind = descriptorKind();
  const conforming = (kind & SEG_EXPAND_DOWN) !== 0;
  const dpl = descriptorDpl();
  if ((kind & (SEG_S | SEG_CODE)) !== (SEG_S | SEG_CODE) || (conforming ? dpl > cpl : dpl !== cpl)) {
    cpu.raise(VECTOR_TS, selectorError(code, 0));
  }
  if (!descriptorPresent()) cpu.raise(VECTOR_NP, selectorError(code, 0));
  markAccessed(cpu);
  commitDescriptor(cpu, CS, code);
  const stack = next.segments[SS];
  checkStackSegment(cpu, stack, cpl, VECTOR_TS, 0);
  markAccessed(cpu);
  commitDescriptor(cpu, SS, stack);
  for (const seg of [DS, ES, FS, GS]) loadDataSegment(cpu, seg, next.segments[seg], VECTOR_TS, 0);
}

/** IRET with NT set: goes back to the task that the current TSS's link names. RIP is that behind the IRET. */
export function returnToLinkedTask(cpu: Cpu): void {
  const link = cpu.readLinear16(cpu.s32[baseWord(TR)], 0, true);
  if ((link & SELECTOR_LOCAL) !== 0) cpu.raise(VECTOR_TS, selectorError(link, 0));
  readDescriptor(cpu, link, VECTOR_TS, 0);
  switchTask(cpu, link, TASK_RETURN, 0, false, 0);
}

/** Whether a system descriptor's kind leads to a task switch in a far JMP or CALL. */
export function isTaskTarget(kind: number): boolean {
  return kind === SYSTEM_TASK_GATE || kind === SYSTEM_TSS16 || kind === SYSTEM_TSS32;
}
