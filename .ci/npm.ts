/**
 * Fetches one package from the npm registry into a scratch folder.
 *
 * Where `npm` is installed it does the work, so that everything configured for it (registry, proxy, certificates)
 * holds; otherwise Deno's own npm client does, which reads `.npmrc` and `NPM_CONFIG_REGISTRY`. Either verifies the
 * registry's integrity hash of the package; the callers verify the content once more against hashes of their own.
 */

/** How long one client may take, in milliseconds; the largest package here is some 50 MB. */
const FETCH_MS_MAX = 240_000;

/** What both clients leave out: scripts of the package, and everything that is not needed to have its files. */
const NPM_FLAGS = [
  ..."--ignore-scripts --no-audit --no-fund --no-package-lock --no-update-notifier --loglevel=error".split(" "),
  ..."--fetch-retries=1 --fetch-retry-mintimeout=1000 --fetch-retry-maxtimeout=1000".split(" "),
];

/**
 * Runs `use` on the folder of the unpacked package `name@version`, and removes the folder afterwards.
 *
 * Throws an `Error` of one line that names both attempts where neither client brings the package.
 */
export async function withNpmPackage<T>(
  name: string,
  version: string,
  use: (folder: string) => Promise<T>,
): Promise<T> {
  const scratch = await Deno.makeTempDir({ prefix: "exitbox-npm-" });
  try {
    const spec = `${name}@${version}`;
    // A package.json of its own keeps npm from looking for a project in the folders above.
    await Deno.writeTextFile(`${scratch}/package.json`, "{}\n");
    const byNpm = await attempt("npm", ["install", "--prefix", scratch, ...NPM_FLAGS, spec], scratch);
    if (byNpm !== null) {
      const config = { nodeModulesDir: "auto", lock: false, imports: { [name]: `npm:${spec}` } };
      await Deno.writeTextFile(`${scratch}/deno.json`, JSON.stringify(config));
      const byDeno = await attempt(Deno.execPath(), ["install", "--quiet"], scratch);
      if (byDeno !== null) throw new Error(`${spec}: npm: ${byNpm}; deno: ${byDeno}`);
    }
    return await use(`${scratch}/node_modules/${name}`);
  } finally {
    await Deno.remove(scratch, { recursive: true });
  }
}

/** Runs one client; null is success, otherwise the reason in one line. */
async function attempt(program: string, args: string[], cwd: string): Promise<string | null> {
  try {
    const { success, stderr } = await new Deno.Command(program, {
      args,
      cwd,
      stdin: "null",
      stdout: "null",
      stderr: "piped",
      // A lab's registry may be signed by a certificate that only the system knows.
      env: { NO_COLOR: "1", DENO_TLS_CA_STORE: Deno.env.get("DENO_TLS_CA_STORE") ?? "mozilla,system" },
      signal: AbortSignal.timeout(FETCH_MS_MAX),
    }).output();
    if (success) return null;
    const lines = new TextDecoder().decode(stderr).split("\n").map((line) => line.trim());
    const reason = lines.find((line) => /^(npm )?error\b/i.test(line)) ?? lines.find((line) => line !== "");
    return reason?.replace(/^(npm error( code)?|error:) /i, "") ?? "failed without a message";
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return "not installed";
    return error instanceof Error ? error.message : String(error);
  }
}
