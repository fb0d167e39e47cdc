/**
 * RDMSR and WRMSR. Registers that are part of the processor's state are handled here; the rest is the bus's, which may
 * also claim any of these (AMD64 Architecture Programmer's Manual volume 2, appendix A).
 *
 * @module
 */
import { writeEfer } from "../control_registers.ts";
import type { Cpu } from "../cpu.ts";
import { VECTOR_GP } from "../faults.ts";
import { type Exec, type OpcodeRow, row } from "../insn.ts";
import { baseWord, isCanonical } from "../segments.ts";
import { CpuState, FS, GS, RAX, RCX, RDX, STOP_EXIT } from "../state.ts";
import { requirePrivilege, writeRegister } from "./system_operand.ts";

const at = CpuState.at;

/** MSR numbers. */
const MSR_TSC = 0x10;
const MSR_APIC_BASE = 0x1b;
const MSR_MTRR_CAP = 0xfe;
const MSR_SYSENTER_CS = 0x174;
const MSR_SYSENTER_ESP = 0x175;
const MSR_SYSENTER_EIP = 0x176;
const MSR_MTRR_VARIABLE_FIRST = 0x200;
const MSR_MTRR_VARIABLE_LAST = 0x20f;
const MSR_PAT = 0x277;
const MSR_MTRR_DEF_TYPE = 0x2ff;
const MSR_EFER = 0xc000_0080;
const MSR_STAR = 0xc000_0081;
const MSR_LSTAR = 0xc000_0082;
const MSR_CSTAR = 0xc000_0083;
const MSR_SFMASK = 0xc000_0084;
const MSR_FS_BASE = 0xc000_0100;
const MSR_GS_BASE = 0xc000_0101;
const MSR_KERNEL_GS_BASE = 0xc000_0102;
const MSR_TSC_AUX = 0xc000_0103;

/** Fixed-range MTRRs in the order of the state. */
const MTRR_FIXED = [0x250, 0x258, 0x259, 0x268, 0x269, 0x26a, 0x26b, 0x26c, 0x26d, 0x26e, 0x26f];
/** MTRRCAP: eight variable ranges, fixed ranges, write combining. */
const MTRR_CAP_VALUE = 0x508;
/** MTRRdefType: bits that are neither the type, the enables, ... */
const MTRR_DEF_TYPE_RESERVED = ~0xcff;
/** Memory types that PAT and MTRR entries may hold: UC, WC, WT, WP, WB, and UC- in PAT. */
const PAT_TYPES = 0b1111_0011;
const MTRR_TYPES = 0b0111_0011;
/** Highest number of a memory type. */
const MEMORY_TYPE_MAX = 7;
/** Reserved bits of a variable MTRR's base (low half), of its mask, and of both (high half). */
const MTRR_BASE_RESERVED = 0xf00;
const MTRR_MASK_RESERVED = 0x7ff;
const MTRR_RESERVED_HIGH = 0xffff_0000 | 0;
/** APIC_BASE: bits that are neither BSP, x2APIC enable, enable nor the page number. */
const APIC_BASE_RESERVED = 0x2ff;

/** What a 64-bit register of the state accepts. */
type Accepts = (lo: number, hi: number) => boolean;

const anything: Accepts = () => true;
const canonical: Accepts = (_lo, hi) => isCanonical(hi);
const word32: Accepts = (_lo, hi) => hi === 0;

/** Whether each byte of a value is a memory type of the set `types`. */
function memoryTypes(value: number, types: number): boolean {
  for (let shift = 0; shift < 32; shift += 8) {
    const type = (value >>> shift) & 0xff;
    if (type > MEMORY_TYPE_MAX || (types & (1 << type)) === 0) return false;
  }
  return true;
}

/** A register of the state: its first 32-bit word, what may be written, whether the mode fields depend on it. */
interface StateMsr {
  readonly word: number;
  readonly accepts: Accepts;
  readonly mode?: boolean;
}

const STATE_MSRS: ReadonlyMap<number, StateMsr> = new Map<number, StateMsr>([
  [MSR_APIC_BASE, {
    word: at.apic_base >>> 2,
    accepts: (lo, hi) => (lo & APIC_BASE_RESERVED) === 0 && hi >>> 16 === 0,
  }],
  [MSR_SYSENTER_CS, { word: at.sysenter_cs >>> 2, accepts: anything }],
  [MSR_SYSENTER_ESP, { word: at.sysenter_esp >>> 2, accepts: canonical }],
  [MSR_SYSENTER_EIP, { word: at.sysenter_eip >>> 2, accepts: canonical }],
  [MSR_PAT, { word: at.pat >>> 2, accepts: (lo, hi) => memoryTypes(lo, PAT_TYPES) && memoryTypes(hi, PAT_TYPES) }],
  [MSR_STAR, { word: at.star >>> 2, accepts: anything }],
  [MSR_LSTAR, { word: at.lstar >>> 2, accepts: canonical }],
  [MSR_CSTAR, { word: at.cstar >>> 2, accepts: canonical }],
  [MSR_SFMASK, { word: at.sfmask >>> 2, accepts: anything }],
  [MSR_FS_BASE, { word: baseWord(FS), accepts: canonical, mode: true }],
  [MSR_GS_BASE, { word: baseWord(GS), accepts: canonical, mode: true }],
  [MSR_KERNEL_GS_BASE, { word: at.kernel_gs_base >>> 2, accepts: canonical }],
  [MSR_TSC_AUX, { word: at.tsc_aux >>> 2, accepts: word32 }],
  [MSR_MTRR_DEF_TYPE, {
    word: at.mtrr_def_type >>> 2,
    accepts: (lo, hi) => hi === 0 && (lo & MTRR_DEF_TYPE_RESERVED) === 0 && memoryTypes(lo & 0xff, MTRR_TYPES),
  }],
  ...MTRR_FIXED.map((msr, n): [number, StateMsr] => [msr, {
    word: (at.mtrr_fixed >>> 2) + 2 * n,
    accepts: (lo, hi) => memoryTypes(lo, MTRR_TYPES) && memoryTypes(hi, MTRR_TYPES),
  }]),
  ...Array.from({ length: MSR_MTRR_VARIABLE_LAST - MSR_MTRR_VARIABLE_FIRST + 1 }, (_, n): [number, StateMsr] => [
    MSR_MTRR_VARIABLE_FIRST + n,
    {
      word: (at.mtrr_variable >>> 2) + 2 * n,
      accepts: (n & 1) === 0
        ? (lo, hi) =>
          (lo & MTRR_BASE_RESERVED) === 0 && (hi & MTRR_RESERVED_HIGH) === 0 && memoryTypes(lo & 0xff, MTRR_TYPES)
        : (lo, hi) => (lo & MTRR_MASK_RESERVED) === 0 && (hi & MTRR_RESERVED_HIGH) === 0,
    },
  ]),
]);

const EFER = at.efer >>> 2;
const TSC_OFFSET = at.tsc_offset >>> 3;

/** Reads an MSR that the processor itself has into `v64[0]`; false when it has no such register. */
export function readOwnMsr(cpu: Cpu, msr: number): boolean {
  const own = STATE_MSRS.get(msr);
  if (own !== undefined) {
    cpu.v32[0] = cpu.s32[own.word];
    cpu.v32[1] = cpu.s32[own.word + 1];
    return true;
  }
  switch (msr) {
    case MSR_EFER:
      cpu.v32[0] = cpu.s32[EFER];
      cpu.v32[1] = cpu.s32[EFER + 1];
      return true;
    case MSR_TSC:
      cpu.bus.tsc(cpu);
      cpu.v64[0] += cpu.s64[TSC_OFFSET];
      return true;
    case MSR_MTRR_CAP:
      cpu.v32[0] = MTRR_CAP_VALUE;
      cpu.v32[1] = 0;
      return true;
    default:
      return false;
  }
}

/** Whether the processor itself has this MSR. */
export function hasOwnMsr(msr: number): boolean {
  return STATE_MSRS.has(msr) || msr === MSR_EFER || msr === MSR_TSC || msr === MSR_MTRR_CAP;
}

/** Writes lo:hi to an MSR that the processor itself has; false when the value is refused. */
export function writeOwnMsr(cpu: Cpu, msr: number, lo: number, hi: number): boolean {
  const own = STATE_MSRS.get(msr);
  if (own !== undefined) {
    if (!own.accepts(lo, hi)) return false;
    cpu.s32[own.word] = lo;
    cpu.s32[own.word + 1] = hi;
    if (own.mode === true) cpu.updateMode();
    return true;
  }
  switch (msr) {
    case MSR_EFER:
      return writeEfer(cpu, lo, hi);
    case MSR_TSC: {
      cpu.v32[2] = lo;
      cpu.v32[3] = hi;
      cpu.bus.tsc(cpu);
      cpu.s64[TSC_OFFSET] = BigInt.asUintN(64, cpu.v64[1] - cpu.v64[0]);
      return true;
    }
    default:
      return false; // MTRRCAP is read-only
  }
}

/** RDMSR. */
const readMsr: Exec = (cpu) => {
  requirePrivilege(cpu);
  const msr = cpu.g32[RCX * 2] >>> 0;
  const own = hasOwnMsr(msr) && !cpu.bus.interceptsMsr(msr);
  const known = own ? readOwnMsr(cpu, msr) : cpu.bus.rdmsr(cpu, msr);
  if ((cpu.stop & STOP_EXIT) !== 0) return;
  if (!known) cpu.raise(VECTOR_GP, 0);
  const hi = cpu.v32[1];
  writeRegister(cpu, RAX, 4, cpu.v32[0], 0);
  writeRegister(cpu, RDX, 4, hi, 0);
};

/** WRMSR. */
const writeMsr: Exec = (cpu) => {
  requirePrivilege(cpu);
  const msr = cpu.g32[RCX * 2] >>> 0;
  const lo = cpu.g32[RAX * 2];
  const hi = cpu.g32[RDX * 2];
  let done: boolean;
  if (hasOwnMsr(msr) && !cpu.bus.interceptsMsr(msr)) {
    done = writeOwnMsr(cpu, msr, lo, hi);
  } else {
    cpu.v32[0] = lo;
    cpu.v32[1] = hi;
    done = cpu.bus.wrmsr(cpu, msr);
    if ((cpu.stop & STOP_EXIT) !== 0) return;
  }
  if (!done) cpu.raise(VECTOR_GP, 0);
};

/** The opcode rows of this file. */
export const rows: readonly OpcodeRow[] = [
  row("0f", 0x30, "wrmsr", "", writeMsr, { ends: true }),
  row("0f", 0x32, "rdmsr", "", readMsr, { ends: true }),
];
