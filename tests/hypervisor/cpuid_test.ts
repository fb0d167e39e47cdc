import { assert, assertEquals } from "@std/assert";
import { type CpuidAsker, MachineCpuid, RecordedCpuid } from "../../lib/hypervisor/cpuid.ts";

const ASKER: CpuidAsker = { apicId: 3, apicEnabled: true };

function ask(leaf: number, subleaf = 0, vps = 6, asker = ASKER): { answered: boolean; regs: number[] } {
  const result = new Uint32Array(4);
  const answered = new MachineCpuid(vps).lookup(leaf, subleaf, asker, result);
  return { answered, regs: [...result] };
}

/** The bytes of registers as text. */
function text(...registers: number[]): string {
  return new TextDecoder().decode(new Uint32Array(registers));
}

Deno.test("CPUID: the hypervisor answers 0-16, 40000000-4000000c, 80000000-80000008, 8000001d, 8000001e and no other leaf", () => {
  const answered: [number, number][] = [[0, 0x16], [0x4000_0000, 0x4000_000c], [0x8000_0000, 0x8000_0008], [
    0x8000_001d,
    0x8000_001e,
  ]];
  for (const [first, last] of answered) {
    assertEquals(ask(first).answered, true);
    assertEquals(ask(last).answered, true);
    assertEquals(ask(last + 1).answered, false);
    assertEquals(ask(last + 1).regs, [0, 0, 0, 0]);
  }
  for (const leaf of [0x4000_0080, 0x4000_0081, 0x4000_0082, 0x8000_001c, 0xc000_0000, 0xffff_ffff]) {
    assertEquals(ask(leaf), { answered: false, regs: [0, 0, 0, 0] });
  }
});

Deno.test("CPUID: vendor and hypervisor signatures", () => {
  const [, b, c, d] = ask(0).regs;
  assertEquals(text(b, d, c), "AuthenticAMD");
  const hv = ask(0x4000_0000).regs;
  assertEquals(hv[0], 0x4000_000c);
  assertEquals(text(...hv.slice(1)), "Microsoft Hv");
  assertEquals(text(ask(0x4000_0001).regs[0]), "Hv#1");
  assertEquals(ask(0x8000_0000).regs[0], 0x8000_001e);
  assert(text(...[2, 3, 4].flatMap((k) => ask(0x8000_0000 + k).regs)).startsWith("exitbox"));
});

Deno.test("CPUID: leaf 1 carries the APIC ID, the hypervisor bit, x2APIC, and APIC as APIC_BASE.EN has it", () => {
  const { regs } = ask(1);
  assertEquals(regs[1] >>> 24, 3);
  assertEquals(regs[1] >>> 16 & 0xff, 6);
  assertEquals(regs[2] >>> 31, 1);
  assertEquals(regs[2] >>> 21 & 1, 1);
  assertEquals(regs[3] >>> 9 & 1, 1);
  assertEquals(ask(1, 0, 6, { ...ASKER, apicEnabled: false }).regs[3] >>> 9 & 1, 0);
});

Deno.test("CPUID: TSC-deadline, XSAVE, MMX, AVX, SMAP and PCID are not named, because they are not modelled", () => {
  const { regs } = ask(1);
  assertEquals(regs[2] >>> 24 & 1, 0);
  assertEquals(regs[2] >>> 26 & 3, 0);
  assertEquals(regs[2] >>> 28 & 1, 0);
  assertEquals(regs[2] >>> 17 & 1, 0);
  assertEquals(regs[3] >>> 23 & 1, 0);
  assertEquals(ask(7).regs[1] >>> 20 & 1, 0);
});

Deno.test("CPUID: leaf b gives the x2APIC ID and a core level that spans all processors", () => {
  assertEquals(ask(0xb, 0).regs, [0, 1, 0x100, 3]);
  assertEquals(ask(0xb, 1).regs, [3, 6, 0x201, 3]);
  assertEquals(ask(0xb, 2).regs, [0, 0, 2, 3]);
  assertEquals(ask(0xb, 1, 1).regs, [0, 1, 0x201, 3]);
});

Deno.test("CPUID: 40000003 grants hypercalls, SynIC, timers, VP index and registers, but neither reset nor guest idle", () => {
  const [eax, ebx] = ask(0x4000_0003).regs;
  for (const bit of [1, 2, 3, 4, 5, 6, 9, 11]) assertEquals(eax >>> bit & 1, 1, `bit ${bit}`);
  for (const bit of [7, 10]) assertEquals(eax >>> bit & 1, 0, `bit ${bit}`);
  for (const bit of [48, 49, 53]) assertEquals(ebx >>> (bit - 32) & 1, 1, `bit ${bit}`);
});

Deno.test("CPUID of a recorded program: its header's leaves, any other leaf zero, subleaves ignored", () => {
  const table = new RecordedCpuid([[0, 7, 1, 2, 3], [0x8000_0001, 0xa10f11, 0, 1, 0x2193_fbff]]);
  const result = new Uint32Array(4);
  assertEquals(table.lookup(0x8000_0001, 9, ASKER, result), true);
  assertEquals([...result], [0xa10f11, 0, 1, 0x2193_fbff]);
  assertEquals(table.lookup(0x4000_0080, 0, ASKER, result), true);
  assertEquals([...result], [0, 0, 0, 0]);
});
