/**
 * Exhaustive search, depth first: tries every step in every state that it reaches, except where a reduction shows that
 * nothing new can come of it.
 *
 * - Fingerprints: a state that was reached before is not looked at again.
 * - Persistent sets (`persistent_sets.ts`): of the enabled steps only some are tried.
 * - Sleep sets (Godefroid 1996, chapter 5): a step that was tried before, and that nothing since then depends on, is not
 *   tried again. A state that is reached again with a sleep set that lacks something is looked at again for that.
 * - A bound on preemptions: switches away from an agent that could have gone on. States then count once for each agent
 *   that came last, and are looked at again when they are reached with fewer preemptions. Persistent and sleep sets are
 *   not used under a bound: the steps that they leave out may be the ones that need no preemption.
 *
 * Going back undoes steps instead of running anything again.
 *
 * @module
 */
import type { Behaviour, Situation } from "./behaviour.ts";
import { CELL_WORDS, conflict } from "./cells.ts";
import { type Choice, type Engine, grown } from "./engine.ts";
import { Fingerprints } from "./fingerprints.ts";
import { mixHigh, mixLow } from "./hash.ts";
import { PersistentSets } from "./persistent_sets.ts";
import { KNOWN, lowest, type Scheduler, STOP } from "./scheduler.ts";

/** Which reductions a search uses. */
export interface Reductions {
  readonly fingerprints: boolean;
  readonly persistentSets: boolean;
  readonly sleepSets: boolean;
}

/** Every reduction. */
export const ALL_REDUCTIONS: Reductions = { fingerprints: true, persistentSets: true, sleepSets: true };

/** Bounds of a search. */
export interface SearchBounds {
  /** Preemptions in one execution; Infinity for no bound. */
  readonly preemptions: number;
  /** Steps in one execution. */
  readonly depth: number;
  /** States. */
  readonly states: number;
  /** Bytes of the table of fingerprints. */
  readonly memoryBytes: number;
}

/** The bounds of a search for which nothing else is asked. */
export const DEFAULT_BOUNDS: SearchBounds = {
  preemptions: Infinity,
  depth: 100_000,
  states: 200_000_000,
  memoryBytes: 2 ** 32,
};

/** A set of states that have been reached, each with a word of notes: `Fingerprints`, or one that workers share. */
export interface StateSet {
  /** How many. */
  readonly size: number;
  /** Bytes that it takes. */
  readonly bytes: number;
  /** Whether the last `add` met a fingerprint that was there. */
  readonly known: boolean;
  /** Adds a fingerprint with notes, unless it is there; returns where its notes are. */
  add(low: number, high: number, notes: number): number;
  /** Where the notes of a fingerprint are, or -1. */
  find(low: number, high: number): number;
  /** The notes at a place. */
  notes(place: number): number;
  /** Replaces the notes at a place. */
  note(place: number, notes: number): void;
}

/** A part of a search: what is reached from one state by the steps of some actors. */
export interface Task {
  /** The choices that lead to that state. */
  readonly choices: readonly Choice[];
  /**
   * The actors, as a mask: those that somebody who has looked at the state has left. -1 for all, in a state that nobody has
   * looked at.
   */
  readonly todo: number;
}

/** The whole of a search. */
export const WHOLE: Task = { choices: [], todo: -1 };

/** What a search can be given beside its bounds. */
export interface SearchParts {
  /**
   * Frozen knowledge for persistent and sleep sets; without it neither is used. Sleep sets need a set of states of the
   * search's own.
   */
  readonly behaviour?: Behaviour | undefined;
  /** The states that have been reached; a set of its own when absent. */
  readonly states?: StateSet;
  /** The part of the search to do. */
  readonly task?: Task;
}

/** A bound that kept a search from being complete. */
export type BoundHit = "depth" | "states" | "memory" | "schedules" | "time";

// Words of a frame.
const LOW = 0;
const HIGH = 1;
const MARK = 2;
/** Actors that are still to be tried. */
const TODO = 3;
const ENABLED = 4;
/** Actors that need not be tried. */
const SLEEP = 5;
/** Actor of the step that led here, or -1. */
const LAST = 6;
const PREEMPTIONS = 7;
/** Actor that is being tried, or -1. */
const ACTOR = 8;
/** Its outcome that is tried next. */
const OUTCOME = 9;
/** Actors that have been tried here. */
const DONE = 10;
const FRAME = 11;

const FRAMES_FIRST = 1024;
const ACCESS_WORDS = CELL_WORDS * 2;

/** See the module's description. */
export class ExhaustiveScheduler implements Scheduler {
  /** Bounds that were hit. */
  readonly hit: Set<BoundHit> = new Set();
  /** Whether a preemption was left out because of the bound on them. */
  preemptionsLeftOut = false;
  readonly #bounds: SearchBounds;
  readonly #fingerprints: StateSet | undefined;
  readonly #behaviour: Behaviour | undefined;
  readonly #persistent: PersistentSets | undefined;
  readonly #sleeps: boolean;
  readonly #bounded: boolean;
  readonly #actors: number;
  #frames = new Int32Array(FRAMES_FIRST * FRAME);
  /** What the steps of sleeping and tried actors accessed, by depth and actor. */
  #accesses: Int32Array<ArrayBuffer>;
  /** What decides the next steps, by depth; only with `#behaviour`. */
  readonly #situations: Situation[] = [];
  /** Depth of the innermost frame, or -1 before the first. */
  #top = -1;
  #fresh = 0;
  readonly #task: Task;
  /** Depth of the state in which the task begins. */
  readonly #base: number;
  #begun = false;
  #baseLast = -1;
  #basePreemptions = 0;

  /** A search of the states of `engine`'s system. */
  constructor(engine: Engine, bounds: SearchBounds, reductions: Reductions, parts: SearchParts = {}) {
    this.#bounds = bounds;
    this.#bounded = bounds.preemptions !== Infinity;
    this.#fingerprints = reductions.fingerprints ? parts.states ?? new Fingerprints() : undefined;
    this.#behaviour = this.#bounded ? undefined : parts.behaviour;
    this.#task = parts.task ?? WHOLE;
    this.#base = this.#task.choices.length;
    if (this.#behaviour !== undefined && reductions.persistentSets) {
      this.#persistent = new PersistentSets(engine, this.#behaviour);
    }
    this.#sleeps = reductions.sleepSets && this.#behaviour !== undefined;
    this.#actors = engine.actorNames.length;
    this.#accesses = new Int32Array(this.#sleeps ? FRAMES_FIRST * this.#actors * ACCESS_WORDS : 0);
  }

  /** States that the search has looked at; without fingerprints, how often it has. */
  get states(): number {
    return this.#fingerprints?.size ?? this.#fresh;
  }

  /** Bytes of the table of fingerprints. */
  get bytes(): number {
    return this.#fingerprints?.bytes ?? 0;
  }

  /** Depth of the path to the present state: what is still to be searched lies along it. */
  get depth(): number {
    return Math.max(0, this.#top);
  }

  newExecution(engine: Engine): boolean {
    if (!this.#begun) {
      this.#begun = true;
      this.#begin(engine);
      return true;
    }
    for (; this.#top >= this.#base; this.#top--) {
      const frames = this.#frames;
      const at = this.#top * FRAME;
      engine.undo(this.#top, frames[at + MARK], frames[at + LOW], frames[at + HIGH]);
      if (frames[at + ACTOR] >= 0 || frames[at + TODO] !== 0) return this.hit.size === 0 || !this.#exhausted();
    }
    return false;
  }

  /** Takes the steps that lead to the task. */
  #begin(engine: Engine): void {
    let outcome = 0;
    engine.restore();
    engine.chooser = { nextChoice: () => outcome };
    this.#behaviour?.begin(this.#situation(0));
    for (const choice of this.#task.choices) {
      this.#basePreemptions += preemption(this.#baseLast, choice.actor, engine.enabled());
      this.#baseLast = choice.actor;
      outcome = choice.outcome;
      engine.execute(choice.actor);
      this.#behaviour?.took(choice.actor, this.#situation(engine.depth - 1), this.#situation(engine.depth));
    }
    engine.chooser = this;
    engine.transitions -= this.#task.choices.length; // somebody else has counted them
  }

  /** Gives away the part of the search that is nearest to its beginning, if any is left; this search leaves it out. */
  donate(engine: Engine, depthMax = Infinity): Task | undefined {
    const frames = this.#frames;
    const last = Math.min(this.#top, depthMax);
    for (let depth = this.#base; depth <= last; depth++) {
      const at = depth * FRAME;
      const todo = frames[at + TODO];
      if (todo === 0) continue;
      // Of several actors, half are kept: the first that would be tried here.
      const keeps = depth === this.#top && (todo & (todo - 1)) !== 0 ? lowest(todo) : -1;
      const given = keeps < 0 ? todo : todo & ~(1 << keeps);
      frames[at + TODO] = todo & ~given;
      return { choices: engine.path().slice(0, depth), todo: given };
    }
    return undefined;
  }

  /** All that this search has left, as parts of it that others can do. */
  rest(engine: Engine): Task[] {
    const frames = this.#frames;
    const path = engine.path();
    const tasks: Task[] = [];
    for (let depth = this.#base; depth <= this.#top; depth++) {
      const at = depth * FRAME;
      // An actor that has further outcomes is tried again from the first one on.
      const todo = frames[at + TODO] | (frames[at + ACTOR] >= 0 ? 1 << frames[at + ACTOR] : 0);
      if (todo !== 0) tasks.push({ choices: path.slice(0, depth), todo });
    }
    return tasks;
  }

  nextActor(engine: Engine): number {
    if (engine.depth > this.#top) {
      const reason = this.#arrive(engine);
      if (reason !== 0) return reason;
    }
    const at = this.#top * FRAME;
    const frames = this.#frames;
    if (frames[at + ACTOR] >= 0) return frames[at + ACTOR]; // it has another outcome
    for (;;) {
      const todo = frames[at + TODO];
      if (todo === 0) return STOP;
      const last = frames[at + LAST];
      const first = last >= 0 && (todo & (1 << last)) !== 0 ? last : lowest(todo);
      frames[at + TODO] = todo & ~(1 << first);
      if (!this.#affords(at, first)) continue;
      frames[at + ACTOR] = first;
      frames[at + OUTCOME] = 0;
      return first;
    }
  }

  nextChoice(): number {
    return this.#frames[this.#top * FRAME + OUTCOME];
  }

  /** Whether `actor` may go on from the frame at `at` within the bound on preemptions. */
  #affords(at: number, actor: number): boolean {
    if (!this.#bounded) return true;
    const frames = this.#frames;
    if (
      frames[at + PREEMPTIONS] + preemption(frames[at + LAST], actor, frames[at + ENABLED]) <= this.#bounds.preemptions
    ) {
      return true;
    }
    this.preemptionsLeftOut = true;
    return false;
  }

  /** A step has led to a state (or the search begins): opens a frame and returns 0, or returns why not. */
  #arrive(engine: Engine): number {
    const parent = this.#top * FRAME;
    const depth = engine.depth;
    const frames = depth * FRAME + FRAME > this.#frames.length ? this.#growFrames() : this.#frames;
    const at = depth * FRAME;
    let last = -1;
    let preemptions = 0;
    let sleep = 0;
    if (depth === this.#base) {
      last = this.#baseLast;
      preemptions = this.#basePreemptions;
    } else {
      last = frames[parent + ACTOR];
      this.#behaviour?.took(last, this.#situation(depth - 1), this.#situation(depth));
      if (this.#sleeps) sleep = this.#inheritedSleep(engine, parent, last);
      if (this.#bounded) {
        preemptions = frames[parent + PREEMPTIONS] + preemption(frames[parent + LAST], last, frames[parent + ENABLED]);
      }
      this.#advance(engine, parent);
    }
    if (depth > this.#bounds.depth) {
      this.hit.add("depth");
      return STOP;
    }
    const given = depth === this.#base && this.#task.todo !== -1;
    let todo = given ? this.#task.todo : 0;
    if (given) {
      // Somebody has looked at this state, and left these actors for us.
    } else if (this.#fingerprints !== undefined) {
      const low = this.#bounded ? engine.hashLow ^ mixLow(-2, last) : engine.hashLow;
      const high = this.#bounded ? engine.hashHigh ^ mixHigh(-2, last) : engine.hashHigh;
      const notes = this.#bounded ? preemptions : sleep;
      const place = this.#fingerprints.add(low, high, notes);
      if (this.#fingerprints.known) {
        const old = this.#fingerprints.notes(place);
        if (this.#bounded) {
          if (old <= preemptions) return KNOWN;
          this.#fingerprints.note(place, preemptions);
        } else {
          todo = old & ~sleep;
          if (todo === 0) return KNOWN;
          sleep &= old;
          this.#fingerprints.note(place, sleep);
        }
      } else if (this.#exhausted()) return STOP;
    } else if (++this.#fresh >= this.#bounds.states) {
      this.hit.add("states");
      return STOP;
    }
    let enabled: number;
    let tried: number;
    if (this.#behaviour === undefined) {
      enabled = engine.enabled();
      tried = enabled;
    } else {
      const situation = this.#situation(depth);
      this.#behaviour.look(situation);
      enabled = situation.enabled;
      tried = this.#persistent === undefined ? enabled : this.#persistent.of(situation);
    }
    frames[at + LOW] = engine.hashLow;
    frames[at + HIGH] = engine.hashHigh;
    frames[at + MARK] = engine.mark;
    frames[at + ENABLED] = enabled;
    frames[at + SLEEP] = sleep;
    frames[at + LAST] = last;
    frames[at + PREEMPTIONS] = preemptions;
    frames[at + ACTOR] = -1;
    frames[at + OUTCOME] = 0;
    frames[at + DONE] = 0;
    // Without anything left over from before, all that does not sleep is to be tried.
    frames[at + TODO] = given ? todo & enabled : tried & (todo === 0 ? ~sleep : todo);
    this.#top = depth;
    return 0;
  }

  /** The step of a frame has been taken: is there another outcome? */
  #advance(engine: Engine, at: number): void {
    const frames = this.#frames;
    const outcome = frames[at + OUTCOME] + 1;
    if (outcome < engine.outcomes) {
      frames[at + OUTCOME] = outcome;
    } else {
      frames[at + DONE] |= 1 << frames[at + ACTOR];
      frames[at + ACTOR] = -1;
    }
  }

  /**
   * The sleep set behind the step of `actor` from the frame at `at`: what slept or was tried there and does not depend on
   * that step. Also keeps what each of those accessed.
   */
  #inheritedSleep(engine: Engine, at: number, actor: number): number {
    const frames = this.#frames;
    const taken = engine.accesses;
    const here = (at / FRAME) * this.#actors * ACCESS_WORDS;
    const there = here + this.#actors * ACCESS_WORDS;
    const accesses = this.#accesses;
    let sleep = 0;
    for (let rest = (frames[at + SLEEP] | frames[at + DONE]) & ~(1 << actor); rest !== 0; rest &= rest - 1) {
      const other = lowest(rest);
      const from = here + other * ACCESS_WORDS;
      const reads = accesses.subarray(from, from + CELL_WORDS);
      const writes = accesses.subarray(from + CELL_WORDS, from + ACCESS_WORDS);
      if (conflict({ reads, writes }, taken)) continue;
      sleep |= 1 << other;
      accesses.copyWithin(there + other * ACCESS_WORDS, from, from + ACCESS_WORDS);
    }
    // The actor itself sleeps in the frame from here on, once all its outcomes have been tried.
    const own = here + actor * ACCESS_WORDS;
    if (frames[at + OUTCOME] === 0) accesses.fill(0, own, own + ACCESS_WORDS);
    for (let k = 0; k < CELL_WORDS; k++) {
      accesses[own + k] |= taken.reads[k];
      accesses[own + CELL_WORDS + k] |= taken.writes[k];
    }
    return sleep;
  }

  #situation(depth: number): Situation {
    return this.#situations[depth] ??= this.#behaviour!.situation();
  }

  /** Whether a bound on the whole search has been reached. */
  #exhausted(): boolean {
    if (this.states > this.#bounds.states) this.hit.add("states");
    if (this.bytes > this.#bounds.memoryBytes) this.hit.add("memory");
    return this.hit.has("states") || this.hit.has("memory");
  }

  #growFrames(): Int32Array<ArrayBuffer> {
    this.#frames = grown(this.#frames);
    if (this.#sleeps) this.#accesses = grown(this.#accesses);
    return this.#frames;
  }
}

/** 1 when `actor`'s step is a switch away from `last` although that could have gone on. */
export function preemption(last: number, actor: number, enabled: number): number {
  return last >= 0 && last !== actor && (enabled & (1 << last)) !== 0 ? 1 : 0;
}
