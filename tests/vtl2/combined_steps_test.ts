import { assert, assertEquals } from "@std/assert";
import { EXIT_KINDS, type ExitKind, HypervisorVpState } from "../../lib/hypervisor/vp_state.ts";
import type { Machine } from "../../lib/machine/machine.ts";
import { AgentBlock } from "../../lib/memory/agent.ts";
import { combinationAt, NOT_COMBINED, stepId, stepName, STEPS } from "../../lib/memory/steps.ts";
import type { KernelVp } from "../../lib/vtl2/kernel_vp.ts";
import { guestMachine, RAM_BYTES } from "../machine/guest_fixture.ts";

/** The combined steps of the exit path, by their first. */
const COMBINATIONS = [
  [
    "hypervisor.write-intercept-message",
    "hypervisor.write-entry-reason",
    "hypervisor.fill-register-page",
    "mshv.save-registers",
    "mshv.copy-message",
    "vmm.dispatch",
  ],
  [
    "vmm.check-stop",
    "vmm.handle-wake",
    "vmm.run",
    "mshv.check-cancel",
    "mshv.load-registers",
    "hypervisor.vtl-return",
    "hypervisor.enter-vtl0",
  ],
].map((names) => combinationAt(names.map(stepId), 0)!);

/** Most steps that a combination stands for. */
const STEPS_MAX = 8;

/** Takes one step, or a combination where there is one; says which exits were combined. */
function stride(vp: KernelVp, combined: Set<ExitKind | "return">): void {
  const combination = COMBINATIONS.find(({ ids }) => ids[0] === vp.step);
  const exits = exitCounts(vp);
  const next = combination?.run(vp) ?? NOT_COMBINED;
  if (next === NOT_COMBINED) return void vp.takeSteps(1);
  vp.step = next;
  if (combination === COMBINATIONS[1]) combined.add("return");
  exitCounts(vp).forEach((count, kind) => {
    if (count !== exits[kind]) combined.add(EXIT_KINDS[kind]);
  });
}

function exitCounts(vp: KernelVp): bigint[] {
  const { exits } = HypervisorVpState.accessor(vp.memory.view, vp.state);
  return [...exits];
}

/** The first byte behind the guest's RAM that differs, other than the count of steps; -1 for none. */
function difference(a: Machine, b: Machine): number {
  const steps = (a.processor(0).block + AgentBlock.at.steps) >>> 2;
  const [expected, actual] = [a.memory.i32, b.memory.i32];
  for (let word = RAM_BYTES >>> 2; word < actual.length; word++) {
    if (expected[word] !== actual[word] && word !== steps) return word * 4;
  }
  return -1;
}

/** Runs a guest by steps and by strides until it halts, comparing all state wherever a stride ends. */
function compare(source: string, ran: Set<ExitKind | "return">): void {
  // The x87/SSE image is saved at every exit of a deterministic machine, which then has no combined steps.
  const [byStep, byStride] = [source, source].map((code) => guestMachine(code, { concurrent: true }));
  byStride.memory.u8.set(byStep.memory.u8); // the clock's time of day too
  const [one, other] = [byStep.processor(0) as KernelVp, byStride.processor(0) as KernelVp];
  for (let strides = 0; stepName(other.step) !== "hypervisor.parked"; strides++) {
    assert(strides < 5000, "the guest halts");
    stride(other, ran);
    let steps = 0;
    do one.takeSteps(1); while (one.step !== other.step && ++steps < STEPS_MAX);
    assertEquals(stepName(one.step), stepName(other.step));
    assertEquals(difference(byStep, byStride), -1, `stride ${strides} to ${stepName(other.step)}: a byte differs`);
  }
}

/** What each turn of the loop does; RSI changes with every turn. */
const EXITS: Readonly<Record<string, string>> = {
  out: "mov rax, rsi\nmov dx, 0x80\nout dx, al\nout dx, ax\nout dx, eax",
  in: "mov rax, rsi\nmov dx, 0x3fd\nin al, dx\nmov dx, 0x64\nin ax, dx\nin eax, dx",
  cpuid: "mov eax, 0x40000080\nmov rbx, rsi\ncpuid",
  msr: "mov ecx, 0x40000100\nmov rax, rsi\nmov rdx, rsi\nwrmsr\nrdmsr",
  mmio: "mov rdi, 0xfec00000\nmov rax, rsi\nmov [rdi], eax\nmov eax, [rdi + 0x10]\nadd [rdi], eax\nmov [rdi], rax",
};

const loop = (body: string): string => `
  mov rsi, 0x1122334455667788
  mov r15, 3
again:
  ${body}
  imul rsi, rsi, 0x1234567
  movq xmm1, rsi
  cmp rsi, 0
  dec r15
  jnz again
  hlt
`;

Deno.test("combined steps leave what the steps leave, for every kind of exit", () => {
  const ran = new Set<ExitKind | "return">();
  for (const body of Object.values(EXITS)) compare(loop(body), ran);
  assertEquals([...ran].sort(), ["cpuid", "in", "mmio-read", "mmio-write", "out", "rdmsr", "return", "wrmsr"]);
});

Deno.test("combined steps leave what the steps leave when one kind of exit follows another", () => {
  const ran = new Set<ExitKind | "return">();
  compare(loop(Object.values(EXITS).join("\n")), ran);
  // A message of another type than the one before is written by the step.
  assert(ran.has("return") && ran.has("out"));
});

Deno.test("combined steps stand for the steps that the table has, not for ones put in their place", () => {
  const names = ["hypervisor.write-intercept-message", "hypervisor.write-entry-reason"];
  assertEquals(combinationAt(names.map(stepId), 0), undefined);
  for (const { ids, steps } of COMBINATIONS) assertEquals(steps, ids.map((id) => STEPS[id].run));
});
