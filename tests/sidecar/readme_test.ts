import { assert, assertEquals } from "@std/assert";
import { stepId } from "../../lib/memory/steps.ts";
import { guestMachine, runGuest } from "../machine/guest_fixture.ts";

const README = new URL("../../README.md", import.meta.url);
/** A step's name in the picture: dots and hyphens, no blank before or after. */
const STEP = /^[a-z0-9-]+(\.[a-z0-9-]+)+$/;

/** The picture of the hand-over: the steps of VP 1's column and of VP 0's, in order. */
async function picture(): Promise<{ vp1: string[]; vp0: string[] }> {
  const section = (await Deno.readTextFile(README)).split("## The sidecar hand-over")[1];
  const lines = section.split("```")[1].split("\n");
  const right = lines.find((line) => line.startsWith("VP 1"))!.indexOf("VP 0");
  const steps = (column: (line: string) => string) => lines.map((line) => column(line)).filter((t) => STEP.test(t));
  return { vp1: steps((line) => line.split(" ")[0]), vp0: steps((line) => line.slice(right).trim()) };
}

Deno.test("README: the picture of the hand-over is a trace of the deterministic runtime", async () => {
  const machine = guestMachine("again: out 0x80, al\n inc eax\n cmp al, 6\n jne again\n cli\n hlt", {
    platform: "sidecar",
    vps: 2,
    bootVp: 1,
    policies: { "sidecar.hotplug": "off" },
  });
  const trace: (readonly [agent: string, step: string])[] = [];
  await runGuest(machine, { seed: 1, onStep: (agent, step) => trace.push([agent, step]) });
  const exits = trace.flatMap(([, step], at) => step === "hypervisor.write-intercept-message" ? [at] : []);
  const exit = trace.slice(exits[2] - 1, exits[3]);
  const { vp1, vp0 } = await picture();
  for (const step of [...vp1, ...vp0]) assert(stepId(step) >= 0, step);
  // The guest's last steps before the next exit are one in the picture.
  const left = exit.filter(([agent]) => agent === "vp1").map(([, step]) => step);
  assertEquals(left.slice(0, vp1.length), vp1);
  // Each step of the picture comes in the trace in its order; what the reader does besides is left out.
  let at = 0;
  const right = exit.filter(([agent]) => agent !== "vp1" && agent !== "vp0").map(([, step]) => step);
  for (const step of vp0) {
    at = right.indexOf(step, at) + 1;
    assert(at > 0, `${step} does not come in its place`);
  }
});
