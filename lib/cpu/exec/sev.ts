/**
 * PVALIDATE, RMPADJUST and RMPQUERY: an SNP guest's instructions on the reverse map table (AMD64 Architecture Programmer's
 * Manual volume 3). What they do to the table is the bus's; here are the checks and the translation of RAX.
 *
 * RMPUPDATE, PSMASH and RMPREAD are the host's and #UD in a guest.
 *
 * @module
 */
import { ACCESS_READ, PAGE_PVALIDATE, PAGE_RMPADJUST, PAGE_RMPQUERY } from "../bus.ts";
import type { Cpu } from "../cpu.ts";
import { VECTOR_UD } from "../faults.ts";
import { type Exec, type OpcodeRow, row } from "../insn.ts";
import { translation, walk } from "../paging.ts";
import { RAX } from "../state.ts";
import { requirePrivilege } from "./system_operand.ts";

/** An executor of one of the instructions. */
function pageInstruction(instruction: number, only64: boolean): Exec {
  return (cpu: Cpu) => {
    if (cpu.bus.pageInstruction === undefined || (only64 && !cpu.long64) || !cpu.protected) cpu.raise(VECTOR_UD);
    requirePrivilege(cpu);
    const lo = cpu.g32[2 * RAX];
    const hi = cpu.long64 ? cpu.g32[2 * RAX + 1] : 0;
    cpu.checkCanonical(0, lo, hi, 1);
    const error = walk(cpu, lo, hi, ACCESS_READ, false);
    if (error >= 0) cpu.raisePageFault(lo, hi, error);
    cpu.bus.pageInstruction(cpu, instruction, translation.gpn, translation.encrypted);
  };
}

/** A row of 0F 01, group 7. */
function row01(rm: number, name: string, prefix: "f2" | "f3", exec: Exec): OpcodeRow {
  return row("0f", 0x01, name, "", exec, { reg: 7, rm, mod: "reg", prefix, ends: true });
}

/** The opcode rows of this file. */
export const rows: readonly OpcodeRow[] = [
  row01(7, "pvalidate", "f2", pageInstruction(PAGE_PVALIDATE, false)),
  row01(6, "rmpadjust", "f3", pageInstruction(PAGE_RMPADJUST, true)),
  row01(5, "rmpquery", "f3", pageInstruction(PAGE_RMPQUERY, true)),
];
