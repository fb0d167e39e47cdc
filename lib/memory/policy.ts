/**
 * Policies: behaviour on which people disagree, as named values that are chosen in one place (DESIGN rule 5).
 *
 * A policy is declared beside the code that obeys it. Its chosen value is a small number in the machine's shared memory,
 * so that every worker, and a dump, agrees on it.
 *
 * @module
 */
import { BadInput } from "./bad_input.ts";
import { suggestion } from "./nearest_name.ts";

/** What one value of a policy means and who claims it. */
export interface PolicyValue {
  /** The value's name on the command line. */
  readonly name: string;
  /** What happens under it, and the source of the claim. */
  readonly claim: string;
}

/** A named disagreement. */
export interface Policy<V extends string = string> {
  /** `area.question`, as on the command line. */
  readonly name: string;
  /** The question in one sentence. */
  readonly question: string;
  /** The values; the first is the default. */
  readonly values: readonly PolicyValue[];
  /** Position of this policy among all; its value is the byte at this place of the machine's policy area. */
  readonly index: number;
  /** Numbers of the values, for comparison in agents. */
  readonly is: { readonly [K in V]: number };
}

/** Most policies that a process can declare: the size in bytes of the machine's policy area. */
export const POLICIES_MAX = 128;

const all: Policy[] = [];

/**
 * Declares a policy. The first value is the default. Throws `TypeError` on a repeated name.
 *
 * @example
 * ```ts
 * const entry = policy("vtl.entry", "What a VTL entry leaves in the shared registers", {
 *   "shared-live": "the lower VTL's values (TLFS, VSM)",
 *   "vtl2-restored": "VTL2's own (openvmm 3360, first version)",
 * });
 * ```
 */
export function policy<V extends string>(
  name: string,
  question: string,
  values: { readonly [K in V]: string },
): Policy<V> {
  if (all.some((other) => other.name === name)) throw new TypeError(`Policy '${name}' is declared twice`);
  const names = Object.keys(values) as V[];
  const declared: Policy<V> = {
    name,
    question,
    values: names.map((value) => ({ name: value, claim: values[value] })),
    index: all.length,
    is: Object.fromEntries(names.map((value, number) => [value, number])) as { [K in V]: number },
  };
  if (all.length === POLICIES_MAX) throw new TypeError(`More than ${POLICIES_MAX} policies`);
  all.push(declared as unknown as Policy);
  return declared;
}

/**
 * Gives the policies the numbers that they have in another thread, whose policies are `names` in the order of their
 * numbers; the ones that only this thread knows come behind them. A policy's number follows the order in which modules
 * were loaded, which need not be the same in a worker as in the thread that made the machine.
 */
export function numberPolicies(names: readonly string[]): void {
  let next = names.length;
  for (const policy of all) {
    const known = names.indexOf(policy.name);
    (policy as { index: number }).index = known >= 0 ? known : next++;
  }
  all.sort((a, b) => a.index - b.index);
}

/** The names of all declared policies, in the order of their numbers. */
export function policyOrder(): string[] {
  return all.map(({ name }) => name);
}

/** Policies that this thread has looked at, by number; see {@linkcode takeConsulted}. */
const consulted = new Uint8Array(POLICIES_MAX);

/** The number of the chosen value of `policy` in the policy area at byte offset `area`. Agents look at it nowhere else. */
export function policyAt(u8: Uint8Array, area: number, policy: Policy): number {
  consulted[policy.index] = 1;
  return u8[area + policy.index];
}

/**
 * The names of the policies that this thread has looked at since this was last asked. Two runs of the same agents whose
 * choices differ only in policies that neither looked at are the same run.
 */
export function takeConsulted(): string[] {
  const names = all.filter(({ index }) => consulted[index] !== 0).map(({ name }) => name);
  consulted.fill(0);
  return names;
}

/**
 * Runs `run`, whose looks at policies do not count for {@linkcode takeConsulted}: the caller knows when what was seen makes
 * a difference, and looks again then.
 */
export function unnoted<T>(run: () => T): T {
  const before = consulted.slice();
  try {
    return run();
  } finally {
    consulted.set(before);
  }
}

/** All declared policies, by name. */
export function policies(): readonly Policy[] {
  return [...all].sort((a, b) => a.name < b.name ? -1 : 1);
}

/** The policy called `name`. Throws {@linkcode BadInput} that suggests the nearest name when there is none. */
export function policyNamed(name: string): Policy {
  const found = all.find((candidate) => candidate.name === name);
  if (!found) throw new BadInput(`Unknown policy "${name}"${suggestion(name, all.map((known) => known.name))}`);
  return found;
}

/** The number of the value called `value`. Throws {@linkcode BadInput} that lists the values when there is none. */
export function policyValue(policy: Policy, value: string): number {
  const number = policy.values.findIndex((candidate) => candidate.name === value);
  if (number < 0) {
    const known = policy.values.map((candidate) => candidate.name);
    throw new BadInput(`Policy "${policy.name}" has no value "${value}", expected ${known.join(", ")}`);
  }
  return number;
}
