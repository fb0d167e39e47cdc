/**
 * BMI1, BMI2 and ADX: ANDN, BEXTR, BLSI, BLSMSK, BLSR, BZHI, MULX, PDEP, PEXT, RORX, SARX, SHLX, SHRX, ADCX, ADOX.
 * VEX encodings have L = 0 and are undefined in real and virtual-8086 mode.
 *
 * @module
 */

import type { Cpu } from "../cpu.ts";
import { VECTOR_UD } from "../faults.ts";
import { type Exec, type Insn, type OpcodeRow, row } from "../insn.ts";
import { FLAG_CF, FLAG_OF, FLAG_SF, FLAG_ZF, FLAGS_ARITHMETIC, RDX, RFLAGS } from "../state.ts";
import { multiply128 } from "./muldiv.ts";
import { readE32, readE64 } from "./operand.ts";

/** A computation on the E operand and the VEX.vvvv register, both 64-bit or zero-extended 32-bit values. */
type Compute = (cpu: Cpu, e: bigint, v: bigint, i: Insn) => bigint;

/** Operand width in bits. */
function width(i: Insn): number {
  return i.opsize === 8 ? 64 : 32;
}

/** Raises #UD where VEX encodings are undefined. */
function requireVex(cpu: Cpu, i: Insn): void {
  if (i.vexL || !cpu.protected || cpu.v86) cpu.raise(VECTOR_UD);
}

/** The E operand, zero-extended. */
function operand(cpu: Cpu, i: Insn): bigint {
  if (i.opsize === 8) {
    readE64(cpu, i);
    return cpu.v64[0];
  }
  return BigInt(readE32(cpu, i) >>> 0);
}

/** A register, truncated to the operand size. */
function register(cpu: Cpu, i: Insn, n: number): bigint {
  return i.opsize === 8 ? cpu.g64[n] : BigInt(cpu.g32[n << 1] >>> 0);
}

/** Writes a register in the operand size; 32 bits are zero-extended. */
function setRegister(cpu: Cpu, i: Insn, n: number, value: bigint): void {
  cpu.g64[n] = i.opsize === 8 ? value : value & 0xffffffffn;
}

/** An instruction of the form G = f(E, vvvv), or vvvv = f(E) when `toVvvv`. */
function vex(compute: Compute, toVvvv = false): Exec {
  return (cpu, i) => {
    requireVex(cpu, i);
    const e = operand(cpu, i);
    const result = compute(cpu, e, register(cpu, i, i.vvvv), i);
    setRegister(cpu, i, toVvvv ? i.vvvv : i.reg, result);
  };
}

/** SF and ZF of a result; CF as given, OF 0; AF and PF are undefined and clear. */
function setFlags(cpu: Cpu, i: Insn, result: bigint, carry: boolean): void {
  const value = BigInt.asUintN(width(i), result);
  let flags = carry ? FLAG_CF : 0;
  if (value === 0n) flags |= FLAG_ZF;
  if (value >> BigInt(width(i) - 1) !== 0n) flags |= FLAG_SF;
  cpu.setArith((cpu.s32[RFLAGS] & ~FLAGS_ARITHMETIC) | flags);
}

const andn: Compute = (cpu, e, v, i) => {
  const result = BigInt.asUintN(width(i), ~v) & e;
  setFlags(cpu, i, result, false);
  return result;
};

const bextr: Compute = (cpu, e, v, i) => {
  const start = v & 0xffn;
  const length = (v >> 8n) & 0xffn;
  const result = start >= BigInt(width(i)) ? 0n : (e >> start) & ((1n << length) - 1n);
  setFlags(cpu, i, result, false);
  return result;
};

const blsr: Compute = (cpu, e, _v, i) => {
  const result = (e - 1n) & e;
  setFlags(cpu, i, result, e === 0n);
  return result;
};

const blsmsk: Compute = (cpu, e, _v, i) => {
  const result = BigInt.asUintN(width(i), (e - 1n) ^ e);
  setFlags(cpu, i, result, e === 0n);
  return result;
};

const blsi: Compute = (cpu, e, _v, i) => {
  const result = BigInt.asUintN(width(i), -e) & e;
  setFlags(cpu, i, result, e !== 0n);
  return result;
};

const bzhi: Compute = (cpu, e, v, i) => {
  const from = v & 0xffn;
  const beyond = from >= BigInt(width(i));
  const result = beyond ? e : e & ((1n << from) - 1n);
  setFlags(cpu, i, result, beyond);
  return result;
};

const pdep: Compute = (_cpu, mask, source) => {
  let result = 0n;
  for (let left = mask, from = source; left !== 0n; left &= left - 1n, from >>= 1n) {
    if ((from & 1n) !== 0n) result |= left & -left;
  }
  return result;
};

const pext: Compute = (_cpu, mask, source) => {
  let result = 0n;
  let bit = 1n;
  for (let left = mask; left !== 0n; left &= left - 1n, bit <<= 1n) {
    if ((source & left & -left) !== 0n) result |= bit;
  }
  return result;
};

/** The count of SARX, SHLX and SHRX. */
function count(v: bigint, i: Insn): bigint {
  return v & BigInt(width(i) - 1);
}

const shlx: Compute = (_cpu, e, v, i) => BigInt.asUintN(width(i), e << count(v, i));
const shrx: Compute = (_cpu, e, v, i) => e >> count(v, i);
const sarx: Compute = (_cpu, e, v, i) => BigInt.asUintN(width(i), BigInt.asIntN(width(i), e) >> count(v, i));

const rorx: Compute = (_cpu, e, _v, i) => {
  const bits = BigInt(width(i));
  const n = BigInt(i.immLo) & (bits - 1n);
  return BigInt.asUintN(width(i), (e >> n) | (e << (bits - n)));
};

/** Product of the E operand and rDX into G (high half) and vvvv (low half); G wins when they are the same. */
const mulx: Exec = (cpu, i) => {
  requireVex(cpu, i);
  const { v64, g64 } = cpu;
  if (i.opsize === 8) {
    readE64(cpu, i);
    v64[1] = g64[RDX];
    multiply128(cpu);
    g64[i.vvvv] = v64[2];
    g64[i.reg] = v64[3];
    return;
  }
  const product = operand(cpu, i) * register(cpu, i, RDX);
  g64[i.vvvv] = product & 0xffffffffn;
  g64[i.reg] = product >> 32n;
};

/** ADCX and ADOX: an addition whose carry in and out is the given flag; no other flag changes. */
function addWithFlag(flag: number): Exec {
  return (cpu, i) => {
    const e = operand(cpu, i);
    const flags = cpu.flags();
    const sum = register(cpu, i, i.reg) + e + ((flags & flag) !== 0 ? 1n : 0n);
    setRegister(cpu, i, i.reg, BigInt.asUintN(width(i), sum));
    cpu.setArith(sum >> BigInt(width(i)) !== 0n ? flags | flag : flags & ~flag);
  };
}

const NONE = { prefix: "none" } as const;

/** The opcode rows of this file. */
export const BMI_ROWS: readonly OpcodeRow[] = [
  row("vex2", 0xf2, "andn", "Gv,Ev", vex(andn), NONE),
  row("vex2", 0xf3, "blsr", "Ev", vex(blsr, true), { reg: 1, ...NONE }),
  row("vex2", 0xf3, "blsmsk", "Ev", vex(blsmsk, true), { reg: 2, ...NONE }),
  row("vex2", 0xf3, "blsi", "Ev", vex(blsi, true), { reg: 3, ...NONE }),
  row("vex2", 0xf5, "bzhi", "Gv,Ev", vex(bzhi), NONE),
  row("vex2", 0xf5, "pext", "Gv,Ev", vex(pext), { prefix: "f3" }),
  row("vex2", 0xf5, "pdep", "Gv,Ev", vex(pdep), { prefix: "f2" }),
  row("vex2", 0xf6, "mulx", "Gv,Ev", mulx, { prefix: "f2" }),
  row("vex2", 0xf7, "bextr", "Gv,Ev", vex(bextr), NONE),
  row("vex2", 0xf7, "shlx", "Gv,Ev", vex(shlx), { prefix: "66" }),
  row("vex2", 0xf7, "sarx", "Gv,Ev", vex(sarx), { prefix: "f3" }),
  row("vex2", 0xf7, "shrx", "Gv,Ev", vex(shrx), { prefix: "f2" }),
  row("vex3", 0xf0, "rorx", "Gv,Ev,Ib", vex(rorx), { prefix: "f2" }),
  row("0f38", 0xf6, "adcx", "Gv,Ev", addWithFlag(FLAG_CF), { prefix: "66" }),
  row("0f38", 0xf6, "adox", "Gv,Ev", addWithFlag(FLAG_OF), { prefix: "f3" }),
];
