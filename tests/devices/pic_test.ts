import { assertEquals } from "@std/assert";
import { DeviceFixture } from "./fixture.ts";

/** Initializes both chips: vectors 20 and 28, everything unmasked. */
function initialize(f: DeviceFixture, icw4 = 0x01): void {
  f.out(0x20, 0x11);
  f.out(0x21, 0x20, 0x04, icw4);
  f.out(0xa0, 0x11);
  f.out(0xa1, 0x28, 0x02, icw4);
  f.out(0x21, 0x00);
  f.out(0xa1, 0x00);
  f.set.pic.setLine(0, false); // The timer's output is high after reset.
}

/** A short request on an edge-triggered input. */
function pulse(f: DeviceFixture, irq: number): void {
  f.set.pic.setLine(irq, true);
  f.set.pic.setLine(irq, false);
}

Deno.test("8259A: nothing is passed on before initialization, and the mask register reads back", () => {
  const f = new DeviceFixture();
  pulse(f, 1);
  assertEquals(f.set.pic.output, false);
  initialize(f);
  f.out(0x21, 0xfe);
  assertEquals(f.in(0x21), 0xfe);
  assertEquals(f.set.acknowledgeExtInt(), -1, "initialization has cleared the latched edge");
});

Deno.test("8259A: fully nested mode serves the lowest input first and blocks equal and lower ones until EOI", () => {
  const f = new DeviceFixture();
  initialize(f);
  pulse(f, 4);
  pulse(f, 1);
  assertEquals(f.intLevels, [true]);
  assertEquals(f.set.acknowledgeExtInt(), 0x21);
  assertEquals(f.set.pic.output, false, "4 waits behind 1");
  pulse(f, 0);
  assertEquals(f.set.acknowledgeExtInt(), 0x20, "0 interrupts the service of 1");
  f.out(0x20, 0x0b);
  assertEquals(f.in(0x20), 0x03, "OCW3 0b selects ISR");
  f.out(0x20, 0x20);
  assertEquals(f.in(0x20), 0x02, "a non-specific EOI ends the highest level in service");
  f.out(0x20, 0x61);
  assertEquals(f.in(0x20), 0x00, "a specific EOI names its level");
  f.out(0x20, 0x0a);
  assertEquals(f.in(0x20), 0x10, "OCW3 0a selects IRR");
  assertEquals(f.set.acknowledgeExtInt(), 0x24);
});

Deno.test("8259A: inputs of the slave come through input 2 and need an EOI on both chips", () => {
  const f = new DeviceFixture();
  initialize(f);
  pulse(f, 9);
  pulse(f, 8);
  assertEquals(f.set.acknowledgeExtInt(), 0x28);
  pulse(f, 3);
  assertEquals(f.set.acknowledgeExtInt(), -1, "3 is below the cascade input");
  f.out(0xa0, 0x20);
  assertEquals(f.set.acknowledgeExtInt(), -1, "the master still has input 2 in service");
  f.out(0x20, 0x20);
  assertEquals(f.set.acknowledgeExtInt(), 0x29);
  f.out(0xa0, 0x20);
  f.out(0x20, 0x20);
  assertEquals(f.set.acknowledgeExtInt(), 0x23);
});

Deno.test("8259A: special fully nested mode lets a higher input of the slave interrupt a lower one in service", () => {
  const f = new DeviceFixture();
  initialize(f, 0x11);
  pulse(f, 12);
  assertEquals(f.set.acknowledgeExtInt(), 0x2c);
  pulse(f, 8);
  assertEquals(f.set.acknowledgeExtInt(), 0x28);
});

Deno.test("8259A: automatic EOI leaves nothing in service", () => {
  const f = new DeviceFixture();
  initialize(f, 0x03);
  pulse(f, 5);
  assertEquals(f.set.acknowledgeExtInt(), 0x25);
  f.out(0x20, 0x0b);
  assertEquals(f.in(0x20), 0);
  pulse(f, 5);
  assertEquals(f.set.acknowledgeExtInt(), 0x25);
});

Deno.test("8259A: rotation on EOI makes the served input the lowest; set-priority names the lowest", () => {
  const f = new DeviceFixture();
  initialize(f);
  pulse(f, 4);
  assertEquals(f.set.acknowledgeExtInt(), 0x24);
  f.out(0x20, 0xa0);
  pulse(f, 4);
  pulse(f, 6);
  assertEquals(f.set.acknowledgeExtInt(), 0x26, "after rotation 5, 6, 7 come before 0 to 4");
  f.out(0x20, 0x66);
  assertEquals(f.set.acknowledgeExtInt(), 0x24);
  f.out(0x20, 0x64);
  f.out(0x20, 0xc2);
  pulse(f, 0);
  pulse(f, 3);
  assertEquals(f.set.acknowledgeExtInt(), 0x23, "with 2 lowest, 3 is highest");
});

Deno.test("8259A: special mask mode lets lower inputs through once the level in service is masked", () => {
  const f = new DeviceFixture();
  initialize(f);
  pulse(f, 1);
  assertEquals(f.set.acknowledgeExtInt(), 0x21);
  pulse(f, 6);
  assertEquals(f.set.pic.output, false);
  f.out(0x21, 0x02);
  f.out(0x20, 0x68);
  assertEquals(f.set.acknowledgeExtInt(), 0x26);
});

Deno.test("8259A: a poll acknowledges the request and returns its level with bit 7 set", () => {
  const f = new DeviceFixture();
  initialize(f);
  f.out(0x20, 0x0c);
  assertEquals(f.in(0x20), 0x00);
  pulse(f, 7);
  f.out(0x20, 0x0c);
  assertEquals(f.in(0x20), 0x87);
  f.out(0x20, 0x0b);
  assertEquals(f.in(0x20), 0x80);
});

Deno.test("ELCR: a level-triggered input requests as long as it is high; IRQ0 to 2, 8 and 13 stay edge triggered", () => {
  const f = new DeviceFixture();
  initialize(f);
  f.out(0x4d0, 0xff);
  f.out(0x4d1, 0xff);
  assertEquals([f.in(0x4d0), f.in(0x4d1)], [0xf8, 0xde]);
  f.set.pic.setLine(5, true);
  assertEquals(f.set.acknowledgeExtInt(), 0x25);
  f.out(0x20, 0x20);
  assertEquals(f.set.acknowledgeExtInt(), 0x25, "still high: it comes again");
  f.set.pic.setLine(5, false);
  f.out(0x20, 0x20);
  assertEquals(f.set.acknowledgeExtInt(), -1);
});
