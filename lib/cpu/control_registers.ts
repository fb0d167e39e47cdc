/**
 * Writes to control registers and EFER with all their consequences: reserved bits, mode switches between real, protected,
 * compatibility and long mode, TLB flushes (AMD64 Architecture Programmer's Manual volume 2, chapters 3 and 14).
 *
 * Raises #GP(0) with nothing changed. The TLB is flushed completely where the manual demands at least a part of it.
 *
 * @module
 */
import {
  CR0_DEFINED,
  CR4_DEFINED,
  CR4_PAE,
  CR4_PGE,
  CR4_PKE,
  CR4_PSE,
  CR4_SMEP,
  EFER_DEFINED,
} from "./control_bits.ts";
import { SevExitCode } from "../layout/sev/constants/exit_codes.ts";
import type { Cpu } from "./cpu.ts";
import { VECTOR_GP } from "./faults.ts";
import { directoryPointersValid, PHYSICAL_ADDRESS_BITS } from "./paging.ts";
import {
  ATTENTION_INTERRUPT,
  CpuState,
  CR0_CD,
  CR0_ET,
  CR0_NW,
  CR0_PE,
  CR0_PG,
  CR0_WP,
  CS,
  EFER_LMA,
  EFER_LME,
  EFER_NXE,
  SEG_LONG,
} from "./state.ts";

const CR0 = CpuState.at.cr0 >>> 2;
const CR2 = CpuState.at.cr2 >>> 2;
const CR3 = CpuState.at.cr3 >>> 2;
const CR4 = CpuState.at.cr4 >>> 2;
const CR8 = CpuState.at.cr8 >>> 2;
const EFER = CpuState.at.efer >>> 2;
const ATTENTION = CpuState.at.attention >>> 2;

/** Bits of CR3's high half that are beyond the physical address. */
const CR3_RESERVED_HIGH = -1 << (PHYSICAL_ADDRESS_BITS - 32);
const EXIT_CODE = SevExitCode.values;
/** Highest task priority. */
const CR8_MAX = 15;
/** CR0 bits whose change ends translations. */
const CR0_FLUSHES = CR0_PG | CR0_PE | CR0_WP;
/** CR4 bits whose change ends translations, and reloads the directory pointers of PAE paging. */
const CR4_FLUSHES = CR4_PAE | CR4_PGE | CR4_PSE | CR4_SMEP | CR4_PKE;

/** Whether the four directory pointers must be valid under these registers, and are not. */
function badDirectoryPointers(cpu: Cpu, cr0: number, cr3: number, cr4: number, efer: number): boolean {
  return (cr0 & CR0_PG) !== 0 && (cr4 & CR4_PAE) !== 0 && (efer & EFER_LMA) === 0 && !directoryPointersValid(cpu, cr3);
}

/** MOV to CR0, and what LMSW and CLTS come to. */
export function writeCr0(cpu: Cpu, lo: number, hi: number): void {
  const s32 = cpu.s32;
  const old = s32[CR0];
  const cr0 = (lo & CR0_DEFINED) | CR0_ET;
  const paging = (cr0 & CR0_PG) !== 0;
  if (hi !== 0 || (paging && (cr0 & CR0_PE) === 0)) cpu.raise(VECTOR_GP, 0);
  if ((cr0 & (CR0_NW | CR0_CD)) === CR0_NW) cpu.raise(VECTOR_GP, 0);
  let efer = s32[EFER];
  if (paging && (old & CR0_PG) === 0 && (efer & EFER_LME) !== 0) {
    if ((s32[CR4] & CR4_PAE) === 0 || (cpu.segmentAttributes(CS) & SEG_LONG) !== 0) cpu.raise(VECTOR_GP, 0);
    efer |= EFER_LMA;
  } else if (!paging && (old & CR0_PG) !== 0) {
    if (cpu.long64) cpu.raise(VECTOR_GP, 0);
    efer &= ~EFER_LMA;
  }
  const changed = old ^ cr0;
  if ((changed & CR0_PG) !== 0 && badDirectoryPointers(cpu, cr0, s32[CR3], s32[CR4], efer)) cpu.raise(VECTOR_GP, 0);
  s32[CR0] = cr0;
  s32[EFER] = efer;
  if ((changed & CR0_FLUSHES) !== 0) cpu.flushTlb();
  cpu.updateMode();
  cpu.bus.wrote?.(cpu, EXIT_CODE.CR0_WRITE_TRAP, cr0, 0);
}

/** MOV to CR2. */
export function writeCr2(cpu: Cpu, lo: number, hi: number): void {
  cpu.s32[CR2] = lo;
  cpu.s32[CR2 + 1] = hi;
}

/** MOV to CR3. */
export function writeCr3(cpu: Cpu, lo: number, hi: number): void {
  const s32 = cpu.s32;
  if ((hi & CR3_RESERVED_HIGH & ~cpu.encryptionBit) !== 0) cpu.raise(VECTOR_GP, 0);
  if (badDirectoryPointers(cpu, s32[CR0], lo, s32[CR4], s32[EFER])) cpu.raise(VECTOR_GP, 0);
  s32[CR3] = lo;
  s32[CR3 + 1] = hi;
  cpu.flushTlb();
}

/** MOV to CR4. */
export function writeCr4(cpu: Cpu, lo: number, hi: number): void {
  const s32 = cpu.s32;
  const changed = s32[CR4] ^ lo;
  if (hi !== 0 || (lo & ~CR4_DEFINED) !== 0) cpu.raise(VECTOR_GP, 0);
  if ((s32[EFER] & EFER_LMA) !== 0 && (lo & CR4_PAE) === 0) cpu.raise(VECTOR_GP, 0);
  const flushes = (changed & CR4_FLUSHES) !== 0;
  if (flushes && badDirectoryPointers(cpu, s32[CR0], s32[CR3], lo, s32[EFER])) cpu.raise(VECTOR_GP, 0);
  s32[CR4] = lo;
  if (flushes) cpu.flushTlb();
  cpu.updateMode();
  cpu.bus.wrote?.(cpu, EXIT_CODE.CR4_WRITE_TRAP, lo, 0);
}

/** MOV to CR8: the task priority. The bus is asked again whether an interrupt can be taken. */
export function writeCr8(cpu: Cpu, lo: number, hi: number): void {
  if (hi !== 0 || lo >>> 0 > CR8_MAX) cpu.raise(VECTOR_GP, 0);
  cpu.s32[CR8] = lo;
  Atomics.or(cpu.s32, ATTENTION, ATTENTION_INTERRUPT);
  cpu.bus.wrote?.(cpu, EXIT_CODE.CR8_WRITE_TRAP, lo, 0);
}

/** WRMSR to EFER; LMA stays as it is. False when the value is refused. */
export function writeEfer(cpu: Cpu, lo: number, hi: number): boolean {
  const s32 = cpu.s32;
  const old = s32[EFER];
  const changed = old ^ lo;
  if (hi !== 0 || (lo & ~EFER_DEFINED) !== 0) return false;
  if ((changed & EFER_LME) !== 0 && (s32[CR0] & CR0_PG) !== 0) return false;
  s32[EFER] = (lo & ~EFER_LMA) | (old & EFER_LMA);
  if ((changed & EFER_NXE) !== 0) cpu.flushTlb();
  cpu.updateMode();
  cpu.bus.wrote?.(cpu, EXIT_CODE.EFER_WRITE_TRAP, s32[EFER], 0);
  return true;
}
