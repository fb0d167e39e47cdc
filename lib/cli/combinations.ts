/**
 * Combinations of policies of which the same is said, as few lines.
 *
 * @module
 */
import type { Choices } from "../scenarios/scenario.ts";

/** What is said of some combinations: those that take one of the values for each policy. */
export interface Said<T> {
  /** For each policy the values that it takes. */
  readonly values: readonly (readonly string[])[];
  /** The combinations themselves. */
  readonly of: readonly T[];
}

/** A heading and the combinations of which it is said. */
export interface Saying<T> {
  readonly text: string;
  readonly lines: readonly Said<T>[];
}

/**
 * Groups combinations by what is said of them, in the order in which each is first said, and joins those of a group that
 * differ in the values of one policy only.
 *
 * @param policies The policies' names in order.
 * @param combinations What has policies, all of them with a value for each.
 * @param text What is said of one.
 */
export function sayings<T>(
  policies: readonly string[],
  combinations: readonly (T & { readonly policies: Choices })[],
  text: (combination: T) => string,
): Saying<T>[] {
  const groups = new Map<string, Said<T>[]>();
  for (const combination of combinations) {
    const said = text(combination);
    const line = { values: policies.map((name) => [combination.policies[name]]), of: [combination] };
    groups.set(said, [...(groups.get(said) ?? []), line]);
  }
  return [...groups].map(([text, lines]) => ({ text, lines: joined(policies.length, lines) }));
}

/** Joins lines that differ in the values of one policy only, the last policies first. */
function joined<T>(policies: number, lines: readonly Said<T>[]): readonly Said<T>[] {
  let rest = lines;
  for (let k = policies - 1; k >= 0; k--) {
    const groups = new Map<string, Said<T>>();
    for (const line of rest) {
      const key = JSON.stringify(line.values.filter((_, other) => other !== k));
      const before = groups.get(key);
      if (before === undefined) {
        groups.set(key, line);
        continue;
      }
      const values = before.values.map((some, at) => at === k ? [...new Set([...some, ...line.values[k]])] : some);
      groups.set(key, { values, of: [...before.of, ...line.of] });
    }
    rest = [...groups.values()];
  }
  return rest;
}

/**
 * The combinations of which `is` says so, as few lines that may overlap: each line is as wide as it can be, so that what it
 * names is what matters.
 */
export function conditions<T>(
  policies: readonly string[],
  combinations: readonly (T & { readonly policies: Choices })[],
  is: (combination: T) => boolean,
): Said<T>[] {
  const keyOf = (values: readonly string[]) => JSON.stringify(values);
  const valuesOf = (combination: { readonly policies: Choices }) => policies.map((name) => combination.policies[name]);
  const said = new Map(combinations.map((combination) => [keyOf(valuesOf(combination)), is(combination)]));
  const all = policies.map((name) => [...new Set(combinations.map((combination) => combination.policies[name]))]);
  const inside = (box: readonly (readonly string[])[], values: readonly string[]) =>
    values.every((value, k) => box[k].includes(value));
  const covered = new Set<string>();
  const lines: Said<T>[] = [];
  for (const combination of combinations) {
    const values = valuesOf(combination);
    if (!said.get(keyOf(values)) || covered.has(keyOf(values))) continue;
    let box: readonly (readonly string[])[] = values.map((value) => [value]);
    for (let k = 0; k < policies.length; k++) {
      for (const value of all[k].filter((other) => !box[k].includes(other))) {
        const wider = box.map((some, at) => at === k ? [...some, value] : some);
        if (product(wider).every((inner) => said.get(keyOf(inner)) === true)) box = wider;
      }
    }
    const of = combinations.filter((other) => inside(box, valuesOf(other)));
    for (const other of of) covered.add(keyOf(valuesOf(other)));
    lines.push({ values: box, of });
  }
  return lines;
}

/** Every choice of one value of each. */
function product(box: readonly (readonly string[])[]): string[][] {
  return box.reduce<string[][]>((chosen, values) => chosen.flatMap((some) => values.map((v) => [...some, v])), [[]]);
}

/** The combinations of a line in words, without the policies that take every value of `all`. */
export function choiceText<T>(
  policies: readonly string[],
  { values }: Said<T>,
  all: readonly { readonly policies: Choices }[],
): string {
  const said = values.flatMap((some, k) => {
    const every = new Set(all.map(({ policies: chosen }) => chosen[policies[k]]));
    return some.length === every.size && every.size > 1 ? [] : [`${policies[k]}=${some.join("|")}`];
  });
  return said.length === 0 ? "every combination" : said.join(" ");
}
