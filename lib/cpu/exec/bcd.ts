/**
 * Instructions of the legacy modes alone: DAA, DAS, AAA, AAS, AAM, AAD, SALC and BOUND (#UD in 64-bit code).
 *
 * @module
 */

import { VECTOR_BR, VECTOR_DE } from "../faults.ts";
import { type Exec, type ExecBySize, type OpcodeRow, row } from "../insn.ts";
import { FLAG_AF, FLAG_CF, FLAG_PF, FLAG_SF, FLAG_ZF, FLAGS_ARITHMETIC } from "../state.ts";
import { parity } from "../flags.ts";
import { sext16 } from "./operand.ts";

/** SF, ZF and PF of a byte. */
function byteFlags(value: number): number {
  return ((value & 0x80) !== 0 ? FLAG_SF : 0) | ((value & 0xff) === 0 ? FLAG_ZF : 0) | parity(value);
}

/** DAA and DAS. */
function decimal(sign: 1 | -1): Exec {
  return (cpu) => {
    const old = cpu.flags();
    const al = cpu.g8[0];
    let r = al;
    let flags = 0;
    if ((al & 15) > 9 || (old & FLAG_AF) !== 0) {
      const adjusted = r + sign * 6;
      if (adjusted > 0xff || adjusted < 0) flags |= FLAG_CF;
      r = adjusted & 0xff;
      flags |= FLAG_AF | (old & FLAG_CF);
    }
    if (al > 0x99 || (old & FLAG_CF) !== 0) {
      r = (r + sign * 0x60) & 0xff;
      flags |= FLAG_CF;
    } else if (sign > 0) {
      flags &= ~FLAG_CF;
    }
    cpu.g8[0] = r;
    cpu.setArith((old & FLAGS_ARITHMETIC & ~(FLAG_AF | FLAG_CF | FLAG_SF | FLAG_ZF | FLAG_PF)) | flags | byteFlags(r));
  };
}

/** AAA and AAS. */
function unpacked(sign: 1 | -1): Exec {
  return (cpu) => {
    const old = cpu.flags();
    const adjust = (cpu.g8[0] & 15) > 9 || (old & FLAG_AF) !== 0;
    if (adjust) cpu.g16[0] += sign * 0x106;
    cpu.g8[0] &= 15;
    const flags = adjust ? FLAG_AF | FLAG_CF : 0;
    cpu.setArith((old & ~FLAGS_ARITHMETIC) | flags | byteFlags(cpu.g8[0]));
  };
}

const aam: Exec = (cpu, i) => {
  if (i.immLo === 0) cpu.raise(VECTOR_DE);
  const al = cpu.g8[0];
  cpu.g8[1] = Math.floor(al / i.immLo);
  cpu.g8[0] = al % i.immLo;
  cpu.setArith(byteFlags(cpu.g8[0]));
};

const aad: Exec = (cpu, i) => {
  cpu.g16[0] = (cpu.g8[0] + cpu.g8[1] * i.immLo) & 0xff;
  cpu.setArith(byteFlags(cpu.g8[0]));
};

const salc: Exec = (cpu) => {
  cpu.g8[0] = -cpu.getCf();
};

const bound: ExecBySize = {
  16: (cpu, i) => {
    cpu.ea(i);
    const lo = cpu.ea32[0];
    const index = sext16(cpu.g16[i.reg << 2]);
    const lower = sext16(cpu.read16(i.segment, lo, 0));
    const upper = sext16(cpu.read16(i.segment, (lo + 2) & (i.addrsize === 2 ? 0xffff : -1), 0));
    if (index < lower || index > upper) cpu.raise(VECTOR_BR);
  },
  32: (cpu, i) => {
    cpu.ea(i);
    const lo = cpu.ea32[0];
    const index = cpu.g32[i.reg << 1];
    const lower = cpu.read32(i.segment, lo, 0);
    const upper = cpu.read32(i.segment, (lo + 4) & (i.addrsize === 2 ? 0xffff : -1), 0);
    if (index < lower || index > upper) cpu.raise(VECTOR_BR);
  },
};

const LEGACY = { invalid64: true } as const;

/** The opcode rows of this file. */
export const BCD_ROWS: readonly OpcodeRow[] = [
  row("1", 0x27, "daa", "", decimal(1), LEGACY),
  row("1", 0x2f, "das", "", decimal(-1), LEGACY),
  row("1", 0x37, "aaa", "", unpacked(1), LEGACY),
  row("1", 0x3f, "aas", "", unpacked(-1), LEGACY),
  row("1", 0xd4, "aam", "Ib", aam, LEGACY),
  row("1", 0xd5, "aad", "Ib", aad, LEGACY),
  row("1", 0xd6, "salc", "", salc, LEGACY),
  row("1", 0x62, "bound", "Gv,M", bound, LEGACY),
];
