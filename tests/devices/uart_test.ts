import { assertEquals } from "@std/assert";
import { SERIAL_RING_CAPACITY } from "../../lib/devices/byte_ring.ts";
import { DEVICE_BUSY, DEVICE_DONE } from "../../lib/devices/devices.ts";
import { DeviceFixture } from "./fixture.ts";

const text = (fixture: DeviceFixture) => new TextDecoder().decode(fixture.set.serialOutput.drain());

Deno.test("16550: after reset IER, LCR, MCR are 0, IIR is 01, LSR is 60 and the scratch register keeps what is written", () => {
  const f = new DeviceFixture();
  assertEquals([1, 2, 3, 4, 5].map((register) => f.in(0x3f8 + register)), [0, 1, 0, 0, 0x60]);
  f.out(0x3ff, 0xa5);
  assertEquals(f.in(0x3ff), 0xa5);
});

Deno.test("16550: bytes written to THR come out in order, and with DLAB set the divisor latch is written instead", () => {
  const f = new DeviceFixture();
  f.out(0x3fb, 0x80);
  f.out(0x3f8, 0x01);
  f.out(0x3f9, 0x02);
  assertEquals([f.in(0x3f8), f.in(0x3f9)], [1, 2]);
  f.out(0x3fb, 0x03);
  f.out(0x3f8, ...new TextEncoder().encode("hello"));
  assertEquals(text(f), "hello");
  assertEquals(f.in(0x3f9), 0, "DLM is not IER");
});

Deno.test("16550: a full ring makes the write busy and nothing is lost when it is made again", () => {
  const f = new DeviceFixture();
  for (let i = 0; i < SERIAL_RING_CAPACITY; i++) assertEquals(f.set.portOut(0x3f8, 1, i & 0xff), DEVICE_DONE);
  assertEquals(f.set.portOut(0x3f8, 1, 0x77), DEVICE_BUSY);
  assertEquals(f.set.serialOutput.hasRoom(), false);
  const first = f.set.serialOutput.drain();
  assertEquals([first.length, first[0], first[255], first[256]], [SERIAL_RING_CAPACITY, 0, 255, 0]);
  assertEquals(f.set.portOut(0x3f8, 1, 0x77), DEVICE_DONE);
  assertEquals([...f.set.serialOutput.drain()], [0x77]);
  assertEquals(f.set.serialOutput.drain().length, 0);
});

Deno.test("16550: loopback receives what is sent and reflects RTS, DTR, OUT1, OUT2 as CTS, DSR, RI, DCD", () => {
  const f = new DeviceFixture();
  assertEquals(f.in(0x3fe), 0xb0, "CTS, DSR and DCD are asserted outside loopback");
  f.out(0x3fc, 0x1a); // Loopback, RTS, OUT2.
  assertEquals(f.in(0x3fe), 0x92, "CTS and DCD stay, DSR fell and its delta bit is set");
  assertEquals(f.in(0x3fe), 0x90, "reading the register clears the deltas");
  f.out(0x3f8, 0x5a);
  assertEquals(f.in(0x3fd), 0x61);
  assertEquals(f.in(0x3f8), 0x5a);
  assertEquals(f.in(0x3fd), 0x60);
  assertEquals(text(f), "");
});

Deno.test("16550: interrupts are identified in the order line status, data, transmitter, modem status", () => {
  const f = new DeviceFixture();
  f.out(0x3fc, 0x18); // Loopback and OUT2.
  f.in(0x3fe);
  f.out(0x3f9, 0x0f);
  assertEquals(f.in(0x3fa), 0x02, "the transmitter is empty as soon as its interrupt is enabled");
  assertEquals(f.in(0x3fa), 0x01, "reading IIR acknowledges it");
  f.out(0x3f8, 1, 2); // Without FIFO the second character overruns the first.
  assertEquals(f.in(0x3fa), 0x06);
  assertEquals(f.in(0x3fd) & 0x03, 0x03, "overrun and data ready");
  assertEquals(f.in(0x3fa), 0x04);
  assertEquals(f.in(0x3f8), 2, "the newer character is in the receiver buffer");
  assertEquals(f.in(0x3fa), 0x02);
  f.out(0x3fc, 0x1a);
  assertEquals(f.in(0x3fa), 0x00, "modem status: CTS changed");
  f.in(0x3fe);
  assertEquals(f.in(0x3fa), 0x01);
});

Deno.test("16550: with FIFOs, data interrupts at the trigger level and a time-out reports what lies below it", () => {
  const f = new DeviceFixture();
  f.out(0x3fc, 0x18);
  f.in(0x3fe);
  f.out(0x3fa, 0x41); // FIFOs on, trigger level 4.
  f.out(0x3f9, 0x01);
  f.out(0x3f8, 1, 2, 3);
  assertEquals(f.in(0x3fa), 0xcc);
  f.out(0x3f8, 4);
  assertEquals(f.in(0x3fa), 0xc4);
  assertEquals([f.in(0x3f8), f.in(0x3f8), f.in(0x3f8), f.in(0x3f8)], [1, 2, 3, 4]);
  assertEquals(f.in(0x3fa), 0xc1);
  for (let i = 0; i < 17; i++) f.out(0x3f8, i);
  assertEquals(f.in(0x3fd) & 0x02, 0x02, "the seventeenth character overruns");
  f.out(0x3fa, 0x43);
  assertEquals(f.in(0x3fd) & 0x01, 0, "clearing the receive FIFO empties it");
});

Deno.test("16550: its interrupt reaches IRQ4 only while OUT2 is set", () => {
  const f = new DeviceFixture();
  f.out(0x20, 0x11);
  f.out(0x21, 0x20, 0x04, 0x01, 0x00);
  f.out(0x3f9, 0x02);
  assertEquals(f.set.pic.output, false);
  f.out(0x3fc, 0x08);
  assertEquals(f.set.pic.output, true);
  assertEquals(f.set.acknowledgeExtInt(), 0x24);
});
