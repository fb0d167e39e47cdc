/**
 * A virtual processor for the VMM's handlers to work on: messages and context are written by hand at the offsets of the
 * reference page, and everything that a handler asks of the hypervisor is noted.
 */
import { DEVICE_BUSY, DEVICE_DONE, type Devices } from "../../lib/devices/devices.ts";
import { NO_HYPERCALL_SERVICES } from "../../lib/vtl2/handlers/hypercall.ts";
import { overlayVirtualizationStackCpuid } from "../../lib/vtl2/handlers/cpuid.ts";
import { MachineMemory } from "../../lib/memory/machine_memory.ts";
import { type Policy, policyValue } from "../../lib/memory/policy.ts";
import { CRASHED, type VmmCrash, type VmmPartition, type VmmVp } from "../../lib/vtl2/vmm_vp.ts";
import { VmmVpState } from "../../lib/vtl2/vmm_state.ts";

/** Guest RAM of the fixture. */
export const RAM = 0x100000;
const MESSAGE = RAM;
const CONTEXT = RAM + 0x1000;
const STATE = RAM + 0x2000;
/** Where an instruction emulator of a test has its processor. */
export const EMULATOR = STATE + 0x8000;

/** An access that the devices saw. */
export type Access = [kind: "in" | "out" | "read" | "write", address: number, size: number, value: bigint];

/** Devices that note accesses and answer reads from a list. */
export class NotedDevices implements Devices {
  readonly value = new Int32Array(2);
  readonly accesses: Access[] = [];
  /** Answers to reads, in order; then zeros. */
  answers: bigint[] = [];
  /** How many accesses are still taken before a write is busy. */
  takes = Infinity;

  portIn(port: number, size: number): number {
    const value = this.answers.shift() ?? 0n;
    this.accesses.push(["in", port, size, value]);
    return size === 4 ? Number(BigInt.asIntN(32, value)) : Number(value);
  }
  portOut(port: number, size: number, value: number): number {
    if (this.takes-- <= 0) return DEVICE_BUSY;
    this.accesses.push(["out", port, size, BigInt.asUintN(size * 8, BigInt(value))]);
    return DEVICE_DONE;
  }
  mmioRead(low: number, high: number, size: number): void {
    const value = this.answers.shift() ?? 0n;
    this.accesses.push(["read", (high >>> 0) * 2 ** 32 + (low >>> 0), size, value]);
    this.value[0] = Number(BigInt.asIntN(32, value));
    this.value[1] = Number(BigInt.asIntN(32, value >> 32n));
  }
  mmioWrite(low: number, high: number, size: number, valueLow: number, valueHigh: number): number {
    const value = BigInt(valueHigh >>> 0) << 32n | BigInt(valueLow >>> 0);
    this.accesses.push(["write", (high >>> 0) * 2 ** 32 + (low >>> 0), size, BigInt.asUintN(size * 8, value)]);
    return DEVICE_DONE;
  }
}

/** See the module's description. */
export class FixtureVp implements VmmVp {
  readonly memory = MachineMemory.allocate(RAM + 0x10000);
  readonly index = 3;
  readonly context = CONTEXT;
  readonly message = MESSAGE;
  readonly state = STATE;
  interceptedVtl = 0;
  readonly devices = new NotedDevices();
  /** Everything asked of the hypervisor, in order. */
  readonly asked: unknown[] = [];
  readonly crashes: VmmCrash[] = [];
  /** Registers for `getRegisters`, 16 bytes as two words each. */
  readonly registers = new Map<number, [bigint, bigint]>();
  /** How many `getRegisters` are answered late. */
  late = 0;
  extInt = -1;
  postStatus: number[] = [];
  readonly #policies = new Map<string, number>();
  readonly partition: VmmPartition = {
    ...NO_HYPERCALL_SERVICES,
    overlayCpuid: (leaf, _subleaf, results) => overlayVirtualizationStackCpuid(leaf, results),
    endOfInterrupt: (vector) => void this.asked.push(["eoi", vector]),
    acknowledgeExtInt: () => this.extInt,
    guestCrashed: () => void this.asked.push(["guest crashed"]),
    vpIndexOfApicId: (id) => id < 8 ? id + 100 : -1,
  };

  /** Chooses a policy's value. */
  choose(policy: Policy, value: string): void {
    this.#policies.set(policy.name, policyValue(policy, value));
  }
  policy(policy: Policy): number {
    return this.#policies.get(policy.name) ?? 0;
  }
  getRegisters(names: readonly number[], at: number): boolean {
    names.forEach((name, i) => {
      const [low, high] = this.registers.get(name) ?? [0n, 0n];
      this.memory.u64[at / 8 + 2 * i] = low;
      this.memory.u64[at / 8 + 2 * i + 1] = high;
    });
    return this.late-- <= 0;
  }
  setRegisters(names: readonly number[], at: number): void {
    names.forEach((name, i) => this.asked.push(["set", name, this.memory.u64[at / 8 + 2 * i]]));
  }
  setRip(low: number, high: number): void {
    this.asked.push(["rip", BigInt(high >>> 0) << 32n | BigInt(low >>> 0)]);
  }
  clearInterruptShadow(): void {
    this.asked.push(["clear shadow"]);
  }
  injectEvent(at: number): void {
    this.asked.push(["event", ...this.memory.u64.slice(at / 8, at / 8 + 4)]);
  }
  postMessageDirect(sint: number, message: number): number {
    this.asked.push(["post", sint, this.memory.u32[message / 4]]);
    return this.postStatus.shift() ?? 0;
  }
  guestOffset(gpa: number, length: number): number {
    return gpa + length <= RAM ? gpa : -1;
  }
  /** A guest page that shows an overlay. */
  overlay = -1;
  isOverlay(gpn: number): boolean {
    return gpn === this.overlay;
  }
  crash(report: VmmCrash): number {
    this.crashes.push(report);
    return CRASHED;
  }

  /** General-purpose register `slot` of the context (hcl_cpu_context_x64; 4 is CR2). */
  gpr(slot: number): bigint {
    return this.memory.u64[(CONTEXT + 8 * slot) / 8];
  }
  setGpr(slot: number, value: bigint): void {
    this.memory.u64[(CONTEXT + 8 * slot) / 8] = value;
  }

  /** Writes a message of `type`: header, intercept header, and 64-bit words at payload offsets. */
  setMessage(
    type: number,
    { length = 2, access = 0, state = 0x14, rip = 0x1000n, rflags = 0x2n, words = {}, bytes = {} }: {
      length?: number;
      access?: number;
      state?: number;
      rip?: bigint;
      rflags?: bigint;
      words?: Record<number, bigint>;
      bytes?: Record<number, number>;
    },
  ): void {
    const { view } = this.memory;
    this.memory.u8.fill(0, MESSAGE, MESSAGE + 256);
    view.setUint32(MESSAGE, type, true);
    view.setUint8(MESSAGE + 4, 240);
    const payload = MESSAGE + 16;
    view.setUint32(payload, this.index, true);
    view.setUint8(payload + 4, length);
    view.setUint8(payload + 5, access);
    view.setUint16(payload + 6, state, true);
    view.setBigUint64(payload + 24, rip, true);
    view.setBigUint64(payload + 32, rflags, true);
    for (const [offset, value] of Object.entries(words)) view.setBigUint64(payload + Number(offset), value, true);
    for (const [offset, value] of Object.entries(bytes)) view.setUint8(payload + Number(offset), value);
  }

  /** An I/O port message: port at payload 40, access information at 42, RAX at 48. */
  setIoMessage(
    port: number,
    { size, write, rax, string = 0, rflags = 0x2n, state = 0x14, rip = 0x1000n, length = 2 }: {
      size: number;
      write: boolean;
      rax: bigint;
      string?: number;
      rflags?: bigint;
      state?: number;
      rip?: bigint;
      length?: number;
    },
  ): void {
    this.setMessage(0x80010000, {
      length,
      access: write ? 1 : 0,
      rip,
      rflags,
      state,
      words: { 48: rax },
      bytes: { 40: port & 0xff, 41: port >> 8, 42: size | string },
    });
  }

  /** A field of the VMM's state of this processor. */
  get saved() {
    return VmmVpState.accessor(this.memory.view, STATE);
  }
}
