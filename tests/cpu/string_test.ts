import { assertEquals } from "@std/assert";
import { EXIT_HLT, EXIT_NONE } from "../../lib/cpu/state.ts";
import { newProcessor, place } from "./processor.ts";

const DATA = 0x20_0000;

/** Runs `rep movs` or `rep stos` of the given opcode bytes and returns the processor. */
function repeated(code: readonly number[], source: number, destination: number, count: number, backwards = false) {
  const { cpu } = newProcessor("long");
  for (let k = 0; k < 0x8000; k++) cpu.m8[DATA + k] = (k * 7 + (k >> 8)) & 0xff;
  place(cpu, "long", [backwards ? 0xfd : 0xfc, ...code, 0xf4]);
  cpu.g64[0] = 0x1122334455667788n;
  cpu.g64[6] = BigInt(source);
  cpu.g64[7] = BigInt(destination);
  cpu.g64[1] = BigInt(count);
  const before = cpu.m8.slice(DATA, DATA + 0x8000);
  let reason = EXIT_NONE;
  for (let turn = 0; turn < 100 && reason === EXIT_NONE; turn++) reason = cpu.run(10);
  assertEquals(reason, EXIT_HLT);
  assertEquals(cpu.g64[1], 0n);
  return { cpu, before };
}

for (const size of [1, 2, 4, 8]) {
  const code = size === 1
    ? [0xf3, 0xa4]
    : size === 2
    ? [0x66, 0xf3, 0xa5]
    : size === 4
    ? [0xf3, 0xa5]
    : [0xf3, 0x48, 0xa5];
  for (
    const [source, destination] of [[0x10, 0x4005], [0x4003, 0x20], [0x100, 0x103], [0x103, 0x100], [0xffe, 0x2fff]]
  ) {
    for (const backwards of [false, true]) {
      const name = `REP MOVS of ${size} bytes from ${source.toString(16)} to ${destination.toString(16)}` +
        (backwards ? ", downwards" : "");
      Deno.test(`${name} moves one element after the other`, () => {
        const count = 600;
        const shift = backwards ? (count - 1) * size : 0;
        const { cpu, before } = repeated(code, DATA + source + shift, DATA + destination + shift, count, backwards);
        for (let n = 0; n < count; n++) {
          const at = backwards ? (count - 1 - n) * size : n * size;
          before.copyWithin(destination + at, source + at, source + at + size);
        }
        assertEquals(cpu.m8.slice(DATA, DATA + 0x8000), before);
        const by = BigInt((backwards ? -1 : 1) * count * size);
        assertEquals(cpu.g64[7], BigInt(DATA + destination + shift) + by);
        assertEquals(cpu.g64[6], BigInt(DATA + source + shift) + by);
      });
    }
  }
}

Deno.test("A long REP STOSB gives way between elements and goes on", () => {
  const { cpu } = newProcessor("long");
  place(cpu, "long", [0xf3, 0xaa, 0xf4]);
  cpu.g64[0] = 0x5an;
  cpu.g64[7] = BigInt(DATA);
  cpu.g64[1] = 100_000n;
  assertEquals(cpu.run(1), EXIT_NONE);
  assertEquals(cpu.repeating, true);
  assertEquals(cpu.g64[1] > 0n && cpu.g64[1] < 100_000n, true);
  assertEquals(cpu.run(1000), EXIT_HLT);
  assertEquals(cpu.m8.subarray(DATA, DATA + 100_000).every((byte) => byte === 0x5a), true);
  assertEquals(cpu.m8[DATA + 100_000], 0);
});
