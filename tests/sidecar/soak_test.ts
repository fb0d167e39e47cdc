import { assertEquals } from "@std/assert";
import { soak, soakLines } from "./soak.ts";

/** The seed of the operations; what the workers do in between differs each time. */
const SEED = 20260806;
/** Longest time of the operations; they end when there have been enough. */
const SECONDS = 60;

/** Runs the soak test on as many workers. */
async function holds(workers?: number): Promise<void> {
  const report = await soak({ seed: SEED, seconds: SECONDS, ...(workers === undefined ? {} : { workers }) });
  for (const line of soakLines(report)) console.log(line);
  assertEquals(report.failures, []);
}

Deno.test("16 sidecar processors are started, stopped, cancelled, removed and added again: no exit is lost or changed", async () => {
  await holds();
});

Deno.test("the same of processors that share two workers, the VMM's and the others'", async () => {
  await holds(2);
});
