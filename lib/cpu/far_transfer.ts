/**
 * Far control transfers in protected mode: direct ones, through call gates with a change of privilege, and the common half
 * of RETF and IRET (AMD64 Architecture Programmer's Manual volume 2, section 4.11; Intel SDM volume 3, section 6.8).
 *
 * Every check comes before the first register changes. RIP in the state is that of the next instruction on entry.
 *
 * @module
 */
import type { Cpu } from "./cpu.ts";
import { VECTOR_GP, VECTOR_NP, VECTOR_TS } from "./faults.ts";
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
  dropInnerSegments,
  isCanonical,
  markAccessed,
  readDescriptor,
  SELECTOR_ERROR,
  SELECTOR_LOCAL,
  selectorError,
  setRealSegment,
  SYSTEM_CALL_GATE16,
  SYSTEM_CALL_GATE32,
  SYSTEM_TASK_GATE,
  tryReadUpperHalf,
} from "./segments.ts";
import {
  commitFrame,
  framePush,
  framePushSized,
  openCurrentStack,
  openDescriptorStack,
  openLongStack,
} from "./stack_frame.ts";
import { CS, RIP, RSP, SEG_BIG, SEG_CODE, SEG_EXPAND_DOWN, SEG_S, SS } from "./state.ts";
import { readInnerStack, readTaskStack64, TASK64_RSP0 } from "./task_state.ts";
import { isTaskTarget, switchTask, switchThroughGate, TASK_CALL, TASK_JUMP } from "./task_switch.ts";

const RSP_LO = RSP * 2;
const RSP_HI = RSP * 2 + 1;
/** Bits of a call gate's high half that count 16- or 32-bit parameters. */
const GATE_PARAMETERS = 0x1f;

/** Raises #GP(0) unless RIP = lo:hi lies in the code segment whose descriptor was read last. */
function checkTarget(cpu: Cpu, lo: number, hi: number): void {
  const valid = descriptorIsLong(cpu) ? isCanonical(hi) : hi === 0 && lo >>> 0 <= descriptorLimit() >>> 0;
  if (!valid) cpu.raise(VECTOR_GP, 0);
}

/** Makes the code segment descriptor read last CS at level `cpl`, and goes to lo:hi in it. */
function enterCode(cpu: Cpu, selector: number, cpl: number, lo: number, hi: number): void {
  markAccessed(cpu);
  commitDescriptor(cpu, CS, (selector & ~3) | cpl);
  cpu.jump(lo, hi);
}

/** Checks of a direct JMP or CALL to the code segment whose descriptor was read last. */
function checkDirectCode(cpu: Cpu, selector: number): void {
  const kind = descriptorKind();
  const dpl = descriptorDpl();
  const conforming = (kind & SEG_EXPAND_DOWN) !== 0;
  const privileged = conforming ? dpl > cpu.cpl : dpl !== cpu.cpl || (selector & 3) > cpu.cpl;
  if ((kind & SEG_CODE) === 0 || privileged || !codeSizeValid(cpu)) cpu.raise(VECTOR_GP, selectorError(selector, 0));
  if (!descriptorPresent()) cpu.raise(VECTOR_NP, selectorError(selector, 0));
}

/** A far JMP to selector:lo:hi (zero-extended from the operand size). */
export function farJump(cpu: Cpu, selector: number, lo: number, hi: number): void {
  if (!cpu.protected || cpu.v86) {
    if (lo >>> 0 > cpu.segmentLimit(CS)) cpu.raise(VECTOR_GP, 0);
    setRealSegment(cpu, CS, selector);
    cpu.jump(lo, 0);
    cpu.updateMode();
    return;
  }
  if ((selector & SELECTOR_ERROR) === 0) cpu.raise(VECTOR_GP, 0);
  readDescriptor(cpu, selector, VECTOR_GP, 0);
  if ((descriptorKind() & SEG_S) !== 0) {
    checkDirectCode(cpu, selector);
    checkTarget(cpu, lo, hi);
    enterCode(cpu, selector, cpu.cpl, lo, hi);
  } else {
    throughSystemDescriptor(cpu, selector, false);
  }
  cpu.updateMode();
}

/** A far CALL to selector:lo:hi that pushes CS and RIP in `size` (2, 4 or 8) bytes each. */
export function farCall(cpu: Cpu, selector: number, lo: number, hi: number, size: number): void {
  if (!cpu.protected || cpu.v86) {
    if (lo >>> 0 > cpu.segmentLimit(CS)) cpu.raise(VECTOR_GP, 0);
    openCurrentStack(cpu, 0);
    framePush(cpu, cpu.segmentSelector(CS), size);
    framePush(cpu, cpu.s32[RIP], size);
    commitFrame(cpu);
    setRealSegment(cpu, CS, selector);
    cpu.jump(lo, 0);
    cpu.updateMode();
    return;
  }
  if ((selector & SELECTOR_ERROR) === 0) cpu.raise(VECTOR_GP, 0);
  readDescriptor(cpu, selector, VECTOR_GP, 0);
  if ((descriptorKind() & SEG_S) !== 0) {
    checkDirectCode(cpu, selector);
    openCurrentStack(cpu, 0);
    pushReturn(cpu, size);
    checkTarget(cpu, lo, hi);
    commitFrame(cpu);
    enterCode(cpu, selector, cpu.cpl, lo, hi);
  } else {
    throughSystemDescriptor(cpu, selector, true);
  }
  cpu.updateMode();
}

/** Pushes CS and the address of the next instruction onto the stack opened last. */
function pushReturn(cpu: Cpu, size: number): void {
  framePushSized(cpu, cpu.segmentSelector(CS), 0, size);
  framePushSized(cpu, cpu.s32[RIP], cpu.s32[RIP + 1], size);
}

/** A far transfer whose selector names a call gate, a task gate or a TSS; its descriptor was read last. */
function throughSystemDescriptor(cpu: Cpu, selector: number, call: boolean): void {
  const kind = descriptorKind();
  const dpl = descriptorDpl();
  const task = isTaskTarget(kind) && !cpu.longMode;
  const gate = kind === SYSTEM_CALL_GATE32 || (kind === SYSTEM_CALL_GATE16 && !cpu.longMode);
  if ((!task && !gate) || dpl < cpu.cpl || dpl < (selector & 3)) cpu.raise(VECTOR_GP, selectorError(selector, 0));
  if (!descriptorPresent()) cpu.raise(VECTOR_NP, selectorError(selector, 0));
  if (task) {
    const source = call ? TASK_CALL : TASK_JUMP;
    if (kind === SYSTEM_TASK_GATE) {
      switchThroughGate(cpu, descriptor.lo >>> 16, 0, false, 0, source);
    } else {
      if ((selector & SELECTOR_LOCAL) !== 0) cpu.raise(VECTOR_GP, selectorError(selector, 0));
      switchTask(cpu, selector, source, 0, false, 0);
    }
    return;
  }
  throughCallGate(cpu, selector, kind === SYSTEM_CALL_GATE32, call);
}

/** A far transfer through the call gate whose descriptor was read last. */
function throughCallGate(cpu: Cpu, gateSelector: number, wide: boolean, call: boolean): void {
  if (cpu.longMode && !tryReadUpperHalf(cpu, gateSelector)) cpu.raise(VECTOR_GP, selectorError(gateSelector, 0));
  const offsetLo = wide ? (descriptor.hi & 0xffff_0000) | (descriptor.lo & 0xffff) : descriptor.lo & 0xffff;
  const offsetHi = descriptor.upper;
  const parameters = descriptor.hi & GATE_PARAMETERS;
  const selector = descriptor.lo >>> 16;
  if ((selector & SELECTOR_ERROR) === 0) cpu.raise(VECTOR_GP, 0);
  readDescriptor(cpu, selector, VECTOR_GP, 0);
  const kind = descriptorKind();
  const dpl = descriptorDpl();
  const conforming = (kind & SEG_EXPAND_DOWN) !== 0;
  const tooHigh = call || conforming ? dpl > cpu.cpl : dpl !== cpu.cpl;
  if ((kind & (SEG_S | SEG_CODE)) !== (SEG_S | SEG_CODE) || tooHigh) cpu.raise(VECTOR_GP, selectorError(selector, 0));
  if (cpu.longMode && (!descriptorIsLong(cpu) || !codeSizeValid(cpu))) cpu.raise(VECTOR_GP, selectorError(selector, 0));
  if (!descriptorPresent()) cpu.raise(VECTOR_NP, selectorError(selector, 0));

  if (!call) {
    checkTarget(cpu, offsetLo, offsetHi);
    enterCode(cpu, selector, cpu.cpl, offsetLo, offsetHi);
    return;
  }
  const size = cpu.longMode ? 8 : wide ? 4 : 2;
  if (conforming || dpl === cpu.cpl) {
    openCurrentStack(cpu, 0);
    pushReturn(cpu, size);
    checkTarget(cpu, offsetLo, offsetHi);
    commitFrame(cpu);
    enterCode(cpu, selector, cpu.cpl, offsetLo, offsetHi);
  } else if (cpu.longMode) {
    callInnerLong(cpu, selector, dpl, offsetLo, offsetHi);
  } else {
    callInner(cpu, selector, dpl, offsetLo, size, parameters);
  }
}

/** A CALL through a 64-bit gate to an inner level: the TSS's RSPn, a null SS. */
function callInnerLong(cpu: Cpu, selector: number, cpl: number, offsetLo: number, offsetHi: number): void {
  readTaskStack64(cpu, TASK64_RSP0 + 8 * cpl, 0);
  openLongStack(cpu.v32[0], cpu.v32[1], cpl, 0);
  framePushSized(cpu, cpu.segmentSelector(SS), 0, 8);
  framePushSized(cpu, cpu.g32[RSP_LO], cpu.g32[RSP_HI], 8);
  pushReturn(cpu, 8);
  checkTarget(cpu, offsetLo, offsetHi);
  enterCode(cpu, selector, cpl, offsetLo, offsetHi);
  cpu.setSegment(SS, cpl, cpl << 5, 0, 0);
  commitFrame(cpu);
}

/** A CALL through a 16- or 32-bit gate to an inner level: the TSS's stack, with the caller's parameters copied. */
function callInner(cpu: Cpu, selector: number, cpl: number, offset: number, size: number, parameters: number): void {
  const codeLo = descriptor.lo;
  const codeHi = descriptor.hi;
  const codeAddress = descriptor.addressLo;
  const inner = readInnerStack(cpu, cpl, 0);
  const stackSelector = inner.selector;
  checkStackSegment(cpu, stackSelector, cpl, VECTOR_TS, 0);
  openDescriptorStack(inner.pointer, cpl, selectorError(stackSelector, 0));
  framePush(cpu, cpu.segmentSelector(SS), size);
  framePush(cpu, cpu.g32[RSP_LO], size);
  for (let n = parameters - 1; n >= 0; n--) {
    cpu.stackOffset(n * size);
    const value = size === 4 ? cpu.read32(SS, cpu.ea32[0], cpu.ea32[1]) : cpu.read16(SS, cpu.ea32[0], cpu.ea32[1]);
    framePush(cpu, value, size);
  }
  pushReturn(cpu, size);
  const stackLo = descriptor.lo;
  const stackHi = descriptor.hi;
  const stackAddress = descriptor.addressLo;
  descriptor.lo = codeLo;
  descriptor.hi = codeHi;
  descriptor.addressLo = codeAddress;
  checkTarget(cpu, offset, 0);
  enterCode(cpu, selector, cpl, offset, 0);
  descriptor.lo = stackLo;
  descriptor.hi = stackHi;
  descriptor.addressLo = stackAddress;
  markAccessed(cpu);
  commitDescriptor(cpu, SS, stackSelector);
  cpu.g32[RSP_LO] = 0; // all of ESP is written, also for a 16-bit stack
  commitFrame(cpu);
}

/** Reads and checks the code segment to which RETF or IRET returns; leaves its descriptor as the one read last. */
export function readReturnCode(cpu: Cpu, selector: number): void {
  if ((selector & SELECTOR_ERROR) === 0) cpu.raise(VECTOR_GP, 0);
  readDescriptor(cpu, selector, VECTOR_GP, 0);
  const kind = descriptorKind();
  const dpl = descriptorDpl();
  const rpl = selector & 3;
  const code = (kind & (SEG_S | SEG_CODE)) === (SEG_S | SEG_CODE);
  const levels = (kind & SEG_EXPAND_DOWN) !== 0 ? dpl <= rpl : dpl === rpl;
  if (!code || rpl < cpu.cpl || !levels || !codeSizeValid(cpu)) cpu.raise(VECTOR_GP, selectorError(selector, 0));
  if (!descriptorPresent()) cpu.raise(VECTOR_NP, selectorError(selector, 0));
}

/** Returns within the level to the code segment read last. RSP is the caller's business. */
export function returnSameLevel(cpu: Cpu, selector: number, lo: number, hi: number): void {
  checkTarget(cpu, lo, hi);
  enterCode(cpu, selector, selector & 3, lo, hi);
}

/**
 * Returns to the code segment read last, with a new stack `stackSelector`:spLo:spHi, to an outer level or (IRET in 64-bit
 * code) within the same one. Segments that the outer level may not use become null.
 */
export function returnWithStack(
  cpu: Cpu,
  selector: number,
  lo: number,
  hi: number,
  stackSelector: number,
  spLo: number,
  spHi: number,
): void {
  const cpl = selector & 3;
  const oldCpl = cpu.cpl;
  const long = descriptorIsLong(cpu);
  checkTarget(cpu, lo, hi);
  const codeLo = descriptor.lo;
  const codeHi = descriptor.hi;
  const addressLo = descriptor.addressLo;
  const addressHi = descriptor.addressHi;
  const nullStack = (stackSelector & SELECTOR_ERROR) === 0;
  if (nullStack) {
    if (!long || cpl === 3) cpu.raise(VECTOR_GP, 0);
  } else {
    checkStackSegment(cpu, stackSelector, cpl, VECTOR_GP, 0);
    markAccessed(cpu);
  }
  const stackLo = descriptor.lo;
  const stackHi = descriptor.hi;
  descriptor.lo = codeLo;
  descriptor.hi = codeHi;
  descriptor.addressLo = addressLo;
  descriptor.addressHi = addressHi;
  enterCode(cpu, selector, cpl, lo, hi);
  if (nullStack) {
    cpu.setSegment(SS, stackSelector, cpl << 5, 0, 0);
  } else {
    descriptor.lo = stackLo;
    descriptor.hi = stackHi;
    commitDescriptor(cpu, SS, stackSelector);
  }
  if (long) {
    cpu.g32[RSP_LO] = spLo;
    cpu.g32[RSP_HI] = spHi;
  } else if ((cpu.segmentAttributes(SS) & SEG_BIG) !== 0) {
    cpu.g32[RSP_LO] = spLo;
    cpu.g32[RSP_HI] = 0;
  } else {
    cpu.g32[RSP_LO] = (cpu.g32[RSP_LO] & ~0xffff) | (spLo & 0xffff);
  }
  if (cpl !== oldCpl) dropInnerSegments(cpu, cpl);
}
