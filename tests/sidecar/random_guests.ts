/**
 * Random guests on `bare`, `kernel` and `sidecar`: with the policies that tell OpenHCL from silicon set to `silicon` they
 * must leave the same registers, memory and output everywhere.
 */
import { assert, assertEquals } from "@std/assert";
import type { MachineConfig } from "../../lib/machine/config.ts";
import { guestMachine, runGuest, siliconPolicies } from "../machine/guest_fixture.ts";
import { outcome, RANDOM_GUEST_EXITS, RANDOM_GUEST_RAM, randomGuest } from "../machine/random_guest.ts";

/** How many random guests both tests run together. */
export const RANDOM_GUESTS = 1000;

/** Which random guests are run, and on what. */
export interface RandomGuests {
  readonly first: number;
  readonly count: number;
  readonly vps: number;
  readonly sidecarNodes?: number;
  readonly sidecarVps?: readonly number[];
  readonly concurrent?: boolean;
}

type Histogram = Record<string, number>;

/** Runs one guest to its end; gives what it left behind and adds its exits to `histogram`. */
async function run(
  image: Uint8Array,
  seed: number,
  config: Pick<MachineConfig, "platform" | "vps" | "policies"> & Partial<MachineConfig> & { concurrent?: boolean },
  histogram: Histogram,
): Promise<Record<string, string>> {
  const machine = guestMachine(image, { ramBytes: RANDOM_GUEST_RAM, ...config });
  const { end, problems, clean, vmmCrash, vps, text } = await runGuest(machine, { seed, timeLimitSeconds: 30 });
  const where = `guest ${seed} with ${config.vps} VPs on ${config.platform}`;
  assertEquals([end, vmmCrash, problems, clean], ["halt", undefined, [], true], where);
  for (const { vp, exits } of vps) {
    // Interrupts of VTL2 are no exits that the guest makes.
    const counts = Object.entries(exits).filter(([kind]) => kind !== "interrupt");
    const total = counts.reduce((sum, [, count]) => sum + count, 0);
    const enough = total >= RANDOM_GUEST_EXITS.count && counts.length >= RANDOM_GUEST_EXITS.kinds;
    assert(enough, `${where}: VP ${vp} makes ${total} exits of ${counts.length} kinds`);
    for (const [kind, count] of counts) histogram[kind] = (histogram[kind] ?? 0) + count;
  }
  return outcome(machine, text);
}

/** Runs guests on all three platforms, every other one with conversion off, and prints the exits on `sidecar` by kind. */
export async function compareRandomGuests(guests: RandomGuests): Promise<void> {
  const { first, count, vps, concurrent = false } = guests;
  const { sidecarNodes, sidecarVps } = guests;
  const topology = {
    ...(sidecarNodes === undefined ? {} : { sidecarNodes }),
    ...(sidecarVps === undefined ? {} : { sidecarVps }),
  };
  const silicon = siliconPolicies();
  const histogram: Histogram = {};
  for (let seed = first; seed < first + count; seed++) {
    const image = randomGuest(seed, vps);
    const bare = await run(image, seed, { platform: "bare", vps, policies: silicon, concurrent }, {});
    const kernel = await run(image, seed, { platform: "kernel", vps, policies: silicon, concurrent }, {});
    assertEquals(kernel, bare, `guest ${seed} with ${vps} VPs on kernel`);
    const policies = { ...silicon, "sidecar.hotplug": seed % 2 === 0 ? "on" : "off" };
    const sidecar = await run(image, seed, { platform: "sidecar", vps, policies, concurrent, ...topology }, histogram);
    assertEquals(sidecar, bare, `guest ${seed} with ${vps} VPs on sidecar`);
  }
  console.log(`${count} guests with ${vps} VPs, ${concurrent ? "concurrent" : "deterministic"}:`, histogram);
}
