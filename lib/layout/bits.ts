/**
 * Bitfields as tables: `[bit, width, name, meaning]`, least significant bit 0.
 *
 * Bits that no row names are reserved: their mask is `reserved`, and a decoded value shows them only when one is set.
 *
 * @module
 */

import { type Decoded, type FieldType, hex, type IntegerType } from "./field_type.ts";

/** A row of a bitfield: first bit, width in bits, name, meaning, and the enumeration that names its values, if any. */
export type BitRow = readonly [
  bit: number,
  width: number,
  name: string,
  meaning: string,
  values?: { name(value: number | bigint): string },
];

/** A field of a bitfield, for listings. */
export interface BitField {
  /** Least significant bit. */
  readonly bit: number;
  /** Width in bits. */
  readonly width: number;
  /** The field's name. */
  readonly name: string;
  /** What it means. */
  readonly meaning: string;
}

/** Widths whose values a JavaScript number does not hold. */
export type WideWidth = 54 | 55 | 56 | 57 | 58 | 59 | 60 | 61 | 62 | 63 | 64 | 120;
/** Names of a table's rows. */
export type BitNames<Rows extends readonly BitRow[]> = Rows[number][2];
/** The row of one name. */
export type RowOf<Rows extends readonly BitRow[], Name> = Extract<
  Rows[number],
  readonly [number, number, Name, ...unknown[]]
>;
/** `number` for a field of up to 53 bits, `bigint` above. */
export type BitValue<Rows extends readonly BitRow[], Name> = RowOf<Rows, Name>[1] extends WideWidth ? bigint : number;
/** What listings and checks need of any bitfield. */
export interface AnyBits {
  /** Tells a bitfield from other declarations. */
  readonly kind: "bits";
  /** The bitfield's name, as its source has it. */
  readonly name: string;
  /** Bytes of the storage unit. */
  readonly size: number;
  /** The document or repository and symbol that defines it. */
  readonly source: string;
  /** Rows in order. */
  readonly fields: readonly BitField[];
  /** A table of the declaration as text. */
  describe(): string;
}

/** A bitfield declaration; also the type of a field that holds it. */
export interface Bits<Word extends number | bigint, Rows extends readonly BitRow[]>
  extends FieldType<Word, never>, AnyBits {
  /** Tells a bitfield from other declarations. */
  readonly kind: "bits";
  /** The storage unit's type. */
  readonly storage: IntegerType<Word>;
  /** Least significant bit of each field. */
  readonly shift: Readonly<Record<BitNames<Rows>, number>>;
  /** Each field's bits in place, in the storage's own kind: `number` up to 32 bits, else `bigint`. */
  readonly mask: Readonly<Record<BitNames<Rows>, Word>>;
  /** Each field's bits within bits 31:0, as an unsigned number; 0 where it has none there. For 32-bit code. */
  readonly low: Readonly<Record<BitNames<Rows>, number>>;
  /** Each field's bits within bits 63:32, moved down by 32, as an unsigned number; 0 where it has none there. */
  readonly high: Readonly<Record<BitNames<Rows>, number>>;
  /** Bits that belong to no field. */
  readonly reserved: Word;
  /** The field's value, moved down to bit 0. */
  get<Name extends BitNames<Rows>>(value: number | bigint, name: Name): BitValue<Rows, Name>;
  /** `value` with one field replaced; throws a `RangeError` when the new value is wider than the field. */
  with(value: number | bigint, name: BitNames<Rows>, fieldValue: number | bigint | boolean): Word;
  /** A value with the given fields set and every other bit clear. */
  make(fields: Readonly<Partial<Record<BitNames<Rows>, number | bigint | boolean>>>): Word;
  /** Plain data for a value: each field by name (`"0x…"` above 53 bits), reserved bits that are set as `reserved_N`. */
  decodeValue(value: number | bigint): { readonly [name: string]: Decoded };
}

/**
 * Declares a bitfield and asserts that its rows ascend, do not overlap and lie inside the storage unit.
 *
 * ```ts
 * import { bits } from "./bits.ts";
 * import { u16 } from "./field_type.ts";
 *
 * const State = bits("State", u16, [
 *   [0, 2, "cpl", "Current privilege level"],
 *   [4, 1, "efer_lma", "Long mode is active"],
 * ]);
 * State.get(0x13, "cpl"); // 3
 * State.mask.efer_lma; // 0x10
 * State.make({ efer_lma: true }); // 0x10
 * ```
 */
export function bits<Word extends number | bigint, const Rows extends readonly BitRow[]>(
  name: string,
  storage: IntegerType<Word>,
  rows: Rows,
  source = "",
): Bits<Word, Rows> {
  const gaps = checkRows(name, storage.bits, rows);
  const wordMask = BigInt.asUintN(storage.bits, -1n);
  const toWord = (value: bigint) => (storage.bits <= 32 ? Number(value) : value) as Word;
  const masks = new Map(rows.map(([bit, width, field]) => [field as string, fieldMask(bit, width)]));
  const byName = new Map(rows.map((row) => [row[2] as string, row]));
  const table = <V>(of: (row: BitRow) => V) =>
    Object.freeze(Object.fromEntries(rows.map((row) => [row[2], of(row)]))) as Record<BitNames<Rows>, V>;

  const get = (value: number | bigint, field: string): number | bigint => {
    const [bit, width] = byName.get(field)!;
    const raw = BigInt.asUintN(width, BigInt.asUintN(storage.bits, BigInt(value)) >> BigInt(bit));
    return width > NUMBER_BITS ? raw : Number(raw);
  };
  const replace = (value: number | bigint, field: string, fieldValue: number | bigint | boolean): Word => {
    const [bit, width] = byName.get(field)!;
    const raw = BigInt(fieldValue);
    if (raw < 0n || raw >> BigInt(width) !== 0n) {
      throw new RangeError(`${name}.${field} has ${width} bits, too few for ${hex(raw)}`);
    }
    return toWord(BigInt.asUintN(storage.bits, BigInt(value)) & ~masks.get(field)! & wordMask | raw << BigInt(bit));
  };
  const decodeValue = (value: number | bigint) => {
    const decoded: Record<string, Decoded> = {};
    for (const [, , field, , values] of rows) {
      const raw = get(value, field);
      decoded[field] = values ? values.name(raw) : typeof raw === "bigint" ? hex(raw) : raw;
    }
    for (const [bit, width] of gaps) {
      const raw = BigInt.asUintN(storage.bits, BigInt(value)) >> BigInt(bit) & fieldMask(0, width);
      if (raw !== 0n) decoded[`reserved_${bit}`] = hex(raw);
    }
    return decoded;
  };

  return Object.freeze<Bits<Word, Rows>>({
    kind: "bits",
    name,
    source,
    size: storage.size,
    at: {},
    storage,
    fields: rows.map(([bit, width, field, meaning]) => ({ bit, width, name: field, meaning })),
    shift: table(([bit]) => bit),
    mask: table(([bit, width]) => toWord(fieldMask(bit, width))),
    low: table(([bit, width]) => Number(BigInt.asUintN(32, fieldMask(bit, width)))),
    high: table(([bit, width]) => Number(BigInt.asUintN(32, fieldMask(bit, width) >> 32n))),
    reserved: toWord(gaps.reduce((mask, [bit, width]) => mask | fieldMask(bit, width), 0n)),
    get: get as Bits<Word, Rows>["get"],
    with: replace,
    make: (fields) =>
      Object.entries<number | bigint | boolean | undefined>(fields).reduce<Word>(
        (value, [field, fieldValue]) => fieldValue === undefined ? value : replace(value, field, fieldValue),
        toWord(0n),
      ),
    decodeValue,
    read: (view, offset) => storage.read(view, offset),
    write: (view, offset, value) => storage.write(view, offset, value),
    decode: (view, offset) => decodeValue(storage.read(view, offset)),
    describe: () => describeBits(name, storage, rows, source),
  });
}

/** Bits that a JavaScript number holds exactly. */
const NUMBER_BITS = 53;

/** `width` ones, starting at `bit`. */
function fieldMask(bit: number, width: number): bigint {
  return ((1n << BigInt(width)) - 1n) << BigInt(bit);
}

/** Throws a `TypeError` for a table that is not ascending and disjoint; returns the gaps as `[bit, width]`. */
function checkRows(name: string, storageBits: number, rows: readonly BitRow[]): (readonly [number, number])[] {
  const gaps: (readonly [number, number])[] = [];
  const seen = new Set<string>();
  let next = 0;
  for (const [bit, width, field] of rows) {
    if (seen.has(field)) throw new TypeError(`${name}: field "${field}" is declared twice`);
    seen.add(field);
    if (width < 1) throw new TypeError(`${name}: field "${field}" has no bits`);
    if (bit < next) throw new TypeError(`${name}: field "${field}" at bit ${bit} begins below bit ${next}`);
    if (bit > next) gaps.push([next, bit - next]);
    next = bit + width;
  }
  if (next > storageBits) throw new TypeError(`${name}: ${next} bits are declared, the storage has ${storageBits}`);
  if (next < storageBits) gaps.push([next, storageBits - next]);
  return gaps;
}

/** The text of `Bits.describe`. */
function describeBits(
  name: string,
  storage: { readonly name: string },
  rows: readonly BitRow[],
  source: string,
): string {
  const widest = Math.max(0, ...rows.map((row) => row[2].length));
  const lines = rows.map(([bit, width, field, meaning]) => {
    const range = width === 1 ? `${bit}` : `${bit + width - 1}:${bit}`;
    return `  ${range.padStart(7)}  ${field.padEnd(widest)}  ${meaning}`.trimEnd();
  });
  return [`${name} (${storage.name} bits)${source && `: ${source}`}`, ...lines].join("\n");
}
