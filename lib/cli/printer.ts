/**
 * Everything that a command prints. Standard output carries results only; notes, warnings and progress go to standard
 * error. Colour is for terminals and honours NO_COLOR.
 *
 * @module
 */

import { OutputClosed, OutputFailed } from "./errors.ts";

/** When colour is used. */
export type ColorMode = "auto" | "always" | "never";

/** A stream to print to, such as `Deno.stdout`. */
export interface Sink {
  /** Writes some of the bytes and returns how many. */
  writeSync(bytes: Uint8Array): number;
  /** Whether it is a terminal. */
  isTerminal(): boolean;
}

/** How a printer behaves, and where it prints. */
export interface PrinterOptions {
  /** When colour is used. */
  readonly color: ColorMode;
  /** No notes and no progress. */
  readonly quiet: boolean;
  /** For results; standard output unless given. */
  readonly output?: Sink;
  /** For notes and progress; standard error unless given. */
  readonly error?: Sink;
  /** The time in milliseconds; the monotonic clock unless given. */
  readonly now?: () => number;
}

/** A column of a table. */
export interface Column {
  /** The header. */
  readonly title: string;
  /** Numbers are aligned at the right. */
  readonly align: "left" | "right";
}

/** Escape sequences (ECMA-48, SGR) by style. */
const STYLES = { bold: "\x1b[1m", dim: "\x1b[2m", red: "\x1b[31m", green: "\x1b[32m", yellow: "\x1b[33m" } as const;

/** Ends every style. */
const STYLE_END = "\x1b[0m";

/** Returns to the start of the line and clears it. */
const CLEAR_LINE = "\r\x1b[K";

/** A command that takes less, in milliseconds, shows no progress. */
const PROGRESS_AFTER_MS = 2_000;

/** Time between two updates of the progress line on a terminal, in milliseconds. */
const PROGRESS_TERMINAL_MS = 200;

/** Time between two lines of progress in a log, in milliseconds. */
const PROGRESS_LOG_MS = 10_000;

/** Columns that a progress line may take, so that it never wraps on an ordinary terminal. */
const PROGRESS_WIDTH = 79;

const NEWLINE = 10;

const encoder = new TextEncoder();

/** Prints a command's results, notes and progress. */
export class Printer {
  readonly #output: Sink;
  readonly #error: Sink;
  readonly #color: boolean;
  readonly #quiet: boolean;
  readonly #now: () => number;
  readonly #start: number;
  #progressAt = -Infinity;
  #progressShown = false;
  /** Whether what stands on the terminal, or in a log of standard error, ends inside a line. */
  #lineIsOpen = false;

  /** Makes a printer; the two seconds before progress shows start here. */
  constructor(options: PrinterOptions) {
    this.#output = options.output ?? Deno.stdout;
    this.#error = options.error ?? Deno.stderr;
    this.#color = options.color === "always" ||
      (options.color === "auto" && !Deno.noColor && this.#output.isTerminal());
    this.#quiet = options.quiet;
    this.#now = options.now ?? (() => performance.now());
    this.#start = this.#now();
  }

  /** Prints one line of the result. */
  line(text = ""): void {
    this.write(encoder.encode(`${text}\n`));
  }

  /** Prints one JSON value of the result on one line; 64-bit values are the caller's to turn into text. */
  json(value: unknown): void {
    this.line(JSON.stringify(value));
  }

  /** Prints a table of the result. */
  table(columns: readonly Column[], rows: readonly (readonly string[])[]): void {
    const [header, ...body] = tableLines(columns, rows);
    this.line(this.style("bold", header));
    for (const line of body) this.line(line);
  }

  /**
   * Writes bytes of the result, such as what a guest sent to its serial port. Throws {@linkcode OutputClosed}, and
   * {@linkcode OutputFailed} where there is no room.
   */
  write(bytes: Uint8Array): void {
    this.#clearProgress();
    if (this.#output.isTerminal()) this.#lineIsOpen = endsInLine(bytes, this.#lineIsOpen);
    try {
      writeAll(this.#output, bytes);
    } catch (error) {
      if (error instanceof Deno.errors.BrokenPipe) throw new OutputClosed("Standard output is closed");
      throw new OutputFailed("standard output", error);
    }
  }

  /** Writes bytes to standard error, where results own standard output; not silenced by `--quiet`. */
  writeError(bytes: Uint8Array): void {
    this.#clearProgress();
    this.#lineIsOpen = endsInLine(bytes, this.#lineIsOpen);
    this.#toError(bytes);
  }

  /** Prints one line to standard error unless quiet: a warning, or what is being done. */
  note(text: string): void {
    if (!this.#quiet) this.error(text);
  }

  /** Prints one line to standard error, quiet or not; a line that a guest has begun there ends first. */
  error(text: string): void {
    this.writeError(encoder.encode(`${this.#lineIsOpen ? "\n" : ""}${text}\n`));
  }

  /** Shows how far a long job is: nothing in its first two seconds, then a line that is kept up to date. */
  progress(text: string): void {
    const now = this.#now();
    const terminal = this.#error.isTerminal();
    const interval = terminal ? PROGRESS_TERMINAL_MS : PROGRESS_LOG_MS;
    if (this.#quiet || now - this.#start < PROGRESS_AFTER_MS || now - this.#progressAt < interval) return;
    this.#progressAt = now;
    this.#progressShown = terminal;
    this.#toError(encoder.encode(terminal ? CLEAR_LINE + text.slice(0, PROGRESS_WIDTH) : `${text}\n`));
  }

  /** The text in a style, or as it is where there is no colour. */
  style(name: keyof typeof STYLES, text: string): string {
    return this.#color ? STYLES[name] + text + STYLE_END : text;
  }

  /** Removes the progress line, so that what follows starts on an empty one. */
  #clearProgress(): void {
    if (!this.#progressShown) return;
    this.#progressShown = false;
    this.#toError(encoder.encode(CLEAR_LINE));
  }

  /** Writes to standard error; nobody is left to be told when that is closed or full. */
  #toError(bytes: Uint8Array): void {
    try {
      writeAll(this.#error, bytes);
    } catch {
      // The result and the exit code still come.
    }
  }
}

/** The lines of a table, the header first; columns are two spaces apart and as wide as their widest cell. */
export function tableLines(columns: readonly Column[], rows: readonly (readonly string[])[]): string[] {
  const all = [columns.map((column) => column.title), ...rows];
  const widths = columns.map((_, index) => Math.max(...all.map((row) => (row[index] ?? "").length)));
  return all.map((row) =>
    columns.map(({ align }, index) => {
      const cell = row[index] ?? "";
      return align === "right" ? cell.padStart(widths[index]) : cell.padEnd(widths[index]);
    }).join("  ").trimEnd()
  );
}

/** Whether a stream ends inside a line after these bytes; `before` is whether it did before them. */
function endsInLine(bytes: Uint8Array, before: boolean): boolean {
  return bytes.length === 0 ? before : bytes[bytes.length - 1] !== NEWLINE;
}

/** Writes all of the bytes, however few the stream takes at a time. */
function writeAll(sink: Sink, bytes: Uint8Array): void {
  for (let written = 0; written < bytes.length;) written += sink.writeSync(bytes.subarray(written));
}
