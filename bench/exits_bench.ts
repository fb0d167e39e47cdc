/**
 * The exit path of the `kernel` and `bare` platforms, from guest instruction to next guest instruction, in the threads of
 * the benchmark: the workloads of `exitbox bench exits`. Each benchmark makes as many exits as its name says, so that one
 * exit costs the time shown divided by that number.
 *
 * @module
 */
import { EXIT_KIND, HypervisorVpState } from "../lib/hypervisor/vp_state.ts";
import { type Workload, workloadMachine, WORKLOADS } from "../lib/inspect/bench/workloads.ts";
import { StepRunner } from "../lib/machine/fused_steps.ts";

/** Exits of one measurement. */
const EXITS = 10_000;
/** Steps between two looks at the count. */
const STEPS = 256;

/** Measures one workload on one platform. */
function exits(platform: "kernel" | "bare", workload: Workload): void {
  const { name, exit } = workload;
  if (exit === undefined) return;
  const machine = workloadMachine(platform, workload);
  const vp = machine.processor(0);
  const runner = new StepRunner(vp);
  const { u64 } = machine.memory;
  const count = ((vp.state + HypervisorVpState.at.exits) >>> 3) + EXIT_KIND[exit];
  Deno.bench(`${platform}: ${EXITS} ${exit} exits`, { group: name, baseline: platform === "bare" }, () => {
    for (const end = u64[count] + BigInt(EXITS); u64[count] < end;) {
      runner.take(STEPS);
      machine.poll(vp);
    }
  });
}

for (const workload of WORKLOADS) {
  for (const platform of ["bare", "kernel"] as const) exits(platform, workload);
}
