import { assert, assertEquals, assertMatch } from "@std/assert";
import { DeviceState } from "../../lib/devices/device_set.ts";
import { loadDemoGuest } from "../../lib/machine/load.ts";
import { guestMachine, runGuest, word } from "./guest_fixture.ts";
import { RANDOM_GUEST_RAM, randomGuest } from "./random_guest.ts";

/** Executes PAUSE for ever. */
const SPIN = ".spin: pause\n jmp .spin";
/** Writes a port for ever: exits without end. */
const BUSY = "mov ecx, 1000\n.wait: loop .wait\n.next: out 0x80, al\n jmp .next";

Deno.test("concurrent: 64 VPs on the cores that there are run the demo to its end", async () => {
  const machine = guestMachine("hlt", { vps: 64, concurrent: true });
  machine.memory.u8.fill(0, 0, machine.config.ramBytes);
  loadDemoGuest(machine);
  const result = await runGuest(machine, { timeLimitSeconds: 240 });
  assertEquals([result.end, result.exitValue, result.problems, result.clean], ["exit-port", 0, [], true]);
  assertMatch(result.text, /all 64 VPs are done/);
  for (const { vp, exits } of result.vps) assert((exits.out ?? 0) > 50 && exits.hypercall === 1, `VP ${vp}`);
});

Deno.test("concurrent: an AP starts by INIT-SIPI-SIPI even when its IPIs come at once, again and again", async () => {
  for (let round = 0; round < 3; round++) {
    const machine = guestMachine(randomGuest(700 + round, 4), { vps: 4, concurrent: true, ramBytes: RANDOM_GUEST_RAM });
    const { end, problems } = await runGuest(machine);
    assertEquals([end, problems], ["halt", []]);
  }
});

Deno.test("concurrent: a worker that throws ends the run with a report that names VP, agent and step", async () => {
  const machine = guestMachine(SPIN, { vps: 2, concurrent: true });
  // A step that no table has: what a damaged agent block leads to.
  machine.processor(1).step = 0x7fff;
  const result = await runGuest(machine);
  assertEquals([result.end, result.clean], ["worker-failed", true]);
  assertEquals(result.problems.length, 1);
  assertMatch(result.problems[0], /^vp1 in step\(32767\): TypeError/);
});

Deno.test("concurrent: a VP without progress ends the run in bounded time", async () => {
  const machine = guestMachine(BUSY, { concurrent: true, vps: 2 });
  // Somebody has taken the device lock and never gives it back.
  const lock = (machine.map.devices + DeviceState.at.lock) >>> 2;
  Atomics.store(machine.memory.i32, lock, 1);
  const started = performance.now();
  const result = await runGuest(machine, { standstillMs: 500 });
  assertEquals(result.end, "stuck");
  assertEquals(result.problems.length, 1);
  assertMatch(result.problems[0], /^vp0 made no progress for 0\.\d+ s in step vmm\.handle-io-port$/);
  assert(performance.now() - started < 9000);
  // Only so that the test's own process can end: the worker was not to be ended by force.
  assertEquals(result.clean, false);
  Atomics.store(machine.memory.i32, lock, 0);
  Atomics.notify(machine.memory.i32, lock);
});

Deno.test("concurrent: halted, spinning, exiting and never started VPs leave at once when the run ends", async () => {
  for (
    const source of [SPIN, BUSY, "sti\n.next: hlt\n jmp .next", ".next: cpuid\n inc dword [abs 0x30000]\n jmp .next"]
  ) {
    const machine = guestMachine(source, { vps: 3, concurrent: true });
    const started = performance.now();
    const result = await runGuest(machine, { timeLimitSeconds: 0.5 });
    assertEquals([result.end, result.problems, result.clean], ["limit", [], true], source);
    assert(performance.now() - started < 5000, source);
  }
});

Deno.test("concurrent: a run that is aborted ends with what was written up to then", async () => {
  const machine = guestMachine(
    `
        mov edx, 0x3f8
        mov al, 'x'
        mov ecx, 100
.next:  out dx, al
        loop .next
        mov qword [abs 0x30000], 1
        ${SPIN}`,
    { concurrent: true },
  );
  const abort = new AbortController();
  const result = await runGuest(machine, {
    signal: abort.signal,
    onProgress: () => {
      if (word(machine, 0x30000) === 1n) abort.abort();
    },
  });
  assertEquals([result.end, result.text, result.clean], ["interrupted", "x".repeat(100), true]);
});
