/**
 * Recordings of single instructions, format `x86-vectors` version 1: parsing. A header line, then one vector a line, JSON
 * Lines, plain or gzip-compressed; numbers are hexadecimal strings without `0x`, byte strings hexadecimal in memory order.
 *
 * @module
 */

import { BadInput } from "../memory/bad_input.ts";

/** First two bytes of a gzip file (RFC 1952). */
const GZIP_MAGIC = [0x1f, 0x8b];

/** A piece of memory that exists. */
export interface VectorRegion {
  /** Name. */
  readonly name: string;
  /** Linear address. */
  readonly at: bigint;
  /** Bytes. */
  readonly size: number;
  /** Whether it can be written. */
  readonly writable: boolean;
  /** Whether it can be executed. */
  readonly executable: boolean;
  /** Whether CPL 3 reaches it. */
  readonly user: boolean;
  /** The byte it is filled with. */
  readonly fill: number;
}

/** A segment as recorded: selector, attributes as in a VMCB (G 11, D/B 10, L 9, AVL 8), limit, base. */
export type VectorSegment = readonly [selector: number, attributes: number, limit: number, base: bigint];

/** What a file says about all its vectors. */
export interface VectorHeader {
  /** Class of the instructions. */
  readonly class: string;
  /** Mode in which they run. */
  readonly mode: "long64" | "prot32" | "prot16";
  /** The memory. */
  readonly regions: readonly VectorRegion[];
  /** Registers by name: cr0, cr4, efer, xcr0. */
  readonly system: Readonly<Record<string, bigint>>;
  /** Base and limit. */
  readonly idtr: readonly [bigint, number];
  /** Base and limit. */
  readonly gdtr: readonly [bigint, number];
  /** 8-byte entries placed at `gdtr`. */
  readonly gdt: readonly bigint[];
  /** Address and 8-byte entries of a local descriptor table. */
  readonly ldt: readonly [bigint, readonly bigint[]] | undefined;
}

/** Bytes at an address. */
export type VectorRange = readonly [at: bigint, bytes: Uint8Array];

/** x87 state. */
export interface VectorFpu {
  /** Control word. */
  readonly cw: number;
  /** Status word. */
  readonly sw: number;
  /** Abridged tag word. */
  readonly tw: number;
  /** ST(0) to ST(7), 10 bytes each. */
  readonly st: readonly Uint8Array[];
}

/** Registers as recorded, before (complete) or after (what changed). */
export interface VectorState {
  /** By number in encoding order. */
  readonly gpr: readonly (bigint | undefined)[];
  /** Instruction pointer. */
  readonly rip: bigint;
  /** Flags. */
  readonly rflags: bigint;
  /** Segments by name. */
  readonly seg: Readonly<Record<string, VectorSegment>>;
  /** System registers and MSRs by name, but for tables and system segments. */
  readonly sys: Readonly<Record<string, bigint>>;
  /** gdtr and idtr. */
  readonly tables: Readonly<Record<string, readonly [bigint, number]>>;
  /** Memory, in writing order. */
  readonly mem: readonly VectorRange[];
  /** MXCSR. */
  readonly mxcsr: number | undefined;
  /** XMM registers by number. */
  readonly xmm: Readonly<Record<string, Uint8Array>>;
  /** x87 state. */
  readonly fpu: VectorFpu | undefined;
}

/** A port access. */
export interface VectorPortAccess {
  /** Direction. */
  readonly dir: "in" | "out";
  /** Port. */
  readonly port: number;
  /** Bytes of an element. */
  readonly size: number;
  /** Elements. */
  readonly count: number;
  /** All bytes. */
  readonly data: Uint8Array;
}

/** One recording. */
export interface Vector {
  /** Identifier. */
  readonly id: string;
  /** Instruction bytes. */
  readonly code: Uint8Array;
  /** Privilege level. */
  readonly cpl: number;
  /** Before. */
  readonly in: VectorState;
  /** After. */
  readonly out: VectorState;
  /** The exception that ended the instruction. */
  readonly exception:
    | { readonly vector: number; readonly error: number | undefined; readonly cr2: bigint | undefined }
    | undefined;
  /** Port accesses in order. */
  readonly io: readonly VectorPortAccess[];
  /** The instruction was HLT and stopped the processor. */
  readonly hlt: boolean;
  /** Undefined bits: RFLAGS. */
  readonly undefFlags: bigint;
  /** Undefined bits of registers by name. */
  readonly undefGpr: Readonly<Record<string, bigint>>;
  /** Undefined bits of the x87 status word. */
  readonly undefFsw: number;
  /** Undefined bits of memory. */
  readonly undefMem: readonly VectorRange[];
}

/** Register names in encoding order. */
export const GPR_NAMES: readonly string[] = [
  "rax",
  "rcx",
  "rdx",
  "rbx",
  "rsp",
  "rbp",
  "rsi",
  "rdi",
  "r8",
  "r9",
  "r10",
  "r11",
  "r12",
  "r13",
  "r14",
  "r15",
];

/** Reads a file, decompresses it when it is gzip, and returns its lines. */
export async function readLines(path: string): Promise<string[]> {
  let raw: Uint8Array;
  try {
    raw = await Deno.readFile(path);
  } catch (cause) {
    throw new BadInput(`${path}: cannot be read: ${cause instanceof Error ? cause.message : cause}`);
  }
  if (raw[0] === GZIP_MAGIC[0] && raw[1] === GZIP_MAGIC[1]) {
    try {
      const stream = new Blob([raw as Uint8Array<ArrayBuffer>]).stream().pipeThrough(new DecompressionStream("gzip"));
      raw = new Uint8Array(await new Response(stream).arrayBuffer());
    } catch {
      throw new BadInput(`${path}: not a complete gzip file`);
    }
  }
  const lines = new TextDecoder().decode(raw).split("\n");
  while (lines.length > 0 && lines[lines.length - 1].trim() === "") lines.pop();
  if (lines.length === 0) throw new BadInput(`${path}: empty file`);
  return lines;
}

/** Parses a line with `parse`; whatever is wrong becomes a `BadInput` with file and line number (from 1). */
export function parseLine<T>(path: string, number: number, line: string, parse: (value: Json) => T): T {
  try {
    return parse(JSON.parse(line));
  } catch (cause) {
    const why = cause instanceof SyntaxError || cause instanceof TypeError || cause instanceof RangeError
      ? cause.message
      : String(cause);
    throw new BadInput(`${path}: line ${number}: ${why}`);
  }
}

/** A parsed JSON value of unknown shape. */
// deno-lint-ignore no-explicit-any
export type Json = any;

/** A hexadecimal number of up to 64 bits. */
export function hex(value: Json, what: string): bigint {
  if (typeof value !== "string" || !/^[0-9a-f]{1,16}$/.test(value)) {
    throw new TypeError(`${what}: expected a hexadecimal string, got ${JSON.stringify(value)}`);
  }
  return BigInt("0x" + value);
}

/** A hexadecimal number of up to 32 bits. */
export function hex32(value: Json, what: string): number {
  const number = hex(value, what);
  if (number > 0xffffffffn) throw new TypeError(`${what}: more than 32 bits: ${value}`);
  return Number(number);
}

/** Hexadecimal bytes. */
export function hexBytes(value: Json, what: string): Uint8Array {
  if (typeof value !== "string" || value.length % 2 !== 0 || !/^[0-9a-f]*$/.test(value)) {
    throw new TypeError(`${what}: expected hexadecimal bytes, got ${JSON.stringify(value)}`);
  }
  const bytes = new Uint8Array(value.length / 2);
  for (let i = 0; i < bytes.length; i++) bytes[i] = parseInt(value.slice(2 * i, 2 * i + 2), 16);
  return bytes;
}

/** A list, or an error that names it. */
function list(value: Json, what: string, length?: number): Json[] {
  if (!Array.isArray(value) || (length !== undefined && value.length !== length)) {
    throw new TypeError(`${what}: expected a list${length === undefined ? "" : ` of ${length}`}`);
  }
  return value;
}

/** A whole number, or an error that names it. */
function whole(value: Json, what: string, most = 0xffffffff): number {
  if (!Number.isInteger(value) || value < 0 || value > most) throw new TypeError(`${what}: expected a number`);
  return value;
}

/** An object, or an error that names it. */
function object(value: Json, what: string): Record<string, Json> {
  if (typeof value !== "object" || value === null || Array.isArray(value)) {
    throw new TypeError(`${what}: expected an object`);
  }
  return value;
}

/** A name that is one of `names`, or an error that names it. */
function known(name: string, names: readonly string[], what: string): string {
  if (!names.includes(name)) throw new TypeError(`${what}: unknown register "${name}"`);
  return name;
}

/** So many bytes, or an error that names them. */
function exactBytes(value: Json, what: string, count: number): Uint8Array {
  const bytes = hexBytes(value, what);
  if (bytes.length !== count) throw new TypeError(`${what}: expected ${count} bytes, got ${bytes.length}`);
  return bytes;
}

/** A recorded segment. */
export function parseSegment(value: Json, what: string): VectorSegment {
  const [selector, attributes, limit, base] = list(value, what, 4);
  return [hex32(selector, what), hex32(attributes, what), hex32(limit, what), hex(base, what)];
}

/** A recorded table register. */
export function parseTable(value: Json, what: string): readonly [bigint, number] {
  const [base, limit] = list(value, what, 2);
  return [hex(base, what), hex32(limit, what)];
}

/** Recorded memory ranges. */
function parseRanges(value: Json, what: string): VectorRange[] {
  if (value === undefined) return [];
  return list(value, what).map((range) => {
    const [at, bytes] = list(range, what, 2);
    return [hex(at, what), hexBytes(bytes, what)];
  });
}

/** Parses a header. */
export function parseHeader(value: Json): VectorHeader {
  if (value?.format !== "x86-vectors") throw new TypeError(`format: expected "x86-vectors"`);
  if (value.version !== 1) throw new TypeError(`version: expected 1, got ${JSON.stringify(value.version)}`);
  const mode = value.mode;
  if (mode !== "long64" && mode !== "prot32" && mode !== "prot16") {
    throw new TypeError(`mode: expected long64, prot32 or prot16, got ${JSON.stringify(mode)}`);
  }
  if (typeof value.class !== "string") throw new TypeError("class: expected a string");
  const supervisor = new Set(value.supervisor === undefined ? [] : list(value.supervisor, "supervisor"));
  const regions = list(value.regions, "regions").map((region) => ({
    name: String(region?.name),
    at: hex(region?.at, "regions.at"),
    size: hex32(region?.size, "regions.size"),
    writable: String(region?.perm).includes("w"),
    executable: String(region?.perm).includes("x"),
    user: !supervisor.has(region?.name),
    fill: hex32(region?.fill, "regions.fill") & 0xff,
  }));
  const system: Record<string, bigint> = {};
  for (const name of ["cr0", "cr4", "efer", "xcr0"]) {
    if (value[name] !== undefined) system[name] = hex(value[name], name);
  }
  const ldt = value.ldt === undefined ? undefined : list(value.ldt, "ldt", 2);
  return {
    class: value.class,
    mode,
    regions,
    system,
    idtr: value.idtr === undefined ? [0n, 0] : parseTable(value.idtr, "idtr"),
    gdtr: value.gdtr === undefined ? [0n, 0] : parseTable(value.gdtr, "gdtr"),
    gdt: value.gdt === undefined ? [] : list(value.gdt, "gdt").map((entry) => hex(entry, "gdt")),
    ldt: ldt && [hex(ldt[0], "ldt"), list(ldt[1], "ldt").map((entry) => hex(entry, "ldt"))],
  };
}

/** Names under `seg`. */
const SEGMENTS = ["es", "cs", "ss", "ds", "fs", "gs"];
/** Names of 64-bit values under `sys`. */
const SYSTEM_VALUES = [
  ...["cr0", "cr2", "cr4", "cr8", "efer", "dr0", "dr1", "dr2", "dr3", "dr6", "dr7"],
  ...["star", "lstar", "cstar", "sfmask", "kernelgsbase", "sysenter_cs", "sysenter_esp", "sysenter_eip", "pat"],
  ...["fsbase", "gsbase"],
];
/** Numbers of the XMM registers. */
const XMM_NUMBERS = Array.from({ length: 16 }, (_, n) => String(n));
const XMM_BYTES = 16;
const X87_BYTES = 10;
/** Names under `sys` that are tables. */
const TABLE_NAMES = ["gdtr", "idtr"];
/** Names under `sys` that are segments. */
const SYSTEM_SEGMENTS = ["tr", "ldtr"];

/** Parses `in` (complete) or `out` (what changed). */
function parseState(value: Json, mode: VectorHeader["mode"], complete: boolean): VectorState {
  const what = complete ? "in" : "out";
  object(value, what);
  const gpr: (bigint | undefined)[] = [];
  if (complete) {
    list(value.gpr, "in.gpr", mode === "long64" ? 16 : 8).forEach((text, n) => gpr[n] = hex(text, "in.gpr"));
  } else {
    for (const [name, text] of Object.entries(object(value.gpr, "out.gpr"))) {
      gpr[GPR_NAMES.indexOf(known(name, GPR_NAMES, "out.gpr"))] = hex(text, `out.gpr.${name}`);
    }
  }
  const seg: Record<string, VectorSegment> = {};
  for (const [name, text] of Object.entries(value.seg ?? {})) {
    seg[known(name, SEGMENTS, `${what}.seg`)] = parseSegment(text, `${what}.seg.${name}`);
  }
  const sys: Record<string, bigint> = {};
  const tables: Record<string, readonly [bigint, number]> = {};
  for (const [name, text] of Object.entries(value.sys ?? {})) {
    if (TABLE_NAMES.includes(name)) tables[name] = parseTable(text, `${what}.sys.${name}`);
    else if (SYSTEM_SEGMENTS.includes(name)) seg[name] = parseSegment(text, `${what}.sys.${name}`);
    else sys[known(name, SYSTEM_VALUES, `${what}.sys`)] = hex(text, `${what}.sys.${name}`);
  }
  for (const name of ["fsbase", "gsbase"]) {
    if (value[name] !== undefined) sys[name] = hex(value[name], `${what}.${name}`);
  }
  const xmm: Record<string, Uint8Array> = {};
  for (const [n, text] of Object.entries(value.xmm ?? {})) {
    xmm[known(n, XMM_NUMBERS, `${what}.xmm`)] = exactBytes(text, `${what}.xmm.${n}`, XMM_BYTES);
  }
  return {
    gpr,
    rip: hex(value.rip, `${what}.rip`),
    rflags: hex(value.rflags, `${what}.rflags`),
    seg,
    sys,
    tables,
    mem: parseRanges(value.mem, `${what}.mem`),
    mxcsr: value.mxcsr === undefined ? undefined : hex32(value.mxcsr, `${what}.mxcsr`),
    xmm,
    fpu: value.fpu === undefined ? undefined : {
      cw: hex32(value.fpu.cw, `${what}.fpu.cw`),
      sw: hex32(value.fpu.sw, `${what}.fpu.sw`),
      tw: hex32(value.fpu.tw, `${what}.fpu.tw`),
      st: list(value.fpu.st, `${what}.fpu.st`, 8).map((text) => exactBytes(text, `${what}.fpu.st`, X87_BYTES)),
    },
  };
}

/** Parses a vector. */
export function parseVector(value: Json, mode: VectorHeader["mode"]): Vector {
  object(value, "vector");
  if (typeof value.id !== "string") throw new TypeError("id: expected a string");
  const exc = value.out?.exc;
  const undef = value.undef ?? {};
  const undefGpr: Record<string, bigint> = {};
  for (const [name, text] of Object.entries(undef.gpr ?? {})) {
    undefGpr[known(name, GPR_NAMES, "undef.gpr")] = hex(text, `undef.gpr.${name}`);
  }
  return {
    id: value.id,
    code: hexBytes(value.code, "code"),
    cpl: whole(value.cpl, "cpl", 3),
    in: parseState(value.in, mode, true),
    out: parseState(value.out, mode, false),
    exception: exc === undefined ? undefined : {
      vector: whole(exc.vector, "out.exc.vector", 31),
      error: exc.error === undefined ? undefined : hex32(exc.error, "out.exc.error"),
      cr2: exc.cr2 === undefined ? undefined : hex(exc.cr2, "out.exc.cr2"),
    },
    io: value.out.io === undefined ? [] : list(value.out.io, "out.io").map((access) => ({
      dir: access?.dir === "in" ? "in" : "out",
      port: hex32(access?.port, "out.io.port"),
      size: whole(access?.size, "out.io.size", 4),
      count: whole(access?.count, "out.io.count"),
      data: hexBytes(access?.data, "out.io.data"),
    })),
    hlt: value.out.hlt === true,
    undefFlags: undef.rflags === undefined ? 0n : hex(undef.rflags, "undef.rflags"),
    undefGpr,
    undefFsw: undef.fsw === undefined ? 0 : hex32(undef.fsw, "undef.fsw"),
    undefMem: parseRanges(undef.mem, "undef.mem"),
  };
}
