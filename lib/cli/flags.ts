/**
 * Flags of a command: what each is called, takes, means and defaults to, declared once. Parsing, help and the types that
 * a command's `run` sees derive from the declaration.
 *
 * @module
 */

import {
  parseInteger,
  parsePolicies,
  parseSeconds,
  parseSize,
  parseU64,
  parseVpList,
  parseVpTime,
  parseWord,
  type Range,
  type VpTime,
} from "./values.ts";

/** One flag whose value is of type `T`. */
export interface Flag<T> {
  /** What stands for the value in the help (`N`, `FILE`), or null for a switch. */
  readonly placeholder: string | null;
  /** Whether it may be given more than once. */
  readonly repeats: boolean;
  /** What it means, with the unit, for the help. */
  readonly meaning: string;
  /** The default as one would write it, or null when the command does without. */
  readonly default: string | null;
  /** The value from the occurrences (the default when there is none); throws `BadInput` that names the flag. */
  readonly parse: (texts: readonly string[], flag: string) => T;
}

/** Flags under their group's title, in the order of the help. */
export interface FlagGroups {
  readonly [title: string]: { readonly [name: string]: Flag<unknown> };
}

/** All flags of the groups as one record. */
type Merged<G extends FlagGroups> = { [Title in keyof G]: (group: G[Title]) => void } extends
  Record<string, (group: infer All) => void> ? All : never;

/** The values that a command with the groups `G` receives, by flag name. */
export type FlagValues<G extends FlagGroups> = {
  readonly [Name in keyof Merged<G>]: Merged<G>[Name] extends Flag<infer T> ? T : never;
};

/** A flag without a value: true when given. */
export function toggle(meaning: string): Flag<boolean> {
  return { placeholder: null, repeats: false, meaning, default: null, parse: (texts) => texts.length > 0 };
}

/** A value of any kind that occurs at most once; undefined when it has no default and is not given. */
function single<T>(
  placeholder: string,
  meaning: string,
  preset: string | null,
  parse: (text: string, flag: string) => T,
): Flag<T | undefined> {
  return {
    placeholder,
    repeats: false,
    meaning,
    default: preset,
    parse: (texts, flag) => texts.length === 0 ? undefined : parse(texts[0], flag),
  };
}

/** A value of any kind with a default, which makes it never undefined. */
function preset<T>(flag: Flag<T | undefined>): Flag<T> {
  if (flag.default === null) throw new TypeError("A flag without a default may be undefined");
  return flag as Flag<T>;
}

/** Free text, such as a file. */
export function text(placeholder: string, meaning: string): Flag<string | undefined> {
  return single(placeholder, meaning, null, (value) => value);
}

/** Free text that may be given several times, such as files. */
export function texts(placeholder: string, meaning: string): Flag<readonly string[]> {
  return { placeholder, repeats: true, meaning, default: null, parse: (values) => values };
}

/** One of several words; the first is the default. */
export function word<const W extends string>(words: readonly [W, ...W[]], meaning: string): Flag<W> {
  return preset(single(words.join("|"), meaning, words[0], (value, flag) => parseWord(value, flag, words)));
}

/** One of several words, which may be left out. */
export function optionalWord<W extends string>(words: readonly W[], meaning: string): Flag<W | undefined> {
  return single(words.join("|"), meaning, null, (value, flag) => parseWord(value, flag, words));
}

/** A whole number with a default. */
export function integer(placeholder: string, meaning: string, value: string, range: Range): Flag<number> {
  return preset(single(placeholder, meaning, value, (text, flag) => parseInteger(text, flag, range)));
}

/** A whole number that may be left out. */
export function optionalInteger(placeholder: string, meaning: string, range: Range): Flag<number | undefined> {
  return single(placeholder, meaning, null, (text, flag) => parseInteger(text, flag, range));
}

/** An unsigned number of up to 64 bits with a default, such as a seed. */
export function u64(placeholder: string, meaning: string, value: string): Flag<bigint> {
  return preset(single(placeholder, meaning, value, parseU64));
}

/** An unsigned number of up to 64 bits that may be left out, such as an address. */
export function optionalU64(placeholder: string, meaning: string): Flag<bigint | undefined> {
  return single(placeholder, meaning, null, parseU64);
}

/** A size in bytes with a default. */
export function size(placeholder: string, meaning: string, value: string, range: Range): Flag<number> {
  return preset(single(placeholder, meaning, value, (text, flag) => parseSize(text, flag, range)));
}

/** A time in seconds that may be left out. */
export function optionalSeconds(placeholder: string, meaning: string): Flag<number | undefined> {
  return single(placeholder, meaning, null, parseSeconds);
}

/** `NAME=VALUE` of declared policies, any number of times. */
export function policyChoices(meaning: string): Flag<ReadonlyMap<string, string>> {
  return { placeholder: "NAME=VALUE", repeats: true, meaning, default: null, parse: parsePolicies };
}

/** Numbers of VPs up to `max`, such as `1,3-5`; undefined when not given. */
export function vpList(meaning: string, max: number): Flag<readonly number[] | undefined> {
  return single("LIST", meaning, null, (text, flag) => parseVpList(text, flag, max));
}

/** `VP@SECONDS`, any number of times. */
export function vpTimes(meaning: string): Flag<readonly VpTime[]> {
  const parse = (texts: readonly string[], flag: string) => texts.map((text) => parseVpTime(text, flag));
  return { placeholder: "VP@SECONDS", repeats: true, meaning, default: null, parse };
}
