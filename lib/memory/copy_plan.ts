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
import { copy, local, type Move, WasmCode } from "./wasm_code.ts";

export type { Move };

/** Copies from the record at one byte offset to the record at another. */
export type CopyRecord = (to: number, from: number) => void;

/** The same moves, from target to source. */
export function backwards(moves: readonly Move[]): readonly Move[] {
  return moves.map(([from, to, bytes]) => [to, from, bytes]);
}

/** A compiled list of moves; usable on any machine's memory. */
export class CopyPlan {
  readonly #code: WasmCode<CopyRecord>;

  /** Compiles `moves`. Throws `TypeError` for a move that is not a multiple of four bytes. */
  constructor(moves: readonly Move[]) {
    this.#code = new WasmCode({ parameters: 2, locals: 0, gives: "nothing", body: [copy(local(0), local(1), moves)] });
  }

  /** The copy on `memory`. */
  on(memory: MachineMemory): CopyRecord {
    return this.#code.on(memory);
  }
}
