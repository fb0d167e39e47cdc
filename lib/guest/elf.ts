/**
 * ELF32 and ELF64 executables for x86 and x86-64: file header, program headers, loadable segments.
 *
 * System V ABI (gABI), chapters 4 and 5. Segments are loaded at their physical addresses, as a boot loader does; there is
 * no dynamic linking and no relocation.
 *
 * @module
 */

import { FieldReader, type GuestFormat, type GuestMode, type GuestSegment, hex } from "./guest_image.ts";

/** What the loader needs of an ELF file. */
export interface ElfImage {
  /** The file's class. */
  readonly format: GuestFormat & ("elf32" | "elf64");
  /** The mode that the machine field asks for: protected for 386, long for x86-64. */
  readonly mode: GuestMode;
  /** Guest-physical address of the entry point. */
  readonly entry: number;
  /** The loadable segments. */
  readonly segments: readonly GuestSegment[];
}

/** A loadable program header with its virtual address, to translate the entry point. */
interface LoadHeader extends GuestSegment {
  readonly virtual: number;
}

const ELF_MAGIC = [0x7f, 0x45, 0x4c, 0x46];
const ELFCLASS32 = 1;
const ELFCLASS64 = 2;
const ELFDATA2LSB = 1;
const EV_CURRENT = 1;
const ET_EXEC = 2;
const EM_386 = 3;
const EM_X86_64 = 62;
const PT_LOAD = 1;
const PT_INTERP = 3;

const EI_CLASS = 4;
const EI_DATA = 5;
const EI_VERSION = 6;
const EI_NIDENT = 16;
const E_TYPE = 16;
const E_MACHINE = 18;
const E_ENTRY = 24;

/** More program headers than any kernel has; a file that claims more is broken. */
const PROGRAM_HEADERS_MAX = 128;

/** Offsets that differ between the two classes. */
interface ClassLayout {
  readonly phoff: number;
  readonly phentsize: number;
  readonly phnum: number;
  readonly headerBytes: number;
  readonly entryBytes: number;
  readonly pOffset: number;
  readonly pVaddr: number;
  readonly pPaddr: number;
  readonly pFilesz: number;
  readonly pMemsz: number;
}

const LAYOUT_32: ClassLayout = {
  phoff: 28,
  phentsize: 42,
  phnum: 44,
  headerBytes: 52,
  entryBytes: 32,
  pOffset: 4,
  pVaddr: 8,
  pPaddr: 12,
  pFilesz: 16,
  pMemsz: 20,
};

const LAYOUT_64: ClassLayout = {
  phoff: 32,
  phentsize: 54,
  phnum: 56,
  headerBytes: 64,
  entryBytes: 56,
  pOffset: 8,
  pVaddr: 16,
  pPaddr: 24,
  pFilesz: 32,
  pMemsz: 40,
};

/** True when the file begins with the ELF magic number. */
export function isElf(bytes: Uint8Array): boolean {
  return ELF_MAGIC.every((byte, i) => bytes[i] === byte);
}

/** Checks the identification and the machine; true for the 64-bit class. */
function checkIdentification(bytes: Uint8Array, reader: FieldReader): boolean {
  reader.require(0, EI_NIDENT, "ELF identification");
  const elfClass = bytes[EI_CLASS];
  if (elfClass !== ELFCLASS32 && elfClass !== ELFCLASS64) {
    throw reader.bad(`ELF class ${elfClass} at offset 0x4, expected 1 (32-bit) or 2 (64-bit)`);
  }
  const wide = elfClass === ELFCLASS64;
  if (bytes[EI_DATA] !== ELFDATA2LSB) {
    throw reader.bad(`ELF data encoding ${bytes[EI_DATA]} at offset 0x5, expected 1 (little-endian)`);
  }
  if (bytes[EI_VERSION] !== EV_CURRENT) throw reader.bad(`ELF version ${bytes[EI_VERSION]} at offset 0x6, expected 1`);
  const machine = reader.u16(E_MACHINE, "ELF machine");
  const expected = wide ? EM_X86_64 : EM_386;
  if (machine !== expected) {
    throw reader.bad(
      `ELF machine ${machine} at offset 0x12 in a ${wide ? 64 : 32}-bit file, expected ${expected} (${
        wide ? "x86-64" : "386"
      })`,
    );
  }
  const type = reader.u16(E_TYPE, "ELF type");
  if (type !== ET_EXEC) {
    throw reader.bad(`ELF type ${type} at offset 0x10, expected 2 (executable, not relocatable or shared)`);
  }
  return wide;
}

/** Reads one loadable program header. */
function readSegment(
  bytes: Uint8Array,
  reader: FieldReader,
  at: number,
  index: number,
  wide: boolean,
): LoadHeader {
  const layout = wide ? LAYOUT_64 : LAYOUT_32;
  const what = `program header ${index}`;
  const field = (offset: number, name: string): number =>
    wide ? reader.u64(at + offset, `${what} ${name}`) : reader.u32(at + offset, `${what} ${name}`);
  const offset = field(layout.pOffset, "p_offset");
  const fileSize = field(layout.pFilesz, "p_filesz");
  const memSize = field(layout.pMemsz, "p_memsz");
  const address = field(layout.pPaddr, "p_paddr");
  reader.require(offset, fileSize, `segment ${index}`);
  if (fileSize > memSize) {
    throw reader.bad(`${what}: p_filesz ${hex(fileSize)} is larger than p_memsz ${hex(memSize)}`);
  }
  if (address + memSize > Number.MAX_SAFE_INTEGER) {
    throw reader.bad(`${what}: segment at ${hex(address)} with ${hex(memSize)} bytes is beyond any memory`);
  }
  return { address, bytes: bytes.subarray(offset, offset + fileSize), memSize, virtual: readVirtual(bytes, at, wide) };
}

/** The virtual address, of a higher-half kernel cut to its exact low 53 bits: only differences to it are used. */
function readVirtual(bytes: Uint8Array, at: number, wide: boolean): number {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  return wide ? cut(view.getBigUint64(at + LAYOUT_64.pVaddr, true)) : view.getUint32(at + LAYOUT_32.pVaddr, true);
}

function cut(value: bigint): number {
  return Number(BigInt.asUintN(53, value));
}

/** Turns the entry's virtual address into a physical one by the segment that holds it. */
function physicalEntry(entry: number, shown: bigint, segments: readonly LoadHeader[], reader: FieldReader): number {
  for (const { virtual, memSize, address } of segments) {
    if (entry >= virtual && entry - virtual < memSize) return address + (entry - virtual);
  }
  throw reader.bad(`entry point ${hex(shown)} at offset 0x18 lies in no loadable segment`);
}

/**
 * Parses an ELF executable.
 *
 * @param bytes The file.
 * @param name Its name, for messages.
 * @returns Its segments and entry point.
 * @throws {BadInput} For anything that is not a complete, static x86 or x86-64 executable.
 */
export function parseElf(bytes: Uint8Array, name: string): ElfImage {
  const reader = new FieldReader(bytes, name);
  const wide = checkIdentification(bytes, reader);
  const layout = wide ? LAYOUT_64 : LAYOUT_32;
  reader.require(0, layout.headerBytes, "ELF header");
  const count = reader.u16(layout.phnum, "e_phnum");
  if (count < 1 || count > PROGRAM_HEADERS_MAX) {
    throw reader.bad(`${count} program headers at offset ${hex(layout.phnum)}, expected 1 to ${PROGRAM_HEADERS_MAX}`);
  }
  const entryBytes = reader.u16(layout.phentsize, "e_phentsize");
  if (entryBytes !== layout.entryBytes) {
    throw reader.bad(
      `program header size ${entryBytes} at offset ${hex(layout.phentsize)}, expected ${layout.entryBytes}`,
    );
  }
  const table = wide ? reader.u64(layout.phoff, "e_phoff") : reader.u32(layout.phoff, "e_phoff");
  reader.require(table, count * entryBytes, "program header table");
  const segments: LoadHeader[] = [];
  for (let index = 0; index < count; index++) {
    const at = table + index * entryBytes;
    const type = reader.u32(at, `program header ${index} p_type`);
    if (type === PT_INTERP) {
      throw reader.bad(`program header ${index} asks for a dynamic linker, expected a static executable`);
    }
    if (type !== PT_LOAD) continue;
    const segment = readSegment(bytes, reader, at, index, wide);
    if (segment.memSize > 0) segments.push(segment);
  }
  if (segments.length === 0) throw reader.bad("no loadable segment, expected at least one program header of type 1");
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const entry = wide ? view.getBigUint64(E_ENTRY, true) : BigInt(view.getUint32(E_ENTRY, true));
  return {
    format: wide ? "elf64" : "elf32",
    mode: wide ? "long" : "protected",
    entry: physicalEntry(cut(entry), entry, segments, reader),
    segments: segments.map(({ address, bytes, memSize }) => ({ address, bytes, memSize })),
  };
}
