/**
 * The exit stream of a run as JSON lines, in the order of the exits' numbers.
 *
 * Every VP has a ring of its own, so that exits arrive in order of each VP only. An exit whose number is ahead waits
 * until the ones before it have come.
 *
 * @module
 */

import { ExitLines, type MachineExit, readExit } from "../inspect/exit_records.ts";
import type { OutputFile } from "./output_file.ts";

/** Most exits that wait for one before them; then that one is taken for lost. */
const WAITING_MAX = 1 << 16;

/** Writes exits to a file. */
export class ExitOutput {
  readonly #file: OutputFile;
  readonly #limit: number;
  readonly #lines = new ExitLines();
  readonly #waiting = new Map<number, MachineExit[]>();
  #next = 0;

  /**
   * @param file Where the lines go.
   * @param limit Exits with this number or a higher one are left out: VPs make them before they hear of the limit.
   */
  constructor(file: OutputFile, limit: number = Infinity) {
    this.#file = file;
    this.#limit = limit;
  }

  /** Takes a record of an exit ring. */
  add(record: DataView): void {
    const exit = readExit(record);
    if (exit.sequence > this.#next) {
      const others = this.#waiting.get(exit.sequence);
      if (others === undefined) this.#waiting.set(exit.sequence, [exit]);
      else others.push(exit);
      if (this.#waiting.size > WAITING_MAX) this.#writeWaiting();
      return;
    }
    this.#write(exit);
    if (exit.sequence < this.#next) return;
    this.#next++;
    for (let after = this.#take(this.#next); after !== undefined; after = this.#take(this.#next)) {
      for (const one of after) this.#write(one);
      this.#next++;
    }
  }

  /** Writes what still waits; to be called when the run has ended. */
  end(): void {
    this.#writeWaiting();
  }

  #take(sequence: number): readonly MachineExit[] | undefined {
    const exits = this.#waiting.get(sequence);
    this.#waiting.delete(sequence);
    return exits;
  }

  #writeWaiting(): void {
    for (const sequence of [...this.#waiting.keys()].sort((a, b) => a - b)) {
      for (const exit of this.#take(sequence) ?? []) this.#write(exit);
      this.#next = sequence + 1;
    }
  }

  #write(exit: MachineExit): void {
    if (exit.sequence < this.#limit) this.#file.line(this.#lines.line(exit));
  }
}
