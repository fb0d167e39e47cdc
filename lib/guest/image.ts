/**
 * Guest images: flat binaries, ELF32 and ELF64 executables, and multiboot 1 kernels, told apart by their headers.
 *
 * Images come from anyone's toolchain, or from nobody's: every size, offset and address is checked before it is used.
 *
 * @module
 */

import { BadInput } from "../memory/bad_input.ts";
import { isElf, parseElf } from "./elf.ts";
import { type GuestImage, type GuestMode, type GuestSegment, hex } from "./guest_image.ts";
import { bootTableRanges, type InitialState, initialState, multibootState, writeBootTables } from "./initial_state.ts";
import {
  findMultibootHeader,
  type MultibootHeader,
  type MultibootModule,
  segmentOfAddresses,
  writeMultibootInformation,
} from "./multiboot.ts";

export type { GuestFormat, GuestImage, GuestMode, GuestSegment } from "./guest_image.ts";
export type { InitialState, SegmentState, TableState } from "./initial_state.ts";
export type { MultibootModule } from "./multiboot.ts";

/** What {@linkcode parseImage} can be told. */
export interface ParseImageOptions {
  /** The mode at entry. `auto` (default): what the header says, and real mode for a flat binary. */
  readonly mode?: "auto" | GuestMode;
  /** Guest-physical address of a flat binary. Default 0x7c00 in real mode, 0x100000 in the others. */
  readonly load?: number;
  /** Guest-physical address of the first instruction. Default: what the header says, the load address of a flat binary. */
  readonly entry?: number;
}

/** What {@linkcode loadImage} can be told. */
export interface LoadImageOptions {
  /** Modules for a multiboot kernel. */
  readonly modules?: readonly MultibootModule[];
}

/** Largest image file, in bytes; no guest memory is larger. */
export const IMAGE_FILE_BYTES_MAX: number = 2 ** 32;
/** Load address of a flat binary in real mode: where firmware puts a boot sector. */
export const REAL_LOAD_ADDRESS: number = 0x7c00;
/** Load address of a flat binary in protected and long mode. */
export const FLAT_LOAD_ADDRESS: number = 0x100000;
/** A real-mode guest starts with CS 0, so its first instruction is in the first 64 KiB. */
const REAL_ENTRY_END = 0x10000;
/** A protected-mode guest has 32-bit addresses, and the long-mode tables map as much. */
const ENTRY_END = 2 ** 32;

/** Fails when two segments share memory. */
function checkOverlaps(name: string, segments: readonly GuestSegment[]): void {
  const sorted = segments.map((segment, index) => ({ ...segment, index })).sort((a, b) => a.address - b.address);
  for (let i = 1; i < sorted.length; i++) {
    const below = sorted[i - 1];
    const above = sorted[i];
    if (below.address + below.memSize > above.address) {
      throw new BadInput(
        `${name}: segment ${above.index} at ${hex(above.address)} overlaps segment ${below.index}, which ends at ${
          hex(below.address + below.memSize)
        }`,
      );
    }
  }
}

/** Checks the entry point and joins the parts. */
function finish(image: GuestImage): GuestImage {
  const { name, segments, entry, mode } = image;
  checkOverlaps(name, segments);
  if (!segments.some(({ address, memSize }) => entry >= address && entry - address < memSize)) {
    throw new BadInput(
      `${name}: entry ${hex(entry)} lies outside the image, expected an address in one of its segments`,
    );
  }
  const end = mode === "real" ? REAL_ENTRY_END : ENTRY_END;
  if (entry >= end) throw new BadInput(`${name}: entry ${hex(entry)} in ${mode} mode, expected less than ${hex(end)}`);
  return image;
}

function checkAddress(name: string, what: string, address: number | undefined): void {
  if (address !== undefined && (!Number.isSafeInteger(address) || address < 0)) {
    throw new BadInput(`${name}: ${what} address ${address}, expected a whole number from 0 to 2^53 - 1`);
  }
}

function parseFlat(bytes: Uint8Array, name: string, mode: GuestMode, options: ParseImageOptions): GuestImage {
  const address = options.load ?? (mode === "real" ? REAL_LOAD_ADDRESS : FLAT_LOAD_ADDRESS);
  const segments = [{ address, bytes, memSize: bytes.length }];
  return finish({ name, format: "flat", mode, entry: options.entry ?? address, segments });
}

function parseMultiboot(
  bytes: Uint8Array,
  name: string,
  header: MultibootHeader,
  options: ParseImageOptions,
): GuestImage {
  const { addresses } = header;
  if (addresses !== undefined) {
    const segments = [segmentOfAddresses(bytes, name, header, addresses)];
    const entry = options.entry ?? addresses.entryAddr;
    return finish({ name, format: "multiboot", mode: "protected", entry, segments });
  }
  if (!isElf(bytes)) {
    throw new BadInput(
      `${name}: multiboot header at offset ${
        hex(header.offset)
      } has no address fields (flag 16) and the file is no ELF executable`,
    );
  }
  const { entry, segments } = parseElf(bytes, name);
  return finish({ name, format: "multiboot", mode: "protected", entry: options.entry ?? entry, segments });
}

/**
 * Parses a guest image.
 *
 * A multiboot header makes the image a multiboot kernel unless real or long mode is asked for.
 *
 * @param bytes The file.
 * @param name Its name, for messages.
 * @param options Mode, load address and entry point.
 * @returns The image.
 * @throws {BadInput} When the file is empty, truncated, for another machine, or contradicts itself or the options.
 *
 * @example
 * ```ts
 * import { parseImage } from "./image.ts";
 *
 * const image = parseImage(new Uint8Array([0xf4]), "halt.bin");
 * if (image.mode !== "real" || image.entry !== 0x7c00) throw new Error("unexpected start");
 * ```
 */
export function parseImage(bytes: Uint8Array, name: string, options: ParseImageOptions = {}): GuestImage {
  if (bytes.length === 0) throw new BadInput(`${name}: file is empty, expected a flat binary, ELF or multiboot image`);
  if (bytes.length > IMAGE_FILE_BYTES_MAX) {
    throw new BadInput(`${name}: file has ${bytes.length} bytes, expected at most ${IMAGE_FILE_BYTES_MAX}`);
  }
  checkAddress(name, "load", options.load);
  checkAddress(name, "entry", options.entry);
  const asked = options.mode ?? "auto";
  const header = asked === "auto" || asked === "protected" ? findMultibootHeader(bytes, name) : undefined;
  const elf = isElf(bytes);
  if (options.load !== undefined && (elf || header !== undefined)) {
    throw new BadInput(
      `${name}: load address ${hex(options.load)} given, but the image's own headers say where it is loaded`,
    );
  }
  if (header !== undefined) return parseMultiboot(bytes, name, header, options);
  if (!elf) return parseFlat(bytes, name, asked === "auto" ? "real" : asked, options);
  const image = parseElf(bytes, name);
  const mode = asked === "auto" ? image.mode : asked;
  return finish({ ...image, name, mode, entry: options.entry ?? image.entry });
}

/** Fails when a segment does not lie in memory or covers the tables that the mode starts with. */
function checkMemory(memoryBytes: number, image: GuestImage): void {
  const { name, segments, format, mode } = image;
  segments.forEach(({ address, memSize }, index) => {
    if (address + memSize > memoryBytes) {
      throw new BadInput(
        `${name}: segment ${index} takes ${hex(memSize)} bytes at ${hex(address)}, memory ends at ${hex(memoryBytes)}`,
      );
    }
  });
  if (format === "multiboot") return;
  for (const { what, start, end } of bootTableRanges(mode)) {
    if (end > memoryBytes) {
      throw new BadInput(
        `${name}: ${what} of ${mode} mode at ${hex(start)} lies beyond memory, which ends at ${hex(memoryBytes)}`,
      );
    }
    const index = segments.findIndex(({ address, memSize }) => address < end && start < address + memSize);
    if (index >= 0) {
      throw new BadInput(
        `${name}: segment ${index} at ${hex(segments[index].address)} overlaps the ${what} of ${mode} mode at ${
          hex(start)
        }`,
      );
    }
  }
}

/**
 * Writes an image and the tables it starts with into guest memory, which holds zeros.
 *
 * @param memory Guest RAM from guest-physical address 0, its whole length.
 * @param image The image.
 * @param options Modules for a multiboot kernel.
 * @returns The registers at the first instruction.
 * @throws {BadInput} When a segment lies outside memory or on the starting tables, or modules come with no multiboot kernel.
 */
export function loadImage(memory: Uint8Array, image: GuestImage, options: LoadImageOptions = {}): InitialState {
  const modules = options.modules ?? [];
  if (modules.length > 0 && image.format !== "multiboot") {
    throw new BadInput(`${image.name}: modules need a multiboot kernel, this is a ${image.format} image`);
  }
  checkMemory(memory.length, image);
  for (const { address, bytes, memSize } of image.segments) {
    memory.set(bytes, address);
    memory.fill(0, address + bytes.length, address + memSize);
  }
  if (image.format === "multiboot") {
    return multibootState(image.entry, writeMultibootInformation(memory, image.name, image.segments, modules));
  }
  writeBootTables(memory, image.mode);
  return initialState(image.mode, image.entry);
}
