/**
 * Lazy arithmetic flags: an instruction stores what it did, and a flag is computed when something asks for it.
 *
 * Operands and results are kept sign-extended, so that ZF, SF and PF, and the carry-vector formulas for CF, OF and AF,
 * read the same bits for every operand size. ADD and ADC need no carry-in, nor do SUB and SBB: the carries out of each
 * bit follow from both operands and the result.
 *
 * @module
 */

import { CpuRegisters } from "./registers.ts";
import { CpuState, FLAG_AF, FLAG_CF, FLAG_OF, FLAG_PF, FLAG_SF, FLAG_ZF, FLAGS_ARITHMETIC } from "./state.ts";

const RFLAGS = CpuState.at.rflags >> 2;

/** lzOp: RFLAGS in the state is complete. */
export const LZ_NONE = 0;
/** lzOp: addition of 32 bits or fewer. */
export const LZ_ADD32 = 1;
/** lzOp: 64-bit addition. */
export const LZ_ADD64 = 2;
/** lzOp: subtraction of 32 bits or fewer. */
export const LZ_SUB32 = 3;
/** lzOp: 64-bit subtraction. */
export const LZ_SUB64 = 4;
/** lzOp: AND, OR, XOR, TEST of any size; CF and OF are 0. */
export const LZ_LOGIC = 5;
/** lzOp: INC of 32 bits or fewer: as ADD, but CF is the one in RFLAGS. */
export const LZ_INC32 = 6;
/** lzOp: 64-bit INC. */
export const LZ_INC64 = 7;
/** lzOp: DEC of 32 bits or fewer. */
export const LZ_DEC32 = 8;
/** lzOp: 64-bit DEC. */
export const LZ_DEC64 = 9;

/** Shift or rotate by at least one: CF is `lz[0]`, OF `lz[1]`. */
export const LZ_SHIFT = 10;
/** IMUL of 16 or 32 bits: CF and OF say that the product does not fit. */
export const LZ_IMUL32 = 11;
/** 64-bit IMUL. */
export const LZ_IMUL64 = 12;

/** Index into `lz` of operand a, low half. */
export const LZ_A = 0;
/** Index into `lz` of operand b, low half. */
export const LZ_B = 2;
/** Index into `lz` of the result, low half; the high half is at the next index (for 32 bits a copy of the low one). */
export const LZ_R = 4;

/** PF for each byte. */
const PARITY = Uint8Array.from({ length: 256 }, (_, byte) => {
  let bits = byte;
  bits ^= bits >> 4;
  bits ^= bits >> 2;
  bits ^= bits >> 1;
  return (bits & 1) === 0 ? FLAG_PF : 0;
});

/** The low byte's parity flag, FLAG_PF or 0. */
export function parity(value: number): number {
  return PARITY[value & 0xff];
}

/** Registers with lazily computed flags. */
export class CpuFlags extends CpuRegisters {
  /** What the operands below belong to: LZ_*. */
  lzOp = 0;
  /** Operands and result: a, b and r as pairs. */
  readonly lz: Int32Array = new Int32Array(6);
  /** The same as 64-bit words: a, b, r. */
  readonly lz64: BigUint64Array = new BigUint64Array(this.lz.buffer as ArrayBuffer);

  /** Flags of a + b (+ carry) = r, all sign-extended from 8, 16 or 32 bits. */
  setAdd32(a: number, b: number, r: number): void {
    const lz = this.lz;
    lz[LZ_A] = a;
    lz[LZ_B] = b;
    lz[LZ_R] = r;
    lz[LZ_R + 1] = r;
    this.lzOp = LZ_ADD32;
  }

  /** Flags of a - b (- borrow) = r, all sign-extended from 8, 16 or 32 bits. */
  setSub32(a: number, b: number, r: number): void {
    const lz = this.lz;
    lz[LZ_A] = a;
    lz[LZ_B] = b;
    lz[LZ_R] = r;
    lz[LZ_R + 1] = r;
    this.lzOp = LZ_SUB32;
  }

  /** Flags of a logical result, sign-extended from 8, 16 or 32 bits. */
  setLogic32(r: number): void {
    const lz = this.lz;
    lz[LZ_R] = r;
    lz[LZ_R + 1] = r;
    this.lzOp = LZ_LOGIC;
  }

  /** Flags of an increment from a to r, both sign-extended; CF stays. */
  setInc32(a: number, r: number): void {
    this.keepCf();
    const lz = this.lz;
    lz[LZ_A] = a;
    lz[LZ_B] = 1;
    lz[LZ_R] = r;
    lz[LZ_R + 1] = r;
    this.lzOp = LZ_INC32;
  }

  /** Flags of a decrement from a to r, both sign-extended; CF stays. */
  setDec32(a: number, r: number): void {
    this.keepCf();
    const lz = this.lz;
    lz[LZ_A] = a;
    lz[LZ_B] = 1;
    lz[LZ_R] = r;
    lz[LZ_R + 1] = r;
    this.lzOp = LZ_DEC32;
  }

  /** Flags of the 64-bit operation `lzOp` whose operands and result are already in `lz64`. */
  set64(lzOp: number): void {
    this.lzOp = lzOp;
  }

  /** Brings CF alone into RFLAGS, before an instruction that leaves it. */
  keepCf(): void {
    const op = this.lzOp;
    if (op === LZ_NONE || (op >= LZ_INC32 && op <= LZ_DEC64)) return;
    this.s32[RFLAGS] = (this.s32[RFLAGS] & ~FLAG_CF) | this.getCf();
  }

  /** CF: 1 or 0. */
  getCf(): number {
    const lz = this.lz;
    switch (this.lzOp) {
      case 1: // LZ_ADD32
        return ((lz[0] & lz[2]) | ((lz[0] | lz[2]) & ~lz[4])) >>> 31;
      case 2: // LZ_ADD64
        return ((lz[1] & lz[3]) | ((lz[1] | lz[3]) & ~lz[5])) >>> 31;
      case 3: // LZ_SUB32
        return ((~lz[0] & lz[2]) | ((~lz[0] | lz[2]) & lz[4])) >>> 31;
      case 4: // LZ_SUB64
        return ((~lz[1] & lz[3]) | ((~lz[1] | lz[3]) & lz[5])) >>> 31;
      case 5: // LZ_LOGIC
        return 0;
      case 10: // LZ_SHIFT
        return lz[0];
      case 11: // LZ_IMUL32
        return this.#overflow32();
      case 12: // LZ_IMUL64
        return this.#overflow64();
      default: // in RFLAGS
        return this.s32[RFLAGS] & FLAG_CF;
    }
  }

  /** OF: 1 or 0. */
  getOf(): number {
    const lz = this.lz;
    switch (this.lzOp) {
      case 0: // LZ_NONE
        return (this.s32[RFLAGS] >> 11) & 1;
      case 1: // LZ_ADD32
      case 6: // LZ_INC32
        return ((lz[0] ^ lz[4]) & (lz[2] ^ lz[4])) >>> 31;
      case 2: // LZ_ADD64
      case 7: // LZ_INC64
        return ((lz[1] ^ lz[5]) & (lz[3] ^ lz[5])) >>> 31;
      case 3: // LZ_SUB32
      case 8: // LZ_DEC32
        return ((lz[0] ^ lz[2]) & (lz[0] ^ lz[4])) >>> 31;
      case 4: // LZ_SUB64
      case 9: // LZ_DEC64
        return ((lz[1] ^ lz[3]) & (lz[1] ^ lz[5])) >>> 31;
      case 10: // LZ_SHIFT
        return lz[1];
      case 11: // LZ_IMUL32
        return this.#overflow32();
      case 12: // LZ_IMUL64
        return this.#overflow64();
      default: // LZ_LOGIC
        return 0;
    }
  }

  /** Whether the product of the 32-bit operands differs from the result. */
  #overflow32(): number {
    return this.lz[0] * this.lz[2] === this.lz[4] ? 0 : 1;
  }

  /** Whether the product of the 64-bit operands differs from the result. */
  #overflow64(): number {
    const { lz64 } = this;
    return BigInt.asIntN(64, lz64[0]) * BigInt.asIntN(64, lz64[1]) === BigInt.asIntN(64, lz64[2]) ? 0 : 1;
  }

  /** ZF: 1 or 0. */
  getZf(): number {
    if (this.lzOp === LZ_NONE) return (this.s32[RFLAGS] >> 6) & 1;
    return (this.lz[LZ_R] | this.lz[LZ_R + 1]) === 0 ? 1 : 0;
  }

  /** SF: 1 or 0. */
  getSf(): number {
    if (this.lzOp === LZ_NONE) return (this.s32[RFLAGS] >> 7) & 1;
    return this.lz[LZ_R + 1] >>> 31;
  }

  /** PF: 1 or 0. */
  getPf(): number {
    if (this.lzOp === LZ_NONE) return (this.s32[RFLAGS] >> 2) & 1;
    return PARITY[this.lz[LZ_R] & 0xff] >> 2;
  }

  /** AF: 1 or 0. */
  getAf(): number {
    if (this.lzOp === LZ_NONE) return (this.s32[RFLAGS] >> 4) & 1;
    if (this.lzOp === LZ_LOGIC || this.lzOp > LZ_DEC64) return 0;
    const lz = this.lz;
    return ((lz[LZ_A] ^ lz[LZ_B] ^ lz[LZ_R]) >> 4) & 1;
  }

  /** Completes RFLAGS in the state and returns its low half. */
  flags(): number {
    const s32 = this.s32;
    const op = this.lzOp;
    if (op === LZ_NONE) return s32[RFLAGS];
    const lz = this.lz;
    let flags = s32[RFLAGS] & ~FLAGS_ARITHMETIC;
    if (this.getCf() !== 0) flags |= FLAG_CF;
    flags |= PARITY[lz[LZ_R] & 0xff];
    if (op <= LZ_DEC64 && op !== LZ_LOGIC && ((lz[LZ_A] ^ lz[LZ_B] ^ lz[LZ_R]) & 0x10) !== 0) flags |= FLAG_AF;
    if ((lz[LZ_R] | lz[LZ_R + 1]) === 0) flags |= FLAG_ZF;
    if (lz[LZ_R + 1] < 0) flags |= FLAG_SF;
    if (this.getOf() !== 0) flags |= FLAG_OF;
    s32[RFLAGS] = flags;
    this.lzOp = LZ_NONE;
    return flags;
  }

  /** Replaces the six arithmetic flags by those of `flags`. */
  setArith(flags: number): void {
    this.s32[RFLAGS] = (this.s32[RFLAGS] & ~FLAGS_ARITHMETIC) | (flags & FLAGS_ARITHMETIC);
    this.lzOp = LZ_NONE;
  }

  /** The condition `cc` of Jcc, SETcc and CMOVcc (0 to 15, as encoded). */
  condition(cc: number): boolean {
    let holds: boolean;
    switch (cc >> 1) {
      case 0: // O
        holds = this.getOf() !== 0;
        break;
      case 1: // B
        holds = this.getCf() !== 0;
        break;
      case 2: // Z
        holds = this.getZf() !== 0;
        break;
      case 3: // BE
        holds = this.getZf() !== 0 || this.getCf() !== 0;
        break;
      case 4: // S
        holds = this.getSf() !== 0;
        break;
      case 5: // P
        holds = this.getPf() !== 0;
        break;
      case 6: // L
        holds = this.getSf() !== this.getOf();
        break;
      default: // LE
        holds = this.getZf() !== 0 || this.getSf() !== this.getOf();
    }
    return holds !== ((cc & 1) !== 0);
  }
}
