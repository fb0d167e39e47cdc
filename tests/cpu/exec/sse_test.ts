import { assertEquals } from "@std/assert";
import { CpuState } from "../../../lib/cpu/state.ts";
import { DATA, execute, flatCpu, mxcsr, setMxcsr, setXmm, xmm } from "./flat_cpu.ts";

const at = CpuState.at;
const UD = 6;
const NM = 7;
const GP = 13;
const XM = 19;
const NONE = -1;
const CR0_EM = 4n;
const CR0_TS = 8n;
const CR4_OSFXSR = 0x200n;
const CR4_OSXMMEXCPT = 0x400n;

const ADDPS = "0f 58 c1";
const MOVAPS_MEMORY = "0f 28 03"; // [ebx]
const MOVUPS_MEMORY = "0f 10 03";
const DIVSS = "f3 0f 5e c1";
const DIVPS = "0f 5e c1";

Deno.test("SSE instructions raise #UD with CR0.EM or without CR4.OSFXSR, and #NM with CR0.TS", () => {
  const cpu = flatCpu();
  assertEquals(execute(cpu, ADDPS), NONE);
  cpu.s64[at.cr0 >> 3] |= CR0_TS;
  assertEquals(execute(cpu, ADDPS), NM);
  cpu.s64[at.cr0 >> 3] |= CR0_EM;
  assertEquals(execute(cpu, ADDPS), UD);
  cpu.s64[at.cr0 >> 3] &= ~(CR0_EM | CR0_TS);
  cpu.s64[at.cr4 >> 3] &= ~CR4_OSFXSR;
  assertEquals(execute(cpu, ADDPS), UD);
});

Deno.test("MOVNTI and the fences do not depend on SSE being enabled", () => {
  const cpu = flatCpu();
  cpu.s64[at.cr4 >> 3] &= ~CR4_OSFXSR;
  cpu.g32[6] = DATA;
  cpu.g32[0] = 0x12345678;
  assertEquals(execute(cpu, "0f c3 03", "0f ae f0", "0f ae e8", "0f ae f8"), NONE);
  assertEquals(cpu.m32[DATA >> 2], 0x12345678);
});

Deno.test("a 128-bit memory operand must be aligned, except for the unaligned moves", () => {
  const cpu = flatCpu();
  cpu.g32[6] = DATA + 4;
  cpu.m8.set([1, 2, 3, 4], DATA + 4);
  assertEquals(execute(cpu, MOVAPS_MEMORY), GP);
  assertEquals(execute(cpu, "0f 58 03"), GP);
  assertEquals(execute(cpu, MOVUPS_MEMORY), NONE);
  assertEquals(xmm(cpu, 0).slice(0, 8), "01020304");
  cpu.g32[6] = DATA;
  assertEquals(execute(cpu, MOVAPS_MEMORY), NONE);
});

Deno.test("an unmasked exception raises #XM, sets its flag and leaves the destination; #UD without CR4.OSXMMEXCPT", () => {
  const cpu = flatCpu();
  const one = "0000803f000000000000000000000000";
  setXmm(cpu, 0, one);
  setXmm(cpu, 1, "00000000000000000000000000000000");
  setMxcsr(cpu, 0x1f80 & ~0x200); // division by zero is not masked
  assertEquals(execute(cpu, DIVSS), XM);
  assertEquals(mxcsr(cpu), (0x1f80 & ~0x200) | 4);
  assertEquals(xmm(cpu, 0), one);
  cpu.s64[at.cr4 >> 3] &= ~CR4_OSXMMEXCPT;
  assertEquals(execute(cpu, DIVSS), UD);
});

Deno.test("packed operations collect the exceptions of all lanes", () => {
  const cpu = flatCpu();
  // 1/0, 0/0, 1/3, 1/denormal
  setXmm(cpu, 0, "0000803f000000000000803f0000803f");
  setXmm(cpu, 1, "00000000000000000000404001000000");
  assertEquals(execute(cpu, DIVPS), NONE);
  // IE, DE, ZE, OE and PE: one divided by the smallest denormal overflows.
  assertEquals(mxcsr(cpu), 0x1f80 | 0x2f);
  assertEquals(xmm(cpu, 0), "0000807f0000c0ffabaaaa3e0000807f");
});

Deno.test("an unmasked exception found before the computation keeps the later ones of other lanes unreported", () => {
  const cpu = flatCpu();
  setXmm(cpu, 0, "0000803f0000803f0000803f0000803f");
  setXmm(cpu, 1, "00000000000040400000404000004040");
  setMxcsr(cpu, 0x1f80 & ~0x200);
  assertEquals(execute(cpu, DIVPS), XM);
  assertEquals(mxcsr(cpu) & 0x3f, 4);
});

Deno.test("arithmetic gives the same results when the inexact flag is already set", () => {
  const operands = ["000000000000f03f", "9a9999999999b93f", "ffffffffffffef7f", "0100000000000000", "000000000000f07f"];
  operands.push("000000000000f8ff", "0000000000000080", "0000000000001000");
  for (const opcode of ["58", "59", "5c", "5e", "51", "5d", "5f"]) {
    for (const a of operands) {
      for (const b of operands) {
        const results = [0x1f80, 0x1fa0].map((start) => {
          const cpu = flatCpu();
          setMxcsr(cpu, start);
          setXmm(cpu, 0, a + a);
          setXmm(cpu, 1, b + a);
          assertEquals(execute(cpu, `66 0f ${opcode} c1`, `f2 0f ${opcode} c8`), NONE);
          return [xmm(cpu, 0), xmm(cpu, 1), mxcsr(cpu) | 0x20];
        });
        assertEquals(results[0], results[1], `${opcode} ${a} ${b}`);
      }
    }
  }
});

Deno.test("LDMXCSR of a reserved bit raises #GP and changes nothing", () => {
  const cpu = flatCpu();
  cpu.g32[6] = DATA;
  cpu.m32[DATA >> 2] = 0x1_1f80;
  assertEquals(execute(cpu, "0f ae 13"), GP);
  assertEquals(mxcsr(cpu), 0x1f80);
  cpu.m32[DATA >> 2] = 0x7fbf;
  assertEquals(execute(cpu, "0f ae 13", "0f ae 5b 04"), NONE);
  assertEquals(cpu.m32[(DATA >> 2) + 1], 0x7fbf);
});

Deno.test("MASKMOVDQU stores the selected bytes at DS:EDI, or through an override", () => {
  const cpu = flatCpu();
  cpu.g32[14] = DATA;
  setXmm(cpu, 0, "000102030405060708090a0b0c0d0e0f");
  setXmm(cpu, 1, "80000080000000000000000000000080");
  assertEquals(execute(cpu, "66 0f f7 c1"), NONE);
  assertEquals([...cpu.m8.slice(DATA, DATA + 16)], [0, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 15]);
});

Deno.test("CRC32 is CRC-32C: the check value of 123456789 is e3069283", () => {
  const cpu = flatCpu();
  cpu.g32[0] = -1;
  for (const digit of "123456789") {
    cpu.g32[2] = digit.charCodeAt(0);
    assertEquals(execute(cpu, "f2 0f 38 f0 c1"), NONE);
  }
  assertEquals(~cpu.g32[0] >>> 0, 0xe3069283);
  // Four bytes at once give the same as one after the other.
  cpu.g32[0] = -1;
  cpu.g32[2] = 0x34333231;
  assertEquals(execute(cpu, "f2 0f 38 f1 c1"), NONE);
  const atOnce = cpu.g32[0];
  cpu.g32[0] = -1;
  for (const word of [0x3231, 0x3433]) {
    cpu.g32[2] = word;
    assertEquals(execute(cpu, "66 f2 0f 38 f1 c1"), NONE);
  }
  assertEquals(cpu.g32[0], atOnce);
});

Deno.test("FXSAVE outside 64-bit code saves XMM0 to XMM7 and needs 16-byte alignment", () => {
  const cpu = flatCpu();
  cpu.m8.fill(0xa5, DATA, DATA + 512);
  setXmm(cpu, 7, "000102030405060708090a0b0c0d0e0f");
  cpu.g32[6] = DATA + 8;
  assertEquals(execute(cpu, "0f ae 03"), GP);
  cpu.g32[6] = DATA;
  assertEquals(execute(cpu, "0f ae 03"), NONE);
  assertEquals(cpu.m8[DATA + 160 + 7 * 16 + 15], 15);
  assertEquals(cpu.m8[DATA + 160 + 8 * 16], 0xa5);
  setXmm(cpu, 7, "ffffffffffffffffffffffffffffffff");
  assertEquals(execute(cpu, "0f ae 0b"), NONE);
  assertEquals(xmm(cpu, 7), "000102030405060708090a0b0c0d0e0f");
  cpu.m32[(DATA + 24) >> 2] = 0x1_0000;
  assertEquals(execute(cpu, "0f ae 0b"), GP);
});
