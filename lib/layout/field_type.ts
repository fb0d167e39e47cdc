/**
 * The types that a field of a binary layout can have: integers, byte strings and arrays.
 *
 * Everything is little endian, as x86-64 stores it. A type knows its size and how to read, write and decode itself at a
 * byte offset of a `DataView`, whose buffer may be shared. None of this is meant for hot code: that takes byte offsets
 * from a structure's `at` and typed arrays over the same buffer.
 *
 * @module
 */

/** What `decode` returns: plain data that `JSON.stringify` writes as it is. 64-bit values are strings `"0x…"`. */
export type Decoded = number | string | readonly Decoded[] | { readonly [name: string]: Decoded };

/**
 * A type of a field.
 *
 * `Value` is what an accessor gives and takes: `number` up to 32 bits, `bigint` above, an object for aggregates.
 * `Paths` are the dotted names of the parts inside, relative to the field (`never` for a scalar).
 */
export interface FieldType<Value = unknown, Paths extends string = string> {
  /** Which family the type belongs to. */
  readonly kind: "integer" | "bytes" | "array" | "bits" | "enum" | "structure" | "union";
  /** The type's name, such as `u32`, `u8[16]` or `HvX64SegmentRegister`. */
  readonly name: string;
  /** Bytes that a value takes. */
  readonly size: number;
  /** Byte offsets of the parts inside a value, by dotted name. */
  readonly at: Readonly<Record<Paths, number>>;
  /** Reads the value at byte `offset`; for an aggregate this is a live accessor. */
  read(view: DataView, offset: number): Value;
  /** Writes `value` at byte `offset`; throws a `TypeError` for an aggregate, whose parts are written instead. */
  write(view: DataView, offset: number, value: Value): void;
  /** Plain data for the value at byte `offset`. */
  decode(view: DataView, offset: number): Decoded;
}

/** An integer type; also what a bitfield and an enumeration are stored in. */
export interface IntegerType<Value extends number | bigint> extends FieldType<Value, never> {
  /** Bits of a value. */
  readonly bits: 8 | 16 | 32 | 64 | 128;
}

/** An integer of up to 32 bits, whose values are numbers. */
export type NumberType = IntegerType<number>;
/** An integer of 64 or 128 bits, whose values are bigints. */
export type BigIntType = IntegerType<bigint>;

/** `"0x…"` with no leading zeros. */
export function hex(value: number | bigint): string {
  return `0x${value.toString(16)}`;
}

/** Lower-case hexadecimal digits of `size` bytes at byte `offset`, in memory order. */
export function hexBytes(view: DataView, offset: number, size: number): string {
  let text = "";
  for (let i = 0; i < size; i++) text += view.getUint8(offset + i).toString(16).padStart(2, "0");
  return text;
}

/** Unsigned byte. */
export const u8: NumberType = {
  kind: "integer",
  name: "u8",
  size: 1,
  bits: 8,
  at: {},
  read: (view, offset) => view.getUint8(offset),
  write: (view, offset, value) => view.setUint8(offset, value),
  decode: (view, offset) => view.getUint8(offset),
};

/** Unsigned 16-bit integer. */
export const u16: NumberType = {
  kind: "integer",
  name: "u16",
  size: 2,
  bits: 16,
  at: {},
  read: (view, offset) => view.getUint16(offset, true),
  write: (view, offset, value) => view.setUint16(offset, value, true),
  decode: (view, offset) => view.getUint16(offset, true),
};

/** Unsigned 32-bit integer. */
export const u32: NumberType = {
  kind: "integer",
  name: "u32",
  size: 4,
  bits: 32,
  at: {},
  read: (view, offset) => view.getUint32(offset, true),
  write: (view, offset, value) => view.setUint32(offset, value, true),
  decode: (view, offset) => view.getUint32(offset, true),
};

/** Signed 32-bit integer. */
export const i32: NumberType = {
  kind: "integer",
  name: "i32",
  size: 4,
  bits: 32,
  at: {},
  read: (view, offset) => view.getInt32(offset, true),
  write: (view, offset, value) => view.setInt32(offset, value, true),
  decode: (view, offset) => view.getInt32(offset, true),
};

/** Unsigned 64-bit integer; decoded as `"0x…"`. */
export const u64: BigIntType = {
  kind: "integer",
  name: "u64",
  size: 8,
  bits: 64,
  at: {},
  read: (view, offset) => view.getBigUint64(offset, true),
  write: (view, offset, value) => view.setBigUint64(offset, value, true),
  decode: (view, offset) => hex(view.getBigUint64(offset, true)),
};

/** Signed 64-bit integer; decoded as its decimal digits in a string, because a JSON number does not hold it. */
export const i64: BigIntType = {
  kind: "integer",
  name: "i64",
  size: 8,
  bits: 64,
  at: {},
  read: (view, offset) => view.getBigInt64(offset, true),
  write: (view, offset, value) => view.setBigInt64(offset, value, true),
  decode: (view, offset) => view.getBigInt64(offset, true).toString(),
};

/** Unsigned 128-bit integer, the low half first; decoded as `"0x…"`. */
export const u128: BigIntType = {
  kind: "integer",
  name: "u128",
  size: 16,
  bits: 128,
  at: {},
  read: (view, offset) => view.getBigUint64(offset + 8, true) << 64n | view.getBigUint64(offset, true),
  write: (view, offset, value) => {
    view.setBigUint64(offset, BigInt.asUintN(64, value), true);
    view.setBigUint64(offset + 8, BigInt.asUintN(64, value >> 64n), true);
  },
  decode: (view, offset) => hex(u128.read(view, offset)),
};

/** A live window on `length` bytes; decoded as their hexadecimal digits in memory order. */
export function bytes(length: number): FieldType<Uint8Array, never> {
  const name = `u8[${length}]`;
  return {
    kind: "bytes",
    name,
    size: length,
    at: {},
    read: (view, offset) => new Uint8Array(view.buffer, view.byteOffset + offset, length),
    write: () => refuseWrite(name),
    decode: (view, offset) => hexBytes(view, offset, length),
  };
}

/** What an accessor gives for an array field: its elements, live. */
export interface FieldArray<Value, Name extends string = never> extends Iterable<Value> {
  /** Number of elements. */
  readonly length: number;
  /** The element at `index`, or the one of that name where elements are named; throws a `RangeError` outside. */
  get(index: number | Name): Value;
  /** Writes the element at `index`, or the one of that name; throws a `RangeError` outside. */
  set(index: number | Name, value: Value): void;
}

/** An array as a field type; the paths inside are those of named elements and of their parts. */
export interface ArrayType<Value, Paths extends string, Name extends string>
  extends FieldType<FieldArray<Value, Name>, Name | `${Name}.${Paths}`> {
  /** Number of elements. */
  readonly length: number;
  /** Bytes from one element to the next. */
  readonly stride: number;
  /** The elements' type. */
  readonly element: FieldType<Value, Paths>;
  /** The elements' names in order, empty where they only have an index. */
  readonly names: readonly Name[];
}

/**
 * `length` elements one after the other. With `names` each element also has an offset of its own
 * (`at["gp_registers.rsp"]`) and is decoded under its name instead of in a list.
 */
export function array<Value, Paths extends string, const Name extends string = never>(
  element: FieldType<Value, Paths>,
  length: number,
  names: readonly Name[] = [],
): ArrayType<Value, Paths, Name> {
  const name = `${element.name}[${length}]`;
  if (names.length !== 0 && names.length !== length) {
    throw new TypeError(`${name}: ${names.length} element names for ${length} elements`);
  }
  const stride = element.size;
  const at: Record<string, number> = {};
  names.forEach((elementName, index) => {
    at[elementName] = index * stride;
    for (const [path, offset] of Object.entries<number>(element.at)) {
      at[`${elementName}.${path}`] = index * stride + offset;
    }
  });
  const indexOf = (key: number | Name): number => {
    const index = typeof key === "number" ? key : names.indexOf(key);
    if (!Number.isInteger(index) || index < 0 || index >= length) throw new RangeError(`${name} has no element ${key}`);
    return index;
  };
  return {
    kind: "array",
    name,
    size: length * stride,
    at: at as Record<Name | `${Name}.${Paths}`, number>,
    length,
    stride,
    element,
    names,
    read: (view, offset) => ({
      length,
      get: (key) => element.read(view, offset + indexOf(key) * stride),
      set: (key, value) => element.write(view, offset + indexOf(key) * stride, value),
      *[Symbol.iterator]() {
        for (let i = 0; i < length; i++) yield element.read(view, offset + i * stride);
      },
    }),
    write: () => refuseWrite(name),
    decode: (view, offset) => {
      const values = Array.from({ length }, (_, i) => element.decode(view, offset + i * stride));
      return names.length === 0 ? values : Object.fromEntries(names.map((elementName, i) => [elementName, values[i]]));
    },
  };
}

/** Throws the `TypeError` with which an aggregate refuses to be assigned. */
export function refuseWrite(name: string): never {
  throw new TypeError(`A ${name} is written through its parts`);
}
