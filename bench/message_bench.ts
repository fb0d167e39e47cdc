/**
 * Building what VTL2 finds at an intercept: messages, register page, and everything at once as the concurrent runtime does
 * it. Each benchmark builds as many as its name says; the baseline writes as many messages' bytes and nothing else.
 *
 * @module
 */
import {
  writeCpuidMessage,
  writeHypercallMessage,
  writeIoPortMessage,
  writeMemoryMessage,
  writeMsrMessage,
} from "../lib/hypervisor/intercept_message.ts";
import { fillRegisterPage } from "../lib/hypervisor/register_page.ts";
import { workloadMachine, WORKLOADS } from "../lib/inspect/bench/workloads.ts";
import { HvMessage } from "../lib/layout/hyperv/messages.ts";
import { KernelVp } from "../lib/vtl2/kernel_vp.ts";

/** Messages of one measurement. */
const MESSAGES = 10_000;

const machine = workloadMachine("kernel", WORKLOADS[0]);
const vp = machine.processor(0);
if (!(vp instanceof KernelVp)) throw new TypeError("The machine's processor is not the kernel platform's");

const { u64 } = machine.memory;
const [from, to, words] = [vp.runPage >>> 3, vp.message >>> 3, HvMessage.size / 8];
Deno.bench(`${MESSAGES} times ${HvMessage.size} bytes`, { group: "message", baseline: true }, () => {
  for (let n = 0; n < MESSAGES; n++) for (let word = 0; word < words; word++) u64[to + word] = u64[from + word];
});

const WRITERS = {
  "port": () => writeIoPortMessage(vp),
  "CPUID": () => writeCpuidMessage(vp),
  "MSR": () => writeMsrMessage(vp),
  "memory": () => writeMemoryMessage(vp, false),
  "hypercall": () => writeHypercallMessage(vp),
} as const;
for (const [name, write] of Object.entries(WRITERS)) {
  Deno.bench(`${MESSAGES} ${name} messages`, { group: "message" }, () => {
    for (let n = 0; n < MESSAGES; n++) write();
  });
}

Deno.bench(`${MESSAGES} register pages`, { group: "message" }, () => {
  for (let n = 0; n < MESSAGES; n++) fillRegisterPage(vp, vp.registerPage);
});
