/**
 * What the commands that explore print and write: tables of schedules, verdicts, files.
 *
 * @module
 */

import { Engine } from "../explore/engine.ts";
import { mermaid } from "../explore/mermaid.ts";
import { choicesOf } from "../explore/replay.ts";
import type { Report, ReportedViolation } from "../explore/report.ts";
import { type Schedule, scheduleText } from "../explore/schedule.ts";
import { explainSwitches } from "../explore/switches.ts";
import type { System } from "../explore/system.ts";
import { tableLines } from "../explore/table.ts";
import { trace } from "../explore/trace.ts";
import { BadInput } from "../memory/bad_input.ts";
import { EXIT } from "./exit_codes.ts";
import { OutputFile } from "./output_file.ts";
import type { Printer } from "./printer.ts";

/** Properties whose violation ends with exit code 11. */
const DEADLOCKS = ["no-deadlock", "no-lost-wakeup"];
const LIVELOCK = "no-livelock";

/** The exit code for a violation of `property`. */
export function violationCode(property: string): number {
  if (DEADLOCKS.includes(property)) return EXIT.DEADLOCK;
  return property === LIVELOCK ? EXIT.LIVENESS : EXIT.SAFETY;
}

/** The exit code for a report: the first violation decides. */
export function reportCode({ verdict, violations }: Report): number {
  if (violations.length > 0) return violationCode(violations[0].property);
  return verdict === "holds" ? EXIT.CLEAN : EXIT.LIMIT;
}

/** How a schedule is shown. */
export interface Shown {
  /** Its table. */
  readonly table: readonly string[];
  /** One sentence for each of its context switches. */
  readonly reasons: readonly string[];
  /** The same as a Mermaid sequence diagram. */
  readonly diagram: string;
}

/** Runs a schedule, which `system` is of, and shows what it does. Throws `BadInput` when it cannot be followed. */
export function show(system: System, schedule: Schedule): Shown {
  const engine = new Engine(system, schedule.memory_model);
  const choices = choicesOf(engine, schedule);
  const steps = trace(engine, choices);
  const property = system.properties.find(({ name }) => name === schedule.property);
  const reasons = property === undefined || property.when === "cycle"
    ? []
    : explainSwitches(engine, choices, property).map(({ step, reason }) => `  at step ${step}: ${reason}`);
  engine.restore();
  const table = tableLines(steps);
  const from = schedule.cycle_from;
  if (from !== undefined) table.push(`from step ${from + 1} on this repeats for ever`);
  return { table, reasons, diagram: mermaid(steps) };
}

/** Prints a violation: what, how, and why each context switch is needed. */
export function printViolation(printer: Printer, system: System, violation: ReportedViolation): void {
  const { property, kind, switches, steps, schedule } = violation;
  const sentence = system.properties.find(({ name }) => name === property)?.sentence ?? "";
  printer.line(printer.style("red", `${property} is violated: ${kind}`));
  printer.line(`  ${sentence}`);
  printer.line(`  ${plural(switches, "context switch", "context switches")} (*), ${plural(steps, "step", "steps")}`);
  const { table, reasons } = show(system, schedule);
  printer.line();
  for (const line of table) printer.line(line);
  printer.line();
  if (reasons.length > 0) printer.line("Why each context switch is needed:");
  for (const reason of reasons) printer.line(reason);
  if (reasons.length > 0) printer.line();
}

/** Name of a violation's files. */
export function fileName(report: Pick<Report, "scenario" | "memory_model">, property: string): string {
  return `${report.scenario}-${property}-${report.memory_model}`.replace(/[^\w.=-]+/g, "_");
}

/** Writes a schedule to `folder`, and beside it what people read; returns the schedule's path. Throws `BadInput`. */
export function writeSchedule(folder: string, name: string, system: System, schedule: Schedule): string {
  try {
    Deno.mkdirSync(folder, { recursive: true });
  } catch (error) {
    const reason = error instanceof Error ? error.message : String(error);
    throw new BadInput(`--out: cannot make the folder "${folder}": ${reason}`);
  }
  const path = `${folder.replace(/\/+$/, "")}/${name}`;
  write(`${path}.json`, scheduleText(schedule));
  const { table, reasons, diagram } = show(system, schedule);
  const head = `# ${schedule.property}: ${schedule.kind}`;
  const choices = Object.entries(schedule.policies).map(([policy, value]) => `- ${policy} = ${value}`);
  const about = [`Scenario ${schedule.scenario}, memory model ${schedule.memory_model}.`, "", ...choices];
  const text = [head, "", ...about, "", "```", ...table, "```", "", ...reasons, "", "```mermaid", diagram + "```", ""];
  write(`${path}.md`, text.join("\n"));
  return `${path}.json`;
}

function write(path: string, text: string): void {
  using file = OutputFile.open(path, "--out", () => {});
  file.write(new TextEncoder().encode(text));
  file.commit();
}

/** A count with its noun. */
export function plural(count: number, one: string, many: string): string {
  return `${grouped(count)} ${count === 1 ? one : many}`;
}

/** A number with its digits in groups of three. */
export function grouped(value: number): string {
  return String(value).replace(/\B(?=(\d{3})+$)/g, ",");
}
