/**
 * MOV, MOVZX, MOVSX, MOVSXD, MOVBE, CMOVcc, SETcc, XCHG, XADD, CMPXCHG, CMPXCHG8B/16B, XLAT, LEA, and instructions without
 * effect here: NOP, prefetches, fences, cache-line flushes.
 *
 * @module
 */

import { ACCESS_READ } from "../bus.ts";
import type { Cpu } from "../cpu.ts";

import { LZ_ADD64, LZ_SUB64 } from "../flags.ts";
import { HOT } from "../hot_ops.ts";
import { type Exec, type ExecBySize, type Insn, type OpcodeRow, row } from "../insn.ts";
import { FLAG_ZF, RAX, RBX, RCX, RDX, STOP_EXIT } from "../state.ts";
import { reverseBytes } from "./bits.ts";
import {
  readE16,
  readE32,
  readE64,
  readE8,
  sext16,
  sext8,
  write32,
  writeE16,
  writeE32,
  writeE64,
  writeE8,
} from "./operand.ts";

const storeByte: Exec = (cpu, i) => {
  if (i.mem) cpu.moveStore8(i, cpu.g8[i.reg8]);
  else cpu.g8[i.rm8] = cpu.g8[i.reg8];
};

const storeByteImmediate: Exec = (cpu, i) => {
  if (i.mem) cpu.moveStore8(i, i.immLo);
  else cpu.g8[i.rm8] = i.immLo;
};

const loadByte: Exec = (cpu, i) => {
  const value = i.mem ? cpu.moveLoad8(i) : cpu.g8[i.rm8];
  if ((cpu.stop & STOP_EXIT) === 0) cpu.g8[i.reg8] = value;
};

const storeRegister: ExecBySize = {
  16: (cpu, i) => {
    if (i.mem) cpu.moveStore16(i, cpu.g16[i.reg << 2]);
    else cpu.g16[i.rm << 2] = cpu.g16[i.reg << 2];
  },
  32: (cpu, i) => writeE32(cpu, i, cpu.g32[i.reg << 1]),
  64: (cpu, i) => {
    cpu.v64[0] = cpu.g64[i.reg];
    writeE64(cpu, i);
  },
};

const loadRegister: ExecBySize = {
  16: (cpu, i) => {
    const value = i.mem ? cpu.moveLoad16(i) : cpu.g16[i.rm << 2];
    if ((cpu.stop & STOP_EXIT) === 0) cpu.g16[i.reg << 2] = value;
  },
  32: (cpu, i) => write32(cpu, i.reg, readE32(cpu, i)),
  64: (cpu, i) => {
    readE64(cpu, i);
    cpu.g64[i.reg] = cpu.v64[0];
  },
};

const storeImmediate: ExecBySize = {
  16: (cpu, i) => writeE16(cpu, i, i.immLo),
  32: (cpu, i) => writeE32(cpu, i, i.immLo),
  64: (cpu, i) => {
    cpu.v32[0] = i.immLo;
    cpu.v32[1] = i.immHi;
    writeE64(cpu, i);
  },
};

/** Accumulator from an absolute offset. */
const loadAccumulator: ExecBySize = {
  16: (cpu, i) => {
    cpu.g16[RAX << 2] = cpu.load16(i);
  },
  32: (cpu, i) => write32(cpu, RAX, cpu.load32(i)),
  64: (cpu, i) => {
    cpu.load64(i);
    cpu.g64[RAX] = cpu.v64[0];
  },
};

/** Accumulator to an absolute offset. */
const storeAccumulator: ExecBySize = {
  16: (cpu, i) => cpu.store16(i, cpu.g16[RAX << 2]),
  32: (cpu, i) => cpu.store32(i, cpu.g32[RAX << 1]),
  64: (cpu, i) => {
    cpu.v64[0] = cpu.g64[RAX];
    cpu.store64(i);
  },
};

/** Writes a value that is at most 32 bits wide, sign-extended as given, to a register of the operand size. */
function extendTo(cpu: Cpu, i: Insn, value: number, high: number): void {
  if (i.opsize === 2) {
    cpu.g16[i.reg << 2] = value;
    return;
  }
  cpu.g32[i.reg << 1] = value;
  cpu.g32[(i.reg << 1) + 1] = i.opsize === 8 ? high : 0;
}

const movzx8: Exec = (cpu, i) => extendTo(cpu, i, readE8(cpu, i), 0);
const movzx16: Exec = (cpu, i) => extendTo(cpu, i, readE16(cpu, i), 0);
const movsx8: Exec = (cpu, i) => {
  const value = sext8(readE8(cpu, i));
  extendTo(cpu, i, value, value >> 31);
};
const movsx16: Exec = (cpu, i) => {
  const value = sext16(readE16(cpu, i));
  extendTo(cpu, i, value, value >> 31);
};
const movsxd: ExecBySize = {
  16: (cpu, i) => {
    cpu.g16[i.reg << 2] = readE16(cpu, i);
  },
  32: (cpu, i) => write32(cpu, i.reg, readE32(cpu, i)),
  64: (cpu, i) => {
    const value = readE32(cpu, i);
    extendTo(cpu, i, value, value >> 31);
  },
};

const movbeLoad: ExecBySize = {
  16: (cpu, i) => {
    cpu.g16[i.reg << 2] = reverseBytes(cpu.load16(i)) >>> 16;
  },
  32: (cpu, i) => write32(cpu, i.reg, reverseBytes(cpu.load32(i))),
  64: (cpu, i) => {
    cpu.load64(i);
    cpu.g32[i.reg << 1] = reverseBytes(cpu.v32[1]);
    cpu.g32[(i.reg << 1) + 1] = reverseBytes(cpu.v32[0]);
  },
};

const movbeStore: ExecBySize = {
  16: (cpu, i) => cpu.store16(i, reverseBytes(cpu.g16[i.reg << 2]) >>> 16),
  32: (cpu, i) => cpu.store32(i, reverseBytes(cpu.g32[i.reg << 1])),
  64: (cpu, i) => {
    cpu.v32[0] = reverseBytes(cpu.g32[(i.reg << 1) + 1]);
    cpu.v32[1] = reverseBytes(cpu.g32[i.reg << 1]);
    cpu.store64(i);
  },
};

/** The source is read whatever the condition; a 32-bit destination is zero-extended whatever the condition. */
const cmov: ExecBySize = {
  16: (cpu, i) => {
    const value = readE16(cpu, i);
    if (cpu.condition(i.opcode & 15)) cpu.g16[i.reg << 2] = value;
  },
  32: (cpu, i) => {
    const value = readE32(cpu, i);
    write32(cpu, i.reg, cpu.condition(i.opcode & 15) ? value : cpu.g32[i.reg << 1]);
  },
  64: (cpu, i) => {
    readE64(cpu, i);
    if (cpu.condition(i.opcode & 15)) cpu.g64[i.reg] = cpu.v64[0];
  },
};

const setcc: Exec = (cpu, i) => writeE8(cpu, i, cpu.condition(i.opcode & 15) ? 1 : 0);

/** XCHG with memory is locked whatever the prefix. */
const xchg8: Exec = (cpu, i) => {
  const b = cpu.g8[i.reg8];
  let a = 0;
  if (i.mem) {
    do a = cpu.rmwLoad8(i, true); while (!cpu.rmwCommit8(i, a, b, true));
  } else {
    a = cpu.g8[i.rm8];
    cpu.g8[i.rm8] = b;
  }
  cpu.g8[i.reg8] = a;
};

const xchg: ExecBySize = {
  16: (cpu, i) => {
    const b = cpu.g16[i.reg << 2];
    let a = 0;
    if (i.mem) {
      do a = cpu.rmwLoad16(i, true); while (!cpu.rmwCommit16(i, a, b, true));
    } else {
      a = cpu.g16[i.rm << 2];
      cpu.g16[i.rm << 2] = b;
    }
    cpu.g16[i.reg << 2] = a;
  },
  32: (cpu, i) => {
    const b = cpu.g32[i.reg << 1];
    let a = 0;
    if (i.mem) {
      do a = cpu.rmwLoad32(i, true); while (!cpu.rmwCommit32(i, a, b, true));
    } else {
      a = cpu.g32[i.rm << 1];
      write32(cpu, i.rm, b);
    }
    write32(cpu, i.reg, a);
  },
  64: (cpu, i) => {
    const { v64, g64 } = cpu;
    if (i.mem) {
      let a = 0n;
      do {
        cpu.rmwLoad64(i, true);
        a = v64[0];
        v64[2] = g64[i.reg];
      } while (!cpu.rmwCommit64(i, true));
      g64[i.reg] = a;
      return;
    }
    v64[0] = g64[i.rm];
    g64[i.rm] = g64[i.reg];
    g64[i.reg] = v64[0];
  },
};

/** XCHG of the accumulator with the register in the opcode. */
const xchgAccumulator: ExecBySize = {
  16: (cpu, i) => {
    const { g16 } = cpu;
    const a = g16[0];
    g16[0] = g16[i.rm << 2];
    g16[i.rm << 2] = a;
  },
  32: (cpu, i) => {
    const { g32 } = cpu;
    if (i.rm === 0) return; // 90 is NOP: RAX keeps its high half
    const a = g32[0];
    write32(cpu, RAX, g32[i.rm << 1]);
    write32(cpu, i.rm, a);
  },
  64: (cpu, i) => {
    const { g64, v64 } = cpu;
    v64[0] = g64[0];
    g64[0] = g64[i.rm];
    g64[i.rm] = v64[0];
  },
};

const xadd8: Exec = (cpu, i) => {
  const b = cpu.g8[i.reg8];
  let a = 0;
  if (i.mem) {
    do a = cpu.rmwLoad8(i); while (!cpu.rmwCommit8(i, a, a + b));
    cpu.g8[i.reg8] = a;
  } else {
    a = cpu.g8[i.rm8];
    cpu.g8[i.reg8] = a;
    cpu.g8[i.rm8] = a + b;
  }
  cpu.setAdd32(sext8(a), sext8(b), sext8(a + b));
};

const xadd: ExecBySize = {
  16: (cpu, i) => {
    const b = cpu.g16[i.reg << 2];
    let a = 0;
    if (i.mem) {
      do a = cpu.rmwLoad16(i); while (!cpu.rmwCommit16(i, a, a + b));
      cpu.g16[i.reg << 2] = a;
    } else {
      a = cpu.g16[i.rm << 2];
      cpu.g16[i.reg << 2] = a;
      cpu.g16[i.rm << 2] = a + b;
    }
    cpu.setAdd32(sext16(a), sext16(b), sext16(a + b));
  },
  32: (cpu, i) => {
    const b = cpu.g32[i.reg << 1];
    let a = 0;
    if (i.mem) {
      do a = cpu.rmwLoad32(i); while (!cpu.rmwCommit32(i, a, a + b));
      write32(cpu, i.reg, a);
    } else {
      a = cpu.g32[i.rm << 1];
      write32(cpu, i.reg, a);
      write32(cpu, i.rm, a + b);
    }
    cpu.setAdd32(a, b, (a + b) | 0);
  },
  64: (cpu, i) => {
    const { v64, g64, lz64 } = cpu;
    const b = g64[i.reg];
    let a = 0n;
    if (i.mem) {
      do {
        cpu.rmwLoad64(i);
        a = v64[0];
        v64[2] = a + b;
      } while (!cpu.rmwCommit64(i));
      g64[i.reg] = a;
    } else {
      a = g64[i.rm];
      g64[i.reg] = a;
      g64[i.rm] = a + b;
    }
    lz64[0] = a;
    lz64[1] = b;
    lz64[2] = a + b;
    cpu.lzOp = LZ_ADD64;
  },
};

/** The destination is written (with its own value) also when the comparison fails. */
const cmpxchg8: Exec = (cpu, i) => {
  const accumulator = cpu.g8[RAX];
  let a = 0;
  if (i.mem) {
    do a = cpu.rmwLoad8(i); while (!cpu.rmwCommit8(i, a, a === accumulator ? cpu.g8[i.reg8] : a));
  } else {
    a = cpu.g8[i.rm8];
    if (a === accumulator) cpu.g8[i.rm8] = cpu.g8[i.reg8];
  }
  if (a !== accumulator) cpu.g8[RAX] = a;
  cpu.setSub32(sext8(accumulator), sext8(a), sext8(accumulator - a));
};

const cmpxchg: ExecBySize = {
  16: (cpu, i) => {
    const accumulator = cpu.g16[RAX];
    let a = 0;
    if (i.mem) {
      do a = cpu.rmwLoad16(i); while (!cpu.rmwCommit16(i, a, a === accumulator ? cpu.g16[i.reg << 2] : a));
    } else {
      a = cpu.g16[i.rm << 2];
      if (a === accumulator) cpu.g16[i.rm << 2] = cpu.g16[i.reg << 2];
    }
    if (a !== accumulator) cpu.g16[RAX] = a;
    cpu.setSub32(sext16(accumulator), sext16(a), sext16(accumulator - a));
  },
  32: (cpu, i) => {
    const accumulator = cpu.g32[RAX];
    let a = 0;
    if (i.mem) {
      do a = cpu.rmwLoad32(i); while (!cpu.rmwCommit32(i, a, a === accumulator ? cpu.g32[i.reg << 1] : a));
    } else {
      // A register that is not exchanged keeps its high half.
      a = cpu.g32[i.rm << 1];
      if (a === accumulator) write32(cpu, i.rm, cpu.g32[i.reg << 1]);
    }
    if (a !== accumulator) write32(cpu, RAX, a);
    cpu.setSub32(accumulator, a, (accumulator - a) | 0);
  },
  64: (cpu, i) => {
    const { v64, g64, lz64 } = cpu;
    const accumulator = g64[RAX];
    let a = 0n;
    if (i.mem) {
      do {
        cpu.rmwLoad64(i);
        a = v64[0];
        v64[2] = a === accumulator ? g64[i.reg] : a;
      } while (!cpu.rmwCommit64(i));
    } else {
      a = g64[i.rm];
      if (a === accumulator) g64[i.rm] = g64[i.reg];
    }
    if (a !== accumulator) g64[RAX] = a;
    lz64[0] = accumulator;
    lz64[1] = a;
    lz64[2] = accumulator - a;
    cpu.lzOp = LZ_SUB64;
  },
};

/** Sets ZF alone. */
function setZf(cpu: Cpu, equal: boolean): void {
  const flags = cpu.flags();
  cpu.setArith(equal ? flags | FLAG_ZF : flags & ~FLAG_ZF);
}

/** EDX:EAX against 8 bytes of memory, ECX:EBX into it. */
const cmpxchg8b: Exec = (cpu, i) => {
  const { v64, v32, g32 } = cpu;
  let equal = false;
  do {
    cpu.rmwLoad64(i);
    equal = v32[0] === g32[RAX << 1] && v32[1] === g32[RDX << 1];
    v64[2] = v64[0];
    if (equal) {
      v32[4] = g32[RBX << 1];
      v32[5] = g32[RCX << 1];
    }
    v64[3] = v64[0];
  } while (!cpu.rmwCommit64(i));
  if (!equal) {
    write32(cpu, RAX, v32[6]);
    write32(cpu, RDX, v32[7]);
  }
  setZf(cpu, equal);
};

/** RDX:RAX against 16 aligned bytes of memory, RCX:RBX into it. */
const cmpxchg16b: Exec = (cpu, i) => {
  const { v64, g64 } = cpu;
  cpu.ea(i);
  const lo = cpu.ea32[0];
  const hi = cpu.ea32[1];
  cpu.lockedBegin16(i.segment, lo, hi);
  cpu.read128(i.segment, lo, hi, true);
  const low = v64[0];
  const high = v64[1];
  const equal = low === g64[RAX] && high === g64[RDX];
  if (equal) {
    v64[0] = g64[RBX];
    v64[1] = g64[RCX];
  }
  cpu.write128(i.segment, lo, hi, true);
  cpu.abandonRmw();
  if (!equal) {
    g64[RAX] = low;
    g64[RDX] = high;
  }
  setZf(cpu, equal);
};

/** AL from the table at rBX. */
const xlat: Exec = (cpu, i) => {
  const { g32, g8 } = cpu;
  let lo = (g32[RBX << 1] + g8[0]) | 0;
  let hi = 0;
  if (i.addrsize === 8) hi = g32[(RBX << 1) + 1] + ((lo >>> 0) < g8[0] ? 1 : 0);
  else if (i.addrsize === 2) lo &= 0xffff;
  g8[0] = cpu.read8(i.segment, lo, hi);
};

const lea: ExecBySize = {
  16: (cpu, i) => {
    cpu.ea(i);
    cpu.g16[i.reg << 2] = cpu.ea32[0];
  },
  32: (cpu, i) => {
    cpu.ea(i);
    write32(cpu, i.reg, cpu.ea32[0]);
  },
  64: (cpu, i) => {
    cpu.ea(i);
    cpu.g32[i.reg << 1] = cpu.ea32[0];
    cpu.g32[(i.reg << 1) + 1] = cpu.ea32[1];
  },
};

const nop: Exec = () => {};

/** CLFLUSH and CLFLUSHOPT: no cache to flush, but the address is checked as for a load of one byte. */
const clflush: Exec = (cpu, i) => {
  cpu.ea(i);
  const segment = i.segment;
  cpu.touch(segment, cpu.ea32[0], cpu.ea32[1], ACCESS_READ);
};

/** A fence: orders this processor's memory accesses before those after it. */
const fence: Exec = (cpu) => {
  Atomics.load(cpu.s32, 0);
};

const HOT_RR = { 32: HOT.mov32rr, 64: HOT.mov64rr };
const HOT_RI = { 32: HOT.mov32ri, 64: HOT.mov64ri };

/** The opcode rows of this file. */
export const MOV_ROWS: readonly OpcodeRow[] = [
  row("1", 0x88, "mov", "Eb,Gb", storeByte),
  row("1", 0x89, "mov", "Ev,Gv", storeRegister, { op: HOT_RR, opMem: { 32: HOT.mov32mr, 64: HOT.mov64mr } }),
  row("1", 0x8a, "mov", "Gb,Eb", loadByte),
  row("1", 0x8b, "mov", "Gv,Ev", loadRegister, { op: HOT_RR, opMem: { 32: HOT.mov32rm, 64: HOT.mov64rm } }),
  row("1", 0xa0, "mov", "ALb,Ob", (cpu, i) => {
    cpu.g8[0] = cpu.load8(i);
  }),
  row("1", 0xa1, "mov", "rAX,Ov", loadAccumulator),
  row("1", 0xa2, "mov", "Ob,ALb", (cpu, i) => cpu.store8(i, cpu.g8[0])),
  row("1", 0xa3, "mov", "Ov,rAX", storeAccumulator),
  row("1", 0xb0, "mov", "Zb,Ib", (cpu, i) => {
    cpu.g8[i.rm8] = i.immLo;
  }, { count: 8 }),
  row("1", 0xb8, "mov", "Zv,Iv", storeImmediate, { count: 8, op: HOT_RI }),
  row("1", 0xc6, "mov", "Eb,Ib", storeByteImmediate, { reg: 0 }),
  row("1", 0xc7, "mov", "Ev,Iz", storeImmediate, {
    reg: 0,
    op: HOT_RI,
    opMem: { 32: HOT.mov32mi, 64: HOT.mov64mi },
  }),
  row("1", 0x63, "movsxd", "Gv,Ev", movsxd, {
    only64: true,
    op: { 64: HOT.movsxdrr },
    opMem: { 64: HOT.movsxdrm },
  }),
  row("0f", 0xb6, "movzx", "Gv,Eb1", movzx8, {
    op: { 32: HOT.movzx8rr, 64: HOT.movzx8rr },
    opMem: { 32: HOT.movzx8rm, 64: HOT.movzx8rm },
  }),
  row("0f", 0xb7, "movzx", "Gv,Ew", movzx16),
  row("0f", 0xbe, "movsx", "Gv,Eb1", movsx8),
  row("0f", 0xbf, "movsx", "Gv,Ew", movsx16),
  row("0f38", 0xf0, "movbe", "Gv,Mv", movbeLoad, { prefix: "none" }),
  row("0f38", 0xf1, "movbe", "Mv,Gv", movbeStore, { prefix: "none" }),
  row("0f38", 0xf0, "movbe", "Gv,Mv", movbeLoad),
  row("0f38", 0xf1, "movbe", "Mv,Gv", movbeStore),
  row("0f", 0x40, "cmov", "Gv,Ev", cmov, { count: 16 }),
  row("0f", 0x90, "set", "Eb", setcc, { count: 16 }),
  row("1", 0x86, "xchg", "Eb,Gb", xchg8, { lockable: true }),
  row("1", 0x87, "xchg", "Ev,Gv", xchg, { lockable: true }),
  row("1", 0x90, "xchg", "rAX,Zv", xchgAccumulator, { count: 8 }),
  row("0f", 0xc0, "xadd", "Eb,Gb", xadd8, { lockable: true }),
  row("0f", 0xc1, "xadd", "Ev,Gv", xadd, { lockable: true }),
  row("0f", 0xb0, "cmpxchg", "Eb,Gb", cmpxchg8, { lockable: true }),
  row("0f", 0xb1, "cmpxchg", "Ev,Gv", cmpxchg, { lockable: true }),
  row("0f", 0xc7, "cmpxchg8b", "M", cmpxchg8b, { reg: 1, w: 0, lockable: true }),
  row("0f", 0xc7, "cmpxchg16b", "M", cmpxchg16b, { reg: 1, w: 1, lockable: true }),
  row("1", 0xd7, "xlat", "", xlat),
  row("1", 0x8d, "lea", "Gv,M", lea, { opMem: { 32: HOT.lea32, 64: HOT.lea64 } }),
  row("1", 0x90, "pause", "", (cpu) => cpu.pause(), { prefix: "f3", op: HOT.pause }),
  row("0f", 0x0d, "prefetchw", "M", nop),
  row("0f", 0x18, "prefetch", "Ev", nop, { reg: 0 }),
  row("0f", 0x18, "prefetch", "Ev", nop, { reg: 1 }),
  row("0f", 0x18, "prefetch", "Ev", nop, { reg: 2 }),
  row("0f", 0x18, "prefetch", "Ev", nop, { reg: 3 }),
  row("0f", 0x18, "nop", "Ev", nop),
  row("0f", 0x19, "nop", "Ev", nop, { count: 7 }),
  row("0f", 0xae, "lfence", "", fence, { reg: 5, mod: "reg" }),
  row("0f", 0xae, "mfence", "", fence, { reg: 6, mod: "reg" }),
  row("0f", 0xae, "sfence", "", fence, { reg: 7, mod: "reg" }),
  row("0f", 0xae, "clflush", "M", clflush, { reg: 7 }),
];
