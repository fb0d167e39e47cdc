/**
 * Access to a GHCB: writing a field marks it valid, reading one tells whether it was (SEV-ES GHCB standardization, 2.6;
 * sev.md h2).
 *
 * The valid bit of a field is derived from the field's offset, so that "present" and "value" cannot drift apart.
 *
 * @module
 */
import { GHCB, GHCB_VALID_BIT, type GhcbValidField } from "../layout/sev/ghcb.ts";
import { PAGE_SIZE } from "../memory/machine_memory.ts";

/** First byte of the shared buffer, and the first byte behind it, in the page. */
export const SHARED_BUFFER = {
  START: GHCB.at.shared_buffer,
  END: GHCB.at.shared_buffer + GHCB.field("shared_buffer").size,
} as const;

/** Bytes of the bitmap of valid fields. */
export const VALID_BITMAP_BYTES: number = GHCB.field("valid_bitmap").size;

/** A GHCB in memory. */
export class Ghcb {
  readonly #view: DataView;
  readonly #base: number;

  /** The GHCB at byte `base` of `view`. */
  constructor(view: DataView, base: number) {
    this.#view = view;
    this.#base = base;
  }

  /** Whether `field` has been marked valid. */
  isValid(field: GhcbValidField): boolean {
    const bit = GHCB_VALID_BIT[field];
    return (this.#view.getUint8(this.#bitmapByte(bit)) & (1 << (bit & 7))) !== 0;
  }

  /** The value of `field`, or `undefined` when it is not valid. */
  get(field: GhcbValidField): bigint | undefined {
    return this.isValid(field) ? this.raw(field) : undefined;
  }

  /** The value of `field` whether it is valid or not. */
  raw(field: GhcbValidField): bigint {
    const at = this.#base + GHCB.at[field];
    return field === "cpl" ? BigInt(this.#view.getUint8(at)) : this.#view.getBigUint64(at, true);
  }

  /** Writes `field` and marks it valid. */
  set(field: GhcbValidField, value: bigint): void {
    const at = this.#base + GHCB.at[field];
    if (field === "cpl") this.#view.setUint8(at, Number(value));
    else this.#view.setBigUint64(at, BigInt.asUintN(64, value), true);
    const bit = GHCB_VALID_BIT[field];
    const byte = this.#bitmapByte(bit);
    this.#view.setUint8(byte, this.#view.getUint8(byte) | (1 << (bit & 7)));
  }

  /** Marks every field invalid; their values stay. */
  invalidate(): void {
    for (let byte = 0; byte < VALID_BITMAP_BYTES; byte++) this.#view.setUint8(this.#bitmapByte(8 * byte), 0);
  }

  /** Makes the whole page zero. */
  clear(): void {
    for (let byte = 0; byte < PAGE_SIZE; byte += 8) this.#view.setBigUint64(this.#base + byte, 0n, true);
  }

  /** The names of the fields that are valid, in the order of the page. */
  validFields(): readonly GhcbValidField[] {
    return (Object.keys(GHCB_VALID_BIT) as GhcbValidField[]).filter((field) => this.isValid(field));
  }

  #bitmapByte(bit: number): number {
    return this.#base + GHCB.at.valid_bitmap + (bit >> 3);
  }
}
