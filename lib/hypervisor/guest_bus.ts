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
  CpuState,
  EXIT_CPUID,
  EXIT_HLT,
  EXIT_HYPERCALL,
  EXIT_IN,
  EXIT_IO,
  EXIT_MMIO,
  EXIT_MSR,
  RAX,
  RBX,
  RCX,
  RDX,
} from "../cpu/state.ts";
import { X86_MSR } from "../layout/hyperv/constants/msrs.ts";
import { SevExitCode } from "../layout/sev/constants/exit_codes.ts";
import { HvRegisterVsmPartitionConfig, MsrHypercallContents } from "../layout/hyperv/registers.ts";
import { pageNumber } from "../memory/machine_memory.ts";
import type { LocalApic } from "./apic/local_apic.ts";
import type { CpuidAsker, CpuidTable } from "./cpuid.ts";
import type { Facilities } from "./facilities.ts";
import { readMsr, writeMsr } from "./msrs.ts";
import { MAP_GPA, type Partition, PartitionState } from "./partition.ts";
import type { VirtualProcessor } from "./virtual_processor.ts";

const at = CpuState.at;
const PAGE_MASK = 0xfff;
const CPUID_UNIMPLEMENTED = HvRegisterVsmPartitionConfig.low.intercept_cpuid_unimplemented;
const { CR8_WRITE_TRAP } = SevExitCode.values;

/** What a guest bus is made from. */
export interface GuestBusParts {
  readonly facilities: Facilities;
  /** VP index. */
  readonly vp: number;
  readonly cpuid: CpuidTable;
  /**
   * The machine of the recorded programs: a processor, memory and devices. There is no local APIC, no hypercall, and
   * synthetic MSRs are devices.
   */
  readonly recorded: boolean;
}

/** First and last MSR that are devices in the machine of the recorded programs. */
const RECORDED_MSR_FIRST = 0x40000000;
const RECORDED_MSR_LAST = 0x400000ff;

/** The bus of a guest under the hypervisor. */
export class GuestBus implements CpuBus, CpuidAsker {
  /** The processor whose bus this is; set by it before the guest runs. */
  processor!: VirtualProcessor;
  readonly parts: GuestBusParts;
  readonly #partition: Partition;
  readonly #apic: LocalApic;

  /** A bus made from `parts`. */
  constructor(parts: GuestBusParts) {
    this.parts = parts;
    this.#partition = parts.facilities.partition;
    this.#apic = parts.facilities.apic(parts.vp);
  }

  get interceptsStringIo(): boolean {
    return true;
  }

  // --- Memory -------------------------------------------------------------------------------------------------------

  page(gpn: number, access: number): number {
    if (gpn === this.#apic.mmioPage && !this.parts.recorded) return -1;
    let rights = 0;
    if (access & ACCESS_READ) rights |= MAP_GPA.READ;
    if (access & ACCESS_WRITE) rights |= MAP_GPA.WRITE;
    if (access & ACCESS_EXECUTE) rights |= MAP_GPA.KERNEL_EXECUTE;
    const offset = this.#partition.vtl0Page(gpn, rights);
    return offset < 0 ? -1 : offset;
  }

  mmioRead(cpu: Cpu, gpaLo: number, gpaHi: number, size: number, access: number = ACCESS_READ): void {
    if (!this.#isApic(gpaLo, gpaHi)) return this.deviceRead(cpu, gpaLo, gpaHi, size, access);
    cpu.v64[0] = 0n;
    cpu.v32[0] = this.#apic.readMmio(gpaLo & PAGE_MASK, size);
  }

  mmioWrite(cpu: Cpu, gpaLo: number, gpaHi: number, size: number): void {
    if (this.#isApic(gpaLo, gpaHi)) this.#apic.writeMmio(gpaLo & PAGE_MASK, size, cpu.v32[0]);
    else this.deviceWrite(cpu, gpaLo, gpaHi, size);
  }

  #isApic(gpaLo: number, gpaHi: number): boolean {
    return pageNumber(gpaLo, gpaHi) === this.#apic.mmioPage && !this.parts.recorded;
  }

  /** A read that neither memory nor the local APIC answers. */
  protected deviceRead(cpu: Cpu, gpaLo: number, gpaHi: number, size: number, access: number): void {
    this.#leaveToMemory(cpu, gpaLo, gpaHi, size, access);
  }

  /** A write of `cpu.v64[0]` that neither memory nor the local APIC takes. */
  protected deviceWrite(cpu: Cpu, gpaLo: number, gpaHi: number, size: number): void {
    cpu.s64[at.exit_value >>> 3] = cpu.v64[0];
    this.#leaveToMemory(cpu, gpaLo, gpaHi, size, ACCESS_WRITE);
  }

  #leaveToMemory(cpu: Cpu, gpaLo: number, gpaHi: number, size: number, access: number): void {
    cpu.s32[at.exit_gpa >>> 2] = gpaLo;
    cpu.s32[(at.exit_gpa >>> 2) + 1] = gpaHi;
    cpu.s32[at.exit_access >>> 2] = access;
    cpu.s32[at.exit_write >>> 2] = access === ACCESS_WRITE ? 1 : 0;
    cpu.s8[at.exit_size] = size;
    cpu.s32[at.exit_gva >>> 2] = cpu.linear32[0];
    cpu.s32[(at.exit_gva >>> 2) + 1] = cpu.linear32[1];
    // A page table is no page of the linear address.
    cpu.s32[at.exit_gva_valid >>> 2] = cpu.tableAccess ? 0 : 1;
    cpu.tableAccess = false;
    cpu.leave(EXIT_MMIO);
  }

  // --- Ports, CPUID, MSRs -------------------------------------------------------------------------------------------

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
    const result = this.processor.cpuidDefaults;
    const answered = this.parts.cpuid.lookup(cpu.g32[0] >>> 0, cpu.g32[2] >>> 0, this, result);
    if (this.#leavesForCpuid(answered)) cpu.exit(EXIT_CPUID);
    else loadCpuid(cpu, result);
  }

  /** Whether a CPUID leaf leaves VTL0 that the hypervisor knows, or does not. A host VMM sees those it does not know. */
  #leavesForCpuid(answered: boolean): boolean {
    const partition = this.#partition;
    if (answered) return partition.intercepts(PartitionState.at.intercept_all_cpuid);
    return partition.config.vtl2Bytes === 0 || partition.vsmConfigured(CPUID_UNIMPLEMENTED) ||
      partition.intercepts(PartitionState.at.intercept_all_cpuid);
  }

  get apicId(): number {
    return this.#apic.id;
  }
  get apicEnabled(): boolean {
    return this.#apic.enabled && !this.parts.recorded;
  }

  rdmsr(cpu: Cpu, msr: number): boolean {
    const { facilities, vp } = this.parts;
    const outcome = this.#isRecordedMsr(msr) ? "intercept" : readMsr(facilities, vp, msr >>> 0, cpu);
    if (outcome === "intercept") this.#leaveToMsr(cpu, msr, 0);
    return outcome !== "fault";
  }

  wrmsr(cpu: Cpu, msr: number): boolean {
    const { facilities, vp } = this.parts;
    const outcome = this.#isRecordedMsr(msr) ? "intercept" : writeMsr(facilities, vp, msr >>> 0, cpu);
    if (outcome === "intercept") {
      cpu.s64[at.exit_value >>> 3] = cpu.v64[0];
      this.#leaveToMsr(cpu, msr, 1);
    }
    return outcome !== "fault";
  }

  #isRecordedMsr(msr: number): boolean {
    return this.parts.recorded && msr >>> 0 >= RECORDED_MSR_FIRST && msr >>> 0 <= RECORDED_MSR_LAST;
  }

  #leaveToMsr(cpu: Cpu, msr: number, write: number): void {
    cpu.s32[at.exit_msr >>> 2] = msr;
    cpu.s32[at.exit_write >>> 2] = write;
    cpu.exit(EXIT_MSR);
  }

  /** The time-stamp counter and the local APIC are the hypervisor's, not the processor's. */
  interceptsMsr(msr: number): boolean {
    return !this.parts.recorded && (msr === X86_MSR.X86X_MSR_TSC || msr === X86_MSR.X86X_MSR_APIC_BASE);
  }

  // --- The rest -----------------------------------------------------------------------------------------------------

  wrote(_cpu: Cpu, register: number, low: number): void {
    if (register === CR8_WRITE_TRAP) this.#apic.cr8Written(low);
  }

  hlt(cpu: Cpu): void {
    cpu.exit(EXIT_HLT);
  }

  hypercall(cpu: Cpu, _i: Insn): boolean {
    if (this.parts.recorded || !hypercallsEnabled(this.parts.facilities, cpu)) return false;
    cpu.exit(EXIT_HYPERCALL);
    return true;
  }

  tsc(cpu: Cpu): void {
    cpu.v64[0] = BigInt(Math.floor(this.parts.facilities.now()));
  }

  interceptsException(vector: number): boolean {
    const intercepts =
      this.#partition.memory.i32[(this.#partition.state + PartitionState.at.exception_intercepts) >>> 2];
    return (intercepts >>> vector & 1) !== 0;
  }

  acceptInterrupt(_cpu: Cpu): number {
    return this.processor.acceptInterrupt();
  }
}

/** Completes CPUID with EAX, EBX, ECX, EDX: the registers' upper halves become zero. */
export function loadCpuid(cpu: Cpu, result: Uint32Array): void {
  const g32 = cpu.g32;
  g32[2 * RAX] = result[0];
  g32[2 * RBX] = result[1];
  g32[2 * RCX] = result[2];
  g32[2 * RDX] = result[3];
  for (const register of [RAX, RBX, RCX, RDX]) g32[2 * register + 1] = 0;
}

/** Whether VTL0 may execute hypercall instructions: CPL 0, and its hypercall page enabled (openhcl.md h). */
function hypercallsEnabled(facilities: Facilities, cpu: Cpu): boolean {
  const { memory, state } = facilities.partition;
  const enabled = memory.i32[(state + PartitionState.at.hypercall_msr) >>> 2] & MsrHypercallContents.low.enable;
  return cpu.cpl === 0 && enabled !== 0;
}
