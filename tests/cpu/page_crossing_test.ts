import { assertEquals } from "@std/assert";
import { CpuState, EXIT_EXCEPTION } from "../../lib/cpu/state.ts";
import { newProcessor, place } from "./processor.ts";

const at = CpuState.at;
const PAGE_FAULT = 14;
/** The first byte that no page holds: the second of the two 2 MiB pages is taken away. */
const ABSENT = 0x20_0000;
const PAGE_DIRECTORY_ENTRY_1 = (0x3000 >> 3) + 1;
const RCX = 1;
const RBX = 3;
const RSI = 6;
const RDI = 7;

/** Instructions with the memory operand [rbx]: bytes of the operand, code. */
const ACCESSES: readonly (readonly [size: number, name: string, code: readonly number[]])[] = [
  [2, "mov [rbx], ax", [0x66, 0x89, 0x03]],
  [4, "mov [rbx], eax", [0x89, 0x03]],
  [8, "mov [rbx], rax", [0x48, 0x89, 0x03]],
  [8, "movq [rbx], xmm0", [0x66, 0x0f, 0xd6, 0x03]],
  [16, "movups [rbx], xmm0", [0x0f, 0x11, 0x03]],
  [16, "movdqu [rbx], xmm0", [0xf3, 0x0f, 0x7f, 0x03]],
  [10, "fstp tword [rbx]", [0xdb, 0x3b]],
  [8, "fst qword [rbx]", [0xdd, 0x13]],
  [4, "add [rbx], eax", [0x01, 0x03]],
  [8, "xchg [rbx], rax", [0x48, 0x87, 0x03]],
  [8, "mov rax, [rbx]", [0x48, 0x8b, 0x03]],
  [16, "movups xmm0, [rbx]", [0x0f, 0x10, 0x03]],
  [10, "fld tword [rbx]", [0xdb, 0x2b]],
  [10, "fbld [rbx]", [0xdf, 0x23]],
  [10, "fbstp [rbx]", [0xdf, 0x33]],
];

Deno.test("an access into a missing page faults with the address of the first byte that is missing", () => {
  const { cpu } = newProcessor("long");
  cpu.memory.u64[PAGE_DIRECTORY_ENTRY_1] = 0n;
  const start = cpu.s8.slice();
  for (const [size, name, code] of ACCESSES) {
    for (let inside = 1; inside < size; inside++) {
      cpu.s8.set(start);
      cpu.flushCaches();
      cpu.s8[at.fx + 4] = 0x80; // ST(0) is in use
      cpu.s16[(at.fx + 2) >> 1] = 7 << 11;
      cpu.g64[RBX] = BigInt(ABSENT - inside);
      place(cpu, "long", [...code]);
      cpu.m8.fill(0x5a, ABSENT - 16, ABSENT + 16);
      const before = cpu.m8.slice(ABSENT - 16, ABSENT + 16);
      assertEquals(cpu.run(1), EXIT_EXCEPTION, name);
      assertEquals(cpu.s32[at.exit_vector >> 2], PAGE_FAULT, name);
      assertEquals(cpu.s64[at.exit_gva >> 3], BigInt(ABSENT), `${name}, ${inside} bytes inside`);
      assertEquals(cpu.m8.slice(ABSENT - 16, ABSENT + 16), before, `${name} writes nothing`);
    }
  }
});

/** Runs one instruction with the given RSI, RDI and RBX; the address of its page fault. */
function faultAt(code: readonly number[], rsi: number, rdi: number, rbx: number): number {
  const { cpu } = newProcessor("long");
  cpu.memory.u64[PAGE_DIRECTORY_ENTRY_1] = 0n;
  cpu.g64[RSI] = BigInt(rsi);
  cpu.g64[RDI] = BigInt(rdi);
  cpu.g64[RBX] = BigInt(rbx);
  cpu.g64[RCX] = 3n;
  place(cpu, "long", [...code]);
  assertEquals(cpu.run(1), EXIT_EXCEPTION);
  assertEquals(cpu.s32[at.exit_vector >> 2], PAGE_FAULT);
  return Number(cpu.s64[at.exit_gva >> 3]);
}

Deno.test("strings with two missing pages report the one that a real processor does", () => {
  const [source, destination] = [ABSENT + 0x1000, ABSENT + 0x2000];
  const cases: [name: string, code: number[], expected: number][] = [
    ["cmpsb", [0xa6], destination],
    ["cmpsq", [0x48, 0xa7], destination],
    ["repe cmpsw", [0x66, 0xf3, 0xa7], destination],
    ["repe cmpsq", [0xf3, 0x48, 0xa7], destination],
    ["repe cmpsb", [0xf3, 0xa6], source],
    ["movsb", [0xa4], source],
    ["rep movsb", [0xf3, 0xa4], source],
  ];
  for (const [name, code, expected] of cases) assertEquals(faultAt(code, source, destination, 0), expected, name);
});

Deno.test("an FXSAVE image faults at its last byte first, an FNSAVE image at its first word", () => {
  const FXSAVE = [0x0f, 0xae, 0x03], FXRSTOR = [0x0f, 0xae, 0x0b], FNSAVE = [0xdd, 0x33], FRSTOR = [0xdd, 0x23];
  const FNSTENV = [0xd9, 0x33], FLDENV = [0xd9, 0x23];
  for (const code of [FXSAVE, FXRSTOR]) {
    assertEquals(faultAt(code, 0, 0, ABSENT - 16), ABSENT + 495);
    assertEquals(faultAt(code, 0, 0, ABSENT + 0xff0), ABSENT + 0xff0 + 511);
  }
  for (const code of [FNSAVE, FRSTOR]) {
    assertEquals(faultAt(code, 0, 0, ABSENT - 17), ABSENT + 90);
    assertEquals(faultAt(code, 0, 0, ABSENT - 1), ABSENT);
    assertEquals(faultAt(code, 0, 0, ABSENT + 0xff1), ABSENT + 0xff1);
  }
  for (const code of [FNSTENV, FLDENV]) {
    assertEquals(faultAt(code, 0, 0, ABSENT - 17), ABSENT + 10);
    assertEquals(faultAt(code, 0, 0, ABSENT - 3), ABSENT);
  }
});
