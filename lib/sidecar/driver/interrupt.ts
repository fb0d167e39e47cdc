/**
 * The handler of the sidecar's response interrupt, on the node's base processor (OHCL-Linux-Kernel
 * drivers/hv/mshv_vtl_sidecar.c).
 *
 * @module
 */
import { Agent } from "../../memory/agent.ts";
import type { MemoryPort } from "../../memory/port.ts";
import { NOT_COMBINED, step, type StepId } from "../../memory/steps.ts";
import type { SidecarNode } from "../node.ts";
import { DRIVER_INTERRUPT_ORDER } from "../policies.ts";
import { HandlerCourse, mayLeap } from "./leaps.ts";
import { READ_WAIT } from "./scan.ts";
import { SidecarDriverState } from "./state.ts";

const at = SidecarDriverState.at;

/** The handler as an agent: it runs whenever the base processor takes the response interrupt. */
export class ResponseHandler extends Agent {
  /** The node of the sidecar. */
  readonly node: SidecarNode;
  /** A thread that the handler wakes and that executes on the same processor. */
  readonly #reader: Agent | undefined;
  /** What it leaps; null where it takes its steps one by one. */
  #course: HandlerCourse | null | undefined;

  /**
   * The handler of `node`, over the agent block at byte offset `block`. Its first step is {@linkcode DRIVER_INTERRUPT}. Where
   * it leaps, `reader` does at once what it is woken for.
   */
  constructor(name: string, node: SidecarNode, block: number, port: MemoryPort, reader?: Agent) {
    super(name, node.memory, block, port);
    this.node = node;
    this.#reader = reader;
  }

  override leap(next: StepId): StepId {
    if (next !== DRIVER_INTERRUPT) return NOT_COMBINED;
    if (this.#course === undefined) this.#course = mayLeap(this.node) ? new HandlerCourse(this.node) : null;
    if (this.#course === null) return NOT_COMBINED;
    const reader = this.#reader;
    if (this.#course.take() && reader?.step === READ_WAIT) reader.leap(READ_WAIT); // which ends there as well
    return DRIVER_INTERRUPT;
  }
}

/** The interrupt is taken, which drains the store buffer, and the handler looks whether it is meant. */
export const DRIVER_INTERRUPT: StepId = step<ResponseHandler>("driver.interrupt.load-attention", (handler) => {
  const { node, port } = handler;
  port.fence();
  port.exchange32(node.driver + at.response_irr, 0);
  if (port.load32(node.needsAttention) === 0) return DRIVER_INTERRUPT;
  port.exchange32(node.driver + at.handler_active, 1);
  return clearsFirst(node) ? CLEAR_ATTENTION : MARK_SCAN;
}, (handler) => handler.port.load32(handler.node.driver + at.response_irr) !== 0);

const MARK_SCAN: StepId = step<ResponseHandler>("driver.interrupt.mark-scan", (handler) => {
  handler.port.store32(handler.node.needsVpScan, 1);
  return clearsFirst(handler.node) ? WAKE_ALL : CLEAR_ATTENTION;
});

const CLEAR_ATTENTION: StepId = step<ResponseHandler>("driver.interrupt.clear-attention", (handler) => {
  handler.port.exchange32(handler.node.needsAttention, 0);
  return clearsFirst(handler.node) ? MARK_SCAN : WAKE_ALL;
});

const WAKE_ALL: StepId = step<ResponseHandler>("driver.interrupt.wake-all", (handler) => {
  const { node, port } = handler;
  node.wakeAll(port);
  port.exchange32(node.driver + at.handler_active, 0);
  return DRIVER_INTERRUPT;
});

function clearsFirst(node: SidecarNode): boolean {
  return node.policy(DRIVER_INTERRUPT_ORDER) === DRIVER_INTERRUPT_ORDER.is["proposed-clear-then-mark"];
}
