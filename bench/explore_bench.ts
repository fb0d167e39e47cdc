/**
 * The explorer: states a second on the sidecar driver's protocol. Each benchmark looks at a fixed number of states (in the
 * name), so that states per second are that number divided by the time shown.
 *
 * @module
 */
import { Engine } from "../lib/explore/engine.ts";
import { search } from "../lib/explore/search.ts";
import type { MemoryModel } from "../lib/explore/system.ts";
import { driverSystem } from "../tests/explore/driver_system.ts";

/** States of one measurement; the whole spaces are larger. */
const STATES = 300_000;

/** Searches the protocol of three processors up to `STATES` states. */
function states(name: string, memoryModel: MemoryModel, reduced: boolean, baseline = false): void {
  const engine = new Engine(driverSystem({ vps: 3, rounds: 1 }), memoryModel);
  Deno.bench(`${name}: ${STATES} states`, { group: "driver, 3 processors", baseline }, () => {
    search(engine, {
      properties: [],
      bounds: { states: STATES },
      firstPreemptions: [],
      reductions: { fingerprints: true, persistentSets: reduced, sleepSets: reduced },
    });
  });
}

states("fingerprints, SC", "sc", false, true);
states("fingerprints, x86-TSO", "tso", false);
states("all reductions, SC", "sc", true);
