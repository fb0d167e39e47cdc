/**
 * The command `merge`: the results of all shards of one search as one.
 *
 * @module
 */

import { mergeReports, type Report } from "../explore/report.ts";
import { parseJson } from "../memory/json_document.ts";
import { type Command, command } from "./command.ts";
import { jsonFlag, outFlag } from "./explore_flags.ts";
import { fileName, grouped, printViolation, reportCode, writeSchedule } from "./explore_output.ts";
import type { Printer } from "./printer.ts";
import { readText, systemOfSchedule } from "./scenario_input.ts";
import { commandLine } from "./shell.ts";

/** Most files that are joined. */
const FILES_MAX = 100_000;

/** The command `merge`. */
export const mergeCommand: Command = command({
  name: "merge",
  summary: "join the results of the shards of one search",
  examples: [
    ["exitbox explore sidecar-completion:vps=3 --shard 1/4 --json > part1.json", "one of four parts, on any machine"],
    ["exitbox merge part1.json part2.json part3.json part4.json", "the verdict on the whole"],
    ["exitbox merge part*.json --json", "the same as one JSON object"],
  ],
  operands: { name: "FILE", min: 1, max: FILES_MAX, meaning: "what explore --shard I/N --json wrote, for every I" },
  flags: { Results: { out: outFlag, json: jsonFlag } },
  details: [
    "States, transitions and schedules are sums: a state that several shards have reached counts for each. A shard that " +
    "cannot show that nothing repeats in its part looks for no-livelock in the whole graph. Exit codes are those of explore.",
  ],
  async run({ values, operands, printer }) {
    const reports: unknown[] = [];
    for (const path of operands) reports.push(parseJson(await readText(path), path));
    const report = mergeReports(reports, operands);
    if (values.out !== undefined) await writeAll(values.out, report, printer);
    if (values.json) printer.json(report);
    else await print(report, printer, operands);
    return reportCode(report);
  },
});

async function writeAll(folder: string, report: Report, printer: Printer): Promise<void> {
  for (const { property, schedule } of report.violations) {
    const system = await systemOfSchedule(schedule, "merge");
    const path = writeSchedule(folder, fileName(report, property), system, schedule);
    printer.note(`exitbox: wrote ${path}`);
  }
}

async function print(report: Report, printer: Printer, files: readonly string[]): Promise<void> {
  for (const violation of report.violations) {
    printViolation(printer, await systemOfSchedule(violation.schedule, "merge"), violation);
  }
  const { scenario, policies, verdict, states, transitions, seconds, bounds, memory_model: model } = report;
  printer.line(`${scenario}: ${Object.entries(policies).map(([policy, value]) => `${policy}=${value}`).join(" ")}`);
  const names = report.violations.map(({ property }) => property).join(", ");
  const within = bounds.preemptions === null ? "the whole space" : `${bounds.preemptions} preemptions`;
  const what = verdict === "violated"
    ? `violated: ${names}`
    : verdict === "holds"
    ? `holds within ${within}`
    : `nothing found, but not everything was looked at (bound on ${bounds.hit.join(", ")} hit)`;
  printer.line(printer.style(
    "bold",
    `${what}; ${grouped(states)} states, ${grouped(transitions)} transitions in all shards; ${model}; ` +
      `${seconds.toFixed(2)} s of computing`,
  ));
  printer.line(commandLine(["merge", ...files]));
}
