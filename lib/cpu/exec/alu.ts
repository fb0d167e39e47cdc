/**
 * ADD, OR, ADC, SBB, AND, SUB, XOR, CMP and TEST.
 *
 * @module
 */

import type { Cpu } from "../cpu.ts";
import { LZ_ADD64, LZ_LOGIC, LZ_SUB64 } from "../flags.ts";
import { HOT } from "../hot_ops.ts";
import { type Exec, type ExecBySize, type OpBySize, type OpcodeRow, row } from "../insn.ts";
import { readE16, readE32, readE64, readE8, sext16, sext8, write32 } from "./operand.ts";

/** The operations, as bits 5:3 of their opcodes. */
const NAMES = ["add", "or", "adc", "sbb", "and", "sub", "xor", "cmp"] as const;
/** CMP, which writes nothing. */
const CMP = 7;

/** a op b on sign-extended values of 8, 16 or 32 bits, before truncation; flags are set by {@linkcode setFlags}. */
function compute(cpu: Cpu, kind: number, a: number, b: number): number {
  switch (kind) {
    case 0: // add
      return a + b;
    case 1: // or
      return a | b;
    case 2: // adc
      return a + b + cpu.getCf();
    case 3: // sbb
      return a - b - cpu.getCf();
    case 4: // and
      return a & b;
    case 6: // xor
      return a ^ b;
    default: // sub, cmp
      return a - b;
  }
}

/** Flags of a operation on sign-extended values. */
function setFlags(cpu: Cpu, kind: number, a: number, b: number, r: number): void {
  switch (kind) {
    case 0:
    case 2:
      cpu.setAdd32(a, b, r);
      return;
    case 3:
    case 5:
    case 7:
      cpu.setSub32(a, b, r);
      return;
    default:
      cpu.setLogic32(r);
  }
}

/** 8-bit operation with flags; operands of any extension. */
function alu8(cpu: Cpu, kind: number, a: number, b: number): number {
  a = sext8(a);
  b = sext8(b);
  const r = sext8(compute(cpu, kind, a, b));
  setFlags(cpu, kind, a, b, r);
  return r;
}

/** 16-bit operation with flags; operands of any extension. */
function alu16(cpu: Cpu, kind: number, a: number, b: number): number {
  a = sext16(a);
  b = sext16(b);
  const r = sext16(compute(cpu, kind, a, b));
  setFlags(cpu, kind, a, b, r);
  return r;
}

/** 32-bit operation with flags. */
function alu32(cpu: Cpu, kind: number, a: number, b: number): number {
  const r = compute(cpu, kind, a, b) | 0;
  setFlags(cpu, kind, a, b, r);
  return r;
}

/** 64-bit operation without flags: `v64[2]` = `v64[0]` op `v64[1]`. */
function compute64(cpu: Cpu, kind: number, carry: number): void {
  const { v64 } = cpu;
  const a = v64[0];
  const b = v64[1];
  switch (kind) {
    case 0:
      v64[2] = BigInt.asUintN(64, a + b);
      return;
    case 1:
      v64[2] = a | b;
      return;
    case 2:
      v64[2] = BigInt.asUintN(64, BigInt.asUintN(64, a + b) + CARRIES[carry]);
      return;
    case 3:
      v64[2] = BigInt.asUintN(64, BigInt.asUintN(64, a - b) - CARRIES[carry]);
      return;
    case 4:
      v64[2] = a & b;
      return;
    case 6:
      v64[2] = a ^ b;
      return;
    default:
      v64[2] = BigInt.asUintN(64, a - b);
  }
}

/** What the flags of a 64-bit operation belong to. */
const LAZY_64 = [LZ_ADD64, LZ_LOGIC, LZ_ADD64, LZ_SUB64, LZ_LOGIC, LZ_SUB64, LZ_LOGIC, LZ_SUB64];

/** 64-bit operation with flags: `v64[2]` = `v64[0]` op `v64[1]`. */
function alu64(cpu: Cpu, kind: number): void {
  const { v64, lz64 } = cpu;
  compute64(cpu, kind, kind === 2 || kind === 3 ? cpu.getCf() : 0);
  lz64[0] = v64[0];
  lz64[1] = v64[1];
  lz64[2] = v64[2];
  cpu.lzOp = LAZY_64[kind];
}

/** CF as a 64-bit value. */
const CARRIES = BigUint64Array.of(0n, 1n);

/** E op= b, 8 bits. */
function e8(cpu: Cpu, i: Parameters<Exec>[1], kind: number, b: number): void {
  if (!i.mem) {
    const r = alu8(cpu, kind, cpu.g8[i.rm8], b);
    if (kind !== CMP) cpu.g8[i.rm8] = r;
  } else if (kind === CMP) {
    alu8(cpu, kind, cpu.load8(i), b);
  } else {
    // Flags are set only when the store is certain; ADC and SBB of a retry must see the carry from before.
    for (;;) {
      const a = cpu.rmwLoad8(i);
      const r = compute(cpu, kind, sext8(a), sext8(b));
      if (!cpu.rmwCommit8(i, a, r)) continue;
      setFlags(cpu, kind, sext8(a), sext8(b), sext8(r));
      return;
    }
  }
}

/** E op= b, 16 bits. */
function e16(cpu: Cpu, i: Parameters<Exec>[1], kind: number, b: number): void {
  if (!i.mem) {
    const r = alu16(cpu, kind, cpu.g16[i.rm << 2], b);
    if (kind !== CMP) cpu.g16[i.rm << 2] = r;
  } else if (kind === CMP) {
    alu16(cpu, kind, cpu.load16(i), b);
  } else {
    for (;;) {
      const a = cpu.rmwLoad16(i);
      const r = compute(cpu, kind, sext16(a), sext16(b));
      if (!cpu.rmwCommit16(i, a, r)) continue;
      setFlags(cpu, kind, sext16(a), sext16(b), sext16(r));
      return;
    }
  }
}

/** E op= b, 32 bits. */
function e32(cpu: Cpu, i: Parameters<Exec>[1], kind: number, b: number): void {
  if (!i.mem) {
    const r = alu32(cpu, kind, cpu.g32[i.rm << 1], b);
    if (kind !== CMP) write32(cpu, i.rm, r);
  } else if (kind === CMP) {
    alu32(cpu, kind, cpu.load32(i), b);
  } else {
    for (;;) {
      const a = cpu.rmwLoad32(i);
      const r = compute(cpu, kind, a, b) | 0;
      if (!cpu.rmwCommit32(i, a, r)) continue;
      setFlags(cpu, kind, a, b, r);
      return;
    }
  }
}

/** E op= `v64[1]`, 64 bits. */
function e64(cpu: Cpu, i: Parameters<Exec>[1], kind: number): void {
  const { v64 } = cpu;
  if (!i.mem) {
    v64[0] = cpu.g64[i.rm];
    alu64(cpu, kind);
    if (kind !== CMP) cpu.g64[i.rm] = v64[2];
    return;
  }
  const b = v64[1];
  if (kind === CMP) {
    cpu.load64(i);
    v64[1] = b;
    alu64(cpu, kind);
    return;
  }
  const carry = kind === 2 || kind === 3 ? cpu.getCf() : 0;
  for (;;) {
    cpu.rmwLoad64(i);
    const a = v64[0];
    v64[1] = b;
    compute64(cpu, kind, carry);
    if (!cpu.rmwCommit64(i)) continue;
    const { lz64 } = cpu;
    lz64[0] = a;
    lz64[1] = b;
    lz64[2] = v64[2];
    cpu.lzOp = LAZY_64[kind];
    return;
  }
}

/** E, G. */
function eg(kind: number): ExecBySize {
  return {
    16: (cpu, i) => e16(cpu, i, kind, cpu.g16[i.reg << 2]),
    32: (cpu, i) => e32(cpu, i, kind, cpu.g32[i.reg << 1]),
    64: (cpu, i) => {
      cpu.v64[1] = cpu.g64[i.reg];
      e64(cpu, i, kind);
    },
  };
}

/** G, E. */
function ge(kind: number): ExecBySize {
  return {
    16: (cpu, i) => {
      const r = alu16(cpu, kind, cpu.g16[i.reg << 2], readE16(cpu, i));
      if (kind !== CMP) cpu.g16[i.reg << 2] = r;
    },
    32: (cpu, i) => {
      const r = alu32(cpu, kind, cpu.g32[i.reg << 1], readE32(cpu, i));
      if (kind !== CMP) write32(cpu, i.reg, r);
    },
    64: (cpu, i) => {
      const { v64 } = cpu;
      readE64(cpu, i);
      v64[1] = v64[0];
      v64[0] = cpu.g64[i.reg];
      alu64(cpu, kind);
      if (kind !== CMP) cpu.g64[i.reg] = v64[2];
    },
  };
}

/** E, immediate. */
function ei(kind: number): ExecBySize {
  return {
    16: (cpu, i) => e16(cpu, i, kind, i.immLo),
    32: (cpu, i) => e32(cpu, i, kind, i.immLo),
    64: (cpu, i) => {
      cpu.v32[2] = i.immLo;
      cpu.v32[3] = i.immHi;
      e64(cpu, i, kind);
    },
  };
}

/** Fast-switch numbers of an operation in the given forms. */
function hot(name: string, form: "rr" | "ri" | "rm"): OpBySize {
  const numbers = HOT as Readonly<Record<string, number>>;
  return { 32: numbers[`${name}32${form}`] ?? 0, 64: numbers[`${name}64${form}`] ?? 0 };
}

/** The rows of one operation. */
function operation(kind: number): OpcodeRow[] {
  const name = NAMES[kind];
  const base = kind * 8;
  const lockable = kind !== CMP;
  const immediate: Exec = (cpu, i) => e8(cpu, i, kind, i.immLo);
  return [
    row("1", base, name, "Eb,Gb", (cpu, i) => e8(cpu, i, kind, cpu.g8[i.reg8]), { lockable }),
    row("1", base + 1, name, "Ev,Gv", eg(kind), { lockable, op: hot(name, "rr") }),
    row("1", base + 2, name, "Gb,Eb", (cpu, i) => {
      const r = alu8(cpu, kind, cpu.g8[i.reg8], readE8(cpu, i));
      if (kind !== CMP) cpu.g8[i.reg8] = r;
    }),
    row("1", base + 3, name, "Gv,Ev", ge(kind), { op: hot(name, "rr"), opMem: hot(name, "rm") }),
    row("1", base + 4, name, "Ab,Ib", immediate),
    row("1", base + 5, name, "Av,Iz", ei(kind), { op: hot(name, "ri") }),
    row("1", 0x80, name, "Eb,Ib", immediate, { reg: kind, lockable }),
    row("1", 0x81, name, "Ev,Iz", ei(kind), { reg: kind, lockable, op: hot(name, "ri") }),
    row("1", 0x82, name, "Eb,Ib", immediate, { reg: kind, lockable, invalid64: true }),
    row("1", 0x83, name, "Ev,Ibs", ei(kind), { reg: kind, lockable, op: hot(name, "ri") }),
  ];
}

/** E & immediate, flags only. */
const testImmediate: ExecBySize = {
  16: (cpu, i) => cpu.setLogic32(sext16(readE16(cpu, i) & i.immLo)),
  32: (cpu, i) => cpu.setLogic32(readE32(cpu, i) & i.immLo),
  64: (cpu, i) => {
    readE64(cpu, i);
    const { v32, lz } = cpu;
    lz[4] = v32[0] & i.immLo;
    lz[5] = v32[1] & i.immHi;
    cpu.lzOp = LZ_LOGIC;
  },
};

/** E & G, flags only. */
const testRegister: ExecBySize = {
  16: (cpu, i) => cpu.setLogic32(sext16(readE16(cpu, i) & cpu.g16[i.reg << 2])),
  32: (cpu, i) => cpu.setLogic32(readE32(cpu, i) & cpu.g32[i.reg << 1]),
  64: (cpu, i) => {
    readE64(cpu, i);
    cpu.lz64[2] = cpu.v64[0] & cpu.g64[i.reg];
    cpu.lzOp = LZ_LOGIC;
  },
};

const testByte: Exec = (cpu, i) => cpu.setLogic32(sext8(readE8(cpu, i) & i.immLo));

/** The opcode rows of this file. */
export const ALU_ROWS: readonly OpcodeRow[] = [
  ...NAMES.flatMap((_, kind) => operation(kind)),
  row("1", 0x84, "test", "Eb,Gb", (cpu, i) => cpu.setLogic32(sext8(readE8(cpu, i) & cpu.g8[i.reg8]))),
  row("1", 0x85, "test", "Ev,Gv", testRegister, { op: hot("test", "rr") }),
  row("1", 0xa8, "test", "Ab,Ib", testByte),
  row("1", 0xa9, "test", "Av,Iz", testImmediate, { op: hot("test", "ri") }),
  ...[0, 1].flatMap((reg) => [
    row("1", 0xf6, "test", "Eb,Ib", testByte, { reg }),
    row("1", 0xf7, "test", "Ev,Iz", testImmediate, { reg, op: hot("test", "ri") }),
  ]),
];
