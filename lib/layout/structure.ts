/**
 * Structures and unions, declared once: offsets, accessors, decoders and listings derive from one table.
 *
 * A row is `["efer", 0x0d0, u64, "Extended feature enable"]`, rows are in the manual's order, and `reserved(0x0d8,
 * 104)` stands for bytes that have no meaning; it names itself by its offset. A declaration throws a `TypeError` at
 * load unless its rows ascend, none overlaps another, no byte is left out, and they end exactly at the declared size.
 * Fields that lie over one another are possible only inside a `union`.
 *
 * Hot code takes byte offsets, `const RAX = HvX64IoPortInterceptMessage.at.rax`, and does its own loads and stores;
 * accessors and decoders are for everything else. Everything works on shared and on plain buffers.
 *
 * @module
 */

import { bytes, type Decoded, type FieldType, refuseWrite } from "./field_type.ts";

/** Facts beside a field that some code or check obeys, such as `{ access: "read-only" }`. */
export type Columns = Readonly<Record<string, string | number | boolean>>;

/** A row of a structure: name, byte offset, type, meaning, and further columns. */
export type FieldRow = readonly [
  name: string,
  offset: number,
  type: FieldType,
  meaning: string,
  columns?: Columns,
];

/** A row for bytes without a meaning. */
export interface ReservedRow {
  /** Byte offset of the first reserved byte. */
  readonly reservedAt: number;
  /** How many bytes. */
  readonly size: number;
}

/** A row of a table. */
export type Row = FieldRow | ReservedRow;

/** A field, for listings and checks. */
export interface Field {
  /** The field's name; `reserved_` and the offset in three hexadecimal digits for reserved bytes. */
  readonly name: string;
  /** Byte offset in the structure. */
  readonly offset: number;
  /** Bytes. */
  readonly size: number;
  /** The field's type. */
  readonly type: FieldType;
  /** What it means, with units. */
  readonly meaning: string;
  /** Whether the bytes have no meaning. */
  readonly reserved: boolean;
  /** Further columns of the row. */
  readonly columns: Columns;
}

/** Dotted names of everything in a table: the fields and, after a dot, the parts of their types. */
export type PathsOf<Rows extends readonly Row[]> = PathOf<Rows[number]>;
/** Dotted names that one row contributes. */
export type PathOf<R> = R extends
  readonly [infer Name extends string, number, FieldType<infer _V, infer Sub>, ...unknown[]]
  ? Name | (string extends Sub ? never : `${Name}.${Sub}`)
  : never;
/** A row's name when its values are plain numbers or bigints. */
export type ScalarName<R> = R extends
  readonly [infer Name extends string, number, FieldType<infer V, infer _S>, ...unknown[]]
  ? V extends number | bigint ? Name : never
  : never;
/** A row's name when its values are objects. */
export type AggregateName<R> = R extends
  readonly [infer Name extends string, number, FieldType<infer V, infer _S>, ...unknown[]]
  ? V extends number | bigint ? never : Name
  : never;
/** What a row's field reads as. */
export type ValueOf<R> = R extends readonly [string, number, FieldType<infer V, infer _S>, ...unknown[]] ? V : never;

/** Getters and setters for the fields of a table; aggregates are read only and give accessors of their own. */
export type Accessor<Rows extends readonly Row[]> =
  & { [R in Rows[number] as ScalarName<R>]: ValueOf<R> }
  & { readonly [R in Rows[number] as AggregateName<R>]: ValueOf<R> };

/** What listings and checks need of any structure or union. */
export interface AnyStructure {
  /** Whether fields may lie over one another. */
  readonly kind: "structure" | "union";
  /** The structure's name, as its source has it. */
  readonly name: string;
  /** Bytes. */
  readonly size: number;
  /** The document or repository and symbol that defines it. */
  readonly source: string;
  /** Byte offsets of the fields and of the parts inside them, by dotted name. */
  readonly at: Readonly<Record<string, number>>;
  /** Every field in order, reserved ones included. */
  readonly fields: readonly Field[];
  /** The field of that name; throws a `RangeError` when there is none. */
  field(name: string): Field;
  /** Plain data for the structure at byte `base`; reserved bytes appear only when one is not zero. */
  decode(view: DataView, base?: number): { readonly [name: string]: Decoded };
  /** A table of the declaration as text. */
  describe(): string;
}

/** A declared structure or union; also the type of a field that holds one. */
export interface Structure<Rows extends readonly Row[]>
  extends FieldType<Accessor<Rows>, PathsOf<Rows>>, Omit<AnyStructure, "at"> {
  /** Whether fields may lie over one another. */
  readonly kind: "structure" | "union";
  /** Getters and setters over the structure at byte `base` of `view`. Nothing is copied. */
  accessor(view: DataView, base?: number): Accessor<Rows>;
  /** Plain data for the structure at byte `base`; reserved bytes appear only when one is not zero. */
  decode(view: DataView, base?: number): { readonly [name: string]: Decoded };
}

/** A row for `size` reserved bytes at `offset`. */
export function reserved(offset: number, size: number): ReservedRow {
  return { reservedAt: offset, size };
}

/**
 * Declares a structure of `size` bytes.
 *
 * ```ts
 * import { u16, u32, u64 } from "./field_type.ts";
 * import { reserved, structure } from "./structure.ts";
 *
 * const Table = structure("Table", 16, [
 *   reserved(0, 6),
 *   ["limit", 6, u16, "Last valid byte"],
 *   ["base", 8, u64, "Linear address"],
 * ]);
 * Table.at.limit; // 6
 * const view = new DataView(new ArrayBuffer(64));
 * Table.accessor(view, 16).base = 0x1000n;
 * Table.decode(view, 16); // { limit: 0, base: "0x1000" }
 * ```
 */
export function structure<const Rows extends readonly Row[]>(
  name: string,
  size: number,
  rows: Rows,
  source = "",
): Structure<Rows> {
  const fields = rows.map(toField);
  checkNames(name, fields);
  let end = 0;
  let previous = "its start";
  for (const field of fields) {
    if (field.offset < end) {
      throw new TypeError(
        `${name}: "${field.name}" at ${at(field.offset)} overlaps ${previous}, which ends at ${at(end)}`,
      );
    }
    if (field.offset > end) {
      throw new TypeError(`${name}: bytes ${at(end)} to ${at(field.offset)}, before "${field.name}", are not declared`);
    }
    end = field.offset + field.size;
    previous = `"${field.name}"`;
  }
  if (end !== size) throw new TypeError(`${name}: the fields end at ${at(end)}, its size is ${at(size)}`);
  return build("structure", name, size, fields, source);
}

/**
 * Declares a union of `size` bytes: rows are views of the same bytes and may overlap.
 * Rows still ascend, lie inside, and leave no byte out.
 */
export function union<const Rows extends readonly Row[]>(
  name: string,
  size: number,
  rows: Rows,
  source = "",
): Structure<Rows> {
  const fields = rows.map(toField);
  checkNames(name, fields);
  let covered = 0;
  let previous = 0;
  for (const field of fields) {
    if (field.offset < previous) throw new TypeError(`${name}: "${field.name}" at ${at(field.offset)} does not ascend`);
    if (field.offset > covered) {
      throw new TypeError(`${name}: bytes ${at(covered)} to ${at(field.offset)} are not declared`);
    }
    previous = field.offset;
    covered = Math.max(covered, field.offset + field.size);
  }
  if (covered !== size) throw new TypeError(`${name}: the views end at ${at(covered)}, its size is ${at(size)}`);
  return build("union", name, size, fields, source);
}

/** An offset as the manuals print it. */
function at(offset: number): string {
  return `0x${offset.toString(16).padStart(3, "0")}`;
}

/** The listing entry of a row. */
function toField(row: Row): Field {
  if ("reservedAt" in row) {
    const { reservedAt: offset, size } = row;
    const name = `reserved_${offset.toString(16).padStart(3, "0")}`;
    return { name, offset, size, type: bytes(size), meaning: "", reserved: true, columns: {} };
  }
  const [name, offset, type, meaning, columns = {}] = row;
  return { name, offset, size: type.size, type, meaning, reserved: false, columns };
}

/** Throws a `TypeError` for a name used twice, an offset that is not a whole number, or a field without bytes. */
function checkNames(name: string, fields: readonly Field[]): void {
  const seen = new Set<string>();
  for (const field of fields) {
    if (seen.has(field.name)) throw new TypeError(`${name}: field "${field.name}" is declared twice`);
    seen.add(field.name);
    if (!Number.isInteger(field.offset) || field.offset < 0) {
      throw new TypeError(`${name}: field "${field.name}" has no valid offset`);
    }
    if (!(field.size > 0)) throw new TypeError(`${name}: field "${field.name}" has no bytes`);
  }
}

/** Derives everything from a checked table. */
function build<Rows extends readonly Row[]>(
  kind: "structure" | "union",
  name: string,
  size: number,
  fields: readonly Field[],
  source: string,
): Structure<Rows> {
  const offsets: [path: string, offset: number][] = [];
  for (const field of fields) {
    if (field.reserved) continue;
    offsets.push([field.name, field.offset]);
    for (const [path, inner] of Object.entries(field.type.at)) {
      offsets.push([`${field.name}.${path}`, field.offset + inner]);
    }
  }
  // Made in one go, because V8 keeps an object that grows by more than a dozen computed names as a hash table, and then
  // looks up at run time what it otherwise takes for a constant.
  const at = Object.freeze(Object.fromEntries(offsets));
  const accessor = (view: DataView, base = 0): Accessor<Rows> => {
    const object = {};
    for (const { name: key, offset, type, reserved: skip } of fields) {
      if (skip) continue;
      Object.defineProperty(object, key, {
        enumerable: true,
        get: () => type.read(view, base + offset),
        set: (value: unknown) => type.write(view, base + offset, value),
      });
    }
    return object as Accessor<Rows>;
  };
  return Object.freeze<Structure<Rows>>({
    kind,
    name,
    size,
    source,
    fields,
    at: at as Record<PathsOf<Rows>, number>,
    field: (key) => {
      const found = fields.find((field) => field.name === key);
      if (!found) throw new RangeError(`${name} has no field "${key}"`);
      return found;
    },
    accessor,
    read: accessor,
    write: () => refuseWrite(name),
    decode: (view, base = 0) => {
      const decoded: Record<string, Decoded> = {};
      for (const field of fields) {
        if (field.reserved && allZero(view, base + field.offset, field.size)) continue;
        decoded[field.name] = field.type.decode(view, base + field.offset);
      }
      return decoded;
    },
    describe: () => describeFields(kind, name, size, fields, source),
  });
}

/** Whether `size` bytes at `offset` are all zero. */
function allZero(view: DataView, offset: number, size: number): boolean {
  for (let i = 0; i < size; i++) if (view.getUint8(offset + i) !== 0) return false;
  return true;
}

/** The text of `Structure.describe`. */
function describeFields(kind: string, name: string, size: number, fields: readonly Field[], source: string): string {
  const nameWidth = Math.max(...fields.map((field) => field.name.length));
  const typeWidth = Math.max(...fields.map((field) => field.type.name.length));
  const lines = fields.map((field) => {
    const columns = Object.entries(field.columns).map(([key, value]) => `${key}=${value}`).join(" ");
    const meaning = columns ? `${field.meaning} [${columns}]` : field.meaning;
    return `  ${at(field.offset)} ${String(field.size).padStart(5)}  ${field.name.padEnd(nameWidth)}  ` +
      `${field.type.name.padEnd(typeWidth)}  ${meaning}`.trimEnd();
  });
  return [`${name} (${kind}, ${size} bytes)${source && `: ${source}`}`, ...lines].join("\n");
}
