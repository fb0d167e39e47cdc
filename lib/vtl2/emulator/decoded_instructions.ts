/**
 * Instructions that intercept messages bring along, decoded and classified once: a guest that accesses devices does so with
 * few instructions, again and again.
 *
 * @module
 */
import type { Decoder } from "../../cpu/decode.ts";
import type { Insn } from "../../cpu/insn.ts";
import { HvMessageType } from "../../layout/hyperv/constants/messages.ts";
import { HvX64IoPortInterceptMessage, HvX64MemoryInterceptMessage } from "../../layout/hyperv/messages.ts";
import type { MachineMemory } from "../../memory/machine_memory.ts";
import { PAYLOAD } from "../context.ts";
import { hasMemoryOperand, isInteger, isString, usesSystemState } from "./instruction_class.ts";

const type = HvMessageType.values;
/** Where a message has the instruction's bytes, and how many of them are valid. */
const IO_PORT = bytesOf(HvX64IoPortInterceptMessage.at);
const MEMORY = bytesOf(HvX64MemoryInterceptMessage.at);

function bytesOf(at: { readonly instruction_byte_count: number; readonly instruction_bytes: number }) {
  return { count: PAYLOAD + at.instruction_byte_count, bytes: PAYLOAD + at.instruction_bytes };
}

/** Instructions that are remembered, a power of two. */
const ENTRIES = 64;
/** Bytes of an instruction in a message, as words. */
const BYTES = 16;
const WORDS = BYTES / 4;
/** What spreads an instruction's words over the entries (Knuth, The Art of Computer Programming, volume 3, 6.4). */
const GOLDEN_RATIO = 0x9e3779b1;
const INDEX_SHIFT = 32 - Math.log2(ENTRIES);

/** An instruction and what the emulator wants to know of it. */
export interface Decoded {
  readonly insn: Insn;
  readonly isString: boolean;
  readonly hasMemoryOperand: boolean;
  readonly usesSystemState: boolean;
  /** Whether it leaves the x87/SSE state alone; false for any of which that is not known. */
  readonly isInteger: boolean;
}

/** What the emulator wants to know of an instruction. */
export function classify(insn: Insn): Decoded {
  return {
    insn,
    isString: isString(insn),
    hasMemoryOperand: hasMemoryOperand(insn),
    usesSystemState: usesSystemState(insn),
    isInteger: isInteger(insn),
  };
}

/** The instructions of messages. The last one of those that share an entry is remembered. */
export class DecodedInstructions {
  readonly #memory: MachineMemory;
  readonly #decoder: Decoder;
  readonly #decoded: (Decoded | undefined)[] = new Array(ENTRIES).fill(undefined);
  /** The bytes, number of bytes and code size of each entry, as words. */
  readonly #keys = new Int32Array(ENTRIES * (WORDS + 1));
  readonly #bytes = new Uint8Array(BYTES);

  /** Instructions in messages in `memory`, decoded by `decoder`. */
  constructor(memory: MachineMemory, decoder: Decoder) {
    this.#memory = memory;
    this.#decoder = decoder;
  }

  /** The instruction that the message at byte offset `message` holds completely, or nothing. `codeSize` is in bits. */
  of(message: number, codeSize: number): Decoded | undefined {
    const { i32, u8 } = this.#memory;
    const typ = i32[message >>> 2] >>> 0;
    const place = typ === type.HvMessageTypeX64IoPortIntercept ? IO_PORT : MEMORY;
    if (place === MEMORY && typ !== type.HvMessageTypeUnmappedGpa && typ !== type.HvMessageTypeGpaIntercept) return;
    const count = u8[message + place.count];
    if (count === 0 || count > BYTES) return;
    const words = (message + place.bytes) >>> 2;
    const first = i32[words];
    const mode = codeSize << 8 | count;
    const index = Math.imul(first ^ i32[words + 1], GOLDEN_RATIO) >>> INDEX_SHIFT;
    const key = index * (WORDS + 1);
    const keys = this.#keys;
    if (
      keys[key] === first && keys[key + 1] === i32[words + 1] && keys[key + 2] === i32[words + 2] &&
      keys[key + 3] === i32[words + 3] && keys[key + WORDS] === mode
    ) return this.#decoded[index];
    for (let k = 0; k < WORDS; k++) keys[key + k] = i32[words + k];
    keys[key + WORDS] = mode;
    const bytes = message + place.bytes;
    this.#bytes.set(u8.subarray(bytes, bytes + BYTES));
    const insn = this.#decoder.decode(this.#bytes, 0, count, codeSize);
    return this.#decoded[index] = insn === null ? undefined : classify(insn);
  }
}
