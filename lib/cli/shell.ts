/**
 * Command lines as a shell takes them, for the line that says how to repeat what was done.
 *
 * @module
 */

/** Text with control characters as `\xNN`, so that it cannot steer a terminal. */
export function printable(text: string): string {
  // deno-lint-ignore no-control-regex -- finding them is the purpose
  return text.replace(/[\x00-\x1f\x7f-\x9f]/g, (c) => `\\x${c.charCodeAt(0).toString(16).padStart(2, "0")}`);
}

/** A word as a shell takes it. */
export function quoted(word: string): string {
  return /^[\w./:=,+@%-]+$/.test(word) ? word : `'${printable(word).replaceAll("'", "'\\''")}'`;
}

/** The command line of `exitbox` with these words. */
export function commandLine(words: readonly string[]): string {
  return ["exitbox", ...words.map(quoted)].join(" ");
}
