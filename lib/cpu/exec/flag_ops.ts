/**
 * Instructions on single flags (CLC, STC, CMC, CLD, STD, CLI, STI, LAHF, SAHF) and the sign extensions of the accumulator.
 *
 * @module
 */

import type { Cpu } from "../cpu.ts";
import { VECTOR_GP } from "../faults.ts";
import { type Exec, type ExecBySize, type OpcodeRow, row } from "../insn.ts";
import {
  FLAG_AF,
  FLAG_CF,
  FLAG_DF,
  FLAG_IF,
  FLAG_IOPL,
  FLAG_ONE,
  FLAG_PF,
  FLAG_SF,
  FLAG_ZF,
  RAX,
  RDX,
  RFLAGS,
  SHADOW_STI,
} from "../state.ts";
import { sext16, sext8, write32 } from "./operand.ts";

/** Flags that AH holds in LAHF and SAHF. */
const AH_FLAGS = FLAG_SF | FLAG_ZF | FLAG_AF | FLAG_PF | FLAG_CF;

const clc: Exec = (cpu) => {
  cpu.s32[RFLAGS] = cpu.flags() & ~FLAG_CF;
};
const stc: Exec = (cpu) => {
  cpu.s32[RFLAGS] = cpu.flags() | FLAG_CF;
};
const cmc: Exec = (cpu) => {
  cpu.s32[RFLAGS] = cpu.flags() ^ FLAG_CF;
};
const cld: Exec = (cpu) => {
  cpu.s32[RFLAGS] &= ~FLAG_DF;
};
const std: Exec = (cpu) => {
  cpu.s32[RFLAGS] |= FLAG_DF;
};

/** CLI and STI need CPL <= IOPL (in real mode CPL is 0). */
function requireIopl(cpu: Cpu): void {
  if (cpu.cpl > (cpu.s32[RFLAGS] & FLAG_IOPL) >> 12) cpu.raise(VECTOR_GP, 0);
}

const cli: Exec = (cpu) => {
  requireIopl(cpu);
  cpu.s32[RFLAGS] &= ~FLAG_IF;
};

/** Interrupts are taken only after the instruction that follows, when they were off. */
const sti: Exec = (cpu) => {
  requireIopl(cpu);
  if ((cpu.s32[RFLAGS] & FLAG_IF) !== 0) return;
  cpu.s32[RFLAGS] |= FLAG_IF;
  cpu.setShadow(SHADOW_STI);
};

const lahf: Exec = (cpu) => {
  cpu.g8[1] = (cpu.flags() & AH_FLAGS) | FLAG_ONE;
};
const sahf: Exec = (cpu) => {
  cpu.s32[RFLAGS] = (cpu.flags() & ~AH_FLAGS) | (cpu.g8[1] & AH_FLAGS);
};

/** CBW, CWDE, CDQE. */
const widen: ExecBySize = {
  16: (cpu) => {
    cpu.g16[RAX << 2] = sext8(cpu.g8[0]);
  },
  32: (cpu) => write32(cpu, RAX, sext16(cpu.g16[0])),
  64: (cpu) => {
    cpu.g32[1] = cpu.g32[0] >> 31;
  },
};

/** CWD, CDQ, CQO. */
const spread: ExecBySize = {
  16: (cpu) => {
    cpu.g16[RDX << 2] = sext16(cpu.g16[0]) >> 15;
  },
  32: (cpu) => write32(cpu, RDX, cpu.g32[0] >> 31),
  64: (cpu) => {
    cpu.g32[RDX << 1] = cpu.g32[(RDX << 1) + 1] = cpu.g32[1] >> 31;
  },
};

/** The opcode rows of this file. */
export const FLAG_ROWS: readonly OpcodeRow[] = [
  row("1", 0xf5, "cmc", "", cmc),
  row("1", 0xf8, "clc", "", clc),
  row("1", 0xf9, "stc", "", stc),
  row("1", 0xfa, "cli", "", cli, { ends: true }),
  row("1", 0xfb, "sti", "", sti, { ends: true }),
  row("1", 0xfc, "cld", "", cld),
  row("1", 0xfd, "std", "", std),
  row("1", 0x9e, "sahf", "", sahf),
  row("1", 0x9f, "lahf", "", lahf),
  row("1", 0x98, "cbw", "", widen),
  row("1", 0x99, "cwd", "", spread),
];
