/** What tests of the driver's protocol share: taking steps by name, and a plain search of all interleavings. */
import { assertEquals } from "@std/assert";
import { stepName, STEPS } from "../../lib/memory/steps.ts";
import type { SidecarProtocol } from "../../lib/sidecar/protocol.ts";
import { PROTOCOL_PROPERTIES } from "../../lib/sidecar/protocol_properties.ts";

/** The agent called `name`. */
function agentNamed(protocol: SidecarProtocol, name: string) {
  const agent = protocol.agents.find((candidate) => candidate.name === name);
  if (agent === undefined) throw new Error(`No agent ${name}`);
  return agent;
}

/** Takes the steps of a schedule: lines of an agent's name and the names of the steps that it takes, in order. */
export function follow(protocol: SidecarProtocol, schedule: string): void {
  for (const line of schedule.trim().split("\n")) {
    const [name, ...steps] = line.trim().split(/\s+/);
    const agent = agentNamed(protocol, name);
    for (const expected of steps) {
      assertEquals(`${name} ${stepName(agent.step)} ${agent.enabled}`, `${name} ${expected} true`);
      agent.takeSteps(1);
    }
  }
}

/** Names of the properties that the present state violates. */
export function violated(protocol: SidecarProtocol): string[] {
  const quiescent = protocol.quiescent;
  return PROTOCOL_PROPERTIES
    .filter((property) => (property.when === "always" || quiescent) && !property.holds(protocol))
    .map((property) => property.name);
}

/** Whether one processor alone can take steps, and its next two bring it back to where it is. */
function spinsForEver(protocol: SidecarProtocol): boolean {
  const enabled = protocol.agents.filter((agent) => agent.enabled);
  if (enabled.length !== 1) return false;
  const [agent] = enabled;
  const before = agent.step;
  agent.step = STEPS[agent.step].run(agent);
  if (agent.enabled) agent.step = STEPS[agent.step].run(agent);
  return agent.step === before && stepName(before).includes("run");
}

/** Visits every reachable state; returns how many there are and the properties that any of them violates. */
export function search(
  protocol: SidecarProtocol,
  statesMax = 1_000_000,
): { states: number; violations: string[]; spins: number } {
  const { i32 } = protocol.memory;
  const words = protocol.mutable.flatMap(({ at, bytes }) =>
    Array.from({ length: bytes / 4 }, (_, word) => (at >>> 2) + word)
  );
  const save = () => words.map((word) => i32[word]);
  const restore = (state: number[]) => {
    for (let k = 0; k < words.length; k++) i32[words[k]] = state[k];
  };
  const seen = new Set<string>();
  const stack: number[][] = [];
  const violations = new Set<string>();
  const visit = () => {
    const state = save();
    const key = String.fromCharCode(...state.flatMap((word) => [word & 0xffff, word >>> 16]));
    if (seen.has(key)) return;
    if (seen.size === statesMax) throw new Error(`More than ${statesMax} states`);
    seen.add(key);
    stack.push(state);
    for (const name of violated(protocol)) violations.add(name);
  };
  visit();
  let spins = 0;
  for (let state = stack.pop(); state !== undefined; state = stack.pop()) {
    restore(state);
    if (spinsForEver(protocol)) spins++;
    for (const agent of protocol.agents) {
      restore(state);
      if (!agent.enabled) continue;
      agent.step = STEPS[agent.step].run(agent);
      visit();
    }
  }
  return { states: seen.size, violations: [...violations].sort(), spins };
}
