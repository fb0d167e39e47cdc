/**
 * Enumerations whose unknown values survive: they are kept as numbers and print as `Name(0x7)`.
 *
 * @module
 */

import { type FieldType, hex, type NumberType, u16, u32, u64, u8 } from "./field_type.ts";

/** `value` as a number, or `NaN`, which no name has, where a number would not be exact. */
function toSafeNumber(value: bigint): number {
  const number = Number(value);
  return Number.isSafeInteger(number) ? number : NaN;
}

/** An open enumeration: the named values, the way back to a name, and field types of several widths. */
export interface OpenEnum<Values extends Readonly<Record<string, number>>> {
  /** The enumeration's name, as the specification has it. */
  readonly enumName: string;
  /** The named values. */
  readonly values: Values;
  /** The name of `value`, or `EnumName(0x…)` when it has none. */
  name(value: number | bigint): string;
  /** The value of `name`, or `undefined` when there is none of that name. */
  valueOf(name: string): number | undefined;
  /** A one-byte field of this enumeration. */
  readonly u8: NumberType;
  /** A two-byte field of this enumeration. */
  readonly u16: NumberType;
  /** A four-byte field of this enumeration. */
  readonly u32: NumberType;
  /** An eight-byte field of this enumeration. */
  readonly u64: FieldType<bigint, never>;
}

/**
 * Declares an open enumeration. Where two names share a value, the first one is printed.
 *
 * ```ts
 * import { openEnum } from "./open_enum.ts";
 *
 * const Color = openEnum("Color", { RED: 1, GREEN: 2 });
 * Color.values.RED; // 1
 * Color.name(2); // "GREEN"
 * Color.name(7); // "Color(0x7)"
 * ```
 */
export function openEnum<const Values extends Readonly<Record<string, number>>>(
  enumName: string,
  values: Values,
): OpenEnum<Values> {
  const names = new Map<number, string>();
  for (const [name, value] of Object.entries(values)) {
    if (!Number.isSafeInteger(value)) throw new TypeError(`${enumName}.${name} is not an integer`);
    if (!names.has(value)) names.set(value, name);
  }
  // A declared value below zero stands for the 64-bit two's complement, as a negative exit code is read from memory.
  const name = (value: number | bigint) =>
    names.get(typeof value === "bigint" ? toSafeNumber(BigInt.asIntN(64, value)) : value) ??
      `${enumName}(${hex(value)})`;
  const as = (type: NumberType): NumberType => ({
    ...type,
    kind: "enum",
    name: `${enumName}:${type.name}`,
    decode: (view, offset) => name(type.read(view, offset)),
  });
  return {
    enumName,
    values,
    name,
    valueOf: (text) => Object.hasOwn(values, text) ? values[text] : undefined,
    u8: as(u8),
    u16: as(u16),
    u32: as(u32),
    u64: { ...u64, kind: "enum", name: `${enumName}:u64`, decode: (view, offset) => name(u64.read(view, offset)) },
  };
}
