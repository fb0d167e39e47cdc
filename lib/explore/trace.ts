/**
 * What a schedule does, step by step: who, which step, which named fields it changed, and what it looked at.
 *
 * @module
 */
import { hexBytes } from "../layout/field_type.ts";
import type { Touch } from "./access_recorder.ts";
import type { Choice, Engine } from "./engine.ts";
import { preemption } from "./exhaustive.ts";
import { type Leaf, leafName, leavesIn, valueText } from "./field_names.ts";

/** A field that a step changed. */
export interface FieldChange {
  readonly field: string;
  readonly before: string;
  readonly after: string;
  /** Whether the store is in a store buffer, where others cannot see it yet. */
  readonly buffered: boolean;
}

/** One step of a schedule. */
export interface TracedStep {
  /** From 1. */
  readonly number: number;
  readonly actor: number;
  readonly agent: string;
  readonly step: string;
  /** The outcome that the environment chose, where it could. */
  readonly outcome?: number;
  /** Whether it is a context switch: the agent of the step before could have gone on. */
  readonly switched: boolean;
  readonly changes: readonly FieldChange[];
  /** Names of the fields that it read, each once. */
  readonly reads: readonly string[];
  /** Names of the fields that it wrote, each once, even where their value stayed. */
  readonly writes: readonly string[];
}

/** Runs `choices` from the initial state and tells what each does. The engine is behind the last of them afterwards. */
export function trace(engine: Engine, choices: readonly Choice[]): TracedStep[] {
  engine.restore();
  let last = -1;
  return choices.map((choice) => {
    const step = traceStep(engine, choice, last);
    last = choice.actor;
    return step;
  });
}

/** Takes one step and tells what it does; `last` is the actor of the step before, or -1. */
export function traceStep(engine: Engine, choice: Choice, last: number): TracedStep {
  const { actor } = choice;
  const structures = engine.system.structures ?? [];
  const touches: Touch[] = [];
  const before = new Map(structures.map((structure) => [structure, copyOf(engine, structure)]));
  const buffered = engine.bufferedStores(actor);
  const switched = preemption(last, actor, engine.enabled()) === 1;
  const step = engine.stepName(actor);
  const mark = engine.mark;
  engine.chooser = { nextChoice: (count) => Math.min(choice.outcome, count - 1) };
  engine.traceInto(touches);
  engine.execute(actor);
  engine.traceInto(undefined);

  const changes: FieldChange[] = [];
  const seen = new Set<string>();
  for (const at of engine.changedSince(mark)) {
    for (const leaf of leavesIn(structures, at, 4)) {
      const name = leafName(leaf);
      if (seen.has(name)) continue;
      seen.add(name);
      const now = copyOf(engine, leaf.structure);
      changes.push(...changeOf(leaf, before.get(leaf.structure)!, now, false));
    }
  }
  for (const { at, bytes } of engine.bufferedStores(actor).slice(buffered.length)) {
    for (const leaf of leavesIn(structures, at, bytes.length)) {
      const old = copyOf(engine, leaf.structure);
      changes.push(...changeOf(leaf, old, overlay(old, leaf, at, bytes), true));
    }
  }
  const named = (write: boolean) => {
    const leaves = touches.filter((touch) => touch.write === write)
      .flatMap(({ at, bytes }) => leavesIn(structures, at, bytes));
    return [...new Set(leaves.map(leafName))];
  };
  return {
    number: engine.depth,
    actor,
    agent: engine.actorNames[actor],
    step,
    ...(engine.outcomes > 1 ? { outcome: engine.outcome } : {}),
    switched,
    changes,
    reads: named(false),
    writes: named(true),
  };
}

/** How a field differs in two copies of its structure; of a long string of bytes only the part that does. */
function changeOf(leaf: Leaf, old: DataView, now: DataView, buffered: boolean): FieldChange[] {
  const at = leaf.at - leaf.structure.at;
  const { type } = leaf;
  let first = 0;
  let last = type.size - 1;
  const differs = (k: number) => old.getUint8(at + k) !== now.getUint8(at + k);
  while (first <= last && !differs(first)) first++;
  if (first > last) return [];
  while (!differs(last)) last--;
  const field = leafName(leaf);
  if (type.kind !== "bytes" || type.size <= WHOLE_BYTES) {
    return [{ field, before: valueText(type.decode(old, at)), after: valueText(type.decode(now, at)), buffered }];
  }
  const values = [old, now].map((data) => valueText(hexBytes(data, at + first, last - first + 1)));
  const place = first === last ? `[${first}]` : `[${first}..${last}]`;
  return [{ field: field + place, before: values[0], after: values[1], buffered }];
}

/** A string of bytes up to this long is shown whole. */
const WHOLE_BYTES = 8;

/** A copy of the bytes of a structure. */
function copyOf(engine: Engine, { at, layout }: { at: number; layout: { size: number } }): DataView {
  return new DataView(engine.system.memory.u8.slice(at, at + layout.size).buffer);
}

/** The structure's bytes as they will be when a store has left its buffer. */
function overlay(old: DataView, leaf: Leaf, at: number, bytes: Uint8Array): DataView {
  const copy = new Uint8Array(old.buffer.slice(0));
  for (let k = 0; k < bytes.length; k++) {
    const offset = at + k - leaf.structure.at;
    if (offset >= 0 && offset < copy.length) copy[offset] = bytes[k];
  }
  return new DataView(copy.buffer);
}
