import { assert, assertEquals, assertMatch, assertThrows } from "@std/assert";
import { DeviceState } from "../../lib/devices/device_set.ts";
import { assemble } from "../../lib/guest/assembler/assemble.ts";
import type { MachineConfig } from "../../lib/machine/config.ts";
import { loadDemoGuest } from "../../lib/machine/load.ts";
import { Machine } from "../../lib/machine/machine.ts";
import { OWN_WORKERS_MAX, seatCount, workerCount, workersOfSeats } from "../../lib/machine/seats.ts";
import { BadInput } from "../../lib/memory/bad_input.ts";
import { guestMachine, RAM_BYTES, runGuest, siliconPolicies } from "./guest_fixture.ts";
import { outcome, RANDOM_GUEST_RAM, randomGuest } from "./random_guest.ts";

const CONFIG: MachineConfig = {
  platform: "kernel",
  vps: 1,
  ramBytes: RAM_BYTES,
  policies: {},
  devices: "pc",
  recordExits: false,
};

Deno.test("workers: up to 24 VPs have one each, the host of an encrypted guest too", () => {
  assertEquals(OWN_WORKERS_MAX, 24);
  for (const vps of [1, 2, 24]) {
    const own = Array.from({ length: vps }, (_, vp) => vp);
    assertEquals(workersOfSeats({ ...CONFIG, vps }), own);
    assertEquals(workersOfSeats({ ...CONFIG, vps, platform: "sidecar" }), own);
  }
  assertEquals(workersOfSeats({ ...CONFIG, vps: 2, platform: "snp" }), [0, 1, 2]);
  assertEquals(workersOfSeats({ ...CONFIG, vps: 2, platform: "snp", hostPlacement: "processor" }), [0, 1]);
});

Deno.test("workers: a larger machine has one per core, two at least, unless there are as many cores as VPs", () => {
  const cores = navigator.hardwareConcurrency;
  const vps = 200;
  assertEquals(workerCount({ ...CONFIG, vps }), cores >= vps ? vps : Math.max(2, cores));
  assertEquals(workerCount({ ...CONFIG, vps, workers: 7 }), 7);
});

Deno.test("workers: who serves others has a worker apart from those whom it serves, and every worker has work", () => {
  const sidecar = workersOfSeats({ ...CONFIG, vps: 66, platform: "sidecar", workers: 4 });
  // Three nodes of 22, whose first processors serve the others.
  assertEquals([sidecar[0], sidecar[22], sidecar[44]], [0, 1, 0]);
  const served = sidecar.filter((_, vp) => vp % 22 !== 0);
  assertEquals(served, Array.from({ length: 63 }, (_, k) => 2 + k % 2));
  const snp: MachineConfig = { ...CONFIG, vps: 64, platform: "snp", workers: 2 };
  assertEquals(seatCount(snp), 65);
  assertEquals(workersOfSeats(snp), [...Array.from({ length: 64 }, () => 1), 0]);
  assertEquals(workersOfSeats({ ...CONFIG, vps: 5, workers: 2 }), [0, 1, 0, 1, 0]);
  assertEquals(workersOfSeats({ ...CONFIG, vps: 3, platform: "sidecar", workers: 1 }), [0, 0, 0]);
});

Deno.test("workers: a number that makes no sense is refused", () => {
  for (const workers of [0, 3, 1.5]) {
    assertThrows(() => Machine.create({ ...CONFIG, vps: 2, workers }, false), BadInput, "expected 1 to 2:");
  }
});

for (const platform of ["kernel", "sidecar"] as const) {
  Deno.test(`shared workers: a random guest leaves what it leaves step by step (${platform})`, async () => {
    const options = { vps: 5, ramBytes: RANDOM_GUEST_RAM, policies: siliconPolicies() };
    const seed = 7100;
    const alone = await runGuest(guestMachine(randomGuest(seed, 5), { ...options, platform: "bare" }), { seed });
    const expected = outcome(alone.machine, alone.text);
    for (const workers of [1, 2, 3]) {
      const machine = guestMachine(randomGuest(seed, 5), { ...options, platform, workers, concurrent: true });
      const { end, problems, clean, text } = await runGuest(machine);
      assertEquals([end, problems, clean], ["halt", [], true], `${workers} workers`);
      assertEquals(outcome(machine, text), expected, `${workers} workers`);
    }
  });
}

Deno.test("shared workers: 64 VPs of the sidecar run the demo to its end", async () => {
  const machine = guestMachine("hlt", { vps: 64, platform: "sidecar", concurrent: true, workers: 2 });
  machine.memory.u8.fill(0, 0, machine.config.ramBytes);
  loadDemoGuest(machine);
  const result = await runGuest(machine, { timeLimitSeconds: 120 });
  assertEquals([result.end, result.exitValue, result.problems, result.clean], ["exit-port", 0, [], true]);
  assertMatch(result.text, /all 64 VPs are done/);
  // Waiting for the console's lock, 64 VPs one after the other, used to take each a hundred million instructions.
  for (const { vp, instructions } of result.vps) assert(instructions < 5_000_000, `VP ${vp}: ${instructions}`);
});

/** VP 0 starts VP 1 at the page STARTUP_AT, and then waits in a loop of PAUSEs until VP 1 says that it is done. */
const STARTS_AND_WAITS = `
        mov ecx, 0x1b
        rdmsr
        or eax, 0xc00
        wrmsr
        mov ecx, 0x830
        mov edx, 1
        mov eax, 0xc500
        wrmsr
        mov eax, 0xc608
        wrmsr
.wait:  pause
        cmp dword [abs 0x9000], 0
        je .wait
        cli
        hlt
`;
const STARTUP_AT = 0x8000;

/** A machine of two VPs on one worker, of which VP 0 waits for VP 1, which executes the real-mode code `other`. */
function twoOnOneWorker(other: string): Machine {
  const machine = guestMachine(STARTS_AND_WAITS, { concurrent: true, vps: 2, workers: 1 });
  machine.memory.u8.set(assemble(other, { origin: STARTUP_AT, bits: 16 }).bytes, STARTUP_AT);
  return machine;
}

Deno.test("shared workers: a guest that waits in a loop of PAUSEs leaves its turn to the one that it waits for", async () => {
  const machine = twoOnOneWorker(`
        mov ecx, 2000000
.count: dec ecx
        jnz .count
        mov word [0x9000], 1
        cli
        hlt
  `);
  const { end, vps } = await runGuest(machine);
  assertEquals(end, "halt");
  assert(vps[1].instructions > 4_000_000);
  assert(vps[0].instructions < vps[1].instructions / 50, `${vps[0].instructions} instructions of waiting`);
});

Deno.test("shared workers: the VP that makes no progress is named, not the one beside it that could go on", async () => {
  const machine = twoOnOneWorker("out 0x80, al");
  // Somebody has taken the device lock and never gives it back.
  const lock = (machine.map.devices + DeviceState.at.lock) >>> 2;
  Atomics.store(machine.memory.i32, lock, 1);
  const result = await runGuest(machine, { standstillMs: 500 });
  assertEquals(result.end, "stuck");
  assertMatch(result.problems.join(), /^vp1 made no progress for \d+(\.\d+)? s in step vmm\.handle-io-port$/);
  // Only so that the test's own process can end: the worker was not to be ended by force.
  Atomics.store(machine.memory.i32, lock, 0);
  Atomics.notify(machine.memory.i32, lock);
});
