/**
 * The long fuzz runs: a million random programs in each mode of the processor, a million random operations on the RMP, and
 * a million on every host of encrypted guests. `deno task fuzz [SEED] [COUNT]`; the seed is printed first.
 *
 * @module
 */
import * as state from "../lib/cpu/state.ts";
import { fuzz, MODES } from "./cpu/fuzz.ts";
import { FUZZ_SUBJECTS, fuzzGhcb } from "./host/ghcb_fuzz.ts";
import type { Mode } from "./cpu/processor.ts";
import { fuzzRmp } from "./sev/rmp_fuzz.ts";

const COUNT = 1_000_000;
/** What a program can end with, beside running on. */
const ENDS: Readonly<Record<number, string>> = {
  [state.EXIT_NONE]: "still running",
  [state.EXIT_IO]: "port",
  [state.EXIT_MMIO]: "device memory",
  [state.EXIT_CPUID]: "CPUID",
  [state.EXIT_MSR]: "MSR",
  [state.EXIT_HLT]: "HLT",
  [state.EXIT_HYPERCALL]: "hypercall",
  [state.EXIT_EXCEPTION]: "exception",
  [state.EXIT_SHUTDOWN]: "shutdown",
  [state.EXIT_RDTSC]: "RDTSC",
};

const seed = Number(Deno.args[0] ?? Date.now() & 0x7fffffff);
const count = Number(Deno.args[1] ?? COUNT);
if (Deno.args.length > 2 || !Number.isInteger(seed) || !(Number.isInteger(count) && count > 0)) {
  console.error("usage: deno task fuzz [SEED] [COUNT]");
  Deno.exit(2);
}

/** Runs one part and says what came of it. */
function run(name: string, part: () => string): void {
  const start = performance.now();
  const outcome = part();
  console.log(`${name}: ${outcome} (${((performance.now() - start) / 1000).toFixed(0)} s)`);
}

function listed(counts: ReadonlyMap<string, number>): string {
  return [...counts].sort().map(([name, times]) => `${name}: ${times}`).join(", ");
}

/** How the programs of one mode ended. */
function programs(mode: Mode): string {
  return listed(
    new Map([...fuzz(mode, seed, count)].map(([reason, times]) => [ENDS[reason] ?? `exit ${reason}`, times])),
  );
}

console.log(`seed ${seed}, ${count} of each`);
run("RMP operations", () => {
  fuzzRmp(seed, count);
  return "agree with the model";
});
for (const subject of FUZZ_SUBJECTS) {
  run(`GHCB, ${subject.platform} under ${subject.host}`, () => listed(fuzzGhcb(subject, seed, count)));
}
for (const mode of MODES) run(`programs, ${mode} mode`, () => programs(mode));
