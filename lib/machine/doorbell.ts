/**
 * Doorbells: how a worker that found nothing to do sleeps until another one rings.
 *
 * A doorbell is two words: a sequence number that every ring increments, and whether anyone sleeps. The sleeper says that
 * it sleeps, looks once more whether there is work, and waits for the sequence number to change; whoever makes work rings
 * afterwards. So either the sleeper sees the work or the ringer sees the sleeper.
 *
 * @module
 */
import { u32 } from "../layout/field_type.ts";
import { reserved, structure } from "../layout/structure.ts";
import type { MachineMemory } from "../memory/machine_memory.ts";

/** One worker's doorbell, on a cache line of its own, and its other words on the next. */
export const DoorbellWords = structure("DoorbellWords", 128, [
  ["sequence", 0, u32, "Counts rings (shared)"],
  ["sleeping", 4, u32, "1 while the worker sleeps or is about to"],
  ["wakeups", 8, u32, "How often the worker went to sleep"],
  reserved(12, 52),
  ["turn", 64, u32, "Number of the worker's agent that had its turn last; written at every turn"],
  reserved(68, 60),
], "Not a structure of the modelled machine");

/** A worker's doorbell. */
export class Doorbell {
  readonly #i32: Int32Array<SharedArrayBuffer>;
  readonly #sequence: number;
  readonly #sleeping: number;
  readonly #wakeups: number;

  /** The doorbell at byte offset `at`. */
  constructor(memory: MachineMemory, at: number) {
    this.#i32 = memory.i32;
    this.#sequence = (at + DoorbellWords.at.sequence) >>> 2;
    this.#sleeping = (at + DoorbellWords.at.sleeping) >>> 2;
    this.#wakeups = (at + DoorbellWords.at.wakeups) >>> 2;
  }

  /** Wakes the worker if it sleeps; to be called after its work has become visible. */
  ring(): void {
    Atomics.add(this.#i32, this.#sequence, 1);
    if (Atomics.load(this.#i32, this.#sleeping) !== 0) Atomics.notify(this.#i32, this.#sequence);
  }

  /** Sleeps for at most `milliseconds` unless `hasWork` holds or someone rings. */
  sleep(hasWork: () => boolean, milliseconds: number): void {
    const i32 = this.#i32;
    const sequence = Atomics.load(i32, this.#sequence);
    Atomics.store(i32, this.#sleeping, 1);
    if (!hasWork()) {
      i32[this.#wakeups]++;
      Atomics.wait(i32, this.#sequence, sequence, milliseconds);
    }
    Atomics.store(i32, this.#sleeping, 0);
  }

  /** How often the worker went to sleep. */
  get wakeups(): number {
    return this.#i32[this.#wakeups] >>> 0;
  }
}
