/**
 * What VMRUN and an exit do with the registers of an SEV-ES guest: they are loaded from and saved to the VMSA as a whole,
 * and checked on the way in (AMD64 Architecture Programmer's Manual volume 2, sections 15.5.1 and 15.35.8; sev.md a1 to a6,
 * a20, a21).
 *
 * Not modelled: shadow stacks, last-branch records, sampling; YMM halves are zero, because the processor has no AVX.
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
import { SEV_FEATURES, SEV_SEGMENT, unpackSegmentAttributes, V_INTR_CTRL, VMSA } from "../layout/sev/vmsa.ts";
import type { MachineMemory } from "../memory/machine_memory.ts";
import * as wasm from "../memory/wasm_code.ts";
import { WasmCode } from "../memory/wasm_code.ts";
import { maskQwords, nextNonce } from "./register_protection.ts";

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
/** Offsets in a segment register of the processor's state (limit and base first) and of the VMSA. */
const STATE_SEGMENT = { BASE: 0, LIMIT: 8, SELECTOR: 12, ATTRIBUTES: 14 } as const;
const STATE_TABLE = { LIMIT: 6, BASE: 8 } as const;
const segment = SEV_SEGMENT.at;
/** Bits of a segment's access rights on both sides of the gap that the VMSA leaves out. */
const ATTRIBUTES_LOW = 0xff;
const ATTRIBUTES_HIGH = 0xf00;
const ATTRIBUTES_GAP = 4;
/** Where a segment's access rights hold the DPL. */
const DPL_SHIFT = 5;
const DPL_MASK = 3;

/** What is copied word by word, whichever way: bytes at `state` of the processor's state and at `vmsa` of the VMSA. */
const WORDS: readonly { readonly state: number; readonly vmsa: number; readonly bytes: number }[] = [
  ...QWORDS.map(([state, vmsa]) => ({ state, vmsa, bytes: 8 })),
  ...SEGMENTS.flatMap(([state, vmsa]) => [
    { state: state + STATE_SEGMENT.BASE, vmsa: vmsa + segment.base, bytes: 8 },
    { state: state + STATE_SEGMENT.LIMIT, vmsa: vmsa + segment.limit, bytes: 4 },
  ]),
  ...TABLES.map(([state, vmsa]) => ({ state: state + STATE_TABLE.BASE, vmsa: vmsa + segment.base, bytes: 8 })),
  { state: cpu.tsc_aux, vmsa: vmsa.tsc_aux, bytes: 4 },
  { state: cpu.pkru, vmsa: vmsa.pkru, bytes: 4 },
  { state: cpu.fx + FX.MXCSR, vmsa: vmsa.mxcsr, bytes: 4 },
  { state: cpu.fx + FX.RIP, vmsa: vmsa.x87_rip, bytes: 8 },
  { state: cpu.fx + FX.DP, vmsa: vmsa.x87_dp, bytes: 8 },
  { state: cpu.fx + FX.XMM0, vmsa: vmsa.fpreg_xmm, bytes: XMM_BYTES },
  ...x87Registers().map(({ state, vmsa }) => ({ state, vmsa, bytes: 8 })),
];

/** The x87 registers: where they lie on both sides. */
function x87Registers(): readonly { readonly state: number; readonly vmsa: number }[] {
  return Array.from({ length: X87_REGISTERS }, (_, n) => ({
    state: cpu.fx + FX.ST0 + n * X87_STRIDE,
    vmsa: vmsa.fpreg_x87 + n * X87_BYTES,
  }));
}

/** Fields of two bytes on both sides. */
const HALVES: readonly (readonly [state: number, vmsa: number])[] = [
  ...SEGMENTS.map(([state, vmsa]) => [state + STATE_SEGMENT.SELECTOR, vmsa + segment.selector] as const),
  [cpu.fx + FX.FSW, vmsa.x87_fsw],
  [cpu.fx + FX.FCW, vmsa.x87_fcw],
  [cpu.fx + FX.FOP, vmsa.x87_fop],
  ...x87Registers().map(({ state, vmsa }) => [state + 8, vmsa + 8] as const),
];

/** Copies a processor's state between byte `state` and the VMSA at byte `page`. */
type Transfer = (state: number, page: number) => void;

/** What an exit does. WebAssembly, because both happen at every exit. */
const SAVE: WasmCode<Transfer> = (() => {
  const state = wasm.local(0);
  const page = wasm.local(1);
  const { and, constant, load16, load32, load8, or, shiftRight, store16, store32, store8 } = wasm;
  const body = [wasm.copy(page, state, WORDS.map((word) => [word.state, word.vmsa, word.bytes] as const))];
  for (const [from, to] of HALVES) body.push(store16(page, to, load16(state, from)));
  for (const [from, to] of SEGMENTS) {
    const attributes = load16(state, from + STATE_SEGMENT.ATTRIBUTES);
    const high = and(shiftRight(attributes, ATTRIBUTES_GAP), constant(ATTRIBUTES_HIGH));
    body.push(store16(page, to + segment.attrib, or(and(attributes, constant(ATTRIBUTES_LOW)), high)));
  }
  for (const [from, to] of TABLES) {
    body.push(store32(page, to + segment.limit, load16(state, from + STATE_TABLE.LIMIT)));
  }
  const ss = load16(state, cpu.ss + STATE_SEGMENT.ATTRIBUTES);
  return new WasmCode({
    parameters: 2,
    locals: 0,
    gives: "nothing",
    body: [
      ...body,
      store32(page, vmsa.efer, or(load32(state, cpu.efer), constant(EFER_SVME))),
      store32(page, vmsa.efer + 4, constant(0)),
      store8(page, vmsa.cpl, and(shiftRight(ss, DPL_SHIFT), constant(DPL_MASK))),
      store16(page, vmsa.x87_ftw, load8(state, cpu.fx + FX.FTW)),
    ],
  });
})();

/** What VMRUN does with a VMSA that has been checked. */
const LOAD: WasmCode<Transfer> = (() => {
  const state = wasm.local(0);
  const page = wasm.local(1);
  const { and, constant, load16, load32, load8, or, shiftLeft, store16, store32, store8 } = wasm;
  const body = [wasm.copy(state, page, WORDS.map((word) => [word.vmsa, word.state, word.bytes] as const))];
  for (const [to, from] of HALVES) body.push(store16(state, to, load16(page, from)));
  for (const { state: to } of x87Registers()) body.push(clearAbove(state, to));
  for (const [to, from] of SEGMENTS) {
    const attributes = load16(page, from + segment.attrib);
    const high = shiftLeft(and(attributes, constant(ATTRIBUTES_HIGH)), ATTRIBUTES_GAP);
    body.push(
      store16(state, to + STATE_SEGMENT.ATTRIBUTES, or(and(attributes, constant(ATTRIBUTES_LOW)), high)),
    );
  }
  for (const [to, from] of TABLES) {
    body.push(store16(state, to + STATE_TABLE.LIMIT, load32(page, from + segment.limit)));
  }
  // The privilege level is the VMSA's own field; the model's processor keeps it as the DPL of SS.
  const ss = cpu.ss + STATE_SEGMENT.ATTRIBUTES;
  const others = and(load16(state, ss), constant(~(DPL_MASK << DPL_SHIFT)));
  return new WasmCode({
    parameters: 2,
    locals: 0,
    gives: "nothing",
    body: [
      ...body,
      store32(state, cpu.efer, and(load32(page, vmsa.efer), constant(~EFER_SVME))),
      store16(state, ss, or(others, shiftLeft(load8(page, vmsa.cpl), DPL_SHIFT))),
      store8(state, cpu.fx + FX.FTW, load16(page, vmsa.x87_ftw)),
    ],
  });
})();

/** The bytes of an FXSAVE image's register above the ten that count are zero. */
function clearAbove(state: wasm.I32, register: number): wasm.Code {
  const zero = wasm.constant(0);
  return [
    ...wasm.store16(state, register + X87_BYTES, zero),
    ...wasm.store32(state, register + X87_BYTES + 2, zero),
  ];
}

/**
 * Saves the processor's state at byte `state` into the VMSA at byte `page`.
 *
 * @param protect Quadwords that are stored XORed, each time with a nonce that has not been used before.
 */
export function saveVmsa(memory: MachineMemory, state: number, page: number, protect: readonly number[] = []): void {
  if (protect.length === 0) return SAVE.on(memory)(state, page);
  const { i32, u64 } = memory;
  const nonce = (page + vmsa.reg_prot_nonce) >>> 3;
  // What the save leaves alone must not stay covered by the old nonce.
  maskQwords(i32, page, protect);
  SAVE.on(memory)(state, page);
  u64[nonce] = nextNonce(u64[nonce]);
  maskQwords(i32, page, protect);
}

/**
 * Loads the processor's state at byte `state` from the VMSA at byte `page`, which has been checked and whose registers are
 * plain. The caller drops the processor's caches as far as they depend on what has changed.
 */
export function loadVmsa(memory: MachineMemory, state: number, page: number): void {
  LOAD.on(memory)(state, page);
}

/** Bits of CR3's high half above the physical address, the C bit excepted. */
const CR3_RESERVED_HIGH: number = 0xfff7_0000 | 0;
/** Bits of a packed segment attribute word that must be zero. */
const ATTRIBUTES_RESERVED = 0xf000;
/** Where a segment's first word holds its attributes: above the selector. */
const ATTRIBUTES_SHIFT = 16;
/** The word that holds the CPL in its highest byte. */
const CPL_WORD: number = vmsa.cpl & ~3;
const CPL_SHIFT: number = 8 * (vmsa.cpl & 3);
const CPL_MAX = 3;
/** SEV_FEATURES that the modelled processor has. */
const FEATURES_DEFINED: readonly (keyof typeof SEV_FEATURES.mask)[] = [
  "snp",
  "vtom",
  "reflect_vc",
  "restricted_injection",
  "alternate_injection",
  "debug_swap",
  "vmsa_reg_prot",
  "prevent_host_ibs",
  "btb_isolation",
  "secure_avic",
  "guest_intercept_control",
  "ibpb_on_entry",
];
const FEATURES_LOW: number = FEATURES_DEFINED.reduce((mask, name) => mask | SEV_FEATURES.low[name], 0);
const FEATURES_HIGH: number = FEATURES_DEFINED.reduce((mask, name) => mask | SEV_FEATURES.high[name], 0);
const INJECTIONS: number = SEV_FEATURES.low.restricted_injection | SEV_FEATURES.low.alternate_injection;

/**
 * Why VMRUN of the VMSA at byte `page`, whose registers are plain, fails with exit code INVALID, in one line; undefined when
 * it does not.
 */
export function invalidVmsa({ i32 }: MachineMemory, page: number): string | undefined {
  const efer = low(i32, page + vmsa.efer);
  const cr0 = low(i32, page + vmsa.cr0);
  const cr4 = low(i32, page + vmsa.cr4);
  if ((efer & EFER_SVME) === 0) return "EFER.SVME is clear";
  if (high(i32, page + vmsa.efer) !== 0 || (efer & ~(EFER_DEFINED | EFER_SVME)) !== 0) {
    return "EFER has reserved bits set";
  }
  if (high(i32, page + vmsa.cr0) !== 0 || (cr0 & ~CR0_DEFINED) !== 0) return "CR0 has reserved bits set";
  if ((cr0 & (CR0_NW | CR0_CD)) === CR0_NW) return "CR0.NW is set and CR0.CD is clear";
  if ((cr0 & CR0_PG) !== 0 && (cr0 & CR0_PE) === 0) return "CR0.PG is set and CR0.PE is clear";
  if (high(i32, page + vmsa.cr4) !== 0 || (cr4 & ~CR4_DEFINED) !== 0) return "CR4 has reserved bits set";
  if ((high(i32, page + vmsa.cr3) & CR3_RESERVED_HIGH) !== 0) return "CR3 has reserved bits set";
  if (high(i32, page + vmsa.dr6) !== 0) return "DR6 has reserved bits set";
  if (high(i32, page + vmsa.dr7) !== 0) return "DR7 has reserved bits set";
  const flags = low(i32, page + vmsa.rflags);
  const flagsReserved = (flags & ~(FLAGS_DEFINED | FLAG_ONE)) !== 0 || (flags & FLAG_ONE) === 0;
  if (high(i32, page + vmsa.rflags) !== 0 || flagsReserved) return "RFLAGS has reserved bits wrong";
  const paging = (efer & EFER_LME) !== 0 && (cr0 & CR0_PG) !== 0;
  if (paging && (cr4 & CR4_PAE) === 0) return "Long mode is on and CR4.PAE is clear";
  if (((efer & EFER_LMA) !== 0) !== paging) return "EFER.LMA disagrees with EFER.LME and CR0.PG";
  const code = unpackSegmentAttributes(low(i32, page + vmsa.cs) >>> ATTRIBUTES_SHIFT);
  if (paging && (code & (SEG_LONG | SEG_BIG)) === (SEG_LONG | SEG_BIG)) return "CS.L and CS.D are both set";
  for (let k = 0; k < SEGMENTS.length; k++) {
    const attributes = low(i32, page + SEGMENTS[k][1]) >>> ATTRIBUTES_SHIFT;
    if ((attributes & ATTRIBUTES_RESERVED) !== 0) return "A segment has reserved attribute bits set";
  }
  if ((low(i32, page + CPL_WORD) >>> CPL_SHIFT) > CPL_MAX) return "CPL is larger than 3";
  if ((low(i32, page + vmsa.xcr0) & 1) === 0) return "XCR0 lacks the x87 state";
  const features = low(i32, page + vmsa.sev_features);
  if ((features & ~FEATURES_LOW) !== 0 || (high(i32, page + vmsa.sev_features) & ~FEATURES_HIGH) !== 0) {
    return "SEV_FEATURES has reserved bits set";
  }
  if ((features & INJECTIONS) === INJECTIONS) return "Restricted and alternate injection exclude each other";
  return undefined;
}

/** The low half of the quadword at byte `at`. */
function low(i32: Int32Array, at: number): number {
  return i32[at >>> 2];
}

/** Its high half. */
function high(i32: Int32Array, at: number): number {
  return i32[(at >>> 2) + 1];
}

/** Whether the VMSA at byte `page` is in use: VMRUN fails with VMSA_BUSY. */
export function isBusy(memory: MachineMemory, page: number): boolean {
  return (high(memory.i32, page + vmsa.vintr_ctrl) & V_INTR_CTRL.high.guest_busy) !== 0;
}
