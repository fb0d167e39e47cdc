/**
 * A processor's state in the form of a recording's registers, and back.
 *
 * @module
 */
import { CpuState, FX } from "../cpu/state.ts";
import { X64 } from "../layout/x64/constants.ts";
import type { Machine } from "../machine/machine.ts";
import {
  EXIT_SEGMENTS,
  EXIT_SYSTEM,
  EXIT_TABLES,
  type ExitRegisters,
  type ExitSegments,
  type ExitSystem,
} from "./exit_stream.ts";

const at = CpuState.at;
const GPR_COUNT = 16;
const MXCSR_OFFSET = 24;
/** Offsets in a segment register's record. */
const SEGMENT_LIMIT = 8;
const SEGMENT_SELECTOR = 12;
const SEGMENT_ATTRIBUTES = 14;
/** Offsets in a table register's record. */
const TABLE_LIMIT = 6;
const TABLE_BASE = 8;
/** Attributes 7:0 are the same in both forms; 15:12 of the state are 11:8 of a VMCB. */
const ATTRIBUTES_LOW = 0xff;
const ATTRIBUTES_HIGH_SHIFT = 4;
const ATTRIBUTES_HIGH_VMCB = 0xf00;
/** Attributes that say "present"; a segment without it is recorded as unusable, all zero. */
const PRESENT = 0x80;

/** Attributes as in a VMCB, from the descriptor's form. */
function attributesToVmcb(attributes: number): number {
  return (attributes & ATTRIBUTES_LOW) | ((attributes >>> ATTRIBUTES_HIGH_SHIFT) & ATTRIBUTES_HIGH_VMCB);
}

/** Attributes in the descriptor's form, from a VMCB's. */
function attributesFromVmcb(attributes: number): number {
  return (attributes & ATTRIBUTES_LOW) | ((attributes & ATTRIBUTES_HIGH_VMCB) << ATTRIBUTES_HIGH_SHIFT);
}

/** The registers in the `CpuState` at byte offset `base` of `view`. */
export function readExitRegisters(view: DataView, base: number): ExitRegisters {
  const gpr = Array.from({ length: GPR_COUNT }, (_, n) => view.getBigUint64(base + at.gpr + 8 * n, true));
  const seg = Object.fromEntries(EXIT_SEGMENTS.map((name) => {
    const record = base + at[name];
    const attributes = view.getUint16(record + SEGMENT_ATTRIBUTES, true);
    const shown = (attributes & PRESENT) !== 0 ? attributesToVmcb(attributes) : 0;
    return [name, [
      view.getUint16(record + SEGMENT_SELECTOR, true),
      shown,
      view.getUint32(record + SEGMENT_LIMIT, true),
      view.getBigUint64(record, true),
    ]];
  })) as unknown as ExitSegments;
  const sys = Object.fromEntries([
    ...EXIT_SYSTEM.map((name) => [name, view.getBigUint64(base + at[name], true)]),
    ...EXIT_TABLES.map((name) => [name, [
      view.getBigUint64(base + at[name] + TABLE_BASE, true),
      view.getUint16(base + at[name] + TABLE_LIMIT, true),
    ]]),
  ]) as ExitSystem;
  return {
    gpr,
    rip: view.getBigUint64(base + at.rip, true),
    rflags: view.getBigUint64(base + at.rflags, true),
    seg,
    sys,
  };
}

/** The registers of virtual processor `vp` of a machine as they are now; complete while the machine does not run. */
export function readRegisters(machine: Machine, vp: number): ExitRegisters {
  return readExitRegisters(machine.memory.view, machine.map.cpuStates + vp * CpuState.size);
}

/**
 * Writes the registers with which a recorded program starts to the `CpuState` at byte offset `base` of `view`; x87 control
 * word and MXCSR, which no recording names, are those that all of them start with.
 */
export function writeExitRegisters(view: DataView, base: number, registers: ExitRegisters): void {
  registers.gpr.forEach((value, n) => view.setBigUint64(base + at.gpr + 8 * n, value, true));
  view.setBigUint64(base + at.rip, registers.rip, true);
  view.setBigUint64(base + at.rflags, registers.rflags, true);
  for (const name of EXIT_SEGMENTS) {
    const [selector, attributes, limit, segmentBase] = registers.seg[name];
    const record = base + at[name];
    view.setBigUint64(record, segmentBase, true);
    view.setUint32(record + SEGMENT_LIMIT, limit, true);
    view.setUint16(record + SEGMENT_SELECTOR, selector, true);
    view.setUint16(record + SEGMENT_ATTRIBUTES, attributesFromVmcb(attributes), true);
  }
  for (const name of EXIT_SYSTEM) view.setBigUint64(base + at[name], registers.sys[name], true);
  for (const name of EXIT_TABLES) {
    const [tableBase, limit] = registers.sys[name];
    view.setBigUint64(base + at[name] + TABLE_BASE, tableBase, true);
    view.setUint16(base + at[name] + TABLE_LIMIT, limit, true);
  }
  view.setUint16(base + FX, X64.FXSAVE_FCW_INIT, true);
  view.setUint32(base + FX + MXCSR_OFFSET, X64.FXSAVE_MXCSR_INIT, true);
}
