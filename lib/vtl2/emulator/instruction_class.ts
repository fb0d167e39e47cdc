/**
 * What kind of instruction the emulator was given (openvmm: vm/x86/x86emu emulator.rs).
 *
 * @module
 */
import type { Insn } from "../../cpu/insn.ts";

/** Iterations of a REP instruction in one exit (openvmm: x86emu rep.rs MAX_REP_LOOPS). */
export const REP_ITERATIONS_MAX = 1024;

const STRING = /^(ins|outs|movs|cmps|stos|lods|scas)[bwdq]?$/;
/** Instructions that use descriptor tables or load segment registers. */
const SYSTEM: ReadonlySet<string> = new Set(
  "sgdt sidt lgdt lidt sldt lldt str ltr smsw lmsw verr verw lar lsl les lds lss lfs lgs callf jmpf retf iret".split(
    " ",
  ),
);

/** Instructions that compilers access devices with, of general-purpose registers only. */
const INTEGER: ReadonlySet<string> = new Set(
  "mov movzx movsx movsxd add or adc sbb and sub xor cmp test inc dec neg not xchg xadd bt bts btr btc".split(" "),
);

/** Opcodes of the string instructions in the one-byte map. */
function hasStringOpcode(opcode: number): boolean {
  return opcode >= 0x6c && opcode <= 0x6f || opcode >= 0xa4 && opcode <= 0xa7 || opcode >= 0xaa && opcode <= 0xaf;
}

/** Whether it is one of INS, OUTS, MOVS, CMPS, STOS, LODS and SCAS. */
export function isString(insn: Insn): boolean {
  return hasStringOpcode(insn.opcode) && !insn.mem && STRING.test(insn.mnemonic);
}

/** Whether one of its operands is memory: by ModRM, or the absolute offset of the MOV forms A0 to A3. */
export function hasMemoryOperand(insn: Insn): boolean {
  return insn.mem || (insn.opcode >= 0xa0 && insn.opcode <= 0xa3 && insn.mnemonic === "mov");
}

/**
 * Whether it needs processor state that the emulator has not been given (descriptor tables) or changes what it does not give
 * back (segment registers). Such instructions are not emulated.
 */
export function usesSystemState(insn: Insn): boolean {
  if (insn.mnemonic === "mov" && (insn.opcode === 0x8c || insn.opcode === 0x8e)) return true;
  return SYSTEM.has(insn.mnemonic);
}

/** Whether it is one of the frequent instructions that leave the x87/SSE state alone. */
export function isInteger(insn: Insn): boolean {
  return INTEGER.has(insn.mnemonic) || isString(insn);
}
