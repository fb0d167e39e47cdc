/**
 * Interactive stepping: asking whose step comes next, one line at a time.
 *
 * @module
 */

import type { Engine } from "../explore/engine.ts";
import type { RecordedChoice } from "../explore/schedule.ts";
import type { Printer } from "./printer.ts";
import { printable } from "./shell.ts";

/** Bytes that are read at a time. */
const CHUNK_BYTES = 4096;
/** Longest line that is looked at; the rest of a longer one is the next. */
const LINE_MAX = 65_536;

/** Reads lines from a stream such as standard input. */
export class LineReader {
  readonly #source: { readSync(bytes: Uint8Array): number | null };
  #text = "";
  #ended = false;
  readonly #decoder = new TextDecoder();

  /** Lines of `source`. */
  constructor(source: { readSync(bytes: Uint8Array): number | null }) {
    this.#source = source;
  }

  /** The next line without its end, or nothing at the end of the stream. */
  next(): string | undefined {
    for (;;) {
      const end = this.#text.indexOf("\n");
      if (end >= 0 || this.#text.length > LINE_MAX) {
        const line = this.#text.slice(0, end < 0 ? LINE_MAX : end);
        this.#text = this.#text.slice(end < 0 ? LINE_MAX : end + 1);
        return line;
      }
      if (this.#ended) {
        const rest = this.#text;
        this.#text = "";
        return rest === "" ? undefined : rest;
      }
      const chunk = new Uint8Array(CHUNK_BYTES);
      const taken = this.#source.readSync(chunk);
      if (taken === null) this.#ended = true;
      else this.#text += this.#decoder.decode(chunk.subarray(0, taken), { stream: true });
    }
  }
}

/** What was answered. */
export type Answer =
  | { readonly kind: "next" }
  | { readonly kind: "end" }
  | { readonly kind: "actor"; readonly actor: number; readonly outcome: number };

/** Asks for the next step until the answer makes sense. Agents are named, or numbered as they are listed. */
export function stepQuestion(
  engine: Engine,
  number: number,
  recorded: RecordedChoice | undefined,
  lines: LineReader,
  printer: Printer,
): Answer {
  const enabled = engine.enabled();
  const actors = engine.actorNames.map((_, actor) => actor).filter((actor) => (enabled & (1 << actor)) !== 0);
  if (actors.length === 0) {
    printer.line("no agent can take a step");
    return { kind: "end" };
  }
  const named = actors.map((actor) => `${engine.actorNames[actor]} (${engine.stepName(actor)})`).join(", ");
  const usual = recorded === undefined ? "" : ` [${recorded.agent}]`;
  for (;;) {
    printer.line(`step ${number}${usual}: ${named}`);
    const line = lines.next();
    if (line === undefined) return { kind: "end" };
    const [name, outcome = "0"] = line.trim().split(/[ =]+/);
    if (name === "q") return { kind: "end" };
    if (name === "") return { kind: "next" };
    const actor = engine.actor(name);
    if (actors.includes(actor) && /^\d{1,9}$/.test(outcome)) {
      return { kind: "actor", actor, outcome: Number(outcome) };
    }
    printer.line(`"${printable(name)}" cannot take a step now; Enter goes on, q ends`);
  }
}
