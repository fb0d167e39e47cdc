/**
 * Writes small WebAssembly functions that move words of the machine's memory about: for sequences of loads and stores that
 * every exit makes. An access costs half a nanosecond there, and three to four times as much through a typed array.
 *
 * An expression is the code that leaves one value on the stack. Addresses are a base, which is an expression, and a constant
 * offset. V8 checks the bounds of every access, except where the base is a constant and the place lies within the size that
 * the module demands of its memory: {@linkcode codeFor} makes code for one memory, in which such accesses cost a third.
 *
 * @module
 */
import type { MachineMemory } from "./machine_memory.ts";

/** Code that leaves an i32 on the stack. */
export type I32 = readonly number[];
/** Code that leaves an i64 on the stack. */
export type I64 = readonly number[];
/** Code that leaves nothing on the stack. */
export type Code = readonly number[];

/** Numbers of the WebAssembly binary format (WebAssembly Core Specification, section 5). */
const WASM = {
  MAGIC: [0x00, 0x61, 0x73, 0x6d, 0x01, 0x00, 0x00, 0x00],
  SECTION: { TYPE: 1, IMPORT: 2, FUNCTION: 3, EXPORT: 7, CODE: 10 },
  FUNCTION_TYPE: 0x60,
  I32: 0x7f,
  IMPORT_MEMORY: 0x02,
  EXPORT_FUNCTION: 0x00,
  /** Limits with a maximum, shared. */
  LIMITS_SHARED: 0x03,
  PAGE_SIZE: 65536,
  PAGES_MAX: 65536,
  NO_RESULT: 0x40,
  IF: 0x04,
  END: 0x0b,
  RETURN: 0x0f,
  SELECT: 0x1b,
  LOCAL_GET: 0x20,
  LOCAL_SET: 0x21,
  I32_LOAD: 0x28,
  I64_LOAD: 0x29,
  I32_LOAD8_U: 0x2d,
  I32_LOAD16_U: 0x2f,
  I32_STORE: 0x36,
  I64_STORE: 0x37,
  I32_STORE8: 0x3a,
  I32_STORE16: 0x3b,
  I32_CONST: 0x41,
  I64_CONST: 0x42,
  I32_EQZ: 0x45,
  I32_NE: 0x47,
  I32_GT_U: 0x4b,
  I64_EQZ: 0x50,
  I32_ADD: 0x6a,
  I32_AND: 0x71,
  I32_OR: 0x72,
  I32_XOR: 0x73,
  I32_SHL: 0x74,
  I32_SHR_U: 0x76,
  I64_ADD: 0x7c,
  SIMD: 0xfd,
  V128_LOAD: 0x00,
  V128_STORE: 0x0b,
} as const;

/** An unsigned LEB128 number. */
function unsigned(value: number): number[] {
  const bytes: number[] = [];
  for (; value > 0x7f; value = Math.floor(value / 0x80)) bytes.push(value & 0x7f | 0x80);
  return [...bytes, value];
}

/** A signed LEB128 number of 32 bits. */
function signed(value: number): number[] {
  const bytes: number[] = [];
  for (; value < -0x40 || value > 0x3f; value >>= 7) bytes.push(value & 0x7f | 0x80);
  return [...bytes, value & 0x7f];
}

/** The value of a parameter or local. */
export function local(index: number): I32 {
  return [WASM.LOCAL_GET, ...unsigned(index)];
}

/** Sets a local. */
export function setLocal(index: number, value: I32): Code {
  return [...value, WASM.LOCAL_SET, ...unsigned(index)];
}

/** A constant. */
export function constant(value: number): I32 {
  return [WASM.I32_CONST, ...signed(value | 0)];
}

/** The 32-bit word at `base + offset`. */
export function load32(base: I32, offset: number): I32 {
  return [...base, WASM.I32_LOAD, 0, ...unsigned(offset)];
}

/** The 64-bit word at `base + offset`. */
export function load64(base: I32, offset: number): I64 {
  return [...base, WASM.I64_LOAD, 0, ...unsigned(offset)];
}

/** The byte at `base + offset`, zero-extended. */
export function load8(base: I32, offset: number): I32 {
  return [...base, WASM.I32_LOAD8_U, 0, ...unsigned(offset)];
}

/** The 16-bit word at `base + offset`, zero-extended. */
export function load16(base: I32, offset: number): I32 {
  return [...base, WASM.I32_LOAD16_U, 0, ...unsigned(offset)];
}

/** Stores a 32-bit word. */
export function store32(base: I32, offset: number, value: I32): Code {
  return [...base, ...value, WASM.I32_STORE, 0, ...unsigned(offset)];
}

/** Stores a 64-bit word. */
export function store64(base: I32, offset: number, value: I64): Code {
  return [...base, ...value, WASM.I64_STORE, 0, ...unsigned(offset)];
}

/** Stores a 64-bit zero. */
export function zero64(base: I32, offset: number): Code {
  return store64(base, offset, [WASM.I64_CONST, 0]);
}

/** Stores a byte. */
export function store8(base: I32, offset: number, value: I32): Code {
  return [...base, ...value, WASM.I32_STORE8, 0, ...unsigned(offset)];
}

/** Stores a 16-bit word. */
export function store16(base: I32, offset: number, value: I32): Code {
  return [...base, ...value, WASM.I32_STORE16, 0, ...unsigned(offset)];
}

/** Adds one to a 64-bit word. */
export function increment64(base: I32, offset: number): Code {
  return store64(base, offset, [...load64(base, offset), WASM.I64_CONST, 1, WASM.I64_ADD]);
}

/** The sum of both. */
export function add(a: I32, b: I32): I32 {
  return [...a, ...b, WASM.I32_ADD];
}

/** Bitwise exclusive or. */
export function xor(a: I32, b: I32): I32 {
  return [...a, ...b, WASM.I32_XOR];
}

/** Bitwise and. */
export function and(a: I32, b: I32): I32 {
  return [...a, ...b, WASM.I32_AND];
}

/** Bitwise or of all. */
export function or(first: I32, ...rest: readonly I32[]): I32 {
  return rest.reduce((code, next) => [...code, ...next, WASM.I32_OR], first);
}

/** `a << count`. */
export function shiftLeft(a: I32, count: number): I32 {
  return [...a, ...constant(count), WASM.I32_SHL];
}

/** `a >>> count`. */
export function shiftRight(a: I32, count: number): I32 {
  return [...a, ...constant(count), WASM.I32_SHR_U];
}

/** The single bit `from` of `a`, moved to where the single bit `to` is. */
export function moveBit(a: I32, from: number, to: number): I32 {
  const distance = Math.clz32(from) - Math.clz32(to);
  const bit = and(a, constant(from));
  return distance >= 0 ? shiftLeft(bit, distance) : shiftRight(bit, -distance);
}

/** `bit` when `a` is not zero, otherwise 0. */
export function bitWhen(a: I32, bit: number): I32 {
  return shiftLeft(isNotZero(a), 31 - Math.clz32(bit));
}

/** 1 when `a` is zero, otherwise 0. */
export function isZero(a: I32): I32 {
  return [...a, WASM.I32_EQZ];
}

/** 1 when `a` is not zero, otherwise 0. */
export function isNotZero(a: I32): I32 {
  return isZero(isZero(a));
}

/** 1 when the 64-bit `a` is not zero, otherwise 0. */
export function isNotZero64(a: I64): I32 {
  return isZero([...a, WASM.I64_EQZ]);
}

/** Whether `a` is the number `b`. */
export function equals(a: I32, b: number): I32 {
  return isZero(differs(a, constant(b)));
}

/** 1 when `a` and `b` differ, otherwise 0. */
export function differs(a: I32, b: I32): I32 {
  return [...a, ...b, WASM.I32_NE];
}

/** 1 when `a` is more than `b`, both unsigned, otherwise 0. */
export function exceeds(a: I32, b: I32): I32 {
  return [...a, ...b, WASM.I32_GT_U];
}

/** `a` when `condition` is not zero, otherwise `b`. */
export function select(condition: I32, a: I32, b: I32): I32 {
  return [...a, ...b, ...condition, WASM.SELECT];
}

/** Does `then` when `condition` is not zero. */
export function when(condition: I32, ...then: readonly Code[]): Code {
  return [...condition, WASM.IF, WASM.NO_RESULT, ...then.flat(), WASM.END];
}

/** Ends the function with a result. */
export function result(value: I32): Code {
  return [...value, WASM.RETURN];
}

/** Ends the function with `value` unless all of `usual` are zero. */
export function orElse(value: number, ...usual: readonly [I32, ...I32[]]): Code {
  return when(or(...usual), result(constant(value)));
}

/** Widths of a single copy in bytes, widest first, with their instructions. */
const WIDTHS: readonly {
  readonly bytes: number;
  readonly load: readonly number[];
  readonly store: readonly number[];
}[] = [
  { bytes: 16, load: [WASM.SIMD, WASM.V128_LOAD], store: [WASM.SIMD, WASM.V128_STORE] },
  { bytes: 8, load: [WASM.I64_LOAD], store: [WASM.I64_STORE] },
  { bytes: 4, load: [WASM.I32_LOAD], store: [WASM.I32_STORE] },
];

/** One move between two records: byte offset in the source, byte offset in the target, bytes (a multiple of four). */
export type Move = readonly [from: number, to: number, bytes: number];

/** Carries out `moves` from the record at `source` to the one at `target`. Throws `TypeError` for a size that is no multiple of four. */
export function copy(target: I32, source: I32, moves: readonly Move[]): Code {
  const code: number[] = [];
  for (const [from, to, bytes] of moves) {
    if (bytes % 4 !== 0) throw new TypeError(`A move of ${bytes} bytes is not a multiple of four`);
    let done = 0;
    for (const { bytes: width, load, store } of WIDTHS) {
      for (; bytes - done >= width; done += width) {
        code.push(...target, ...source, ...load, 0, ...unsigned(from + done), ...store, 0, ...unsigned(to + done));
      }
    }
  }
  return code;
}

/** A function: how many i32 parameters and further i32 locals it has, whether it gives an i32, and its code. */
export interface WasmFunction {
  readonly parameters: number;
  readonly locals: number;
  readonly gives: "nothing" | "i32";
  readonly body: readonly Code[];
}

/** A compiled function, usable on any machine's memory. */
export class WasmCode<F extends (...parameters: number[]) => number | void> {
  readonly #module: WebAssembly.Module;
  readonly #bound = new WeakMap<MachineMemory, F>();

  /** Compiles `declared`. */
  constructor(declared: WasmFunction) {
    this.#module = new WebAssembly.Module(encodeModule(declared, 1));
  }

  /** The function on `memory`. */
  on(memory: MachineMemory): F {
    let bound = this.#bound.get(memory);
    if (bound === undefined) {
      bound = instantiate<F>(this.#module, memory);
      this.#bound.set(memory, bound);
    }
    return bound;
  }
}

/** The function `declared` on `memory`, of which its constants are addresses. */
export function codeFor<F extends (...parameters: number[]) => number | void>(
  memory: MachineMemory,
  declared: WasmFunction,
): F {
  const pages = memory.buffer.byteLength / WASM.PAGE_SIZE;
  return instantiate<F>(new WebAssembly.Module(encodeModule(declared, pages)), memory);
}

function instantiate<F>(module: WebAssembly.Module, memory: MachineMemory): F {
  return new WebAssembly.Instance(module, { m: { m: memory.wasm } }).exports.f as unknown as F;
}

/** A vector: its length, then its contents. */
function vector(items: readonly (readonly number[])[]): number[] {
  return [...unsigned(items.length), ...items.flat()];
}

function section(id: number, contents: readonly number[]): number[] {
  return [id, ...unsigned(contents.length), ...contents];
}

function text(name: string): number[] {
  return [name.length, ...new TextEncoder().encode(name)];
}

/** The module of one function for memories of at least `pages` pages. */
function encodeModule({ parameters, locals, gives, body }: WasmFunction, pages: number): Uint8Array<ArrayBuffer> {
  const declared = locals === 0 ? [0] : [1, ...unsigned(locals), WASM.I32];
  const code = [...declared, ...body.flat(), WASM.END];
  const limits = [WASM.LIMITS_SHARED, ...unsigned(pages), ...unsigned(WASM.PAGES_MAX)];
  const type = [
    WASM.FUNCTION_TYPE,
    ...vector(new Array(parameters).fill([WASM.I32])),
    ...vector(gives === "i32" ? [[WASM.I32]] : []),
  ];
  return new Uint8Array([
    ...WASM.MAGIC,
    ...section(WASM.SECTION.TYPE, vector([type])),
    ...section(WASM.SECTION.IMPORT, vector([[...text("m"), ...text("m"), WASM.IMPORT_MEMORY, ...limits]])),
    ...section(WASM.SECTION.FUNCTION, vector([[0]])),
    ...section(WASM.SECTION.EXPORT, vector([[...text("f"), WASM.EXPORT_FUNCTION, 0]])),
    ...section(WASM.SECTION.CODE, vector([[...unsigned(code.length), ...code]])),
  ]);
}
