/**
 * Flags of the commands that explore.
 *
 * @module
 */

import type { Shard } from "../explore/shard.ts";
import { BadInput } from "../memory/bad_input.ts";
import { REDUCTIONS, SCHEDULES } from "../scenarios/exploration.ts";
import {
  type Flag,
  integer,
  optionalInteger,
  optionalSeconds,
  policyChoices,
  text,
  texts,
  toggle,
  word,
} from "./flags.ts";
import { parseInteger } from "./values.ts";

/** Most workers of one search. */
const JOBS_MAX = 64;
/** Most shards of one search. */
const SHARDS_MAX = 100_000;
/** Largest seed: the random numbers have 32 bits of state. */
export const SEED_MAX = 0xffff_ffff;

/** `--policy`. */
export const scenarioPolicyFlag: Flag<ReadonlyMap<string, string>> = policyChoices(
  'a value of a policy that the scenario varies; see "exitbox list scenarios"',
);

/** `--preemptions`: undefined when it is not given. */
export const preemptionsFlag: Flag<number | undefined> = {
  placeholder: "N|none",
  repeats: false,
  meaning: "context switches away from an agent that could go on, in one schedule (what the scenario says, else none)",
  default: null,
  parse: (given, flag) => {
    if (given.length === 0) return undefined;
    return given[0] === "none" ? Infinity : parseInteger(given[0], flag);
  },
};

/** `--shard`. */
const shardFlag: Flag<Shard | undefined> = {
  placeholder: "I/N",
  repeats: false,
  meaning: "do the I-th of N parts of the search; merge joins them",
  default: null,
  parse: (given, flag) => {
    if (given.length === 0) return undefined;
    const [index, count, more] = given[0].split("/");
    if (count === undefined || more !== undefined) {
      throw new BadInput(`${flag}: "${given[0]}" is not a shard, expected I/N such as 2/8`);
    }
    const of = parseInteger(count, flag, { min: 1, max: SHARDS_MAX });
    return { index: parseInteger(index, flag, { min: 1, max: of }), count: of };
  },
};

/** `--jobs`, with what it does without. */
export function jobsFlag(preset: string): Flag<number> {
  return integer("N", "workers that share the search", preset, { min: 1, max: JOBS_MAX });
}

/** `--out`. */
export const outFlag: Flag<string | undefined> = text("DIR", "write each schedule to this folder, with its table");

/** `--json`. */
export const jsonFlag: Flag<boolean> = toggle("one JSON object on standard output");

const reductionNames = Object.keys(REDUCTIONS) as [keyof typeof REDUCTIONS, ...(keyof typeof REDUCTIONS)[]];

/** The flags of `explore`. */
export const EXPLORE_FLAGS = {
  Scenario: {
    policy: scenarioPolicyFlag,
    property: texts("NAME", "check this property; all of the scenario's unless given"),
    "memory-model": word(["sc", "tso"], "sequential consistency, or x86-TSO: stores that others see late"),
  },
  Search: {
    preemptions: preemptionsFlag,
    scheduler: word(
      ["exhaustive", "pct", "random"],
      "every schedule, or schedules drawn by priorities or step by step",
    ),
    seed: integer("N", "pct, random: repeats the same schedules", "1", { max: SEED_MAX }),
    schedules: integer("N", "pct, random: how many are drawn", `${SCHEDULES}`, { min: 1 }),
    states: optionalInteger("N", "exhaustive: end after N states", { min: 1 }),
    reductions: word(reductionNames, "exhaustive: what may be left out because it shows nothing new"),
    "time-limit": optionalSeconds("S", "end after S seconds"),
    jobs: jobsFlag("1"),
    shard: shardFlag,
  },
  Results: { out: outFlag, json: jsonFlag },
} as const;
