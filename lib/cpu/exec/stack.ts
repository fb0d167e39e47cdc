/**
 * PUSH, POP, PUSHA, POPA, PUSHF, POPF, ENTER and LEAVE.
 *
 * @module
 */

import type { Cpu } from "../cpu.ts";
import { VECTOR_GP } from "../faults.ts";
import { HOT } from "../hot_ops.ts";
import { type Exec, type ExecBySize, type Insn, type OpcodeRow, row } from "../insn.ts";
import {
  FLAG_AC,
  FLAG_DF,
  FLAG_ID,
  FLAG_IF,
  FLAG_IOPL,
  FLAG_NT,
  FLAG_RF,
  FLAG_TF,
  FLAG_VIF,
  FLAG_VIP,
  FLAG_VM,
  FLAGS_ARITHMETIC,
  RBP,
  RFLAGS,
  RSP,
  SS,
} from "../state.ts";
import { readE16, readE32, readE64, write32, writeE16, writeE32, writeE64 } from "./operand.ts";

const pushRegister: ExecBySize = {
  16: (cpu, i) => cpu.push16(cpu.g16[i.rm << 2]),
  32: (cpu, i) => cpu.push32(cpu.g32[i.rm << 1]),
  64: (cpu, i) => {
    cpu.v64[0] = cpu.g64[i.rm];
    cpu.push64();
  },
};

const popRegister: ExecBySize = {
  16: (cpu, i) => {
    cpu.g16[i.rm << 2] = cpu.pop16();
  },
  32: (cpu, i) => write32(cpu, i.rm, cpu.pop32()),
  64: (cpu, i) => {
    cpu.pop64();
    cpu.g64[i.rm] = cpu.v64[0];
  },
};

const pushImmediate: ExecBySize = {
  16: (cpu, i) => cpu.push16(i.immLo),
  32: (cpu, i) => cpu.push32(i.immLo),
  64: (cpu, i) => {
    cpu.v32[0] = i.immLo;
    cpu.v32[1] = i.immHi;
    cpu.push64();
  },
};

const pushOperand: ExecBySize = {
  16: (cpu, i) => cpu.push16(readE16(cpu, i)),
  32: (cpu, i) => cpu.push32(readE32(cpu, i)),
  64: (cpu, i) => {
    readE64(cpu, i);
    cpu.push64();
  },
};

/** An address that uses RSP sees it incremented; a store that faults leaves RSP as it was. */
const popOperand: ExecBySize = {
  16: (cpu, i) => popTo(cpu, i, 2),
  32: (cpu, i) => popTo(cpu, i, 4),
  64: (cpu, i) => popTo(cpu, i, 8),
};

/** POP to memory or register of `size` bytes. */
function popTo(cpu: Cpu, i: Insn, size: number): void {
  const { g32 } = cpu;
  const lo = g32[RSP << 1];
  const hi = g32[(RSP << 1) + 1];
  let value = 0;
  if (size === 8) cpu.pop64();
  else value = size === 4 ? cpu.pop32() : cpu.pop16();
  let done = false;
  try {
    if (size === 8) writeE64(cpu, i);
    else if (size === 4) writeE32(cpu, i, value);
    else writeE16(cpu, i, value);
    done = true;
  } finally {
    if (!done) {
      g32[RSP << 1] = lo;
      g32[(RSP << 1) + 1] = hi;
    }
  }
}

/** PUSHA: eight registers, the stack pointer as it was; nothing changes when any of them faults. */
function pushAll(cpu: Cpu, size: 2 | 4): void {
  const total = -8 * size;
  cpu.stackOffset(total);
  // Every byte is tried first, then written from the top, as the pushes would.
  for (let k = 1; k <= 8; k++) {
    cpu.stackOffset(-k * size);
    cpu.probeWrite(SS, cpu.ea32[0], cpu.ea32[1], size);
  }
  for (let k = 0; k < 8; k++) {
    cpu.stackOffset(-(k + 1) * size);
    if (size === 4) cpu.write32(SS, cpu.ea32[0], cpu.ea32[1], cpu.g32[k << 1]);
    else cpu.write16(SS, cpu.ea32[0], cpu.ea32[1], cpu.g16[k << 2]);
  }
  cpu.moveStack(total);
}

/** POPA: the stack pointer's slot is skipped. */
function popAll(cpu: Cpu, size: 2 | 4): void {
  const values: number[] = [];
  for (let k = 0; k < 8; k++) {
    cpu.stackOffset(k * size);
    values[7 - k] = size === 4 ? cpu.read32(SS, cpu.ea32[0], cpu.ea32[1]) : cpu.read16(SS, cpu.ea32[0], cpu.ea32[1]);
  }
  for (let register = 0; register < 8; register++) {
    if (register === RSP) continue;
    if (size === 4) write32(cpu, register, values[register]);
    else cpu.g16[register << 2] = values[register];
  }
  cpu.moveStack(8 * size);
}

/** In virtual-8086 mode PUSHF, POPF and others need IOPL 3. */
function requireIopl(cpu: Cpu): void {
  if (cpu.v86 && (cpu.s32[RFLAGS] & FLAG_IOPL) !== FLAG_IOPL) cpu.raise(VECTOR_GP, 0);
}

/** VM and RF are pushed as zero. */
const pushf: ExecBySize = {
  16: (cpu) => {
    requireIopl(cpu);
    cpu.push16(cpu.flags());
  },
  32: (cpu) => {
    requireIopl(cpu);
    cpu.push32(cpu.flags() & ~(FLAG_VM | FLAG_RF));
  },
  64: (cpu) => {
    cpu.v32[0] = cpu.flags() & ~(FLAG_VM | FLAG_RF);
    cpu.v32[1] = 0;
    cpu.push64();
  },
};

/** Flags that POPF changes at any privilege. */
const POPF_ALWAYS = FLAGS_ARITHMETIC | FLAG_TF | FLAG_DF | FLAG_NT | FLAG_AC | FLAG_ID;

/** Writes popped flags, as far as the privilege allows; `kept` are those that the operand size does not reach. */
function setPopped(cpu: Cpu, value: number, kept: number): void {
  const old = cpu.flags();
  let mask = POPF_ALWAYS;
  const iopl = (old & FLAG_IOPL) >> 12;
  if (cpu.cpl === 0) mask |= FLAG_IOPL | FLAG_IF;
  else if (cpu.cpl <= iopl) mask |= FLAG_IF;
  mask &= ~kept;
  let flags = (old & ~mask) | (value & mask);
  flags &= ~FLAG_RF;
  if (kept === 0 && cpu.cpl === 0) flags &= ~(FLAG_VIP | FLAG_VIF);
  cpu.setFlags(flags);
}

/** The flags above bit 15. */
const FLAGS_HIGH = 0x7fff0000;

const popf: ExecBySize = {
  16: (cpu) => {
    requireIopl(cpu);
    setPopped(cpu, cpu.pop16(), FLAGS_HIGH);
  },
  32: (cpu) => {
    requireIopl(cpu);
    setPopped(cpu, cpu.pop32(), 0);
  },
  64: (cpu) => {
    cpu.pop64();
    setPopped(cpu, cpu.v32[0], 0);
  },
};

/** LEAVE: the stack pointer from rBP, then POP rBP. */
const leave: Exec = (cpu, i) => {
  const { g32, g16 } = cpu;
  const lo = g32[RBP << 1];
  const hi = cpu.stackSize === 64 ? g32[(RBP << 1) + 1] : 0;
  const at = cpu.stackSize === 16 ? lo & 0xffff : lo;
  if (i.opsize === 8) {
    cpu.read64(SS, at, hi);
    cpu.g64[RBP] = cpu.v64[0];
  } else if (i.opsize === 4) {
    write32(cpu, RBP, cpu.read32(SS, at, hi));
  } else {
    g16[RBP << 2] = cpu.read16(SS, at, hi);
  }
  if (cpu.stackSize === 16) {
    g16[RSP << 2] = at;
  } else {
    g32[RSP << 1] = at;
    g32[(RSP << 1) + 1] = hi;
  }
  cpu.moveStack(i.opsize);
};

/** Deepest nesting level of ENTER. */
const ENTER_LEVELS = 31;

/** ENTER: nothing changes when a push, a copied frame pointer, or the new stack's last byte faults. */
const enter: Exec = (cpu, i) => {
  const { g32, g16 } = cpu;
  const size = i.opsize;
  const level = i.imm2 & ENTER_LEVELS;
  const rspLo = g32[RSP << 1];
  const rspHi = g32[(RSP << 1) + 1];
  const rbpLo = g32[RBP << 1];
  const rbpHi = g32[(RBP << 1) + 1];
  let done = false;
  try {
    pushSized(cpu, size, rbpLo, rbpHi);
    const frameLo = g32[RSP << 1];
    const frameHi = g32[(RSP << 1) + 1];
    for (let k = 1; k < level; k++) {
      // The frame pointers of the enclosing levels lie below the old frame pointer.
      g32[RSP << 1] = rbpLo;
      g32[(RSP << 1) + 1] = rbpHi;
      cpu.stackOffset(-k * size);
      const lo = cpu.ea32[0];
      const hi = cpu.ea32[1];
      g32[RSP << 1] = frameLo;
      g32[(RSP << 1) + 1] = frameHi;
      cpu.moveStack(-(k - 1) * size);
      if (size === 8) {
        cpu.read64(SS, lo, hi);
        cpu.push64();
      } else if (size === 4) {
        cpu.push32(cpu.read32(SS, lo, hi));
      } else {
        cpu.push16(cpu.read16(SS, lo, hi));
      }
    }
    if (level > 0) pushSized(cpu, size, frameLo, frameHi);
    cpu.moveStack(-i.immLo);
    cpu.stackOffset(0);
    cpu.probeWrite(SS, cpu.ea32[0], cpu.ea32[1], size);
    if (size === 8) {
      g32[RBP << 1] = frameLo;
      g32[(RBP << 1) + 1] = frameHi;
    } else if (size === 4) {
      write32(cpu, RBP, frameLo);
    } else {
      g16[RBP << 2] = frameLo;
    }
    done = true;
  } finally {
    if (!done) {
      g32[RSP << 1] = rspLo;
      g32[(RSP << 1) + 1] = rspHi;
    }
  }
};

/** Pushes a register's value in the operand size. */
function pushSized(cpu: Cpu, size: number, lo: number, hi: number): void {
  if (size === 8) {
    cpu.v32[0] = lo;
    cpu.v32[1] = hi;
    cpu.push64();
  } else if (size === 4) {
    cpu.push32(lo);
  } else {
    cpu.push16(lo);
  }
}

const LONG = { size64: "default" } as const;

/** The opcode rows of this file. */
export const STACK_ROWS: readonly OpcodeRow[] = [
  row("1", 0x50, "push", "Zv", pushRegister, { count: 8, op: { 64: HOT.push64 }, ...LONG }),
  row("1", 0x58, "pop", "Zv", popRegister, { count: 8, op: { 64: HOT.pop64 }, ...LONG }),
  row("1", 0x68, "push", "Iz", pushImmediate, LONG),
  row("1", 0x6a, "push", "Ibs", pushImmediate, LONG),
  row("1", 0xff, "push", "Ev", pushOperand, { reg: 6, ...LONG }),
  row("1", 0x8f, "pop", "Ev", popOperand, { reg: 0, ...LONG }),
  row("1", 0x60, "pusha", "", { 16: (cpu) => pushAll(cpu, 2), 32: (cpu) => pushAll(cpu, 4) }, { invalid64: true }),
  row("1", 0x61, "popa", "", { 16: (cpu) => popAll(cpu, 2), 32: (cpu) => popAll(cpu, 4) }, { invalid64: true }),
  row("1", 0x9c, "pushf", "", pushf, LONG),
  row("1", 0x9d, "popf", "", popf, { ends: true, ...LONG }),
  row("1", 0xc8, "enter", "Iw,Ib2", enter, LONG),
  row("1", 0xc9, "leave", "", leave, LONG),
];
