/**
 * Parses assembler text into statements.
 *
 * @module
 */

import { BadInput } from "../../memory/bad_input.ts";
import { suggestion } from "../../memory/nearest_name.ts";
import { type Bits, type Candidate, candidatesOf, type Instruction, type Prefixes } from "./encode.ts";
import { type Expression, ExpressionReader, literal } from "./expression.ts";
import { FORMS } from "./forms.ts";
import { type Token, tokenize } from "./lexer.ts";
import { OPERAND_KEYWORDS, parseOperand, SIZE_KEYWORDS, splitAtCommas } from "./operand.ts";
import { REGISTERS, SEGMENT_NAMES } from "./registers.ts";

/** What a statement emits. */
export type Body =
  | {
    /** An instruction. */
    readonly type: "instruction";
    /** As written. */
    readonly instruction: Instruction;
    /** The ways to encode it. */
    readonly candidates: readonly Candidate[];
  }
  | {
    /** `db`, `dw`, `dd`, `dq`. */
    readonly type: "data";
    /** Bytes an element. */
    readonly unit: number;
    /** Elements; a string is its own bytes, padded to whole elements. */
    readonly items: readonly (Expression | Uint8Array)[];
  }
  | {
    /** `resb`, `resw`, `resd`, `resq`: zeros. */
    readonly type: "reserve";
    /** Bytes an element. */
    readonly unit: number;
    /** How many elements. */
    readonly count: Expression;
  }
  | {
    /** `align boundary, fill`. */
    readonly type: "align";
    /** A power of two. */
    readonly boundary: Expression;
    /** The byte to fill with. */
    readonly fill: Expression;
  }
  | {
    /** `org`. */
    readonly type: "origin";
    /** The address of the first byte. */
    readonly address: Expression;
  }
  | {
    /** `name equ value`. */
    readonly type: "constant";
    /** The name. */
    readonly name: string;
    /** The value. */
    readonly value: Expression;
  };

/** One line's meaning. */
export interface Statement {
  /** Line number, counted from 1. */
  readonly line: number;
  /** Full name of the label that the line defines. */
  readonly label: string | undefined;
  /** What the line emits. */
  readonly body: Body | undefined;
  /** How many times, with `times`. */
  readonly times: Expression | undefined;
  /** True when the bytes depend on no label and no address. */
  readonly fixed: boolean;
}

/** All of a source text. */
export interface Program {
  /** The statements in order. */
  readonly statements: readonly Statement[];
  /** Every label and constant, with the line that defines it. */
  readonly names: ReadonlyMap<string, number>;
  /** The source's lines, for the listing. */
  readonly lines: readonly string[];
}

const DATA_UNITS: ReadonlyMap<string, number> = new Map([["db", 1], ["dw", 2], ["dd", 4], ["dq", 8]]);
const RESERVE_UNITS: ReadonlyMap<string, number> = new Map([["resb", 1], ["resw", 2], ["resd", 4], ["resq", 8]]);
const OTHER_DIRECTIVES: readonly string[] = [
  "bits",
  "use16",
  "use32",
  "use64",
  "org",
  "align",
  "times",
  "equ",
  "default",
];
const REPEAT_PREFIXES: ReadonlyMap<string, number> = new Map([
  ["rep", 0xf3],
  ["repe", 0xf3],
  ["repz", 0xf3],
  ["repne", 0xf2],
  ["repnz", 0xf2],
]);
const OPCODE_NOP = 0x90;
/** Prefixes an instruction may carry in the text. */
const PREFIXES_MAX = 8;
/** Operands an instruction may have. */
const OPERANDS_MAX = 4;

function isSize(word: string, letter: string): number {
  return new RegExp(`^${letter}(16|32|64)$`).test(word) ? Number(word.slice(1)) : 0;
}

/** Takes one prefix word; false when the word is none. */
function takePrefix(word: string, prefixes: Prefixes): boolean {
  const repeat = REPEAT_PREFIXES.get(word);
  const segment = SEGMENT_NAMES.indexOf(word);
  const operandSize = isSize(word, "o");
  const addressSize = isSize(word, "a");
  if (repeat !== undefined) prefixes.repeat = repeat;
  else if (segment >= 0) prefixes.segment = segment;
  else if (operandSize !== 0) prefixes.operandSize = operandSize;
  else if (addressSize !== 0) prefixes.addressSize = addressSize;
  else if (word === "lock") prefixes.lock = true;
  else return false;
  return true;
}

/** Keeps what one line leaves for the next while a source is parsed. */
class Parser {
  readonly names = new Map<string, number>();
  #bits: Bits;
  #parent = "";
  #relativeByDefault = false;
  #line = 0;

  constructor(bits: Bits) {
    this.#bits = bits;
  }

  /** Gives a local label its parent's name. */
  readonly resolve = (name: string): string => name.startsWith(".") ? this.#parent + name : name;

  parseLine(text: string, line: number): Statement | undefined {
    this.#line = line;
    let tokens = tokenize(text);
    if (tokens.length === 0) return undefined;
    // `[bits 16]` is the same as `bits 16`.
    if (tokens[0].text === "[" && tokens[0].kind === "punctuation" && tokens[tokens.length - 1].text === "]") {
      tokens = tokens.slice(1, -1);
    }
    let label: string | undefined;
    if (tokens[0]?.kind === "name") {
      const next = tokens[1];
      if (next?.kind === "punctuation" && next.text === ":") {
        const after = tokens[2]?.kind === "name" ? tokens[2].text.toLowerCase() : "";
        if (after === "equ") return this.#constant(this.#define(tokens[0].text, false), tokens.slice(3));
        label = this.#define(tokens[0].text, true);
        tokens = tokens.slice(2);
      } else if (next?.kind === "name" && this.#isUnknown(tokens[0].text) && this.#labelsWithoutColon(next.text)) {
        if (next.text.toLowerCase() === "equ") {
          return this.#constant(this.#define(tokens[0].text, false), tokens.slice(2));
        }
        label = this.#define(tokens[0].text, true);
        tokens = tokens.slice(1);
      }
    }
    return this.#finish(tokens, label);
  }

  #isUnknown(word: string): boolean {
    const name = word.toLowerCase();
    return !FORMS.has(name) && !this.#isDirective(name) && !takePrefix(name, noPrefixes());
  }

  #isDirective(name: string): boolean {
    return DATA_UNITS.has(name) || RESERVE_UNITS.has(name) || OTHER_DIRECTIVES.includes(name);
  }

  #labelsWithoutColon(word: string): boolean {
    const name = word.toLowerCase();
    return name === "equ" || name === "times" || DATA_UNITS.has(name) || RESERVE_UNITS.has(name);
  }

  #define(written: string, isAddress: boolean): string {
    const lower = written.toLowerCase();
    if (REGISTERS.has(lower) || SIZE_KEYWORDS.has(lower) || OPERAND_KEYWORDS.has(lower)) {
      throw new BadInput(`"${written}" is reserved and cannot be a label`);
    }
    const name = this.resolve(written);
    const earlier = this.names.get(name);
    if (earlier !== undefined) throw new BadInput(`"${name}" is already defined in line ${earlier}`);
    this.names.set(name, this.#line);
    if (isAddress && !written.startsWith(".")) this.#parent = name;
    return name;
  }

  #constant(name: string, tokens: readonly Token[]): Statement {
    return this.#statement({ type: "constant", name, value: this.#expression(tokens) }, undefined, undefined, false);
  }

  #statement(
    body: Body | undefined,
    label: string | undefined,
    times: Expression | undefined,
    fixed: boolean,
  ): Statement {
    return { line: this.#line, label, body, times, fixed };
  }

  #expression(tokens: readonly Token[]): Expression {
    const reader = new ExpressionReader(tokens, this.resolve);
    const value = reader.read();
    reader.expectEnd();
    return value;
  }

  #finish(tokens: readonly Token[], label: string | undefined): Statement {
    if (tokens.length === 0) return this.#statement(undefined, label, undefined, true);
    if (tokens[0].kind === "name" && tokens[0].text.toLowerCase() === "times") {
      const reader = new ExpressionReader(tokens.slice(1), this.resolve);
      const times = reader.read();
      const rest = tokens.slice(1 + reader.position);
      if (rest.length === 0) throw new BadInput("times needs an instruction or data after its count");
      const { body, fixed } = this.#body(rest);
      if (body === undefined || body.type === "origin" || body.type === "align") {
        throw new BadInput("times repeats an instruction or data only");
      }
      return this.#statement(body, label, times, fixed);
    }
    const { body, fixed } = this.#body(tokens);
    return this.#statement(body, label, undefined, fixed);
  }

  #body(tokens: readonly Token[]): { body: Body | undefined; fixed: boolean } {
    if (tokens[0].kind !== "name") {
      throw new BadInput(`expected an instruction or directive before "${tokens[0].text}"`);
    }
    const word = tokens[0].text.toLowerCase();
    const rest = tokens.slice(1);
    const unit = DATA_UNITS.get(word);
    if (unit !== undefined) return this.#data(unit, rest);
    const reserved = RESERVE_UNITS.get(word);
    if (reserved !== undefined) {
      return { body: { type: "reserve", unit: reserved, count: this.#expression(rest) }, fixed: false };
    }
    switch (word) {
      case "bits":
      case "use16":
      case "use32":
      case "use64":
        this.#setBits(
          word === "bits" ? rest.map(({ text }) => text).join(" ") : word.slice(3),
          word === "bits" ? [] : rest,
        );
        return { body: undefined, fixed: true };
      case "default":
        this.#setDefault(rest);
        return { body: undefined, fixed: true };
      case "org":
        return { body: { type: "origin", address: this.#expression(rest) }, fixed: false };
      case "align":
        return { body: this.#align(rest), fixed: false };
      case "equ":
        throw new BadInput("equ needs a name before it");
      default:
        return this.#instruction(tokens);
    }
  }

  #setBits(text: string, excess: readonly Token[]): void {
    if (excess.length > 0) throw new BadInput(`unexpected "${excess[0].text}" at the end of the statement`);
    if (text !== "16" && text !== "32" && text !== "64") throw new BadInput(`bits "${text}", expected 16, 32 or 64`);
    this.#bits = Number(text) as Bits;
  }

  #setDefault(rest: readonly Token[]): void {
    const word = rest.length === 1 ? rest[0].text.toLowerCase() : "";
    if (word !== "rel" && word !== "abs") throw new BadInput("default takes rel or abs");
    this.#relativeByDefault = word === "rel";
  }

  #data(unit: number, tokens: readonly Token[]): { body: Body; fixed: boolean } {
    const parts = splitAtCommas(tokens);
    if (parts.length === 0) throw new BadInput("data directive without a value");
    let fixed = true;
    const items = parts.map((part) => {
      if (part.length === 1 && part[0].kind === "string") {
        const { bytes } = part[0];
        const padded = new Uint8Array(Math.ceil(bytes.length / unit) * unit);
        padded.set(bytes);
        return padded;
      }
      const value = this.#expression(part);
      fixed &&= value.constant;
      return value;
    });
    return { body: { type: "data", unit, items }, fixed };
  }

  #align(tokens: readonly Token[]): Body {
    const [boundary, fill, ...more] = splitAtCommas(tokens);
    if (boundary === undefined || more.length > 0) throw new BadInput("align takes a boundary and a byte to fill with");
    // `align 16, db 0` is the other assemblers' way to write `align 16, 0`.
    const value = fill?.[0].kind === "name" && fill[0].text.toLowerCase() === "db" ? fill.slice(1) : fill;
    return {
      type: "align",
      boundary: this.#expression(boundary),
      fill: value === undefined ? literal(BigInt(OPCODE_NOP)) : this.#expression(value),
    };
  }

  #instruction(tokens: readonly Token[]): { body: Body; fixed: boolean } {
    const prefixes = noPrefixes();
    let at = 0;
    while (tokens[at]?.kind === "name" && takePrefix(tokens[at].text.toLowerCase(), prefixes)) at++;
    if (at > PREFIXES_MAX) throw new BadInput(`${at} prefixes, expected at most ${PREFIXES_MAX}`);
    const name = tokens[at];
    if (name?.kind !== "name") throw new BadInput("expected an instruction after the prefix");
    const mnemonic = name.text.toLowerCase();
    if (at > 0 && !FORMS.has(mnemonic) && this.#isDirective(mnemonic)) {
      throw new BadInput(`"${name.text}" cannot follow a prefix`);
    }
    if (!FORMS.has(mnemonic)) {
      const known = [...FORMS.keys(), ...DATA_UNITS.keys(), ...RESERVE_UNITS.keys(), ...OTHER_DIRECTIVES];
      throw new BadInput(`unknown instruction "${name.text}"${suggestion(mnemonic, known)}`);
    }
    const context = { resolve: this.resolve, relativeByDefault: this.#relativeByDefault && this.#bits === 64 };
    const parts = splitAtCommas(tokens.slice(at + 1));
    if (parts.length > OPERANDS_MAX) {
      throw new BadInput(`"${name.text}" has ${parts.length} operands, expected at most ${OPERANDS_MAX}`);
    }
    const operands = parts.map((part) => parseOperand(part, context));
    const instruction: Instruction = { mnemonic, prefixes, operands, bits: this.#bits };
    const fixed = operands.every((operand) => {
      switch (operand.kind) {
        case "register":
          return true;
        case "memory":
          return operand.displacement.constant && !operand.relative;
        case "far":
          return operand.selector.constant && operand.offset.constant;
        case "immediate":
          return operand.value.constant;
      }
    });
    const candidates = candidatesOf(instruction);
    const jumps = candidates.some(({ form }) => form.operands.some(({ kind }) => kind === "rel"));
    return { body: { type: "instruction", instruction, candidates }, fixed: fixed && !jumps };
  }
}

function noPrefixes(): Prefixes {
  return { segment: -1, operandSize: 0, addressSize: 0, repeat: 0, lock: false };
}

/** Runs a function and puts the line number before its complaint. */
export function atLine<T>(line: number, run: () => T): T {
  try {
    return run();
  } catch (error) {
    if (error instanceof BadInput) throw new BadInput(`line ${line}: ${error.message}`);
    throw error;
  }
}

/**
 * Parses a source text.
 *
 * @param source The text.
 * @param bits The mode before the first `bits` directive.
 * @returns Its statements and names.
 * @throws {BadInput} With the line number, for anything that cannot be understood.
 */
export function parseProgram(source: string, bits: Bits): Program {
  const parser = new Parser(bits);
  const lines = source.split(/\r\n|\n|\r/);
  const statements: Statement[] = [];
  lines.forEach((text, i) => {
    const statement = atLine(i + 1, () => parser.parseLine(text, i + 1));
    if (statement !== undefined) statements.push(statement);
  });
  return { statements, names: parser.names, lines };
}
