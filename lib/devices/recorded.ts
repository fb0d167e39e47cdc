/**
 * The devices of the recorded whole programs: every port and every address outside memory answers by a rule.
 *
 * The k-th port read gives `mix(port, k)`, the k-th device-memory read `wide(address, k)`, the k-th read of a synthetic MSR
 * `wide(msr, k)`, each cut to its size. Writes have no effect; what was accessed is compared by whoever runs the program.
 *
 * @module
 */
import { u32 } from "../layout/field_type.ts";
import { reserved, structure } from "../layout/structure.ts";
import type { MachineMemory } from "../memory/machine_memory.ts";
import { DEVICE_DONE, type DeviceMsrs, type Devices } from "./devices.ts";

/** How many reads of each kind a run has made. */
export const RecordedDevicesState = structure("RecordedDevicesState", 16, [
  ["port_reads", 0, u32, "Port reads so far, each element of a string counted"],
  ["memory_reads", 4, u32, "Device-memory reads so far"],
  ["msr_reads", 8, u32, "Reads of MSRs 40000000 to 400000ff so far"],
  reserved(12, 4),
], "Counters of the rule by which recorded devices answer; not a structure of the modelled machine");

const PORT_READS = RecordedDevicesState.at.port_reads;
const MEMORY_READS = RecordedDevicesState.at.memory_reads;
const MSR_READS = RecordedDevicesState.at.msr_reads;

/** The rule's constants. */
const ADDRESS_XOR = 0x5bd1e995;
const ADDRESS_MULTIPLIER = 0x9e3779b1;
const COUNT_MULTIPLIER = 0x85ebca77;
const FINAL_MULTIPLIER = 0x2c1b3c6d;
const FIRST_SHIFT = 15;
const SECOND_SHIFT = 12;
/** First and last of the MSRs that are devices. */
const MSR_FIRST = 0x40000000;
const MSR_LAST = 0x400000ff;
/** What the address of `wide`'s high word is changed by. */
const WIDE_XOR = 0x80000000;

/** The rule's 32-bit value for address `a` and count `k`, as an int32. */
export function mix(a: number, k: number): number {
  let h = (Math.imul(a ^ ADDRESS_XOR, ADDRESS_MULTIPLIER) + Math.imul(k, COUNT_MULTIPLIER)) | 0;
  h ^= h >>> FIRST_SHIFT;
  h = Math.imul(h, FINAL_MULTIPLIER);
  return h ^ h >>> SECOND_SHIFT;
}

/** Devices that answer by the rule. */
export class RecordedDevices implements Devices {
  readonly value: Int32Array = new Int32Array(2);
  readonly #u32: Uint32Array<SharedArrayBuffer>;
  readonly #base: number;
  readonly #endPort: number;
  readonly #onEnd: () => void;

  /**
   * Devices whose {@linkcode RecordedDevicesState} is at byte offset `base`, a multiple of four; zero to begin with. An
   * OUT to `endPort` (-1 for none) calls `onEnd`.
   */
  constructor(memory: MachineMemory, base: number, endPort = -1, onEnd: () => void = () => {}) {
    this.#u32 = memory.u32;
    this.#base = base;
    this.#endPort = endPort;
    this.#onEnd = onEnd;
  }

  portIn(port: number, size: number): number {
    const value = mix(port, this.#u32[(this.#base + PORT_READS) >>> 2]++);
    return size === 4 ? value : value & (size === 2 ? 0xffff : 0xff);
  }

  portOut(port: number, _size: number, _value: number): number {
    if (port === this.#endPort) this.#onEnd();
    return DEVICE_DONE;
  }

  mmioRead(gpaLow: number, gpaHigh: number, size: number): void {
    this.#wide(gpaLow ^ gpaHigh, this.#u32[(this.#base + MEMORY_READS) >>> 2]++);
    if (size < 8) this.value[1] = 0;
    if (size < 4) this.value[0] &= size === 2 ? 0xffff : 0xff;
  }

  mmioWrite(_gpaLow: number, _gpaHigh: number, _size: number, _low: number, _high: number): number {
    return DEVICE_DONE;
  }

  /** MSRs 40000000 to 400000ff: a read follows the rule, a write has no effect. */
  readonly msrs: DeviceMsrs = {
    claims: (msr) => msr >= MSR_FIRST && msr <= MSR_LAST,
    read: (msr) => this.#wide(msr, this.#u32[(this.#base + MSR_READS) >>> 2]++),
    write: () => {},
  };

  #wide(address: number, count: number): void {
    this.value[0] = mix(address, count);
    this.value[1] = mix(address ^ WIDE_XOR, count);
  }
}
