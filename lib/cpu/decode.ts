/**
 * The instruction decoder: bytes and code size in, `Insn` out. It knows prefixes, REX, VEX, ModRM and immediates; what
 * the opcodes mean comes from the rows of the opcode map (AMD64 Architecture Programmer's Manual volume 3, chapter 1 and
 * appendix A).
 *
 * Bytes are read one at a time and only as the encoding demands them, so that an instruction is never held against bytes
 * that it does not have: the 16th byte, or the first one of a page that is not there.
 *
 * @module
 */

import {
  EA_16,
  EA_32,
  EA_BASE64,
  EA_RIP,
  EA_SIB64,
  type Exec,
  type ExecBySize,
  Insn,
  type OpBySize,
  type OpcodeRow,
} from "./insn.ts";
import { missingInstruction } from "./missing.ts";
import { raiseTooLong, raiseUndefined, raiseUnimplemented } from "./exec/undefined.ts";

/** Longest instruction in bytes. */
export const INSTRUCTION_BYTES_MAX = 15;

/** Immediate kinds of a compiled row. */
const IMM_NONE = 0;
const IMM_BYTE = 1;
const IMM_BYTE_SIGNED = 2;
const IMM_WORD = 3;
const IMM_Z = 4;
const IMM_V = 5;
const IMM_OFFSET = 6;
const IMM_FAR = 7;
const IMM_JUMP_BYTE = 8;
const IMM_JUMP_Z = 9;

/** Map numbers. */
const MAPS: Record<OpcodeRow["map"], number> = { "1": 0, "0f": 1, "0f38": 2, "0f3a": 3, vex1: 4, vex2: 5, vex3: 6 };
const MAP_COUNT = 7;
/** Mandatory prefixes as bits of a mask: none, 66, F3, F2. */
const PREFIX_MASKS = { none: 1, "66": 2, f3: 4, f2: 8 } as const;
const PREFIX_ANY = 15;

/** Which registers 16-bit addressing adds, by ModRM.rm: base, index (-1 none), and default segment. */
const EA16_BASE = [3, 3, 5, 5, 6, 7, 5, 3];
const EA16_INDEX = [6, 7, 6, 7, -1, -1, -1, -1];
const EA16_STACK = [false, false, true, true, false, false, true, false];

/** A row prepared for the decoder. */
interface Entry {
  readonly row: OpcodeRow;
  readonly mod: "mem" | "reg" | undefined;
  readonly prefixes: number;
  readonly modrm: boolean;
  readonly byteOperand: boolean;
  readonly immediate: number;
  readonly secondByte: boolean;
  /** Whether the register of ModRM.reg is the first operand. */
  readonly regFirst: boolean;
  readonly opcodeRegister: boolean;
  /** Control and debug register moves: ModRM.mod is ignored, ModRM.rm is a register. */
  readonly alwaysRegister: boolean;
}

/** The rows of one opcode. */
interface Rows {
  readonly entries: readonly Entry[];
  /** Whether a ModRM byte follows. */
  readonly modrm: boolean;
  /** The only row, when it stands for every encoding. */
  readonly only: Entry | undefined;
}

/** Prepares a row. */
function compile(row: OpcodeRow): Entry {
  const operands = row.operands === "" ? [] : row.operands.split(",");
  const modrm = row.reg !== undefined || row.mod !== undefined ||
    operands.some((operand) => /^[EMRUWQNGSCDVP]([a-z]|$)/.test(operand));
  let immediate = IMM_NONE;
  for (const operand of operands) {
    if (operand === "Ib") immediate = IMM_BYTE;
    else if (operand === "Ibs") immediate = IMM_BYTE_SIGNED;
    else if (operand === "Iw") immediate = IMM_WORD;
    else if (operand === "Iz") immediate = IMM_Z;
    else if (operand === "Iv") immediate = IMM_V;
    else if (operand === "Jb") immediate = IMM_JUMP_BYTE;
    else if (operand === "Jz") immediate = IMM_JUMP_Z;
    else if (operand.startsWith("O")) immediate = IMM_OFFSET;
    else if (operand === "Ap") immediate = IMM_FAR;
  }
  return {
    row,
    mod: row.mod ??
      (operands.some((operand) => operand.startsWith("M"))
        ? "mem"
        : operands.some((operand) => /^[RUN]([a-z]|$)/.test(operand))
        ? "reg"
        : undefined),
    prefixes: row.prefix === undefined ? PREFIX_ANY : PREFIX_MASKS[row.prefix],
    modrm,
    byteOperand: operands.some((operand) => /^(E|G|Z|M|O|X|Y|AL|A)b$/.test(operand)),
    immediate,
    secondByte: operands.includes("Ib2"),
    regFirst: operands.length > 0 && /^[GV]/.test(operands[0]),
    alwaysRegister: operands.includes("C") || operands.includes("D"),
    opcodeRegister: operands.some((operand) => operand.startsWith("Z")),
  };
}

/** The opcode maps, from rows. */
export class OpcodeMap {
  readonly #entries: (Rows | undefined)[] = new Array(MAP_COUNT * 256);

  /** Merges rows; of two that fit, the more particular one wins: with a mandatory prefix before without, then in order. */
  constructor(rows: readonly OpcodeRow[]) {
    const lists: (Entry[] | undefined)[] = new Array(MAP_COUNT * 256);
    for (const row of rows) {
      for (let n = 0; n < (row.count ?? 1); n++) {
        const at = MAPS[row.map] * 256 + row.opcode + n;
        (lists[at] ??= []).push(compile(row));
      }
    }
    lists.forEach((entries, at) => {
      if (entries === undefined) return;
      entries.sort((a, b) => rank(a) - rank(b));
      const only = entries.length === 1 && !isConditional(entries[0]) ? entries[0] : undefined;
      this.#entries[at] = { entries, modrm: entries.some((entry) => entry.modrm), only };
    });
  }

  /** The rows of an opcode. */
  at(map: number, opcode: number): Rows | undefined {
    return this.#entries[map * 256 + opcode];
  }

  /** Every row's mnemonic, once. */
  names(): string[] {
    const names = new Set<string>();
    for (const rows of this.#entries) for (const entry of rows?.entries ?? []) names.add(entry.row.name);
    return [...names].sort();
  }
}

/** Whether a row stands for some encodings of its opcode only. */
function isConditional({ row, mod, prefixes, alwaysRegister }: Entry): boolean {
  return row.reg !== undefined || row.rm !== undefined || row.w !== undefined || row.invalid64 === true ||
    row.only64 === true || mod !== undefined || prefixes !== PREFIX_ANY || alwaysRegister;
}

/** Sorts particular rows before general ones. */
function rank(entry: Entry): number {
  return entry.row.prefix === undefined ? 1 : 0;
}

/** Decodes instructions from bytes. One per processor: it keeps its place in fields. */
export class Decoder {
  readonly #map: OpcodeMap;
  #bytes: Uint8Array = new Uint8Array(0);
  #start = 0;
  #at = 0;
  #end = 0;
  #short = false;
  #tooLong = false;
  #modrm = 0;

  /** A decoder for the given opcode map. */
  constructor(map: OpcodeMap) {
    this.#map = map;
  }

  /**
   * Decodes the instruction at `bytes[at]`, of which `available` bytes can be read; `codeSize` is 16, 32 or 64.
   * `offset` is its distance from the start of the block. Returns null when it needs more bytes than are available.
   * An undefined or too long instruction decodes to one that raises the exception.
   */
  decode(bytes: Uint8Array, at: number, available: number, codeSize: number, offset = 0): Insn | null {
    this.#bytes = bytes;
    this.#start = this.#at = at;
    this.#end = at + available;
    this.#short = this.#tooLong = false;
    const i = this.#instruction(codeSize);
    if (this.#tooLong) return this.#fail(i, raiseTooLong, offset);
    if (this.#short) return null;
    this.#finish(i, offset);
    return i;
  }

  /** Sets length and offsets. */
  #finish(i: Insn, offset: number): void {
    i.length = this.#at - this.#start;
    i.offset = offset;
    i.next = offset + i.length;
  }

  /** Makes `i` an instruction that raises an exception. */
  #fail(i: Insn, exec: Exec, offset: number): Insn {
    i.op = 0;
    i.exec = exec;
    i.ends = true;
    this.#finish(i, offset);
    return i;
  }

  /** The next byte; 0 when there is none, which is noted. */
  #u8(): number {
    if (this.#at - this.#start >= INSTRUCTION_BYTES_MAX) {
      this.#tooLong = true;
      return 0;
    }
    if (this.#at >= this.#end) {
      this.#short = true;
      return 0;
    }
    return this.#bytes[this.#at++];
  }

  #s8(): number {
    return this.#u8() << 24 >> 24;
  }

  #u16(): number {
    const low = this.#u8();
    return low | (this.#u8() << 8);
  }

  #s32(): number {
    const low = this.#u16();
    return low | (this.#u16() << 16);
  }

  /** Prefixes and opcode. */
  #instruction(codeSize: number): Insn {
    const i = new Insn(raiseUndefined);
    i.mode64 = codeSize === 64;
    let prefix67 = false;
    let opcode = 0;
    for (;;) {
      opcode = this.#u8();
      if (this.#short || this.#tooLong) return i;
      if (i.mode64 && (opcode & 0xf0) === 0x40) {
        i.rex = opcode;
        continue;
      }
      if (!this.#prefix(i, opcode)) {
        if (opcode !== 0x67) break;
        prefix67 = true;
      }
      i.rex = 0;
    }
    i.addrsize = codeSize === 64 ? (prefix67 ? 4 : 8) : (codeSize === 32) !== prefix67 ? 4 : 2;
    let map = 0;
    if (opcode === 0x0f) {
      opcode = this.#u8();
      map = 1;
      if (opcode === 0x38 || opcode === 0x3a) {
        map = opcode === 0x38 ? 2 : 3;
        opcode = this.#u8();
      }
    } else if (opcode === 0xc4 || opcode === 0xc5) {
      const peek = this.#u8();
      this.#at--;
      if (this.#short || this.#tooLong) {
        this.#at++;
        return i;
      }
      if (i.mode64 || peek >= 0xc0) {
        if (i.rex !== 0 || i.prefix66 || i.rep !== 0 || i.lock) return this.#undefined(i);
        map = this.#vex(i, opcode);
        opcode = this.#u8();
        if (map < 0) return this.#undefined(i);
      }
    }
    if (this.#short || this.#tooLong) return i;
    i.opcode = opcode;
    this.#select(i, map, opcode, codeSize);
    return i;
  }

  /** Notes a legacy prefix; false when `byte` is none of those handled here. */
  #prefix(i: Insn, byte: number): boolean {
    switch (byte) {
      case 0x26:
      case 0x2e:
      case 0x36:
      case 0x3e:
        if (!i.mode64) i.override = (byte >> 3) & 3;
        return true;
      case 0x64:
      case 0x65:
        i.override = byte - 0x60;
        return true;
      case 0x66:
        i.prefix66 = true;
        return true;
      case 0xf0:
        i.lock = true;
        return true;
      case 0xf2:
      case 0xf3:
        i.rep = byte;
        return true;
      default:
        return false;
    }
  }

  /** A VEX prefix: fills in rex, vvvv and the implied prefix, and returns the map, or -1 for one that does not exist. */
  #vex(i: Insn, first: number): number {
    let map = 1;
    const b1 = this.#u8();
    let last = b1;
    let rex = 0x40;
    if ((b1 & 0x80) === 0) rex |= 4;
    if (first === 0xc4) {
      last = this.#u8();
      if ((b1 & 0x40) === 0) rex |= 2;
      if ((b1 & 0x20) === 0) rex |= 1;
      map = b1 & 0x1f;
      if ((last & 0x80) !== 0) rex |= 8;
    }
    if (!i.mode64) rex &= 8 | 0x40;
    i.rex = rex;
    i.vvvv = (~last >> 3) & (i.mode64 ? 15 : 7);
    i.vexL = (last & 4) !== 0;
    const pp = last & 3;
    i.prefix66 = pp === 1;
    i.rep = pp === 2 ? 0xf3 : pp === 3 ? 0xf2 : 0;
    return map >= 1 && map <= 3 ? 3 + map : -1;
  }

  /** Chooses the row and decodes the operands. */
  #select(i: Insn, map: number, opcode: number, codeSize: number): void {
    const rows = this.#map.at(map, opcode);
    if (rows === undefined) {
      this.#missing(i, map, opcode);
      return;
    }
    if (rows.modrm) {
      this.#modrm = this.#u8();
      if (this.#short || this.#tooLong) return;
    }
    const modrm = this.#modrm;
    const mem = rows.modrm && modrm < 0xc0;
    if (rows.only !== undefined) {
      this.#operands(i, rows.only, codeSize, mem);
      return;
    }
    const have = i.rep === 0xf3 ? 4 : i.rep === 0xf2 ? 8 : i.prefix66 ? 2 : 1;
    for (const entry of rows.entries) {
      const row = entry.row;
      if ((entry.prefixes & have) === 0) continue;
      if (row.reg !== undefined && row.reg !== ((modrm >> 3) & 7)) continue;
      if (entry.mod !== undefined && !entry.alwaysRegister && (entry.mod === "mem") !== mem) continue;
      if (row.rm !== undefined && row.rm !== (modrm & 7)) continue;
      if (row.w !== undefined && row.w !== ((i.rex >> 3) & 1)) continue;
      if (row.invalid64 === true && i.mode64) continue;
      if (row.only64 === true && !i.mode64) continue;
      this.#operands(i, entry, codeSize, mem && !entry.alwaysRegister);
      return;
    }
    this.#missing(i, map, opcode);
  }

  /** An undefined instruction, or one that exists and is not implemented. */
  #missing(i: Insn, map: number, opcode: number): void {
    const name = missingInstruction(map, opcode, this.#modrm, i);
    if (name !== undefined) {
      const taken = this.#bytes.subarray(this.#start, Math.min(this.#end, this.#start + INSTRUCTION_BYTES_MAX));
      i.mnemonic = `${name} (${Array.from(taken, (byte) => byte.toString(16).padStart(2, "0")).join(" ")})`;
      i.exec = raiseUnimplemented;
    }
    i.op = 0;
    i.ends = true;
  }

  /** An undefined instruction. */
  #undefined(i: Insn): Insn {
    i.exec = raiseUndefined;
    i.ends = true;
    return i;
  }

  /** Sizes, ModRM, immediates and the executor. */
  #operands(i: Insn, entry: Entry, codeSize: number, mem: boolean): void {
    const row = entry.row;
    const w = (i.rex & 8) !== 0;
    const shorter = i.prefix66 && row.prefix !== "66";
    if (entry.byteOperand) i.opsize = 1;
    else if (!i.mode64) i.opsize = (codeSize === 32) !== shorter ? 4 : 2;
    else if (row.size64 === "force" || w) i.opsize = 8;
    else if (shorter) i.opsize = 2;
    else i.opsize = row.size64 === "default" ? 8 : 4;
    i.mnemonic = row.name;
    i.segment = i.override >= 0 ? i.override : 3;
    if (entry.opcodeRegister) {
      i.rm = (i.opcode & 7) | ((i.rex & 1) << 3);
      i.rm8 = byteRegister(i.rm, i.rex);
    }
    if (entry.modrm) this.#registers(i, mem);
    i.segmentBit = 1 << i.segment;
    this.#immediate(i, entry);
    if (i.lock && !(row.lockable === true && mem)) {
      i.exec = raiseUndefined;
      i.ends = true;
      return;
    }
    const exec = row.exec;
    i.exec = typeof exec === "function" ? exec : bySize(exec, i.opsize);
    i.dst = entry.regFirst ? i.reg : i.rm;
    i.src = entry.regFirst ? i.rm : i.reg;
    i.ends = row.ends === true;
    const op = i.lock ? 0 : mem ? row.opMem : row.op;
    i.op = op === undefined ? 0 : typeof op === "number" ? op : opOfSize(op, i.opsize);
    if (i.op !== 0 && i.opsize === 8 && entry.immediate !== IMM_NONE) {
      i.imm64 = BigInt.asUintN(64, (BigInt(i.immHi) << 32n) | BigInt(i.immLo >>> 0));
    }
  }

  /** ModRM, SIB and displacement. */
  #registers(i: Insn, mem: boolean): void {
    const modrm = this.#modrm;
    const mod = modrm >> 6;
    i.mod = mod;
    i.reg = ((modrm >> 3) & 7) | ((i.rex & 4) << 1);
    i.reg8 = byteRegister(i.reg, i.rex);
    i.mem = mem;
    if (!mem) {
      i.rm = (modrm & 7) | ((i.rex & 1) << 3);
      i.rm8 = byteRegister(i.rm, i.rex);
      return;
    }
    i.rm = -1;
    let stack = false;
    if (i.addrsize === 2) stack = this.#address16(i, mod, modrm & 7);
    else stack = this.#address32(i, mod, modrm & 7);
    if (stack && i.override < 0) i.segment = 2;
  }

  /** 16-bit addressing; true when the default segment is SS. */
  #address16(i: Insn, mod: number, rm: number): boolean {
    i.ea = EA_16;
    if (mod === 0 && rm === 6) {
      i.dispLo = this.#u16();
      return false;
    }
    i.base = EA16_BASE[rm];
    i.index = EA16_INDEX[rm];
    if (mod === 1) i.dispLo = this.#s8();
    else if (mod === 2) i.dispLo = this.#u16();
    return EA16_STACK[rm];
  }

  /** 32- and 64-bit addressing; true when the default segment is SS. */
  #address32(i: Insn, mod: number, rm: number): boolean {
    i.ea = i.addrsize === 8 ? EA_BASE64 : EA_32;
    let stack = false;
    if (rm === 4) {
      const sib = this.#u8();
      const index = ((sib >> 3) & 7) | ((i.rex & 2) << 2);
      if (index !== 4) {
        i.index = index;
        i.scale = sib >> 6;
      }
      if ((sib & 7) === 5 && mod === 0) {
        i.dispLo = this.#s32();
        i.base = -1;
      } else {
        i.base = (sib & 7) | ((i.rex & 1) << 3);
        stack = (sib & 7) === 4 || (sib & 7) === 5;
        stack &&= (i.rex & 1) === 0;
      }
      if (i.addrsize === 8) i.ea = EA_SIB64;
    } else if (rm === 5 && mod === 0) {
      i.dispLo = this.#s32();
      if (i.mode64) i.ea = EA_RIP;
    } else {
      i.base = rm | ((i.rex & 1) << 3);
      stack = i.base === 5;
    }
    if (mod === 1) i.dispLo = this.#s8();
    else if (mod === 2) i.dispLo = this.#s32();
    i.dispHi = i.dispLo >> 31;
    if (i.ea === EA_SIB64 && i.base >= 0 && i.index < 0) i.ea = EA_BASE64;
    return stack;
  }

  /** Immediates, branch displacements, absolute offsets. */
  #immediate(i: Insn, entry: Entry): void {
    switch (entry.immediate) {
      case IMM_NONE:
        return;
      case IMM_BYTE:
        i.immLo = this.#u8();
        return;
      case IMM_BYTE_SIGNED:
      case IMM_JUMP_BYTE:
        i.immLo = this.#s8();
        break;
      case IMM_WORD:
        i.immLo = this.#u16();
        if (entry.secondByte) i.imm2 = this.#u8();
        return;
      case IMM_Z:
      case IMM_JUMP_Z:
        i.immLo = i.opsize === 2 ? this.#u16() << 16 >> 16 : this.#s32();
        break;
      case IMM_V:
        i.immLo = i.opsize === 2 ? this.#u16() << 16 >> 16 : this.#s32();
        if (i.opsize === 8) {
          i.immHi = this.#s32();
          return;
        }
        break;
      case IMM_OFFSET:
        i.mem = true;
        i.dispLo = i.addrsize === 2 ? this.#u16() : this.#s32();
        i.dispHi = i.addrsize === 8 ? this.#s32() : 0;
        i.ea = i.addrsize === 8 ? EA_SIB64 : i.addrsize === 4 ? EA_32 : EA_16;
        return;
      case IMM_FAR:
        i.immLo = i.opsize === 2 ? this.#u16() : this.#s32();
        i.imm2 = this.#u16();
        return;
    }
    i.immHi = i.immLo >> 31;
  }
}

/** The fast-switch number for an operand size, 0 when there is none. */
function opOfSize(op: OpBySize, opsize: number): number {
  return (opsize === 8 ? op[64] : opsize === 4 ? op[32] : 0) ?? 0;
}

/** Byte offset of an 8-bit register: without REX, 4 to 7 are AH, CH, DH and BH. */
function byteRegister(register: number, rex: number): number {
  return rex === 0 && register >= 4 ? ((register - 4) << 3) + 1 : register << 3;
}

/** The executor for an operand size. */
function bySize(exec: ExecBySize, opsize: number): Exec {
  return opsize === 2 ? exec[16] : opsize === 8 ? exec[64] ?? exec[32] : exec[32];
}
