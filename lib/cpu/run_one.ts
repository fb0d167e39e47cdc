/**
 * Executes a single decoded instruction, for who has its bytes from elsewhere than from memory: an instruction emulator.
 *
 * @module
 */
import type { Cpu } from "./cpu.ts";
import type { Insn } from "./insn.ts";
import { finish, GO_ON, stopped, thrownOut } from "./run_events.ts";
import { CpuState, EXIT_NONE } from "./state.ts";

const RIP = CpuState.at.rip >>> 2;

/**
 * Executes `i`, which RIP points to and whose offset is 0, and returns why it stopped, as `Cpu.run` does: EXIT_NONE when it
 * is completed or its exception is delivered. Neither events nor breakpoints are looked at, and stores do not see its bytes.
 */
export function runOne(cpu: Cpu, i: Insn): number {
  const { s32 } = cpu;
  const low = s32[RIP];
  const high = s32[RIP + 1];
  const next = (low + i.length) | 0;
  cpu.stop = 0;
  cpu.blockLo = low;
  cpu.blockHi = high;
  cpu.codeSpan = 0;
  s32[RIP] = next;
  if (cpu.long64 && (next >>> 0) < (low >>> 0)) s32[RIP + 1] = high + 1;
  let reason = GO_ON;
  try {
    i.exec(cpu, i);
    if (cpu.stop !== 0) reason = stopped(cpu, i);
  } catch (thrown) {
    reason = thrownOut(cpu, i, thrown);
  }
  return finish(cpu, reason === GO_ON ? 1 : 0, reason === GO_ON ? EXIT_NONE : reason);
}
