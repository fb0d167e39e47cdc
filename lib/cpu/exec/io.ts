/**
 * IN and OUT. The string forms INS and OUTS are in string.ts.
 *
 * @module
 */
import type { Cpu } from "../cpu.ts";
import { checkPortBreakpoint } from "../debug.ts";
import { VECTOR_GP } from "../faults.ts";
import { type Exec, type Insn, type OpcodeRow, row } from "../insn.ts";
import { RAX, RDX, STOP_EXIT } from "../state.ts";
import { ioPermitted } from "../task_state.ts";

/** Raises #GP(0) unless the program may access the port. */
export function requirePort(cpu: Cpu, port: number, size: number): void {
  if (!ioPermitted(cpu, port, size)) cpu.raise(VECTOR_GP, 0);
}

/** Access size of a port instruction: 1, 2 or 4 bytes whatever REX.W says. */
function portSize(i: Insn): number {
  return i.opsize === 8 ? 4 : i.opsize;
}

/** IN from `port`. */
function input(cpu: Cpu, i: Insn, port: number): void {
  const size = portSize(i);
  requirePort(cpu, port, size);
  const value = cpu.bus.in(cpu, i, port, size);
  if ((cpu.stop & STOP_EXIT) !== 0) return;
  if (size === 1) {
    cpu.g8[8 * RAX] = value;
  } else if (size === 2) {
    cpu.g16[4 * RAX] = value;
  } else {
    cpu.g32[2 * RAX] = value;
    cpu.g32[2 * RAX + 1] = 0;
  }
  checkPortBreakpoint(cpu, port, size);
}

/** OUT to `port`. */
function output(cpu: Cpu, i: Insn, port: number): void {
  const size = portSize(i);
  requirePort(cpu, port, size);
  const value = size === 1 ? cpu.g8[8 * RAX] : size === 2 ? cpu.g16[4 * RAX] : cpu.g32[2 * RAX];
  cpu.bus.out(cpu, i, port, size, value);
  if ((cpu.stop & STOP_EXIT) === 0) checkPortBreakpoint(cpu, port, size);
}

const inputImmediate: Exec = (cpu, i) => input(cpu, i, i.immLo & 0xff);
const inputDx: Exec = (cpu, i) => input(cpu, i, cpu.g16[4 * RDX]);
const outputImmediate: Exec = (cpu, i) => output(cpu, i, i.immLo & 0xff);
const outputDx: Exec = (cpu, i) => output(cpu, i, cpu.g16[4 * RDX]);

/** The opcode rows of this file. */
export const rows: readonly OpcodeRow[] = [
  row("1", 0xe4, "in", "ALb,Ib", inputImmediate, { ends: true }),
  row("1", 0xe5, "in", "rAX,Ib", inputImmediate, { ends: true }),
  row("1", 0xe6, "out", "Ib,ALb", outputImmediate, { ends: true }),
  row("1", 0xe7, "out", "Ib,rAX", outputImmediate, { ends: true }),
  row("1", 0xec, "in", "ALb,DX", inputDx, { ends: true }),
  row("1", 0xed, "in", "rAX,DX", inputDx, { ends: true }),
  row("1", 0xee, "out", "DX,ALb", outputDx, { ends: true }),
  row("1", 0xef, "out", "DX,rAX", outputDx, { ends: true }),
];
