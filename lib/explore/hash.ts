/**
 * Mixing functions of the state's fingerprint.
 *
 * A fingerprint is the exclusive or, over all words of the state, of a mix of the word's number and its value, in two
 * independent halves of 32 bits. So it can be kept up to date from the words that a step has changed. Two different
 * states among n have the same fingerprint with probability n^2 / 2^65.
 *
 * @module
 */

/** 2^32 divided by the golden ratio, and another odd constant: they tell equal values in different words apart. */
const SPREAD_LOW = 0x9e3779b1;
const SPREAD_HIGH = 0xc2b2ae3d;

/** The low half's share of word `index` with `value` (finaliser of MurmurHash3). */
export function mixLow(index: number, value: number): number {
  let mixed = (value + Math.imul(index + 1, SPREAD_LOW)) | 0;
  mixed = Math.imul(mixed ^ (mixed >>> 16), 0x85ebca6b);
  mixed = Math.imul(mixed ^ (mixed >>> 13), 0xc2b2ae35);
  return mixed ^ (mixed >>> 16);
}

/** The high half's share (a second finaliser with other constants). */
export function mixHigh(index: number, value: number): number {
  let mixed = (value ^ Math.imul(index + 1, SPREAD_HIGH)) | 0;
  mixed = Math.imul(mixed ^ (mixed >>> 15), 0x2c1b3c6d);
  mixed = Math.imul(mixed ^ (mixed >>> 12), 0x297a2d39);
  return mixed ^ (mixed >>> 15);
}
