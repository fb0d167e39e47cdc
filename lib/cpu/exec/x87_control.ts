/**
 * x87 control instructions: control and status word, environment, whole state (Intel SDM volume 1, 8.1 and volume 2;
 * AMD APM volume 2, 11.4.4).
 *
 * @module
 */

import { VECTOR_MF, VECTOR_NM } from "../faults.ts";
import type { Cpu } from "../cpu.ts";
import { FLAGS_ALL } from "../float/environment.ts";
import { KIND_FINITE, KIND_ZERO, Operand } from "../float/format.ts";
import { type Insn, type OpcodeRow, row } from "../insn.ts";
import { CpuState, CR0_MP, CR0_TS, RAX } from "../state.ts";
import { advanceEa } from "./x87.ts";
import {
  checkX87,
  FCW,
  FSW,
  FSW_B,
  FSW_ES,
  FSW_SF,
  FSW_TOP,
  FSW_TOP_SHIFT,
  FTW,
  loadRegister,
  pop,
  requireX87,
  setEmpty,
  ST,
  ST_BYTES,
  top,
  turnStack,
  updateErrorSummary,
} from "./x87_stack.ts";

const CR0 = CpuState.at.cr0 >> 2;
/** The control word after FNINIT. */
export const FCW_INIT = 0x37f;
/** Bits of the control word that can be written; bit 6 always reads as one. */
const FCW_WRITABLE = 0x1f3f;
const FCW_ONE = 0x40;
/** Bits of the status word that FNCLEX clears. */
const FSW_EXCEPTIONS = FLAGS_ALL | FSW_SF | FSW_ES | FSW_B;

/** FNINIT's state: control word 37f, nothing pending, TOP 0, all registers empty. */
export function initializeX87(cpu: Cpu): void {
  turnStack(cpu, -top(cpu));
  cpu.s16[FCW] = FCW_INIT;
  cpu.s16[FSW] = 0;
  cpu.s8[FTW] = 0;
}

/** FNINIT. */
function fninit(cpu: Cpu): void {
  requireX87(cpu);
  initializeX87(cpu);
}

/** Writes the control word; an exception that thereby is no longer masked becomes pending. */
function putControlWord(cpu: Cpu, fcw: number): void {
  cpu.s16[FCW] = (fcw & FCW_WRITABLE) | FCW_ONE;
  updateErrorSummary(cpu);
}

/** FLDCW. */
function fldcw(cpu: Cpu, i: Insn): void {
  checkX87(cpu);
  putControlWord(cpu, cpu.load16(i));
}

/** FNSTCW. */
function fnstcw(cpu: Cpu, i: Insn): void {
  requireX87(cpu);
  cpu.store16(i, cpu.s16[FCW]);
}

/** FNSTSW to memory. */
function fnstsw(cpu: Cpu, i: Insn): void {
  requireX87(cpu);
  cpu.store16(i, cpu.s16[FSW]);
}

/** FNSTSW AX. */
function fnstswAx(cpu: Cpu): void {
  requireX87(cpu);
  cpu.g16[4 * RAX] = cpu.s16[FSW];
}

/** FNCLEX. */
function fnclex(cpu: Cpu): void {
  requireX87(cpu);
  cpu.s16[FSW] &= ~FSW_EXCEPTIONS;
}

/** FWAIT: needs no x87, but reports what is pending. */
function fwait(cpu: Cpu): void {
  if ((cpu.s32[CR0] & (CR0_MP | CR0_TS)) === (CR0_MP | CR0_TS)) cpu.raise(VECTOR_NM);
  if ((cpu.s16[FSW] & FSW_ES) !== 0) cpu.raise(VECTOR_MF);
}

/** FFREE. */
function ffree(cpu: Cpu, i: Insn): void {
  checkX87(cpu);
  setEmpty(cpu, i.rm & 7);
}

/** FFREEP: FFREE and a pop. */
function ffreep(cpu: Cpu, i: Insn): void {
  checkX87(cpu);
  setEmpty(cpu, i.rm & 7);
  pop(cpu);
}

/** FNENI, FNDISI, FNSETPM: instructions of the 8087 and the 80287 that do nothing since. */
function obsolete(cpu: Cpu): void {
  requireX87(cpu);
}

const operand = new Operand();
const TAG_VALID = 0;
const TAG_ZERO = 1;
const TAG_SPECIAL = 2;
const TAG_EMPTY = 3;

/** The full tag word, two bits for each physical register. */
function fullTags(cpu: Cpu): number {
  let tags = 0;
  for (let physical = 0; physical < 8; physical++) {
    let tag = TAG_EMPTY;
    if (((cpu.s8[FTW] >> physical) & 1) !== 0) {
      loadRegister(cpu, (physical - top(cpu)) & 7, operand);
      if (operand.kind === KIND_ZERO) tag = TAG_ZERO;
      else tag = operand.kind === KIND_FINITE && !operand.denormal ? TAG_VALID : TAG_SPECIAL;
    }
    tags |= tag << (2 * physical);
  }
  return tags;
}

/** The tags of FXSAVE from the full tag word. */
function abridge(tags: number): number {
  let abridged = 0;
  for (let physical = 0; physical < 8; physical++) {
    if (((tags >> (2 * physical)) & 3) !== TAG_EMPTY) abridged |= 1 << physical;
  }
  return abridged;
}

/** Bytes of the environment with 16-bit and with wider operand size. */
const ENVIRONMENT_BYTES_16 = 14;
const ENVIRONMENT_BYTES_32 = 28;
/** Bytes of a register in memory. */
const REGISTER_BYTES = 10;
const REGISTERS_BYTES = 8 * REGISTER_BYTES;

function environmentBytes(i: Insn): number {
  return i.opsize === 2 ? ENVIRONMENT_BYTES_16 : ENVIRONMENT_BYTES_32;
}

/**
 * Starts an instruction that stores `size` bytes: every fault comes before anything changes, its first word's before its
 * last byte's.
 */
function probe(cpu: Cpu, i: Insn, size: number): void {
  requireX87(cpu);
  cpu.ea(i);
  cpu.probeWrite(i.segment, cpu.ea32[0], cpu.ea32[1], i.opsize === 2 ? 2 : 4);
  advanceEa(cpu, i, size - 1);
  cpu.probeWrite(i.segment, cpu.ea32[0], cpu.ea32[1], 1);
}

/** As `probe`, for an instruction that loads `size` bytes. */
function probeRead(cpu: Cpu, i: Insn, size: number): void {
  checkX87(cpu);
  cpu.ea(i);
  if (i.opsize === 2) cpu.read16(i.segment, cpu.ea32[0], cpu.ea32[1]);
  else cpu.read32(i.segment, cpu.ea32[0], cpu.ea32[1]);
  advanceEa(cpu, i, size - 1);
  cpu.read8(i.segment, cpu.ea32[0], cpu.ea32[1]);
}

/** Writes the environment. Instruction and data pointers are zero: they are not tracked. */
function storeEnvironment(cpu: Cpu, i: Insn): void {
  const words = [cpu.s16[FCW], cpu.s16[FSW], fullTags(cpu), 0, 0, 0, 0];
  for (let n = 0; n < words.length; n++) {
    if (i.opsize === 2) {
      advanceEa(cpu, i, 2 * n);
      cpu.write16(i.segment, cpu.ea32[0], cpu.ea32[1], words[n]);
    } else {
      advanceEa(cpu, i, 4 * n);
      // The upper halves of the words that have 16 bits are ones: control, status, tags, and the last one, a selector.
      const high = n < 3 || n === 6 ? -0x1_0000 : 0;
      cpu.write32(i.segment, cpu.ea32[0], cpu.ea32[1], words[n] | high);
    }
  }
}

/** FNSTENV: afterwards all exceptions are masked. */
function fnstenv(cpu: Cpu, i: Insn): void {
  probe(cpu, i, environmentBytes(i));
  storeEnvironment(cpu, i);
  putControlWord(cpu, cpu.s16[FCW] | FLAGS_ALL);
}

/** Control, status and tag word from memory. */
const loaded = new Uint16Array(3);

/** Reads what counts of an environment into `loaded`. */
function readEnvironment(cpu: Cpu, i: Insn): void {
  const step = i.opsize === 2 ? 2 : 4;
  for (let n = 0; n < loaded.length; n++) {
    advanceEa(cpu, i, step * n);
    loaded[n] = cpu.read16(i.segment, cpu.ea32[0], cpu.ea32[1]);
  }
}

/** Takes over `loaded`; the physical registers keep their contents. */
function putEnvironment(cpu: Cpu): void {
  turnStack(cpu, ((loaded[1] & FSW_TOP) >> FSW_TOP_SHIFT) - top(cpu));
  cpu.s16[FSW] = loaded[1];
  cpu.s8[FTW] = abridge(loaded[2]);
  putControlWord(cpu, loaded[0]);
}

/** FLDENV. */
function fldenv(cpu: Cpu, i: Insn): void {
  probeRead(cpu, i, environmentBytes(i));
  readEnvironment(cpu, i);
  putEnvironment(cpu);
}

/** FNSAVE: environment and registers, then FNINIT. */
function fnsave(cpu: Cpu, i: Insn): void {
  const environment = environmentBytes(i);
  probe(cpu, i, environment + REGISTERS_BYTES);
  storeEnvironment(cpu, i);
  for (let n = 0; n < 8; n++) {
    const at = ST + n * ST_BYTES;
    advanceEa(cpu, i, environment + n * REGISTER_BYTES);
    cpu.v64[0] = cpu.s64[at >> 3];
    cpu.write64(i.segment, cpu.ea32[0], cpu.ea32[1]);
    advanceEa(cpu, i, environment + n * REGISTER_BYTES + 8);
    cpu.write16(i.segment, cpu.ea32[0], cpu.ea32[1], cpu.s16[(at + 8) >> 1]);
  }
  initializeX87(cpu);
}

/** Registers from memory, in slots as in the image. */
const registers = new BigUint64Array(16);

/** FRSTOR. */
function frstor(cpu: Cpu, i: Insn): void {
  const environment = environmentBytes(i);
  probeRead(cpu, i, environment + REGISTERS_BYTES);
  for (let n = 0; n < 8; n++) {
    advanceEa(cpu, i, environment + n * REGISTER_BYTES + 8);
    registers[2 * n + 1] = BigInt(cpu.read16(i.segment, cpu.ea32[0], cpu.ea32[1]));
    advanceEa(cpu, i, environment + n * REGISTER_BYTES);
    cpu.read64(i.segment, cpu.ea32[0], cpu.ea32[1]);
    registers[2 * n] = cpu.v64[0];
  }
  readEnvironment(cpu, i);
  putEnvironment(cpu);
  cpu.s64.set(registers, ST >> 3);
}

/** The opcode rows of this file. */
export const rows: readonly OpcodeRow[] = [
  row("1", 0x9b, "fwait", "", fwait),
  row("1", 0xd9, "fldenv", "M", fldenv, { reg: 4, mod: "mem" }),
  row("1", 0xd9, "fldcw", "M", fldcw, { reg: 5, mod: "mem" }),
  row("1", 0xd9, "fnstenv", "M", fnstenv, { reg: 6, mod: "mem" }),
  row("1", 0xd9, "fnstcw", "M", fnstcw, { reg: 7, mod: "mem" }),
  row("1", 0xdd, "frstor", "M", frstor, { reg: 4, mod: "mem" }),
  row("1", 0xdd, "fnsave", "M", fnsave, { reg: 6, mod: "mem" }),
  row("1", 0xdd, "fnstsw", "M", fnstsw, { reg: 7, mod: "mem" }),
  row("1", 0xdd, "ffree", "ST", ffree, { reg: 0, mod: "reg" }),
  row("1", 0xdf, "ffreep", "ST", ffreep, { reg: 0, mod: "reg" }),
  row("1", 0xdb, "fneni", "", obsolete, { reg: 4, rm: 0, mod: "reg" }),
  row("1", 0xdb, "fndisi", "", obsolete, { reg: 4, rm: 1, mod: "reg" }),
  row("1", 0xdb, "fnsetpm", "", obsolete, { reg: 4, rm: 4, mod: "reg" }),
  row("1", 0xdb, "fnclex", "", fnclex, { reg: 4, rm: 2, mod: "reg" }),
  row("1", 0xdb, "fninit", "", fninit, { reg: 4, rm: 3, mod: "reg" }),
  row("1", 0xdf, "fnstsw", "AX", fnstswAx, { reg: 4, rm: 0, mod: "reg" }),
];
