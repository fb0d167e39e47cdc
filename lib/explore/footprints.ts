/**
 * Dynamic partial-order reduction: which of the enabled steps have to be tried in a state.
 *
 * What an agent will access is learned from the read and write sets of the steps that it has taken: for each state of
 * its own block ("node"), what its next step accesses, what any later step may, and which node follows. From that comes a
 * persistent set (Godefroid, "Partial-Order Methods for the Verification of Concurrent Systems", 1996, chapter 4): steps
 * such that nothing which the other agents can do before one of them is taken depends on it. Trying these alone reaches
 * every deadlock and every violation of a property whose words are among the accesses.
 *
 * The knowledge is frozen while a search uses it. Each step that the search takes is held against it; a step that
 * accesses more than was foreseen makes it stale, and the search has to begin again with more knowledge. When a search
 * ends without that, what it assumed is closed under everything that it saw: by induction over the steps of an execution
 * that it left out, the first access of such an execution that was not foreseen would have been seen.
 *
 * @module
 */
import { type Accesses, conflict, includes, join, noAccesses } from "./cells.ts";
import type { Engine } from "./engine.ts";
import { count, lowest } from "./scheduler.ts";

/** What is known of one state of an agent's block. */
interface Node {
  /** What the next step, and its `enabled` condition, access. */
  readonly next: Accesses;
  /** What any step from here on accesses; valid while frozen. */
  readonly future: Accesses;
  readonly successors: Set<Node>;
  /** Whether `next` and `future` can be relied on, as of the last freeze. */
  frozen: boolean;
  /** Whether it was ever enabled. */
  couldRun: boolean;
  /** Accesses that were seen, `next` of the next freeze. */
  readonly seen: Accesses;
}

/** Learned accesses of all actors of an engine. */
export class Footprints {
  readonly #engine: Engine;
  readonly #nodes: readonly Map<number, Node>[];
  /** Everything that an actor was ever seen to access: what is assumed of a node that is not known. */
  readonly #all: readonly Accesses[];
  readonly #allFrozen: readonly Accesses[];
  /** Whether something was seen since the last freeze that had not been foreseen. */
  stale = false;
  readonly #current: Accesses[];
  readonly #futures: Accesses[];
  readonly #here: Accesses = noAccesses();

  /** Nothing is known yet. The engine records accesses from here on. */
  constructor(engine: Engine) {
    this.#engine = engine;
    engine.recording = true;
    const actors = engine.actorNames;
    this.#nodes = actors.map(() => new Map<number, Node>());
    this.#all = actors.map(noAccesses);
    this.#allFrozen = actors.map(noAccesses);
    this.#current = actors.map(noAccesses);
    this.#futures = actors.map(noAccesses);
  }

  /** Notes the step that `actor` has just taken; its block was in state `before`. */
  took(actor: number, before: number): void {
    const { accesses, localHash } = this.#engine;
    const node = this.#node(actor, before);
    const after = this.#node(actor, localHash[actor]);
    node.successors.add(after);
    this.#saw(actor, node, accesses);
    if (this.stale) return;
    // What is assumed has to be closed: the future here covers this step and what is assumed of the future there.
    const future = node.frozen ? node.future : this.#allFrozen[actor];
    const later = after.frozen ? after.future : this.#allFrozen[actor];
    if (!covers(future, accesses) || !covers(future, later)) this.stale = true;
  }

  /** The enabled actors, as a mask; what their conditions read is noted. */
  enabled(): number {
    let mask = 0;
    const engine = this.#engine;
    for (let actor = 0; actor < engine.actorNames.length; actor++) {
      const here = this.#here;
      here.reads.fill(0);
      const node = this.#node(actor, engine.localHash[actor]);
      if (engine.readEnabled(actor, here)) {
        mask |= 1 << actor;
        if (!node.couldRun) {
          node.couldRun = true;
          if (node.frozen) this.stale = true; // it was taken for one that has ended
        }
      }
      this.#saw(actor, node, here);
    }
    return mask;
  }

  /** Makes what was seen so far the knowledge that is used. */
  freeze(): void {
    this.stale = false;
    this.#all.forEach((all, actor) => {
      joinAll(this.#allFrozen[actor], all);
      const nodes = [...this.#nodes[actor].values()];
      for (const node of nodes) {
        node.frozen = node.successors.size > 0 || !node.couldRun;
        assign(node.next, node.seen);
        assign(node.future, node.frozen ? node.seen : all);
      }
      // Successors were mostly made later: from the last to the first, a few rounds reach the fixed point.
      for (let changed = true; changed;) {
        changed = false;
        for (let k = nodes.length - 1; k >= 0; k--) {
          for (const successor of nodes[k].successors) {
            if (joinAll(nodes[k].future, successor.future)) changed = true;
          }
        }
      }
    });
  }

  /** Some of the enabled actors, such that trying these is enough. */
  persistent(enabled: number): number {
    if ((enabled & (enabled - 1)) === 0) return enabled;
    const engine = this.#engine;
    const actors = engine.actorNames.length;
    for (let actor = 0; actor < actors; actor++) {
      const node = this.#node(actor, engine.localHash[actor]);
      this.#current[actor] = node.frozen ? node.next : this.#allFrozen[actor];
      this.#futures[actor] = node.frozen ? node.future : this.#allFrozen[actor];
    }
    let best = enabled;
    let bestCount = count(enabled);
    for (let rest = enabled; rest !== 0; rest &= rest - 1) {
      const found = this.#closure(lowest(rest), actors) & enabled;
      const size = count(found);
      if (size < bestCount) {
        best = found;
        bestCount = size;
        if (size === 1) break;
      }
    }
    return best;
  }

  /** The smallest set with `seed` of which no other actor can ever do anything that depends on a next step in it. */
  #closure(seed: number, actors: number): number {
    let members = 1 << seed;
    for (let todo = members; todo !== 0;) {
      const member = lowest(todo);
      todo &= todo - 1;
      const next = this.#current[member];
      for (let other = 0; other < actors; other++) {
        if ((members & (1 << other)) !== 0 || !conflict(next, this.#futures[other])) continue;
        members |= 1 << other;
        todo |= 1 << other;
      }
    }
    return members;
  }

  #saw(actor: number, node: Node, accesses: Accesses): void {
    if (covers(node.seen, accesses)) return;
    joinAll(node.seen, accesses);
    joinAll(this.#all[actor], accesses);
    if (!covers(node.frozen ? node.next : this.#allFrozen[actor], accesses)) this.stale = true;
    if (!covers(node.frozen ? node.future : this.#allFrozen[actor], accesses)) this.stale = true;
  }

  #node(actor: number, state: number): Node {
    const nodes = this.#nodes[actor];
    let node = nodes.get(state);
    if (node === undefined) {
      const fresh = { next: noAccesses(), future: noAccesses(), seen: noAccesses() };
      node = { ...fresh, successors: new Set(), frozen: false, couldRun: false };
      nodes.set(state, node);
    }
    return node;
  }
}

function covers(whole: Accesses, part: Accesses): boolean {
  return includes(whole.reads, part.reads) && includes(whole.writes, part.writes);
}

function assign(to: Accesses, from: Accesses): void {
  to.reads.set(from.reads);
  to.writes.set(from.writes);
}

function joinAll(to: Accesses, from: Accesses): boolean {
  const reads = join(to.reads, from.reads);
  return join(to.writes, from.writes) || reads;
}
