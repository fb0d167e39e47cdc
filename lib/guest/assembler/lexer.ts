/**
 * Cuts one line of assembler text into tokens.
 *
 * @module
 */

import { BadInput } from "../../memory/bad_input.ts";

/** One word, number, string or sign of a line. */
export interface Token {
  /** What the token is; `punctuation` has its characters in `text`. */
  readonly kind: "name" | "number" | "string" | "punctuation";
  /** The characters as written (of a string: without its quotes). */
  readonly text: string;
  /** A number's value; of a string its first eight bytes, little-endian. */
  readonly value: bigint;
  /** A string's bytes. */
  readonly bytes: Uint8Array;
}

/** Longest name, in characters. */
const NAME_LENGTH_MAX = 255;

const NO_BYTES = new Uint8Array(0);
const NAME = /[A-Za-z_.?@][\w.?@$#~]*/y;
const NUMBER = /[0-9][0-9A-Za-z_]*/y;
const PUNCTUATION = /<<|>>|\$\$|[-+*\/%&|^~(),:\[\]$]/y;
const SPACE = /\s+/y;
const ESCAPES: Readonly<Record<string, number>> = {
  "0": 0,
  a: 7,
  b: 8,
  t: 9,
  n: 10,
  v: 11,
  f: 12,
  r: 13,
  e: 27,
  "\\": 0x5c,
  "'": 0x27,
  '"': 0x22,
  "`": 0x60,
};

function parseNumber(text: string): bigint {
  if (text.length > NAME_LENGTH_MAX) {
    throw new BadInput(`number of ${text.length} characters, expected at most ${NAME_LENGTH_MAX}`);
  }
  const plain = text.replaceAll("_", "").toLowerCase();
  const value = /^(0x[0-9a-f]+|0b[01]+|0o[0-7]+|[0-9]+)$/.test(plain)
    ? plain
    : /^[0-9][0-9a-f]*h$/.test(plain)
    ? `0x${plain.slice(0, -1)}`
    : undefined;
  if (value === undefined) throw new BadInput(`"${text}" is not a number, expected decimal, 0x…, 0b…, 0o… or …h`);
  const number = BigInt(value);
  if (number >> 64n) throw new BadInput(`number ${text} has more than 64 bits`);
  return number;
}

/** Reads a string from its opening quote; backquoted strings know escapes, the others are literal. */
function readString(line: string, start: number): { bytes: Uint8Array; text: string; end: number } {
  const quote = line[start];
  const end = quote === "`" ? backquoteEnd(line, start + 1) : line.indexOf(quote, start + 1);
  if (end < 0) throw new BadInput(`string is not closed, expected ${quote}`);
  const text = line.slice(start + 1, end);
  const bytes = quote === "`" ? unescape(text) : new TextEncoder().encode(text);
  return { bytes, text, end: end + 1 };
}

function backquoteEnd(line: string, from: number): number {
  for (let at = from; at < line.length; at++) {
    if (line[at] === "\\") at++;
    else if (line[at] === "`") return at;
  }
  return -1;
}

function unescape(text: string): Uint8Array {
  const bytes: number[] = [];
  const encoder = new TextEncoder();
  for (
    const [part, escaped, hex] of text.matchAll(/\\x([0-9A-Fa-f]{2})|\\([^])|[^\\]+/g).map((m) => [m[0], m[2], m[1]])
  ) {
    if (hex !== undefined) bytes.push(parseInt(hex, 16));
    else if (escaped === undefined) bytes.push(...encoder.encode(part));
    else if (escaped in ESCAPES) bytes.push(ESCAPES[escaped]);
    else throw new BadInput(`unknown escape \\${escaped} in a string`);
  }
  return Uint8Array.from(bytes);
}

function littleEndian(bytes: Uint8Array): bigint {
  return bytes.subarray(0, 8).reduceRight((value, byte) => value << 8n | BigInt(byte), 0n);
}

/**
 * Cuts a line into tokens, up to its end or a `;` comment.
 *
 * @param line One line without its end.
 * @returns The tokens.
 * @throws {BadInput} For a malformed number or string, or a character that means nothing here.
 */
export function tokenize(line: string): Token[] {
  const tokens: Token[] = [];
  let at = 0;
  const match = (pattern: RegExp): string | undefined => {
    pattern.lastIndex = at;
    return pattern.exec(line)?.[0];
  };
  while (at < line.length) {
    const character = line[at];
    if (character === ";") break;
    let text = match(SPACE);
    if (text === undefined) {
      if (character === "'" || character === '"' || character === "`") {
        const string = readString(line, at);
        tokens.push({ kind: "string", text: string.text, value: littleEndian(string.bytes), bytes: string.bytes });
        at = string.end;
        continue;
      }
      if ((text = match(NUMBER)) !== undefined) {
        tokens.push({ kind: "number", text, value: parseNumber(text), bytes: NO_BYTES });
      } else if ((text = match(NAME)) !== undefined) {
        if (text.length > NAME_LENGTH_MAX) {
          throw new BadInput(`name of ${text.length} characters, expected at most ${NAME_LENGTH_MAX}`);
        }
        tokens.push({ kind: "name", text, value: 0n, bytes: NO_BYTES });
      } else if ((text = match(PUNCTUATION)) !== undefined) {
        tokens.push({ kind: "punctuation", text, value: 0n, bytes: NO_BYTES });
      } else {
        throw new BadInput(`unexpected character "${character}"`);
      }
    }
    at += text.length;
  }
  return tokens;
}
