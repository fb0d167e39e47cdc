/**
 * Registers that are the processor's own state.
 *
 * @module
 */
import { CR0_DEFINED, CR4_DEFINED, EFER_DEFINED } from "../../cpu/control_bits.ts";
import { CpuState, CR0_PE, CR0_PG, FLAG_ONE, FLAGS_DEFINED, FX } from "../../cpu/state.ts";
import { HvStatus } from "../../layout/hyperv/constants/hypercalls.ts";
import { GPR_NAMES, SEGMENT_NAMES } from "../../layout/x64/names.ts";
import { APIC_REGISTER, X2APIC_MSR_BASE } from "../apic/registers.ts";
import { ATTENTION } from "../attention.ts";
import { readTsc, writeTsc } from "../msrs.ts";
import {
  bytes16,
  computed64,
  type Register,
  type RegisterContext,
  type RegisterName,
  validity,
  word64,
} from "./register.ts";

const at = CpuState.at;
const { Success, AccessDenied } = HvStatus.values;

/** XMM and MMX/ST registers in the FXSAVE image. */
const FX_ST = FX + 32;
const FX_XMM = FX + 160;
/** CR0.NW without CR0.CD is a combination that faults. */
const CR0_CD_BIT = 1n << 30n;
const CR0_NW_BIT = 1n << 29n;
/** Physical address bits of CR3 and MTRRs beyond which bits are reserved. */
const PHYSICAL_BITS = 48n;
/** XCR0: x87, which must be set, and SSE. */
const XCR0_X87 = 1n;
const XCR0_SUPPORTED = 3n;
/** Memory types that a PAT entry can name: UC, WC, WT, WP, WB, UC-. */
const PAT_TYPES = [0, 1, 4, 5, 6, 7];
/** Memory types that an MTRR can name: all but UC-. */
const MTRR_TYPES = [0, 1, 4, 5, 6];
/** MTRRdefType: type, fixed enable, enable. */
const MTRR_DEF_TYPE_BITS = 0xcffn;
/** MTRRcap: 8 variable ranges, fixed ranges, write-combining. */
const MTRR_CAP_VALUE = 0x508n;
/** Number of fixed-range MTRRs. */
const FIXED_MTRRS: readonly RegisterName[] = [
  "MsrMtrrFix64k00000",
  "MsrMtrrFix16k80000",
  "MsrMtrrFix16kA0000",
  "MsrMtrrFix4kC0000",
  "MsrMtrrFix4kC8000",
  "MsrMtrrFix4kD0000",
  "MsrMtrrFix4kD8000",
  "MsrMtrrFix4kE0000",
  "MsrMtrrFix4kE8000",
  "MsrMtrrFix4kF0000",
  "MsrMtrrFix4kF8000",
];
/** Number of variable-range MTRRs. */
const VARIABLE_MTRRS = 8;

const any = () => true;
const below = (bits: bigint) => (value: bigint) => value >> bits === 0n;
const only = (mask: number) => (value: bigint) => (value & ~BigInt(mask >>> 0)) === 0n;
const canonical = (value: bigint) => BigInt.asUintN(64, BigInt.asIntN(48, value)) === value;

/** The name with a capital first letter, as the TLFS writes it. */
function capital(name: string): RegisterName {
  return (name[0].toUpperCase() + name.slice(1)) as RegisterName;
}

/** A 64-bit field of the CPU state. */
function field(
  name: RegisterName,
  vtls: Register["vtls"],
  offset: number,
  valid: (value: bigint) => boolean,
  after?: (context: RegisterContext, value: bigint) => void,
): Register {
  return word64(name, vtls, (context) => context.cpu + offset, valid, after);
}

/** Translations depend on the register: the processor drops the ones it remembers. */
function flush(context: RegisterContext): void {
  context.facilities.signal(context.vp, ATTENTION.FLUSH_TLB);
}

/** Whether a CR0 value can be loaded: no undefined bit, no paging without protection, no NW without CD. */
function validCr0(value: bigint): boolean {
  if (!only(CR0_DEFINED)(value)) return false;
  if ((value & BigInt(CR0_PG >>> 0)) !== 0n && (value & BigInt(CR0_PE)) === 0n) return false;
  return (value & CR0_NW_BIT) === 0n || (value & CR0_CD_BIT) !== 0n;
}

/** Whether every byte of a value is one of the memory types. */
function memoryTypes(types: readonly number[]): (value: bigint) => boolean {
  return (value) => {
    for (let k = 0n; k < 64n; k += 8n) if (!types.includes(Number(value >> k & 0xffn))) return false;
    return true;
  };
}

/** Whether a value is a variable-range MTRR's base: type, page number. */
function validMtrrBase(value: bigint): boolean {
  return below(PHYSICAL_BITS)(value) && (value & 0xf00n) === 0n && MTRR_TYPES.includes(Number(value & 0xffn));
}

/** Whether a value is a variable-range MTRR's mask: valid bit, page number. */
function validMtrrMask(value: bigint): boolean {
  return below(PHYSICAL_BITS)(value) && (value & 0x7ffn) === 0n;
}

/** Whether a value is MTRRdefType: a type and the enables. */
function validMtrrDefType(value: bigint): boolean {
  return (value & ~MTRR_DEF_TYPE_BITS) === 0n && MTRR_TYPES.includes(Number(value & 0xffn));
}

const gprs = GPR_NAMES.map((name, k) => field(capital(name), name === "rsp" ? "vtl0" : "all", at.gpr + k * 8, any));
const segments = [...SEGMENT_NAMES, "ldtr", "tr"].map((name, k) =>
  bytes16(capital(name), "vtl0", (context) => context.cpu + at.es + k * 16)
);
const xmm = Array.from(
  { length: 16 },
  (_, k) => bytes16(`Xmm${k}` as RegisterName, "all", (context) => context.cpu + FX_XMM + k * 16),
);
const mmx = Array.from(
  { length: 8 },
  (_, k) => bytes16(`FpMmx${k}` as RegisterName, "all", (context) => context.cpu + FX_ST + k * 16),
);
const debug = [0, 1, 2, 3].map((k) => field(`Dr${k}` as RegisterName, "all", at.dr0 + k * 8, any));
const fixed = FIXED_MTRRS.map((name, k) => field(name, "all", at.mtrr_fixed + k * 8, memoryTypes(MTRR_TYPES)));
const variable = Array.from({ length: VARIABLE_MTRRS }, (_, k) => [
  field(`MsrMtrrPhysBase${k}` as RegisterName, "all", at.mtrr_variable + k * 16, validMtrrBase),
  field(`MsrMtrrPhysMask${k}` as RegisterName, "all", at.mtrr_variable + k * 16 + 8, validMtrrMask),
]).flat();

/** The time-stamp counter. */
const tsc = computed64("Tsc", "vtl0", ({ facilities, vp }) => readTsc(facilities, vp), ({ facilities, vp }, value) => {
  writeTsc(facilities, vp, value);
  return Success;
});

/** CR8, which is the APIC's TPR too. */
const cr8 = word64("Cr8", "vtl0", (context) => context.cpu + at.cr8, below(4n), (context) => {
  const { facilities, vp } = context;
  facilities.apic(vp).cr8Written(facilities.cr8(vp));
  context.facilities.signal(context.vp, ATTENTION.VTL0_INTERRUPT);
});

/** APIC_BASE, which the local APIC holds. */
const apicBase = computed64("ApicBase", "vtl0", (context) => {
  const apic = context.facilities.apic(context.vp);
  apic.readBase();
  return BigInt(apic.hi) << 32n | BigInt(apic.lo >>> 0);
}, (context, value) => {
  const [lo, hi] = [Number(BigInt.asIntN(32, value)), Number(BigInt.asIntN(32, value >> 32n))];
  return validity(context.facilities.apic(context.vp).writeBase(lo, hi));
});

/** Registers of the local APIC that no one writes. */
const APIC_READ_ONLY: readonly number[] = [
  APIC_REGISTER.ID,
  APIC_REGISTER.VERSION,
  APIC_REGISTER.PPR,
  APIC_REGISTER.TIMER_CCR,
];

/** A register of the local APIC, by the number that its name adds to 0x84800. */
function apicRegister(name: RegisterName, number: number): Register {
  return computed64(
    name,
    "vtl0",
    (context) => {
      const apic = context.facilities.apic(context.vp);
      const low = BigInt(apic.readRegister(number));
      return number === APIC_REGISTER.ICR0 ? BigInt(apic.readRegister(APIC_REGISTER.ICR1)) << 32n | low : low;
    },
    (context, value) => {
      const apic = context.facilities.apic(context.vp);
      const vectors = number >= APIC_REGISTER.ISR0 && number < APIC_REGISTER.ESR;
      if (vectors || APIC_READ_ONLY.includes(number)) return AccessDenied;
      const [lo, hi] = [Number(BigInt.asIntN(32, value)), Number(BigInt.asIntN(32, value >> 32n))];
      if (apic.x2apic) {
        if (number === APIC_REGISTER.LDR) return AccessDenied;
        return validity(apic.writeMsr(X2APIC_MSR_BASE + number, lo, hi));
      }
      if (number === APIC_REGISTER.ICR0) apic.writeRegister(APIC_REGISTER.ICR1, hi);
      else if (hi !== 0) return validity(false);
      apic.writeRegister(number, lo);
      return Success;
    },
  );
}

const apicVectors = (["Isr", "Tmr", "Irr"] as const).flatMap((bank, k) =>
  Array.from(
    { length: 8 },
    (_, word) => apicRegister(`Apic${bank}${word}` as RegisterName, APIC_REGISTER.ISR0 + k * 8 + word),
  )
);

/** Registers that are the processor's own state. */
export const CPU_REGISTERS: readonly Register[] = [
  ...gprs,
  ...segments,
  ...xmm,
  ...mmx,
  ...debug,
  ...fixed,
  ...variable,
  ...apicVectors,
  tsc,
  cr8,
  apicBase,
  field("Rip", "vtl0", at.rip, any),
  word64("Rflags", "vtl0", (context) => context.cpu + at.rflags, only(FLAGS_DEFINED | FLAG_ONE), (context) => {
    context.memory.u64[(context.cpu + at.rflags) >>> 3] |= BigInt(FLAG_ONE);
  }),
  bytes16("FpControlStatus", "all", (context) => context.cpu + FX),
  bytes16("XmmControlStatus", "all", (context) => context.cpu + FX + 16),
  bytes16(
    "Idtr",
    "vtl0",
    (context) => context.cpu + at.idtr,
    (view, place) => canonical(view.getBigUint64(place + 8, true)),
  ),
  bytes16(
    "Gdtr",
    "vtl0",
    (context) => context.cpu + at.gdtr,
    (view, place) => canonical(view.getBigUint64(place + 8, true)),
  ),
  field("Cr0", "vtl0", at.cr0, validCr0, flush),
  field("Cr2", "all", at.cr2, any),
  field("Cr3", "vtl0", at.cr3, below(PHYSICAL_BITS), flush),
  field("Cr4", "vtl0", at.cr4, only(CR4_DEFINED), flush),
  field("Xfem", "all", at.xcr0, (value) => (value & XCR0_X87) !== 0n && (value & ~XCR0_SUPPORTED) === 0n),
  field("Dr6", "vtl0", at.dr6, below(32n)),
  field("Dr7", "vtl0", at.dr7, below(32n)),
  field("Efer", "vtl0", at.efer, only(EFER_DEFINED), flush),
  field("KernelGsBase", "vtl0", at.kernel_gs_base, canonical),
  field("Pat", "vtl0", at.pat, memoryTypes(PAT_TYPES)),
  field("SysenterCs", "vtl0", at.sysenter_cs, any),
  field("SysenterEip", "vtl0", at.sysenter_eip, canonical),
  field("SysenterEsp", "vtl0", at.sysenter_esp, canonical),
  field("Star", "vtl0", at.star, any),
  field("Lstar", "vtl0", at.lstar, canonical),
  field("Cstar", "vtl0", at.cstar, canonical),
  field("Sfmask", "vtl0", at.sfmask, any),
  field("TscAux", "vtl0", at.tsc_aux, below(32n)),
  field("TscVirtualOffset", "vtl0", at.tsc_offset, any),
  field("MsrMtrrDefType", "all", at.mtrr_def_type, validMtrrDefType),
  computed64("MsrMtrrCap", "all", () => MTRR_CAP_VALUE),
  computed64("InitialApicId", "vtl0", (context) => BigInt(context.facilities.apic(context.vp).id)),
  apicRegister("ApicId", APIC_REGISTER.ID),
  apicRegister("ApicVersion", APIC_REGISTER.VERSION),
  apicRegister("ApicTpr", APIC_REGISTER.TPR),
  apicRegister("ApicPpr", APIC_REGISTER.PPR),
  apicRegister("ApicEoi", APIC_REGISTER.EOI),
  apicRegister("ApicLdr", APIC_REGISTER.LDR),
  apicRegister("ApicSpurious", APIC_REGISTER.SVR),
  apicRegister("ApicEse", APIC_REGISTER.ESR),
  apicRegister("ApicIcr", APIC_REGISTER.ICR0),
  apicRegister("ApicLvtTimer", APIC_REGISTER.LVT_TIMER),
  apicRegister("ApicLvtThermal", APIC_REGISTER.LVT_THERMAL),
  apicRegister("ApicLvtPerfmon", APIC_REGISTER.LVT_PMC),
  apicRegister("ApicLvtLint0", APIC_REGISTER.LVT_LINT0),
  apicRegister("ApicLvtLint1", APIC_REGISTER.LVT_LINT1),
  apicRegister("ApicLvtError", APIC_REGISTER.LVT_ERROR),
  apicRegister("ApicInitCount", APIC_REGISTER.TIMER_ICR),
  apicRegister("ApicCurrentCount", APIC_REGISTER.TIMER_CCR),
  apicRegister("ApicDivide", APIC_REGISTER.TIMER_DCR),
  apicRegister("ApicSelfIpi", APIC_REGISTER.SELF_IPI),
];
