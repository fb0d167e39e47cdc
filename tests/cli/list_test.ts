import { assert, assertEquals, assertMatch } from "@std/assert";
import { RUN_PLATFORMS } from "../../lib/cli/machine_flags.ts";
import { exitbox } from "./fixture.ts";

Deno.test("list platforms: the platforms that --platform takes", async () => {
  const { code, out } = await exitbox("list", "platforms", "--json");
  const names = JSON.parse(out).platforms.map(({ name }: { name: string }) => name);
  assertEquals([code, names], [0, [...RUN_PLATFORMS]]);
  assertMatch((await exitbox("list", "platforms")).out, /^ {2}kernel +\S/);
});

Deno.test("list policies: question, default and a claim for each answer", async () => {
  const { policies } = JSON.parse((await exitbox("list", "policies", "--json")).out);
  const rax = policies.find(({ name }: { name: string }) => name === "vmm.io-rax");
  assertEquals(rax.default, "assert");
  for (const { name, question, values } of policies) {
    assert(question.length > 0 && values.length >= 2, name);
    for (const value of values) assert(value.claim.length > 0, `${name}=${value.name}`);
  }
  assertMatch((await exitbox("list", "policies")).out, /^vmm\.io-rax: .*\n {2}assert \(default\) /m);
});

Deno.test("list structures: every row has subject, size and source", async () => {
  const { structures } = JSON.parse((await exitbox("list", "structures", "--json")).out);
  assert(structures.length > 50);
  for (const { name, subject, size, source } of structures) assert(subject && size > 0 && source, name);
  assertMatch((await exitbox("list", "structures")).out, /^subject +name +kind +bytes +fields +source\n/);
});
