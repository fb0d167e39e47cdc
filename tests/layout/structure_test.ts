import { assertEquals, assertStringIncludes, assertThrows } from "@std/assert";
import { bits } from "../../lib/layout/bits.ts";
import { CATALOGUE } from "../../lib/layout/catalogue.ts";
import { array, bytes, i64, u128, u16, u32, u64, u8 } from "../../lib/layout/field_type.ts";
import { openEnum } from "../../lib/layout/open_enum.ts";
import { reserved, structure, union } from "../../lib/layout/structure.ts";

const Kind = openEnum("Kind", { NONE: 0, ONE: 1 });
const State = bits("State", u16, [[0, 2, "cpl", "Level"], [4, 1, "lma", "Long mode"]]);
const Segment = structure("Segment", 16, [
  ["base", 0, u64, "Address"],
  ["limit", 8, u32, "Limit"],
  ["selector", 12, u16, "Selector"],
  ["attributes", 14, u16, "Rights"],
]);
const Page = structure("Page", 0x80, [
  ["kind", 0x00, Kind.u8, "Kind"],
  ["version", 0x01, u8, "Version"],
  ["state", 0x02, State, "State"],
  reserved(0x04, 4),
  ["code", 0x08, Segment, "Code segment"],
  ["segments", 0x18, array(Segment, 2, ["es", "cs"]), "Segments"],
  ["words", 0x38, array(u16, 4), "Words"],
  ["wide", 0x40, u128, "Wide"],
  ["text", 0x50, bytes(40), "Text"],
  ["offset", 0x78, i64, "Signed"],
]);

/** Fills `view` with bytes that differ from each other, so that a swapped field shows. */
function fill(view: DataView, seed: number): void {
  for (let i = 0; i < view.byteLength; i++) view.setUint8(i, (i * 37 + seed * 101 + (i >> 8) * 11) & 0xff);
}

Deno.test("a declaration refuses fields that overlap", () => {
  assertThrows(
    () => structure("X", 8, [["a", 0, u64, ""], ["b", 4, u32, ""]]),
    TypeError,
    '"b" at 0x004 overlaps "a", which ends at 0x008',
  );
});

Deno.test("a declaration refuses fields that descend", () => {
  assertThrows(() => structure("X", 8, [["a", 4, u32, ""], ["b", 0, u32, ""]]), TypeError, "bytes 0x000 to 0x004");
  assertThrows(
    () => structure("X", 8, [["a", 0, u16, ""], ["b", 4, u32, ""], ["c", 2, u16, ""]]),
    TypeError,
    "are not declared",
  );
  assertThrows(
    () => structure("X", 8, [reserved(0, 4), ["a", 4, u32, ""], ["b", 0, u32, ""]]),
    TypeError,
    '"b" at 0x000 overlaps "a"',
  );
});

Deno.test("a declaration refuses a byte that nothing declares", () => {
  assertThrows(
    () => structure("X", 8, [["a", 0, u16, ""], ["b", 4, u32, ""]]),
    TypeError,
    'X: bytes 0x002 to 0x004, before "b", are not declared',
  );
});

Deno.test("a declaration refuses a size that its fields do not have", () => {
  assertThrows(() => structure("X", 12, [["a", 0, u64, ""]]), TypeError, "end at 0x008, its size is 0x00c");
  assertThrows(() => structure("X", 4, [["a", 0, u64, ""]]), TypeError, "end at 0x008, its size is 0x004");
});

Deno.test("a declaration refuses a name used twice, an offset that is no whole number and an empty field", () => {
  assertThrows(() => structure("X", 2, [["a", 0, u8, ""], ["a", 1, u8, ""]]), TypeError, '"a" is declared twice');
  assertThrows(() => structure("X", 1, [["a", 0.5, u8, ""]]), TypeError, "no valid offset");
  assertThrows(() => structure("X", 1, [["a", -1, u8, ""]]), TypeError, "no valid offset");
  assertThrows(() => structure("X", 1, [["a", 0, u8, ""], ["b", 1, bytes(0), ""]]), TypeError, "has no bytes");
});

Deno.test("a union lets views overlap, but none descends, leaves a byte out or ends elsewhere", () => {
  const value = union("Value", 16, [["u128", 0, u128, ""], ["u64", 0, u64, ""], ["segment", 0, Segment, ""]]);
  assertEquals(value.at["segment.limit"], 8);
  assertEquals(value.kind, "union");
  assertThrows(() => union("X", 8, [["a", 4, u32, ""], ["b", 0, u64, ""]]), TypeError);
  assertThrows(() => union("X", 8, [["a", 0, u64, ""], ["b", 4, u32, ""], ["c", 0, u8, ""]]), TypeError, "ascend");
  assertThrows(() => union("X", 16, [["a", 0, u32, ""], ["b", 8, u64, ""]]), TypeError, "0x004 to 0x008");
  assertThrows(() => union("X", 8, [["a", 0, u128, ""]]), TypeError, "end at 0x010, its size is 0x008");
});

Deno.test("at names every field, every part of a nested structure and every named element", () => {
  assertEquals(Page.at.words, 0x38);
  assertEquals(Page.at["code.limit"], 0x10);
  assertEquals(Page.at["segments.cs"], 0x28);
  assertEquals(Page.at["segments.cs.selector"], 0x34);
  // @ts-expect-error A misspelt field does not compile.
  assertEquals(Page.at.wordz, undefined);
  // @ts-expect-error Nor does a misspelt part.
  assertEquals(Page.at["segments.cs.bass"], undefined);
});

Deno.test("an accessor writes little endian at its base and nowhere else, in a plain and in a shared buffer", () => {
  for (const buffer of [new ArrayBuffer(0x200), new SharedArrayBuffer(0x200)]) {
    const view = new DataView(buffer);
    const page = Page.accessor(view, 0x100);
    page.kind = Kind.values.ONE;
    page.state = State.make({ cpl: 3, lma: true });
    page.code.base = 0x1122334455667788n;
    page.segments.get("cs").limit = 0xfffff;
    page.segments.get(0).selector = 0x10;
    page.words.set(3, 0xabcd);
    page.wide = (1n << 127n) | 5n;
    page.text.set([1, 2, 3]);
    page.offset = -2n;
    const bytes = new Uint8Array(buffer);
    assertEquals(bytes.subarray(0, 0x100).every((byte) => byte === 0), true);
    assertEquals(bytes.subarray(0x180).every((byte) => byte === 0), true);
    assertEquals([...bytes.subarray(0x100, 0x104)], [1, 0, 0x13, 0]);
    assertEquals([...bytes.subarray(0x108, 0x110)], [0x88, 0x77, 0x66, 0x55, 0x44, 0x33, 0x22, 0x11]);
    assertEquals([...bytes.subarray(0x130, 0x134)], [0xff, 0xff, 0x0f, 0]);
    assertEquals([...bytes.subarray(0x13e, 0x140)], [0xcd, 0xab]);
    assertEquals([bytes[0x140], bytes[0x14f]], [5, 0x80]);
    assertEquals([...bytes.subarray(0x178, 0x180)], [0xfe, 255, 255, 255, 255, 255, 255, 255]);
    assertEquals(page.offset, -2n);
    assertEquals([...page.words], [0, 0, 0, 0xabcd]);
  }
});

Deno.test("a decoded structure is plain data: 64-bit values in hexadecimal, enumerations by name", () => {
  const view = new DataView(new ArrayBuffer(0x80));
  const page = Page.accessor(view);
  page.kind = 7;
  page.state = 0x8013;
  page.code.base = 0xffffffffffffffffn;
  page.offset = -1n;
  const zero = { base: "0x0", limit: 0, selector: 0, attributes: 0 };
  const expected = {
    kind: "Kind(0x7)",
    version: 0,
    state: { cpl: 3, lma: 1, reserved_5: "0x400" },
    code: { base: "0xffffffffffffffff", limit: 0, selector: 0, attributes: 0 },
    segments: { es: zero, cs: zero },
    words: [0, 0, 0, 0],
    wide: "0x0",
    text: "00".repeat(40),
    offset: "-1",
  };
  assertEquals(Page.decode(view), expected);
  assertEquals(JSON.parse(JSON.stringify(Page.decode(view))), expected);
});

Deno.test("reserved bytes are decoded only when one is not zero", () => {
  const view = new DataView(new ArrayBuffer(0x80));
  assertEquals("reserved_004" in Page.decode(view), false);
  view.setUint8(6, 0xaa);
  assertEquals(Page.decode(view).reserved_004, "0000aa00");
});

Deno.test("an aggregate is written through its parts, and an array refuses elements that it does not have", () => {
  const page = Page.accessor(new DataView(new ArrayBuffer(0x80)));
  const code = page.code;
  // @ts-expect-error A nested structure cannot be assigned.
  assertThrows(() => page.code = code, TypeError, "A Segment is written through its parts");
  assertThrows(() => page.words.get(4), RangeError, "u16[4] has no element 4");
  assertThrows(() => page.words.set(-1, 0), RangeError);
  // @ts-expect-error An element of that name does not exist.
  assertThrows(() => page.segments.get("ss"), RangeError, "has no element ss");
  assertThrows(() => Page.field("nothing"), RangeError, 'no field "nothing"');
  assertThrows(() => array(u8, 2, ["one"]), TypeError, "1 element names for 2 elements");
});

Deno.test("describe prints offset, size, name, type and meaning of every row", () => {
  const text = Page.describe();
  assertStringIncludes(text, "Page (structure, 128 bytes)");
  assertStringIncludes(text, "  0x004     4  reserved_004  u8[4]");
  assertStringIncludes(text, "  0x018    32  segments      Segment[2]  Segments");
  assertEquals(text.split("\n").length, 11);
});

Deno.test("every declaration: reading all fields and writing them elsewhere copies all but reserved bytes", () => {
  for (const { declaration } of CATALOGUE) {
    if (declaration.kind === "bits") continue;
    const source = new DataView(new SharedArrayBuffer(declaration.size + 8), 8);
    const target = new DataView(new ArrayBuffer(declaration.size));
    const meaningful = new Uint8Array(declaration.size);
    fill(source, declaration.size);
    copy(declaration, source, target, 0, meaningful);
    for (let i = 0; i < declaration.size; i++) {
      assertEquals(target.getUint8(i), meaningful[i] ? source.getUint8(i) : 0, `${declaration.name} byte ${i}`);
    }
    assertEquals(Object.keys(declaration.decode(source)).length, declaration.fields.length, declaration.name);
  }
});

/** Copies a value by reading and writing values of its type, and marks the bytes that it has copied. */
// deno-lint-ignore no-explicit-any -- The values' types are those of whatever declaration is copied.
function copy(type: any, source: DataView, target: DataView, offset: number, copied: Uint8Array): void {
  if (type.kind === "array") {
    for (let i = 0; i < type.length; i++) copy(type.element, source, target, offset + i * type.stride, copied);
  } else if (type.kind === "structure" || type.kind === "union") {
    for (const field of type.fields) {
      if (!field.reserved) copy(field.type, source, target, offset + field.offset, copied);
    }
  } else {
    if (type.kind === "bytes") type.read(target, offset).set(type.read(source, offset));
    else type.write(target, offset, type.read(source, offset));
    copied.fill(1, offset, offset + type.size);
  }
}
