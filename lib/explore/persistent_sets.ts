/**
 * Dynamic partial-order reduction: which of the enabled steps have to be tried in a state.
 *
 * A persistent set (Godefroid, "Partial-Order Methods for the Verification of Concurrent Systems", 1996, chapter 4) is a
 * set of enabled steps such that whatever the other agents do before one of them is taken is independent of them. Trying
 * these alone reaches every deadlock, and every violation of a predicate when steps that touch it count as dependent.
 *
 * What the others can do is found in what is known of their behaviour: from the present nodes and the present values
 * of the cells on, every decision that the values which others may have written by then allow, until nothing is added. Two
 * steps are independent when both orders give the same: then neither sees, with the other's values, anything that makes
 * it do something else. So a load that finds a value which means as much to its agent as the one before is no obstacle.
 *
 * The knowledge is frozen while a search uses it, and what is not known of it is taken for what never happens; but not
 * where a step of the set itself has changed what the decision looks at. A step that was not known makes the knowledge
 * stale, and the search has to begin again with more. When a search ends without that, nothing was missing: of the
 * executions with a step that was not known take one with the fewest steps up to that. The first step in it that is in the
 * persistent set of its beginning could come first, which leaves a shorter one; if there is none, then a step of the
 * persistent set can come before it, and the unknown step is as unknown behind that, until a state comes in which all
 * steps are tried, which comes because no cycle is without one.
 *
 * That last condition is kept by trying all steps wherever the set has a step with which its agent may go round: each cycle
 * of states has one. It depends on nothing but the state, so that workers and shards reduce alike.
 *
 * @module
 */
import {
  type Behaviour,
  type Decision,
  DISABLED,
  OPAQUE,
  outcomeDecision,
  outcomeOf,
  type Situation,
  STRIDE,
  VALUES_MAX,
} from "./behaviour.ts";
import { addCell, CELL_WORDS, CELLS_MAX, noCells } from "./cells.ts";
import type { Engine } from "./engine.ts";
import { count, lowest } from "./scheduler.ts";

/** No actor can be made responsible: the set that is tried has no chance. */
const HOPELESS = -1;

/** Finds persistent sets. */
export class PersistentSets {
  readonly #behaviour: Behaviour;
  readonly #actors: number;
  readonly #agentCount: number;
  readonly #fairMask: number;
  /** Values that each cell may have, as a mask: the present one, and those that the others may write. */
  readonly #values = new Int32Array(CELLS_MAX);
  /** Who may write each cell. */
  readonly #writers = new Int32Array(CELLS_MAX);
  /** Nodes that the others may come to, and the actor of each. */
  readonly #reached: number[] = [];
  readonly #actorOf: number[] = [];
  #stamps = new Int32Array(0);
  #stamp = 0;
  /** Cells that may have another value than was known when they were looked at, as a mask. */
  readonly #grew = new Int32Array(CELL_WORDS);
  /** The value that each cell has behind the step that is held against the others', or -1. */
  readonly #own = new Int32Array(CELLS_MAX).fill(-1);
  /** The cells in `#own`. */
  readonly #ownMask = noCells();
  /** Values that were read on the way to an outcome: -1, or the number. */
  readonly #read = new Int32Array(CELLS_MAX).fill(-1);
  /** Outcome of that step. */
  #step = 0;

  /** Sets for the steps of `engine`'s system, of which `behaviour` is known. */
  constructor(engine: Engine, behaviour: Behaviour) {
    this.#behaviour = behaviour;
    this.#actors = engine.actorNames.length;
    this.#agentCount = engine.agentCount;
    this.#fairMask = engine.fairMask;
  }

  /** Some of the enabled actors, such that trying these is enough. */
  of(situation: Situation): number {
    const { enabled, next } = situation;
    if ((enabled & (enabled - 1)) === 0) return enabled;
    for (let rest = enabled; rest !== 0; rest &= rest - 1) {
      // What somebody does next is not known.
      if (next[lowest(rest)] === 0) return enabled;
    }
    let best = enabled;
    let bestCount = count(enabled);
    for (let rest = enabled; rest !== 0;) {
      const seed = this.#leastContended(rest, situation);
      rest &= ~(1 << seed);
      const found = this.#grow(seed, situation, bestCount);
      if (found === HOPELESS) continue;
      best = found;
      bestCount = count(found);
      if (bestCount === 1) break;
    }
    return best;
  }

  /** Of some actors the one whose next step has the best chance of being a set by itself. */
  #leastContended(actors: number, { nodes }: Situation): number {
    const { contention } = this.#behaviour;
    let best = -1;
    for (let rest = actors; rest !== 0; rest &= rest - 1) {
      const actor = lowest(rest);
      if (best < 0 || contention[nodes[actor]] < contention[nodes[best]]) best = actor;
    }
    return best;
  }

  /** A persistent set of fewer than `limit` actors with `seed`, or `HOPELESS`. */
  #grow(seed: number, situation: Situation, limit: number): number {
    const { enabled } = situation;
    for (let members = 1 << seed;;) {
      const found = members & enabled;
      if (count(found) >= limit) return HOPELESS;
      const more = this.#canBeAlone(members, situation);
      if (more === HOPELESS) return HOPELESS;
      if (more === 0) {
        const fair = (found & this.#fairMask) !== 0 || (enabled & this.#fairMask) === 0;
        return fair ? found : HOPELESS;
      }
      members |= more;
    }
  }

  /** 0 when nothing that the others do depends on the next steps of `members`; else others that have to be with them. */
  #canBeAlone(members: number, situation: Situation): number {
    for (let rest = members & situation.enabled; rest !== 0; rest &= rest - 1) {
      const actor = lowest(rest);
      const outcome = outcomeOf(situation.next[actor]);
      if (outcome === OPAQUE || this.#goesRound(actor, outcome)) return HOPELESS;
    }
    const single = (members & (members - 1)) === 0;
    if (single) this.#hold(situation, lowest(members));
    let culprits = this.#reachOthers(members, situation, single ? lowest(members) : -1);
    if (single) this.#letGo();
    for (let rest = members; rest !== 0 && culprits === 0; rest &= rest - 1) {
      culprits = this.#dependOn(situation, lowest(rest));
    }
    return culprits;
  }

  /** Makes the next step of an actor `#step`, and its writes `#own`. */
  #hold({ next }: Situation, actor: number): void {
    const { writes, firstWrites } = this.#behaviour;
    const outcome = outcomeOf(next[actor]);
    this.#step = outcome;
    this.#ownMask[0] =
      this.#ownMask[1] =
      this.#ownMask[2] =
      this.#ownMask[3] =
        0;
    for (let k = firstWrites[outcome]; k < firstWrites[outcome + 1]; k += 2) {
      this.#own[writes[k]] = writes[k + 1];
      addCell(this.#ownMask, writes[k]);
    }
  }

  #letGo(): void {
    const { writes, firstWrites } = this.#behaviour;
    for (let k = firstWrites[this.#step]; k < firstWrites[this.#step + 1]; k += 2) this.#own[writes[k]] = -1;
  }

  /** Whether a cycle of states may have no other step of its agent that counts. A store buffer's has steps of its agents. */
  #goesRound(actor: number, outcome: number): boolean {
    return actor < this.#agentCount && this.#behaviour.closesCycle[outcome] !== 0;
  }

  // --- What the others may do ---------------------------------------------------------------------------------------

  /**
   * Finds the nodes that the others may come to, and the values that they may write: all of them, or, when `alone` is an
   * actor, until one is found that does something which depends on that actor's step, `#step`; returns whose it is, or 0.
   */
  #reachOthers(members: number, { nodes, values }: Situation, alone: number): number {
    if (this.#stamps.length < this.#behaviour.nodes) this.#stamps = new Int32Array(this.#behaviour.nodes * 2);
    this.#stamp++;
    this.#reached.length = 0;
    this.#actorOf.length = 0;
    for (let cell = 0; cell < this.#behaviour.cellsUsed; cell++) {
      this.#values[cell] = 1 << values[cell];
      this.#writers[cell] = 0;
    }
    for (let actor = 0; actor < this.#actors; actor++) {
      if ((members & (1 << actor)) === 0) this.#reach(actor, nodes[actor]);
    }
    const { roots, looksAt } = this.#behaviour;
    const grew = this.#grew;
    grew[0] =
      grew[1] =
      grew[2] =
      grew[3] =
        0;
    for (let done = 0;;) {
      const a = grew[0];
      const b = grew[1];
      const c = grew[2];
      const d = grew[3];
      grew[0] =
        grew[1] =
        grew[2] =
        grew[3] =
          0;
      // What was there before has to be looked at again only where it reads what others may now have written.
      for (let k = 0; k < done; k++) {
        const at = this.#reached[k] * CELL_WORDS;
        const again = (looksAt[at] & a) | (looksAt[at + 1] & b) | (looksAt[at + 2] & c) | (looksAt[at + 3] & d);
        if (again !== 0) this.#follow(this.#actorOf[k], roots[this.#reached[k]]);
      }
      for (; done < this.#reached.length; done++) {
        const root = roots[this.#reached[done]];
        this.#follow(this.#actorOf[done], root);
        if (alone >= 0 && this.#nodeDepends(this.#reached[done])) return 1 << this.#actorOf[done];
      }
      if ((grew[0] | grew[1] | grew[2] | grew[3]) === 0) return 0;
    }
  }

  #reach(actor: number, node: number): void {
    if (this.#stamps[node] === this.#stamp) return;
    this.#stamps[node] = this.#stamp;
    this.#reached.push(node);
    this.#actorOf.push(actor);
  }

  #follow(actor: number, from: Decision): void {
    const { cells, children, writes, firstWrites, successors } = this.#behaviour;
    let decision = from;
    while (decision > 0) {
      const at = decision * STRIDE;
      const values = this.#values[cells[decision]];
      // Most cells have one value only.
      for (let rest = values & (values - 1); rest !== 0; rest &= rest - 1) {
        const child = children[at + 31 - Math.clz32(rest & -rest)];
        if (child !== 0) this.#follow(actor, child);
      }
      decision = children[at + 31 - Math.clz32(values & -values)];
    }
    const outcome = outcomeOf(decision);
    if (decision === 0 || outcome <= OPAQUE) return;
    for (let k = firstWrites[outcome]; k < firstWrites[outcome + 1]; k += 2) {
      const cell = writes[k];
      const bit = 1 << writes[k + 1];
      this.#writers[cell] |= 1 << actor;
      if ((this.#values[cell] & bit) !== 0) continue;
      this.#values[cell] |= bit;
      this.#grew[cell >>> 5] |= 1 << (cell & 31);
    }
    this.#reach(actor, successors[outcome]);
  }

  // --- Whether that depends on a step -------------------------------------------------------------------------------

  /** Those of the others that may do something on which the next step of `actor` depends, or that depends on it. */
  #dependOn(situation: Situation, actor: number): number {
    const { roots } = this.#behaviour;
    const root = roots[situation.nodes[actor]];
    const decision = situation.next[actor];
    // Whatever the others have written by then, it does the same.
    if (!this.#leadsTo(root, decision, -1)) return this.#writersOf(root) || HOPELESS;
    if (outcomeOf(decision) === DISABLED) return 0;
    this.#hold(situation, actor);
    let culprits = 0;
    for (let k = 0; k < this.#reached.length && culprits === 0; k++) {
      if (this.#nodeDepends(this.#reached[k])) culprits = 1 << this.#actorOf[k];
    }
    this.#letGo();
    return culprits;
  }

  /** Whether every decision behind `decision`, with all values that cells may have, leads to what `wanted` leads to. */
  #leadsTo(decision: Decision, wanted: Decision, last: number): boolean {
    const { cells, children, goesOnWith } = this.#behaviour;
    if (decision <= 0) {
      if (decision === wanted || this.#sameEffect(decision, wanted, false)) return true;
      // It may have to wait for somebody who goes on in any case: then it comes later, and nothing ends before.
      return decision === outcomeDecision(DISABLED) && last >= 0 && (this.#fairMask >>> goesOnWith[last] & 1) !== 0 &&
        goesOnWith[last] >= 0;
    }
    const cell = cells[decision];
    for (let rest = this.#values[cell]; rest !== 0; rest &= rest - 1) {
      const value = 31 - Math.clz32(rest & -rest);
      this.#read[cell] = value;
      const leads = value !== VALUES_MAX &&
        this.#leadsTo(children[decision * STRIDE + value], wanted, cell * STRIDE + value);
      this.#read[cell] = -1;
      if (!leads) return false;
    }
    return true;
  }

  /**
   * Whether two outcomes come to the same where the cells have the values in `#read`; with `behind`, the first one behind
   * `#step`, and the second one before it.
   */
  #sameEffect(one: Decision, two: Decision, behind: boolean): boolean {
    if (one >= 0 || two >= 0) return false;
    const a = outcomeOf(one);
    const b = outcomeOf(two);
    if (a <= OPAQUE || b <= OPAQUE) return false;
    const { successors, watched, firstWrites, writes } = this.#behaviour;
    if (successors[a] !== successors[b]) return false;
    if (behind && (watched[a] & watched[this.#step]) !== 0) return false;
    for (let k = firstWrites[a]; k < firstWrites[a + 1]; k += 2) {
      const cell = writes[k];
      const own = behind ? this.#own[cell] : -1;
      // In the other order `#step` comes last, and its value stays.
      if ((own >= 0 ? own : this.#written(b, cell)) !== writes[k + 1]) return false;
    }
    for (let k = firstWrites[b]; k < firstWrites[b + 1]; k += 2) {
      const cell = writes[k];
      if (behind && this.#own[cell] >= 0) continue; // `#step`'s value is there in both orders, unless the loop above says no
      if (this.#written(a, cell) !== writes[k + 1]) return false;
    }
    return true;
  }

  /** Number of the value that a cell has behind an outcome; -1 when that is not known. */
  #written(outcome: number, cell: number): number {
    const { firstWrites, writes } = this.#behaviour;
    for (let k = firstWrites[outcome]; k < firstWrites[outcome + 1]; k += 2) {
      if (writes[k] === cell) return writes[k + 1];
    }
    return this.#read[cell];
  }

  /** Who may write what these decisions look at. */
  #writersOf(decision: Decision): number {
    if (decision <= 0) return 0;
    const { cells, children } = this.#behaviour;
    let writers = this.#writers[cells[decision]];
    for (let rest = this.#values[cells[decision]]; rest !== 0; rest &= rest - 1) {
      writers |= this.#writersOf(children[decision * STRIDE + 31 - Math.clz32(rest & -rest)]);
    }
    return writers;
  }

  /** Whether a step of a node depends on `#step`. */
  #nodeDepends(node: number): boolean {
    const { roots, touches, watchedAt, watched } = this.#behaviour;
    const at = node * CELL_WORDS;
    const mask = this.#ownMask;
    const meets = (touches[at] & mask[0]) | (touches[at + 1] & mask[1]) | (touches[at + 2] & mask[2]) |
      (touches[at + 3] & mask[3]) | (watchedAt[node] & watched[this.#step]);
    // What is not known of it is as little known behind `#step`.
    return meets !== 0 && roots[node] !== 0 && this.#depends(roots[node], roots[node], false);
  }

  /** Whether a step of the node with the first decision `root`, from `decision` on, depends on `#step`. */
  #depends(root: Decision, decision: Decision, changed: boolean): boolean {
    if (decision > 0) {
      const { cells, children } = this.#behaviour;
      const cell = cells[decision];
      const own = this.#own[cell];
      for (let rest = this.#values[cell]; rest !== 0; rest &= rest - 1) {
        const value = 31 - Math.clz32(rest & -rest);
        const changes = changed || own >= 0 && own !== value;
        const child = children[decision * STRIDE + value];
        if (child === 0) {
          if (changes) return true;
          continue;
        }
        this.#read[cell] = value;
        const depends = value === VALUES_MAX || this.#depends(root, child, changes);
        this.#read[cell] = -1;
        if (depends) return true;
      }
      return false;
    }
    const outcome = outcomeOf(decision);
    if (outcome === OPAQUE) return true;
    if (outcome === DISABLED) return false;
    const { watched, writes, firstWrites } = this.#behaviour;
    if ((watched[outcome] & watched[this.#step]) !== 0) return true;
    if (changed) return !this.#remains(root, decision);
    for (let k = firstWrites[outcome]; k < firstWrites[outcome + 1]; k += 2) {
      const own = this.#own[writes[k]];
      if (own >= 0 && own !== writes[k + 1]) return true;
    }
    return false;
  }

  /** Whether the outcome is the same behind `#step`, what else was read being as it was. */
  #remains(decision: Decision, wanted: Decision): boolean {
    if (decision <= 0) return this.#sameEffect(decision, wanted, true);
    const { cells, children } = this.#behaviour;
    const cell = cells[decision];
    const own = this.#own[cell];
    const read = this.#read[cell];
    const values = own >= 0 ? 1 << own : read >= 0 ? 1 << read : this.#values[cell];
    for (let rest = values; rest !== 0; rest &= rest - 1) {
      const value = 31 - Math.clz32(rest & -rest);
      if (value === VALUES_MAX || !this.#remains(children[decision * STRIDE + value], wanted)) return false;
    }
    return true;
  }
}
