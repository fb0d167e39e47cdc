/**
 * Replay of recorded single instructions: `exitbox verify vectors` and the tests. One comparer for every class: every
 * register and every byte of memory that the recording does not call undefined, port accesses, exceptions.
 *
 * @module
 */

import { CpuState, EXIT_EXCEPTION, EXIT_NONE, FLAG_RF } from "../cpu/state.ts";
import {
  GPR_NAMES,
  parseHeader,
  parseLine,
  parseVector,
  readLines,
  type Vector,
  type VectorHeader,
} from "./vector_file.ts";
import { FX_MXCSR, FX_ST, FX_XMM, SEGMENT_NAMES, SYSTEM_REGISTERS, VectorMachine } from "./vector_machine.ts";

const at = CpuState.at;

/** The first difference of a vector that failed. Values are hexadecimal. */
export interface VectorFailure {
  /** Class of the file. */
  readonly class: string;
  /** Identifier of the vector. */
  readonly id: string;
  /** What differs: a register, `mem[address]`, `io[n]`, `exc`. */
  readonly field: string;
  /** What the processor did. */
  readonly expected: string;
  /** What the model did. */
  readonly actual: string;
}

/** How many vectors passed. */
export interface VectorReport {
  /** By class. */
  readonly classes: Record<string, { passed: number; failed: number }>;
  /** The first difference of the first failing vectors of each class. */
  readonly firstFailures: VectorFailure[];
  /** Instructions that raised #UD because they are not implemented, with how often. */
  readonly unimplemented: Record<string, number>;
}

/** Options of {@linkcode verifyVectors}. */
export interface VerifyVectorsOptions {
  /** How many failures of each class are kept (default 1). */
  readonly failuresPerClass?: number;
  /** Called every {@linkcode PROGRESS_VECTORS} vectors with the file, the vectors replayed and all of the file. */
  readonly onProgress?: (file: string, replayed: number, all: number) => void;
}

/** Vectors between two reports of progress. */
export const PROGRESS_VECTORS = 256;

/** Most turns that one instruction may take: a repeated string instruction is continued until it is complete. */
const TURNS_MAX = 1 << 20;

/** What ended an instruction. */
interface Outcome {
  readonly vector: number;
  readonly error: number | undefined;
  readonly cr2: bigint;
}

/**
 * Replays the recordings in `files` (JSON Lines, plain or gzip) and compares each with what the processor model does.
 * Throws `BadInput` with file and line for a line that is no recording.
 */
export async function verifyVectors(
  files: readonly string[],
  options: VerifyVectorsOptions = {},
): Promise<VectorReport> {
  const report: VectorReport = { classes: {}, firstFailures: [], unimplemented: {} };
  for (const file of files) await verifyFile(file, options, report);
  return report;
}

/** Replays one file. */
async function verifyFile(path: string, options: VerifyVectorsOptions, report: VectorReport): Promise<void> {
  const failuresPerClass = options.failuresPerClass ?? 1;
  const lines = await readLines(path);
  const header = parseLine(path, 1, lines[0], parseHeader);
  const machine = new VectorMachine(header, path);
  const counts = report.classes[header.class] ??= { passed: 0, failed: 0 };
  for (let n = 1; n < lines.length; n++) {
    if (n % PROGRESS_VECTORS === 0) options.onProgress?.(path, n - 1, lines.length - 1);
    const vector = parseLine(path, n + 1, lines[n], (value) => parseVector(value, header.mode));
    const difference = replay(machine, header, vector);
    if (difference === undefined) {
      counts.passed++;
      continue;
    }
    if (counts.failed++ < failuresPerClass) {
      const [field, expected, actual] = difference;
      report.firstFailures.push({ class: header.class, id: vector.id, field, expected, actual });
    }
  }
  for (const [name, times] of machine.cpu.unimplemented) {
    report.unimplemented[name] = (report.unimplemented[name] ?? 0) + times;
  }
}

/** Executes the instruction; the exception that ended it, or undefined. */
function execute(machine: VectorMachine): Outcome | undefined {
  const { cpu, bus } = machine;
  let reason = EXIT_NONE;
  let turns = 0;
  do {
    cpu.repeating = false;
    reason = cpu.run(1);
  } while (reason === EXIT_NONE && cpu.repeating && ++turns < TURNS_MAX);
  const { s32, s64 } = cpu;
  if (reason === EXIT_NONE && !bus.halted) {
    // The recorder stops at the next instruction, which it has to fetch.
    const fault = cpu.probeFetch();
    if (fault === undefined) return undefined;
    s32[at.rflags >> 2] |= FLAG_RF;
    return fault;
  }
  if (reason !== EXIT_EXCEPTION) return undefined;
  return {
    vector: s32[at.exit_vector >> 2],
    error: s32[at.exit_has_error >> 2] !== 0 ? s32[at.exit_error >> 2] >>> 0 : undefined,
    cr2: s64[at.exit_gva >> 3],
  };
}

/** A difference: field, expected, actual. */
type Difference = readonly [field: string, expected: string, actual: string];

/** Replays a vector; the first difference or undefined. */
function replay(machine: VectorMachine, header: VectorHeader, vector: Vector): Difference | undefined {
  machine.prepare(vector);
  const outcome = execute(machine);
  return compareException(vector, outcome) ??
    compareRegisters(machine, header, vector) ??
    compareSystem(machine, header, vector, outcome !== undefined) ??
    compareFloat(machine, vector) ??
    compareOutside(machine, vector);
}

/** A number as the recordings print it. */
function text(value: bigint | number | undefined): string {
  return value === undefined ? "none" : value.toString(16);
}

/** Bytes as the recordings print them. */
function bytesText(bytes: Uint8Array): string {
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

/** Vector, error code and address of a page fault. */
function compareException(vector: Vector, outcome: Outcome | undefined): Difference | undefined {
  const expected = vector.exception;
  if (expected?.vector !== outcome?.vector) return ["exc.vector", text(expected?.vector), text(outcome?.vector)];
  if (expected?.error !== outcome?.error) return ["exc.error", text(expected?.error), text(outcome?.error)];
  if (expected?.cr2 !== undefined && expected.cr2 !== outcome?.cr2) {
    return ["exc.cr2", text(expected.cr2), text(outcome?.cr2)];
  }
  return undefined;
}

/** General-purpose registers, RIP, RFLAGS. */
function compareRegisters(machine: VectorMachine, header: VectorHeader, vector: Vector): Difference | undefined {
  const { cpu } = machine;
  const width = header.mode === "long64" ? 64 : 32;
  const rip = BigInt.asUintN(width, cpu.s64[at.rip >> 3] + (vector.hlt ? 1n : 0n));
  if (rip !== vector.out.rip) return ["rip", text(vector.out.rip), text(rip)];
  for (let n = 0; n < vector.in.gpr.length; n++) {
    const name = GPR_NAMES[n];
    const expected = vector.out.gpr[n] ?? vector.in.gpr[n] ?? 0n;
    const actual = BigInt.asUintN(width, cpu.g64[n]);
    if (((expected ^ actual) & ~(vector.undefGpr[name] ?? 0n)) !== 0n) return [name, text(expected), text(actual)];
  }
  const flags = cpu.s64[at.rflags >> 3];
  if (((flags ^ vector.out.rflags) & ~vector.undefFlags) !== 0n) {
    return ["rflags", text(vector.out.rflags), text(flags)];
  }
  return undefined;
}

/** Segments, control and debug registers, tables, MSRs. */
function compareSystem(
  machine: VectorMachine,
  header: VectorHeader,
  vector: Vector,
  faulted: boolean,
): Difference | undefined {
  const { cpu } = machine;
  for (let n = 0; n < SEGMENT_NAMES.length; n++) {
    const name = SEGMENT_NAMES[n];
    const expected = vector.out.seg[name] ?? machine.segmentBefore(vector, name);
    const attributes = cpu.segmentAttributes(n);
    const recorded = (attributes & 0xff) | ((attributes >> 4) & 0xf00);
    const base = cpu.sv.getBigUint64(at.es + 16 * n, true);
    const actual = [cpu.segmentSelector(n), recorded, cpu.segmentLimit(n), base] as const;
    // In long mode the bases of FS and GS are compared as fsbase and gsbase.
    const parts = header.mode === "long64" && (name === "fs" || name === "gs") ? 3 : 4;
    for (let k = 0; k < parts; k++) {
      if (expected[k] !== actual[k]) return [`seg.${name}`, expected.map(text).join(" "), actual.map(text).join(" ")];
    }
  }
  for (const [name, offset] of Object.entries(SYSTEM_REGISTERS)) {
    if (faulted && (name === "cr2" || name === "dr6")) continue;
    if (header.mode !== "long64" && (name === "fsbase" || name === "gsbase")) continue;
    const expected = vector.out.sys[name] ?? machine.systemBefore(vector, name);
    const actual = cpu.sv.getBigUint64(offset, true);
    if (expected !== actual) return [name, text(expected), text(actual)];
  }
  for (const name of ["gdtr", "idtr"] as const) {
    const [base, limit] = vector.out.tables[name] ?? machine.tableBefore(vector, name);
    const actualBase = cpu.sv.getBigUint64(at[name] + 8, true);
    const actualLimit = cpu.sv.getUint16(at[name] + 6, true);
    if (base !== actualBase || limit !== actualLimit) {
      return [name, `${text(base)} ${text(limit)}`, `${text(actualBase)} ${text(actualLimit)}`];
    }
  }
  return undefined;
}

/** MXCSR, XMM registers, x87 state. */
function compareFloat(machine: VectorMachine, vector: Vector): Difference | undefined {
  const { sv, s8 } = machine.cpu;
  const mxcsr = sv.getUint32(at.fx + FX_MXCSR, true);
  const expectedMxcsr = vector.out.mxcsr ?? vector.in.mxcsr ?? 0x1f80;
  if (mxcsr !== expectedMxcsr) return ["mxcsr", text(expectedMxcsr), text(mxcsr)];
  for (let n = 0; n < 16; n++) {
    const expected = vector.out.xmm[n] ?? machine.xmmBefore(vector.in, n);
    const start = at.fx + FX_XMM + 16 * n;
    for (let k = 0; k < 16; k++) {
      if (s8[start + k] !== expected[k]) {
        return [`xmm${n}`, bytesText(expected), bytesText(s8.subarray(start, start + 16))];
      }
    }
  }
  const fpu = vector.out.fpu ?? vector.in.fpu;
  const cw = sv.getUint16(at.fx, true);
  if (cw !== (fpu?.cw ?? 0x37f)) return ["fpu.cw", text(fpu?.cw ?? 0x37f), text(cw)];
  const sw = sv.getUint16(at.fx + 2, true);
  if (((sw ^ (fpu?.sw ?? 0)) & ~vector.undefFsw) !== 0) return ["fpu.sw", text(fpu?.sw ?? 0), text(sw)];
  if (s8[at.fx + 4] !== (fpu?.tw ?? 0)) return ["fpu.tw", text(fpu?.tw ?? 0), text(s8[at.fx + 4])];
  for (let n = 0; n < 8; n++) {
    const actual = s8.subarray(at.fx + FX_ST + 16 * n, at.fx + FX_ST + 16 * n + 10);
    const expected = fpu?.st[n] ?? ZERO_ST;
    for (let k = 0; k < 10; k++) {
      if (actual[k] !== expected[k]) return [`fpu.st${n}`, bytesText(expected), bytesText(actual)];
    }
  }
  return undefined;
}

const ZERO_ST = new Uint8Array(10);

/** Memory, ports, HLT. */
function compareOutside(machine: VectorMachine, vector: Vector): Difference | undefined {
  const memory = machine.memoryDifference(vector);
  if (memory !== undefined) return [`mem[${text(memory.at)}]`, text(memory.expected), text(memory.actual)];
  const describe = (access: { dir: string; port: number; size: number; count: number; data: Uint8Array } | undefined) =>
    access === undefined
      ? "none"
      : `${access.dir} ${text(access.port)} size ${access.size} count ${access.count} ${bytesText(access.data)}`;
  const accesses = machine.accesses();
  for (let n = 0; n < Math.max(accesses.length, vector.io.length); n++) {
    const expected = describe(vector.io[n]);
    const actual = describe(accesses[n]);
    if (expected !== actual) return [`io[${n}]`, expected, actual];
  }
  if (machine.bus.halted !== vector.hlt) return ["hlt", String(vector.hlt), String(machine.bus.halted)];
  return undefined;
}
