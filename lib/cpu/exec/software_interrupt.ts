/**
 * INT n, INT3, INTO and INT1 (ICEBP).
 *
 * @module
 */
import type { Cpu } from "../cpu.ts";
import { VECTOR_BP, VECTOR_DB, VECTOR_GP, VECTOR_OF } from "../faults.ts";
import { type Exec, type OpcodeRow, row } from "../insn.ts";
import { enter, EVENT_TYPE_PRIVILEGED_SOFTWARE, EVENT_TYPE_SOFTWARE_EXCEPTION } from "../interrupts.ts";
import { EVENT_TYPE_SOFTWARE, FLAG_IOPL, FLAG_OF, RFLAGS } from "../state.ts";

/** Enters the handler of a trap, or shows it to the surroundings. RIP is already behind the instruction. */
function trap(cpu: Cpu, vector: number, type: number): void {
  if (cpu.bus.interceptsException(vector)) cpu.raiseTrap(vector);
  enter(cpu, vector, false, 0, type);
}

/** INT3. */
const breakpoint: Exec = (cpu) => trap(cpu, VECTOR_BP, EVENT_TYPE_SOFTWARE_EXCEPTION);

/** INTO: INT 4 when OF is set. */
const overflow: Exec = (cpu) => {
  if ((cpu.flags() & FLAG_OF) !== 0) trap(cpu, VECTOR_OF, EVENT_TYPE_SOFTWARE_EXCEPTION);
};

/** INT1, also called ICEBP: a #DB that leaves DR6 alone. */
const debugTrap: Exec = (cpu) => trap(cpu, VECTOR_DB, EVENT_TYPE_PRIVILEGED_SOFTWARE);

/** INT n. In virtual-8086 mode it needs IOPL 3. */
const interrupt: Exec = (cpu, i) => {
  if (cpu.v86 && (cpu.s32[RFLAGS] & FLAG_IOPL) !== FLAG_IOPL) cpu.raise(VECTOR_GP, 0);
  enter(cpu, i.immLo & 0xff, false, 0, EVENT_TYPE_SOFTWARE);
};

/** The opcode rows of this file. */
export const rows: readonly OpcodeRow[] = [
  row("1", 0xcc, "int3", "", breakpoint, { ends: true }),
  row("1", 0xcd, "int", "Ib", interrupt, { ends: true }),
  row("1", 0xce, "into", "", overflow, { ends: true, invalid64: true }),
  row("1", 0xf1, "int1", "", debugTrap, { ends: true }),
];
