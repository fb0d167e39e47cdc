/**
 * Single step and breakpoints: what is checked around an instruction that runs alone because TF, RF, a breakpoint or an
 * interrupt shadow asks for it (AMD64 Architecture Programmer's Manual volume 2, chapter 13; Intel SDM volume 3,
 * "Debug Exceptions").
 *
 * Hits of data and port breakpoints are gathered while the instruction runs and become one trap behind it. After a load
 * of SS the trap waits for the end of the next instruction; a single step is then not reported at all.
 *
 * @module
 */
import { CR4_DE } from "./control_bits.ts";
import type { Cpu } from "./cpu.ts";
import { VECTOR_DB } from "./faults.ts";
import { CpuState, CS, FLAG_RF, RFLAGS, RIP, SHADOW_MOV_SS } from "./state.ts";

const CR4 = CpuState.at.cr4 >> 2;
const DR0 = CpuState.at.dr0 >> 2;
const DR6 = CpuState.at.dr6 >> 2;
const DR7 = CpuState.at.dr7 >> 2;
const SHADOW = CpuState.at.interrupt_shadow >> 2;
const PENDING_DB = CpuState.at.pending_db >> 2;

/** DR6: general detect. */
const DR6_BD = 0x2000;
/** DR6: single step. */
const DR6_BS = 0x4000;
/** DR7: general detect. */
const DR7_GD = 0x2000;
/** Breakpoint kinds in DR7. */
const KIND_EXECUTE = 0;
const KIND_WRITE = 1;
const KIND_PORT = 2;
const KIND_ACCESS = 3;
const BREAKPOINTS = 4;

/** Whether breakpoint `n` is enabled in DR7 value `dr7`. */
function enabled(dr7: number, n: number): boolean {
  return ((dr7 >> (2 * n)) & 3) !== 0;
}

/** Kind of breakpoint `n`. */
function kindOf(dr7: number, n: number): number {
  return (dr7 >> (16 + 4 * n)) & 3;
}

/** Length of breakpoint `n` less one: a mask of the address bits that do not count. */
function maskOf(dr7: number, n: number): number {
  const length = (dr7 >> (18 + 4 * n)) & 3;
  return length === 2 ? 7 : length; // 1, 2, 8 or 4 bytes
}

/** Whether DR7 value `dr7` has a breakpoint on data, so that every access must be looked at. */
export function watchesData(dr7: number): boolean {
  for (let n = 0; n < BREAKPOINTS; n++) {
    if (enabled(dr7, n) && (kindOf(dr7, n) & KIND_WRITE) !== 0) return true;
  }
  return false;
}

/** Before an instruction, with RF still as it was: raises #DB for a breakpoint on its address. */
export function beforeInstruction(cpu: Cpu): void {
  const { s32 } = cpu;
  cpu.debugHits = 0;
  cpu.traceCancelled = false;
  const dr7 = s32[DR7];
  if ((dr7 & 0xff) === 0 || (s32[RFLAGS] & FLAG_RF) !== 0) return;
  const lo = cpu.long64 ? s32[RIP] : (s32[RIP] + cpu.segmentBase(CS)) | 0;
  const hi = cpu.long64 ? s32[RIP + 1] : 0;
  let hits = 0;
  for (let n = 0; n < BREAKPOINTS; n++) {
    if (!enabled(dr7, n) || kindOf(dr7, n) !== KIND_EXECUTE) continue;
    if (s32[DR0 + 2 * n] === lo && (!cpu.longMode || s32[DR0 + 2 * n + 1] === hi)) hits |= 1 << n;
  }
  if (hits === 0) return;
  s32[DR6] |= hits;
  // A trap in form: RIP is still at the instruction, and RF must not be set in the saved flags.
  cpu.raiseTrap(VECTOR_DB);
}

/** After an instruction that completed; `traced` when TF was set before it. */
export function afterInstruction(cpu: Cpu, traced: boolean): void {
  const { s32 } = cpu;
  if ((s32[SHADOW] & SHADOW_MOV_SS) !== 0) {
    s32[PENDING_DB] |= cpu.debugHits;
    return;
  }
  let hits = cpu.debugHits | s32[PENDING_DB];
  if (traced && !cpu.traceCancelled) hits |= DR6_BS;
  if (hits === 0) return;
  s32[PENDING_DB] = 0;
  s32[DR6] |= hits;
  cpu.raiseTrap(VECTOR_DB);
}

/** Between instructions: raises the debug trap that a task switch or an interrupt shadow left, when there is one. */
export function raisePendingTrap(cpu: Cpu): void {
  const { s32 } = cpu;
  const hits = s32[PENDING_DB];
  if (hits === 0 || s32[SHADOW] !== 0) return;
  s32[PENDING_DB] = 0;
  s32[DR6] |= hits;
  cpu.raiseTrap(VECTOR_DB);
}

/** Raises #DB because an instruction touches a debug register that DR7.GD guards. */
export function raiseGeneralDetect(cpu: Cpu): never {
  cpu.s32[DR6] |= DR6_BD;
  return cpu.raise(VECTOR_DB);
}

/** What the processor does to the debug registers when it enters the handler of a #DB: the guard is off. */
export function enterDebugHandler(cpu: Cpu): void {
  cpu.s32[DR7] &= ~DR7_GD;
}

/** Notes data breakpoints that an access of `size` bytes at linear address lo:hi hits. */
export function noteDataAccess(cpu: Cpu, lo: number, hi: number, size: number, write: boolean): void {
  const { s32 } = cpu;
  const dr7 = s32[DR7];
  for (let n = 0; n < BREAKPOINTS; n++) {
    const kind = kindOf(dr7, n);
    if (!enabled(dr7, n) || !(kind === KIND_ACCESS || (write && kind === KIND_WRITE))) continue;
    const mask = maskOf(dr7, n);
    const first = (s32[DR0 + 2 * n] & ~mask) >>> 0;
    if (cpu.longMode && s32[DR0 + 2 * n + 1] !== hi) continue;
    if (first + mask >= lo >>> 0 && first < (lo >>> 0) + size) cpu.debugHits |= 1 << n;
  }
}

/** Notes port breakpoints that an access of `size` bytes at `port` hits; they exist with CR4.DE. */
export function checkPortBreakpoint(cpu: Cpu, port: number, size: number): void {
  const { s32 } = cpu;
  const dr7 = s32[DR7];
  if ((dr7 & 0xff) === 0 || (s32[CR4] & CR4_DE) === 0) return;
  for (let n = 0; n < BREAKPOINTS; n++) {
    if (!enabled(dr7, n) || kindOf(dr7, n) !== KIND_PORT) continue;
    const mask = maskOf(dr7, n);
    const first = s32[DR0 + 2 * n] & ~mask & 0xffff;
    if (first + mask >= port && first < port + size) cpu.debugHits |= 1 << n;
  }
}
