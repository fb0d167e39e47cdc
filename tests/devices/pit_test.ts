import { assert, assertEquals } from "@std/assert";
import { PIT_HZ } from "../../lib/devices/pit.ts";
import { DeviceFixture } from "./fixture.ts";

/** The first nanosecond in which the timer has made `ticks` ticks. */
const ns = (ticks: number) => Math.ceil(ticks * 1e9 / PIT_HZ + 0.01);

/** A channel's count by a counter latch command. */
function latched(f: DeviceFixture, channel: number): number {
  f.out(0x43, channel << 6);
  return f.in(0x40 + channel) | f.in(0x40 + channel) << 8;
}

/** Vectors that the interrupt controllers give until they have no more, each ended at once. */
function vectors(f: DeviceFixture): number[] {
  const seen: number[] = [];
  for (let vector; (vector = f.set.acknowledgeExtInt()) >= 0;) {
    seen.push(vector);
    f.out(0x20, 0x20);
  }
  return seen;
}

function withPic(): DeviceFixture {
  const f = new DeviceFixture();
  f.out(0x20, 0x11);
  f.out(0x21, 0x20, 0x04, 0x01, 0x00);
  return f;
}

Deno.test("8254 mode 0: the output goes high N + 1 clocks after the count is written, once", () => {
  const f = withPic();
  f.out(0x43, 0x30);
  f.out(0x40, 100, 0);
  f.at(ns(100));
  assertEquals(vectors(f), []);
  assertEquals(f.set.nextDeadline(), ns(101));
  f.at(ns(101));
  assertEquals(vectors(f), [0x20]);
  assertEquals(f.set.nextDeadline(), Infinity);
  f.at(ns(200000));
  assertEquals(vectors(f), []);
});

Deno.test("8254 mode 0: the count runs on below zero and wraps at 65536", () => {
  const f = new DeviceFixture();
  f.out(0x43, 0xb0);
  f.out(0x61, 0x01);
  f.out(0x42, 10, 0);
  f.nowNs = ns(1);
  assertEquals(latched(f, 2), 10, "the load takes one clock");
  f.nowNs = ns(4);
  assertEquals(latched(f, 2), 7);
  assertEquals(f.in(0x61) & 0x20, 0);
  f.nowNs = ns(13);
  assertEquals(latched(f, 2), 0xfffe);
  assertEquals(f.in(0x61) & 0x20, 0x20);
});

Deno.test("8254 mode 2: counts N to 1 and interrupts every N clocks; the deadline is the next period", () => {
  const f = withPic();
  f.out(0x43, 0x34);
  f.out(0x40, 0xe8, 0x03); // 1000.
  assertEquals(f.set.nextDeadline(), ns(1001));
  f.nowNs = ns(1);
  assertEquals(latched(f, 0), 1000);
  f.nowNs = ns(1000);
  assertEquals(latched(f, 0), 1);
  f.at(ns(1000));
  assertEquals(vectors(f), []);
  f.at(ns(1001));
  assertEquals(vectors(f), [0x20]);
  assertEquals(f.set.nextDeadline(), ns(2001));
  f.at(ns(9001));
  assertEquals(vectors(f), [0x20], "edges that nobody saw in time are one");
});

Deno.test("8254 mode 2: a new count is used after the running period", () => {
  const f = withPic();
  f.out(0x43, 0x34);
  f.out(0x40, 100, 0);
  f.at(ns(51));
  f.out(0x40, 10, 0);
  assertEquals(latched(f, 0), 50);
  assertEquals(f.set.nextDeadline(), ns(101));
  f.at(ns(101));
  assertEquals(vectors(f), [0x20]);
  assertEquals(f.set.nextDeadline(), ns(111));
  f.at(ns(111));
  assertEquals(vectors(f), [0x20]);
});

Deno.test("8254 mode 3: counts down by two, twice a period, high for the first half (the longer one when N is odd)", () => {
  const f = new DeviceFixture();
  f.out(0x61, 0x01);
  f.out(0x43, 0xb6);
  f.out(0x42, 8, 0);
  const output = (tick: number) => {
    f.nowNs = ns(tick);
    return [latched(f, 2), f.in(0x61) >> 5 & 1];
  };
  assertEquals([1, 2, 3, 4, 5, 6, 7, 8, 9].map(output), [
    [8, 1],
    [6, 1],
    [4, 1],
    [2, 1],
    [8, 0],
    [6, 0],
    [4, 0],
    [2, 0],
    [8, 1],
  ]);
  f.out(0x43, 0xb6);
  f.out(0x42, 5, 0);
  const from = 9;
  assertEquals([1, 2, 3, 4, 5, 6].map((tick) => output(from + tick)), [[4, 1], [2, 1], [0, 1], [4, 0], [2, 0], [4, 1]]);
});

Deno.test("8254: the gate of channel 2 in port 61 stops the count, and restarts it in modes 2 and 3", () => {
  const f = new DeviceFixture();
  f.out(0x61, 0x01);
  f.out(0x43, 0xb0);
  f.out(0x42, 100, 0);
  f.nowNs = ns(11);
  f.out(0x61, 0x00);
  f.nowNs = ns(500);
  assertEquals(latched(f, 2), 90, "mode 0 holds its count");
  f.out(0x61, 0x01);
  f.nowNs = ns(506);
  assertEquals(latched(f, 2), 85);
  f.out(0x43, 0xb4);
  f.out(0x42, 100, 0);
  f.nowNs = ns(550);
  f.out(0x61, 0x00);
  f.out(0x61, 0x01);
  f.nowNs = ns(551);
  assertEquals(latched(f, 2), 100, "mode 2 starts again");
});

Deno.test("8254 mode 1: the output falls when the gate rises and stays low for N clocks", () => {
  const f = new DeviceFixture();
  f.out(0x43, 0xb2);
  f.out(0x42, 20, 0);
  assertEquals(f.in(0x61) & 0x20, 0x20);
  f.out(0x61, 0x01);
  f.nowNs = ns(2);
  assertEquals(f.in(0x61) & 0x20, 0);
  f.nowNs = ns(20);
  assertEquals(f.in(0x61) & 0x20, 0);
  f.nowNs = ns(21);
  assertEquals(f.in(0x61) & 0x20, 0x20);
});

Deno.test("8254: BCD counters count in decimal and 0 means 10000", () => {
  const f = new DeviceFixture();
  f.out(0x43, 0x35);
  f.out(0x40, 0, 0);
  f.nowNs = ns(2);
  assertEquals(latched(f, 0), 0x9999);
  f.nowNs = ns(1001);
  assertEquals(latched(f, 0), 0x9000);
});

Deno.test("8254: a latched count stays until it is read, and single-byte access reads one byte", () => {
  const f = new DeviceFixture();
  f.out(0x43, 0x34);
  f.out(0x40, 0x00, 0x10);
  f.nowNs = ns(1);
  f.out(0x43, 0x00);
  f.nowNs = ns(100);
  f.out(0x43, 0x00);
  assertEquals([f.in(0x40), f.in(0x40)], [0x00, 0x10], "the second latch command was ignored");
  f.out(0x43, 0x24);
  f.out(0x40, 0x02); // High byte only: 512.
  f.nowNs = ns(101);
  assertEquals([f.in(0x40), f.in(0x40)], [2, 2]);
});

Deno.test("8254: read-back latches status (output, null count, access, mode) and then the count", () => {
  const f = new DeviceFixture();
  f.out(0x43, 0x34);
  f.out(0x43, 0xe2);
  assertEquals(f.in(0x40), 0xf4, "output high, no count yet, low then high, mode 2");
  f.out(0x40, 0x10, 0x00);
  f.nowNs = ns(4);
  f.out(0x43, 0xc2);
  assertEquals([f.in(0x40), f.in(0x40), f.in(0x40)], [0xb4, 13, 0]);
});

Deno.test("port 61: the refresh bit toggles about every 15 microseconds", () => {
  const f = new DeviceFixture();
  const seen = new Set<number>();
  for (let t = 0; t < 100_000; t += 1000) {
    f.nowNs = t;
    seen.add(f.in(0x61) & 0x10);
  }
  assert(seen.size === 2);
});
