/**
 * The usual course of the response interrupt's handler at once (`Agent.leap`), and whether a node's agents may leap.
 *
 * Handler, reader and tasks execute on the node's base processor. A runtime in which nobody looks between two steps of one
 * processor takes a course as a whole: the driver's and the client's words are that processor's alone, and those that
 * sidecar processors touch as well are accessed in the same order as by the steps, with the same locked accesses.
 *
 * @module
 */
import { HOST_IS_X86 } from "../../memory/port.ts";
import type { Policy } from "../../memory/policy.ts";
import type { SidecarNode } from "../node.ts";
import { DRIVER_INTERRUPT_ORDER, DRIVER_PUBLISH, DRIVER_REARM, DRIVER_SCAN, SIDECAR_START_IPI } from "../policies.ts";
import { SidecarDriverState, THREAD_WORDS } from "./state.ts";

const driver = SidecarDriverState.at;

/** Policies whose first value the courses stand for. */
const USUAL: readonly Policy<never>[] = [
  DRIVER_INTERRUPT_ORDER,
  DRIVER_PUBLISH,
  DRIVER_REARM,
  DRIVER_SCAN,
  SIDECAR_START_IPI,
] as unknown as readonly Policy<never>[];

/** Whether a node's agents may leap: its policies are the usual ones, and the host orders plain accesses as x86 does. */
export function mayLeap(node: SidecarNode): boolean {
  return HOST_IS_X86 && USUAL.every((policy) => node.policy(policy) === 0);
}

/** The handler's course, from one interrupt to the wait for the next. */
export class HandlerCourse {
  readonly #i32: Int32Array<SharedArrayBuffer>;
  readonly #request: number;
  readonly #attention: number;
  readonly #scan: number;
  readonly #waiters: number;

  /** The course of the handler of `node`. */
  constructor(node: SidecarNode) {
    this.#i32 = node.memory.i32;
    this.#request = (node.driver + driver.response_irr) >>> 2;
    this.#attention = node.needsAttention >>> 2;
    this.#scan = node.needsVpScan >>> 2;
    this.#waiters = (node.driver + driver.waiters) >>> 2;
  }

  /** Takes it; whether it has woken anybody. Whom it wakes lives on this worker, which is awake. */
  take(): boolean {
    const i32 = this.#i32;
    Atomics.exchange(i32, this.#request, 0);
    if (i32[this.#attention] === 0) return false;
    i32[this.#scan] = 1;
    Atomics.exchange(i32, this.#attention, 0);
    for (let word = 0; word < THREAD_WORDS; word++) i32[this.#waiters + word] = 0;
    return true;
  }
}
