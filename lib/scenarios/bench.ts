/**
 * How fast the explorer is: states and transitions a second of one thread.
 *
 * @module
 */
import { Engine } from "../explore/engine.ts";
import { DEFAULT_BOUNDS } from "../explore/exhaustive.ts";
import { search } from "../explore/search.ts";
import { REDUCTIONS } from "./exploration.ts";
import { scenarioNamed } from "./index.ts";
import { buildSystem, type Choices } from "./scenario.ts";

/** A measured search. */
export interface ExploreWorkload {
  /** Its name in results. */
  readonly name: string;
  readonly scenario: string;
  readonly options: Choices;
  /** States after which it ends; a tenth of them when it is to be quick. */
  readonly states: number;
  /** Whether the scenario's properties are checked in every state. */
  readonly properties: boolean;
}

/** What is measured: the driver's protocol with three processors, and a guest with its exits. */
export const EXPLORE_WORKLOADS: readonly ExploreWorkload[] = [
  { name: "driver", scenario: "sidecar-completion", options: { vps: "3" }, states: 1_000_000, properties: false },
  {
    name: "driver-checked",
    scenario: "sidecar-completion",
    options: { vps: "3" },
    states: 1_000_000,
    properties: true,
  },
  { name: "guest", scenario: "sidecar-rax", options: {}, states: 200_000, properties: false },
];

/** A measurement. */
export interface ExploreBench {
  readonly workload: string;
  readonly states: number;
  readonly transitions: number;
  readonly states_per_second: number;
  readonly transitions_per_second: number;
  readonly seconds: number;
}

const MS = 1000;
const QUICK = 10;
/** The fastest of so many rounds counts: whatever else the host does only makes one slower. */
const ROUNDS = 3;

/** Measures a search under sequential consistency, in which nothing is left out but states that were seen. */
export function measureExplore(workload: ExploreWorkload, quick: boolean, now: () => number): ExploreBench {
  const { name, scenario, options } = workload;
  const states = quick ? workload.states / QUICK : workload.states;
  const rounds = Array.from({ length: ROUNDS }, () => {
    const system = buildSystem(scenarioNamed(scenario), {}, options);
    const engine = new Engine(system, "sc");
    const begin = now();
    const result = search(engine, {
      bounds: { ...DEFAULT_BOUNDS, states },
      reductions: REDUCTIONS.fingerprints,
      firstPreemptions: [],
      until: "never",
      properties: workload.properties ? system.properties.filter(({ when }) => when !== "cycle") : [],
    });
    return { result, seconds: (now() - begin) / MS };
  });
  const { result, seconds } = rounds.reduce((best, round) => round.seconds < best.seconds ? round : best);
  return {
    workload: name,
    states: result.states,
    transitions: result.transitions,
    states_per_second: result.states / seconds,
    transitions_per_second: result.transitions / seconds,
    seconds,
  };
}
