/**
 * The machine in which a recorded instruction is replayed: one processor, the regions of the file's header behind page
 * tables, ports that follow the recordings' input rule, and exceptions that are reported instead of delivered.
 *
 * @module
 */

import { BadInput } from "../memory/bad_input.ts";
import { MachineMemory } from "../memory/machine_memory.ts";
import type { CpuBus } from "../cpu/bus.ts";
import { Cpu } from "../cpu/cpu.ts";
import { CpuState, EXIT_HLT, EXIT_MMIO } from "../cpu/state.ts";
import type { Vector, VectorHeader, VectorPortAccess, VectorRange, VectorSegment, VectorState } from "./vector_file.ts";

const at = CpuState.at;

/** Bytes of a page. */
const PAGE = 4096;
/** Most memory that a header may ask for, in bytes. */
const REGION_BYTES_MAX = 64 * 1024 * 1024;
/** Where page tables start; the regions follow. */
const TABLES_AT = PAGE;
/** Page-table entry: present, accessed and dirty. */
const ENTRY_BASE = 0x61n;
const ENTRY_WRITABLE = 2n;
const ENTRY_USER = 4n;
const ENTRY_NX = 1n << 63n;
/** Bits of an entry that are not an address. */
const ENTRY_FLAGS = 0xfffn | ENTRY_NX;

/** CR0, CR4, EFER and XCR0 of headers that do not say them: those of the 64-bit recordings. */
const DEFAULT_SYSTEM: Readonly<Record<string, bigint>> = { cr0: 0x80050033n, cr4: 0x50620n, efer: 0xd01n, xcr0: 7n };
/** IDTR of the same. */
const DEFAULT_IDTR: readonly [bigint, number] = [0xffff800000002000n, 0xfff];
/** GDTR of the same. */
const DEFAULT_GDTR: readonly [bigint, number] = [0x308000n, 0x87];
/** The task register of every vector that does not say another, and its TSS's I/O map base. */
const DEFAULT_TR: VectorSegment = [0x40, 0x8b, 0x67, 0x308800n];
const TSS_IO_MAP_BASE = 0x66n;
/** Segments that a 64-bit vector leaves out, by privilege. */
const LONG_SEGMENTS: Readonly<Record<"user" | "supervisor", Readonly<Record<string, VectorSegment>>>> = {
  user: { cs: [0x33, 0xafb, 0xffffffff, 0n], ss: [0x2b, 0xcf3, 0xffffffff, 0n] },
  supervisor: { cs: [0x10, 0xa9b, 0xffffffff, 0n], ss: [0x18, 0xc93, 0xffffffff, 0n] },
};
const NULL_SEGMENT: VectorSegment = [0, 0, 0, 0n];
/** Segment names in the order of the state. */
export const SEGMENT_NAMES = ["es", "cs", "ss", "ds", "fs", "gs", "ldtr", "tr"] as const;

/** Registers under `sys` and where they lie in the state. */
export const SYSTEM_REGISTERS: Readonly<Record<string, number>> = {
  cr0: at.cr0,
  cr2: at.cr2,
  cr4: at.cr4,
  cr8: at.cr8,
  efer: at.efer,
  dr0: at.dr0,
  dr1: at.dr1,
  dr2: at.dr2,
  dr3: at.dr3,
  dr6: at.dr6,
  dr7: at.dr7,
  star: at.star,
  lstar: at.lstar,
  cstar: at.cstar,
  sfmask: at.sfmask,
  kernelgsbase: at.kernel_gs_base,
  sysenter_cs: at.sysenter_cs,
  sysenter_esp: at.sysenter_esp,
  sysenter_eip: at.sysenter_eip,
  pat: at.pat,
  fsbase: at.fs,
  gsbase: at.gs,
};

/** Default values under `sys`, where they are not zero. */
const SYSTEM_DEFAULTS: Readonly<Record<string, bigint>> = { dr6: 0xffff0ff0n, dr7: 0x400n, pat: 0x7040600070406n };

/** A region and where it lies in the memory. */
interface Placed {
  readonly at: bigint;
  readonly size: number;
  readonly offset: number;
}

/** The input rule of ports: the k-th read of port p (exits README, "mix"). */
export function mix(a: number, k: number): number {
  let h = (Math.imul(a ^ 0x5bd1e995, 0x9e3779b1) + Math.imul(k, 0x85ebca77)) | 0;
  h ^= h >>> 15;
  h = Math.imul(h, 0x2c1b3c6d);
  h ^= h >>> 12;
  return h;
}

/** Ports by the input rule, no devices, every exception reported. */
class VectorBus implements CpuBus {
  readonly #pages: number;
  /** Port accesses, as recorded. */
  readonly accesses: { dir: "in" | "out"; port: number; size: number; data: number[]; count: number }[] = [];
  /** Whether HLT was reached. */
  halted = false;
  readonly interceptsStringIo = false;
  #inputs = 0;

  constructor(pages: number) {
    this.#pages = pages;
  }

  /** Forgets the vector before. */
  reset(): void {
    this.accesses.length = 0;
    this.halted = false;
    this.#inputs = 0;
  }

  page(gpn: number): number {
    return gpn < this.#pages ? gpn * PAGE : -1;
  }

  mmioRead(cpu: Cpu): void {
    cpu.leave(EXIT_MMIO);
  }

  mmioWrite(cpu: Cpu): void {
    cpu.leave(EXIT_MMIO);
  }

  #access(dir: "in" | "out", port: number, size: number, value: number): void {
    let last = this.accesses[this.accesses.length - 1];
    if (last === undefined || last.dir !== dir || last.port !== port || last.size !== size) {
      last = { dir, port, size, data: [], count: 0 };
      this.accesses.push(last);
    }
    last.count++;
    for (let k = 0; k < size; k++) last.data.push((value >>> (8 * k)) & 0xff);
  }

  in(_cpu: Cpu, _i: unknown, port: number, size: number): number {
    const word = mix(port, this.#inputs++);
    const value = size === 4 ? word : word & ((1 << (8 * size)) - 1);
    this.#access("in", port, size, value);
    return value;
  }

  out(_cpu: Cpu, _i: unknown, port: number, size: number, value: number): void {
    this.#access("out", port, size, value);
  }

  cpuid(cpu: Cpu): void {
    cpu.g64[0] =
      cpu.g64[1] =
      cpu.g64[2] =
      cpu.g64[3] =
        0n;
  }

  rdmsr(): boolean {
    return false;
  }

  wrmsr(): boolean {
    return false;
  }

  interceptsMsr(): boolean {
    return false;
  }

  hlt(cpu: Cpu): void {
    this.halted = true;
    cpu.exit(EXIT_HLT);
  }

  hypercall(): boolean {
    return false;
  }

  tsc(cpu: Cpu): void {
    cpu.v64[0] = 0n;
  }

  interceptsException(): boolean {
    return true;
  }

  acceptInterrupt(): number {
    return -1;
  }
}

/** A processor and the memory of one file of vectors. */
export class VectorMachine {
  /** The processor. */
  readonly cpu: Cpu;
  /** What it did outside. */
  readonly bus: VectorBus;
  readonly #header: VectorHeader;
  readonly #memory: MachineMemory;
  readonly #regions: Placed[] = [];
  readonly #cr3: number;
  readonly #start: number;
  readonly #bytes: number;
  readonly #pristine: Uint8Array;
  readonly #expected: Uint8Array;
  readonly #mask: Uint8Array;
  readonly #actualWords: Int32Array;
  readonly #expectedWords: Int32Array;
  readonly #zeros = new Uint8Array(CpuState.size);
  #nextTable = TABLES_AT;

  /** Builds memory and page tables; `path` names the file in errors. */
  constructor(header: VectorHeader, path: string) {
    this.#header = header;
    let bytes = 0;
    for (const region of header.regions) {
      if (region.size % PAGE !== 0 || region.at % BigInt(PAGE) !== 0n) {
        throw new BadInput(`${path}: line 1: region "${region.name}" is not made of whole pages`);
      }
      bytes += region.size;
    }
    if (bytes > REGION_BYTES_MAX) throw new BadInput(`${path}: line 1: regions of more than ${REGION_BYTES_MAX} bytes`);
    // A table for every page would be enough for any choice of addresses: three more levels of at most that many.
    const tables = PAGE * (1 + header.regions.length * 3 + Math.ceil(bytes / (PAGE * 256)));
    this.#start = TABLES_AT + tables;
    const end = this.#start + bytes;
    const memory = this.#memory = MachineMemory.allocate(end + PAGE);
    this.#cr3 = this.#newTable();
    let offset = this.#start;
    for (const region of header.regions) {
      this.#regions.push({ at: region.at, size: region.size, offset });
      const flags = (region.writable ? ENTRY_WRITABLE : 0n) | (region.user ? ENTRY_USER : 0n) |
        (region.executable ? 0n : ENTRY_NX);
      for (let page = 0; page < region.size; page += PAGE) {
        this.#map(region.at + BigInt(page), BigInt(offset + page) | ENTRY_BASE | flags);
      }
      memory.u8.fill(region.fill, offset, offset + region.size);
      offset += region.size;
    }
    this.#bytes = bytes;
    this.#tables();
    this.#pristine = memory.u8.slice(this.#start, end);
    this.#expected = new Uint8Array(bytes);
    this.#mask = new Uint8Array(bytes).fill(0xff);
    this.#actualWords = memory.i32.subarray(this.#start >> 2, end >> 2);
    this.#expectedWords = new Int32Array(this.#expected.buffer);
    this.bus = new VectorBus(end / PAGE);
    this.cpu = new Cpu(memory, end, this.bus);
  }

  /** A zeroed page for a table. */
  #newTable(): number {
    const table = this.#nextTable;
    this.#nextTable += PAGE;
    return table;
  }

  /** Maps the page at `linear` with a leaf entry. */
  #map(linear: bigint, leaf: bigint): void {
    let table = this.#cr3;
    for (const shift of [39n, 30n, 21n]) {
      const slot = (table >> 3) + Number((linear >> shift) & 0x1ffn);
      if (this.#memory.u64[slot] === 0n) {
        this.#memory.u64[slot] = BigInt(this.#newTable()) | ENTRY_BASE | ENTRY_WRITABLE | ENTRY_USER;
      }
      table = Number(this.#memory.u64[slot] & ~ENTRY_FLAGS);
    }
    this.#memory.u64[(table >> 3) + Number((linear >> 12n) & 0x1ffn)] = leaf;
  }

  /** GDT, LDT and TSS of the header. */
  #tables(): void {
    const words = (base: bigint, entries: readonly bigint[]) => {
      entries.forEach((entry, n) => {
        const bytes = new Uint8Array(8);
        new DataView(bytes.buffer).setBigUint64(0, entry, true);
        this.#write(this.#memory.u8, 0, [[base + BigInt(n * 8), bytes]]);
      });
    };
    const { gdt, gdtr, ldt } = this.#header;
    if (gdt.length > 0) {
      words(gdtr[0], gdt);
      this.#write(this.#memory.u8, 0, [[DEFAULT_TR[3] + TSS_IO_MAP_BASE, new Uint8Array([0xff, 0xff])]]);
    }
    if (ldt !== undefined) words(ldt[0], ldt[1]);
  }

  /** Writes ranges into an image of the regions whose first byte is at `origin` of `image`; the rest is dropped. */
  #write(image: Uint8Array, origin: number, ranges: readonly VectorRange[]): void {
    for (const [start, bytes] of ranges) {
      for (const region of this.#regions) {
        if (start < region.at || start >= region.at + BigInt(region.size)) continue;
        const within = Number(start - region.at);
        const length = Math.min(bytes.length, region.size - within);
        image.set(bytes.subarray(0, length), region.offset + within - origin);
      }
    }
  }

  /** The linear address of an offset in the regions' image. */
  #linear(offset: number): bigint {
    for (const region of this.#regions) {
      if (offset < region.offset + region.size) return region.at + BigInt(offset - region.offset);
    }
    return 0n;
  }

  /** The recorded segment `name` before the instruction. */
  segmentBefore(vector: Vector, name: string): VectorSegment {
    const given = vector.in.seg[name];
    if (given !== undefined) return given;
    if (name === "tr") return DEFAULT_TR;
    if (this.#header.mode !== "long64") return NULL_SEGMENT;
    return LONG_SEGMENTS[vector.cpl === 3 ? "user" : "supervisor"][name] ?? NULL_SEGMENT;
  }

  /** A register under `sys` before the instruction. */
  systemBefore(vector: Vector, name: string): bigint {
    const given = vector.in.sys[name];
    if (given !== undefined) return given;
    if ((name === "fsbase" || name === "gsbase") && vector.in.seg[name.slice(0, 2)] !== undefined) {
      return vector.in.seg[name.slice(0, 2)][3];
    }
    return this.#header.system[name] ?? DEFAULT_SYSTEM[name] ?? SYSTEM_DEFAULTS[name] ?? 0n;
  }

  /** GDTR or IDTR before the instruction. */
  tableBefore(vector: Vector, name: "gdtr" | "idtr"): readonly [bigint, number] {
    const given = vector.in.tables[name];
    if (given !== undefined) return given;
    if (this.#header.mode !== "long64") return name === "gdtr" ? DEFAULT_GDTR : DEFAULT_IDTR;
    return this.#header[name];
  }

  /** Puts the state before `vector` into processor and memory. */
  prepare(vector: Vector): void {
    const { cpu } = this;
    const { sv, s8 } = cpu;
    s8.set(this.#zeros);
    this.bus.reset();
    const before = vector.in;
    before.gpr.forEach((value, n) => cpu.g64[n] = value ?? 0n);
    sv.setBigUint64(at.rip, before.rip, true);
    sv.setBigUint64(at.rflags, before.rflags, true);
    SEGMENT_NAMES.forEach((name, n) => {
      const [selector, attributes, limit, base] = this.segmentBefore(vector, name);
      const packed = (attributes & 0xff) | ((attributes & 0xf00) << 4);
      cpu.setSegment(n, selector, packed, limit, Number(base & 0xffffffffn) | 0, Number(base >> 32n) | 0);
    });
    for (const [name, offset] of Object.entries(SYSTEM_REGISTERS)) {
      sv.setBigUint64(offset, this.systemBefore(vector, name), true);
    }
    sv.setBigUint64(at.cr3, BigInt(this.#cr3), true);
    sv.setBigUint64(at.xcr0, this.#header.system.xcr0 ?? DEFAULT_SYSTEM.xcr0, true);
    for (const name of ["gdtr", "idtr"] as const) {
      const [base, limit] = this.tableBefore(vector, name);
      sv.setBigUint64(at[name] + 8, base, true);
      sv.setUint16(at[name] + 6, limit, true);
    }
    this.#prepareFx(before);
    this.#prepareMemory(vector);
    cpu.flushCaches();
  }

  /** x87 and SSE state. */
  #prepareFx(before: VectorState): void {
    const { sv, s8 } = this.cpu;
    sv.setUint16(at.fx, before.fpu?.cw ?? FCW_INITIAL, true);
    sv.setUint16(at.fx + 2, before.fpu?.sw ?? 0, true);
    s8[at.fx + 4] = before.fpu?.tw ?? 0;
    before.fpu?.st.forEach((bytes, n) => s8.set(bytes, at.fx + FX_ST + 16 * n));
    sv.setUint32(at.fx + FX_MXCSR, before.mxcsr ?? MXCSR_INITIAL, true);
    for (let n = 0; n < 16; n++) s8.set(this.xmmBefore(before, n), at.fx + FX_XMM + 16 * n);
  }

  /** XMM register n before the instruction. */
  xmmBefore(before: VectorState, n: number): Uint8Array {
    return before.xmm[n] ?? XMM_INITIAL[n];
  }

  /** Memory before, and its copy for the comparison. */
  #prepareMemory(vector: Vector): void {
    const { u8 } = this.#memory;
    u8.set(this.#pristine, this.#start);
    const mode = this.#header.mode;
    const base = mode === "long64" ? 0n : this.segmentBefore(vector, "cs")[3];
    const place = mode === "long64" ? vector.in.rip : (base + vector.in.rip) & 0xffffffffn;
    this.#write(u8, 0, [[place, vector.code]]);
    this.#write(u8, 0, vector.in.mem);
    // The code overrides the fill, the ranges come in writing order behind it.
    this.#expected.set(u8.subarray(this.#start, this.#start + this.#bytes));
    this.#write(this.#expected, this.#start, vector.out.mem);
  }

  /** The first byte that differs from the recorded memory, as address, expected and actual; undefined when none does. */
  memoryDifference(vector: Vector): { at: bigint; expected: number; actual: number } | undefined {
    const actual = this.#actualWords;
    const expected = this.#expectedWords;
    const words = actual.length;
    let masked = false;
    for (let n = 0; n < words; n++) {
      if (actual[n] === expected[n]) continue;
      if (!masked && vector.undefMem.length > 0) {
        masked = true;
        for (const [start, bytes] of vector.undefMem) {
          this.#write(this.#mask, this.#start, [[start, bytes.map((byte) => ~byte & 0xff)]]);
        }
      }
      for (let k = 4 * n; k < 4 * n + 4; k++) {
        const byte = this.#memory.u8[this.#start + k];
        if (((byte ^ this.#expected[k]) & this.#mask[k]) === 0) continue;
        if (masked) this.#mask.fill(0xff);
        return { at: this.#linear(this.#start + k), expected: this.#expected[k], actual: byte };
      }
    }
    if (masked) this.#mask.fill(0xff);
    return undefined;
  }

  /** The port accesses so far. */
  accesses(): VectorPortAccess[] {
    return this.bus.accesses.map((access) => ({ ...access, data: Uint8Array.from(access.data) }));
  }
}

/** x87 control word after FNINIT. */
const FCW_INITIAL = 0x37f;
/** MXCSR after reset. */
const MXCSR_INITIAL = 0x1f80;
/** Offset of ST(0) in an FXSAVE image. */
export const FX_ST = 32;
/** Offset of MXCSR in an FXSAVE image. */
export const FX_MXCSR = 24;
/** Offset of XMM0 in an FXSAVE image. */
export const FX_XMM = 160;
/** What an XMM register holds that a vector does not name: the bytes i0 to if. */
const XMM_INITIAL = Array.from({ length: 16 }, (_, n) => Uint8Array.from({ length: 16 }, (_, k) => (n << 4) | k));
