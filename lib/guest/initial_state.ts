/**
 * The registers with which a guest starts, as plain data, and the tables that protected and long mode start with.
 *
 * The states of the three modes are those of the recorded whole programs: real mode at CS 0; 32-bit protected mode with
 * flat segments; long mode with 4 GiB mapped onto themselves in 2 MiB pages. Multiboot kernels start as the Multiboot
 * Specification, section 3.2, says.
 *
 * @module
 */

import type { GuestMode } from "./guest_image.ts";
import { MULTIBOOT_BOOTLOADER_MAGIC } from "./multiboot.ts";

/** A segment register with its hidden part. */
export interface SegmentState {
  /** The selector. */
  readonly selector: number;
  /** Attributes as in a VMCB: type in bits 0–3, S 4, DPL 5–6, P 7, AVL 8, L 9, D/B 10, G 11. */
  readonly attributes: number;
  /** The limit in bytes. */
  readonly limit: number;
  /** The base. */
  readonly base: bigint;
}

/** GDTR or IDTR. */
export interface TableState {
  /** Linear address of the table. */
  readonly base: bigint;
  /** Offset of its last byte. */
  readonly limit: number;
}

/** Everything that differs from zero, and much that does not, when the first instruction runs. */
export interface InitialState {
  /** The mode, for messages. */
  readonly mode: GuestMode;
  /** RAX RCX RDX RBX RSP RBP RSI RDI R8…R15, in encoding order. */
  readonly gpr: readonly bigint[];
  /** RIP. */
  readonly rip: bigint;
  /** RFLAGS. */
  readonly rflags: bigint;
  /** The segment registers, LDTR and TR. */
  readonly seg: Readonly<Record<"es" | "cs" | "ss" | "ds" | "fs" | "gs" | "ldtr" | "tr", SegmentState>>;
  /** CR0. */
  readonly cr0: bigint;
  /** CR2. */
  readonly cr2: bigint;
  /** CR3. */
  readonly cr3: bigint;
  /** CR4. */
  readonly cr4: bigint;
  /** CR8. */
  readonly cr8: bigint;
  /** EFER. */
  readonly efer: bigint;
  /** GDTR. */
  readonly gdtr: TableState;
  /** IDTR. */
  readonly idtr: TableState;
  /** DR6. */
  readonly dr6: bigint;
  /** DR7. */
  readonly dr7: bigint;
  /** x87 control word. */
  readonly fcw: number;
  /** MXCSR. */
  readonly mxcsr: number;
}

/** A range of memory that the starting tables take. */
export interface TableRange {
  /** What lies there, for messages. */
  readonly what: string;
  /** First address. */
  readonly start: number;
  /** Address after the last byte. */
  readonly end: number;
}

/** Address of the GDT in protected and long mode. */
export const BOOT_GDT: number = 0x8000;
/** Address of the PML4 in long mode; the PDPT and four page directories follow it. */
export const BOOT_PML4: number = 0x1000;
/** Stack pointer of real mode. */
const REAL_STACK = 0x7c00n;
/** Stack pointer of protected and long mode. */
const FLAT_STACK = 0x80000n;

const PAGE_BYTES = 0x1000;
const PAGE_DIRECTORIES = 4;
const ENTRIES_PER_TABLE = 512;
const LARGE_PAGE_BYTES = 0x200000;
const GDT_ENTRY_BYTES = 8;
/** Present, writable, user. */
const TABLE_ENTRY_FLAGS = 0x7;
/** Present, writable, user, 2 MiB page. */
const LARGE_PAGE_FLAGS = 0x87;
const CODE_32_DESCRIPTOR = 0x00cf9b000000ffffn;
const CODE_64_DESCRIPTOR = 0x00af9b000000ffffn;
const DATA_DESCRIPTOR = 0x00cf93000000ffffn;
const CODE_SELECTOR = 0x08;
const DATA_SELECTOR = 0x10;

const RFLAGS_RESET = 0x2n;
const DR6_RESET = 0xffff0ff0n;
const DR7_RESET = 0x400n;
const FCW_RESET = 0x37f;
const MXCSR_RESET = 0x1f80;
const LIMIT_64K = 0xffff;
const LIMIT_4G = 0xffffffff;

/** Attributes of segments as in a VMCB. */
const REAL_CODE = 0x9b;
const REAL_DATA = 0x93;
const FLAT_CODE_32 = 0xc9b;
const FLAT_CODE_64 = 0xa9b;
const FLAT_DATA = 0xc93;
const BUSY_TSS = 0x8b;

/** PE ET; protected mode also has MP and NE; long mode WP AM PG besides. */
const CR0_REAL = 0x10n;
const CR0_MULTIBOOT = 0x11n;
const CR0_PROTECTED = 0x33n;
const CR0_LONG = 0x80050033n;
/** OSFXSR OSXMMEXCPT; long mode also PAE. */
const CR4_PROTECTED = 0x600n;
const CR4_LONG = 0x620n;
/** SCE LME LMA NXE. */
const EFER_LONG = 0xd01n;

function segments(code: SegmentState, data: SegmentState): InitialState["seg"] {
  const ldtr = { selector: 0, attributes: 0, limit: 0, base: 0n };
  const tr = { selector: 0, attributes: BUSY_TSS, limit: LIMIT_64K, base: 0n };
  return { es: data, cs: code, ss: data, ds: data, fs: data, gs: data, ldtr, tr };
}

function flatSegments(codeAttributes: number): InitialState["seg"] {
  return segments(
    { selector: CODE_SELECTOR, attributes: codeAttributes, limit: LIMIT_4G, base: 0n },
    { selector: DATA_SELECTOR, attributes: FLAT_DATA, limit: LIMIT_4G, base: 0n },
  );
}

function registers(values: Readonly<Record<number, bigint>>): bigint[] {
  return Array.from({ length: 16 }, (_, i) => values[i] ?? 0n);
}

/** Encoding order of the registers set here. */
const RAX = 0;
const RBX = 3;
const RSP = 4;

const COMMON = {
  rflags: RFLAGS_RESET,
  cr2: 0n,
  cr3: 0n,
  cr8: 0n,
  dr6: DR6_RESET,
  dr7: DR7_RESET,
  fcw: FCW_RESET,
  mxcsr: MXCSR_RESET,
};

const GDT_LIMIT = 3 * GDT_ENTRY_BYTES - 1;

/**
 * The registers of a guest that starts in one of the three modes.
 *
 * @param mode The mode.
 * @param entry Address of the first instruction; in real mode an offset in segment 0.
 * @returns The registers.
 */
export function initialState(mode: GuestMode, entry: number): InitialState {
  const rip = BigInt(entry);
  const none = { base: 0n, limit: 0 };
  switch (mode) {
    case "real": {
      const table = { base: 0n, limit: LIMIT_64K };
      const seg = segments(
        { selector: 0, attributes: REAL_CODE, limit: LIMIT_64K, base: 0n },
        { selector: 0, attributes: REAL_DATA, limit: LIMIT_64K, base: 0n },
      );
      return {
        ...COMMON,
        mode,
        gpr: registers({ [RSP]: REAL_STACK }),
        rip,
        seg,
        cr0: CR0_REAL,
        cr4: 0n,
        efer: 0n,
        gdtr: table,
        idtr: table,
      };
    }
    case "protected":
      return {
        ...COMMON,
        mode,
        gpr: registers({ [RSP]: FLAT_STACK }),
        rip,
        seg: flatSegments(FLAT_CODE_32),
        cr0: CR0_PROTECTED,
        cr4: CR4_PROTECTED,
        efer: 0n,
        gdtr: { base: BigInt(BOOT_GDT), limit: GDT_LIMIT },
        idtr: none,
      };
    case "long":
      return {
        ...COMMON,
        mode,
        gpr: registers({ [RSP]: FLAT_STACK }),
        rip,
        seg: flatSegments(FLAT_CODE_64),
        cr0: CR0_LONG,
        cr3: BigInt(BOOT_PML4),
        cr4: CR4_LONG,
        efer: EFER_LONG,
        gdtr: { base: BigInt(BOOT_GDT), limit: GDT_LIMIT },
        idtr: none,
      };
  }
}

/**
 * The registers of a multiboot kernel: flat 32-bit segments without tables behind them, magic in EAX, information in EBX.
 *
 * @param entry Address of the first instruction.
 * @param information Address of the multiboot information structure.
 * @returns The registers.
 */
export function multibootState(entry: number, information: number): InitialState {
  return {
    ...COMMON,
    mode: "protected",
    gpr: registers({ [RAX]: BigInt(MULTIBOOT_BOOTLOADER_MAGIC), [RBX]: BigInt(information) }),
    rip: BigInt(entry),
    seg: flatSegments(FLAT_CODE_32),
    cr0: CR0_MULTIBOOT,
    cr4: 0n,
    efer: 0n,
    gdtr: { base: 0n, limit: 0 },
    idtr: { base: 0n, limit: 0 },
  };
}

/** The memory that {@linkcode writeBootTables} writes in a mode. */
export function bootTableRanges(mode: GuestMode): TableRange[] {
  if (mode === "real") return [];
  const gdt = { what: "GDT", start: BOOT_GDT, end: BOOT_GDT + GDT_LIMIT + 1 };
  if (mode === "protected") return [gdt];
  return [{ what: "page tables", start: BOOT_PML4, end: BOOT_PML4 + (2 + PAGE_DIRECTORIES) * PAGE_BYTES }, gdt];
}

/**
 * Writes the GDT and, for long mode, the page tables.
 *
 * @param memory Guest RAM from address 0, large enough for the ranges of {@linkcode bootTableRanges}.
 * @param mode The mode.
 */
export function writeBootTables(memory: Uint8Array, mode: GuestMode): void {
  if (mode === "real") return;
  const view = new DataView(memory.buffer, memory.byteOffset, memory.byteLength);
  const gdt = [0n, mode === "long" ? CODE_64_DESCRIPTOR : CODE_32_DESCRIPTOR, DATA_DESCRIPTOR];
  gdt.forEach((descriptor, i) => view.setBigUint64(BOOT_GDT + i * GDT_ENTRY_BYTES, descriptor, true));
  if (mode !== "long") return;
  const pdpt = BOOT_PML4 + PAGE_BYTES;
  const directories = pdpt + PAGE_BYTES;
  view.setBigUint64(BOOT_PML4, BigInt(pdpt | TABLE_ENTRY_FLAGS), true);
  for (let i = 0; i < PAGE_DIRECTORIES; i++) {
    view.setBigUint64(pdpt + i * 8, BigInt(directories + i * PAGE_BYTES | TABLE_ENTRY_FLAGS), true);
  }
  for (let i = 0; i < PAGE_DIRECTORIES * ENTRIES_PER_TABLE; i++) {
    view.setBigUint64(directories + i * 8, BigInt(i * LARGE_PAGE_BYTES + LARGE_PAGE_FLAGS), true);
  }
}
