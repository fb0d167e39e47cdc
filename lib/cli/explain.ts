/**
 * The command `explain`: which combinations of policies can produce what was observed.
 *
 * @module
 */

import type { Expression } from "../explore/expression.ts";
import { checkExplained, OBSERVABLE, parseObservation, preemptionsOf } from "../scenarios/explain.ts";
import { type ExplainRow, explainScenario } from "../scenarios/explain_matrix.ts";
import { buildSystem, completePolicies, parseOptions, type Scenario, splitSystemName } from "../scenarios/scenario.ts";
import { sidecarRax } from "../scenarios/sidecar_rax.ts";
import { choiceText, sayings } from "./combinations.ts";
import { type Command, command } from "./command.ts";
import { UsageError } from "./errors.ts";
import { EXIT } from "./exit_codes.ts";
import { jobsFlag, jsonFlag, outFlag, scenarioPolicyFlag } from "./explore_flags.ts";
import { grouped, plural, show, writeSchedule } from "./explore_output.ts";
import { integer, text } from "./flags.ts";
import { interruptible } from "./interrupt.ts";
import type { Printer } from "./printer.ts";
import { readScenario } from "./scenario_input.ts";
import { commandLine } from "./shell.ts";

const MS = 1000;
/** Bound on preemptions for guests of the first kind: the race of a driver with one part of its repair needs three. */
const PREEMPTIONS = "3";
const PREEMPTIONS_MAX = 8;
/** Seconds after which what is not known yet is given up. */
const TIME_LIMIT = "300";
const DAY_SECONDS = 86_400;

const FLAGS = {
  Observation: {
    observe: text("EXPR", "what is true at the crash; compares registers with + - & | ^ << >> == != < > && || and ()"),
    policy: scenarioPolicyFlag,
  },
  Search: {
    preemptions: integer(
      "N",
      "preemptions in one schedule of a guest with OUT; IN, OUTS and INS have one less",
      PREEMPTIONS,
      {
        max: PREEMPTIONS_MAX,
      },
    ),
    interrupts: integer("N", "VTL2 interrupts that may happen, each at any step", "0", { max: 1 }),
    "time-limit": integer("S", "give up after S seconds what is not known then", TIME_LIMIT, {
      min: 1,
      max: DAY_SECONDS,
    }),
    jobs: jobsFlag(`${Math.max(1, navigator.hardwareConcurrency)}`),
  },
  Results: { out: outFlag, json: jsonFlag },
} as const;

/** The command `explain`. */
export const explainCommand: Command = command({
  name: "explain",
  summary: "which policies can produce what was observed at a crash, and with what guest",
  examples: [
    [
      "exitbox explain sidecar-rax --observe 'context.rax == ((message.rax + 0xB0) & 0xFFFFFFFF)'",
      "the fingerprint of openvmm pull request 3360",
    ],
    [
      "exitbox explain sidecar-rax --observe 'context.rax == 0 && message.rax != 0' --json",
      "one JSON object with a schedule for each combination that is possible",
    ],
    [
      "exitbox explain sidecar-rax --observe 'page.rax == 0' --policy sidecar.sync=sync-page",
      "only combinations with this fix",
    ],
  ],
  operands: { name: "SCENARIO", min: 1, max: 1, meaning: "a scenario whose VMM can crash: sidecar-rax" },
  flags: FLAGS,
  details: [
    "Registers: message.* is the intercept message, context.* the processor context, page.* the register page that the VMM " +
    "reads, guest.* what the guest really had at its last exit. " +
    `Names: ${OBSERVABLE.join(" ")}. Numbers are unsigned, of 64 bits, and wrap.`,
    "A combination is possible when one guest program makes EXPR true at every crash that it reaches, for at least two " +
    "starting values of RAX. What varies: the exit (OUT, IN, OUTS, INS), 32- and 64-bit addition of 0x1, 0xB0 or 0x100 to RAX, " +
    "the start of RAX, and the device's answer, 0 to 0xFF; other answers that fit as well are named in parentheses. Within the bounds below the table the answer is complete.",
    "Exit code: 0 when it is known of every combination whether it is possible; 20 when a bound was hit.",
  ],
  async run({ values, operands, printer }) {
    if (values.observe === undefined) throw new UsageError("explain needs --observe EXPR", "explain");
    const { scenario } = await readScenario(operands[0]);
    checkExplained(scenario);
    if (operands[0] !== scenario.name) throw new UsageError("explain takes a scenario without options", "explain");
    const expression = parseObservation(values.observe);
    const fixed = Object.fromEntries(values.policy);
    completePolicies(scenario, fixed);
    const request = {
      observe: values.observe,
      memoryModel: "sc",
      preemptions: values.preemptions,
      interrupts: values.interrupts,
    } as const;
    const begun = performance.now();
    const { rows, interrupted } = await interruptible(async (signal) => {
      const late = AbortSignal.timeout(values["time-limit"] * MS);
      const rows = await explainScenario(scenario, request, {
        jobs: values.jobs,
        fixed,
        signal: AbortSignal.any([signal, late]),
        onProgress: ({ done, of, states }) => {
          const seconds = (performance.now() - begun) / MS;
          printer.progress(
            `explain: ${done} of ${of} combinations, ${grouped(states)} states, ${seconds.toFixed(0)} s`,
          );
        },
      });
      return { rows, interrupted: signal.aborted };
    });
    const seconds = (performance.now() - begun) / MS;
    if (values.out !== undefined) writeAll(values.out, rows, printer);
    if (values.json) {
      printer.json({
        scenario: scenario.name,
        observe: values.observe,
        bounds: { preemptions: values.preemptions, interrupts: values.interrupts },
        rows: rows.map(({ policies, explanation: { possible, guest, device, schedule } }) => {
          return { policies, memory_model: request.memoryModel, possible, guest, device, schedule };
        }),
      });
    } else {
      print(scenario, expression, rows, printer);
      printer.line(
        `Within two port exits, ${plural(values.preemptions, "preemption", "preemptions")} (IN, OUTS and INS: ` +
          `${preemptionsOf("in", values.preemptions)}), ${
            plural(values.interrupts, "VTL2 interrupt", "VTL2 interrupts")
          }, ` +
          `sequential consistency; ${seconds.toFixed(1)} s.`,
      );
      const words = ["explain", scenario.name, "--observe", values.observe];
      for (const [policy, value] of Object.entries(fixed)) words.push("--policy", `${policy}=${value}`);
      words.push("--preemptions", `${values.preemptions}`, "--interrupts", `${values.interrupts}`);
      printer.line(commandLine(words));
    }
    if (interrupted) return EXIT.INTERRUPTED;
    return rows.some(({ explanation }) => explanation.possible === null) ? EXIT.LIMIT : EXIT.CLEAN;
  },
});

const ANSWERS = new Map([[true, "possible"], [false, "not possible"], [null, "not known"]]);

function print(scenario: Scenario, expression: Expression, rows: readonly ExplainRow[], printer: Printer): void {
  const policies = scenario.policies.map(({ policy }) => policy);
  const answer = ({ explanation: { possible, guest, device, reason } }: ExplainRow) =>
    `${ANSWERS.get(possible)!}: ${possible === true ? `${guest}; device: ${device}` : reason}`;
  printer.line(`${scenario.name}: ${expression.text}`);
  for (const { text, lines } of sayings(policies, rows, answer)) {
    printer.line();
    printer.line(printer.style("bold", text));
    for (const line of lines) printer.line(`  ${choiceText(policies, line, rows)}`);
  }
  const first = rows.find(({ explanation }) => explanation.schedule !== null);
  printer.line();
  if (first !== undefined) printSchedule(first, printer);
}

function printSchedule({ policies, explanation: { schedule } }: ExplainRow, printer: Printer): void {
  const choice = Object.entries(policies).map(([policy, value]) => `${policy}=${value}`).join(" ");
  printer.line(`The schedule of the first possible combination, ${choice}:`);
  printer.line(`  ${schedule!.scenario}: ${schedule!.kind}`);
  const { table, reasons } = show(systemOf(schedule!.scenario, policies), schedule!);
  printer.line();
  for (const line of table) printer.line(line);
  printer.line();
  if (reasons.length > 0) printer.line("Why each context switch is needed:");
  for (const reason of reasons) printer.line(reason);
  printer.line();
}

function systemOf(name: string, policies: ExplainRow["policies"]): ReturnType<typeof buildSystem> {
  return buildSystem(sidecarRax, policies, parseOptions(sidecarRax, splitSystemName(name).options));
}

/** Writes every schedule; combinations are numbered in the order of the scenario's. */
function writeAll(folder: string, rows: readonly ExplainRow[], printer: Printer): void {
  let written = 0;
  rows.forEach(({ policies, explanation: { schedule } }, k) => {
    if (schedule === null) return;
    const system = systemOf(schedule.scenario, policies);
    writeSchedule(folder, `${String(k + 1).padStart(3, "0")}-explain`, system, { ...schedule });
    written++;
  });
  printer.note(`exitbox: wrote ${plural(written, "schedule", "schedules")} to ${folder}`);
}
