import { assertEquals, assertStringIncludes, assertThrows } from "@std/assert";
import { bits } from "../../lib/layout/bits.ts";
import { u128, u32, u64, u8 } from "../../lib/layout/field_type.ts";
import { openEnum } from "../../lib/layout/open_enum.ts";

const Mode = openEnum("Mode", { OFF: 0, ON: 1, ALSO_ON: 1 });
const Wide = bits("Wide", u64, [
  [0, 1, "enable", "Enabled"],
  [1, 3, "mode", "Mode", Mode],
  [12, 52, "gpn", "Page number"],
]);
const Narrow = bits("Narrow", u32, [[0, 8, "vector", "Vector"], [31, 1, "valid", "Valid"]]);

Deno.test("a bitfield refuses rows that overlap, descend, repeat a name, are empty or do not fit", () => {
  assertThrows(() => bits("B", u8, [[0, 2, "a", ""], [1, 1, "b", ""]]), TypeError, '"b" at bit 1 begins below bit 2');
  assertThrows(() => bits("B", u8, [[4, 1, "a", ""], [0, 1, "b", ""]]), TypeError, "begins below bit 5");
  assertThrows(() => bits("B", u8, [[0, 1, "a", ""], [1, 1, "a", ""]]), TypeError, "declared twice");
  assertThrows(() => bits("B", u8, [[0, 0, "a", ""]]), TypeError, "has no bits");
  assertThrows(() => bits("B", u8, [[7, 2, "a", ""]]), TypeError, "9 bits are declared, the storage has 8");
});

Deno.test("masks, shifts and halves of a bitfield place every field", () => {
  assertEquals(Wide.mask.gpn, 0xfffffffffffff000n);
  assertEquals(Wide.low.gpn, 0xfffff000);
  assertEquals(Wide.high.gpn, 0xffffffff);
  assertEquals(Wide.shift.gpn, 12);
  assertEquals(Wide.reserved, 0xff0n);
  assertEquals(Narrow.mask.valid, 0x80000000);
  assertEquals(Narrow.high.valid, 0);
  assertEquals(Narrow.reserved, 0x7fffff00);
  assertEquals(bits("All", u8, [[0, 8, "all", ""]]).reserved, 0);
});

Deno.test("a bitfield's value is read from and written to numbers and bigints alike", () => {
  assertEquals(Wide.get(0xabcdef0123456003n, "gpn"), 0xabcdef0123456);
  assertEquals(Wide.get(3, "mode"), 1);
  assertEquals(Narrow.get(-1, "valid"), 1);
  assertEquals(Wide.make({ enable: true, gpn: 0x12345 }), 0x12345001n);
  assertEquals(Wide.with(0xff1n, "gpn", 1n), 0x1ff1n);
  assertEquals(Wide.with(0xffffffffffffffffn, "gpn", 0), 0xfffn);
  assertEquals(Narrow.make({ vector: 0x20, valid: 1 }), 0x80000020);
  assertThrows(() => Narrow.make({ vector: 0x100 }), RangeError, "Narrow.vector has 8 bits, too few for 0x100");
  assertThrows(() => Narrow.make({ vector: -1 }), RangeError);
});

Deno.test("fields wider than a number are bigints", () => {
  const value = bits("V", u128, [[0, 64, "low", ""], [64, 64, "high", ""]]);
  const high: bigint = value.get(5n << 64n, "high");
  assertEquals(high, 5n);
  const page: number = Wide.get(0n, "gpn");
  assertEquals(page, 0);
});

Deno.test("decoding names enumerated values and shows reserved bits that are set", () => {
  assertEquals(Wide.decodeValue(0x1003n), { enable: 1, mode: "ON", gpn: 1 });
  assertEquals(Wide.decodeValue(0x10fn), { enable: 1, mode: "Mode(0x7)", gpn: 0, reserved_4: "0x10" });
});

Deno.test("describe of a bitfield prints bits, name and meaning", () => {
  assertStringIncludes(Wide.describe(), "Wide (u64 bits)");
  assertStringIncludes(Wide.describe(), "    63:12  gpn     Page number");
});

Deno.test("an open enumeration prints known values by their first name and keeps unknown ones", () => {
  assertEquals(Mode.name(1), "ON");
  assertEquals(Mode.name(1n), "ON");
  assertEquals(Mode.name(0x77), "Mode(0x77)");
  assertEquals(Mode.valueOf("ALSO_ON"), 1);
  assertEquals(Mode.valueOf("toString"), undefined);
  const view = new DataView(new ArrayBuffer(8));
  Mode.u32.write(view, 0, 0xfedcba98);
  assertEquals(Mode.u32.read(view, 0), 0xfedcba98);
  assertEquals(Mode.u32.decode(view, 0), "Mode(0xfedcba98)");
  assertThrows(() => openEnum("Bad", { HALF: 0.5 }), TypeError, "Bad.HALF is not an integer");
});

Deno.test("a negative value of an open enumeration is the 64-bit two's complement in memory", () => {
  const Code = openEnum("Code", { INVALID: -1, BUSY: -2 });
  const view = new DataView(new ArrayBuffer(8));
  view.setBigInt64(0, -1n, true);
  assertEquals(Code.u64.decode(view, 0), "INVALID");
  view.setBigInt64(0, -2n, true);
  assertEquals(Code.u64.decode(view, 0), "BUSY");
  view.setBigInt64(0, -3n, true);
  assertEquals(Code.u64.decode(view, 0), "Code(0xfffffffffffffffd)");
  assertEquals(Code.name(0x7fffffffffffffffn), "Code(0x7fffffffffffffff)");
});
