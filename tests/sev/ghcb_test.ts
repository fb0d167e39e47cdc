import { assertEquals } from "@std/assert";
import { GHCB } from "../../lib/layout/sev/ghcb.ts";
import { Ghcb } from "../../lib/sev/ghcb.ts";

function page(): { view: DataView; ghcb: Ghcb } {
  const view = new DataView(new SharedArrayBuffer(4096));
  return { view, ghcb: new Ghcb(view, 0) };
}

/** Bits of the bitmap by field (sev.constants.json `ghcb_valid_bits`). */
const published = JSON.parse(
  Deno.readTextFileSync(new URL("../data/layouts/sev.constants.json", import.meta.url)),
).ghcb_valid_bits as Readonly<Record<string, number>>;

Deno.test("GHCB: writing a field sets its own valid bit and no other", () => {
  for (const [field, bit] of Object.entries(published)) {
    const { view, ghcb } = page();
    ghcb.set(field as "rax", 0x7fn);
    const set: number[] = [];
    for (let n = 0; n < 128; n++) if (view.getUint8(GHCB.at.valid_bitmap + (n >> 3)) & (1 << (n & 7))) set.push(n);
    assertEquals(set, [bit], field);
    assertEquals(ghcb.get(field as "rax"), 0x7fn, field);
    assertEquals(ghcb.validFields(), [field as "rax"]);
  }
});

Deno.test("GHCB: a field that is not valid has no value, whatever its bytes", () => {
  const { ghcb } = page();
  ghcb.set("rax", 5n);
  ghcb.invalidate();
  assertEquals(ghcb.get("rax"), undefined);
  assertEquals(ghcb.raw("rax"), 5n);
});

Deno.test("GHCB: CPL is bit 25 and one byte", () => {
  const { view, ghcb } = page();
  ghcb.set("cpl", 3n);
  assertEquals(view.getUint8(0xcb), 3);
  assertEquals(view.getUint8(0x3f0 + 3), 2);
});

Deno.test("GHCB: a cleared page has no valid field and no bytes", () => {
  const { view, ghcb } = page();
  ghcb.set("rbx", 0x1234n);
  ghcb.clear();
  for (let byte = 0; byte < 4096; byte++) assertEquals(view.getUint8(byte), 0);
});
