/**
 * Multiboot 1 images: the header in the first 8 KiB of the file, and the information structure that the loader leaves in
 * memory for the kernel.
 *
 * Multiboot Specification version 0.6.96, sections 3.1 (OS image format), 3.2 (machine state) and 3.3 (boot information).
 * Not provided: VBE and framebuffer (a header that demands a video mode is refused), APM, drives, symbol tables.
 *
 * @module
 */

import { BadInput } from "../memory/bad_input.ts";
import { FieldReader, type GuestSegment, hex } from "./guest_image.ts";

/** The header as found in a file. */
export interface MultibootHeader {
  /** Offset of the header in the file. */
  readonly offset: number;
  /** The flags field. */
  readonly flags: number;
  /** The address fields, when flag 16 says that they are valid. */
  readonly addresses: MultibootAddresses | undefined;
}

/** The address fields of the header (the "a.out kludge"), physical addresses. */
export interface MultibootAddresses {
  /** Where the header itself is loaded. */
  readonly headerAddr: number;
  /** Where loading begins. */
  readonly loadAddr: number;
  /** End of what the file holds, 0 for the whole file. */
  readonly loadEndAddr: number;
  /** End of the zeroed memory, 0 for none. */
  readonly bssEndAddr: number;
  /** The first instruction. */
  readonly entryAddr: number;
}

/** A file that the kernel gets beside itself. */
export interface MultibootModule {
  /** The file's bytes. */
  readonly bytes: Uint8Array;
  /** Its command line, by custom beginning with its name. */
  readonly commandLine: string;
}

/** What the kernel finds in EAX. */
export const MULTIBOOT_BOOTLOADER_MAGIC: number = 0x2badb002;

const HEADER_MAGIC = 0x1badb002;
const HEADER_SEARCH_BYTES = 8192;
const HEADER_BYTES = 12;
const HEADER_WITH_ADDRESSES_BYTES = 32;
const FLAG_VIDEO_MODE = 1 << 2;
const FLAG_ADDRESSES = 1 << 16;
/** Flags 0 to 15 are demands; these can be met: page-aligned modules and memory information. */
const DEMANDS_MET = 0x3;
const DEMANDS_MASK = 0xffff;

const PAGE_BYTES = 0x1000;
/** The structure may lie anywhere; the search for room begins above the real-mode areas and the boot tables. */
const INFO_SEARCH_START = 0x9000;
const LOW_MEMORY_END = 0xa0000;
const HIGH_MEMORY_START = 0x100000;

const INFO_BYTES = 116;
const INFO_FLAGS = 0;
const INFO_MEM_LOWER = 4;
const INFO_MEM_UPPER = 8;
const INFO_CMDLINE = 16;
const INFO_MODS_COUNT = 20;
const INFO_MODS_ADDR = 24;
const INFO_MMAP_LENGTH = 44;
const INFO_MMAP_ADDR = 48;
const INFO_BOOT_LOADER_NAME = 64;
/** Valid: memory sizes, command line, modules, memory map, boot loader name. */
const INFO_FLAGS_VALUE = 1 << 0 | 1 << 2 | 1 << 3 | 1 << 6 | 1 << 9;
const MODULE_ENTRY_BYTES = 16;
const MMAP_ENTRY_BYTES = 24;
/** The size field of a memory map entry does not count itself. */
const MMAP_ENTRY_SIZE = 20;
const MMAP_AVAILABLE = 1;
const MMAP_RESERVED = 2;
const BOOT_LOADER_NAME = "exitbox";

/**
 * Looks for a multiboot header.
 *
 * @param bytes The file.
 * @param name Its name, for messages.
 * @returns The header, or `undefined` when there is none.
 * @throws {BadInput} When the header demands what cannot be provided, or its address fields are cut off.
 */
export function findMultibootHeader(bytes: Uint8Array, name: string): MultibootHeader | undefined {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const end = Math.min(bytes.length, HEADER_SEARCH_BYTES) - HEADER_BYTES;
  for (let offset = 0; offset <= end; offset += 4) {
    if (view.getUint32(offset, true) !== HEADER_MAGIC) continue;
    const flags = view.getUint32(offset + 4, true);
    const checksum = view.getUint32(offset + 8, true);
    if (((HEADER_MAGIC + flags + checksum) >>> 0) !== 0) continue;
    return readHeader(new FieldReader(bytes, name), offset, flags);
  }
  return undefined;
}

function readHeader(reader: FieldReader, offset: number, flags: number): MultibootHeader {
  const unmet = flags & DEMANDS_MASK & ~DEMANDS_MET;
  if (unmet !== 0) {
    const why = unmet & FLAG_VIDEO_MODE ? " (bit 2: a video mode, and there is no display)" : "";
    throw reader.bad(
      `multiboot header at offset ${hex(offset)}: flags ${hex(flags)} demand ${
        hex(unmet)
      }${why}, expected bits 0 and 1 only`,
    );
  }
  if ((flags & FLAG_ADDRESSES) === 0) return { offset, flags, addresses: undefined };
  reader.require(offset, HEADER_WITH_ADDRESSES_BYTES, "multiboot header with address fields");
  const field = (at: number): number => reader.u32(offset + at, "multiboot address field");
  const addresses = {
    headerAddr: field(12),
    loadAddr: field(16),
    loadEndAddr: field(20),
    bssEndAddr: field(24),
    entryAddr: field(28),
  };
  return { offset, flags, addresses };
}

/**
 * Makes the one segment that the header's address fields describe.
 *
 * @param bytes The file.
 * @param name Its name, for messages.
 * @param header The header.
 * @param addresses Its address fields.
 * @returns The segment.
 * @throws {BadInput} When the fields contradict each other or the file.
 */
export function segmentOfAddresses(
  bytes: Uint8Array,
  name: string,
  header: MultibootHeader,
  addresses: MultibootAddresses,
): GuestSegment {
  const { headerAddr, loadAddr, loadEndAddr, bssEndAddr } = addresses;
  const reader = new FieldReader(bytes, name);
  const where = `multiboot header at offset ${hex(header.offset)}`;
  const before = headerAddr - loadAddr;
  if (before < 0) throw reader.bad(`${where}: header_addr ${hex(headerAddr)} is below load_addr ${hex(loadAddr)}`);
  if (before > header.offset) {
    throw reader.bad(
      `${where}: load_addr ${hex(loadAddr)} would begin ${hex(before - header.offset)} bytes before the file`,
    );
  }
  const start = header.offset - before;
  const length = loadEndAddr === 0 ? bytes.length - start : loadEndAddr - loadAddr;
  if (length <= 0) {
    throw reader.bad(`${where}: load_end_addr ${hex(loadEndAddr)} is not above load_addr ${hex(loadAddr)}`);
  }
  reader.require(start, length, "multiboot image up to load_end_addr");
  const memSize = bssEndAddr === 0 ? length : bssEndAddr - loadAddr;
  if (memSize < length) {
    throw reader.bad(
      `${where}: bss_end_addr ${hex(bssEndAddr)} is below the end of the image ${hex(loadAddr + length)}`,
    );
  }
  return { address: loadAddr, bytes: bytes.subarray(start, start + length), memSize };
}

/** Where everything beside the kernel goes. */
interface Placement {
  readonly modules: readonly GuestSegment[];
  readonly info: number;
}

function roundUp(value: number): number {
  return Math.ceil(value / PAGE_BYTES) * PAGE_BYTES;
}

/** Puts the modules page-aligned above the kernel, and the information structure into free low memory. */
function place(
  memoryBytes: number,
  segments: readonly GuestSegment[],
  modules: readonly MultibootModule[],
  infoBytes: number,
  name: string,
): Placement {
  let top = Math.max(HIGH_MEMORY_START, ...segments.map(({ address, memSize }) => address + memSize));
  const placed = modules.map(({ bytes, commandLine }): GuestSegment => {
    const address = roundUp(top);
    top = address + bytes.length;
    if (top > memoryBytes) {
      throw new BadInput(`${name}: module "${commandLine}" ends at ${hex(top)}, memory ends at ${hex(memoryBytes)}`);
    }
    return { address, bytes, memSize: bytes.length };
  });
  const taken = [...segments, ...placed];
  for (let info = INFO_SEARCH_START; info + infoBytes <= memoryBytes;) {
    // The video memory of a PC is reserved in the memory map, whatever lies there.
    const hole = info < HIGH_MEMORY_START && info + infoBytes > LOW_MEMORY_END
      ? HIGH_MEMORY_START
      : taken.find(({ address, memSize }) => info < address + memSize && address < info + infoBytes);
    if (hole === undefined) return { modules: placed, info };
    info = roundUp(typeof hole === "number" ? hole : hole.address + hole.memSize);
  }
  throw new BadInput(`${name}: no room for the multiboot information in ${hex(memoryBytes)} bytes of memory`);
}

/** The memory map: RAM below 640 KiB, the PC's reserved hole, RAM above 1 MiB. */
function memoryMap(memoryBytes: number): [start: number, end: number, type: number][] {
  const map: [number, number, number][] = [
    [0, Math.min(memoryBytes, LOW_MEMORY_END), MMAP_AVAILABLE],
    [LOW_MEMORY_END, Math.min(memoryBytes, HIGH_MEMORY_START), MMAP_RESERVED],
    [HIGH_MEMORY_START, memoryBytes, MMAP_AVAILABLE],
  ];
  return map.filter(([start, end]) => end > start);
}

/**
 * Builds the multiboot information structure, its strings, memory map and module list, and loads the modules.
 *
 * @param memory Guest RAM from address 0.
 * @param name The image's name; it becomes the kernel's command line.
 * @param segments The kernel's segments, already in memory.
 * @param modules The modules.
 * @returns Guest-physical address of the structure, for EBX.
 * @throws {BadInput} When there is no room.
 */
export function writeMultibootInformation(
  memory: Uint8Array,
  name: string,
  segments: readonly GuestSegment[],
  modules: readonly MultibootModule[],
): number {
  const encoder = new TextEncoder();
  const strings = [name, BOOT_LOADER_NAME, ...modules.map(({ commandLine }) => commandLine)].map((text) =>
    encoder.encode(`${text.replaceAll("\0", "")}\0`)
  );
  const map = memoryMap(memory.length);
  const modulesOffset = INFO_BYTES;
  const mapOffset = modulesOffset + modules.length * MODULE_ENTRY_BYTES;
  let stringOffset = mapOffset + map.length * MMAP_ENTRY_BYTES;
  const stringOffsets = strings.map(({ length }) => (stringOffset += length) - length);
  const { modules: placed, info } = place(memory.length, segments, modules, stringOffset, name);

  memory.fill(0, info, info + stringOffset);
  const view = new DataView(memory.buffer, memory.byteOffset + info, stringOffset);
  const set = (offset: number, value: number): void => view.setUint32(offset, value, true);
  set(INFO_FLAGS, INFO_FLAGS_VALUE);
  set(INFO_MEM_LOWER, Math.min(memory.length, LOW_MEMORY_END) >>> 10);
  set(INFO_MEM_UPPER, Math.floor(Math.max(0, memory.length - HIGH_MEMORY_START) / 1024));
  set(INFO_CMDLINE, info + stringOffsets[0]);
  set(INFO_MODS_COUNT, modules.length);
  set(INFO_MODS_ADDR, info + modulesOffset);
  set(INFO_MMAP_LENGTH, map.length * MMAP_ENTRY_BYTES);
  set(INFO_MMAP_ADDR, info + mapOffset);
  set(INFO_BOOT_LOADER_NAME, info + stringOffsets[1]);
  placed.forEach(({ address, bytes }, i) => {
    memory.set(bytes, address);
    const at = modulesOffset + i * MODULE_ENTRY_BYTES;
    set(at, address);
    set(at + 4, address + bytes.length);
    set(at + 8, info + stringOffsets[2 + i]);
  });
  map.forEach(([start, end, type], i) => {
    const at = mapOffset + i * MMAP_ENTRY_BYTES;
    set(at, MMAP_ENTRY_SIZE);
    view.setBigUint64(at + 4, BigInt(start), true);
    view.setBigUint64(at + 12, BigInt(end - start), true);
    set(at + 20, type);
  });
  strings.forEach((text, i) => memory.set(text, info + stringOffsets[i]));
  return info;
}
