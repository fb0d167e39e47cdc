/**
 * What the processor reads from the current task-state segment: stacks of inner levels, interrupt stacks, the I/O
 * permission map (AMD64 Architecture Programmer's Manual volume 2, chapter 12).
 *
 * @module
 */
import type { Cpu } from "./cpu.ts";
import { VECTOR_TS } from "./faults.ts";
import { baseWord, selectorError } from "./segments.ts";
import { FLAG_IOPL, RFLAGS, TR } from "./state.ts";

/** Offset of RSP0 in a 64-bit TSS; RSP1 and RSP2 follow. */
export const TASK64_RSP0 = 4;
/** Offset of IST1 in a 64-bit TSS; IST2 to IST7 follow. */
export const TASK64_IST1 = 0x24;

/** Type bit of TR's attributes: a 32- or 64-bit TSS. */
const TYPE_32 = 8;
/** Offset of ESP0 in a 32-bit TSS; SS0 and the pairs of levels 1 and 2 follow. */
const TASK32_ESP0 = 4;
/** Offset of SP0 in a 16-bit TSS. */
const TASK16_SP0 = 2;
/** Offset of the 16-bit I/O map base in a 32- or 64-bit TSS. */
const TASK_IO_MAP_BASE = 0x66;
/** Smallest limit of a TSS that has an I/O map base. */
const TASK_LIMIT_MIN = 0x67;
/** Position of IOPL in RFLAGS. */
const IOPL_SHIFT = 12;

/** The stack that {@linkcode readInnerStack} found. */
const innerStack = {
  /** Selector for SS. */
  selector: 0,
  /** Offset, 16 or 32 bits. */
  pointer: 0,
};

/** Puts the linear address of offset `offset` of the TSS into `ea32`. */
function taskAddress(cpu: Cpu, offset: number): void {
  const baseLo = cpu.s32[baseWord(TR)];
  const lo = (baseLo + offset) | 0;
  cpu.ea32[0] = lo;
  cpu.ea32[1] = cpu.longMode ? (cpu.s32[baseWord(TR) + 1] + (lo >>> 0 < baseLo >>> 0 ? 1 : 0)) | 0 : 0;
}

/**
 * SS and ESP that the 16- or 32-bit TSS holds for level `cpl`. Raises #TS with TR's selector when the TSS is too short.
 * The object returned is the same for each call.
 */
export function readInnerStack(
  cpu: Cpu,
  cpl: number,
  ext: number,
): { readonly selector: number; readonly pointer: number } {
  const wide = (cpu.segmentAttributes(TR) & TYPE_32) !== 0;
  const offset = wide ? TASK32_ESP0 + 8 * cpl : TASK16_SP0 + 4 * cpl;
  const bytes = wide ? 6 : 4;
  if (offset + bytes - 1 > cpu.segmentLimit(TR)) cpu.raise(VECTOR_TS, selectorError(cpu.segmentSelector(TR), ext));
  const lo = (cpu.s32[baseWord(TR)] + offset) | 0;
  innerStack.pointer = wide ? cpu.readLinear32(lo, 0, true) : cpu.readLinear16(lo, 0, true);
  innerStack.selector = cpu.readLinear16((lo + bytes - 2) | 0, 0, true);
  return innerStack;
}

/** Reads the stack pointer at `offset` of the 64-bit TSS into `v64[0]`. Raises #TS when the TSS does not reach there. */
export function readTaskStack64(cpu: Cpu, offset: number, ext: number): void {
  if (offset + 7 > cpu.segmentLimit(TR)) cpu.raise(VECTOR_TS, selectorError(cpu.segmentSelector(TR), ext));
  taskAddress(cpu, offset);
  cpu.readLinear64(cpu.ea32[0], cpu.ea32[1], true);
}

/**
 * Whether the program may access `size` (1, 2, 4) ports from `port` on: always in real mode and at a level that IOPL
 * allows, otherwise as the TSS's I/O permission map says. IN, OUT, INS and OUTS raise #GP(0) when not.
 */
export function ioPermitted(cpu: Cpu, port: number, size: number): boolean {
  if (!cpu.protected) return true;
  if (!cpu.v86 && cpu.cpl <= (cpu.s32[RFLAGS] & FLAG_IOPL) >> IOPL_SHIFT) return true;
  const limit = cpu.segmentLimit(TR);
  if ((cpu.segmentAttributes(TR) & TYPE_32) === 0 || limit < TASK_LIMIT_MIN) return false;
  taskAddress(cpu, TASK_IO_MAP_BASE);
  const map = cpu.readLinear16(cpu.ea32[0], cpu.ea32[1], true) + (port >>> 3);
  if (map + 1 > limit) return false; // the processor always reads two bytes
  taskAddress(cpu, map);
  const bits = cpu.readLinear16(cpu.ea32[0], cpu.ea32[1], true) >>> (port & 7);
  return (bits & ((1 << size) - 1)) === 0;
}
