/**
 * Memory encryption: what the bytes of a private page look like to those who do not have the guest's key.
 *
 * As in the hardware, the cipher works on blocks of 16 bytes and is tweaked by the block's physical address, so that equal
 * plain text at two addresses, or under two keys, looks different, and writing the same bytes again gives the same
 * ciphertext (AMD64 APM volume 2, section 15.34). The block cipher itself is not AES: it is Chaskey's ARX permutation
 * between two additions of a tweak (XEX). It is here to be different bytes, not to keep a secret.
 *
 * @module
 */

/** Bytes of a cipher block: the grain in which a host sees that something has changed. */
export const CIPHER_BLOCK_BYTES = 16;
/** 32-bit words of a key. */
export const KEY_WORDS = 4;

/** Rounds of the permutation: as many as Chaskey-8 has. */
const ROUNDS = 8;
/** Odd constants that spread a block's number over the tweak (binary fractions of the golden ratio and of roots). */
const TWEAK_FACTORS = [0x9e3779b1, 0x85ebca6b, 0xc2b2ae35, 0x27d4eb2f] as const;

/** Cipher of one key. The words of the last block are in {@linkcode MemoryCipher.block}. */
export class MemoryCipher {
  /** The block that `encrypt` and `decrypt` work on, as four little-endian words. */
  readonly block: Int32Array = new Int32Array(KEY_WORDS);
  readonly #key: Int32Array;
  readonly #tweak: Int32Array = new Int32Array(KEY_WORDS);

  /** A cipher with the four words of `key`. They are read at each use: the key may lie in shared memory. */
  constructor(key: Int32Array) {
    this.#key = key;
  }

  /** Encrypts `block` as the one at physical address `address`, a multiple of {@linkcode CIPHER_BLOCK_BYTES}. */
  encrypt(address: number): void {
    this.#mixTweak(address);
    this.#addTweak();
    const b = this.block;
    let [a, x, c, y] = b;
    for (let round = 0; round < ROUNDS; round++) {
      a = (a + x) | 0;
      x = rotate(x, 5) ^ a;
      a = rotate(a, 16);
      c = (c + y) | 0;
      y = rotate(y, 8) ^ c;
      a = (a + y) | 0;
      y = rotate(y, 13) ^ a;
      c = (c + x) | 0;
      x = rotate(x, 7) ^ c;
      c = rotate(c, 16);
    }
    b[0] = a;
    b[1] = x;
    b[2] = c;
    b[3] = y;
    this.#addTweak();
  }

  /** The inverse of {@linkcode MemoryCipher.encrypt}. */
  decrypt(address: number): void {
    this.#mixTweak(address);
    this.#addTweak();
    const b = this.block;
    let [a, x, c, y] = b;
    for (let round = 0; round < ROUNDS; round++) {
      c = rotate(c, 16);
      x = rotate(x ^ c, 25);
      c = (c - x) | 0;
      y = rotate(y ^ a, 19);
      a = (a - y) | 0;
      y = rotate(y ^ c, 24);
      c = (c - y) | 0;
      a = rotate(a, 16);
      x = rotate(x ^ a, 27);
      a = (a - x) | 0;
    }
    b[0] = a;
    b[1] = x;
    b[2] = c;
    b[3] = y;
    this.#addTweak();
  }

  /** Encrypts `bytes` in place, whose first byte has physical address `address`; both multiples of the block. */
  encryptBytes(bytes: Uint8Array, address: number): void {
    this.#eachBlock(bytes, address, (at) => this.encrypt(at));
  }

  /** The inverse of {@linkcode MemoryCipher.encryptBytes}. */
  decryptBytes(bytes: Uint8Array, address: number): void {
    this.#eachBlock(bytes, address, (at) => this.decrypt(at));
  }

  #eachBlock(bytes: Uint8Array, address: number, cipher: (address: number) => void): void {
    const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    const { block } = this;
    for (let at = 0; at < bytes.length; at += CIPHER_BLOCK_BYTES) {
      for (let word = 0; word < KEY_WORDS; word++) block[word] = view.getInt32(at + 4 * word, true);
      cipher(address + at);
      for (let word = 0; word < KEY_WORDS; word++) view.setInt32(at + 4 * word, block[word], true);
    }
  }

  /** The tweak of a block: the key, stirred with the block's number. */
  #mixTweak(address: number): void {
    const number = Math.floor(address / CIPHER_BLOCK_BYTES) | 0;
    for (let word = 0; word < KEY_WORDS; word++) {
      let mixed = Math.imul(number ^ this.#key[word], TWEAK_FACTORS[word]);
      mixed ^= mixed >>> 15;
      this.#tweak[word] = Math.imul(mixed, TWEAK_FACTORS[(word + 1) % KEY_WORDS]) ^ this.#key[(word + 1) % KEY_WORDS];
    }
  }

  #addTweak(): void {
    for (let word = 0; word < KEY_WORDS; word++) this.block[word] ^= this.#tweak[word];
  }
}

/** Rotates a 32-bit word left. */
function rotate(word: number, bits: number): number {
  return (word << bits) | (word >>> (32 - bits));
}
