/**
 * The exit codes of `exitbox`, so that scripts can branch on them. `exitbox help exit-codes` prints this table.
 *
 * The classes from 10 follow the model checker TLC: a kind of violation each.
 *
 * @module
 */

/** Exit codes by name. */
export const EXIT = {
  /** All VPs halted with interrupts off, or exit port value 0; a command that only prints did so. */
  CLEAN: 0,
  /** A defect of the tool, a dead worker, or no progress. */
  TOOL_FAILURE: 1,
  /** Wrong usage or bad input. */
  USAGE: 2,
  /** A `verify` command found differences. */
  DIFFERENCES: 3,
  /** An assumption of the scenario does not hold. */
  ASSUMPTION: 10,
  /** A deadlock or a lost wake-up. */
  DEADLOCK: 11,
  /** A property other than those of 11 and 13 is violated. */
  SAFETY: 12,
  /** A livelock. */
  LIVENESS: 13,
  /** The guest or the VMM failed: triple fault, VMM crash, unhandled exit. */
  GUEST_FAILURE: 14,
  /** A limit was hit. */
  LIMIT: 20,
  /** A replay took another way than its recording. */
  DIVERGED: 21,
  /** First of 64 codes: the low six bits of an exit port value that is not 0. */
  EXIT_PORT: 64,
  /** Interrupted by Ctrl-C (128 + SIGINT). */
  INTERRUPTED: 130,
  /** The reader of standard output closed it, as `head` does (128 + SIGPIPE). */
  OUTPUT_CLOSED: 141,
} as const;

/** Bits of an exit port value that reach the exit code. */
const EXIT_PORT_MASK = 63;

/** The exit code for a value that the guest wrote to the exit port (port F4). */
export function exitPortCode(value: number): number {
  return value === 0 ? EXIT.CLEAN : EXIT.EXIT_PORT + (value & EXIT_PORT_MASK);
}

/** What `help exit-codes` says: the code or range, and its meaning. */
export const EXIT_CODE_TABLE: readonly (readonly [code: string, meaning: string])[] = [
  [`${EXIT.CLEAN}`, "done: all VPs halted with interrupts off, or exit port value 0"],
  [`${EXIT.TOOL_FAILURE}`, "tool failure, worker death or no progress"],
  [`${EXIT.USAGE}`, "wrong usage or bad input"],
  [`${EXIT.DIFFERENCES}`, "a verify command found differences"],
  [`${EXIT.ASSUMPTION}`, "an assumption of the scenario does not hold"],
  [`${EXIT.DEADLOCK}`, "deadlock or lost wake-up"],
  [`${EXIT.SAFETY}`, "another property is violated, a modelled VMM crash included"],
  [`${EXIT.LIVENESS}`, "livelock"],
  [`${EXIT.GUEST_FAILURE}`, "guest or VMM failure: triple fault, VMM crash, unhandled exit"],
  [`${EXIT.LIMIT}`, "a limit was hit"],
  [`${EXIT.DIVERGED}`, "a replay diverged from its recording"],
  [`${EXIT.EXIT_PORT}-${EXIT.EXIT_PORT + EXIT_PORT_MASK}`, "64 + (v & 63) for an exit port value v that is not 0"],
  [`${EXIT.INTERRUPTED}`, "interrupted (Ctrl-C)"],
  [`${EXIT.OUTPUT_CLOSED}`, "the reader of standard output closed it"],
];
