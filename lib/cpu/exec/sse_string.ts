/**
 * SSE4.2: packed string comparisons and CRC32 (Intel SDM volume 2, 4.1 and CRC32).
 *
 * @module
 */

import type { Cpu } from "../cpu.ts";
import { A_I16, A_I8, A_U16, A_U8, B_I16, B_I8, B_U16, B_U8, R_I16, R_I32, R_I8 } from "../float/lanes.ts";
import { type Exec, type Insn, type OpcodeRow, row } from "../insn.ts";
import { FLAG_CF, FLAG_OF, FLAG_SF, FLAG_ZF, RAX, RCX, RDX } from "../state.ts";
import { putGpr32, registerToA, requireSse, resultToRegister, source128 } from "./sse_operand.ts";

/** REX.W among the bits of `Insn.rex`. */
const REX_W = 8;

/** Immediate bit 0: elements are words. */
const WORDS = 1;
/** Immediate bit 1: elements are signed. */
const SIGNED = 2;
/** Immediate bits 3:2: the aggregation. */
const AGGREGATION_SHIFT = 2;
const EQUAL_ANY = 0;
const RANGES = 1;
const EQUAL_EACH = 2;
/** Immediate bit 4: the result is inverted; with bit 5, only where the second operand is valid. */
const NEGATE = 0x10;
const NEGATE_VALID_ONLY = 0x20;
/** Immediate bit 6: index of the last match, or a mask of whole elements. */
const LAST_OR_EXPANDED = 0x40;

/** An operand's elements of the kind that the immediate names: 0 bytes, 1 words, 2 signed bytes, 3 signed words. */
const A_ELEMENTS = [A_U8, A_U16, A_I8, A_I16];
const B_ELEMENTS = [B_U8, B_U16, B_I8, B_I16];

/** Number of elements before the first zero. */
function implicitLength(elements: ArrayLike<number>, count: number): number {
  let n = 0;
  while (n < count && elements[n] !== 0) n++;
  return n;
}

/** The absolute value of EAX or EDX (RAX or RDX), at most `count`. */
function explicitLength(cpu: Cpu, register: number, wide: boolean, count: number): number {
  const low = cpu.g32[2 * register];
  const high = wide ? cpu.g32[2 * register + 1] : low >> 31;
  // Only lengths from -count to count matter; every other is at least count in magnitude.
  if (high !== low >> 31) return count;
  return Math.min(Math.abs(low), count);
}

/** One bit of the intermediate result: element `j` of the second operand. */
function matches(mode: number, count: number, lengthA: number, lengthB: number, j: number): boolean {
  const a = A_ELEMENTS[mode & (WORDS | SIGNED)];
  const b = B_ELEMENTS[mode & (WORDS | SIGNED)];
  switch ((mode >> AGGREGATION_SHIFT) & 3) {
    case EQUAL_ANY:
      if (j >= lengthB) return false;
      for (let k = 0; k < lengthA; k++) if (a[k] === b[j]) return true;
      return false;
    case RANGES:
      if (j >= lengthB) return false;
      for (let k = 0; k + 1 < lengthA; k += 2) if (a[k] <= b[j] && b[j] <= a[k + 1]) return true;
      return false;
    case EQUAL_EACH:
      if (j >= lengthA || j >= lengthB) return j >= lengthA && j >= lengthB;
      return a[j] === b[j];
    default: // equal ordered: the first operand is found at element j of the second
      for (let k = 0; k < lengthA && j + k < count; k++) {
        if (j + k >= lengthB || a[k] !== b[j + k]) return false;
      }
      return true;
  }
}

/** Compares A with B, sets the flags and returns the mask of matching elements. */
function compareStrings(cpu: Cpu, i: Insn, explicit: boolean): number {
  requireSse(cpu);
  source128(cpu, i, true);
  registerToA(cpu, i.reg);
  const mode = i.immLo & 0xff;
  const count = (mode & WORDS) !== 0 ? 8 : 16;
  const wide = (i.rex & REX_W) !== 0;
  const kind = mode & (WORDS | SIGNED);
  const lengthA = explicit ? explicitLength(cpu, RAX, wide, count) : implicitLength(A_ELEMENTS[kind], count);
  const lengthB = explicit ? explicitLength(cpu, RDX, wide, count) : implicitLength(B_ELEMENTS[kind], count);
  let mask = 0;
  for (let j = 0; j < count; j++) if (matches(mode, count, lengthA, lengthB, j)) mask |= 1 << j;
  if ((mode & NEGATE) !== 0) mask ^= (1 << ((mode & NEGATE_VALID_ONLY) !== 0 ? lengthB : count)) - 1;
  cpu.setArith(
    (mask !== 0 ? FLAG_CF : 0) | (lengthB < count ? FLAG_ZF : 0) | (lengthA < count ? FLAG_SF : 0) |
      ((mask & 1) !== 0 ? FLAG_OF : 0),
  );
  return mask;
}

/** PCMPESTRI (`explicit`), PCMPISTRI: an index to ECX. */
function compareToIndex(explicit: boolean): Exec {
  return (cpu, i) => {
    const mask = compareStrings(cpu, i, explicit);
    const count = (i.immLo & WORDS) !== 0 ? 8 : 16;
    let index = count;
    if (mask !== 0) index = 31 - Math.clz32((i.immLo & LAST_OR_EXPANDED) !== 0 ? mask : mask & -mask);
    putGpr32(cpu, RCX, index);
  };
}

/** PCMPESTRM (`explicit`), PCMPISTRM: a mask to XMM0. */
function compareToMask(explicit: boolean): Exec {
  return (cpu, i) => {
    const mask = compareStrings(cpu, i, explicit);
    if ((i.immLo & LAST_OR_EXPANDED) === 0) {
      R_I32[0] = mask;
      R_I32[1] = R_I32[2] = R_I32[3] = 0;
    } else if ((i.immLo & WORDS) !== 0) {
      for (let k = 0; k < 8; k++) R_I16[k] = -((mask >> k) & 1);
    } else {
      for (let k = 0; k < 16; k++) R_I8[k] = -((mask >> k) & 1);
    }
    resultToRegister(cpu, 0);
  };
}

/** The polynomial 11EDC6F41 without its highest bit, reflected. */
const CRC32C_POLYNOMIAL = 0x82f6_3b78;
/** The remainders of each byte. */
const CRC32C_TABLE = Int32Array.from({ length: 256 }, (_, byte) => {
  let crc = byte;
  for (let bit = 0; bit < 8; bit++) crc = (crc >>> 1) ^ ((crc & 1) !== 0 ? CRC32C_POLYNOMIAL : 0);
  return crc;
});

/** Carries `bytes` bytes of `value` into the remainder. */
function crc32c(crc: number, value: number, bytes: number): number {
  for (let n = 0; n < bytes; n++) {
    crc = (crc >>> 8) ^ CRC32C_TABLE[(crc ^ value) & 0xff];
    value >>>= 8;
  }
  return crc;
}

/** CRC32 r32, r/m8. */
function crc32Byte(cpu: Cpu, i: Insn): void {
  const value = i.mem ? cpu.load8(i) : cpu.g8[i.rm8];
  putGpr32(cpu, i.reg, crc32c(cpu.g32[2 * i.reg], value, 1));
}

/** CRC32 r32, r/m16, r/m32 or r/m64. */
function crc32(cpu: Cpu, i: Insn): void {
  let crc = cpu.g32[2 * i.reg];
  if ((i.rex & REX_W) !== 0) {
    let low = cpu.g32[2 * i.rm];
    let high = cpu.g32[2 * i.rm + 1];
    if (i.mem) {
      cpu.load64(i);
      low = cpu.v32[0];
      high = cpu.v32[1];
    }
    crc = crc32c(crc32c(crc, low, 4), high, 4);
  } else if (i.opsize === 2) {
    crc = crc32c(crc, i.mem ? cpu.load16(i) : cpu.g32[2 * i.rm], 2);
  } else {
    crc = crc32c(crc, i.mem ? cpu.load32(i) : cpu.g32[2 * i.rm], 4);
  }
  putGpr32(cpu, i.reg, crc);
}

/** The opcode rows of this file. */
export const rows: readonly OpcodeRow[] = [
  row("0f38", 0xf0, "crc32", "G,Eb", crc32Byte, { prefix: "f2" }),
  row("0f38", 0xf1, "crc32", "G,E", crc32, { prefix: "f2" }),
  row("0f3a", 0x60, "pcmpestrm", "V,W,Ib", compareToMask(true), { prefix: "66" }),
  row("0f3a", 0x61, "pcmpestri", "V,W,Ib", compareToIndex(true), { prefix: "66" }),
  row("0f3a", 0x62, "pcmpistrm", "V,W,Ib", compareToMask(false), { prefix: "66" }),
  row("0f3a", 0x63, "pcmpistri", "V,W,Ib", compareToIndex(false), { prefix: "66" }),
];
