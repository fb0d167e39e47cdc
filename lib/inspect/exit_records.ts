/**
 * Exits out of a machine's exit rings, as data: for listings, for JSON lines, and for the comparison with recordings.
 *
 * @module
 */
import { CpuState, EXIT_REP, EXIT_STRING } from "../cpu/state.ts";
import { ACCESS, ExitAccess as ExitAccessLayout, ExitRecordHeader, recordKind } from "../hypervisor/exit_log.ts";
import type { ExitKind } from "../hypervisor/vp_state.ts";
import { HvMessageType } from "../layout/hyperv/constants/messages.ts";
import type { SeenExit } from "./exit_compare.ts";
import { readExitRegisters } from "./exit_registers.ts";
import { EXIT_SEGMENTS, EXIT_SYSTEM, EXIT_TABLES, type ExitRegisters, type ExitType } from "./exit_stream.ts";

const header = ExitRecordHeader.at;
const access = ExitAccessLayout.at;
const details = (offset: number): number => header.details + offset - CpuState.at.exit_reason;

/** A device access that an exit led to. */
export interface DeviceAccess {
  /** What it was, in the words of the recordings. */
  readonly type: "in" | "out" | "mmio-read" | "mmio-write";
  /** Port, MSR or guest-physical address. */
  readonly address: bigint;
  /** Bytes. */
  readonly size: number;
  /** The value, zero-extended. */
  readonly data: bigint;
}

/** One exit of a virtual processor. */
export interface MachineExit {
  /** Its number in the machine. */
  readonly sequence: number;
  /** VP index. */
  readonly vp: number;
  /** VTL that left. */
  readonly vtl: number;
  /** What happened. */
  readonly kind: ExitKind;
  /** Name of the message that VTL2 was entered with; `undefined` when it was not. */
  readonly intercept: string | undefined;
  /** Registers before the instruction. */
  readonly registers: ExitRegisters;
  /** Port of a port exit. */
  readonly port: number;
  /** Bytes of an element of a port or memory exit. */
  readonly size: number;
  /** INS or OUTS. */
  readonly string: boolean;
  /** With a repeat prefix. */
  readonly repeated: boolean;
  /** Guest-physical address of a memory exit. */
  readonly gpa: bigint;
  /** MSR of an MSR exit. */
  readonly msr: number;
  /** Value that WRMSR would write. */
  readonly value: bigint;
  /** Vector of an intercepted exception. */
  readonly vector: number;
  /** Device accesses that it led to. */
  readonly accesses: readonly DeviceAccess[];
}

const ACCESS_TYPES = Object.fromEntries([
  [ACCESS.IN, "in"],
  [ACCESS.OUT, "out"],
  [ACCESS.READ, "mmio-read"],
  [ACCESS.WRITE, "mmio-write"],
]) as Readonly<Record<number, DeviceAccess["type"]>>;

/** Decodes a record of an exit ring. */
export function readExit(record: DataView): MachineExit {
  const flags = record.getUint8(details(CpuState.at.exit_flags));
  const message = record.getUint32(header.message, true);
  const accesses: DeviceAccess[] = [];
  for (let k = 0, count = record.getUint32(header.accesses, true); k < count; k++) {
    const at = ExitRecordHeader.size + k * ExitAccessLayout.size;
    const size = record.getUint8(at + access.size);
    accesses.push({
      type: ACCESS_TYPES[record.getUint8(at + access.direction)],
      address: record.getBigUint64(at + access.address, true),
      size,
      data: BigInt.asUintN(size * 8, record.getBigUint64(at + access.data, true)),
    });
  }
  return {
    sequence: record.getUint32(header.sequence, true),
    vp: record.getUint16(header.vp, true),
    vtl: record.getUint8(header.vtl),
    kind: recordKind(record),
    intercept: message === 0 ? undefined : HvMessageType.name(message),
    registers: readExitRegisters(record, header.registers),
    port: record.getUint16(details(CpuState.at.exit_port), true),
    size: record.getUint8(details(CpuState.at.exit_size)),
    string: (flags & EXIT_STRING) !== 0,
    repeated: (flags & EXIT_REP) !== 0,
    gpa: record.getBigUint64(details(CpuState.at.exit_gpa), true),
    msr: record.getUint32(details(CpuState.at.exit_msr), true),
    value: record.getBigUint64(details(CpuState.at.exit_value), true),
    vector: record.getUint32(details(CpuState.at.exit_vector), true),
    accesses,
  };
}

/** Kinds of exit that the recordings have. */
const RECORDED: ReadonlySet<ExitKind> = new Set(["in", "out", "mmio-read", "mmio-write", "rdmsr", "wrmsr", "hlt"]);

/** What an exit is in the recordings: one access each, with the number of elements before it; none for the others. */
export function seenExits(exit: MachineExit): SeenExit[] {
  const { kind, registers } = exit;
  if (kind === "unrecoverable" || kind === "shutdown") return [plain("shutdown", registers)];
  if (!RECORDED.has(kind)) return [];
  if (kind === "hlt") return [plain("hlt", registers)];
  if (kind === "rdmsr" || kind === "wrmsr") {
    return exit.accesses.map(({ data }) => ({
      ...plain(kind, registers),
      msr: exit.msr,
      size: 8,
      data: bytesOf(data, 8),
    }));
  }
  const done: Partial<Record<DeviceAccess["type"], number>> = {};
  return exit.accesses.map(({ type, address, size, data }) => {
    const elementsBefore = done[type] ?? 0;
    done[type] = elementsBefore + 1;
    const memory = type === "mmio-read" || type === "mmio-write";
    return {
      ...plain(type, registers),
      port: memory ? 0 : Number(address),
      gpa: memory ? address : 0n,
      string: !memory && exit.string,
      size,
      data: bytesOf(data, size),
      elementsBefore,
    };
  });
}

function plain(type: ExitType, registers: ExitRegisters): SeenExit {
  return { type, port: 0, size: 0, string: false, count: 1, gpa: 0n, msr: 0, data: new Uint8Array(), registers };
}

/** The low `size` bytes of a value, in memory order. */
function bytesOf(value: bigint, size: number): Uint8Array {
  const bytes = new Uint8Array(8);
  new DataView(bytes.buffer).setBigUint64(0, value, true);
  return bytes.subarray(0, size);
}

/** Text of a number as the recordings write it. */
function hex(value: bigint | number): string {
  return value.toString(16);
}

/** Registers as the recordings write them: hexadecimal without prefix. */
export interface RegistersText {
  /** RAX RCX RDX RBX RSP RBP RSI RDI R8 to R15. */
  readonly gpr: readonly string[];
  /** RIP. */
  readonly rip: string;
  /** RFLAGS. */
  readonly rflags: string;
  /** Selector, attributes as in a VMCB, limit and base of each segment. */
  readonly seg: Readonly<Record<string, readonly string[]>>;
  /** Control registers and EFER; base and limit of GDTR and IDTR. */
  readonly sys: Readonly<Record<string, string | readonly string[]>>;
}

/** All of the registers, as the recordings write them. */
export function registersText(registers: ExitRegisters): RegistersText {
  const { gpr, rip, rflags } = registers;
  return { gpr: gpr.map(hex), rip: hex(rip), rflags: hex(rflags), seg: segText(registers), sys: sysText(registers) };
}

/** Writes exits as JSON lines with the recordings' fields and names. */
export class ExitLines {
  readonly #before = new Map<number, ExitRegisters>();

  /** One line, without its line end. Segments and system registers appear when one differs from the VP's exit before. */
  line(exit: MachineExit): string {
    const { registers } = exit;
    const before = this.#before.get(exit.vp);
    this.#before.set(exit.vp, registers);
    const line: Record<string, unknown> = { seq: exit.sequence, vp: exit.vp, vtl: exit.vtl };
    if (exit.intercept !== undefined) line.intercept = exit.intercept;
    Object.assign(line, fieldsOf(exit));
    line.gpr = registers.gpr.map(hex);
    line.rip = hex(registers.rip);
    line.rflags = hex(registers.rflags);
    if (before === undefined || !sameSegments(before, registers)) line.seg = segText(registers);
    if (before === undefined || !sameSystem(before, registers)) line.sys = sysText(registers);
    return JSON.stringify(line);
  }
}

/** Whether all segments are the same. */
function sameSegments(a: ExitRegisters, b: ExitRegisters): boolean {
  return EXIT_SEGMENTS.every((name) => a.seg[name].every((part, number) => part === b.seg[name][number]));
}

/** Whether all control registers and tables are the same. */
function sameSystem(a: ExitRegisters, b: ExitRegisters): boolean {
  return EXIT_SYSTEM.every((name) => a.sys[name] === b.sys[name]) &&
    EXIT_TABLES.every((name) => a.sys[name].every((part, number) => part === b.sys[name][number]));
}

/** The type and what belongs to it. */
function fieldsOf(exit: MachineExit): Record<string, unknown> {
  const data = dataText(exit.accesses);
  switch (exit.kind) {
    case "in":
    case "out":
      return {
        type: exit.kind,
        port: hex(exit.port),
        size: exit.size,
        string: exit.string,
        count: exit.accesses.length,
        data,
      };
    case "mmio-read":
    case "mmio-write": {
      const accesses = exit.accesses.map((one) => ({
        type: one.type,
        gpa: hex(one.address),
        size: one.size,
        data: dataText([one]),
      }));
      const first = { type: exit.kind, gpa: hex(exit.gpa), size: exit.size, data: accesses[0]?.data ?? "" };
      return accesses.length > 1 ? { ...first, accesses } : first;
    }
    case "rdmsr":
      return { type: exit.kind, msr: hex(exit.msr), data };
    case "wrmsr":
      return { type: exit.kind, msr: hex(exit.msr), data: bytesText(bytesOf(exit.value, 8)) };
    case "cpuid":
      return {
        type: exit.kind,
        leaf: hex(exit.registers.gpr[0] & 0xffffffffn),
        subleaf: hex(exit.registers.gpr[1] & 0xffffffffn),
      };
    case "exception":
      return { type: exit.kind, vector: exit.vector };
    default:
      return { type: exit.kind };
  }
}

function dataText(accesses: readonly DeviceAccess[]): string {
  return accesses.map(({ data, size }) => bytesText(bytesOf(data, size))).join("");
}

function bytesText(bytes: Uint8Array): string {
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

function segText(registers: ExitRegisters): Record<string, string[]> {
  return Object.fromEntries(Object.entries(registers.seg).map(([name, parts]) => [name, [...parts].map(hex)]));
}

function sysText(registers: ExitRegisters): Record<string, string | string[]> {
  return Object.fromEntries(
    Object.entries(registers.sys).map((
      [name, value],
    ) => [name, typeof value === "bigint" ? hex(value) : value.map(hex)]),
  );
}
