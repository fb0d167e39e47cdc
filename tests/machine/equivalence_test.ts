import { assert, assertEquals } from "@std/assert";
import type { Platform } from "../../lib/machine/config.ts";
import type { RuntimeName } from "../../lib/machine/run.ts";
import { guestMachine, runGuest, siliconPolicies } from "./guest_fixture.ts";
import { outcome, RANDOM_GUEST_EXITS, RANDOM_GUEST_RAM, randomGuest } from "./random_guest.ts";

/** Runs a random guest to its end and gives what it left behind; adds its exits to `histogram`. */
async function run(
  seed: number,
  vps: number,
  platform: Platform,
  runtime: RuntimeName,
  histogram: Record<string, number>,
): Promise<Record<string, string>> {
  const machine = guestMachine(randomGuest(seed, vps), {
    platform,
    vps,
    ramBytes: RANDOM_GUEST_RAM,
    policies: siliconPolicies(),
    concurrent: runtime === "concurrent",
  });
  const result = await runGuest(machine, { seed });
  const where = `guest ${seed} with ${vps} VPs on ${platform}, ${runtime}`;
  assertEquals([result.end, result.problems, result.clean], ["halt", [], true], where);
  for (const { vp, exits } of result.vps) {
    const counts = Object.entries(exits);
    const total = counts.reduce((sum, [, count]) => sum + count, 0);
    const enough = total >= RANDOM_GUEST_EXITS.count && counts.length >= RANDOM_GUEST_EXITS.kinds;
    assert(enough, `${where}: VP ${vp} makes ${total} exits of ${counts.length} kinds`);
    for (const [kind, count] of counts) histogram[kind] = (histogram[kind] ?? 0) + count;
  }
  return outcome(machine, result.text);
}

/** Runs `count` random guests on two platforms and compares what they leave behind. */
async function compare(first: number, count: number, vps: number, runtime: RuntimeName): Promise<void> {
  const histogram: Record<string, number> = {};
  for (let seed = first; seed < first + count; seed++) {
    const bare = await run(seed, vps, "bare", runtime, {});
    const kernel = await run(seed, vps, "kernel", runtime, histogram);
    assertEquals(kernel, bare, `guest ${seed} with ${vps} VPs, ${runtime}`);
  }
  console.log(`${count} guests with ${vps} VPs, ${runtime}:`, histogram);
}

Deno.test("bare and kernel: random guests leave the same registers, memory and output, one VP", async () => {
  await compare(1000, 150, 1, "deterministic");
});

Deno.test("bare and kernel: random guests leave the same registers, memory and output, several VPs", async () => {
  await compare(2000, 60, 2, "deterministic");
  await compare(3000, 20, 5, "deterministic");
});

Deno.test("bare and kernel: random guests leave the same registers, memory and output on workers", async () => {
  await compare(4000, 2, 1, "concurrent");
  await compare(5000, 4, 3, "concurrent");
});

Deno.test("random guests: the same outcome in either runtime and for any seed of the scheduler", async () => {
  for (const seed of [6000, 6001]) {
    const expected = await run(seed, 3, "bare", "deterministic", {});
    assertEquals(await run(seed, 3, "bare", "concurrent", {}), expected, `guest ${seed} on bare`);
    assertEquals(await run(seed, 3, "kernel", "concurrent", {}), expected, `guest ${seed} on kernel`);
  }
});
