/**
 * Operands of the system instructions: 16-bit selectors and words in a register or memory, results of any operand size.
 *
 * @module
 */
import type { Cpu } from "../cpu.ts";
import { VECTOR_GP, VECTOR_UD } from "../faults.ts";
import type { Insn } from "../insn.ts";

/** The r/m16 operand, zero-extended, whatever the operand size. */
export function loadWord(cpu: Cpu, i: Insn): number {
  return i.mem ? cpu.load16(i) : cpu.g16[4 * i.rm];
}

/** Writes the low 16, 32 or 64 bits of lo:hi to register `reg`; 32 bits clear the upper half. */
export function writeRegister(cpu: Cpu, reg: number, size: number, lo: number, hi: number): void {
  if (size === 2) {
    cpu.g16[4 * reg] = lo;
    return;
  }
  cpu.g32[2 * reg] = lo;
  cpu.g32[2 * reg + 1] = size === 8 ? hi : 0;
}

/** Stores a selector or status word: 16 bits to memory, zero-extended to the operand size in a register. */
export function storeWord(cpu: Cpu, i: Insn, value: number): void {
  if (i.mem) cpu.store16(i, value);
  else writeRegister(cpu, i.rm, i.opsize, value, 0);
}

/** Raises #GP(0) unless the program runs at level 0. */
export function requirePrivilege(cpu: Cpu): void {
  if (cpu.cpl !== 0) cpu.raise(VECTOR_GP, 0);
}

/** Raises #UD in real and virtual-8086 mode, where descriptors have no meaning. */
export function requireDescriptors(cpu: Cpu): void {
  if (!cpu.protected || cpu.v86) cpu.raise(VECTOR_UD);
}
