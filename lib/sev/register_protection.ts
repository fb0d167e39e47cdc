/**
 * VMSA register protection: the processor stores some registers XORed with a nonce, so that a host which watches the
 * ciphertext cannot tell that a register has the same value again (openvmm `openhcl/hcl/src/vmsa.rs`; sev.md f10 to f13).
 *
 * Which ones is told by the tweak bitmap of the secrets page: bit b of byte i stands for the quadword at 64 i + 8 b.
 *
 * @module
 */
import { packSegmentAttributes, tweakBit, unpackSegmentAttributes, VMSA } from "../layout/sev/vmsa.ts";
import { SevExitCode } from "../layout/sev/constants/exit_codes.ts";

/** Bytes of a tweak bitmap. */
export const TWEAK_BITMAP_BYTES = 64;
/** Bytes at the start of a VMSA that hold registers (openvmm, size of `SevVmsa`); what lies behind is not saved for a guest. */
export const VMSA_REGISTER_BYTES = 0x670;

const NONCE = VMSA.at.reg_prot_nonce;
const QWORD = 8;

/** Byte offsets of the quadwords that `bitmap` protects, ascending. The nonce itself is never among them. */
export function protectedQwords(bitmap: Uint8Array): readonly number[] {
  const offsets: number[] = [];
  for (let offset = 0; offset < TWEAK_BITMAP_BYTES * 64; offset += QWORD) {
    const { byte, bit } = tweakBit(offset);
    if ((bitmap[byte] & (1 << bit)) !== 0 && offset !== NONCE) offsets.push(offset);
  }
  return offsets;
}

/** The bitmap that protects every field which software reaches through the nonce (columns xor64 and xor32 of the layout). */
export function protectingBitmap(): Uint8Array {
  const bitmap = new Uint8Array(TWEAK_BITMAP_BYTES);
  for (const field of VMSA.fields) {
    if (field.columns.access !== "xor64" && field.columns.access !== "xor32") continue;
    for (let offset = field.offset; offset < field.offset + field.size; offset += QWORD) {
      const { byte, bit } = tweakBit(offset);
      bitmap[byte] |= 1 << bit;
    }
  }
  return bitmap;
}

/**
 * XORs the quadwords `offsets` of the VMSA at byte `page` of `words` with the nonce that it holds: what is protected becomes
 * plain, or plain text protected.
 */
export function maskQwords(words: Int32Array, page: number, offsets: readonly number[]): void {
  const base = page >>> 2;
  const low = words[base + (NONCE >>> 2)];
  const high = words[base + (NONCE >>> 2) + 1];
  for (let k = 0; k < offsets.length; k++) {
    const word = base + (offsets[k] >>> 2);
    words[word] ^= low;
    words[word + 1] ^= high;
  }
}

/** Throws `TypeError` when `bitmap` protects a field that software accesses directly (openvmm `VmsaWrapper::reset`). */
export function assertUnprotected(bitmap: Uint8Array): void {
  for (const field of VMSA.fields) {
    if (field.columns.asserted_unprotected !== true) continue;
    const { byte, bit } = tweakBit(field.offset);
    if ((bitmap[byte] & (1 << bit)) !== 0) throw new TypeError(`The tweak bitmap protects "${field.name}"`);
  }
}

/** Names of fields that the wrapper accesses: all that are either XORed or direct. */
type FieldName = keyof typeof VMSA.at & string;

/** A VMSA seen through the tweak bitmap: reads and writes give and take the true values. */
export class ProtectedVmsa {
  readonly #view: DataView;
  readonly #base: number;
  readonly #bitmap: Uint8Array;

  /** The VMSA at byte `base` of `view`, whose registers are protected as `bitmap` says; all zero for not at all. */
  constructor(view: DataView, base: number, bitmap: Uint8Array) {
    this.#view = view;
    this.#base = base;
    this.#bitmap = bitmap;
  }

  /** The nonce. */
  get nonce(): bigint {
    return this.#view.getBigUint64(this.#base + NONCE, true);
  }

  /** Whether the quadword of byte `offset` is stored XORed. */
  isProtected(offset: number): boolean {
    const { byte, bit } = tweakBit(offset);
    return (this.#bitmap[byte] & (1 << bit)) !== 0;
  }

  /** A 64-bit field. */
  get64(field: FieldName): bigint {
    return this.qword(VMSA.at[field], isDirect(field));
  }

  /** Sets a 64-bit field. */
  set64(field: FieldName, value: bigint): void {
    this.setQword(VMSA.at[field], value, isDirect(field));
  }

  /** The quadword at byte `offset`; `direct` when it is never XORed. */
  qword(offset: number, direct = false): bigint {
    return this.#view.getBigUint64(this.#base + offset, true) ^ (direct ? 0n : this.#mask(offset));
  }

  /** Sets the quadword at byte `offset`. */
  setQword(offset: number, value: bigint, direct = false): void {
    this.#view.setBigUint64(this.#base + offset, BigInt.asUintN(64, value) ^ (direct ? 0n : this.#mask(offset)), true);
  }

  /** A 32-bit field: it is XORed with the matching half of the nonce. */
  get32(field: FieldName): number {
    const offset = VMSA.at[field];
    return (this.#view.getUint32(this.#base + offset, true) ^ this.#mask32(offset)) >>> 0;
  }

  /** Sets a 32-bit field. */
  set32(field: FieldName, value: number): void {
    const offset = VMSA.at[field];
    this.#view.setUint32(this.#base + offset, (value ^ this.#mask32(offset)) >>> 0, true);
  }

  /** An 8-bit field, none of which is ever XORed. */
  get8(field: FieldName): number {
    return this.#view.getUint8(this.#base + VMSA.at[field]);
  }

  /** Sets an 8-bit field. */
  set8(field: FieldName, value: number): void {
    this.#view.setUint8(this.#base + VMSA.at[field], value);
  }

  /** Sets a segment register; attributes in the descriptor's form, with the gap. */
  setSegment(field: FieldName, segment: { selector: number; attributes: number; limit: number; base: bigint }): void {
    const attrib = packSegmentAttributes(segment.attributes);
    this.setQword(VMSA.at[field], (BigInt(segment.limit >>> 0) << 32n) | BigInt((attrib << 16) | segment.selector));
    this.setQword(VMSA.at[field] + QWORD, segment.base);
  }

  /** A segment register. */
  segment(field: FieldName): { selector: number; attributes: number; limit: number; base: bigint } {
    const low = this.qword(VMSA.at[field]);
    return {
      selector: Number(low & 0xffffn),
      attributes: unpackSegmentAttributes(Number((low >> 16n) & 0xffffn)),
      limit: Number(low >> 32n),
      base: this.qword(VMSA.at[field] + QWORD),
    };
  }

  /**
   * Makes all registers zero (`VmsaWrapper::reset`): with `nonce`, every protected quadword holds it. Throws `TypeError`
   * when the bitmap protects a field that is accessed directly.
   */
  reset(nonce: bigint): void {
    assertUnprotected(this.#bitmap);
    for (let offset = 0; offset < VMSA_REGISTER_BYTES; offset += QWORD) {
      this.#view.setBigUint64(this.#base + offset, 0n, true);
    }
    this.#view.setBigUint64(this.#base + NONCE, nonce, true);
    for (const offset of protectedQwords(this.#bitmap)) this.#view.setBigUint64(this.#base + offset, nonce, true);
  }

  /** The exit code as a signed number. */
  get exitCode(): number {
    return Number(BigInt.asIntN(64, this.get64("guest_exit_code")));
  }

  /** Sets the exit code to one that a fresh VMSA has: an exit that nothing is done for. */
  setHarmlessExit(): void {
    this.set64("guest_exit_code", BigInt(SevExitCode.values.INTR));
  }

  #mask(offset: number): bigint {
    return this.isProtected(offset) ? this.nonce : 0n;
  }

  #mask32(offset: number): number {
    if (!this.isProtected(offset)) return 0;
    return Number((offset & 4) !== 0 ? this.nonce >> 32n : this.nonce & 0xffff_ffffn);
  }
}

const DIRECT: ReadonlySet<string> = new Set(
  VMSA.fields.filter((field) => field.columns.access === "direct").map((field) => field.name),
);

/** Whether software accesses a field without the nonce. */
function isDirect(field: string): boolean {
  return DIRECT.has(field);
}

/** The nonce that the processor takes after `nonce`: a full-period sequence, so that equal values look different again. */
export function nextNonce(nonce: bigint): bigint {
  return BigInt.asUintN(64, nonce * NONCE_FACTOR + NONCE_STEP);
}

/** Multiplier and increment of the nonces' sequence (Knuth's MMIX generator). */
const NONCE_FACTOR = 6364136223846793005n;
const NONCE_STEP = 1442695040888963407n;
