import { assertEquals } from "@std/assert";
import { choiceText, conditions } from "../../lib/cli/combinations.ts";

const POLICIES = ["a", "b", "c"];
const ALL = ["1", "2"].flatMap((a) =>
  ["1", "2", "3"].flatMap((b) => ["1", "2"].map((c) => ({ policies: { a, b, c } })))
);

/** What `conditions` says of the combinations of which `is` says so. */
function told(is: (policies: Readonly<Record<string, string>>) => boolean): string[] {
  return conditions(POLICIES, ALL, ({ policies }) => is(policies)).map((line) => choiceText(POLICIES, line, ALL));
}

Deno.test("conditions: a line names only the policies that matter, and lines may overlap", () => {
  assertEquals(told(() => false), []);
  assertEquals(told(() => true), ["every combination"]);
  assertEquals(told(({ b }) => b !== "2"), ["b=1|3"]);
  assertEquals(told(({ a, c }) => a === "2" || c === "2"), ["c=2", "a=2"]);
  assertEquals(told(({ a, b, c }) => a === "1" && b === "3" && c === "1"), ["a=1 b=3 c=1"]);
});

Deno.test("conditions: every combination of which it is said is in a line, and no other", () => {
  for (let pattern = 0; pattern < 1 << ALL.length; pattern += 37) {
    const is = (index: number) => (pattern >> index & 1) !== 0;
    const lines = conditions(POLICIES, ALL, (combination) => is(ALL.indexOf(combination)));
    const covered = new Set(lines.flatMap(({ of }) => of));
    assertEquals(ALL.map((combination) => covered.has(combination)), ALL.map((_, index) => is(index)));
  }
});
