import { assertEquals, assertMatch } from "@std/assert";
import { EXIT } from "../../lib/cli/exit_codes.ts";
import { exitbox, withGuest } from "./fixture.ts";

const OPENHCL = ["--platform", "snp", "--paravisor", "openhcl"];

Deno.test("--paravisor: combinations that make no sense are one clear line, exit code 2", async () => {
  const cases: [words: string[], line: RegExp][] = [
    [["demo", "--paravisor", "openhcl"], /--paravisor openhcl needs --platform snp/],
    [["run", "guest", "--platform", "sev-es", "--paravisor", "openhcl"], /needs --platform snp/],
    [["demo", ...OPENHCL, "--host", "kvm"], /--host kvm runs no paravisor: .* the host is Hyper-V/],
    [["demo", "--platform", "snp", "--paravisor", "tdx"], /"tdx" is not one of none, openhcl/],
    [["verify", "exits", "folder", "--platform", "snp"], /--platform snp needs --paravisor openhcl/],
    [["verify", "exits", "folder", "--paravisor", "openhcl"], /--paravisor openhcl needs --platform snp/],
  ];
  for (const [words, line] of cases) {
    const { code, out, err } = await exitbox(...words);
    assertEquals([code, out], [EXIT.USAGE, ""], words.join(" "));
    assertMatch(err, line);
    assertEquals(err.trimEnd().split("\n").length, 1, err);
  }
});

Deno.test("demo --paravisor openhcl: the host of the embedded guest sees exit codes, and no register", async () => {
  await withGuest("nop", async (_, folder) => {
    const view = `${folder}/view.jsonl`;
    const words = ["demo", ...OPENHCL, "--vps", "1", "--runtime", "deterministic", "--json"];
    const { code, out } = await exitbox(...words, "--host-view", view, "--secret", "gpr,xmm");
    assertEquals(code, EXIT.CLEAN);
    const [{ platform, paravisor, serial, vps }] = JSON.parse(out).platforms;
    assertEquals([platform, paravisor], ["snp", "openhcl"]);
    assertMatch(serial, /VP 0: timer interrupt\nall 1 VPs are done\n$/);
    assertEquals([vps[0].exits.out, vps[0].exits.hypercall], [109, 1]);
    const [header, ...rest] = (await Deno.readTextFile(view)).trimEnd().split("\n").map((line) => JSON.parse(line));
    assertEquals(header.host, "hyper-v");
    const total = rest.pop();
    assertEquals(total, { exits: rest.length, leaks: 0 });
    // What leaves is VMPL0's request to run VMPL2, a #VC that says nothing more, or an automatic exit.
    assertEquals(new Set(rest.map(({ code }) => code)), new Set(["VMGEXIT", "EXCP29", "HLT"]));
    for (const { vmcb } of rest) assertEquals([vmcb.exit_info_1, vmcb.exit_info_2], [undefined, undefined]);
    // Shared: the host's own messages, whose type VMPL0 has cleared: 240 bytes about vector 29.
    const bytes = new Set(rest.flatMap(({ shared }) => shared.map(({ bytes }: { bytes: string }) => bytes)));
    assertEquals(bytes, new Set(["00000000f0000000", "1d00000000000000"]));
  });
});

Deno.test("run --paravisor openhcl: a host view names the nonce that a published VMSA shows, and ends with 12", async () => {
  await withGuest("        in al, 0x80\n        cli\n        hlt", async (guest, folder) => {
    const view = `${folder}/view.jsonl`;
    const words = ["run", guest, ...OPENHCL, "--memory", "1M", "--runtime", "deterministic", "--json"];
    const { code, err } = await exitbox(
      ...words,
      "--policy",
      "vmsa.build=debug",
      "--host-view",
      view,
      "--secret",
      "gpr",
    );
    assertEquals(code, EXIT.SAFETY);
    assertMatch(err, /secrets in [\d,]+ places?, first nonce of VMPL2 at 0x[0-9a-f]+ \(shared\), exit \d+$/m);
    const lines = (await Deno.readTextFile(view)).trimEnd().split("\n").slice(1, -1).map((line) => JSON.parse(line));
    const secrets = new Set(lines.flatMap(({ leaks }) => leaks.map(({ secret }: { secret: string }) => secret)));
    assertEquals(secrets, new Set(["nonce of VMPL2"]));
  });
});
