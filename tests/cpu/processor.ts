/**
 * A processor over a piece of memory, without devices: for tests that put bytes into memory and look at registers.
 *
 * @module
 */
import type { CpuBus } from "../../lib/cpu/bus.ts";
import { Cpu } from "../../lib/cpu/cpu.ts";
import { CpuState, EXIT_HLT, EXIT_MMIO } from "../../lib/cpu/state.ts";
import { MachineMemory } from "../../lib/memory/machine_memory.ts";

const at = CpuState.at;

/** How a test processor starts. */
export type Mode = "real" | "protected" | "long";

/** Bytes of guest memory. */
export const RAM_BYTES = 0x40_0000;
/** Where code goes. */
export const CODE_AT: Readonly<Record<Mode, number>> = { real: 0x7c00, protected: 0x10_0000, long: 0x10_0000 };
/** Bytes between the states of two processors. */
const STATE_STRIDE = 0x1000;

/** Counts what happens and never throws. */
export class PlainBus implements CpuBus {
  /** Values written to ports. */
  readonly written: number[] = [];
  /** Exceptions are reported instead of delivered. */
  intercept = true;
  readonly interceptsStringIo = false;
  /** The interrupt to hand out, -1 for none. */
  vector = -1;

  page(gpn: number): number {
    return gpn < RAM_BYTES / 4096 ? gpn * 4096 : -1;
  }
  mmioRead(cpu: Cpu): void {
    cpu.leave(EXIT_MMIO);
  }
  mmioWrite(cpu: Cpu): void {
    cpu.leave(EXIT_MMIO);
  }
  in(_cpu: Cpu, _i: unknown, port: number): number {
    return port;
  }
  out(_cpu: Cpu, _i: unknown, _port: number, _size: number, value: number): void {
    if (this.written.length < 4096) this.written.push(value);
  }
  cpuid(cpu: Cpu): void {
    for (let n = 0; n < 4; n++) cpu.g64[n] = 0n;
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
    cpu.exit(EXIT_HLT);
  }
  hypercall(): boolean {
    return false;
  }
  tsc(cpu: Cpu): void {
    cpu.v64[0] = 0n;
  }
  interceptsException(): boolean {
    return this.intercept;
  }
  acceptInterrupt(): number {
    const vector = this.vector;
    this.vector = -1;
    return vector;
  }
}

/** Memory for `count` processors. */
export function newMemory(count = 1): MachineMemory {
  return MachineMemory.allocate(RAM_BYTES + count * STATE_STRIDE);
}

/** Writes page tables that map 4 MiB of linear addresses onto themselves, for CPL 0 and 3. */
function pageTables(memory: MachineMemory): void {
  memory.u64[0x1000 >> 3] = 0x2007n;
  memory.u64[0x2000 >> 3] = 0x3007n;
  memory.u64[0x3000 >> 3] = 0x87n;
  memory.u64[(0x3000 >> 3) + 1] = 0x200087n;
}

/** Puts a processor into its start state: code at {@linkcode CODE_AT}, RSP 80000 (real mode 7000). */
export function start(cpu: Cpu, mode: Mode): void {
  const { sv } = cpu;
  cpu.s8.fill(0);
  sv.setBigUint64(at.rip, BigInt(CODE_AT[mode]), true);
  sv.setBigUint64(at.rflags, 2n, true);
  sv.setUint16(at.fx, 0x37f, true);
  sv.setUint32(at.fx + 24, 0x1f80, true);
  sv.setBigUint64(at.dr6, 0xffff0ff0n, true);
  sv.setBigUint64(at.dr7, 0x400n, true);
  sv.setBigUint64(at.cr4, 0x620n, true);
  if (mode === "real") {
    sv.setBigUint64(at.cr0, 0x10n, true);
    sv.setBigUint64(at.cr4, 0x600n, true);
    for (let n = 0; n < 6; n++) cpu.setSegment(n, 0, n === 1 ? 0x9b : 0x93, 0xffff, 0);
    sv.setUint16(at.idtr + 6, 0x3ff, true);
    cpu.g64[4] = 0x7000n;
  } else {
    const long = mode === "long";
    sv.setBigUint64(at.cr0, long ? 0x80010031n : 0x31n, true);
    sv.setBigUint64(at.cr3, 0x1000n, true);
    sv.setBigUint64(at.efer, long ? 0xd00n : 0n, true);
    for (let n = 0; n < 6; n++) {
      cpu.setSegment(n, n === 1 ? 8 : 0x10, n === 1 ? (long ? 0xa09b : 0xc09b) : 0xc093, 0xffffffff, 0);
    }
    if (long) pageTables(cpu.memory);
    cpu.g64[4] = 0x80000n;
  }
  cpu.flushCaches();
}

/** A processor in `memory`, the n-th of those there. */
export function newProcessor(
  mode: Mode,
  memory = newMemory(),
  n = 0,
  bus = new PlainBus(),
): { cpu: Cpu; bus: PlainBus } {
  const cpu = new Cpu(memory, RAM_BYTES + n * STATE_STRIDE, bus, { splitLock: RAM_BYTES + 0xf00 });
  start(cpu, mode);
  return { cpu, bus };
}

/** Writes code where the mode starts. */
export function place(cpu: Cpu, mode: Mode, bytes: readonly number[]): void {
  cpu.m8.set(bytes, CODE_AT[mode]);
}
