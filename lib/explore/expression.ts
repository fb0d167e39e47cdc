/**
 * Expressions over what was observed: `context.rax == ((message.rax + 0xB0) & 0xFFFFFFFF)`.
 *
 * All arithmetic is of 64 bits and wraps; numbers are unsigned, decimal or hexadecimal. From the weakest to the strongest:
 *
 * | operators   | meaning                                                        |
 * | ----------- | -------------------------------------------------------------- |
 * | `\|\|`      | either comparison                                              |
 * | `&&`        | both comparisons                                               |
 * | `== != < >` | comparison of two numbers                                      |
 * | `\|`        | bitwise or                                                     |
 * | `^`         | bitwise exclusive or                                           |
 * | `&`         | bitwise and                                                    |
 * | `<< >>`     | shift; a count of 64 or more leaves nothing                    |
 * | `+ -`       | sum and difference                                             |
 *
 * Unlike in C, `a & b == c` compares `a & b` with `c`.
 *
 * @module
 */
import { BadInput } from "../memory/bad_input.ts";
import { suggestion } from "../memory/nearest_name.ts";

/** The value of a name such as `message.rax`: 64 bits, unsigned. */
export type Observation = (name: string) => bigint;

/** An expression that is true or not of an observation. */
export interface Expression {
  /** Its text. */
  readonly text: string;
  /** The names in it, each once, in the order of their first occurrence. */
  readonly names: readonly string[];
  /** Whether it is true of what was observed. */
  holds(of: Observation): boolean;
}

/** Longest expression, in characters. */
export const EXPRESSION_LENGTH_MAX = 10_000;
/** Most parentheses within each other. */
const NESTING_MAX = 200;
const BITS = 64;
const WORD_MAX = 2n ** 64n - 1n;

type Value<T> = (of: Observation) => T;

/** A part of an expression: a number, or something that is true or not. */
type Part =
  & { readonly at: number }
  & (
    | { readonly kind: "number"; readonly value: Value<bigint> }
    | { readonly kind: "truth"; readonly value: Value<boolean> }
  );

type Arithmetic = (a: bigint, b: bigint) => bigint;
type Comparison = (a: bigint, b: bigint) => boolean;

const COMPARISONS: Readonly<Record<string, Comparison>> = {
  "==": (a, b) => a === b,
  "!=": (a, b) => a !== b,
  "<": (a, b) => a < b,
  ">": (a, b) => a > b,
};

/** Operators on numbers, from the weakest to the strongest. */
const ARITHMETIC: readonly Readonly<Record<string, Arithmetic>>[] = [
  { "|": (a, b) => a | b },
  { "^": (a, b) => a ^ b },
  { "&": (a, b) => a & b },
  {
    "<<": (a, b) => b >= BITS ? 0n : BigInt.asUintN(BITS, a << b),
    ">>": (a, b) => b >= BITS ? 0n : a >> b,
  },
  { "+": (a, b) => BigInt.asUintN(BITS, a + b), "-": (a, b) => BigInt.asUintN(BITS, a - b) },
];

const TOKEN = /\s+|0[xX][0-9a-fA-F]+(?!\w)|[0-9]+(?!\w)|[A-Za-z_][\w.]*|\|\||&&|==|!=|<<|>>|[-+&|^<>()]/y;

interface Token {
  /** Its text; "" at the end. */
  readonly text: string;
  /** Index of its first character. */
  readonly at: number;
}

/**
 * Reads an expression. `known` are the names that may occur; `what` is what errors call the expression. Throws
 * {@linkcode BadInput} with the column, from 1, where something else was expected.
 */
export function parseExpression(text: string, known: readonly string[], what: string): Expression {
  if (text.length > EXPRESSION_LENGTH_MAX) {
    throw new BadInput(`${what}: ${text.length} characters, at most ${EXPRESSION_LENGTH_MAX}`);
  }
  const parser = new Parser(text, known, what);
  const value = parser.whole();
  return { text, names: [...parser.names], holds: value };
}

class Parser {
  readonly names = new Set<string>();
  readonly #known: readonly string[];
  readonly #what: string;
  readonly #tokens: readonly Token[];
  #next = 0;
  #nesting = 0;

  constructor(text: string, known: readonly string[], what: string) {
    this.#known = known;
    this.#what = what;
    this.#tokens = this.#split(text);
  }

  whole(): Value<boolean> {
    const value = this.#truth(this.#either());
    if (this.#token.text !== "") throw this.#unexpected("an operator or the end");
    return value;
  }

  #split(text: string): Token[] {
    const tokens: Token[] = [];
    for (let at = 0; at < text.length;) {
      TOKEN.lastIndex = at;
      const found = TOKEN.exec(text)?.[0];
      if (found === undefined) throw this.#error(at, `"${wordAt(text, at)}" is not part of an expression`);
      if (found.trim() !== "") tokens.push({ text: found, at });
      at += found.length;
    }
    tokens.push({ text: "", at: text.length });
    return tokens;
  }

  get #token(): Token {
    return this.#tokens[this.#next];
  }

  #take(): Token {
    return this.#tokens[this.#next++];
  }

  #either(): Part {
    return this.#joined("||", () => this.#both(), (a, b) => (of) => a(of) || b(of));
  }

  #both(): Part {
    return this.#joined("&&", () => this.#comparison(), (a, b) => (of) => a(of) && b(of));
  }

  #joined(
    operator: string,
    operand: () => Part,
    join: (a: Value<boolean>, b: Value<boolean>) => Value<boolean>,
  ): Part {
    let left = operand();
    while (this.#token.text === operator) {
      this.#take();
      left = { kind: "truth", at: left.at, value: join(this.#truth(left), this.#truth(operand())) };
    }
    return left;
  }

  #comparison(): Part {
    const left = this.#arithmetic(0);
    const { text } = this.#token;
    if (!Object.hasOwn(COMPARISONS, text)) return left;
    this.#take();
    const a = this.#number(left);
    const b = this.#number(this.#arithmetic(0));
    const compare = COMPARISONS[text];
    return { kind: "truth", at: left.at, value: (of) => compare(a(of), b(of)) };
  }

  #arithmetic(level: number): Part {
    if (level === ARITHMETIC.length) return this.#operand();
    let left = this.#arithmetic(level + 1);
    while (Object.hasOwn(ARITHMETIC[level], this.#token.text)) {
      const apply = ARITHMETIC[level][this.#take().text];
      const a = this.#number(left);
      const b = this.#number(this.#arithmetic(level + 1));
      left = { kind: "number", at: left.at, value: (of) => apply(a(of), b(of)) };
    }
    return left;
  }

  #operand(): Part {
    const { text, at } = this.#token;
    if (text === "(") return this.#parenthesis();
    if (/^[0-9]/.test(text)) {
      this.#take();
      const value = BigInt(text);
      if (value > WORD_MAX) throw this.#error(at, `${text} does not fit into 64 bits`);
      return { kind: "number", at, value: () => value };
    }
    if (!/^[A-Za-z_]/.test(text)) throw this.#unexpected('a number, a register such as message.rax, or "("');
    this.#take();
    const name = text.toLowerCase();
    if (!this.#known.includes(name)) {
      throw this.#error(at, `"${text}" is not a register that can be observed${suggestion(name, this.#known)}`);
    }
    this.names.add(name);
    return { kind: "number", at, value: (of) => of(name) };
  }

  #parenthesis(): Part {
    const { at } = this.#take();
    if (++this.#nesting > NESTING_MAX) throw this.#error(at, `more than ${NESTING_MAX} parentheses within each other`);
    const inner = this.#either();
    if (this.#token.text !== ")") throw this.#unexpected(`")" for the "(" of column ${at + 1}`);
    this.#take();
    this.#nesting--;
    return { ...inner, at };
  }

  #truth(part: Part): Value<boolean> {
    if (part.kind === "truth") return part.value;
    throw this.#error(part.at, "a number where a comparison is expected");
  }

  #number(part: Part): Value<bigint> {
    if (part.kind === "number") return part.value;
    throw this.#error(part.at, "a comparison where a number is expected");
  }

  #unexpected(expected: string): BadInput {
    const { text, at } = this.#token;
    return this.#error(at, `${text === "" ? "the end" : `"${text}"`} where ${expected} is expected`);
  }

  #error(at: number, message: string): BadInput {
    return new BadInput(`${this.#what}: column ${at + 1}: ${message}`);
  }
}

/** The word, or the character, at `at`. */
function wordAt(text: string, at: number): string {
  return /^\w+/.exec(text.slice(at, at + 40))?.[0] ?? [...text.slice(at, at + 2)][0];
}
