/**
 * Delivery of exceptions, software and external interrupts and NMIs: real-mode vector table, 16-bit, 32-bit and task gates,
 * 64-bit gates with interrupt stacks (AMD64 Architecture Programmer's Manual volume 2, chapter 8; Intel SDM volume 3,
 * chapter 6).
 *
 * @module
 */
import type { Cpu } from "./cpu.ts";
import { enterDebugHandler } from "./debug.ts";
import { VECTOR_DB, VECTOR_DE, VECTOR_DF, VECTOR_GP, VECTOR_NP, VECTOR_PF, VECTOR_TS, VECTOR_VC } from "./faults.ts";
import {
  checkStackSegment,
  codeSizeValid,
  commitDescriptor,
  descriptor,
  descriptorDpl,
  descriptorIsLong,
  descriptorKind,
  descriptorLimit,
  descriptorPresent,
  isCanonical,
  markAccessed,
  readDescriptor,
  SELECTOR_ERROR,
  selectorError,
  setNull,
  setNullStack,
  setRealSegment,
  SYSTEM_INTERRUPT_GATE16,
  SYSTEM_INTERRUPT_GATE32,
  SYSTEM_TASK_GATE,
  SYSTEM_TRAP_GATE16,
  SYSTEM_TRAP_GATE32,
  withinCode,
} from "./segments.ts";
import {
  alignFrame,
  commitFrame,
  framePush,
  framePush64,
  openCurrentStack,
  openDescriptorStack,
  openLongStack,
} from "./stack_frame.ts";
import {
  CpuState,
  CS,
  DS,
  ES,
  EVENT_HAS_ERROR,
  EVENT_TYPE_EXCEPTION,
  EVENT_TYPE_NMI,
  EVENT_TYPE_SHIFT,
  EVENT_TYPE_SOFTWARE,
  EVENT_VALID,
  FLAG_AC,
  FLAG_IF,
  FLAG_NT,
  FLAG_RF,
  FLAG_TF,
  FLAG_VM,
  FS,
  GS,
  RFLAGS,
  RIP,
  RSP,
  SEG_CODE,
  SEG_EXPAND_DOWN,
  SEG_S,
  SS,
} from "./state.ts";
import { readInnerStack, readTaskStack64, TASK64_IST1, TASK64_RSP0 } from "./task_state.ts";
import { switchThroughGate } from "./task_switch.ts";

/** Event type (in the numbering of `event`): ICEBP, a trap that is no INT instruction. */
export const EVENT_TYPE_PRIVILEGED_SOFTWARE = 5;
/** Event type: INT3 or INTO. */
export const EVENT_TYPE_SOFTWARE_EXCEPTION = 6;

/** Interrupt stack number in the high half of a 64-bit gate. */
const GATE_IST = 7;
/** Error code bit: the selector is a vector of the IDT. */
const ERROR_IDT = 2;
/** Error code bit: the event came from outside the program. */
const ERROR_EXTERNAL = 1;

const IDT_LIMIT = (CpuState.at.idtr + 6) >>> 1;
const IDT_BASE = (CpuState.at.idtr + 8) >>> 2;
const CR2 = CpuState.at.cr2 >>> 2;
const EVENT = CpuState.at.event >>> 2;
const EVENT_ERROR = CpuState.at.event_error >>> 2;
const EVENT_CR2 = CpuState.at.event_cr2 >>> 2;
const NMI_MASKED = CpuState.at.nmi_masked >>> 2;
const SHADOW = CpuState.at.interrupt_shadow >>> 2;
const RSP_LO = RSP * 2;

/** Whether an INT instruction asked for the event: gate DPL counts, and error codes do not say "external". */
function isSoftware(type: number): boolean {
  return type === EVENT_TYPE_SOFTWARE || type === EVENT_TYPE_SOFTWARE_EXCEPTION;
}

/** Exceptions whose combination with another one of them is a double fault. */
function isContributory(vector: number): boolean {
  return vector === VECTOR_DE || (vector >= VECTOR_TS && vector <= VECTOR_GP) || vector === VECTOR_VC;
}

/**
 * Delivers an event, and whatever its delivery raises in turn: a second fault, a double fault.
 *
 * RIP and RFLAGS are what the handler is to see saved. The faults of a nested delivery show the same RIP.
 *
 * @param type EVENT_TYPE_*; decides about gate privilege and the EXT bit.
 * An access of the delivery to a device leaves the processor with the event pending.
 *
 * @returns false on a triple fault: the processor shuts down, and the state is that before the last delivery.
 */
export function deliver(cpu: Cpu, vector: number, hasError: boolean, error: number, type: number): boolean {
  for (;;) {
    try {
      enter(cpu, vector, hasError, error, type);
      return true;
    } catch (thrown) {
      if (thrown === cpu.leaveSignal) keepPending(cpu, vector, hasError, error, type);
      if (thrown !== cpu.fault) throw thrown;
    }
    const second = cpu.fault.vector;
    const first = type === EVENT_TYPE_EXCEPTION ? vector : -1;
    const serious = isContributory(second) || second === VECTOR_PF;
    if (first === VECTOR_DF && serious) return false;
    if ((isContributory(first) && isContributory(second)) || (first === VECTOR_PF && serious)) {
      vector = VECTOR_DF;
      hasError = true;
      error = 0;
    } else {
      vector = second;
      hasError = cpu.fault.hasError;
      error = cpu.fault.error;
      if (vector !== VECTOR_DB) cpu.s32[RFLAGS] |= FLAG_RF;
    }
    type = EVENT_TYPE_EXCEPTION;
    if (cpu.interceptException(vector, hasError, error)) return true;
    if (second === VECTOR_PF) {
      cpu.s32[CR2] = cpu.fault.cr2Lo;
      cpu.s32[CR2 + 1] = cpu.fault.cr2Hi;
    }
  }
}

/** Makes an event pending whose delivery an access to a device has interrupted. */
function keepPending(cpu: Cpu, vector: number, hasError: boolean, error: number, type: number): void {
  const { s32 } = cpu;
  s32[EVENT] = EVENT_VALID | (hasError ? EVENT_HAS_ERROR : 0) | (type << EVENT_TYPE_SHIFT) | vector;
  s32[EVENT_ERROR] = error;
  s32[EVENT_CR2] = s32[CR2];
  s32[EVENT_CR2 + 1] = s32[CR2 + 1];
}

/**
 * Enters the handler of an event. Raises what the tables are wrong about, with RSP, RIP, flags and segments unchanged; an
 * INT instruction calls this directly, so that such a fault is an ordinary fault of that instruction.
 */
export function enter(cpu: Cpu, vector: number, hasError: boolean, error: number, type: number): void {
  cpu.flags();
  if (!cpu.protected) enterReal(cpu, vector);
  else if (cpu.longMode) enterLong(cpu, vector, hasError, error, type);
  else enterProtected(cpu, vector, hasError, error, type);
  if (type === EVENT_TYPE_NMI) cpu.s32[NMI_MASKED] = 1;
  if (vector === VECTOR_DB && type !== EVENT_TYPE_SOFTWARE) enterDebugHandler(cpu);
  cpu.s32[SHADOW] = 0;
  cpu.traceCancelled = true;
  cpu.updateMode();
}

/** Real mode: four bytes of CS:IP in the vector table; error codes are not pushed. */
function enterReal(cpu: Cpu, vector: number): void {
  const entry = vector * 4;
  if (entry + 3 > cpu.s16[IDT_LIMIT]) cpu.raise(VECTOR_GP, 0);
  const target = cpu.readLinear32((cpu.s32[IDT_BASE] + entry) | 0, 0, true);
  const flags = cpu.s32[RFLAGS];
  openCurrentStack(cpu, 0);
  framePush(cpu, flags, 2);
  framePush(cpu, cpu.segmentSelector(CS), 2);
  framePush(cpu, cpu.s32[RIP], 2);
  if (!withinCode(cpu, target & 0xffff)) cpu.raise(VECTOR_GP, 0);
  commitFrame(cpu);
  setRealSegment(cpu, CS, target >>> 16);
  cpu.jump(target & 0xffff, 0);
  cpu.s32[RFLAGS] = flags & ~(FLAG_IF | FLAG_TF | FLAG_AC | FLAG_RF);
}

/** Error code of the IDT entry itself. */
function gateError(vector: number, ext: number): number {
  return (vector << 3) | ERROR_IDT | ext;
}

/** Protected mode without long mode, virtual-8086 mode included: 8-byte gates. */
function enterProtected(cpu: Cpu, vector: number, hasError: boolean, error: number, type: number): void {
  const ext = isSoftware(type) ? 0 : ERROR_EXTERNAL;
  const entry = vector * 8;
  if (entry + 7 > cpu.s16[IDT_LIMIT]) cpu.raise(VECTOR_GP, gateError(vector, ext));
  cpu.readLinear64((cpu.s32[IDT_BASE] + entry) | 0, 0, true);
  const gateLo = cpu.v32[0];
  const gateHi = cpu.v32[1];
  const kind = (gateHi >>> 8) & 0x1f;
  const known = kind === SYSTEM_TASK_GATE || kind === SYSTEM_INTERRUPT_GATE16 || kind === SYSTEM_TRAP_GATE16 ||
    kind === SYSTEM_INTERRUPT_GATE32 || kind === SYSTEM_TRAP_GATE32;
  if (!known) cpu.raise(VECTOR_GP, gateError(vector, ext));
  if (isSoftware(type) && ((gateHi >>> 13) & 3) < cpu.cpl) cpu.raise(VECTOR_GP, gateError(vector, ext));
  if ((gateHi & 0x8000) === 0) cpu.raise(VECTOR_NP, gateError(vector, ext));
  if (kind === SYSTEM_TASK_GATE) {
    switchThroughGate(cpu, gateLo >>> 16, ext, hasError, error);
    return;
  }
  const size = (kind & 8) !== 0 ? 4 : 2;
  const offset = size === 4 ? (gateHi & 0xffff_0000) | (gateLo & 0xffff) : gateLo & 0xffff;
  const cpl = readHandlerCode(cpu, gateLo >>> 16, ext);
  if (cpu.v86 && (cpl !== 0 || (descriptorKind() & SEG_EXPAND_DOWN) !== 0)) {
    cpu.raise(VECTOR_GP, selectorError(gateLo >>> 16, ext));
  }
  const codeLo = descriptor.lo;
  const codeHi = descriptor.hi;
  const addressLo = descriptor.addressLo;
  const stackSelector = openHandlerStack(cpu, cpl, ext);
  const stackLo = descriptor.lo;
  const stackHi = descriptor.hi;
  pushFrame(cpu, cpl, size, hasError, error);

  descriptor.lo = codeLo;
  descriptor.hi = codeHi;
  if (offset >>> 0 > descriptorLimit() >>> 0) cpu.raise(VECTOR_GP, ext);
  descriptor.addressLo = addressLo;
  markAccessed(cpu);
  const fromV86 = cpu.v86;
  const oldCpl = cpu.cpl;
  commitDescriptor(cpu, CS, ((gateLo >>> 16) & ~3) | cpl);
  if (cpl !== oldCpl) {
    descriptor.lo = stackLo;
    descriptor.hi = stackHi;
    commitDescriptor(cpu, SS, stackSelector);
    cpu.g32[RSP_LO] = 0; // all of ESP is written, also for a 16-bit stack
  }
  commitFrame(cpu);
  if (fromV86) { for (const seg of [GS, FS, DS, ES]) setNull(cpu, seg, 0); }
  cpu.jump(offset, 0);
  clearEntryFlags(cpu, (kind & 1) === 0);
}

/** Clears the flags that a gate clears: TF, VM, RF, NT, and IF through an interrupt gate. */
function clearEntryFlags(cpu: Cpu, interruptGate: boolean): void {
  const cleared = FLAG_TF | FLAG_VM | FLAG_RF | FLAG_NT | (interruptGate ? FLAG_IF : 0);
  cpu.s32[RFLAGS] &= ~cleared;
}

/** Reads and checks a handler's code segment; returns the privilege level at which it will run. */
function readHandlerCode(cpu: Cpu, selector: number, ext: number): number {
  if ((selector & SELECTOR_ERROR) === 0) cpu.raise(VECTOR_GP, ext);
  readDescriptor(cpu, selector, VECTOR_GP, ext);
  const kind = descriptorKind();
  const dpl = descriptorDpl();
  if ((kind & (SEG_S | SEG_CODE)) !== (SEG_S | SEG_CODE) || dpl > cpu.cpl) {
    cpu.raise(VECTOR_GP, selectorError(selector, ext));
  }
  if (cpu.longMode && (!descriptorIsLong(cpu) || !codeSizeValid(cpu))) {
    cpu.raise(VECTOR_GP, selectorError(selector, ext));
  }
  if (!descriptorPresent()) cpu.raise(VECTOR_NP, selectorError(selector, ext));
  return (kind & SEG_EXPAND_DOWN) !== 0 ? cpu.cpl : dpl;
}

/**
 * Opens the stack that a 16- or 32-bit handler at level `cpl` uses: the current one, or the TSS's for that level. Returns
 * the new stack's selector and leaves its descriptor as the one read last.
 */
function openHandlerStack(cpu: Cpu, cpl: number, ext: number): number {
  if (cpl === cpu.cpl) {
    openCurrentStack(cpu, ext);
    return 0;
  }
  const inner = readInnerStack(cpu, cpl, ext);
  checkStackSegment(cpu, inner.selector, cpl, VECTOR_TS, ext);
  openDescriptorStack(inner.pointer, cpl, selectorError(inner.selector, ext));
  markAccessed(cpu);
  return inner.selector;
}

/** Pushes the frame of a 16- or 32-bit gate onto the stack opened last. */
function pushFrame(cpu: Cpu, cpl: number, size: number, hasError: boolean, error: number): void {
  if (cpu.v86) { for (const seg of [GS, FS, DS, ES]) framePush(cpu, cpu.segmentSelector(seg), size); }
  if (cpl !== cpu.cpl) {
    framePush(cpu, cpu.segmentSelector(SS), size);
    framePush(cpu, cpu.g32[RSP_LO], size);
  }
  framePush(cpu, cpu.s32[RFLAGS], size);
  framePush(cpu, cpu.segmentSelector(CS), size);
  framePush(cpu, cpu.s32[RIP], size);
  if (hasError) framePush(cpu, error, size);
}

/** Long mode: 16-byte gates, a frame of eight-byte values with SS:RSP always, interrupt stacks. */
function enterLong(cpu: Cpu, vector: number, hasError: boolean, error: number, type: number): void {
  const ext = isSoftware(type) ? 0 : ERROR_EXTERNAL;
  const entry = vector * 16;
  if (entry + 15 > cpu.s16[IDT_LIMIT]) cpu.raise(VECTOR_GP, gateError(vector, ext));
  const idtLo = cpu.s32[IDT_BASE];
  const entryLo = (idtLo + entry) | 0;
  const entryHi = (cpu.s32[IDT_BASE + 1] + (entryLo >>> 0 < idtLo >>> 0 ? 1 : 0)) | 0;
  cpu.readLinear64(entryLo, entryHi, true);
  const gateLo = cpu.v32[0];
  const gateHi = cpu.v32[1];
  const kind = (gateHi >>> 8) & 0x1f;
  if (kind !== SYSTEM_INTERRUPT_GATE32 && kind !== SYSTEM_TRAP_GATE32) cpu.raise(VECTOR_GP, gateError(vector, ext));
  if (isSoftware(type) && ((gateHi >>> 13) & 3) < cpu.cpl) cpu.raise(VECTOR_GP, gateError(vector, ext));
  if ((gateHi & 0x8000) === 0) cpu.raise(VECTOR_NP, gateError(vector, ext));
  const upperLo = (entryLo + 8) | 0;
  const offsetHi = cpu.readLinear32(upperLo, (entryHi + (upperLo >>> 0 < 8 ? 1 : 0)) | 0, true);
  const offsetLo = (gateHi & 0xffff_0000) | (gateLo & 0xffff);
  const selector = gateLo >>> 16;
  const cpl = readHandlerCode(cpu, selector, ext);
  const oldCpl = cpu.cpl;
  openLongHandlerStack(cpu, cpl, gateHi & GATE_IST, ext);
  alignFrame();
  framePush64(cpu, cpu.segmentSelector(SS), 0);
  framePush64(cpu, cpu.g32[RSP_LO], cpu.g32[RSP_LO + 1]);
  framePush64(cpu, cpu.s32[RFLAGS], 0);
  framePush64(cpu, cpu.segmentSelector(CS), 0);
  framePush64(cpu, cpu.s32[RIP], cpu.s32[RIP + 1]);
  if (hasError) framePush64(cpu, error, 0);
  if (!isCanonical(offsetHi)) cpu.raise(VECTOR_GP, ext);

  markAccessed(cpu);
  commitDescriptor(cpu, CS, (selector & ~3) | cpl);
  if (cpl !== oldCpl) setNullStack(cpu, cpl);
  commitFrame(cpu);
  cpu.jump(offsetLo, offsetHi);
  clearEntryFlags(cpu, (kind & 1) === 0);
}

/** Opens the stack of a 64-bit handler: interrupt stack `ist` (0 for none), the TSS's for a new level, or the current. */
function openLongHandlerStack(cpu: Cpu, cpl: number, ist: number, ext: number): void {
  if (ist === 0 && cpl === cpu.cpl) {
    openCurrentStack(cpu, ext);
    return;
  }
  readTaskStack64(cpu, ist === 0 ? TASK64_RSP0 + 8 * cpl : TASK64_IST1 + 8 * (ist - 1), ext);
  openLongStack(cpu.v32[0], cpu.v32[1], cpl, ext);
}
