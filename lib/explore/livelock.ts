/**
 * Livelock under weak fairness: whether a system can go round for ever without coming to its end, although every agent
 * that could always take a step does so again and again.
 *
 * The states that can follow one another for ever are the strongly connected components of the state graph (Tarjan,
 * "Depth-First Search and Linear Graph Algorithms", 1972). Going through all of a component again and again is fair exactly
 * when every agent that is enabled in all of its states takes a step inside it; where that is not so for a component, it
 * is so for none of its parts. A component in which the system has finished is no livelock.
 *
 * No reduction is used beside fingerprints: the others keep ends and states, not cycles.
 *
 * @module
 */
import { type Choice, type Engine, grown, type Snapshot } from "./engine.ts";
import type { FoundViolation } from "./explorer.ts";
import { Fingerprints } from "./fingerprints.ts";
import { lowest } from "./scheduler.ts";
import { shortest } from "./shortest.ts";
import type { Property } from "./system.ts";

/** Bounds of the search for cycles. */
export interface CycleBounds {
  /** States. */
  readonly states: number;
  /** Asked every few thousand states with how many there are; true ends the search. */
  readonly interrupted?: (states: number) => boolean;
}

/** What the search for cycles has found. */
export interface CycleResult {
  /** A prefix and, from `cycleFrom` on, a walk that leads back to where it began. */
  readonly violation: FoundViolation | undefined;
  readonly states: number;
  /** Whether all states were looked at, or a livelock was found. */
  readonly exhausted: boolean;
}

const INTERRUPT_EVERY = 4096;
const FIRST = 1024;

// Words of a frame.
const NODE = 0;
/** Actors that are still to be tried. */
const TODO = 1;
/** Actor that is being tried, or -1. */
const ACTOR = 2;
/** Its outcome that is tried next. */
const OUTCOME = 3;
/** Actor of the step that was taken last. */
const TAKEN = 4;
const MARK = 5;
const LOW = 6;
const HIGH = 7;
const FRAME = 8;

/** In `#enabled`: the system has finished. */
const FINISHED = 1 << 31;

/** A depth-first search for strongly connected components. */
class CycleSearch {
  readonly #engine: Engine;
  readonly #ids = new Fingerprints();
  #count = 0;
  /** Smallest number that each state reaches (Tarjan's lowlink). */
  #reaches = new Int32Array(FIRST);
  /** Agents that are enabled in it, and `FINISHED`. */
  #enabled = new Int32Array(FIRST);
  /** Agents with a step from it that stays in its component. */
  #inside = new Int32Array(FIRST);
  /** Number of its component, 0 while that is open. */
  #component = new Int32Array(FIRST);
  readonly #open: number[] = [];
  #components = 0;
  #frames = new Int32Array(FIRST * FRAME);
  #top = -1;
  #outcome = 0;

  constructor(engine: Engine) {
    this.#engine = engine;
    engine.restore();
    engine.chooser = { nextChoice: () => this.#outcome };
    this.#enter();
  }

  get states(): number {
    return this.#count;
  }

  /** One step of the search: "searching", "done", or the agents that can go round for ever, as a mask. */
  step(): "searching" | "done" | number {
    const frames = this.#frames;
    const at = this.#top * FRAME;
    const node = frames[at + NODE];
    if (frames[at + ACTOR] < 0) {
      const todo = frames[at + TODO];
      if (todo === 0) return this.#leave(node);
      frames[at + ACTOR] = lowest(todo);
      frames[at + OUTCOME] = 0;
      frames[at + TODO] = todo & (todo - 1);
    }
    const engine = this.#engine;
    const actor = frames[at + ACTOR];
    this.#outcome = frames[at + OUTCOME]++;
    engine.execute(actor);
    frames[at + TAKEN] = actor;
    if (frames[at + OUTCOME] >= engine.outcomes) frames[at + ACTOR] = -1;
    const place = this.#ids.find(engine.hashLow, engine.hashHigh);
    if (place < 0) {
      this.#enter();
      return "searching";
    }
    const other = this.#ids.notes(place);
    if (this.#component[other] === 0) {
      this.#reaches[node] = Math.min(this.#reaches[node], other);
      this.#inside[node] |= 1 << actor;
    }
    this.#back();
    return "searching";
  }

  /** Whether the present state belongs to the component that was closed last. */
  get inLastComponent(): boolean {
    const place = this.#ids.find(this.#engine.hashLow, this.#engine.hashHigh);
    return place >= 0 && this.#component[this.#ids.notes(place)] === this.#components;
  }

  #enter(): void {
    const engine = this.#engine;
    const node = this.#count++;
    if (node === this.#reaches.length) {
      this.#reaches = grown(this.#reaches);
      this.#enabled = grown(this.#enabled);
      this.#inside = grown(this.#inside);
      this.#component = grown(this.#component);
    }
    const enabled = engine.enabled();
    this.#ids.add(engine.hashLow, engine.hashHigh, node);
    this.#reaches[node] = node;
    this.#enabled[node] = enabled | (engine.system.finished?.() ? FINISHED : 0);
    this.#open.push(node);
    const at = ++this.#top * FRAME;
    if (at + FRAME > this.#frames.length) this.#frames = grown(this.#frames);
    const frames = this.#frames;
    frames[at + NODE] = node;
    frames[at + TODO] = enabled;
    frames[at + ACTOR] = -1;
    frames[at + MARK] = engine.mark;
    frames[at + LOW] = engine.hashLow;
    frames[at + HIGH] = engine.hashHigh;
  }

  /** All steps of a state have been taken. */
  #leave(node: number): "searching" | "done" | number {
    if (this.#reaches[node] === node) {
      const cycling = this.#close(node);
      if (cycling !== 0) return cycling;
    }
    if (--this.#top < 0) return "done";
    const at = this.#top * FRAME;
    const above = this.#frames[at + NODE];
    if (this.#component[node] === 0) {
      this.#reaches[above] = Math.min(this.#reaches[above], this.#reaches[node]);
      this.#inside[above] |= 1 << this.#frames[at + TAKEN];
    }
    this.#back();
    return "searching";
  }

  /** Closes the component that begins with `root`: the agents that go round in it for ever, if it is a livelock. */
  #close(root: number): number {
    const component = ++this.#components;
    let always = -1;
    let inside = 0;
    let finished = 0;
    for (let node = -1; node !== root;) {
      node = this.#open.pop()!;
      this.#component[node] = component;
      always &= this.#enabled[node];
      finished |= this.#enabled[node] & FINISHED;
      inside |= this.#inside[node];
    }
    const fair = (always & this.#engine.fairMask & ~inside) === 0;
    return inside !== 0 && fair && finished === 0 ? (always & this.#engine.fairMask) || (inside & -inside) : 0;
  }

  #back(): void {
    const at = this.#top * FRAME;
    const frames = this.#frames;
    this.#engine.undo(this.#top, frames[at + MARK], frames[at + LOW], frames[at + HIGH]);
  }
}

/** Looks for a livelock. */
export function findLivelock(engine: Engine, property: Property, bounds: CycleBounds): CycleResult {
  const search = new CycleSearch(engine);
  let nextLook = INTERRUPT_EVERY;
  for (;;) {
    const found = search.step();
    if (found === "done") return { violation: undefined, states: search.states, exhausted: true };
    if (typeof found === "number") {
      return { violation: lasso(engine, search, property, found), states: search.states, exhausted: true };
    }
    if (search.states > bounds.states) return { violation: undefined, states: search.states, exhausted: false };
    if (search.states >= nextLook) {
      nextLook += INTERRUPT_EVERY;
      if (bounds.interrupted?.(search.states)) return { violation: undefined, states: search.states, exhausted: false };
    }
  }
}

/**
 * A schedule into the component that was closed last, on the shortest way, and a walk round in it in which every agent of
 * `agents` takes a step.
 */
function lasso(engine: Engine, search: CycleSearch, property: Property, agents: number): FoundViolation {
  const inside: Property = { ...property, when: "always", holds: () => !search.inLastComponent };
  const path = engine.path();
  const cost = { switches: path.length, steps: path.length };
  const prefix = shortest(engine, inside, cost, { states: LASSO_STATES }) ?? path;
  const choices = [...prefix];
  let here = follow(engine, prefix);
  const low = engine.hashLow;
  const high = engine.hashHigh;
  for (let rest = agents; rest !== 0;) {
    const walk = walkTo(engine, search, here, (actor) => (rest & (1 << actor)) !== 0)!;
    choices.push(...walk.choices);
    for (const { actor } of walk.choices) rest &= ~(1 << actor);
    here = walk.end;
  }
  const home = walkTo(engine, search, here, undefined, (at) => at.hashLow === low && at.hashHigh === high)!;
  const kind = typeof property.kind === "string" ? property.kind : property.kind();
  return { property, kind, choices: [...choices, ...home.choices], cycleFrom: prefix.length };
}

/** States of the search for the shortest way into a cycle. */
const LASSO_STATES = 400_000;

/** Runs choices from the initial state; a copy of the state behind them. */
function follow(engine: Engine, choices: readonly Choice[]): Snapshot {
  let outcome = 0;
  engine.restore();
  engine.chooser = { nextChoice: () => outcome };
  for (const choice of choices) {
    outcome = choice.outcome;
    engine.execute(choice.actor);
  }
  return engine.snapshot();
}

/** A walk inside a component, and where it ends. */
interface Walk {
  readonly choices: readonly Choice[];
  readonly end: Snapshot;
}

/**
 * The walk with the fewest steps, inside the component that was closed last, that ends with a step of an actor that is
 * wanted, or in a state that is.
 */
function walkTo(
  engine: Engine,
  search: CycleSearch,
  from: Snapshot,
  wanted: ((actor: number) => boolean) | undefined,
  there: (engine: Engine) => boolean = () => false,
): Walk | undefined {
  const seen = new Fingerprints();
  const queue: Walk[] = [{ choices: [], end: from }];
  engine.restore(from);
  if (there(engine)) return queue[0];
  let outcome = 0;
  engine.chooser = { nextChoice: () => outcome };
  for (let k = 0; k < queue.length; k++) {
    const { choices, end } = queue[k];
    engine.restore(end);
    const low = engine.hashLow;
    const high = engine.hashHigh;
    for (let rest = engine.enabled(); rest !== 0; rest &= rest - 1) {
      const actor = lowest(rest);
      outcome = 0;
      for (let outcomes = 1; outcome < outcomes; outcome++) {
        engine.execute(actor);
        outcomes = engine.outcomes;
        if (search.inLastComponent) {
          const walk = { choices: [...choices, { actor, outcome }], end: engine.snapshot() };
          if (wanted?.(actor) || there(engine)) return walk;
          seen.add(engine.hashLow, engine.hashHigh, 0);
          if (!seen.known) queue.push(walk);
        }
        engine.undo(0, 0, low, high);
      }
    }
  }
  return undefined;
}
