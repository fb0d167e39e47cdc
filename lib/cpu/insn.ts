/**
 * The decoded form of an instruction, and the rows from which the opcode maps are made.
 *
 * @module
 */

import type { Cpu } from "./cpu.ts";

/** What executes an instruction. RIP already points behind it; a fault or an exit puts RIP back. */
export type Exec = (cpu: Cpu, i: Insn) => void;

/** Kinds of effective addresses, the value of `Insn.ea`. */
export const EA_NONE = 0;
/** 64-bit base plus displacement. */
export const EA_BASE64 = 1;
/** 64-bit base, index and displacement, either register optional. */
export const EA_SIB64 = 2;
/** RIP-relative. */
export const EA_RIP = 3;
/** 32-bit addressing. */
export const EA_32 = 4;
/** 16-bit addressing. */
export const EA_16 = 5;

/** A decoded instruction. Every field is always set, so that all instructions share one hidden class. */
export class Insn {
  /** Fast-switch number; 0 calls `exec`. */
  op = 0;
  /** What executes it. */
  exec: Exec;
  /** Offset from the start of the block, in bytes. */
  offset = 0;
  /** Offset of the following instruction from the start of the block. */
  next = 0;
  /** Register field of ModRM with REX.R. */
  reg = 0;
  /** Register in ModRM.rm (or in the opcode) with REX.B; meaningless when `mem`. */
  rm = 0;
  /** Byte offset of the 8-bit register `reg` among the general-purpose registers. */
  reg8 = 0;
  /** Byte offset of the 8-bit register `rm` among the general-purpose registers. */
  rm8 = 0;
  /** Destination register of a register form, in the operands' order. */
  dst = 0;
  /** Source register of a register form. */
  src = 0;
  /** The immediate as an unsigned 64-bit value; only for instructions with a fast-switch number that needs it. */
  imm64 = 0n;
  /** Immediate (or branch displacement) low half, sign-extended. */
  immLo = 0;
  /** Immediate high half. */
  immHi = 0;
  /** Second immediate: ENTER's level, a far pointer's selector. */
  imm2 = 0;
  /** Which effective-address form: EA_*. */
  ea = 0;
  /** Base register of the memory operand, -1 when there is none. */
  base: number = -1;
  /** Index register, -1 when there is none. */
  index: number = -1;
  /** Shift count of the index. */
  scale = 0;
  /** Displacement, low half. */
  dispLo = 0;
  /** Displacement, high half. */
  dispHi = 0;
  /** Segment of the memory operand, override or default: ES to GS. */
  segment = 3;
  /** `1 << segment`. */
  segmentBit = 8;
  /** Whether ModRM names memory. */
  mem = false;
  /** Operand size in bytes: 1, 2, 4 or 8. */
  opsize = 4;
  /** Address size in bytes: 2, 4 or 8. */
  addrsize = 4;
  /** Length in bytes. */
  length = 0;
  /** Whether the block ends here; such an instruction may write RIP. */
  ends = false;
  /** LOCK prefix. */
  lock = false;
  /** 0, 0xf2 or 0xf3, the last one given. */
  rep = 0;
  /** Whether it was decoded as 64-bit code. */
  mode64 = false;
  /** REX byte (for VEX: its W, R, X, B in the same places), 0 without one. */
  rex = 0;
  /** Whether 0x66 was given. */
  prefix66 = false;
  /** Segment override prefix: segment number, -1 without one. */
  override: number = -1;
  /** ModRM.mod. */
  mod = 0;
  /** The last opcode byte. */
  opcode = 0;
  /** VEX.L. */
  vexL = false;
  /** VEX.vvvv register. */
  vvvv = 0;
  /** Name for reports. */
  mnemonic = "";

  /** An instruction that `exec` executes. */
  constructor(exec: Exec) {
    this.exec = exec;
  }
}

/** Executors by operand size. */
export interface ExecBySize {
  /** 16-bit operands. */
  readonly 16: Exec;
  /** 32-bit operands. */
  readonly 32: Exec;
  /** 64-bit operands. */
  readonly 64?: Exec;
}

/** Fast-switch numbers by operand size. */
export interface OpBySize {
  /** 32-bit operands. */
  readonly 32?: number;
  /** 64-bit operands. */
  readonly 64?: number;
}

/**
 * A row of an opcode map.
 *
 * `operands` is a list in the manuals' letters, of which the decoder needs: `E M R U W Q N` (ModRM.rm; `M` memory only,
 * `R U N` register only), `G S C D V P` (ModRM.reg), `Z` (register in the opcode, delivered in `rm`), `Ib Iw Iz Iv Ibs`
 * (immediates; `Ib` is zero-extended, `Ibs` sign-extended), `Jb Jz` (branch displacements), `O` (absolute offset), `Ap`
 * (far pointer: `immLo` offset, `imm2` selector), `Ib2` (second byte immediate, in `imm2`). Other words (`AL`, `CL`, `1`)
 * are for the reader.
 * The letter `b` after `E G Z M` makes a byte operand; with it, `opsize` is 1.
 */
export interface OpcodeRow {
  /** Which map the opcode is in; `vex1` to `vex3` are VEX encodings of 0F, 0F38 and 0F3A. */
  readonly map: "1" | "0f" | "0f38" | "0f3a" | "vex1" | "vex2" | "vex3";
  /** The opcode byte. */
  readonly opcode: number;
  /** How many consecutive opcodes the row stands for (default 1). */
  readonly count?: number;
  /** Mandatory prefix. Without this, 66 is the operand size and F2/F3 do not select. */
  readonly prefix?: "none" | "66" | "f3" | "f2";
  /** ModRM.reg of a group. */
  readonly reg?: number;
  /** ModRM.rm, for register-form encodings that use it as opcode. */
  readonly rm?: number;
  /** Only with memory, or only with a register. */
  readonly mod?: "mem" | "reg";
  /** REX.W (VEX.W) must be this. */
  readonly w?: 0 | 1;
  /** Mnemonic. */
  readonly name: string;
  /** Operands. */
  readonly operands: string;
  /** What executes it, by operand size where it differs. */
  readonly exec: Exec | ExecBySize;
  /** Fast-switch number when ModRM names a register (or there is no ModRM). */
  readonly op?: number | OpBySize;
  /** Fast-switch number when ModRM names memory. */
  readonly opMem?: number | OpBySize;
  /** #UD in 64-bit code. */
  readonly invalid64?: boolean;
  /** #UD outside 64-bit code. */
  readonly only64?: boolean;
  /** LOCK is allowed when the destination is memory. */
  readonly lockable?: boolean;
  /** Ends a block: branches and everything that changes mode, leaves, or may stop. */
  readonly ends?: boolean;
  /** In 64-bit code: "default" is 64 unless 66 makes it 16; "force" is 64 whatever the prefixes. */
  readonly size64?: "default" | "force";
}

/** Shorthand for a row. */
export function row(
  map: OpcodeRow["map"],
  opcode: number,
  name: string,
  operands: string,
  exec: Exec | ExecBySize,
  more: Partial<OpcodeRow> = {},
): OpcodeRow {
  return { map, opcode, name, operands, exec, ...more };
}
