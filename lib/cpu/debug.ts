/**
 * Single step and breakpoints: what is checked around an instruction that runs alone because TF, RF, a breakpoint or an
 * interrupt shadow asks for it.
 *
 * @module
 */

import type { Cpu } from "./cpu.ts";
import { VECTOR_DB } from "./faults.ts";
import { CpuState } from "./state.ts";

const DR6 = CpuState.at.dr6 >> 2;
/** DR6: single step. */
const DR6_BS = 0x4000;

/** Before an instruction, with RF still as it was. */
export function beforeInstruction(_cpu: Cpu): void {}

/** After an instruction that completed; `traced` when TF was set before it. */
export function afterInstruction(cpu: Cpu, traced: boolean): void {
  if (!traced) return;
  cpu.s32[DR6] |= DR6_BS;
  cpu.raiseTrap(VECTOR_DB);
}
