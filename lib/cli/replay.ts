/**
 * The command `replay`: a recorded schedule again, step by step.
 *
 * @module
 */

import { Engine } from "../explore/engine.ts";
import { mermaid } from "../explore/mermaid.ts";
import { type Divergence, ReplayScheduler } from "../explore/replay.ts";
import type { Schedule } from "../explore/schedule.ts";
import { lowest, type Scheduler, STOP } from "../explore/scheduler.ts";
import { isViolated } from "../explore/shortest.ts";
import type { Property } from "../explore/system.ts";
import { tableLines } from "../explore/table.ts";
import { type TracedStep, traceStep } from "../explore/trace.ts";
import { type Command, command } from "./command.ts";
import { UsageError } from "./errors.ts";
import { EXIT } from "./exit_codes.ts";
import { jsonFlag } from "./explore_flags.ts";
import { plural, show, violationCode } from "./explore_output.ts";
import { optionalInteger, toggle } from "./flags.ts";
import type { Printer } from "./printer.ts";
import { checkGoOn, GO_ON_FLAGS, goOnFrom } from "./replay_on.ts";
import { readSchedule } from "./scenario_input.ts";
import { commandLine } from "./shell.ts";
import { type Answer, LineReader, stepQuestion } from "./stepping.ts";

/** The form of `replay --json`. */
const REPLAY_SCHEMA = 1;
/** Furthest step that can be asked for: replay may go on past the recording's end. */
const STEPS_MAX = 1_000_000;

/** The command `replay`. */
export const replayCommand: Command = command({
  name: "replay",
  summary: "run a recorded schedule again, or say where it diverges",
  examples: [
    ["exitbox replay found.json", "its table, and whether its property is violated again"],
    ["exitbox replay found.json --step", "one step at a time; another agent may be chosen at any of them"],
    [
      "exitbox replay found.json --to 12 --scheduler exhaustive",
      "its first 12 steps, and every schedule from there on",
    ],
  ],
  operands: { name: "FILE", min: 1, max: 1, meaning: "a schedule, as explore, check and merge write it with --out" },
  flags: {
    Replay: {
      step: toggle("ask before each step: Enter takes the recorded one, an agent's name takes that agent's, q ends"),
      from: optionalInteger("N", "show from step N on (1)", { min: 1, max: STEPS_MAX }),
      to: optionalInteger("N", "show up to step N; behind the recording's end agents go on in turn", {
        min: 1,
        max: STEPS_MAX,
      }),
    },
    "Going on": GO_ON_FLAGS,
    Results: { json: jsonFlag },
  },
  details: [
    "Every state is held against the recording's fingerprint. Exit code: 21 where they differ; otherwise 11, 12 or 13 when " +
    "the recorded property is violated again, as for explore, and 0 when nothing is.",
    "With --scheduler exhaustive, pct or random the replayed steps are only the beginning, and what is found behind them is " +
    "printed as explore does it, with its exit codes; a schedule that is found is minimised behind the replayed steps.",
  ],
  async run({ values, operands, words, printer }) {
    const { step, from = 1, to, json } = values;
    if (to !== undefined && to < from) throw new UsageError(`--to ${to} lies before --from ${from}`, "replay");
    if (step && json) throw new UsageError("--step and --json exclude each other", "replay");
    checkGoOn(values);
    const goesOn = values.scheduler !== "recorded";
    if (goesOn && (step || values.from !== undefined)) {
      throw new UsageError(`--scheduler ${values.scheduler} takes neither --step nor --from`, "replay");
    }
    const { schedule, system } = await readSchedule(operands[0]);
    const engine = new Engine(system, schedule.memory_model);
    const property = system.properties.find(({ name }) => name === schedule.property);
    const run = new Replay(engine, schedule, property, to);
    if (step) run.walk(from, printer);
    else run.toEnd();
    if (goesOn && run.divergence === undefined) return await goOnFrom(schedule, engine.path(), values, words, printer);
    const code = run.divergence !== undefined ? EXIT.DIVERGED : endCode(run, schedule, property);
    if (json) {
      printer.json(replayJson(schedule, run, from, code));
    } else {
      if (!step) printSteps(run, from, printer);
      printEnd(run, schedule, code, printer);
      if (!step && run.divergence === undefined && run.length === schedule.choices.length && from === 1) {
        const { reasons } = show(system, schedule);
        for (const reason of reasons) printer.line(reason);
      }
      printer.line(commandLine(words));
    }
    return code;
  },
});

/** Whether the recorded property was violated on the way. */
function endCode(run: Replay, { choices }: Schedule, property: Property | undefined): number {
  if (property === undefined) return EXIT.CLEAN;
  const repeats = property.when === "cycle" && !run.left && run.length >= choices.length;
  return repeats || run.violatedAt !== undefined ? violationCode(property.name) : EXIT.CLEAN;
}

/** One way through a schedule. */
class Replay {
  readonly steps: TracedStep[] = [];
  readonly #engine: Engine;
  readonly #scheduler: ReplayScheduler;
  readonly #recorded: Schedule["choices"];
  readonly #last: number;
  readonly #property: Property | undefined;
  /** Set once another agent than the recorded one was chosen: the recording is left. */
  left = false;
  /** Number of the first step behind which the recorded property is violated. */
  violatedAt: number | undefined = undefined;

  constructor(engine: Engine, schedule: Schedule, property: Property | undefined, to: number | undefined) {
    this.#engine = engine;
    this.#property = property;
    this.#recorded = schedule.choices;
    this.#last = to ?? schedule.choices.length;
    this.#scheduler = new ReplayScheduler(schedule, Math.min(this.#last, schedule.choices.length), IN_TURN);
    this.#scheduler.newExecution(engine);
  }

  get divergence(): Divergence | undefined {
    return this.#scheduler.divergence;
  }

  /** Steps taken. */
  get length(): number {
    return this.steps.length;
  }

  /** Takes all steps. */
  toEnd(): void {
    while (this.#takeNext());
  }

  /** Asks before each step from step `from` on. */
  walk(from: number, printer: Printer): void {
    const lines = new LineReader(Deno.stdin);
    while (this.length + 1 < from) if (!this.#takeNext()) return;
    for (;;) {
      const recorded = this.left ? undefined : this.#recorded[this.length];
      const answer = stepQuestion(this.#engine, this.length + 1, recorded, lines, printer);
      if (!this.#take(answer)) return;
      for (const line of tableLines(this.steps.slice(-1)).slice(2)) printer.line(line);
    }
  }

  #take(answer: Answer): boolean {
    if (answer.kind === "end") return false;
    if (answer.kind === "next" && !this.left) return this.#takeNext() || this.#inTurn();
    if (answer.kind === "next") return this.#inTurn();
    this.left = true;
    return this.#execute(answer.actor, answer.outcome);
  }

  #inTurn(): boolean {
    if (this.divergence !== undefined) return false;
    const actor = IN_TURN.nextActor(this.#engine);
    return actor !== STOP && this.#execute(actor, 0);
  }

  /** Takes the next step of the recording, or behind its end one in turn; false at the end. */
  #takeNext(): boolean {
    if (this.length >= this.#last) return this.#checked();
    const actor = this.#scheduler.nextActor(this.#engine);
    if (actor === STOP) return false;
    return this.#execute(actor, this.#recorded[this.length]?.outcome ?? 0);
  }

  /** The last state is held against the recording, too. */
  #checked(): boolean {
    this.#scheduler.nextActor(this.#engine);
    return false;
  }

  #execute(actor: number, outcome: number): boolean {
    this.steps.push(traceStep(this.#engine, { actor, outcome }, this.steps.at(-1)?.actor ?? -1));
    if (this.#property !== undefined && isViolated(this.#engine, this.#property)) this.violatedAt ??= this.length;
    return true;
  }
}

/** Agents go on as long as they can, the first one that can takes over. */
const IN_TURN: Pick<Scheduler, "nextActor"> & Scheduler = {
  newExecution: () => true,
  nextActor: (engine) => {
    const enabled = engine.enabled();
    const last = engine.path().at(-1)?.actor ?? -1;
    if (last >= 0 && (enabled & (1 << last)) !== 0) return last;
    return enabled === 0 ? STOP : lowest(enabled);
  },
  nextChoice: () => 0,
};

function printSteps(run: Replay, from: number, printer: Printer): void {
  const shown = run.steps.slice(from - 1);
  if (shown.length === 0 && from > 1) printer.line(`(no step from ${from} on: there are ${run.length})`);
  else for (const line of tableLines(shown)) printer.line(line);
}

function printEnd(
  { divergence, length, violatedAt }: Replay,
  schedule: Schedule,
  code: number,
  printer: Printer,
): void {
  printer.line();
  const { scenario, memory_model: model, property, kind } = schedule;
  printer.line(`${scenario}, ${model}, ${plural(length, "step", "steps")}`);
  const verdict = divergence !== undefined
    ? `diverged ${divergence.at < 0 ? "at the beginning" : `at step ${divergence.at + 1}`}: ${divergence.reason}`
    : code !== EXIT.CLEAN
    ? `${property} is violated again${violatedAt === undefined ? "" : ` at step ${violatedAt}`}: ${kind}`
    : property === ""
    ? "replayed"
    : `${property} is not violated here`;
  printer.line(printer.style("bold", verdict));
}

function replayJson(schedule: Schedule, run: Replay, from: number, code: number): Record<string, unknown> {
  const { scenario, policies, memory_model, property, kind } = schedule;
  const steps = run.steps.slice(from - 1);
  return {
    schema: REPLAY_SCHEMA,
    scenario,
    policies,
    memory_model,
    property,
    kind,
    violated: code !== EXIT.CLEAN && code !== EXIT.DIVERGED,
    divergence: run.divergence === undefined ? null : { step: run.divergence.at + 1, reason: run.divergence.reason },
    steps: steps.map(({ number, agent, step, outcome, switched, changes }) => ({
      number,
      agent,
      step,
      ...(outcome === undefined ? {} : { outcome }),
      switched,
      changes,
    })),
    mermaid: mermaid(steps),
  };
}
