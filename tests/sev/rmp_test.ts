import { assertEquals } from "@std/assert";
import { sevBytes } from "../../lib/hypervisor/sev/machine.ts";
import { RmpResult } from "../../lib/layout/sev/constants/rmp.ts";
import { NPF_EXITINFO1 } from "../../lib/layout/sev/exit_info.ts";
import { RMP_ENTRY_RAW, RMP_RAW_LO, RMPADJUST_ATTRS } from "../../lib/layout/sev/rmp.ts";
import { MachineMemory } from "../../lib/memory/machine_memory.ts";
import { DirectPort } from "../../lib/memory/port.ts";
import {
  npfBits,
  PERMISSION_READ,
  PERMISSION_SUPERVISOR_EXECUTE,
  PERMISSION_WRITE,
  Rmp,
  RMP_CHECK,
  rmpBytes,
  type RmpState,
} from "../../lib/sev/rmp.ts";

const R = RmpResult.values;
const PAGES = 2048;
const ASID = 1;
const OWN = { first: 2047, count: 1 };

function table() {
  const memory = MachineMemory.allocate(rmpBytes(PAGES));
  return { memory, port: new DirectPort(memory), rmp: new Rmp(memory, { base: 0, pages: PAGES, own: OWN }) };
}

const toGuest = (gpn: number, size = 0): RmpState => ({ assigned: true, asid: ASID, gpn, size, immutable: false });
const SHARED: RmpState = { assigned: false, asid: 0, gpn: 0, size: 0, immutable: false };
const access = (vmpl: number, permissions: number) => ({ asid: ASID, vmpl, permissions });
const small = { asid: ASID, size: 0, validate: true, mappedPrivate: true };

Deno.test("RMP: an entry lies in memory in the form of Zen 3 and 4", () => {
  const { memory, port, rmp } = table();
  assertEquals(rmp.rmpupdate(port, 3, { assigned: true, asid: 5, gpn: 0x12345, size: 0, immutable: true }), R.SUCCESS);
  const raw = RMP_ENTRY_RAW.accessor(memory.view, 3 * 16).lo;
  assertEquals(raw, RMP_RAW_LO.make({ assigned: 1, immutable: 1, gpa_pfn: 0x12345, asid: 5 }));
});

Deno.test("RMP: a guest page number above 2^32 bytes keeps its upper bits", () => {
  const { port, rmp } = table();
  const gpn = 2 ** 38 + 5; // as of the address FFFFFFFFF000 and its neighbours
  rmp.rmpupdate(port, 9, toGuest(gpn));
  assertEquals(rmp.entry(port, 9).gpn, gpn);
  assertEquals(rmp.entry(port, 9).asid, ASID);
});

Deno.test("e6: a host write needs an unassigned page; through a 2M mapping, 512 of them", () => {
  const { port, rmp } = table();
  rmp.rmpupdate(port, 600, toGuest(7));
  assertEquals(rmp.checkHostWrite(port, 600), RMP_CHECK.OWNER);
  assertEquals(rmp.checkHostWrite(port, 601), RMP_CHECK.PASS);
  assertEquals(rmp.checkHostWrite(port, 601, true), RMP_CHECK.OWNER);
  assertEquals(rmp.checkHostWrite(port, 511, true), RMP_CHECK.PASS);
  assertEquals(rmp.checkDmaWrite(port, 600), RMP_CHECK.OWNER);
  assertEquals(rmp.checkGuestSharedWrite(port, 600), RMP_CHECK.OWNER);
});

Deno.test("e6: a private access needs owner and address, then validation, then the VMPL's permission", () => {
  const { port, rmp } = table();
  assertEquals(rmp.checkGuestPrivate(port, 4, 4, access(0, PERMISSION_READ)), RMP_CHECK.OWNER);
  rmp.rmpupdate(port, 4, toGuest(4));
  assertEquals(rmp.checkGuestPrivate(port, 4, 5, access(0, PERMISSION_READ)), RMP_CHECK.OWNER);
  const stranger = { asid: 2, vmpl: 0, permissions: PERMISSION_READ };
  assertEquals(rmp.checkGuestPrivate(port, 4, 4, stranger), RMP_CHECK.OWNER);
  assertEquals(rmp.checkGuestPrivate(port, 4, 4, access(0, PERMISSION_READ)), RMP_CHECK.NOT_VALIDATED);
  assertEquals(rmp.pvalidate(port, 4, 4, small), { check: RMP_CHECK.PASS, result: R.SUCCESS, unchanged: false });
  assertEquals(rmp.checkGuestPrivate(port, 4, 4, access(0, 0xf)), RMP_CHECK.PASS);
  assertEquals(rmp.checkGuestPrivate(port, 4, 4, access(1, PERMISSION_READ)), RMP_CHECK.VMPL);
});

Deno.test("e6: the bits of EXITINFO1 that each failure sets", () => {
  const { rmp, enc, vmpl, sizem } = NPF_EXITINFO1.mask;
  assertEquals(npfBits(RMP_CHECK.OWNER, true), rmp | enc);
  assertEquals(npfBits(RMP_CHECK.OWNER, false), rmp);
  assertEquals(npfBits(RMP_CHECK.VMPL, true), rmp | enc | vmpl);
  assertEquals(npfBits(RMP_CHECK.SIZE, true), rmp | enc | sizem);
  assertEquals(npfBits(RMP_CHECK.NOT_VALIDATED, true), 0n);
});

Deno.test("e9: RMPUPDATE clears validated, so that a replaced page is noticed", () => {
  const { port, rmp } = table();
  rmp.rmpupdate(port, 4, toGuest(4));
  rmp.pvalidate(port, 4, 4, small);
  rmp.rmpupdate(port, 4, SHARED);
  rmp.rmpupdate(port, 4, toGuest(4));
  assertEquals(rmp.checkGuestPrivate(port, 4, 4, access(0, PERMISSION_READ)), RMP_CHECK.NOT_VALIDATED);
});

Deno.test("RMPUPDATE: failures by input, ownership of the table, immutability and overlap", () => {
  const { port, rmp } = table();
  assertEquals(rmp.rmpupdate(port, PAGES, SHARED), R.FAIL_INPUT);
  assertEquals(rmp.rmpupdate(port, 1, toGuest(1, 1)), R.FAIL_INPUT);
  assertEquals(rmp.rmpupdate(port, OWN.first, SHARED), R.FAIL_PERMISSION);
  rmp.rmpupdate(port, 1, { ...toGuest(1), immutable: true });
  assertEquals(rmp.rmpupdate(port, 1, SHARED), R.FAIL_PERMISSION);
  rmp.rmpupdate(port, 513, toGuest(513));
  assertEquals(rmp.rmpupdate(port, 512, toGuest(512, 1)), R.FAIL_OVERLAP);
  rmp.rmpupdate(port, 513, SHARED);
  assertEquals(rmp.rmpupdate(port, 512, toGuest(512, 1)), R.SUCCESS);
  assertEquals(rmp.rmpupdate(port, 600, SHARED), R.FAIL_OVERLAP);
  assertEquals(rmp.rmpupdate(port, 512, { ...SHARED, size: 1 }), R.SUCCESS);
  assertEquals(rmp.rmpupdate(port, 600, toGuest(600)), R.SUCCESS);
});

Deno.test("RMPUPDATE and PSMASH: an entry that another processor works on is in use", () => {
  const { memory, port, rmp } = table();
  memory.u32[(512 * 16 + 12) / 4] = 0x80000000; // another processor holds the region
  assertEquals(rmp.rmpupdate(port, 600, toGuest(600)), R.FAIL_INUSE);
  assertEquals(rmp.psmash(port, 512), R.FAIL_INUSE);
  assertEquals(rmp.rmpupdate(port, 100, toGuest(100)), R.SUCCESS);
});

Deno.test("PSMASH: a large page becomes 512 with consecutive addresses, state and permissions kept", () => {
  const { port, rmp } = table();
  assertEquals(rmp.psmash(port, 5), R.FAIL_INPUT);
  assertEquals(rmp.psmash(port, 512), R.FAIL_PERMISSION);
  rmp.rmpupdate(port, 512, toGuest(1024, 1));
  const large = { ...small, size: 1 };
  assertEquals(rmp.pvalidate(port, 700, 1212, large).result, R.SUCCESS);
  const before = rmp.entry(port, 700);
  assertEquals(rmp.psmash(port, 512), R.SUCCESS);
  assertEquals(rmp.entry(port, 700), { ...before, size: 0 });
  assertEquals(before.gpn, 1024 + 188);
  assertEquals(before.validated, true);
  assertEquals(rmp.psmash(port, 512), R.FAIL_INPUT);
});

Deno.test("PVALIDATE: bad size, a shared mapping, double validation, sizes", () => {
  const { port, rmp } = table();
  rmp.rmpupdate(port, 4, toGuest(4));
  assertEquals(rmp.pvalidate(port, 4, 4, { ...small, size: 2 }).result, R.FAIL_INPUT);
  assertEquals(rmp.pvalidate(port, 4, 4, { ...small, mappedPrivate: false }).result, R.FAIL_INPUT);
  assertEquals(rmp.pvalidate(port, 4, 4, { ...small, validate: false }).unchanged, true);
  assertEquals(rmp.pvalidate(port, 4, 4, small).unchanged, false);
  assertEquals(rmp.pvalidate(port, 4, 4, small), { check: RMP_CHECK.PASS, result: R.SUCCESS, unchanged: true });
  assertEquals(rmp.pvalidate(port, 5, 5, small).check, RMP_CHECK.OWNER);
  assertEquals(rmp.pvalidate(port, 4, 4, { ...small, size: 1 }).check, RMP_CHECK.OWNER);
  rmp.rmpupdate(port, 0, toGuest(0));
  assertEquals(rmp.pvalidate(port, 4, 4, { ...small, size: 1 }).result, R.FAIL_SIZEMISMATCH);
  rmp.rmpupdate(port, 512, toGuest(512, 1));
  assertEquals(rmp.pvalidate(port, 515, 515, small).check, RMP_CHECK.SIZE);
});

Deno.test("RMPADJUST: levels, own permissions, validation, the VMSA bit", () => {
  const { port, rmp } = table();
  rmp.rmpupdate(port, 4, toGuest(4));
  const attributes = (target: number, more = {}) => RMPADJUST_ATTRS.make({ target_vmpl: target, ...more });
  const adjust = (vmpl: number, value: bigint, size = 0) =>
    rmp.rmpadjust(port, 4, 4, { asid: ASID, vmpl, size, attributes: value });
  assertEquals(adjust(0, attributes(1, { read: 1 })).check, RMP_CHECK.NOT_VALIDATED);
  rmp.pvalidate(port, 4, 4, small);
  assertEquals(adjust(0, attributes(4)).result, R.FAIL_INPUT);
  assertEquals(adjust(0, attributes(1) | (1n << 12n)).result, R.FAIL_INPUT);
  assertEquals(adjust(0, attributes(0)).result, R.FAIL_PERMISSION);
  assertEquals(adjust(1, attributes(1)).result, R.FAIL_PERMISSION);
  assertEquals(adjust(1, attributes(2, { read: 1 })).result, R.FAIL_PERMISSION); // VMPL1 has none itself
  assertEquals(adjust(0, attributes(1, { read: 1, supervisor_execute: 1 })).result, R.SUCCESS);
  const executes = PERMISSION_READ | PERMISSION_SUPERVISOR_EXECUTE;
  assertEquals(rmp.checkGuestPrivate(port, 4, 4, access(1, executes)), RMP_CHECK.PASS);
  assertEquals(rmp.checkGuestPrivate(port, 4, 4, access(1, PERMISSION_WRITE)), RMP_CHECK.VMPL);
  assertEquals(adjust(1, attributes(2, { read: 1, vmsa: 1 })).result, R.FAIL_PERMISSION);
  assertEquals(rmp.isVmsa(port, 4, ASID), false);
  assertEquals(adjust(0, attributes(1, { vmsa: 1 })).result, R.SUCCESS);
  assertEquals(rmp.isVmsa(port, 4, ASID), true);
  assertEquals(rmp.isVmsa(port, 4, ASID + 1), false);
});

Deno.test("RMPQUERY: permissions of an equal or less privileged level", () => {
  const { port, rmp } = table();
  rmp.rmpupdate(port, 4, toGuest(4));
  rmp.pvalidate(port, 4, 4, small);
  const query = (vmpl: number, target: number) => rmp.rmpquery(port, 4, 4, { asid: ASID, vmpl, target });
  assertEquals(query(1, 0).result, R.FAIL_PERMISSION);
  assertEquals(query(0, 4).result, R.FAIL_INPUT);
  assertEquals(query(0, 0).attributes, 0xf00n);
  assertEquals(query(0, 1).attributes, 1n);
});

Deno.test("launch: a measured page is owned, validated and, for a VMSA, marked", () => {
  const { port, rmp } = table();
  rmp.launch(port, 8, 8, ASID, false);
  rmp.launch(port, 9, 9, ASID, true);
  assertEquals(rmp.checkGuestPrivate(port, 8, 8, access(0, 0xf)), RMP_CHECK.PASS);
  assertEquals(rmp.isVmsa(port, 8, ASID), false);
  assertEquals(rmp.isVmsa(port, 9, ASID), true);
});

Deno.test("an RMP for 1 GiB costs 16 bytes a page, and SNP nothing more than that", () => {
  const pages = 2 ** 30 / 4096;
  assertEquals(rmpBytes(pages), 16 * pages);
  const config = { vps: 1, ramBytes: 2 ** 30, base: 2 ** 30 };
  // Without an RMP there is a byte a page; VMCB and VMSA pages have entries too, and regions end at a page.
  const more = sevBytes({ ...config, snp: true }) - sevBytes({ ...config, snp: false });
  assertEquals(more <= 15 * pages + 2 * 4096, true);
});
