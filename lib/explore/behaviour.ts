/**
 * What agents do, as far as it has been seen: for each state of an agent's own block ("node") a tree of decisions, in
 * which the agent reads one cell after the other and comes, by the values that it reads, to an outcome: the cells that
 * its step writes, the values that it writes, and the node that follows; or that its step cannot be taken.
 *
 * A step is a function of the agent's own block and of what it reads, so that what is known is never wrong. That is
 * checked whenever a known step is taken. What is known may be incomplete: `persistent_sets.ts` says what that means.
 *
 * @module
 */
import { CELL_WORDS, CELLS_MAX } from "./cells.ts";
import { contentionOf, whoGoesOn } from "./behaviour_facts.ts";
import { cycleSteps } from "./cycle_steps.ts";
import { type Engine, grown } from "./engine.ts";

/** Where a decision leads: 0 when that is not known, a branch (above 0), or an outcome (below 0). */
export type Decision = number;

/** Values of a cell that are told apart: sets of them are masks. */
export const VALUES_MAX = 31;

/** The outcome of a node whose step cannot be taken. */
export const DISABLED = 0;
/** The outcome of a step of which nothing else is known, because it chooses or uses more values or cells than are told apart. */
export const OPAQUE = 1;

/** The decision that leads to an outcome. */
export function outcomeDecision(outcome: number): Decision {
  return -1 - outcome;
}

/** The outcome that a decision below 0 leads to. */
export function outcomeOf(decision: Decision): number {
  return -1 - decision;
}

/** What of a state decides what the agents do in it. */
export interface Situation {
  /** Node of each actor. */
  readonly nodes: Int32Array;
  /** Number of the value of each cell. */
  readonly values: Uint8Array;
  /** What is known of each actor's next step: 0 or an outcome's decision. */
  readonly next: Int32Array;
  /** The actors that are enabled, as a mask. */
  enabled: number;
}

/** See the module's description. */
export class Behaviour {
  /** Set once something was seen, since the last {@linkcode Behaviour.freeze}, that was not known then. */
  stale = false;
  /** Set once a step was seen that is not a function of what it reads: nothing may be concluded any more. */
  broken = false;
  /** First decision of each node. */
  roots: Int32Array<ArrayBuffer> = new Int32Array(FIRST);
  /** Cell that each branch looks at. */
  cells: Int32Array<ArrayBuffer> = new Int32Array(FIRST);
  /** For each branch, where each value of its cell leads: `VALUES_MAX + 1` words. */
  children: Int32Array<ArrayBuffer> = new Int32Array(FIRST * STRIDE);
  /** The node that follows each outcome. */
  successors: Int32Array<ArrayBuffer> = new Int32Array(FIRST);
  /** Predicates that look at what each outcome's step writes, as a mask. */
  watched: Int32Array<ArrayBuffer> = new Int32Array(FIRST);
  /** Where the writes of each outcome are in `writes`; those of outcome k end where those of k + 1 begin. */
  firstWrites: Int32Array<ArrayBuffer> = new Int32Array(FIRST);
  /** Pairs of a cell and the number of the value that it gets. */
  writes: Int32Array<ArrayBuffer> = new Int32Array(FIRST);
  /** For each outcome, whether its step counts as one that closes a cycle: every cycle of states has such a step. */
  closesCycle: Uint8Array<ArrayBuffer> = new Uint8Array(FIRST);
  /** For each node, the cells that its decisions look at: `CELL_WORDS` words of a mask. */
  looksAt: Int32Array<ArrayBuffer> = new Int32Array(FIRST * CELL_WORDS);
  /** For each node, the cells that its steps read or write, in the same form. */
  touches: Int32Array<ArrayBuffer> = new Int32Array(FIRST * CELL_WORDS);
  /** For each node, the predicates that look at what its steps write, as a mask. */
  watchedAt: Int32Array<ArrayBuffer> = new Int32Array(FIRST);
  /** How many outcomes of other agents touch what the steps of each node touch; of the last freeze. */
  contention: Int32Array<ArrayBuffer> = new Int32Array(FIRST);
  /** The agent that goes on, whatever else there may be, while a cell (`cell * STRIDE + value`) has a value; or -1. */
  readonly goesOnWith: Int32Array = new Int32Array(CELLS_MAX * STRIDE).fill(-1);
  /** Cells from this one on have not been seen. */
  cellsUsed = 0;
  /** Whether, by what was known at the last freeze, no state can come twice in an execution. */
  acyclic = false;

  readonly #engine: Engine;
  readonly #numbers: readonly Map<number, number>[];
  readonly #firstNodes: number[] = [];
  #hashLow = new Int32Array(FIRST);
  #hashHigh = new Int32Array(FIRST);
  #nodes = 0;
  #branches = 1; // 0 stands for what is not known
  #outcomes = 2;
  /** Values of each cell, by number; the first is that of the initial state. */
  readonly #values: number[][] = Array.from({ length: CELLS_MAX }, () => []);
  /** Writes of the step under way, as in `writes`. */
  #step = new Int32Array(CELLS_MAX * 2);
  #stepWrites = 0;

  /** Nothing is known yet. The engine records accesses from here on; its initial state must stay what it is. */
  constructor(engine: Engine) {
    this.#engine = engine;
    engine.recording = true;
    this.#numbers = engine.actorNames.map(() => new Map<number, number>());
  }

  /** The actor of each node. */
  actors: Int32Array<ArrayBuffer> = new Int32Array(FIRST);

  /** How many nodes there are. */
  get nodes(): number {
    return this.#nodes;
  }

  /** The node in which an actor begins. */
  firstNode(actor: number): number {
    return this.#firstNodes[actor];
  }

  /** A situation to be filled in. */
  situation(): Situation {
    const actors = this.#engine.actorNames.length;
    const [nodes, next] = [new Int32Array(actors), new Int32Array(actors)];
    return { nodes, values: new Uint8Array(CELLS_MAX), next, enabled: 0 };
  }

  /** Fills in the situation of the initial state, which is the present one. */
  begin(situation: Situation): void {
    situation.values.fill(0);
    situation.nodes.forEach((_, actor) => {
      this.#firstNodes[actor] = situation.nodes[actor] = this.#node(actor);
    });
  }

  /**
   * Learns from the step that `actor` has just taken from the state of `before`, and fills in the situation behind it, but
   * for what {@linkcode Behaviour.look} finds out.
   */
  took(actor: number, before: Situation, after: Situation): void {
    const engine = this.#engine;
    if (engine.meddled) this.broken = true;
    after.nodes.set(before.nodes);
    after.values.set(before.values);
    const told = this.#readsAreTold(before.values);
    const opaque = !(this.#gatherWrites(after.values) && told) || engine.outcomes > 1;
    const known = this.#walk(actor, before);
    const node = this.#nodeBehind(actor, known);
    after.nodes[actor] = node;
    if (known < 0) {
      this.#check(outcomeOf(known), node, opaque);
    } else {
      this.#learn(actor, before, opaque ? OPAQUE : this.#outcome(node));
    }
  }

  /** Makes what was seen so far the knowledge that is used. */
  freeze(): void {
    this.stale = false;
    this.closesCycle = new Uint8Array(this.successors.length).fill(1);
    const closing = cycleSteps(this);
    this.acyclic = closing?.size === 0;
    for (let outcome = OPAQUE + 1; outcome < this.#outcomes; outcome++) {
      if (closing?.has(outcome) === false) this.closesCycle[outcome] = 0;
    }
    this.contention = contentionOf(this);
    this.goesOnWith.set(whoGoesOn(this));
  }

  /** Follows `actor`'s decisions in a situation to an outcome, or to 0. */
  #walk(actor: number, { nodes, values }: Situation): Decision {
    let decision = this.roots[nodes[actor]];
    while (decision > 0) decision = this.children[decision * STRIDE + values[this.cells[decision]]];
    return decision;
  }

  /** Finds out who is enabled in the present state, and what is known of the next steps. */
  look(situation: Situation): void {
    const engine = this.#engine;
    const { next } = situation;
    let enabled = 0;
    for (let actor = 0; actor < next.length; actor++) {
      const known = this.#walk(actor, situation);
      next[actor] = known;
      if (known === 0 || known === outcomeDecision(OPAQUE)) {
        if (engine.testEnabled(actor)) enabled |= 1 << actor;
        else {next[actor] = this.#readsAreTold(situation.values)
            ? this.#learn(actor, situation, DISABLED)
            : outcomeDecision(DISABLED);}
      } else if (known !== outcomeDecision(DISABLED)) {
        enabled |= 1 << actor;
      }
    }
    situation.enabled = engine.knowEnabled(enabled);
  }

  /** Number of the node that an actor's own block is now. */
  #node(actor: number): number {
    const { localHash, localHashHigh } = this.#engine;
    const low = localHash[actor];
    const high = localHashHigh[actor];
    const key = (low >>> 0) * KEY_FACTOR + (high & (KEY_FACTOR - 1));
    let node = this.#numbers[actor].get(key);
    if (node === undefined) {
      node = this.#nodes++;
      if (node === this.roots.length) {
        this.roots = grown(this.roots);
        this.looksAt = grown(this.looksAt);
        this.touches = grown(this.touches);
        this.watchedAt = grown(this.watchedAt);
        this.actors = grown(this.actors);
        this.#hashLow = grown(this.#hashLow);
        this.#hashHigh = grown(this.#hashHigh);
      }
      this.actors[node] = actor;
      this.#hashLow[node] = low;
      this.#hashHigh[node] = high;
      this.#numbers[actor].set(key, node);
    }
    return node;
  }

  /** The same behind a step whose outcome may be known. */
  #nodeBehind(actor: number, known: Decision): number {
    const { localHash, localHashHigh } = this.#engine;
    if (known < 0 && outcomeOf(known) > OPAQUE) {
      const node = this.successors[outcomeOf(known)];
      if (this.#hashLow[node] === localHash[actor] && this.#hashHigh[node] === localHashHigh[actor]) return node;
    }
    return this.#node(actor);
  }

  /** Whether all values that were just read can be told from others. */
  #readsAreTold(values: Uint8Array): boolean {
    const { cells, length } = this.#engine.readOrder;
    for (let k = 0; k < length; k++) {
      if (values[cells[k]] === VALUES_MAX || this.#engine.isSharedCell(cells[k])) return false;
    }
    return true;
  }

  /** Puts what the last step wrote into `#step` and into the values behind it. Whether all of it can be told from others. */
  #gatherWrites(values: Uint8Array): boolean {
    const engine = this.#engine;
    const { writes } = engine.accesses;
    let told = true;
    this.#stepWrites = 0;
    for (let word = 0; word < CELL_WORDS; word++) {
      for (let rest = writes[word]; rest !== 0; rest &= rest - 1) {
        const cell = word * 32 + 31 - Math.clz32(rest & -rest);
        if (cell >= engine.processorCells && cell < engine.firstCell) continue;
        const value = this.#value(cell, engine.cellValue(cell));
        if (value === VALUES_MAX) told = false;
        values[cell] = value;
        this.#step[this.#stepWrites++] = cell;
        this.#step[this.#stepWrites++] = value;
      }
    }
    return told;
  }

  /** Number of a value of a cell; `VALUES_MAX` for those that cannot be told apart. */
  #value(cell: number, value: number): number {
    const values = this.#values[cell];
    if (values.length === 0) values.push(this.#engine.initialCellValue(cell));
    if (this.#engine.isSharedCell(cell)) return VALUES_MAX;
    for (let k = 0; k < values.length; k++) if (values[k] === value) return k;
    if (values.length === VALUES_MAX) return VALUES_MAX;
    return values.push(value) - 1;
  }

  /** Holds a step against the outcome that is known of it. */
  #check(outcome: number, node: number, opaque: boolean): void {
    if (outcome === OPAQUE) return;
    const first = this.firstWrites[outcome];
    let same = !opaque && outcome !== DISABLED && this.successors[outcome] === node &&
      this.firstWrites[outcome + 1] - first === this.#stepWrites && this.watched[outcome] === this.#engine.watched;
    for (let k = 0; same && k < this.#stepWrites; k++) same = this.writes[first + k] === this.#step[k];
    if (!same) this.broken = true;
  }

  /** Number of the outcome of the last step. */
  #outcome(node: number): number {
    const outcome = this.#outcomes++;
    if (outcome + 1 === this.successors.length) {
      this.successors = grown(this.successors);
      this.watched = grown(this.watched);
      const closes = new Uint8Array(this.successors.length).fill(1);
      closes.set(this.closesCycle);
      this.closesCycle = closes;
      this.firstWrites = grown(this.firstWrites);
    }
    const first = this.firstWrites[outcome];
    while (first + this.#stepWrites > this.writes.length) this.writes = grown(this.writes);
    this.writes.set(this.#step.subarray(0, this.#stepWrites), first);
    this.firstWrites[outcome + 1] = first + this.#stepWrites;
    this.successors[outcome] = node;
    this.watched[outcome] = this.#engine.watched;
    return outcome;
  }

  /** Adds what was just read, and where that leads, to the decisions of `actor`'s node in a situation. */
  #learn(actor: number, { nodes, values }: Situation, outcome: number): Decision {
    this.stale = true;
    const { cells, length } = this.#engine.readOrder;
    const leaf = outcomeDecision(outcome);
    const node = nodes[actor];
    if (outcome === OPAQUE) this.touches.fill(-1, node * CELL_WORDS, (node + 1) * CELL_WORDS);
    else if (outcome !== DISABLED) this.#touch(node, outcome);
    let parent = 0;
    let decision = this.roots[node];
    for (let k = 0; k < length; k++) {
      this.cellsUsed = Math.max(this.cellsUsed, cells[k] + 1);
      this.looksAt[node * CELL_WORDS + (cells[k] >>> 5)] |= 1 << (cells[k] & 31);
      this.touches[node * CELL_WORDS + (cells[k] >>> 5)] |= 1 << (cells[k] & 31);
      if (decision < 0 || decision > 0 && this.cells[decision] !== cells[k]) {
        this.broken = true;
        return leaf;
      }
      if (decision === 0) {
        decision = this.#branch(cells[k]);
        if (parent === 0) this.roots[node] = decision;
        else this.children[parent] = decision;
      }
      parent = decision * STRIDE + values[cells[k]];
      decision = this.children[parent];
    }
    if (decision !== 0) this.broken = true;
    else if (parent === 0) this.roots[node] = leaf;
    else this.children[parent] = leaf;
    return leaf;
  }

  #touch(node: number, outcome: number): void {
    this.watchedAt[node] |= this.watched[outcome];
    for (let k = this.firstWrites[outcome]; k < this.firstWrites[outcome + 1]; k += 2) {
      this.cellsUsed = Math.max(this.cellsUsed, this.writes[k] + 1);
      this.touches[node * CELL_WORDS + (this.writes[k] >>> 5)] |= 1 << (this.writes[k] & 31);
    }
  }

  #branch(cell: number): Decision {
    const branch = this.#branches++;
    if (branch === this.cells.length) {
      this.cells = grown(this.cells);
      this.children = grown(this.children);
    }
    this.cells[branch] = cell;
    return branch;
  }
}

/** Words of a branch in `children`. */
export const STRIDE: number = VALUES_MAX + 1;
const FIRST = 256;
/** Bits of the second hash that tell nodes apart beside the first: together they fit into a double. */
const KEY_FACTOR = 2 ** 20;
