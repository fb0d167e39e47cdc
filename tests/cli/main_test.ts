import { assert, assertEquals, assertMatch } from "@std/assert";
import { EXIT } from "../../lib/cli/exit_codes.ts";

const ROOT = new URL("../../", import.meta.url);

/** The words with which this Deno runs the command line. */
const RUN = ["run", "--quiet", "--no-check", "--cached-only", "--allow-read", new URL("main.ts", ROOT).href];

/** Runs `exitbox` as a process. */
async function exitbox(...words: string[]): Promise<{ code: number; out: string; err: string }> {
  const command = new Deno.Command(Deno.execPath(), { args: [...RUN, ...words], cwd: ROOT, env: { NO_COLOR: "1" } });
  const { code, stdout, stderr } = await command.output();
  const decoder = new TextDecoder();
  return { code, out: decoder.decode(stdout), err: decoder.decode(stderr) };
}

Deno.test("main: help and version are results: standard output, exit code 0", async () => {
  for (const words of [["help"], ["--help"], ["version", "--help"], ["version"], ["--version"]]) {
    const { code, out, err } = await exitbox(...words);
    assertEquals([code, err], [EXIT.CLEAN, ""], words.join(" "));
    assert(out.includes("exitbox"));
  }
});

Deno.test("main: wrong usage is one line on standard error, exit code 2", async () => {
  for (const words of [["versoin"], ["version", "--jsn"], ["version", "\x1b[2J\n"], ["help", "vershun"]]) {
    const { code, out, err } = await exitbox(...words);
    assertEquals([code, out], [EXIT.USAGE, ""], words.join(" "));
    assertMatch(err, /^exitbox: [ -~]+\n$/);
  }
});

Deno.test("main: without a command the overview goes to standard error, exit code 2", async () => {
  const { code, out, err } = await exitbox();
  assertEquals([code, out], [EXIT.USAGE, ""]);
  assertMatch(err, /^Commands:$/m);
});

Deno.test("main: a reader that closes the pipe ends the command quietly", async () => {
  const command = new Deno.Command(Deno.execPath(), {
    args: [...RUN, "help"],
    cwd: ROOT,
    stdout: "piped",
    stderr: "piped",
  });
  const process = command.spawn();
  await process.stdout.cancel();
  const err = await new Response(process.stderr).text();
  const { code } = await process.status;
  assertEquals(err, "");
  assertEquals(code, EXIT.OUTPUT_CLOSED);
});
