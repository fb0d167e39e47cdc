/**
 * Facts about all that is known of the agents, which are worked out once before a search uses them.
 *
 * @module
 */
import { type Behaviour, type Decision, DISABLED, OPAQUE, outcomeOf, STRIDE } from "./behaviour.ts";
import { CELL_WORDS, CELLS_MAX } from "./cells.ts";

/** Calls `found` for every outcome behind a decision. */
function eachOutcome({ children }: Behaviour, from: Decision, found: (outcome: number) => void): void {
  const todo = [from];
  for (let decision = todo.pop(); decision !== undefined; decision = todo.pop()) {
    if (decision < 0) found(outcomeOf(decision));
    if (decision <= 0) continue;
    for (const child of children.subarray(decision * STRIDE, (decision + 1) * STRIDE)) {
      if (child !== 0) todo.push(child);
    }
  }
}

/** For each node, how many nodes of other agents touch a cell that its steps touch, where one of the two writes it. */
export function contentionOf(behaviour: Behaviour): Int32Array<ArrayBuffer> {
  const { nodes, roots, looksAt, actors } = behaviour;
  const written = new Int32Array(nodes * CELL_WORDS);
  for (let node = 0; node < nodes; node++) {
    eachOutcome(behaviour, roots[node], (outcome) => {
      forEachWrite(behaviour, outcome, (cell) => written[node * CELL_WORDS + (cell >>> 5)] |= 1 << (cell & 31));
    });
  }
  const meet = (a: Int32Array, one: number, b: Int32Array, two: number): boolean => {
    for (let k = 0; k < CELL_WORDS; k++) if ((a[one * CELL_WORDS + k] & b[two * CELL_WORDS + k]) !== 0) return true;
    return false;
  };
  const counts = new Int32Array(nodes);
  for (let one = 0; one < nodes; one++) {
    for (let two = 0; two < one; two++) {
      if (actors[one] === actors[two]) continue;
      if (!(meet(written, one, written, two) || meet(written, one, looksAt, two) || meet(looksAt, one, written, two))) {
        continue;
      }
      counts[one]++;
      counts[two]++;
    }
  }
  return counts;
}

function forEachWrite(
  { firstWrites, writes }: Behaviour,
  outcome: number,
  found: (cell: number, value: number) => void,
): void {
  if (outcome <= OPAQUE) return;
  for (let k = firstWrites[outcome]; k < firstWrites[outcome + 1]; k += 2) found(writes[k], writes[k + 1]);
}

/**
 * For each cell and value the agent that can always go on while the cell has that value, or -1: it alone writes the cell,
 * and at every node at which it has left that value there it is enabled whatever it reads. Such a value says "not now"
 * to others, as the handler of an interrupt does to the thread that it has interrupted.
 */
export function whoGoesOn(behaviour: Behaviour): Int32Array {
  const { nodes, roots, actors, successors } = behaviour;
  const writers = new Int32Array(CELLS_MAX);
  const always = new Uint8Array(nodes);
  let opaque = false;
  for (let node = 0; node < nodes; node++) {
    let stops = roots[node] === 0;
    eachOutcome(behaviour, roots[node], (outcome) => {
      if (outcome === DISABLED) stops = true;
      if (outcome === OPAQUE) opaque = true;
      forEachWrite(behaviour, outcome, (cell) => writers[cell] |= 1 << actors[node]);
    });
    always[node] = stops ? 0 : 1;
  }
  const result = new Int32Array(CELLS_MAX * STRIDE).fill(-1);
  if (opaque) return result;
  for (let cell = 0; cell < CELLS_MAX; cell++) {
    const writer = 31 - Math.clz32(writers[cell]);
    if (writers[cell] === 0 || writers[cell] !== 1 << writer) continue;
    // The values that the cell may have at each node of its writer, as a mask; at the first one that of the initial state.
    const values = new Int32Array(nodes);
    const first = behaviour.firstNode(writer);
    values[first] = 1;
    const todo = [first];
    for (let node = todo.pop(); node !== undefined; node = todo.pop()) {
      eachOutcome(behaviour, roots[node], (outcome) => {
        if (outcome <= OPAQUE) return;
        let behind = values[node];
        forEachWrite(behaviour, outcome, (other, value) => behind = other === cell ? 1 << value : behind);
        const successor = successors[outcome];
        if ((behind & ~values[successor]) === 0) return;
        values[successor] |= behind;
        todo.push(successor);
      });
    }
    let stuck = 0;
    let seen = 0;
    for (let node = 0; node < nodes; node++) {
      seen |= values[node];
      if (always[node] === 0) stuck |= values[node];
    }
    for (let value = 0; value < STRIDE; value++) {
      if ((seen & ~stuck & (1 << value)) !== 0) result[cell * STRIDE + value] = writer;
    }
  }
  return result;
}
