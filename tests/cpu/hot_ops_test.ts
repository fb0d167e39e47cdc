import { assertEquals } from "@std/assert";
import { HOT } from "../../lib/cpu/hot_ops.ts";

Deno.test("Every fast-switch number has exactly one case in the run loop, named in its comment", async () => {
  const source = await Deno.readTextFile(new URL("../../lib/cpu/run.ts", import.meta.url));
  const cases = [...source.matchAll(/^ {12}case (\d+): (?:\{ )?\/\/ ([a-z0-9]+)/gm)].map((
    [, number, name],
  ) => [name, Number(number)]);
  const expected = Object.entries(HOT).sort((a, b) => a[1] - b[1]);
  assertEquals(cases.filter(([, number]) => number !== 0), expected);
});
