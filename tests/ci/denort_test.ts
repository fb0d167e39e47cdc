import { assertEquals, assertThrows } from "@std/assert";
import { elfPart } from "../../.ci/denort.ts";

/** Where the section headers of the sample start, their number and size, and what follows them. */
const SECTIONS_AT = 0x80;
const SECTIONS = 3;
const SECTION_SIZE = 0x40;
const ELF_END = SECTIONS_AT + SECTIONS * SECTION_SIZE;

/** An ELF image of nothing but headers, with `appended` after it. */
function executable(appended: string): Uint8Array<ArrayBuffer> {
  const bytes = new Uint8Array(ELF_END + appended.length);
  const view = new DataView(bytes.buffer);
  const encoder = new TextEncoder();
  bytes.set(encoder.encode("\x7fELF"));
  // e_shoff, e_shentsize and e_shnum (System V ABI, "ELF Header")
  view.setBigUint64(40, BigInt(SECTIONS_AT), true);
  view.setUint16(58, SECTION_SIZE, true);
  view.setUint16(60, SECTIONS, true);
  bytes.set(encoder.encode(appended), ELF_END);
  return bytes;
}

Deno.test("denort: the runtime is what stands before the appended program", () => {
  const whole = executable("d3n0l4nd and a program");
  assertEquals(elfPart(whole), whole.subarray(0, ELF_END));
});

Deno.test("denort: a file that deno compile did not make is refused", () => {
  assertThrows(() => elfPart(executable("another payload")), Error, "not made by deno compile");
  assertThrows(() => elfPart(executable("")), Error, "not made by deno compile");
  assertThrows(() => elfPart(new Uint8Array(100)), Error, "not an ELF file");
  assertThrows(() => elfPart(new Uint8Array(10)), Error, "not an ELF file");
});
