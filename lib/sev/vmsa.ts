/**
 * What VMRUN and an exit do with the registers of an SEV-ES guest: they are loaded from and saved to the VMSA as a whole,
 * and checked on the way in (AMD64 Architecture Programmer's Manual volume 2, sections 15.5.1 and 15.35.8; sev.md a1 to a6,
 * a20, a21).
 *
 * The save is by copying words, for an exit is frequent. Not modelled: shadow stacks, last-branch records, sampling; YMM
 * halves are zero, because the processor has no AVX.
 *
 * @module
 */
import { CR0_DEFINED, CR4_DEFINED, CR4_PAE, EFER_DEFINED } from "../cpu/control_bits.ts";
import {
  CpuState,
  CR0_CD,
  CR0_NW,
  CR0_PE,
  CR0_PG,
  EFER_LMA,
  EFER_LME,
  FLAG_ONE,
  FLAGS_DEFINED,
  SEG_BIG,
  SEG_LONG,
} from "../cpu/state.ts";
import { packSegmentAttributes, SEV_FEATURES, unpackSegmentAttributes, V_INTR_CTRL, VMSA } from "../layout/sev/vmsa.ts";
import type { MachineMemory } from "../memory/machine_memory.ts";
import { nextNonce } from "./register_protection.ts";

const cpu = CpuState.at;
const vmsa = VMSA.at;

/** EFER.SVME, which every VMSA must have set. */
export const EFER_SVME = 1 << 12;

/** Fields of eight bytes: offset in the processor's state and in the VMSA. */
const QWORDS: readonly (readonly [state: number, vmsa: number])[] = [
  ...([
    "rax",
    "rcx",
    "rdx",
    "rbx",
    "rsp",
    "rbp",
    "rsi",
    "rdi",
    "r8",
    "r9",
    "r10",
    "r11",
    "r12",
    "r13",
    "r14",
    "r15",
  ] as const)
    .map((name, n) => [cpu.gpr + 8 * n, vmsa[name]] as const),
  ...([
    "cr4",
    "cr3",
    "cr0",
    "dr7",
    "dr6",
    "rflags",
    "rip",
    "dr0",
    "dr1",
    "dr2",
    "dr3",
    "star",
    "lstar",
    "cstar",
    "sfmask",
    "kernel_gs_base",
    "sysenter_cs",
    "sysenter_esp",
    "sysenter_eip",
    "cr2",
    "xcr0",
  ] as const).map((name) => [cpu[name], vmsa[name]] as const),
  [cpu.pat, vmsa.g_pat],
];

/** Segment registers: offset in the processor's state and in the VMSA. */
const SEGMENTS: readonly (readonly [state: number, vmsa: number])[] =
  (["es", "cs", "ss", "ds", "fs", "gs", "ldtr", "tr"] as const)
    .map((name) => [cpu[name], vmsa[name]] as const);

/** Table registers: limit and base only. */
const TABLES: readonly (readonly [state: number, vmsa: number])[] = (["gdtr", "idtr"] as const)
  .map((name) => [cpu[name], vmsa[name]] as const);

const XMM_BYTES = 256;
const X87_REGISTERS = 8;
/** Bytes of an x87 register in the VMSA, and the distance of two in an FXSAVE image. */
const X87_BYTES = 10;
const X87_STRIDE = 16;
/** Offsets in an FXSAVE64 image. */
const FX = { FCW: 0, FSW: 2, FTW: 4, FOP: 6, RIP: 8, DP: 16, MXCSR: 24, ST0: 32, XMM0: 160 } as const;

/** Saves the processor's state at byte `state` into the VMSA at byte `page`; `protect` lists the protected quadwords. */
export function saveVmsa(memory: MachineMemory, state: number, page: number, protect: readonly number[] = []): void {
  const { u64, u32, u16, u8, view } = memory;
  const state8 = state / 8;
  const page8 = page / 8;
  for (let k = 0; k < QWORDS.length; k++) u64[page8 + QWORDS[k][1] / 8] = u64[state8 + QWORDS[k][0] / 8];
  for (let k = 0; k < SEGMENTS.length; k++) {
    const from = state + SEGMENTS[k][0];
    const to = page + SEGMENTS[k][1];
    u64[to / 8 + 1] = u64[from / 8];
    u32[to / 4 + 1] = u32[from / 4 + 2];
    u16[to / 2] = u16[from / 2 + 6];
    u16[to / 2 + 1] = packSegmentAttributes(u16[from / 2 + 7]);
  }
  for (let k = 0; k < TABLES.length; k++) {
    const from = state + TABLES[k][0];
    const to = page + TABLES[k][1];
    u64[to / 8 + 1] = u64[from / 8 + 1];
    u32[to / 4 + 1] = u16[from / 2 + 3];
  }
  u32[(page + vmsa.efer) / 4] = u32[(state + cpu.efer) / 4] | EFER_SVME;
  u32[(page + vmsa.efer) / 4 + 1] = 0;
  u8[page + vmsa.cpl] = (u16[(state + cpu.ss) / 2 + 7] >>> 5) & 3;
  u32[(page + vmsa.tsc_aux) / 4] = u32[(state + cpu.tsc_aux) / 4];
  const fx = state + cpu.fx;
  u32[(page + vmsa.mxcsr) / 4] = u32[(fx + FX.MXCSR) / 4];
  u16[(page + vmsa.x87_ftw) / 2] = u8[fx + FX.FTW];
  u16[(page + vmsa.x87_fsw) / 2] = u16[(fx + FX.FSW) / 2];
  u16[(page + vmsa.x87_fcw) / 2] = u16[(fx + FX.FCW) / 2];
  u16[(page + vmsa.x87_fop) / 2] = u16[(fx + FX.FOP) / 2];
  u64[(page + vmsa.x87_rip) / 8] = u64[(fx + FX.RIP) / 8];
  u64[(page + vmsa.x87_dp) / 8] = u64[(fx + FX.DP) / 8];
  for (let n = 0; n < X87_REGISTERS; n++) {
    const from = fx + FX.ST0 + n * X87_STRIDE;
    const to = page + vmsa.fpreg_x87 + n * X87_BYTES;
    view.setBigUint64(to, u64[from / 8], true);
    view.setUint16(to + 8, u16[from / 2 + 4], true);
  }
  for (let offset = 0; offset < XMM_BYTES; offset += 8) {
    u64[(page + vmsa.fpreg_xmm + offset) / 8] = u64[(fx + FX.XMM0 + offset) / 8];
  }
  if (protect.length > 0) coverRegisters(memory, page, protect);
}

/** XORs the protected quadwords with a nonce that has not been used before. */
function coverRegisters(memory: MachineMemory, page: number, protect: readonly number[]): void {
  const { u64 } = memory;
  const nonce = nextNonce(u64[(page + vmsa.reg_prot_nonce) / 8]);
  u64[(page + vmsa.reg_prot_nonce) / 8] = nonce;
  for (let k = 0; k < protect.length; k++) u64[(page + protect[k]) / 8] ^= nonce;
}

/**
 * Loads the processor's state at byte `state` from the VMSA at byte `page`, which has been checked. The caller drops the
 * processor's caches as far as they depend on what has changed.
 */
export function loadVmsa(memory: MachineMemory, state: number, page: number, protect: readonly number[] = []): void {
  if (protect.length > 0) xorRegisters(memory, page, protect);
  const { u64, u32, u16, u8, view } = memory;
  const state8 = state / 8;
  const page8 = page / 8;
  for (let k = 0; k < QWORDS.length; k++) u64[state8 + QWORDS[k][0] / 8] = u64[page8 + QWORDS[k][1] / 8];
  for (let k = 0; k < SEGMENTS.length; k++) {
    const from = page + SEGMENTS[k][1];
    const to = state + SEGMENTS[k][0];
    u64[to / 8] = u64[from / 8 + 1];
    u32[to / 4 + 2] = u32[from / 4 + 1];
    u16[to / 2 + 6] = u16[from / 2];
    u16[to / 2 + 7] = unpackSegmentAttributes(u16[from / 2 + 1]);
  }
  for (let k = 0; k < TABLES.length; k++) {
    const from = page + TABLES[k][1];
    const to = state + TABLES[k][0];
    u64[to / 8 + 1] = u64[from / 8 + 1];
    u16[to / 2 + 3] = u32[from / 4 + 1];
  }
  u32[(state + cpu.efer) / 4] = u32[(page + vmsa.efer) / 4] & ~EFER_SVME;
  // The privilege level is the VMSA's own field; the model's processor keeps it as the DPL of SS.
  const ss = (state + cpu.ss) / 2 + 7;
  u16[ss] = (u16[ss] & ~0x60) | (u8[page + vmsa.cpl] << 5);
  u32[(state + cpu.tsc_aux) / 4] = u32[(page + vmsa.tsc_aux) / 4];
  const fx = state + cpu.fx;
  u32[(fx + FX.MXCSR) / 4] = u32[(page + vmsa.mxcsr) / 4];
  u8[fx + FX.FTW] = u16[(page + vmsa.x87_ftw) / 2];
  u16[(fx + FX.FSW) / 2] = u16[(page + vmsa.x87_fsw) / 2];
  u16[(fx + FX.FCW) / 2] = u16[(page + vmsa.x87_fcw) / 2];
  u16[(fx + FX.FOP) / 2] = u16[(page + vmsa.x87_fop) / 2];
  u64[(fx + FX.RIP) / 8] = u64[(page + vmsa.x87_rip) / 8];
  u64[(fx + FX.DP) / 8] = u64[(page + vmsa.x87_dp) / 8];
  for (let n = 0; n < X87_REGISTERS; n++) {
    const from = page + vmsa.fpreg_x87 + n * X87_BYTES;
    const to = fx + FX.ST0 + n * X87_STRIDE;
    u64[to / 8] = view.getBigUint64(from, true);
    u64[to / 8 + 1] = BigInt(view.getUint16(from + 8, true));
  }
  for (let offset = 0; offset < XMM_BYTES; offset += 8) {
    u64[(fx + FX.XMM0 + offset) / 8] = u64[(page + vmsa.fpreg_xmm + offset) / 8];
  }
  if (protect.length > 0) xorRegisters(memory, page, protect);
}

/** XORs the protected quadwords with the nonce that they are stored with. */
function xorRegisters(memory: MachineMemory, page: number, protect: readonly number[]): void {
  const { u64 } = memory;
  const nonce = u64[(page + vmsa.reg_prot_nonce) / 8];
  for (let k = 0; k < protect.length; k++) u64[(page + protect[k]) / 8] ^= nonce;
}

/** Bits of CR3 above the physical address, the C bit excepted. */
const CR3_RESERVED = 0xfff7_0000_0000_0000n;
/** Bits of a packed segment attribute word that must be zero. */
const ATTRIB_RESERVED = 0xf000;
/** SEV_FEATURES that the modelled processor has. */
const FEATURES_DEFINED: bigint = [
  "snp",
  "vtom",
  "reflect_vc",
  "restricted_injection",
  "alternate_injection",
  "debug_swap",
]
  .concat(["vmsa_reg_prot", "prevent_host_ibs", "btb_isolation", "secure_avic", "guest_intercept_control"])
  .concat(["ibpb_on_entry"])
  .reduce((mask, name) => mask | SEV_FEATURES.mask[name as "snp"], 0n);

/**
 * Why VMRUN of the VMSA at byte `page` fails with exit code INVALID, in one line; undefined when it does not.
 *
 * @param protect The quadwords that are stored XORed.
 */
export function invalidVmsa(memory: MachineMemory, page: number, protect: readonly number[] = []): string | undefined {
  if (protect.length > 0) xorRegisters(memory, page, protect);
  const reason = invalidPlain(memory, page);
  if (protect.length > 0) xorRegisters(memory, page, protect);
  return reason;
}

function invalidPlain(memory: MachineMemory, page: number): string | undefined {
  const { u32, u16, u8, u64 } = memory;
  const low = (offset: number) => u32[(page + offset) / 4] | 0;
  const high = (offset: number) => u32[(page + offset) / 4 + 1];
  const efer = low(vmsa.efer);
  const cr0 = low(vmsa.cr0);
  const cr4 = low(vmsa.cr4);
  if ((efer & EFER_SVME) === 0) return "EFER.SVME is clear";
  if (high(vmsa.efer) !== 0 || (efer & ~(EFER_DEFINED | EFER_SVME)) !== 0) return "EFER has reserved bits set";
  if (high(vmsa.cr0) !== 0 || (cr0 & ~CR0_DEFINED) !== 0) return "CR0 has reserved bits set";
  if ((cr0 & (CR0_NW | CR0_CD)) === CR0_NW) return "CR0.NW is set and CR0.CD is clear";
  if ((cr0 & CR0_PG) !== 0 && (cr0 & CR0_PE) === 0) return "CR0.PG is set and CR0.PE is clear";
  if (high(vmsa.cr4) !== 0 || (cr4 & ~CR4_DEFINED) !== 0) return "CR4 has reserved bits set";
  if ((u64[(page + vmsa.cr3) / 8] & CR3_RESERVED) !== 0n) return "CR3 has reserved bits set";
  if (high(vmsa.dr6) !== 0) return "DR6 has reserved bits set";
  if (high(vmsa.dr7) !== 0) return "DR7 has reserved bits set";
  const flags = low(vmsa.rflags);
  if (high(vmsa.rflags) !== 0 || (flags & ~(FLAGS_DEFINED | FLAG_ONE)) !== 0 || (flags & FLAG_ONE) === 0) {
    return "RFLAGS has reserved bits wrong";
  }
  const paging = (efer & EFER_LME) !== 0 && (cr0 & CR0_PG) !== 0;
  if (paging && (cr4 & CR4_PAE) === 0) return "Long mode is on and CR4.PAE is clear";
  if (((efer & EFER_LMA) !== 0) !== paging) return "EFER.LMA disagrees with EFER.LME and CR0.PG";
  const code = unpackSegmentAttributes(u16[(page + vmsa.cs) / 2 + 1]);
  if (paging && (code & (SEG_LONG | SEG_BIG)) === (SEG_LONG | SEG_BIG)) return "CS.L and CS.D are both set";
  for (const [, segment] of SEGMENTS) {
    if ((u16[(page + segment) / 2 + 1] & ATTRIB_RESERVED) !== 0) return "A segment has reserved attribute bits set";
  }
  if (u8[page + vmsa.cpl] > 3) return "CPL is larger than 3";
  if ((low(vmsa.xcr0) & 1) === 0) return "XCR0 lacks the x87 state";
  const features = u64[(page + vmsa.sev_features) / 8];
  if ((features & ~FEATURES_DEFINED) !== 0n) return "SEV_FEATURES has reserved bits set";
  const { restricted_injection, alternate_injection } = SEV_FEATURES.mask;
  const both = restricted_injection | alternate_injection;
  if ((features & both) === both) return "Restricted and alternate injection exclude each other";
  return undefined;
}

/** Whether the VMSA at byte `page` is in use: VMRUN fails with VMSA_BUSY. */
export function isBusy(memory: MachineMemory, page: number): boolean {
  return (memory.u64[(page + vmsa.vintr_ctrl) / 8] & V_INTR_CTRL.mask.guest_busy) !== 0n;
}
