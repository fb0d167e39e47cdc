/**
 * A file that a command writes. It appears under its name only when it is complete: it is written to a temporary name
 * beside it and renamed, so that a killed process leaves no half-written file behind.
 *
 * @module
 */

import { BadInput } from "../memory/bad_input.ts";
import { OutputFailed } from "./errors.ts";

/** Bytes that are gathered before they are written. */
const BUFFER_BYTES = 1 << 16;

/** The name that stands for standard output. */
export const STANDARD_OUTPUT = "-";

const encoder = new TextEncoder();

/** Where the bytes go: a file that is renamed at the end, or a stream that takes them as they come. */
interface Target {
  write(bytes: Uint8Array): void;
  commit(): void;
  discard(): void;
}

/** A file, or standard output, to which text is written line by line, synchronously. */
export class OutputFile {
  readonly #target: Target;
  readonly #buffer = new Uint8Array(BUFFER_BYTES);
  #length = 0;
  #open = true;

  private constructor(target: Target) {
    this.#target = target;
  }

  /**
   * Opens a file for writing.
   *
   * @param path The file, or `-` for standard output.
   * @param flag The flag that names it, for errors.
   * @param standardOutput Where `-` goes, such as `Printer.write`.
   * @returns The file. Throws `BadInput` when it cannot be written.
   */
  static open(path: string, flag: string, standardOutput: (bytes: Uint8Array) => void): OutputFile {
    if (path === STANDARD_OUTPUT) {
      return new OutputFile({ write: standardOutput, commit: () => {}, discard: () => {} });
    }
    return new OutputFile(openTarget(path, flag));
  }

  /** Adds one line; the line's end is added to `text`. */
  line(text: string): void {
    this.write(encoder.encode(`${text}\n`));
  }

  /** Adds bytes. */
  write(bytes: Uint8Array): void {
    if (!this.#open) throw new TypeError("The file is already closed");
    if (this.#length + bytes.length > BUFFER_BYTES) this.flush();
    if (bytes.length > BUFFER_BYTES) {
      this.#target.write(bytes);
    } else {
      this.#buffer.set(bytes, this.#length);
      this.#length += bytes.length;
    }
  }

  /** Passes on what has been gathered, so that the reader of a stream sees it now. */
  flush(): void {
    const length = this.#length;
    // Emptied first: a write that fails must not be repeated when the file is closed.
    this.#length = 0;
    if (length > 0) this.#target.write(this.#buffer.subarray(0, length));
  }

  /** Completes the file: from now on it stands under its name. Does nothing when it is closed already. */
  commit(): void {
    if (!this.#open) return;
    this.flush();
    this.#open = false;
    this.#target.commit();
  }

  /** Gives the file up: what stood under its name before still does. Does nothing when it is closed already. */
  discard(): void {
    if (!this.#open) return;
    this.#open = false;
    this.#target.discard();
  }

  /** Gives up a file that was not committed, at the end of a `using` block. */
  [Symbol.dispose](): void {
    this.discard();
  }
}

/** Opens the file itself, or what stands there already if that is no regular file. */
function openTarget(path: string, flag: string): Target {
  try {
    const { exists, regular, real } = inspect(path);
    // A device or a named pipe is written to: renaming a file over it would replace it.
    if (exists && !regular) return streamTarget(real);
    return renamedTarget(real);
  } catch (error) {
    throw new BadInput(`${flag}: cannot write "${path}": ${reasonOf(error)}`);
  }
}

/** What stands under a name, and the file that it finally means. */
function inspect(path: string): { exists: boolean; regular: boolean; real: string } {
  try {
    const { isFile, isDirectory } = Deno.statSync(path);
    if (isDirectory) throw new TypeError("it is a folder");
    return { exists: true, regular: isFile, real: isFile ? Deno.realPathSync(path) : path };
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return { exists: false, regular: false, real: path };
    throw error;
  }
}

/** A device, pipe or socket. */
function streamTarget(path: string): Target {
  const file = Deno.openSync(path, { write: true });
  return { write: (bytes) => writeAll(file, bytes, path), commit: () => file.close(), discard: () => file.close() };
}

/** A regular file, written to a temporary name beside it. */
function renamedTarget(path: string): Target {
  const temporary = `${path}.partial-${Deno.pid}`;
  const file = Deno.openSync(temporary, { write: true, create: true, truncate: true });
  return {
    write: (bytes) => writeAll(file, bytes, path),
    commit: () => {
      file.close();
      Deno.renameSync(temporary, path);
    },
    discard: () => {
      file.close();
      Deno.removeSync(temporary);
    },
  };
}

/** Why a file cannot be written, in words that do not repeat its name. */
function reasonOf(error: unknown): string {
  if (error instanceof Deno.errors.NotFound) return "its folder does not exist";
  if (error instanceof Deno.errors.PermissionDenied) return "permission denied";
  // Deno's own words advise a flag that a compiled binary does not have.
  if (error instanceof Deno.errors.NotCapable) return "exitbox does not write there";
  return error instanceof Error ? error.message : String(error);
}

/** Writes all of the bytes, however few the file takes at a time. Throws {@linkcode OutputFailed}. */
function writeAll(file: Deno.FsFile, bytes: Uint8Array, path: string): void {
  try {
    for (let written = 0; written < bytes.length;) written += file.writeSync(bytes.subarray(written));
  } catch (error) {
    throw new OutputFailed(`"${path}"`, error);
  }
}
