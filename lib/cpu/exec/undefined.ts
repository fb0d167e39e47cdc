/**
 * Instructions that only raise: undefined opcodes, encodings beyond 15 bytes, and instructions that are not implemented.
 *
 * @module
 */

import { VECTOR_GP, VECTOR_UD } from "../faults.ts";
import type { Exec, OpcodeRow } from "../insn.ts";
import { row } from "../insn.ts";

/** #UD. */
export const raiseUndefined: Exec = (cpu): void => cpu.raise(VECTOR_UD);

/** #GP(0) for an instruction of more than 15 bytes. */
export const raiseTooLong: Exec = (cpu): void => cpu.raise(VECTOR_GP, 0);

/** #UD for an instruction that exists: reported by name and bytes. */
export const raiseUnimplemented: Exec = (cpu, i) => {
  cpu.reportUnimplemented(i.mnemonic);
  cpu.raise(VECTOR_UD);
};

/** UD2, UD1, UD0, and encodings that other rows would take. */
export const rows: readonly OpcodeRow[] = [
  row("0f", 0x0b, "ud2", "", raiseUndefined, { ends: true }),
  row("0f", 0xb9, "ud1", "Gv,Ev", raiseUndefined, { ends: true }),
  row("0f", 0xff, "ud0", "Gv,Ev", raiseUndefined, { ends: true }),
  // MOVBE with F3; with F2 it is CRC32.
  row("0f38", 0xf0, "ud", "Gv,Mv", raiseUndefined, { prefix: "f3", count: 2 }),
];
