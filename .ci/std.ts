/**
 * Task `std`: makes the `@std` modules of deno.json resolve.
 *
 * They come from JSR. Where JSR is out of reach and they are not cached, the same modules are taken from the npm
 * package `deno-std` and laid out in Deno's `vendor` folder as Deno itself would store them (`meta.json`,
 * `<version>_meta.json` with a manifest of checksums, the files), with the type declarations of `.ci/std` for what that
 * package leaves untyped. Every later command then resolves them without a network.
 *
 * Run with `--cached-only`: whether a module resolves without a network is asked by importing it.
 */

import { withNpmPackage } from "./npm.ts";

/** The npm package that holds the modules as JavaScript, and its version. */
const NPM_PACKAGE = { name: "deno-std", version: "1.4.0" };

/** SHA-512 of the files taken from it: path, NUL, content, NUL of each, in the order in which they are reached. */
const CONTENT_SHA512 =
  "1d1107dd54f718322faa161520511924af4769c00af99c4dde3dcea20b61bb78ba30ab5914c1ca75c3e8ec23ec2fd15e970a4442f8ccfedcf1deab7c8e687f90";

/** How long JSR may take to answer before it counts as out of reach, in milliseconds. */
const JSR_MS_MAX = 3_000;

/** A module that deno.json's imports reach: its JSR package, export name and file, and our declarations for it. */
interface Entry {
  package: string;
  name: string;
  file: string;
  types: string;
}

/** What the project may import. */
const ENTRIES: readonly Entry[] = [
  { package: "assert", name: ".", file: "mod.js", types: "assert.d.ts" },
  { package: "bytes", name: ".", file: "mod.js", types: "bytes.d.ts" },
  { package: "cli", name: "./parse-args", file: "parse_args.js", types: "parse_args.d.ts" },
];

/** The JSR versions whose content `NPM_PACKAGE` holds; `@std/assert` imports `@std/internal`. */
const VERSIONS: Readonly<Record<string, string>> = {
  assert: "1.0.19",
  bytes: "1.0.6",
  cli: "1.0.32",
  internal: "1.0.14",
};

/** An import or export of another file of the npm package, at the start of a line (so not in an example's comment). */
const RELATIVE_IMPORT = /^((?:import|export)\b[^"\n]*\bfrom )"(\.\.?\/[^"]+)";$/gm;

const root = new URL("../", import.meta.url);

/** Where JSR is: `JSR_URL` as for Deno itself, otherwise the public one. */
function jsrUrl(): URL {
  return new URL(Deno.env.get("JSR_URL") ?? "https://jsr.io/");
}

/** The folder in which Deno keeps what it has from `url`: host and port, with the scheme in front unless it is https. */
export function vendorFolder(url: URL): URL {
  const scheme = url.protocol === "https:" ? "" : `${url.protocol.slice(0, -1)}_`;
  const port = url.port === "" ? "" : `_${url.port}`;
  return new URL(`vendor/${scheme}${url.hostname}${port}/@std/`, root);
}

/** The specifiers as the project writes them. */
function specifiers(): string[] {
  return ENTRIES.map((entry) => `@std/${entry.package}${entry.name.slice(1)}`);
}

/** Whether every module resolves without a network, and none is laid out with declarations other than today's. */
async function resolves(vendor: URL): Promise<boolean> {
  for (const entry of ENTRIES) {
    const laidOut = new URL(`${entry.package}/${VERSIONS[entry.package]}/${entry.types}`, vendor);
    try {
      if (await Deno.readTextFile(laidOut) !== await declarations(entry)) return false;
    } catch (error) {
      // Without that file the modules are JSR's own, or there are none.
      if (!(error instanceof Deno.errors.NotFound)) throw error;
    }
  }
  try {
    for (const specifier of specifiers()) await import(specifier);
    return true;
  } catch {
    return false;
  }
}

/** Our declarations for one module. */
function declarations(entry: Entry): Promise<string> {
  return Deno.readTextFile(new URL(`std/${entry.types}`, import.meta.url));
}

/** Whether JSR answers with what Deno would ask it for. */
async function jsrInReach(): Promise<boolean> {
  try {
    const answer = await fetch(new URL(`/@std/assert/${VERSIONS.assert}_meta.json`, jsrUrl()), {
      signal: AbortSignal.timeout(JSR_MS_MAX),
    });
    return typeof (await answer.json()).manifest === "object";
  } catch {
    return false;
  }
}

/** Every file that the entries need, path in the npm package to content, in the order in which they are reached. */
async function readClosure(folder: string): Promise<Map<string, string>> {
  const files = new Map<string, string>();
  const pending = ENTRIES.map((entry) => `${entry.package}/${entry.file}`);
  for (let path = pending.shift(); path !== undefined; path = pending.shift()) {
    if (files.has(path)) continue;
    const text = await Deno.readTextFile(`${folder}/${path}`);
    files.set(path, text);
    for (const [, , relative] of text.matchAll(RELATIVE_IMPORT)) pending.push(resolvePath(path, relative));
  }
  return files;
}

/** The path in the npm package that `relative`, written in the file `from`, means. */
function resolvePath(from: string, relative: string): string {
  return new URL(relative, `file:///${from}`).pathname.slice(1);
}

/** A digest in hexadecimal. */
async function digest(algorithm: "SHA-256" | "SHA-512", text: string): Promise<string> {
  const bytes = new Uint8Array(await crypto.subtle.digest(algorithm, new TextEncoder().encode(text)));
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

/** Throws unless the files are byte for byte those that this task was written for. */
async function checkContent(files: Map<string, string>): Promise<void> {
  const actual = await digest("SHA-512", [...files].map(([path, text]) => `${path}\0${text}\0`).join(""));
  if (actual !== CONTENT_SHA512) {
    throw new Error(`${NPM_PACKAGE.name}@${NPM_PACKAGE.version} has unexpected content, SHA-512 ${actual}`);
  }
}

/** The export name under which another JSR package reaches the file `stem`. */
function exportName(file: string): string {
  return `./${file.replace(/\.js$/, "").replaceAll("_", "-")}`;
}

/** Writes one JSR package as Deno stores it: `meta.json`, `<version>_meta.json` and the files below `<version>/`. */
export async function layOut(name: string, files: Map<string, string>, folder: URL): Promise<void> {
  const version = VERSIONS[name];
  const contents = new Map<string, string>();
  const exports: Record<string, string> = {};
  for (const [path, text] of files) {
    if (!path.startsWith(`${name}/`)) continue;
    const file = path.slice(name.length + 1);
    const entry = ENTRIES.find((entry) => entry.package === name && entry.file === file);
    exports[entry?.name ?? exportName(file)] = `./${file}`;
    const linked = text.replace(RELATIVE_IMPORT, (whole, before: string, relative: string) => {
      const [other, target] = resolvePath(path, relative).split("/");
      return other === name ? whole : `${before}"jsr:@std/${other}@${VERSIONS[other]}${exportName(target).slice(1)}";`;
    });
    contents.set(file, entry === undefined ? linked : `// @ts-self-types="./${entry.types}"\n${linked}`);
    if (entry !== undefined) contents.set(entry.types, await declarations(entry));
  }
  const manifest: Record<string, { size: number; checksum: string }> = {};
  await Deno.mkdir(new URL(`${version}/`, folder), { recursive: true });
  for (const [file, text] of contents) {
    const size = new TextEncoder().encode(text).length;
    manifest[`/${file}`] = { size, checksum: `sha256-${await digest("SHA-256", text)}` };
    await Deno.writeTextFile(new URL(`${version}/${file}`, folder), text);
  }
  const meta = { scope: "std", name, latest: version, versions: { [version]: {} } };
  await Deno.writeTextFile(new URL("meta.json", folder), JSON.stringify(meta));
  await Deno.writeTextFile(new URL(`${version}_meta.json`, folder), JSON.stringify({ manifest, exports }));
}

/** Puts the finished folder `from` in the place of `to` by renaming, so that nobody meets half of it. */
async function replaceFolder(from: URL, to: URL, old: URL): Promise<void> {
  try {
    await Deno.rename(to, old);
  } catch (error) {
    if (!(error instanceof Deno.errors.NotFound)) throw error;
  }
  try {
    await Deno.rename(from, to);
  } catch (error) {
    // Another run of this task may have put the same folder there in the meantime.
    if (!(await exists(to))) throw error;
  }
}

/** Whether there is a file or folder of that name. */
async function exists(url: URL): Promise<boolean> {
  try {
    await Deno.stat(url);
    return true;
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return false;
    throw error;
  }
}

/** Fills the vendor folder from the npm package. */
async function fill(vendor: URL): Promise<void> {
  const files = await withNpmPackage(NPM_PACKAGE.name, NPM_PACKAGE.version, readClosure);
  await checkContent(files);
  await Deno.mkdir(vendor, { recursive: true });
  const scratch = new URL(`.scratch-${Deno.pid}/`, vendor);
  try {
    for (const name of Object.keys(VERSIONS)) {
      await layOut(name, files, new URL(`${name}/`, scratch));
      await replaceFolder(new URL(name, scratch), new URL(name, vendor), new URL(`${name}.old`, scratch));
    }
  } finally {
    await Deno.remove(scratch, { recursive: true });
  }
}

/** Throws unless deno.json asks for the versions that can be laid out, so that the two cannot drift apart. */
export async function checkVersions(): Promise<void> {
  const { imports } = JSON.parse(await Deno.readTextFile(new URL("deno.json", root)));
  for (const { package: name } of ENTRIES) {
    const expected = `jsr:@std/${name}@${VERSIONS[name]}`;
    const actual = imports[`@std/${name}`];
    if (actual !== expected) throw new Error(`deno.json imports ${actual}, but ${expected} is what can be laid out`);
  }
}

if (import.meta.main) {
  const vendor = vendorFolder(jsrUrl());
  if (!(await resolves(vendor)) && !(await jsrInReach())) {
    try {
      await checkVersions();
      await fill(vendor);
    } catch (error) {
      const reason = error instanceof Error ? error.message : String(error);
      console.error(`std: JSR is out of reach and the @std modules cannot be had from the npm registry: ${reason}`);
      Deno.exit(1);
    }
  }
}
