import { assert, assertEquals, assertThrows } from "@std/assert";
import { DEMO_VP_COUNT_ADDRESS, demoGuest, loadDemo } from "../../../lib/guest/programs/demo.ts";
import { BadInput } from "../../../lib/memory/bad_input.ts";

Deno.test("demo guest: the trampoline page is where the startup IPI's vector says, below 1 MiB", () => {
  const { labels, listing } = demoGuest();
  const trampoline = labels.get("ap_start")!;
  assertEquals(trampoline % 0x1000n, 0n);
  assert(trampoline < 0x100000n);
  const startup = listing.filter(({ source }) => source.includes("mov eax, ICR_STARTUP"));
  assertEquals(startup.length, 2);
  // Delivery mode startup, level assert, vector = page number.
  for (const { bytes } of startup) {
    assertEquals([...bytes], [0xb8, Number(trampoline >> 12n), 0x46, 0, 0]);
  }
});

Deno.test("demo guest: code and data keep clear of the parameter, the page tables and the hypercall page", () => {
  const { origin, bytes, labels } = demoGuest();
  assert(labels.get("PAGE_TABLES_END")! <= BigInt(DEMO_VP_COUNT_ADDRESS));
  assert(BigInt(DEMO_VP_COUNT_ADDRESS) + 4n <= origin);
  assert(origin + BigInt(bytes.length) <= labels.get("HYPERCALL_PAGE")!);
});

Deno.test("demo guest: it starts in real mode at 7c00 with the number of VPs at its fixed address", () => {
  const memory = new Uint8Array(2 << 20);
  const state = loadDemo(memory, 3);
  assertEquals([state.mode, state.rip, state.cr0], ["real", 0x7c00n, 0x10n]);
  assertEquals(new DataView(memory.buffer).getUint32(DEMO_VP_COUNT_ADDRESS, true), 3);
  const { bytes } = demoGuest();
  assertEquals(memory.slice(0x7c00, 0x7c00 + bytes.length), bytes);
});

Deno.test("demo guest: a number of VPs or a memory that does not fit is refused", () => {
  const refuse = (size: number, vps: number): string =>
    assertThrows(() => loadDemo(new Uint8Array(size), vps), BadInput).message;
  assertEquals(refuse(2 << 20, 0), "demo guest with 0 VPs, expected 1 to 256");
  assertEquals(refuse(2 << 20, 257), "demo guest with 257 VPs, expected 1 to 256");
  assertEquals(
    refuse(1 << 20, 2),
    "demo guest with 2 VPs in 1048576 bytes of memory, expected at least 1056768",
  );
});
