/**
 * Executes a single decoded instruction, for who has its bytes from elsewhere than from memory: an instruction emulator.
 *
 * @module
 */
import type { Cpu } from "./cpu.ts";
import type { Insn } from "./insn.ts";
import { except, finish, GO_ON, goBack } from "./run_events.ts";
import { CpuState, EXIT_NONE, STOP_AFTER, STOP_EXIT } from "./state.ts";

const RIP = CpuState.at.rip >> 2;
const EXIT_REASON = CpuState.at.exit_reason >> 2;

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
  try {
    i.exec(cpu, i);
  } catch (thrown) {
    return thrownOut(cpu, i, thrown);
  }
  const { stop } = cpu;
  cpu.stop = 0;
  if ((stop & STOP_EXIT) !== 0) {
    goBack(cpu, i);
    return finish(cpu, 0, s32[EXIT_REASON]);
  }
  return finish(cpu, 1, (stop & STOP_AFTER) !== 0 ? s32[EXIT_REASON] : EXIT_NONE);
}

/** The instruction has faulted, or left in the middle of an access. */
function thrownOut(cpu: Cpu, i: Insn, thrown: unknown): number {
  cpu.abandonRmw();
  cpu.softLeave = false;
  cpu.stop = 0;
  if (thrown === cpu.leaveSignal) {
    goBack(cpu, i);
    return finish(cpu, 0, cpu.leaveSignal.reason);
  }
  if (thrown !== cpu.fault) throw thrown;
  const reason = except(cpu, i);
  return finish(cpu, 0, reason === GO_ON ? EXIT_NONE : reason);
}
