/**
 * The commands `bench exits` and `bench guest`.
 *
 * @module
 */

import { type BenchResult, measure, workloads } from "../inspect/bench/bench.ts";
import { BENCH_PLATFORMS } from "../inspect/bench/workloads.ts";
import { type Command, command } from "./command.ts";
import { EXIT } from "./exit_codes.ts";
import { toggle, word } from "./flags.ts";
import type { Printer } from "./printer.ts";

const FLAGS = {
  Machine: { platform: word(BENCH_PLATFORMS, 'who handles an exit; see "exitbox list platforms"') },
  Measurement: { quick: toggle("a tenth of the time, less exact") },
  Results: { json: toggle("one JSON array on standard output") },
} as const;

const DETAILS = [
  "rate: of one VP. cost: nanoseconds from one guest instruction to the next, the median of nine rounds. limit: what " +
  "writing one 256-byte message costs here, by the fastest of three ways, measured between those rounds. ratio: cost " +
  "divided by limit.",
];

/** Decimals of costs and ratios. */
const DECIMALS = 1;
const PER_MILLION = 1e6;

function print(results: readonly BenchResult[], json: boolean, printer: Printer): void {
  if (json) return printer.json(results);
  printer.table(
    [
      { title: "platform", align: "left" },
      { title: "workload", align: "left" },
      { title: "rate", align: "right" },
      { title: "cost", align: "right" },
      { title: "limit", align: "right" },
      { title: "ratio", align: "right" },
    ],
    results.map(({ platform, workload, exits_per_second, instructions_per_second, cost_ns, limit_ns, ratio }) => [
      platform,
      workload,
      exits_per_second === undefined
        ? `${(instructions_per_second! / PER_MILLION).toFixed(DECIMALS)} M instr/s`
        : `${(exits_per_second / PER_MILLION).toFixed(2)} M exits/s`,
      `${cost_ns.toFixed(DECIMALS)} ns`,
      limit_ns === null ? "-" : `${limit_ns.toFixed(DECIMALS)} ns`,
      ratio === null ? "-" : ratio.toFixed(DECIMALS),
    ]),
  );
}

/** The command `bench exits`. */
export const benchExitsCommand: Command = command({
  name: "bench exits",
  summary: "measure what exits cost, beside the raw limit of the host",
  examples: [
    ["exitbox bench exits", "ports, CPUID, MSR, device memory and HLT, through VTL2"],
    ["exitbox bench exits --platform bare", "the same on the reference machine"],
    ["exitbox bench exits --quick --json", "a short measurement as one JSON array"],
  ],
  operands: null,
  flags: FLAGS,
  details: DETAILS,
  run({ values, printer }) {
    print(workloads("exits").map((workload) => measure(values.platform, workload, values.quick)), values.json, printer);
    return EXIT.CLEAN;
  },
});

/** The command `bench guest`. */
export const benchGuestCommand: Command = command({
  name: "bench guest",
  summary: "measure how fast a guest computes",
  examples: [
    ["exitbox bench guest", "a generator of 64-bit numbers with a store and a branch"],
    ["exitbox bench guest --platform bare", "the same on the reference machine"],
    ["exitbox bench guest --quick --json", "a short measurement as one JSON array"],
  ],
  operands: null,
  flags: FLAGS,
  details: DETAILS,
  run({ values, printer }) {
    print(workloads("guest").map((workload) => measure(values.platform, workload, values.quick)), values.json, printer);
    return EXIT.CLEAN;
  },
});
