import { assert, assertEquals } from "@std/assert";
import { HvMessageType } from "../../lib/layout/hyperv/constants/messages.ts";
import { CpuStatus } from "../../lib/layout/hyperv/sidecar.ts";
import { HypervisorVpState } from "../../lib/hypervisor/vp_state.ts";
import { type MachineOptions, TestMachine } from "./machine_fixture.ts";

/** Ports in all sizes, strings, CPUID, MSRs and device memory, with arithmetic between that each exit can spoil. */
const PROGRAM = `
  bits 16
  mov ax, cs
  mov ds, ax
  mov es, ax
  mov eax, cr4
  or ax, 0x200
  mov cr4, eax
  mov eax, 0x12345678
  movd xmm1, eax
  mov dx, 0x3f8
  mov cx, 3
again:
  out dx, al
  add eax, 0xb0b1
  in al, dx
  rol eax, 7
  out dx, ax
  in ax, dx
  xor eax, 0x55aa
  out dx, eax
  in eax, dx
  add ebx, eax
  loop again
  mov eax, 0x40000080
  cpuid
  mov esi, ebx
  add esi, ecx
  mov ecx, 0x12345
  rdmsr
  wrmsr
  mov si, data
  mov cx, 5
  mov dx, 0xe9
  rep outsb
  mov di, 0x200
  mov cx, 3
  rep insw
  mov ax, 0xf000
  mov ds, ax
  mov byte [0x10], 0x5a
  mov ax, [0x12]
  movd xmm2, eax
  paddd xmm1, xmm2
  out 0x80, al
  cli
  hlt
data: db "hello"
`;

const EMPTY = "bits 16\n cli\n hlt\n";

/** What a guest can know of its run: accesses to devices and the registers at its end. */
function outcome(options: MachineOptions) {
  const machine = new TestMachine(options);
  machine.run();
  assertEquals(machine.panics, []);
  assertEquals(machine.crashes, []);
  return Array.from({ length: options.vps - 1 }, (_, k) => {
    assert(machine.finished(k + 1), `vp${k + 1} has not finished`);
    return { accesses: machine.devices[k + 1].accesses, registers: machine.final(k + 1) };
  });
}

for (const hotplug of ["off", "on"]) {
  for (const seed of [0, 1, 2, 3, 4, 5]) {
    Deno.test(`a guest sees the same on the sidecar as on the kernel: hotplug ${hotplug}, schedule ${seed}`, () => {
      const base = { vps: 3, programs: [PROGRAM, PROGRAM], seed };
      const kernel = outcome({ ...base, platform: "kernel" });
      assertEquals(kernel[0].accesses.length, 6 * 3 + 1 + 5 + 3 + 2);
      const sidecar = outcome({ ...base, platform: "sidecar", policies: { "sidecar.hotplug": hotplug } });
      assertEquals(sidecar, kernel);
    });
  }
}

Deno.test("tasks that are stopped at any moment and go on later lose nothing", () => {
  const base = { vps: 3, programs: [PROGRAM, PROGRAM] };
  const kernel = outcome({ ...base, platform: "kernel" });
  let stops = 0;
  for (let seed = 1; seed <= 20; seed++) {
    const machine = new TestMachine({ ...base, platform: "sidecar", seed, policies: { "sidecar.hotplug": "off" } });
    for (let k = 0; k < 10; k++) {
      const task = machine.tasks[(seed + k) % 2];
      if (machine.finished(1 + (seed + k) % 2)) continue;
      machine.stopAndResume(task, 60 + (seed * 37 + k * 101) % 300);
      stops++;
    }
    machine.run();
    assertEquals([machine.panics, machine.crashes], [[], []]);
    kernel.forEach(({ accesses, registers }, k) => {
      assertEquals(machine.devices[k + 1].accesses, accesses);
      assertEquals(machine.final(k + 1), registers);
    });
    for (const node of machine.nodes) {
      assertEquals([...machine.memory.u8.slice(node.statuses, node.statuses + 3)].map(CpuStatus.name), [
        "REMOVED",
        "RUN",
        "RUN",
      ]);
    }
  }
  assert(stops > 100);
});

Deno.test("several nodes: every processor has its own base processor's task", () => {
  const programs = Array.from({ length: 7 }, (_, k) => k === 3 ? EMPTY : PROGRAM);
  const machine = new TestMachine({ vps: 8, numaNodes: 2, platform: "sidecar", programs, seed: 7 });
  assertEquals(machine.nodes.map(({ baseVp, vpCount }) => [baseVp, vpCount]), [[0, 4], [4, 4]]);
  machine.run(2_000_000);
  assertEquals([machine.panics, machine.crashes], [[], []]);
  for (const vp of [1, 2, 3, 5, 6, 7]) assert(machine.finished(vp));
});

Deno.test("after its conversion the processor has left the sidecar, and Linux's agent runs it", () => {
  const machine = new TestMachine({ vps: 2, platform: "sidecar", programs: [PROGRAM] });
  machine.run();
  const [node] = machine.nodes;
  assertEquals(CpuStatus.name(machine.memory.u8[node.statuses + 1]), "REMOVED");
  const [sidecar, linux] = machine.processors(1);
  assertEquals(sidecar.enabled, false);
  assertEquals(linux.stepsTaken > 100, true);
});

Deno.test("openvmm 3360: if VTL2's own registers came back, the I/O-port handler's assertion would fail", () => {
  const machine = new TestMachine({
    vps: 2,
    platform: "sidecar",
    programs: [PROGRAM],
    policies: { "vtl.entry": "vtl2-restored" },
  });
  machine.run();
  assertEquals(machine.crashes.map(({ crash }) => crash.assertion), ["message.rax == cpu_context.gps[RAX]"]);
});

Deno.test("openvmm 3360: the register page's registers repair what the assertion sees", () => {
  const machine = new TestMachine({
    vps: 2,
    platform: "sidecar",
    programs: [PROGRAM],
    policies: { "vtl.entry": "vtl2-restored", "sidecar.sync": "sync-page", "sidecar.hotplug": "off" },
  });
  machine.run();
  assertEquals(machine.crashes, []);
});

Deno.test("an intercept's message is in the command page, and the exit is counted once", () => {
  const machine = new TestMachine({
    vps: 2,
    platform: "sidecar",
    programs: ["bits 16\n mov al, 7\n out 0x80, al\n cli\n hlt\n"],
    policies: { "sidecar.hotplug": "off" },
  });
  machine.run();
  const { message } = machine.tasks[0].vmm;
  assertEquals(machine.memory.u32[message >>> 2], HvMessageType.values.HvMessageTypeX64IoPortIntercept);
  assertEquals(machine.processors(1)[0].getState(HypervisorVpState.at.vtl2_irr_summary), 0);
  assertEquals(machine.devices[1].accesses, [["out", 0x80, 1, 7n]]);
});
