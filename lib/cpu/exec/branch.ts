/**
 * Near JMP, Jcc, CALL, RET, LOOP and JCXZ. A target outside the code segment (or not canonical) raises #GP(0) at the branch;
 * a target that cannot be fetched is the next instruction's fault.
 *
 * @module
 */

import type { Cpu } from "../cpu.ts";
import { VECTOR_GP } from "../faults.ts";
import { HOT } from "../hot_ops.ts";
import { type Exec, type ExecBySize, type Insn, type OpcodeRow, row } from "../insn.ts";
import { CS, RCX, RIP } from "../state.ts";
import { readE16, readE32, readE64 } from "./operand.ts";

/** Checks a branch target and returns it in RIP. */
export function branchTo(cpu: Cpu, lo: number, hi: number): void {
  checkTarget(cpu, lo, hi);
  cpu.jump(lo, hi);
}

/** Raises #GP(0) for a target that is not canonical or beyond the code segment's limit. */
export function checkTarget(cpu: Cpu, lo: number, hi: number): void {
  if (cpu.long64) {
    const top = hi >> 15;
    if (top !== 0 && top !== -1) cpu.raise(VECTOR_GP, 0);
  } else if ((lo >>> 0) > cpu.segmentLimit(CS)) {
    cpu.raise(VECTOR_GP, 0);
  }
}

/** Branches by the instruction's displacement, in its operand size. */
function branchBy(cpu: Cpu, i: Insn): void {
  const { s32 } = cpu;
  const next = s32[RIP];
  const lo = (next + i.immLo) | 0;
  if (i.opsize === 2) branchTo(cpu, lo & 0xffff, 0);
  else if (!cpu.long64) branchTo(cpu, lo, 0);
  else branchTo(cpu, lo, (s32[RIP + 1] + i.immHi + ((lo >>> 0) < (next >>> 0) ? 1 : 0)) | 0);
}

const jump: Exec = (cpu, i) => branchBy(cpu, i);

const jumpIf: Exec = (cpu, i) => {
  if (cpu.condition(i.opcode & 15)) branchBy(cpu, i);
};

const jumpTo: ExecBySize = {
  16: (cpu, i) => branchTo(cpu, readE16(cpu, i), 0),
  32: (cpu, i) => branchTo(cpu, readE32(cpu, i), 0),
  64: (cpu, i) => {
    readE64(cpu, i);
    branchTo(cpu, cpu.v32[0], cpu.v32[1]);
  },
};

const call: ExecBySize = {
  16: (cpu, i) => callTo(cpu, 2, (cpu.s32[RIP] + i.immLo) & 0xffff, 0),
  32: (cpu, i) => callTo(cpu, 4, (cpu.s32[RIP] + i.immLo) | 0, 0),
  64: (cpu, i) => {
    const next = cpu.s32[RIP];
    const lo = (next + i.immLo) | 0;
    callTo(cpu, 8, lo, (cpu.s32[RIP + 1] + i.immHi + ((lo >>> 0) < (next >>> 0) ? 1 : 0)) | 0);
  },
};

/** Pushes the return address and goes to the target. */
function callTo(cpu: Cpu, size: number, lo: number, hi: number): void {
  checkTarget(cpu, lo, hi);
  if (size === 8) {
    cpu.v32[0] = cpu.s32[RIP];
    cpu.v32[1] = cpu.s32[RIP + 1];
    cpu.push64();
  } else if (size === 4) {
    cpu.push32(cpu.s32[RIP]);
  } else {
    cpu.push16(cpu.s32[RIP]);
  }
  cpu.jump(lo, hi);
}

const callOperand: ExecBySize = {
  16: (cpu, i) => callTo(cpu, 2, readE16(cpu, i), 0),
  32: (cpu, i) => callTo(cpu, 4, readE32(cpu, i), 0),
  64: (cpu, i) => {
    readE64(cpu, i);
    callTo(cpu, 8, cpu.v32[0], cpu.v32[1]);
  },
};

/** RET: the target is checked before RSP moves. */
function returnNear(cpu: Cpu, i: Insn): void {
  cpu.stackOffset(0);
  const { ea32 } = cpu;
  let lo = 0;
  let hi = 0;
  if (i.opsize === 8) {
    cpu.read64(2, ea32[0], ea32[1]);
    lo = cpu.v32[0];
    hi = cpu.v32[1];
  } else {
    lo = i.opsize === 4 ? cpu.read32(2, ea32[0], ea32[1]) : cpu.read16(2, ea32[0], ea32[1]);
  }
  checkTarget(cpu, lo, hi);
  cpu.moveStack(i.opsize + i.immLo);
  cpu.jump(lo, hi);
}

/** Decrements the counter of the address size; true when it is not zero then. */
function countDown(cpu: Cpu, i: Insn): boolean {
  const { g32, g64, g16 } = cpu;
  if (i.addrsize === 8) {
    g64[RCX] = BigInt.asUintN(64, g64[RCX] - 1n);
    return (g32[RCX << 1] | g32[(RCX << 1) + 1]) !== 0;
  }
  if (i.addrsize === 4) {
    g32[RCX << 1]--;
    g32[(RCX << 1) + 1] = 0;
    return g32[RCX << 1] !== 0;
  }
  g16[RCX << 2]--;
  return g16[RCX << 2] !== 0;
}

/** A loop instruction's target is checked before the counter changes. */
function loopIf(cpu: Cpu, i: Insn, condition: boolean): void {
  const { g64, v64 } = cpu;
  v64[8] = g64[RCX];
  if (!countDown(cpu, i) || !condition) return;
  let done = false;
  try {
    branchBy(cpu, i);
    done = true;
  } finally {
    if (!done) g64[RCX] = v64[8];
  }
}

const jcxz: Exec = (cpu, i) => {
  const { g32, g16 } = cpu;
  const zero = i.addrsize === 2
    ? g16[RCX << 2] === 0
    : (g32[RCX << 1] | (i.addrsize === 8 ? g32[(RCX << 1) + 1] : 0)) === 0;
  if (zero) branchBy(cpu, i);
};

const NEAR = { ends: true, size64: "default" } as const;

/** The opcode rows of this file. */
export const BRANCH_ROWS: readonly OpcodeRow[] = [
  row("1", 0x74, "j", "Jb", jumpIf, { op: { 64: HOT.jz }, ...NEAR }),
  row("1", 0x75, "j", "Jb", jumpIf, { op: { 64: HOT.jnz }, ...NEAR }),
  row("1", 0x70, "j", "Jb", jumpIf, { count: 16, op: { 64: HOT.jcc }, ...NEAR }),
  row("0f", 0x84, "j", "Jz", jumpIf, { op: { 64: HOT.jz }, ...NEAR }),
  row("0f", 0x85, "j", "Jz", jumpIf, { op: { 64: HOT.jnz }, ...NEAR }),
  row("0f", 0x80, "j", "Jz", jumpIf, { count: 16, op: { 64: HOT.jcc }, ...NEAR }),
  row("1", 0xeb, "jmp", "Jb", jump, { op: { 64: HOT.jmp }, ...NEAR }),
  row("1", 0xe9, "jmp", "Jz", jump, { op: { 64: HOT.jmp }, ...NEAR }),
  row("1", 0xff, "jmp", "Ev", jumpTo, { reg: 4, ...NEAR }),
  row("1", 0xe8, "call", "Jz", call, { op: { 64: HOT.call }, ...NEAR }),
  row("1", 0xff, "call", "Ev", callOperand, { reg: 2, ...NEAR }),
  row("1", 0xc3, "ret", "", returnNear, { op: { 64: HOT.ret }, ...NEAR }),
  row("1", 0xc2, "ret", "Iw", returnNear, NEAR),
  row("1", 0xe0, "loopne", "Jb", (cpu, i) => loopIf(cpu, i, cpu.getZf() === 0), NEAR),
  row("1", 0xe1, "loope", "Jb", (cpu, i) => loopIf(cpu, i, cpu.getZf() !== 0), NEAR),
  row("1", 0xe2, "loop", "Jb", (cpu, i) => loopIf(cpu, i, true), NEAR),
  row("1", 0xe3, "jrcxz", "Jb", jcxz, NEAR),
];
