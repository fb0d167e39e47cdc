import { assert, assertEquals, assertMatch } from "@std/assert";
import { EXIT } from "../../lib/cli/exit_codes.ts";
import { exitbox, withGuest } from "./fixture.ts";

Deno.test("demo --noninterference: two secrets, and the host sees the same exits, fields and shared bytes", async () => {
  const { code, out: json } = await exitbox("demo", "--platform", "snp", "--noninterference", "--json");
  assertEquals(code, EXIT.CLEAN);
  const { difference, exits, ciphertext_differs } = JSON.parse(json);
  assertEquals([difference, ciphertext_differs], [null, 0]);
  assert(exits > 60);
  const { out } = await exitbox("demo", "--platform", "sev-es", "--host", "vmd", "--noninterference");
  assertMatch(out, /noninterference: \d+ exits of two runs with different secrets, and the host saw the same/);
});

Deno.test("demo --malicious: whatever such a host does, what it can read is empty of the secret", async () => {
  await withGuest("nop", async (_, folder) => {
    const view = `${folder}/view.jsonl`;
    for (const [platform, seed] of [["sev-es", "2"], ["snp", "9"]]) {
      const words = ["demo", "--platform", platform, "--runtime", "deterministic", "--malicious", seed, "--json"];
      const { code } = await exitbox(...words, "--host-view", view);
      // The guest ends itself, is stopped, shuts down or comes to its end; it does not lose its secret.
      assert(code !== EXIT.SAFETY && code !== EXIT.TOOL_FAILURE && code !== EXIT.USAGE, `${seed}: ${code}`);
      const last = JSON.parse((await Deno.readTextFile(view)).trimEnd().split("\n").at(-1)!);
      assertEquals(last.leaks, 0);
    }
  });
});

Deno.test("the flags about the host: what makes no sense is one clear line before anything is printed, exit code 2", async () => {
  const cases: [words: string[], line: RegExp][] = [
    [["demo", "--malicious", "1"], /--malicious needs --platform sev-es or snp/],
    [["demo", "--noninterference"], /--noninterference needs --platform sev-es or snp/],
    [["demo", "--platform", "snp", "--noninterference", "--malicious", "1"], /do not go together/],
    [["demo", "--platform", "snp", "--noninterference", "--paravisor", "openhcl"], /do not go together/],
    [["demo", "--platform", "snp", "--malicious", "1", "--paravisor", "openhcl"], /--malicious knows no paravisor/],
    [["demo", "--platform", "snp", "--host", "vmd"], /"vmd" has no SNP guests/],
    [["demo", "--platform", "sev-es", "--host", "vmd", "--vps", "2"], /"vmd" has guests with one VP, not 2/],
    [
      ["demo", "--platform", "snp", "--host-view", "no/such/view"],
      /cannot write "no\/such\/view": its folder does not exist/,
    ],
    [["demo", "--platform", "snp", "--host-view", "-", "--json"], /--json and --host-view - both write/],
  ];
  for (const [words, line] of cases) {
    const { code, out, err } = await exitbox(...words);
    assertEquals([code, out], [EXIT.USAGE, ""], words.join(" "));
    assertMatch(err, line);
  }
});

Deno.test("run: a #VC for which a guest has no handler is named, in text and in JSON", async () => {
  await withGuest("cpuid\nhlt", async (path) => {
    const { err } = await exitbox("run", path, "--platform", "snp", "--runtime", "deterministic");
    assertMatch(err, /VP 0 took a #VC \(CPUID\) for which the guest has no handler/);
    const { out } = await exitbox("run", path, "--platform", "snp", "--runtime", "deterministic", "--json");
    assertEquals(JSON.parse(out).vps[0].unhandled_vc, "CPUID");
  });
});

Deno.test("demo --host-view -: standard output is the view alone, and the guest speaks on standard error", async () => {
  const words = ["--platform", "sev-es", "--vps", "1", "--runtime", "deterministic", "--host-view", "-"];
  const { code, out, err } = await exitbox("demo", ...words);
  assertEquals(code, EXIT.CLEAN, err);
  const records = out.trimEnd().split("\n").map((line) => JSON.parse(line));
  assertEquals(records[0], { schema: 1, platform: "sev-es", host: "kvm" });
  assertEquals(records.at(-1), { exits: records.length - 2, leaks: 0 });
  assertMatch(err, /all 1 VPs are done/);
});
