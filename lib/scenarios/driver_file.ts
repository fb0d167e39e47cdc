/**
 * Users' scenarios of the sidecar driver alone.
 *
 * @module
 */
import { PROTOCOL_PROPERTIES } from "../sidecar/protocol_properties.ts";
import { driverSystem, NO_LIVELOCK, protocolProperties } from "./driver_system.ts";
import { type FileHead, propertyNames } from "./file_head.ts";
import type { JsonFields } from "./json_fields.ts";
import type { Scenario } from "./scenario.ts";

/** Most processors and most runs of each. */
const VPS_MAX = 8;
const ROUNDS_MAX = 16;

const AGENTS = { "stop": "stop", "cancel": "cancel", "cpu-hotplug": "remove" } as const;

/** The scenario in a file whose platform is `sidecar-driver`. Throws `BadInput`. */
export function driverScenario(file: JsonFields, head: FileHead): Scenario {
  const machine = file.object("machine");
  machine.only(["platform", "vps", "rounds"]);
  const vps = machine.integer("vps", 1, VPS_MAX, 1);
  const rounds = machine.integer("rounds", 0, ROUNDS_MAX, 1);
  const slots = { stop: [] as number[], cancel: [] as number[], remove: [] as number[] };
  for (const entry of file.list("environment")) {
    if (typeof entry === "string") throw file.bad("environment", `an object with "agent" is expected, not "${entry}"`);
    entry.only(["agent", "vp"]);
    const agent = entry.word("agent", Object.keys(AGENTS) as (keyof typeof AGENTS)[]);
    const vp = entry.integer("vp", 1, vps, 1);
    if (slots[AGENTS[agent]].includes(vp)) throw entry.bad("vp", `${agent} of processor ${vp} is given twice`);
    slots[AGENTS[agent]].push(vp);
  }
  const known = [...PROTOCOL_PROPERTIES.map(({ name }) => name), NO_LIVELOCK.name];
  const properties = propertyNames(file, known, (fields) => {
    throw fields.bad("name", "the driver alone has no guest memory to look at");
  });
  return {
    ...head,
    options: [],
    properties: protocolProperties(properties),
    matrix: { parts: [{}], memoryModels: head.memoryModels, bounds: head.bounds },
    build: (policies, _options, name) =>
      driverSystem({ name, policies, protocol: { vps, rounds, ...slots }, properties, stopsAreOptional: true }),
  };
}
