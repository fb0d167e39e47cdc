/**
 * Scenarios: the published problems, and users' own, as data. A scenario says what is run, which policies people disagree
 * about, what has to hold, and within which bounds; from a choice of policies and options it makes a system to explore.
 *
 * A scenario's options are part of its name where they differ from their defaults: `sidecar-completion:vps=3,rounds=1`.
 *
 * @module
 */
import type { SearchBounds } from "../explore/exhaustive.ts";
import type { MemoryModel, System } from "../explore/system.ts";
import { BadInput } from "../memory/bad_input.ts";
import { alternatives } from "../memory/nearest_name.ts";
import { policyNamed, policyValue } from "../memory/policy.ts";

/** A policy that a scenario varies. */
export interface VariedPolicy {
  /** Its name. */
  readonly policy: string;
  /** The values that it takes in the matrix; the first is the one for which nothing else is asked. */
  readonly values: readonly string[];
}

/** Something else that can be chosen, such as the number of processors. */
export interface ScenarioOption {
  /** Its name. */
  readonly name: string;
  /** What it means, with the unit. */
  readonly meaning: string;
  /** What it can be. */
  readonly values: readonly string[];
  /** The one for which nothing else is asked. */
  readonly default: string;
}

/** A chosen value by name: of policies, or of options. */
export type Choices = Readonly<Record<string, string>>;

/** A property by name, with the sentence that it enforces. */
export interface NamedProperty {
  /** Its name on the command line. */
  readonly name: string;
  /** What has to hold. */
  readonly sentence: string;
}

/** What the matrix covers. */
export interface Matrix {
  /** Choices of options, each searched with every combination of policies; a row sums them up. */
  readonly parts: readonly Choices[];
  /** Each is a row of its own. */
  readonly memoryModels: readonly MemoryModel[];
  /** Bounds of each search. Those that are absent are the explorer's. */
  readonly bounds: Partial<SearchBounds>;
}

/** A scenario. */
export interface Scenario {
  /** Lower-case words with hyphens; of a user's file, its path. */
  readonly name: string;
  /** What it shows, in one line. */
  readonly summary: string;
  /** The same at length: paragraphs. */
  readonly shows: readonly string[];
  /** Where the problem was published. */
  readonly source: string;
  /** What people disagree about. */
  readonly policies: readonly VariedPolicy[];
  /** What else can be chosen. */
  readonly options: readonly ScenarioOption[];
  /** Every property that any of its systems checks. */
  readonly properties: readonly NamedProperty[];
  /** Memory models for which it means something; the first is the one for which nothing else is asked. */
  readonly memoryModels: readonly MemoryModel[];
  /** Bounds of one exploration for which nothing else is asked. Those that are absent are the explorer's. */
  readonly bounds: Partial<SearchBounds>;
  /** What the matrix covers. */
  readonly matrix: Matrix;
  /**
   * Makes the system for a choice. `policies` has a value for every policy, `options` for every option of the scenario;
   * the same choices make the same initial state in every process. The system's name is `system`.
   */
  build(policies: Choices, options: Choices, system: string): System;
}

const OPTIONS = ":";

/** A scenario's name with the options that differ from their defaults. */
export function systemName(scenario: Scenario, options: Choices): string {
  const chosen = scenario.options
    .filter(({ name, default: usual }) => (options[name] ?? usual) !== usual)
    .map(({ name }) => `${name}=${options[name]}`);
  return chosen.length === 0 ? scenario.name : `${scenario.name}${OPTIONS}${chosen.join(",")}`;
}

/** Splits a name as {@linkcode systemName} writes it: the scenario's, and the text of its options. */
export function splitSystemName(name: string): { readonly scenario: string; readonly options: string } {
  const at = name.search(/:(?=[^:/\\]*$)/);
  return at < 0 ? { scenario: name, options: "" } : { scenario: name.slice(0, at), options: name.slice(at + 1) };
}

/** Every option of a scenario with its value, from a text such as `vps=3,rounds=1`. Throws {@linkcode BadInput}. */
export function parseOptions(scenario: Scenario, text: string): Choices {
  const given: Record<string, string> = {};
  for (const part of text === "" ? [] : text.split(",")) {
    const [name, value, more] = part.split("=");
    if (value === undefined || more !== undefined) {
      throw new BadInput(`"${part}" is not an option, expected NAME=VALUE`);
    }
    if (Object.hasOwn(given, name)) throw new BadInput(`Option "${name}" is given twice`);
    given[name] = value;
  }
  return completeOptions(scenario, given);
}

/** Every option of a scenario, those that are not given with their defaults. Throws {@linkcode BadInput}. */
export function completeOptions(scenario: Scenario, given: Choices): Choices {
  for (const [name, value] of Object.entries(given)) {
    const option = scenario.options.find((candidate) => candidate.name === name);
    if (option === undefined) {
      const hint = alternatives(name, scenario.options.map((known) => known.name));
      throw new BadInput(`Scenario "${scenario.name}" has no option "${name}"${hint}`);
    }
    if (!option.values.includes(value)) {
      throw new BadInput(`Option "${name}" has no value "${value}", expected ${option.values.join(", ")}`);
    }
  }
  return Object.fromEntries(scenario.options.map(({ name, default: usual }) => [name, given[name] ?? usual]));
}

/** Every policy of a scenario, those that are not given with their first values. Throws {@linkcode BadInput}. */
export function completePolicies(scenario: Scenario, given: Choices): Choices {
  for (const [name, value] of Object.entries(given)) {
    policyValue(policyNamed(name), value);
    const varied = scenario.policies.find(({ policy }) => policy === name);
    if (varied === undefined) {
      const known = scenario.policies.map(({ policy }) => policy);
      throw new BadInput(`Scenario "${scenario.name}" does not vary policy "${name}", only ${known.join(", ")}`);
    }
    if (!varied.values.includes(value)) {
      throw new BadInput(
        `Scenario "${scenario.name}" varies policy "${name}" over ${varied.values.join(", ")}, not "${value}"`,
      );
    }
  }
  return Object.fromEntries(scenario.policies.map(({ policy, values }) => [policy, given[policy] ?? values[0]]));
}

/** The system for a choice; what is not given has its default. Throws {@linkcode BadInput}. */
export function buildSystem(scenario: Scenario, policies: Choices = {}, options: Choices = {}): System {
  const chosen = completeOptions(scenario, options);
  return scenario.build(completePolicies(scenario, policies), chosen, systemName(scenario, chosen));
}

/** Every combination of the values of a scenario's policies, the last policy changing fastest. */
export function combinations(scenario: Scenario): Choices[] {
  let all: Choices[] = [{}];
  for (const { policy, values } of scenario.policies) {
    all = all.flatMap((chosen) => values.map((value) => ({ ...chosen, [policy]: value })));
  }
  return all;
}
