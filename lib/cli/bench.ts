/**
 * The commands `bench exits`, `bench guest` and `bench boot`.
 *
 * @module
 */

import { type BenchResult, measure, measureBelowOpenhcl } from "../inspect/bench/bench.ts";
import { measureBoot, type SidecarBoot } from "../inspect/bench/sidecar_boot.ts";
import { BENCH_PLATFORMS, type BenchPlatform, workloadsOf } from "../inspect/bench/workloads.ts";
import { OWN_WORKERS_MAX } from "../machine/seats.ts";
import { type Command, command } from "./command.ts";
import { EXIT } from "./exit_codes.ts";
import { toggle, word } from "./flags.ts";
import { paravisorConfig, paravisorFlag } from "./host_flags.ts";
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
  "On sev-es and snp an exit goes through #VC, the built-in kernel's handler, VMGEXIT and the host, all in one worker. limit " +
  "is the same exit on bare and the handler's instructions, each at what it costs on bare (in JSON: bare_ns, " +
  "handler_instructions, instruction_ns); of a guest that computes, an instruction on bare.",
];

/** A guest that never leaves computes alike on both sides of a hand-over. */
const GUEST_PLATFORMS = ["kernel", "bare", "sev-es", "snp"] as const;

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
  for (const workload of workloadsOf(of, platform)) {
    printer.progress(`${platform}: ${workload.name}`);
    results.push(await measure(platform, workload, quick));
  }
  return results;
}

/** Decimals of costs and ratios. */
const DECIMALS = 1;
const PER_MILLION = 1e6;
/** A rate below this is written out, in exits per second. */
const SMALL_RATE = 1e4;

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
      : rateText(exits_per_second),
    `${cost_ns.toFixed(DECIMALS)} ns`,
    limit_ns === null ? "-" : `${limit_ns.toFixed(DECIMALS)} ns`,
    ratio === null ? "-" : ratio.toFixed(DECIMALS),
  ];
}

/** Exits per second: in millions, unless two decimals would leave nothing of it. */
function rateText(rate: number): string {
  return rate < SMALL_RATE ? `${Math.round(rate)} exits/s` : `${(rate / PER_MILLION).toFixed(2)} M exits/s`;
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
    ["exitbox bench exits --platform snp", "through the guest's #VC handler and a host that it does not trust"],
    ["exitbox bench exits --quick --json", "a short measurement as one JSON array"],
  ],
  operands: null,
  flags: { Machine: { platform: platformWord(BENCH_PLATFORMS), paravisor: paravisorFlag }, ...FLAGS },
  details: [
    ...DETAILS,
    "With --paravisor openhcl an exit goes from VMPL2 to OpenHCL at VMPL0 by way of the host, twice. The rows with policies " +
    "copy the VMSA to a page that the host can read (openvmm pull request 3386); limit is the same exit in the row that never " +
    "does.",
  ],
  async run({ values, printer }) {
    const { paravisor } = paravisorConfig(values.paravisor, values.platform, "bench exits");
    const results = paravisor === undefined
      ? await measureAll("exits", values.platform, values.quick, printer)
      : measureBelowOpenhcl(values.quick, (workload) => printer.progress(`snp, openhcl: ${workload}`));
    print(results, values.json, printer);
    return EXIT.CLEAN;
  },
});

/** The command `bench guest`. */
export const benchGuestCommand: Command = command({
  name: "bench guest",
  summary: "measure how fast a guest computes",
  examples: [
    ["exitbox bench guest", "a generator of 64-bit numbers with a store and a branch"],
    ["exitbox bench guest --platform snp", "the same under an RMP, beside bare"],
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

/** Sidecar processors of the rows of `bench boot`. */
const BOOT_ROWS = [1, 2, 4, 16, 64] as const;
const BOOT_ROWS_QUICK = [1, 4] as const;
/** Milliseconds for which each row's exits are counted. */
const BOOT_MS = 1000;
const BOOT_MS_QUICK = 100;
const BYTES_PER_MIB = 1 << 20;

/** The command `bench boot`. */
export const benchBootCommand: Command = command({
  name: "bench boot",
  summary: "measure how sidecar processors come up, and how many exits they make together",
  examples: [
    ["exitbox bench boot", "1, 2, 4, 16 and 64 sidecar processors on the cores that there are"],
    ["exitbox bench boot --quick", "1 and 4 of them, for a moment"],
    ["exitbox bench boot --json", "the same as one JSON array"],
  ],
  operands: null,
  flags: FLAGS,
  details: [
    "boot: until every sidecar processor has answered a command. memory: most that the process had resident, one machine " +
    "after the other in the same process. rate: port exits of all of them; least and most: of one. of best: the rate " +
    "beside that of the best row. Up to " +
    `${OWN_WORKERS_MAX} VPs have a worker each; more take turns on one per core, the VMM apart from those whom it serves.`,
  ],
  async run({ values, printer }) {
    const rows: SidecarBoot[] = [];
    for (const count of values.quick ? BOOT_ROWS_QUICK : BOOT_ROWS) {
      printer.progress(`boot: ${count} sidecar processors`);
      rows.push(await measureBoot(count, values.quick ? BOOT_MS_QUICK : BOOT_MS));
    }
    const best = Math.max(...rows.map(({ exits_per_second }) => exits_per_second));
    if (values.json) printer.json(rows.map((row) => ({ ...row, of_best: row.exits_per_second / best })));
    else printBoot(rows, best, printer);
    return EXIT.CLEAN;
  },
});

function printBoot(rows: readonly SidecarBoot[], best: number, printer: Printer): void {
  const titles = ["sidecar VPs", "workers", "boot", "memory", "rate", "least", "most", "of best"];
  const perSecond = (rate: number): string => `${rate.toFixed(0)}/s`;
  printer.table(
    titles.map((title): Column => ({ title, align: "right" })),
    rows.map((row) => [
      String(row.sidecar_vps),
      String(row.workers),
      `${row.boot_seconds.toFixed(2)} s`,
      `${(row.rss_bytes / BYTES_PER_MIB).toFixed(0)} MiB`,
      perSecond(row.exits_per_second),
      perSecond(row.least_exits_per_second),
      perSecond(row.most_exits_per_second),
      (row.exits_per_second / best).toFixed(2),
    ]),
  );
}
