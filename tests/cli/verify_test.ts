import { assert, assertEquals, assertMatch } from "@std/assert";
import { EXIT } from "../../lib/cli/exit_codes.ts";
import { exitbox, PROGRAM_MACHINES, withGuest } from "./fixture.ts";

const DATA = new URL("../data/", import.meta.url).pathname;

/** The text of a gzip file. */
async function unzipped(path: string): Promise<string> {
  const file = await Deno.open(path);
  return await new Response(file.readable.pipeThrough(new DecompressionStream("gzip"))).text();
}

Deno.test("verify layouts: every check passes, and --json has the counts", async () => {
  const { code, out } = await exitbox("verify", "layouts", "--json");
  const { classes, first_failures, ...rest } = JSON.parse(out);
  assertEquals([code, first_failures, rest], [EXIT.CLEAN, [], {}]);
  assert(classes.HvX64RegisterPage.passed > 10 && classes.HvX64RegisterPage.failed === 0);
  assertMatch((await exitbox("verify", "layouts")).out, /^structure +passed +failed\n/);
});

Deno.test("verify vectors: counts by class, and the first difference of a class that fails ends with 3", async () => {
  await withGuest("nop", async (_, folder) => {
    const path = `${DATA}x86/lea.jsonl.gz`;
    const clean = await exitbox("verify", "vectors", path, "--json");
    assertEquals([clean.code, JSON.parse(clean.out)], [EXIT.CLEAN, {
      classes: { lea: { passed: 2000, failed: 0 } },
      first_failures: [],
    }]);
    // The same recordings, one of which claims that the processor left another RIP.
    const lines = (await unzipped(path)).trimEnd().split("\n").slice(0, 20);
    const changed = JSON.parse(lines[7]);
    const actual = changed.out.rip;
    changed.out.rip = "200001";
    lines[7] = JSON.stringify(changed);
    await Deno.writeTextFile(`${folder}/lea.jsonl`, lines.join("\n"));
    const failed = await exitbox("verify", "vectors", folder, "--json");
    assertEquals(failed.code, EXIT.DIFFERENCES);
    assertEquals(JSON.parse(failed.out), {
      classes: { lea: { passed: 18, failed: 1 } },
      first_failures: [{ class: "lea", id: changed.id, field: "rip", expected: "200001", actual }],
    });
    const { out } = await exitbox("verify", "vectors", `${folder}/lea.jsonl`);
    assertMatch(out, /^class +passed +failed\nlea +18 +1\nall +18 +1\nlea \S+: rip expected 200001, actual \w+\n$/);
  });
});

Deno.test("verify exits: the recorded programs match on every platform", async () => {
  for (const machine of PROGRAM_MACHINES) {
    for (const runtime of ["concurrent", "deterministic"]) {
      const words = ["verify", "exits", `${DATA}exits/realmode.jsonl.gz`, ...machine, "--runtime", runtime];
      const { code, out } = await exitbox(...words, "--json");
      assertEquals([code, JSON.parse(out)], [EXIT.CLEAN, {
        classes: { realmode: { passed: 273, failed: 0 } },
        first_failures: [],
      }], words.join(" "));
    }
  }
});

Deno.test("verify exits: a stream that ends early or goes on is a difference", async () => {
  await withGuest("nop", async (_, folder) => {
    const lines = (await unzipped(`${DATA}exits/realmode.jsonl.gz`)).trimEnd().split("\n");
    await Deno.copyFile(`${DATA}exits/realmode.bin`, `${folder}/realmode.bin`);
    const changed = JSON.parse(lines[5]);
    changed.rip = "1";
    await Deno.writeTextFile(`${folder}/a.jsonl`, lines.with(5, JSON.stringify(changed)).join("\n"));
    const { code, out } = await exitbox("verify", "exits", `${folder}/a.jsonl`, "--json");
    assertEquals(code, EXIT.DIFFERENCES);
    const { classes, first_failures } = JSON.parse(out);
    assertEquals(classes.realmode.passed, 4);
    assertEquals([first_failures.length, first_failures[0].field, first_failures[0].expected], [1, "rip", "1"]);
  });
});

Deno.test("verify: bad input is one clear line with file and line number, exit code 2", async () => {
  await withGuest("nop", async (guest, folder) => {
    const [header] = (await unzipped(`${DATA}x86/lea.jsonl.gz`)).split("\n", 1);
    await Deno.writeTextFile(`${folder}/bad.jsonl`, `${header}\n{"id":`);
    const [start] = (await unzipped(`${DATA}exits/realmode.jsonl.gz`)).split("\n", 1);
    await Deno.writeTextFile(`${folder}/stream.jsonl`, `${start}\n{"seq":`);
    await Deno.mkdir(`${folder}/empty`);
    const cases: [string[], RegExp][] = [
      [["vectors", `${folder}/none`], /none: no such file or folder$/],
      [["vectors", guest], /guest\.bin/],
      [["vectors", `${folder}/bad.jsonl`], /bad\.jsonl: line 2: /],
      [["vectors", `${folder}/empty`], /empty: no stream/],
      [["vectors"], /needs FILE/],
      [["exits", `${folder}/stream.jsonl`], /stream\.jsonl: line 2: /],
      [["exits", `${DATA}exits`, "--policy", "x=y"], /Unknown policy "x"/],
      [["layouts", "x"], /does not expect "x"/],
    ];
    for (const [words, expected] of cases) {
      const { code, out, err } = await exitbox("verify", ...words);
      assertEquals([code, out], [EXIT.USAGE, ""], words.join(" "));
      assertMatch(err, expected);
      assertMatch(err, /^exitbox: \P{Cc}+$/u);
    }
  });
});
