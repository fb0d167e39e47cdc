/**
 * The opcode map: the rows of all executor files.
 *
 * @module
 */

import { OpcodeMap } from "./decode.ts";
import { rows as undefinedRows } from "./exec/undefined.ts";

/** Every implemented instruction. */
export const OPCODES: OpcodeMap = new OpcodeMap([
  ...undefinedRows,
]);
