/**
 * INC, DEC, NOT and NEG.
 *
 * @module
 */

import type { Cpu } from "../cpu.ts";
import { LZ_DEC64, LZ_INC64, LZ_SUB64 } from "../flags.ts";
import { HOT } from "../hot_ops.ts";
import { type Exec, type ExecBySize, type Insn, type OpcodeRow, row } from "../insn.ts";
import { sext16, sext8, write32 } from "./operand.ts";

/** The operations. */
const INC = 0;
const DEC = 1;
const NOT = 2;
const NEG = 3;

/** The result for a sign-extended operand, before truncation. */
function compute(kind: number, a: number): number {
  return kind === INC ? a + 1 : kind === DEC ? a - 1 : kind === NOT ? ~a : -a;
}

/** Flags for sign-extended operand and result. */
function setFlags(cpu: Cpu, kind: number, a: number, r: number): void {
  if (kind === INC) cpu.setInc32(a, r);
  else if (kind === DEC) cpu.setDec32(a, r);
  else if (kind === NEG) cpu.setSub32(0, a, r);
}

/** 64-bit result of `v64[0]` into `v64[2]`. */
function compute64(cpu: Cpu, kind: number): void {
  const { v64 } = cpu;
  const a = v64[0];
  if (kind === INC) v64[2] = BigInt.asUintN(64, a + 1n);
  else if (kind === DEC) v64[2] = BigInt.asUintN(64, a - 1n);
  else if (kind === NOT) v64[2] = BigInt.asUintN(64, ~a);
  else v64[2] = BigInt.asUintN(64, 0n - a);
}

/** Flags of the 64-bit operation from `v64[0]` to `v64[2]`. */
function setFlags64(cpu: Cpu, kind: number): void {
  if (kind === NOT) return;
  const { v64, lz64 } = cpu;
  if (kind !== NEG) cpu.keepCf();
  lz64[0] = kind === NEG ? 0n : v64[0];
  lz64[1] = kind === NEG ? v64[0] : 1n;
  lz64[2] = v64[2];
  cpu.lzOp = kind === INC ? LZ_INC64 : kind === DEC ? LZ_DEC64 : LZ_SUB64;
}

/** 8-bit form. */
function byte(kind: number): Exec {
  return (cpu, i) => {
    let a = 0;
    let r = 0;
    if (i.mem) {
      do {
        a = cpu.rmwLoad8(i);
        r = compute(kind, sext8(a));
      } while (!cpu.rmwCommit8(i, a, r));
    } else {
      a = cpu.g8[i.rm8];
      r = compute(kind, sext8(a));
      cpu.g8[i.rm8] = r;
    }
    setFlags(cpu, kind, sext8(a), sext8(r));
  };
}

/** 16-bit form. */
function word(cpu: Cpu, i: Insn, kind: number): void {
  let a = 0;
  let r = 0;
  if (i.mem) {
    do {
      a = cpu.rmwLoad16(i);
      r = compute(kind, sext16(a));
    } while (!cpu.rmwCommit16(i, a, r));
  } else {
    a = cpu.g16[i.rm << 2];
    r = compute(kind, sext16(a));
    cpu.g16[i.rm << 2] = r;
  }
  setFlags(cpu, kind, sext16(a), sext16(r));
}

/** 32-bit form. */
function dword(cpu: Cpu, i: Insn, kind: number): void {
  let a = 0;
  let r = 0;
  if (i.mem) {
    do {
      a = cpu.rmwLoad32(i);
      r = compute(kind, a) | 0;
    } while (!cpu.rmwCommit32(i, a, r));
  } else {
    a = cpu.g32[i.rm << 1];
    r = compute(kind, a) | 0;
    write32(cpu, i.rm, r);
  }
  setFlags(cpu, kind, a, r);
}

/** 64-bit form. */
function qword(cpu: Cpu, i: Insn, kind: number): void {
  const { v64 } = cpu;
  if (i.mem) {
    for (;;) {
      cpu.rmwLoad64(i);
      const a = v64[0];
      compute64(cpu, kind);
      if (!cpu.rmwCommit64(i)) continue;
      v64[0] = a;
      break;
    }
  } else {
    v64[0] = cpu.g64[i.rm];
    compute64(cpu, kind);
    cpu.g64[i.rm] = v64[2];
  }
  setFlags64(cpu, kind);
}

/** 16-, 32- and 64-bit forms. */
function sized(kind: number): ExecBySize {
  return {
    16: (cpu, i) => word(cpu, i, kind),
    32: (cpu, i) => dword(cpu, i, kind),
    64: (cpu, i) => qword(cpu, i, kind),
  };
}

const HOT_INC = { 32: HOT.inc32, 64: HOT.inc64 };
const HOT_DEC = { 32: HOT.dec32, 64: HOT.dec64 };

/** The opcode rows of this file. */
export const UNARY_ROWS: readonly OpcodeRow[] = [
  row("1", 0xfe, "inc", "Eb", byte(INC), { reg: 0, lockable: true }),
  row("1", 0xfe, "dec", "Eb", byte(DEC), { reg: 1, lockable: true }),
  row("1", 0xff, "inc", "Ev", sized(INC), { reg: 0, lockable: true, op: HOT_INC }),
  row("1", 0xff, "dec", "Ev", sized(DEC), { reg: 1, lockable: true, op: HOT_DEC }),
  row("1", 0x40, "inc", "Zv", sized(INC), { count: 8, op: HOT_INC }),
  row("1", 0x48, "dec", "Zv", sized(DEC), { count: 8, op: HOT_DEC }),
  row("1", 0xf6, "not", "Eb", byte(NOT), { reg: 2, lockable: true }),
  row("1", 0xf7, "not", "Ev", sized(NOT), { reg: 2, lockable: true }),
  row("1", 0xf6, "neg", "Eb", byte(NEG), { reg: 3, lockable: true }),
  row("1", 0xf7, "neg", "Ev", sized(NEG), { reg: 3, lockable: true }),
];
