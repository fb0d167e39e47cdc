import { assert, assertEquals } from "@std/assert";
import { EXIT } from "../../lib/cli/exit_codes.ts";
import { withGuest } from "./fixture.ts";

const MAIN = new URL("../../main.ts", import.meta.url).href;

Deno.test("run: Ctrl-C ends at once with everything up to then written, exit code 130", {
  ignore: Deno.build.os === "windows",
}, async () => {
  const source = "        mov al, 'x'\n        mov dx, 0x3f8\non:     out dx, al\n        jmp on";
  await withGuest(source, async (guest, folder) => {
    for (const runtime of ["concurrent", "deterministic"]) {
      const path = `${folder}/${runtime}.jsonl`;
      const permissions = ["--cached-only", "--allow-read", "--allow-write"];
      const words = ["run", guest, "--runtime", runtime, "--exits", path, "--time-limit", "30"];
      const process = new Deno.Command(Deno.execPath(), {
        args: ["run", "--quiet", "--no-check", ...permissions, MAIN, ...words],
        stdout: "piped",
        stderr: "null",
      }).spawn();
      // The first serial text says that the guest runs.
      const reader = process.stdout.getReader();
      await reader.read();
      process.kill("SIGINT");
      for (let more = true; more;) more = !(await reader.read()).done;
      const { code } = await process.status;
      assertEquals(code, EXIT.INTERRUPTED);
      const lines = (await Deno.readTextFile(path)).trimEnd().split("\n").map((line) => JSON.parse(line));
      assert(lines.length > 0);
      assertEquals(lines.map(({ seq }) => seq), lines.map((_, number) => number));
    }
  });
});
