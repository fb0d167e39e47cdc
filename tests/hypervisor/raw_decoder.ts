/**
 * Decodes structures out of raw bytes by the reference layouts, which compilers printed, and by nothing else: no
 * declaration of the product is used, so that a wrong offset there cannot hide here.
 */

interface ReferenceField {
  readonly name: string;
  readonly offset: number;
  readonly size: number;
  readonly type: string;
  readonly count: number;
  readonly elements?: readonly string[];
}
interface ReferenceBit {
  readonly name: string;
  readonly lo: number;
  readonly width: number;
}
interface ReferenceStructure {
  readonly size: number;
  readonly kind: string;
  readonly fields?: readonly ReferenceField[];
  readonly bits?: readonly ReferenceBit[];
}

const layouts: { structures: Record<string, ReferenceStructure> } = JSON.parse(
  Deno.readTextFileSync(new URL("../data/layouts/hyperv.layouts.json", import.meta.url)),
);
const constants: { groups: Record<string, { values: Record<string, { value: number }> }> } = JSON.parse(
  Deno.readTextFileSync(new URL("../data/layouts/hyperv.constants.json", import.meta.url)),
);

/** Number of each message type, from the reference. */
export const MESSAGE_TYPES: ReadonlyMap<string, number> = new Map(
  Object.entries(constants.groups.message_types.values).map(([name, { value }]) => [name, value]),
);

/** A structure's fields: `a.b` and `a.b.bit` for nested ones, `a.rax` or `a[3]` for arrays; integers as bigint. */
export type Decoded = Map<string, bigint>;

/** Bytes of a structure. */
export function sizeOf(name: string): number {
  return layouts.structures[name].size;
}

/** Offset of a field of a structure. */
export function offsetOf(name: string, field: string): number {
  const found = layouts.structures[name].fields?.find((candidate) => candidate.name === field);
  if (found === undefined) throw new Error(`${name} has no field ${field}`);
  return found.offset;
}

/** Little-endian integer of any size. */
export function integer(bytes: Uint8Array, at: number, size: number): bigint {
  let value = 0n;
  for (let k = size - 1; k >= 0; k--) value = value << 8n | BigInt(bytes[at + k]);
  return value;
}

/** Decodes structure `name` at byte `at`. */
export function decode(name: string, bytes: Uint8Array, at: number): Decoded {
  const out: Decoded = new Map();
  decodeInto(out, "", name, bytes, at);
  return out;
}

function decodeInto(out: Decoded, prefix: string, name: string, bytes: Uint8Array, at: number): void {
  const structure = layouts.structures[name];
  if (structure.bits !== undefined) {
    const value = integer(bytes, at, structure.size);
    for (const { name: bit, lo, width } of structure.bits) {
      out.set(`${prefix}${bit}`, value >> BigInt(lo) & (1n << BigInt(width)) - 1n);
    }
    return;
  }
  for (const field of structure.fields!) {
    const type = field.type.replace(/:.*/, "");
    const each = field.size / field.count;
    for (let k = 0; k < field.count; k++) {
      const element = field.elements?.[k];
      const path = prefix + field.name + (field.count === 1 ? "" : element === undefined ? `[${k}]` : `.${element}`);
      if (layouts.structures[type] !== undefined) {
        decodeInto(out, `${path}.`, type, bytes, at + field.offset + k * each);
      } else out.set(path, integer(bytes, at + field.offset + k * each, each));
    }
  }
}
