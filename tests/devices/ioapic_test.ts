import { assertEquals } from "@std/assert";
import { DeviceFixture } from "./fixture.ts";

const BASE = 0xfec00000;

function read(f: DeviceFixture, register: number): number {
  f.set.mmioWrite(BASE | 0, 0, 4, register, 0);
  f.set.mmioRead((BASE + 0x10) | 0, 0, 4);
  return f.set.value[0] >>> 0;
}
function write(f: DeviceFixture, register: number, value: number): void {
  f.set.mmioWrite(BASE | 0, 0, 4, register, 0);
  f.set.mmioWrite((BASE + 0x10) | 0, 0, 4, value, 0);
}

Deno.test("I/O APIC: identification, version 11 with 24 inputs, every entry masked after reset", () => {
  const f = new DeviceFixture();
  assertEquals(read(f, 1), 0x170011);
  assertEquals(read(f, 0x10 + 2 * 23), 0x10800);
  write(f, 0, 0xffffffff);
  assertEquals([read(f, 0), read(f, 2)], [0x0f000000, 0x0f000000]);
  assertEquals(read(f, 0x40), 0, "no register");
});

Deno.test("I/O APIC: read-only bits of an entry do not change, destination keeps its upper byte", () => {
  const f = new DeviceFixture();
  write(f, 0x12, 0xffffffff);
  write(f, 0x13, 0xffffffff);
  assertEquals([read(f, 0x12), read(f, 0x13)], [0x1ffff & ~0x5000, 0xff000000]);
});

Deno.test("I/O APIC: an edge becomes one message; edges on a masked input are lost", () => {
  const f = new DeviceFixture();
  const { ioapic } = f.set;
  ioapic.setLine(5, true);
  ioapic.setLine(5, false);
  write(f, 0x1b, 0x03000000);
  write(f, 0x1a, 0x0055);
  assertEquals(f.messages, []);
  ioapic.setLine(5, true);
  ioapic.setLine(5, true);
  assertEquals(f.messages, [[0xfee03000, 0x4055]]);
  ioapic.setLine(5, false);
  write(f, 0x1a, 0x0955); // Logical destination, lowest priority.
  ioapic.setLine(5, true);
  assertEquals(f.messages[1], [0xfee03004, 0x4155]);
});

Deno.test("I/O APIC: a level comes again after its EOI as long as it is asserted, with remote IRR between", () => {
  const f = new DeviceFixture();
  const { ioapic } = f.set;
  ioapic.setLine(9, true);
  write(f, 0x22, 0x8061);
  assertEquals(f.messages, [[0xfee00000, 0xc061]], "unmasking an asserted level delivers it");
  assertEquals(read(f, 0x22), 0xc061);
  ioapic.setLine(9, false);
  ioapic.setLine(9, true);
  assertEquals(f.messages.length, 1);
  f.set.endOfInterrupt(0x60);
  assertEquals(f.messages.length, 1, "another vector");
  f.set.endOfInterrupt(0x61);
  assertEquals(f.messages.length, 2);
  ioapic.setLine(9, false);
  f.set.endOfInterrupt(0x61);
  assertEquals([f.messages.length, read(f, 0x22)], [2, 0x8061]);
});

Deno.test("I/O APIC: the timer is on input 2, the serial port on input 4", () => {
  const f = new DeviceFixture();
  write(f, 0x14, 0x30);
  write(f, 0x18, 0x34);
  f.out(0x43, 0x34);
  f.out(0x40, 100, 0);
  f.at(1_000_000);
  f.out(0x3fc, 0x08);
  f.out(0x3f9, 0x02);
  assertEquals(f.messages.map(([, data]) => data), [0x4030, 0x4034]);
});
