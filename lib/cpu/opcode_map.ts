/**
 * The opcode map: the rows of all executor files.
 *
 * @module
 */

import { OpcodeMap } from "./decode.ts";
import { FXSTATE_ROWS } from "./exec/fxstate.ts";
import { SSE_CONVERT_ROWS } from "./exec/sse_convert.ts";
import { SSE_FLOAT_ROWS } from "./exec/sse_float.ts";
import { SSE_INT_ROWS } from "./exec/sse_int.ts";
import { SSE_LATER_ROWS } from "./exec/sse_later.ts";
import { SSE_MOVE_ROWS } from "./exec/sse_move.ts";
import { SSE_STRING_ROWS } from "./exec/sse_string.ts";
import { X87_ROWS } from "./exec/x87.ts";
import { X87_CONTROL_ROWS } from "./exec/x87_control.ts";
import { X87_SPECIAL_ROWS } from "./exec/x87_special.ts";
import { rows as descriptorRows } from "./exec/descriptor.ts";
import { rows as farRows } from "./exec/far.ts";
import { rows as fsgsbaseRows } from "./exec/fsgsbase.ts";
import { rows as ioRows } from "./exec/io.ts";
import { rows as iretRows } from "./exec/iret.ts";
import { rows as msrRows } from "./exec/msr.ts";
import { rows as softwareInterruptRows } from "./exec/software_interrupt.ts";
import { rows as syscallRows } from "./exec/syscall.ts";
import { rows as systemRows } from "./exec/system.ts";
import { rows as undefinedRows } from "./exec/undefined.ts";

/** Every implemented instruction. */
export const OPCODES: OpcodeMap = new OpcodeMap([
  ...undefinedRows,
  ...descriptorRows,
  ...farRows,
  ...fsgsbaseRows,
  ...ioRows,
  ...iretRows,
  ...msrRows,
  ...softwareInterruptRows,
  ...syscallRows,
  ...systemRows,
  ...FXSTATE_ROWS,
  ...SSE_CONVERT_ROWS,
  ...SSE_FLOAT_ROWS,
  ...SSE_INT_ROWS,
  ...SSE_LATER_ROWS,
  ...SSE_MOVE_ROWS,
  ...SSE_STRING_ROWS,
  ...X87_ROWS,
  ...X87_CONTROL_ROWS,
  ...X87_SPECIAL_ROWS,
]);
