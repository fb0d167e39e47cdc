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
 * than it was when the sequence was noted, or is not enabled.
 *
 * @module
 */
import { Agent, AgentBlock } from "../memory/agent.ts";
import {
  combinationAt,
  CONDITIONAL,
  denseTable,
  isInsideCombination,
  NOT_COMBINED,
  STEP_NUMBERS,
  type StepId,
  STEPS,
} from "../memory/steps.ts";

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
  /**
   * Takes them, and again up to `times` times while the first one follows the last; returns the step that follows the last
   * one taken. {@linkcode progress} tells how far it came, also when a step threw.
   */
  readonly run: (agent: Agent, times: number) => StepId;
}

/**
 * Of the sequence under way: how often it was completed, and how many steps have been completed since, which is the index of
 * the one that runs.
 */
const progress = new Int32Array(2);
/** The agent that this thread runs, for reports from within a step. */
let running: Agent | undefined;
/** The sequence that it is in, or the single step. */
let runningSequence: Sequence | undefined;
let runningStep: StepId = 0;

/** The step that this thread is in the middle of, or undefined when no agent runs. */
export function stepUnderWay(): StepId | undefined {
  if (running === undefined) return undefined;
  return runningSequence === undefined ? runningStep : runningSequence.ids[progress[1]];
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
const sequences: (Sequence | undefined)[] = denseTable();

/**
 * Takes an agent's steps. It knows where the agent's words lie: a worker's agents are of many classes, and an access to a
 * field of any of them costs V8 a search.
 */
export class StepRunner {
  /** The agent. */
  readonly agent: Agent;
  readonly #i32: Int32Array<SharedArrayBuffer>;
  readonly #step: number;
  readonly #steps: number;
  /** Whether the agent knows steps that it can take at once. */
  readonly #leaps: boolean;

  /** A runner of `agent`. */
  constructor(agent: Agent) {
    this.agent = agent;
    this.#i32 = agent.memory.i32;
    this.#step = (agent.block + AgentBlock.at.step) >>> 2;
    this.#steps = (agent.block + AgentBlock.at.steps) >>> 2;
    this.#leaps = agent.leap !== Agent.prototype.leap;
  }

  /** Whether the agent's next step may run now. */
  get enabled(): boolean {
    const next = this.#i32[this.#step];
    return (next & CONDITIONAL) === 0 || STEPS[next].enabled!(this.agent);
  }

  /** Takes about `count` steps, stopping before one that is not enabled; returns how many it took. */
  take(count: number): number {
    const { agent } = this;
    const i32 = this.#i32;
    const leaps = this.#leaps;
    let next = i32[this.#step];
    let done = 0;
    let sequence: Sequence | undefined;
    let failed = true;
    running = agent;
    runningSequence = undefined;
    try {
      while (done < count) {
        i32[this.#step] = next; // the watchdog, in another thread, says where an agent stands that never comes out of a step
        const step = STEPS[next];
        if ((next & CONDITIONAL) !== 0 && !step.enabled!(agent)) break;
        if (leaps) {
          runningStep = next;
          const after = agent.leap(next);
          next = after === NOT_COMBINED ? step.run(agent) : after;
          done++;
          continue;
        }
        sequence = sequences[next];
        runningSequence = sequence;
        if (sequence !== undefined) {
          next = sequence.run(agent, Math.ceil((count - done) / sequence.ids.length));
          done += progress[0] * sequence.ids.length + progress[1];
          continue;
        }
        if (++taken[next] === HOT && !isInsideCombination(next)) {
          const [after, steps] = noteSequence(agent, next);
          next = after;
          done += steps;
          continue;
        }
        runningStep = next;
        next = step.run(agent);
        done++;
      }
      failed = false;
    } finally {
      running = undefined;
      // A step that threw is where the agent stands.
      if (failed && sequence !== undefined) {
        done += progress[0] * sequence.ids.length + progress[1];
        next = sequence.ids[progress[1]];
      }
      i32[this.#step] = next;
      i32[this.#steps] += done;
    }
    return done;
  }
}

/** Takes about `count` steps of `agent`, as {@linkcode StepRunner.take} does. */
export function takeFusedSteps(agent: Agent, count: number): number {
  return new StepRunner(agent).take(count);
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
  } while (next !== first && ids.length < LENGTH_MAX && isEnabled(agent, next));
  if (ids.length >= LENGTH_MIN) sequences[first] = fuse(ids, next);
  return [next, ids.length];
}

/** Whether `agent` could take step `id` now. */
function isEnabled(agent: Agent, id: StepId): boolean {
  return (id & CONDITIONAL) === 0 || STEPS[id].enabled!(agent);
}

/** Makes the function of a sequence that is followed by the step `after`. */
function fuse(ids: readonly StepId[], after: StepId): Sequence {
  const parts: ((agent: Agent) => StepId | boolean)[] = [];
  const call = (run: (agent: Agent) => StepId | boolean) => `s${parts.push(run) - 1}(a)`;
  const leave = (done: number) => `p[1] = ${done}; if (n !== ${done < ids.length ? ids[done] : after}) break take;`;
  const codeOf = (from: number, to: number): string => {
    let code = "";
    for (let k = from; k < to;) {
      const combination = combinationAt(ids, k);
      const end = k + (combination?.ids.length ?? 1);
      if (combination === undefined || (k === from && end === to)) {
        const { run, enabled } = STEPS[ids[k]];
        if (enabled !== undefined && k > 0) code += `if (!${call(enabled)}) break take; `;
        code += `n = ${call(run)}; ${leave(k + 1)}\n`;
        k++;
      } else {
        code += `n = ${call(combination.run)}; if (n < 0) { ${codeOf(k, end)} } else { ${leave(end)} }\n`;
        k = end;
      }
    }
    return code;
  };
  const body = codeOf(0, ids.length);
  // A sequence repeats itself in its own function, which V8 compiles by itself, with nobody else's code. What the function
  // does after the loop V8 has never seen done when it compiles the loop under way: it gave up compiled code each time.
  const first = ids[0];
  const enabled = STEPS[first].enabled;
  const again = enabled === undefined ? "" : ` && ${call(enabled)}`;
  const source = `return function (a, times) {
    let n = 0, rounds = 0;
    p[0] = p[1] = 0;
    take: do { ${body} p[1] = 0; p[0] = ++rounds; } while (n === ${first} && rounds < times${again});
    return n;
  };`;
  const names = parts.map((_, k) => `s${k}`);
  return { ids, run: new Function("p", ...names, source)(progress, ...parts) };
}
