/**
 * Schedules as files: everything that it takes to run one again, years later, in JSON.
 *
 * ```json
 * {
 *   "version": 1,
 *   "scenario": "sidecar-completion",
 *   "policies": { "driver.publish": "claim-then-start" },
 *   "memory_model": "sc",
 *   "property": "no-fabricated-completion",
 *   "kind": "a run is reported complete that has not begun",
 *   "start": "00c0ffee00c0ffee",
 *   "choices": [{ "agent": "vmm1", "step": "driver.start.claim", "state": "0123456789abcdef" }],
 *   "digest": "89abcdef01234567"
 * }
 * ```
 *
 * `start` and `state` are fingerprints of the state before the first choice and behind each. A choice of an outcome has
 * `outcome` too. `cycle_from` is the choice from which on the rest repeats for ever. `digest` is over everything else, so
 * that a schedule that was cut or edited is recognised as such.
 *
 * @module
 */
import { BadInput } from "../memory/bad_input.ts";
import { parseJson } from "../memory/json_document.ts";
import type { Choice, Engine } from "./engine.ts";
import type { MemoryModel } from "./system.ts";

/** Version of the format that this release writes and reads. */
export const SCHEDULE_VERSION = 1;
/** Longest schedule that is read, in choices. */
const CHOICES_MAX = 1_000_000;

/** One choice as a file has it. */
export interface RecordedChoice {
  /** Name of the agent or store buffer. */
  readonly agent: string;
  /** Name of the step that it took. */
  readonly step: string;
  /** Its outcome, where the environment could choose. */
  readonly outcome?: number;
  /** Fingerprint of the state behind it. */
  readonly state: string;
}

/** A schedule that stands alone. */
export interface Schedule {
  /** Version of the format. */
  readonly version: number;
  /** Name of the scenario, with options that differ from their defaults. */
  readonly scenario: string;
  /** Every policy of the scenario and its value. */
  readonly policies: Readonly<Record<string, string>>;
  /** Memory model under which it was recorded. */
  readonly memory_model: MemoryModel;
  /** The property that it violates, or "" when it was recorded for another reason. */
  readonly property: string;
  /** What is wrong at its end. */
  readonly kind: string;
  /** Fingerprint of the initial state. */
  readonly start: string;
  /** Who took which step, in order. */
  readonly choices: readonly RecordedChoice[];
  /** The choice from which on the rest repeats for ever. */
  readonly cycle_from?: number;
  /** Over everything else. */
  readonly digest: string;
}

/** What a recording is of. */
export interface RecordingOf {
  readonly property?: string;
  readonly kind?: string;
  readonly cycleFrom?: number;
}

/** Runs `choices` from the initial state and writes down what happens. */
export function record(engine: Engine, choices: readonly Choice[], of: RecordingOf = {}): Schedule {
  let outcome = 0;
  engine.restore();
  engine.chooser = { nextChoice: () => outcome };
  const start = engine.fingerprint();
  const recorded = choices.map((choice): RecordedChoice => {
    const agent = engine.actorNames[choice.actor];
    const step = engine.stepName(choice.actor);
    outcome = choice.outcome;
    engine.execute(choice.actor);
    const state = engine.fingerprint();
    return engine.outcomes > 1 ? { agent, step, outcome, state } : { agent, step, state };
  });
  const schedule = {
    version: SCHEDULE_VERSION,
    scenario: engine.system.name,
    policies: engine.system.policies,
    memory_model: engine.memoryModel,
    property: of.property ?? "",
    kind: of.kind ?? "",
    start,
    choices: recorded,
    ...(of.cycleFrom === undefined ? {} : { cycle_from: of.cycleFrom }),
  };
  return { ...schedule, digest: digest(schedule) };
}

/**
 * The schedule as one of the same run under other policies: only right when no step, and no state, depends on those that
 * differ.
 */
export function withPolicies(schedule: Schedule, policies: Schedule["policies"]): Schedule {
  const { digest: _, ...rest } = { ...schedule, policies };
  return { ...rest, digest: digest(rest) };
}

/** The text of a schedule's file: one line for each choice. */
export function scheduleText(schedule: Schedule): string {
  const { choices, ...rest } = schedule;
  const lines = choices.map((choice) => `    ${JSON.stringify(choice)}`).join(",\n");
  const head = JSON.stringify({ ...rest, choices: "@" }, null, 2);
  return head.replace('"@"', () => choices.length === 0 ? "[]" : `[\n${lines}\n  ]`) + "\n";
}

/**
 * Reads a schedule. `name` is what errors call it.
 *
 * Throws {@linkcode BadInput}, in one line, when the text is no schedule of this version, or was cut or edited.
 */
export function parseSchedule(text: string, name: string): Schedule {
  return checkSchedule(parseJson(text, name), name);
}

/** Checks that a value from JSON is a schedule; as {@linkcode parseSchedule}. */
export function checkSchedule(value: unknown, name: string): Schedule {
  if (!isObject(value)) throw new BadInput(`${name}: not a schedule: a JSON object is expected`);
  const bad = (field: string, expected: string) => new BadInput(`${name}: field "${field}": ${expected} is expected`);
  if (typeof value.version !== "number") throw bad("version", `the number ${SCHEDULE_VERSION}`);
  if (value.version !== SCHEDULE_VERSION) {
    throw new BadInput(`${name}: schedule version ${value.version}; this release reads version ${SCHEDULE_VERSION}`);
  }
  for (const field of ["scenario", "property", "kind"]) if (typeof value[field] !== "string") throw bad(field, "text");
  for (const field of ["start", "digest"]) if (!isFingerprint(value[field])) throw bad(field, "16 hexadecimal digits");
  if (value.memory_model !== "sc" && value.memory_model !== "tso") throw bad("memory_model", '"sc" or "tso"');
  const { policies, choices } = value;
  if (!isObject(policies) || !Object.values(policies).every((chosen) => typeof chosen === "string")) {
    throw bad("policies", "an object of names and values");
  }
  if (!Array.isArray(choices) || choices.length > CHOICES_MAX) {
    throw bad("choices", `a list of at most ${CHOICES_MAX} choices`);
  }
  choices.forEach((choice: unknown, index) => checkChoice(choice, `choices[${index}]`, bad));
  const cycle = value.cycle_from;
  if (cycle !== undefined && !isCount(cycle, choices.length)) throw bad("cycle_from", "the number of a choice");
  const fields = Object.keys(value).filter((field) => !FIELDS.includes(field));
  if (fields.length > 0) throw new BadInput(`${name}: field "${fields[0]}" is not one of a schedule`);
  const schedule = value as unknown as Schedule;
  const found = digest(schedule);
  if (found !== schedule.digest) {
    throw new BadInput(
      `${name}: the schedule was cut or edited: its digest is ${schedule.digest}, its contents give ${found}`,
    );
  }
  return schedule;
}

const FIELDS = [
  "version",
  "scenario",
  "policies",
  "memory_model",
  "property",
  "kind",
  "start",
  "choices",
  "cycle_from",
  "digest",
];
const CHOICE_FIELDS = ["agent", "step", "outcome", "state"];

function checkChoice(choice: unknown, at: string, bad: (field: string, expected: string) => BadInput): void {
  if (!isObject(choice)) throw bad(at, "an object");
  for (const field of ["agent", "step"]) if (typeof choice[field] !== "string") throw bad(`${at}.${field}`, "text");
  if (!isFingerprint(choice.state)) throw bad(`${at}.state`, "16 hexadecimal digits");
  if (choice.outcome !== undefined && !isCount(choice.outcome, 2 ** 31)) throw bad(`${at}.outcome`, "a number from 0");
  const other = Object.keys(choice).find((field) => !CHOICE_FIELDS.includes(field));
  if (other !== undefined) throw bad(`${at}.${other}`, `one of ${CHOICE_FIELDS.join(", ")}`);
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

function isFingerprint(value: unknown): boolean {
  return typeof value === "string" && /^[0-9a-f]{16}$/.test(value);
}

function isCount(value: unknown, below: number): boolean {
  return Number.isInteger(value) && (value as number) >= 0 && (value as number) < below;
}

/** FNV-1a over 64 bits of everything but the digest, in a fixed order. */
function digest(schedule: Omit<Schedule, "digest">): string {
  const policies = Object.entries(schedule.policies).sort(([a], [b]) => a < b ? -1 : 1);
  const choices = schedule.choices.map(({ agent, step, outcome, state }) => [agent, step, outcome ?? null, state]);
  const { version, scenario, memory_model, property, kind, start, cycle_from } = schedule;
  const text = JSON.stringify([
    version,
    scenario,
    policies,
    memory_model,
    property,
    kind,
    start,
    cycle_from ?? null,
    choices,
  ]);
  let hash = 0xcbf29ce484222325n;
  for (const byte of new TextEncoder().encode(text)) hash = BigInt.asUintN(64, (hash ^ BigInt(byte)) * 0x100000001b3n);
  return hash.toString(16).padStart(16, "0");
}
