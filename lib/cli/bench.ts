/**
 * The commands `bench exits` and `bench guest`.
 *
 * @module
 */

import { type BenchResult, measure, workloads } from "../inspect/bench/bench.ts";
import { BENCH_PLATFORMS, type BenchPlatform } from "../inspect/bench/workloads.ts";
import { type Command, command } from "./command.ts";
import { EXIT } from "./exit_codes.ts";
import { toggle, word } from "./flags.ts";
import type { Column, Printer } from "./printer.ts";

const FLAGS = {
  Measurement: { quick: toggle("a tenth of the time, less exact") },
  Results: { json: toggle("one JSON array on standard output") },
} as const;

const DETAILS = [
  "rate: of one VP. cost: nanoseconds from one guest instruction to the next, the median of nine rounds. limit: what " +
  "writing one 256-byte message costs here, by the fastest of three ways, measured between those rounds. ratio: cost " +
  "divided by limit.",
  "On sidecar, VMM and VP run in two workers, and limit is a round trip of 256 bytes each way between them; cost and limit " +
  "are medians over samples of 16. wake-ups: how often one of the two slept in an exit. parked: the same with workers " +
  "that sleep instead of spinning.",
];

/** A guest that never leaves computes alike on both sides of a hand-over. */
const GUEST_PLATFORMS = ["kernel", "bare"] as const;

function platformWord<const P extends string>(platforms: readonly [P, ...P[]]) {
  return word(platforms, 'who handles an exit; see "exitbox list platforms"');
}

/** Measures one workload after the other. */
async function measureAll(
  of: "exits" | "guest",
  platform: BenchPlatform,
  quick: boolean,
  printer: Printer,
): Promise<BenchResult[]> {
  const results: BenchResult[] = [];
  for (const workload of workloads(of)) {
    printer.progress(`${platform}: ${workload.name}`);
    results.push(await measure(platform, workload, quick));
  }
  return results;
}

/** Decimals of costs and ratios. */
const DECIMALS = 1;
const PER_MILLION = 1e6;

function print(results: readonly BenchResult[], json: boolean, printer: Printer): void {
  if (json) return printer.json(results);
  const apart = results.some(({ workers }) => workers !== undefined);
  const right = (title: string): Column => ({ title, align: "right" });
  printer.table(
    [
      { title: "platform", align: "left" },
      { title: "workload", align: "left" },
      ...["rate", "cost", "limit", "ratio"].map(right),
      ...(apart ? ["VMM", "VP", "wake-ups", "parked", "wake-ups"].map(right) : []),
    ],
    results.map((result) => [...columns(result), ...(apart ? pairColumns(result) : [])]),
  );
}

/** What every result has. */
function columns(result: BenchResult): string[] {
  const { platform, workload, exits_per_second, instructions_per_second, cost_ns, limit_ns, ratio } = result;
  return [
    platform,
    workload,
    exits_per_second === undefined
      ? `${(instructions_per_second! / PER_MILLION).toFixed(DECIMALS)} M instr/s`
      : `${(exits_per_second / PER_MILLION).toFixed(2)} M exits/s`,
    `${cost_ns.toFixed(DECIMALS)} ns`,
    limit_ns === null ? "-" : `${limit_ns.toFixed(DECIMALS)} ns`,
    ratio === null ? "-" : ratio.toFixed(DECIMALS),
  ];
}

/** What a result of two workers has beside that. */
function pairColumns({ workers, wakeups_per_exit, parked_cost_ns, parked_wakeups_per_exit }: BenchResult): string[] {
  return [
    workers!.vmm,
    workers!.vp,
    wakeups_per_exit!.toFixed(2),
    `${parked_cost_ns!.toFixed(0)} ns`,
    parked_wakeups_per_exit!.toFixed(2),
  ];
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
  flags: { Machine: { platform: platformWord(BENCH_PLATFORMS) }, ...FLAGS },
  details: DETAILS,
  async run({ values, printer }) {
    print(await measureAll("exits", values.platform, values.quick, printer), values.json, printer);
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
  flags: { Machine: { platform: platformWord(GUEST_PLATFORMS) }, ...FLAGS },
  details: DETAILS,
  async run({ values, printer }) {
    print(await measureAll("guest", values.platform, values.quick, printer), values.json, printer);
    return EXIT.CLEAN;
  },
});
