import { assert, assertEquals, assertThrows } from "@std/assert";
import { CATALOGUE, findDeclaration } from "../../lib/layout/catalogue.ts";
import { HvX64RegisterPage, HvX64RegisterPageDirtyFlags } from "../../lib/layout/hyperv/register_page.ts";
import { u16, u32 } from "../../lib/layout/field_type.ts";
import { structure } from "../../lib/layout/structure.ts";
import { compareLayouts, listStructures, referenceLayouts, verifyLayouts } from "../../lib/inspect/verify_layouts.ts";

const { classes, firstFailures } = verifyLayouts();

for (const reference of referenceLayouts()) {
  Deno.test(`${reference.id} reference: ${reference.name} is declared field by field as there`, () => {
    assertEquals(firstFailures.filter((failure) => failure.class === reference.name), []);
    const { passed, failed } = classes[reference.name]!;
    assertEquals(failed, 0);
    // Declaration, size, and at least one check for each row.
    assert(passed >= 2 + (reference.fields ?? reference.bits!).length);
  });
}

Deno.test("verify layouts covers every structure and bitfield of both references", () => {
  assertEquals(Object.keys(classes).length, 179 + 38 + 32);
  assertEquals(firstFailures, []);
});

Deno.test("verify layouts reports a structure that is not declared", () => {
  const result = compareLayouts([{ id: "hyperv", name: "X", size: 4, fields: [] }], () => undefined);
  assertEquals(result.classes, { X: { passed: 0, failed: 1 } });
  assertEquals(result.firstFailures, [
    { class: "X", id: "hyperv", field: "(declaration)", expected: "declared", actual: "none" },
  ]);
});

Deno.test("verify layouts reports a moved field, another size, and a field that only the declaration has", () => {
  const declared = structure("X", 8, [["a", 0, u32, ""], ["b", 4, u16, ""], ["c", 6, u16, ""]]);
  const check = (fields: { name: string; offset: number; size: number }[], size = 8) =>
    compareLayouts([{ id: "sev", name: "X", size, fields }], () => declared);
  const a = { name: "a", offset: 0, size: 4 };
  const b = { name: "b", offset: 4, size: 2 };
  const c = { name: "c", offset: 6, size: 2 };
  assertEquals(check([a, b, c]).classes, { X: { passed: 5, failed: 0 } });
  assertEquals(check([a, { ...b, offset: 6 }, { ...c, offset: 4 }]).classes, { X: { passed: 3, failed: 2 } });
  assertEquals(check([a, { ...b, size: 4 }, c]).firstFailures[0]!.expected, "offset 4, 4 bytes");
  assertEquals(check([a, b, c], 12).firstFailures[0]!.field, "(size)");
  assertEquals(check([a, b, { ...c, name: "reserved" }]).firstFailures[0]!.actual, "c: offset 6, 2 bytes");
  assertEquals(check([a, b]).firstFailures[0], {
    class: "X",
    id: "sev",
    field: "c",
    expected: "none",
    actual: "offset 6, 2 bytes",
  });
});

Deno.test("verify layouts reports a moved bit, a missing one, and a named one where the reference has none", () => {
  const find = () => findDeclaration("HvX64VpExecutionState");
  const reference = referenceLayouts().find(({ name }) => name === "HvX64VpExecutionState")!;
  const bits = reference.bits!;
  const check = (rows: typeof bits) => compareLayouts([{ ...reference, bits: rows }], find).firstFailures;
  assertEquals(check(bits), []);
  assertEquals(check(bits.map((row) => row.name === "vtl" ? { ...row, bit: 8 } : row))[0]!.actual, "bits 10:7");
  assertEquals(check([...bits, { name: "extra", bit: 15, width: 1, reserved: false }])[0]!.actual, "none");
  assertEquals(check(bits.filter((row) => row.name !== "cr0_am"))[0]!.field, "cr0_am");
  assertEquals(
    check(bits.map((row) => row.name === "cpl" ? { ...row, reserved: true, name: "r" } : row))[0]!.actual,
    "cpl",
  );
});

Deno.test("the list of structures has every declaration once, with its size and source", () => {
  const listing = listStructures();
  assertEquals(listing.length, CATALOGUE.length);
  assertEquals(new Set(listing.map(({ name }) => name)).size, listing.length);
  const page = listing.find(({ name }) => name === "HvX64RegisterPage")!;
  assertEquals([page.subject, page.kind, page.size], ["hyperv/register_page", "structure", 4096]);
  for (const { name, source, fields } of listing) assert(source !== "" && fields > 0, name);
  for (const { declaration } of CATALOGUE) assert(declaration.describe().startsWith(`${declaration.name} (`));
  assertEquals(findDeclaration("Nothing"), undefined);
});

Deno.test("no declaration can be changed from outside", () => {
  const page = findDeclaration("HvX64RegisterPage")!;
  assertThrows(() => Object.assign(page, { size: 1 }), TypeError);
  assertThrows(() => Object.assign(HvX64RegisterPage.at, { rip: 1 }), TypeError);
  assertThrows(() => Object.assign(HvX64RegisterPageDirtyFlags.mask, { xmm: 1 }), TypeError);
});
