/**
 * Address translation: 4-level, PAE and 32-bit page tables (AMD64 Architecture Programmer's Manual volume 2, chapter 5;
 * Intel SDM volume 3, chapter 4).
 *
 * Modelled: 4 KiB, 2 MiB, 4 MiB (with PSE-36) and 1 GiB pages, accessed and dirty bits set with a compare-exchange, NX,
 * user/supervisor, CR0.WP, CR4.SMEP, protection keys of user pages, reserved bits for 48 physical address bits, global
 * pages. The page-directory pointers of PAE paging are read from memory at each walk, as AMD processors do, and checked
 * when CR3 is loaded.
 * Not modelled: 5-level paging, SMAP, keys of supervisor pages (CR4 refuses their bits), memory types.
 *
 * @module
 */
import { CR4_PAE, CR4_PKE, CR4_PSE, CR4_SMEP } from "./control_bits.ts";
import type { Cpu } from "./cpu.ts";
import { ACCESS_EXECUTE, ACCESS_READ, ACCESS_WRITE, CpuState, CR0_PG, CR0_WP, EFER_LMA, EFER_NXE } from "./state.ts";

const CR0 = CpuState.at.cr0 >>> 2;
const CR3 = CpuState.at.cr3 >>> 2;
const CR4 = CpuState.at.cr4 >>> 2;
const EFER = CpuState.at.efer >>> 2;
const PKRU = CpuState.at.pkru >>> 2;

/** Page-fault error code: the translation exists and refuses the access (or has a reserved bit set). */
export const PF_PRESENT = 1;
/** Page-fault error code: the access was a write. */
export const PF_WRITE = 2;
/** Page-fault error code: the access was made at CPL 3. */
export const PF_USER = 4;
/** Page-fault error code: a reserved bit is set in an entry that was used. */
export const PF_RESERVED = 8;
/** Page-fault error code: the access was an instruction fetch. */
export const PF_FETCH = 16;
/** Page-fault error code: the page's protection key refuses the access. */
export const PF_KEY = 32;

/** Physical address bits of the modelled processor (CPUID leaf 80000008 EAX). */
export const PHYSICAL_ADDRESS_BITS = 48;

const ENTRY_PRESENT = 1 << 0;
const ENTRY_WRITABLE = 1 << 1;
const ENTRY_USER = 1 << 2;
const ENTRY_ACCESSED = 1 << 5;
const ENTRY_DIRTY = 1 << 6;
const ENTRY_LARGE = 1 << 7;
const ENTRY_GLOBAL = 1 << 8;

/** Bits 51:48 of an entry, in its high half: beyond the physical address width. */
const RESERVED_HIGH_LONG = 0x000f_0000;
/** Bits 62:48 in PAE entries, where 62:52 are not available to software. */
const RESERVED_HIGH_PAE = 0x7fff_0000;
/** Bit 63 (NX) of an entry, in its high half. */
const NX_HIGH = 0x8000_0000 | 0;
/** Bits 62:59 of an entry in long mode, in its high half: the page's protection key. */
const KEY_SHIFT_HIGH = 27;
const KEY_MASK = 0xf;
/** PKRU: a key without data accesses, and one without writes. */
const KEY_ACCESS_DISABLE = 1;
const KEY_WRITE_DISABLE = 2;
/** Bits 8:7 of a PML4 entry. */
const RESERVED_PML4E = ENTRY_LARGE | ENTRY_GLOBAL;
/** Bits 29:13 of a 1 GiB page's entry: below its address, above the PAT bit. */
const RESERVED_1G = 0x3fff_e000;
/** Bits 20:13 of a 2 MiB page's entry. */
const RESERVED_2M = 0x001f_e000;
/** Bit 21 of a 4 MiB page's entry; bits 20:13 are physical address bits 39:32. */
const RESERVED_4M = 0x0020_0000;
/** Bits of a PAE page-directory pointer that must be zero: 2:1 and 8:5. */
const RESERVED_PDPTE = 0x0000_01e6;

/** Bytes of a page. */
const PAGE_BYTES = 4096;
/** Pages of 4 GiB. */
const PAGES_OF_4G = 0x10_0000;
/** How often a walk starts over because another processor changed an entry under it. */
const WALK_RETRIES_MAX = 64;

/** What the last successful {@linkcode walk} found. */
export const translation = {
  /** Guest-physical page number (address / 4096) of the accessed 4 KiB. */
  gpn: 0,
  /** The page survives a CR3 write (when CR4.PGE is on). */
  global: false,
  /** The page is larger than 4 KiB, so an INVLPG of any of its addresses ends it. */
  large: false,
  /** Every level allows writes. */
  writable: false,
  /** Every level allows CPL 3. */
  user: false,
  /** No level forbids fetches. */
  executable: false,
  /** The page is private to an encrypted guest: the entry that maps it has the C bit, or the mode has no such bit. */
  encrypted: false,
};

/** The C bit of the processor that walks, in the high half of an entry; 0 when it has none. */
let encryptionBit = 0;
/** The low and high halves of the entry read last. */
let entryLo = 0;
let entryHi = 0;
/** Where the entries that a walk has used lie, for the accessed and dirty bits: page, offset in it, low half. */
const usedPage = [0, 0, 0, 0];
const usedOffset = [0, 0, 0, 0];
const usedLo = [0, 0, 0, 0];
let usedCount = 0;

/** Low half of the address of `offset` in physical page `gpn`. */
function addressLo(gpn: number, offset: number): number {
  return (gpn * PAGE_BYTES + offset) | 0;
}

/** High half of the address of physical page `gpn`. */
function addressHi(gpn: number): number {
  return Math.floor(gpn / PAGES_OF_4G) | 0;
}

/** Reads an entry from a table that the bus does not map, without disturbing the value on its way to memory. */
function readDevice(cpu: Cpu, gpn: number, offset: number, size: number): void {
  const value = cpu.v64[0];
  cpu.softLeave = false; // leaving must end the walk
  cpu.tableAccess = true;
  cpu.bus.mmioRead(cpu, addressLo(gpn, offset), addressHi(gpn) | encryptionBit, size);
  cpu.tableAccess = false;
  entryLo = cpu.v32[0];
  entryHi = cpu.v32[1];
  cpu.v64[0] = value;
}

/** Reads the 8-byte table entry at `offset` of physical page `gpn` into {@linkcode entryLo} and {@linkcode entryHi}. */
function readEntry64(cpu: Cpu, gpn: number, offset: number): void {
  const at = cpu.bus.page(gpn, ACCESS_READ);
  if (at >= 0) {
    const word = (at + offset) >>> 2;
    const m32 = cpu.m32;
    // Another processor may store the entry between the two halves: the low half decides whether they belong together.
    do {
      entryLo = m32[word];
      entryHi = m32[word + 1];
    } while (m32[word] !== entryLo);
  } else {
    readDevice(cpu, gpn, offset, 8);
  }
}

/** Reads the 4-byte table entry at `offset` of physical page `gpn` into {@linkcode entryLo}. */
function readEntry32(cpu: Cpu, gpn: number, offset: number): void {
  const at = cpu.bus.page(gpn, ACCESS_READ);
  if (at >= 0) {
    entryLo = cpu.m32[(at + offset) >>> 2];
  } else {
    readDevice(cpu, gpn, offset, 4);
  }
  entryHi = 0;
}

/** Remembers the entry just read as used by this walk. */
function use(gpn: number, offset: number): void {
  usedPage[usedCount] = gpn;
  usedOffset[usedCount] = offset;
  usedLo[usedCount] = entryLo;
  usedCount++;
}

/** Sets accessed bits in every used entry and, for a write, the dirty bit in the last; false when one has changed. */
function markUsed(cpu: Cpu, write: boolean): boolean {
  for (let i = 0; i < usedCount; i++) {
    const old = usedLo[i];
    const marked = old | ENTRY_ACCESSED | (write && i === usedCount - 1 ? ENTRY_DIRTY : 0);
    if (marked === old) continue;
    const gpn = usedPage[i];
    const at = cpu.bus.page(gpn, ACCESS_WRITE);
    if (at >= 0) {
      if (Atomics.compareExchange(cpu.m32, (at + usedOffset[i]) >>> 2, old, marked) !== old) return false;
    } else {
      const value = cpu.v64[0];
      cpu.softLeave = false;
      cpu.v64[0] = BigInt(marked >>> 0);
      cpu.tableAccess = true;
      cpu.bus.mmioWrite(cpu, addressLo(gpn, usedOffset[i]), addressHi(gpn) | encryptionBit, 4);
      cpu.tableAccess = false;
      cpu.v64[0] = value;
    }
  }
  return true;
}

/** Page number that the 64-bit entry read last points to. */
function entryPage(): number {
  return (entryHi & 0xffff) * 0x10_0000 + (entryLo >>> 12);
}

/**
 * Finds the physical page of a linear address under the current paging mode, checks the access, and sets accessed and
 * dirty bits.
 *
 * @param lo Low half of the linear address (canonical, or 32 bits outside long mode).
 * @param hi High half.
 * @param access One of ACCESS_READ, ACCESS_WRITE, ACCESS_EXECUTE.
 * @param user Whether the access is made at CPL 3 and not on the processor's own behalf.
 * @param mark Whether accessed and dirty bits are set; false for a translation without side effects.
 * @returns -1 with {@linkcode translation} filled in, or the page fault's error code.
 */
export function walk(cpu: Cpu, lo: number, hi: number, access: number, user: boolean, mark = true): number {
  const s32 = cpu.s32;
  encryptionBit = cpu.encryptionBit;
  if ((s32[CR0] & CR0_PG) === 0) {
    translation.encrypted = encryptionBit !== 0;
    translation.gpn = lo >>> 12;
    translation.global = false;
    translation.large = false;
    translation.writable = translation.user = translation.executable = true;
    return -1;
  }
  let error = 0;
  for (let attempt = 0; attempt < WALK_RETRIES_MAX; attempt++) {
    usedCount = 0;
    if ((s32[CR4] & CR4_PAE) === 0) error = walk32(cpu, lo);
    else if ((s32[EFER] & EFER_LMA) !== 0) error = walkLong(cpu, lo, hi);
    else error = walkPae(cpu, lo);
    const write = (access & ACCESS_WRITE) !== 0;
    if (error < 0) {
      // Without PAE an entry has no place for the C bit, and everything is private.
      translation.encrypted = encryptionBit !== 0 && ((s32[CR4] & CR4_PAE) === 0 || (entryHi & encryptionBit) !== 0);
      if (!permitted(s32, access, user)) error = PF_PRESENT;
      else if (!keyPermits(s32, access, user)) error = PF_PRESENT | PF_KEY;
      else if (!mark || markUsed(cpu, write)) return -1;
      else continue; // an entry changed under the walk
    }
    if (write) error |= PF_WRITE;
    if (user) error |= PF_USER;
    if ((access & ACCESS_EXECUTE) !== 0 && fetchesAreTold(s32)) error |= PF_FETCH;
    return error;
  }
  // Somebody rewrites this entry without end. The translation found last is as good as any that a processor may cache.
  return -1;
}

/** Whether the translation just found allows the access. */
function permitted(s32: Int32Array, access: number, user: boolean): boolean {
  if (user && !translation.user) return false;
  if ((access & ACCESS_WRITE) !== 0 && !translation.writable && (user || (s32[CR0] & CR0_WP) !== 0)) return false;
  if ((access & ACCESS_EXECUTE) !== 0) {
    if (!translation.executable) return false;
    if (!user && translation.user && (s32[CR4] & CR4_SMEP) !== 0) return false;
  }
  return true;
}

/** Whether the protection key of the user page just found allows the access; fetches are always allowed. */
function keyPermits(s32: Int32Array, access: number, user: boolean): boolean {
  if ((s32[CR4] & CR4_PKE) === 0 || (s32[EFER] & EFER_LMA) === 0 || !translation.user) return true;
  if ((access & ACCESS_EXECUTE) !== 0) return true;
  const rights = s32[PKRU] >>> (2 * ((entryHi >>> KEY_SHIFT_HIGH) & KEY_MASK));
  if ((rights & KEY_ACCESS_DISABLE) !== 0) return false;
  const protects = (access & ACCESS_WRITE) !== 0 && (user || (s32[CR0] & CR0_WP) !== 0);
  return !protects || (rights & KEY_WRITE_DISABLE) === 0;
}

/** Whether a page fault's error code says that the access was a fetch. */
function fetchesAreTold(s32: Int32Array): boolean {
  return ((s32[EFER] & EFER_NXE) !== 0 && (s32[CR4] & CR4_PAE) !== 0) || (s32[CR4] & CR4_SMEP) !== 0;
}

/** Fills {@linkcode translation} in from the rights gathered and the leaf entry read last. */
function found(gpn: number, rights: number, notExecutable: number, large: boolean): number {
  translation.gpn = gpn;
  translation.large = large;
  translation.global = (entryLo & ENTRY_GLOBAL) !== 0;
  translation.writable = (rights & ENTRY_WRITABLE) !== 0;
  translation.user = (rights & ENTRY_USER) !== 0;
  translation.executable = notExecutable >= 0;
  return -1;
}

/** Long mode: PML4, PDPT, PD, PT. Returns -1 or the error code of the missing or malformed entry. */
function walkLong(cpu: Cpu, lo: number, hi: number): number {
  const s32 = cpu.s32;
  const reserved = (RESERVED_HIGH_LONG & ~encryptionBit) | ((s32[EFER] & EFER_NXE) === 0 ? NX_HIGH : 0);
  let table = (s32[CR3 + 1] & 0xffff) * 0x10_0000 + (s32[CR3] >>> 12);

  let offset = ((hi >>> 7) & 0x1ff) << 3;
  readEntry64(cpu, table, offset);
  if ((entryLo & ENTRY_PRESENT) === 0) return 0;
  if ((entryHi & reserved) !== 0 || (entryLo & RESERVED_PML4E) !== 0) return PF_PRESENT | PF_RESERVED;
  use(table, offset);
  let rights = entryLo;
  let notExecutable = entryHi;
  table = entryPage();

  offset = ((hi & 0x7f) << 5) | ((lo >>> 30) << 3);
  readEntry64(cpu, table, offset);
  if ((entryLo & ENTRY_PRESENT) === 0) return 0;
  if ((entryHi & reserved) !== 0) return PF_PRESENT | PF_RESERVED;
  rights &= entryLo;
  notExecutable |= entryHi;
  if ((entryLo & ENTRY_LARGE) !== 0) {
    if ((entryLo & RESERVED_1G) !== 0) return PF_PRESENT | PF_RESERVED;
    use(table, offset);
    return found(entryPage() - ((entryLo >>> 12) & 0x3ffff) + ((lo >>> 12) & 0x3ffff), rights, notExecutable, true);
  }
  if ((entryLo & ENTRY_GLOBAL) !== 0) return PF_PRESENT | PF_RESERVED; // reserved by AMD in an entry that is no leaf
  use(table, offset);
  return walkDirectory(cpu, lo, entryPage(), reserved, rights, notExecutable);
}

/** PAE outside long mode: four directory pointers, PD, PT. */
function walkPae(cpu: Cpu, lo: number): number {
  const s32 = cpu.s32;
  const reserved = (RESERVED_HIGH_PAE & ~encryptionBit) | ((s32[EFER] & EFER_NXE) === 0 ? NX_HIGH : 0);
  const cr3 = s32[CR3];
  readEntry64(cpu, cr3 >>> 12, (cr3 & 0xfe0) | ((lo >>> 30) << 3));
  if ((entryLo & ENTRY_PRESENT) === 0) return 0;
  if ((entryHi & ((RESERVED_HIGH_PAE & ~encryptionBit) | NX_HIGH)) !== 0 || (entryLo & RESERVED_PDPTE) !== 0) {
    return PF_PRESENT | PF_RESERVED;
  }
  // A directory pointer has neither rights nor an accessed bit.
  return walkDirectory(cpu, lo, entryPage(), reserved, ENTRY_WRITABLE | ENTRY_USER, 0);
}

/** The page directory and page table of 64-bit entries that long mode and PAE share. */
function walkDirectory(
  cpu: Cpu,
  lo: number,
  directory: number,
  reserved: number,
  upperRights: number,
  upperNotExecutable: number,
): number {
  let offset = ((lo >>> 21) & 0x1ff) << 3;
  readEntry64(cpu, directory, offset);
  if ((entryLo & ENTRY_PRESENT) === 0) return 0;
  if ((entryHi & reserved) !== 0) return PF_PRESENT | PF_RESERVED;
  use(directory, offset);
  let rights = upperRights & entryLo;
  let notExecutable = upperNotExecutable | entryHi;
  if ((entryLo & ENTRY_LARGE) !== 0) {
    if ((entryLo & RESERVED_2M) !== 0) return PF_PRESENT | PF_RESERVED;
    return found(entryPage() - ((entryLo >>> 12) & 0x1ff) + ((lo >>> 12) & 0x1ff), rights, notExecutable, true);
  }
  const table = entryPage();
  offset = ((lo >>> 12) & 0x1ff) << 3;
  readEntry64(cpu, table, offset);
  if ((entryLo & ENTRY_PRESENT) === 0) return 0;
  if ((entryHi & reserved) !== 0) return PF_PRESENT | PF_RESERVED;
  use(table, offset);
  rights &= entryLo;
  notExecutable |= entryHi;
  return found(entryPage(), rights, notExecutable, false);
}

/** 32-bit paging: page directory and page table of 32-bit entries, 4 MiB pages when CR4.PSE is on. */
function walk32(cpu: Cpu, lo: number): number {
  const s32 = cpu.s32;
  const directory = s32[CR3] >>> 12;
  let offset = (lo >>> 22) << 2;
  readEntry32(cpu, directory, offset);
  if ((entryLo & ENTRY_PRESENT) === 0) return 0;
  use(directory, offset);
  let rights = entryLo;
  if ((entryLo & ENTRY_LARGE) !== 0 && (s32[CR4] & CR4_PSE) !== 0) {
    if ((entryLo & RESERVED_4M) !== 0) return PF_PRESENT | PF_RESERVED;
    const high = (entryLo >>> 13) & 0xff;
    return found(high * 0x10_0000 + ((entryLo >>> 22) << 10) + ((lo >>> 12) & 0x3ff), rights, 0, true);
  }
  const table = entryLo >>> 12;
  offset = ((lo >>> 12) & 0x3ff) << 2;
  readEntry32(cpu, table, offset);
  if ((entryLo & ENTRY_PRESENT) === 0) return 0;
  use(table, offset);
  rights &= entryLo;
  return found(entryLo >>> 12, rights, 0, false);
}

/**
 * Whether the four page-directory pointers that `cr3` (its low half) names may be loaded: no reserved bit in a present
 * one. A CR3, CR0 or CR4 write that turns to PAE paging outside long mode raises #GP(0) otherwise.
 */
export function directoryPointersValid(cpu: Cpu, cr3: number): boolean {
  encryptionBit = cpu.encryptionBit;
  for (let i = 0; i < 4; i++) {
    readEntry64(cpu, cr3 >>> 12, (cr3 & 0xfe0) | (i << 3));
    if ((entryLo & ENTRY_PRESENT) === 0) continue;
    if ((entryHi & ((RESERVED_HIGH_PAE & ~encryptionBit) | NX_HIGH)) !== 0 || (entryLo & RESERVED_PDPTE) !== 0) {
      return false;
    }
  }
  return true;
}
