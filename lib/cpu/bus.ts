/**
 * What surrounds a processor: physical memory, devices, ports, MSRs of the machine, interrupts and intercepts. The
 * hypervisor, an emulator or a test supplies it.
 *
 * @module
 */

import type { Cpu } from "./cpu.ts";
import type { Insn } from "./insn.ts";

/** Access: read. */
export const ACCESS_READ = 1;
/** Access: write. */
export const ACCESS_WRITE = 2;
/** Access: instruction fetch. */
export const ACCESS_EXECUTE = 4;
/** Added to an access through a page-table entry without the C bit, on a processor that has one (`Cpu.encryptionBit`). */
export const ACCESS_SHARED = 8;

/** PVALIDATE, as `CpuBus.pageInstruction` is told. */
export const PAGE_PVALIDATE = 0;
/** RMPADJUST. */
export const PAGE_RMPADJUST = 1;
/** RMPQUERY. */
export const PAGE_RMPQUERY = 2;

/**
 * The surroundings of a {@linkcode Cpu}.
 *
 * Methods that decide to leave set the exit record and either call `cpu.leave(reason)` (memory accesses: throws, the
 * instruction is undone) or `cpu.exit(reason)` (ports, CPUID, MSRs, HLT, hypercalls: returns, and the executor returns at
 * once without writing anything).
 */
export interface CpuBus {
  /**
   * Byte offset in the memory of guest-physical page `gpn`, or -1 when it is unmapped, protected against `access`, or a
   * device. A page that reads from memory but is protected against writes answers -1 to ACCESS_WRITE alone. Translations
   * are remembered until `cpu.flushTlb()`. `access` may include ACCESS_SHARED.
   */
  page(gpn: number, access: number): number;
  /**
   * A read of `size` (1 to 8) bytes within a page for which `page` said -1; `access` is ACCESS_READ or ACCESS_EXECUTE.
   * Puts the value into `cpu.v64[0]`, or leaves.
   */
  mmioRead(cpu: Cpu, gpaLo: number, gpaHi: number, size: number, access?: number): void;
  /** A write of `cpu.v64[0]`, as `mmioRead`. */
  mmioWrite(cpu: Cpu, gpaLo: number, gpaHi: number, size: number): void;
  /** IN, or one element of INS: the value, or `cpu.exit`. */
  in(cpu: Cpu, i: Insn, port: number, size: number): number;
  /** OUT, or one element of OUTS. */
  out(cpu: Cpu, i: Insn, port: number, size: number, value: number): void;
  /** Whether INS and OUTS leave as a whole (EXIT_STRING) before their first element is moved. */
  readonly interceptsStringIo: boolean;
  /** CPUID: writes RAX, RBX, RCX and RDX, or exits. */
  cpuid(cpu: Cpu): void;
  /** RDMSR of an MSR that the state does not hold: into `cpu.v64[0]`; false raises #GP(0). */
  rdmsr(cpu: Cpu, msr: number): boolean;
  /** WRMSR of `cpu.v64[0]`; false raises #GP(0). */
  wrmsr(cpu: Cpu, msr: number): boolean;
  /** Whether `rdmsr` and `wrmsr` are also asked for an MSR that the state holds. */
  interceptsMsr(msr: number): boolean;
  /** HLT at CPL 0: sets the activity, or exits. RIP stays at the instruction when it exits. */
  hlt(cpu: Cpu): void;
  /**
   * An instruction that only some surroundings intercept, by its SVM exit code: true when the bus has taken it, and the
   * executor returns at once. Absent: none is.
   */
  intercepts?(cpu: Cpu, exitCode: number): boolean;
  /** A control register or EFER has been written, by the exit code of its write trap; `lo` and `hi` are its new value. */
  wrote?(cpu: Cpu, exitCode: number, lo: number, hi: number): void;
  /**
   * One of PAGE_PVALIDATE, PAGE_RMPADJUST, PAGE_RMPQUERY on guest-physical page `gpn`, mapped with the C bit or not; its
   * other operands are in the registers. Absent: #UD.
   */
  pageInstruction?(cpu: Cpu, instruction: number, gpn: number, encrypted: boolean): void;
  /** VMCALL, VMMCALL or VMGEXIT; false raises #UD. */
  hypercall(cpu: Cpu, i: Insn): boolean;
  /** The time-stamp counter without the state's offset, into `cpu.v64[0]`. */
  tsc(cpu: Cpu): void;
  /** Whether an exception is reported by EXIT_EXCEPTION instead of being delivered. */
  interceptsException(vector: number): boolean;
  /** The vector of the interrupt to take now, acknowledged, or -1. Asked when IF is set and no shadow is active. */
  acceptInterrupt(cpu: Cpu): number;
}
