/**
 * The opcode map: the rows of all executor files.
 *
 * @module
 */

import { OpcodeMap } from "./decode.ts";
import { rows as fxstateRows } from "./exec/fxstate.ts";
import { rows as sseConvertRows } from "./exec/sse_convert.ts";
import { rows as sseFloatRows } from "./exec/sse_float.ts";
import { rows as sseIntRows } from "./exec/sse_int.ts";
import { rows as sseLaterRows } from "./exec/sse_later.ts";
import { rows as sseMoveRows } from "./exec/sse_move.ts";
import { rows as sseStringRows } from "./exec/sse_string.ts";
import { rows as x87Rows } from "./exec/x87.ts";
import { rows as x87ControlRows } from "./exec/x87_control.ts";
import { rows as x87SpecialRows } from "./exec/x87_special.ts";
import { rows as x87TranscendentalRows } from "./exec/x87_transcendental.ts";
import { rows as descriptorRows } from "./exec/descriptor.ts";
import { rows as farRows } from "./exec/far.ts";
import { rows as fsgsbaseRows } from "./exec/fsgsbase.ts";
import { rows as ioRows } from "./exec/io.ts";
import { rows as iretRows } from "./exec/iret.ts";
import { rows as msrRows } from "./exec/msr.ts";
import { rows as sevRows } from "./exec/sev.ts";
import { rows as softwareInterruptRows } from "./exec/software_interrupt.ts";
import { rows as syscallRows } from "./exec/syscall.ts";
import { rows as systemRows } from "./exec/system.ts";
import { ALU_ROWS } from "./exec/alu.ts";
import { BCD_ROWS } from "./exec/bcd.ts";
import { BMI_ROWS } from "./exec/bmi.ts";
import { BITS_ROWS } from "./exec/bits.ts";
import { BRANCH_ROWS } from "./exec/branch.ts";
import { FLAG_ROWS } from "./exec/flag_ops.ts";
import { MOV_ROWS } from "./exec/mov.ts";
import { MULDIV_ROWS } from "./exec/muldiv.ts";
import { SHIFT_ROWS } from "./exec/shift.ts";
import { STACK_ROWS } from "./exec/stack.ts";
import { STRING_ROWS } from "./exec/string.ts";
import { UNARY_ROWS } from "./exec/unary.ts";
import { rows as undefinedRows } from "./exec/undefined.ts";

/** Every implemented instruction. */
export const OPCODES: OpcodeMap = new OpcodeMap([
  ...undefinedRows,
  ...ALU_ROWS,
  ...BCD_ROWS,
  ...BITS_ROWS,
  ...BMI_ROWS,
  ...BRANCH_ROWS,
  ...FLAG_ROWS,
  ...MOV_ROWS,
  ...MULDIV_ROWS,
  ...SHIFT_ROWS,
  ...STACK_ROWS,
  ...STRING_ROWS,
  ...UNARY_ROWS,
  ...descriptorRows,
  ...farRows,
  ...fsgsbaseRows,
  ...ioRows,
  ...iretRows,
  ...msrRows,
  ...sevRows,
  ...softwareInterruptRows,
  ...syscallRows,
  ...systemRows,
  ...fxstateRows,
  ...sseConvertRows,
  ...sseFloatRows,
  ...sseIntRows,
  ...sseLaterRows,
  ...sseMoveRows,
  ...sseStringRows,
  ...x87Rows,
  ...x87ControlRows,
  ...x87SpecialRows,
  ...x87TranscendentalRows,
]);
