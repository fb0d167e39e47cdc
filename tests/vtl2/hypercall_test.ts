import { assertEquals } from "@std/assert";
import { handleHypercall } from "../../lib/vtl2/handlers/hypercall.ts";
import { HYPERCALL_RIP } from "../../lib/vtl2/policies.ts";
import { HANDLED } from "../../lib/vtl2/vmm_vp.ts";
import { FixtureVp, RAM } from "./fixture.ts";

const RAX = 0, RCX = 1, RDX = 2, RBX = 3, RSI = 6, RDI = 7, R8 = 8;
const LONG = 0x14;
const PROTECTED = 0x04;
const FAST = 1n << 16n;
const INPUT = 0x2000;
const OUTPUT = 0x3000;
const SUCCESS = 0n, INVALID_CODE = 2n, INVALID_INPUT = 3n, INVALID_ALIGNMENT = 4n, INVALID_PARAMETER = 5n;
const ACCESS_DENIED = 6n, INVALID_PARTITION_ID = 0xdn, INVALID_CONNECTION_ID = 0x12n;
const SELF = 0xffffffff_ffffffffn;

/** Makes a 64-bit hypercall and returns RAX. */
function call(vp: FixtureVp, control: bigint, input = BigInt(INPUT), output = BigInt(OUTPUT)): bigint {
  vp.setGpr(RCX, control);
  vp.setGpr(RDX, input);
  vp.setGpr(R8, output);
  vp.setMessage(0x80000050, { state: LONG, length: 4 });
  assertEquals(handleHypercall(vp), HANDLED);
  return vp.gpr(RAX);
}
const reps = (count: number, start = 0) => BigInt(count) << 32n | BigInt(start) << 48n;

Deno.test("hypercall: a code that the VMM does not handle is InvalidHypercallCode, and RIP moves by 3", () => {
  const vp = new FixtureVp();
  assertEquals(call(vp, 0x50n), INVALID_CODE);
  assertEquals(vp.asked, [["rip", 0x1003n]], "not by the message's length");
});

Deno.test("hypercall: vmm.hypercall-rip=silicon moves RIP by the message's length", () => {
  const vp = new FixtureVp();
  vp.choose(HYPERCALL_RIP, "silicon");
  call(vp, 0x50n);
  assertEquals(vp.asked, [["rip", 0x1004n]]);
});

Deno.test("hypercall: a simple call takes no reps, a rep call a count above its start, no call reserved bits", () => {
  const vp = new FixtureVp();
  assertEquals(call(vp, 0x5cn | reps(1)), INVALID_INPUT);
  assertEquals(call(vp, 0x9an), INVALID_INPUT);
  assertEquals(call(vp, 0x9an | reps(2, 2)), INVALID_INPUT);
  assertEquals(call(vp, 0x5cn | 1n << 60n), INVALID_INPUT);
  assertEquals(call(vp, 0x5cn | 1n << 17n), INVALID_INPUT, "a variable header where none is allowed");
});

Deno.test("hypercall: input is eight-byte aligned, within a page and in guest memory", () => {
  const vp = new FixtureVp();
  assertEquals(call(vp, 0x5cn, 0x2004n), INVALID_ALIGNMENT);
  assertEquals(call(vp, 0x5cn, 0x2f08n), INVALID_ALIGNMENT, "256 bytes cross the page's end");
  assertEquals(call(vp, 0x5cn, BigInt(RAM)), INVALID_INPUT);
  assertEquals(call(vp, 0x5cn, 0xffffffff_fffff000n), INVALID_INPUT);
});

Deno.test("hypercall: PostMessage checks size and type, then there is no such connection", () => {
  const vp = new FixtureVp();
  const { view } = vp.memory;
  view.setUint32(INPUT + 8, 1, true);
  view.setUint32(INPUT + 12, 240, true);
  assertEquals(call(vp, 0x5cn), INVALID_CONNECTION_ID);
  view.setUint32(INPUT + 12, 241, true);
  assertEquals(call(vp, 0x5cn), INVALID_PARAMETER);
  view.setUint32(INPUT + 12, 0, true);
  view.setUint32(INPUT + 8, 0x80000000, true);
  assertEquals(call(vp, 0x5cn), INVALID_PARAMETER);
});

Deno.test("hypercall: SignalEvent's input fits into RDX in the fast form", () => {
  const vp = new FixtureVp();
  const seen: number[][] = [];
  vp.partition.signalEvent = (connection, flag) => (seen.push([connection, flag]), 0);
  assertEquals(call(vp, 0x5dn | FAST, 0x0007_00001234n), SUCCESS);
  assertEquals(seen, [[0x1234, 7]]);
});

Deno.test("hypercall: GetVpIndexFromApicId writes one index for each id and counts all reps, those before the start too", () => {
  const vp = new FixtureVp();
  const { view } = vp.memory;
  view.setBigUint64(INPUT, SELF, true);
  [5, 6, 9, 7].forEach((id, i) => view.setUint32(INPUT + 16 + 4 * i, id, true));
  view.setUint32(OUTPUT, 0xdddddddd, true);
  assertEquals(call(vp, 0x9an | reps(2, 1)), SUCCESS | 2n << 32n);
  assertEquals([view.getUint32(OUTPUT, true), view.getUint32(OUTPUT + 4, true)], [0xdddddddd, 106]);
  assertEquals(
    call(vp, 0x9an | reps(4)),
    INVALID_PARAMETER | 2n << 32n,
    "what was done before the failure is handed over",
  );
  assertEquals([view.getUint32(OUTPUT, true), view.getUint32(OUTPUT + 4, true)], [105, 106]);
  view.setBigUint64(INPUT, 1n, true);
  assertEquals(call(vp, 0x9an | reps(1)), INVALID_PARTITION_ID);
});

Deno.test("hypercall: fast output follows the input's register pairs", () => {
  const vp = new FixtureVp();
  const xmm = (vp.context + 0x80 + 160) / 8;
  vp.memory.u64.set([2n | 4n << 32n, 0n, 0xeeeen, 0xeeeen], xmm); // XMM0: ids 2 and 4.
  assertEquals(call(vp, 0x9an | FAST | reps(2), SELF, 0n), SUCCESS | 2n << 32n);
  assertEquals(
    [...vp.memory.u64.slice(xmm + 2, xmm + 4)],
    [102n | 104n << 32n, 0xeeeen],
    "XMM1, only its output bytes",
  );
});

Deno.test("hypercall: in 32-bit mode control and result are EDX:EAX, input EBX:ECX, and there is no fast output", () => {
  const vp = new FixtureVp();
  vp.memory.view.setBigUint64(INPUT, SELF, true);
  vp.memory.view.setUint32(INPUT + 16, 3, true);
  const call32 = (control: bigint) => {
    vp.setGpr(RDX, 0xffffffff_00000000n | control >> 32n);
    vp.setGpr(RAX, 0xffffffff_00000000n | control & 0xffffffffn);
    vp.setGpr(RBX, 0n);
    vp.setGpr(RCX, BigInt(INPUT));
    vp.setGpr(RDI, 0n);
    vp.setGpr(RSI, BigInt(OUTPUT));
    vp.setMessage(0x80000050, { state: PROTECTED, rip: 0xfffffffen });
    assertEquals(handleHypercall(vp), HANDLED);
    return [vp.gpr(RDX), vp.gpr(RAX)];
  };
  assertEquals(call32(0x9an | reps(1)), [1n, SUCCESS]);
  assertEquals(vp.memory.view.getUint32(OUTPUT, true), 103);
  assertEquals(vp.asked, [["rip", 1n]], "cut to 32 bits");
  assertEquals(call32(0x9an | FAST | reps(1)), [0n, INVALID_INPUT]);
});

Deno.test("hypercall: SetVpRegisters and ModifyVtlProtectionMask reach nothing in a partition without isolation or guest VSM", () => {
  const vp = new FixtureVp();
  vp.memory.view.setBigUint64(INPUT, SELF, true);
  assertEquals(call(vp, 0x51n | reps(1)), INVALID_PARAMETER);
  assertEquals(call(vp, 0x0cn | reps(1)), ACCESS_DENIED);
  assertEquals(call(vp, 0x103n), ACCESS_DENIED);
});

Deno.test("hypercall: Timeout rewrites the control word with the next rep and leaves RIP", () => {
  const vp = new FixtureVp();
  vp.memory.view.setBigUint64(INPUT, SELF, true);
  let done = 0;
  vp.partition.modifyVtlProtectionMask = () => done++ < 2 ? 0 : 0x78;
  call(vp, 0x0cn | reps(5));
  assertEquals(vp.gpr(RCX), 0x0cn | reps(5, 2));
  assertEquals(vp.asked, []);
});
