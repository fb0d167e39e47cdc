/**
 * Compares the declared layouts with the reference, field by field.
 *
 * The reference (`tests/data/layouts`) is what compilers printed for the definitions in openvmm, Linux, OpenBSD, svsm
 * and others. It belongs to the tests; it is imported here so that a compiled binary can repeat the comparison by
 * itself. Nothing in `lib/layout` is made from it.
 *
 * A check is one fact: a size, a field's offset and size, the place of a named array element, a bitfield's position and
 * width, or bytes that must be reserved. Names that only the declarations have are failures too.
 *
 * @module
 */

import hyperv from "../../tests/data/layouts/hyperv.layouts.json" with { type: "json" };
import sev from "../../tests/data/layouts/sev.layouts.json" with { type: "json" };
import type { AnyBits } from "../layout/bits.ts";
import { CATALOGUE, findDeclaration } from "../layout/catalogue.ts";
import type { AnyStructure } from "../layout/structure.ts";

/** How many checks of one structure passed and failed. */
export interface ClassCount {
  /** Checks that agreed. */
  passed: number;
  /** Checks that did not. */
  failed: number;
}

/** A check that failed. */
export interface LayoutDifference {
  /** The structure's name in the reference. */
  readonly class: string;
  /** The reference: `hyperv` or `sev`. */
  readonly id: string;
  /** The field, or what else was checked. */
  readonly field: string;
  /** What the reference says. */
  readonly expected: string;
  /** What is declared. */
  readonly actual: string;
}

/** Outcome of `verifyLayouts`. */
export interface LayoutVerification {
  /** Counts by the structure's name in the reference. */
  readonly classes: Readonly<Record<string, ClassCount>>;
  /** The first difference of each structure that has one. */
  readonly firstFailures: readonly LayoutDifference[];
}

/** A field of the reference, of either file. */
export interface ReferenceField {
  /** The field's name there. */
  readonly name: string;
  /** Byte offset, unless bits are given. */
  readonly offset?: number;
  /** Bytes, unless bits are given. */
  readonly size?: number;
  /** First bit, where a union's view is given in bits. */
  readonly lo?: number;
  /** Last bit, where a union's view is given in bits. */
  readonly hi?: number;
  /** Names of an array's elements. */
  readonly elements?: readonly string[];
  /** Whether a compiler put these bytes there. */
  readonly padding?: boolean;
}

/** A bitfield's row of the reference, of either file. */
export interface ReferenceBits {
  /** The field's name there. */
  readonly name: string;
  /** Least significant bit. */
  readonly bit: number;
  /** Width in bits. */
  readonly width: number;
  /** Whether the bits have no meaning. */
  readonly reserved: boolean;
}

/** A structure, union or bitfield of the reference. */
export interface ReferenceLayout {
  /** Which reference: `hyperv` or `sev`. */
  readonly id: string;
  /** Its name there. */
  readonly name: string;
  /** Bytes. */
  readonly size: number;
  /** Rows of a bitfield. */
  readonly bits?: readonly ReferenceBits[];
  /** Fields of a structure or union. */
  readonly fields?: readonly ReferenceField[];
}

/** Names of the SEV reference for structures that are declared once, under their Hyper-V names. */
const DECLARED_AS: Readonly<Record<string, string>> = {
  HV_X64_INTERCEPT_MESSAGE_HEADER: "HvX64InterceptMessageHeader",
  HV_X64_SEGMENT: "HvX64SegmentRegister",
  HV_X64_VMGEXIT_INTERCEPT_MESSAGE: "HvX64VmgexitInterceptMessage",
  HV_X64_VP_EXECUTION_STATE: "HvX64VpExecutionState",
  HV_GUEST_VSM_PARTITION_CONFIG: "HvRegisterGuestVsmPartitionConfig",
  HV_GUEST_CRASH_CTL: "GuestCrashCtl",
  HCL_RUN: "hcl_run",
  HCL_INTR_OFFLOAD_FLAGS: "hcl_intr_offload_flags",
};

/** Names that mark bytes or bits without a meaning, in either reference. */
const RESERVED_NAME = /^_*(os_)?(reserved|rsvd|pad|unused|\()/;

/** Bytes of a bitfield's storage unit in the SEV reference. */
const STORAGE_BYTES: Readonly<Record<string, number>> = { u8: 1, u16: 2, u32: 4, u64: 8 };

/** Compares every structure of the reference with its declaration. */
export function verifyLayouts(): LayoutVerification {
  return compareLayouts(referenceLayouts(), findDeclaration);
}

/** Compares some structures of a reference with the declarations that `find` knows. */
export function compareLayouts(
  references: readonly ReferenceLayout[],
  find: (name: string) => AnyStructure | AnyBits | undefined,
): LayoutVerification {
  const classes: Record<string, ClassCount> = {};
  const firstFailures: LayoutDifference[] = [];
  for (const reference of references) {
    const count: ClassCount = classes[reference.name] = { passed: 0, failed: 0 };
    for (const [field, expected, actual] of compare(reference, find(DECLARED_AS[reference.name] ?? reference.name))) {
      if (expected === actual) {
        count.passed++;
      } else {
        if (count.failed === 0) {
          firstFailures.push({ class: reference.name, id: reference.id, field, expected, actual });
        }
        count.failed++;
      }
    }
  }
  return { classes, firstFailures };
}

/** A line for `list structures`. */
export interface StructureListing {
  /** Subject under which it is declared. */
  readonly subject: string;
  /** The declaration's name. */
  readonly name: string;
  /** Structure, union or bitfield. */
  readonly kind: "structure" | "union" | "bits";
  /** Bytes. */
  readonly size: number;
  /** Fields that have a meaning. */
  readonly fields: number;
  /** The document or repository and symbol that defines it. */
  readonly source: string;
}

/** Every declared structure, union and bitfield, by subject. */
export function listStructures(): readonly StructureListing[] {
  return CATALOGUE.map(({ subject, declaration }) => ({
    subject,
    name: declaration.name,
    kind: declaration.kind,
    size: declaration.size,
    fields: declaration.kind === "bits"
      ? declaration.fields.length
      : declaration.fields.filter((field) => !field.reserved).length,
    source: declaration.source,
  }));
}

/** The reference, both files in one form. */
export function referenceLayouts(): readonly ReferenceLayout[] {
  const layouts: ReferenceLayout[] = [];
  for (const [name, layout] of Object.entries(hyperv.structures as Record<string, HypervLayout>)) {
    layouts.push({
      id: "hyperv",
      name,
      size: layout.size,
      ...(layout.bits && { bits: layout.bits.map(hypervBits) }),
      ...((layout.fields ?? layout.views) && { fields: layout.fields ?? layout.views! }),
    });
  }
  for (const { name, size, fields } of sev.structures as readonly SevStructure[]) {
    layouts.push({ id: "sev", name, size, fields });
  }
  for (const { name, base, fields } of sev.bitfields as readonly SevBitfield[]) {
    const bits = fields.map((row) => ({ ...row, reserved: RESERVED_NAME.test(row.name) }));
    layouts.push({ id: "sev", name, size: STORAGE_BYTES[base]!, bits });
  }
  return layouts;
}

/** A structure of the Hyper-V reference. */
interface HypervLayout {
  readonly size: number;
  readonly bits?: readonly HypervBits[];
  readonly fields?: readonly ReferenceField[];
  readonly views?: readonly ReferenceField[];
}

/** A bitfield's row of the Hyper-V reference. */
interface HypervBits {
  readonly name: string;
  readonly lo: number;
  readonly width: number;
  readonly reserved?: boolean;
}

/** A structure of the SEV reference. */
interface SevStructure {
  readonly name: string;
  readonly size: number;
  readonly fields: readonly ReferenceField[];
}

/** A bitfield of the SEV reference. */
interface SevBitfield {
  readonly name: string;
  readonly base: string;
  readonly fields: readonly { readonly name: string; readonly bit: number; readonly width: number }[];
}

/** A row of the Hyper-V reference in the common form. */
function hypervBits({ name, lo, width, reserved }: HypervBits): ReferenceBits {
  return { name, bit: lo, width, reserved: reserved ?? false };
}

/** One check: what was looked at, what the reference says, what is declared. */
type Check = readonly [field: string, expected: string, actual: string];

/** What stands in for something that is not there. */
const MISSING = "none";

/** Every check of one structure. */
function* compare(reference: ReferenceLayout, declared: AnyStructure | AnyBits | undefined): Generator<Check> {
  yield ["(declaration)", "declared", declared ? "declared" : MISSING];
  if (!declared) return;
  yield ["(size)", `${reference.size} bytes`, `${declared.size} bytes`];
  if (declared.kind === "bits") {
    yield* compareBits(reference.bits ?? [], declared);
  } else {
    yield* compareFields(reference.fields ?? [], declared);
  }
}

/** Checks of a bitfield. */
function* compareBits(rows: readonly ReferenceBits[], declared: AnyBits): Generator<Check> {
  const named = new Set<string>();
  for (const { name, bit, width, reserved } of rows) {
    const found = declared.fields.find((field) => field.name === name && (!reserved || field.bit === bit));
    if (reserved && !found) {
      const inside = declared.fields.find((field) => field.bit < bit + width && bit < field.bit + field.width);
      yield [`bits ${bit + width - 1}:${bit}`, "reserved", inside ? inside.name : "reserved"];
      continue;
    }
    named.add(name);
    yield [name, bitRange(bit, width), found ? bitRange(found.bit, found.width) : MISSING];
  }
  for (const { name, bit, width } of declared.fields) {
    if (!named.has(name)) yield [name, MISSING, bitRange(bit, width)];
  }
}

/** Checks of a structure or union. */
function* compareFields(rows: readonly ReferenceField[], declared: AnyStructure): Generator<Check> {
  const named = new Set<string>();
  for (const row of rows) {
    const offset = row.offset ?? row.lo! / 8;
    const size = row.size ?? (row.hi! + 1 - row.lo!) / 8;
    // A field without bytes marks the place of records that follow the structure.
    if (size === 0) {
      yield [row.name, `${offset}`, `${declared.size}`];
      continue;
    }
    const found = findField(declared, row.name);
    if ((row.padding || RESERVED_NAME.test(row.name)) && !found) {
      yield [row.name, `reserved: ${byteRange(offset, size)}`, describeReserved(declared, offset)];
      continue;
    }
    yield [row.name, byteRange(offset, size), found ? byteRange(found.offset, found.size) : MISSING];
    if (found) named.add(found.name.split(".")[0]!);
    yield* compareElements(row, offset, size, declared);
  }
  for (const { name, offset, size, reserved } of declared.fields) {
    if (!reserved && !named.has(name)) yield [name, MISSING, byteRange(offset, size)];
  }
}

/** Checks of the named elements of an array. */
function* compareElements(
  row: ReferenceField,
  offset: number,
  size: number,
  declared: AnyStructure,
): Generator<Check> {
  const elements = row.elements ?? [];
  const stride = size / elements.length;
  for (const [index, element] of elements.entries()) {
    const actual: number | undefined = declared.at[`${row.name}.${element}`];
    yield [`${row.name}.${element}`, `${offset + index * stride}`, actual === undefined ? MISSING : `${actual}`];
  }
}

/** A declared field by name; where the reference has a nested structure's fields flattened, the nested field. */
function findField(
  declared: AnyStructure,
  name: string,
): { readonly name: string; readonly offset: number; readonly size: number } | undefined {
  const direct = declared.fields.find((field) => field.name === name);
  if (direct) return direct;
  for (const field of declared.fields) {
    if (field.type.kind !== "structure") continue;
    const inner = findField(field.type as unknown as AnyStructure, name);
    if (inner) return { name: `${field.name}.${inner.name}`, offset: field.offset + inner.offset, size: inner.size };
  }
  return undefined;
}

/** The reserved bytes that begin at `offset`, in a nested structure too, or what lies there instead. */
function describeReserved(declared: AnyStructure, offset: number, base = 0): string {
  const field = declared.fields.find((field) => field.offset <= offset && offset < field.offset + field.size);
  if (!field) return MISSING;
  if (field.reserved) return `reserved: ${byteRange(base + field.offset, field.size)}`;
  if (field.type.kind !== "structure") return `${field.name}: ${byteRange(base + field.offset, field.size)}`;
  return describeReserved(field.type as unknown as AnyStructure, offset - field.offset, base + field.offset);
}

/** Bits as a reference prints them. */
function bitRange(bit: number, width: number): string {
  return width === 1 ? `bit ${bit}` : `bits ${bit + width - 1}:${bit}`;
}

/** Bytes as offset and size. */
function byteRange(offset: number, size: number): string {
  return `offset ${offset}, ${size} bytes`;
}
