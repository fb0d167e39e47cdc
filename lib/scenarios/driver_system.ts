/**
 * The sidecar driver's protocol as a system to explore: its agents, the processors that they execute on, and what each
 * property looks at.
 *
 * @module
 */
import type { NamedStructure, Property, Range, System, SystemAgent } from "../explore/system.ts";
import { SidecarDriverVpState } from "../layout/hyperv/constants/sidecar.ts";
import { CommandPage, ControlPage, CpuStatus } from "../layout/hyperv/sidecar.ts";
import { u32 } from "../layout/field_type.ts";
import { structure } from "../layout/structure.ts";
import type { Agent } from "../memory/agent.ts";
import { AgentBlock } from "../memory/agent.ts";
import { RUN_WAIT, RUN_WAIT_CANCELLED } from "../sidecar/client.ts";
import { ClientRunState, SidecarClientState } from "../sidecar/client_state.ts";
import { SidecarDriverState } from "../sidecar/driver/state.ts";
import { DRIVER_LOCAL } from "../sidecar/driver/thread.ts";
import { KERNEL_LOCAL } from "../sidecar/kernel/processor.ts";
import {
  CPU_PREPARED,
  CPU_STARTED,
  type ProtocolOptions,
  SidecarProtocol,
  THREAD_LOCAL,
  VMM_RUN,
} from "../sidecar/protocol.ts";
import { PROTOCOL_PROPERTIES, type ProtocolProperty } from "../sidecar/protocol_properties.ts";
import type { Choices, NamedProperty } from "./scenario.ts";

const { RUN, STOP, REMOVED } = CpuStatus.values;
const { ASYNC_STOPPED } = SidecarDriverVpState.values;
const client = SidecarClientState.at;

/** Number of the base processor, on which the response interrupt's handler executes. */
const BASE_CPU = 0;

/** Nothing goes round for ever. */
export const NO_LIVELOCK: NamedProperty = {
  name: "no-livelock",
  sentence: "Work that has begun comes to its end, if every agent that could always go on does so again and again.",
};

/** The properties called `names`, with their sentences. */
export function protocolProperties(names: readonly string[]): NamedProperty[] {
  return names.map((name) => {
    const { sentence } = name === NO_LIVELOCK.name ? NO_LIVELOCK : propertyNamed(name);
    return { name, sentence };
  });
}

/** What a system of the driver's protocol is made of. */
export interface DriverSystemParts {
  /** The system's name. */
  readonly name: string;
  /** Every policy of the scenario and its value. */
  readonly policies: Choices;
  /** The protocol's options but for the policies. */
  readonly protocol: Omit<ProtocolOptions, "policies">;
  /** Names of the properties to check. */
  readonly properties: readonly string[];
  /** Whether nobody need ask for the stop of a run, so that nothing may depend on it. */
  readonly stopsAreOptional?: boolean;
}

/** The system. Throws `BadInput` on unknown policies. */
export function driverSystem(parts: DriverSystemParts): System {
  const { name, policies, properties, stopsAreOptional = false } = parts;
  const protocol = new SidecarProtocol({ ...parts.protocol, policies });
  return {
    name,
    policies,
    memory: protocol.memory,
    agents: agentsOf(protocol, policies["driver.reader"] !== "any-cpu", stopsAreOptional),
    mutable: protocol.mutable,
    properties: properties.map((property) => propertyOf(protocol, property)),
    finished: () => protocol.done,
    structures: structuresOf(protocol),
  };
}

/** The agents with their processors: the VMM's threads, stops and removals have one each. */
function agentsOf(protocol: SidecarProtocol, readerOnBase: boolean, stopsAreOptional: boolean): SystemAgent[] {
  const panicked: Range[] = slotsOf(protocol).map((slot) => ({
    at: protocol.client(slot) + client.panicked,
    bytes: 4,
  }));
  return protocol.agents.map((agent): SystemAgent => {
    if (agent === protocol.handler) return { agent, processor: BASE_CPU, writes: [] };
    if ((protocol.cancellers as readonly Agent[]).includes(agent)) {
      return { agent, writes: [], environment: stopsAreOptional };
    }
    if (agent !== protocol.reader) return { agent, writes: [] };
    return { agent, ...(readerOnBase ? { processor: BASE_CPU } : {}), writes: panicked };
  });
}

function slotsOf(protocol: SidecarProtocol): number[] {
  return Array.from({ length: protocol.options.vps }, (_, index) => index + 1);
}

// --- Properties ---------------------------------------------------------------------------------------------------

function propertyNamed(name: string): ProtocolProperty {
  const found = PROTOCOL_PROPERTIES.find((property) => property.name === name);
  if (found === undefined) throw new TypeError(`The driver's protocol has no property '${name}'`);
  return found;
}

function propertyOf(protocol: SidecarProtocol, name: string): Property {
  if (name === NO_LIVELOCK.name) {
    return { ...NO_LIVELOCK, when: "cycle", kind: "the same steps repeat for ever", holds: () => true };
  }
  const { sentence, when, holds } = propertyNamed(name);
  return {
    name,
    sentence,
    when: when === "always" ? "always" : "end",
    holds: () => holds(protocol),
    kind: () => kindOf(protocol, name),
    ...watchedBy(protocol, name),
  };
}

/** What the predicates of `protocol_properties.ts` look at: they are conjunctions over the processors or the removals. */
function watchedBy(protocol: SidecarProtocol, name: string): Pick<Property, "parts"> {
  const { node, starters, processors, removers } = protocol;
  const local = (agent: Agent, index: number): Range => {
    return { at: agent.block + AgentBlock.at.locals + index * 4, bytes: 4 };
  };
  const status = (slot: number): Range => ({ at: node.statuses + slot, bytes: 1 });
  const state = (slot: number): Range => ({ at: node.vpStates + slot, bytes: 1 });
  const ofClient = (slot: number, offset: number): Range => ({ at: protocol.client(slot) + offset, bytes: 4 });
  const begun = (slot: number) => local(starters[slot - 1], THREAD_LOCAL.BEGUN);
  const result = (slot: number) => local(starters[slot - 1], DRIVER_LOCAL.RESULT);
  const completed = (slot: number) => local(processors[slot - 1], KERNEL_LOCAL.COMMANDS);
  switch (name) {
    case "no-fabricated-completion":
      return {
        parts: slotsOf(protocol).map((slot) => {
          return { watches: [state(slot), ofClient(slot, client.run_state), begun(slot), completed(slot)] };
        }),
      };
    case "page-ownership":
      return {
        parts: slotsOf(protocol).map((slot) => ({
          watches: [status(slot), ofClient(slot, client.run_state), begun(slot), result(slot)],
          watchesSteps: [
            { agent: starters[slot - 1], steps: [VMM_RUN] },
            { agent: starters[slot - 1], steps: [RUN_WAIT, RUN_WAIT_CANCELLED] },
          ],
        })),
      };
    case "exactly-once":
      return {
        parts: slotsOf(protocol).map((slot) => ({
          watches: [begun(slot), result(slot), completed(slot)],
          watchesSteps: [{ agent: starters[slot - 1], steps: [VMM_RUN] }],
        })),
      };
    case "no-vmm-crash":
      return {
        parts: slotsOf(protocol).map((slot) => ({
          watches: [ofClient(slot, client.panicked), local(processors[slot - 1], KERNEL_LOCAL.PANICKED)],
        })),
      };
    case "no-early-start":
      return {
        parts: removers.map((agent) => ({
          watches: [status(agent.slot), local(agent, DRIVER_LOCAL.RESULT)],
          watchesSteps: [{ agent, steps: [CPU_PREPARED] }, { agent, steps: [CPU_STARTED] }],
        })),
      };
    default:
      return {};
  }
}

/** What is wrong in a state that violates a property. */
function kindOf(protocol: SidecarProtocol, name: string): string {
  const { memory, node } = protocol;
  const status = (slot: number) => memory.u8[node.statuses + slot];
  const runState = (slot: number) => memory.i32[(protocol.client(slot) + client.run_state) >>> 2];
  const slots = slotsOf(protocol);
  switch (name) {
    case "no-fabricated-completion": {
      const reported = (slot: number) =>
        memory.u8[node.vpStates + slot] === ASYNC_STOPPED || runState(slot) === ClientRunState.values.FINISHED;
      const slot = slots.find((slot) => reported(slot) && protocol.completed(slot) !== protocol.begun(slot));
      const running = slot !== undefined && (status(slot) === RUN || status(slot) === STOP);
      return `a run of processor ${slot} that ${running ? "is under way" : "has not begun"} is taken for complete`;
    }
    case "page-ownership": {
      const slot = slots.find((slot) => {
        return protocol.touchesPage(slot) && (status(slot) === RUN || status(slot) === STOP);
      });
      return `the VMM is about to use the command page of processor ${slot}, which runs`;
    }
    case "exactly-once":
      return `an exit of processor ${
        slots.find((slot) => protocol.handled(slot) > protocol.completed(slot))
      } is handled that it did not make`;
    case "no-vmm-crash":
      return slots.some((slot) => memory.i32[(protocol.client(slot) + client.panicked) >>> 2] !== 0)
        ? "the VMM panics: a completion that nobody waits for"
        : "the sidecar kernel panics";
    case "no-early-start":
      return "Linux starts a processor whose status is " +
        protocol.removers.map(({ slot }) => CpuStatus.name(status(slot))).join(", ");
    case "no-lost-wakeup": {
      const remover = protocol.removers.find((remover) => remover.asleep && status(remover.slot) === REMOVED);
      return remover === undefined
        ? "a run has ended and nobody is told"
        : `${remover.name} sleeps for ever: processor ${remover.slot} is REMOVED already`;
    }
    default: {
      const waiting = [...protocol.starters, ...protocol.stoppers, ...protocol.removers]
        .filter((thread) => !thread.halted && thread.step !== VMM_RUN && thread.step !== CPU_STARTED);
      return waiting.length === 0
        ? "threads wait for ever"
        : `${waiting.map(({ name }) => name).join(", ")} cannot go on`;
    }
  }
}

// --- The trace ----------------------------------------------------------------------------------------------------

/** The word of a processor's interrupt request register that holds the request vector. */
const RequestInterrupt = structure("RequestInterrupt", 4, [
  ["requested", 0, u32, "1 while the request interrupt is pending"],
], "A word of a local APIC; here it stands alone");

function structuresOf(protocol: SidecarProtocol): NamedStructure[] {
  const { node } = protocol;
  return [
    { name: "control page", at: node.controlPage, layout: ControlPage },
    ...slotsOf(protocol).flatMap((slot): NamedStructure[] => [
      { name: `command page ${slot}`, at: node.commandPage(slot), layout: CommandPage },
      { name: `processor ${slot}`, at: node.requestWords[slot], layout: RequestInterrupt },
      { name: `client ${slot}`, at: protocol.client(slot), layout: SidecarClientState },
    ]),
    { name: "driver", at: node.driver, layout: SidecarDriverState },
  ];
}
