/**
 * SSE and SSE2 conversions between floating-point formats and integers (AMD APM volume 4). The forms with MMX registers
 * do not exist here.
 *
 * @module
 */

import type { Cpu } from "../cpu.ts";
import {
  convert32to64,
  convert32toInt32,
  convert32toInt64,
  convertInt32to32,
  convertInt64to32,
} from "../float/binary32.ts";
import {
  convert64to32,
  convert64toInt32,
  convert64toInt64,
  convertInt32to64,
  convertInt64to64,
} from "../float/binary64.ts";
import { B_I32, R_I32 } from "../float/lanes.ts";
import { type Exec, type Insn, type OpcodeRow, row } from "../insn.ts";
import {
  beginFloat,
  endFloat,
  putGpr32,
  requireSse,
  resultToRegister,
  source128,
  source32,
  source64,
  X,
} from "./sse_operand.ts";

/** REX.W among the bits of `Insn.rex`. */
const REX_W = 8;

/** Loads the general-purpose source, register or memory, to B; true when it has 64 bits. */
function integerSource(cpu: Cpu, i: Insn): boolean {
  const wide = (i.rex & REX_W) !== 0;
  if (!i.mem) {
    B_I32[0] = cpu.g32[2 * i.rm];
    B_I32[1] = cpu.g32[2 * i.rm + 1];
  } else if (wide) {
    cpu.load64(i);
    B_I32[0] = cpu.v32[0];
    B_I32[1] = cpu.v32[1];
  } else {
    B_I32[0] = cpu.load32(i);
  }
  return wide;
}

/** CVTSI2SS. */
function cvtsi2ss(cpu: Cpu, i: Insn): void {
  requireSse(cpu);
  const wide = integerSource(cpu, i);
  beginFloat(cpu);
  if (wide) convertInt64to32();
  else convertInt32to32(0);
  endFloat(cpu);
  cpu.s32[X + 4 * i.reg] = R_I32[0];
}

/** CVTSI2SD. */
function cvtsi2sd(cpu: Cpu, i: Insn): void {
  requireSse(cpu);
  const wide = integerSource(cpu, i);
  beginFloat(cpu);
  if (wide) convertInt64to64();
  else convertInt32to64(0, 0);
  endFloat(cpu);
  cpu.s32[X + 4 * i.reg] = R_I32[0];
  cpu.s32[X + 4 * i.reg + 1] = R_I32[1];
}

/** Writes the integer in R to the general-purpose destination. */
function putInteger(cpu: Cpu, i: Insn, wide: boolean): void {
  if (wide) {
    cpu.g32[2 * i.reg] = R_I32[0];
    cpu.g32[2 * i.reg + 1] = R_I32[1];
  } else {
    putGpr32(cpu, i.reg, R_I32[0]);
  }
}

/** CVTSS2SI, CVTTSS2SI. */
function cvtss2si(truncate: boolean): Exec {
  return (cpu, i) => {
    requireSse(cpu);
    source32(cpu, i);
    beginFloat(cpu);
    const wide = (i.rex & REX_W) !== 0;
    if (wide) convert32toInt64(truncate);
    else convert32toInt32(0, truncate);
    endFloat(cpu);
    putInteger(cpu, i, wide);
  };
}

/** CVTSD2SI, CVTTSD2SI. */
function cvtsd2si(truncate: boolean): Exec {
  return (cpu, i) => {
    requireSse(cpu);
    source64(cpu, i);
    beginFloat(cpu);
    const wide = (i.rex & REX_W) !== 0;
    if (wide) convert64toInt64(truncate);
    else convert64toInt32(0, 0, truncate);
    endFloat(cpu);
    putInteger(cpu, i, wide);
  };
}

/** CVTPS2PD. */
function cvtps2pd(cpu: Cpu, i: Insn): void {
  requireSse(cpu);
  source64(cpu, i);
  beginFloat(cpu);
  convert32to64(0, 0);
  convert32to64(1, 1);
  endFloat(cpu);
  resultToRegister(cpu, i.reg);
}

/** CVTPD2PS: the upper half of the destination becomes zero. */
function cvtpd2ps(cpu: Cpu, i: Insn): void {
  requireSse(cpu);
  source128(cpu, i);
  beginFloat(cpu);
  convert64to32(0, 0);
  convert64to32(1, 1);
  endFloat(cpu);
  R_I32[2] = 0;
  R_I32[3] = 0;
  resultToRegister(cpu, i.reg);
}

/** CVTSS2SD. */
function cvtss2sd(cpu: Cpu, i: Insn): void {
  requireSse(cpu);
  source32(cpu, i);
  beginFloat(cpu);
  convert32to64(0, 0);
  endFloat(cpu);
  cpu.s32[X + 4 * i.reg] = R_I32[0];
  cpu.s32[X + 4 * i.reg + 1] = R_I32[1];
}

/** CVTSD2SS. */
function cvtsd2ss(cpu: Cpu, i: Insn): void {
  requireSse(cpu);
  source64(cpu, i);
  beginFloat(cpu);
  convert64to32(0, 0);
  endFloat(cpu);
  cpu.s32[X + 4 * i.reg] = R_I32[0];
}

/** CVTDQ2PS. */
function cvtdq2ps(cpu: Cpu, i: Insn): void {
  requireSse(cpu);
  source128(cpu, i);
  beginFloat(cpu);
  for (let k = 0; k < 4; k++) convertInt32to32(k);
  endFloat(cpu);
  resultToRegister(cpu, i.reg);
}

/** CVTPS2DQ, CVTTPS2DQ. */
function cvtps2dq(truncate: boolean): Exec {
  return (cpu, i) => {
    requireSse(cpu);
    source128(cpu, i);
    beginFloat(cpu);
    for (let k = 0; k < 4; k++) convert32toInt32(k, truncate);
    endFloat(cpu);
    resultToRegister(cpu, i.reg);
  };
}

/** CVTPD2DQ, CVTTPD2DQ: the upper half of the destination becomes zero. */
function cvtpd2dq(truncate: boolean): Exec {
  return (cpu, i) => {
    requireSse(cpu);
    source128(cpu, i);
    beginFloat(cpu);
    convert64toInt32(0, 0, truncate);
    convert64toInt32(1, 1, truncate);
    endFloat(cpu);
    R_I32[2] = 0;
    R_I32[3] = 0;
    resultToRegister(cpu, i.reg);
  };
}

/** CVTDQ2PD. */
function cvtdq2pd(cpu: Cpu, i: Insn): void {
  requireSse(cpu);
  source64(cpu, i);
  convertInt32to64(0, 0);
  convertInt32to64(1, 1);
  resultToRegister(cpu, i.reg);
}

/** The opcode rows of this file. */
export const rows: readonly OpcodeRow[] = [
  row("0f", 0x2a, "cvtsi2ss", "V,E", cvtsi2ss, { prefix: "f3" }),
  row("0f", 0x2a, "cvtsi2sd", "V,E", cvtsi2sd, { prefix: "f2" }),
  row("0f", 0x2c, "cvttss2si", "G,W", cvtss2si(true), { prefix: "f3" }),
  row("0f", 0x2c, "cvttsd2si", "G,W", cvtsd2si(true), { prefix: "f2" }),
  row("0f", 0x2d, "cvtss2si", "G,W", cvtss2si(false), { prefix: "f3" }),
  row("0f", 0x2d, "cvtsd2si", "G,W", cvtsd2si(false), { prefix: "f2" }),
  row("0f", 0x5a, "cvtps2pd", "V,W", cvtps2pd, { prefix: "none" }),
  row("0f", 0x5a, "cvtpd2ps", "V,W", cvtpd2ps, { prefix: "66" }),
  row("0f", 0x5a, "cvtss2sd", "V,W", cvtss2sd, { prefix: "f3" }),
  row("0f", 0x5a, "cvtsd2ss", "V,W", cvtsd2ss, { prefix: "f2" }),
  row("0f", 0x5b, "cvtdq2ps", "V,W", cvtdq2ps, { prefix: "none" }),
  row("0f", 0x5b, "cvtps2dq", "V,W", cvtps2dq(false), { prefix: "66" }),
  row("0f", 0x5b, "cvttps2dq", "V,W", cvtps2dq(true), { prefix: "f3" }),
  row("0f", 0xe6, "cvttpd2dq", "V,W", cvtpd2dq(true), { prefix: "66" }),
  row("0f", 0xe6, "cvtdq2pd", "V,W", cvtdq2pd, { prefix: "f3" }),
  row("0f", 0xe6, "cvtpd2dq", "V,W", cvtpd2dq(false), { prefix: "f2" }),
];
