import { assertEquals } from "@std/assert";
import { CpuState } from "../../../lib/cpu/state.ts";
import { guestHypercall, HYPERCALLS, vtlReturnAllowed } from "../../../lib/hypervisor/hypercalls/dispatch.ts";
import { PartitionState } from "../../../lib/hypervisor/partition.ts";
import { Bench } from "../bench.ts";

const INPUT = 0x2000n;
const OUTPUT = 0x3000n;
const SELF = 0xffff_ffff_ffff_ffffn;
const VP_SELF = 0xffff_fffen;
const RAX = 0;
const RCX = 8;
const RDX = 16;
const RBX = 24;
const RSI = 48;
const RDI = 56;
const R8 = 64;
const GET = 0x50n;
const SET = 0x51n;
const RIP_NAME = 0x2_0010;

/** A guest in 64-bit mode, or in 32-bit protected mode. */
class Guest extends Bench {
  constructor(long = true) {
    super();
    this.setCpu64(0, CpuState.at.cr0, 0x8000_0011n);
    this.setCpu64(0, CpuState.at.efer, long ? 0x500n : 0n);
    this.setCpu32(0, CpuState.at.cs + 12, (long ? 0xa09b : 0xc09b) << 16 | 8);
    this.setCpu64(0, CpuState.at.rip, 0x1234n);
  }

  /** Executes a hypercall in 64-bit mode; returns status and reps. */
  call(control: bigint, input = INPUT, output = OUTPUT): { outcome: string; status: number; reps: number } {
    this.setCpu64(0, RCX, control);
    this.setCpu64(0, RDX, input);
    this.setCpu64(0, R8, output);
    const outcome = guestHypercall(this.caller(0, 0));
    const result = this.cpu64(0, RAX);
    return { outcome, status: Number(result & 0xffffn), reps: Number(result >> 32n & 0xfffn) };
  }

  /** Writes the header of Get/SetVpRegisters at `at`. */
  header(at: bigint, vp: bigint, vtl: number): void {
    const { view } = this.memory;
    view.setBigUint64(Number(at), SELF, true);
    view.setBigUint64(Number(at) + 8, vp | BigInt(vtl) << 32n, true);
  }
  names(at: bigint, ...names: number[]): void {
    names.forEach((name, k) => this.memory.view.setUint32(Number(at) + 16 + k * 4, name, true));
  }
}

const rep = (code: bigint, count: number, start = 0) => code | BigInt(count) << 32n | BigInt(start) << 48n;

Deno.test("Control word: unknown codes and codes that only VTL2 may call are InvalidHypercallCode", () => {
  const guest = new Guest();
  for (const code of [0n, 1n, 0x44n, 0x99_99n, 0x8001n, 0x4dn, 0x94n, 0xc0n, 0xc1n]) {
    assertEquals(guest.call(code), { outcome: "done", status: 2, reps: 0 }, code.toString(16));
  }
});

Deno.test("Control word: reserved bits, a variable header and the nested bit are InvalidHypercallInput", () => {
  const guest = new Guest();
  guest.header(INPUT, VP_SELF, 0);
  guest.names(INPUT, RIP_NAME);
  assertEquals(guest.call(rep(GET, 1)).status, 0);
  for (const bit of [17n, 26n, 27n, 30n, 31n, 44n, 47n, 60n, 63n]) {
    assertEquals(guest.call(rep(GET, 1) | 1n << bit).status, 3, `bit ${bit}`);
  }
});

Deno.test("Control word: a rep call needs 0 < count and start < count, a simple call neither", () => {
  const guest = new Guest();
  assertEquals(guest.call(GET).status, 3);
  assertEquals(guest.call(rep(GET, 2, 2)).status, 3);
  assertEquals(guest.call(rep(GET, 2, 3)).status, 3);
  assertEquals(guest.call(rep(0x52n, 1)).status, 3);
  assertEquals(guest.call(rep(0x52n, 0, 1)).status, 3);
});

Deno.test("Buffers: not 8-byte aligned or across a page is InvalidAlignment, outside memory InvalidHypercallInput", () => {
  const guest = new Guest();
  for (const at of [INPUT + 4n, 0x2ff0n]) assertEquals(guest.call(rep(GET, 1), at, OUTPUT).status, 4);
  for (const at of [OUTPUT + 4n, 0x3ff8n]) assertEquals(guest.call(rep(GET, 1), INPUT, at).status, 4);
  for (const at of [0x10_0000n, 0x1_0000_0000n, 0xffff_ffff_ffff_f000n]) {
    assertEquals(guest.call(rep(GET, 1), at, OUTPUT).status, 3);
    assertEquals(guest.call(rep(GET, 1), INPUT, at).status, 3);
  }
});

Deno.test("Buffers: a page without bytes of output may lie anywhere", () => {
  const guest = new Guest();
  guest.header(INPUT, VP_SELF, 0);
  guest.memory.view.setUint32(Number(INPUT) + 16, 0x2_0003, true);
  guest.memory.view.setBigUint64(Number(INPUT) + 32, 0x55n, true);
  assertEquals(guest.call(rep(SET, 1), INPUT, 0xffff_ffff_ffff_ffffn), { outcome: "done", status: 0, reps: 1 });
  assertEquals(guest.cpu64(0, RBX), 0x55n);
});

Deno.test("GetVpRegisters: values go to the output, the result counts the registers", () => {
  const guest = new Guest();
  guest.header(INPUT, VP_SELF, 0x10);
  guest.names(INPUT, RIP_NAME, 0x9_0003, 0x4_0000);
  assertEquals(guest.call(rep(GET, 3)), { outcome: "done", status: 0, reps: 3 });
  const { view } = guest.memory;
  assertEquals(view.getBigUint64(0x3000, true), 0x1234n);
  assertEquals(view.getBigUint64(0x3010, true), 0n);
  assertEquals(view.getBigUint64(0x3020, true), 0x8000_0011n);
});

Deno.test("Rep calls: output is written from rep_start to the reps completed, even when one then fails", () => {
  const guest = new Guest();
  guest.memory.u8.fill(0xee, 0x3000, 0x3050);
  guest.header(INPUT, VP_SELF, 0);
  guest.names(INPUT, 0xffff, RIP_NAME, 0x4_0000, 0x12345, RIP_NAME);
  assertEquals(guest.call(rep(GET, 5, 1)), { outcome: "done", status: 5, reps: 3 });
  const { view } = guest.memory;
  assertEquals(view.getBigUint64(0x3000, true), 0xeeee_eeee_eeee_eeeen);
  assertEquals(view.getBigUint64(0x3010, true), 0x1234n);
  assertEquals(view.getBigUint64(0x3020, true), 0x8000_0011n);
  assertEquals(view.getBigUint64(0x3030, true), 0xeeee_eeee_eeee_eeeen);
});

Deno.test("Targets: another partition, an unknown VP, a VTL above the caller's and one that is not enabled are refused", () => {
  const guest = new Guest();
  guest.names(INPUT, RIP_NAME);
  guest.header(INPUT, VP_SELF, 0);
  guest.memory.view.setBigUint64(Number(INPUT), 1n, true);
  assertEquals(guest.call(rep(GET, 1)).status, 0xd);
  guest.header(INPUT, 2n, 0);
  assertEquals(guest.call(rep(GET, 1)).status, 0xe);
  guest.header(INPUT, 1n, 0);
  assertEquals(guest.call(rep(GET, 1)).status, 0);
  guest.header(INPUT, 0n, 0x12);
  assertEquals(guest.call(rep(GET, 1)).status, 6);
  guest.header(INPUT, 0n, 0x20);
  assertEquals(guest.call(rep(GET, 1)).status, 5);
});

Deno.test("Fast calls in 64-bit code: input in RDX, R8 and XMM registers, output in the pairs behind the input", () => {
  const guest = new Guest();
  const xmm = guest.partition.cpuState(0) + CpuState.at.fx + 160;
  guest.memory.view.setUint32(xmm, RIP_NAME, true);
  // The header fills RDX and R8, the name XMM0; the value comes back in XMM1.
  const { status, reps } = guest.call(rep(GET, 1) | 1n << 16n, SELF, VP_SELF);
  assertEquals([status, reps], [0, 1]);
  assertEquals(guest.memory.view.getBigUint64(xmm + 16, true), 0x1234n);
  assertEquals(guest.memory.view.getBigUint64(xmm + 24, true), 0n);
  // 2 input pairs and 6 output pairs are more than there are.
  assertEquals(guest.call(rep(GET, 6) | 1n << 16n, SELF, VP_SELF).status, 3);
});

Deno.test("32-bit code: control in EDX:EAX, input in EBX:ECX, output in EDI:ESI, result in EDX:EAX", () => {
  const guest = new Guest(false);
  guest.header(INPUT, VP_SELF, 0);
  guest.names(INPUT, RIP_NAME);
  guest.setCpu64(0, RDX, 0xffff_ffff_0000_0001n);
  guest.setCpu64(0, RAX, 0x50n);
  guest.setCpu64(0, RBX, 0n);
  guest.setCpu64(0, RCX, INPUT);
  guest.setCpu64(0, RDI, 0n);
  guest.setCpu64(0, RSI, OUTPUT);
  assertEquals(guestHypercall(guest.caller(0, 0)), "done");
  assertEquals([guest.cpu64(0, RAX), guest.cpu64(0, RDX)], [0n, 1n]);
  assertEquals(guest.memory.view.getBigUint64(0x3000, true), 0x1234n);
});

Deno.test("32-bit code: a fast call has one pair and no output", () => {
  const guest = new Guest(false);
  guest.setCpu64(0, RDX, 1n);
  guest.setCpu64(0, RAX, 0x1_0050n);
  assertEquals(guestHypercall(guest.caller(0, 0)), "done");
  assertEquals(guest.cpu64(0, RAX), 3n);
});

Deno.test("PostMessage and SignalEvent leave to VTL2 once it asked for unknown connections, else InvalidConnectionId", () => {
  const guest = new Guest();
  guest.memory.view.setUint32(Number(INPUT) + 8, 1, true);
  assertEquals(guest.call(0x5cn).status, 0x12);
  assertEquals(guest.call(0x5dn | 1n << 16n).status, 0x12);
  guest.memory.u8[guest.partition.state + PartitionState.at.synic_intercept] = 1;
  assertEquals(guest.call(0x5cn).outcome, "intercept");
  assertEquals(guest.call(0x5dn | 1n << 16n).outcome, "intercept");
  assertEquals(guest.call(0x7en).outcome, "done");
  guest.memory.u8[guest.partition.state + PartitionState.at.retarget_intercept] = 1;
  assertEquals(guest.call(0x7en).outcome, "intercept");
});

Deno.test("PostMessage: a guest may not post a message with bit 31 of its type set, nor more than 240 bytes", () => {
  const guest = new Guest();
  guest.memory.view.setUint32(Number(INPUT) + 8, 0x8000_0001, true);
  assertEquals(guest.call(0x5cn).status, 5);
  guest.memory.view.setUint32(Number(INPUT) + 8, 1, true);
  guest.memory.view.setUint32(Number(INPUT) + 12, 241, true);
  assertEquals(guest.call(0x5cn).status, 5);
});

Deno.test("VTL call: control input 0 and a clean control word enter VTL2; anything else is #UD", () => {
  const guest = new Guest();
  const vtl = (rcx: bigint, rax: bigint) => {
    guest.setCpu64(0, RAX, rax);
    return guest.call(rcx).outcome;
  };
  assertEquals(vtl(0x11n, 0n), "vtl-call");
  assertEquals(vtl(0x11n, 1n), "undefined");
  assertEquals(vtl(0x1_0011n, 0n), "undefined");
  assertEquals(vtl(0x1_0000_0011n, 0n), "undefined");
  assertEquals(vtl(0x12n, 0n), "undefined");
});

Deno.test("VTL call: without a higher VTL enabled on the VP it is #UD", () => {
  const guest = new Guest();
  guest.setCpu64(1, CpuState.at.cr0, 0x11n);
  guest.setCpu64(1, RCX, 0x11n);
  assertEquals(guestHypercall(guest.caller(1, 0)), "undefined");
});

Deno.test("VTL return: only 0 and 1, with a clean control word", () => {
  assertEquals(vtlReturnAllowed(0x12n, 0n), true);
  assertEquals(vtlReturnAllowed(0x12n, 1n), true);
  assertEquals(vtlReturnAllowed(0x12n, 2n), false);
  assertEquals(vtlReturnAllowed(0x1_0012n, 0n), false);
  assertEquals(vtlReturnAllowed(0x11n, 0n), false);
});

Deno.test("Random control words and registers never harm the hypervisor", () => {
  const guest = new Guest();
  let seed = 12345;
  const random = () => (seed = Math.imul(seed, 1664525) + 1013904223 | 0) >>> 0;
  const codes = [...HYPERCALLS.keys()];
  for (let k = 0; k < 20_000; k++) {
    const code = BigInt(codes[random() % codes.length]);
    const control = code | BigInt(random() & 1) << 16n | BigInt(random() % 300) << 32n | BigInt(random() % 4) << 48n;
    const input = BigInt(random() % 0x400) << 3n;
    const at = Number(input) & ~7;
    for (let byte = 0; byte < 64; byte += 4) guest.memory.view.setUint32(at + byte, random(), true);
    if ((k & 1) === 0) guest.header(input, VP_SELF, 0);
    guest.setCpu64(0, CpuState.at.cr0, 0x8000_0011n);
    guest.setCpu64(0, CpuState.at.efer, 0x500n);
    const { outcome } = guest.call(control, input, BigInt(random() % 0x4000) << 3n);
    assertEquals(outcome === "done", true);
  }
});
