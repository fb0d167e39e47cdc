/**
 * Values as they are written on the command line: numbers, sizes, times and policies.
 *
 * Numbers are decimal or `0x…`; sizes also take K, M and G, powers of 1024. Every error names the flag and quotes the
 * text.
 *
 * @module
 */

import { BadInput } from "../memory/bad_input.ts";
import { policyNamed, policyValue } from "../memory/policy.ts";

/** A whole number, decimal or hexadecimal. */
const WHOLE = /^(?:[0-9]+|0[xX][0-9a-fA-F]+)$/;

/** A whole number with a size letter. */
const SIZE = /^([0-9]+|0[xX][0-9a-fA-F]+)([KMG]?)$/i;

/** A decimal number of seconds, with or without a fraction. */
const SECONDS = /^(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)$/;

/** Bytes per size letter. */
const SIZE_UNIT: Readonly<Record<string, bigint>> = { "": 1n, K: 1n << 10n, M: 1n << 20n, G: 1n << 30n };

/** Longest number that is looked at: no value that is in range needs more digits. */
const DIGITS_MAX = 64;

/** The largest unsigned number of 64 bits. */
const U64_MAX = 0xffff_ffff_ffff_ffffn;

/** The smallest and the largest value accepted, both included. */
export interface Range {
  /** The smallest; 0 unless given. */
  readonly min?: number;
  /** The largest; 2^53 - 1 unless given. */
  readonly max?: number;
}

/**
 * Parses a whole number.
 *
 * @param text What the user wrote.
 * @param flag Where, for the error: `--vps`.
 * @param range What is accepted.
 * @returns The number. Throws {@linkcode BadInput} when it is malformed or out of range.
 */
export function parseInteger(text: string, flag: string, range: Range = {}): number {
  const value = wholeNumber(text, flag);
  return Number(within(value, text, flag, BigInt(range.min ?? 0), BigInt(range.max ?? Number.MAX_SAFE_INTEGER)));
}

/**
 * Parses an unsigned number of up to 64 bits, such as an address or a seed.
 *
 * @param text What the user wrote.
 * @param flag Where, for the error.
 * @returns The number. Throws {@linkcode BadInput} when it is malformed or needs more than 64 bits.
 */
export function parseU64(text: string, flag: string): bigint {
  return within(wholeNumber(text, flag), text, flag, 0n, U64_MAX);
}

/**
 * Parses a size in bytes.
 *
 * @param text What the user wrote: `16M`, `0x10000`, `4096`.
 * @param flag Where, for the error.
 * @param range What is accepted, in bytes.
 * @returns The bytes. Throws {@linkcode BadInput} when the text is malformed or out of range.
 */
export function parseSize(text: string, flag: string, range: Range = {}): number {
  const match = text.length > DIGITS_MAX ? null : SIZE.exec(text);
  if (match === null) throw new BadInput(`${flag}: "${text}" is not a size, expected a number with K, M or G or none`);
  const value = BigInt(match[1]) * SIZE_UNIT[match[2].toUpperCase()];
  return Number(within(value, text, flag, BigInt(range.min ?? 0), BigInt(range.max ?? Number.MAX_SAFE_INTEGER)));
}

/**
 * Parses a time in seconds, with or without a fraction.
 *
 * @param text What the user wrote: `10`, `0.5`.
 * @param flag Where, for the error.
 * @returns The seconds. Throws {@linkcode BadInput} when the text is malformed.
 */
export function parseSeconds(text: string, flag: string): number {
  if (text.length > DIGITS_MAX || !SECONDS.test(text)) {
    throw new BadInput(`${flag}: "${text}" is not a time, expected seconds such as 10 or 0.5`);
  }
  return Number(text);
}

/**
 * Parses one of several words.
 *
 * @param text What the user wrote.
 * @param flag Where, for the error.
 * @param words The words accepted.
 * @returns The word. Throws {@linkcode BadInput} that lists them when it is none.
 */
export function parseWord<W extends string>(text: string, flag: string, words: readonly W[]): W {
  const word = words.find((candidate) => candidate === text);
  if (word === undefined) throw new BadInput(`${flag}: "${text}" is not one of ${words.join(", ")}`);
  return word;
}

/**
 * Parses numbers of VPs.
 *
 * @param text What the user wrote: `1,3-5`.
 * @param flag Where, for the error.
 * @param max The largest number accepted.
 * @returns The numbers, ascending, each once. Throws {@linkcode BadInput} when the text is malformed or out of range.
 */
export function parseVpList(text: string, flag: string, max: number): number[] {
  const vps = new Set<number>();
  for (const part of text.split(",")) {
    const [first, last = first, ...more] = part.split("-");
    if (more.length > 0) throw new BadInput(`${flag}: "${part}" is not a VP or a range of VPs, expected such as 1,3-5`);
    const from = parseInteger(first, flag, { max });
    const to = parseInteger(last, flag, { min: from, max });
    for (let vp = from; vp <= to; vp++) vps.add(vp);
  }
  return [...vps].sort((a, b) => a - b);
}

/** A VP and a time. */
export interface VpTime {
  /** The VP. */
  readonly vp: number;
  /** The time in seconds. */
  readonly seconds: number;
}

/**
 * Parses `VP@SECONDS`.
 *
 * @param text What the user wrote: `3@0.5`.
 * @param flag Where, for the error.
 * @returns The VP and the time. Throws {@linkcode BadInput} when the text is malformed.
 */
export function parseVpTime(text: string, flag: string): VpTime {
  const at = text.indexOf("@");
  if (at < 0) throw new BadInput(`${flag}: "${text}" is not VP@SECONDS, expected such as 1@0.5`);
  return { vp: parseInteger(text.slice(0, at), flag), seconds: parseSeconds(text.slice(at + 1), flag) };
}

/**
 * Parses `NAME=VALUE` of the policies that are declared.
 *
 * @param texts What the user wrote, one per occurrence of the flag.
 * @param flag Where, for the error.
 * @returns The chosen value by policy name. Throws {@linkcode BadInput} for an unknown name or value, and for a policy
 * that is given twice.
 */
export function parsePolicies(texts: readonly string[], flag: string): ReadonlyMap<string, string> {
  const chosen = new Map<string, string>();
  for (const text of texts) {
    const equals = text.indexOf("=");
    if (equals <= 0 || equals === text.length - 1) {
      throw new BadInput(`${flag}: "${text}" is not a policy, expected NAME=VALUE`);
    }
    const name = text.slice(0, equals);
    const value = text.slice(equals + 1);
    // Only for its check: the machine stores the number, the command line and reports speak in names.
    policyValue(policyNamed(name), value);
    if (chosen.has(name)) throw new BadInput(`${flag}: policy "${name}" is given twice`);
    chosen.set(name, value);
  }
  return chosen;
}

/** The number that the text spells. */
function wholeNumber(text: string, flag: string): bigint {
  if (text.length > DIGITS_MAX || !WHOLE.test(text)) {
    throw new BadInput(`${flag}: "${text}" is not a number, expected decimal or 0x...`);
  }
  return BigInt(text);
}

/** The value, when it is in range. */
function within(value: bigint, text: string, flag: string, min: bigint, max: bigint): bigint {
  if (value < min || value > max) throw new BadInput(`${flag}: ${text} is out of range, expected ${min} to ${max}`);
  return value;
}
