/**
 * Control and debug registers, the machine status word, cache and TLB control, HLT, CPUID, time stamps, XCR0, SWAPGS, RSM
 * and hypercalls.
 *
 * @module
 */
import { SevExitCode } from "../../layout/sev/constants/exit_codes.ts";
import { CR4_DE, CR4_OSXSAVE, CR4_PCE, CR4_PKE, CR4_TSD, CR4_UMIP } from "../control_bits.ts";
import { writeCr0, writeCr2, writeCr3, writeCr4, writeCr8 } from "../control_registers.ts";
import type { Cpu } from "../cpu.ts";
import { raiseGeneralDetect } from "../debug.ts";
import { VECTOR_GP, VECTOR_UD } from "../faults.ts";
import { type Exec, type Insn, type OpcodeRow, row } from "../insn.ts";
import { baseWord } from "../segments.ts";
import { CpuState, CR0_PE, CR0_TS, GS, RAX, RCX, RDX, STOP_EXIT } from "../state.ts";
import { loadWord, requirePrivilege, writeRegister } from "./system_operand.ts";
import { raiseUndefined, raiseUnimplemented } from "./undefined.ts";

const EXIT_CODE = SevExitCode.values;
const at = CpuState.at;
const CR0 = at.cr0 >>> 2;
const CR2 = at.cr2 >>> 2;
const CR3 = at.cr3 >>> 2;
const CR4 = at.cr4 >>> 2;
const CR8 = at.cr8 >>> 2;
const DR0 = at.dr0 >>> 2;
const DR6 = at.dr6 >>> 2;
const DR7 = at.dr7 >>> 2;
const XCR0 = at.xcr0 >>> 2;
const PKRU = at.pkru >>> 2;
const TSC_AUX = at.tsc_aux >>> 2;
const KERNEL_GS_BASE = at.kernel_gs_base >>> 2;
const TSC_OFFSET = at.tsc_offset >>> 3;

/** CR0 bits that LMSW can write: PE (which it cannot clear), MP, EM, TS. */
const LMSW_BITS = 0xf;
/** DR6 bits that are 1 whatever is written, and the breakpoint and cause bits that software writes. */
const DR6_ONES = 0xffff_0ff0 | 0;
const DR6_WRITABLE = 0xe00f;
/** DR7 bit 10 reads as 1; bits 11, 12, 14 and 15 as 0. */
const DR7_ONES = 0x400;
const DR7_ZEROS = 0xd800;
/** DR7: general detect. */
const DR7_GD = 0x2000;
/** XCR0 components that exist: x87, SSE, AVX's upper halves. */
const XCR0_X87 = 1;
const XCR0_SSE = 2;
const XCR0_AVX = 4;
const XCR0_DEFINED = XCR0_X87 | XCR0_SSE | XCR0_AVX;
/** Performance counters that RDPMC knows; all stand still. */
const PERFORMANCE_COUNTERS = 6;

/** MOV from a control register. */
const moveFromControl: Exec = (cpu, i) => {
  requirePrivilege(cpu);
  const word = controlWord(cpu, i.reg);
  writeRegister(cpu, i.rm, i.mode64 ? 8 : 4, cpu.s32[word], cpu.s32[word + 1]);
};

/** Word index of control register `n`; #UD for those that do not exist. */
function controlWord(cpu: Cpu, n: number): number {
  switch (n) {
    case 0:
      return CR0;
    case 2:
      return CR2;
    case 3:
      return CR3;
    case 4:
      return CR4;
    case 8:
      return CR8;
    default:
      return cpu.raise(VECTOR_UD);
  }
}

/** MOV to a control register. */
const moveToControl: Exec = (cpu, i) => {
  requirePrivilege(cpu);
  const lo = cpu.g32[2 * i.rm];
  const hi = i.mode64 ? cpu.g32[2 * i.rm + 1] : 0;
  switch (i.reg) {
    case 0:
      writeCr0(cpu, lo, hi);
      break;
    case 2:
      writeCr2(cpu, lo, hi);
      break;
    case 3:
      writeCr3(cpu, lo, hi);
      break;
    case 4:
      writeCr4(cpu, lo, hi);
      break;
    case 8:
      writeCr8(cpu, lo, hi);
      break;
    default:
      cpu.raise(VECTOR_UD);
  }
};

/** The debug register that MOV names: DR4 and DR5 are DR6 and DR7 unless CR4.DE; #UD beyond DR7. */
function debugNumber(cpu: Cpu, i: Insn): number {
  if (i.reg > 7) cpu.raise(VECTOR_UD);
  const alias = i.reg === 4 || i.reg === 5;
  if (alias && (cpu.s32[CR4] & CR4_DE) !== 0) cpu.raise(VECTOR_UD);
  requirePrivilege(cpu);
  if ((cpu.s32[DR7] & DR7_GD) !== 0) raiseGeneralDetect(cpu);
  return alias ? i.reg + 2 : i.reg;
}

/** Word index of debug register `n`. */
function debugWord(n: number): number {
  return n < 4 ? DR0 + 2 * n : n === 6 ? DR6 : DR7;
}

/** MOV from a debug register. */
const moveFromDebug: Exec = (cpu, i) => {
  const n = debugNumber(cpu, i);
  if (cpu.bus.intercepts?.(cpu, EXIT_CODE.DR0_READ + n)) return;
  const word = debugWord(n);
  writeRegister(cpu, i.rm, i.mode64 ? 8 : 4, cpu.s32[word], cpu.s32[word + 1]);
};

/** MOV to a debug register. */
const moveToDebug: Exec = (cpu, i) => {
  const n = debugNumber(cpu, i);
  let lo = cpu.g32[2 * i.rm];
  const hi = i.mode64 ? cpu.g32[2 * i.rm + 1] : 0;
  if (cpu.bus.intercepts?.(cpu, EXIT_CODE.DR0_WRITE + n)) return;
  if (n >= 6 && hi !== 0) cpu.raise(VECTOR_GP, 0);
  if (n === 6) lo = (lo & DR6_WRITABLE) | DR6_ONES;
  if (n === 7) lo = (lo & ~DR7_ZEROS) | DR7_ONES;
  const word = debugWord(n);
  cpu.s32[word] = lo;
  cpu.s32[word + 1] = hi;
  cpu.updateMode();
};

/** SMSW: the low bits of CR0, as many as the operand has. */
const storeStatusWord: Exec = (cpu, i) => {
  if ((cpu.s32[CR4] & CR4_UMIP) !== 0) requirePrivilege(cpu);
  if (i.mem) cpu.store16(i, cpu.s32[CR0] & 0xffff);
  else writeRegister(cpu, i.rm, i.opsize, cpu.s32[CR0], cpu.s32[CR0 + 1]);
};

/** LMSW. */
const loadStatusWord: Exec = (cpu, i) => {
  requirePrivilege(cpu);
  const cr0 = cpu.s32[CR0];
  const value = (loadWord(cpu, i) & LMSW_BITS) | (cr0 & CR0_PE);
  writeCr0(cpu, (cr0 & ~LMSW_BITS) | value, cpu.s32[CR0 + 1]);
};

/** CLTS. */
const clearTaskSwitched: Exec = (cpu) => {
  requirePrivilege(cpu);
  writeCr0(cpu, cpu.s32[CR0] & ~CR0_TS, 0);
};

/** INVLPG. All translations go: a page may be part of a larger one. */
const invalidatePage: Exec = (cpu) => {
  requirePrivilege(cpu);
  cpu.flushTlb();
};

/** INVD and WBINVD: there is no cache. */
function invalidateCache(exitCode: number): Exec {
  return (cpu) => {
    requirePrivilege(cpu);
    cpu.bus.intercepts?.(cpu, exitCode);
  };
}

/** HLT. */
const halt: Exec = (cpu) => {
  requirePrivilege(cpu);
  cpu.bus.hlt(cpu);
};

/** CPUID. */
const identify: Exec = (cpu) => cpu.bus.cpuid(cpu);

/** Writes EDX:EAX; false when the surroundings took the instruction as an exit. */
function readTimeStamp(cpu: Cpu, exitCode: number): boolean {
  if ((cpu.s32[CR4] & CR4_TSD) !== 0) requirePrivilege(cpu);
  if (cpu.bus.intercepts?.(cpu, exitCode)) return false;
  cpu.bus.tsc(cpu);
  if ((cpu.stop & STOP_EXIT) !== 0) return false;
  cpu.v64[0] += cpu.s64[TSC_OFFSET];
  writeRegister(cpu, RAX, 4, cpu.v32[0], 0);
  writeRegister(cpu, RDX, 4, cpu.v32[1], 0);
  return true;
}

/** RDTSC. */
const readTsc: Exec = (cpu) => {
  readTimeStamp(cpu, EXIT_CODE.RDTSC);
};

/** RDTSCP: also TSC_AUX. */
const readTscAndProcessor: Exec = (cpu) => {
  if (readTimeStamp(cpu, EXIT_CODE.RDTSCP)) writeRegister(cpu, RCX, 4, cpu.s32[TSC_AUX], 0);
};

/** RDPMC: counters that never count. */
const readCounter: Exec = (cpu) => {
  if ((cpu.s32[CR4] & CR4_PCE) === 0) requirePrivilege(cpu);
  if (cpu.bus.intercepts?.(cpu, EXIT_CODE.RDPMC)) return;
  if (cpu.g32[RCX * 2] >>> 0 >= PERFORMANCE_COUNTERS) cpu.raise(VECTOR_GP, 0);
  writeRegister(cpu, RAX, 4, 0, 0);
  writeRegister(cpu, RDX, 4, 0, 0);
};

/** XGETBV of XCR0. */
const readXcr: Exec = (cpu) => {
  if ((cpu.s32[CR4] & CR4_OSXSAVE) === 0) cpu.raise(VECTOR_UD);
  if (cpu.g32[RCX * 2] !== 0) cpu.raise(VECTOR_GP, 0);
  writeRegister(cpu, RAX, 4, cpu.s32[XCR0], 0);
  writeRegister(cpu, RDX, 4, cpu.s32[XCR0 + 1], 0);
};

/** XSETBV of XCR0: x87 always, AVX only with SSE. */
const writeXcr: Exec = (cpu) => {
  if ((cpu.s32[CR4] & CR4_OSXSAVE) === 0) cpu.raise(VECTOR_UD);
  requirePrivilege(cpu);
  if (cpu.bus.intercepts?.(cpu, EXIT_CODE.XSETBV)) return;
  const value = cpu.g32[RAX * 2];
  const consistent = (value & XCR0_X87) !== 0 && (value & (XCR0_SSE | XCR0_AVX)) !== XCR0_AVX;
  const known = cpu.g32[RDX * 2] === 0 && (value & ~XCR0_DEFINED) === 0;
  if (cpu.g32[RCX * 2] !== 0 || !known || !consistent) cpu.raise(VECTOR_GP, 0);
  cpu.s32[XCR0] = value;
  cpu.s32[XCR0 + 1] = 0;
};

/** What RDPKRU and WRPKRU need: CR4.PKE, and 0 in ECX. */
function requireKeys(cpu: Cpu): void {
  if ((cpu.s32[CR4] & CR4_PKE) === 0) cpu.raise(VECTOR_UD);
  if (cpu.g32[RCX * 2] !== 0) cpu.raise(VECTOR_GP, 0);
}

/** RDPKRU. */
const readKeys: Exec = (cpu) => {
  requireKeys(cpu);
  writeRegister(cpu, RAX, 4, cpu.s32[PKRU], 0);
  writeRegister(cpu, RDX, 4, 0, 0);
};

/** WRPKRU: translations that were made under other rights are dropped. */
const writeKeys: Exec = (cpu) => {
  requireKeys(cpu);
  if (cpu.g32[RDX * 2] !== 0) cpu.raise(VECTOR_GP, 0);
  cpu.s32[PKRU] = cpu.g32[RAX * 2];
  cpu.flushTlb();
};

/** SWAPGS. */
const swapGs: Exec = (cpu) => {
  requirePrivilege(cpu);
  const s32 = cpu.s32;
  const gs = baseWord(GS);
  for (let half = 0; half < 2; half++) {
    const base = s32[gs + half];
    s32[gs + half] = s32[KERNEL_GS_BASE + half];
    s32[KERNEL_GS_BASE + half] = base;
  }
  cpu.updateMode();
};

/** MONITOR and MWAIT: the processor does not offer them; a hypervisor may intercept them all the same. */
const wait = (exitCode: number): Exec => (cpu, i) => {
  if (cpu.cpl !== 0 || !cpu.bus.intercepts?.(cpu, exitCode)) raiseUnimplemented(cpu, i);
};

/** VMCALL, VMMCALL and VMGEXIT: the surroundings know what they mean, or they are undefined. */
const callHypervisor: Exec = (cpu, i) => {
  if (!cpu.bus.hypercall(cpu, i)) cpu.raise(VECTOR_UD);
};

/** A row of 0F 01 with a register form. */
function row01(reg: number, rm: number, name: string, exec: Exec, more: Partial<OpcodeRow> = {}): OpcodeRow {
  return row("0f", 0x01, name, "", exec, { reg, rm, mod: "reg", ends: true, ...more });
}

/** The opcode rows of this file. */
export const rows: readonly OpcodeRow[] = [
  row("0f", 0x20, "mov", "R,C", moveFromControl),
  row("0f", 0x21, "mov", "R,D", moveFromDebug, { ends: true }),
  row("0f", 0x22, "mov", "C,R", moveToControl, { ends: true }),
  row("0f", 0x23, "mov", "D,R", moveToDebug, { ends: true }),
  row("0f", 0x01, "smsw", "Ev", storeStatusWord, { reg: 4 }),
  row("0f", 0x01, "lmsw", "Ew", loadStatusWord, { reg: 6, ends: true }),
  row("0f", 0x06, "clts", "", clearTaskSwitched, { ends: true }),
  row("0f", 0x01, "invlpg", "M", invalidatePage, { reg: 7, mod: "mem", ends: true }),
  row("0f", 0x08, "invd", "", invalidateCache(EXIT_CODE.INVD), { ends: true }),
  row("0f", 0x09, "wbinvd", "", invalidateCache(EXIT_CODE.WBINVD), { ends: true }),
  row("1", 0xf4, "hlt", "", halt, { ends: true }),
  row("0f", 0xa2, "cpuid", "", identify, { ends: true }),
  row("0f", 0x31, "rdtsc", "", readTsc, { ends: true }),
  row("0f", 0x33, "rdpmc", "", readCounter, { ends: true }),
  row("0f", 0xaa, "rsm", "", raiseUndefined, { ends: true }),
  row01(0, 1, "vmcall", callHypervisor),
  row01(3, 1, "vmmcall", callHypervisor),
  row01(3, 1, "vmgexit", callHypervisor, { prefix: "f3" }),
  row01(3, 1, "vmgexit", callHypervisor, { prefix: "f2" }),
  row01(1, 0, "monitor", wait(EXIT_CODE.MONITOR)),
  row01(1, 1, "mwait", wait(EXIT_CODE.MWAIT)),
  row01(2, 0, "xgetbv", readXcr),
  row01(2, 1, "xsetbv", writeXcr),
  row01(5, 6, "rdpkru", readKeys),
  row01(5, 7, "wrpkru", writeKeys),
  row01(7, 0, "swapgs", swapGs, { only64: true }),
  row01(7, 1, "rdtscp", readTscAndProcessor),
];
