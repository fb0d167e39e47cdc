/**
 * The instruction emulator: runs one instruction of the guest on a processor of the VMM's own, with the guest's registers,
 * the guest's RAM and the VMM's devices (openvmm: vmm_core/virt_support_x86emu emulate.rs; vm/x86/x86emu;
 * openhcl/virt_mshv_vtl, processor/mshv/x64.rs emulation_cache and EmulatorSupport).
 *
 * Registers come from where OpenHCL takes them: general-purpose and XMM registers from the processor context, RIP, RFLAGS
 * and CS from the message, the rest from one batched get, to which CR3 and CR4 are added because the guest's page tables
 * are walked here instead of by a hypercall for each page. The instruction's bytes and the translation of the page that was
 * accessed come from the message as far as it has them.
 *
 * @module
 */
import { Cpu } from "../../cpu/cpu.ts";
import type { Insn } from "../../cpu/insn.ts";
import { runOne } from "../../cpu/run_one.ts";
import { CpuState, EXIT_EXCEPTION, EXIT_NONE, FLAG_IOPL, FLAG_RF, FLAG_TF, FLAG_VM, FLAG_ZF } from "../../cpu/state.ts";
import { HvX64RegisterName } from "../../layout/hyperv/constants/registers.ts";
import { HvInterceptAccessType, HvMessageType } from "../../layout/hyperv/constants/messages.ts";
import {
  HvX64MemoryAccessInfo,
  HvX64MemoryInterceptMessage,
  HvX64VpExecutionState,
} from "../../layout/hyperv/messages.ts";
import { backwards, CopyPlan, type CopyRecord, type Move } from "../../memory/copy_plan.ts";
import { X64 } from "../../layout/x64/constants.ts";
import { type MachineMemory, pageNumber } from "../../memory/machine_memory.ts";
import {
  ACCESS_TYPE,
  CONTEXT,
  CS_SEGMENT,
  EXECUTION_STATE,
  injectException,
  PAYLOAD,
  RFLAGS,
  RIP,
} from "../context.ts";
import { IO_SINGLE_STEP } from "../policies.ts";
import { BUSY, HANDLED, type HandlerResult, PENDING, type VmmVp } from "../vmm_vp.ts";
import { VmmVpState } from "../vmm_state.ts";
import { classify, type Decoded, DecodedInstructions } from "./decoded_instructions.ts";
import { EmulatorBus, EXIT_DEVICE_BUSY, EXIT_NOT_EMULATED } from "./emulator_bus.ts";
import { REP_ITERATIONS_MAX } from "./instruction_class.ts";

const at = CpuState.at;
const GET_VALUES = VmmVpState.at.get_values;
const SET_VALUES = VmmVpState.at.set_values;
const PHASE = VmmVpState.at.phase;
/** Phase: registers have been asked for, and are in `get_values` when the handler runs again. */
const PHASE_REGISTERS_ASKED = 1;

const memory = HvX64MemoryInterceptMessage.at;
const ACCESS_INFO = PAYLOAD + memory.memory_access_info;
const LINEAR = PAYLOAD + memory.guest_virtual_address;
const PHYSICAL = PAYLOAD + memory.guest_physical_address;
const ADDRESS_VALID = HvX64MemoryAccessInfo.mask.gva_valid | HvX64MemoryAccessInfo.mask.gva_gpa_valid;
const { HvMessageTypeUnmappedGpa: UNMAPPED, HvMessageTypeGpaIntercept: DENIED } = HvMessageType.values;
const { WRITE } = HvInterceptAccessType.values;

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

/** Bytes of a register value and of a segment register, and of a word. */
const [VALUE, WORD] = [16, 8];
/** 32-bit words of a register value. */
const VALUE_WORDS = VALUE / 4;
/** State offsets of the segment registers and of the control registers, in the order of `get_values` from 1 on. */
const SEGMENTS = [at.es, at.ds, at.fs, at.gs, at.ss];
const CONTROLS = [at.cr0, at.cr3, at.cr4, at.efer];
/** Index of TR among the values. */
const VALUE_TR = 10;

/** General-purpose registers, and the slot of the processor context that holds CR2 instead of RSP. */
const GPRS = 16;
const RSP = 4;
const RCX = 1;
/** Bytes of the x87 and SSE image. */
const FX_BYTES = 512;
/** XCR0 with x87 and SSE, which the image holds. */
const XCR0_SSE = 3n;

/** General-purpose registers except slot 4: from the processor context to the state. */
const GENERAL: readonly Move[] = [
  [CONTEXT.RAX, at.gpr, RSP * WORD],
  [CONTEXT.RAX + (RSP + 1) * WORD, at.gpr + (RSP + 1) * WORD, (GPRS - RSP - 1) * WORD],
];
const IMAGE: readonly Move[] = [[CONTEXT.FX, at.fx, FX_BYTES]];
const FROM_CONTEXT = new CopyPlan([...GENERAL, [CONTEXT.CR2, at.cr2, WORD]]);
const TO_CONTEXT = new CopyPlan(backwards(GENERAL));
const IMAGE_FROM_CONTEXT = new CopyPlan(IMAGE);
const IMAGE_TO_CONTEXT = new CopyPlan(backwards(IMAGE));
const FROM_MESSAGE = new CopyPlan([[RIP, at.rip, WORD], [CS_SEGMENT, at.cs, VALUE]]);
const FROM_VALUES = new CopyPlan([
  [0, at.gpr + RSP * WORD, WORD],
  ...SEGMENTS.map((to, k): Move => [(1 + k) * VALUE, to, VALUE]),
  ...CONTROLS.map((to, k): Move => [(1 + SEGMENTS.length + k) * VALUE, to, WORD]),
]);

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
/** Iterations of a repeated instruction in one exit. */
const ITERATIONS_MAX = BigInt(REP_ITERATIONS_MAX);

/** An instruction emulator; one for each thread in which handlers run. */
export class InstructionEmulator {
  readonly #memory: MachineMemory;
  readonly #base: number;
  readonly #bus: EmulatorBus;
  readonly #cpu: Cpu;
  readonly #gpr: BigUint64Array<SharedArrayBuffer>;
  readonly #fromContext: CopyRecord;
  readonly #toContext: CopyRecord;
  readonly #imageFromContext: CopyRecord;
  readonly #imageToContext: CopyRecord;
  readonly #fromMessage: CopyRecord;
  readonly #fromValues: CopyRecord;
  readonly #decoded: DecodedInstructions;

  /**
   * An emulator that uses the `CpuState` at byte offset `base`, a multiple of 64, within a call. `splitLock` is the word
   * that serialises the machine's misaligned locked accesses.
   */
  constructor(memory: MachineMemory, base: number, splitLock: number) {
    this.#memory = memory;
    this.#base = base;
    memory.u8.fill(0, base, base + CpuState.size);
    memory.u64[(base + at.dr7) >>> 3] = BigInt(X64.EMPTY_DR7);
    memory.u64[(base + at.xcr0) >>> 3] = XCR0_SSE;
    this.#bus = new EmulatorBus();
    this.#cpu = new Cpu(memory, base, this.#bus, { splitLock });
    this.#gpr = new BigUint64Array(memory.buffer, base + at.gpr, GPRS);
    this.#fromContext = FROM_CONTEXT.on(memory);
    this.#toContext = TO_CONTEXT.on(memory);
    this.#imageFromContext = IMAGE_FROM_CONTEXT.on(memory);
    this.#imageToContext = IMAGE_TO_CONTEXT.on(memory);
    this.#fromMessage = FROM_MESSAGE.on(memory);
    this.#fromValues = FROM_VALUES.on(memory);
    this.#decoded = new DecodedInstructions(memory, this.#cpu.decoder);
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
    const base = this.#base;
    const values = vp.state + GET_VALUES;
    this.#fromContext(base, vp.context);
    this.#fromMessage(base, vp.message);
    this.#fromValues(base, values);
    // No trap and no instruction breakpoint here: what follows the instruction is decided in #complete.
    const rflags = (base + at.rflags) >>> 2;
    i32[rflags] = flags & ~(FLAG_TF | FLAG_RF);
    i32[rflags + 1] = 0;
    if (withTr) {
      const from = (values + VALUE_TR * VALUE) >>> 3;
      u64[(base + at.tr) >>> 3] = u64[from];
      u64[((base + at.tr) >>> 3) + 1] = u64[from + 1];
    }
    for (let word = (base + at.interrupt_shadow) >>> 2; word < (base + at.exit_reason) >>> 2; word++) i32[word] = 0;
    this.#cpu.flushCaches();
    this.#knowPage(vp.message);
  }

  /** Takes the translation of the page that was accessed from a memory intercept. */
  #knowPage(message: number): void {
    const { i32, u8 } = this.#memory;
    const type = i32[message >>> 2] >>> 0;
    if (type !== UNMAPPED && type !== DENIED) return;
    if ((u8[message + ACCESS_INFO] & ADDRESS_VALID) !== ADDRESS_VALID) return;
    const linear = (message + LINEAR) >>> 2;
    const physical = (message + PHYSICAL) >>> 2;
    const gpn = pageNumber(i32[physical], i32[physical + 1]);
    const cpu = this.#cpu;
    cpu.knowPage(i32[linear], i32[linear + 1], gpn, u8[message + ACCESS_TYPE] === WRITE, cpu.cpl === 3);
  }

  /** Classifies and runs the instruction, and passes on what became of it. */
  #execute(vp: VmmVp, flags: number, shadow: boolean): HandlerResult {
    const cpu = this.#cpu;
    this.#bus.begin(vp);
    const decoded = this.#decode(vp.message);
    if (decoded === null) return this.#raise(vp, flags, cpu.fault.vector, cpu.fault.hasError, cpu.fault.error);
    const { insn } = decoded;
    if (decoded.usesSystemState) {
      cpu.reportUnimplemented(`${insn.mnemonic} (emulated)`);
      return this.#raise(vp, flags, VECTOR_UD, false, 0);
    }
    this.#bus.insn = insn;
    if (!decoded.isInteger) this.#imageFromContext(this.#base, vp.context);
    const silicon = vp.policy(IO_SINGLE_STEP) === IO_SINGLE_STEP.is.silicon;
    const repeated = decoded.isString && insn.rep !== 0;
    // A traced string instruction of a processor traps after each iteration.
    const rest = repeated ? this.#limitCount(insn, silicon && flags & FLAG_TF ? 1n : ITERATIONS_MAX) : 0n;
    const reason = runOne(cpu, insn);
    if (repeated) this.#restoreCount(rest);
    if (reason === EXIT_DEVICE_BUSY) {
      this.#storeRegisters(vp, decoded);
      return BUSY;
    }
    if (reason === EXIT_EXCEPTION) {
      this.#storeRegisters(vp, decoded);
      const { i32 } = this.#memory;
      const hasError = i32[(this.#base + at.exit_has_error) >>> 2] !== 0;
      const vector = i32[(this.#base + at.exit_vector) >>> 2];
      return this.#raise(vp, flags, vector, hasError, i32[(this.#base + at.exit_error) >>> 2]);
    }
    const touched = this.#bus.accesses !== 0 || decoded.hasMemoryOperand || decoded.isString;
    if (reason === EXIT_NOT_EMULATED || reason !== EXIT_NONE || !touched) {
      return vp.crash({ assertion: `'${insn.mnemonic}' accesses neither memory nor ports` });
    }
    this.#storeRegisters(vp, decoded);
    return this.#complete(vp, flags, shadow, silicon, repeated && rest !== 0n && !this.#endedEarly(insn));
  }

  /** The instruction: of the message's bytes, or fetched. `null` when that faults; the fault is in the processor. */
  #decode(message: number): Decoded | null {
    const cpu = this.#cpu;
    const { i32 } = this.#memory;
    const told = this.#decoded.of(message, cpu.codeSize);
    if (told !== undefined) return told;
    const rip = (this.#base + at.rip) >>> 2;
    const low = cpu.long64 ? i32[rip] : (i32[rip] + i32[(this.#base + at.cs) >>> 2]) | 0;
    try {
      return classify(cpu.findBlock(low, cpu.long64 ? i32[rip + 1] : 0).insns[0]);
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
  #storeRegisters(vp: VmmVp, { isInteger }: Decoded): void {
    this.#toContext(vp.context, this.#base);
    if (!isInteger) this.#imageToContext(vp.context, this.#base);
  }

  /** Flushes RIP, which is that at byte offset `rip`, RFLAGS and RSP. */
  #flush(vp: VmmVp, rip: number, flags: number): void {
    const { i32 } = this.#memory;
    const to = (vp.state + SET_VALUES) >>> 2;
    const rsp = (this.#base + at.gpr + RSP * WORD) >>> 2;
    for (let word = 0; word < RESULTS.length * VALUE_WORDS; word++) i32[to + word] = 0;
    i32[to] = i32[rip >>> 2];
    i32[to + 1] = i32[(rip >>> 2) + 1];
    i32[to + VALUE_WORDS] = flags;
    i32[to + 2 * VALUE_WORDS] = i32[rsp];
    i32[to + 2 * VALUE_WORDS + 1] = i32[rsp + 1];
    vp.setRegisters(RESULTS, vp.state + SET_VALUES);
  }

  /** The instruction has run, or as much of a REP instruction as is done in one exit. */
  #complete(vp: VmmVp, old: number, shadow: boolean, silicon: boolean, unfinished: boolean): HandlerResult {
    const { i32 } = this.#memory;
    const rip = unfinished ? vp.message + RIP : this.#base + at.rip;
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
    const { i32 } = this.#memory;
    const flags = i32[(this.#base + at.rflags) >>> 2] & ~FLAG_RF | old & (FLAG_TF | FLAG_RF);
    // The flags that a processor saves for a fault have RF set.
    const saved = vp.policy(IO_SINGLE_STEP) === IO_SINGLE_STEP.is.silicon ? flags | FLAG_RF : flags;
    this.#flush(vp, vp.message + RIP, saved);
    const { cr2Lo, cr2Hi } = this.#cpu.fault;
    const cr2 = BigInt(cr2Hi >>> 0) << 32n | BigInt(cr2Lo >>> 0);
    injectException(vp, vector, hasError, error, vector === VECTOR_PF ? cr2 : 0n);
    return HANDLED;
  }
}
