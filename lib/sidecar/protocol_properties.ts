/**
 * What must hold of the driver's protocol, as predicates over its memory.
 *
 * @module
 */
import { SidecarDriverVpState } from "../layout/hyperv/constants/sidecar.ts";
import { CpuStatus } from "../layout/hyperv/sidecar.ts";
import { ClientRunState, SidecarClientState } from "./client_state.ts";
import { KERNEL_LOCAL } from "./kernel/processor.ts";
import { type SidecarProtocol, startsProcessor } from "./protocol.ts";

const { IDLE, RUN, STOP, REMOVED } = CpuStatus.values;
const { RUNNING, FINISHED } = ClientRunState.values;
const { ASYNC_STOPPED } = SidecarDriverVpState.values;
const client = SidecarClientState.at;

/** A predicate that a report names. */
export interface ProtocolProperty {
  /** What a report calls it. */
  readonly name: string;
  /** The sentence that it enforces. */
  readonly sentence: string;
  /** Whether it is about every state, or about those in which no agent can take a step. */
  readonly when: "always" | "quiescent";
  /** Whether the present state is as it should be. */
  readonly holds: (protocol: SidecarProtocol) => boolean;
}

/** Whether `test` is true of every sidecar processor. */
function everySlot(protocol: SidecarProtocol, test: (slot: number) => boolean): boolean {
  for (let slot = 1; slot <= protocol.options.vps; slot++) if (!test(slot)) return false;
  return true;
}

const runState = (p: SidecarProtocol, slot: number) => p.memory.i32[(p.client(slot) + client.run_state) >>> 2];
const status = ({ memory, node }: SidecarProtocol, slot: number) => memory.u8[node.statuses + slot];

/** The properties, the ones about every state first. */
export const PROTOCOL_PROPERTIES: readonly ProtocolProperty[] = [
  {
    name: "no-fabricated-completion",
    sentence: "No run is reported complete that never began or is still under way.",
    when: "always",
    holds: (p) =>
      everySlot(p, (slot) => {
        const reported = p.memory.u8[p.node.vpStates + slot] === ASYNC_STOPPED || runState(p, slot) === FINISHED;
        return !reported || p.completed(slot) === p.begun(slot);
      }),
  },
  {
    name: "page-ownership",
    sentence: "The VMM touches a command page only while its processor is IDLE or gone.",
    when: "always",
    holds: (p) =>
      everySlot(p, (slot) => !p.touchesPage(slot) || !(status(p, slot) === RUN || status(p, slot) === STOP)),
  },
  {
    name: "exactly-once",
    sentence: "Each exit is handled once.",
    when: "always",
    holds: (p) => everySlot(p, (slot) => p.handled(slot) <= p.completed(slot)),
  },
  {
    name: "no-vmm-crash",
    sentence: "Neither the VMM nor the sidecar kernel panics.",
    when: "always",
    holds: (p) =>
      everySlot(p, (slot) =>
        p.memory.i32[(p.client(slot) + client.panicked) >>> 2] === 0 &&
        p.processors[slot - 1].locals32[KERNEL_LOCAL.PANICKED] === 0),
  },
  {
    name: "no-early-start",
    sentence: "Linux never starts a processor that is still in the sidecar.",
    when: "always",
    holds: (p) => {
      for (const remover of p.removers) {
        if (startsProcessor(remover) && status(p, remover.slot) !== REMOVED) return false;
      }
      return true;
    },
  },
  {
    name: "no-lost-wakeup",
    sentence: "When a run has ended or a processor has left, whoever waits for that does not sleep for ever.",
    when: "quiescent",
    holds: (p) =>
      everySlot(p, (slot) => {
        return runState(p, slot) !== RUNNING || status(p, slot) !== IDLE || p.completed(slot) !== p.begun(slot);
      }) && p.removers.every((remover) => !remover.asleep || status(p, remover.slot) !== REMOVED),
  },
  {
    name: "no-deadlock",
    sentence: "Every thread comes to its end.",
    when: "quiescent",
    holds: (p) => p.done,
  },
];
