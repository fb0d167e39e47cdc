import { assertEquals } from "@std/assert";
import { CpuState } from "../../lib/cpu/state.ts";
import { registerNames } from "../../lib/hypervisor/registers.ts";
import { HypervisorVpState } from "../../lib/hypervisor/vp_state.ts";
import constants from "../data/layouts/hyperv.constants.json" with { type: "json" };
import { Bench, RAM } from "./bench.ts";

const NAMES = constants.groups.register_names.values as Readonly<Record<string, { readonly value: number }>>;
const number = (name: string) => NAMES[name].value;
const SUCCESS = 0;
const INVALID_PARAMETER = 5;
const ACCESS_DENIED = 6;
const INVALID_REGISTER_VALUE = 0x50;

Deno.test("Registers: every name is one of the reference's", () => {
  for (const name of registerNames()) assertEquals(name in NAMES, true, name);
});

Deno.test("Registers: a name that does not exist is InvalidParameter", () => {
  const bench = new Bench();
  for (const name of [0x12345, 0xffff_ffff, number("Ghcb"), number("GicrBaseGpa"), number("SCet")]) {
    assertEquals(bench.registers.set64(0, 0, name, 0n), INVALID_PARAMETER);
    assertEquals(bench.registers.get64(0, 0, name), undefined);
  }
});

Deno.test("Registers: each one that can be read reads back what was written of a valid value", () => {
  const bench = new Bench();
  const valid: Record<string, bigint> = {
    Rax: ~0n,
    R15: 0x1234_5678_9abc_def0n,
    Rsp: 0xffff_8000_0000_0000n,
    Rip: 0x10_0000n,
    Rflags: 0x246n,
    Cr0: 0x8005_0033n,
    Cr2: 0xdead_beefn,
    Cr3: 0x1000n,
    Cr4: 0x620n,
    Cr8: 5n,
    Efer: 0xd01n,
    Xfem: 3n,
    Dr0: 0x1000n,
    Dr7: 0x400n,
    KernelGsBase: 0xffff_8000_1234_0000n,
    Pat: 0x0007_0406_0007_0406n,
    Lstar: 0xffff_ffff_8100_0000n,
    Sfmask: 0x4_7700n,
    TscAux: 7n,
    MsrMtrrDefType: 0xc06n,
    MsrMtrrFix4kF8000: 0x0606_0606_0606_0606n,
    MsrMtrrPhysBase7: 0xc000_0006n,
    MsrMtrrPhysMask7: 0xffff_c000_0800n,
    SysenterCs: 8n,
    PendingEvent0: 0x0d_0101n | 1n,
    DeliverabilityNotifications: 0x4000_0000_0000_0002n,
  };
  for (const [name, value] of Object.entries(valid)) {
    const expected = BigInt.asUintN(64, value);
    assertEquals(bench.registers.set64(1, 0, number(name), expected), SUCCESS, name);
    assertEquals(bench.registers.get64(1, 0, number(name)), expected, name);
  }
  assertEquals(bench.cpu64(1, CpuState.at.cr8), 5n);
  assertEquals(bench.facilities.apic(1).readRegister(8), 0x50);
});

Deno.test("Registers: reserved bits and impossible values are InvalidRegisterValue", () => {
  const bench = new Bench();
  const invalid: [string, bigint][] = [
    ["Cr0", 0x1_0000_0000n],
    ["Cr0", 0x8000_0010n],
    ["Cr0", 0x2000_0011n],
    ["Cr3", 1n << 48n],
    ["Cr4", 1n << 13n],
    ["Cr8", 16n],
    ["Efer", 1n << 12n],
    ["Xfem", 2n],
    ["Rflags", 1n << 22n],
    ["Pat", 2n],
    ["MsrMtrrFix64k00000", 0x0706n],
    ["MsrMtrrPhysBase0", 0x102n],
    ["MsrMtrrPhysMask0", 0x400n],
    ["MsrMtrrDefType", 0x1000n],
    ["Lstar", 0x8000_0000_0000n],
    ["DeliverabilityNotifications", 1n << 6n],
    ["InternalActivityState", 8n],
    ["InterruptState", 4n],
    ["PendingInterruption", 1n << 10n],
    ["PendingInterruption", 1n | 1n << 1n],
    ["PendingEvent0", 1n | 1n << 1n],
    ["ApicBase", 1n],
    ["Sint3", 1n << 8n],
    ["Stimer0Config", 1n << 20n],
    ["Scontrol", 2n],
    ["VpAssistPage", 2n],
  ];
  for (const [name, value] of invalid) {
    assertEquals(bench.registers.set64(0, 0, number(name), value), INVALID_REGISTER_VALUE, name);
  }
  assertEquals(bench.registers.set64(0, 2, number("VsmPartitionConfig"), 1n << 16n), INVALID_REGISTER_VALUE);
});

Deno.test("Registers: read-only ones are AccessDenied, and so are those that the VTL does not have", () => {
  const bench = new Bench();
  for (
    const name of ["VpIndex", "TimeRefCount", "Sversion", "InitialApicId", "MsrMtrrCap", "VsmVpStatus", "ApicIrr0"]
  ) {
    assertEquals(bench.registers.set64(0, 0, number(name), 0n), ACCESS_DENIED, name);
  }
  for (const name of ["VsmCapabilities", "VsmCodePageOffsets", "VsmPartitionStatus"]) {
    assertEquals(bench.registers.set64(0, 2, number(name), 0n), ACCESS_DENIED, name);
  }
  assertEquals(bench.registers.set64(0, 0, number("VsmPartitionConfig"), 0n), ACCESS_DENIED);
  assertEquals(bench.registers.set64(0, 0, number("RegisterPage"), 0n), ACCESS_DENIED);
  for (const name of ["Rip", "Rsp", "Cr3", "Efer", "Dr7", "PendingEvent0"]) {
    assertEquals(bench.registers.set64(0, 2, number(name), 0n), ACCESS_DENIED, name);
  }
});

Deno.test("Registers that all VTLs share are one: RAX, CR2, DR0-3, XMM, x87, XCR0, MTRRs", () => {
  const bench = new Bench();
  for (const name of ["Rax", "R15", "Cr2", "Dr0", "Dr3"]) {
    assertEquals(bench.registers.set64(0, 2, number(name), 0x1234n), SUCCESS, name);
    assertEquals(bench.registers.get64(0, 0, number(name)), 0x1234n, name);
  }
  const view = new DataView(new ArrayBuffer(16));
  for (const name of ["Xmm0", "Xmm15", "FpMmx7", "FpControlStatus", "XmmControlStatus"]) {
    for (let k = 0; k < 16; k++) view.setUint8(k, k + 1);
    assertEquals(bench.registers.set(0, 2, number(name), view, 0), SUCCESS);
    const back = new DataView(new ArrayBuffer(16));
    assertEquals(bench.registers.get(0, 0, number(name), back, 0), SUCCESS);
    assertEquals(new Uint8Array(back.buffer), new Uint8Array(view.buffer), name);
  }
});

Deno.test("Registers: XMM and x87 are the FXSAVE image's, FCW and MXCSR at their offsets", () => {
  const bench = new Bench();
  const view = new DataView(new ArrayBuffer(16));
  const image = bench.partition.cpuState(0) + CpuState.at.fx;
  bench.memory.view.setUint16(image, 0x37f, true);
  bench.memory.view.setUint32(image + 24, 0x1f80, true);
  bench.memory.u8[image + 160 + 15 * 16] = 0x5a;
  bench.registers.get(0, 0, number("FpControlStatus"), view, 0);
  assertEquals(view.getUint16(0, true), 0x37f);
  bench.registers.get(0, 0, number("XmmControlStatus"), view, 0);
  assertEquals(view.getUint32(8, true), 0x1f80);
  bench.registers.get(0, 0, number("Xmm15"), view, 0);
  assertEquals(view.getUint8(0), 0x5a);
});

Deno.test("Registers: segments are base, limit, selector, attributes; tables have their limit at byte 6", () => {
  const bench = new Bench();
  const view = new DataView(new ArrayBuffer(16));
  view.setBigUint64(0, 0x1000n, true);
  view.setUint32(8, 0xffff_ffff, true);
  view.setUint16(12, 0x10, true);
  view.setUint16(14, 0xc093, true);
  assertEquals(bench.registers.set(0, 0, number("Ss"), view, 0), SUCCESS);
  assertEquals(bench.cpu64(0, CpuState.at.ss), 0x1000n);
  assertEquals(bench.cpu64(0, CpuState.at.ss + 8), 0xc093_0010_ffff_ffffn);
  view.setBigUint64(0, 0x27n << 48n, true);
  view.setBigUint64(8, 0x8000n, true);
  assertEquals(bench.registers.set(0, 0, number("Gdtr"), view, 0), SUCCESS);
  const limit = bench.partition.cpuState(0) + CpuState.at.gdtr + 6;
  assertEquals(bench.memory.view.getUint16(limit, true), 0x27);
});

Deno.test("InternalActivityState: startup_suspend makes VTL0 wait for a startup IPI, halt_suspend halts it", () => {
  const bench = new Bench();
  const activity = () => bench.memory.i32[(bench.partition.cpuState(1) + CpuState.at.activity) >>> 2];
  assertEquals(bench.registers.set64(1, 0, number("InternalActivityState"), 1n), SUCCESS);
  assertEquals([activity(), bench.registers.get64(1, 0, number("InternalActivityState"))], [3, 1n]);
  assertEquals(bench.registers.set64(1, 0, number("InternalActivityState"), 2n), SUCCESS);
  assertEquals([activity(), bench.registers.get64(1, 0, number("InternalActivityState"))], [1, 2n]);
  assertEquals(bench.registers.set64(1, 0, number("InternalActivityState"), 0n), SUCCESS);
  assertEquals(activity(), 0);
});

Deno.test("PendingInterruption: a #GP with error code 8 is what the processor delivers first", () => {
  const bench = new Bench();
  const value = 1n | 3n << 1n | 1n << 4n | 13n << 16n | 8n << 32n;
  assertEquals(bench.registers.set64(0, 0, number("PendingInterruption"), value), SUCCESS);
  assertEquals(bench.registers.get64(0, 0, number("PendingInterruption")), value);
  const event = bench.memory.i32[(bench.partition.cpuState(0) + CpuState.at.event) >>> 2];
  assertEquals(event >>> 0, 0x8000_0b0d);
  assertEquals(bench.registers.set64(0, 0, number("PendingInterruption"), 0n), SUCCESS);
  assertEquals(bench.registers.get64(0, 0, number("PendingInterruption")), 0n);
});

Deno.test("DeliverabilityNotifications: a write has VTL0's SINTs looked at", () => {
  const bench = new Bench();
  bench.changes.length = 0;
  bench.registers.set64(1, 0, number("DeliverabilityNotifications"), 1n << 50n);
  assertEquals(bench.changes, [[1, 0]]);
  const word = (bench.partition.vpState(1) + HypervisorVpState.at.deliverability) >>> 3;
  assertEquals(bench.memory.u64[word], 1n << 50n);
});

Deno.test("VTL2's assist page, register page and message page lie on its own memory", () => {
  const bench = new Bench();
  const page = BigInt(RAM + 0x3000) | 1n;
  for (const name of ["VpAssistPage", "RegisterPage", "Sipp", "Sifp"]) {
    assertEquals(bench.registers.set64(0, 2, number(name), page), SUCCESS, name);
    assertEquals(bench.registers.get64(0, 2, number(name)), page, name);
    assertEquals(bench.registers.set64(0, 2, number(name), 0x7fff_f000n | 1n), INVALID_REGISTER_VALUE, name);
  }
  const state = bench.partition.vpState(0);
  assertEquals(bench.memory.u64[(state + HypervisorVpState.at.assist_page) >>> 3], page);
  assertEquals(bench.memory.u64[(state + HypervisorVpState.at.register_page) >>> 3], page);
});

Deno.test("VSM status: VTLs 0 and 2 are enabled, VTL2 only on the VPs where it was", () => {
  const bench = new Bench();
  assertEquals(bench.registers.get64(0, 2, number("VsmPartitionStatus")), 5n | 2n << 16n);
  assertEquals(bench.registers.get64(0, 2, number("VsmVpStatus"))! >> 16n, 5n);
  assertEquals(bench.registers.get64(1, 0, number("VsmVpStatus"))! >> 16n, 1n);
});

Deno.test("VsmCodePageOffsets: 64-bit stubs for long mode, 32-bit ones otherwise", () => {
  const bench = new Bench();
  assertEquals(bench.registers.get64(0, 0, number("VsmCodePageOffsets")), 0x04n | 0x1bn << 12n);
  bench.setCpu64(0, CpuState.at.efer, 0x500n);
  assertEquals(bench.registers.get64(0, 0, number("VsmCodePageOffsets")), 0x0fn | 0x26n << 12n);
  assertEquals(bench.registers.get64(0, 2, number("VsmCodePageOffsets")), 0x0fn | 0x26n << 12n);
});

Deno.test("Local APIC registers have names: the reference's number less 0x84800 is the register's", () => {
  const bench = new Bench();
  const apic = bench.facilities.apic(0);
  apic.writeRegister(0xf, 0x1ff);
  assertEquals(bench.registers.set64(0, 0, number("ApicLvtTimer"), 0x2_0040n), SUCCESS);
  assertEquals(apic.readRegister(0x32), 0x2_0040);
  apic.requestInterrupt(0x41, false);
  assertEquals(bench.registers.get64(0, 0, number("ApicIrr2")), 2n);
  assertEquals(bench.registers.get64(0, 0, number("ApicSpurious")), 0x1ffn);
});
