/**
 * The instruction emulator: runs one instruction of the guest on a processor of the VMM's own, with the guest's registers,
 * the guest's RAM and the VMM's devices (openvmm: vmm_core/virt_support_x86emu emulate.rs; vm/x86/x86emu;
 * openhcl/virt_mshv_vtl, processor/mshv/x64.rs emulation_cache and EmulatorSupport).
 *
 * Registers come from where OpenHCL takes them: general-purpose and XMM registers from the processor context, RIP, RFLAGS
 * and CS from the message, the rest from one batched get, to which CR3 and CR4 are added because the guest's page tables
 * are walked here instead of by a hypercall for each page. The instruction is fetched from memory, not from the message.
 *
 * @module
 */
import { Cpu } from "../../cpu/cpu.ts";
import type { Insn } from "../../cpu/insn.ts";
import { CpuState, EXIT_EXCEPTION, EXIT_NONE, FLAG_IOPL, FLAG_RF, FLAG_TF, FLAG_VM, FLAG_ZF } from "../../cpu/state.ts";
import { HvX64RegisterName } from "../../layout/hyperv/constants/registers.ts";
import { HvX64VpExecutionState } from "../../layout/hyperv/messages.ts";
import type { MachineMemory } from "../../memory/machine_memory.ts";
import { CONTEXT, CS_SEGMENT, EXECUTION_STATE, injectException, RFLAGS, RIP } from "../context.ts";
import { IO_SINGLE_STEP } from "../policies.ts";
import { BUSY, HANDLED, type HandlerResult, PENDING, type VmmVp } from "../vmm_vp.ts";
import { VmmVpState } from "../vmm_state.ts";
import { EmulatorBus, EXIT_DEVICE_BUSY, EXIT_NOT_EMULATED } from "./emulator_bus.ts";
import { hasMemoryOperand, isString, REP_ITERATIONS_MAX, usesSystemState } from "./instruction_class.ts";

const at = CpuState.at;
const GET_VALUES = VmmVpState.at.get_values;
const SET_VALUES = VmmVpState.at.set_values;
const PHASE = VmmVpState.at.phase;
/** Phase: registers have been asked for, and are in `get_values` when the handler runs again. */
const PHASE_REGISTERS_ASKED = 1;

const names = HvX64RegisterName.values;
/** What is got in one batch; the values' order in `get_values`. */
const REGISTERS: readonly number[] = [
  names.Rsp,
  names.Es,
  names.Ds,
  names.Fs,
  names.Gs,
  names.Ss,
  names.Cr0,
  names.Cr3,
  names.Cr4,
  names.Efer,
];
/** The same, and TR for a port access whose permission is in the TSS. */
const REGISTERS_AND_TR: readonly number[] = [...REGISTERS, names.Tr];
/** What is set after the instruction. */
const RESULTS: readonly number[] = [names.Rip, names.Rflags, names.Rsp];

/** 64-bit words of a register value and of a segment register. */
const VALUE_WORDS = 2;
/** State offsets of the segment registers, in the order of `get_values` 1 to 5. */
const SEGMENT_STATES: readonly number[] = [at.es, at.ds, at.fs, at.gs, at.ss];
/** State offsets of the control registers, in the order of `get_values` 6 to 9. */
const CONTROL_STATES: readonly number[] = [at.cr0, at.cr3, at.cr4, at.efer];
/** Index of TR among the values. */
const VALUE_TR = 10;

/** General-purpose registers, and the slot of the processor context that holds CR2 instead of RSP. */
const GPRS = 16;
const RSP = 4;
const RCX = 1;
/** 64-bit words of the x87 and SSE image. */
const FX_WORDS = 64;
/** DR7 without breakpoints: bit 10 is always one. */
const DR7_RESET = 0x400n;
/** XCR0 with x87 and SSE, which the image holds. */
const XCR0_SSE = 3n;

const STATE_INTERRUPTION_PENDING = HvX64VpExecutionState.mask.interruption_pending;
const STATE_SHADOW = HvX64VpExecutionState.mask.interrupt_shadow;
const STATE_CPL = HvX64VpExecutionState.mask.cpl;
const IOPL_SHIFT = 12;

const VECTOR_DB = 1;
const VECTOR_UD = 6;
const VECTOR_PF = 14;
/** DR6.BS. */
const DR6_SINGLE_STEP = 0x4000n;
const REPE = 0xf3;

/** An instruction emulator; one for each thread in which handlers run. */
export class InstructionEmulator {
  readonly #memory: MachineMemory;
  readonly #base: number;
  readonly #bus: EmulatorBus;
  readonly #cpu: Cpu;
  readonly #gpr: BigUint64Array<SharedArrayBuffer>;

  /**
   * An emulator that uses the `CpuState` at byte offset `base`, a multiple of 64, within a call. `splitLock` is the word
   * that serialises the machine's misaligned locked accesses.
   */
  constructor(memory: MachineMemory, base: number, splitLock: number) {
    this.#memory = memory;
    this.#base = base;
    memory.u8.fill(0, base, base + CpuState.size);
    memory.u64[(base + at.dr7) >>> 3] = DR7_RESET;
    memory.u64[(base + at.xcr0) >>> 3] = XCR0_SSE;
    this.#bus = new EmulatorBus();
    this.#cpu = new Cpu(memory, base, this.#bus, { splitLock });
    this.#gpr = new BigUint64Array(memory.buffer, base + at.gpr, GPRS);
  }

  /** Instructions that guests have asked to be emulated and that are not, with how often. */
  get notEmulated(): ReadonlyMap<string, number> {
    return this.#cpu.unimplemented;
  }

  /** Emulates the intercepted instruction. */
  emulate(vp: VmmVp): HandlerResult {
    const i32 = this.#memory.i32;
    const state = this.#memory.u16[(vp.message + EXECUTION_STATE) >>> 1];
    if (state & STATE_INTERRUPTION_PENDING) {
      return vp.crash({ assertion: "an interrupt caused the memory access exit" });
    }
    const flags = i32[(vp.message + RFLAGS) >>> 2];
    const ioPermission = (flags & FLAG_VM) !== 0 || (state & STATE_CPL) > ((flags & FLAG_IOPL) >> IOPL_SHIFT);
    const phase = (vp.state + PHASE) >>> 2;
    if (i32[phase] !== PHASE_REGISTERS_ASKED) {
      i32[phase] = PHASE_REGISTERS_ASKED;
      if (!vp.getRegisters(ioPermission ? REGISTERS_AND_TR : REGISTERS, vp.state + GET_VALUES)) return PENDING;
    }
    this.#load(vp, flags, ioPermission);
    const result = this.#execute(vp, flags, (state & STATE_SHADOW) !== 0);
    // A busy device leaves what was got in place for the next attempt.
    if (result !== BUSY) i32[phase] = 0;
    return result;
  }

  /** Fills the processor's state; what no instruction that is emulated changes is there since the beginning. */
  #load(vp: VmmVp, flags: number, withTr: boolean): void {
    const { u64, i32 } = this.#memory;
    const base = this.#base >>> 3;
    const gpr = this.#gpr;
    const context = vp.context >>> 3;
    const values = (vp.state + GET_VALUES) >>> 3;
    const message = vp.message >>> 3;
    for (let i = 0; i < GPRS; i++) gpr[i] = u64[context + i];
    gpr[RSP] = u64[values];
    u64[base + (at.cr2 >>> 3)] = u64[context + (CONTEXT.CR2 >>> 3)];
    u64[base + (at.rip >>> 3)] = u64[message + (RIP >>> 3)];
    // No trap and no instruction breakpoint here: what follows the instruction is decided in #complete.
    const rflags = (this.#base + at.rflags) >>> 2;
    i32[rflags] = flags & ~(FLAG_TF | FLAG_RF);
    i32[rflags + 1] = 0;
    u64[base + (at.cs >>> 3)] = u64[message + (CS_SEGMENT >>> 3)];
    u64[base + (at.cs >>> 3) + 1] = u64[message + (CS_SEGMENT >>> 3) + 1];
    for (let i = 0; i < SEGMENT_STATES.length; i++) {
      const to = base + (SEGMENT_STATES[i] >>> 3);
      const from = values + (1 + i) * VALUE_WORDS;
      u64[to] = u64[from];
      u64[to + 1] = u64[from + 1];
    }
    for (let i = 0; i < CONTROL_STATES.length; i++) {
      u64[base + (CONTROL_STATES[i] >>> 3)] = u64[values + (1 + SEGMENT_STATES.length + i) * VALUE_WORDS];
    }
    if (withTr) {
      u64[base + (at.tr >>> 3)] = u64[values + VALUE_TR * VALUE_WORDS];
      u64[base + (at.tr >>> 3) + 1] = u64[values + VALUE_TR * VALUE_WORDS + 1];
    }
    for (let word = (this.#base + at.interrupt_shadow) >>> 3; word < base + (at.exit_reason >>> 3); word++) {
      u64[word] = 0n;
    }
    const fx = (vp.context + CONTEXT.FX) >>> 3;
    u64.copyWithin(base + (at.fx >>> 3), fx, fx + FX_WORDS);
    this.#cpu.flushCaches();
  }

  /** Fetches, classifies and runs the instruction, and passes on what became of it. */
  #execute(vp: VmmVp, flags: number, shadow: boolean): HandlerResult {
    const cpu = this.#cpu;
    this.#bus.begin(vp);
    const insn = this.#fetch();
    if (insn === null) return this.#raise(vp, flags, cpu.fault.vector, cpu.fault.hasError, cpu.fault.error);
    if (usesSystemState(insn)) {
      cpu.reportUnimplemented(`${insn.mnemonic} (emulated)`);
      return this.#raise(vp, flags, VECTOR_UD, false, 0);
    }
    this.#bus.insn = insn;
    const silicon = vp.policy(IO_SINGLE_STEP) === IO_SINGLE_STEP.is.silicon;
    const string = isString(insn);
    const repeated = string && insn.rep !== 0;
    // A traced string instruction of a processor traps after each iteration.
    const most = silicon && flags & FLAG_TF ? 1n : BigInt(REP_ITERATIONS_MAX);
    const rest = repeated ? this.#limitCount(insn, most) : 0n;
    const reason = cpu.run(1);
    if (repeated) this.#restoreCount(rest);
    if (reason === EXIT_DEVICE_BUSY) {
      this.#storeRegisters(vp);
      return BUSY;
    }
    if (reason === EXIT_EXCEPTION) {
      this.#storeRegisters(vp);
      const { i32 } = this.#memory;
      const hasError = i32[(this.#base + at.exit_has_error) >>> 2] !== 0;
      const vector = i32[(this.#base + at.exit_vector) >>> 2];
      return this.#raise(vp, flags, vector, hasError, i32[(this.#base + at.exit_error) >>> 2]);
    }
    const touched = this.#bus.accesses !== 0 || hasMemoryOperand(insn) || string;
    if (reason === EXIT_NOT_EMULATED || reason !== EXIT_NONE || !touched) {
      return vp.crash({ assertion: `'${insn.mnemonic}' accesses neither memory nor ports` });
    }
    this.#storeRegisters(vp);
    return this.#complete(vp, flags, shadow, silicon, repeated && rest !== 0n && !this.#endedEarly(insn));
  }

  /** The instruction at RIP, or `null` when fetching it faults; the fault is in the processor. */
  #fetch(): Insn | null {
    const cpu = this.#cpu;
    const { i32 } = this.#memory;
    const rip = (this.#base + at.rip) >>> 2;
    const low = cpu.long64 ? i32[rip] : (i32[rip] + i32[(this.#base + at.cs) >>> 2]) | 0;
    try {
      return cpu.findBlock(low, cpu.long64 ? i32[rip + 1] : 0).insns[0];
    } catch (thrown) {
      if (thrown !== cpu.fault) throw thrown;
      return null;
    }
  }

  /** The part of RCX that counts a REP instruction's iterations. */
  #count(insn: Insn): bigint {
    return BigInt.asUintN(insn.addrsize * 8, this.#gpr[RCX]);
  }

  /** Makes a REP instruction do at most `most` iterations; returns how many are left for later. */
  #limitCount(insn: Insn, most: bigint): bigint {
    const count = this.#count(insn);
    if (count <= most) return 0n;
    this.#gpr[RCX] -= count - most;
    return count - most;
  }

  /** Adds the iterations that are left to what the instruction left in RCX. */
  #restoreCount(rest: bigint): void {
    this.#gpr[RCX] += rest;
  }

  /** Whether a CMPS or SCAS that has used up its limited count met its condition with the last iteration. */
  #endedEarly(insn: Insn): boolean {
    const name = insn.mnemonic;
    if (!name.startsWith("cmps") && !name.startsWith("scas")) return false;
    const zero = (this.#memory.i32[(this.#base + at.rflags) >>> 2] & FLAG_ZF) !== 0;
    return insn.rep === REPE ? !zero : zero;
  }

  /** Copies general-purpose and XMM registers to the processor context, whose slot 4 stays CR2. */
  #storeRegisters(vp: VmmVp): void {
    const { u64 } = this.#memory;
    const context = vp.context >>> 3;
    const gpr = this.#gpr;
    for (let i = 0; i < GPRS; i++) if (i !== RSP) u64[context + i] = gpr[i];
    const fx = (this.#base + at.fx) >>> 3;
    u64.copyWithin((vp.context + CONTEXT.FX) >>> 3, fx, fx + FX_WORDS);
  }

  /** Flushes RIP, RFLAGS and RSP. */
  #flush(vp: VmmVp, rip: bigint, flags: number): void {
    const { u64 } = this.#memory;
    const to = (vp.state + SET_VALUES) >>> 3;
    u64[to] = rip;
    u64[to + 1] = 0n;
    u64[to + 2] = BigInt(flags >>> 0);
    u64[to + 3] = 0n;
    u64[to + 4] = this.#gpr[RSP];
    u64[to + 5] = 0n;
    vp.setRegisters(RESULTS, vp.state + SET_VALUES);
  }

  /** The instruction has run, or as much of a REP instruction as is done in one exit. */
  #complete(vp: VmmVp, old: number, shadow: boolean, silicon: boolean, unfinished: boolean): HandlerResult {
    const { u64, i32 } = this.#memory;
    const rip = unfinished ? u64[(vp.message + RIP) >>> 3] : u64[(this.#base + at.rip) >>> 3];
    const flags = i32[(this.#base + at.rflags) >>> 2];
    if (silicon) {
      this.#flush(vp, rip, flags | old & (unfinished ? FLAG_TF | FLAG_RF : FLAG_TF));
      if (shadow) vp.clearInterruptShadow();
      if (old & FLAG_TF) injectException(vp, VECTOR_DB, false, 0, DR6_SINGLE_STEP);
    } else {
      this.#flush(vp, rip, flags | old & (unfinished ? FLAG_TF | FLAG_RF : FLAG_RF));
      if (old & FLAG_TF && !unfinished) injectException(vp, VECTOR_DB, false, 0, 0n);
    }
    return HANDLED;
  }

  /** The instruction faults: RIP stays, what earlier iterations did stays. */
  #raise(vp: VmmVp, old: number, vector: number, hasError: boolean, error: number): HandlerResult {
    const { u64, i32 } = this.#memory;
    const flags = i32[(this.#base + at.rflags) >>> 2] & ~FLAG_RF | old & (FLAG_TF | FLAG_RF);
    // The flags that a processor saves for a fault have RF set.
    const saved = vp.policy(IO_SINGLE_STEP) === IO_SINGLE_STEP.is.silicon ? flags | FLAG_RF : flags;
    this.#flush(vp, u64[(vp.message + RIP) >>> 3], saved);
    const { cr2Lo, cr2Hi } = this.#cpu.fault;
    const cr2 = BigInt(cr2Hi >>> 0) << 32n | BigInt(cr2Lo >>> 0);
    injectException(vp, vector, hasError, error, vector === VECTOR_PF ? cr2 : 0n);
    return HANDLED;
  }
}
