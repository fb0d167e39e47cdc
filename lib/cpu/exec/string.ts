/**
 * MOVS, CMPS, STOS, LODS, SCAS, INS and OUTS, with their repeat prefixes.
 *
 * Counter and pointers are written after each element, so that a fault or exit leaves exactly the completed elements
 * behind. After a bounded number of elements the instruction gives way: RIP stays at it, and it goes on later.
 *
 * @module
 */

import { ACCESS_READ } from "../bus.ts";
import { type Cpu, SLOW_TRACE } from "../cpu.ts";
import { LZ_SUB64 } from "../flags.ts";
import { type Exec, type Insn, type OpcodeRow, row } from "../insn.ts";
import { ES, EXIT_IN, EXIT_IO, EXIT_REP, EXIT_STRING, FLAG_DF, RAX, RCX, RDI, RDX, RFLAGS, RSI } from "../state.ts";
import { CpuState, STOP_EXIT } from "../state.ts";
import { requirePort } from "./io.ts";
import { sext16, sext8, write32 } from "./operand.ts";

/** Elements after which a repeated instruction gives way to interrupts and to the budget. */
const ELEMENTS_MAX = 4096;
/** Bytes of a page. */
const PAGE_BYTES = 4096;

const EXIT_PORT = CpuState.at.exit_port >> 1;
const EXIT_SIZE = CpuState.at.exit_size;
const EXIT_FLAGS = CpuState.at.exit_flags;

/** One element; false stops the repetition (REPE and REPNE). */
type Element = (cpu: Cpu, i: Insn) => boolean;

/** The counter in the address size: true when it is zero. */
function countIsZero(cpu: Cpu, i: Insn): boolean {
  const { g32, g16 } = cpu;
  if (i.addrsize === 2) return g16[RCX << 2] === 0;
  return (g32[RCX << 1] | (i.addrsize === 8 ? g32[(RCX << 1) + 1] : 0)) === 0;
}

/** Adds to a register in the address size. */
function advance(cpu: Cpu, i: Insn, register: number, by: number): void {
  const at = register << 1;
  const { g32 } = cpu;
  if (i.addrsize === 2) {
    cpu.g16[register << 2] += by;
    return;
  }
  const lo = (g32[at] + by) | 0;
  if (i.addrsize === 4) g32[at + 1] = 0;
  else g32[at + 1] += (by >> 31) + ((lo >>> 0) < (by >>> 0) ? 1 : 0);
  g32[at] = lo;
}

/** Low half of a pointer register in the address size. */
function pointer(cpu: Cpu, i: Insn, register: number): number {
  return i.addrsize === 2 ? cpu.g16[register << 2] : cpu.g32[register << 1];
}

/** High half. */
function pointerHigh(cpu: Cpu, i: Insn, register: number): number {
  return i.addrsize === 8 ? cpu.g32[(register << 1) + 1] : 0;
}

/** Bytes from an element to the next. */
function stride(cpu: Cpu, i: Insn): number {
  return (cpu.s32[RFLAGS] & FLAG_DF) !== 0 ? -i.opsize : i.opsize;
}

/** Reads an element; 64 bits go to `v64[0]`. */
function read(cpu: Cpu, i: Insn, segment: number, register: number): number {
  const lo = pointer(cpu, i, register);
  const hi = pointerHigh(cpu, i, register);
  switch (i.opsize) {
    case 1:
      return cpu.read8(segment, lo, hi);
    case 2:
      return cpu.read16(segment, lo, hi);
    case 4:
      return cpu.read32(segment, lo, hi);
    default:
      cpu.read64(segment, lo, hi);
      return 0;
  }
}

/** Writes an element at ES:rDI; 64 bits come from `v64[0]`. */
function write(cpu: Cpu, i: Insn, value: number): void {
  const lo = pointer(cpu, i, RDI);
  const hi = pointerHigh(cpu, i, RDI);
  switch (i.opsize) {
    case 1:
      cpu.write8(ES, lo, hi, value);
      return;
    case 2:
      cpu.write16(ES, lo, hi, value);
      return;
    case 4:
      cpu.write32(ES, lo, hi, value);
      return;
    default:
      cpu.write64(ES, lo, hi);
  }
}

const movs: Element = (cpu, i) => {
  const value = read(cpu, i, i.segment, RSI);
  write(cpu, i, value);
  const by = stride(cpu, i);
  advance(cpu, i, RSI, by);
  advance(cpu, i, RDI, by);
  return true;
};

const stos: Element = (cpu, i) => {
  if (i.opsize === 8) cpu.v64[0] = cpu.g64[RAX];
  write(cpu, i, i.opsize === 4 ? cpu.g32[RAX << 1] : i.opsize === 2 ? cpu.g16[0] : cpu.g8[0]);
  advance(cpu, i, RDI, stride(cpu, i));
  return true;
};

const lods: Element = (cpu, i) => {
  const value = read(cpu, i, i.segment, RSI);
  if (i.opsize === 8) cpu.g64[RAX] = cpu.v64[0];
  else if (i.opsize === 4) write32(cpu, RAX, value);
  else if (i.opsize === 2) cpu.g16[0] = value;
  else cpu.g8[0] = value;
  advance(cpu, i, RSI, stride(cpu, i));
  return true;
};

/** Flags of a - b, 8 to 32 bits. */
function compare(cpu: Cpu, size: number, a: number, b: number): void {
  if (size === 1) cpu.setSub32(sext8(a), sext8(b), sext8(a - b));
  else if (size === 2) cpu.setSub32(sext16(a), sext16(b), sext16(a - b));
  else cpu.setSub32(a, b, (a - b) | 0);
}

/** Flags of `lz64[0]` - `lz64[1]`. */
function compare64(cpu: Cpu): void {
  const { lz64 } = cpu;
  lz64[2] = lz64[0] - lz64[1];
  cpu.set64(LZ_SUB64);
}

/** Whether REPE or REPNE goes on. */
function goesOn(cpu: Cpu, i: Insn): boolean {
  return (cpu.getZf() !== 0) === (i.rep === 0xf3);
}

const cmps: Element = (cpu, i) => {
  // The manuals leave open which operand faults first. AMD processors look at ES:rDI first, but for repeated bytes.
  // Device memory is read in the operands' order.
  if (i.rep === 0 || i.opsize !== 1) {
    cpu.touch(ES, pointer(cpu, i, RDI), pointerHigh(cpu, i, RDI), ACCESS_READ, i.opsize);
  }
  if (i.opsize === 8) {
    read(cpu, i, i.segment, RSI);
    cpu.v64[1] = cpu.v64[0];
    read(cpu, i, ES, RDI);
    cpu.lz64[0] = cpu.v64[1];
    cpu.lz64[1] = cpu.v64[0];
    compare64(cpu);
  } else {
    const a = read(cpu, i, i.segment, RSI);
    compare(cpu, i.opsize, a, read(cpu, i, ES, RDI));
  }
  const by = stride(cpu, i);
  advance(cpu, i, RSI, by);
  advance(cpu, i, RDI, by);
  return goesOn(cpu, i);
};

const scas: Element = (cpu, i) => {
  const b = read(cpu, i, ES, RDI);
  if (i.opsize === 8) {
    cpu.lz64[0] = cpu.g64[RAX];
    cpu.lz64[1] = cpu.v64[0];
    compare64(cpu);
  } else {
    compare(cpu, i.opsize, i.opsize === 4 ? cpu.g32[0] : i.opsize === 2 ? cpu.g16[0] : cpu.g8[0], b);
  }
  advance(cpu, i, RDI, stride(cpu, i));
  return goesOn(cpu, i);
};

/** A whole string exit is recorded before the first element. */
function leaveWhole(cpu: Cpu, i: Insn, direction: number): boolean {
  if (!cpu.bus.interceptsStringIo) return false;
  cpu.s16[EXIT_PORT] = cpu.g16[RDX << 2];
  cpu.s8[EXIT_SIZE] = i.opsize;
  cpu.s8[EXIT_FLAGS] = direction | EXIT_STRING | (i.rep !== 0 ? EXIT_REP : 0);
  cpu.exit(EXIT_IO);
  return true;
}

const ins: Element = (cpu, i) => {
  const port = cpu.g16[RDX << 2];
  // The destination is tried first: a port is not read for nothing.
  cpu.probeWrite(ES, pointer(cpu, i, RDI), pointerHigh(cpu, i, RDI), i.opsize);
  const value = cpu.bus.in(cpu, i, port, i.opsize);
  if ((cpu.stop & STOP_EXIT) !== 0) return false;
  write(cpu, i, value);
  advance(cpu, i, RDI, stride(cpu, i));
  return true;
};

const outs: Element = (cpu, i) => {
  const value = read(cpu, i, i.segment, RSI);
  cpu.bus.out(cpu, i, cpu.g16[RDX << 2], i.opsize, value);
  if ((cpu.stop & STOP_EXIT) !== 0) return false;
  advance(cpu, i, RSI, stride(cpu, i));
  return true;
};

/** Fewest elements for which moving them at once is worth the preparation. */
const BULK_MIN = 4;

/**
 * How many elements, upwards from the pointers given, lie in one page of memory each, in flat segments that nobody
 * watches; 0 when the elements must be moved one by one.
 */
function bulkElements(cpu: Cpu, i: Insn, most: number, register: number): number {
  const lo = pointer(cpu, i, register);
  const bytes = Math.min(PAGE_BYTES - (lo & (PAGE_BYTES - 1)), i.addrsize === 2 ? 0x10000 - lo : PAGE_BYTES);
  return Math.min(most, Math.floor(bytes / i.opsize));
}

/** The counter, at most `most`. */
function countUpTo(cpu: Cpu, i: Insn, most: number): number {
  const { g32, g16 } = cpu;
  if (i.addrsize === 2) return Math.min(g16[RCX << 2], most);
  if (i.addrsize === 8 && g32[(RCX << 1) + 1] !== 0) return most;
  return Math.min(g32[RCX << 1] >>> 0, most);
}

/** Whether elements may be moved at once: upwards, with flat segments, unwatched, aligned without alignment faults. */
function bulkAllowed(cpu: Cpu, segmentBit: number): boolean {
  return (cpu.s32[RFLAGS] & FLAG_DF) === 0 && (cpu.flatRead & segmentBit) !== 0 && (cpu.flatWrite & (1 << ES)) !== 0 &&
    !cpu.watching;
}

/** Counts `n` elements as done. */
function bulkDone(cpu: Cpu, i: Insn, n: number, offset: number): void {
  cpu.noteStore(offset, n * i.opsize);
  advance(cpu, i, RDI, n * i.opsize);
  advance(cpu, i, RCX, -n);
}

/** Moves as many elements at once as two pages allow; returns how many. */
const bulkMovs: Bulk = (cpu, i, most) => {
  if (!bulkAllowed(cpu, i.segmentBit)) return 0;
  const n = bulkElements(cpu, i, bulkElements(cpu, i, countUpTo(cpu, i, most), RSI), RDI);
  if (n < BULK_MIN) return 0;
  const from = cpu.placeOf(pointer(cpu, i, RSI), pointerHigh(cpu, i, RSI), cpu.tlbRead);
  const to = cpu.placeOf(pointer(cpu, i, RDI), pointerHigh(cpu, i, RDI), cpu.tlbWrite);
  // A destination inside the source repeats what was just written: only element by element.
  if (from < 0 || to < 0 || (to > from && to < from + n * i.opsize)) return 0;
  cpu.m8.copyWithin(to, from, from + n * i.opsize);
  advance(cpu, i, RSI, n * i.opsize);
  bulkDone(cpu, i, n, to);
  return n;
};

/** Stores as many elements at once as a page allows; returns how many. */
const bulkStos: Bulk = (cpu, i, most) => {
  if (!bulkAllowed(cpu, 1 << ES)) return 0;
  const n = bulkElements(cpu, i, countUpTo(cpu, i, most), RDI);
  if (n < BULK_MIN) return 0;
  const to = cpu.placeOf(pointer(cpu, i, RDI), pointerHigh(cpu, i, RDI), cpu.tlbWrite);
  if (to < 0 || to % i.opsize !== 0) return 0;
  const first = to / i.opsize;
  if (i.opsize === 1) cpu.m8.fill(cpu.g8[0], first, first + n);
  else if (i.opsize === 2) cpu.m16.fill(cpu.g16[0], first, first + n);
  else if (i.opsize === 4) cpu.m32.fill(cpu.g32[0], first, first + n);
  else cpu.m64.fill(cpu.g64[0], first, first + n);
  bulkDone(cpu, i, n, to);
  return n;
};

/** Moves up to `most` elements at once; returns how many. */
type Bulk = (cpu: Cpu, i: Insn, most: number) => number;

/** MOVS or STOS: repeated ones a page at a time where possible. */
function bulkString(element: Element, bulk: Bulk): Exec {
  return (cpu, i) => {
    if (i.rep === 0 || (cpu.slow & SLOW_TRACE) !== 0) {
      repeat(cpu, i, element);
      return;
    }
    let left = ELEMENTS_MAX;
    while (left > 0 && !countIsZero(cpu, i)) {
      const n = bulk(cpu, i, left);
      if (n > 0) {
        left -= n;
      } else {
        element(cpu, i);
        advance(cpu, i, RCX, -1);
        left--;
      }
    }
    if (!countIsZero(cpu, i)) cpu.repeatLater(i);
  };
}

/** Executes the instruction once or as often as the prefix says. */
function repeat(cpu: Cpu, i: Insn, element: Element): void {
  if (i.rep === 0) {
    element(cpu, i);
    return;
  }
  let elements = (cpu.slow & SLOW_TRACE) !== 0 ? 1 : ELEMENTS_MAX;
  while (!countIsZero(cpu, i)) {
    const on = element(cpu, i);
    if ((cpu.stop & STOP_EXIT) !== 0) return;
    advance(cpu, i, RCX, -1);
    if (!on) return;
    if (--elements === 0 && !countIsZero(cpu, i)) {
      cpu.repeatLater(i);
      return;
    }
  }
}

/** Executor of an element function. */
function string(element: Element): Exec {
  return (cpu, i) => repeat(cpu, i, element);
}

/** Executor of INS or OUTS: permission, then a whole exit, then elements. */
function port(element: Element, direction: number): Exec {
  return (cpu, i) => {
    if (i.opsize === 8) i.opsize = 4; // there are no 64-bit ports
    if (i.rep !== 0 && countIsZero(cpu, i)) return;
    requirePort(cpu, cpu.g16[RDX << 2], i.opsize);
    if (leaveWhole(cpu, i, direction)) return;
    repeat(cpu, i, element);
  };
}

/** Byte form and sized form of one instruction. */
function pair(opcode: number, name: string, exec: Exec, ends = false): OpcodeRow[] {
  return [
    row("1", opcode, name, "Xb", exec, { ends }),
    row("1", opcode + 1, name, "Xv", exec, { ends }),
  ];
}

/** The opcode rows of this file. */
export const STRING_ROWS: readonly OpcodeRow[] = [
  ...pair(0xa4, "movs", bulkString(movs, bulkMovs), true),
  ...pair(0xa6, "cmps", string(cmps), true),
  ...pair(0xaa, "stos", bulkString(stos, bulkStos), true),
  ...pair(0xac, "lods", string(lods), true),
  ...pair(0xae, "scas", string(scas), true),
  ...pair(0x6c, "ins", port(ins, EXIT_IN), true),
  ...pair(0x6e, "outs", port(outs, 0), true),
];
