/**
 * Rotates, shifts, SHLD and SHRD. A count of zero (after masking to 5 or 6 bits) leaves the flags; OF is what the processor
 * computes for a count of one, and undefined for others.
 *
 * @module
 */

import type { Cpu } from "../cpu.ts";
import { LZ_SHIFT } from "../flags.ts";
import { HOT } from "../hot_ops.ts";
import { type Exec, type ExecBySize, type Insn, type OpBySize, type OpcodeRow, row } from "../insn.ts";
import { FLAG_CF, FLAG_OF, RCX } from "../state.ts";
import { sext16, sext8, write32 } from "./operand.ts";

/** Operations, as ModRM.reg. */
const NAMES = ["rol", "ror", "rcl", "rcr", "shl", "shr", "shl", "sar"] as const;

/** CF and OF of the operation computed last; -1 in cf when the flags stay. */
let cf = 0;
let of = 0;

/** Shifts an unsigned value of `bits` (8, 16, 32) bits by the masked count; sets cf and of. Returns an unsigned value. */
function shift(cpu: Cpu, kind: number, a: number, count: number, bits: number): number {
  const top = bits - 1;
  cf = -1;
  if (count === 0) return a;
  switch (kind) {
    case 0: { // rol
      const n = count % bits;
      const r = n === 0 ? a : ((a << n) | (a >>> (bits - n))) >>> 0;
      const t = truncate(r, bits);
      cf = t & 1;
      of = ((t >>> top) & 1) ^ cf;
      return t;
    }
    case 1: { // ror
      const n = count % bits;
      const t = n === 0 ? a : truncate((a >>> n) | (a << (bits - n)), bits);
      cf = (t >>> top) & 1;
      of = cf ^ ((t >>> (top - 1)) & 1);
      return t;
    }
    case 2: { // rcl, one bit after the other: the carry takes part
      const n = count % (bits + 1);
      let carry = cpu.getCf();
      let r = a;
      for (let k = 0; k < n; k++) {
        const out = (r >>> top) & 1;
        r = truncate((r << 1) | carry, bits);
        carry = out;
      }
      if (n === 0 && bits < 32) carry = cpu.getCf();
      cf = carry;
      of = ((r >>> top) & 1) ^ carry;
      return r;
    }
    case 3: { // rcr
      const n = count % (bits + 1);
      let carry = cpu.getCf();
      let r = a;
      for (let k = 0; k < n; k++) {
        const out = r & 1;
        r = ((r >>> 1) | (carry << top)) >>> 0;
        carry = out;
      }
      cf = carry;
      of = ((r >>> top) ^ (r >>> (top - 1))) & 1;
      return r;
    }
    case 5: // shr
      cf = count > bits ? 0 : count === bits ? (a >>> top) & 1 : (a >>> (count - 1)) & 1;
      of = (a >>> top) & 1;
      return count >= bits ? 0 : a >>> count;
    case 7: { // sar
      const signed = (a << (32 - bits)) >> (32 - bits);
      const n = Math.min(count, bits);
      cf = (signed >> Math.min(n - 1, 31)) & 1;
      of = 0;
      return truncate(signed >> Math.min(n, 31), bits);
    }
    default: { // shl
      cf = count > bits ? 0 : (a >>> (bits - count)) & 1;
      const t = count >= bits ? 0 : truncate(a << count, bits);
      of = ((t >>> top) & 1) ^ cf;
      return t;
    }
  }
}

/** The low `bits` bits, unsigned. */
function truncate(value: number, bits: number): number {
  return bits === 32 ? value >>> 0 : value & ((1 << bits) - 1);
}

/** Flags after an operation whose result is `r`, sign-extended. */
function setFlags(cpu: Cpu, kind: number, r: number): void {
  if (cf < 0) return;
  if (kind < 4) {
    cpu.setArith((cpu.flags() & ~(FLAG_CF | FLAG_OF)) | cf | (of !== 0 ? FLAG_OF : 0));
    return;
  }
  const { lz } = cpu;
  lz[0] = cf;
  lz[1] = of;
  lz[4] = r;
  lz[5] = r;
  cpu.lzOp = LZ_SHIFT;
}

/** Flags of a 64-bit operation whose result is in `v64[2]`. */
function setFlags64(cpu: Cpu, kind: number): void {
  if (cf < 0) return;
  if (kind < 4) {
    setFlags(cpu, kind, 0);
    return;
  }
  cpu.lz64[2] = cpu.v64[2];
  cpu.lz[0] = cf;
  cpu.lz[1] = of;
  cpu.lzOp = LZ_SHIFT;
}

/** Bit `n` of a 64-bit value. */
function bit(value: bigint, n: number): number {
  return Number((value >> BigInt(n)) & 1n);
}

/** `v64[2]` = `v64[0]` shifted by the masked count; sets cf and of. */
function shift64(cpu: Cpu, kind: number, count: number): void {
  const { v64 } = cpu;
  const a = v64[0];
  cf = -1;
  if (count === 0) {
    v64[2] = a;
    return;
  }
  const n = BigInt(count);
  switch (kind) {
    case 0:
      v64[2] = (a << n) | (a >> (64n - n));
      cf = bit(v64[2], 0);
      of = bit(v64[2], 63) ^ cf;
      return;
    case 1:
      v64[2] = (a >> n) | (a << (64n - n));
      cf = bit(v64[2], 63);
      of = cf ^ bit(v64[2], 62);
      return;
    case 2: {
      const carry = BigInt(cpu.getCf());
      const wide = (carry << 64n) | a;
      const r = (wide << n) | (wide >> (65n - n));
      v64[2] = BigInt.asUintN(64, r);
      cf = bit(r, 64);
      of = bit(v64[2], 63) ^ cf;
      return;
    }
    case 3: {
      const carry = BigInt(cpu.getCf());
      const wide = (carry << 64n) | a;
      const r = (wide >> n) | (wide << (65n - n));
      v64[2] = BigInt.asUintN(64, r);
      cf = bit(r, 64);
      of = bit(v64[2], 63) ^ bit(v64[2], 62);
      return;
    }
    case 5:
      v64[2] = a >> n;
      cf = bit(a, count - 1);
      of = bit(a, 63);
      return;
    case 7:
      v64[2] = BigInt.asIntN(64, a) >> n;
      cf = bit(BigInt.asUintN(64, a), count - 1);
      of = 0;
      return;
    default:
      v64[2] = a << n;
      cf = bit(a, 64 - count);
      of = bit(v64[2], 63) ^ cf;
  }
}

/** What gives the count: an immediate, one, or CL. */
type Count = (cpu: Cpu, i: Insn) => number;
const byImmediate: Count = (_cpu, i) => i.immLo;
const byOne: Count = () => 1;
const byCl: Count = (cpu) => cpu.g8[RCX << 3];

/** 8-bit form. */
function byte(kind: number, count: Count): Exec {
  return (cpu, i) => {
    const n = count(cpu, i) & 31;
    let r = 0;
    if (i.mem) {
      let a = 0;
      do {
        a = cpu.rmwLoad8(i);
        r = shift(cpu, kind, a, n, 8);
      } while (!cpu.rmwCommit8(i, a, r));
    } else {
      r = shift(cpu, kind, cpu.g8[i.rm8], n, 8);
      cpu.g8[i.rm8] = r;
    }
    setFlags(cpu, kind, sext8(r));
  };
}

/** Wider forms. */
function sized(kind: number, count: Count): ExecBySize {
  return {
    16: (cpu, i) => {
      const n = count(cpu, i) & 31;
      let r = 0;
      if (i.mem) {
        let a = 0;
        do {
          a = cpu.rmwLoad16(i);
          r = shift(cpu, kind, a, n, 16);
        } while (!cpu.rmwCommit16(i, a, r));
      } else {
        r = shift(cpu, kind, cpu.g16[i.rm << 2], n, 16);
        cpu.g16[i.rm << 2] = r;
      }
      setFlags(cpu, kind, sext16(r));
    },
    32: (cpu, i) => {
      const n = count(cpu, i) & 31;
      let r = 0;
      if (i.mem) {
        let a = 0;
        do {
          a = cpu.rmwLoad32(i);
          r = shift(cpu, kind, a >>> 0, n, 32) | 0;
        } while (!cpu.rmwCommit32(i, a, r));
      } else {
        r = shift(cpu, kind, cpu.g32[i.rm << 1] >>> 0, n, 32) | 0;
        write32(cpu, i.rm, r);
      }
      setFlags(cpu, kind, r);
    },
    64: (cpu, i) => {
      const { v64 } = cpu;
      const n = count(cpu, i) & 63;
      if (i.mem) {
        do {
          cpu.rmwLoad64(i);
          shift64(cpu, kind, n);
        } while (!cpu.rmwCommit64(i));
      } else {
        v64[0] = cpu.g64[i.rm];
        shift64(cpu, kind, n);
        cpu.g64[i.rm] = v64[2];
      }
      setFlags64(cpu, kind);
    },
  };
}

/** Fast-switch numbers of the shifts by an immediate. */
const HOT_BY_KIND: readonly (OpBySize | undefined)[] = [
  undefined,
  undefined,
  undefined,
  undefined,
  { 32: HOT.shl32, 64: HOT.shl64 },
  { 32: HOT.shr32, 64: HOT.shr64 },
  { 32: HOT.shl32, 64: HOT.shl64 },
  { 32: HOT.sar32, 64: HOT.sar64 },
];

/** The rows of one operation. */
function operation(kind: number): OpcodeRow[] {
  const name = NAMES[kind];
  const op = HOT_BY_KIND[kind] ?? 0;
  return [
    row("1", 0xc0, name, "Eb,Ib", byte(kind, byImmediate), { reg: kind }),
    row("1", 0xc1, name, "Ev,Ib", sized(kind, byImmediate), { reg: kind, op }),
    row("1", 0xd0, name, "Eb,1", byte(kind, byOne), { reg: kind }),
    row("1", 0xd1, name, "Ev,1", sized(kind, byOne), { reg: kind }),
    row("1", 0xd2, name, "Eb,CL", byte(kind, byCl), { reg: kind }),
    row("1", 0xd3, name, "Ev,CL", sized(kind, byCl), { reg: kind }),
  ];
}

/** SHLD or SHRD of 16 bits: what AMD processors leave for counts above 16 rotates the pair a:b again. */
function double16(left: boolean, a: number, b: number, n: number): number {
  const a32 = a >>> 0;
  if (left) {
    // a:b:a, shifted left
    const r = n <= 16 ? ((a32 << n) | (b >>> (16 - n))) & 0xffff : ((b << (n - 16)) | (a32 >>> (32 - n))) & 0xffff;
    cf = n <= 16 ? (a32 >>> (16 - n)) & 1 : (b >>> (32 - n)) & 1;
    return r;
  }
  const r = n <= 16 ? ((a32 >>> n) | (b << (16 - n))) & 0xffff : ((b >>> (n - 16)) | (a32 << (32 - n))) & 0xffff;
  cf = n <= 16 ? (a32 >>> (n - 1)) & 1 : (b >>> (n - 17)) & 1;
  return r;
}

/** SHLD and SHRD. */
function double(left: boolean, count: Count): ExecBySize {
  return {
    16: (cpu, i) => {
      const n = count(cpu, i) & 31;
      const b = cpu.g16[i.reg << 2];
      let r = 0;
      let a = 0;
      if (i.mem) {
        do {
          a = cpu.rmwLoad16(i);
          r = n === 0 ? a : double16(left, a, b, n);
        } while (!cpu.rmwCommit16(i, a, r));
      } else {
        a = cpu.g16[i.rm << 2];
        r = n === 0 ? a : double16(left, a, b, n);
        cpu.g16[i.rm << 2] = r;
      }
      if (n === 0) return;
      of = ((r ^ a) >>> 15) & 1;
      setFlags(cpu, 4, sext16(r));
    },
    32: (cpu, i) => {
      const n = count(cpu, i) & 31;
      const b = cpu.g32[i.reg << 1];
      let r = 0;
      let a = 0;
      if (i.mem) {
        do {
          a = cpu.rmwLoad32(i);
          r = n === 0 ? a : left ? (a << n) | (b >>> (32 - n)) : (a >>> n) | (b << (32 - n));
        } while (!cpu.rmwCommit32(i, a, r));
      } else {
        a = cpu.g32[i.rm << 1];
        r = n === 0 ? a : left ? (a << n) | (b >>> (32 - n)) : (a >>> n) | (b << (32 - n));
        write32(cpu, i.rm, r);
      }
      if (n === 0) return;
      cf = (left ? a >>> (32 - n) : a >>> (n - 1)) & 1;
      of = (r ^ a) >>> 31;
      setFlags(cpu, 4, r);
    },
    64: (cpu, i) => {
      const { v64 } = cpu;
      const n = count(cpu, i) & 63;
      const by = BigInt(n);
      const b = cpu.g64[i.reg];
      let a = 0n;
      if (i.mem) {
        do {
          cpu.rmwLoad64(i);
          a = v64[0];
          v64[2] = n === 0 ? a : left ? (a << by) | (b >> (64n - by)) : (a >> by) | (b << (64n - by));
        } while (!cpu.rmwCommit64(i));
      } else {
        a = cpu.g64[i.rm];
        v64[2] = n === 0 ? a : left ? (a << by) | (b >> (64n - by)) : (a >> by) | (b << (64n - by));
        cpu.g64[i.rm] = v64[2];
      }
      if (n === 0) return;
      cf = bit(a, left ? 64 - n : n - 1);
      of = bit(v64[2], 63) ^ bit(a, 63);
      setFlags64(cpu, 4);
    },
  };
}

/** The opcode rows of this file. */
export const SHIFT_ROWS: readonly OpcodeRow[] = [
  ...NAMES.flatMap((_, kind) => operation(kind)),
  row("0f", 0xa4, "shld", "Ev,Gv,Ib", double(true, byImmediate)),
  row("0f", 0xa5, "shld", "Ev,Gv,CL", double(true, byCl)),
  row("0f", 0xac, "shrd", "Ev,Gv,Ib", double(false, byImmediate)),
  row("0f", 0xad, "shrd", "Ev,Gv,CL", double(false, byCl)),
];
