/**
 * Far JMP, CALL and RET.
 *
 * @module
 */
import type { Cpu } from "../cpu.ts";
import { VECTOR_GP } from "../faults.ts";
import { farCall, farJump, readReturnCode, returnSameLevel, returnWithStack } from "../far_transfer.ts";
import { type Exec, type Insn, type OpcodeRow, row } from "../insn.ts";
import { setRealSegment } from "../segments.ts";
import { CS, SS } from "../state.ts";

/** A far pointer read from memory. */
const pointer = { selector: 0, lo: 0, hi: 0 };

/** Reads the far pointer that the memory operand is: an offset of the operand size, then a selector. */
export function loadFarPointer(cpu: Cpu, i: Insn): Readonly<typeof pointer> {
  cpu.ea(i);
  const lo = cpu.ea32[0];
  const hi = cpu.ea32[1];
  const size = i.opsize;
  pointer.hi = 0;
  if (size === 2) {
    pointer.lo = cpu.read16(i.segment, lo, hi);
  } else if (size === 4) {
    pointer.lo = cpu.read32(i.segment, lo, hi);
  } else {
    cpu.read64(i.segment, lo, hi);
    pointer.lo = cpu.v32[0];
    pointer.hi = cpu.v32[1];
  }
  const selectorLo = (lo + size) | 0;
  const carry = selectorLo >>> 0 < lo >>> 0 && i.addrsize === 8 ? 1 : 0;
  pointer.selector = cpu.read16(i.segment, selectorLo, (hi + carry) | 0);
  return pointer;
}

/** JMP ptr16:16 and ptr16:32. */
const jumpDirect: Exec = (cpu, i) => farJump(cpu, i.imm2, i.opsize === 2 ? i.immLo & 0xffff : i.immLo, 0);

/** CALL ptr16:16 and ptr16:32. */
const callDirect: Exec = (cpu, i) => farCall(cpu, i.imm2, i.opsize === 2 ? i.immLo & 0xffff : i.immLo, 0, i.opsize);

/** JMP m16:16, m16:32, m16:64. */
const jumpMemory: Exec = (cpu, i) => {
  const to = loadFarPointer(cpu, i);
  farJump(cpu, to.selector, to.lo, to.hi);
};

/** CALL m16:16, m16:32, m16:64. */
const callMemory: Exec = (cpu, i) => {
  const to = loadFarPointer(cpu, i);
  farCall(cpu, to.selector, to.lo, to.hi, i.opsize);
};

/** Reads `size` bytes `by` bytes above the stack pointer into `v32[0]` and `v32[1]`, without moving it. */
export function peekStack(cpu: Cpu, by: number, size: number): void {
  cpu.stackOffset(by);
  const lo = cpu.ea32[0];
  const hi = cpu.ea32[1];
  if (size === 8) {
    cpu.read64(SS, lo, hi);
    return;
  }
  cpu.v32[0] = size === 4 ? cpu.read32(SS, lo, hi) : cpu.read16(SS, lo, hi);
  cpu.v32[1] = 0;
}

/** Adds `count` bytes to a stack pointer lo:hi; the sum's halves. */
function addCount(lo: number, hi: number, count: number): [number, number] {
  const sum = (lo + count) | 0;
  return [sum, (hi + (sum >>> 0 < lo >>> 0 ? 1 : 0)) | 0];
}

/** RETF, and RETF imm16, which drops `immLo` more bytes. */
const returnFar: Exec = (cpu, i) => {
  const size = i.opsize;
  const drop = i.immLo & 0xffff;
  peekStack(cpu, 0, size);
  const lo = cpu.v32[0];
  const hi = cpu.v32[1];
  peekStack(cpu, size, size);
  const selector = cpu.v32[0] & 0xffff;
  if (!cpu.protected || cpu.v86) {
    if (lo >>> 0 > cpu.segmentLimit(CS)) cpu.raise(VECTOR_GP, 0);
    cpu.moveStack(2 * size + drop);
    setRealSegment(cpu, CS, selector);
    cpu.jump(lo, 0);
    cpu.updateMode();
    return;
  }
  readReturnCode(cpu, selector);
  if ((selector & 3) === cpu.cpl) {
    returnSameLevel(cpu, selector, lo, hi);
    cpu.moveStack(2 * size + drop);
  } else {
    peekStack(cpu, 2 * size + drop, size);
    const [spLo, spHi] = addCount(cpu.v32[0], cpu.v32[1], drop);
    peekStack(cpu, 3 * size + drop, size);
    returnWithStack(cpu, selector, lo, hi, cpu.v32[0] & 0xffff, spLo, spHi);
  }
  cpu.updateMode();
};

/** The opcode rows of this file. */
export const rows: readonly OpcodeRow[] = [
  row("1", 0x9a, "callf", "Ap", callDirect, { ends: true, invalid64: true }),
  row("1", 0xea, "jmpf", "Ap", jumpDirect, { ends: true, invalid64: true }),
  row("1", 0xff, "callf", "M", callMemory, { reg: 3, mod: "mem", ends: true }),
  row("1", 0xff, "jmpf", "M", jumpMemory, { reg: 5, mod: "mem", ends: true }),
  row("1", 0xca, "retf", "Iw", returnFar, { ends: true }),
  row("1", 0xcb, "retf", "", returnFar, { ends: true }),
];
