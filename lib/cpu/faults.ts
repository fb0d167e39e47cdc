/**
 * What a processor throws to leave an instruction in the middle: a guest exception, or an exit that the bus decided on.
 * Both are preallocated; no `Error` and no stack trace is made.
 *
 * @module
 */

/** Divide error. */
export const VECTOR_DE = 0;
/** Debug. */
export const VECTOR_DB = 1;
/** Non-maskable interrupt. */
export const VECTOR_NMI = 2;
/** Breakpoint (INT3). */
export const VECTOR_BP = 3;
/** Overflow (INTO). */
export const VECTOR_OF = 4;
/** BOUND range exceeded. */
export const VECTOR_BR = 5;
/** Invalid opcode. */
export const VECTOR_UD = 6;
/** Device not available. */
export const VECTOR_NM = 7;
/** Double fault. */
export const VECTOR_DF = 8;
/** Invalid TSS. */
export const VECTOR_TS = 10;
/** Segment not present. */
export const VECTOR_NP = 11;
/** Stack fault. */
export const VECTOR_SS = 12;
/** General protection. */
export const VECTOR_GP = 13;
/** Page fault. */
export const VECTOR_PF = 14;
/** x87 floating-point exception. */
export const VECTOR_MF = 16;
/** Alignment check. */
export const VECTOR_AC = 17;
/** SIMD floating-point exception. */
export const VECTOR_XM = 19;
/** VMM communication: an SEV-ES guest's own handler is to deal with what would have been an exit. */
export const VECTOR_VC = 29;

/** A guest exception on its way to delivery. One object per processor, written again for each. */
export class GuestFault {
  /** Exception vector. */
  vector = 0;
  /** Error code, when `hasError`. */
  error = 0;
  /** Whether the exception pushes an error code. */
  hasError = false;
  /** Low half of the address that a page fault puts into CR2. */
  cr2Lo = 0;
  /** High half. */
  cr2Hi = 0;
  /** Whether RIP stays behind the instruction (a trap) instead of going back to it. */
  trap = false;
}

/** Thrown by `cpu.leave`: the instruction is undone and `run` returns the exit reason. */
export class LeaveSignal {
  /** EXIT_*. */
  reason = 0;
}
