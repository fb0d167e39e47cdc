/**
 * Properties that make sense for every system. Those that are about a scenario's own words are the scenario's.
 *
 * @module
 */
import type { Property } from "../system.ts";

/** No state is reached in which nobody can go on although something is left to do. */
export function noDeadlock(finished: () => boolean): Property {
  return {
    name: "no-deadlock",
    sentence: "As long as something is left to do, somebody can go on.",
    when: "end",
    holds: finished,
    kind: "nobody can go on",
  };
}

/** The system does not go round for ever, under weak fairness: an agent that could always go on does so some time. */
export function noLivelock(): Property {
  return {
    name: "no-livelock",
    sentence: "When every agent that can go on does so some time, everything comes to its end.",
    when: "cycle",
    holds: () => true,
    kind: "the same steps repeat for ever",
  };
}

/** No work is pending while everybody who could do it sleeps. */
export function noLostWakeup(pending: () => boolean): Property {
  return {
    name: "no-lost-wakeup",
    sentence: "When work is pending, not every agent that could do it sleeps for ever.",
    when: "end",
    holds: () => !pending(),
    kind: "work is pending and everybody who could do it sleeps",
  };
}
