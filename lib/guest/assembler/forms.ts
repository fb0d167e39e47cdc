/**
 * Turns the instruction table's text into forms that the encoder can match and emit.
 *
 * @module
 */

import { INSTRUCTION_TABLE } from "./instruction_table.ts";

/** How a form's operand is encoded. */
export type Slot = "reg" | "rm" | "opcode" | "immediate" | "implied";

/** One operand of a form. */
export interface FormOperand {
  /** Its kind in the table's notation, without size letters: `rm`, `i`, `rel`, `xm`, `creg`, `al`, … */
  readonly kind: string;
  /** Its size in bits, 0 when it has none (or any). */
  readonly size: number;
  /** Where it is encoded. */
  readonly slot: Slot;
  /** For immediates, offsets and pointers: the number of bits in the instruction. */
  readonly bits: number;
}

/** One encodable form of an instruction. */
export interface Form {
  /** The line of the table with its sizes filled in, for messages. */
  readonly text: string;
  /** The operands. */
  readonly operands: readonly FormOperand[];
  /** True when a 9b byte (FWAIT) comes before everything. */
  readonly wait: boolean;
  /** Mandatory prefix 0x66, 0xf2 or 0xf3, or 0. */
  readonly prefix: number;
  /** Opcode bytes. */
  readonly opcode: readonly number[];
  /** ModRM.reg as a digit; −1 for `/r`, −2 when there is no ModRM byte. */
  readonly digit: number;
  /** Fixed bytes after the ModRM byte and displacement (the predicate of CMPccPS). */
  readonly tail: readonly number[];
  /** Operand size in bits: 0 (none), 8, 16, 32 or 64. */
  readonly operandSize: number;
  /** Address size in bits that the form demands, or 0. */
  readonly addressSize: number;
  /** Operand size is 64 in long mode without REX.W, and cannot be 32 there. */
  readonly default64: boolean;
  /** Not encodable in 64-bit mode. */
  readonly legacy: boolean;
  /** Only encodable in 64-bit mode. */
  readonly long: boolean;
  /** The mode's own size is taken when no operand tells the size. */
  readonly natural: boolean;
  /** Only REX.W tells the operand size, never a 66 prefix. */
  readonly no66: boolean;
  /** The register in ModRM.reg stands in ModRM.rm too. */
  readonly twice: boolean;
  /** Register 0 with operand size 32 is excluded in 64-bit mode. */
  readonly notNop: boolean;
}

/** ModRM.reg of forms without a ModRM byte. */
export const NO_MODRM: number = -2;
/** ModRM.reg of forms with a register operand there. */
export const REGISTER_DIGIT: number = -1;

const FIXED: Readonly<Record<string, number>> = {
  al: 8,
  ax: 16,
  eax: 32,
  rax: 64,
  cl: 0,
  dx: 0,
  "1": 0,
  "3": 0,
  st0: 0,
};
const SEGMENTS = ["es", "cs", "ss", "ds", "fs", "gs"];
const ACCUMULATORS: Readonly<Record<number, string>> = { 16: "ax", 32: "eax", 64: "rax" };
const EXPANSIONS: Readonly<Record<string, readonly number[]>> = {
  v: [16, 32, 64],
  z: [16, 32],
  y: [32, 64],
  n: [32, 64],
};

/** A table row with its size letter replaced by one size. */
interface SizedRow {
  names: string[];
  operands: string[];
  encoding: string[];
  attributes: string[];
  /** The size that replaced the letter, 0 when the row has none. */
  size: number;
}

function substitute(operand: string, letter: string, size: number): string {
  if (!new RegExp(`^(r|rm|rr|m|i|b|a|rel|moffs|p|f)${letter}$`).test(operand)) return operand;
  if (operand === `a${letter}`) return ACCUMULATORS[size];
  if (operand === `i${letter}` && size === 64) return "s32";
  return operand.slice(0, -1) + size;
}

function expandSizes(names: string[], operands: string[], encoding: string[], attributes: string[]): SizedRow[] {
  const letter = operands.map((operand) => /^(?:r|rm|rr|m|i|b|a|rel|moffs|p|f)([vzyn])$/.exec(operand)?.[1]).find(
    Boolean,
  );
  if (letter === undefined) return [{ names, operands, encoding, attributes, size: 0 }];
  return EXPANSIONS[letter].map((size) => {
    const sized = operands.map((operand) => substitute(operand, letter, size));
    const extra = letter === "n" ? ["unsized", size === 64 ? "long" : "legacy"] : [];
    return { names, operands: sized, encoding, attributes: [...attributes, ...extra], size };
  });
}

/** Splits `rm32` into kind and size; fixed operands and size-less kinds keep their whole name as kind. */
function splitKind(operand: string): { kind: string; size: number } {
  if (operand in FIXED) return { kind: operand, size: FIXED[operand] };
  if (SEGMENTS.includes(operand)) return { kind: operand, size: 0 };
  const match = /^([a-z]+)(\d+)$/.exec(operand);
  return match === null ? { kind: operand, size: 0 } : { kind: match[1], size: Number(match[2]) };
}

/** Kinds whose size is the operand size of a form without a size letter. */
const SIZING_KINDS: ReadonlySet<string> = new Set("r rm rr m moffs f al ax eax rax".split(" "));

function slotOf(kind: string, opcodeRegister: boolean): Slot {
  switch (kind) {
    case "rm":
    case "rr":
    case "m":
    case "xm":
    case "xr":
    case "f":
      return "rm";
    case "r":
    case "sti":
      return opcodeRegister ? "opcode" : "reg";
    case "x":
    case "sreg":
    case "creg":
    case "dreg":
      return "reg";
    case "i":
    case "s":
    case "b":
    case "rel":
    case "moffs":
    case "p":
      return "immediate";
    default:
      return "implied";
  }
}

function immediateBits(kind: string, size: number): number {
  if (kind === "b") return 8;
  return kind === "p" ? size + 16 : size;
}

function buildForm(row: SizedRow): Form {
  const { encoding, attributes } = row;
  const has = (attribute: string): boolean => attributes.includes(attribute);
  const opcodeRegister = encoding.includes("+r");
  const operands = row.operands.map((text): FormOperand => {
    const { kind, size } = splitKind(text);
    return { kind, size, slot: slotOf(kind, opcodeRegister), bits: immediateBits(kind, size) };
  });
  let prefix = 0;
  let digit = NO_MODRM;
  const opcode: number[] = [];
  const tail: number[] = [];
  for (const token of encoding) {
    if (/^\/\d$/.test(token)) digit = Number(token[1]);
    else if (token === "/r") digit = REGISTER_DIGIT;
    else if (/^[0-9a-f]{2}$/.test(token)) {
      const byte = parseInt(token, 16);
      const mandatory = opcode.length === 0 && prefix === 0 && (byte === 0x66 || byte === 0xf2 || byte === 0xf3);
      if (mandatory) prefix = byte;
      else (digit === NO_MODRM ? opcode : tail).push(byte);
    }
  }
  const sizing = operands.find(({ kind, size }) => SIZING_KINDS.has(kind) && size <= 64)?.size ?? 0;
  const numbered = (letter: string): number =>
    Number(encoding.find((token) => new RegExp(`^${letter}(16|32|64)$`).test(token))?.slice(1) ?? 0);
  return {
    text: `${row.names[0]} ${row.operands.join(",")}`.trim(),
    operands,
    wait: encoding.includes("wait"),
    prefix,
    opcode,
    digit,
    tail,
    operandSize: numbered("o") || (has("unsized") ? 0 : row.size || sizing),
    addressSize: numbered("a"),
    default64: has("d64"),
    legacy: has("legacy"),
    long: has("long"),
    natural: has("natural"),
    no66: has("no66") || operands.some(({ kind }) => kind === "x" || kind === "xr" || kind === "xm"),
    twice: has("twice"),
    notNop: has("notnop"),
  };
}

function parseTable(table: string): Map<string, Form[]> {
  const forms = new Map<string, Form[]>();
  for (const line of table.split("\n")) {
    if (line.trim() === "") continue;
    const [names, operands, encoding, attributes] = line.split("|").map((column) => column.trim());
    const words = (text: string | undefined): string[] => (text ? text.split(/\s+/) : []);
    for (
      const row of expandSizes(words(names), operands ? operands.split(",") : [], words(encoding), words(attributes))
    ) {
      const form = buildForm(row);
      for (const name of row.names) {
        const list = forms.get(name);
        if (list === undefined) forms.set(name, [form]);
        else list.push(form);
      }
    }
  }
  return forms;
}

/** Every form by its mnemonic, in order of preference. */
export const FORMS: ReadonlyMap<string, readonly Form[]> = parseTable(INSTRUCTION_TABLE);
