import { assertEquals } from "@std/assert";
import { InstructionEmulator } from "../../lib/vtl2/emulator/emulator.ts";
import { handleApicEoi } from "../../lib/vtl2/handlers/apic_eoi.ts";
import { handleCpuid } from "../../lib/vtl2/handlers/cpuid.ts";
import { handleException } from "../../lib/vtl2/handlers/exception.ts";
import { handleIoPort } from "../../lib/vtl2/handlers/io_port.ts";
import { handleUnacceptedGpa } from "../../lib/vtl2/handlers/mmio.ts";
import { handleMsr, lastGuestCrash } from "../../lib/vtl2/handlers/msr.ts";
import { handleUnrecoverable } from "../../lib/vtl2/handlers/unrecoverable.ts";
import { IN_UPPER_RAX, IO_RAX, IO_SINGLE_STEP, UNKNOWN_MSR } from "../../lib/vtl2/policies.ts";
import { BUSY, CRASHED, HANDLED, TRIPLE_FAULT } from "../../lib/vtl2/vmm_vp.ts";
import { EMULATOR, FixtureVp } from "./fixture.ts";

const RAX = 0;
const RCX = 1;
const RDX = 2;
const RBX = 3;
const GARBAGE = 0xfedcba9876543210n;

function io(vp: FixtureVp): number {
  return handleIoPort(vp, new InstructionEmulator(vp.memory, EMULATOR, EMULATOR + 0x700));
}

Deno.test("I/O port: OUT gives the device the low bytes of RAX, and RIP moves by the message's length", () => {
  for (const [size, value] of [[1, 0x10n], [2, 0x3210n], [4, 0x76543210n]] as const) {
    const vp = new FixtureVp();
    vp.setGpr(RAX, GARBAGE);
    vp.setIoMessage(0x3f8, { size, write: true, rax: GARBAGE, rip: 0xffffffff_fffffffen, length: 3 });
    assertEquals(io(vp), HANDLED);
    assertEquals(vp.devices.accesses, [["out", 0x3f8, size, value]]);
    assertEquals(vp.asked, [["rip", 1n]], "the advance wraps");
    assertEquals(vp.gpr(RAX), GARBAGE);
  }
});

Deno.test("I/O port: IN keeps the bits that the device does not give below bit 32 and clears those above", () => {
  for (const [size, result] of [[1, 0x765432abn], [2, 0x7654abcdn], [4, 0x89abcdefn]] as const) {
    const vp = new FixtureVp();
    vp.devices.answers = [size === 1 ? 0xabn : size === 2 ? 0xabcdn : 0x89abcdefn];
    vp.setGpr(RAX, GARBAGE);
    vp.setIoMessage(0x60, { size, write: false, rax: GARBAGE });
    assertEquals(io(vp), HANDLED);
    assertEquals(vp.gpr(RAX), result);
  }
});

Deno.test("I/O port: with vmm.in-upper-rax=silicon IN AL and IN AX keep RAX 63:32, IN EAX clears them", () => {
  for (const [size, result] of [[1, 0xfedcba98765432abn], [2, 0xfedcba98765400abn], [4, 0xabn]] as const) {
    const vp = new FixtureVp();
    vp.choose(IN_UPPER_RAX, "silicon");
    vp.devices.answers = [0xabn];
    vp.setGpr(RAX, GARBAGE);
    vp.setIoMessage(0x60, { size, write: false, rax: GARBAGE });
    assertEquals(io(vp), HANDLED);
    assertEquals(vp.gpr(RAX), result);
  }
});

Deno.test("openvmm 3360: RAX of message and context differing is a crash of the VMM with both values, before the device", () => {
  const vp = new FixtureVp();
  vp.setGpr(RAX, 0x1000_00b0n);
  vp.setIoMessage(0x3f8, { size: 1, write: true, rax: 0x1000_0000n });
  assertEquals(io(vp), CRASHED);
  assertEquals(vp.crashes, [{
    assertion: "message.rax == cpu_context.gps[RAX]",
    left: 0x1000_0000n,
    right: 0x1000_00b0n,
  }]);
  assertEquals([vp.devices.accesses, vp.asked], [[], []]);
});

Deno.test("openvmm 3360: with vmm.io-rax=rax-from-message the message's RAX is written to the context and used", () => {
  const vp = new FixtureVp();
  vp.choose(IO_RAX, "rax-from-message");
  vp.setGpr(RAX, 0x41n);
  vp.setIoMessage(0x3f8, { size: 1, write: true, rax: 0x7000_0000_0000_0042n });
  assertEquals(io(vp), HANDLED);
  assertEquals(vp.devices.accesses, [["out", 0x3f8, 1, 0x42n]]);
  assertEquals(vp.gpr(RAX), 0x7000_0000_0000_0042n);
});

Deno.test("I/O port: a busy device leaves everything for another attempt", () => {
  const vp = new FixtureVp();
  vp.devices.takes = 0;
  vp.setIoMessage(0x3f8, { size: 1, write: true, rax: 0n });
  assertEquals(io(vp), BUSY);
  assertEquals(vp.asked, []);
  vp.devices.takes = 1;
  assertEquals(io(vp), HANDLED);
});

Deno.test("I/O port: OpenHCL does not trap after an emulated access; vmm.io-single-step=silicon raises #DB with DR6.BS", () => {
  const traced = { size: 1, write: true, rax: 0n, rflags: 0x10102n, state: 0x1014 };
  const vp = new FixtureVp();
  vp.setIoMessage(0x80, traced);
  assertEquals(io(vp), HANDLED);
  assertEquals(vp.asked, [["rip", 0x1002n]]);

  const silicon = new FixtureVp();
  silicon.choose(IO_SINGLE_STEP, "silicon");
  silicon.setIoMessage(0x80, traced);
  assertEquals(io(silicon), HANDLED);
  assertEquals(silicon.asked, [
    ["rip", 0x1002n],
    ["set", 0x20011, 0x102n], // RFLAGS without RF.
    ["clear shadow"],
    ["event", 0x10001n, 0x4000n, 0n, 0n], // Pending, type 0, vector 1 at bit 16; DR6.BS as parameter.
  ]);
});

Deno.test("CPUID: the default results with the partition's leaves over them, zero-extended, RIP by the length", () => {
  const message = (leaf: bigint) => ({
    words: { 40: leaf, 48: 0n, 72: 0xffffffff_11111111n, 80: 0x22222222n, 88: 0x33333333n, 96: 0x44444444n },
  });
  const results = (vp: FixtureVp) => [RAX, RBX, RCX, RDX].map((slot) => vp.gpr(slot));
  const vp = new FixtureVp();
  for (const slot of [RAX, RBX, RCX, RDX]) vp.setGpr(slot, GARBAGE);
  vp.setMessage(0x80010002, message(0x4fffffffn));
  assertEquals(handleCpuid(vp), HANDLED);
  assertEquals(results(vp), [0x11111111n, 0x44444444n, 0x22222222n, 0x33333333n]);
  assertEquals(vp.asked, [["rip", 0x1002n]]);
  vp.setMessage(0x80010002, message(0xffffffff_40000080n));
  handleCpuid(vp);
  // "Microsoft VS" in EBX, ECX, EDX; the highest leaf in EAX.
  assertEquals(results(vp), [0x40000082n, 0x7263694dn, 0x666f736fn, 0x53562074n]);
  vp.setMessage(0x80010002, message(0x40000081n));
  handleCpuid(vp);
  assertEquals(results(vp)[0], 0x31235356n, "VS#1");
});

/** An MSR message: number at payload 40, RDX at 48, RAX at 56. */
function msrMessage(vp: FixtureVp, msr: number, write?: bigint): void {
  vp.setMessage(0x80010001, {
    access: write === undefined ? 0 : 1,
    words: {
      40: BigInt(msr),
      48: 0xaaaaaaaa_00000000n | (write ?? 0n) >> 32n,
      56: 0xbbbbbbbb_00000000n | (write ?? 0n) & 0xffffffffn,
    },
  });
}

/** Reads an MSR through its handler: RAX and RDX. */
function readMsr(vp: FixtureVp, msr: number): [bigint, bigint] {
  vp.setGpr(RAX, GARBAGE);
  vp.setGpr(RDX, GARBAGE);
  msrMessage(vp, msr);
  assertEquals(handleMsr(vp), HANDLED);
  return [vp.gpr(RAX), vp.gpr(RDX)];
}

Deno.test("MSR: P0 to P4 of the crash MSRs keep what is written; CTL always reads fc00000000000000", () => {
  const vp = new FixtureVp();
  for (let p = 0; p < 5; p++) {
    msrMessage(vp, 0x40000100 + p, 0x1111_2222_3333_4440n + BigInt(p));
    assertEquals(handleMsr(vp), HANDLED);
  }
  assertEquals(vp.asked.length, 5, "RIP advances each time");
  for (let p = 0; p < 5; p++) assertEquals(readMsr(vp, 0x40000100 + p), [0x3333_4440n + BigInt(p), 0x1111_2222n]);
  assertEquals(readMsr(vp, 0x40000105), [0n, 0xfc000000n]);
});

Deno.test("MSR: unknown ones read as 0 and ignore writes, and RIP advances", () => {
  const vp = new FixtureVp();
  assertEquals(readMsr(vp, 0xc0011020 | 0), [0n, 0n]);
  msrMessage(vp, 0x12345, 0x99n);
  assertEquals(handleMsr(vp), HANDLED);
  assertEquals(vp.asked, [["rip", 0x1002n], ["rip", 0x1002n]]);
});

Deno.test("MSR: with vmm.unknown-msr=silicon an unknown one raises #GP(0) and RIP stays", () => {
  const vp = new FixtureVp();
  vp.choose(UNKNOWN_MSR, "silicon");
  msrMessage(vp, 0x12345);
  assertEquals(handleMsr(vp), HANDLED);
  // Pending, deliver error code (bit 8), vector 13 at bit 16; error code 0 at bit 32.
  assertEquals(vp.asked, [["event", 0xd0101n, 0n, 0n, 0n]]);
  assertEquals(readMsr(vp, 0x40000105), [0n, 0xfc000000n]);
});

/** Writes P0 to P4 and then CTL. */
function crash(vp: FixtureVp, parameters: bigint[], control: bigint): void {
  [...parameters, control].forEach((value, i) => {
    msrMessage(vp, 0x40000100 + i, value);
    assertEquals(handleMsr(vp), HANDLED);
  });
}

Deno.test("crash MSRs: a write of CTL reports the parameters and the text that P3 and P4 name", () => {
  const vp = new FixtureVp();
  const text = new TextEncoder().encode("it crashed \u00e4\n");
  vp.memory.u8.set(text, 0x5ff8);
  assertEquals(lastGuestCrash(vp.memory, vp.state), undefined);
  crash(vp, [1n, 2n, 3n, 0x5ff8n, BigInt(text.length)], 0xc000000000000000n);
  assertEquals(lastGuestCrash(vp.memory, vp.state), {
    vp: 3,
    vtl: 0,
    control: 0xc000000000000000n,
    parameters: [1n, 2n, 3n, 0x5ff8n, BigInt(text.length)],
    textUnreadable: false,
    text: "it crashed \u00e4\n",
  });
  assertEquals(vp.asked.filter((entry) => (entry as unknown[])[0] === "guest crashed").length, 1);
  // The record for the host: version 1, type 1, notification 8, VP, VTL; control at 16, parameters from 24 on.
  const at = vp.state + 0x270;
  assertEquals([...vp.memory.u8.slice(at, at + 9)], [1, 1, 8, 0, 3, 0, 0, 0, 0]);
  assertEquals([...vp.memory.u64.slice((at + 16) / 8, (at + 64) / 8)], [0xc000000000000000n, 1n, 2n, 3n, 0x5ff8n, 14n]);
});

Deno.test("crash MSRs: the text is cut to 4096 bytes, and one that is not in RAM is only noted", () => {
  const vp = new FixtureVp();
  vp.memory.u8.fill(0x41, 0x8000, 0xa000);
  crash(vp, [0n, 0n, 0n, 0x8000n, 0x10000000000n], 1n << 62n);
  assertEquals(lastGuestCrash(vp.memory, vp.state)?.text, "A".repeat(4096), "also without the notify bit");
  for (const gpa of [0xfff800n, 0xffffffff_fffff000n]) {
    crash(vp, [0n, 0n, 0n, gpa, 16n], 3n << 62n);
    const report = lastGuestCrash(vp.memory, vp.state);
    assertEquals([report?.text, report?.textUnreadable], [undefined, true]);
  }
  crash(vp, [0n, 0n, 0n, 0x8000n, 4n], 1n << 63n);
  assertEquals(lastGuestCrash(vp.memory, vp.state)?.text, undefined, "no message bit, no text");
});

Deno.test("APIC EOI: the vector goes to the I/O APIC and RIP stays", () => {
  const vp = new FixtureVp();
  vp.setMessage(0x80010004, {});
  vp.memory.u32[(vp.message + 16 + 4) / 4] = 0x61;
  assertEquals(handleApicEoi(vp), HANDLED);
  assertEquals(vp.asked, [["eoi", 0x61]]);
});

Deno.test("unrecoverable exception: triple fault; exception: no change", () => {
  const vp = new FixtureVp();
  vp.setMessage(0x80000021, {});
  assertEquals(handleUnrecoverable(vp), TRIPLE_FAULT);
  vp.setMessage(0x80010003, {});
  assertEquals(handleException(vp), HANDLED);
  assertEquals(vp.asked, []);
});

Deno.test("unaccepted GPA: fatal inside the lower VTLs' RAM", () => {
  const vp = new FixtureVp();
  vp.setMessage(0x80000003, { words: { 56: 0x4000n } });
  const emulator = new InstructionEmulator(vp.memory, EMULATOR, EMULATOR + 0x700);
  assertEquals(handleUnacceptedGpa(vp, emulator), CRASHED);
  assertEquals(vp.crashes[0]?.left, 0x4000n);
});
