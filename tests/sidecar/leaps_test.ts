import { assert, assertEquals } from "@std/assert";
import { assemble } from "../../lib/guest/assembler/assemble.ts";
import { parseImage } from "../../lib/guest/image.ts";
import { loadGuest } from "../../lib/machine/load.ts";
import { Machine } from "../../lib/machine/machine.ts";
import { type Agent, AgentBlock } from "../../lib/memory/agent.ts";
import { Random } from "../../lib/memory/random.ts";
import { NOT_COMBINED, stepName } from "../../lib/memory/steps.ts";
import { SidecarTaskState } from "../../lib/sidecar/memory.ts";
import { KERNEL_PAGES, kernelPage, VmmRunState } from "../../lib/vtl2/kernel_pages.ts";

const RAM_BYTES = 0x110000;
const ORIGIN = 0x100000;
const STEPS = 6000;
/** Steps between two comparisons of everything, and between two disturbances. */
const STEPS_PER_LOOK = 16;
const STEPS_PER_DISTURBANCE = 60;

/** Exits of every kind that a handler completes, among them ones with an interrupt shadow, and several in a row. */
const PROGRAM = `
  bits 64
  mov rsp, 0x18000
again:
  mov dx, 0x80
  out dx, al
  in al, dx
  out dx, eax
  in ax, dx
  mov eax, 0x40000080
  cpuid
  mov ecx, 0x40000100
  rdmsr
  mov rbx, 0xfec00000
  mov eax, [rbx]
  mov dword [rbx], 1
  mov rsi, 0x12000
  mov ecx, 3
  cld
  mov dx, 0x80
  rep outsb
  inc rdi
  mov al, 5
  out 0x80, al
  jmp again
`;

function boot(policies: Record<string, string>): Machine {
  const machine = Machine.create({
    platform: "sidecar",
    vps: 2,
    bootVp: 1,
    ramBytes: RAM_BYTES,
    policies: { "sidecar.hotplug": "off", ...policies },
    devices: "pc",
    recordExits: false,
  }, true);
  loadGuest(machine, parseImage(assemble(PROGRAM, { origin: ORIGIN, bits: 64 }).bytes, "leaps", { mode: "long" }));
  return machine;
}

function agentsOf(machine: Machine): Agent[] {
  return [...machine.agents(0), ...machine.agents(1)];
}

/** What the rest of the machine can do to a processor at any time. */
function disturb(machine: Machine, kind: number): string {
  const { facilities, sidecar } = machine.platform;
  const { i32 } = machine.memory;
  const runState = kernelPage(machine.map.vtl2, 1, KERNEL_PAGES.RUN_STATE) + VmmRunState.at.stop;
  switch (kind) {
    case 0:
      i32[(sidecar.taskState(1) + SidecarTaskState.at.kick) >>> 2] = 1;
      return "kick";
    case 1:
      facilities.requestVtl2Interrupt(1, 0x20);
      return "interrupt";
    case 2:
      i32[(kernelPage(machine.map.vtl2, 1, KERNEL_PAGES.RUN_STATE) + VmmRunState.at.wake) >>> 2] |= 1;
      return "wake";
    default:
      i32[runState >>> 2] ^= 1;
      return "stop";
  }
}

/** Byte offsets of differing words, but for the count of steps taken: a leap is one. */
function differences(a: Machine, b: Machine, agents: readonly Agent[]): number[] {
  const counters = new Set(agents.map(({ block }) => block + AgentBlock.at.steps));
  const left = a.memory.u32, right = b.memory.u32;
  const found: number[] = [];
  for (let word = 0; word < left.length && found.length < 8; word++) {
    if (left[word] !== right[word] && !counters.has(word * 4)) found.push(word * 4);
  }
  return found;
}

interface Walk {
  /** Leaps by the step from which they began. */
  readonly leaps: ReadonlyMap<string, number>;
  readonly disturbances: ReadonlySet<string>;
}

/** Takes the same random walk through two machines, one in leaps and one in steps. */
function walk(policies: Record<string, string>, seed: number, disturbed: boolean): Walk {
  const leaping = boot(policies), stepping = boot(policies);
  const long = agentsOf(leaping), short = agentsOf(stepping);
  const random = new Random(new Int32Array([seed]), 0);
  const leaps = new Map<string, number>();
  const disturbances = new Set<string>();
  // What differs from the beginning is when each machine was made: the clock's start and the real-time clock's.
  const unlike = new Set(differences(leaping, stepping, long));
  for (let n = 0; n < STEPS; n++) {
    if (disturbed && random.below(STEPS_PER_DISTURBANCE) === 0) {
      const kind = random.below(4);
      disturbances.add(disturb(leaping, kind));
      disturb(stepping, kind);
    }
    const ready = long.flatMap((agent, index) => agent.enabled ? [index] : []);
    if (ready.length === 0) {
      assert(disturbed, "nobody can go on");
      disturb(leaping, 3);
      disturb(stepping, 3);
      continue;
    }
    const index = ready[random.below(ready.length)];
    const a = long[index], b = short[index];
    const from = a.step;
    const to = a.leap(from);
    if (to === NOT_COMBINED) {
      a.takeSteps(1);
      b.takeSteps(1);
    } else {
      a.step = to;
      leaps.set(stepName(from), (leaps.get(stepName(from)) ?? 0) + 1);
      const label = `${a.name} leapt from ${stepName(from)} to ${stepName(to)}`;
      do assertEquals(b.takeSteps(1), 1, label); while (b.step !== to || b.enabled !== a.enabled);
      // The handler has let the reader do what it was woken for.
      while (stepName(from) === HANDLER && short[READER].enabled && !long[READER].enabled) short[READER].takeSteps(1);
    }
    if (n % STEPS_PER_LOOK === 0 || n === STEPS - 1) {
      const found = differences(leaping, stepping, long).filter((at) => !unlike.has(at));
      assertEquals(found, [], `${a.name} from ${stepName(from)}`);
    }
  }
  return { leaps, disturbances };
}

/** Where the reader is among the agents. */
const READER = 1;
const HANDLER = "driver.interrupt.load-attention";
const COURSES = [
  HANDLER,
  "client.run.wait",
  "sidecar-vmm.get-registers",
  "sidecar-vmm.set-registers",
  "driver.run.wait-idle",
  "sidecar.park.halt",
  "sidecar.get-registers",
  "sidecar.set-registers",
  "sidecar.store-idle",
  "hypervisor.write-intercept-message",
  "hypervisor.write-entry-reason",
];

Deno.test("leaps leave the memory that the steps leave for which they stand, at every hand-over", () => {
  const { leaps } = walk({}, 1, false);
  for (const course of COURSES) assert((leaps.get(course) ?? 0) > 100, `${course} ${leaps.get(course)}`);
});

Deno.test("leaps leave the memory that the steps leave when runs are cancelled, interrupted, woken and stopped", () => {
  for (const seed of [1, 2]) {
    const { leaps, disturbances } = walk({}, seed, true);
    for (const course of COURSES) assert((leaps.get(course) ?? 0) > 20, `${course} ${leaps.get(course)}`);
    assert(leaps.has("sidecar-vmm.check-stop"));
    assertEquals(disturbances, new Set(["kick", "interrupt", "wake", "stop"]));
  }
});

Deno.test("nobody on the node leaps under a policy that the leaps do not stand for", () => {
  for (
    const [policy, value] of [
      ["driver.publish", "claim-then-start"],
      ["driver.rearm", "no"],
      ["driver.scan", "status-then-state"],
      ["driver.interrupt", "proposed-clear-then-mark"],
      ["sidecar.start-ipi", "pending"],
    ]
  ) {
    const machine = boot({ [policy]: value });
    const agents = agentsOf(machine);
    for (let n = 0; n < 400; n++) {
      for (const agent of agents) {
        if (!agent.enabled) continue;
        assertEquals(agent.leap(agent.step), NOT_COMBINED, `${agent.name} under ${policy} ${value}`);
        agent.takeSteps(1);
      }
    }
  }
});

Deno.test("a sidecar processor takes its steps one by one under policies of VTL switches that a leap does not stand for", () => {
  for (
    const [policy, value] of [
      ["vtl.entry", "vtl2-restored"],
      ["register-page", "unmapped"],
      ["sidecar.sync", "sync-page"],
    ]
  ) {
    const { leaps } = walk({ [policy]: value, "vmm.io-rax": "rax-from-message" }, 1, false);
    for (const course of COURSES) {
      const ofKernel = course.startsWith("sidecar.") || course.startsWith("hypervisor.");
      assertEquals(leaps.has(course), !ofKernel, `${course} under ${policy} ${value}`);
    }
  }
});
