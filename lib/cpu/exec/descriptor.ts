/**
 * Segment registers and descriptors: MOV, PUSH and POP of segment registers, LDS and its sisters, the descriptor-table
 * registers, LAR, LSL, VERR, VERW, ARPL.
 *
 * @module
 */
import { CR4_UMIP } from "../control_bits.ts";
import type { Cpu } from "../cpu.ts";
import { VECTOR_GP, VECTOR_UD } from "../faults.ts";
import { type Exec, type Insn, type OpcodeRow, row } from "../insn.ts";
import {
  descriptor,
  descriptorDpl,
  descriptorKind,
  descriptorLimit,
  isCanonical,
  loadLocalTable,
  loadSegment,
  loadTaskRegister,
  SELECTOR_ERROR,
  SYSTEM_CALL_GATE16,
  SYSTEM_CALL_GATE32,
  SYSTEM_LDT,
  SYSTEM_TASK_GATE,
  SYSTEM_TSS16,
  SYSTEM_TSS32,
  SYSTEM_TSS_BUSY,
  tryReadDescriptor,
  tryReadUpperHalf,
} from "../segments.ts";
import {
  CpuState,
  CS,
  DS,
  ES,
  FLAG_ZF,
  FS,
  GS,
  LDTR,
  RFLAGS,
  RSP,
  SEG_CODE,
  SEG_EXPAND_DOWN,
  SEG_S,
  SEG_WRITABLE,
  SHADOW_MOV_SS,
  SS,
  TR,
} from "../state.ts";
import { loadFarPointer, peekStack } from "./far.ts";
import { loadWord, requireDescriptors, requirePrivilege, storeWord, writeRegister } from "./system_operand.ts";

const CR4 = CpuState.at.cr4 >>> 2;
const GDTR = CpuState.at.gdtr;
const IDTR = CpuState.at.idtr;
/** Offsets in a table register's record. */
const TABLE_LIMIT = 6;
const TABLE_BASE = 8;
/** Bits of a base that LGDT and LIDT load with a 16-bit operand. */
const BASE_24 = 0x00ff_ffff;
/** What LAR shows of a descriptor's high half. */
const ACCESS_RIGHTS = 0x00ff_ff00;
const RPL = 3;

/** Raises #GP(0) for an instruction that CR4.UMIP keeps from user code. */
function requireUnlessUmip(cpu: Cpu): void {
  if ((cpu.s32[CR4] & CR4_UMIP) !== 0 && cpu.cpl !== 0) cpu.raise(VECTOR_GP, 0);
}

/** MOV r/m, Sreg. */
const storeSegment: Exec = (cpu, i) => {
  const seg = i.reg & 7;
  if (seg > GS) cpu.raise(VECTOR_UD);
  storeWord(cpu, i, cpu.segmentSelector(seg));
};

/** MOV Sreg, r/m16. */
const moveToSegment: Exec = (cpu, i) => {
  const seg = i.reg & 7;
  if (seg > GS || seg === CS) cpu.raise(VECTOR_UD);
  loadSegment(cpu, seg, loadWord(cpu, i));
  if (seg === SS) cpu.setShadow(SHADOW_MOV_SS);
};

/** PUSH of a segment register; a 32- or 64-bit push zero-extends the selector. */
function pushSegment(seg: number): Exec {
  return (cpu, i) => {
    const selector = cpu.segmentSelector(seg);
    if (i.opsize === 2) {
      cpu.push16(selector);
    } else if (i.opsize === 4) {
      cpu.push32(selector);
    } else {
      cpu.v32[0] = selector;
      cpu.v32[1] = 0;
      cpu.push64();
    }
  };
}

/** POP of a segment register. */
function popSegment(seg: number): Exec {
  return (cpu, i) => {
    peekStack(cpu, 0, i.opsize);
    const selector = cpu.v32[0] & 0xffff;
    const lo = cpu.g32[RSP * 2];
    const hi = cpu.g32[RSP * 2 + 1];
    cpu.moveStack(i.opsize); // by the old stack segment's size
    try {
      loadSegment(cpu, seg, selector);
    } catch (thrown) {
      cpu.g32[RSP * 2] = lo;
      cpu.g32[RSP * 2 + 1] = hi;
      throw thrown;
    }
    if (seg === SS) cpu.setShadow(SHADOW_MOV_SS);
  };
}

/** LES, LDS, LSS, LFS, LGS. */
function loadPointer(seg: number): Exec {
  return (cpu, i) => {
    const { selector, lo, hi } = loadFarPointer(cpu, i);
    loadSegment(cpu, seg, selector);
    writeRegister(cpu, i.reg, i.opsize, lo, hi);
  };
}

/** SLDT. */
const storeLocalTable: Exec = (cpu, i) => {
  requireDescriptors(cpu);
  requireUnlessUmip(cpu);
  storeWord(cpu, i, cpu.segmentSelector(LDTR));
};

/** STR. */
const storeTaskRegister: Exec = (cpu, i) => {
  requireDescriptors(cpu);
  requireUnlessUmip(cpu);
  storeWord(cpu, i, cpu.segmentSelector(TR));
};

/** LLDT. */
const moveToLocalTable: Exec = (cpu, i) => {
  requireDescriptors(cpu);
  requirePrivilege(cpu);
  loadLocalTable(cpu, loadWord(cpu, i));
};

/** LTR. */
const moveToTaskRegister: Exec = (cpu, i) => {
  requireDescriptors(cpu);
  requirePrivilege(cpu);
  loadTaskRegister(cpu, loadWord(cpu, i));
};

/** SGDT and SIDT: the limit, then a base of 32 bits, or 64 in 64-bit code; the operand size does not matter. */
function storeTable(record: number): Exec {
  return (cpu, i) => {
    requireUnlessUmip(cpu);
    cpu.ea(i);
    const lo = cpu.ea32[0];
    const hi = cpu.ea32[1];
    cpu.probeWrite(i.segment, lo, hi, i.mode64 ? 10 : 6);
    cpu.write16(i.segment, lo, hi, cpu.s16[(record + TABLE_LIMIT) >>> 1]);
    const baseLo = (lo + 2) | 0;
    const baseHi = i.mode64 && baseLo >>> 0 < 2 ? (hi + 1) | 0 : hi;
    cpu.v32[0] = cpu.s32[(record + TABLE_BASE) >>> 2];
    cpu.v32[1] = cpu.s32[((record + TABLE_BASE) >>> 2) + 1];
    if (i.mode64) cpu.write64(i.segment, baseLo, baseHi);
    else cpu.write32(i.segment, baseLo, baseHi, cpu.v32[0]);
  };
}

/** LGDT and LIDT. */
function loadTable(record: number): Exec {
  return (cpu, i) => {
    requirePrivilege(cpu);
    cpu.ea(i);
    const lo = cpu.ea32[0];
    const hi = cpu.ea32[1];
    const limit = cpu.read16(i.segment, lo, hi);
    const baseAt = (lo + 2) | 0;
    const baseAtHi = i.mode64 && baseAt >>> 0 < 2 ? (hi + 1) | 0 : hi;
    let baseLo: number;
    let baseHi = 0;
    if (i.mode64) {
      cpu.read64(i.segment, baseAt, baseAtHi);
      baseLo = cpu.v32[0];
      baseHi = cpu.v32[1];
      if (!isCanonical(baseHi)) cpu.raise(VECTOR_GP, 0);
    } else {
      baseLo = cpu.read32(i.segment, baseAt, baseAtHi);
      if (i.opsize === 2) baseLo &= BASE_24;
    }
    cpu.s16[(record + TABLE_LIMIT) >>> 1] = limit;
    cpu.s32[(record + TABLE_BASE) >>> 2] = baseLo;
    cpu.s32[((record + TABLE_BASE) >>> 2) + 1] = baseHi;
  };
}

/** Sets or clears ZF. */
function setZero(cpu: Cpu, set: boolean): void {
  const flags = cpu.flags();
  cpu.s32[RFLAGS] = set ? flags | FLAG_ZF : flags & ~FLAG_ZF;
}

/**
 * Reads the descriptor of `selector` for LAR, LSL, VERR or VERW: false when it is null, out of reach, or more privileged
 * than the program and the selector's RPL, conforming code aside.
 */
function readVisible(cpu: Cpu, selector: number): boolean {
  if ((selector & SELECTOR_ERROR) === 0 || !tryReadDescriptor(cpu, selector)) return false;
  const kind = descriptorKind();
  const conforming = SEG_S | SEG_CODE | SEG_EXPAND_DOWN;
  if ((kind & conforming) === conforming) return true;
  const dpl = descriptorDpl();
  return cpu.cpl <= dpl && (selector & RPL) <= dpl;
}

/** Whether LAR (`gates` too) or LSL accepts the descriptor read last. */
function hasRights(cpu: Cpu, selector: number, gates: boolean): boolean {
  const kind = descriptorKind();
  if ((kind & SEG_S) !== 0) return true;
  if (cpu.longMode) {
    const known = kind === SYSTEM_LDT || (kind & ~SYSTEM_TSS_BUSY) === SYSTEM_TSS32 ||
      (gates && kind === SYSTEM_CALL_GATE32);
    return known && tryReadUpperHalf(cpu, selector);
  }
  const table = kind === SYSTEM_LDT || (kind & ~SYSTEM_TSS_BUSY) === SYSTEM_TSS16 ||
    (kind & ~SYSTEM_TSS_BUSY) === SYSTEM_TSS32;
  const gate = kind === SYSTEM_CALL_GATE16 || kind === SYSTEM_CALL_GATE32 || kind === SYSTEM_TASK_GATE;
  return table || (gates && gate);
}

/** LAR. */
const loadAccessRights: Exec = (cpu, i) => {
  requireDescriptors(cpu);
  const selector = loadWord(cpu, i);
  const visible = readVisible(cpu, selector) && hasRights(cpu, selector, true);
  if (visible) writeRegister(cpu, i.reg, i.opsize, descriptor.hi & ACCESS_RIGHTS, 0);
  setZero(cpu, visible);
};

/** LSL. */
const loadSegmentLimit: Exec = (cpu, i) => {
  requireDescriptors(cpu);
  const selector = loadWord(cpu, i);
  const visible = readVisible(cpu, selector) && hasRights(cpu, selector, false);
  if (visible) writeRegister(cpu, i.reg, i.opsize, descriptorLimit(), 0);
  setZero(cpu, visible);
};

/** VERR. */
const verifyRead: Exec = (cpu, i) => {
  requireDescriptors(cpu);
  const visible = readVisible(cpu, loadWord(cpu, i));
  const kind = descriptorKind();
  setZero(cpu, visible && (kind & SEG_S) !== 0 && (kind & (SEG_CODE | SEG_WRITABLE)) !== SEG_CODE);
};

/** VERW. */
const verifyWrite: Exec = (cpu, i) => {
  requireDescriptors(cpu);
  const visible = readVisible(cpu, loadWord(cpu, i));
  const wanted = SEG_S | SEG_WRITABLE;
  setZero(cpu, visible && (descriptorKind() & (wanted | SEG_CODE)) === wanted);
};

/** ARPL: raises the destination selector's RPL to the source's; ZF tells whether it did. */
const adjustRpl: Exec = (cpu, i: Insn) => {
  requireDescriptors(cpu);
  const rpl = cpu.g16[4 * i.reg] & RPL;
  if (!i.mem) {
    const selector = cpu.g16[4 * i.rm];
    const lower = (selector & RPL) < rpl;
    if (lower) cpu.g16[4 * i.rm] = (selector & ~RPL) | rpl;
    setZero(cpu, lower);
    return;
  }
  const selector = cpu.rmwLoad16(i);
  const lower = (selector & RPL) < rpl;
  cpu.rmwCommit16(i, selector, lower ? (selector & ~RPL) | rpl : selector);
  setZero(cpu, lower);
};

/** Rows of PUSH and POP of a segment register. */
function stackRows(seg: number, name: string, map: OpcodeRow["map"], push: number, pop: number): OpcodeRow[] {
  const options = map === "1" ? { invalid64: true } : { size64: "default" as const };
  const list = [row(map, push, "push", name, pushSegment(seg), options)];
  if (seg !== CS) list.push(row(map, pop, "pop", name, popSegment(seg), { ...options, ends: true }));
  return list;
}

/** The opcode rows of this file. */
export const rows: readonly OpcodeRow[] = [
  row("1", 0x8c, "mov", "Ev,Sw", storeSegment),
  row("1", 0x8e, "mov", "Sw,Ev", moveToSegment, { ends: true }),
  ...stackRows(ES, "es", "1", 0x06, 0x07),
  ...stackRows(CS, "cs", "1", 0x0e, 0),
  ...stackRows(SS, "ss", "1", 0x16, 0x17),
  ...stackRows(DS, "ds", "1", 0x1e, 0x1f),
  ...stackRows(FS, "fs", "0f", 0xa0, 0xa1),
  ...stackRows(GS, "gs", "0f", 0xa8, 0xa9),
  row("1", 0xc4, "les", "Gv,M", loadPointer(ES), { mod: "mem", ends: true, invalid64: true }),
  row("1", 0xc5, "lds", "Gv,M", loadPointer(DS), { mod: "mem", ends: true, invalid64: true }),
  row("0f", 0xb2, "lss", "Gv,M", loadPointer(SS), { mod: "mem", ends: true }),
  row("0f", 0xb4, "lfs", "Gv,M", loadPointer(FS), { mod: "mem", ends: true }),
  row("0f", 0xb5, "lgs", "Gv,M", loadPointer(GS), { mod: "mem", ends: true }),
  row("0f", 0x00, "sldt", "Ev", storeLocalTable, { reg: 0 }),
  row("0f", 0x00, "str", "Ev", storeTaskRegister, { reg: 1 }),
  row("0f", 0x00, "lldt", "Ew", moveToLocalTable, { reg: 2 }),
  row("0f", 0x00, "ltr", "Ew", moveToTaskRegister, { reg: 3 }),
  row("0f", 0x00, "verr", "Ew", verifyRead, { reg: 4 }),
  row("0f", 0x00, "verw", "Ew", verifyWrite, { reg: 5 }),
  row("0f", 0x01, "sgdt", "M", storeTable(GDTR), { reg: 0, mod: "mem" }),
  row("0f", 0x01, "sidt", "M", storeTable(IDTR), { reg: 1, mod: "mem" }),
  row("0f", 0x01, "lgdt", "M", loadTable(GDTR), { reg: 2, mod: "mem" }),
  row("0f", 0x01, "lidt", "M", loadTable(IDTR), { reg: 3, mod: "mem" }),
  row("0f", 0x02, "lar", "Gv,Ew", loadAccessRights),
  row("0f", 0x03, "lsl", "Gv,Ew", loadSegmentLimit),
  row("1", 0x63, "arpl", "Ew,Gw", adjustRpl, { invalid64: true }),
];
