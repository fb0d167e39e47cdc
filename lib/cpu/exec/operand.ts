/**
 * Register and memory operands of integer instructions. Values of 8 and 16 bits are unsigned, 32 bits signed, 64 bits
 * travel in `cpu.v64[0]`.
 *
 * @module
 */

import type { Cpu } from "../cpu.ts";
import type { Insn } from "../insn.ts";

/** The E operand, 8 bits. */
export function readE8(cpu: Cpu, i: Insn): number {
  return i.mem ? cpu.load8(i) : cpu.g8[i.rm8];
}

/** The E operand, 16 bits. */
export function readE16(cpu: Cpu, i: Insn): number {
  return i.mem ? cpu.load16(i) : cpu.g16[i.rm << 2];
}

/** The E operand, 32 bits. */
export function readE32(cpu: Cpu, i: Insn): number {
  return i.mem ? cpu.load32(i) : cpu.g32[i.rm << 1];
}

/** The E operand, 64 bits, into `v64[0]`. */
export function readE64(cpu: Cpu, i: Insn): void {
  if (i.mem) cpu.load64(i);
  else cpu.v64[0] = cpu.g64[i.rm];
}

/** Writes a 32-bit register; the high half becomes zero. */
export function write32(cpu: Cpu, register: number, value: number): void {
  cpu.g32[register << 1] = value;
  cpu.g32[(register << 1) + 1] = 0;
}

/** Writes the E operand, 8 bits. */
export function writeE8(cpu: Cpu, i: Insn, value: number): void {
  if (i.mem) cpu.store8(i, value);
  else cpu.g8[i.rm8] = value;
}

/** Writes the E operand, 16 bits. */
export function writeE16(cpu: Cpu, i: Insn, value: number): void {
  if (i.mem) cpu.store16(i, value);
  else cpu.g16[i.rm << 2] = value;
}

/** Writes the E operand, 32 bits. */
export function writeE32(cpu: Cpu, i: Insn, value: number): void {
  if (i.mem) cpu.store32(i, value);
  else write32(cpu, i.rm, value);
}

/** Writes `v64[0]` to the E operand. */
export function writeE64(cpu: Cpu, i: Insn): void {
  if (i.mem) cpu.store64(i);
  else cpu.g64[i.rm] = cpu.v64[0];
}

/** Sign-extends 8 bits. */
export function sext8(value: number): number {
  return value << 24 >> 24;
}

/** Sign-extends 16 bits. */
export function sext16(value: number): number {
  return value << 16 >> 16;
}
