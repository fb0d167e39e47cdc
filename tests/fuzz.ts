/**
 * The long fuzz runs: a million random programs in each mode of the processor, a million random operations on the RMP, and
 * a million on every host of encrypted guests. `deno task fuzz [SEED] [COUNT]`; the seed is printed first.
 *
 * @module
 */
import { fuzz, MODES } from "./cpu/fuzz.ts";
import { FUZZ_SUBJECTS, fuzzGhcb } from "./host/ghcb_fuzz.ts";
import { fuzzRmp } from "./sev/rmp_fuzz.ts";

const COUNT = 1_000_000;

const seed = Number(Deno.args[0] ?? Date.now() & 0x7fffffff);
const count = Number(Deno.args[1] ?? COUNT);

/** Runs one part and says what came of it. */
function run(name: string, part: () => string): void {
  const start = performance.now();
  const outcome = part();
  console.log(`${name}: ${outcome} (${((performance.now() - start) / 1000).toFixed(0)} s)`);
}

function listed(counts: ReadonlyMap<string | number, number>, of = ""): string {
  return [...counts].sort().map(([name, times]) => `${of}${name}: ${times}`).join(", ");
}

console.log(`seed ${seed}, ${count} of each`);
run("RMP operations", () => {
  fuzzRmp(seed, count);
  return "agree with the model";
});
for (const subject of FUZZ_SUBJECTS) {
  run(`GHCB, ${subject.platform} under ${subject.host}`, () => listed(fuzzGhcb(subject, seed, count)));
}
for (const mode of MODES) run(`programs, ${mode} mode`, () => listed(fuzz(mode, seed, count), "exit "));
