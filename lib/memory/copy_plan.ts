/**
 * Copies between records of different layout, declared as a list of moves and carried out by a few WebAssembly
 * instructions on the machine's memory: what a switch between processors' register sets is made of.
 *
 * A loop over `BigUint64Array` elements costs about a nanosecond a word, which is too slow for the several hundred bytes
 * that every exit moves.
 *
 * @module
 */
import type { MachineMemory } from "./machine_memory.ts";

/** One move: byte offset in the source record, byte offset in the target record, bytes (a multiple of four). */
export type Move = readonly [from: number, to: number, bytes: number];

/** Copies from the record at one byte offset to the record at another. */
export type CopyRecord = (to: number, from: number) => void;

/** A compiled list of moves; usable on any machine's memory. */
export class CopyPlan {
  readonly #module: WebAssembly.Module;
  readonly #bound = new WeakMap<MachineMemory, CopyRecord>();

  /** Compiles `moves`. Throws `TypeError` for a move that is not a multiple of four bytes. */
  constructor(moves: readonly Move[]) {
    this.#module = new WebAssembly.Module(encodeModule(moves));
  }

  /** The copy on `memory`. */
  on(memory: MachineMemory): CopyRecord {
    let copy = this.#bound.get(memory);
    if (copy === undefined) {
      const instance = new WebAssembly.Instance(this.#module, { m: { m: memory.wasm } });
      copy = instance.exports.copy as CopyRecord;
      this.#bound.set(memory, copy);
    }
    return copy;
  }
}

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
  PAGES_MAX: 65536,
  LOCAL_GET: 0x20,
  END: 0x0b,
  I32_LOAD: 0x28,
  I32_STORE: 0x36,
  I64_LOAD: 0x29,
  I64_STORE: 0x37,
  SIMD: 0xfd,
  V128_LOAD: 0x00,
  V128_STORE: 0x0b,
} as const;

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

/** An unsigned LEB128 number. */
function unsigned(value: number): number[] {
  const bytes: number[] = [];
  for (; value > 0x7f; value >>>= 7) bytes.push(value & 0x7f | 0x80);
  return [...bytes, value];
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

/** The function's instructions: local 0 is the target, local 1 the source. */
function encodeMoves(moves: readonly Move[]): number[] {
  const code: number[] = [];
  for (const [from, to, bytes] of moves) {
    if (bytes % 4 !== 0) throw new TypeError(`A move of ${bytes} bytes is not a multiple of four`);
    let done = 0;
    for (const { bytes: width, load, store } of WIDTHS) {
      for (; bytes - done >= width; done += width) {
        code.push(WASM.LOCAL_GET, 0, WASM.LOCAL_GET, 1);
        code.push(...load, 0, ...unsigned(from + done), ...store, 0, ...unsigned(to + done));
      }
    }
  }
  return [...code, WASM.END];
}

function encodeModule(moves: readonly Move[]): Uint8Array<ArrayBuffer> {
  const body = [0, ...encodeMoves(moves)];
  const limits = [WASM.LIMITS_SHARED, 0, ...unsigned(WASM.PAGES_MAX)];
  return new Uint8Array([
    ...WASM.MAGIC,
    ...section(WASM.SECTION.TYPE, vector([[WASM.FUNCTION_TYPE, ...vector([[WASM.I32], [WASM.I32]]), 0]])),
    ...section(WASM.SECTION.IMPORT, vector([[...text("m"), ...text("m"), WASM.IMPORT_MEMORY, ...limits]])),
    ...section(WASM.SECTION.FUNCTION, vector([[0]])),
    ...section(WASM.SECTION.EXPORT, vector([[...text("copy"), WASM.EXPORT_FUNCTION, 0]])),
    ...section(WASM.SECTION.CODE, vector([[...unsigned(body.length), ...body]])),
  ]);
}
