import { assertEquals } from "@std/assert";
import type { Cpu } from "../../../lib/cpu/cpu.ts";
import { CpuState } from "../../../lib/cpu/state.ts";
import { DATA, execute, flatCpu } from "./flat_cpu.ts";

const at = CpuState.at;
const NM = 7;
const MF = 16;
const NONE = -1;

const FCW = at.fx >> 1;
const FSW = FCW + 1;
const FTW = at.fx + 4;

const FLD1 = "d9 e8";
const FLDZ = "d9 ee";
const FNINIT = "db e3";
const FWAIT = "9b";
const FLDCW = "d9 2b"; // [ebx]
const FDIVP = "de f9";

function withPointer(): Cpu {
  const cpu = flatCpu();
  cpu.g32[6] = DATA;
  return cpu;
}

function top(cpu: Cpu): number {
  return (cpu.s16[FSW] >> 11) & 7;
}

Deno.test("x87 instructions raise #NM with CR0.EM or CR0.TS; FWAIT needs MP and TS", () => {
  const cpu = withPointer();
  const cr0 = cpu.s64[at.cr0 >> 3];
  cpu.s64[at.cr0 >> 3] = cr0 | 4n;
  assertEquals([execute(cpu, FLD1), execute(cpu, FNINIT), execute(cpu, FWAIT)], [NM, NM, NONE]);
  cpu.s64[at.cr0 >> 3] = cr0 | 8n;
  assertEquals([execute(cpu, FLD1), execute(cpu, FWAIT)], [NM, NM]);
  cpu.s64[at.cr0 >> 3] = (cr0 | 8n) & ~2n;
  assertEquals(execute(cpu, FWAIT), NONE);
});

Deno.test("an unmasked exception is reported by the next waiting instruction", () => {
  const cpu = withPointer();
  cpu.m16[DATA >> 1] = 0x37f & ~4;
  assertEquals(execute(cpu, FLDCW, FLD1, FLDZ, FDIVP), NONE);
  assertEquals(cpu.s16[FSW] & 0x8084, 0x8084);
  // The operands stay, nothing was popped.
  assertEquals(top(cpu), 6);
  assertEquals(execute(cpu, FLD1), MF);
  assertEquals(execute(cpu, FWAIT), MF);
  assertEquals(execute(cpu, "df e0"), NONE); // FNSTSW AX does not wait
  assertEquals(execute(cpu, "db e2", FLD1), NONE); // FNCLEX
});

Deno.test("stack overflow and underflow are invalid operations with SF, told apart by C1", () => {
  const cpu = withPointer();
  assertEquals(execute(cpu, "d8 c1"), NONE); // FADD of empty registers
  assertEquals(cpu.s16[FSW] & 0x241, 0x41);
  assertEquals(execute(cpu, FNINIT, ...Array(9).fill(FLD1)), NONE);
  assertEquals(cpu.s16[FSW] & 0x241, 0x241);
  assertEquals(cpu.s16[(at.fx + 40) >> 1], 0xffff); // the default NaN
});

Deno.test("pushes and pops turn the image: ST(0) is always its first register", () => {
  const cpu = withPointer();
  cpu.m32[DATA >> 2] = 7;
  assertEquals(execute(cpu, FLDZ, FLD1, "db 03"), NONE); // FILD 7
  const exponents = [0, 1, 2].map((n) => cpu.s16[(at.fx + 32 + 16 * n + 8) >> 1]);
  assertEquals(exponents, [0x4001, 0x3fff, 0]);
  assertEquals([top(cpu), cpu.s8[FTW]], [5, 0xe0]);
  assertEquals(execute(cpu, "dd d8"), NONE); // FSTP ST(0)
  assertEquals(cpu.s16[(at.fx + 40) >> 1], 0x3fff);
  assertEquals([top(cpu), cpu.s8[FTW]], [6, 0xc0]);
  assertEquals(execute(cpu, FNINIT), NONE);
  assertEquals([top(cpu), cpu.s8[FTW], cpu.s16[FCW]], [0, 0, 0x37f]);
});

Deno.test("FNSTENV writes the full tag word and masks all exceptions; FLDENV brings everything back", () => {
  const cpu = withPointer();
  cpu.m16[DATA >> 1] = 0x340;
  assertEquals(execute(cpu, FLD1, FLDZ, FLDCW, "d9 73 10"), NONE);
  // Physical 7 holds one (valid, 00), 6 zero (01), the rest is empty.
  assertEquals(cpu.m16[(DATA + 0x18) >> 1], 0b00_01_11_11_11_11_11_11);
  assertEquals(cpu.m16[(DATA + 0x14) >> 1] >> 11 & 7, 6);
  assertEquals(cpu.s16[FCW], 0x37f);
  assertEquals(execute(cpu, FNINIT, "d9 63 10"), NONE);
  assertEquals([cpu.s16[FCW], top(cpu), cpu.s8[FTW]], [0x340, 6, 0xc0]);
});

Deno.test("FNSAVE stores 108 bytes and initialises, FRSTOR restores; 94 bytes with 16-bit operands", () => {
  for (const prefix of ["", "66 "]) {
    const cpu = withPointer();
    cpu.m32[DATA >> 2] = -5;
    assertEquals(execute(cpu, FLD1, "db 03", `${prefix}dd 73 10`), NONE);
    assertEquals([top(cpu), cpu.s8[FTW]], [0, 0]);
    assertEquals(execute(cpu, `${prefix}dd 63 10`, "db 5b 04"), NONE); // FISTP
    assertEquals(cpu.m32[(DATA + 4) >> 2], -5);
    assertEquals(cpu.s16[(at.fx + 40) >> 1], 0x3fff);
  }
});

Deno.test("a store that faults changes nothing", () => {
  const cpu = withPointer();
  cpu.m32[DATA >> 2] = 3;
  assertEquals(execute(cpu, FLD1, "db 03", FDIVP), NONE); // 1/3, inexact: C1 and PE
  const before = [cpu.s16[FSW], cpu.s8[FTW]];
  cpu.setSegment(3, 0x10, 0x4093, DATA, 0); // DS ends at DATA
  cpu.updateMode();
  assertEquals(execute(cpu, "d9 1b"), 13); // FSTP m32: #GP
  assertEquals([cpu.s16[FSW], cpu.s8[FTW]], before);
});

Deno.test("comparisons: FCOM to C3, C2 and C0, FCOMI to ZF, PF and CF", () => {
  const cpu = withPointer();
  assertEquals(execute(cpu, FLDZ, FLD1, "d8 d1"), NONE);
  assertEquals(cpu.s16[FSW] & 0x4500, 0);
  assertEquals(execute(cpu, "db f1"), NONE);
  assertEquals(cpu.flags() & 0x45, 0);
  assertEquals(execute(cpu, "d9 c9", "d8 d1"), NONE);
  assertEquals(cpu.s16[FSW] & 0x4500, 0x100);
  assertEquals(execute(cpu, "db f1"), NONE);
  assertEquals(cpu.flags() & 0x45, 1);
});

Deno.test("packed decimals survive FBLD and FBSTP", () => {
  const cpu = withPointer();
  const digits = [0x21, 0x43, 0x65, 0x87, 0x09, 0x21, 0x43, 0x65, 0x87, 0x80];
  cpu.m8.set(digits, DATA);
  assertEquals(execute(cpu, "df 23", "df 73 10"), NONE);
  assertEquals([...cpu.m8.slice(DATA + 16, DATA + 26)], digits);
});

Deno.test("FPTAN pushes 1; FSIN of 2^63 sets C2 and leaves its operand", () => {
  const cpu = withPointer();
  assertEquals(execute(cpu, FLD1, "d9 f2"), NONE);
  assertEquals([top(cpu), cpu.s16[(at.fx + 40) >> 1], cpu.s16[FSW] & 0x400], [6, 0x3fff, 0]);
  cpu.s16[(at.fx + 40) >> 1] = 0x3fff + 63;
  assertEquals(execute(cpu, "d9 fe"), NONE);
  assertEquals([cpu.s16[(at.fx + 40) >> 1], cpu.s16[FSW] & 0x400], [0x3fff + 63, 0x400]);
});

Deno.test("a denormal number is loaded although its exception is not masked; a signalling NaN is not", () => {
  const cpu = withPointer();
  cpu.m16[DATA >> 1] = 0x37f & ~2;
  cpu.m32[(DATA + 4) >> 2] = 0x0040_0000; // 2^-127
  assertEquals(execute(cpu, FLDCW, "d9 43 04"), NONE); // FLD dword [ebx+4]
  assertEquals(cpu.s16[FSW], 0x8082 | 7 << 11); // DE, ES and B, TOP 7
  assertEquals(cpu.s16[(at.fx + 40) >> 1], 0x3fff - 127);
  assertEquals(cpu.s64[(at.fx + 32) >> 3], 0x8000_0000_0000_0000n);
  cpu.m16[DATA >> 1] = 0x37f & ~1;
  cpu.m32[(DATA + 4) >> 2] = 0x7f80_0001;
  assertEquals(execute(cpu, FNINIT, FLDCW, "d9 43 04"), NONE);
  assertEquals([cpu.s16[FSW], cpu.s8[FTW]], [0x8081, 0]);
});
