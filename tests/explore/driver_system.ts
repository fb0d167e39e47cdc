/** The sidecar driver's protocol as a system to explore, for tests and benchmarks. */
import { ControlPage } from "../../lib/layout/hyperv/sidecar.ts";
import type { NamedStructure, Property, System } from "../../lib/explore/system.ts";
import { noLivelock } from "../../lib/explore/properties/generic.ts";
import { SidecarClientState } from "../../lib/sidecar/client_state.ts";
import { SidecarDriverState } from "../../lib/sidecar/driver/state.ts";
import { type ProtocolOptions, SidecarProtocol } from "../../lib/sidecar/protocol.ts";
import { PROTOCOL_PROPERTIES } from "../../lib/sidecar/protocol_properties.ts";

/** The protocol with all its properties; the reader and the interrupt handler share the base processor. */
export function driverSystem(options: ProtocolOptions): System {
  const protocol = new SidecarProtocol(options);
  const { node } = protocol;
  const properties = PROTOCOL_PROPERTIES.map(({ name, sentence, when, holds }): Property => {
    return { name, sentence, when: when === "always" ? "always" : "end", kind: sentence, holds: () => holds(protocol) };
  });
  const structures: NamedStructure[] = [
    { name: "", at: node.controlPage, layout: ControlPage },
    { name: "driver", at: node.driver, layout: SidecarDriverState },
    ...protocol.starters.map(({ slot }) => {
      return { name: `client${slot}`, at: protocol.client(slot), layout: SidecarClientState };
    }),
  ];
  return {
    name: "driver",
    policies: options.policies ?? {},
    memory: protocol.memory,
    agents: protocol.agents.map((agent) => ({ agent })),
    mutable: protocol.mutable,
    properties: [...properties, noLivelock()],
    finished: () => protocol.done,
    structures,
  };
}
