/**
 * What a hypercall is: its code, the sizes of its input and output, and who may call it.
 *
 * @module
 */
import type { HypercallContext } from "./context.ts";

/** A hypercall without repetition. */
export interface SimpleCall {
  readonly code: number;
  /** Whether only VTL2 may call it; for VTL0 its code is unknown. */
  readonly vtl2Only: boolean;
  /** Bytes of input and output. */
  readonly inputBytes: number;
  readonly outputBytes: number;
  /** Does the call; `output` is zero before. Returns an HvStatus; output counts on success only. */
  run(context: HypercallContext, input: DataView, output: DataView): number;
}

/** A hypercall that repeats for each element of a list. */
export interface RepCall {
  readonly code: number;
  readonly vtl2Only: boolean;
  /** Bytes of the header before the list, and of an input and an output element. */
  readonly headerBytes: number;
  readonly elementBytes: number;
  readonly outputElementBytes: number;
  /** Does the call for the element at `element` of `input`; its output goes to `place` of `output`. Returns an HvStatus. */
  element(context: HypercallContext, input: DataView, element: number, output: DataView, place: number): number;
  /** Follows the last element that was done, however many there were. */
  after?(context: HypercallContext, input: DataView): void;
}

/** A hypercall. */
export type Call = SimpleCall | RepCall;

/** Whether a hypercall repeats. */
export function isRep(call: Call): call is RepCall {
  return "headerBytes" in call;
}
