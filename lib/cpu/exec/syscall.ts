/**
 * SYSCALL, SYSRET, SYSENTER and SYSEXIT (AMD64 Architecture Programmer's Manual volume 2, section 6.1, and volume 3).
 *
 * As on AMD processors, SYSENTER and SYSEXIT are undefined in long mode, and SYSRET to an address that is not canonical
 * faults at the target.
 *
 * @module
 */
import type { Cpu } from "../cpu.ts";
import { VECTOR_GP, VECTOR_UD } from "../faults.ts";
import { type Exec, type OpcodeRow, row } from "../insn.ts";
import {
  CpuState,
  CS,
  EFER_SCE,
  FLAG_IF,
  FLAG_RF,
  FLAG_VM,
  FLAGS_DEFINED,
  RCX,
  RDX,
  RFLAGS,
  RIP,
  RSP,
  SEG_ACCESSED,
  SEG_BIG,
  SEG_CODE,
  SEG_GRANULARITY,
  SEG_LONG,
  SEG_PRESENT,
  SEG_S,
  SEG_WRITABLE,
  SS,
} from "../state.ts";

const at = CpuState.at;
const EFER = at.efer >>> 2;
const STAR = at.star >>> 2;
const LSTAR = at.lstar >>> 2;
const CSTAR = at.cstar >>> 2;
const SFMASK = at.sfmask >>> 2;
const SYSENTER_CS = at.sysenter_cs >>> 2;
const SYSENTER_ESP = at.sysenter_esp >>> 2;
const SYSENTER_EIP = at.sysenter_eip >>> 2;
const R11 = 11;

/** Attributes of the flat segments that these instructions load, but for the DPL: data, 32-bit and 64-bit code. */
const FLAT_DATA = SEG_PRESENT | SEG_S | SEG_WRITABLE | SEG_ACCESSED | SEG_BIG | SEG_GRANULARITY;
const FLAT_CODE32 = FLAT_DATA | SEG_CODE;
const FLAT_CODE64 = (FLAT_CODE32 & ~SEG_BIG) | SEG_LONG;
const FLAT_LIMIT = 0xffff_ffff | 0;
const DPL_SHIFT = 5;
/** Distances of the selectors in a system call's group of descriptors. */
const NEXT_SELECTOR = 8;
const SYSRET64_CODE = 16;
const SYSEXIT_CODE = 16;
const SYSEXIT_STACK = 24;
const SELECTOR_MASK = 0xfffc;

/** Loads CS and SS with flat segments for privilege level `cpl`. */
function loadFlat(cpu: Cpu, code: number, codeAttributes: number, stack: number, cpl: number): void {
  const dpl = cpl << DPL_SHIFT;
  cpu.setSegment(CS, (code & SELECTOR_MASK) | cpl, codeAttributes | dpl, FLAT_LIMIT, 0);
  cpu.setSegment(SS, (stack & SELECTOR_MASK) | cpl, FLAT_DATA | dpl, FLAT_LIMIT, 0);
}

/** SYSCALL. */
const systemCall: Exec = (cpu) => {
  const { s32, g32 } = cpu;
  if ((s32[EFER] & EFER_SCE) === 0 || !cpu.protected || cpu.v86) cpu.raise(VECTOR_UD);
  const flags = cpu.flags() & ~FLAG_RF;
  const code = s32[STAR + 1] & 0xffff;
  g32[RCX * 2] = s32[RIP];
  g32[RCX * 2 + 1] = cpu.longMode ? s32[RIP + 1] : 0;
  if (cpu.longMode) {
    g32[R11 * 2] = flags;
    g32[R11 * 2 + 1] = 0;
    const target = cpu.long64 ? LSTAR : CSTAR;
    cpu.jump(s32[target], s32[target + 1]);
    loadFlat(cpu, code, FLAT_CODE64, code + NEXT_SELECTOR, 0);
    cpu.setFlags(flags & ~s32[SFMASK]);
  } else {
    cpu.jump(s32[STAR], 0);
    loadFlat(cpu, code, FLAT_CODE32, code + NEXT_SELECTOR, 0);
    cpu.setFlags(flags & ~(FLAG_IF | FLAG_VM));
  }
};

/** SYSRET, with a 64-bit operand back to 64-bit code. */
const systemReturn: Exec = (cpu, i) => {
  const { s32, g32 } = cpu;
  if ((s32[EFER] & EFER_SCE) === 0 || !cpu.protected || cpu.v86) cpu.raise(VECTOR_UD);
  if (cpu.cpl !== 0) cpu.raise(VECTOR_GP, 0);
  const code = s32[STAR + 1] >>> 16;
  const wide = cpu.longMode && i.opsize === 8;
  cpu.jump(g32[RCX * 2], wide ? g32[RCX * 2 + 1] : 0);
  if (wide) loadFlat(cpu, code + SYSRET64_CODE, FLAT_CODE64, code + NEXT_SELECTOR, 3);
  else loadFlat(cpu, code, FLAT_CODE32, code + NEXT_SELECTOR, 3);
  if (cpu.longMode) cpu.setFlags(g32[R11 * 2] & FLAGS_DEFINED & ~(FLAG_RF | FLAG_VM));
  else cpu.setFlags(cpu.flags() | FLAG_IF);
};

/** SYSENTER. */
const systemEnter: Exec = (cpu) => {
  const { s32, g32 } = cpu;
  if (cpu.longMode) cpu.raise(VECTOR_UD);
  const code = s32[SYSENTER_CS] & SELECTOR_MASK;
  if (!cpu.protected || code === 0) cpu.raise(VECTOR_GP, 0);
  const flags = cpu.flags() & ~(FLAG_IF | FLAG_VM | FLAG_RF);
  s32[RFLAGS] = flags;
  loadFlat(cpu, code, FLAT_CODE32, code + NEXT_SELECTOR, 0);
  g32[RSP * 2] = s32[SYSENTER_ESP];
  g32[RSP * 2 + 1] = 0;
  cpu.jump(s32[SYSENTER_EIP], 0);
  cpu.updateMode();
};

/** SYSEXIT. */
const systemExit: Exec = (cpu) => {
  const { s32, g32 } = cpu;
  if (cpu.longMode) cpu.raise(VECTOR_UD);
  const code = s32[SYSENTER_CS] & SELECTOR_MASK;
  if (!cpu.protected || code === 0 || cpu.cpl !== 0) cpu.raise(VECTOR_GP, 0);
  loadFlat(cpu, code + SYSEXIT_CODE, FLAT_CODE32, code + SYSEXIT_STACK, 3);
  g32[RSP * 2] = g32[RCX * 2];
  g32[RSP * 2 + 1] = 0;
  cpu.jump(g32[RDX * 2], 0);
  cpu.updateMode();
};

/** The opcode rows of this file. */
export const rows: readonly OpcodeRow[] = [
  row("0f", 0x05, "syscall", "", systemCall, { ends: true }),
  row("0f", 0x07, "sysret", "", systemReturn, { ends: true }),
  row("0f", 0x34, "sysenter", "", systemEnter, { ends: true }),
  row("0f", 0x35, "sysexit", "", systemExit, { ends: true }),
];
