/**
 * The registers that the assembler knows, by name, with the number that encodes them and their size.
 *
 * Intel SDM volume 2, section 2.1 (ModR/M register numbers) and 2.2.1 (REX).
 *
 * @module
 */

/** What kind of register a name stands for. */
export type RegisterClass = "gpr" | "high" | "segment" | "control" | "debug" | "xmm" | "x87" | "ip";

/** A register as an operand. */
export interface Register {
  /** The kind of register; `high` is AH, CH, DH and BH, which exclude a REX prefix. */
  readonly class: RegisterClass;
  /** The number as encoded, 0 to 15. */
  readonly number: number;
  /** Size in bits. */
  readonly size: number;
  /** True for SPL, BPL, SIL and DIL, which exist only with a REX prefix. */
  readonly needsRex: boolean;
}

/** Segment registers in the order of their numbers; the same order as {@linkcode SEGMENT_PREFIXES}. */
export const SEGMENT_NAMES: readonly string[] = ["es", "cs", "ss", "ds", "fs", "gs"];

/** The override prefix of each segment register, by its number. */
export const SEGMENT_PREFIXES: readonly number[] = [0x26, 0x2e, 0x36, 0x3e, 0x64, 0x65];

const LEGACY_GPRS = ["ax", "cx", "dx", "bx", "sp", "bp", "si", "di"];

function registerTable(): Map<string, Register> {
  const table = new Map<string, Register>();
  const add = (name: string, kind: RegisterClass, number: number, size: number, needsRex = false): void => {
    table.set(name, { class: kind, number, size, needsRex });
  };
  LEGACY_GPRS.forEach((name, number) => {
    add(name, "gpr", number, 16);
    add(`e${name}`, "gpr", number, 32);
    add(`r${name}`, "gpr", number, 64);
    if (number < 4) {
      add(`${name[0]}l`, "gpr", number, 8);
      add(`${name[0]}h`, "high", number + 4, 8);
    } else {
      add(`${name}l`, "gpr", number, 8, true);
    }
  });
  for (let number = 8; number < 16; number++) {
    add(`r${number}`, "gpr", number, 64);
    add(`r${number}d`, "gpr", number, 32);
    add(`r${number}w`, "gpr", number, 16);
    add(`r${number}b`, "gpr", number, 8);
  }
  for (let number = 0; number < 16; number++) {
    add(`cr${number}`, "control", number, 64);
    add(`dr${number}`, "debug", number, 64);
    add(`xmm${number}`, "xmm", number, 128);
  }
  for (let number = 0; number < 8; number++) add(`st${number}`, "x87", number, 80);
  add("st", "x87", 0, 80);
  SEGMENT_NAMES.forEach((name, number) => add(name, "segment", number, 16));
  add("rip", "ip", 0, 64);
  return table;
}

/** Every register by its lower-case name. */
export const REGISTERS: ReadonlyMap<string, Register> = registerTable();
