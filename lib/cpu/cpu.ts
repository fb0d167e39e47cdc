/**
 * One virtual processor: state in the shared memory, executed by an interpreter of pre-decoded blocks.
 *
 * ```
 * CpuRegisters (views, mode) -> CpuFlags (lazy flags) -> CpuTranslation (linear addresses, TLB) ->
 * CpuMemory (loads and stores) -> CpuUpdate (read-modify-write, stack) -> Cpu (decode, run, exits)
 * ```
 *
 * Not modelled: see the opcode map; an instruction that real processors have and this one lacks raises #UD and is listed
 * in `unimplemented`.
 *
 * @module
 */

import { ACCESS_EXECUTE, type CpuBus } from "./bus.ts";
import { Block, BLOCK_INSTRUCTIONS_MAX, BlockCache, linearIndex, rememberBytes, rememberTail } from "./block_cache.ts";
import { Decoder } from "./decode.ts";
import { VECTOR_GP } from "./faults.ts";
import { LZ_NONE } from "./flags.ts";
import type { Insn } from "./insn.ts";
import type { MachineMemory } from "../memory/machine_memory.ts";
import { CpuUpdate } from "./update_access.ts";
import { OPCODES } from "./opcode_map.ts";
import { run } from "./run.ts";
import {
  CpuState,
  CS,
  EXIT_EXCEPTION,
  EXIT_NONE,
  FLAG_ONE,
  FLAG_RF,
  FLAG_TF,
  FLAGS_DEFINED,
  STOP_AFTER,
  STOP_EXIT,
} from "./state.ts";

const at = CpuState.at;
const RIP = at.rip >> 2;
const RFLAGS = at.rflags >> 2;
const DR7 = at.dr7 >> 2;
const SHADOW = at.interrupt_shadow >> 2;
const ACTIVITY = at.activity >> 2;
const EVENT = at.event >> 2;
const NMI_PENDING = at.nmi_pending >> 2;
const PENDING_DB = at.pending_db >> 2;
const EXIT_REASON = at.exit_reason >> 2;
const EXIT_VECTOR = at.exit_vector >> 2;
const EXIT_ERROR = at.exit_error >> 2;
const EXIT_HAS_ERROR = at.exit_has_error >> 2;
const EXIT_BYTES = at.exit_bytes;
const EXIT_BYTE_COUNT = at.exit_byte_count >> 2;
const EXIT_GVA = at.exit_gva >> 2;

/** `slow`: instructions run one by one, with the checks of debug.ts around them. */
export const SLOW_TRACE = 1;
/** `slow`: an interrupt shadow, an event, an NMI or an activity state asks for attention. */
export const SLOW_EVENT = 2;

/** DR7 bits that enable a breakpoint. */
const DR7_ENABLES = 0xff;
/** Bytes copied for decoding one block. */
const DECODE_WINDOW = 512;
/** Bytes of a page. */
const PAGE_BYTES = 4096;
/** How far before a block's first byte its code span begins, see `codeLo`: a store of up to 16 bytes can reach into it. */
const CODE_BEFORE = 15;
/** Masks of the lowest 0 to 8 bytes. */
const LOW_BYTES = BigUint64Array.from({ length: 9 }, (_, bytes) => (1n << BigInt(8 * bytes)) - 1n);
/** Most different instructions listed in `unimplemented`. */
const UNIMPLEMENTED_MAX = 256;

/** Options of a {@linkcode Cpu}. */
export interface CpuOptions {
  /** Byte offset of a 32-bit word shared by all processors, which serialises misaligned locked accesses. */
  readonly splitLock?: number;
}

/** A virtual processor. */
export class Cpu extends CpuUpdate {
  /** Decodes instructions; usable apart from `run`. */
  readonly decoder: Decoder = new Decoder(OPCODES);
  /** Decoded blocks. */
  readonly blocks: BlockCache = new BlockCache();
  /** Instructions that raised #UD because they are not implemented: mnemonic and bytes, with how often. */
  readonly unimplemented: Map<string, number> = new Map();
  /** SLOW_* bits; see `updateSlow`. */
  slow = 0;
  /** Set when a repeated string instruction stopped in the middle, to be continued; the caller may clear it. */
  repeating = false;
  /**
   * Pause-loop exiting: PAUSEs in one `run` after which that returns, since the guest waits for another processor; 0 for
   * never. For a runtime that has something else to do meanwhile.
   */
  pauseLimit = 0;
  /** PAUSEs since the last `run` began. */
  pauses = 0;
  /** What `blocks` are found under: mode bits and the TLB generation. */
  blockKey = 0;
  readonly #window: Uint8Array = new Uint8Array(DECODE_WINDOW + 16);

  /** A processor whose `CpuState` lies at byte offset `base` of the memory. */
  constructor(memory: MachineMemory, base: number, bus: CpuBus, options: CpuOptions = {}) {
    super(memory, base, bus, options.splitLock ?? base + at.split_lock);
    this.updateMode();
  }

  /**
   * Executes at most `instructions` instructions and returns why it stopped: EXIT_*. EXIT_NONE when the budget is used up
   * or attention asked for it. The state in the memory is complete on return.
   */
  run(instructions: number): number {
    this.pauses = 0;
    return run(this, instructions);
  }

  /** Whether the last `run` ended because of {@linkcode Cpu.pauseLimit}. */
  get pausing(): boolean {
    return this.pauseLimit !== 0 && this.pauses >= this.pauseLimit;
  }

  /** PAUSE. */
  pause(): void {
    if (++this.pauses !== this.pauseLimit) return;
    this.s32[EXIT_REASON] = EXIT_NONE;
    this.stop |= STOP_AFTER;
  }

  /** Derives the mode fields and what depends on them. */
  override updateMode(): void {
    super.updateMode();
    this.updateKey();
    this.updateSlow();
  }

  /** Recomputes `blockKey`. */
  updateKey(): void {
    const size = this.codeSize === 64 ? 2 : this.codeSize === 32 ? 1 : 0;
    this.blockKey = (this.generation << 3) | (this.cpl === 3 ? 4 : 0) | size;
  }

  /** Drops every translation. */
  override flushTlb(): void {
    super.flushTlb();
    this.updateKey();
  }

  /** Drops everything that is only a cache and derives the rest from the state; for a memory that was replaced. */
  flushCaches(): void {
    this.lzOp = LZ_NONE;
    this.flushTlb();
    this.updateMode();
  }

  /** Recomputes `slow`, after a change of TF, RF, DR7, the shadow, the activity or a pending event. */
  updateSlow(): void {
    const s32 = this.s32;
    let slow = 0;
    if ((s32[RFLAGS] & (FLAG_TF | FLAG_RF)) !== 0 || (s32[DR7] & DR7_ENABLES) !== 0) slow = SLOW_TRACE;
    if (s32[SHADOW] !== 0) slow |= SLOW_TRACE;
    if ((s32[ACTIVITY] | s32[EVENT] | s32[NMI_PENDING] | s32[PENDING_DB]) !== 0) slow |= SLOW_EVENT;
    this.slow = slow;
  }

  /** Replaces RFLAGS (the low half; the high one is zero), with bit 1 set and undefined bits clear. */
  setFlags(flags: number): void {
    this.lzOp = LZ_NONE;
    this.s32[RFLAGS] = (flags & FLAGS_DEFINED) | FLAG_ONE;
    this.s32[RFLAGS + 1] = 0;
    this.updateMode();
  }

  /** Sets an interrupt shadow (SHADOW_STI, SHADOW_MOV_SS) for the next instruction. */
  setShadow(shadow: number): void {
    this.s32[SHADOW] = shadow;
    this.updateSlow();
  }

  /** Leaves `run` with `reason` after the executor returns; RIP goes back to the instruction. */
  exit(reason: number): void {
    this.s32[EXIT_REASON] = reason;
    this.stop |= STOP_EXIT;
  }

  /** Makes an exception that the bus intercepts an exit; false when it is to be delivered. */
  interceptException(vector: number, hasError: boolean, error: number): boolean {
    if (!this.bus.interceptsException(vector)) return false;
    const s32 = this.s32;
    s32[EXIT_VECTOR] = vector;
    s32[EXIT_HAS_ERROR] = hasError ? 1 : 0;
    s32[EXIT_ERROR] = error;
    s32[EXIT_GVA] = this.fault.cr2Lo;
    s32[EXIT_GVA + 1] = this.fault.cr2Hi;
    this.exit(EXIT_EXCEPTION);
    return true;
  }

  /** Notes an instruction that real processors have and this one does not. */
  reportUnimplemented(description: string): void {
    const seen = this.unimplemented.get(description);
    if (seen === undefined && this.unimplemented.size >= UNIMPLEMENTED_MAX) return;
    this.unimplemented.set(description, (seen ?? 0) + 1);
  }

  /** Puts RIP back to a repeated string instruction that stopped between two elements. */
  repeatLater(i: Insn): void {
    const lo = (this.blockLo + i.offset) | 0;
    this.s32[RIP] = lo;
    this.s32[RIP + 1] = (lo >>> 0) < (this.blockLo >>> 0) && this.long64 ? this.blockHi + 1 : this.blockHi;
    this.repeating = true;
  }

  /** Sets RIP; the caller has checked the target. */
  jump(lo: number, hi: number): void {
    this.s32[RIP] = lo;
    this.s32[RIP + 1] = hi;
  }

  /**
   * Puts the bytes of `i`, the instruction of the running block that RIP points to, into the exit record, as far as they
   * can be read without a fault. What is left of the sixteen bytes is zero.
   */
  recordInstructionBytes(i: Insn): void {
    const { s32, s64, dv } = this;
    const length = i.length;
    const place = this.codeLo + CODE_BEFORE;
    if (place >= 0 && i.offset + length <= this.codeSpan - CODE_BEFORE) {
      const first = place + i.offset;
      s64[EXIT_BYTES >> 3] = dv.getBigUint64(first, true) & LOW_BYTES[length > 8 ? 8 : length];
      s64[(EXIT_BYTES >> 3) + 1] = length > 8 ? dv.getBigUint64(first + 8, true) & LOW_BYTES[length - 8] : 0n;
      s32[EXIT_BYTE_COUNT] = length;
      return;
    }
    s64[EXIT_BYTES >> 3] = 0n;
    s64[(EXIT_BYTES >> 3) + 1] = 0n;
    let count = 0;
    try {
      while (count < length) {
        const at = this.translateFetch((this.#linear() + count) | 0, this.long64 ? s32[RIP + 1] : 0);
        if (at < 0) break;
        this.s8[EXIT_BYTES + count] = this.m8[at];
        count++;
      }
    } catch (thrown) {
      if (thrown !== this.fault) throw thrown;
    }
    s32[EXIT_BYTE_COUNT] = count;
  }

  /** The page fault or other exception that fetching the byte at RIP would raise, or undefined. */
  probeFetch(): { vector: number; error: number | undefined; cr2: bigint } | undefined {
    try {
      const hi = this.long64 ? this.s32[RIP + 1] : 0;
      if (this.long64) this.checkCanonical(CS, this.s32[RIP], hi, 1);
      this.translateFetch(this.#linear(), hi);
      return undefined;
    } catch (thrown) {
      if (thrown !== this.fault) throw thrown;
      const { vector, hasError, error, cr2Lo, cr2Hi } = this.fault;
      const cr2 = (BigInt(cr2Hi >>> 0) << 32n) | BigInt(cr2Lo >>> 0);
      return { vector, error: hasError ? error : undefined, cr2 };
    }
  }

  /** Low half of the linear address of RIP. */
  #linear(): number {
    return this.long64 ? this.s32[RIP] : (this.segmentBase(CS) + this.s32[RIP]) | 0;
  }

  /**
   * The block at the linear address lo:hi (where RIP points), decoded or found. Raises #PF and #GP for bytes that cannot
   * be fetched.
   */
  findBlock(lo: number, hi: number): Block {
    let left = DECODE_WINDOW;
    if (!this.long64) {
      left = this.segmentLimit(CS) - (this.s32[RIP] >>> 0) + 1;
      if (left <= 0) this.raise(VECTOR_GP, 0);
    } else {
      this.checkCanonical(CS, lo, hi, 1);
    }
    const place = this.translateFetch(lo, hi);
    if (place < 0) return this.#decodeSingle(lo, hi, left);
    let block = this.blocks.find(place, this.codeSize, this.m32, this.m8);
    if (block === undefined || block.total > left) {
      block = this.#decodeBlock(place, left);
      if (block === undefined) block = this.#decodeSingle(lo, hi, left);
      else this.blocks.add(block);
    }
    if (block.wordCount === 0) return block;
    block.linearLo = lo;
    block.linearHi = hi;
    block.key = this.blockKey;
    this.blocks.byLinear[linearIndex(lo)] = block;
    return block;
  }

  /** Decodes a block within one page; undefined when already its first instruction crosses the page's (or limit's) end. */
  #decodeBlock(place: number, left: number): Block | undefined {
    const bytes = this.#window;
    const available = Math.min(DECODE_WINDOW, left, PAGE_BYTES - (place & (PAGE_BYTES - 1)));
    for (let k = 0; k < available; k++) bytes[k] = this.m8[place + k];
    const block = new Block();
    let offset = 0;
    while (block.insns.length < BLOCK_INSTRUCTIONS_MAX) {
      const insn = this.decoder.decode(bytes, offset, available - offset, this.codeSize, offset);
      if (insn === null) break;
      block.insns.push(insn);
      offset = insn.next;
      if (insn.ends) break;
    }
    if (offset === 0) return undefined;
    block.place = place;
    block.codeSize = this.codeSize;
    block.length = block.total = offset;
    rememberBytes(block, bytes);
    return block;
  }

  /**
   * Decodes one instruction byte by byte as far as it needs bytes: over a page boundary, at a segment's end, or from a
   * device. One that crosses pages of memory can be found again by its linear address; one from a device is used once.
   */
  #decodeSingle(lo: number, hi: number, left: number): Block {
    const bytes = this.#window;
    let count = 0;
    let insn = null;
    let first = -1;
    let second = -1;
    let device = false;
    const inFirst = PAGE_BYTES - (lo & (PAGE_BYTES - 1));
    while (insn === null) {
      if (count >= left) this.raise(VECTOR_GP, 0);
      const at = (lo + count) | 0;
      const atHi = this.long64 && (at >>> 0) < (lo >>> 0) ? (hi + 1) | 0 : hi;
      if (this.long64) this.checkCanonical(CS, at, atHi, 1);
      const place = this.translateFetch(at, atHi);
      if (count === 0) first = place;
      if (count === inFirst) second = place;
      if (place >= 0) {
        bytes[count] = this.m8[place];
      } else {
        device = true;
        this.bus.mmioRead(this, this.gpa32[0], this.gpa32[1], 1, ACCESS_EXECUTE);
        bytes[count] = this.v8[0];
      }
      count++;
      insn = this.decoder.decode(bytes, 0, count, this.codeSize);
    }
    const block = new Block();
    block.insns.push(insn);
    block.total = insn.length;
    if (device) return block;
    block.codeSize = this.codeSize;
    block.place = first;
    block.length = Math.min(count, inFirst);
    rememberBytes(block, bytes);
    if (second >= 0) rememberTail(block, second, bytes.slice(inFirst, count));
    return block;
  }
}
