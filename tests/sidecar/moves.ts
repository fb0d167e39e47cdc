/** The soak test's guest in the deterministic runtime: every interleaving of moves and exits can be repeated by its seed. */
import { parseImage } from "../../lib/guest/image.ts";
import { loadGuest } from "../../lib/machine/load.ts";
import { Machine } from "../../lib/machine/machine.ts";
import { runMachine, type RunReport } from "../../lib/machine/run.ts";
import { type TimedVpAction, type VpAction, type VpActionCounts, VpControl } from "../../lib/machine/vp_actions.ts";
import { Random } from "../../lib/memory/random.ts";
import { END } from "../../lib/machine/header.ts";
import { fingerprint, isGuests } from "./soak.ts";
import { soakGuest } from "./soak_guest.ts";

/** A machine with one sidecar processor, VP 1, and the guest. */
export function movedMachine(policies: Readonly<Record<string, string>>): Machine {
  const machine = Machine.create({
    platform: "sidecar",
    vps: 2,
    ramBytes: 1 << 20,
    policies,
    devices: "pc",
    recordExits: true,
  }, true);
  loadGuest(machine, parseImage(soakGuest(), "moves", { mode: "real" }));
  return machine;
}

/** Virtual seconds in which VP 1's guest makes some three thousand exits when it is stopped now and then. */
const SECONDS = 0.0004;
/** Virtual seconds until it has been started. */
const START_SECONDS = 0.00005;
const ACTIONS = 300;
/** As many to go on as to stop. */
const KINDS: readonly VpAction[] = ["hotplug", "unplug", "stop", "resume", "resume", "cancel"];

/** Random actions on VP 1; in the end it runs. */
export function randomActions(seed: number): TimedVpAction[] {
  const random = Random.seeded(seed);
  const actions: TimedVpAction[] = Array.from({ length: ACTIONS }, () => ({
    vp: 1,
    action: KINDS[random.below(KINDS.length)],
    seconds: START_SECONDS + SECONDS * random.below(1 << 20) / (1 << 20),
  }));
  return [...actions, { vp: 1, action: "resume", seconds: START_SECONDS + 2 * SECONDS }];
}

/** What a run showed. */
export interface MovedRun {
  readonly report: RunReport;
  /** VP 1's exits that the reference has too, from the first on. */
  readonly matched: number;
  readonly counts: VpActionCounts;
}

/** Runs the guest until VP 1 has made as many exits as there are in `reference`, or one that is not there. */
export async function runMoved(machine: Machine, seed: number, expected: Uint32Array): Promise<MovedRun> {
  let matched = 0;
  const report = await runMachine(machine, {
    seed,
    actions: randomActions(seed),
    timeLimitSeconds: 20,
    onExit: (record) => {
      if (machine.end !== END.NONE && matched === expected.length) return;
      if (!isGuests(record) || record.getUint16(8, true) !== 1) return;
      const same = matched < expected.length && expected[matched] === fingerprint(record);
      if (same) matched++;
      if (!same || matched === expected.length) machine.finish(END.LIMIT, 1);
    },
  });
  return { report, matched, counts: new VpControl(machine, 1).counts };
}
