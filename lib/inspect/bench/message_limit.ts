/**
 * The raw limit of an exit through a message: what writing 256 bytes of shared memory costs this host, by the fastest of
 * three ways.
 *
 * @module
 */
import { NS_PER_MS } from "./rounds.ts";

/** Bytes of an `HvMessage`. */
const MESSAGE_BYTES = 256;
/** Places that are written in turn. */
const PLACES = 8;
const WORDS64 = MESSAGE_BYTES / 8;
const WORDS32 = MESSAGE_BYTES / 4;
/** Messages written in one measurement of one way. */
const MESSAGES = 20_000;

const u64 = new BigUint64Array(new SharedArrayBuffer((PLACES + 1) * MESSAGE_BYTES));
const i32 = new Int32Array(u64.buffer);
for (let word = 0; word < u64.length; word++) u64[word] = BigInt(word + 1) * 0x0123_4567_89ab_cdefn;
const source = u64.subarray(PLACES * WORDS64);

function bySet(count: number): void {
  for (let n = 0; n < count; n++) u64.set(source, (n & (PLACES - 1)) * WORDS64);
}

function by64(count: number): void {
  for (let n = 0; n < count; n++) {
    const to = (n & (PLACES - 1)) * WORDS64;
    for (let word = 0; word < WORDS64; word++) u64[to + word] = u64[PLACES * WORDS64 + word];
  }
}

function by32(count: number): void {
  for (let n = 0; n < count; n++) {
    const to = (n & (PLACES - 1)) * WORDS32;
    for (let word = 0; word < WORDS32; word++) i32[to + word] = i32[PLACES * WORDS32 + word];
  }
}

/** The ways: `set`, 32 stores of 64 bits, 64 stores of 32 bits. */
const WAYS: readonly ((count: number) => void)[] = [bySet, by64, by32];

/** Nanoseconds of one message, for each way: one round of measurements. */
export function timeMessages(): number[] {
  return WAYS.map((way) => {
    const start = performance.now();
    way(MESSAGES);
    return (performance.now() - start) * NS_PER_MS / MESSAGES;
  });
}
