/**
 * IRET in every form: real and virtual-8086 mode, to the same and to an outer level, to virtual-8086 mode, to the linked
 * task, and in long mode (AMD64 Architecture Programmer's Manual volume 3, "IRET").
 *
 * @module
 */
import type { Cpu } from "../cpu.ts";
import { readReturnCode, returnSameLevel, returnWithStack } from "../far_transfer.ts";
import { VECTOR_GP } from "../faults.ts";
import { type Exec, type OpcodeRow, row } from "../insn.ts";
import { setRealSegment, setV86Segment } from "../segments.ts";
import {
  CpuState,
  CS,
  DS,
  ES,
  FLAG_AC,
  FLAG_DF,
  FLAG_ID,
  FLAG_IF,
  FLAG_IOPL,
  FLAG_NT,
  FLAG_ONE,
  FLAG_RF,
  FLAG_TF,
  FLAG_VIF,
  FLAG_VIP,
  FLAG_VM,
  FLAGS_ARITHMETIC,
  FLAGS_DEFINED,
  FS,
  GS,
  RFLAGS,
  RSP,
  SS,
} from "../state.ts";
import { returnToLinkedTask } from "../task_switch.ts";
import { peekStack } from "./far.ts";

const NMI_MASKED = CpuState.at.nmi_masked >>> 2;
const IOPL_SHIFT = 12;
const IOPL_MAX = 3;
/** Highest instruction pointer of virtual-8086 code. */
const V86_RIP_MAX = 0xffff;
/** Flags that every IRET may write. */
const FLAGS_ALWAYS = FLAGS_ARITHMETIC | FLAG_TF | FLAG_DF | FLAG_NT;
/** Flags that only a 32- or 64-bit IRET writes. */
const FLAGS_WIDE = FLAG_RF | FLAG_AC | FLAG_ID;

/** Writes those bits of `flags` that a program at the given level may change. */
function writeFlags(cpu: Cpu, flags: number, size: number, cpl: number): void {
  const old = cpu.flags();
  let mask = FLAGS_ALWAYS;
  if (size !== 2) mask |= FLAGS_WIDE;
  if (cpl <= (old & FLAG_IOPL) >> IOPL_SHIFT) mask |= FLAG_IF;
  if (cpl === 0) {
    mask |= FLAG_IOPL;
    if (size !== 2) mask |= FLAG_VIF | FLAG_VIP;
  }
  cpu.s32[RFLAGS] = (old & ~mask) | (flags & mask) | FLAG_ONE;
}

/** IRET in real and virtual-8086 mode. */
function returnReal(cpu: Cpu, size: number): void {
  const old = cpu.flags();
  if (cpu.v86 && (old & FLAG_IOPL) >> IOPL_SHIFT !== IOPL_MAX) cpu.raise(VECTOR_GP, 0);
  peekStack(cpu, 0, size);
  const rip = cpu.v32[0];
  peekStack(cpu, size, size);
  const selector = cpu.v32[0] & 0xffff;
  peekStack(cpu, 2 * size, size);
  const flags = cpu.v32[0];
  if (rip >>> 0 > cpu.segmentLimit(CS)) cpu.raise(VECTOR_GP, 0);
  cpu.moveStack(3 * size);
  setRealSegment(cpu, CS, selector);
  cpu.jump(rip, 0);
  let mask = FLAGS_ALWAYS | FLAG_IF;
  if (size !== 2) mask |= FLAGS_WIDE;
  if (!cpu.v86) mask |= FLAG_IOPL;
  cpu.s32[RFLAGS] = (old & ~mask) | (flags & mask) | FLAG_ONE;
}

/** A return from level 0 to virtual-8086 mode: a frame of nine 32-bit values. */
function returnToV86(cpu: Cpu, rip: number, selector: number, flags: number): void {
  if (rip >>> 0 > V86_RIP_MAX) cpu.raise(VECTOR_GP, 0);
  peekStack(cpu, 12, 4);
  const esp = cpu.v32[0];
  const selectors = [0, 0, 0, 0, 0];
  for (let n = 0; n < selectors.length; n++) {
    peekStack(cpu, 16 + 4 * n, 4);
    selectors[n] = cpu.v32[0] & 0xffff;
  }
  cpu.flags();
  cpu.s32[RFLAGS] = (flags & FLAGS_DEFINED) | FLAG_ONE;
  setV86Segment(cpu, CS, selector);
  [SS, ES, DS, FS, GS].forEach((seg, n) => setV86Segment(cpu, seg, selectors[n]));
  cpu.g32[RSP * 2] = esp;
  cpu.g32[RSP * 2 + 1] = 0;
  cpu.jump(rip, 0);
}

/** IRET in protected and long mode. */
function returnProtected(cpu: Cpu, size: number): void {
  const old = cpu.flags();
  if ((old & FLAG_NT) !== 0) {
    if (cpu.longMode) cpu.raise(VECTOR_GP, 0);
    returnToLinkedTask(cpu);
    return;
  }
  const cpl = cpu.cpl;
  peekStack(cpu, 0, size);
  const lo = cpu.v32[0];
  const hi = cpu.v32[1];
  peekStack(cpu, size, size);
  const selector = cpu.v32[0] & 0xffff;
  peekStack(cpu, 2 * size, size);
  const flags = cpu.v32[0];
  if ((flags & FLAG_VM) !== 0 && cpl === 0 && size === 4 && !cpu.longMode) {
    returnToV86(cpu, lo, selector, flags);
    return;
  }
  readReturnCode(cpu, selector);
  if (cpu.long64 || (selector & 3) !== cpl) {
    peekStack(cpu, 3 * size, size);
    const spLo = cpu.v32[0];
    const spHi = cpu.v32[1];
    peekStack(cpu, 4 * size, size);
    returnWithStack(cpu, selector, lo, hi, cpu.v32[0] & 0xffff, spLo, spHi);
  } else {
    returnSameLevel(cpu, selector, lo, hi);
    cpu.moveStack(3 * size);
  }
  writeFlags(cpu, flags, size, cpl);
}

/** IRET, IRETD, IRETQ. */
const interruptReturn: Exec = (cpu, i) => {
  if (!cpu.protected || cpu.v86) returnReal(cpu, i.opsize);
  else returnProtected(cpu, i.opsize);
  cpu.s32[NMI_MASKED] = 0;
  cpu.updateMode();
};

/** The opcode rows of this file. */
export const rows: readonly OpcodeRow[] = [row("1", 0xcf, "iret", "", interruptReturn, { ends: true })];
