import { assert, assertEquals } from "@std/assert";
import { EXIT } from "../../lib/cli/exit_codes.ts";
import { exitbox } from "./fixture.ts";

Deno.test("demo: the guest reaches its end on every platform, with a histogram row for each VP", async () => {
  const { code, out } = await exitbox("demo", "--runtime", "deterministic", "--vps", "3");
  assertEquals(code, EXIT.CLEAN);
  for (const platform of ["kernel", "sidecar"]) {
    const part = out.slice(out.indexOf(`${platform}: `));
    const table = part.slice(part.indexOf("\nvp "));
    assert(part.includes("all 3 VPs are done\n"), platform);
    const rows = table.split("\n").filter((line) => /^(?:\d|all) +\d/.test(line)).slice(0, 4).map((line) =>
      line.split(/ +/)
    );
    assertEquals(rows.map(([vp]) => vp), ["0", "1", "2", "all"]);
    for (const column of rows[0].keys()) {
      if (column > 0) {
        assertEquals(rows.slice(0, 3).reduce((sum, row) => sum + Number(row[column]), 0), Number(rows[3][column]));
      }
    }
  }
});

Deno.test("demo: every kind of exit that the guest makes is counted", async () => {
  const { out } = await exitbox("demo", "--json");
  const { platforms } = JSON.parse(out);
  for (const { end, exit_value, vps, serial } of platforms) {
    assertEquals([end, exit_value, vps.length], ["exit-port", 0, 2]);
    assert(serial.endsWith("all 2 VPs are done\n"));
    for (const { exits } of vps) {
      for (const kind of ["in", "out", "mmio-read", "mmio-write", "rdmsr", "wrmsr", "cpuid", "hypercall", "hlt"]) {
        assert(exits[kind] > 0, kind);
      }
    }
  }
});

Deno.test("demo: the same seed gives the same output, counts and memory", async () => {
  const run = async (seed: string) => {
    const { out } = await exitbox("demo", "--runtime", "deterministic", "--seed", seed, "--json");
    return JSON.parse(out, (key, value) => key === "seconds" ? 0 : value);
  };
  const first = await run("3");
  assertEquals(await run("3"), first);
  assert(JSON.stringify(await run("4")) !== JSON.stringify({ ...first, seed: 4 }));
});
