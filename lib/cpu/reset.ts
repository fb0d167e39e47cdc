/**
 * A processor's state after reset and INIT, and after a startup IPI (AMD64 APM volume 2, "Processor Initialization
 * State" and "Multiprocessor Startup"; Intel SDM volume 3, "Processor State After Reset").
 *
 * @module
 */
import type { Cpu } from "./cpu.ts";
import {
  ACTIVITY_RUNNING,
  CpuState,
  CR0_CD,
  CR0_ET,
  CR0_NW,
  CS,
  FLAG_ONE,
  LDTR,
  SEG_ACCESSED,
  SEG_CODE,
  SEG_PRESENT,
  SEG_S,
  SEG_WRITABLE,
  TR,
} from "./state.ts";

const at = CpuState.at;

/** Limit of every segment and table in real mode. */
const LIMIT_64K = 0xffff;
/** Attributes of a data segment after reset: present, writable, accessed. */
const DATA = SEG_PRESENT | SEG_S | SEG_WRITABLE | SEG_ACCESSED;
/** Attributes of the code segment after reset: present, readable, accessed. */
const CODE = DATA | SEG_CODE;
/** Attributes of LDTR after reset: a present LDT. */
const LDT = SEG_PRESENT | 2;
/** Attributes of TR after reset: a present, busy 32-bit TSS. */
const BUSY_TSS = SEG_PRESENT | 0xb;
/** Selector and base of CS after reset: execution begins 16 bytes below the top of the base's 64 KiB. */
const RESET_CS = 0xf000;
const RESET_CS_BASE = 0xffff0000 | 0;
const RESET_RIP = 0xfff0;
const DR6_RESET = 0xffff0ff0;
const DR7_RESET = 0x400;
/** PAT after reset: WB, WT, UC-, UC, twice. */
const PAT_RESET = 0x0007040600070406n;
/** XCR0 after reset: x87. */
const XCR0_RESET = 1n;
/** x87 control word after a reset (FINIT would give 37f). */
const FCW_RESET = 0x40;
const MXCSR_RESET = 0x1f80;
/** Index of the attention word among 32-bit words of the state. */
const ATTENTION = at.attention / 4;

/** What a reset leaves alone: INIT keeps MSRs, x87/SSE state and the time-stamp counter; power-up keeps nothing. */
export type CpuReset = "power-up" | "init";

/** Puts a processor into its state after power-up or INIT. RDX gets the family, model and stepping in `signature`. */
export function resetCpu(cpu: Cpu, kind: CpuReset, signature: number): void {
  const { s32, s64 } = cpu;
  const kept = kind === "init" ? s64.slice() : undefined;
  // Others set attention bits at any time: a startup IPI that follows an INIT at once must not be lost.
  s32.fill(0, 0, ATTENTION);
  s32.fill(0, ATTENTION + 1);
  if (kept !== undefined) keepAcrossInit(cpu, kept);
  else powerUp(cpu);
  s32[at.gpr / 4 + 4] = signature;
  s32[at.rip / 4] = RESET_RIP;
  s32[at.rflags / 4] = FLAG_ONE;
  for (let segment = 0; segment < LDTR; segment++) cpu.setSegment(segment, 0, DATA, LIMIT_64K, 0);
  cpu.setSegment(CS, RESET_CS, CODE, LIMIT_64K, RESET_CS_BASE);
  cpu.setSegment(LDTR, 0, LDT, LIMIT_64K, 0);
  cpu.setSegment(TR, 0, BUSY_TSS, LIMIT_64K, 0);
  cpu.s16[at.gdtr / 2 + 3] = LIMIT_64K;
  cpu.s16[at.idtr / 2 + 3] = LIMIT_64K;
  s32[at.cr0 / 4] = CR0_CD | CR0_NW | CR0_ET;
  s32[at.dr6 / 4] = DR6_RESET;
  s32[at.dr7 / 4] = DR7_RESET;
  cpu.flushCaches();
}

/** What only a power-up sets. */
function powerUp(cpu: Cpu): void {
  cpu.s64[at.pat / 8] = PAT_RESET;
  cpu.s64[at.xcr0 / 8] = XCR0_RESET;
  cpu.s16[at.fx / 2] = FCW_RESET;
  cpu.s32[at.fx / 4 + 6] = MXCSR_RESET;
}

/** State that an INIT does not touch, as ranges of byte offsets. */
const KEPT: readonly (readonly [from: number, to: number])[] = [
  [at.xcr0, at.dr0],
  [at.star, at.tsc_offset],
  [at.tsc_offset, at.interrupt_shadow],
];

function keepAcrossInit(cpu: Cpu, before: BigUint64Array): void {
  for (const [from, to] of KEPT) cpu.s64.set(before.subarray(from / 8, to / 8), from / 8);
}

/** Starts a processor that waits for SIPI: real mode at page `vector`. */
export function startCpuAt(cpu: Cpu, vector: number): void {
  cpu.setSegment(CS, vector << 8, CODE, LIMIT_64K, vector << 12);
  cpu.s32[at.rip / 4] = 0;
  cpu.s32[at.rip / 4 + 1] = 0;
  cpu.s32[at.activity / 4] = ACTIVITY_RUNNING;
  cpu.flushCaches();
}
