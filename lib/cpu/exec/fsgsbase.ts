/**
 * RDFSBASE, RDGSBASE, WRFSBASE and WRGSBASE (AMD64 Architecture Programmer's Manual volume 3).
 *
 * @module
 */
import { CR4_FSGSBASE } from "../control_bits.ts";
import type { Cpu } from "../cpu.ts";
import { VECTOR_GP, VECTOR_UD } from "../faults.ts";
import { type Exec, type OpcodeRow, row } from "../insn.ts";
import { baseWord, isCanonical } from "../segments.ts";
import { CpuState, FS, GS } from "../state.ts";
import { writeRegister } from "./system_operand.ts";

const CR4 = CpuState.at.cr4 >>> 2;

/** Raises #UD unless the system enabled these instructions. */
function requireEnabled(cpu: Cpu): void {
  if ((cpu.s32[CR4] & CR4_FSGSBASE) === 0) cpu.raise(VECTOR_UD);
}

/** RDFSBASE and RDGSBASE. */
function readBase(seg: number): Exec {
  const word = baseWord(seg);
  return (cpu, i) => {
    requireEnabled(cpu);
    writeRegister(cpu, i.rm, i.opsize, cpu.s32[word], cpu.s32[word + 1]);
  };
}

/** WRFSBASE and WRGSBASE; a 32-bit operand is zero-extended. */
function writeBase(seg: number): Exec {
  const word = baseWord(seg);
  return (cpu, i) => {
    requireEnabled(cpu);
    const hi = i.opsize === 8 ? cpu.g32[2 * i.rm + 1] : 0;
    if (!isCanonical(hi)) cpu.raise(VECTOR_GP, 0);
    cpu.s32[word] = cpu.g32[2 * i.rm];
    cpu.s32[word + 1] = hi;
    cpu.updateMode();
  };
}

const FORM = { mod: "reg", prefix: "f3", only64: true } as const;

/** The opcode rows of this file. */
export const rows: readonly OpcodeRow[] = [
  row("0f", 0xae, "rdfsbase", "Ev", readBase(FS), { reg: 0, ...FORM }),
  row("0f", 0xae, "rdgsbase", "Ev", readBase(GS), { reg: 1, ...FORM }),
  row("0f", 0xae, "wrfsbase", "Ev", writeBase(FS), { reg: 2, ...FORM, ends: true }),
  row("0f", 0xae, "wrgsbase", "Ev", writeBase(GS), { reg: 3, ...FORM, ends: true }),
];
