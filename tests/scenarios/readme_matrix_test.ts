/** The matrices of the sidecar's scenarios in the README, held against searches of some of their combinations. */
import { assert, assertEquals } from "@std/assert";
import { verdictText } from "../../lib/cli/check.ts";
import type { MemoryModel } from "../../lib/explore/system.ts";
import { searchCombination } from "../../lib/scenarios/combination.ts";
import { scenarioNamed } from "../../lib/scenarios/index.ts";
import { completePolicies } from "../../lib/scenarios/scenario.ts";

/** Lines of a matrix that are searched: spread over it, one combination of each. */
const SAMPLES = 4;

/** A line of a matrix: what stands above it, and the values that it names. */
interface Line {
  readonly verdict: string;
  readonly values: ReadonlyMap<string, readonly string[]>;
}

/** The lines of the matrix behind `$ exitbox check NAME`. */
async function matrixOf(name: string): Promise<Line[]> {
  const text = await Deno.readTextFile(new URL("../../README.md", import.meta.url));
  const block = text.split(`\n$ exitbox check ${name}\n`)[1].split("\n```")[0];
  const lines: Line[] = [];
  let verdict = "";
  for (const line of block.split("\n")) {
    if (/^(holds|violated: )/.test(line)) verdict = line;
    if (!/^ {2}.* states\)$/.test(line)) continue;
    const words = [...line.matchAll(/(\S+)=(\S+)/g)];
    lines.push({ verdict, values: new Map(words.map(([, policy, values]) => [policy, values.split("|")])) });
  }
  return lines;
}

for (const name of ["sidecar-rax", "sidecar-completion"]) {
  Deno.test(`README: the matrix of ${name} says of a combination what its search finds`, async () => {
    const scenario = scenarioNamed(name);
    const lines = await matrixOf(name);
    assert(lines.length >= SAMPLES);
    for (let sample = 0; sample < SAMPLES; sample++) {
      const { verdict, values } = lines[Math.floor((sample * lines.length) / SAMPLES)];
      const named = [...values].filter(([policy]) => policy !== "memory-model").map(([policy, some]) => {
        return [policy, some[sample % some.length]] as const;
      });
      const [model] = values.get("memory-model") ?? scenario.memoryModels;
      const policies = completePolicies(scenario, Object.fromEntries(named));
      const { properties } = searchCombination(scenario, policies, model as MemoryModel, () => performance.now());
      assertEquals(verdictText(properties), verdict, JSON.stringify(policies));
    }
  });
}
