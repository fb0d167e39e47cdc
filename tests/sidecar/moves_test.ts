import { assert, assertEquals } from "@std/assert";
import { movedMachine, runMoved } from "./moves.ts";
import { reference } from "./soak.ts";

/** Exits that are compared; in fewer a processor is moved dozens of times. */
const EXITS = 2000;
const SEEDS = 12;

for (const hotplug of ["on", "off"]) {
  Deno.test(`a processor that is moved, stopped and cancelled at any moment makes its guest's exits, hotplug ${hotplug}`, async () => {
    const expected = await reference(1, EXITS);
    let moves = 0;
    for (let seed = 1; seed <= SEEDS; seed++) {
      const { matched, counts, report } = await runMoved(movedMachine({ "sidecar.hotplug": hotplug }), seed, expected);
      assertEquals([report.vmmCrash, report.problems, matched], [undefined, [], EXITS], `seed ${seed}`);
      moves += counts.hotplugs + counts.unplugs;
    }
    assert(moves >= 5 * SEEDS, `${moves} moves`);
  });
}
