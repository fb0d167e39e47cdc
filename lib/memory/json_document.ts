/**
 * JSON that comes from outside.
 *
 * @module
 */
import { BadInput } from "./bad_input.ts";

/** What a JSON text says. Throws {@linkcode BadInput}, in one line, when it is cut or none; `name` is what it calls the text. */
export function parseJson(text: string, name: string): unknown {
  try {
    return JSON.parse(text);
  } catch (error) {
    const reason = error instanceof Error ? error.message.split("\n")[0] : String(error);
    throw new BadInput(`${name}: not a whole JSON document: ${reason}`);
  }
}
