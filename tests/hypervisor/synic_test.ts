import { assertEquals } from "@std/assert";
import { ATTENTION } from "../../lib/hypervisor/attention.ts";
import { readMsr, writeMsr } from "../../lib/hypervisor/msrs.ts";
import { Bench, RAM } from "./bench.ts";

const SCONTROL = 0x4000_0080;
const SIEFP = 0x4000_0082;
const SIMP = 0x4000_0083;
const EOM = 0x4000_0084;
const SINT2 = 0x4000_0092;
const SIMP_GPA = 0x5000n;
const SIEFP_GPA = 0x6000n;

function write(bench: Bench, vp: number, msr: number, value: bigint): string {
  bench.value.v64[0] = value;
  return writeMsr(bench.facilities, vp, msr, bench.value);
}

/** VP 0 with SynIC enabled, both pages mapped, and SINT2 on vector 0x40. */
function enabled(): Bench {
  const bench = new Bench();
  write(bench, 0, 0x1b, 0xfee0_0800n);
  bench.facilities.apic(0).writeRegister(0xf, 0x1ff);
  write(bench, 0, SCONTROL, 1n);
  write(bench, 0, SIMP, SIMP_GPA | 1n);
  write(bench, 0, SIEFP, SIEFP_GPA | 1n);
  assertEquals(write(bench, 0, SINT2, 0x40n), "handled");
  bench.attention(0);
  return bench;
}

/** A message of the given type with one payload byte. */
function message(type: number): DataView {
  const view = new DataView(new ArrayBuffer(256));
  view.setUint32(0, type, true);
  view.setUint8(4, 1);
  view.setUint8(16, 0xab);
  view.setUint8(255, 0xcd);
  return view;
}

Deno.test("SynIC: after reset it is disabled and every SINT is masked", () => {
  const bench = new Bench();
  for (let sint = 0; sint < 16; sint++) {
    assertEquals(readMsr(bench.facilities, 0, 0x4000_0090 + sint, bench.value), "handled");
    assertEquals(bench.value.v64[0], 0x10000n);
  }
  assertEquals(bench.facilities.synic(0, 0).postMessage(2, message(1), 0), 0x18);
});

Deno.test("SynIC: a SINT with a vector below 16 faults unless it is masked", () => {
  const bench = new Bench();
  assertEquals(write(bench, 0, SINT2, 0xfn), "fault");
  assertEquals(write(bench, 0, SINT2, 0x1_000fn), "handled");
  assertEquals(write(bench, 0, SINT2, 0x10n), "handled");
});

Deno.test("SynIC: a posted message fills the guest's slot and raises the SINT's vector", () => {
  const bench = enabled();
  assertEquals(bench.facilities.synic(0, 0).postMessage(2, message(0x77), 0), 0);
  const page = bench.partition.vtl0Page(Number(SIMP_GPA >> 12n), 1);
  assertEquals(bench.memory.view.getUint32(page + 2 * 256, true), 0x77);
  assertEquals(bench.memory.u8[page + 2 * 256 + 4], 1);
  assertEquals(bench.memory.u8[page + 2 * 256 + 5], 0);
  assertEquals(bench.memory.u8[page + 2 * 256 + 16], 0xab);
  assertEquals(bench.memory.u8[page + 2 * 256 + 255], 0xcd);
  assertEquals(bench.facilities.apic(0).highestPending(), 0x40);
  assertEquals(bench.attention(0) & ATTENTION.VTL0_INTERRUPT, ATTENTION.VTL0_INTERRUPT);
});

Deno.test("SynIC: a message to a slot in use is refused with ObjectInUse and sets the pending flag; EOM tells", () => {
  const bench = enabled();
  const synic = bench.facilities.synic(0, 0);
  const page = bench.partition.vtl0Page(Number(SIMP_GPA >> 12n), 1);
  assertEquals(synic.postMessage(2, message(1), 0), 0);
  assertEquals(synic.postMessage(2, message(2), 0), 0x19);
  assertEquals(bench.memory.u8[page + 2 * 256 + 5], 1);
  assertEquals(synic.deliverable(1 << 2), 0);
  bench.memory.view.setUint32(page + 2 * 256, 0, true);
  bench.changes.length = 0;
  assertEquals(write(bench, 0, EOM, 0n), "handled");
  assertEquals(bench.changes, [[0, 0]]);
  assertEquals(synic.deliverable(1 << 2 | 1 << 3), 1 << 2);
  assertEquals(synic.postMessage(2, message(2), 0), 0);
  assertEquals(bench.memory.u8[page + 2 * 256 + 5], 0);
});

Deno.test("SynIC: messages to a masked SINT, or without a message page, are InvalidSynicState", () => {
  const bench = enabled();
  const synic = bench.facilities.synic(0, 0);
  assertEquals(synic.postMessage(3, message(1), 0), 0x18);
  write(bench, 0, SIMP, 0n);
  assertEquals(synic.postMessage(2, message(1), 0), 0x18);
});

Deno.test("SynIC: the message page overlays RAM, which shows again when it is removed", () => {
  const bench = new Bench();
  bench.memory.u8[0x5000] = 0x99;
  write(bench, 0, SIMP, SIMP_GPA | 1n);
  assertEquals(bench.memory.u8[bench.partition.vtl0Page(5, 1)], 0);
  assertEquals(bench.attention(1) & ATTENTION.FLUSH_TLB, ATTENTION.FLUSH_TLB);
  write(bench, 0, SIMP, SIMP_GPA);
  assertEquals(bench.partition.vtl0Page(5, 1), 0x5000);
});

Deno.test("SynIC: an event flag raises the interrupt when it becomes set, and only then", () => {
  const bench = enabled();
  const synic = bench.facilities.synic(0, 0);
  assertEquals(synic.signalEvent(2, 37), { status: 0, newly: true });
  const page = bench.partition.vtl0Page(Number(SIEFP_GPA >> 12n), 1);
  assertEquals(bench.memory.u8[page + 2 * 256 + 4], 1 << 5);
  assertEquals(bench.facilities.apic(0).acknowledge(), 0x40);
  bench.facilities.apic(0).eoi();
  assertEquals(synic.signalEvent(2, 37), { status: 0, newly: false });
  assertEquals(bench.facilities.apic(0).highestPending(), -1);
  assertEquals(synic.signalEvent(2, 2048).status, 5);
});

Deno.test("SynIC: a polled SINT takes messages without an interrupt", () => {
  const bench = enabled();
  write(bench, 0, SINT2, 0x4_0040n);
  assertEquals(bench.facilities.synic(0, 0).postMessage(2, message(1), 0), 0);
  assertEquals(bench.facilities.apic(0).highestPending(), -1);
});

Deno.test("SynIC: a SINT with auto-EOI needs no EOI", () => {
  const bench = enabled();
  write(bench, 0, SINT2, 0x2_0041n);
  bench.facilities.synic(0, 0).postMessage(2, message(1), 0);
  assertEquals(bench.facilities.apic(0).acknowledge(), 0x41);
  assertEquals(bench.facilities.apic(0).eoi(), -1);
});

Deno.test("SynIC of VTL2: its message page is its own memory, its interrupt is VTL2's", () => {
  const bench = new Bench();
  const synic = bench.facilities.synic(1, 2);
  synic.scontrol = 1n;
  synic.simp = BigInt(RAM + 0x2000) | 1n;
  assertEquals(synic.setSint(0, 0x30n), true);
  bench.attention(1);
  assertEquals(synic.postMessage(0, message(0x8000_0000), 0), 0);
  assertEquals(bench.memory.view.getUint32(RAM + 0x2000, true), 0x8000_0000);
  assertEquals(bench.attention(1) & ATTENTION.VTL2_INTERRUPT, ATTENTION.VTL2_INTERRUPT);
});

const STIMER0_CONFIG = 0x4000_00b0;
const STIMER0_COUNT = 0x4000_00b1;
/** Enabled, SINT2. */
const TIMER_SINT2 = 1n | 2n << 16n;

Deno.test("Synthetic timer, one-shot: expires at an absolute reference time, posts TimerExpired, is then disabled", () => {
  const bench = enabled();
  const timers = bench.facilities.timers(0);
  write(bench, 0, STIMER0_COUNT, 20_000n);
  write(bench, 0, STIMER0_CONFIG, TIMER_SINT2);
  assertEquals(bench.facilities.nextDeadline(0), 2_000_000);
  bench.now = 1_999_999;
  bench.facilities.pollTimers(0);
  assertEquals(bench.facilities.apic(0).highestPending(), -1);
  bench.now = 2_000_500;
  bench.facilities.pollTimers(0);
  assertEquals(bench.facilities.apic(0).highestPending(), 0x40);
  const slot = bench.facilities.synic(0, 0).slot(2);
  const { view } = bench.memory;
  assertEquals(view.getUint32(slot, true), 0x8000_0010);
  assertEquals(view.getUint8(slot + 4), 24);
  assertEquals(view.getUint32(slot + 16, true), 0);
  assertEquals(view.getBigUint64(slot + 24, true), 20_000n);
  assertEquals(view.getBigUint64(slot + 32, true), 20_005n);
  assertEquals(timers.config(0) & 1n, 0n);
  assertEquals(bench.facilities.nextDeadline(0), Infinity);
});

Deno.test("Synthetic timer: a message that finds its slot in use is delivered after the EOM", () => {
  const bench = enabled();
  const slot = bench.facilities.synic(0, 0).slot(2);
  bench.facilities.synic(0, 0).postMessage(2, message(1), 0);
  write(bench, 0, STIMER0_COUNT, 20_000n);
  write(bench, 0, STIMER0_CONFIG, TIMER_SINT2);
  bench.now = 2_000_000;
  bench.facilities.pollTimers(0);
  assertEquals(bench.memory.view.getUint32(slot, true), 1);
  bench.memory.view.setUint32(slot, 0, true);
  bench.attention(0);
  write(bench, 0, EOM, 0n);
  assertEquals(bench.attention(0) & ATTENTION.TIMER, ATTENTION.TIMER);
  bench.now = 3_000_000;
  bench.facilities.pollTimers(0);
  assertEquals(bench.memory.view.getUint32(slot, true), 0x8000_0010);
  assertEquals(bench.memory.view.getBigUint64(slot + 24, true), 20_000n);
  assertEquals(bench.memory.view.getBigUint64(slot + 32, true), 30_000n);
});

Deno.test("Synthetic timer, periodic in direct mode: its count is the period, and each expiry is an interrupt", () => {
  const bench = enabled();
  // Enabled, periodic, vector 0x51, direct mode.
  assertEquals(write(bench, 0, STIMER0_CONFIG, 1n | 2n | 0x51n << 4n | 1n << 12n), "handled");
  write(bench, 0, STIMER0_COUNT, 1000n);
  write(bench, 0, STIMER0_CONFIG, 1n | 2n | 0x51n << 4n | 1n << 12n);
  assertEquals(bench.facilities.nextDeadline(0), 1_000_000 + 100_000);
  bench.now = 1_100_000;
  bench.facilities.pollTimers(0);
  assertEquals(bench.facilities.apic(0).acknowledge(), 0x51);
  bench.facilities.apic(0).eoi();
  assertEquals(bench.facilities.nextDeadline(0), 1_200_000);
  assertEquals(write(bench, 0, STIMER0_CONFIG, 1n | 5n << 4n | 1n << 12n), "fault");
});

Deno.test("Synthetic timer: neither SINT nor direct mode leaves it disabled; auto-enable starts it with the count", () => {
  const bench = enabled();
  write(bench, 0, STIMER0_CONFIG, 1n);
  readMsr(bench.facilities, 0, STIMER0_CONFIG, bench.value);
  assertEquals(bench.value.v64[0], 0n);
  write(bench, 0, STIMER0_CONFIG, 8n | 2n << 16n);
  assertEquals(bench.facilities.nextDeadline(0), Infinity);
  write(bench, 0, STIMER0_COUNT, 50_000n);
  assertEquals(bench.facilities.nextDeadline(0), 5_000_000);
  write(bench, 0, STIMER0_COUNT, 0n);
  assertEquals(bench.facilities.nextDeadline(0), Infinity);
});
