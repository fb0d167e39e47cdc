import { assertEquals, assertThrows } from "@std/assert";
import { assemble, type AssembleOptions, SOURCE_LENGTH_MAX } from "../../../lib/guest/assembler/assemble.ts";
import type { Bits } from "../../../lib/guest/assembler/encode.ts";
import { BadInput } from "../../../lib/memory/bad_input.ts";
import programs from "./gnu_as_programs.json" with { type: "json" };

function hex(bytes: Uint8Array): string {
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

function code(source: string, options: AssembleOptions = {}): string {
  return hex(assemble(source, options).bytes);
}

function complaint(source: string, options: AssembleOptions = {}): string {
  return assertThrows(() => assemble(source, options), BadInput).message;
}

Deno.test("assembler: every instruction of the table has the bytes that GNU as gives it", () => {
  const table = Deno.readTextFileSync(new URL("gnu_as.tsv", import.meta.url));
  const differences: string[] = [];
  let count = 0;
  for (const line of table.split("\n")) {
    if (line === "" || line.startsWith("#")) continue;
    const [bits, text, expected] = line.split("\t");
    count++;
    const actual = code(text, { bits: Number(bits) as Bits });
    if (actual !== expected) differences.push(`${bits} ${text}: ${actual}, expected ${expected}`);
  }
  assertEquals(differences, []);
  assertEquals(count > 2500, true, `only ${count} instructions in the table`);
});

Deno.test("assembler: programs of jumps, labels, data and alignment have the bytes that GNU as and ld give them", () => {
  for (const { bits, source, bytes } of programs) {
    assertEquals(code(source.join("\n"), { bits: bits as Bits, origin: 0x7c00 }), bytes);
  }
});

Deno.test("assembler: one source switches between the three modes", () => {
  assertEquals(
    code("bits 16\nmov ax, 1\nmov eax, 1\n[bits 32]\nmov eax, 1\nmov ax, 1\nuse64\nmov eax, 1\npush rax"),
    [
      "b80100",
      "66b801000000",
      "b801000000",
      "66b80100",
      "b801000000",
      "50",
    ].join(""),
  );
});

Deno.test("assembler: a jump is short when its target is within a signed byte and near when it is not", () => {
  assertEquals(code("a: times 126 nop\njmp a").slice(-4), "eb80");
  assertEquals(code("a: times 127 nop\njmp a").slice(-6), "e97eff");
  assertEquals(code("jmp a\ntimes 127 nop\na:").slice(0, 4), "eb7f");
  assertEquals(code("jmp a\ntimes 128 nop\na:").slice(0, 6), "e98000");
  assertEquals(code("jmp near a\na:"), "e90000");
  assertEquals(code("jmp dword a\na:"), "66e900000000");
});

Deno.test("assembler: a jump that grows makes others grow until all labels settle", () => {
  assertEquals(code("a: jmp b\ntimes 124 nop\njmp a\nb:").length / 2, 2 + 124 + 2);
  // One more byte puts the second jump out of reach, and its growth the first.
  assertEquals(code("a: jmp b\ntimes 125 nop\njmp a\nb:").length / 2, 3 + 125 + 3);
  const chain = Array.from({ length: 400 }, (_, i) => `l${i}: jmp l${(i + 62) % 400}`).join("\n");
  const { bytes, labels } = assemble(chain, { bits: 32 });
  let at = 0;
  for (let i = 0; i < 400; i++) {
    assertEquals(labels.get(`l${i}`), BigInt(at));
    const view = new DataView(bytes.buffer, bytes.byteOffset);
    const short = bytes[at] === 0xeb;
    const target = short ? at + 2 + view.getInt8(at + 1) : at + 5 + view.getInt32(at + 1, true);
    assertEquals(BigInt(target), labels.get(`l${(i + 62) % 400}`));
    at += short ? 2 : 5;
  }
});

Deno.test("assembler: IP wraps at 64 KiB, so a jump across the end of the segment goes through 0", () => {
  assertEquals(code("jmp 0xfff0", { origin: 0x10 }), "ebde");
  assertEquals(code("jmp 0x10", { origin: 0xfff0 }), "eb1e");
});

Deno.test("assembler: labels after a dot belong to the label before them", () => {
  const { labels } = assemble("a:\n.x: nop\njmp .x\nb: nop\n.x: jmp a.x\nc equ 5\njmp .x", { origin: 0x100 });
  assertEquals([...labels], [["a", 0x100n], ["a.x", 0x100n], ["b", 0x103n], ["b.x", 0x104n], ["c", 5n]]);
});

Deno.test("assembler: data directives take numbers, strings, labels and expressions", () => {
  assertEquals(code("db 1, 'ab', -1, 255, `\\n\\0\\x41`"), "016162ffff0a0041");
  assertEquals(
    code("dw 1, 'abc', 0xffff\ndd 'abcd', -1\ndq 0x123456789abcdef0"),
    [
      "0100616263",
      "00ffff61626364ffffffff",
      "f0debc9a78563412",
    ].join(""),
  );
  assertEquals(code("x: dd y - x, $ - $$, (y - $$) * 2\ny equ x + 7", { origin: 0x1000 }), "07000000000000000e000000");
});

Deno.test("assembler: expressions follow the usual precedence", () => {
  const value = (text: string): bigint => assemble(`v equ ${text}`).labels.get("v")!;
  assertEquals(value("1 + 2 * 3"), 7n);
  assertEquals(value("(1 + 2) * 3"), 9n);
  assertEquals(value("1 << 4 | 3 & 6 ^ 1"), 0x13n);
  assertEquals(value("-7 / 2"), -3n);
  assertEquals(value("17 % 5 - ~0"), 3n);
  assertEquals(value("0x10 + 10h + 0b11 + 0o17 + 1_000 + 'A'"), 0x10n + 0x10n + 3n + 15n + 1000n + 65n);
  assertEquals(value("0xffffffffffffffff"), 0xffffffffffffffffn);
});

Deno.test("assembler: times, align, resb and org place bytes where they say", () => {
  const boot = assemble("org 0x7c00\njmp $\ntimes 510 - ($ - $$) db 0\ndw 0xaa55");
  assertEquals(boot.bytes.length, 512);
  assertEquals(boot.origin, 0x7c00n);
  assertEquals(hex(boot.bytes.slice(510)), "55aa");
  assertEquals(code("nop\nalign 4\nnop\nalign 4, 0\ndb 1\nalign 4, db 0xcc\nalign 4"), "909090909000000001cccccc");
  assertEquals(code("db 1\nresb 2\nresw 1\ndb 2"), "010000000002");
  assertEquals(code("times 3 db 1, 2"), "010201020102");
  assertEquals(code("times 3 dw $", { origin: 0x10 }), "100012001400");
});

Deno.test("assembler: a bare address is absolute, and RIP-relative with rel, rip or default rel", () => {
  assertEquals(code("mov eax, [0x1000]", { bits: 64 }), "8b042500100000");
  assertEquals(code("mov eax, [rel x]\nx:", { bits: 64 }), "8b0500000000");
  assertEquals(code("mov eax, [rip + x]\nx:", { bits: 64 }), "8b0500000000");
  assertEquals(code("default rel\nmov eax, [x]\nmov eax, [abs x]\nx:", { bits: 64 }), "8b05070000008b04250d000000");
  assertEquals(code("cmp dword [rel x], 5\nx:", { bits: 64 }), "833d0000000005");
});

Deno.test("assembler: a displacement from a label takes a byte when the value fits and the full width when not", () => {
  assertEquals(code("mov eax, [ebx + b - a]\na: nop\nb:", { bits: 32 }), "8b430190");
  assertEquals(code("mov eax, [ebx + b - a]\na: times 200 nop\nb:", { bits: 32 }).slice(0, 12), "8b83c8000000");
  assertEquals(code("mov al, [x]\nx:", { origin: 0x7c00 }), "a0037c");
  assertEquals(code("mov cl, [x]\nx:", { origin: 0x12345 }), "678a0d4c230100");
});

Deno.test("assembler: the listing gives line, address and bytes of everything emitted", () => {
  const { listing } = assemble("; a comment\nstart:\n  mov al, 1 ; one\n\nx equ 4\n  times 2 nop", { origin: 0x7c00 });
  assertEquals(listing.map(({ line, address, bytes, source }) => [line, address, hex(bytes), source]), [
    [3, 0x7c00n, "b001", "  mov al, 1 ; one"],
    [6, 0x7c02n, "9090", "  times 2 nop"],
  ]);
});

Deno.test("assembler: a complaint is one line with the line number and what was expected", () => {
  const cases: [string, Bits, string][] = [
    ["nop\nmovv eax, 1", 32, `line 2: unknown instruction "movv", did you mean "mov"?`],
    ["jmp nowhere", 32, `line 1: undefined label "nowhere"`],
    ["start: jmp stat", 32, `line 1: undefined label "stat", did you mean "start"?`],
    ["a:\na:", 32, `line 2: "a" is already defined in line 1`],
    ["eax: nop", 32, `line 1: "eax" is reserved and cannot be a label`],
    [
      "mov [ebx], 5",
      32,
      `line 1: size of the memory operand is not told, expected byte, word, dword or qword before "["`,
    ],
    ["mov rax, 5", 32, "line 1: 64-bit registers do not exist in 32-bit mode"],
    ["pusha", 64, `line 1: "pusha" does not exist in 64-bit mode`],
    ["mov ah, r8b", 64, "line 1: ah, ch, dh and bh cannot be used where a REX prefix is needed"],
    ["mov al, [bx]", 64, "line 1: 16-bit addresses do not exist in 64-bit mode"],
    ["mov al, [ax]", 16, "line 1: 16-bit addresses are made of bx or bp, and si or di"],
    ["mov al, [eax + bx]", 32, "line 1: address mixes registers of different sizes"],
    ["mov al, [eax + esp*2]", 32, "line 1: the stack pointer cannot be an index"],
    ["mov al, [eax*3]", 32, "line 1: scale 3, expected 1, 2, 4 or 8"],
    ["mov al, [eax - ebx]", 32, "line 1: register ebx cannot be subtracted"],
    ["mov al, 256", 32, "line 1: value 0x100 does not fit 8 bits"],
    ["mov al, -129", 32, "line 1: value -0x81 does not fit 8 bits"],
    ["add rax, 0x80000000", 64, "line 1: value 0x80000000 does not fit 32 bits with sign"],
    ["mov ecx, [0xfec00000]", 64, "line 1: displacement 0xfec00000 does not fit 32 signed bits"],
    [
      "jcxz far_away\ntimes 200 nop\nfar_away:",
      16,
      "line 1: target is 200 bytes away, more than 8 bits with sign can hold",
    ],
    ["db 256", 32, "line 1: value 0x100 does not fit 8 bits"],
    ["db 1 / 0", 32, "line 1: division by zero"],
    ["db 1 << 64", 32, "line 1: shift by 64, expected 0 to 63"],
    ["db 'abc", 32, "line 1: string is not closed, expected '"],
    ["db 0x", 32, `line 1: "0x" is not a number, expected decimal, 0x…, 0b…, 0o… or …h`],
    ["db 1,,2", 32, "line 1: operand missing before or after a comma"],
    ["mov eax, {1}", 32, `line 1: unexpected character "{"`],
    ["nop nop", 32, `line 1: "nop" does not take number in 32-bit mode, expected nop; nop rm16; nop rm32`],
    ["times x nop\nx:", 32, `line 1: label "x" is defined later, expected a value that is known here`],
    ["times -1 nop", 32, "line 1: times -0x1, expected 0 to 0x4000000"],
    ["align 3", 32, "line 1: alignment 3, expected a power of two"],
    ["nop\norg 5", 32, "line 2: org must come before the first byte"],
    ["bits 8", 32, `line 1: bits "8", expected 16, 32 or 64`],
    ["call far x\nx:", 32, "line 1: a far target is written selector:offset"],
    ["jmp 0x12345:0", 32, "line 1: selector 0x12345 does not fit 16 bits"],
    ["mov eax, [ebx", 32, `line 1: expected "]" at the end of the address`],
    ["a16 equ 5", 32, `line 1: "equ" cannot follow a prefix`],
    ["lock", 32, "line 1: expected an instruction after the prefix"],
  ];
  for (const [source, bits, expected] of cases) assertEquals(complaint(source, { bits }), expected, source);
});

Deno.test("assembler: hostile sources end in a complaint and not in memory", () => {
  assertEquals(complaint("times 70000000 db 1"), "line 1: times 0x42c1d80, expected 0 to 0x4000000");
  assertEquals(complaint("times 0x3000000 dq 1"), "line 1: image grows beyond 64 MiB");
  assertEquals(complaint("resb 0x3000000\nresb 0x3000000"), "line 2: image grows beyond 64 MiB");
  assertEquals(
    complaint("times 100000 jmp $"),
    "line 1: times makes more than 65536 copies of what depends on labels",
  );
  assertEquals(
    complaint("a equ b + 1\nb equ a + 1"),
    "labels do not settle within 64 passes, expected no constant that depends on itself",
  );
  assertEquals(
    complaint("times 40000 jmp $\n".repeat(2)),
    "line 2: times makes more than 65536 copies of what depends on labels",
  );
  assertEquals(complaint(`${"x".repeat(300)}: nop`), "line 1: name of 300 characters, expected at most 255");
  assertEquals(complaint(`mov ${"eax,".repeat(1000)}eax`), `line 1: "mov" has 1001 operands, expected at most 4`);
  assertEquals(complaint(`db ${"(".repeat(1000)}`), "line 1: expression nests deeper than 64 levels");
  assertEquals(complaint("db 0xffffffffffffffff * 2"), "line 1: expression goes beyond 64 bits");
  assertEquals(
    complaint(" ".repeat(SOURCE_LENGTH_MAX + 1)),
    `source has ${SOURCE_LENGTH_MAX + 1} characters, expected at most ${SOURCE_LENGTH_MAX}`,
  );
});

Deno.test("assembler: random token soup assembles or complains with a line number", () => {
  const words = [
    "mov",
    "eax",
    "[",
    "]",
    "+",
    "*",
    ",",
    ":",
    "a",
    ".b",
    "dword",
    "ptr",
    "1",
    "0xfff",
    "'x'",
    "db",
    "times",
  ]
    .concat([
      "jmp",
      "far",
      "lock",
      "rep",
      "equ",
      "align",
      "$",
      "(",
      ")",
      "-",
      "r8",
      "xmm0",
      "st",
      "rel",
      "bits",
      "64",
      "cs",
    ]);
  let seed = 12345;
  const random = (below: number): number => {
    seed = (Math.imul(seed, 1103515245) + 12345) >>> 0;
    return (seed >>> 8) % below;
  };
  for (let run = 0; run < 5000; run++) {
    const lines = Array.from(
      { length: 1 + random(3) },
      () => Array.from({ length: 1 + random(9) }, () => words[random(words.length)]).join(" "),
    );
    try {
      assemble(lines.join("\n"), { bits: 64 });
    } catch (error) {
      if (!(error instanceof BadInput)) throw new Error(`"${lines.join("\\n")}" throws ${error}`);
      assertEquals(/^(line \d+: |labels do not settle)/.test(error.message), true, error.message);
      assertEquals(error.message.includes("\n"), false);
    }
  }
});
