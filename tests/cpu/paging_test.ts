import { assertEquals } from "@std/assert";
import { CR4_PAE, CR4_PKE, CR4_PSE, CR4_SMEP } from "../../lib/cpu/control_bits.ts";
import {
  directoryPointersValid,
  PF_FETCH,
  PF_KEY,
  PF_PRESENT,
  PF_RESERVED,
  PF_USER,
  PF_WRITE,
  translation,
  walk,
} from "../../lib/cpu/paging.ts";
import {
  ACCESS_EXECUTE,
  ACCESS_READ,
  ACCESS_WRITE,
  CpuState,
  CR0_PE,
  CR0_PG,
  CR0_WP,
  EFER_LMA,
  EFER_LME,
  EFER_NXE,
} from "../../lib/cpu/state.ts";
import { type GuestMachine, guestMachine } from "./guest_machine.ts";

// Bits of an entry, AMD64 APM volume 2, section 5.4.1.
const P = 0x1n;
const W = 0x2n;
const U = 0x4n;
const A = 0x20n;
const D = 0x40n;
const PS = 0x80n;
const G = 0x100n;
const NX = 1n << 63n;

/** A machine with paging on and tables written as [address, entry]. */
function paged(
  cr4: number,
  efer: number,
  entries: readonly (readonly [number, bigint])[],
  entryBytes = 8,
): GuestMachine {
  const machine = guestMachine("protected", "hlt");
  const { cpu } = machine;
  for (const [address, entry] of entries) {
    if (entryBytes === 8) cpu.dv.setBigUint64(address, entry, true);
    else cpu.dv.setUint32(address, Number(entry), true);
  }
  const at = CpuState.at;
  cpu.sv.setInt32(at.cr0, CR0_PG | CR0_PE | CR0_WP, true);
  cpu.sv.setInt32(at.cr3, 0x1000, true);
  cpu.sv.setInt32(at.cr4, cr4, true);
  cpu.sv.setInt32(at.efer, efer, true);
  cpu.updateMode();
  return machine;
}

const LONG = EFER_LME | EFER_LMA | EFER_NXE;

/** Long-mode tables that map linear 0 through one entry of each level. */
function chain(pml4e: bigint, pdpte: bigint, pde: bigint, pte: bigint): readonly (readonly [number, bigint])[] {
  return [[0x1000, 0x2000n | pml4e], [0x2000, 0x3000n | pdpte], [0x3000, 0x4000n | pde], [0x4000, 0x5000n | pte]];
}

const ALL = P | W | U;

Deno.test("paging: four levels of tables translate a 4 KiB page and get their accessed bits", () => {
  const { cpu } = paged(CR4_PAE, LONG, chain(ALL, ALL, ALL, ALL));
  assertEquals(walk(cpu, 0x123, 0, ACCESS_READ, true), -1);
  assertEquals(translation.gpn, 5);
  for (const table of [0x1000, 0x2000, 0x3000, 0x4000]) {
    assertEquals(cpu.dv.getBigUint64(table, true) & (A | D), A, `entry at ${table.toString(16)}`);
  }
  assertEquals(walk(cpu, 0x123, 0, ACCESS_WRITE, true), -1);
  assertEquals(cpu.dv.getBigUint64(0x4000, true) & (A | D), A | D);
  assertEquals(cpu.dv.getBigUint64(0x3000, true) & D, 0n, "only the leaf gets a dirty bit");
});

Deno.test("paging: a walk without side effects leaves accessed and dirty bits alone", () => {
  const { cpu } = paged(CR4_PAE, LONG, chain(ALL, ALL, ALL, ALL));
  assertEquals(walk(cpu, 0, 0, ACCESS_WRITE, true, false), -1);
  assertEquals(cpu.dv.getBigUint64(0x4000, true) & (A | D), 0n);
});

Deno.test("paging: the index of each level comes from its own nine bits of the linear address", () => {
  // 0x0000_7123_4567_8000: PML4 0xe2, PDPT 0x8d, PD 0x2b, PT 0x78.
  const { cpu } = paged(CR4_PAE, LONG, [
    [0x1000 + 8 * 0xe2, 0x2000n | ALL],
    [0x2000 + 8 * 0x8d, 0x3000n | ALL],
    [0x3000 + 8 * 0x2b, 0x4000n | ALL],
    [0x4000 + 8 * 0x78, 0x0000_1234_5678_9000n | ALL],
  ]);
  assertEquals(walk(cpu, 0x4567_8000, 0x7123, ACCESS_READ, true), -1);
  assertEquals(translation.gpn, 0x1_2345_6789);
});

Deno.test("paging: a missing entry of any level is a fault that is not present", () => {
  for (let level = 0; level < 4; level++) {
    const rights = [ALL, ALL, ALL, ALL];
    rights[level] = W | U;
    const { cpu } = paged(CR4_PAE, LONG, chain(rights[0], rights[1], rights[2], rights[3]));
    assertEquals(walk(cpu, 0, 0, ACCESS_READ, false), 0, `level ${level}`);
    assertEquals(walk(cpu, 0, 0, ACCESS_WRITE, true), PF_WRITE | PF_USER);
    assertEquals(walk(cpu, 0, 0, ACCESS_EXECUTE, true), PF_FETCH | PF_USER);
  }
});

Deno.test("paging: the most restrictive level decides about user access and writes", () => {
  for (let level = 0; level < 4; level++) {
    const rights = [ALL, ALL, ALL, ALL];
    rights[level] = P | W;
    const supervisor = paged(CR4_PAE, LONG, chain(rights[0], rights[1], rights[2], rights[3])).cpu;
    assertEquals(walk(supervisor, 0, 0, ACCESS_READ, true), PF_PRESENT | PF_USER);
    assertEquals(walk(supervisor, 0, 0, ACCESS_READ, false), -1);
    rights[level] = P | U;
    const readOnly = paged(CR4_PAE, LONG, chain(rights[0], rights[1], rights[2], rights[3])).cpu;
    assertEquals(walk(readOnly, 0, 0, ACCESS_WRITE, true), PF_PRESENT | PF_USER | PF_WRITE);
    assertEquals(walk(readOnly, 0, 0, ACCESS_READ, true), -1);
  }
});

Deno.test("paging: without CR0.WP a supervisor writes to read-only pages, CPL 3 does not", () => {
  const { cpu } = paged(CR4_PAE, LONG, chain(ALL, ALL, ALL, P | U));
  assertEquals(walk(cpu, 0, 0, ACCESS_WRITE, false), PF_PRESENT | PF_WRITE);
  cpu.sv.setInt32(CpuState.at.cr0, CR0_PG | CR0_PE, true);
  assertEquals(walk(cpu, 0, 0, ACCESS_WRITE, false), -1);
  assertEquals(walk(cpu, 0, 0, ACCESS_WRITE, true), PF_PRESENT | PF_WRITE | PF_USER);
});

Deno.test("paging: NX of any level forbids fetches, and is a reserved bit without EFER.NXE", () => {
  for (let level = 0; level < 4; level++) {
    const rights = [ALL, ALL, ALL, ALL];
    rights[level] |= NX;
    const entries = chain(rights[0], rights[1], rights[2], rights[3]);
    const { cpu } = paged(CR4_PAE, LONG, entries);
    assertEquals(walk(cpu, 0, 0, ACCESS_EXECUTE, true), PF_PRESENT | PF_FETCH | PF_USER);
    assertEquals(walk(cpu, 0, 0, ACCESS_READ, true), -1);
    const old = paged(CR4_PAE, EFER_LME | EFER_LMA, entries).cpu;
    assertEquals(walk(old, 0, 0, ACCESS_READ, true), PF_PRESENT | PF_RESERVED | PF_USER);
    assertEquals(
      walk(old, 0, 0, ACCESS_EXECUTE, true),
      PF_PRESENT | PF_RESERVED | PF_USER,
      "fetches are not told apart",
    );
  }
});

Deno.test("paging: an address bit beyond the 48 physical ones is reserved in every level", () => {
  for (let level = 0; level < 4; level++) {
    for (const bit of [48n, 51n]) {
      const rights = [ALL, ALL, ALL, ALL];
      rights[level] |= 1n << bit;
      const { cpu } = paged(CR4_PAE, LONG, chain(rights[0], rights[1], rights[2], rights[3]));
      assertEquals(walk(cpu, 0, 0, ACCESS_READ, false), PF_PRESENT | PF_RESERVED);
    }
  }
});

Deno.test("paging: bits 62:52 are the program's own in long mode and reserved in PAE entries", () => {
  const { cpu } = paged(CR4_PAE, LONG, chain(ALL, ALL, ALL, ALL | 1n << 52n));
  assertEquals(walk(cpu, 0, 0, ACCESS_READ, false), -1);
  const pae = paged(CR4_PAE, EFER_NXE, [[0x1000, 0x3000n | P], [0x3000, 0x4000n | ALL], [0x4000, ALL | 1n << 52n]]).cpu;
  assertEquals(walk(pae, 0, 0, ACCESS_READ, false), PF_PRESENT | PF_RESERVED);
});

Deno.test("paging: a 2 MiB page takes bits 20:0 from the linear address and reserves bits 20:13", () => {
  const { cpu } = paged(CR4_PAE, LONG, [[0x1000, 0x2000n | ALL], [0x2000, 0x3000n | ALL], [
    0x3000,
    0x4000_0000n | ALL | PS,
  ]]);
  assertEquals(walk(cpu, 0x12_3456, 0, ACCESS_WRITE, true), -1);
  assertEquals(translation.gpn, 0x40123);
  assertEquals(translation.large, true);
  assertEquals(cpu.dv.getBigUint64(0x3000, true) & (A | D), A | D);
  const bad =
    paged(CR4_PAE, LONG, [[0x1000, 0x2000n | ALL], [0x2000, 0x3000n | ALL], [0x3000, 0x2000n | ALL | PS]]).cpu;
  assertEquals(walk(bad, 0, 0, ACCESS_READ, true), PF_PRESENT | PF_RESERVED | PF_USER);
});

Deno.test("paging: a 1 GiB page takes bits 29:0 from the linear address and reserves bits 29:13", () => {
  const { cpu } = paged(CR4_PAE, LONG, [[0x1000, 0x2000n | ALL], [0x2000, 0x8000_0000n | ALL | PS | G]]);
  assertEquals(walk(cpu, 0x2765_4321, 0, ACCESS_READ, true), -1);
  assertEquals(translation.gpn, 0xa7654);
  assertEquals(translation.global, true);
  const bad = paged(CR4_PAE, LONG, [[0x1000, 0x2000n | ALL], [0x2000, 0x2000_0000n | ALL | PS]]).cpu;
  assertEquals(walk(bad, 0, 0, ACCESS_READ, false), PF_PRESENT | PF_RESERVED);
});

Deno.test("paging: PS in a PML4 entry is reserved", () => {
  const { cpu } = paged(CR4_PAE, LONG, chain(ALL | PS, ALL, ALL, ALL));
  assertEquals(walk(cpu, 0, 0, ACCESS_READ, false), PF_PRESENT | PF_RESERVED);
});

Deno.test("paging: SMEP forbids supervisor fetches from user pages", () => {
  const { cpu } = paged(CR4_PAE | CR4_SMEP, LONG, chain(ALL, ALL, ALL, ALL));
  assertEquals(walk(cpu, 0, 0, ACCESS_EXECUTE, false), PF_PRESENT | PF_FETCH);
  assertEquals(walk(cpu, 0, 0, ACCESS_EXECUTE, true), -1);
  assertEquals(walk(cpu, 0, 0, ACCESS_READ, false), -1);
});

Deno.test("paging: a protection key takes data accesses of user pages away, the supervisor's too, and no fetch", () => {
  const key = 5n;
  const { cpu } = paged(CR4_PAE | CR4_PKE, LONG, chain(ALL, ALL, ALL, ALL | key << 59n));
  const pkru = (disable: bigint) => cpu.sv.setUint32(CpuState.at.pkru, Number(disable << 2n * key), true);
  pkru(1n); // access disable
  assertEquals(walk(cpu, 0, 0, ACCESS_READ, false), PF_PRESENT | PF_KEY);
  assertEquals(walk(cpu, 0, 0, ACCESS_WRITE, true), PF_PRESENT | PF_KEY | PF_WRITE | PF_USER);
  assertEquals(walk(cpu, 0, 0, ACCESS_EXECUTE, true), -1);
  pkru(2n); // write disable
  assertEquals(walk(cpu, 0, 0, ACCESS_READ, true), -1);
  assertEquals(walk(cpu, 0, 0, ACCESS_WRITE, false), PF_PRESENT | PF_KEY | PF_WRITE);
  cpu.sv.setInt32(CpuState.at.cr0, CR0_PG | CR0_PE, true); // without CR0.WP the supervisor writes
  assertEquals(walk(cpu, 0, 0, ACCESS_WRITE, false), -1);
  pkru(1n << 2n); // another key's rights
  assertEquals(walk(cpu, 0, 0, ACCESS_READ, true), -1);
  const supervisor = paged(CR4_PAE | CR4_PKE, LONG, chain(ALL, ALL, ALL, P | W)).cpu;
  supervisor.sv.setUint32(CpuState.at.pkru, 0xffff_ffff, true);
  assertEquals(walk(supervisor, 0, 0, ACCESS_READ, false), -1);
});

Deno.test("paging: PAE has four directory pointers of 32 bytes alignment without rights of their own", () => {
  const { cpu } = paged(CR4_PAE, EFER_NXE, [
    [0x1000 + 3 * 8, 0x3000n | P],
    [0x3000 + 8, 0x4000n | ALL],
    [0x4000 + 2 * 8, 0x7_8000_9000n | ALL | NX],
  ]);
  assertEquals(walk(cpu, 0xc020_2abc | 0, 0, ACCESS_WRITE, true), -1);
  assertEquals(translation.gpn, 0x780009);
  assertEquals(cpu.dv.getBigUint64(0x1018, true), 0x3000n | P, "a directory pointer has no accessed bit");
  assertEquals(walk(cpu, 0xc020_2abc | 0, 0, ACCESS_EXECUTE, true), PF_PRESENT | PF_USER | PF_FETCH);
  assertEquals(walk(cpu, 0, 0, ACCESS_READ, true), PF_USER);
});

Deno.test("paging: reserved bits of present directory pointers are found when they are loaded", () => {
  for (const bit of [1n, 2n, 5n, 8n, 48n, 63n]) {
    const { cpu } = paged(CR4_PAE, 0, [[0x1008, 0x3000n | P | 1n << bit]]);
    assertEquals(directoryPointersValid(cpu, 0x1000), false, `bit ${bit}`);
    cpu.dv.setBigUint64(0x1008, 1n << bit, true);
    assertEquals(directoryPointersValid(cpu, 0x1000), true, "an entry that is not present has no reserved bits");
  }
});

Deno.test("paging: 32-bit tables translate 4 KiB pages, and 4 MiB pages only with CR4.PSE", () => {
  const entries = [[0x1000, 0x3000n | ALL], [0x3000 + 4 * 5, 0x7000n | P | U], [
    0x1004,
    ALL | PS,
  ]] as const;
  const { cpu } = paged(CR4_PSE, 0, entries, 4);
  assertEquals(walk(cpu, 0x5123, 0, ACCESS_READ, true), -1);
  assertEquals(translation.gpn, 7);
  assertEquals(cpu.dv.getUint32(0x3014, true), 0x7000 | Number(P | U | A));
  assertEquals(walk(cpu, 0x5123, 0, ACCESS_WRITE, true), PF_PRESENT | PF_WRITE | PF_USER);
  assertEquals(walk(cpu, 0x0076_5432, 0, ACCESS_WRITE, true), -1);
  assertEquals(translation.gpn, 0x365);
  assertEquals(cpu.dv.getUint32(0x1004, true) & Number(A | D), Number(A | D));
  // Without PSE the entry is a pointer to a page table at 0, which holds nothing.
  const old = paged(0, 0, entries, 4).cpu;
  assertEquals(walk(old, 0x0076_5432, 0, ACCESS_READ, false), 0);
});

Deno.test("paging: bits 20:13 of a 4 MiB page are address bits 39:32 (PSE-36), bit 21 is reserved", () => {
  const { cpu } = paged(
    CR4_PSE,
    0,
    [[0x1000, 0x0040_0000n | 0xa5n << 13n | ALL | PS], [0x1004, 0x20_0000n | ALL | PS]],
    4,
  );
  assertEquals(walk(cpu, 0x1000, 0, ACCESS_READ, true), -1);
  assertEquals(translation.gpn, 0xa5 * 0x10_0000 + 0x401);
  assertEquals(walk(cpu, 0x40_0000, 0, ACCESS_READ, true), PF_PRESENT | PF_RESERVED | PF_USER);
});

Deno.test("paging: 32-bit paging without NX does not tell fetches apart", () => {
  const { cpu } = paged(0, EFER_NXE, [], 4);
  assertEquals(walk(cpu, 0, 0, ACCESS_EXECUTE, true), PF_USER);
});
