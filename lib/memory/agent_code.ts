/**
 * An agent's calls and returns (`Agent.call`, `Agent.return`) as code, for steps that are done at once.
 *
 * @module
 */
import { AgentBlock, RETURN_STACK_DEPTH } from "./agent.ts";
import type { StepId } from "./steps.ts";
import * as wasm from "./wasm_code.ts";

const at = AgentBlock.at;
/** log2 of a step's bytes on the stack. */
const STEP_SHIFT = 2;

function depth(block: wasm.I32): wasm.I32 {
  return wasm.load32(block, at.depth);
}

/** Address of the place above the innermost return step, but for the offset of the stack. */
function top(block: wasm.I32): wasm.I32 {
  return wasm.add(block, wasm.shiftLeft(depth(block), STEP_SHIFT));
}

/** Byte offset in an agent's block of half `index` of its locals, as in `locals32`. */
export function localAt(index: number): number {
  return at.locals + index * 4;
}

/** Whether the agent's stack has room for a call. */
export function mayCall(block: wasm.I32): wasm.I32 {
  return wasm.exceeds(wasm.constant(RETURN_STACK_DEPTH), depth(block));
}

/** A call that goes on with `after`; there is room for it. */
export function callCode(block: wasm.I32, after: StepId): wasm.Code {
  return [
    ...wasm.store32(top(block), at.returns, wasm.constant(after)),
    ...wasm.store32(block, at.depth, wasm.add(depth(block), wasm.constant(1))),
  ];
}

/** Whether a return goes to `after`. The word below an empty stack is its depth, which is no step's number. */
export function returnsTo(block: wasm.I32, after: StepId): wasm.I32 {
  return wasm.equals(wasm.load32(top(block), at.returns - (1 << STEP_SHIFT)), after);
}

/** A return; somebody has called. */
export function returnCode(block: wasm.I32): wasm.Code {
  return [
    ...wasm.store32(top(block), at.returns - (1 << STEP_SHIFT), wasm.constant(0)),
    ...wasm.store32(block, at.depth, wasm.add(depth(block), wasm.constant(-1))),
  ];
}
