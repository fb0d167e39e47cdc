import { assertEquals } from "@std/assert";
import { EXIT_EXCEPTION, EXIT_HLT, EXIT_NONE } from "../../lib/cpu/state.ts";
import { CODE_AT, newMemory, newProcessor, place } from "./processor.ts";

Deno.test("A store into the next instruction of the same block takes effect at once", () => {
  const { cpu } = newProcessor("long");
  // mov byte [rip + 1], 2a; mov al, 0; hlt: the store replaces the immediate of the MOV that follows it
  place(cpu, "long", [0xc6, 0x05, 0x01, 0, 0, 0, 0x2a, 0xb0, 0x00, 0xf4]);
  assertEquals(cpu.run(100), EXIT_HLT);
  assertEquals(cpu.g8[0], 0x2a);
});

Deno.test("A repeated string store over the code behind it takes effect at once", () => {
  const { cpu } = newProcessor("long");
  // lea rdi, [rip + 2]; rep stosb; then three bytes that become inc ecx... : al = 40 would be REX, so 90 (nop) is stored
  place(cpu, "long", [0x48, 0x8d, 0x3d, 0x02, 0, 0, 0, 0xf3, 0xaa, 0xcc, 0xcc, 0xcc, 0xf4]);
  cpu.g64[0] = 0x90n;
  cpu.g64[1] = 3n;
  assertEquals(cpu.run(100), EXIT_HLT);
});

Deno.test("A loop that rewrites its own body executes what it wrote in each turn", () => {
  const { cpu } = newProcessor("long");
  // L: add eax, imm8 (imm at L+2); inc byte [L + 2]; dec ecx; jnz L; hlt
  const code = [0x83, 0xc0, 0x01, 0xfe, 0x05, 0xf9, 0xff, 0xff, 0xff, 0xff, 0xc9, 0x75, 0xf3, 0xf4];
  place(cpu, "long", code);
  cpu.g64[1] = 10n;
  assertEquals(cpu.run(1000), EXIT_HLT);
  assertEquals(cpu.g32[0], 55);
});

Deno.test("Code that another processor writes is executed without a message", () => {
  const memory = newMemory(2);
  const { cpu: reader } = newProcessor("long", memory, 0);
  const { cpu: writer } = newProcessor("long", memory, 1);
  // The reader counts in a loop: inc ecx; jmp back. The writer turns the jump into HLT.
  place(reader, "long", [0xff, 0xc1, 0xeb, 0xfc]);
  assertEquals(reader.run(1000), EXIT_NONE);
  assertEquals(reader.g32[2], 500);
  const target = CODE_AT.long + 2;
  memory.u8.set([0xc6, 0x04, 0x25, target & 0xff, (target >> 8) & 0xff, target >> 16, 0, 0xf4, 0xf4], 0x20_0000);
  writer.jump(0x20_0000, 0);
  assertEquals(writer.run(10), EXIT_HLT);
  assertEquals(reader.run(1000), EXIT_HLT);
  assertEquals(reader.g32[2], 501);
});

Deno.test("An instruction that crosses into a rewritten page is decoded from both pages", () => {
  const { cpu } = newProcessor("long");
  const start = 0x20_0ffe;
  // mov eax, imm32 with two bytes of it on the next page; hlt
  cpu.m8.set([0xb8, 0x11, 0x22, 0x33, 0x44, 0xf4], start);
  for (const [byte, expected] of [[0x33, 0x44332211], [0x55, 0x44552211]]) {
    cpu.m8[start + 3] = byte;
    cpu.jump(start, 0);
    assertEquals(cpu.run(10), EXIT_HLT);
    assertEquals(cpu.g32[0], expected);
  }
});

Deno.test("A block found by its linear address is not executed after the page was unmapped and flushed", () => {
  const { cpu } = newProcessor("long");
  cpu.m8.set([0x90, 0xf4], 0x20_0000);
  cpu.jump(0x20_0000, 0);
  assertEquals(cpu.run(10), EXIT_HLT);
  cpu.m64[(0x3000 >> 3) + 1] = 0n;
  cpu.flushTlb();
  cpu.jump(0x20_0000, 0);
  assertEquals(cpu.run(10), EXIT_EXCEPTION);
});
