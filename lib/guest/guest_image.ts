/**
 * What a parsed guest image is, and the careful reading of its header fields.
 *
 * @module
 */

import { BadInput } from "../memory/bad_input.ts";

/** The processor mode in which a guest starts. */
export type GuestMode = "real" | "protected" | "long";

/** How the image file is laid out. */
export type GuestFormat = "flat" | "elf32" | "elf64" | "multiboot";

/** A piece of the image in guest-physical memory. */
export interface GuestSegment {
  /** Guest-physical address of the first byte. */
  readonly address: number;
  /** The bytes from the file. */
  readonly bytes: Uint8Array;
  /** Bytes in memory, at least `bytes.length`; the rest is zero. */
  readonly memSize: number;
}

/** An image ready to be loaded. */
export interface GuestImage {
  /** The file's name, for messages and the multiboot command line. */
  readonly name: string;
  /** The file's layout. */
  readonly format: GuestFormat;
  /** The mode at entry. */
  readonly mode: GuestMode;
  /** Guest-physical address of the first instruction. */
  readonly entry: number;
  /** The pieces, in file order; they do not overlap. */
  readonly segments: readonly GuestSegment[];
}

/** Prints an address or offset the way messages show them. */
export function hex(value: number | bigint): string {
  return `0x${value.toString(16)}`;
}

/** Reads little-endian fields of an image and complains about the file by name when it ends too early. */
export class FieldReader {
  readonly #view: DataView;
  readonly #name: string;

  /**
   * Reads from a file's bytes.
   *
   * @param bytes The file.
   * @param name Its name, for messages.
   */
  constructor(bytes: Uint8Array, name: string) {
    this.#view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    this.#name = name;
  }

  /** An error about this file. */
  bad(message: string): BadInput {
    return new BadInput(`${this.#name}: ${message}`);
  }

  /** Checks that a range lies in the file. */
  require(offset: number, length: number, what: string): void {
    const size = this.#view.byteLength;
    if (offset <= size && length <= size - offset) return;
    throw this.bad(`truncated: ${what} takes ${hex(length)} bytes at offset ${hex(offset)}, the file has ${hex(size)}`);
  }

  /** A 16-bit field. */
  u16(offset: number, what: string): number {
    this.require(offset, 2, what);
    return this.#view.getUint16(offset, true);
  }

  /** A 32-bit field. */
  u32(offset: number, what: string): number {
    this.require(offset, 4, what);
    return this.#view.getUint32(offset, true);
  }

  /** A 64-bit address, offset or size, which must be exact as a number. */
  u64(offset: number, what: string): number {
    this.require(offset, 8, what);
    const value = this.#view.getBigUint64(offset, true);
    if (value > BigInt(Number.MAX_SAFE_INTEGER)) {
      throw this.bad(`${what} at offset ${hex(offset)} is ${hex(value)}, expected less than 2^53`);
    }
    return Number(value);
  }
}
