import { assert, assertEquals } from "@std/assert";
import { Engine } from "../../lib/explore/engine.ts";
import type { System } from "../../lib/explore/system.ts";
import { PAGE_SIZE } from "../../lib/memory/machine_memory.ts";
import { guestMachine, RAM_BYTES } from "../machine/guest_fixture.ts";

/** A guest that writes a port, stores and branches in turn, and ends. */
const GUEST = `
  mov rdi, 0x1ff000
  mov ecx, 20
  mov eax, 0x11223344
again:
  out 0x80, al
  add eax, 0xb0
  mov [rdi], eax
  imul rax, rax, 0x10001
    dec ecx
  jnz again
  cli
  hlt
`;

/** One processor on the platform `kernel`: its state, VTL2's pages, and the guest's last page of RAM. */
function guestSystem(): System {
  const machine = guestMachine(GUEST);
  const { memory, map } = machine;
  const agents = machine.agents(0);
  const first = RAM_BYTES - PAGE_SIZE;
  return {
    name: "guest",
    policies: {},
    memory,
    agents: agents.map((agent) => ({ agent })),
    mutable: [{ at: first, bytes: map.bytes - first - map.bytes % 4 }],
    properties: [],
    afterRestore: () => machine.processor(0).cpu.flushCaches(),
  };
}

Deno.test("Going back undoes a guest's instructions: every way on from there is the same as the first time", () => {
  const engine = new Engine(guestSystem());
  const marks: { mark: number; low: number; high: number; fingerprint: string; step: string }[] = [];
  const note = () => {
    const { mark, hashLow: low, hashHigh: high } = engine;
    return { mark, low, high, fingerprint: engine.fingerprint(), step: engine.stepName(0) };
  };
  while (engine.isEnabled(0) && engine.depth < 400) {
    marks.push(note());
    engine.execute(0);
  }
  assert(marks.length > 100 && new Set(marks.map(({ step }) => step)).size > 5);
  const end = engine.fingerprint();
  for (let depth = marks.length - 1; depth >= 0; depth -= 13) {
    const { mark, low, high, fingerprint } = marks[depth];
    engine.undo(depth, mark, low, high);
    assertEquals(engine.fingerprint(), fingerprint);
    for (let k = depth; k < marks.length; k++) {
      assertEquals([engine.stepName(0), engine.hashLow], [marks[k].step, marks[k].low]);
      engine.execute(0);
    }
    assertEquals(engine.fingerprint(), end);
  }
});

Deno.test("A snapshot of a machine with a guest can be put back in any order", () => {
  const engine = new Engine(guestSystem());
  const snapshots = Array.from({ length: 12 }, () => {
    const snapshot = engine.snapshot();
    const fingerprint = engine.fingerprint();
    for (let k = 0; k < 7; k++) engine.execute(0);
    return { snapshot, fingerprint, after: engine.fingerprint() };
  });
  for (const number of [7, 0, 11, 3, 3, 10]) {
    const { snapshot, fingerprint, after } = snapshots[number];
    engine.restore(snapshot);
    assertEquals(engine.fingerprint(), fingerprint);
    for (let k = 0; k < 7; k++) engine.execute(0);
    assertEquals(engine.fingerprint(), after);
  }
});
