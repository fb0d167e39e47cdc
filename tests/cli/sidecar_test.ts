import { assertEquals, assertMatch } from "@std/assert";
import { EXIT } from "../../lib/cli/exit_codes.ts";
import { exitbox, withGuest } from "./fixture.ts";

/** VP 0 makes exits for a while, then ends the machine. */
const SOME = `
        mov cx, 2000
on:     out 0x80, al
        loop on
        xor eax, eax
        out 0xf4, eax`;

Deno.test("sidecar: a mixed machine of several nodes runs the demo; --sidecar-vps names the sidecar's VPs", async () => {
  const words = ["demo", "--vps", "6", "--sidecar-nodes", "2", "--sidecar-vps", "1,5", "--json"];
  const { code, out } = await exitbox(...words, "--runtime", "deterministic");
  assertEquals(code, EXIT.CLEAN);
  const { platforms } = JSON.parse(out);
  assertEquals(platforms.map(({ platform, end }: Record<string, unknown>) => [platform, end]), [
    ["kernel", "exit-port"],
    ["sidecar", "exit-port"],
  ]);
});

Deno.test("sidecar: a run with --hotplug and --unplug repeats bit by bit", async () => {
  await withGuest(SOME, async (guest) => {
    const words = ["run", guest, "--platform", "sidecar", "--vps", "2", "--runtime", "deterministic", "--json"];
    const moves = ["--policy", "sidecar.hotplug=off", "--hotplug", "1@0.00002", "--unplug", "1@0.0001"];
    const runs = [await exitbox(...words, ...moves), await exitbox(...words, ...moves)];
    const [first, second] = runs.map(({ out }) => ({ ...JSON.parse(out), seconds: 0 }));
    assertEquals([runs[0].code, first], [EXIT.CLEAN, second]);
    const still = JSON.parse((await exitbox(...words, "--policy", "sidecar.hotplug=off")).out);
    assertEquals(still.memory_hash !== first.memory_hash, true);
  });
});

Deno.test("sidecar: flags that make no sense are one clear line and exit code 2", async () => {
  await withGuest(SOME, async (guest) => {
    const run = ["run", guest, "--vps", "4"];
    const rows: readonly (readonly [words: string[], message: RegExp])[] = [
      [["--sidecar-nodes", "2"], /--sidecar-nodes needs --platform sidecar/],
      [["--sidecar-vps", "1"], /--sidecar-vps needs --platform sidecar/],
      [["--hotplug", "1@1"], /--hotplug needs --platform sidecar/],
      [["--unplug", "1@1"], /--unplug needs --platform sidecar/],
      [["--platform", "sidecar", "--sidecar-nodes", "5"], /5 sidecar nodes of 4 VPs, expected 1 to 4/],
      [["--platform", "sidecar", "--sidecar-nodes", "0"], /--sidecar-nodes: 0 is out of range/],
      [["--platform", "sidecar", "--sidecar-vps", "0"], /VP 0 is the base processor of its node/],
      [["--platform", "sidecar", "--sidecar-vps", "9"], /Sidecar VP 9, expected 0 to 3/],
      [["--platform", "sidecar", "--sidecar-vps", "3-1"], /--sidecar-vps: 1 is out of range, expected 3 to/],
      [["--platform", "sidecar", "--sidecar-vps", "1-2-3"], /"1-2-3" is not a VP or a range of VPs/],
      [["--platform", "sidecar", "--sidecar-vps", ""], /--sidecar-vps needs a value/],
      [["--platform", "sidecar", "--hotplug", "1"], /"1" is not VP@SECONDS/],
      [["--platform", "sidecar", "--hotplug", "1@x"], /"x" is not a time/],
      [["--platform", "sidecar", "--hotplug", "0@1"], /VP 0 is no sidecar VP/],
    ];
    for (const [words, message] of rows) {
      const { code, out, err } = await exitbox(...run, ...words);
      assertEquals([code, out], [EXIT.USAGE, ""], words.join(" "));
      assertMatch(err, message);
    }
  });
});
