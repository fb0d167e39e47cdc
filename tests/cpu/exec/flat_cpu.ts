/**
 * A processor in flat 32-bit protected mode with a page of code and some of data, which stops at any exception: for
 * tests of single instructions.
 *
 * @module
 */
import { assertEquals } from "@std/assert";
import type { CpuBus } from "../../../lib/cpu/bus.ts";
import { Cpu } from "../../../lib/cpu/cpu.ts";
import { CpuState, CS, DS, ES, EXIT_EXCEPTION, EXIT_NONE, MXCSR, SS, XMM } from "../../../lib/cpu/state.ts";
import { MachineMemory } from "../../../lib/memory/machine_memory.ts";

const RAM_BYTES = 0x1_0000;
const CODE = 0x1000;
/** Where the data is. */
export const DATA = 0x4000;
const CODE_32 = 0xc09b;
const DATA_32 = 0xc093;
const LIMIT = 0xffff_ffff;
const CR0_PE_MP_NE = 0x23n;
const CR4_OSFXSR_OSXMMEXCPT = 0x600n;
const FCW_INIT = 0x37f;

const at = CpuState.at;

const bus: CpuBus = {
  page: (gpn) => gpn * 4096 < RAM_BYTES ? gpn * 4096 : -1,
  mmioRead: (cpu) => {
    cpu.v64[0] = 0n;
  },
  mmioWrite: () => {},
  in: () => 0,
  out: () => {},
  interceptsStringIo: false,
  cpuid: () => {},
  rdmsr: () => false,
  wrmsr: () => false,
  interceptsMsr: () => false,
  hlt: () => {},
  hypercall: () => false,
  tsc: () => {},
  interceptsException: () => true,
  acceptInterrupt: () => -1,
};

/** A fresh processor. */
export function flatCpu(): Cpu {
  const memory = MachineMemory.allocate(RAM_BYTES + CpuState.size);
  const cpu = new Cpu(memory, RAM_BYTES, bus);
  cpu.s64[at.cr0 >> 3] = CR0_PE_MP_NE;
  cpu.s64[at.cr4 >> 3] = CR4_OSFXSR_OSXMMEXCPT;
  cpu.setSegment(CS, 8, CODE_32, LIMIT, 0);
  for (const segment of [DS, ES, SS]) cpu.setSegment(segment, 0x10, DATA_32, LIMIT, 0);
  cpu.s32[at.rflags >> 2] = 2;
  cpu.s16[at.fx >> 1] = FCW_INIT;
  setMxcsr(cpu, 0x1f80);
  cpu.flushCaches();
  return cpu;
}

/**
 * Executes the instructions whose bytes are given, and returns the vector of the exception that stopped them, or -1.
 */
export function execute(cpu: Cpu, ...instructions: string[]): number {
  for (const instruction of instructions) {
    const bytes = instruction.split(" ").map((byte) => parseInt(byte, 16));
    cpu.m8.fill(0xf4, CODE, CODE + 16);
    cpu.m8.set(bytes, CODE);
    cpu.s64[at.rip >> 3] = BigInt(CODE);
    const reason = cpu.run(1);
    if (reason === EXIT_EXCEPTION) return cpu.s32[at.exit_vector >> 2];
    assertEquals(reason, EXIT_NONE);
    assertEquals(cpu.s32[at.rip >> 2], CODE + bytes.length, instruction);
  }
  return -1;
}

/** The bytes of XMM register `r`, in hexadecimal from the lowest. */
export function xmm(cpu: Cpu, r: number): string {
  return [...cpu.s8.slice(XMM + 16 * r, XMM + 16 * r + 16)].map((byte) => byte.toString(16).padStart(2, "0")).join("");
}

/** Sets XMM register `r` from hexadecimal bytes, the lowest first. */
export function setXmm(cpu: Cpu, r: number, bytes: string): void {
  for (let k = 0; k < 16; k++) cpu.s8[XMM + 16 * r + k] = parseInt(bytes.slice(2 * k, 2 * k + 2), 16);
}

/** Sets MXCSR. */
export function setMxcsr(cpu: Cpu, value: number): void {
  cpu.s32[MXCSR >> 2] = value;
}

/** MXCSR. */
export function mxcsr(cpu: Cpu): number {
  return cpu.s32[MXCSR >> 2];
}
