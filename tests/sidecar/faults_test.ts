import { assert, assertEquals, assertMatch, assertThrows } from "@std/assert";
import { DeviceState } from "../../lib/devices/device_set.ts";
import { SidecarDriverVpState } from "../../lib/layout/hyperv/constants/sidecar.ts";
import { HvX64RegisterName } from "../../lib/layout/hyperv/constants/registers.ts";
import { CpuStatus } from "../../lib/layout/hyperv/sidecar.ts";
import { END } from "../../lib/machine/header.ts";
import type { Machine } from "../../lib/machine/machine.ts";
import { type VpAction, VpControl } from "../../lib/machine/vp_actions.ts";
import { BadInput } from "../../lib/memory/bad_input.ts";
import { HALTED, stepName } from "../../lib/memory/steps.ts";
import { CLIENT_GET, CLIENT_LOCAL, CLIENT_RESULT } from "../../lib/sidecar/client.ts";
import { ERRNO } from "../../lib/sidecar/driver/thread.ts";
import { SidecarTaskState } from "../../lib/sidecar/memory.ts";
import { guestMachine, type GuestOptions, runGuest } from "../machine/guest_fixture.ts";
import { TestMachine } from "./machine_fixture.ts";

/** A machine whose guest starts on VP 1, which stays the sidecar's. */
const ON_SIDECAR = { platform: "sidecar", vps: 2, bootVp: 1, policies: { "sidecar.hotplug": "off" } } as const;
/** Makes exits for ever. */
const BUSY = "again: out 0x80, al\n jmp again";

function busyMachine(options: GuestOptions = {}): Machine {
  return guestMachine(BUSY, { ...ON_SIDECAR, ...options });
}

Deno.test("a sidecar kernel that reports an error ends the machine with its text, in either runtime", async () => {
  // HvCallVtlCall: an entry reason that the sidecar kernel does not know.
  const source = `
        mov ecx, 0x40000000
        mov eax, 1
        xor edx, edx
        wrmsr
        mov ecx, 0x40000001
        mov eax, 0x40001
        wrmsr
        xor eax, eax
        mov ecx, 0x11
        vmmcall
        hlt`;
  for (const concurrent of [false, true]) {
    const { end, clean, vmmCrash } = await runGuest(guestMachine(source, { ...ON_SIDECAR, concurrent }), {
      timeLimitSeconds: 60,
    });
    assertEquals([end, clean, vmmCrash?.vp], ["vmm-crash", true, 1]);
    assertMatch(vmmCrash!.assertion, /^sidecar error: unexpected entry reason .*VTL_CALL/);
  }
});

Deno.test("a status that nobody stores is a panic of the sidecar kernel that names VP and status", async () => {
  const machine = busyMachine();
  const [node] = machine.platform.sidecar.nodes;
  let damaged = false;
  const { end, vmmCrash } = await runGuest(machine, {
    onStep: (agent, step) => {
      // VMM and driver are about to send the interrupt with which the parked processor looks at its status.
      if (damaged || agent !== "vmm.vp1" || step !== "driver.run.set-run") return;
      damaged = true;
      machine.memory.u8[node.statuses + 1] = 7;
    },
  });
  const seen = [end, vmmCrash?.vp, vmmCrash?.assertion];
  assertEquals(seen, ["vmm-crash", 1, "sidecar kernel: unexpected cpu status CpuStatus(0x7)"]);
});

Deno.test("a driver that is asked for a processor that is gone says ENOENT, and the VMM's report has it", async () => {
  for (const concurrent of [false, true]) {
    const machine = busyMachine({ concurrent });
    const control = new VpControl(machine, 1);
    const { taskState, baseVp } = machine.platform.sidecar.place(1);
    const { end, vmmCrash } = await runGuest(machine, {
      actions: [{ vp: 1, action: "hotplug", seconds: 0.0001 }],
      timeLimitSeconds: 60,
      onProgress: () => {
        if (control.counts.hotplugs === 0) return;
        // Linux has the processor, and the VMM's task takes it for its own.
        machine.memory.u32[(taskState + SidecarTaskState.at.returned) >>> 2] = 1;
        machine.platform.partition.ring(baseVp);
      },
    });
    const { vp, assertion, left } = vmmCrash!;
    const expected = ["vmm-crash", 1, "restoring a sidecar processor failed", BigInt(ERRNO.ENOENT)];
    assertEquals([end, vp, assertion, left], expected);
  }
});

Deno.test("actions: what makes no sense now is refused and changes nothing", async () => {
  const machine = busyMachine();
  const control = new VpControl(machine, 1);
  const done = () => [control.counts.hotplugs, control.counts.unplugs];
  const answers: boolean[] = [];
  const ask = (...actions: readonly VpAction[]) => answers.push(...actions.map((action) => control.perform(action)));
  await runGuest(machine, {
    timeLimitSeconds: 60,
    onStep: () => {
      const [hotplugs, unplugs] = done();
      if (answers.length === 0 && control.running) ask("resume", "unplug", "hotplug", "hotplug");
      if (answers.length === 4 && hotplugs === 1) ask("hotplug", "cancel", "unplug", "unplug");
      if (answers.length === 8 && unplugs === 1 && !control.leaving) {
        ask("unplug");
        machine.finish(END.LIMIT, 0);
      }
    },
  });
  assertEquals(answers, [false, false, true, false, false, false, true, false, false]);
  assertEquals(done(), [1, 1]);
});

Deno.test("actions: a processor that the sidecar has not started is refused", () => {
  assertThrows(() => new VpControl(busyMachine(), 0), BadInput, "VP 0 is no sidecar VP");
  assertThrows(() => new VpControl(guestMachine(BUSY), 0), BadInput, "VP 0 is no sidecar VP");
});

Deno.test("a topology that makes no sense is refused", () => {
  const refuse = (options: GuestOptions, message: string) => {
    assertThrows(() => guestMachine(BUSY, { platform: "sidecar", vps: 4, ...options }), BadInput, message);
  };
  refuse({ sidecarVps: [0] }, "VP 0 is the base processor of its node");
  refuse({ sidecarVps: [2], sidecarNodes: 2 }, "VP 2 is the base processor of its node");
  refuse({ sidecarVps: [4] }, "Sidecar VP 4, expected 0 to 3");
  refuse({ sidecarNodes: 5 }, "5 sidecar nodes of 4 VPs, expected 1 to 4");
  refuse({ platform: "kernel", sidecarNodes: 1 }, 'Platform "kernel" has no sidecar nodes or VPs');
});

Deno.test("a signal at any moment of a command ends it as documented: the processor carries it out", () => {
  const register = HvX64RegisterName.values;
  const scratch = 0x40000;
  let signals = 0;
  for (let moment = 0; moment < 40; moment++) {
    const machine = new TestMachine({
      vps: 2,
      platform: "sidecar",
      programs: ["bits 16\n cli\n hlt\n"],
      withoutTasks: true,
      seed: 1 + moment,
    });
    const [client] = machine.clients;
    const [node] = machine.nodes;
    machine.registers.set64(1, 0, register.Lstar, 0x1234n);
    machine.memory.u32.fill(register.Lstar, scratch / 4, scratch / 4 + 40);
    client.locals32[CLIENT_LOCAL.LIST] = scratch;
    client.locals32[CLIENT_LOCAL.COUNT] = 40;
    client.locals32[CLIENT_LOCAL.VALUES] = scratch + 0x1000;
    client.step = client.call(CLIENT_GET, HALTED);
    // By hand: `moment` rounds over all agents, then the signal.
    const round = () => machine.agents.reduce((taken, agent) => taken + agent.takeSteps(1), 0);
    for (let k = 0; k < moment && !client.halted; k++) round();
    if (!client.halted) {
      node.signal(machine.port, client.thread);
      signals++;
    }
    for (let k = 0; k < 1000 && !client.halted; k++) round();
    assertEquals([client.halted, client.result], [true, CLIENT_RESULT.OK], `signal in round ${moment}`);
    for (let k = 0; k < 40; k++) assertEquals(machine.memory.u64[(scratch + 0x1000 + k * 16) / 8], 0x1234n);
    assertEquals(CpuStatus.name(machine.memory.u8[node.statuses + 1]), "IDLE");
    assertEquals(machine.memory.u8[node.vpStates + 1], SidecarDriverVpState.values.AVAILABLE);
    assertEquals(machine.panics, []);
  }
  assert(signals >= 20, `${signals} signals`);
});

for (const name of ["vp1", "reader0", "vmm.vp1", "irq0"]) {
  Deno.test(`a worker that dies in ${name} ends the machine with one report that names agent and step`, async () => {
    const machine = busyMachine({ concurrent: true });
    const agents = [0, 1].flatMap((worker) => machine.agents(worker));
    // A step that no table has: what a damaged agent block leads to.
    const damaged = agents.find((agent) => agent.name === name)!;
    damaged.step = 0x7fff;
    const { end, clean, problems } = await runGuest(machine, { timeLimitSeconds: 60 });
    assertEquals([end, clean, problems.length], ["worker-failed", true, 1]);
    assert(problems[0].startsWith(`${name} in ${stepName(0x7fff)}: TypeError`), problems[0]);
  });
}

Deno.test("a base processor that stands still is reported in bounded time, with the VMM's task for the VP", async () => {
  const machine = busyMachine({ concurrent: true });
  // Somebody has taken the device lock and never gives it back.
  const lock = (machine.map.devices + DeviceState.at.lock) >>> 2;
  Atomics.store(machine.memory.i32, lock, 1);
  const { end, problems } = await runGuest(machine, { standstillMs: 500, timeLimitSeconds: 60 });
  assertEquals([end, problems.length], ["stuck", 1]);
  assertMatch(problems[0], /^vmm\.vp1 made no progress for \d+\.\d+ s in step sidecar-vmm\.handle-io-port$/);
  // So that the test's own process can end: the worker is not ended by force.
  Atomics.store(machine.memory.i32, lock, 0);
  Atomics.notify(machine.memory.i32, lock);
});
