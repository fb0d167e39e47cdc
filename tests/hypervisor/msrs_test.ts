import { assertEquals } from "@std/assert";
import { ATTENTION } from "../../lib/hypervisor/attention.ts";
import { readMsr, writeMsr } from "../../lib/hypervisor/msrs.ts";
import constants from "../data/layouts/hyperv.constants.json" with { type: "json" };
import { Bench } from "./bench.ts";

function write(bench: Bench, msr: number, value: bigint, vp = 0): string {
  bench.value.v64[0] = value;
  return writeMsr(bench.facilities, vp, msr, bench.value);
}

function read(bench: Bench, msr: number, vp = 0): bigint | string {
  const outcome = readMsr(bench.facilities, vp, msr, bench.value);
  return outcome === "handled" ? bench.value.v64[0] : outcome;
}

Deno.test("What leaves VTL0: synthetic MSRs to 400000ff are answered, crash MSRs and unknown ones leave to VTL2", () => {
  const bench = new Bench();
  write(bench, 0x1b, 0xfee0_0c00n);
  for (const [name, { value }] of Object.entries(constants.groups.synthetic_msrs.values)) {
    const answered = readMsr(bench.facilities, 0, value, bench.value) !== "intercept";
    assertEquals(answered, value <= 0x4000_00ff, name);
    const written = writeMsr(bench.facilities, 0, value, { v64: new BigUint64Array(1), v32: new Int32Array(2) });
    assertEquals(written !== "intercept", value <= 0x4000_00ff, name);
  }
  for (const msr of [0x1b, 0x10, 0xfe, 0x179, 0x17a, 0x802]) {
    assertEquals(typeof read(bench, msr), "bigint", msr.toString(16));
  }
  for (const msr of [0x40, 0x6e0, 0x3a, 0xc001_0015, 0x4000_00c0]) assertEquals(read(bench, msr), "intercept");
  assertEquals(read(bench, 0x8ff), "fault");
});

Deno.test("Hypercall page: enabled only after the guest told its identity, with VMMCALL and RET at its start", () => {
  const bench = new Bench();
  write(bench, 0x4000_0001, 0x7001n);
  assertEquals(read(bench, 0x4000_0001), 0x7000n);
  assertEquals(bench.partition.vtl0Page(7, 1), 0x7000);
  write(bench, 0x4000_0000, 0x8100_0000_0000_0000n);
  write(bench, 0x4000_0001, 0x7001n);
  assertEquals(read(bench, 0x4000_0001), 0x7001n);
  const page = bench.partition.vtl0Page(7, 1);
  assertEquals([...bench.memory.u8.subarray(page, page + 4)], [0x0f, 0x01, 0xd9, 0xc3]);
  assertEquals(bench.attention(1) & ATTENTION.FLUSH_TLB, ATTENTION.FLUSH_TLB);
  write(bench, 0x4000_0000, 0n);
  assertEquals(read(bench, 0x4000_0001), 0x7000n);
  assertEquals(bench.partition.vtl0Page(7, 1), 0x7000);
});

Deno.test("Hypercall page: the stubs of VTL call and return stand where VsmCodePageOffsets says", () => {
  const bench = new Bench();
  write(bench, 0x4000_0000, 1n);
  write(bench, 0x4000_0001, 0x7001n);
  const page = bench.partition.vtl0Page(7, 1);
  const offsets = bench.registers.get64(0, 2, 0xd0002)!;
  const at = (offset: bigint, length: number) => {
    const from = page + Number(offset);
    return [...bench.memory.u8.subarray(from, from + length)];
  };
  // mov rax, rcx; mov ecx, code; vmmcall; ret
  const stub = (code: number) => [0x48, 0x8b, 0xc1, 0xb9, code, 0, 0, 0, 0x0f, 0x01, 0xd9, 0xc3];
  assertEquals(at(offsets & 0xfffn, 12), stub(0x11));
  assertEquals(at(offsets >> 12n, 12), stub(0x12));
});

Deno.test("Hypercall page: a locked register keeps its value", () => {
  const bench = new Bench();
  write(bench, 0x4000_0000, 1n);
  write(bench, 0x4000_0001, 0x7003n);
  assertEquals(write(bench, 0x4000_0001, 0n), "handled");
  assertEquals(read(bench, 0x4000_0001), 0x7003n);
});

Deno.test("VP_INDEX, frequencies and time: read only, reference time counts 100 ns", () => {
  const bench = new Bench();
  assertEquals(read(bench, 0x4000_0002, 1), 1n);
  assertEquals(read(bench, 0x4000_0022), 1_000_000_000n);
  assertEquals(read(bench, 0x4000_0023), 200_000_000n);
  bench.now = 12_345_678;
  assertEquals(read(bench, 0x4000_0020), 123_456n);
  assertEquals(read(bench, 0x10), 12_345_678n);
  for (const msr of [0x4000_0002, 0x4000_0010, 0x4000_0020, 0x4000_0022, 0x4000_0023, 0x4000_0081, 0x4000_0003]) {
    assertEquals(write(bench, msr, 1n), "fault");
  }
});

Deno.test("Reference TSC page: (TSC * scale >> 64) + offset is the reference time", () => {
  const bench = new Bench();
  write(bench, 0x4000_0021, 0x8001n);
  const page = bench.partition.vtl0Page(8, 1);
  const { view } = bench.memory;
  assertEquals(view.getUint32(page, true) !== 0, true);
  for (const now of [0, 99, 100, 12_345_678, 8_640_000_000_000_000]) {
    bench.now = now;
    const time = (BigInt(now) * view.getBigUint64(page + 8, true) >> 64n) + view.getBigInt64(page + 16, true);
    assertEquals(time, read(bench, 0x4000_0020));
  }
});

Deno.test("TSC: a write moves the VP's counter and invalidates the reference TSC page", () => {
  const bench = new Bench();
  write(bench, 0x4000_0021, 0x8001n);
  write(bench, 0x10, 0n);
  bench.now += 500;
  assertEquals(read(bench, 0x10), 500n);
  assertEquals(read(bench, 0x10, 1), BigInt(bench.now));
  assertEquals(bench.memory.view.getUint32(bench.partition.vtl0Page(8, 1), true), 0);
});

Deno.test("EOI, ICR and TPR MSRs are the local APIC's registers", () => {
  const bench = new Bench();
  const apic = bench.facilities.apic(0);
  bench.facilities.apic(1).writeRegister(0xf, 0x1ff);
  apic.writeRegister(0xf, 0x1ff);
  write(bench, 0x4000_0072, 0x20n);
  assertEquals(apic.readRegister(8), 0x20);
  assertEquals(bench.cpu64(0, 0x150), 2n);
  write(bench, 0x4000_0072, 0n);
  apic.requestInterrupt(0x33, true);
  apic.acknowledge();
  assertEquals(write(bench, 0x4000_0070, 0n), "handled");
  assertEquals(bench.eois, [[0, 0x33]]);
  assertEquals(read(bench, 0x4000_0070), "fault");
  bench.attention(1);
  write(bench, 0x4000_0071, 0x0100_0000_0000_4035n);
  assertEquals(bench.facilities.apic(1).highestPending(), 0x35);
});

Deno.test("APIC_BASE: the MSR switches to x2APIC, whose MSRs then answer", () => {
  const bench = new Bench();
  assertEquals(read(bench, 0x802), "fault");
  assertEquals(read(bench, 0x1b), 0xfee0_0900n);
  assertEquals(write(bench, 0x1b, 0xfee0_0c00n), "handled");
  assertEquals(read(bench, 0x802), 0n);
  assertEquals(write(bench, 0x1b, 0xfee0_0900n), "fault");
  assertEquals(write(bench, 0x830, 0x1_0000_4500n), "handled");
  assertEquals(bench.attention(1) & ATTENTION.INIT, ATTENTION.INIT);
});

Deno.test("MCG_STATUS has three bits; MCG_CAP and MTRRcap are read only", () => {
  const bench = new Bench();
  assertEquals(write(bench, 0x17a, 5n), "handled");
  assertEquals(read(bench, 0x17a), 5n);
  assertEquals(write(bench, 0x17a, 8n), "fault");
  assertEquals(write(bench, 0x179, 0n), "fault");
  assertEquals(write(bench, 0xfe, 0n), "fault");
});
