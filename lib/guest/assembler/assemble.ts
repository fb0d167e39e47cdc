/**
 * A small x86 assembler: Intel-syntax text in, bytes out, for 16-, 32- and 64-bit code in one source.
 *
 * Syntax as in NASM, with what is common in `as` with `.intel_syntax noprefix` (`dword ptr`, `fs:[0]`, `movabs`) beside it:
 *
 * - `bits 16|32|64`, `org`, `db dw dd dq` (numbers and strings; backquoted strings know `\n`), `resb resw resd resq`,
 *   `times n …`, `align n[, fill]`, `name equ value`, `default rel|abs`; labels `name:` and local `.name:`; `;` comments.
 * - `$` is the statement's address, `$$` the origin.
 * - Prefixes before the mnemonic: `lock rep repe repne`, a segment register, `o16 o32 o64` and `a16 a32 a64`.
 *
 * Every instruction gets its shortest encoding; jumps and displacements grow until all labels settle. What an instruction
 * does on a processor is not checked (`lock mov` assembles), only that it can be encoded. Text may come from a scenario file:
 * output, copies and passes are bounded.
 *
 * @module
 */

import { BadInput } from "../../memory/bad_input.ts";
import { suggestion } from "../../memory/nearest_name.ts";
import { type Bits, encodeCandidate, type Encoding } from "./encode.ts";
import type { Expression, Scope } from "./expression.ts";
import { hexadecimal } from "./address.ts";
import { atLine, type Body, parseProgram, type Program, type Statement } from "./statement.ts";

/** What {@linkcode assemble} can be told. */
export interface AssembleOptions {
  /** Address of the first byte unless the source has `org`. Default 0. */
  readonly origin?: number | bigint;
  /** Mode before the first `bits` directive. Default 16, as a flat image starts. */
  readonly bits?: Bits;
}

/** The bytes of one source line. */
export interface ListingLine {
  /** Line number, counted from 1. */
  readonly line: number;
  /** Address of the first byte. */
  readonly address: bigint;
  /** The bytes, all copies of `times` included. */
  readonly bytes: Uint8Array;
  /** The line as written. */
  readonly source: string;
}

/** What {@linkcode assemble} gives. */
export interface Assembly {
  /** The image. */
  readonly bytes: Uint8Array;
  /** Address of its first byte. */
  readonly origin: bigint;
  /** Labels and `equ` constants by full name (`parent.local`). */
  readonly labels: Map<string, bigint>;
  /** One entry for each line that emits bytes, in order. */
  readonly listing: ListingLine[];
}

/** Longest source, in characters. */
export const SOURCE_LENGTH_MAX: number = 1 << 20;
/** Largest image, in bytes. */
export const IMAGE_BYTES_MAX: number = 64 << 20;
/** Most copies that all `times` together make of statements whose bytes depend on labels or addresses. */
export const VARYING_COPIES_MAX: number = 1 << 16;
/** Labels must settle within this many passes. */
const PASSES_MAX = 64;
/** From this pass on an instruction that must grow takes its longest form, so that chains of jumps settle. */
const GROW_AT_ONCE_PASS = 16;
const ADDRESS_LIMIT = 1n << 64n;

/** The image as it grows. */
class Output {
  bytes = new Uint8Array(4096);
  length = 0;

  reserve(count: number): void {
    if (count > IMAGE_BYTES_MAX - this.length) {
      throw new BadInput(`image grows beyond ${IMAGE_BYTES_MAX >> 20} MiB`);
    }
    const needed = this.length + count;
    if (needed <= this.bytes.length) return;
    const grown = new Uint8Array(Math.max(needed, this.bytes.length * 2));
    grown.set(this.bytes.subarray(0, this.length));
    this.bytes = grown;
  }

  push(bytes: Uint8Array): void {
    this.reserve(bytes.length);
    this.bytes.set(bytes, this.length);
    this.length += bytes.length;
  }

  fill(value: number, count: number): void {
    this.reserve(count);
    this.bytes.fill(value, this.length, this.length + count);
    this.length += count;
  }

  /** Appends copies of what was just pushed. */
  repeat(start: number, copies: number): void {
    const unit = this.length - start;
    if (unit === 0 || copies <= 0) return;
    if (copies > IMAGE_BYTES_MAX / unit) throw new BadInput(`image grows beyond ${IMAGE_BYTES_MAX >> 20} MiB`);
    this.reserve(unit * copies);
    for (let copy = 0; copy < copies; copy++) {
      this.bytes.copyWithin(this.length, start, start + unit);
      this.length += unit;
    }
  }
}

/** One run over all statements with the label values of the run before. */
class Pass {
  readonly output = new Output();
  readonly values = new Map<string, bigint>();
  /** The first value that does not fit, with its line. */
  misfit = "";
  /** Statement, offset and length of everything emitted. */
  readonly spans: { statement: Statement; offset: number; length: number }[] = [];
  origin: bigint;
  #line = 0;
  #varyingCopies = 0;
  #critical = false;
  #here: bigint;
  readonly #earlier: ReadonlyMap<string, bigint>;
  readonly #names: ReadonlyMap<string, number>;
  readonly #state: PassState;

  constructor(
    origin: bigint,
    earlier: ReadonlyMap<string, bigint>,
    names: ReadonlyMap<string, number>,
    state: PassState,
  ) {
    this.origin = origin;
    this.#here = origin;
    this.#earlier = earlier;
    this.#names = names;
    this.#state = state;
  }

  readonly #lookup = (name: string): bigint => {
    const value = this.values.get(name);
    if (value !== undefined) return value;
    if (!this.#names.has(name)) {
      throw new UndefinedLabel(`undefined label "${name}"${suggestion(name, this.#names.keys())}`);
    }
    if (this.#critical) {
      throw new UndefinedLabel(`label "${name}" is defined later, expected a value that is known here`);
    }
    // Before its first definition a label is taken to be near, so that nothing is longer than it must be.
    return this.#earlier.get(name) ?? this.#here;
  };

  #scope(): Scope {
    return { here: this.#here, origin: this.origin, lookup: this.#lookup };
  }

  #note(misfit: string): void {
    if (this.misfit === "") this.misfit = `line ${this.#line}: ${misfit}`;
  }

  #evaluate(expression: Expression): bigint {
    try {
      return expression.evaluate(this.#scope());
    } catch (error) {
      if (!(error instanceof BadInput) || error instanceof UndefinedLabel) throw error;
      this.#note(error.message);
      return 0n;
    }
  }

  /** Evaluates what decides addresses: it may not look ahead. */
  #evaluateCritical(expression: Expression, what: string, max: bigint): bigint {
    this.#critical = true;
    const value = this.#evaluate(expression);
    this.#critical = false;
    if (value >= 0n && value <= max) return value;
    this.#note(`${what} ${hexadecimal(value)}, expected 0 to ${hexadecimal(max)}`);
    return 0n;
  }

  run(statements: readonly Statement[]): void {
    statements.forEach((statement, index) => {
      this.#line = statement.line;
      atLine(statement.line, () => this.#statement(statement, index));
    });
  }

  #statement(statement: Statement, index: number): void {
    this.#here = this.origin + BigInt(this.output.length);
    if (statement.label !== undefined) this.values.set(statement.label, this.#here);
    const { body, fixed } = statement;
    if (body === undefined) return;
    const start = this.output.length;
    const max = BigInt(IMAGE_BYTES_MAX);
    const copies = statement.times === undefined ? 1 : Number(this.#evaluateCritical(statement.times, "times", max));
    if (copies > 0) {
      this.#emit(body, index, fixed);
      if (fixed || body.type === "reserve") this.output.repeat(start, copies - 1);
      else this.#emitVarying(body, index, copies - 1);
    }
    const length = this.output.length - start;
    if (length > 0) this.spans.push({ statement, offset: start, length });
    if (this.origin + BigInt(this.output.length) > ADDRESS_LIMIT) {
      throw new BadInput("image goes beyond 64-bit addresses");
    }
  }

  #emitVarying(body: Body, index: number, copies: number): void {
    this.#varyingCopies += copies;
    if (this.#varyingCopies > VARYING_COPIES_MAX) {
      throw new BadInput(`times makes more than ${VARYING_COPIES_MAX} copies of what depends on labels`);
    }
    for (let copy = 0; copy < copies; copy++) {
      this.#here = this.origin + BigInt(this.output.length);
      this.#emit(body, index, false);
    }
  }

  #emit(body: Body, index: number, fixed: boolean): void {
    switch (body.type) {
      case "instruction":
        return this.#instruction(body, index, fixed);
      case "data":
        return this.#data(body);
      case "reserve": {
        const count = this.#evaluateCritical(body.count, "reserved count", BigInt(IMAGE_BYTES_MAX / body.unit));
        return this.output.fill(0, Number(count) * body.unit);
      }
      case "align":
        return this.#align(body);
      case "origin": {
        if (this.output.length > 0) throw new BadInput("org must come before the first byte");
        this.origin = this.#evaluateCritical(body.address, "origin", ADDRESS_LIMIT - 1n);
        return;
      }
      case "constant":
        this.values.set(body.name, this.#evaluate(body.value));
    }
  }

  #align(body: Body & { type: "align" }): void {
    const boundary = this.#evaluateCritical(body.boundary, "alignment", BigInt(IMAGE_BYTES_MAX)) || 1n;
    if ((boundary & (boundary - 1n)) !== 0n) throw new BadInput(`alignment ${boundary}, expected a power of two`);
    const fill = this.#evaluateCritical(body.fill, "fill byte", 0xffn);
    this.output.fill(Number(fill), Number(-this.#here & (boundary - 1n)));
  }

  #data(body: Body & { type: "data" }): void {
    const bits = body.unit * 8;
    const room = 1n << BigInt(bits);
    for (const item of body.items) {
      if (item instanceof Uint8Array) {
        this.output.push(item);
        continue;
      }
      const value = this.#evaluate(item);
      if (value >= room || value < -(room >> 1n)) this.#note(`value ${hexadecimal(value)} does not fit ${bits} bits`);
      const cut = BigInt.asUintN(bits, value);
      this.output.push(Uint8Array.from({ length: body.unit }, (_, i) => Number(cut >> BigInt(8 * i) & 0xffn)));
    }
  }

  /** Emits the shortest candidate that fits and is not shorter than in an earlier pass. */
  #instruction(body: Body & { type: "instruction" }, index: number, fixed: boolean): void {
    const state = this.#state;
    const known = state.fixedBytes[index];
    if (known !== undefined) return this.output.push(known);
    const scope = this.#scope();
    const atLeast = state.lengths[index];
    const encodings = body.candidates.map((candidate) => encodeCandidate(body.instruction, candidate, scope));
    let chosen: Encoding | undefined;
    let longest: Encoding = encodings[0];
    for (const encoding of encodings) {
      const { length } = encoding.bytes;
      if (length > longest.bytes.length) longest = encoding;
      if (encoding.misfit !== "" || length < atLeast) continue;
      if (chosen === undefined || length < chosen.bytes.length) chosen = encoding;
    }
    chosen ??= longest;
    if (state.growAtOnce && chosen.bytes.length > atLeast && longest.misfit === "") chosen = longest;
    if (chosen.misfit !== "") this.#note(chosen.misfit);
    else if (fixed) state.fixedBytes[index] = chosen.bytes;
    state.lengths[index] = Math.max(atLeast, chosen.bytes.length);
    this.output.push(chosen.bytes);
  }
}

/** What passes hand on besides the labels. */
interface PassState {
  /** Length of each instruction so far; it never shrinks. */
  readonly lengths: Uint8Array;
  /** Bytes of the instructions that depend on no label and no address, once they are known. */
  readonly fixedBytes: (Uint8Array | undefined)[];
  /** True once growing goes straight to the longest form. */
  growAtOnce: boolean;
}

/** An error that no further pass can mend. */
class UndefinedLabel extends BadInput {}

function settled(pass: Pass, earlier: ReadonlyMap<string, bigint>): boolean {
  for (const [name, value] of pass.values) {
    if (earlier.get(name) !== value) return false;
  }
  return true;
}

function listing(pass: Pass, program: Program, bytes: Uint8Array): ListingLine[] {
  return pass.spans.map(({ statement, offset, length }) => ({
    line: statement.line,
    address: pass.origin + BigInt(offset),
    bytes: bytes.subarray(offset, offset + length),
    source: program.lines[statement.line - 1],
  }));
}

/**
 * Assembles a source text.
 *
 * @param source The text.
 * @param options Origin and first mode.
 * @returns Bytes, origin, labels and listing.
 * @throws {BadInput} One line with the source line's number and what was expected.
 *
 * @example
 * ```ts
 * import { assemble } from "./assemble.ts";
 *
 * const { bytes, labels } = assemble("start: mov al, 'x'\n out 0xe9, al\n jmp start", { origin: 0x7c00 });
 * if (bytes.length !== 6 || labels.get("start") !== 0x7c00n) throw new Error("unexpected code");
 * ```
 */
export function assemble(source: string, options: AssembleOptions = {}): Assembly {
  if (source.length > SOURCE_LENGTH_MAX) {
    throw new BadInput(`source has ${source.length} characters, expected at most ${SOURCE_LENGTH_MAX}`);
  }
  const origin = BigInt(options.origin ?? 0);
  if (origin < 0n || origin >= ADDRESS_LIMIT) throw new BadInput(`origin ${origin}, expected a 64-bit address`);
  const program = parseProgram(source, options.bits ?? 16);
  const state: PassState = { lengths: new Uint8Array(program.statements.length), fixedBytes: [], growAtOnce: false };
  let earlier: ReadonlyMap<string, bigint> = new Map();
  for (let number = 0; number < PASSES_MAX; number++) {
    state.growAtOnce = number >= GROW_AT_ONCE_PASS;
    const pass = new Pass(origin, earlier, program.names, state);
    const lengthsBefore = state.lengths.slice();
    pass.run(program.statements);
    // A pass is final when it used the very values that it found, and nothing grew under its feet.
    const grew = state.lengths.some((length, i) => length !== lengthsBefore[i]);
    if (!grew && settled(pass, earlier)) {
      if (pass.misfit !== "") throw new BadInput(pass.misfit);
      const bytes = pass.output.bytes.slice(0, pass.output.length);
      return { bytes, origin: pass.origin, labels: pass.values, listing: listing(pass, program, bytes) };
    }
    earlier = pass.values;
  }
  throw new BadInput(`labels do not settle within ${PASSES_MAX} passes, expected no constant that depends on itself`);
}
