/**
 * The command `check`: every combination of a scenario's policies and every property.
 *
 * @module
 */

import { DEFAULT_BOUNDS } from "../explore/exhaustive.ts";
import { MEMORY_MODEL_NAMES } from "../explore/verdict.ts";
import type { PropertyResult } from "../scenarios/combination.ts";
import { type Matrix, matrixOf, type MatrixRow } from "../scenarios/matrix.ts";
import {
  buildSystem,
  type Choices,
  parseOptions,
  type Scenario,
  splitSystemName,
  systemName,
} from "../scenarios/scenario.ts";
import { choiceText, conditions, sayings } from "./combinations.ts";
import { type Command, command } from "./command.ts";
import { UsageError } from "./errors.ts";
import { EXIT } from "./exit_codes.ts";
import { jobsFlag, jsonFlag, outFlag } from "./explore_flags.ts";
import { fileName, grouped, plural, writeSchedule } from "./explore_output.ts";
import { interruptible } from "./interrupt.ts";
import type { Printer } from "./printer.ts";
import { readScenario } from "./scenario_input.ts";
import { commandLine } from "./shell.ts";

const MS = 1000;

/** The command `check`. */
export const checkCommand: Command = command({
  name: "check",
  summary: "the matrix of a scenario: every combination of policies, every property",
  examples: [
    ["exitbox check sidecar-completion", "which repair of the driver holds, and which part of it is needed"],
    ["exitbox check sidecar-remove --json", "one JSON object with a schedule for each violation"],
    ["exitbox check my-scenario.json --out found", "a scenario of your own; each schedule as a file that replays"],
  ],
  operands: { name: "SCENARIO|FILE", min: 1, max: 1, meaning: "a scenario, or a JSON file with one" },
  flags: {
    Search: { jobs: jobsFlag(`${Math.max(1, navigator.hardwareConcurrency)}`) },
    Results: { out: outFlag, json: jsonFlag },
  },
  details: [
    "Combinations stand under what is said of them: the properties that are violated, with the context switches of the " +
    "shortest schedule; every other property holds. A line names the values of the policies, A|B is either, and how many " +
    "states were searched for a combination; a policy that it does not name has any value. A bound that was hit is said; " +
    "within the bounds below the matrix everything else was looked at. The memory model is sc or tso (x86-TSO).",
    "Combinations that differ only in policies that nothing looked at share a search.",
    "Exit code: 0 when the matrix is complete, violations are its data; 20 when a bound was hit.",
  ],
  async run({ values, operands, printer }) {
    const { source, scenario } = await readScenario(operands[0]);
    if (splitSystemName(operands[0]).options !== "" && systemName(scenario, {}) !== operands[0]) {
      throw new UsageError("check takes a scenario without options: its matrix says which are searched", "check");
    }
    const begun = performance.now();
    const matrix = await interruptible((signal) =>
      matrixOf(source, {
        jobs: values.jobs,
        signal,
        onProgress: ({ done, of, states }) => {
          const seconds = (performance.now() - begun) / MS;
          const rate = grouped(Math.round(states / seconds));
          printer.progress(
            `check: ${done} of ${of} combinations, ${grouped(states)} states, ${rate}/s, ${seconds.toFixed(0)} s`,
          );
        },
      })
    );
    const seconds = (performance.now() - begun) / MS;
    if (values.out !== undefined) writeAll(values.out, scenario, matrix, printer);
    if (values.json) printer.json(matrixJson(scenario, matrix));
    else print(scenario, matrix, seconds, printer, operands[0]);
    if (matrix.interrupted) return EXIT.INTERRUPTED;
    return matrix.rows.some(({ verdict }) => verdict === "bound") ? EXIT.LIMIT : EXIT.CLEAN;
  },
});

/** The bounds of a matrix as JSON; null is none. */
function boundsJson({ matrix }: Scenario): Record<string, unknown> {
  const { preemptions, depth, states } = { ...DEFAULT_BOUNDS, ...matrix.bounds };
  return {
    preemptions: preemptions === Infinity ? null : preemptions,
    depth,
    states,
    parts: matrix.parts,
    memory_models: matrix.memoryModels,
  };
}

function matrixJson(scenario: Scenario, { rows }: Matrix): Record<string, unknown> {
  return {
    scenario: scenario.name,
    bounds: boundsJson(scenario),
    rows: rows.map(({ policies, memoryModel, property, verdict, kind, states, switches, steps, seconds, schedule }) => {
      return {
        policies,
        memory_model: memoryModel,
        property,
        verdict,
        kind,
        states,
        switches,
        steps,
        seconds,
        schedule,
      };
    }),
  };
}

/** Writes every schedule; combinations are numbered as they are printed. */
function writeAll(folder: string, scenario: Scenario, { rows }: Matrix, printer: Printer): void {
  const numbers = new Map<string, number>();
  let written = 0;
  for (const { policies, memoryModel, property, schedule } of rows) {
    const key = JSON.stringify(policies);
    if (!numbers.has(key)) numbers.set(key, numbers.size + 1);
    if (schedule === null) continue;
    const name = fileName({ scenario: schedule.scenario, memory_model: memoryModel }, property);
    const system = buildSystem(scenario, policies, parseOptions(scenario, splitSystemName(schedule.scenario).options));
    writeSchedule(folder, `${String(numbers.get(key)).padStart(3, "0")}-${name}`, system, schedule);
    written++;
  }
  printer.note(`exitbox: wrote ${plural(written, "schedule", "schedules")} to ${folder}`);
}

/** A combination under a memory model, and what is said of each property. */
interface Combination {
  /** With the memory model among them. */
  readonly policies: Choices;
  readonly rows: readonly MatrixRow[];
}

/** What stands for the memory model beside the policies. */
const MODEL = "memory-model";

function print(scenario: Scenario, matrix: Matrix, seconds: number, printer: Printer, name: string): void {
  const { rows } = matrix;
  const groups = new Map<string, MatrixRow[]>();
  for (const row of rows) {
    const key = JSON.stringify([row.policies, row.memoryModel]);
    groups.set(key, [...(groups.get(key) ?? []), row]);
  }
  const combinations = [...groups.values()].map((rows): Combination => {
    return { policies: { ...rows[0].policies, [MODEL]: rows[0].memoryModel }, rows };
  });
  const verdicts = printMatrix(scenario, combinations, printer);
  for (const { name: property, sentence } of scenario.properties) {
    printer.line(`${property}: ${sentence}`);
    // Where the verdicts are many, what each property depends on says more.
    if (verdicts > scenario.properties.length) printConditions(scenario, property, combinations, printer);
  }
  printer.line();
  const { preemptions, depth } = { ...DEFAULT_BOUNDS, ...scenario.matrix.bounds };
  const parts = scenario.matrix.parts.map((part) => {
    return Object.entries(part).map(([option, value]) => `${option}=${value}`).join(",") || "the defaults";
  });
  const within = preemptions === Infinity
    ? "no bound on preemptions"
    : plural(preemptions, "preemption", "preemptions");
  const models = scenario.matrix.memoryModels.map((model) => MEMORY_MODEL_NAMES[model]).join(" and ");
  printer.line(`within ${within}, ${grouped(depth)} steps, ${models}; options: ${parts.join(" and ")}`);
  const states = combinations.reduce((total, { rows: [row] }) => total + row.states, 0);
  const bound = rows.some(({ verdict }) => verdict === "bound");
  const end = matrix.interrupted ? "interrupted" : bound ? "bounds were hit" : "complete";
  printer.line(printer.style(
    "bold",
    `${end}: ${plural(groups.size, "combination", "combinations")}, ${grouped(matrix.searched)} searched, ` +
      `${grouped(states)} states, ${seconds.toFixed(1)} s`,
  ));
  printer.line(commandLine(["check", name]));
}

/** The names by whose values combinations are told apart. */
function namesOf({ policies, matrix }: Scenario): string[] {
  return [...policies.map(({ policy }) => policy), ...(matrix.memoryModels.length > 1 ? [MODEL] : [])];
}

/** Prints which values it takes to violate a property. */
function printConditions(
  scenario: Scenario,
  property: string,
  combinations: readonly Combination[],
  printer: Printer,
): void {
  const names = namesOf(scenario);
  const violates = ({ rows }: Combination) => {
    return rows.some((row) => row.property === property && row.verdict === "violated");
  };
  const lines = conditions(names, combinations, violates);
  if (lines.length === 0) printer.line("  violated by none");
  for (const line of lines) printer.line(`  violated with ${choiceText(names, line, combinations)}`);
}

/** Prints the combinations under the verdicts that they have in common; how many verdicts there are. */
function printMatrix(scenario: Scenario, combinations: readonly Combination[], printer: Printer): number {
  const names = namesOf(scenario);
  const said = sayings(names, combinations, ({ rows }) => verdictText(rows));
  for (const { text, lines } of said) {
    printer.line(printer.style("bold", text));
    for (const line of lines) {
      const states = line.of.map(({ rows: [row] }) => row.states);
      const [least, most] = [Math.min(...states), Math.max(...states)];
      const range = least === most ? grouped(least) : `${grouped(least)} to ${grouped(most)}`;
      const count = line.of.length === 1 ? "" : `${line.of.length} combinations of `;
      printer.line(`  ${choiceText(names, line, combinations)} (${count}${range} states)`);
    }
    printer.line();
  }
  return said.length;
}

/** The verdict on a combination in words: what is violated after how many context switches. */
export function verdictText(rows: readonly PropertyResult[]): string {
  const bound = rows.filter(({ verdict }) => verdict === "bound").map(({ property }) => property);
  const bySwitches = new Map<number, string[]>();
  for (const { property, verdict, switches, kind } of rows) {
    if (verdict !== "violated") continue;
    const only = kind.endsWith(")") ? ` ${kind.slice(kind.lastIndexOf("("))}` : "";
    bySwitches.set(switches!, [...(bySwitches.get(switches!) ?? []), `${property}${only}`]);
  }
  const violated = [...bySwitches].sort(([a], [b]) => a - b).map(([switches, properties]) =>
    `${properties.join(", ")} (${plural(switches, "switch", "switches")})`
  );
  const parts = [
    ...(violated.length > 0 ? [`violated: ${violated.join("; ")}`] : []),
    ...(bound.length > 0 ? [`bound hit: ${bound.join(", ")}`] : []),
  ];
  return parts.length > 0 ? parts.join("; ") : "holds";
}
