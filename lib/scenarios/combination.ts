/**
 * One combination of policies of a scenario's matrix, under one memory model: every part is searched once for all
 * properties, and what was found is minimised.
 *
 * @module
 */
import { Engine } from "../explore/engine.ts";
import { DEFAULT_BOUNDS, type Reductions } from "../explore/exhaustive.ts";
import { minimise, type Minimised } from "../explore/minimise.ts";
import { record, type Schedule, withPolicies } from "../explore/schedule.ts";
import { search, type SearchProgress } from "../explore/search.ts";
import type { MemoryModel } from "../explore/system.ts";
import type { Verdict } from "../explore/verdict.ts";
import { takeConsulted } from "../memory/policy.ts";
import { buildSystem, type Choices, type Scenario } from "./scenario.ts";

/** What the matrix says of one property. */
export interface PropertyResult {
  /** The property's name. */
  readonly property: string;
  /** Of all parts together. */
  readonly verdict: Verdict;
  /** What is wrong; "" unless violated. */
  readonly kind: string;
  /** States of all parts' searches together. */
  readonly states: number;
  /** Context switches of the schedule; null unless violated. */
  readonly switches: number | null;
  /** Steps of the schedule; null unless violated. */
  readonly steps: number | null;
  /** Seconds that all parts' searches took together. */
  readonly seconds: number;
  /** The cheapest schedule that violates it; null unless violated. */
  readonly schedule: Schedule | null;
}

/** What the matrix says of one combination. */
export interface CombinationResult {
  /** Every policy of the scenario and its value. */
  readonly policies: Choices;
  /** The memory model under which it was searched. */
  readonly memoryModel: MemoryModel;
  /** The policies that made a difference to the agents: another combination with the same values of these is the same. */
  readonly consulted: readonly string[];
  /** In the order of the scenario's properties. */
  readonly properties: readonly PropertyResult[];
}

/** What one part says of one property. */
interface PartResult {
  readonly property: string;
  readonly violation: Minimised | undefined;
  readonly exhausted: boolean;
  readonly states: number;
  readonly seconds: number;
  readonly schedule: Schedule | undefined;
}

/**
 * The spaces of a matrix are small: finding out which steps are independent costs more than it saves, and a search that
 * only remembers states has the states of the space as its number.
 */
const REDUCTIONS: Reductions = { fingerprints: true, persistentSets: false, sleepSets: false };
const MS = 1000;

/**
 * Searches a combination. `progress` is asked every few thousand steps, and true ends the search with what was found.
 * `now` is the time in milliseconds, for the durations that are reported.
 */
export function searchCombination(
  scenario: Scenario,
  policies: Choices,
  memoryModel: MemoryModel,
  now: () => number,
  progress?: (progress: SearchProgress) => boolean,
): CombinationResult {
  const consulted = new Set<string>();
  const parts = scenario.matrix.parts.map((options) => {
    const part = findPart(scenario, policies, options, memoryModel) ??
      searchPart(scenario, policies, options, memoryModel, now, progress);
    for (const name of part.consulted) consulted.add(name);
    return part.results;
  });
  return { policies, memoryModel, consulted: [...consulted], properties: joinParts(scenario, parts, policies) };
}

/** A part that was searched under some choice of policies. */
interface SearchedPart {
  readonly options: Choices;
  readonly memoryModel: MemoryModel;
  readonly policies: Choices;
  /** The policies that made a difference to its agents. */
  readonly consulted: readonly string[];
  readonly results: readonly PartResult[];
}

/** Parts that this thread has searched: combinations that differ only in policies that a part never looks at share it. */
const searched = new WeakMap<Scenario, SearchedPart[]>();

function findPart(
  scenario: Scenario,
  policies: Choices,
  options: Choices,
  memoryModel: MemoryModel,
): SearchedPart | undefined {
  return searched.get(scenario)?.find((part) =>
    part.options === options && part.memoryModel === memoryModel &&
    part.consulted.every((name) => part.policies[name] === policies[name])
  );
}

function searchPart(
  scenario: Scenario,
  policies: Choices,
  options: Choices,
  memoryModel: MemoryModel,
  now: () => number,
  progress?: (progress: SearchProgress) => boolean,
): SearchedPart {
  takeConsulted();
  const begin = now();
  const system = buildSystem(scenario, policies, options);
  const engine = new Engine(system, memoryModel);
  const bounds = { ...DEFAULT_BOUNDS, ...scenario.matrix.bounds };
  const { properties } = system;
  const result = search(engine, {
    bounds,
    reductions: REDUCTIONS,
    firstPreemptions: [], // minimising finds the cheapest schedule whatever was found first
    ...(progress === undefined ? {} : { progress }),
  });
  const seconds = (now() - begin) / MS;
  const results = properties.map((property): PartResult => {
    const found = result.violations.find((violation) => violation.property === property);
    const violation = found === undefined ? undefined : minimise(engine, found);
    return {
      property: property.name,
      violation,
      exhausted: result.exhausted,
      states: result.states,
      seconds,
      schedule: violation && record(engine, violation.choices, of(violation)),
    };
  });
  const consulted = takeConsulted().filter((name) => Object.hasOwn(policies, name));
  const part = { options, memoryModel, policies, consulted, results };
  // What was interrupted says nothing about other combinations.
  if (!result.interrupted) searched.set(scenario, [...(searched.get(scenario) ?? []), part]);
  return part;
}

function of({ property, kind, cycleFrom }: Minimised): { property: string; kind: string; cycleFrom?: number } {
  return { property: property.name, kind, ...(cycleFrom === undefined ? {} : { cycleFrom }) };
}

/** Sums the parts up, in the order of the scenario's properties. */
function joinParts(
  scenario: Scenario,
  parts: readonly (readonly PartResult[])[],
  policies: Choices,
): PropertyResult[] {
  return scenario.properties.flatMap(({ name }): PropertyResult[] => {
    const results = parts.flat().filter(({ property }) => property === name);
    if (results.length === 0) return [];
    const best = results.filter(({ violation }) => violation !== undefined).sort(byCost)[0];
    const sum = (of: (result: PartResult) => number) => results.reduce((total, result) => total + of(result), 0);
    const held = results.every(({ exhausted }) => exhausted);
    return [{
      property: name,
      verdict: best !== undefined ? "violated" : held ? "holds" : "bound",
      kind: best?.violation?.kind ?? "",
      states: sum(({ states }) => states),
      switches: best?.violation?.switches ?? null,
      steps: best?.violation?.steps ?? null,
      seconds: sum(({ seconds }) => seconds),
      schedule: best?.schedule === undefined ? null : withPolicies(best.schedule, policies),
    }];
  });
}

function byCost({ violation: a }: PartResult, { violation: b }: PartResult): number {
  return a!.switches - b!.switches || a!.steps - b!.steps;
}

/** Whether a combination is the same run of the agents as one that was searched. */
export function sharesWith(done: CombinationResult, policies: Choices, memoryModel: MemoryModel): boolean {
  return done.memoryModel === memoryModel && done.consulted.every((name) => done.policies[name] === policies[name]);
}
