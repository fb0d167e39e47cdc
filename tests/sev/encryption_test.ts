import { assert, assertEquals, assertNotEquals } from "@std/assert";
import { Random } from "../../lib/memory/random.ts";
import { MemoryCipher } from "../../lib/sev/encryption.ts";

const KEY = Int32Array.of(1, -2, 0x12345678, 77);

function block(cipher: MemoryCipher, words: readonly number[], address: number): number[] {
  cipher.block.set(words);
  cipher.encrypt(address);
  return [...cipher.block];
}

Deno.test("ciphertext: decryption gives back what was encrypted", () => {
  const cipher = new MemoryCipher(KEY);
  const random = Random.seeded(3);
  for (let k = 0; k < 1000; k++) {
    const words = [0, 1, 2, 3].map(() => random.next() | 0);
    const address = random.below(2 ** 28) * 16;
    block(cipher, words, address);
    cipher.decrypt(address);
    assertEquals([...cipher.block], words);
  }
});

Deno.test("ciphertext: the same bytes at the same address under the same key look the same, otherwise not", () => {
  const words = [5, 6, 7, 8];
  const cipher = new MemoryCipher(KEY);
  const first = block(cipher, words, 0x1000);
  assertEquals(block(cipher, words, 0x1000), first);
  assertNotEquals(block(cipher, words, 0x1010), first);
  assertNotEquals(block(new MemoryCipher(Int32Array.of(1, -2, 0x12345678, 78)), words, 0x1000), first);
});

Deno.test("ciphertext: a changed bit changes about half of the block's bits", () => {
  const cipher = new MemoryCipher(KEY);
  const random = Random.seeded(4);
  let changed = 0;
  const rounds = 500;
  for (let k = 0; k < rounds; k++) {
    const words = [0, 1, 2, 3].map(() => random.next() | 0);
    const before = block(cipher, words, 0x40);
    words[random.below(4)] ^= 1 << random.below(32);
    const after = block(cipher, words, 0x40);
    for (let w = 0; w < 4; w++) for (let x = before[w] ^ after[w]; x !== 0; x &= x - 1) changed++;
  }
  assert(Math.abs(changed / rounds - 64) < 2, `${changed / rounds} of 128 bits change`);
});

Deno.test("ciphertext: a page of zeros has no two equal blocks and no zeros", () => {
  const bytes = new Uint8Array(4096);
  new MemoryCipher(KEY).encryptBytes(bytes, 0x7000);
  const blocks = new Set<string>();
  for (let at = 0; at < bytes.length; at += 16) blocks.add(bytes.subarray(at, at + 16).join());
  assertEquals(blocks.size, 256);
  new MemoryCipher(KEY).decryptBytes(bytes, 0x7000);
  assert(bytes.every((byte) => byte === 0));
});
