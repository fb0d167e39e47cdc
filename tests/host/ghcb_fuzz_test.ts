import { assert } from "@std/assert";
import { FUZZ_SUBJECTS, fuzzGhcb } from "./ghcb_fuzz.ts";

/** Operations of a short run, on each subject. */
const OPERATIONS = 12_000;

for (const subject of FUZZ_SUBJECTS) {
  const { host, platform } = subject;
  Deno.test(`${host}, ${platform}: whatever a GHCB contains, the host answers, waits or stops, and the RMP keeps its promises`, () => {
    const seed = 77;
    console.log(`seed ${seed}`);
    const outcomes = fuzzGhcb(subject, seed, OPERATIONS);
    for (const outcome of ["entered again", "stopped"]) assert((outcomes.get(outcome) ?? 0) > 100, outcome);
  });
}
