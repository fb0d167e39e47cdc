/**
 * Which steps can be part of a cycle of states, by what is known of the agents, and some of them such that every cycle has
 * one.
 *
 * In a cycle each agent that takes a step comes back to its node; and when a step there changes what a cell holds, another
 * one gives it back; and a cell that none of them changes is found by all of them with the same value. Steps for which that
 * cannot be are left out, until none is found any more. Of the rest, those that lead back in an order of their agent's nodes
 * are chosen.
 *
 * @module
 */
import { type Behaviour, type Decision, OPAQUE, outcomeOf, STRIDE } from "./behaviour.ts";

/** A step that is known. */
interface KnownStep {
  readonly node: number;
  readonly successor: number;
  readonly outcome: number;
  /** The values that it finds in the cells that it reads. */
  readonly reads: ReadonlyMap<number, number>;
  /** Cells that it changes, with the values before and behind it. */
  readonly changes: readonly { readonly cell: number; readonly before: number; readonly after: number }[];
}

/** The outcomes of the chosen steps; nothing when some steps are known too little. */
export function cycleSteps(behaviour: Behaviour): ReadonlySet<number> | undefined {
  let steps: KnownStep[] = [];
  for (let node = 0; node < behaviour.nodes; node++) {
    if (!gather(behaviour, node, behaviour.roots[node], new Map(), steps)) return undefined;
  }
  for (let before = -1; before !== steps.length;) {
    before = steps.length;
    steps = insideComponents(steps, behaviour.nodes);
    const given = new Set(steps.flatMap(({ changes }) => changes.map(({ cell, after }) => key(cell, after))));
    steps = steps.filter(({ changes }) =>
      changes.every(({ cell, before }) => before < 0 || given.has(key(cell, before)))
    );
    steps = withConstants(steps, behaviour.nodes);
  }
  const ranks = rank(steps, behaviour.nodes);
  return new Set(steps.filter(({ node, successor }) => ranks[successor] <= ranks[node]).map(({ outcome }) => outcome));
}

function key(cell: number, value: number): number {
  return cell * STRIDE + value;
}

/** Adds the steps behind a decision; false when one of them is not known well enough. */
function gather(
  behaviour: Behaviour,
  node: number,
  decision: Decision,
  read: Map<number, number>,
  steps: KnownStep[],
): boolean {
  const { cells, children, successors, firstWrites, writes } = behaviour;
  if (decision > 0) {
    for (let value = 0; value < STRIDE; value++) {
      const child = children[decision * STRIDE + value];
      if (child === 0) continue;
      read.set(cells[decision], value);
      if (!gather(behaviour, node, child, read, steps)) return false;
      read.delete(cells[decision]);
    }
    return true;
  }
  if (decision === 0) return true;
  const outcome = outcomeOf(decision);
  if (outcome <= OPAQUE) return outcome !== OPAQUE;
  const changes: { cell: number; before: number; after: number }[] = [];
  for (let k = firstWrites[outcome]; k < firstWrites[outcome + 1]; k += 2) {
    const before = read.get(writes[k]) ?? -1; // -1: it may have held anything
    if (before !== writes[k + 1]) changes.push({ cell: writes[k], before, after: writes[k + 1] });
  }
  steps.push({ node, successor: successors[outcome], outcome, reads: new Map(read), changes });
  return true;
}

/** The steps whose agent may come back from them to where they begin. */
function insideComponents(steps: readonly KnownStep[], nodes: number): KnownStep[] {
  const component = components(successorsOf(steps, nodes));
  return steps.filter(({ node, successor }) => component[node] === component[successor]);
}

/** The steps that can be in a cycle when the cells that no step changes have one value throughout. */
function withConstants(steps: readonly KnownStep[], nodes: number): KnownStep[] {
  const changed = new Set(steps.flatMap(({ changes }) => changes.map(({ cell }) => cell)));
  const constants = new Set(steps.flatMap(({ reads }) => [...reads.keys()]).filter((cell) => !changed.has(cell)));
  let rest = [...steps];
  for (const cell of constants) {
    const values = new Set(rest.flatMap(({ reads }) => reads.has(cell) ? [reads.get(cell)!] : []));
    if (values.size < 2) continue;
    const kept = new Set<KnownStep>();
    for (const value of values) {
      const possible = rest.filter(({ reads }) => (reads.get(cell) ?? value) === value);
      for (const step of insideComponents(possible, nodes)) kept.add(step);
    }
    rest = rest.filter((step) => kept.has(step));
  }
  return rest;
}

function successorsOf(steps: readonly KnownStep[], nodes: number): number[][] {
  const successors: number[][] = Array.from({ length: nodes }, () => []);
  for (const { node, successor } of steps) successors[node].push(successor);
  return successors;
}

/** The nodes' numbers in the reverse of the order in which a search, depth first, leaves them. */
function rank(steps: readonly KnownStep[], nodes: number): Int32Array {
  const ranks = new Int32Array(nodes);
  leavingOrder(successorsOf(steps, nodes), [...Array(nodes).keys()], new Uint8Array(nodes))
    .forEach((node, k) => ranks[node] = nodes - k);
  return ranks;
}

/** Strongly connected components (Kosaraju): a number for each node. */
function components(successors: readonly (readonly number[])[]): Int32Array {
  const nodes = successors.length;
  const order = leavingOrder(successors, [...Array(nodes).keys()], new Uint8Array(nodes)).reverse();
  const predecessors: number[][] = Array.from({ length: nodes }, () => []);
  successors.forEach((list, node) => list.forEach((successor) => predecessors[successor].push(node)));
  const component = new Int32Array(nodes);
  const done = new Uint8Array(nodes);
  order.forEach((root, k) => {
    for (const node of leavingOrder(predecessors, [root], done)) component[node] = k;
  });
  return component;
}

/** The nodes that are reached from `roots` and not done, in the order in which a search, depth first, leaves them. */
function leavingOrder(
  successors: readonly (readonly number[])[],
  roots: readonly number[],
  done: Uint8Array,
): number[] {
  const order: number[] = [];
  const stack: { readonly node: number; next: number }[] = [];
  for (const root of roots) {
    if (done[root] !== 0) continue;
    done[root] = 1;
    stack.push({ node: root, next: 0 });
    for (let top = stack.at(-1); top !== undefined; top = stack.at(-1)) {
      const node = successors[top.node][top.next++];
      if (node === undefined) {
        order.push(top.node);
        stack.pop();
      } else if (done[node] === 0) {
        done[node] = 1;
        stack.push({ node, next: 0 });
      }
    }
  }
  return order;
}
