/**
 * Operands of an instruction: registers, memory references, immediates and far pointers.
 *
 * Memory references are written `[base + index*scale + displacement]`, with an optional size (`dword`, `dword ptr`) and
 * segment (`[fs:0]` or `fs:[0]`). `[rel label]` and `[rip + label]` are RIP-relative.
 *
 * @module
 */

import { BadInput } from "../../memory/bad_input.ts";
import { type Expression, ExpressionReader, literal } from "./expression.ts";
import type { Token } from "./lexer.ts";
import { type Register, REGISTERS } from "./registers.ts";

/** A register named as operand. */
export interface RegisterOperand {
  /** Discriminates operands. */
  readonly kind: "register";
  /** The register. */
  readonly register: Register;
}

/** A memory reference. */
export interface MemoryOperand {
  /** Discriminates operands. */
  readonly kind: "memory";
  /** Size in bits as written, 0 when none was written. */
  readonly size: number;
  /** True after `far`: the reference is to a far pointer. */
  readonly far: boolean;
  /** Number of the segment register written, −1 when none was. */
  readonly segment: number;
  /** The base register. */
  readonly base: Register | undefined;
  /** The index register. */
  readonly index: Register | undefined;
  /** What the index is multiplied by: 1, 2, 4 or 8. */
  readonly scale: number;
  /** The displacement; of a relative reference the target's address. */
  readonly displacement: Expression;
  /** True when the reference is RIP-relative to the target `displacement`. */
  readonly relative: boolean;
  /** True when the text gives a displacement, even if it is 0. */
  readonly hasDisplacement: boolean;
}

/** A number, or the target of a jump. */
export interface ImmediateOperand {
  /** Discriminates operands. */
  readonly kind: "immediate";
  /** Size in bits as written, 0 when none was written. */
  readonly size: number;
  /** `short` or `near` as written before a jump's target. */
  readonly distance: "" | "short" | "near";
  /** The value. */
  readonly value: Expression;
}

/** A direct far pointer, `selector:offset`. */
export interface FarOperand {
  /** Discriminates operands. */
  readonly kind: "far";
  /** Size of the offset in bits as written, 0 when none was written. */
  readonly size: number;
  /** The selector. */
  readonly selector: Expression;
  /** The offset. */
  readonly offset: Expression;
}

/** Any operand. */
export type Operand = RegisterOperand | MemoryOperand | ImmediateOperand | FarOperand;

/** Size keywords and their bits. */
export const SIZE_KEYWORDS: ReadonlyMap<string, number> = new Map([
  ["byte", 8],
  ["word", 16],
  ["dword", 32],
  ["fword", 48],
  ["qword", 64],
  ["tword", 80],
  ["tbyte", 80],
  ["oword", 128],
  ["xmmword", 128],
]);

/** Words that cannot be labels, besides registers and size keywords. */
export const OPERAND_KEYWORDS: ReadonlySet<string> = new Set(["ptr", "short", "near", "far", "rel", "abs"]);

/** What the operand parser must know of its surroundings. */
export interface OperandContext {
  /** Turns a name as written into a full label name. */
  resolve(name: string): string;
  /** True when a bare displacement is RIP-relative (`default rel` in 64-bit mode). */
  readonly relativeByDefault: boolean;
}

/** Splits tokens at the commas that stand outside parentheses and brackets. */
export function splitAtCommas(tokens: readonly Token[]): Token[][] {
  if (tokens.length === 0) return [];
  const parts: Token[][] = [[]];
  let depth = 0;
  for (const token of tokens) {
    if (token.kind === "punctuation") {
      if (token.text === "(" || token.text === "[") depth++;
      if (token.text === ")" || token.text === "]") depth--;
      if (token.text === "," && depth === 0) {
        parts.push([]);
        continue;
      }
    }
    parts[parts.length - 1].push(token);
  }
  if (parts.some((part) => part.length === 0)) throw new BadInput("operand missing before or after a comma");
  return parts;
}

function isPunctuation(token: Token | undefined, text: string): boolean {
  return token?.kind === "punctuation" && token.text === text;
}

function registerOf(token: Token | undefined): Register | undefined {
  return token?.kind === "name" ? REGISTERS.get(token.text.toLowerCase()) : undefined;
}

/** The qualifiers written before an operand. */
interface Qualifiers {
  size: number;
  far: boolean;
  distance: "" | "short" | "near";
}

function takeQualifiers(tokens: Token[]): Qualifiers {
  const found: Qualifiers = { size: 0, far: false, distance: "" };
  while (tokens[0]?.kind === "name") {
    const word = tokens[0].text.toLowerCase();
    const size = SIZE_KEYWORDS.get(word);
    if (size !== undefined) found.size = size;
    else if (word === "short" || word === "near") found.distance = word;
    else if (word === "far") found.far = true;
    else if (word !== "ptr") break;
    tokens.shift();
  }
  return found;
}

/**
 * Parses one operand.
 *
 * @param source The operand's tokens.
 * @param context Its surroundings.
 * @returns The operand.
 * @throws {BadInput} When the text is no operand.
 */
export function parseOperand(source: readonly Token[], context: OperandContext): Operand {
  const tokens = [...source];
  const qualifiers = takeQualifiers(tokens);
  if (tokens.length === 0) throw new BadInput("operand missing after a size or distance");
  let segment = -1;
  const first = registerOf(tokens[0]);
  if (first?.class === "segment" && isPunctuation(tokens[1], ":")) {
    segment = first.number;
    tokens.splice(0, 2);
    Object.assign(qualifiers, mergeQualifiers(qualifiers, takeQualifiers(tokens)));
  }
  if (isPunctuation(tokens[0], "[")) return parseMemory(tokens, qualifiers, segment, context);
  if (segment >= 0) throw new BadInput(`expected "[" after the segment register`);
  if (first !== undefined) return parseRegister(tokens, first);
  const reader = new ExpressionReader(tokens, context.resolve);
  const value = reader.read();
  if (reader.accept(":")) {
    const offset = reader.read();
    reader.expectEnd();
    return { kind: "far", size: qualifiers.size, selector: value, offset };
  }
  reader.expectEnd();
  if (qualifiers.far) throw new BadInput("a far target is written selector:offset");
  return { kind: "immediate", size: qualifiers.size, distance: qualifiers.distance, value };
}

function mergeQualifiers(a: Qualifiers, b: Qualifiers): Qualifiers {
  return { size: a.size || b.size, far: a.far || b.far, distance: a.distance || b.distance };
}

function parseRegister(tokens: readonly Token[], register: Register): RegisterOperand {
  if (register.class === "ip") throw new BadInput("the instruction pointer is not an operand");
  if (tokens.length === 1) return { kind: "register", register };
  const name = tokens[0].text.toLowerCase();
  if (name === "st" && tokens.length === 4 && isPunctuation(tokens[1], "(") && isPunctuation(tokens[3], ")")) {
    const numbered = REGISTERS.get(`st${tokens[2].text}`);
    if (numbered !== undefined) return { kind: "register", register: numbered };
  }
  throw new BadInput(`unexpected "${tokens[1].text}" after register ${name}`);
}

/** One summand of an address, with the sign before it. */
interface Term {
  negative: boolean;
  tokens: Token[];
}

/** Splits an address at the signs that join summands, outside parentheses. */
function splitTerms(tokens: readonly Token[]): Term[] {
  const terms: Term[] = [{ negative: false, tokens: [] }];
  let depth = 0;
  for (const token of tokens) {
    const current = terms[terms.length - 1];
    if (token.kind === "punctuation") {
      if (token.text === "(") depth++;
      if (token.text === ")") depth--;
      const last = current.tokens[current.tokens.length - 1];
      const operandEnded = last !== undefined &&
        (last.kind !== "punctuation" || last.text === ")" || last.text === "$" || last.text === "$$");
      const sign = token.text === "+" || token.text === "-";
      if (sign && depth === 0 && (operandEnded || current.tokens.length === 0)) {
        if (operandEnded) terms.push({ negative: token.text === "-", tokens: [] });
        else if (token.text === "-") current.negative = !current.negative;
        continue;
      }
    }
    current.tokens.push(token);
  }
  if (terms.some((term) => term.tokens.length === 0)) throw new BadInput("address has an empty summand");
  return terms;
}

/** Scales are read before any label has a value. */
const NO_LABELS = {
  here: 0n,
  origin: 0n,
  lookup: (name: string): bigint => {
    throw new BadInput(`scale "${name}" is not a number, expected 1, 2, 4 or 8`);
  },
};

/** Reads `register`, `register*scale` or `scale*register`; `undefined` when the term holds no register. */
function registerTerm(term: Term): { register: Register; scale: number } | undefined {
  const at = term.tokens.findIndex((token) => registerOf(token) !== undefined);
  if (at < 0) return undefined;
  const register = registerOf(term.tokens[at])!;
  if (term.negative) throw new BadInput(`register ${term.tokens[at].text} cannot be subtracted`);
  const { tokens } = term;
  if (tokens.length === 1) return { register, scale: 0 };
  const last = tokens.length - 1;
  const scaleTokens = at === 0 && isPunctuation(tokens[1], "*")
    ? tokens.slice(2)
    : at === last && isPunctuation(tokens[last - 1], "*")
    ? tokens.slice(0, last - 1)
    : undefined;
  if (scaleTokens === undefined) throw new BadInput(`register ${tokens[at].text} can only be added or scaled`);
  const reader = new ExpressionReader(scaleTokens, (name) => name);
  const scale = reader.read().evaluate(NO_LABELS);
  reader.expectEnd();
  if (scale !== 1n && scale !== 2n && scale !== 4n && scale !== 8n) {
    throw new BadInput(`scale ${scale}, expected 1, 2, 4 or 8`);
  }
  return { register, scale: Number(scale) };
}

function parseMemory(
  source: readonly Token[],
  qualifiers: Qualifiers,
  outerSegment: number,
  context: OperandContext,
): MemoryOperand {
  if (!isPunctuation(source[source.length - 1], "]")) throw new BadInput(`expected "]" at the end of the address`);
  const tokens = source.slice(1, -1);
  let segment = outerSegment;
  let relative: boolean | undefined;
  for (;;) {
    const word = tokens[0]?.kind === "name" ? tokens[0].text.toLowerCase() : "";
    const register = registerOf(tokens[0]);
    if (word === "rel" || word === "abs") {
      relative = word === "rel";
      tokens.shift();
    } else if (register?.class === "segment" && isPunctuation(tokens[1], ":")) {
      segment = register.number;
      tokens.splice(0, 2);
    } else break;
  }
  let base: Register | undefined;
  let index: Register | undefined;
  let scale = 0;
  let instructionPointer = false;
  const rest: Token[] = [];
  for (const term of splitTerms(tokens)) {
    const found = registerTerm(term);
    if (found === undefined) {
      const sign: Token = { kind: "punctuation", text: term.negative ? "-" : "+", value: 0n, bytes: new Uint8Array(0) };
      rest.push(sign, ...term.tokens);
    } else if (found.register.class === "ip") {
      instructionPointer = true;
    } else if (found.scale === 0 && base === undefined) {
      base = found.register;
    } else if (index === undefined) {
      index = found.register;
      scale = found.scale;
    } else if (found.scale === 0 && scale === 0) {
      throw new BadInput("address has more than two registers");
    } else {
      throw new BadInput("address has more than one base and one index register");
    }
  }
  const reader = new ExpressionReader(rest, context.resolve);
  const displacement = rest.length === 0 ? literal(0n) : reader.read();
  reader.expectEnd();
  const bare = base === undefined && index === undefined;
  if ((instructionPointer || relative === true) && !bare) {
    throw new BadInput("a RIP-relative address takes no further register");
  }
  // `[rip + 8]` counts from the instruction's end, `[rip + label]` names its target: what GNU as does.
  const fromEnd = instructionPointer && displacement.constant;
  return {
    kind: "memory",
    size: qualifiers.size,
    far: qualifiers.far,
    segment,
    base: fromEnd ? REGISTERS.get("rip") : base,
    index,
    scale: scale || 1,
    displacement,
    relative: !fromEnd && (instructionPointer || (relative ?? (bare && context.relativeByDefault && segment < 4))),
    hasDisplacement: rest.length > 0,
  };
}
