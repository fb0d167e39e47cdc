/**
 * How a command's errors become one line on standard error and an exit code.
 *
 * @module
 */

import { BadInput } from "../memory/bad_input.ts";
import { EXIT } from "./exit_codes.ts";

/** The command line itself is wrong; the message ends by naming the help that explains it. */
export class UsageError extends BadInput {
  /** The class's name. */
  override name = "UsageError";

  /**
   * @param message What is wrong and what was expected, without a final period.
   * @param command The command whose help explains it, or "" for the overview.
   */
  constructor(message: string, command: string) {
    super(`${message} (see "exitbox help${command === "" ? "" : ` ${command}`}")`);
  }
}

/** The reader of standard output has closed it; the command ends without a word. */
export class OutputClosed extends Error {
  /** The class's name. */
  override name = "OutputClosed";
}

/** Something cannot be written: the disk is full, say. The tool is not to blame, so the command ends with one line. */
export class OutputFailed extends Error {
  /** The class's name. */
  override name = "OutputFailed";

  /**
   * @param what What is being written, such as `standard output`.
   * @param reason Why it cannot be.
   */
  constructor(what: string, reason: unknown) {
    super(`cannot write ${what}: ${reason instanceof Error ? reason.message : String(reason)}`);
  }
}

/** What the process reports for an error that ended a command. */
export interface ErrorReport {
  /** The exit code. */
  readonly code: number;
  /** What goes to standard error, or null for nothing. */
  readonly text: string | null;
}

/** Control characters, which a hostile file name or field could use to reach the terminal. */
// deno-lint-ignore no-control-regex -- finding them is the purpose
const CONTROL = /[\x00-\x1f\x7f-\x9f]/g;

/** Most letters of a message; the rest of a hostile argument is cut off. */
const MESSAGE_LENGTH_MAX = 1_000;

/**
 * Classifies an error: bad input is one line, an error of the tool also shows where it happened.
 *
 * @param error What was thrown.
 * @returns The exit code, and the text for standard error.
 */
export function reportOf(error: unknown): ErrorReport {
  if (error instanceof OutputClosed) return { code: EXIT.OUTPUT_CLOSED, text: null };
  if (error instanceof OutputFailed) return { code: EXIT.TOOL_FAILURE, text: `exitbox: ${oneLine(error.message)}` };
  if (error instanceof BadInput) return { code: EXIT.USAGE, text: `exitbox: ${oneLine(error.message)}` };
  if (error instanceof Error) {
    const text = `exitbox: internal error: ${oneLine(error.message)}`;
    return { code: EXIT.TOOL_FAILURE, text: error.stack === undefined ? text : `${text}\n${error.stack}` };
  }
  return { code: EXIT.TOOL_FAILURE, text: `exitbox: internal error: ${oneLine(String(error))}` };
}

/** The text on one line of bounded length, control characters shown as `\xNN`. */
function oneLine(text: string): string {
  const cut = text.length > MESSAGE_LENGTH_MAX ? `${text.slice(0, MESSAGE_LENGTH_MAX)}...` : text;
  return cut.replace(CONTROL, (letter) => `\\x${letter.charCodeAt(0).toString(16).padStart(2, "0")}`);
}
