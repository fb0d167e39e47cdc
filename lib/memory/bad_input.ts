/**
 * The one error for input that comes from outside: images, assembler text, dumps, schedules, command lines.
 *
 * @module
 */

/**
 * What the user gave cannot be used. The message is one line: what is wrong, where (file, line, offset or field) and
 * what was expected. The command line prints it and ends with exit code 2.
 *
 * @example
 * ```ts
 * import { BadInput } from "./bad_input.ts";
 *
 * const error = new BadInput("boot.elf: header at offset 0x12: machine 0xb7, expected 3 (386) or 62 (x86-64)");
 * if (error.name !== "BadInput") throw new Error("unexpected name");
 * ```
 */
export class BadInput extends Error {
  /** The class's name, so that it survives a copy between workers. */
  override name = "BadInput";
}
