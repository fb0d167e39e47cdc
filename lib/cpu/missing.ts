/**
 * Instructions that exist and are not implemented: names for the report of a #UD that is this processor's gap and not the
 * guest's mistake.
 *
 * @module
 */

import type { Insn } from "./insn.ts";

/** MMX: the second map's opcodes whose form without a prefix works on MM registers. */
const MMX_RANGES: readonly (readonly [first: number, last: number])[] = [
  [0x60, 0x6b],
  [0x6e, 0x77],
  [0x7e, 0x7f],
  [0xd1, 0xfe],
];

/** Second-map opcodes outside MMX that real processors have: opcode to name. */
const SECOND_MAP: Readonly<Record<number, string>> = {
  0x0e: "femms",
  0x0f: "3dnow",
  0x2a: "cvtpi2ps",
  0x2c: "cvttps2pi",
  0x2d: "cvtps2pi",
  0x37: "getsec",
  0x70: "pshufw",
  0x78: "vmread",
  0x79: "vmwrite",
  0xc4: "pinsrw",
  0xc5: "pextrw",
  0xc7: "rdrand/rdseed/vmptrld",
  0x01: "system (0f 01)",
  0xae: "group 15 (0f ae)",
};

/** Map number of VEX encodings of 0F; see decode.ts. */
const MAP_VEX = 4;

/** The name of a real instruction that no opcode row stands for, or undefined when the encoding is undefined for everyone. */
export function missingInstruction(map: number, opcode: number, modrm: number, i: Insn): string | undefined {
  if (map >= MAP_VEX) return "avx";
  if (map === 0) {
    if (opcode === 0x62 && i.mode64) return "evex";
    if (opcode === 0x8f && modrm >= 0xc8) return "xop";
    return undefined;
  }
  if (map === 2) return opcode <= 0x1e || (opcode >= 0xc8 && opcode <= 0xdf) ? "sha/aes/mmx" : undefined;
  if (map === 3) return opcode === 0x0f || opcode === 0xcc || opcode === 0xdf ? "sha/aes/mmx" : undefined;
  const name = SECOND_MAP[opcode];
  if (name !== undefined) return name;
  if (i.rep === 0) {
    for (const [first, last] of MMX_RANGES) if (opcode >= first && opcode <= last) return "mmx";
  }
  return undefined;
}
