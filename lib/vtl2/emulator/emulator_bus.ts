/**
 * What surrounds the emulator's processor: the lower VTLs' RAM, and devices everywhere else.
 *
 * @module
 */
import type { Cpu } from "../../cpu/cpu.ts";
import { ACCESS_EXECUTE, ACCESS_WRITE, type CpuBus } from "../../cpu/bus.ts";
import { VECTOR_GP } from "../../cpu/faults.ts";
import type { Insn } from "../../cpu/insn.ts";
import { CpuState, EXIT_BUS } from "../../cpu/state.ts";
import { DEVICE_DONE } from "../../devices/devices.ts";
import { PAGE_SIZE } from "../../memory/machine_memory.ts";
import { MMIO_CMPXCHG } from "../policies.ts";
import type { VmmVp } from "../vmm_vp.ts";

/** Exit: a device cannot take a value now. */
export const EXIT_DEVICE_BUSY: number = EXIT_BUS;
/** Exit: the instruction is none that an emulator is for. */
export const EXIT_NOT_EMULATED: number = EXIT_BUS + 1;

/** Weight of the high word of an address. */
const WORD = 0x1_0000_0000;
const RAX = CpuState.at.gpr >> 3;
const RDX = RAX + 2;
/** Device reads that one compare-exchange makes at most. */
const COMPARED_MAX = 2;

/** The bus of one instruction at a time. */
export class EmulatorBus implements CpuBus {
  /** String port accesses come here element by element. */
  readonly interceptsStringIo = false;
  /** The instruction that runs. */
  insn: Insn | null = null;
  /** Accesses to ports and device memory that it has made. */
  accesses = 0;
  #vp: VmmVp | null = null;
  /** Whether a compare-exchange that differs writes nothing. */
  #plainWrite = false;
  /** What a compare-exchange has read. */
  readonly #compared = new BigUint64Array(COMPARED_MAX);
  #reads = 0;

  /** Begins an instruction of `vp`. */
  begin(vp: VmmVp): void {
    this.#vp = vp;
    this.insn = null;
    this.accesses = 0;
    this.#reads = 0;
    this.#plainWrite = vp.policy(MMIO_CMPXCHG) === MMIO_CMPXCHG.is.openhcl;
  }

  page(gpn: number, access: number): number {
    const vp = this.#vp!;
    const offset = vp.guestOffset(gpn * PAGE_SIZE, PAGE_SIZE);
    return offset >= 0 && access === ACCESS_WRITE && vp.isOverlay(gpn) ? -1 : offset;
  }

  mmioRead(cpu: Cpu, gpaLo: number, gpaHi: number, size: number, access?: number): void {
    // Instruction bytes that are not in RAM cannot be read.
    if (access === ACCESS_EXECUTE) cpu.raise(VECTOR_GP, 0);
    const { devices } = this.#vp!;
    this.accesses++;
    devices.mmioRead(gpaLo, gpaHi, size);
    cpu.v32[0] = devices.value[0];
    cpu.v32[1] = devices.value[1];
    if (this.#reads < COMPARED_MAX) this.#compared[this.#reads++] = cpu.v64[0];
  }

  mmioWrite(cpu: Cpu, gpaLo: number, gpaHi: number, size: number): void {
    const vp = this.#vp!;
    // Not a device, and yet not to be written: an overlay page.
    if (vp.guestOffset((gpaHi >>> 0) * WORD + (gpaLo >>> 0), 1) >= 0) cpu.raise(VECTOR_GP, 0);
    if (this.#plainWrite && this.#differs(cpu)) return;
    this.accesses++;
    if (vp.devices.mmioWrite(gpaLo, gpaHi, size, cpu.v32[0], cpu.v32[1]) !== DEVICE_DONE) {
      cpu.leave(EXIT_DEVICE_BUSY);
    }
  }

  in(_cpu: Cpu, _i: Insn, port: number, size: number): number {
    this.accesses++;
    return this.#vp!.devices.portIn(port, size);
  }

  out(cpu: Cpu, _i: Insn, port: number, size: number, value: number): void {
    this.accesses++;
    if (this.#vp!.devices.portOut(port, size, value) !== DEVICE_DONE) cpu.exit(EXIT_DEVICE_BUSY);
  }

  cpuid(cpu: Cpu): void {
    cpu.exit(EXIT_NOT_EMULATED);
  }

  rdmsr(cpu: Cpu, _msr: number): boolean {
    cpu.exit(EXIT_NOT_EMULATED);
    return true;
  }

  wrmsr(cpu: Cpu, _msr: number): boolean {
    cpu.exit(EXIT_NOT_EMULATED);
    return true;
  }

  interceptsMsr(_msr: number): boolean {
    return true;
  }

  hlt(cpu: Cpu): void {
    cpu.exit(EXIT_NOT_EMULATED);
  }

  hypercall(cpu: Cpu, _i: Insn): boolean {
    cpu.exit(EXIT_NOT_EMULATED);
    return true;
  }

  tsc(cpu: Cpu): void {
    cpu.v64[0] = 0n;
  }

  interceptsException(_vector: number): boolean {
    return true;
  }

  acceptInterrupt(_cpu: Cpu): number {
    return -1;
  }

  /** Whether the compare-exchange that runs has found something else than its accumulator. */
  #differs(cpu: Cpu): boolean {
    const insn = this.insn;
    if (insn === null || !insn.mnemonic.startsWith("cmpxchg")) return false;
    const bits = insn.opsize * 8;
    const accumulator = cpu.s64[RAX];
    if (insn.mnemonic === "cmpxchg") return this.#compared[0] !== BigInt.asUintN(bits, accumulator);
    if (insn.mnemonic === "cmpxchg8b") {
      const expected = BigInt.asUintN(32, cpu.s64[RDX]) << 32n | BigInt.asUintN(32, accumulator);
      return this.#compared[0] !== expected;
    }
    return this.#compared[0] !== accumulator || this.#compared[1] !== cpu.s64[RDX];
  }
}
