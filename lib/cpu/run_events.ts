/**
 * What happens around blocks of instructions: attention, pending events, interrupts, delivery of exceptions, and the
 * completion of the state when the run loop returns.
 *
 * @module
 */

import { type Cpu, SLOW_EVENT } from "./cpu.ts";
import { raisePendingTrap } from "./debug.ts";
import { VECTOR_NMI, VECTOR_PF } from "./faults.ts";
import type { Insn } from "./insn.ts";
import { deliver } from "./interrupts.ts";
import * as state from "./state.ts";

const at = state.CpuState.at;
const RIP = at.rip >> 2;
const RFLAGS = at.rflags >> 2;
const CR2 = at.cr2 >> 2;
const SHADOW = at.interrupt_shadow >> 2;
const ACTIVITY = at.activity >> 2;
const ATTENTION = at.attention >> 2;
const EVENT = at.event >> 2;
const EVENT_ERROR = at.event_error >> 2;
const EVENT_LENGTH = at.event_length >> 2;
const EVENT_CR2 = at.event_cr2 >> 2;
const NMI_PENDING = at.nmi_pending >> 2;
const NMI_MASKED = at.nmi_masked >> 2;
const INSTRUCTIONS = at.instructions >> 2;
const EXIT_REASON = at.exit_reason >> 2;
const EXIT_VECTOR = at.exit_vector >> 2;
const EXIT_LENGTH = at.exit_length >> 2;
const EXIT_BYTE_COUNT = at.exit_byte_count >> 2;

/** What `boundary` and `except` return when execution goes on. */
export const GO_ON: number = -1;

/** Puts RIP back to `i`, an instruction of the running block. */
function goBack(cpu: Cpu, i: Insn): void {
  const s32 = cpu.s32;
  const lo = (cpu.blockLo + i.offset) | 0;
  s32[RIP] = lo;
  s32[RIP + 1] = (lo >>> 0) < (cpu.blockLo >>> 0) && cpu.long64 ? cpu.blockHi + 1 : cpu.blockHi;
  s32[EXIT_LENGTH] = i.length;
}

/** Completes the state in the memory. */
export function finish(cpu: Cpu, executed: number, reason: number): number {
  cpu.flags();
  const s32 = cpu.s32;
  const before = s32[INSTRUCTIONS];
  const after = (before + executed) | 0;
  s32[INSTRUCTIONS] = after;
  if ((after >>> 0) < (before >>> 0)) s32[INSTRUCTIONS + 1]++;
  s32[EXIT_REASON] = reason;
  return reason;
}

/**
 * Something has set `stop` while `i` ran: the reason of the exit, at which RIP is back at the instruction (STOP_EXIT) or
 * behind it (STOP_AFTER); GO_ON when only the block had to be left.
 */
export function stopped(cpu: Cpu, i: Insn): number {
  const { s32, stop } = cpu;
  cpu.stop = 0;
  if ((stop & state.STOP_EXIT) !== 0) {
    goBack(cpu, i);
    cpu.recordInstructionBytes(i);
    return s32[EXIT_REASON];
  }
  return (stop & state.STOP_AFTER) !== 0 ? s32[EXIT_REASON] : GO_ON;
}

/** `i` has thrown: the reason of the exit; GO_ON when it was an exception, which is delivered. */
export function thrownOut(cpu: Cpu, i: Insn, thrown: unknown): number {
  cpu.abandonRmw();
  cpu.softLeave = false;
  cpu.stop = 0;
  if (thrown === cpu.fault) return except(cpu, i);
  if (thrown !== cpu.leaveSignal) throw thrown;
  goBack(cpu, i);
  cpu.recordInstructionBytes(i);
  return cpu.leaveSignal.reason;
}

/** Delivers the exception in `cpu.fault`, raised by `i`; GO_ON or an exit reason. */
function except(cpu: Cpu, i: Insn): number {
  const s32 = cpu.s32;
  const { vector, hasError, error, trap } = cpu.fault;
  cpu.flags();
  if (!trap) {
    goBack(cpu, i);
    s32[RFLAGS] |= state.FLAG_RF;
  }
  if (cpu.interceptException(vector, hasError, error)) {
    cpu.recordInstructionBytes(i);
    cpu.stop = 0;
    return s32[EXIT_REASON];
  }
  if (vector === VECTOR_PF) {
    s32[CR2] = cpu.fault.cr2Lo;
    s32[CR2 + 1] = cpu.fault.cr2Hi;
  }
  return inject(cpu, vector, hasError, error, state.EVENT_TYPE_EXCEPTION);
}

/** Delivers an event between instructions; GO_ON or an exit reason. */
export function inject(cpu: Cpu, vector: number, hasError: boolean, error: number, type: number): number {
  let delivered = true;
  try {
    delivered = deliver(cpu, vector, hasError, error, type);
  } catch (thrown) {
    if (thrown !== cpu.leaveSignal) throw thrown;
    // The frame or a table lies where the bus has no memory; the event is pending again.
    cpu.updateSlow();
    cpu.s32[EXIT_LENGTH] = 0;
    cpu.s32[EXIT_BYTE_COUNT] = 0;
    return cpu.leaveSignal.reason;
  }
  cpu.updateSlow();
  if (!delivered) {
    cpu.s32[ACTIVITY] = state.ACTIVITY_SHUTDOWN;
    cpu.s32[EXIT_VECTOR] = vector;
    cpu.updateSlow();
    return state.EXIT_SHUTDOWN;
  }
  if ((cpu.stop & state.STOP_EXIT) !== 0) {
    cpu.stop = 0;
    return cpu.s32[EXIT_REASON];
  }
  return GO_ON;
}

/** Advances RIP over the INT instruction that a pending software event stands for. */
export function skipInstruction(cpu: Cpu, length: number): void {
  const { s32 } = cpu;
  const lo = (s32[RIP] + length) | 0;
  if (cpu.long64 && (lo >>> 0) < (s32[RIP] >>> 0)) s32[RIP + 1]++;
  s32[RIP] = lo;
  s32[EVENT_LENGTH] = 0;
}

/** What happens between two blocks when something asks for it; GO_ON or an exit reason. */
export function boundary(cpu: Cpu): number {
  const { s32 } = cpu;
  const attention = s32[ATTENTION];
  if ((attention & state.ATTENTION_FLUSH) !== 0) {
    Atomics.and(s32, ATTENTION, ~state.ATTENTION_FLUSH);
    cpu.flushTlb();
  }
  if ((attention & state.ATTENTION_STOP) !== 0) return state.EXIT_NONE;
  if ((cpu.slow & SLOW_EVENT) !== 0) {
    if (s32[ACTIVITY] >= state.ACTIVITY_SHUTDOWN) return state.EXIT_SHUTDOWN;
    const event = s32[EVENT];
    if ((event & state.EVENT_VALID) !== 0) {
      s32[EVENT] = 0;
      s32[ACTIVITY] = state.ACTIVITY_RUNNING;
      const vector = event & 0xff;
      if (vector === VECTOR_PF) {
        s32[CR2] = s32[EVENT_CR2];
        s32[CR2 + 1] = s32[EVENT_CR2 + 1];
      }
      const type = (event >> state.EVENT_TYPE_SHIFT) & 7;
      if (type >= state.EVENT_TYPE_SOFTWARE) skipInstruction(cpu, s32[EVENT_LENGTH]);
      return inject(cpu, vector, (event & state.EVENT_HAS_ERROR) !== 0, s32[EVENT_ERROR], type);
    }
  }
  raisePendingTrap(cpu);
  if (s32[SHADOW] === 0) {
    if (s32[NMI_PENDING] !== 0 && s32[NMI_MASKED] === 0) {
      s32[NMI_PENDING] = 0;
      s32[ACTIVITY] = state.ACTIVITY_RUNNING;
      return inject(cpu, VECTOR_NMI, false, 0, state.EVENT_TYPE_NMI);
    }
    if ((attention & state.ATTENTION_INTERRUPT) !== 0 && (s32[RFLAGS] & state.FLAG_IF) !== 0) {
      const vector = cpu.bus.acceptInterrupt(cpu);
      if ((cpu.stop & state.STOP_EXIT) !== 0) {
        cpu.stop = 0;
        return s32[EXIT_REASON];
      }
      if (vector >= 0) {
        s32[ACTIVITY] = state.ACTIVITY_RUNNING;
        return inject(cpu, vector, false, 0, state.EVENT_TYPE_INTERRUPT);
      }
    }
  }
  if (s32[ACTIVITY] === state.ACTIVITY_HALTED) return state.EXIT_HLT;
  return GO_ON;
}
