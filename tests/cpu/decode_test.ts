import { assertEquals } from "@std/assert";
import { Decoder } from "../../lib/cpu/decode.ts";
import { OPCODES } from "../../lib/cpu/opcode_map.ts";
import { CpuState, EXIT_EXCEPTION, EXIT_HLT } from "../../lib/cpu/state.ts";
import { newProcessor, place } from "./processor.ts";

const at = CpuState.at;

/** Mnemonic and length of the instruction in `bytes`. */
function decode(codeSize: number, ...bytes: number[]): [string, number] | null {
  const insn = new Decoder(OPCODES).decode(Uint8Array.from(bytes), 0, bytes.length, codeSize);
  return insn && [insn.mnemonic, insn.length];
}

Deno.test("Lengths of instructions are those of the architecture", () => {
  assertEquals(decode(64, 0x48, 0xb8, 1, 2, 3, 4, 5, 6, 7, 8), ["mov", 10]); // mov rax, imm64
  assertEquals(decode(32, 0xb8, 1, 2, 3, 4), ["mov", 5]);
  assertEquals(decode(32, 0x66, 0xb8, 1, 2), ["mov", 4]);
  assertEquals(decode(16, 0x66, 0xb8, 1, 2, 3, 4), ["mov", 6]);
  assertEquals(decode(64, 0xa1, 1, 2, 3, 4, 5, 6, 7, 8), ["mov", 9]); // mov eax, [moffs64]
  assertEquals(decode(64, 0x67, 0xa1, 1, 2, 3, 4), ["mov", 6]);
  assertEquals(decode(64, 0x81, 0x84, 0x5e, 1, 2, 3, 4, 5, 6, 7, 8), ["add", 11]); // add [rsi+rbx*2+disp32], imm32
  assertEquals(decode(16, 0x81, 0x06, 1, 2, 3, 4), ["add", 6]); // add word [disp16], imm16
  assertEquals(decode(64, 0xc8, 1, 2, 3), ["enter", 4]);
  assertEquals(decode(64, 0xf6, 0x00, 0x12), ["test", 3]);
  assertEquals(decode(64, 0xf7, 0x18), ["neg", 2]);
  assertEquals(decode(32, 0x9a, 1, 2, 3, 4, 5, 6), ["callf", 7]);
});

Deno.test("An instruction that needs more bytes than there are is not decoded", () => {
  const whole = [0x48, 0x81, 0x84, 0x5e, 1, 2, 3, 4, 5, 6, 7, 8];
  for (let n = 1; n < whole.length; n++) assertEquals(decode(64, ...whole.slice(0, n)), null);
  assertEquals(decode(64, ...whole), ["add", 12]);
  assertEquals(decode(64, 0xc4), null);
  assertEquals(decode(64, 0x0f), null);
});

Deno.test("An undefined opcode is known without the bytes that would follow it", () => {
  assertEquals(decode(64, 0x06)?.[1], 1); // PUSH ES does not exist in 64-bit code
  assertEquals(decode(64, 0x0f, 0x04)?.[1], 2);
});

Deno.test("The sixteenth byte is never read: a longer instruction raises #GP(0)", () => {
  const { cpu } = newProcessor("long");
  place(cpu, "long", [...new Array(14).fill(0x66), 0x90, 0xf4]);
  assertEquals(cpu.run(10), EXIT_HLT);
  const { cpu: other } = newProcessor("long");
  place(other, "long", [...new Array(15).fill(0x66), 0x90, 0xf4]);
  assertEquals(other.run(10), EXIT_EXCEPTION);
  assertEquals(other.s32[at.exit_vector >> 2], 13);
  assertEquals(other.s32[at.exit_error >> 2], 0);
});

Deno.test("A page that is not there faults only when a byte of it is needed, and CR2 is that byte's address", () => {
  const { cpu } = newProcessor("long");
  const end = 0x40_0000; // the first address that is not mapped
  cpu.m8.set([0x90, 0xf4], end - 2);
  cpu.jump(end - 2, 0);
  assertEquals(cpu.run(10), EXIT_HLT);
  cpu.m8.set([0x48, 0xb8, 0, 0], end - 4);
  cpu.jump(end - 4, 0);
  assertEquals(cpu.run(10), EXIT_EXCEPTION);
  assertEquals(cpu.s32[at.exit_vector >> 2], 14);
  assertEquals(cpu.s32[at.exit_gva >> 2], end);
  assertEquals(cpu.s32[at.rip >> 2], end - 4);
});

Deno.test("Code ends at the segment's limit: the byte beyond raises #GP(0)", () => {
  const { cpu } = newProcessor("protected");
  place(cpu, "protected", [0x90, 0xb8, 1, 2, 3, 4]);
  cpu.setSegment(1, 8, 0xc09b, 0x10_0003, 0);
  cpu.updateMode();
  assertEquals(cpu.run(10), EXIT_EXCEPTION);
  assertEquals(cpu.s32[at.exit_vector >> 2], 13);
  assertEquals(cpu.s32[at.rip >> 2], 0x10_0001);
});

Deno.test("An instruction that real processors have and this one lacks is #UD and is reported with its bytes", () => {
  const { cpu } = newProcessor("long");
  place(cpu, "long", [0xc5, 0xf0, 0x58, 0xc2]); // vaddps xmm0, xmm1, xmm2
  assertEquals(cpu.run(10), EXIT_EXCEPTION);
  assertEquals(cpu.s32[at.exit_vector >> 2], 6);
  const [reported] = [...cpu.unimplemented.keys()];
  assertEquals(reported.startsWith("avx (c5 f0 58 c2"), true);
});

Deno.test("0F 38 F0 and F1 are MOVBE, with F2 CRC32, with F3 nothing", () => {
  for (const opcode of [0xf0, 0xf1]) {
    assertEquals(decode(64, 0x0f, 0x38, opcode, 0x03), ["movbe", 4]);
    assertEquals(decode(64, 0x66, 0x0f, 0x38, opcode, 0x03), ["movbe", 5]);
    assertEquals(decode(64, 0xf2, 0x0f, 0x38, opcode, 0x03), ["crc32", 5]);
    assertEquals(decode(64, 0x66, 0xf2, 0x0f, 0x38, opcode, 0x03), ["crc32", 6]);
    assertEquals(decode(64, 0x66, 0xf3, 0x0f, 0x38, opcode, 0x03), ["ud", 6]);
  }
});
