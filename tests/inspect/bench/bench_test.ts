import { assert, assertEquals } from "@std/assert";
import { type BenchResult, measure } from "../../../lib/inspect/bench/bench.ts";
import {
  BENCH_PLATFORMS,
  type BenchPlatform,
  type Workload,
  workloadMachine,
  workloadsOf,
} from "../../../lib/inspect/bench/workloads.ts";
import { DeviceState } from "../../../lib/devices/device_set.ts";
import { RtcState } from "../../../lib/devices/rtc.ts";
import { MachineHeader } from "../../../lib/machine/header.ts";
import { takeFusedSteps } from "../../../lib/machine/fused_steps.ts";
import { stepName } from "../../../lib/memory/steps.ts";

// A smoke run: no time is judged. On `sidecar`, where processors are workers, sidecar_bench_test.ts does it.
for (const platform of BENCH_PLATFORMS.filter((name) => name !== "sidecar")) {
  for (const workload of [...workloadsOf("exits", platform), ...workloadsOf("guest", platform)]) {
    Deno.test(`bench: ${workload.name} on ${platform} does what it is made for`, async () => {
      const result = await measure(platform, workload, true);
      assertEquals(result.workload, workload.name);
      assert(result.cost_ns > 0);
      assertEquals(result.limit, limitOf(platform, workload));
      assertEquals(result.ratio === null, result.limit === null);
      assertEquals("exits_per_second" in result, workload.exit !== undefined);
      assertEquals("instructions_per_second" in result, workload.exit === undefined);
      if (result.limit === "bare-and-handler") assertLimitOfHandler(result);
    });
  }
}

/** The limit is a bare exit and the handler's instructions; the handler saves and restores fifteen registers, and is no loop. */
function assertLimitOfHandler({ limit_ns, bare_ns, handler_instructions, instruction_ns }: BenchResult): void {
  assertEquals(limit_ns, bare_ns! + handler_instructions! * instruction_ns!);
  assert(handler_instructions! > 60 && handler_instructions! < 300, `${handler_instructions}`);
}

/** What a workload's cost is compared with. */
function limitOf(platform: BenchPlatform, workload: Workload): string | null {
  if (platform === "sev-es" || platform === "snp") return workload.exit === undefined ? "bare" : "bare-and-handler";
  return platform === "kernel" && workload.message ? "message" : null;
}

/** Steps of each run: enough for the sequences to be fused and repeated. */
const STEPS = 60_000;

for (const workload of workloadsOf("exits", "kernel").filter(({ message }) => message)) {
  Deno.test(`fused steps: ${workload.name} leaves the memory that single steps leave`, () => {
    const singly = workloadMachine("kernel", workload);
    const fused = workloadMachine("kernel", workload);
    const [a, b] = [singly.processor(0), fused.processor(0)];
    let steps = 0;
    while (steps < STEPS) steps += takeFusedSteps(b, STEPS - steps);
    for (let left = steps; left > 0;) left -= a.takeSteps(left);
    assertEquals(stepName(a.step), stepName(b.step));
    assertEquals(a.stepsTaken, b.stepsTaken);
    // All but when each machine was made: its clock's start, and the real-time clock's.
    const times = [
      [singly.header + MachineHeader.at.start_epoch_ns, 8],
      [singly.map.devices + DeviceState.at.rtc + RtcState.at.epoch_us, 8],
    ];
    const differing: number[] = [];
    for (let word = 0; word < singly.memory.u32.length && differing.length < 8; word++) {
      const at = word * 4;
      if (times.some(([from, bytes]) => at >= from && at < from + bytes)) continue;
      if (singly.memory.u32[word] !== fused.memory.u32[word]) differing.push(at);
    }
    assertEquals(differing, []);
  });
}
