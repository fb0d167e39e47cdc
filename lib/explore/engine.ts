/**
 * The present state of an exploration: it takes steps of actors, goes back, and keeps the state's fingerprint.
 *
 * Actors are the system's agents, then, under x86-TSO, one store buffer for each processor, whose step lets its oldest
 * store reach memory. After a step the words that it may have changed are compared with a mirror of the state; every
 * change goes to an undo log, from which going back restores them without running anything again.
 *
 * @module
 */
import type { Agent } from "../memory/agent.ts";
import { AgentBlock, RETURN_STACK_DEPTH } from "../memory/agent.ts";
import type { MemoryPort } from "../memory/port.ts";
import { type Step, type StepId, stepName, STEPS } from "../memory/steps.ts";
import { AccessRecorder, type Touch } from "./access_recorder.ts";
import { type Accesses, Cells, type ReadOrder } from "./cells.ts";
import { type Chooser, type PortContext, SequentialPort, StoreBufferPort } from "./exploring_port.ts";
import { mixHigh, mixLow } from "./hash.ts";
import { type Run, StateMap } from "./state_map.ts";
import { STORE_BUFFER_WORDS, StoreBuffers } from "./store_buffers.ts";
import { ACTORS_MAX, type MemoryModel, type Property, type System, type Watched } from "./system.ts";

const UNDO_FIRST = 4096;
const STEP = AgentBlock.at.step;
const RETURNS = AgentBlock.at.returns;

/** A copy of the state's changeable part; good for the engine that made it, and for no other. */
export type Snapshot = Int32Array;

/** One choice of a schedule: who takes a step, and which of its outcomes it has. */
export interface Choice {
  readonly actor: number;
  readonly outcome: number;
}

/** Chooses the first outcome. */
const FIRST: Chooser = { nextChoice: () => 0 };

/** Predicates that are told apart; those beyond share the last one. */
const PREDICATES_MAX = 31;

/** What a predicate knows of an agent's program counter. */
interface Watch {
  readonly agent: number;
  readonly steps: ReadonlySet<StepId>;
  /** The predicate, as a mask. */
  readonly predicate: number;
}

/** See the module's description. */
export class Engine {
  readonly system: System;
  readonly memoryModel: MemoryModel;
  /** Names of the actors: agents, then store buffers. */
  readonly actorNames: readonly string[];
  /** How many of the actors are agents. */
  readonly agentCount: number;
  /** Processor of each agent, and behind them of each store buffer. */
  readonly processors: readonly number[];
  /** Actors that weak fairness covers, as a mask. */
  readonly fairMask: number;
  /** Words of the state: those of the memory, then those of the store buffers. */
  readonly stateWords: number;
  /** The fingerprint's halves. */
  hashLow = 0;
  hashHigh = 0;
  /** Steps taken, going back not counted. */
  transitions = 0;
  /** Steps from where the path began to the present state. */
  depth = 0;
  /** Outcomes that the last step could have had; 1 for a step that did not choose. */
  outcomes = 1;
  /** The outcome that it had. */
  outcome = 0;
  /** Whether any property looks at everything, so that no order of two steps may be left out. */
  readonly watchesAll: boolean;
  /** A number for the state of each agent's own block. */
  readonly localHash: Int32Array;
  /** A second, independent one. */
  readonly localHashHigh: Int32Array;
  /** Cells below this one stand for the processors' store buffers. */
  readonly processorCells: number;
  /** Cells from there up to this one stand for predicates. */
  readonly firstCell: number;
  /** Set once a step has changed another agent's own block, which is then not its own. */
  meddled = false;

  readonly #map: StateMap;
  readonly #memory: Int32Array;
  readonly #mirror: Int32Array;
  readonly #initial: Int32Array;
  readonly #memoryWords: number;
  readonly #buffers: StoreBuffers;
  readonly #recorder: AccessRecorder;
  readonly #context: PortContext;
  readonly #agents: readonly Agent[];
  readonly #steps: readonly Step<Agent>[] = STEPS;
  readonly #stepWord: Int32Array;
  /** Words that each agent may write without its port. */
  readonly #scans: readonly (readonly Run[])[];
  readonly #scansAll: readonly boolean[];
  readonly #owner: Int32Array;
  /** The predicates that look at each byte, as a mask. */
  readonly #watchers: Int32Array;
  readonly #firstPredicateCell: number;
  readonly #cells: Cells;
  #stepping = -1;
  readonly #stepWatches: readonly Watch[];
  readonly #note: (at: number, bytes: number, write: boolean) => void;
  readonly #afterRestore: (() => void) | undefined;
  #undoIndex = new Int32Array(UNDO_FIRST);
  #undoValue = new Int32Array(UNDO_FIRST);
  #undo = 0;
  readonly #touched: number[] = [];
  readonly #isTouched: Uint8Array;
  #chooser: Chooser = FIRST;
  #enabled = 0;
  #enabledKnown = false;
  #path = new Int32Array(UNDO_FIRST);

  /**
   * Gives the agents of `system` the explorer's ports; the present contents of the memory are the initial state.
   * Throws `RangeError` for more actors than a mask holds.
   */
  constructor(system: System, memoryModel: MemoryModel = "sc") {
    const { memory, agents } = system;
    this.system = system;
    this.memoryModel = memoryModel;
    this.#agents = agents.map(({ agent }) => agent);
    this.agentCount = agents.length;
    const numbers = agents.map(({ processor }, index) => processor ?? -1 - index);
    const distinct = [...new Set(numbers)];
    const processors = numbers.map((number) => distinct.indexOf(number));
    const buffers = memoryModel === "tso" ? distinct.length : 0;
    this.processors = [...processors, ...Array.from({ length: buffers }, (_, processor) => processor)];
    const names = this.#agents.map(({ name }) => name);
    this.actorNames = [...names, ...distinct.slice(0, buffers).map((_, p) => bufferName(names, processors, p))];
    if (this.actorNames.length > ACTORS_MAX) {
      throw new RangeError(`${this.actorNames.length} agents and store buffers, at most ${ACTORS_MAX} can be explored`);
    }
    let fair = 0;
    agents.forEach(({ environment }, index) => fair |= environment ? 0 : 1 << index);
    for (let index = this.agentCount; index < this.actorNames.length; index++) fair |= 1 << index;
    this.fairMask = fair;

    this.#map = new StateMap(system.mutable, memory.buffer.byteLength);
    const { properties } = system;
    this.watchesAll = properties.some(watchesAnything);
    const predicates = properties.flatMap((property) => property.when === "always" ? property.parts ?? [property] : []);
    this.#firstPredicateCell = distinct.length;
    this.processorCells = distinct.length;
    this.firstCell = distinct.length + Math.min(predicates.length, PREDICATES_MAX);
    const cells = new Cells(this.#map, this.firstCell);
    this.#cells = cells;
    this.#watchers = new Int32Array(this.#map.size * 4);
    this.#recorder = new AccessRecorder(this.#map, cells, this.#watchers);
    this.#buffers = new StoreBuffers(buffers, memory, this.#recorder);
    this.#context = { memory, recorder: this.#recorder, chooser: { nextChoice: (count) => this.#choose(count) } };
    this.#memory = memory.i32;
    this.#memoryWords = this.#map.size;
    this.stateWords = this.#map.size + this.#buffers.words.length;
    this.#mirror = new Int32Array(this.stateWords);
    this.#isTouched = new Uint8Array(this.stateWords);
    this.#map.words.forEach((word, index) => this.#mirror[index] = this.#memory[word]);
    this.#initial = this.#mirror.slice();

    this.#stepWord = Int32Array.from(this.#agents, ({ block }) => (block + STEP) >>> 2);
    this.#owner = new Int32Array(this.stateWords).fill(-1);
    this.localHash = new Int32Array(this.actorNames.length);
    this.localHashHigh = new Int32Array(this.actorNames.length);
    this.#scansAll = agents.map(({ writes }) => writes === undefined);
    this.#scans = agents.map(({ agent, writes }, index) => {
      const block = { at: agent.block, bytes: AgentBlock.size };
      for (const { from, to } of this.#map.runsIn([block])) this.#owner.fill(index, from, to);
      return writes === undefined ? this.#map.runs : this.#map.runsIn([block, ...writes]);
    });
    this.#stepWatches = this.#watch(predicates);
    const { accesses, order } = this.#recorder;
    this.#note = (at, bytes, write) => cells[write ? "write" : "read"](accesses, order, at, bytes);
    this.#afterRestore = system.afterRestore?.bind(system);
    agents.forEach(({ agent }, index) => agent.port = this.#port(processors[index]));
  }

  /** Number of the actor called `name`, or -1. */
  actor(name: string): number {
    return this.actorNames.indexOf(name);
  }

  /** The step that an actor takes next. A store buffer's is always the same. */
  stepName(actor: number): string {
    return actor < this.agentCount ? stepName(this.#memory[this.#stepWord[actor]]) : DRAIN_STEP;
  }

  /** Who decides the outcomes of steps that choose. */
  set chooser(chooser: Chooser) {
    this.#chooser = chooser;
  }

  // --- Steps --------------------------------------------------------------------------------------------------------

  /** The actors that can take a step now, as a mask. */
  enabled(): number {
    if (this.#enabledKnown) return this.#enabled;
    let mask = 0;
    const memory = this.#memory;
    if (this.system.over?.()) return this.knowEnabled(0);
    for (let actor = 0; actor < this.agentCount; actor++) {
      const { enabled } = this.#steps[memory[this.#stepWord[actor]]];
      if (enabled === undefined || enabled(this.#agents[actor])) mask |= 1 << actor;
    }
    const buffers = this.actorNames.length - this.agentCount;
    for (let processor = 0; processor < buffers; processor++) {
      if (this.#buffers.used(processor) !== 0) mask |= 1 << (this.agentCount + processor);
    }
    return this.knowEnabled(mask);
  }

  /** Says which actors are enabled in the present state, so that it need not be asked again. */
  knowEnabled(mask: number): number {
    this.#enabled = mask;
    this.#enabledKnown = true;
    return mask;
  }

  /** Whether actor `actor` can take a step now. */
  isEnabled(actor: number): boolean {
    if (this.system.over?.()) return false;
    if (actor >= this.agentCount) return this.#buffers.used(this.processors[actor]) !== 0;
    const { enabled } = this.#steps[this.#memory[this.#stepWord[actor]]];
    return enabled === undefined || enabled(this.#agents[actor]);
  }

  /** Takes a step of `actor`, which is enabled. Throws an `Error` that names the step when its code fails. */
  execute(actor: number): void {
    this.transitions++;
    this.#enabledKnown = false;
    this.outcomes = 1;
    this.outcome = 0;
    const recorder = this.#recorder;
    recorder.clear();
    if (actor >= this.agentCount) {
      this.#buffers.drainOldest(this.processors[actor]);
      this.#commitLog();
    } else {
      const agent = this.#agents[actor];
      const word = this.#stepWord[actor];
      const before = this.#memory[word];
      if (recorder.on) {
        this.isEnabled(actor); // what its condition reads is part of the step
        this.system.footprint?.(agent, before, this.#note);
      }
      try {
        this.#memory[word] = this.#steps[before].run(agent);
      } catch (error) {
        const reason = error instanceof Error ? error.message : String(error);
        throw new Error(`Step '${stepName(before)}' of '${agent.name}' failed: ${reason}`, { cause: error });
      }
      if (recorder.on) this.#watchStep(actor, before, this.#memory[word]);
      this.#stepping = recorder.on ? actor : -1;
      this.#commitScan(actor);
      this.#stepping = -1;
    }
    if (recorder.on) this.#touchWatched(recorder.watched);
    if (this.memoryModel === "tso") this.#commitBuffer(this.processors[actor]);
    if (this.depth * 2 === this.#path.length) this.#path = grown(this.#path);
    this.#path[this.depth * 2] = actor;
    this.#path[this.depth * 2 + 1] = this.outcome;
    this.depth++;
  }

  /** The choices that led from where the path began to the present state. */
  path(): Choice[] {
    const choices: Choice[] = [];
    for (let k = 0; k < this.depth; k++) {
      choices.push({ actor: this.#path[k * 2], outcome: this.#path[k * 2 + 1] });
    }
    return choices;
  }

  /** How far the undo log reaches now. */
  get mark(): number {
    return this.#undo;
  }

  /** Goes back to depth `depth`, where the undo log reached `mark` and the fingerprint was `low` and `high`. */
  undo(depth: number, mark: number, low: number, high: number): void {
    this.depth = depth;
    this.#enabledKnown = false;
    if (this.#undo === mark) return;
    const mirror = this.#mirror;
    while (this.#undo > mark) {
      const index = this.#undoIndex[--this.#undo];
      const value = this.#undoValue[this.#undo];
      const owner = this.#owner[index];
      if (owner >= 0) {
        this.localHash[owner] ^= mixLow(index, mirror[index]) ^ mixLow(index, value);
        this.localHashHigh[owner] ^= mixHigh(index, mirror[index]) ^ mixHigh(index, value);
      }
      mirror[index] = value;
      this.#put(index, value);
    }
    this.hashLow = low;
    this.hashHigh = high;
    this.#afterRestore?.();
  }

  /** A copy of the state. */
  snapshot(): Snapshot {
    const touched = this.#touched;
    const copy = new Int32Array(touched.length);
    for (let k = 0; k < copy.length; k++) copy[k] = this.#mirror[touched[k]];
    return copy;
  }

  /** Makes a copied state the present one; undo log and path begin there. Without an argument: the initial state. */
  restore(snapshot: Snapshot = EMPTY): void {
    const touched = this.#touched;
    for (let k = 0; k < touched.length; k++) {
      const index = touched[k];
      const value = k < snapshot.length ? snapshot[k] : this.#initial[index];
      if (this.#mirror[index] === value) continue;
      this.#change(index, value);
      this.#put(index, value);
    }
    this.#undo = 0;
    this.depth = 0;
    this.#enabledKnown = false;
    this.#afterRestore?.();
  }

  /** Makes the present state the initial one: what is explored next begins here. */
  rebase(): void {
    this.#initial.set(this.#mirror);
    this.#isTouched.fill(0);
    this.#touched.length = 0;
    this.#undo = 0;
    this.depth = 0;
  }

  /** Byte offsets of the words of the memory that have changed since the undo log reached `mark`. */
  changedSince(mark: number): number[] {
    const changed = new Set<number>();
    for (let k = mark; k < this.#undo; k++) {
      const index = this.#undoIndex[k];
      if (index < this.#memoryWords) changed.add(this.#map.words[index] * 4);
    }
    return [...changed];
  }

  /** The stores that wait in the store buffer of an actor's processor, the oldest first. */
  bufferedStores(actor: number): { readonly at: number; readonly bytes: Uint8Array }[] {
    return this.memoryModel === "tso" ? this.#buffers.stores(this.processors[actor]) : [];
  }

  /** Writes the accesses of the steps that follow to a list, too; `undefined` ends that. */
  traceInto(touches: Touch[] | undefined): void {
    this.#recorder.touches = touches;
    this.recording = touches !== undefined;
  }

  /**
   * The state's fingerprint as other processes compute it: numbers of steps are replaced by the steps' names.
   * 16 hexadecimal digits.
   */
  fingerprint(): string {
    const stepWords = new Set(this.system.stepWords?.map((at) => this.#map.index(at)));
    for (const { block } of this.#agents) {
      stepWords.add(this.#map.index(block + STEP));
      for (let k = 0; k < RETURN_STACK_DEPTH; k++) stepWords.add(this.#map.index(block + RETURNS + k * 4));
    }
    let low = 0;
    let high = 0;
    for (let index = 0; index < this.stateWords; index++) {
      const raw = this.#mirror[index];
      const value = stepWords.has(index) && raw !== 0 ? hashName(stepName(raw)) : raw;
      low ^= mixLow(index, value);
      high ^= mixHigh(index, value);
    }
    return (high >>> 0).toString(16).padStart(8, "0") + (low >>> 0).toString(16).padStart(8, "0");
  }

  // --- Accesses -----------------------------------------------------------------------------------------------------

  /** Whether accesses are recorded. */
  set recording(on: boolean) {
    this.#recorder.on = on;
    this.#recorder.clear();
  }

  /** What the last step read and wrote; only while recording. */
  get accesses(): Accesses {
    return this.#recorder.accesses;
  }

  /** The cells that the last step, or condition, read and had not written, in order; only while recording. */
  get readOrder(): ReadOrder {
    return this.#recorder.order;
  }

  /** The predicates whose words the last step touched, as a mask; only while recording. */
  get watched(): number {
    return this.#recorder.watched;
  }

  /** Whether `actor` is enabled; while recording, what the condition reads is then in `readOrder`. */
  testEnabled(actor: number): boolean {
    this.#recorder.clear();
    if (actor >= this.agentCount) this.#recorder.readCell(this.processors[actor]);
    return this.isEnabled(actor);
  }

  /** The value of a cell that does not stand for a predicate: its bytes or, when they are many, a hash of them. */
  cellValue(cell: number): number {
    return this.#valueIn(cell, this.#mirror);
  }

  /** The value of a cell in the initial state. */
  initialCellValue(cell: number): number {
    return this.#valueIn(cell, this.#initial);
  }

  #valueIn(cell: number, state: Int32Array): number {
    if (cell >= this.firstCell) return this.#cells.value(cell, state);
    const first = this.#memoryWords + cell * STORE_BUFFER_WORDS;
    if (first >= this.stateWords) return 0;
    let value = 0;
    for (let k = 0; k <= state[first]; k++) value ^= mixHigh(k, state[first + k]);
    return value;
  }

  /** Whether nothing can be known of the cell's value. */
  isSharedCell(cell: number): boolean {
    return this.#cells.isShared(cell);
  }

  // --- Inside -------------------------------------------------------------------------------------------------------

  #port(processor: number): MemoryPort {
    return this.memoryModel === "tso"
      ? new StoreBufferPort(this.#context, this.#buffers, processor)
      : new SequentialPort(this.#context);
  }

  #choose(count: number): number {
    if (this.outcomes !== 1) throw new Error("chooses twice");
    this.outcomes = count;
    if (count <= 1) return 0;
    this.outcome = this.#chooser.nextChoice(count);
    if (this.outcome < 0 || this.outcome >= count) throw new RangeError(`outcome ${this.outcome} of ${count}`);
    return this.outcome;
  }

  /** Notes which predicates look at which byte, and returns what they know of steps. */
  #watch(predicates: readonly Watched[]): Watch[] {
    return predicates.flatMap(({ watches = [], watchesSteps = [] }, number) => {
      const predicate = 1 << Math.min(number, PREDICATES_MAX - 1);
      for (const { at, bytes } of watches) {
        for (let byte = at; byte < at + bytes; byte++) {
          const index = this.#map.index(byte);
          if (index >= 0) this.#watchers[index * 4 + (byte & 3)] |= predicate;
        }
      }
      return watchesSteps.map(({ agent, steps }) => {
        return { agent: this.#agents.indexOf(agent), steps: new Set(steps), predicate };
      });
    });
  }

  /** The step has touched what these predicates look at. */
  #touchWatched(predicates: number): void {
    for (let rest = predicates; rest !== 0; rest &= rest - 1) {
      this.#recorder.writeCell(this.#firstPredicateCell + 31 - Math.clz32(rest & -rest));
    }
  }

  #watchStep(actor: number, before: StepId, after: StepId): void {
    for (const { agent, steps, predicate } of this.#stepWatches) {
      if (agent === actor && steps.has(before) !== steps.has(after)) this.#recorder.watched |= predicate;
    }
  }

  #commitScan(actor: number): void {
    const memory = this.#memory;
    const mirror = this.#mirror;
    const scans = this.#scans[actor];
    for (let k = 0; k < scans.length; k++) {
      const { from, to, word } = scans[k];
      let index = from;
      let at = word;
      // Most words of a long run stay as they are: four at a time.
      for (; index + 4 <= to; index += 4, at += 4) {
        const difference = (memory[at] ^ mirror[index]) | (memory[at + 1] ^ mirror[index + 1]) |
          (memory[at + 2] ^ mirror[index + 2]) | (memory[at + 3] ^ mirror[index + 3]);
        if (difference !== 0) this.#compare(index, index + 4, at);
      }
      if (index < to) this.#compare(index, to, at);
    }
    if (!this.#scansAll[actor]) this.#commitLog();
  }

  /** Takes over what has changed of state words `from` to `to` - 1, which begin at word `word` of the memory. */
  #compare(from: number, to: number, word: number): void {
    for (let index = from, at = word; index < to; index++, at++) {
      const value = this.#memory[at];
      if (value !== this.#mirror[index]) this.#change(index, value);
    }
  }

  #commitLog(): void {
    const { log, logged, overflowed } = this.#recorder;
    if (overflowed) {
      this.#commitAll();
      return;
    }
    for (let k = 0; k < logged; k++) {
      const index = log[k];
      const value = this.#memory[this.#map.words[index]];
      if (value !== this.#mirror[index]) this.#change(index, value);
    }
  }

  #commitAll(): void {
    for (let index = 0; index < this.#memoryWords; index++) {
      const value = this.#memory[this.#map.words[index]];
      if (value !== this.#mirror[index]) this.#change(index, value);
    }
  }

  #commitBuffer(processor: number): void {
    const { words } = this.#buffers;
    const base = processor * STORE_BUFFER_WORDS;
    const first = this.#memoryWords + base;
    const used = Math.max(words[base], this.#mirror[first]);
    for (let k = 0; k <= used; k++) {
      if (words[base + k] !== this.#mirror[first + k]) this.#change(first + k, words[base + k]);
    }
  }

  /** State word `index` has become `value`. */
  #change(index: number, value: number): void {
    const old = this.#mirror[index];
    const low = mixLow(index, old) ^ mixLow(index, value);
    this.hashLow ^= low;
    this.hashHigh ^= mixHigh(index, old) ^ mixHigh(index, value);
    const owner = this.#owner[index];
    if (owner >= 0) {
      this.localHash[owner] ^= low;
      this.localHashHigh[owner] ^= mixHigh(index, old) ^ mixHigh(index, value);
    }
    if (this.#recorder.on) this.#noteChange(index, old ^ value, owner);
    if (this.#isTouched[index] === 0) {
      this.#isTouched[index] = 1;
      this.#touched.push(index);
    }
    this.#mirror[index] = value;
    if (this.#undo === this.#undoIndex.length) this.#growUndo();
    this.#undoIndex[this.#undo] = index;
    this.#undoValue[this.#undo++] = old;
  }

  /** While recording: what else is to be known of a change of state word `index`. */
  #noteChange(index: number, difference: number, owner: number): void {
    if (index >= this.#memoryWords) return;
    for (let byte = 0; byte < 4; byte++) {
      if ((difference >>> (byte * 8) & 0xff) !== 0) this.#recorder.watched |= this.#watchers[index * 4 + byte];
    }
    if (this.#stepping < 0 || owner === this.#stepping) return;
    if (owner >= 0) this.meddled = true;
    else this.#recorder.writeWord(index, this.#map.words[index] * 4);
  }

  #put(index: number, value: number): void {
    if (index < this.#memoryWords) this.#memory[this.#map.words[index]] = value;
    else this.#buffers.words[index - this.#memoryWords] = value;
  }

  #growUndo(): void {
    this.#undoIndex = grown(this.#undoIndex);
    this.#undoValue = grown(this.#undoValue);
  }
}

/** Whether the order of two steps may always matter to a property. */
function watchesAnything({ when, watches, parts }: Property): boolean {
  return when === "always" && (parts === undefined ? watches === undefined : parts.some((part) => !part.watches));
}

/** A copy of twice the length. */
export function grown(array: Int32Array<ArrayBuffer>): Int32Array<ArrayBuffer> {
  const copy = new Int32Array(array.length * 2);
  copy.set(array);
  return copy;
}

const EMPTY: Snapshot = new Int32Array(0);

/** What the step of a store buffer is called. */
export const DRAIN_STEP = "store-buffer.drain";

/** A store buffer is named after the first agent of its processor. */
function bufferName(names: readonly string[], processors: readonly number[], processor: number): string {
  return `${names[processors.indexOf(processor)]}.store-buffer`;
}

/** A 32-bit number for a name (FNV-1a). */
function hashName(name: string): number {
  let hash = 0x811c9dc5;
  for (let k = 0; k < name.length; k++) hash = Math.imul(hash ^ name.charCodeAt(k), 0x01000193);
  return hash;
}
