import { assertEquals } from "@std/assert";
import { DeviceFixture } from "./fixture.ts";

const SECOND = 1e9;

function read(f: DeviceFixture, register: number): number {
  f.out(0x70, register);
  return f.in(0x71);
}
function write(f: DeviceFixture, register: number, value: number): void {
  f.out(0x70, register);
  f.out(0x71, value);
}
/** Century, year, month, day of month, day of week, hours, minutes, seconds. */
const time = (f: DeviceFixture) => [0x32, 9, 8, 7, 6, 4, 2, 0].map((register) => read(f, register));

Deno.test("RTC: the time follows the machine's clock, in BCD and 24 hours, over a leap day's midnight", () => {
  const f = new DeviceFixture();
  assertEquals(time(f), [0x20, 0x24, 0x02, 0x29, 5, 0x23, 0x59, 0x58], "Thursday is day 5");
  f.nowNs = 2 * SECOND;
  assertEquals(time(f), [0x20, 0x24, 0x03, 0x01, 6, 0x00, 0x00, 0x00]);
});

Deno.test("RTC: register B selects binary and 12-hour formats", () => {
  const f = new DeviceFixture();
  write(f, 0x0b, 0x06);
  assertEquals(time(f), [20, 24, 2, 29, 5, 23, 59, 58]);
  write(f, 0x0b, 0x00);
  assertEquals(read(f, 4), 0x91, "11 p.m.");
  f.nowNs = 2 * SECOND;
  assertEquals(read(f, 4), 0x12, "midnight is 12 a.m.");
});

Deno.test("RTC: while SET is one the time stands and can be written; it runs on from there", () => {
  const f = new DeviceFixture();
  write(f, 0x0b, 0x82);
  f.nowNs = 10 * SECOND;
  assertEquals(read(f, 0), 0x58);
  for (const [register, value] of [[0x32, 0x19], [9, 0x99], [8, 0x12], [7, 0x31], [4, 0x23], [2, 0x59], [0, 0x50]]) {
    write(f, register, value);
  }
  write(f, 0x0b, 0x02);
  assertEquals(time(f), [0x19, 0x99, 0x12, 0x31, 6, 0x23, 0x59, 0x50]);
  f.nowNs = 20 * SECOND;
  assertEquals(time(f), [0x20, 0x00, 0x01, 0x01, 7, 0x00, 0x00, 0x00]);
});

Deno.test("RTC: update-in-progress is set just before the second changes", () => {
  const f = new DeviceFixture();
  f.nowNs = 0.9 * SECOND;
  assertEquals(read(f, 0x0a), 0x26);
  f.nowNs = 0.999 * SECOND;
  assertEquals(read(f, 0x0a), 0xa6);
});

Deno.test("RTC: register C collects flags, its reading clears them, and only enabled ones request an interrupt", () => {
  const f = new DeviceFixture();
  f.nowNs = 1.5 * SECOND;
  assertEquals(read(f, 0x0c), 0x50, "periodic and update ended, not enabled");
  assertEquals(read(f, 0x0c), 0x00);
  write(f, 0x0b, 0x12);
  assertEquals(f.set.nextDeadline(), 2 * SECOND);
  f.at(2 * SECOND);
  assertEquals(read(f, 0x0c) & 0x90, 0x90);
});

Deno.test("RTC: the alarm matches its three registers, c0 to ff matching anything", () => {
  const f = new DeviceFixture();
  write(f, 5, 0xff);
  write(f, 3, 0x00);
  write(f, 1, 0x05);
  write(f, 0x0b, 0x22);
  for (let second = 1; second < 7; second++) {
    f.at(second * SECOND);
    assertEquals(f.in(0x71), 0x22);
  }
  assertEquals(read(f, 0x0c) & 0xa0, 0);
  f.at(7 * SECOND); // 00:00:05.
  assertEquals(read(f, 0x0c) & 0xa0, 0xa0);
});

Deno.test("RTC: the periodic interrupt has the rate of register A and comes as IRQ8", () => {
  const f = new DeviceFixture();
  f.out(0x20, 0x11);
  f.out(0x21, 0x20, 0x04, 0x01, 0x00);
  f.out(0xa0, 0x11);
  f.out(0xa1, 0x28, 0x02, 0x01, 0x00);
  write(f, 0x0b, 0x42);
  assertEquals(f.set.nextDeadline(), 976563, "1024 Hz, rounded up to a nanosecond");
  f.at(976563);
  assertEquals(f.set.acknowledgeExtInt(), 0x28);
  write(f, 0x0a, 0x2f);
  read(f, 0x0c);
  assertEquals(f.set.nextDeadline(), 5e8, "2 Hz");
});

Deno.test("CMOS: tells base memory, memory above 1M and above 16M, and keeps what is written", () => {
  const f = new DeviceFixture(64 << 20);
  assertEquals([read(f, 0x15), read(f, 0x16)], [0x80, 0x02], "640K");
  assertEquals(read(f, 0x30) | read(f, 0x31) << 8, 63 << 10);
  assertEquals(read(f, 0x34) | read(f, 0x35) << 8, 48 << 4);
  write(f, 0x0f, 0x0a);
  assertEquals(read(f, 0x8f), 0x0a, "bit 7 of the index is the NMI mask");
});
