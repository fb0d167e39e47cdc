import { assertEquals } from "@std/assert";
import { CpuState } from "../../../lib/cpu/state.ts";
import { ATTENTION } from "../../../lib/hypervisor/attention.ts";
import { callHypercall } from "../../../lib/hypervisor/hypercalls/dispatch.ts";
import { PartitionState } from "../../../lib/hypervisor/partition.ts";
import { Bench, RAM } from "../bench.ts";

const SELF = 0xffff_ffff_ffff_ffffn;
const VP_SELF = 0xffff_fffe;

/** Little-endian bytes of `size` with fields `[offset, bits, value]`. */
function bytes(size: number, ...fields: [number, 8 | 16 | 32 | 64, number | bigint][]): Uint8Array {
  const view = new DataView(new ArrayBuffer(size));
  for (const [offset, bits, value] of fields) {
    if (bits === 8) view.setUint8(offset, Number(value));
    else if (bits === 16) view.setUint16(offset, Number(value), true);
    else if (bits === 32) view.setUint32(offset, Number(value), true);
    else view.setBigUint64(offset, BigInt.asUintN(64, BigInt(value)), true);
  }
  return new Uint8Array(view.buffer);
}

function status(bench: Bench, code: number, input: Uint8Array, reps = 0, vp = 0, vtl = 2): number {
  return callHypercall(bench.caller(vp, vtl), code, input, reps).status;
}

Deno.test("SetVpRegisters and GetVpRegisters from VTL2 reach VTL0 by target VTL 0x10 and itself by 0x12 or 0", () => {
  const bench = new Bench();
  const record = (vtl: number, name: number, value: bigint) =>
    bytes(48, [0, 64, SELF], [8, 32, VP_SELF], [12, 8, vtl], [16, 32, name], [32, 64, value]);
  assertEquals(status(bench, 0x51, record(0x10, 0x2_0010, 0x4567n), 1), 0);
  assertEquals(bench.cpu64(0, CpuState.at.rip), 0x4567n);
  assertEquals(status(bench, 0x51, record(0x12, 0xd_0007, 0x1c1fn), 1), 0);
  assertEquals(status(bench, 0x51, record(0x10, 0xd_0007, 0x1c1fn), 1), 6);
  const names = bytes(24, [0, 64, SELF], [8, 32, VP_SELF], [16, 32, 0xd_0007], [20, 32, 0xd_0003]);
  const { output, reps } = callHypercall(bench.caller(0, 2), 0x50, names, 2);
  assertEquals(reps, 2);
  assertEquals(new DataView(output.buffer).getBigUint64(0, true), 0x1c1fn);
});

Deno.test("A target VTL that is not enabled on the VP is InvalidVtlState", () => {
  const bench = new Bench();
  const names = bytes(20, [0, 64, SELF], [8, 32, 1], [12, 8, 0x12], [16, 32, 0xd_0003]);
  assertEquals(status(bench, 0x50, names, 1), 0x51);
  const vtl1 = bytes(20, [0, 64, SELF], [8, 32, 0], [12, 8, 0x11], [16, 32, 0xd_0003]);
  assertEquals(status(bench, 0x50, vtl1, 1), 0x51);
});

/** EnableVpVtl or StartVirtualProcessor input for VP `vp` and VTL `vtl`. */
const start = (vp: number, vtl: number) =>
  bytes(240, [0, 64, SELF], [8, 32, vp], [12, 8, vtl], [16, 64, 0x7000], [24, 64, 0x8000], [16 + 192, 64, 0x11]);

Deno.test("EnableVpVtl: enables VTL2 of an AP once, then VtlAlreadyEnabled; VTL0 may not; VTL1 does not exist", () => {
  const bench = new Bench();
  assertEquals(status(bench, 0xf, start(1, 2), 0, 0, 0), 6);
  assertEquals(status(bench, 0xf, start(1, 2)), 0);
  assertEquals(status(bench, 0xf, start(1, 2)), 0x86);
  assertEquals(status(bench, 0xf, start(1, 0)), 0x86);
  assertEquals(status(bench, 0xf, start(1, 1)), 0x51);
  assertEquals(status(bench, 0xf, start(9, 2)), 0xe);
});

Deno.test("StartVirtualProcessor: VTL2 needs to be enabled, starts once, and ends VTL0's startup suspend", () => {
  const bench = new Bench();
  bench.setCpu32(1, CpuState.at.activity, 3);
  assertEquals(status(bench, 0x99, start(1, 2)), 0x51);
  status(bench, 0xf, start(1, 2));
  assertEquals(status(bench, 0x99, start(1, 2)), 0);
  assertEquals(bench.started, ["vtl2 of 1"]);
  assertEquals(status(bench, 0x99, start(1, 2)), 0x15);
  assertEquals(bench.registers.get64(1, 0, 0x4), 0n);
  // VTL2 of VP 0 runs since the machine started.
  assertEquals(status(bench, 0x99, start(0, 2)), 0x15);
});

Deno.test("StartVirtualProcessor: a guest starts VTL0 of an AP that waits, with the registers it gives", () => {
  const bench = new Bench();
  assertEquals(status(bench, 0x99, start(1, 0), 0, 0, 0), 0x15);
  bench.setCpu32(1, CpuState.at.activity, 3);
  assertEquals(status(bench, 0x99, start(1, 0), 0, 0, 0), 0);
  assertEquals(bench.cpu64(1, CpuState.at.rip), 0x7000n);
  assertEquals(bench.cpu64(1, 4 * 8), 0x8000n);
  assertEquals(bench.cpu64(1, CpuState.at.cr0), 0x11n);
  assertEquals(bench.started, ["vtl0 of 1"]);
});

Deno.test("GetVpIndexFromApicId: the APIC ID of each VP gives its index", () => {
  const bench = new Bench(3);
  const input = bytes(24, [0, 64, SELF], [16, 32, 2], [20, 32, 1]);
  const { status: ok, output } = callHypercall(bench.caller(0, 0), 0x9a, input, 2);
  assertEquals([ok, ...new Uint32Array(output.buffer)], [0, 2, 1]);
  assertEquals(status(bench, 0x9a, bytes(20, [0, 64, SELF], [16, 32, 7]), 1), 5);
});

/** AssertVirtualInterrupt input. */
const assertion = (type: number, level: number, destination: number, vector: number, vtl = 0) =>
  bytes(32, [0, 64, SELF], [8, 32, type], [12, 32, level], [16, 64, destination], [24, 32, vector], [28, 8, vtl]);

Deno.test("AssertVirtualInterrupt: fixed, level-triggered, NMI and ExtInt reach VTL0's APIC", () => {
  const bench = new Bench();
  bench.facilities.apic(1).writeRegister(0xf, 0x1ff);
  assertEquals(status(bench, 0x94, assertion(0, 1, 1, 0x44)), 0);
  assertEquals(bench.facilities.apic(1).acknowledge(), 0x44);
  bench.facilities.apic(1).eoi();
  assertEquals(bench.eois, [[1, 0x44]]);
  bench.attention(1);
  assertEquals(status(bench, 0x94, assertion(4, 0, 1, 0)), 0);
  assertEquals(bench.attention(1) & ATTENTION.NMI, ATTENTION.NMI);
  assertEquals(status(bench, 0x94, assertion(7, 0, 1, 0)), 0);
  assertEquals(bench.facilities.apic(1).extIntPending, true);
});

Deno.test("AssertVirtualInterrupt: VTL2's interrupts set its request register and make the VP enter VTL2", () => {
  const bench = new Bench();
  assertEquals(status(bench, 0x94, assertion(0, 0, 1, 0x20, 2)), 0);
  assertEquals(bench.attention(1) & ATTENTION.VTL2_INTERRUPT, ATTENTION.VTL2_INTERRUPT);
});

Deno.test("AssertVirtualInterrupt: SMI, vectors below 16 and unknown types are InvalidParameter", () => {
  const bench = new Bench();
  for (const [type, vector] of [[2, 0x40], [3, 0x40], [10, 0x40], [0, 15], [0, 256]]) {
    assertEquals(status(bench, 0x94, assertion(type, 0, 0, vector)), 5, `${type} ${vector}`);
  }
});

Deno.test("PostMessageDirect and SignalEventDirect reach VTL0's SynIC; a slot in use is ObjectInUse", () => {
  const bench = new Bench();
  const synic = bench.facilities.synic(1, 0);
  synic.scontrol = 1n;
  synic.simp = 0x5001n;
  synic.siefp = 0x6001n;
  synic.setSint(4, 0x60n);
  bench.facilities.apic(1).writeRegister(0xf, 0x1ff);
  const post = bytes(280, [0, 64, SELF], [8, 32, 1], [16, 8, 4], [20, 32, 0x55], [24, 8, 8], [36, 64, 0x1122n]);
  assertEquals(status(bench, 0xc1, post), 0);
  assertEquals(status(bench, 0xc1, post), 0x19);
  const slot = synic.slot(4);
  assertEquals(bench.memory.view.getUint32(slot, true), 0x55);
  assertEquals(bench.memory.view.getBigUint64(slot + 16, true), 0x1122n);
  const signal = bytes(16, [0, 64, SELF], [8, 32, 1], [13, 8, 4], [14, 16, 9]);
  const first = callHypercall(bench.caller(0, 2), 0xc0, signal);
  assertEquals([first.status, first.output[0]], [0, 1]);
  assertEquals(callHypercall(bench.caller(0, 2), 0xc0, signal).output[0], 0);
  assertEquals(status(bench, 0xc1, bytes(280, [0, 64, SELF], [8, 32, 1], [16, 8, 16])), 5);
});

/** InstallIntercept input. */
const intercept = (access: number, type: number, parameter = 0) =>
  bytes(24, [0, 64, SELF], [8, 32, access], [12, 32, type], [16, 32, parameter]);

Deno.test("InstallIntercept: what OpenHCL installs succeeds and is remembered", () => {
  const bench = new Bench();
  const state = (at: number) => bench.memory.u8[bench.partition.state + at];
  assertEquals(status(bench, 0x4d, intercept(3, 1)), 0);
  assertEquals(status(bench, 0x4d, intercept(3, 0x11, 0xffff << 16)), 0);
  assertEquals(status(bench, 0x4d, intercept(2, 0xe)), 0);
  assertEquals(status(bench, 0x4d, intercept(4, 0xd)), 0);
  assertEquals(status(bench, 0x4d, intercept(4, 0xf)), 0);
  assertEquals(status(bench, 0x4d, intercept(4, 3, 1)), 0);
  const { apic_eoi_intercept, synic_intercept, retarget_intercept, exception_intercepts } = PartitionState.at;
  assertEquals([apic_eoi_intercept, synic_intercept, retarget_intercept].map(state), [1, 1, 1]);
  assertEquals(state(exception_intercepts), 2);
  assertEquals(status(bench, 0x4d, intercept(0, 3, 1)), 0);
  assertEquals(state(exception_intercepts), 0);
});

Deno.test("InstallIntercept: all CPUID leaves can be asked for; bad types, accesses and ranges are InvalidParameter", () => {
  const bench = new Bench();
  assertEquals(status(bench, 0x4d, intercept(4, 2, 0xffff_ffff)), 0);
  assertEquals(bench.memory.u8[bench.partition.state + PartitionState.at.intercept_all_cpuid], 1);
  assertEquals(status(bench, 0x4d, intercept(4, 0x99)), 5);
  assertEquals(status(bench, 0x4d, intercept(8, 1)), 5);
  assertEquals(status(bench, 0x4d, intercept(1, 0xe)), 5);
  assertEquals(status(bench, 0x4d, intercept(3, 0x11, 0x0010_0020)), 5);
  assertEquals(status(bench, 0x4d, intercept(4, 3, 32)), 5);
  assertEquals(status(bench, 0x4d, intercept(0, 1)), 8);
});

/** Input of HvCallModifyVtlProtectionMask. */
function protect(flags: number, vtl: number, ...gpns: (number | bigint)[]): Uint8Array {
  return bytes(
    16 + gpns.length * 8,
    [0, 64, SELF],
    [8, 32, flags],
    [12, 8, vtl],
    ...gpns.map((gpn, k) => [16 + k * 8, 64, gpn] as [number, 64, number | bigint]),
  );
}

Deno.test("ModifyVtlProtectionMask: VTL2 takes pages from VTL0, all VPs flush; VTL0 may not; it needs VTL protection", () => {
  const bench = new Bench();
  assertEquals(status(bench, 0xc, protect(1, 0x10, 4), 1), 0x51);
  bench.registers.set64(0, 2, 0xd_0007, 0x1fn);
  bench.attention(1);
  assertEquals(status(bench, 0xc, protect(1, 0x10, 4, 5), 2), 0);
  assertEquals(bench.attention(1) & ATTENTION.FLUSH_TLB, ATTENTION.FLUSH_TLB);
  assertEquals([bench.partition.vtl0Rights(4), bench.partition.vtl0Rights(5), bench.partition.vtl0Rights(6)], [
    1,
    1,
    15,
  ]);
  assertEquals(status(bench, 0xc, protect(15, 0x12, 4), 1), 6);
  assertEquals(status(bench, 0xc, protect(15, 0x10, 4), 1, 0, 0), 6);
  assertEquals(status(bench, 0xc, protect(2, 0x10, 4), 1), 5);
  assertEquals(status(bench, 0xc, protect(15, 0x10, RAM >>> 12), 1), 5);
});

Deno.test("ModifyVtlProtectionMask: every failure has its status, and none changes a page", () => {
  const bench = new Bench();
  bench.registers.set64(0, 2, 0xd_0007, 0x1fn);
  const [ACCESS_DENIED, INVALID_PARAMETER, INVALID_INPUT, INVALID_PARTITION, INVALID_VTL_STATE] = [6, 5, 3, 0xd, 0x51];
  const foreign = protect(1, 0x10, 4);
  foreign[0] = 1;
  const cases: [name: string, expected: number, input: Uint8Array, reps: number, vtl: number][] = [
    ["another partition", INVALID_PARTITION, foreign, 1, 2],
    ["reserved bits of the target VTL", INVALID_PARAMETER, protect(1, 0x30, 4), 1, 2],
    ["its own VTL, by default", ACCESS_DENIED, protect(1, 0, 4), 1, 2],
    ["its own VTL, by name", ACCESS_DENIED, protect(1, 0x12, 4), 1, 2],
    ["a VTL that is not enabled", INVALID_VTL_STATE, protect(1, 0x11, 4), 1, 2],
    ["a higher VTL", ACCESS_DENIED, protect(1, 0x12, 4), 1, 0],
    ["the caller's own pages", ACCESS_DENIED, protect(1, 0x10, 4), 1, 0],
    ["flags that do not exist", INVALID_PARAMETER, protect(0x10001, 0x10, 4), 1, 2],
    ["write without read", INVALID_PARAMETER, protect(2, 0x10, 4), 1, 2],
    ["execute without read", INVALID_PARAMETER, protect(12, 0x10, 4), 1, 2],
    ["execute for one kind of code", INVALID_PARAMETER, protect(5, 0x10, 4), 1, 2],
    ["a page of VTL2's", INVALID_PARAMETER, protect(1, 0x10, RAM >>> 12), 1, 2],
    ["a page beyond all memory", INVALID_PARAMETER, protect(1, 0x10, 1n << 40n), 1, 2],
    ["no page at all", INVALID_INPUT, protect(1, 0x10), 0, 2],
  ];
  for (const [name, expected, input, reps, vtl] of cases) {
    assertEquals(callHypercall(bench.caller(0, vtl), 0xc, input, reps).status, expected, name);
    assertEquals(callHypercall(bench.caller(0, vtl), 0xc, input, reps).reps, 0, name);
    assertEquals(bench.partition.vtl0Rights(4), 15, name);
  }
});

Deno.test("ModifyVtlProtectionMask: pages before the one that fails are changed and counted; rights come back", () => {
  const bench = new Bench();
  bench.registers.set64(0, 2, 0xd_0007, 0x1fn);
  const input = protect(0, 0x10, 4, 5, RAM >>> 12, 6);
  const { status: failed, reps } = callHypercall(bench.caller(0, 2), 0xc, input, 4);
  const rights = () => [4, 5, 6].map((gpn) => bench.partition.vtl0Rights(gpn));
  assertEquals([failed, reps, ...rights()], [5, 2, 0, 0, 15]);
  for (const flags of [1, 3, 13, 15]) {
    assertEquals(status(bench, 0xc, protect(flags, 0x10, 4, 5), 2), 0);
    assertEquals(rights(), [flags, flags, 15]);
  }
});
