import { assert, assertEquals } from "@std/assert";
import { measure } from "../../lib/inspect/bench/bench.ts";
import { measureBoot } from "../../lib/inspect/bench/sidecar_boot.ts";
import { WORKLOADS } from "../../lib/inspect/bench/workloads.ts";

Deno.test("bench exits on sidecar names the two workers and measures the round trip beside the exit", async () => {
  const out = WORKLOADS.find(({ name }) => name === "out")!;
  const result = await measure("sidecar", out, true);
  assertEquals([result.limit, result.workers], ["pingpong", { vmm: "vp0", vp: "vp1" }]);
  assert(result.cost_ns > 0 && result.limit_ns! > 0 && result.ratio === result.cost_ns / result.limit_ns!);
  // Two hand-overs each way for an exit: the run's end and the next command, of RIP and of the run.
  assert(result.parked_wakeups_per_exit! > 0);
});

Deno.test("bench boot: every sidecar processor answers a command and makes exits", async () => {
  const result = await measureBoot(3, 20);
  assertEquals([result.sidecar_vps, result.workers], [3, 4]);
  assert(result.boot_seconds > 0 && result.least_exits_per_second >= 0);
  assert(result.exits_per_second >= result.most_exits_per_second);
});
