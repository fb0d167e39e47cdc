/**
 * The MSRs that the hypervisor answers itself (openhcl.md h, "What leaves VTL0") and that are no plain state of the
 * processor: APIC_BASE, the x2APIC, the TSC, MTRRcap, MCG_CAP and MCG_STATUS, and the synthetic MSRs of the TLFS.
 *
 * The processor answers SYSENTER_*, PAT, MTRRs, EFER, STAR, LSTAR, CSTAR, SFMASK, the FS, GS and KERNEL_GS bases and
 * TSC_AUX from its own state. Everything that is in neither list, the crash MSRs 0x40000100 to 0x40000105 among them, is
 * "intercept": it leaves to VTL2, or is a #GP where there is none.
 *
 * @module
 */
import { CpuState } from "../cpu/state.ts";
import { HV_X64_MSR, X86_MSR } from "../layout/hyperv/constants/msrs.ts";
import { HvRegisterVpAssistPage, MsrHypercallContents } from "../layout/hyperv/registers.ts";
import { HvRegisterReferenceTsc } from "../layout/hyperv/synic.ts";
import { APIC_FREQUENCY } from "./apic/timer.ts";
import { APIC_REGISTER, X2APIC_MSR_BASE, X2APIC_MSR_LAST } from "./apic/registers.ts";
import { type Facilities, FacilityState, OVERLAY_SLOT } from "./facilities.ts";
import { writeHypercallPage, writeReferenceTscPage } from "./hypercall_page.ts";
import { PartitionState } from "./partition.ts";
import { SINTS, SYNIC_VERSION } from "./synic.ts";
import { STIMERS } from "./synthetic_timers.ts";
import { referenceTime, TSC_FREQUENCY } from "./time.ts";

/** What became of an RDMSR or WRMSR; "fault" is #GP(0). */
export type MsrOutcome = "handled" | "fault" | "intercept";

/** Where an MSR's value is passed: 64 bits in `v64[0]`, its halves in `v32[0]` and `v32[1]`. A `Cpu` is one. */
export interface MsrValue {
  /** The value. */
  readonly v64: BigUint64Array;
  /** The same bytes as 32-bit halves. */
  readonly v32: Int32Array;
}

/** MTRRcap: 8 variable ranges, fixed ranges, write-combining. */
const MTRR_CAP_VALUE = 0x508n;
/** MCG_CAP: no banks. */
const MCG_CAP_VALUE = 0n;
/** Bits of MCG_STATUS that exist: RIPV, EIPV, MCIP. */
const MCG_STATUS_WRITABLE = 7n;
/** Guest page numbers that an overlay can have: 44 bits of guest-physical address. */
const OVERLAY_GPNS = 0x1_0000_0000n;

const partitionState = PartitionState.at;

/** RDMSR by VTL0 of `vp`; a "handled" value is in `out`. */
export function readMsr(facilities: Facilities, vp: number, msr: number, out: MsrValue): MsrOutcome {
  const apic = facilities.apic(vp);
  if (msr >= X2APIC_MSR_BASE && msr <= X2APIC_MSR_LAST) {
    if (!apic.readMsr(msr)) return "fault";
    out.v32[0] = apic.lo;
    out.v32[1] = apic.hi;
    return "handled";
  }
  const value = msr >= HV_X64_MSR.GUEST_OS_ID
    ? readSynthetic(facilities, vp, msr)
    : readArchitectural(facilities, vp, msr);
  if (typeof value === "string") return value;
  out.v64[0] = value;
  return "handled";
}

/** WRMSR of `value.v64[0]` by VTL0 of `vp`. */
export function writeMsr(facilities: Facilities, vp: number, msr: number, value: MsrValue): MsrOutcome {
  const apic = facilities.apic(vp);
  if (msr >= X2APIC_MSR_BASE && msr <= X2APIC_MSR_LAST) {
    return apic.writeMsr(msr, value.v32[0], value.v32[1]) ? "handled" : "fault";
  }
  return msr >= HV_X64_MSR.GUEST_OS_ID
    ? writeSynthetic(facilities, vp, msr, value.v64[0])
    : writeArchitectural(facilities, vp, msr, value.v64[0]);
}

// --- Architectural MSRs -----------------------------------------------------------------------------------------------

function readArchitectural(facilities: Facilities, vp: number, msr: number): bigint | MsrOutcome {
  const { memory } = facilities.partition;
  switch (msr) {
    case X86_MSR.X86X_MSR_TSC:
      return readTsc(facilities, vp);
    case X86_MSR.X86X_MSR_APIC_BASE: {
      const apic = facilities.apic(vp);
      apic.readBase();
      return BigInt(apic.hi) << 32n | BigInt(apic.lo >>> 0);
    }
    case X86_MSR.X86X_MSR_MTRR_CAP:
      return MTRR_CAP_VALUE;
    case X86_MSR.X86X_MSR_MCG_CAP:
      return MCG_CAP_VALUE;
    case X86_MSR.X86X_MSR_MCG_STATUS:
      return memory.u64[(facilities.state(vp) + FacilityState.at.mcg_status) >>> 3];
    default:
      return "intercept";
  }
}

function writeArchitectural(facilities: Facilities, vp: number, msr: number, value: bigint): MsrOutcome {
  const { memory } = facilities.partition;
  switch (msr) {
    case X86_MSR.X86X_MSR_TSC:
      writeTsc(facilities, vp, value);
      return "handled";
    case X86_MSR.X86X_MSR_APIC_BASE: {
      const apic = facilities.apic(vp);
      const written = apic.writeBase(Number(BigInt.asIntN(32, value)), Number(BigInt.asIntN(32, value >> 32n)));
      if (!written) return "fault";
      facilities.partition.flushTlbs(facilities.port); // the MMIO page has moved, come or gone
      return "handled";
    }
    case X86_MSR.X86X_MSR_MCG_STATUS:
      if ((value & ~MCG_STATUS_WRITABLE) !== 0n) return "fault";
      memory.u64[(facilities.state(vp) + FacilityState.at.mcg_status) >>> 3] = value;
      return "handled";
    case X86_MSR.X86X_MSR_MTRR_CAP:
    case X86_MSR.X86X_MSR_MCG_CAP:
      return "fault";
    default:
      return "intercept";
  }
}

// --- Synthetic MSRs ---------------------------------------------------------------------------------------------------

/** Number of the timer whose CONFIG or COUNT `msr` is, or -1. */
function timerOf(msr: number): number {
  const index = msr - HV_X64_MSR.STIMER0_CONFIG;
  return index >= 0 && index < STIMERS * 2 ? index >>> 1 : -1;
}

/** Number of the SINT that `msr` is, or -1. */
function sintOf(msr: number): number {
  const index = msr - HV_X64_MSR.SINT0;
  return index >= 0 && index < SINTS ? index : -1;
}

function readSynthetic(facilities: Facilities, vp: number, msr: number): bigint | MsrOutcome {
  const { partition } = facilities;
  const { u64 } = partition.memory;
  const synic = facilities.synic(vp, 0);
  const timer = timerOf(msr);
  if (timer >= 0) {
    const timers = facilities.timers(vp);
    return (msr & 1) === 0 ? timers.config(timer) : timers.count(timer);
  }
  const sint = sintOf(msr);
  if (sint >= 0) return synic.sint(sint);
  switch (msr) {
    case HV_X64_MSR.GUEST_OS_ID:
      return u64[(partition.state + partitionState.guest_os_id) >>> 3];
    case HV_X64_MSR.HYPERCALL:
      return u64[(partition.state + partitionState.hypercall_msr) >>> 3];
    case HV_X64_MSR.VP_INDEX:
      return BigInt(vp);
    case HV_X64_MSR.VP_RUNTIME: // a VP is never descheduled for another: it has run since the machine started
    case HV_X64_MSR.TIME_REF_COUNT:
      return BigInt(referenceTime(facilities.now()));
    case HV_X64_MSR.REFERENCE_TSC:
      return u64[(partition.state + partitionState.reference_tsc) >>> 3];
    case HV_X64_MSR.TSC_FREQUENCY:
      return BigInt(TSC_FREQUENCY);
    case HV_X64_MSR.APIC_FREQUENCY:
      return BigInt(APIC_FREQUENCY);
    case HV_X64_MSR.ICR: {
      const apic = facilities.apic(vp);
      return BigInt(apic.readRegister(APIC_REGISTER.ICR1)) << 32n | BigInt(apic.readRegister(APIC_REGISTER.ICR0));
    }
    case HV_X64_MSR.TPR:
      return BigInt(facilities.apic(vp).readRegister(APIC_REGISTER.TPR));
    case HV_X64_MSR.VP_ASSIST_PAGE:
      return u64[(facilities.state(vp) + FacilityState.at.assist_page) >>> 3];
    case HV_X64_MSR.SCONTROL:
      return synic.scontrol;
    case HV_X64_MSR.SVERSION:
      return BigInt(SYNIC_VERSION);
    case HV_X64_MSR.SIEFP:
      return synic.siefp;
    case HV_X64_MSR.SIMP:
      return synic.simp;
    case HV_X64_MSR.RESET:
    case HV_X64_MSR.EOM:
    case HV_X64_MSR.SIRBP:
      return 0n;
    case HV_X64_MSR.EOI:
    case HV_X64_MSR.GUEST_IDLE: // CPUID does not grant AccessGuestIdleMsr
      return "fault";
    default:
      return "intercept";
  }
}

function writeSynthetic(facilities: Facilities, vp: number, msr: number, value: bigint): MsrOutcome {
  const synic = facilities.synic(vp, 0);
  const timer = timerOf(msr);
  if (timer >= 0) {
    const timers = facilities.timers(vp);
    const now = facilities.now();
    if ((msr & 1) === 0 && !timers.setConfig(timer, value, now)) return "fault";
    if ((msr & 1) === 1) timers.setCount(timer, value, now);
    return "handled";
  }
  const sint = sintOf(msr);
  if (sint >= 0) return synic.setSint(sint, value) ? "handled" : "fault";
  switch (msr) {
    case HV_X64_MSR.GUEST_OS_ID:
      setGuestOsId(facilities, value);
      return "handled";
    case HV_X64_MSR.HYPERCALL:
      return setHypercallPage(facilities, value) ? "handled" : "fault";
    case HV_X64_MSR.REFERENCE_TSC:
      return setReferenceTsc(facilities, value) ? "handled" : "fault";
    case HV_X64_MSR.VP_ASSIST_PAGE:
      return setAssistPage(facilities, vp, value) ? "handled" : "fault";
    case HV_X64_MSR.EOI:
      facilities.apic(vp).eoi();
      return "handled";
    case HV_X64_MSR.ICR: {
      const apic = facilities.apic(vp);
      const [lo, hi] = [Number(BigInt.asIntN(32, value)), Number(BigInt.asIntN(32, value >> 32n))];
      if (apic.x2apic) return apic.writeMsr(X2APIC_MSR_BASE + APIC_REGISTER.ICR0, lo, hi) ? "handled" : "fault";
      apic.writeRegister(APIC_REGISTER.ICR1, hi);
      apic.writeRegister(APIC_REGISTER.ICR0, lo);
      return "handled";
    }
    case HV_X64_MSR.TPR:
      if (value > 0xffn) return "fault";
      facilities.apic(vp).writeRegister(APIC_REGISTER.TPR, Number(value));
      return "handled";
    case HV_X64_MSR.SCONTROL:
      synic.scontrol = value;
      return "handled";
    case HV_X64_MSR.SIMP:
    case HV_X64_MSR.SIEFP:
      if (value >> 12n >= OVERLAY_GPNS) return "fault";
      if (msr === HV_X64_MSR.SIMP) synic.simp = value;
      else synic.siefp = value;
      return "handled";
    case HV_X64_MSR.EOM:
      synic.eom();
      return "handled";
    case HV_X64_MSR.RESET: // refused: CPUID does not grant AccessResetMsr
    case HV_X64_MSR.VP_INDEX:
    case HV_X64_MSR.VP_RUNTIME:
    case HV_X64_MSR.TIME_REF_COUNT:
    case HV_X64_MSR.TSC_FREQUENCY:
    case HV_X64_MSR.APIC_FREQUENCY:
    case HV_X64_MSR.SVERSION:
    case HV_X64_MSR.SIRBP:
    case HV_X64_MSR.GUEST_IDLE:
      return "fault";
    default:
      return "intercept";
  }
}

// --- Pages ------------------------------------------------------------------------------------------------------------

/** Writes the guest's identity; without one there is no hypercall page. */
export function setGuestOsId(facilities: Facilities, value: bigint): void {
  const { partition } = facilities;
  partition.memory.u64[(partition.state + partitionState.guest_os_id) >>> 3] = value;
  if (value !== 0n) return;
  const at = (partition.state + partitionState.hypercall_msr) >>> 3;
  partition.memory.u64[at] = partition.memory.u64[at] & ~MsrHypercallContents.mask.enable;
  mapOverlay(facilities, 0, OVERLAY_SLOT.HYPERCALL, false, 0n);
}

/**
 * Writes HV_X64_MSR_HYPERCALL. False, for #GP, when the page lies beyond the address space. The page is not enabled
 * before the guest has told its identity, and a locked register keeps what it holds.
 */
export function setHypercallPage(facilities: Facilities, value: bigint): boolean {
  const { partition } = facilities;
  const { memory } = partition;
  const at = (partition.state + partitionState.hypercall_msr) >>> 3;
  if ((memory.u64[at] & MsrHypercallContents.mask.locked) !== 0n) return true;
  const gpn = value >> 12n;
  if (gpn >= OVERLAY_GPNS) return false;
  const identified = memory.u64[(partition.state + partitionState.guest_os_id) >>> 3] !== 0n;
  const enable = identified && (value & MsrHypercallContents.mask.enable) !== 0n;
  memory.u64[at] = enable ? value : value & ~MsrHypercallContents.mask.enable;
  const contents = mapOverlay(facilities, 0, OVERLAY_SLOT.HYPERCALL, enable, gpn);
  if (enable) writeHypercallPage(memory.u8, contents);
  return true;
}

/** Writes HV_X64_MSR_REFERENCE_TSC; false, for #GP, when the page lies beyond the address space. */
export function setReferenceTsc(facilities: Facilities, value: bigint): boolean {
  const { partition } = facilities;
  const gpn = value >> 12n;
  if (gpn >= OVERLAY_GPNS) return false;
  const enable = (value & HvRegisterReferenceTsc.mask.enable) !== 0n;
  partition.memory.u64[(partition.state + partitionState.reference_tsc) >>> 3] = value;
  const contents = mapOverlay(facilities, 0, OVERLAY_SLOT.REFERENCE_TSC, enable, gpn);
  if (enable) writeReferenceTscPage(partition.memory.view, contents, !anyTscWritten(facilities));
  return true;
}

/** Writes VTL0's HV_X64_MSR_VP_ASSIST_PAGE of a VP; false, for #GP, when the page lies beyond the address space. */
export function setAssistPage(facilities: Facilities, vp: number, value: bigint): boolean {
  const gpn = value >> 12n;
  if (gpn >= OVERLAY_GPNS) return false;
  const enable = (value & HvRegisterVpAssistPage.mask.enabled) !== 0n;
  facilities.partition.memory.u64[(facilities.state(vp) + FacilityState.at.assist_page) >>> 3] = value;
  mapOverlay(facilities, vp, OVERLAY_SLOT.ASSIST, enable, gpn);
  return true;
}

/** Maps or removes an overlay page and makes every VP see it; returns the byte offset of its contents. */
function mapOverlay(facilities: Facilities, vp: number, slot: number, enabled: boolean, gpn: bigint): number {
  const contents = facilities.partition.setOverlay(vp, slot, enabled, Number(gpn));
  facilities.partition.flushTlbs(facilities.port);
  return contents;
}

/** Whether a VP's TSC no longer is the machine's. */
function anyTscWritten(facilities: Facilities): boolean {
  const { partition } = facilities;
  for (let vp = 0; vp < facilities.vps; vp++) {
    if (partition.memory.u64[(partition.cpuState(vp) + CpuState.at.tsc_offset) >>> 3] !== 0n) return true;
  }
  return false;
}

/** The time-stamp counter of VTL0 of a VP: the machine's plus the VP's offset. */
export function readTsc(facilities: Facilities, vp: number): bigint {
  const { partition } = facilities;
  const offset = partition.memory.u64[(partition.cpuState(vp) + CpuState.at.tsc_offset) >>> 3];
  return BigInt.asUintN(64, BigInt(Math.floor(facilities.now())) + offset);
}

/** Writes it. The reference TSC page sends its readers to the reference counter from then on. */
export function writeTsc(facilities: Facilities, vp: number, value: bigint): void {
  const { partition } = facilities;
  const { u64 } = partition.memory;
  u64[(partition.cpuState(vp) + CpuState.at.tsc_offset) >>> 3] = value - BigInt(Math.floor(facilities.now()));
  const page = u64[(partition.state + partitionState.reference_tsc) >>> 3];
  if ((page & HvRegisterReferenceTsc.mask.enable) !== 0n) setReferenceTsc(facilities, page);
}
