/**
 * What surrounds the processor while it executes VTL0: guest-physical memory under VTL2's protections, the local APIC,
 * what the hypervisor answers itself, and for everything else an exit (openhcl.md h, "What leaves VTL0").
 *
 * @module
 */
import { ACCESS_EXECUTE, ACCESS_READ, ACCESS_WRITE, type CpuBus } from "../cpu/bus.ts";
import type { Cpu } from "../cpu/cpu.ts";
import type { Insn } from "../cpu/insn.ts";
import {
  ACTIVITY_HALTED,
  CpuState,
  EXIT_CPUID,
  EXIT_HLT,
  EXIT_HYPERCALL,
  EXIT_IN,
  EXIT_IO,
  EXIT_MMIO,
  EXIT_MSR,
  STOP_AFTER,
} from "../cpu/state.ts";
import type { LocalApic } from "./apic/local_apic.ts";
import { MAP_GPA, type Partition } from "./partition.ts";

const at = CpuState.at;
const PAGE_MASK = 0xfff;

/** The rest of the machine, as a processor's bus needs it. */
export interface GuestSurroundings {
  readonly partition: Partition;
  readonly apic: LocalApic;
  /** Whether CPUID of `leaf` is answered here: then `result` holds EAX, EBX, ECX, EDX; else they are the defaults of an intercept. */
  answersCpuid(cpu: Cpu, leaf: number, subleaf: number, result: Uint32Array): boolean;
  /** RDMSR into `cpu.v64[0]`. */
  readMsr(cpu: Cpu, msr: number): "handled" | "fault" | "intercept";
  /** WRMSR of `cpu.v64[0]`. */
  writeMsr(cpu: Cpu, msr: number): "handled" | "fault" | "intercept";
  /** Vector of an interrupt that VTL0 can take now, acknowledged; -1 for none. */
  acceptInterrupt(): number;
  /** Bit per exception vector that is intercepted. */
  exceptionIntercepts(): number;
  /** Whether hypercall instructions are executed at all; false raises #UD. */
  hypercallsEnabled(cpu: Cpu): boolean;
  /** Time-stamp counter into `cpu.v64[0]`. */
  tsc(cpu: Cpu): void;
  /** Whether HLT leaves to VTL2 (`MachineConfig.haltIntercept`). */
  readonly haltIntercept: boolean;
}

/** The bus of a guest under the hypervisor. */
export class GuestBus implements CpuBus {
  readonly interceptsStringIo: boolean = true;
  /** EAX, EBX, ECX, EDX of the last CPUID: its answer, or the defaults of its intercept. */
  readonly cpuidResult: Uint32Array = new Uint32Array(4);
  protected readonly surroundings: GuestSurroundings;
  readonly #partition: Partition;
  readonly #apic: LocalApic;

  /** A bus into `surroundings`. */
  constructor(surroundings: GuestSurroundings) {
    this.surroundings = surroundings;
    this.#partition = surroundings.partition;
    this.#apic = surroundings.apic;
  }

  page(gpn: number, access: number): number {
    if (gpn === this.#apic.mmioPage) return -1;
    let rights = 0;
    if (access & ACCESS_READ) rights |= MAP_GPA.READ;
    if (access & ACCESS_WRITE) rights |= MAP_GPA.WRITE;
    if (access & ACCESS_EXECUTE) rights |= MAP_GPA.KERNEL_EXECUTE;
    const offset = this.#partition.vtl0Page(gpn, rights);
    return offset < 0 ? -1 : offset;
  }

  mmioRead(cpu: Cpu, gpaLo: number, gpaHi: number, size: number, access: number = ACCESS_READ): void {
    if (this.#isApic(gpaLo, gpaHi)) {
      cpu.v64[0] = 0n;
      cpu.v32[0] = this.#apic.readMmio(gpaLo & PAGE_MASK, size);
    } else {
      this.leaveToMemory(cpu, gpaLo, gpaHi, size, access);
    }
  }

  mmioWrite(cpu: Cpu, gpaLo: number, gpaHi: number, size: number): void {
    if (this.#isApic(gpaLo, gpaHi)) this.#apic.writeMmio(gpaLo & PAGE_MASK, size, cpu.v32[0]);
    else this.leaveToMemory(cpu, gpaLo, gpaHi, size, ACCESS_WRITE);
  }

  #isApic(gpaLo: number, gpaHi: number): boolean {
    return (gpaLo >>> 12) + gpaHi * 0x10_0000 === this.#apic.mmioPage;
  }

  /** Leaves because of an access that no memory answers. Never returns. */
  protected leaveToMemory(cpu: Cpu, gpaLo: number, gpaHi: number, size: number, access: number): never {
    cpu.s32[at.exit_gpa >>> 2] = gpaLo;
    cpu.s32[(at.exit_gpa >>> 2) + 1] = gpaHi;
    cpu.s32[at.exit_access >>> 2] = access;
    cpu.s32[at.exit_write >>> 2] = access === ACCESS_WRITE ? 1 : 0;
    cpu.s8[at.exit_size] = size;
    if (access === ACCESS_WRITE) cpu.s64[at.exit_value >>> 3] = cpu.v64[0];
    return cpu.leave(EXIT_MMIO);
  }

  in(cpu: Cpu, _i: Insn, port: number, size: number): number {
    this.#leaveToPort(cpu, port, size, EXIT_IN);
    return 0;
  }

  out(cpu: Cpu, _i: Insn, port: number, size: number, value: number): void {
    cpu.s32[at.exit_value >>> 2] = value;
    cpu.s32[(at.exit_value >>> 2) + 1] = 0;
    this.#leaveToPort(cpu, port, size, 0);
  }

  #leaveToPort(cpu: Cpu, port: number, size: number, flags: number): void {
    cpu.s16[at.exit_port >>> 1] = port;
    cpu.s8[at.exit_size] = size;
    cpu.s8[at.exit_flags] = flags;
    cpu.exit(EXIT_IO);
  }

  cpuid(cpu: Cpu): void {
    const result = this.cpuidResult;
    if (!this.surroundings.answersCpuid(cpu, cpu.g32[0] >>> 0, cpu.g32[2] >>> 0, result)) return cpu.exit(EXIT_CPUID);
    const g32 = cpu.g32;
    g32[0] = result[0];
    g32[6] = result[1];
    g32[2] = result[2];
    g32[4] = result[3];
    g32[1] =
      g32[3] =
      g32[5] =
      g32[7] =
        0;
  }

  rdmsr(cpu: Cpu, msr: number): boolean {
    const outcome = this.surroundings.readMsr(cpu, msr);
    if (outcome === "intercept") this.#leaveToMsr(cpu, msr, 0);
    return outcome !== "fault";
  }

  wrmsr(cpu: Cpu, msr: number): boolean {
    const outcome = this.surroundings.writeMsr(cpu, msr);
    if (outcome === "intercept") this.#leaveToMsr(cpu, msr, 1);
    return outcome !== "fault";
  }

  #leaveToMsr(cpu: Cpu, msr: number, write: number): void {
    cpu.s32[at.exit_msr >>> 2] = msr;
    cpu.s32[at.exit_write >>> 2] = write;
    if (write) cpu.s64[at.exit_value >>> 3] = cpu.v64[0];
    cpu.exit(EXIT_MSR);
  }

  interceptsMsr(_msr: number): boolean {
    return false;
  }

  hlt(cpu: Cpu): void {
    if (this.surroundings.haltIntercept) return cpu.exit(EXIT_HLT);
    cpu.s32[at.activity >>> 2] = ACTIVITY_HALTED;
    cpu.stop |= STOP_AFTER;
  }

  hypercall(cpu: Cpu, _i: Insn): boolean {
    if (!this.surroundings.hypercallsEnabled(cpu)) return false;
    cpu.exit(EXIT_HYPERCALL);
    return true;
  }

  tsc(cpu: Cpu): void {
    this.surroundings.tsc(cpu);
  }

  interceptsException(vector: number): boolean {
    return (this.surroundings.exceptionIntercepts() >>> vector & 1) !== 0;
  }

  acceptInterrupt(_cpu: Cpu): number {
    return this.surroundings.acceptInterrupt();
  }
}
