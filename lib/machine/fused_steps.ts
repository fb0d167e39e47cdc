/**
 * Takes steps of an agent at full speed: a sequence of steps that is taken again and again is fused into one function,
 * whose calls the JavaScript engine can resolve and inline.
 *
 * ```
 * vmm.check-stop -> vmm.handle-wake -> ... -> guest.run -> ... -> vmm.handle-io-port -> (vmm.check-stop)
 *
 * n = check_stop(a); if (n !== HANDLE_WAKE) return n;
 * n = handle_wake(a); if (n !== ...) return n;
 * ```
 *
 * Steps that are declared to be done at once (`combineSteps`) are.
 *
 * The fused function does what the steps do, in their order, and leaves as soon as one of them is followed by another step
 * than it was when the sequence was noted. Steps with a condition are never part of one.
 *
 * @module
 */
import type { Agent } from "../memory/agent.ts";
import { combinationAt, CONDITIONAL, isInsideCombination, STEP_NUMBERS, type StepId, STEPS } from "../memory/steps.ts";

/** Times that a step is taken singly before the sequence that follows it is fused. */
const HOT = 2000;
/** Most steps of a sequence. */
const LENGTH_MAX = 48;
/** Least steps of a sequence that is worth a function. */
const LENGTH_MIN = 3;

/** A fused sequence of steps. */
interface Sequence {
  /** The steps, in order. */
  readonly ids: readonly StepId[];
  /** Takes them; returns the step that follows the last one taken. */
  readonly run: (agent: Agent) => StepId;
}

/** How many steps of the sequence under way have been completed: the index of the one that runs. */
const completed = new Int32Array(1);
/** The agent that this thread runs, for reports from within a step. */
let running: Agent | undefined;
/** The sequence that it is in, or the single step. */
let runningSequence: Sequence | undefined;
let runningStep: StepId = 0;

/** The step that this thread is in the middle of, or undefined when no agent runs. */
export function stepUnderWay(): StepId | undefined {
  if (running === undefined) return undefined;
  return runningSequence === undefined ? runningStep : runningSequence.ids[completed[0]];
}

/** Takes one step of `agent`, as {@linkcode Agent.takeSteps} does; for a runtime that chooses every step. */
export function takeStep(agent: Agent): void {
  running = agent;
  runningSequence = undefined;
  runningStep = agent.step;
  try {
    agent.takeSteps(1);
  } finally {
    running = undefined;
  }
}

/** How often each step was taken singly. */
const taken = new Uint16Array(STEP_NUMBERS);
/** The sequence that begins with each step. */
const sequences: (Sequence | undefined)[] = new Array(STEP_NUMBERS).fill(undefined);

/** Takes about `count` steps of `agent`, stopping before one that is not enabled; returns how many it took. */
export function takeFusedSteps(agent: Agent, count: number): number {
  let next = agent.step;
  let done = 0;
  let sequence: Sequence | undefined;
  running = agent;
  try {
    while (done < count) {
      agent.step = next; // the watchdog, in another thread, says where an agent stands that never comes out of a step
      sequence = sequences[next];
      runningSequence = sequence;
      if (sequence !== undefined) {
        next = sequence.run(agent);
        done += completed[0];
        continue;
      }
      const step = STEPS[next];
      if ((next & CONDITIONAL) !== 0) {
        if (!step.enabled!(agent)) break;
      } else if (++taken[next] === HOT && !isInsideCombination(next)) {
        const [after, steps] = noteSequence(agent, next);
        next = after;
        done += steps;
        continue;
      }
      runningStep = next;
      next = step.run(agent);
      done++;
    }
  } finally {
    running = undefined;
    // A step that threw is where the agent stands.
    const failed = sequence !== undefined && completed[0] < sequence.ids.length && sequences[next] === sequence;
    agent.step = failed ? sequence!.ids[completed[0]] : next;
    agent.countSteps(done);
  }
  return done;
}

/** Takes the steps from `first` on singly, noting them, and fuses them; returns the step that follows and their number. */
function noteSequence(agent: Agent, first: StepId): readonly [next: StepId, steps: number] {
  const ids: StepId[] = [];
  let next = first;
  do {
    ids.push(next);
    agent.step = next;
    runningStep = next;
    next = STEPS[next].run(agent);
  } while (next !== first && ids.length < LENGTH_MAX && (next & CONDITIONAL) === 0);
  if (ids.length >= LENGTH_MIN) sequences[first] = fuse(ids, next);
  return [next, ids.length];
}

/** Makes the function of a sequence that is followed by the step `after`. */
function fuse(ids: readonly StepId[], after: StepId): Sequence {
  const parts: ((agent: Agent) => StepId)[] = [];
  const call = (run: (agent: Agent) => StepId) => `s${parts.push(run) - 1}(a)`;
  const leave = (done: number) => `k = ${done}; if (n !== ${done < ids.length ? ids[done] : after}) break take;`;
  const codeOf = (from: number, to: number): string => {
    let code = "";
    for (let k = from; k < to;) {
      const combination = combinationAt(ids, k);
      const end = k + (combination?.ids.length ?? 1);
      if (combination === undefined || (k === from && end === to)) {
        code += `n = ${call(STEPS[ids[k]].run)}; ${leave(k + 1)}\n`;
        k++;
      } else {
        code += `n = ${call(combination.run)}; if (n < 0) { ${codeOf(k, end)} } else { ${leave(end)} }\n`;
        k = end;
      }
    }
    return code;
  };
  const body = codeOf(0, ids.length);
  const source = `return function (a) {
    let n = 0, k = 0;
    try { take: { ${body} } } finally { completed[0] = k; }
    return n;
  };`;
  const names = parts.map((_, k) => `s${k}`);
  return { ids, run: new Function("completed", ...names, source)(completed, ...parts) };
}
