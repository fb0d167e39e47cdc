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
import { preemption } from "./exhaustive.ts";
import type { FoundViolation } from "./explorer.ts";
import { Fingerprints } from "./fingerprints.ts";
import { mixHigh, mixLow } from "./hash.ts";
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
 * A schedule into the component that was closed last, on the cheapest way, and from there the cheapest round in which
 * every agent of `agents` takes a step. Another way in, or another component, might have a cheaper round.
 */
function lasso(engine: Engine, search: CycleSearch, property: Property, agents: number): FoundViolation {
  const inside: Property = { ...property, when: "always", holds: () => !search.inLastComponent };
  const path = engine.path();
  const cost = { switches: path.length, steps: path.length };
  const prefix = shortest(engine, inside, cost, { states: LASSO_STATES }) ?? path;
  const here = follow(engine, prefix);
  const round = cheapestRound(engine, search, here, prefix.at(-1)?.actor ?? -1, agents) ??
    someRound(engine, search, here, agents);
  const kind = typeof property.kind === "string" ? property.kind : property.kind();
  return { property, kind, choices: [...prefix, ...round], cycleFrom: prefix.length };
}

/** A state on a round: where it is, who came last, and whose steps have been taken. */
interface Place {
  readonly state: Snapshot;
  readonly last: number;
  readonly taken: number;
  readonly choice: Choice;
  readonly before: Place | undefined;
}

/**
 * The round from `from`, where `last` came last, with the fewest context switches and then the fewest steps; Dijkstra's
 * search. Nothing when it is too large.
 */
function cheapestRound(
  engine: Engine,
  search: CycleSearch,
  from: Snapshot,
  last: number,
  agents: number,
): Choice[] | undefined {
  engine.restore(from);
  const home = [engine.hashLow, engine.hashHigh];
  const seen = new Fingerprints();
  // Places by switches and then steps; both only grow along a round.
  const levels: Place[][][] = [[[{
    state: from,
    last,
    taken: 0,
    choice: { actor: -1, outcome: 0 },
    before: undefined,
  }]]];
  for (let switches = 0; switches < levels.length; switches++) {
    const level = levels[switches] ?? [];
    for (let steps = 0; steps < level.length; steps++) {
      for (const place of level[steps] ?? []) {
        engine.restore(place.state);
        const [low, high] = [engine.hashLow, engine.hashHigh];
        if (steps > 0 && place.taken === agents && low === home[0] && high === home[1]) return wayTo(place);
        const key = mixLow(-2, place.last) ^ mixLow(-3, place.taken);
        seen.add(low ^ key, high ^ mixHigh(-2, place.last) ^ mixHigh(-3, place.taken), 0);
        if (seen.known && steps > 0) continue;
        if (seen.size > LASSO_STATES) return undefined;
        const enabled = engine.enabled();
        forEachStep(engine, enabled, low, high, (actor, outcome) => {
          if (!search.inLastComponent) return;
          const list = levels[switches + preemption(place.last, actor, enabled)] ??= [];
          const taken = place.taken | (1 << actor) & agents;
          const choice = { actor, outcome };
          (list[steps + 1] ??= []).push({ state: engine.snapshot(), last: actor, taken, choice, before: place });
        });
      }
      delete level[steps];
    }
  }
  return undefined;
}

function wayTo(place: Place): Choice[] {
  const choices: Choice[] = [];
  for (let at = place; at.before !== undefined; at = at.before) choices.push(at.choice);
  return choices.reverse();
}

/** Takes each step that can be taken from the present state, with each of its outcomes, and goes back behind it. */
function forEachStep(
  engine: Engine,
  enabled: number,
  low: number,
  high: number,
  taken: (actor: number, outcome: number) => void,
): void {
  let outcome = 0;
  engine.chooser = { nextChoice: () => outcome };
  for (let rest = enabled; rest !== 0; rest &= rest - 1) {
    const actor = lowest(rest);
    outcome = 0;
    for (let outcomes = 1; outcome < outcomes; outcome++) {
      engine.execute(actor);
      outcomes = engine.outcomes;
      taken(actor, outcome);
      engine.undo(0, 0, low, high);
    }
  }
}

/** A round that is not the cheapest: the shortest walks to a step of each agent, one after the other. */
function someRound(engine: Engine, search: CycleSearch, from: Snapshot, agents: number): Choice[] {
  engine.restore(from);
  const low = engine.hashLow;
  const high = engine.hashHigh;
  const choices: Choice[] = [];
  let here = from;
  for (let rest = agents; rest !== 0;) {
    const walk = walkTo(engine, search, here, (actor) => (rest & (1 << actor)) !== 0)!;
    choices.push(...walk.choices);
    for (const { actor } of walk.choices) rest &= ~(1 << actor);
    here = walk.end;
  }
  const home = walkTo(engine, search, here, undefined, (at) => at.hashLow === low && at.hashHigh === high)!;
  return [...choices, ...home.choices];
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
  for (let k = 0; k < queue.length; k++) {
    const { choices, end } = queue[k];
    engine.restore(end);
    let found: Walk | undefined;
    forEachStep(engine, engine.enabled(), engine.hashLow, engine.hashHigh, (actor, outcome) => {
      if (found !== undefined || !search.inLastComponent) return;
      const walk = { choices: [...choices, { actor, outcome }], end: engine.snapshot() };
      if (wanted?.(actor) || there(engine)) found = walk;
      seen.add(engine.hashLow, engine.hashHigh, 0);
      if (!seen.known) queue.push(walk);
    });
    if (found !== undefined) return found;
  }
  return undefined;
}
