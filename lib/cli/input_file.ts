/**
 * Files that a command reads whole, with a bound on what is taken from files that have no end.
 *
 * @module
 */

import { BadInput } from "../memory/bad_input.ts";

/** Bytes that are read at a time. */
const CHUNK_BYTES = 1 << 20;

/**
 * Reads a file whole.
 *
 * @param path The file; a pipe or device is read to its end.
 * @param bytesMax Most bytes that are read.
 * @returns The bytes. Throws `BadInput` that names the file when it cannot be read or is longer.
 */
export async function readInput(path: string, bytesMax: number): Promise<Uint8Array<ArrayBuffer>> {
  try {
    if ((await Deno.stat(path)).isDirectory) throw new BadInput(`${path}: is a folder, expected a file`);
    using file = await Deno.open(path);
    return await readAll(file, path, bytesMax);
  } catch (error) {
    throw error instanceof BadInput ? error : new BadInput(`${path}: ${reasonOf(error)}`);
  }
}

/** Reads to the end, or to the first byte that is too many. */
async function readAll(file: Deno.FsFile, path: string, bytesMax: number): Promise<Uint8Array<ArrayBuffer>> {
  const chunks: Uint8Array<ArrayBuffer>[] = [];
  let length = 0;
  for (;;) {
    const chunk = new Uint8Array(CHUNK_BYTES);
    const taken = await file.read(chunk);
    if (taken === null) break;
    length += taken;
    if (length > bytesMax) throw new BadInput(`${path}: more than ${bytesMax} bytes, expected at most as many`);
    chunks.push(chunk.subarray(0, taken));
  }
  const bytes = new Uint8Array(length);
  let at = 0;
  for (const chunk of chunks) {
    bytes.set(chunk, at);
    at += chunk.length;
  }
  return bytes;
}

/** Why a file cannot be read, in words that do not repeat its name. */
function reasonOf(error: unknown): string {
  if (error instanceof Deno.errors.NotFound) return "no such file";
  if (error instanceof Deno.errors.PermissionDenied) return "permission denied";
  // Deno's own words advise a flag that a compiled binary does not have.
  if (error instanceof Deno.errors.NotCapable) return "exitbox does not read there";
  return error instanceof Error ? error.message : String(error);
}
