/**
 * Encodes memory references: ModRM, SIB and displacement in 16-, 32- and 64-bit addressing.
 *
 * Intel SDM volume 2, tables 2-1 to 2-3.
 *
 * @module
 */

import { BadInput } from "../../memory/bad_input.ts";
import type { MemoryOperand } from "./operand.ts";
import type { Register } from "./registers.ts";

/** How much room the displacement takes: as little as its value needs, one byte, or the address size's full width. */
export type DisplacementWidth = "least" | "byte" | "full";

/** A memory reference ready for emission. */
export interface EncodedAddress {
  /** ModRM.mod and ModRM.rm. */
  readonly modrm: number;
  /** The SIB byte, −1 when there is none. */
  readonly sib: number;
  /** The displacement's bytes in the instruction: 0, 1, 2 or 4. */
  readonly displacementBytes: number;
  /** The displacement; of a RIP-relative reference the target's address. */
  readonly displacement: bigint;
  /** True when the displacement counts from the instruction's end. */
  readonly relative: boolean;
  /** REX.X and REX.B as they stand in a REX byte. */
  readonly rex: number;
  /** Why the displacement does not fit, empty when it does. */
  readonly misfit: string;
}

const REX_X = 2;
const REX_B = 1;
const RM_SIB = 4;
const RM_DISPLACEMENT_32 = 5;
const RM_DISPLACEMENT_16 = 6;
const SIB_NO_INDEX = 4;
const SIB_NO_BASE = 5;
const STACK_POINTER = 4;
const BASE_POINTER = 5;
const DISPLACEMENT_BYTES_32 = 4;
const MOD_BYTE = 0x40;
const MOD_FULL = 0x80;

/** ModRM.rm of 16-bit addressing, by the register numbers of base and index in ascending order. */
const RM_16: Readonly<Record<string, number>> = {
  "3,6": 0,
  "3,7": 1,
  "5,6": 2,
  "5,7": 3,
  "6": 4,
  "7": 5,
  "5": 6,
  "3": 7,
};

/** The address size that the registers of a reference demand, 0 when it names none. */
export function addressSizeOf(memory: MemoryOperand): number {
  const registers = [memory.base, memory.index].filter((register) => register !== undefined);
  for (const register of registers) {
    const general = register.class === "gpr" && register.size >= 16;
    if (!general && register.class !== "ip") {
      throw new BadInput("an address is made of 16-, 32- or 64-bit general registers");
    }
    if (register.size !== registers[0].size) throw new BadInput("address mixes registers of different sizes");
  }
  return registers[0]?.size ?? 0;
}

/** True when the value, taken modulo 2^bits, is a signed byte. */
function isByte(value: bigint, bits: number): boolean {
  const signed = BigInt.asIntN(bits, value);
  return signed >= -128n && signed <= 127n;
}

/** Says why a displacement cannot be encoded, or nothing. */
function displacementMisfit(value: bigint, addressSize: number, bytes: number): string {
  const bits = BigInt(addressSize);
  const inRange = value >= -(1n << (bits - 1n)) && value < 1n << bits;
  const signed = BigInt.asIntN(addressSize, value);
  const full = bytes === 1
    ? isByte(value, addressSize)
    : addressSize < 64 || (signed >= -(1n << 31n) && signed < 1n << 31n);
  if (inRange && (full || bytes === 0)) return "";
  const room = bytes === 1 ? "a signed byte" : addressSize === 64 ? "32 signed bits" : `${addressSize} bits`;
  return `displacement ${hexadecimal(value)} does not fit ${room}`;
}

/** Prints a value the way messages show numbers. */
export function hexadecimal(value: bigint): string {
  return value < 0n ? `-0x${(-value).toString(16)}` : `0x${value.toString(16)}`;
}

function choose(value: bigint, size: number, width: DisplacementWidth, optional: boolean): number {
  if (width === "least" && optional && value === 0n) return 0;
  if (width === "byte" || (width === "least" && isByte(value, size))) return 1;
  return size === 16 ? 2 : DISPLACEMENT_BYTES_32;
}

function withDisplacement(rm: number, bytes: number): number {
  return bytes === 0 ? rm : rm | (bytes === 1 ? MOD_BYTE : MOD_FULL);
}

function encode16(memory: MemoryOperand, value: bigint, width: DisplacementWidth): EncodedAddress {
  const numbers = [memory.base, memory.index].filter((register) => register !== undefined).map(({ number }) => number);
  if (memory.scale !== 1) throw new BadInput("16-bit addresses cannot scale a register");
  const plain = { sib: -1, displacement: value, relative: false, rex: 0 };
  if (numbers.length === 0) {
    return { ...plain, modrm: RM_DISPLACEMENT_16, displacementBytes: 2, misfit: displacementMisfit(value, 16, 2) };
  }
  const rm = RM_16[numbers.sort((a, b) => a - b).join(",")];
  if (rm === undefined) throw new BadInput("16-bit addresses are made of bx or bp, and si or di");
  const bytes = choose(value, 16, width, rm !== RM_DISPLACEMENT_16);
  const misfit = displacementMisfit(value, 16, bytes);
  return { ...plain, modrm: withDisplacement(rm, bytes), displacementBytes: bytes, misfit };
}

/** Orders base and index so that the stack pointer, which cannot be an index, is the base. */
function orderRegisters(memory: MemoryOperand): [Register | undefined, Register | undefined] {
  const { base, index } = memory;
  if (index?.number !== STACK_POINTER) return [base, index];
  if (memory.scale !== 1 || base?.number === STACK_POINTER) throw new BadInput("the stack pointer cannot be an index");
  return [index, base];
}

function encodeWide(memory: MemoryOperand, value: bigint, size: number, width: DisplacementWidth): EncodedAddress {
  const [base, index] = orderRegisters(memory);
  const rex = ((index?.number ?? 0) > 7 ? REX_X : 0) | ((base?.number ?? 0) > 7 ? REX_B : 0);
  const common = { displacement: value, relative: false, rex };
  const scaleBits = Math.log2(memory.scale) << 6;
  const indexBits = (index === undefined ? SIB_NO_INDEX : index.number & 7) << 3;
  if (base === undefined) {
    const sib = scaleBits | indexBits | SIB_NO_BASE;
    const misfit = displacementMisfit(value, size, DISPLACEMENT_BYTES_32);
    return { ...common, modrm: RM_SIB, sib, displacementBytes: DISPLACEMENT_BYTES_32, misfit };
  }
  const number = base.number & 7;
  const bytes = choose(value, size, width, number !== BASE_POINTER);
  const misfit = displacementMisfit(value, size, bytes);
  const needsSib = index !== undefined || number === STACK_POINTER;
  return {
    ...common,
    modrm: withDisplacement(needsSib ? RM_SIB : number, bytes),
    sib: needsSib ? scaleBits | indexBits | number : -1,
    displacementBytes: bytes,
    misfit,
  };
}

/**
 * Encodes a memory reference.
 *
 * @param memory The reference.
 * @param value Its displacement's value.
 * @param addressSize 16, 32 or 64.
 * @param bits The mode: 16, 32 or 64.
 * @param width How much room the displacement takes.
 * @returns The encoded reference.
 * @throws {BadInput} When no address of this size can be made of these registers.
 */
export function encodeAddress(
  memory: MemoryOperand,
  value: bigint,
  addressSize: number,
  bits: number,
  width: DisplacementWidth,
): EncodedAddress {
  const ripBase = memory.base?.class === "ip";
  if (memory.relative || ripBase) {
    if (bits !== 64) throw new BadInput("RIP-relative addresses need 64-bit mode");
    return {
      modrm: RM_DISPLACEMENT_32,
      sib: -1,
      displacementBytes: DISPLACEMENT_BYTES_32,
      displacement: value,
      relative: memory.relative,
      rex: 0,
      misfit: memory.relative ? "" : displacementMisfit(value, 64, DISPLACEMENT_BYTES_32),
    };
  }
  if (addressSize === 16) return encode16(memory, value, width);
  if (memory.base === undefined && memory.index === undefined && bits !== 64) {
    const misfit = displacementMisfit(value, addressSize, DISPLACEMENT_BYTES_32);
    const bytes = DISPLACEMENT_BYTES_32;
    return {
      modrm: RM_DISPLACEMENT_32,
      sib: -1,
      displacementBytes: bytes,
      displacement: value,
      relative: false,
      rex: 0,
      misfit,
    };
  }
  return encodeWide(memory, value, addressSize, width);
}
