import { assertEquals } from "@std/assert";
import { CpuState } from "../../../lib/cpu/state.ts";
import { callHypercall } from "../../../lib/hypervisor/hypercalls/dispatch.ts";
import { Bench, RAM } from "../bench.ts";

const SUCCESS = 0;
const NOT_PRESENT = 1;
const PRIVILEGE = 2;
const BAD_FLAGS = 3;
const GPA_UNMAPPED = 4;
const GPA_NO_READ = 5;
const READ = 1n;
const WRITE = 2n;
const EXECUTE = 4n;
const EXEMPT = 8n;
const SET_BITS = 16n;
const SUPERVISOR = 64n;
const USER = 128n;
const VTL0 = 0x10n << 56n;

/** A VP in long mode with tables at 1000 (PML4), 2000, 3000 and 4000 (PT). */
function paged(): Bench {
  const bench = new Bench();
  const { view } = bench.memory;
  view.setBigUint64(0x1000, 0x2007n, true);
  view.setBigUint64(0x2000, 0x3007n, true);
  view.setBigUint64(0x3000, 0x4007n, true);
  view.setBigUint64(0x4000 + 8 * 1, 0x9007n, true); // user, writable
  view.setBigUint64(0x4000 + 8 * 2, 0xa005n, true); // user, read only
  view.setBigUint64(0x4000 + 8 * 3, 0xb003n, true); // supervisor
  view.setBigUint64(0x4000 + 8 * 4, 0x8000_0000_0000_c007n, true); // no execute
  view.setBigUint64(0x4000 + 8 * 5, 0xfec0_0007n, true); // a device
  view.setBigUint64(0x4000 + 8 * 6, 0x0010_0000_0000_d007n | 1n << 51n, true); // reserved bit
  view.setBigUint64(0x3000 + 8, 0x7fff_0007n, true); // table without memory
  view.setBigUint64(0x3000 + 16, BigInt(RAM) | 7n, true); // table in VTL2's memory
  bench.setCpu64(0, CpuState.at.cr0, 0x8001_0011n);
  bench.setCpu64(0, CpuState.at.cr3, 0x1000n);
  bench.setCpu64(0, CpuState.at.cr4, 0x20n);
  bench.setCpu64(0, CpuState.at.efer, 0xd00n);
  return bench;
}

/** Translates with the Ex call from VTL2; result code and page number. */
function translate(bench: Bench, page: number, flags: bigint): [number, number] {
  const view = new DataView(new ArrayBuffer(32));
  view.setBigUint64(0, 0xffff_ffff_ffff_ffffn, true);
  view.setUint32(8, 0xffff_fffe, true);
  view.setBigUint64(16, flags | VTL0, true);
  view.setBigUint64(24, BigInt(page), true);
  const { status, output } = callHypercall(bench.caller(0, 2), 0xac, new Uint8Array(view.buffer));
  assertEquals([status, output.length], [0, 64]);
  const result = new DataView(output.buffer);
  return [result.getUint32(0, true), Number(result.getBigUint64(48, true))];
}

Deno.test("TranslateVirtualAddressEx: finds pages, and refuses what the tables do not allow", () => {
  const bench = paged();
  assertEquals(translate(bench, 1, READ | WRITE | EXECUTE | USER), [SUCCESS, 9]);
  assertEquals(translate(bench, 2, READ | USER), [SUCCESS, 0xa]);
  assertEquals(translate(bench, 2, WRITE | USER), [PRIVILEGE, 0]);
  assertEquals(translate(bench, 2, WRITE | SUPERVISOR), [PRIVILEGE, 0]); // CR0.WP
  assertEquals(translate(bench, 3, READ | USER), [PRIVILEGE, 0]);
  assertEquals(translate(bench, 3, READ | SUPERVISOR), [SUCCESS, 0xb]);
  assertEquals(translate(bench, 4, EXECUTE), [PRIVILEGE, 0]);
  assertEquals(translate(bench, 6, READ), [BAD_FLAGS, 0]);
  assertEquals(translate(bench, 7, READ), [NOT_PRESENT, 0]);
});

Deno.test("TranslateVirtualAddressEx: privilege_exempt asks only whether the page is present", () => {
  const bench = paged();
  assertEquals(translate(bench, 2, WRITE | USER | EXEMPT), [SUCCESS, 0xa]);
  assertEquals(translate(bench, 7, READ | EXEMPT), [NOT_PRESENT, 0]);
});

Deno.test("TranslateVirtualAddressEx: without access flags the processor's own CPL counts", () => {
  const bench = paged();
  assertEquals(translate(bench, 3, READ), [SUCCESS, 0xb]);
  bench.setCpu32(0, CpuState.at.ss + 12, 0xc0f3 << 16);
  assertEquals(translate(bench, 3, READ), [PRIVILEGE, 0]);
});

Deno.test("TranslateVirtualAddressEx: a device's page is a valid translation; a table outside memory is GPA_UNMAPPED", () => {
  const bench = paged();
  assertEquals(translate(bench, 5, READ), [SUCCESS, 0xfec00]);
  assertEquals(translate(bench, 0x200, READ), [GPA_UNMAPPED, 0]);
  assertEquals(translate(bench, 0x400, READ), [GPA_NO_READ, 0]);
});

Deno.test("TranslateVirtualAddressEx: accessed and dirty bits are set only when asked for", () => {
  const bench = paged();
  const entry = () => bench.memory.view.getUint32(0x4008, true);
  translate(bench, 1, WRITE);
  assertEquals(entry(), 0x9007);
  translate(bench, 1, READ | SET_BITS);
  assertEquals(entry(), 0x9027);
  translate(bench, 1, WRITE | SET_BITS);
  assertEquals(entry(), 0x9067);
});

Deno.test("TranslateVirtualAddress: the short form gives result and page in 16 bytes; reserved flags are InvalidParameter", () => {
  const bench = paged();
  const view = new DataView(new ArrayBuffer(32));
  view.setBigUint64(0, 0xffff_ffff_ffff_ffffn, true);
  view.setBigUint64(16, READ, true);
  view.setBigUint64(24, 1n, true);
  const { status, output } = callHypercall(bench.caller(0, 0), 0x52, new Uint8Array(view.buffer));
  assertEquals(status, 0);
  const words = new BigUint64Array(output.buffer);
  assertEquals([...words], [6n << 32n, 9n]); // success, write-back
  view.setBigUint64(16, READ | 1n << 20n, true);
  assertEquals(callHypercall(bench.caller(0, 0), 0x52, new Uint8Array(view.buffer)).status, 5);
  view.setBigUint64(16, READ | 0x12n << 56n, true);
  assertEquals(callHypercall(bench.caller(0, 0), 0x52, new Uint8Array(view.buffer)).status, 6);
});

Deno.test("TranslateVirtualAddress: with paging off linear addresses are physical", () => {
  const bench = paged();
  bench.setCpu64(0, CpuState.at.cr0, 0x11n);
  assertEquals(translate(bench, 0x55, READ | WRITE), [SUCCESS, 0x55]);
});
