/**
 * A sidecar processor without a guest: the sidecar kernel's command loop, with "VTL0 ran and left" as one step of the
 * environment in the place of the guest and of the hypervisor. The driver's protocol is explored on such processors.
 *
 * @module
 */
import { SidecarCommand } from "../../layout/hyperv/sidecar.ts";
import { Agent } from "../../memory/agent.ts";
import type { MemoryPort } from "../../memory/port.ts";
import { step, type StepId } from "../../memory/steps.ts";
import type { SidecarNode } from "../node.ts";
import { CHECK_STOP, PANICKED, PARKED_FOREVER, STORE_REMOVED, writeResponse } from "./command_loop.ts";
import { KERNEL_LOCAL, type SidecarProcessor } from "./processor.ts";

/** Word of `Agent.locals32`: intercepts that VTL0 still makes. With none left it runs until an interrupt comes. */
export const INTERCEPTS_LEFT = 8;

/**
 * VTL0 runs on. An interrupt that is pending when it is entered, or comes while it runs, enters VTL2 with reason 2;
 * otherwise it leaves with an intercept, which ends the run.
 */
const VTL0: StepId = step<GuestlessProcessor>(
  "vtl0.run",
  (ap) => ap.node.requestPending(ap.port, ap.slot) ? CHECK_STOP : intercept(ap),
  (ap) => ap.locals32[INTERCEPTS_LEFT] > 0 || ap.node.requestPending(ap.port, ap.slot),
);

function intercept(ap: GuestlessProcessor): StepId {
  ap.locals32[INTERCEPTS_LEFT]--;
  return writeResponse(ap, 1);
}

/** A sidecar processor without a guest. Its first step is `park(processor)`, its status IDLE. */
export class GuestlessProcessor extends Agent implements SidecarProcessor {
  /** The node of the sidecar. */
  readonly node: SidecarNode;
  readonly slot: number;
  readonly commandPage: number;
  readonly unmap: StepId = STORE_REMOVED;
  readonly restarted = false;
  readonly #stays: boolean;

  /**
   * Processor `slot` of `node`, over the agent block at byte offset `block`. `stays` makes VTL0's run a step of its own, so
   * that it can be interrupted; where nobody stops a run, nothing else can be seen of that.
   */
  constructor(node: SidecarNode, slot: number, block: number, port: MemoryPort, stays: boolean) {
    super(`sidecar${slot}`, node.memory, block, port);
    this.node = node;
    this.slot = slot;
    this.commandPage = node.commandPage(slot);
    this.#stays = stays;
  }

  commandStep(command: number): StepId {
    return command === SidecarCommand.values.RUN_VP ? CHECK_STOP : -1;
  }

  restart(): StepId {
    return PARKED_FOREVER;
  }

  runOnce(): StepId {
    return this.#stays || this.locals32[INTERCEPTS_LEFT] === 0 || this.node.requestPending(this.port, this.slot)
      ? VTL0
      : intercept(this);
  }

  panic(_text: string): StepId {
    this.locals32[KERNEL_LOCAL.PANICKED] = 1;
    return PANICKED;
  }
}
