import { assertEquals } from "@std/assert";
import type { Order } from "./locked_worker.ts";
import { CODE_AT, newMemory } from "./processor.ts";

/** Turns of each processor. */
const TURNS = 20_000;
const PROCESSORS = 2;

/** Lets two processors, each in its worker, run the loop with the given body; returns the memory. */
async function together(body: readonly number[], address: number) {
  const memory = newMemory(PROCESSORS);
  // body; dec ecx; jnz back; hlt
  memory.u8.set([...body, 0xff, 0xc9, 0x75, 256 - body.length - 4, 0xf4], CODE_AT.long);
  const ends = Array.from({ length: PROCESSORS }, (_, n) => {
    const worker = new Worker(new URL("./locked_worker.ts", import.meta.url), { type: "module" });
    const end = new Promise<boolean>((resolve) => worker.onmessage = (event) => resolve(event.data));
    worker.postMessage({ wasm: memory.wasm, n, address, turns: TURNS } satisfies Order);
    return end.finally(() => worker.terminate());
  });
  assertEquals(await Promise.all(ends), [true, true]);
  return memory;
}

Deno.test("LOCK INC of a naturally aligned counter loses no increment of another processor", async () => {
  const memory = await together([0xf0, 0xff, 0x07], 0x20_0000);
  assertEquals(memory.view.getUint32(0x20_0000, true), TURNS * PROCESSORS);
});

Deno.test("LOCK XADD of 8 bytes that are not aligned is atomic against others of its kind", async () => {
  // mov eax, 1; lock xadd [rdi], rax
  const memory = await together([0xb8, 1, 0, 0, 0, 0xf0, 0x48, 0x0f, 0xc1, 0x07], 0x20_0003);
  assertEquals(memory.view.getBigUint64(0x20_0003, true), BigInt(TURNS * PROCESSORS));
});

Deno.test("A locked access that crosses a page is atomic against others of its kind", async () => {
  const memory = await together([0xf0, 0xff, 0x07], 0x20_0ffe);
  assertEquals(memory.view.getUint32(0x20_0ffe, true), TURNS * PROCESSORS);
});
