/**
 * The machine of the recorded whole programs, as far as a processor alone can be it: memory, and a bus on which every port
 * and every other address is a device that answers by the recordings' rule. No interrupts, no timer, no hypervisor.
 *
 * @module
 */
import type { CpuBus } from "../cpu/bus.ts";
import { Cpu } from "../cpu/cpu.ts";
import type { Insn } from "../cpu/insn.ts";
import { resetCpu } from "../cpu/reset.ts";
import {
  CpuState,
  EXIT_BUS,
  EXIT_HLT,
  EXIT_MMIO,
  EXIT_MSR,
  EXIT_NONE,
  EXIT_SHUTDOWN,
  FLAG_IF,
  RAX,
  RBX,
  RCX,
  RDI,
  RDX,
  RIP,
  RSI,
} from "../cpu/state.ts";
import { RecordedDevices, RecordedDevicesState } from "../devices/recorded.ts";
import { writeBootTables } from "../guest/initial_state.ts";
import { MachineMemory, PAGE_SIZE } from "../memory/machine_memory.ts";
import type { SeenExit } from "./exit_compare.ts";
import { readExitRegisters, writeExitRegisters } from "./exit_registers.ts";
import type { ExitAccess, ExitHeader, ExitRegisters, ExitType } from "./exit_stream.ts";

const at = CpuState.at;
const RFLAGS = at.rflags >>> 2;
const INSTRUCTIONS = at.instructions >>> 3;

/** The MSRs that a recording's rule serves. */
const MSR_FIRST = 0x4000_0000;
const MSR_LAST = 0x4000_00ff;
/** Instructions executed between two looks at the budget. */
const SLICE = 1 << 20;
/** How a time stamp grows by being read, in ticks, on top of one tick an instruction. */
const TICKS_OF_A_READ = 64n;
/** Opcodes of INS and OUTS are 6c to 6f. */
const STRING_OPCODE_MASK = 0xfc;
const STRING_OPCODE = 0x6c;

/** A device-memory access that the running instruction has made already. */
interface AnsweredAccess {
  readonly lo: number;
  readonly hi: number;
}

/** How a run ended. */
export type ExitMachineEnd = "hlt" | "port" | "shutdown" | "stopped" | "budget";

/** Who is told of every exit, before its effect; false stops the machine. */
export type ExitListener = (exit: SeenExit) => boolean;

/** A processor in the recorded programs' machine. */
export class ExitMachine implements CpuBus {
  readonly interceptsStringIo = false;
  /** The processor. */
  readonly cpu: Cpu;
  /** Memory, then the processor's state and the devices' counters. */
  readonly memory: MachineMemory;
  readonly #header: ExitHeader;
  readonly #devices: RecordedDevices;
  readonly #listener: ExitListener;
  readonly #pages: number;
  /** Device-memory accesses of the instruction that is executed again, and how many of them it has repeated. */
  #answered: AnsweredAccess[] = [];
  #repeated = 0;
  /** The access for which the instruction was left. */
  #type: ExitType = "mmio-read";
  #gpaLo = 0;
  #gpaHi = 0;
  #size = 0;
  #written = 0n;
  /** RIP, RCX, RSI and RDI when the first of the answered accesses was made. */
  #place = "";
  #stopped = false;
  #ended = false;
  #timeReads = 0n;

  /** A machine with `image` in its memory, ready for the first instruction. */
  constructor(header: ExitHeader, image: Uint8Array, listener: ExitListener) {
    this.#header = header;
    this.#listener = listener;
    this.#pages = header.memory / PAGE_SIZE;
    const stateAt = header.memory;
    const devicesAt = stateAt + CpuState.size;
    this.memory = MachineMemory.allocate(devicesAt + RecordedDevicesState.size);
    const modes = { real16: "real", prot32: "protected", long64: "long" } as const;
    writeBootTables(this.memory.u8.subarray(0, header.memory), modes[header.mode]);
    this.memory.u8.set(image, header.load);
    this.#devices = new RecordedDevices(this.memory, devicesAt);
    this.cpu = new Cpu(this.memory, stateAt, this);
    resetCpu(this.cpu, "power-up", 0);
    writeExitRegisters(this.memory.view, stateAt, header.initial);
    this.cpu.flushCaches();
  }

  /** Runs until the program or the listener ends it, or `instructions` were executed. */
  run(instructions: number): ExitMachineEnd {
    const cpu = this.cpu;
    let left = instructions;
    while (left > 0) {
      const again = this.#answered.length > 0;
      this.#repeated = 0;
      const before = cpu.s64[INSTRUCTIONS];
      const reason = cpu.run(again ? 1 : Math.min(SLICE, left));
      left -= Number(cpu.s64[INSTRUCTIONS] - before);
      if (reason !== EXIT_MMIO) this.#answered = [];
      const end = this.#handle(reason);
      if (end !== undefined) return end;
      if (this.#stopped) return "stopped";
    }
    return "budget";
  }

  /** Deals with what a run of the processor ended with. */
  #handle(reason: number): ExitMachineEnd | undefined {
    const cpu = this.cpu;
    switch (reason) {
      case EXIT_NONE:
        return undefined;
      case EXIT_MMIO:
        this.#answer();
        return undefined;
      case EXIT_MSR:
        this.#accessMsr();
        return undefined;
      case EXIT_HLT:
        this.#tell({ ...NO_ACCESS, type: "hlt", registers: this.#registers() });
        return (cpu.s32[RFLAGS] & FLAG_IF) === 0 ? "hlt" : "stopped"; // nothing would ever wake it
      case EXIT_SHUTDOWN:
        this.#tell({ ...NO_ACCESS, type: "shutdown", registers: this.#registers() });
        return "shutdown";
      default:
        return this.#ended ? "port" : "stopped";
    }
  }

  /** Tells the listener. */
  #tell(exit: SeenExit): void {
    if (!this.#listener(exit)) this.#stopped = true;
  }

  /** The registers as they are in the state. */
  #registers(): ExitRegisters {
    return readExitRegisters(this.memory.view, this.cpu.base);
  }

  /** The registers before the running instruction, when RIP is already behind it. */
  #registersBefore(i: Insn): ExitRegisters {
    this.cpu.flags();
    const registers = this.#registers();
    const mask = this.cpu.long64 ? 0xffff_ffff_ffff_ffffn : 0xffff_ffffn;
    return { ...registers, rip: (registers.rip - BigInt(i.length)) & mask };
  }

  page(gpn: number): number {
    return gpn < this.#pages ? gpn * PAGE_SIZE : -1;
  }

  // ---- device memory: the instruction is left, the access made, and the instruction executed again ----

  mmioRead(cpu: Cpu, gpaLo: number, gpaHi: number, size: number): void {
    if (!this.#repeats("mmio-read", gpaLo, gpaHi, size)) return;
    const answered = this.#answered[this.#repeated++];
    cpu.v32[0] = answered.lo;
    cpu.v32[1] = answered.hi;
  }

  mmioWrite(_cpu: Cpu, gpaLo: number, gpaHi: number, size: number): void {
    if (this.#repeats("mmio-write", gpaLo, gpaHi, size)) this.#repeated++;
  }

  /** Whether the running instruction has made this access before; leaves it otherwise. */
  #repeats(type: ExitType, gpaLo: number, gpaHi: number, size: number): boolean {
    if (this.#repeated < this.#answered.length) return true;
    this.#type = type;
    this.#gpaLo = gpaLo;
    this.#gpaHi = gpaHi;
    this.#size = size;
    this.#written = this.cpu.v64[0];
    this.cpu.leave(EXIT_MMIO);
    return false;
  }

  /** Makes the access for which the instruction was left. */
  #answer(): void {
    const registers = this.#registers();
    const place = [registers.rip, registers.gpr[RCX], registers.gpr[RSI], registers.gpr[RDI]].join();
    // A string instruction that has moved on is at another element, which has made no access yet.
    if (place !== this.#place || this.#answered.length === 0) {
      this.#answered = [];
      this.#place = place;
    }
    const data = new Uint8Array(8);
    const view = new DataView(data.buffer);
    if (this.#type === "mmio-read") {
      this.#devices.mmioRead(this.#gpaLo, this.#gpaHi, this.#size);
      const [lo, hi] = this.#devices.value;
      view.setInt32(0, lo, true);
      view.setInt32(4, hi, true);
      this.#answered.push({ lo, hi });
    } else {
      view.setBigUint64(0, this.#written, true);
      this.#devices.mmioWrite(this.#gpaLo, this.#gpaHi, this.#size, view.getInt32(0, true), view.getInt32(4, true));
      this.#answered.push({ lo: 0, hi: 0 });
    }
    this.#tell({
      ...NO_ACCESS,
      type: this.#type,
      size: this.#size,
      gpa: (BigInt(this.#gpaHi >>> 0) << 32n) | BigInt(this.#gpaLo >>> 0),
      data: data.subarray(0, this.#size),
      registers,
    });
  }

  // ---- ports ----

  in(_cpu: Cpu, i: Insn, port: number, size: number): number {
    const value = this.#devices.portIn(port, size);
    this.#tellPort("in", i, port, size, value);
    return value;
  }

  out(cpu: Cpu, i: Insn, port: number, size: number, value: number): void {
    this.#tellPort("out", i, port, size, value);
    this.#devices.portOut(port, size, value);
    if (port === this.#header.endPort) this.#ended = true;
    if (this.#ended || this.#stopped) cpu.exit(EXIT_BUS);
  }

  /** Tells of one element of a port access. */
  #tellPort(type: ExitType, i: Insn, port: number, size: number, value: number): void {
    const data = new Uint8Array(4);
    new DataView(data.buffer).setInt32(0, value, true);
    this.#tell({
      ...NO_ACCESS,
      type,
      port,
      size,
      string: (i.opcode & STRING_OPCODE_MASK) === STRING_OPCODE,
      data: data.subarray(0, size),
      registers: this.#registersBefore(i),
    });
  }

  // ---- MSRs ----

  interceptsMsr(): boolean {
    return false;
  }

  rdmsr(cpu: Cpu, msr: number): boolean {
    return this.#msr(cpu, msr, "rdmsr");
  }

  wrmsr(cpu: Cpu, msr: number): boolean {
    return this.#msr(cpu, msr, "wrmsr");
  }

  #msr(cpu: Cpu, msr: number, type: ExitType): boolean {
    if (msr < MSR_FIRST || msr > MSR_LAST) return false;
    this.#type = type;
    cpu.exit(EXIT_MSR);
    return true;
  }

  /** Executes the RDMSR or WRMSR at RIP. */
  #accessMsr(): void {
    const { cpu } = this;
    const { g32, g64, s32 } = cpu;
    const msr = g32[2 * RCX] >>> 0;
    const registers = this.#registers();
    const data = new Uint8Array(8);
    const view = new DataView(data.buffer);
    if (this.#type === "rdmsr") {
      this.#devices.msrs.read(msr >>> 0);
      const [lo, hi] = this.#devices.value;
      view.setInt32(0, lo, true);
      view.setInt32(4, hi, true);
      g64[RAX] = BigInt(lo >>> 0);
      g64[RDX] = BigInt(hi >>> 0);
    } else {
      view.setInt32(0, g32[2 * RAX], true);
      view.setInt32(4, g32[2 * RDX], true);
    }
    const length = s32[at.exit_length >>> 2];
    const next = (s32[RIP] + length) | 0;
    if (cpu.long64 && next >>> 0 < length) s32[RIP + 1]++;
    s32[RIP] = next;
    this.#tell({ ...NO_ACCESS, type: this.#type, size: 8, msr, data, registers });
  }

  // ---- the rest of the processor's surroundings ----

  cpuid(cpu: Cpu): void {
    const [eax, ebx, ecx, edx] = this.#header.cpuid.get(cpu.g32[2 * RAX] >>> 0) ?? [0, 0, 0, 0];
    cpu.g64[RAX] = BigInt(eax);
    cpu.g64[RBX] = BigInt(ebx);
    cpu.g64[RCX] = BigInt(ecx);
    cpu.g64[RDX] = BigInt(edx);
  }

  hlt(cpu: Cpu): void {
    cpu.exit(EXIT_HLT);
  }

  hypercall(): boolean {
    return false;
  }

  tsc(cpu: Cpu): void {
    cpu.v64[0] = BigInt.asUintN(64, cpu.s64[INSTRUCTIONS] + TICKS_OF_A_READ * ++this.#timeReads);
  }

  interceptsException(): boolean {
    return false;
  }

  acceptInterrupt(): number {
    return -1;
  }
}

/** An exit about which nothing is said yet. */
const NO_ACCESS: Omit<ExitAccess, "type" | "registers"> = {
  port: 0,
  size: 0,
  string: false,
  count: 1,
  gpa: 0n,
  msr: 0,
  data: new Uint8Array(0),
};
