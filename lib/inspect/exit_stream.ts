/**
 * Recordings of whole programs, format `x86-exits` version 1: parsing. A header line, then one exit a line, JSON Lines, plain
 * or gzip-compressed; numbers are hexadecimal strings without `0x`, byte strings hexadecimal in memory order.
 *
 * A record leaves out segment and system registers that are those of the record before; here every record is complete.
 *
 * @module
 */
import {
  hex,
  hex32,
  hexBytes,
  parseLine,
  parseSegment,
  parseTable,
  readLines,
  type VectorSegment,
} from "./vector_file.ts";

/** What left the guest. */
export type ExitType = "in" | "out" | "mmio-read" | "mmio-write" | "rdmsr" | "wrmsr" | "hlt" | "shutdown";

/** Every {@linkcode ExitType}. */
const EXIT_TYPES: readonly string[] = ["in", "out", "mmio-read", "mmio-write", "rdmsr", "wrmsr", "hlt", "shutdown"];
/** Modes in which a program may start. */
const MODES: readonly string[] = ["real16", "prot32", "long64"];
/** How a program may end. */
const ENDS: readonly string[] = ["hlt", "port", "shutdown"];

/** Names of the segment registers in a record, in the order of the processor's state. */
export const EXIT_SEGMENTS = ["es", "cs", "ss", "ds", "fs", "gs", "ldtr", "tr"] as const;
/** Names of the 64-bit system registers in a record. */
export const EXIT_SYSTEM = ["cr0", "cr2", "cr3", "cr4", "cr8", "efer"] as const;
/** Names of the table registers in a record. */
export const EXIT_TABLES = ["gdtr", "idtr"] as const;

/** Segment registers by name: selector, attributes as in a VMCB, limit, base. */
export type ExitSegments = Readonly<Record<(typeof EXIT_SEGMENTS)[number], VectorSegment>>;
/** System registers by name; tables as base and limit. */
export type ExitSystem =
  & Readonly<Record<(typeof EXIT_SYSTEM)[number], bigint>>
  & Readonly<Record<(typeof EXIT_TABLES)[number], readonly [base: bigint, limit: number]>>;

/** The registers before an instruction that left the guest. */
export interface ExitRegisters {
  /** In encoding order. */
  readonly gpr: readonly bigint[];
  /** Address of the instruction. */
  readonly rip: bigint;
  /** Flags; RF is never shown. */
  readonly rflags: bigint;
  /** Segment registers. */
  readonly seg: ExitSegments;
  /** System registers. */
  readonly sys: ExitSystem;
}

/** What left the guest, recorded or seen: `in` and `out` have port, string and count; others what concerns them. */
export interface ExitAccess {
  /** What left the guest. */
  readonly type: ExitType;
  /** Port of `in` and `out`, else 0. */
  readonly port: number;
  /** Bytes of an element; 8 for an MSR, 0 for `hlt` and `shutdown`. */
  readonly size: number;
  /** INS or OUTS. */
  readonly string: boolean;
  /** Elements; 1 unless a string instruction moved several at once. */
  readonly count: number;
  /** Guest-physical address of a device-memory access, else 0. */
  readonly gpa: bigint;
  /** MSR number, else 0. */
  readonly msr: number;
  /** Bytes read or written, all elements. */
  readonly data: Uint8Array;
  /** Registers before the instruction (of a device-memory string: before the element). */
  readonly registers: ExitRegisters;
}

/** One recorded exit. */
export interface ExitRecord extends ExitAccess {
  /** Its number, from 0. */
  readonly seq: number;
  /** Bits of RFLAGS that are undefined here. */
  readonly undefinedFlags: bigint;
}

/** What a stream says about its program. */
export interface ExitHeader {
  /** Name. */
  readonly program: string;
  /** File name of the flat image, beside the stream. */
  readonly image: string;
  /** Mode in which it starts. */
  readonly mode: "real16" | "prot32" | "long64";
  /** Guest-physical address of the image. */
  readonly load: number;
  /** Memory in bytes, from address 0. */
  readonly memory: number;
  /** An OUT to this port ends the program. */
  readonly endPort: number;
  /** How the program ended. */
  readonly ended: "hlt" | "port" | "shutdown";
  /** CPUID: EAX, EBX, ECX and EDX by leaf; other leaves answer zero. */
  readonly cpuid: ReadonlyMap<number, readonly [eax: number, ebx: number, ecx: number, edx: number]>;
  /** Registers at entry. */
  readonly initial: ExitRegisters;
}

/** A recorded program. */
export interface ExitStream {
  /** About the program. */
  readonly header: ExitHeader;
  /** Its exits. */
  readonly records: readonly ExitRecord[];
}

/** A parsed JSON object. */
type Fields = Readonly<Record<string, unknown>>;

const GPR_COUNT = 16;
const PORTS = 0x10000;
const PAGE_BYTES = 4096;
/** Largest memory of a program: what a machine model can hold beside its own state. */
const MEMORY_BYTES_MAX = 1 << 30;
/** Most elements of one record. */
const COUNT_MAX = 1 << 20;
const ACCESS_SIZES: readonly unknown[] = [1, 2, 4, 8];

function fail(message: string): never {
  throw new TypeError(message);
}

/** `value` as an object. */
function fields(value: unknown, what: string): Fields {
  if (typeof value !== "object" || value === null || Array.isArray(value)) fail(`${what}: expected an object`);
  return value as Fields;
}

/** `value` as one of `names`. */
function oneOf(value: unknown, names: readonly string[], what: string): string {
  if (typeof value !== "string" || !names.includes(value)) fail(`${what}: expected one of ${names.join(", ")}`);
  return value;
}

/** `value` as a whole number from `low` to `high`. */
function whole(value: unknown, low: number, high: number, what: string): number {
  if (typeof value !== "number" || !Number.isInteger(value) || value < low || value > high) {
    fail(`${what}: expected a number from ${low} to ${high}`);
  }
  return value;
}

/** `value` as an array of `length` elements. */
function list(value: unknown, length: number, what: string): readonly unknown[] {
  if (!Array.isArray(value) || value.length !== length) fail(`${what}: expected ${length} elements`);
  return value;
}

function parseSegments(value: unknown): ExitSegments {
  const given = fields(value, "seg");
  return Object.fromEntries(
    EXIT_SEGMENTS.map((name) => [name, parseSegment(given[name], `seg.${name}`)]),
  ) as ExitSegments;
}

function parseSystem(value: unknown): ExitSystem {
  const given = fields(value, "sys");
  return Object.fromEntries([
    ...EXIT_SYSTEM.map((name) => [name, hex(given[name], `sys.${name}`)]),
    ...EXIT_TABLES.map((name) => [name, parseTable(given[name], `sys.${name}`)]),
  ]) as ExitSystem;
}

/** Registers of a record; what it leaves out is that of `before`. */
function parseRegisters(given: Fields, before: ExitRegisters | undefined): ExitRegisters {
  const gpr = list(given.gpr, GPR_COUNT, "gpr").map((value, n) => hex(value, `gpr[${n}]`));
  return {
    gpr,
    rip: hex(given.rip, "rip"),
    rflags: hex(given.rflags, "rflags"),
    seg: given.seg === undefined && before !== undefined ? before.seg : parseSegments(given.seg),
    sys: given.sys === undefined && before !== undefined ? before.sys : parseSystem(given.sys),
  };
}

/** Parses the header line. */
function parseHeader(value: unknown): { header: ExitHeader; count: number } {
  const given = fields(value, "header");
  if (given.format !== "x86-exits" || given.version !== 1) fail(`expected format "x86-exits", version 1`);
  if (typeof given.program !== "string" || given.program === "") fail("program: expected a name");
  if (typeof given.image !== "string" || !/^[^/\\]+$/.test(given.image)) fail("image: expected a file name");
  const memory = hex32(given.memory, "memory");
  if (memory === 0 || memory % PAGE_BYTES !== 0 || memory > MEMORY_BYTES_MAX) {
    fail(`memory: expected whole pages, at most ${MEMORY_BYTES_MAX.toString(16)} bytes`);
  }
  if (!Array.isArray(given.cpuid)) fail("cpuid: expected an array");
  const cpuid = new Map(given.cpuid.map((entry, n) => {
    const [leaf, eax, ebx, ecx, edx] = list(entry, 5, `cpuid[${n}]`).map((word) => hex32(word, `cpuid[${n}]`));
    return [leaf, [eax, ebx, ecx, edx] as const] as const;
  }));
  return {
    header: {
      program: given.program,
      image: given.image,
      mode: oneOf(given.mode, MODES, "mode") as ExitHeader["mode"],
      load: hex32(given.load, "load"),
      memory,
      endPort: hex32(given.endPort, "endPort"),
      ended: oneOf(given.ended, ENDS, "ended") as ExitHeader["ended"],
      cpuid,
      initial: parseRegisters(fields(given.initial, "initial"), undefined),
    },
    count: whole(given.records, 0, Number.MAX_SAFE_INTEGER, "records"),
  };
}

/** Parses record number `seq`; `before` are the registers of the one before. */
function parseRecord(value: unknown, seq: number, before: ExitRegisters): ExitRecord {
  const given = fields(value, "record");
  whole(given.seq, seq, seq, "seq");
  const type = oneOf(given.type, EXIT_TYPES, "type") as ExitType;
  const io = type === "in" || type === "out";
  const mmio = type === "mmio-read" || type === "mmio-write";
  const msr = type === "rdmsr" || type === "wrmsr";
  if ((io || mmio) && !ACCESS_SIZES.includes(given.size)) fail("size: expected 1, 2, 4 or 8");
  if (io && typeof given.string !== "boolean") fail("string: expected true or false");
  const size = msr ? 8 : io || mmio ? given.size as number : 0;
  const count = io ? whole(given.count, 1, COUNT_MAX, "count") : 1;
  const data = size === 0 ? new Uint8Array(0) : hexBytes(given.data, "data");
  if (data.length !== size * count) fail(`data: expected ${size * count} bytes, found ${data.length}`);
  const port = io ? hex32(given.port, "port") : 0;
  if (port >= PORTS) fail("port: expected at most ffff");
  return {
    seq,
    type,
    port,
    size,
    string: io && given.string === true,
    count,
    gpa: mmio ? hex(given.gpa, "gpa") : 0n,
    msr: msr ? hex32(given.msr, "msr") : 0,
    data,
    undefinedFlags: given.undef === undefined ? 0n : hex(fields(given.undef, "undef").rflags, "undef.rflags"),
    registers: parseRegisters(given, before),
  };
}

/**
 * Reads the stream at `path`.
 *
 * @throws {BadInput} With file and line, for a file that is not a complete stream.
 */
export async function readExitStream(path: string): Promise<ExitStream> {
  const lines = await readLines(path);
  const { header, count } = parseLine(path, 1, lines[0], parseHeader);
  const records: ExitRecord[] = [];
  let before = header.initial;
  for (let n = 1; n < lines.length; n++) {
    const record = parseLine(path, n + 1, lines[n], (value) => parseRecord(value, n - 1, before));
    records.push(record);
    before = record.registers;
  }
  parseLine(path, lines.length, "null", () => {
    if (records.length !== count) {
      fail(`the header announces ${count} records, the stream ends after ${records.length}`);
    }
  });
  return { header, records };
}
