/**
 * BT, BTS, BTR, BTC, BSF, BSR, TZCNT, LZCNT, POPCNT and BSWAP.
 *
 * @module
 */

import type { Cpu } from "../cpu.ts";
import { type ExecBySize, type Insn, type OpcodeRow, row } from "../insn.ts";
import { FLAG_CF, FLAG_ZF, FLAGS_ARITHMETIC, RFLAGS } from "../state.ts";
import { readE16, readE32, readE64, sext16, write32 } from "./operand.ts";

/** Operations: test, set, reset, complement. */
const BT = 0;
const BTS = 1;
const BTR = 2;

/** The new value of a 32-bit word. */
function change(kind: number, value: number, mask: number): number {
  return kind === BTS ? value | mask : kind === BTR ? value & ~mask : value ^ mask;
}

/** Puts a bit into CF; the other flags stay. */
function setCf(cpu: Cpu, bit: number): void {
  cpu.flags();
  cpu.s32[RFLAGS] = (cpu.s32[RFLAGS] & ~FLAG_CF) | (bit & 1);
}

/** Sets the displacement of a memory operand, for the length of one access. */
function displace(i: Insn, lo: number, hi: number): void {
  i.dispLo = lo;
  i.dispHi = hi;
}

/** Bit operation on a word: memory operands are addressed by the signed bit offset in a register. */
function operation(kind: number, immediate: boolean): ExecBySize {
  return {
    16: (cpu, i) => {
      const offset = immediate ? i.immLo : sext16(cpu.g16[i.reg << 2]);
      const mask = 1 << (offset & 15);
      if (!i.mem) {
        const a = cpu.g16[i.rm << 2];
        if (kind !== BT) cpu.g16[i.rm << 2] = change(kind, a, mask);
        setCf(cpu, (a & mask) !== 0 ? 1 : 0);
        return;
      }
      const a = inMemory(cpu, i, kind, mask, immediate ? 0 : (offset >> 4) << 1, 2);
      setCf(cpu, (a & mask) !== 0 ? 1 : 0);
    },
    32: (cpu, i) => {
      const offset = immediate ? i.immLo : cpu.g32[i.reg << 1];
      const mask = 1 << (offset & 31);
      if (!i.mem) {
        const a = cpu.g32[i.rm << 1];
        if (kind !== BT) write32(cpu, i.rm, change(kind, a, mask));
        setCf(cpu, (a & mask) !== 0 ? 1 : 0);
        return;
      }
      const a = inMemory(cpu, i, kind, mask, immediate ? 0 : (offset >> 5) << 2, 4);
      setCf(cpu, (a & mask) !== 0 ? 1 : 0);
    },
    64: (cpu, i) => {
      const offset = immediate ? i.immLo : cpu.g32[i.reg << 1];
      // The half that holds the bit, and its place there.
      const half = (offset >> 5) & 1;
      const mask = 1 << (offset & 31);
      if (!i.mem) {
        const word = (i.rm << 1) + half;
        const a = cpu.g32[word];
        if (kind !== BT) cpu.g32[word] = change(kind, a, mask);
        setCf(cpu, (a & mask) !== 0 ? 1 : 0);
        return;
      }
      if (immediate) {
        change64(cpu, i, kind, half, mask);
        return;
      }
      // The address is base + 8 * (offset >> 6), in 64 bits.
      const high = cpu.g32[(i.reg << 1) + 1];
      const lo = ((offset >>> 6) | (high << 26)) << 3;
      const hi = high >> 3;
      const { dispLo, dispHi } = i;
      const sum = (dispLo + lo) | 0;
      displace(i, sum, (dispHi + hi + ((sum >>> 0) < (lo >>> 0) ? 1 : 0)) | 0);
      try {
        change64(cpu, i, kind, half, mask);
      } finally {
        displace(i, dispLo, dispHi);
      }
    },
  };
}

/** Changes the bit `mask` of one half of the 64-bit memory operand as the operation says; CF is what it was. */
function change64(cpu: Cpu, i: Insn, kind: number, half: number, mask: number): void {
  const { v32 } = cpu;
  let old = 0;
  if (kind === BT) {
    cpu.load64(i);
    old = v32[half];
  } else {
    do {
      cpu.rmwLoad64(i);
      old = v32[half];
      // The new value is v64[2]; writing it may take the place of the old one in v64[0].
      v32[4] = v32[0];
      v32[5] = v32[1];
      v32[4 + half] = change(kind, old, mask);
    } while (!cpu.rmwCommit64(i));
  }
  setCf(cpu, (old & mask) !== 0 ? 1 : 0);
}

/** The 16- or 32-bit word at the operand's address plus `bytes`, changed as the operation says; returns the old value. */
function inMemory(cpu: Cpu, i: Insn, kind: number, mask: number, bytes: number, size: 2 | 4): number {
  const { dispLo, dispHi } = i;
  const sum = (dispLo + bytes) | 0;
  displace(i, sum, (dispHi + (bytes >> 31) + ((sum >>> 0) < (bytes >>> 0) ? 1 : 0)) | 0);
  try {
    if (kind === BT) return size === 2 ? cpu.load16(i) : cpu.load32(i);
    let a = 0;
    if (size === 2) {
      do a = cpu.rmwLoad16(i); while (!cpu.rmwCommit16(i, a, change(kind, a, mask)));
    } else {
      do a = cpu.rmwLoad32(i); while (!cpu.rmwCommit32(i, a, change(kind, a, mask)));
    }
    return a;
  } finally {
    displace(i, dispLo, dispHi);
  }
}

/** The rows of one operation. */
function rowsOf(kind: number, name: string, opcode: number): OpcodeRow[] {
  const lockable = kind !== BT;
  return [
    row("0f", opcode, name, "Ev,Gv", operation(kind, false), { lockable }),
    row("0f", 0xba, name, "Ev,Ib", operation(kind, true), { reg: 4 + kind, lockable }),
  ];
}

/** ZF alone, for BSF and BSR. */
function setZf(cpu: Cpu, zero: boolean): void {
  const flags = cpu.flags();
  cpu.setArith(zero ? flags | FLAG_ZF : flags & ~FLAG_ZF);
}

/** Number of trailing zeros of a value that is not zero. */
export function trailingZeros(value: number): number {
  return 31 - Math.clz32(value & -value);
}

/** Bits set in a 32-bit value. */
export function populationCount(value: number): number {
  let v = value - ((value >>> 1) & 0x55555555);
  v = (v & 0x33333333) + ((v >>> 2) & 0x33333333);
  return Math.imul((v + (v >>> 4)) & 0x0f0f0f0f, 0x01010101) >>> 24;
}

/** BSF or BSR: a zero source leaves the destination and sets ZF. */
function scan(forward: boolean): ExecBySize {
  const find = (value: number) => forward ? trailingZeros(value) : 31 - Math.clz32(value);
  return {
    16: (cpu, i) => {
      const value = readE16(cpu, i);
      if (value !== 0) cpu.g16[i.reg << 2] = find(value);
      setZf(cpu, value === 0);
    },
    32: (cpu, i) => {
      const value = readE32(cpu, i);
      if (value !== 0) write32(cpu, i.reg, find(value));
      setZf(cpu, value === 0);
    },
    64: (cpu, i) => {
      readE64(cpu, i);
      const lo = cpu.v32[0];
      const hi = cpu.v32[1];
      const zero = (lo | hi) === 0;
      if (!zero) {
        const n = forward ? (lo !== 0 ? find(lo) : 32 + find(hi)) : hi !== 0 ? 32 + find(hi) : find(lo);
        write32(cpu, i.reg, n);
      }
      setZf(cpu, zero);
    },
  };
}

/** Flags of TZCNT and LZCNT: CF when the source is zero, ZF when the result is. */
function setCountFlags(cpu: Cpu, count: number, bits: number): void {
  const flags = cpu.flags() & ~(FLAG_CF | FLAG_ZF);
  cpu.setArith(flags | (count === bits ? FLAG_CF : 0) | (count === 0 ? FLAG_ZF : 0));
}

/** TZCNT or LZCNT. */
function count(trailing: boolean): ExecBySize {
  const of32 = (value: number) => trailing ? (value === 0 ? 32 : trailingZeros(value)) : Math.clz32(value);
  return {
    16: (cpu, i) => {
      const value = readE16(cpu, i);
      const n = trailing ? (value === 0 ? 16 : trailingZeros(value)) : Math.clz32(value) - 16;
      cpu.g16[i.reg << 2] = n;
      setCountFlags(cpu, n, 16);
    },
    32: (cpu, i) => {
      const n = of32(readE32(cpu, i));
      write32(cpu, i.reg, n);
      setCountFlags(cpu, n, 32);
    },
    64: (cpu, i) => {
      readE64(cpu, i);
      const first = of32(cpu.v32[trailing ? 0 : 1]);
      const n = first < 32 ? first : 32 + of32(cpu.v32[trailing ? 1 : 0]);
      write32(cpu, i.reg, n);
      setCountFlags(cpu, n, 64);
    },
  };
}

/** Flags of POPCNT: ZF when the source is zero, the others clear. */
function setPopulation(cpu: Cpu, n: number): void {
  cpu.setArith((cpu.s32[RFLAGS] & ~FLAGS_ARITHMETIC) | (n === 0 ? FLAG_ZF : 0));
}

const popcnt: ExecBySize = {
  16: (cpu, i) => {
    const n = populationCount(readE16(cpu, i));
    cpu.g16[i.reg << 2] = n;
    setPopulation(cpu, n);
  },
  32: (cpu, i) => {
    const n = populationCount(readE32(cpu, i));
    write32(cpu, i.reg, n);
    setPopulation(cpu, n);
  },
  64: (cpu, i) => {
    readE64(cpu, i);
    const n = populationCount(cpu.v32[0]) + populationCount(cpu.v32[1]);
    write32(cpu, i.reg, n);
    setPopulation(cpu, n);
  },
};

/** A 32-bit value with its bytes reversed. */
export function reverseBytes(value: number): number {
  return (value << 24) | ((value & 0xff00) << 8) | ((value >>> 8) & 0xff00) | (value >>> 24);
}

const bswap: ExecBySize = {
  // Undefined by the manuals; processors clear the register's low half.
  16: (cpu, i) => {
    cpu.g16[i.rm << 2] = 0;
  },
  32: (cpu, i) => write32(cpu, i.rm, reverseBytes(cpu.g32[i.rm << 1])),
  64: (cpu, i) => {
    const at = i.rm << 1;
    const lo = reverseBytes(cpu.g32[at]);
    cpu.g32[at] = reverseBytes(cpu.g32[at + 1]);
    cpu.g32[at + 1] = lo;
  },
};

/** The opcode rows of this file. */
export const BITS_ROWS: readonly OpcodeRow[] = [
  ...rowsOf(BT, "bt", 0xa3),
  ...rowsOf(BTS, "bts", 0xab),
  ...rowsOf(BTR, "btr", 0xb3),
  ...rowsOf(3, "btc", 0xbb),
  row("0f", 0xbc, "bsf", "Gv,Ev", scan(true)),
  row("0f", 0xbd, "bsr", "Gv,Ev", scan(false)),
  row("0f", 0xbc, "tzcnt", "Gv,Ev", count(true), { prefix: "f3" }),
  row("0f", 0xbd, "lzcnt", "Gv,Ev", count(false), { prefix: "f3" }),
  row("0f", 0xb8, "popcnt", "Gv,Ev", popcnt, { prefix: "f3" }),
  row("0f", 0xc8, "bswap", "Zv", bswap, { count: 8 }),
];
