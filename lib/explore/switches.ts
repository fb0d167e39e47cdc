/**
 * Why a schedule needs each of its context switches: what happens when the agent that was left goes on instead.
 *
 * @module
 */
import type { Choice, Engine } from "./engine.ts";
import { isViolated } from "./shortest.ts";
import type { Property } from "./system.ts";
import { trace, type TracedStep, traceStep } from "./trace.ts";

/** A context switch and the reason for it. */
export interface SwitchReason {
  /** Number of the step that begins behind the switch, from 1. */
  readonly step: number;
  /** The agent that could have gone on. */
  readonly from: string;
  readonly to: string;
  /** One sentence. */
  readonly reason: string;
}

/** Steps that an agent takes at most when it is not switched away from. */
const GOES_ON_MAX = 2000;
/** Names that a sentence lists. */
const NAMES_MAX = 3;

/** What the agent that was left does when it goes on, and what becomes of the rest of the schedule. */
interface Alternative {
  /** Its steps. */
  readonly own: readonly TracedStep[];
  /** The steps of the schedule that follow, as far as they can still be taken. */
  readonly rest: readonly TracedStep[];
  /** Whether the property is violated all the same. */
  readonly violated: boolean;
}

/** Gives a sentence for each context switch of a schedule that violates `property`. */
export function explainSwitches(engine: Engine, choices: readonly Choice[], property: Property): SwitchReason[] {
  const steps = trace(engine, choices);
  return steps.filter(({ switched }) => switched).map((step) => {
    const index = step.number - 1;
    const from = steps[index - 1];
    const without = goOn(engine, choices, index, property);
    const reason = sentence(steps, index, from, without, property);
    return { step: step.number, from: from.agent, to: step.agent, reason };
  });
}

/** Runs the schedule without the switch at `index`: its predecessor's agent goes on until it cannot. */
function goOn(engine: Engine, choices: readonly Choice[], index: number, property: Property): Alternative {
  trace(engine, choices.slice(0, index));
  const { actor } = choices[index - 1];
  const own: TracedStep[] = [];
  const rest: TracedStep[] = [];
  const planned = choices.slice(index).filter((choice) => choice.actor === actor);
  let violated = false;
  for (let k = 0; k < GOES_ON_MAX && engine.isEnabled(actor); k++) {
    own.push(traceStep(engine, planned[k] ?? { actor, outcome: 0 }, actor));
    if (!(violated = isViolated(engine, property))) continue;
    return { own, rest, violated };
  }
  let last = actor;
  for (const choice of choices.slice(index)) {
    if (choice.actor === actor || !engine.isEnabled(choice.actor)) continue;
    rest.push(traceStep(engine, choice, last));
    last = choice.actor;
    if ((violated = isViolated(engine, property))) break;
  }
  return { own, rest, violated };
}

function sentence(
  steps: readonly TracedStep[],
  index: number,
  from: TracedStep,
  without: Alternative,
  property: Property,
): string {
  const { own, rest } = without;
  const changed = new Set(own.flatMap(({ changes }) => changes.map(({ field }) => field)));
  // Where the others first meet something that the agent would have changed by then, or act on it differently.
  const until = steps.findIndex((step, at) => at > index && step.agent === from.agent);
  const behind = steps.slice(index, until < 0 ? steps.length : until);
  const meeting = behind.find((step) => [...step.reads, ...step.writes].some((field) => changed.has(field)));
  const last = own.length === 0
    ? ""
    : own.length === 1
    ? `'${own[0].step}'`
    : `'${own[0].step}' to '${own.at(-1)!.step}'`;
  const goes = own.length === 0 ? `'${from.agent}' does nothing more` : `'${from.agent}' first takes ${last}`;
  const end = without.violated
    ? `${property.name} is violated all the same, on another way`
    : `${property.name} is not violated`;
  if (meeting === undefined) {
    const different = rest.find((step, k) => behind[k] !== undefined && step.step !== behind[k].step);
    const then = different === undefined ? "" : `, '${different.agent}' then comes to '${different.step}'`;
    return `Without it ${goes}${missed(own, behind)}${then}, and ${end}.`;
  }
  const fields = [...new Set([...meeting.reads, ...meeting.writes])].filter((field) => changed.has(field));
  const values = fields.slice(0, NAMES_MAX).map((field) => `${field} ${valuesOf(field, own)}`).join(", ");
  const more = fields.length > NAMES_MAX ? ", …" : "";
  return `Without it ${goes}, so that '${meeting.step}' of '${meeting.agent}' comes after ${values}${more}, and ${end}.`;
}

/** What the agent that was left reads before the others change it, when it goes on: the first such field. */
function missed(own: readonly TracedStep[], behind: readonly TracedStep[]): string {
  for (const step of own) {
    for (const field of step.reads) {
      const change = behind.flatMap(({ changes }) => changes).findLast((change) => change.field === field);
      if (change === undefined) continue;
      const [first] = behind.flatMap(({ changes }) => changes.filter((other) => other.field === field));
      return `, of which '${step.step}' finds ${field} ${first.before} and not yet ${change.after}`;
    }
  }
  return "";
}

/** What steps made of a field: from its value before to the one behind. */
function valuesOf(field: string, steps: readonly TracedStep[]): string {
  const changes = steps.flatMap((step) => step.changes.filter((change) => change.field === field));
  return `${changes[0].before} → ${changes.at(-1)!.after}`;
}
