/**
 * Names and values of places in the memory, from the layouts of the structures that lie there.
 *
 * @module
 */
import type { ArrayType, Decoded, FieldType } from "../layout/field_type.ts";
import type { AnyStructure } from "../layout/structure.ts";
import type { NamedStructure } from "./system.ts";

/** A field without parts. */
export interface Leaf {
  /** The structure that it lies in. */
  readonly structure: NamedStructure;
  /** Dotted name inside the structure. */
  readonly field: string;
  /** Byte offset in the memory. */
  readonly at: number;
  readonly type: FieldType;
}

/** The field at byte `at`, or nothing where no structure was named. */
export function leafAt(structures: readonly NamedStructure[], at: number): Leaf | undefined {
  const structure = structures.find((candidate) => at >= candidate.at && at < candidate.at + candidate.layout.size);
  if (structure === undefined) return undefined;
  let type = structure.layout as unknown as FieldType;
  let base = structure.at;
  let name = "";
  for (;;) {
    if (type.kind === "structure" || type.kind === "union") {
      const fields = (type as unknown as AnyStructure).fields;
      const field = fields.find(({ offset, size }) => at >= base + offset && at < base + offset + size);
      if (field === undefined) return undefined;
      name = name === "" ? field.name : `${name}.${field.name}`;
      base += field.offset;
      type = field.type;
    } else if (type.kind === "array") {
      const list = type as ArrayType<unknown, string, string>;
      const index = Math.floor((at - base) / list.stride);
      name += list.names.length > 0 ? `.${list.names[index]}` : `[${index}]`;
      base += index * list.stride;
      type = list.element;
    } else {
      return { structure, field: name, at: base, type };
    }
  }
}

/** Every field that `bytes` bytes at `at` touch. */
export function leavesIn(structures: readonly NamedStructure[], at: number, bytes: number): Leaf[] {
  const leaves: Leaf[] = [];
  for (let byte = at; byte < at + bytes;) {
    const leaf = leafAt(structures, byte);
    if (leaf === undefined) {
      byte++;
      continue;
    }
    leaves.push(leaf);
    byte = leaf.at + leaf.type.size;
  }
  return leaves;
}

/** A field as people name it. */
export function leafName({ structure, field }: Leaf): string {
  return structure.name === "" ? field : `${structure.name}.${field}`;
}

/** A value as people read it; a long string of bytes is cut. */
export function valueText(value: Decoded): string {
  const text = typeof value === "string" ? value : JSON.stringify(value);
  return text.length > VALUE_MAX ? `${text.slice(0, VALUE_MAX)}…` : text;
}

const VALUE_MAX = 24;
