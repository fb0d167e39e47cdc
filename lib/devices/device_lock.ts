/**
 * The lock under which the machine's devices are used: one word of the shared memory.
 *
 * A VP that finds it taken spins a bounded number of times and then sleeps in the word's queue, which is first in, first
 * out. The holder that leaves passes the lock to the sleeper it wakes, so that spinning VPs cannot starve sleeping ones.
 * Agents that must not wait inside a step use {@linkcode DeviceLock.tryLock} as the step's action and
 * {@linkcode DeviceLock.free} as its condition.
 *
 * @module
 */
import type { MachineMemory } from "../memory/machine_memory.ts";
import type { MemoryPort } from "../memory/port.ts";

/** Nobody holds the lock. */
const FREE = 0;
/** Somebody holds the lock and nobody sleeps for it. */
const HELD = 1;
/** Somebody holds the lock and somebody may sleep for it. */
const CONTENDED = 2;
/** The holder has left and the lock is for one that waits, not for one that comes along. */
const HANDED_OVER = 3;

/** Attempts before a VP sleeps: a few microseconds, longer than a port access holds the lock. */
const SPINS_MAX = 200;
/** Longest sleep in milliseconds before a VP looks again. */
const SLEEP_MS_MAX = 5;

/** Mutual exclusion over one i32 word. */
export class DeviceLock {
  readonly #memory: MachineMemory;
  readonly #at: number;
  readonly #alone: boolean;

  /**
   * A lock in the word at byte offset `at`; zero is the unlocked state. `alone` says that one thread only uses what it
   * protects: then nobody can hold it when it is asked for, and it is not taken.
   */
  constructor(memory: MachineMemory, at: number, alone = false) {
    this.#memory = memory;
    this.#at = at;
    this.#alone = alone;
  }

  /** Whether nobody holds it now. Reads only. */
  free(port: MemoryPort): boolean {
    return port.load32(this.#at) === FREE;
  }

  /** Takes the lock if nobody holds it; one locked compare-exchange. */
  tryLock(port: MemoryPort): boolean {
    return port.compareExchange32(this.#at, FREE, HELD) === FREE;
  }

  /** Takes the lock, waiting for it as long as it takes. */
  lock(port: MemoryPort): void {
    if (this.#alone) return;
    if (port.compareExchange32(this.#at, FREE, HELD) !== FREE) this.#wait(port);
  }

  /** Gives the lock back. Only its holder may call this. */
  unlock(port: MemoryPort): void {
    if (this.#alone) return;
    if (port.compareExchange32(this.#at, HELD, FREE) === HELD) return;
    port.exchange32(this.#at, HANDED_OVER);
    const woken = Atomics.notify(this.#memory.i32, this.#at >>> 2, 1);
    // Nobody was asleep: one that was about to sleep sees the word changed, and may find it free as well.
    if (woken === 0) port.compareExchange32(this.#at, HANDED_OVER, FREE);
  }

  #wait(port: MemoryPort): void {
    const word = this.#at >>> 2;
    for (let spin = 0; spin < SPINS_MAX; spin++) {
      if (port.load32(this.#at) === FREE && port.compareExchange32(this.#at, FREE, HELD) === FREE) return;
    }
    for (;;) {
      const seen = port.load32(this.#at);
      if (seen === FREE || seen === HANDED_OVER) {
        // It is not known whether others sleep, so the word says that some may.
        if (port.compareExchange32(this.#at, seen, CONTENDED) === seen) return;
      } else if (seen === CONTENDED || port.compareExchange32(this.#at, HELD, CONTENDED) === HELD) {
        Atomics.wait(this.#memory.i32, word, CONTENDED, SLEEP_MS_MAX);
      }
    }
  }
}
