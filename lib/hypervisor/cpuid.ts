/**
 * CPUID as a guest sees it.
 *
 * For `run` the leaves name exactly what the modelled processor implements, and what the hypervisor offers (Hyper-V TLFS,
 * "Feature and Interface Discovery"; AMD64 APM volume 3 appendix E). For recorded programs they are the recording's, and
 * any other leaf is zero.
 *
 * The hypervisor answers leaves 0 to 16, 40000000 to 4000000c, 80000000 to 80000008, 8000001d and 8000001e (hexadecimal);
 * any other leaf is "unimplemented" and leaves to VTL2 with default results of zero (openhcl.md h).
 *
 * @module
 */
import { HvEnlightenmentInformation, HvFeatures, HvPartitionPrivilege } from "../layout/hyperv/cpuid.ts";
import { HV_CPUID } from "../layout/hyperv/constants/cpuid.ts";
import { TSC_FREQUENCY } from "./time.ts";

/** EAX, EBX, ECX and EDX of a leaf. */
export type CpuidResult = readonly [eax: number, ebx: number, ecx: number, edx: number];

/** State of the asking processor that shows in its CPUID. */
export interface CpuidAsker {
  /** APIC ID. */
  readonly apicId: number;
  /** APIC_BASE.EN. */
  readonly apicEnabled: boolean;
}

/** Answers CPUID for the processors of a machine. */
export interface CpuidTable {
  /**
   * Puts EAX, EBX, ECX and EDX of a leaf into `result`.
   *
   * @returns Whether the hypervisor answers the leaf; if not, `result` holds the defaults of an intercept.
   */
  lookup(leaf: number, subleaf: number, asker: CpuidAsker, result: Uint32Array): boolean;
}

const MHZ = 1_000_000;
/** First leaf of the hypervisor's range. */
const HYPERVISOR_BASE: number = HV_CPUID.HV_CPUID_FUNCTION_HV_VENDOR_AND_MAX_FUNCTION;
/** Last one. */
const HYPERVISOR_LAST: number = HV_CPUID.HV_CPUID_FUNCTION_MS_HV_ISOLATION_CONFIGURATION;
const EXTENDED_BASE = 0x8000_0000;
/** Highest standard leaf. */
const STANDARD_LAST = 0x16;
/** Last leaf of the extended range that is answered without gaps. */
const EXTENDED_CONTIGUOUS_LAST = 0x8000_0008;
const CACHE_TOPOLOGY = 0x8000_001d;
const PROCESSOR_TOPOLOGY = 0x8000_001e;

/** "AuthenticAMD" in EBX, EDX, ECX. */
const VENDOR = { ebx: 0x6874_7541, ecx: 0x444d_4163, edx: 0x6974_6e65 };
/** EAX of leaf 1, and EDX after a reset: family 19h model 11h stepping 1. */
export const CPU_SIGNATURE = 0x00a1_0f11;
const BRAND = "exitbox virtual processor";
/** Bytes of the brand string's three leaves. */
const BRAND_BYTES = 48;

/** Leaf 1 EDX. */
const FEATURES_EDX = {
  FPU: 1 << 0,
  DE: 1 << 2,
  PSE: 1 << 3,
  TSC: 1 << 4,
  MSR: 1 << 5,
  PAE: 1 << 6,
  MCE: 1 << 7,
  CX8: 1 << 8,
  APIC: 1 << 9,
  SEP: 1 << 11,
  MTRR: 1 << 12,
  PGE: 1 << 13,
  MCA: 1 << 14,
  CMOV: 1 << 15,
  PAT: 1 << 16,
  PSE36: 1 << 17,
  CLFSH: 1 << 19,
  FXSR: 1 << 24,
  SSE: 1 << 25,
  SSE2: 1 << 26,
};

/** Leaf 1 ECX. */
const FEATURES_ECX = {
  SSE3: 1 << 0,
  SSSE3: 1 << 9,
  CX16: 1 << 13,
  SSE41: 1 << 19,
  SSE42: 1 << 20,
  X2APIC: 1 << 21,
  MOVBE: 1 << 22,
  POPCNT: 1 << 23,
  HYPERVISOR: 1 << 31,
};

/** Leaf 7 EBX, subleaf 0. */
const STRUCTURED_EBX = {
  FSGSBASE: 1 << 0,
  BMI1: 1 << 3,
  SMEP: 1 << 7,
  BMI2: 1 << 8,
  ADX: 1 << 19,
  CLFLUSHOPT: 1 << 23,
};
/** Leaf 7 ECX, subleaf 0. */
const STRUCTURED_ECX = { UMIP: 1 << 2 };

/** Leaf 80000001 EDX, beside the bits that it shares with leaf 1. */
const EXTENDED_EDX = { SYSCALL: 1 << 11, NX: 1 << 20, PAGE1GB: 1 << 26, RDTSCP: 1 << 27, LM: 1 << 29 };
/** Leaf 80000001 ECX. */
const EXTENDED_ECX = {
  LAHF: 1 << 0,
  CMP_LEGACY: 1 << 1,
  CR8_LEGACY: 1 << 4,
  ABM: 1 << 5,
  PREFETCH: 1 << 8,
  TOPOEXT: 1 << 22,
};
/** Bits of leaf 1 EDX that leaf 80000001 EDX repeats on AMD processors: all but SEP, CLFSH, SSE and SSE2. */
const REPEATED_EDX = ~(FEATURES_EDX.SEP | FEATURES_EDX.CLFSH | FEATURES_EDX.SSE | FEATURES_EDX.SSE2);

/** Cache line in units of 8 bytes, leaf 1 EBX bits 15:8. */
const CLFLUSH_UNITS = 8;
/** Leaf 80000007 EDX: the TSC runs at a constant rate. */
const INVARIANT_TSC = 1 << 8;
/** 48 physical and 48 linear address bits. */
const ADDRESS_SIZES = 0x3030;
/** Leaf b, ECX bits 15:8: what a level is. */
const LEVEL = { SMT: 1, CORE: 2 };
/** Leaf b has two levels. */
const TOPOLOGY_LEVELS = 2;
/** Greatest number of VPs that leaf 40000005 names. */
const VPS_MAX = 240;
/** Leaf 40000004 EBX: never notify of long spins. */
const NEVER_NOTIFY = 0xffff_ffff;
/** Hypervisor version of leaf 40000002: build 20348, version 10.0. */
const HV_BUILD = 20348;
const HV_VERSION = 10 << 16;

/** What the partition may do; the MSRs and hypercalls agree with it. */
const PRIVILEGES = HvPartitionPrivilege.make({
  access_vp_runtime_msr: true,
  access_partition_reference_counter: true,
  access_synic_msrs: true,
  access_synthetic_timer_msrs: true,
  access_apic_msrs: true,
  access_hypercall_msrs: true,
  access_vp_index: true,
  access_partition_reference_tsc: true,
  access_frequency_msrs: true,
  post_messages: true,
  signal_events: true,
  access_vsm: true,
  access_vp_registers: true,
  fast_hypercall_output: true,
  start_virtual_processor: true,
});

/** Splits a 128-bit leaf into its registers. */
function registersOf(value: bigint): CpuidResult {
  const word = (k: number) => Number(value >> BigInt(k * 32) & 0xffff_ffffn);
  return [word(0), word(1), word(2), word(3)];
}

/** Leaf 40000003; the crash MSRs are VTL2's to answer. */
const hvFeatures = (vtl2: boolean) =>
  registersOf(HvFeatures.make({
    privileges: PRIVILEGES,
    xmm_registers_for_fast_hypercall_available: true,
    frequency_regs_available: true,
    guest_crash_regs_available: vtl2,
    direct_synthetic_timers: true,
    register_pat_available: true,
    sint_polling_mode_available: true,
    hypercall_msr_lock_available: true,
    fast_hypercall_output_available: true,
    translate_gva_flags_available: true,
    apic_eoi_intercept_available: true,
  }));

const HV_ENLIGHTENMENTS = registersOf(HvEnlightenmentInformation.make({
  use_relaxed_timing: true,
  deprecate_auto_eoi: true,
  long_spin_wait_count: NEVER_NOTIFY,
  implemented_physical_address_bits: 48,
}));

const ZERO: CpuidResult = [0, 0, 0, 0];

/** Bits set in a value that names features. */
function all(features: Readonly<Record<string, number>>): number {
  return Object.values(features).reduce((bits, bit) => bits | bit, 0);
}

/** The words of leaves 1, 7 and 80000001. */
const FEATURE_WORDS = {
  edx: all(FEATURES_EDX),
  ecx: all(FEATURES_ECX),
  structuredEbx: all(STRUCTURED_EBX),
  structuredEcx: all(STRUCTURED_ECX),
  extendedEcx: all(EXTENDED_ECX),
  extendedEdx: all(EXTENDED_EDX),
} as const;

/** The table of a machine with `vps` processors, one thread a core, all in one package. */
export class MachineCpuid implements CpuidTable {
  readonly #vps: number;
  readonly #hvFeatures: CpuidResult;
  /** Bits of an APIC ID that tell processors of a package apart. */
  readonly #idBits: number;

  /** A table for `vps` processors, with or without a VTL2 that answers what the hypervisor does not. */
  constructor(vps: number, vtl2 = true) {
    this.#vps = vps;
    this.#hvFeatures = hvFeatures(vtl2);
    this.#idBits = vps <= 1 ? 0 : 32 - Math.clz32(vps - 1);
  }

  lookup(leaf: number, subleaf: number, asker: CpuidAsker, result: Uint32Array): boolean {
    const [eax, ebx, ecx, edx] = this.#leaf(leaf, subleaf, asker);
    result[0] = eax;
    result[1] = ebx;
    result[2] = ecx;
    result[3] = edx;
    return answered(leaf);
  }

  #leaf(leaf: number, subleaf: number, asker: CpuidAsker): CpuidResult {
    if (leaf >= EXTENDED_BASE) return this.#extended(leaf, asker);
    if (leaf >= HYPERVISOR_BASE) return this.#hypervisor(leaf);
    switch (leaf) {
      case 0x0:
        return [STANDARD_LAST, VENDOR.ebx, VENDOR.ecx, VENDOR.edx];
      case 0x1: {
        const ebx = (asker.apicId & 0xff) << 24 | Math.min(this.#vps, 0xff) << 16 | CLFLUSH_UNITS << 8;
        const htt = this.#vps > 1 ? 1 << 28 : 0;
        const edx = asker.apicEnabled ? FEATURE_WORDS.edx : FEATURE_WORDS.edx & ~FEATURES_EDX.APIC;
        return [CPU_SIGNATURE, ebx, FEATURE_WORDS.ecx, edx | htt];
      }
      case 0x7:
        return subleaf === 0 ? [0, FEATURE_WORDS.structuredEbx, FEATURE_WORDS.structuredEcx, 0] : ZERO;
      case 0xb:
        return this.#topology(subleaf, asker);
      case 0x15: // the TSC runs at the crystal's frequency
        return [1, 1, TSC_FREQUENCY, 0];
      case 0x16:
        return [TSC_FREQUENCY / MHZ, TSC_FREQUENCY / MHZ, 0, 0];
      default:
        return ZERO;
    }
  }

  #topology(subleaf: number, asker: CpuidAsker): CpuidResult {
    if (subleaf >= TOPOLOGY_LEVELS) return [0, 0, subleaf, asker.apicId];
    const level = subleaf === 0 ? LEVEL.SMT : LEVEL.CORE;
    const [shift, count] = subleaf === 0 ? [0, 1] : [this.#idBits, this.#vps];
    return [shift, count, level << 8 | subleaf, asker.apicId];
  }

  #hypervisor(leaf: number): CpuidResult {
    switch (leaf) {
      case HYPERVISOR_BASE:
        return [HYPERVISOR_LAST, HV_CPUID.VENDOR_EBX, HV_CPUID.VENDOR_ECX, HV_CPUID.VENDOR_EDX_HV];
      case HV_CPUID.HV_CPUID_FUNCTION_HV_INTERFACE:
        return [HV_CPUID.INTERFACE_SIGNATURE_HV1, 0, 0, 0];
      case HV_CPUID.HV_CPUID_FUNCTION_MS_HV_VERSION:
        return [HV_BUILD, HV_VERSION, 0, 0];
      case HV_CPUID.HV_CPUID_FUNCTION_MS_HV_FEATURES:
        return this.#hvFeatures;
      case HV_CPUID.HV_CPUID_FUNCTION_MS_HV_ENLIGHTENMENT_INFORMATION:
        return HV_ENLIGHTENMENTS;
      case HV_CPUID.HV_CPUID_FUNCTION_MS_HV_IMPLEMENTATION_LIMITS:
        return [VPS_MAX, VPS_MAX, 0, 0];
      default:
        return ZERO;
    }
  }

  #extended(leaf: number, asker: CpuidAsker): CpuidResult {
    switch (leaf) {
      case EXTENDED_BASE:
        return [PROCESSOR_TOPOLOGY, VENDOR.ebx, VENDOR.ecx, VENDOR.edx];
      case 0x8000_0001: {
        const repeated = FEATURE_WORDS.edx & REPEATED_EDX & (asker.apicEnabled ? ~0 : ~FEATURES_EDX.APIC);
        const ecx = this.#vps > 1 ? FEATURE_WORDS.extendedEcx : FEATURE_WORDS.extendedEcx & ~EXTENDED_ECX.CMP_LEGACY;
        return [CPU_SIGNATURE, 0, ecx, repeated | FEATURE_WORDS.extendedEdx];
      }
      case 0x8000_0002:
      case 0x8000_0003:
      case 0x8000_0004:
        return brand((leaf - 0x8000_0002) * 16);
      case 0x8000_0007:
        return [0, 0, 0, INVARIANT_TSC];
      case 0x8000_0008:
        return [ADDRESS_SIZES, 0, this.#idBits << 12 | (this.#vps - 1), 0];
      case PROCESSOR_TOPOLOGY:
        return [asker.apicId, asker.apicId & 0xff, 0, 0];
      default:
        return ZERO;
    }
  }
}

/** The table of a recorded program: its header's leaves; any other leaf is zero, and none leaves to VTL2. */
export class RecordedCpuid implements CpuidTable {
  readonly #leaves = new Map<number, CpuidResult>();

  /** A table of rows `[leaf, eax, ebx, ecx, edx]`; subleaves do not count. */
  constructor(rows: readonly (readonly [leaf: number, ...result: CpuidResult])[]) {
    for (const [leaf, ...result] of rows) this.#leaves.set(leaf >>> 0, result);
  }

  lookup(leaf: number, _subleaf: number, _asker: CpuidAsker, result: Uint32Array): boolean {
    result.set(this.#leaves.get(leaf >>> 0) ?? ZERO);
    return true;
  }
}

/** Whether the hypervisor answers `leaf` itself. */
function answered(leaf: number): boolean {
  return leaf <= STANDARD_LAST || (leaf >= HYPERVISOR_BASE && leaf <= HYPERVISOR_LAST) ||
    (leaf >= EXTENDED_BASE && leaf <= EXTENDED_CONTIGUOUS_LAST) || leaf === CACHE_TOPOLOGY ||
    leaf === PROCESSOR_TOPOLOGY;
}

/** Sixteen bytes of the brand string. */
function brand(from: number): CpuidResult {
  const bytes = new Uint8Array(BRAND_BYTES);
  bytes.set(new TextEncoder().encode(BRAND));
  const view = new DataView(bytes.buffer, from);
  return [view.getUint32(0, true), view.getUint32(4, true), view.getUint32(8, true), view.getUint32(12, true)];
}
