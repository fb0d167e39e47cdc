/**
 * Integer expressions over numbers, labels, `$` (this statement's address) and `$$` (the origin).
 *
 * Operators from weakest to strongest: `|`, `^`, `&`, `<< >>`, `+ -`, `* / %`, and the signs `- + ~`. Values are whole
 * numbers between −2⁶⁴ and 2⁶⁴; anything beyond is an error and not a wrap.
 *
 * @module
 */

import { BadInput } from "../../memory/bad_input.ts";
import type { Token } from "./lexer.ts";

/** What an expression can ask for while it is evaluated. */
export interface Scope {
  /** The value of a label or constant; throws when there is none. */
  lookup(name: string): bigint;
  /** `$`: the address of the statement. */
  readonly here: bigint;
  /** `$$`: the origin. */
  readonly origin: bigint;
}

/** A parsed expression. */
export interface Expression {
  /** Computes the value. */
  evaluate(scope: Scope): bigint;
  /** True when the value depends on no label and no address, so that it never changes between passes. */
  readonly constant: boolean;
}

/** Parentheses and signs may nest this deep. */
const NESTING_MAX = 64;

const LEVELS: readonly (readonly string[])[] = [["|"], ["^"], ["&"], ["<<", ">>"], ["+", "-"], ["*", "/", "%"]];

const VALUE_LIMIT = 1n << 64n;

/** Makes the expression of a fixed value. */
export function literal(value: bigint): Expression {
  return { evaluate: () => value, constant: true };
}

function checked(value: bigint): bigint {
  if (value >= VALUE_LIMIT || value <= -VALUE_LIMIT) throw new BadInput("expression goes beyond 64 bits");
  return value;
}

function apply(operator: string, a: bigint, b: bigint): bigint {
  switch (operator) {
    case "|":
      return a | b;
    case "^":
      return a ^ b;
    case "&":
      return a & b;
    case "+":
      return a + b;
    case "-":
      return a - b;
    case "*":
      return a * b;
    case "<<":
    case ">>":
      if (b < 0n || b > 63n) throw new BadInput(`shift by ${b}, expected 0 to 63`);
      return operator === "<<" ? a << b : a >> b;
    default:
      if (b === 0n) throw new BadInput("division by zero");
      return operator === "/" ? a / b : a % b;
  }
}

/** Reads expressions from a token list; operands and directives share one reader per line. */
export class ExpressionReader {
  /** The next token's index. */
  position = 0;
  readonly #tokens: readonly Token[];
  readonly #resolve: (name: string) => string;

  /**
   * Reads from a token list.
   *
   * @param tokens The tokens of a line or of a part of it.
   * @param resolve Turns a name as written into a full label name (local labels get their parent's name).
   */
  constructor(tokens: readonly Token[], resolve: (name: string) => string) {
    this.#tokens = tokens;
    this.#resolve = resolve;
  }

  /** The next token, or `undefined` at the end. */
  peek(): Token | undefined {
    return this.#tokens[this.position];
  }

  /** Takes the next token if it is this punctuation. */
  accept(text: string): boolean {
    const token = this.peek();
    if (token?.kind !== "punctuation" || token.text !== text) return false;
    this.position++;
    return true;
  }

  /** Takes this punctuation or fails. */
  expect(text: string): void {
    if (!this.accept(text)) throw new BadInput(`expected "${text}" ${this.#found()}`);
  }

  /** Fails unless every token was taken. */
  expectEnd(): void {
    if (this.peek() !== undefined) throw new BadInput(`unexpected "${this.peek()!.text}" at the end of the statement`);
  }

  /** Reads one expression. */
  read(): Expression {
    return this.#binary(0, 0);
  }

  #found(): string {
    const token = this.peek();
    return token === undefined ? "at the end of the line" : `before "${token.text}"`;
  }

  #binary(level: number, depth: number): Expression {
    if (level === LEVELS.length) return this.#unary(depth);
    let left = this.#binary(level + 1, depth);
    // A flat list, not a left-leaning tree: a sum of a hundred thousand terms must not nest as many calls.
    const rest: { operator: string; operand: Expression }[] = [];
    for (;;) {
      const operator = LEVELS[level].find((text) => this.accept(text));
      if (operator === undefined) break;
      rest.push({ operator, operand: this.#binary(level + 1, depth) });
    }
    if (rest.length > 0) {
      const first = left;
      left = {
        evaluate: (scope) =>
          rest.reduce(
            (value, { operator, operand }) => checked(apply(operator, value, operand.evaluate(scope))),
            first.evaluate(scope),
          ),
        constant: first.constant && rest.every(({ operand }) => operand.constant),
      };
    }
    return left;
  }

  #unary(depth: number): Expression {
    if (depth > NESTING_MAX) throw new BadInput(`expression nests deeper than ${NESTING_MAX} levels`);
    if (this.accept("+")) return this.#unary(depth + 1);
    if (this.accept("-")) {
      const operand = this.#unary(depth + 1);
      return { evaluate: (scope) => -operand.evaluate(scope), constant: operand.constant };
    }
    if (this.accept("~")) {
      const operand = this.#unary(depth + 1);
      return { evaluate: (scope) => ~operand.evaluate(scope), constant: operand.constant };
    }
    if (this.accept("(")) {
      const inner = this.#binary(0, depth + 1);
      this.expect(")");
      return inner;
    }
    if (this.accept("$$")) return { evaluate: (scope) => scope.origin, constant: false };
    if (this.accept("$")) return { evaluate: (scope) => scope.here, constant: false };
    const token = this.peek();
    if (token === undefined || token.kind === "punctuation") {
      throw new BadInput(`expected a number, a label or "(" ${this.#found()}`);
    }
    this.position++;
    if (token.kind === "number") return literal(token.value);
    if (token.kind === "string") {
      if (token.bytes.length < 1 || token.bytes.length > 8) {
        throw new BadInput(`string "${token.text}" as a number has ${token.bytes.length} bytes, expected 1 to 8`);
      }
      return literal(token.value);
    }
    const name = this.#resolve(token.text);
    return { evaluate: (scope) => scope.lookup(name), constant: false };
  }
}
