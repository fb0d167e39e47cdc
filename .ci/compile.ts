/**
 * Task `compile`: makes the single binary `exitbox`.
 *
 * The running Deno does it where its download host is in reach (or `DENORT_BIN` names the runtime to use), otherwise a
 * Deno 2.4.2 from the npm registry. Says which one did. Exit codes: 0 made, 1 the compiler refused, 69 there is none.
 */

import { type Compiler, denortCompiler } from "./denort.ts";

/** No compiler can be had (EX_UNAVAILABLE of sysexits.h). */
const EXIT_NO_COMPILER = 69;

/** How long Deno's download host may take to answer before it counts as out of reach, in milliseconds. */
const HOST_MS_MAX = 5_000;

/** The binary, in the project's folder. */
const OUTPUT = "exitbox";

/** The entries of workers, which no import statement of the program reaches by name. */
const WORKERS = ["lib/machine/worker.ts", "lib/scenarios/worker.ts"];

/** Files are read and written where the command line says; nothing else is needed, and never asked for. */
const PERMISSIONS = ["--allow-read", "--allow-write", "--no-prompt"];

const root = new URL("../", import.meta.url);

/** Whether the running Deno finds the runtime that it appends programs to. */
async function runningDenoCompiles(): Promise<boolean> {
  if (Deno.env.has("DENORT_BIN")) return true;
  const release = `https://dl.deno.land/release/v${Deno.version.deno}/denort-${Deno.build.target}.zip`;
  try {
    const answer = await fetch(release, { method: "HEAD", signal: AbortSignal.timeout(HOST_MS_MAX) });
    return answer.ok;
  } catch {
    return false;
  }
}

/** Compiles, and returns the compiler's exit code. */
async function compile(deno: string, env: Record<string, string>): Promise<number> {
  const args = [
    "compile",
    "--quiet",
    "--no-check",
    ...PERMISSIONS,
    ...WORKERS.flatMap((worker) => ["--include", worker]),
    "--output",
    OUTPUT,
    "main.ts",
  ];
  const { code } = await new Deno.Command(deno, { args, env, cwd: root, stdin: "null", stdout: "inherit" }).spawn()
    .status;
  return code;
}

/** The compiler from the npm registry, or the end of this process where it cannot be had. */
async function otherCompiler(): Promise<Compiler> {
  try {
    return await denortCompiler();
  } catch (error) {
    const reason = error instanceof Error ? error.message : String(error);
    console.error(`compile: no binary: Deno's download host is out of reach, and ${reason}`);
    Deno.exit(EXIT_NO_COMPILER);
  }
}

if (import.meta.main) {
  let code: number;
  let compiler: string;
  if (await runningDenoCompiles()) {
    compiler = `Deno ${Deno.version.deno}`;
    code = await compile(Deno.execPath(), {});
  } else {
    const { deno, denort } = await otherCompiler();
    compiler = "Deno 2.4.2 from the npm registry (Deno's download host is out of reach)";
    code = await compile(deno, { DENORT_BIN: denort });
  }
  console.error(code === 0 ? `compile: made ${OUTPUT} with ${compiler}` : `compile: ${compiler} failed with ${code}`);
  Deno.exit(code === 0 ? 0 : 1);
}
