/** The README's tables of `rmp-fault` and `ghcb-double-fetch`, held against the searches. */
import { assertEquals } from "@std/assert";
import { Engine } from "../../lib/explore/engine.ts";
import { search } from "../../lib/explore/search.ts";
import { scenarioNamed } from "../../lib/scenarios/index.ts";
import { buildSystem, type Choices, combinations } from "../../lib/scenarios/scenario.ts";

const REDUCTIONS = { fingerprints: true, persistentSets: false, sleepSets: false };

/** What a combination violates in any part of the scenario's matrix. */
function violated(name: string, policies: Choices): string[] {
  const scenario = scenarioNamed(name);
  const names = scenario.matrix.parts.flatMap((options) => {
    const engine = new Engine(buildSystem(scenario, policies, options), "sc");
    const { violations } = search(engine, { reductions: REDUCTIONS, firstPreemptions: [] });
    return violations.map(({ property }) => property.name);
  });
  return [...new Set(names)].sort();
}

/** The rows of the table behind `heading` whose columns are policies, and last what is violated. */
async function rows(heading: string): Promise<{ policies: string[]; cells: string[][] }> {
  const text = await Deno.readTextFile(new URL("../../README.md", import.meta.url));
  const lines = text.split(`## ${heading}\n`)[1].split("\n## ")[0].split("\n").filter((line) => line.startsWith("|"));
  const [head, , ...body] = lines.map((line) => line.split("|").slice(1, -1).map((cell) => cell.trim()));
  return { policies: head.slice(0, -1).map((name) => name.replaceAll("`", "")), cells: body };
}

for (
  const [name, heading] of [
    ["rmp-fault", "Who may write guest memory"],
    ["ghcb-double-fetch", "What a host must not read twice"],
  ]
) {
  Deno.test(`README: the table of ${name} says of every combination what its search finds`, async () => {
    const { policies, cells } = await rows(heading);
    for (const choices of combinations(scenarioNamed(name))) {
      const matching = cells.filter((row) =>
        policies.every((policy, k) => row[k] === "any" || row[k].split(" or ").includes(choices[policy]))
      );
      assertEquals(matching.length, 1, JSON.stringify(choices));
      const said = matching[0].at(-1)!;
      assertEquals(said === "nothing" ? [] : said.split(", ").sort(), violated(name, choices), JSON.stringify(choices));
    }
  });
}
