import { assert, assertEquals, assertNotEquals } from "@std/assert";
import { readExit } from "../../lib/inspect/exit_records.ts";
import type { Platform } from "../../lib/machine/config.ts";
import { loadDemoGuest } from "../../lib/machine/load.ts";
import { Machine } from "../../lib/machine/machine.ts";
import { STEPS } from "../../lib/memory/steps.ts";
import { runWorker } from "../../lib/machine/worker_loop.ts";
import { END } from "../../lib/machine/header.ts";
import { guestMachine, hashMemory, register, runGuest, siliconPolicies } from "./guest_fixture.ts";
import { RANDOM_GUEST_RAM, randomGuest } from "./random_guest.ts";

/** Told of every step that is taken in this thread, with its name, behind it. */
let onStep: (name: string) => void = () => {};
for (const entry of STEPS as { name: string; run: (agent: unknown) => number }[]) {
  if (entry === undefined) continue;
  const run = entry.run;
  entry.run = (agent) => {
    const next = run(agent);
    onStep(entry.name);
    return next;
  };
}

/** A demo machine. */
function demo(platform: Platform, vps: number, concurrent: boolean, ramBytes = 2 << 20): Machine {
  const machine = guestMachine("hlt", { platform, vps, concurrent, ramBytes, recordExits: !concurrent });
  machine.memory.u8.fill(0, 0, ramBytes);
  loadDemoGuest(machine);
  return machine;
}

/** A guest whose course does not depend on time: ports, strings, device memory, CPUID, MSRs, then HLT with interrupts off. */
const timeless = (rounds: number) => `
.next:  out 0x80, al
        in eax, 0x80
        mov edi, 0xd0000000
        mov [rdi], eax
        add eax, [rdi]
        mov esi, 0x30000
        mov ecx, 3
        mov dx, 0x80
        rep outsb
        mov eax, 0x40000080
        cpuid
        mov ecx, 0x40000100
        rdmsr
        mov ebx, ebp
        inc ebp
        cmp ebp, ${rounds}
        jb .next
        cli
        hlt
`;

/** So few rounds that a worker still takes its steps one by one, and can be watched doing it. */
const ROUNDS = 60;
/** So many that a worker does repeated sequences of steps in one go. */
const MANY_ROUNDS = 4000;

for (const platform of ["bare", "kernel"] as const) {
  Deno.test(`runtimes: both take the same steps of the same agents (${platform})`, async () => {
    const deterministic: string[] = [];
    const machine = guestMachine(timeless(ROUNDS), { platform });
    const note = (names: string[], name: string) => {
      // The runtimes give the guest different quanta.
      if (name !== "guest.run" || names.at(-1) !== "guest.run") names.push(name);
    };
    const result = await runGuest(machine, { onStep: (_agent, name) => note(deterministic, name) });
    assertEquals(result.end, "halt");

    // The loop that a worker runs, in this thread; every step of the table notes its name.
    const concurrent: string[] = [];
    const other = guestMachine(timeless(ROUNDS), { platform, concurrent: true });
    other.clock.start();
    onStep = (name) => {
      note(concurrent, name);
      if (!other.allHalted()) return;
      other.finish(END.HALT, 0);
      other.requestShutdown();
    };
    try {
      runWorker(other, 0);
    } finally {
      onStep = () => {};
    }
    assertEquals(other.end, END.HALT);
    // What follows the last HLT is how each runtime ends.
    const upTo = (names: string[]) => names.slice(0, names.lastIndexOf("hypervisor.halt") + 1);
    assertEquals(upTo(concurrent), upTo(deterministic));
    assert(concurrent.length > 1000);
  });
}

/** Exit stream and memory hash of a deterministic run. */
async function trace(make: () => Machine, seed: number): Promise<{ exits: string; memory: number; all: number }> {
  const machine = make();
  let exits = "";
  await runGuest(machine, {
    seed,
    onExit: (record) =>
      exits += JSON.stringify(readExit(record), (_key, value) => typeof value === "bigint" ? `${value}` : value),
  });
  return { exits, memory: hashMemory(machine), all: hashMemory(machine, 0, machine.memory.u8.length) };
}

Deno.test("deterministic: the same seed gives the same exits and the same memory bit for bit, another seed other ones", async () => {
  for (const platform of ["bare", "kernel"] as const) {
    const make = () => demo(platform, 2, false);
    const first = await trace(make, 7);
    assert(first.exits.length > 10000);
    assertEquals(await trace(make, 7), first);
    assertNotEquals((await trace(make, 8)).exits, first.exits);
  }
  const guest = randomGuest(77, 3);
  const make = () => guestMachine(guest, { vps: 3, ramBytes: RANDOM_GUEST_RAM, recordExits: true });
  const first = await trace(make, 1);
  assertEquals(await trace(make, 1), first);
  assertNotEquals((await trace(make, 2)).all, first.all);
});

Deno.test("runtimes: a worker at full speed leaves the same exits, registers and memory as single steps", async () => {
  const results: { exits: string; registers: bigint[]; memory: number }[] = [];
  for (const platform of ["bare", "kernel"] as const) {
    for (const concurrent of [false, true]) {
      const machine = guestMachine(timeless(MANY_ROUNDS), {
        platform,
        concurrent,
        recordExits: true,
        policies: siliconPolicies(),
      });
      let exits = 0;
      const { end, problems } = await runGuest(machine, {
        onExit: (record) => {
          const { kind, registers, accesses } = readExit(record);
          const text = [kind, ...registers.gpr, registers.rip, registers.rflags, ...accesses.map(({ data }) => data)]
            .join();
          for (let k = 0; k < text.length; k++) exits = Math.imul(exits ^ text.charCodeAt(k), 0x01000193);
        },
      });
      assertEquals([end, problems], ["halt", []]);
      const registers = Array.from({ length: 18 }, (_, k) => register(machine, 0, k * 8));
      results.push({ exits: `${exits}`, registers, memory: hashMemory(machine) });
    }
  }
  for (const result of results) assertEquals(result, results[0]);
});
