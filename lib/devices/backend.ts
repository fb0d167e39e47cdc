/**
 * Devices that a caller of the library serves: which ports and addresses it claims, and how an access reaches it.
 *
 * Claims are plain data, so that every worker can look them up. Where the caller's code runs in the same thread an access
 * is a call ({@linkcode DirectLink}); where it runs in the main thread the access crosses through a
 * {@linkcode DeviceMailbox} in the shared memory, one for each VP ({@linkcode MailboxLink}, {@linkcode serveMailbox}).
 * Either way the access is complete when the call returns. No lock is held meanwhile.
 *
 * @module
 */
import { u32, u64 } from "../layout/field_type.ts";
import { reserved, structure } from "../layout/structure.ts";
import { BadInput } from "../memory/bad_input.ts";
import type { MachineMemory } from "../memory/machine_memory.ts";
import type { MemoryPort } from "../memory/port.ts";

/** Ports `first` to `last`, both included. */
export interface PortRange {
  /** First port of the range, 0 to 0xffff. */
  readonly first: number;
  /** Last port of the range, 0 to 0xffff. */
  readonly last: number;
}

/** Guest-physical addresses `base` to `base + size - 1`. */
export interface MmioRange {
  /** First byte; must be outside the guest's RAM. */
  readonly base: number;
  /** Bytes. */
  readonly size: number;
}

/** What a backend serves. */
export interface DeviceClaims {
  /** Ports; an access belongs to the backend when its first port does. */
  readonly ports: readonly PortRange[];
  /** Device memory; an access belongs to the backend when its first byte does. */
  readonly mmio: readonly MmioRange[];
}

/** Devices served by a caller of the library. The methods must not throw; what they throw ends the machine. */
export interface DeviceBackend {
  /** The ports and addresses that are asked here first, before the machine's own devices. */
  readonly claims: DeviceClaims;
  /** IN of `size` (1, 2 or 4) bytes; excess bits of the result are ignored. */
  portIn(port: number, size: number): number;
  /** OUT of `size` (1, 2 or 4) bytes; `value` is unsigned. */
  portOut(port: number, size: number, value: number): void;
  /** A read of `size` (1, 2, 4 or 8) bytes at a guest-physical address; excess bits of the result are ignored. */
  mmioRead(gpa: bigint, size: number): bigint;
  /** A write of `size` (1, 2, 4 or 8) bytes at a guest-physical address. */
  mmioWrite(gpa: bigint, size: number, value: bigint): void;
}

/** How a VP's accesses reach a backend. 64-bit values are pairs of int32 words. */
export interface BackendLink {
  /** What the backend claims. */
  readonly claims: DeviceClaims;
  /** See {@linkcode DeviceBackend.portIn}; an int32. */
  portIn(port: number, size: number): number;
  /** See {@linkcode DeviceBackend.portOut}. */
  portOut(port: number, size: number, value: number): void;
  /** See {@linkcode DeviceBackend.mmioRead}; the value goes to `out[0]` (low) and `out[1]`. */
  mmioRead(gpa: number, size: number, out: Int32Array): void;
  /** See {@linkcode DeviceBackend.mmioWrite}. */
  mmioWrite(gpa: number, size: number, low: number, high: number): void;
}

/** Highest port. */
const PORT_MAX = 0xffff;
/** Guest-physical addresses lie below this. */
const GPA_LIMIT = 2 ** 52;

/** Checks ranges that came from outside; throws {@linkcode BadInput} naming the first that makes no sense. */
export function checkClaims(claims: DeviceClaims): void {
  for (const { first, last } of claims.ports) {
    if (!(Number.isInteger(first) && Number.isInteger(last) && first >= 0 && last >= first && last <= PORT_MAX)) {
      throw new BadInput(`Port range ${first}-${last}: expected 0 <= first <= last <= ${PORT_MAX}`);
    }
  }
  for (const { base, size } of claims.mmio) {
    if (!(Number.isInteger(base) && Number.isInteger(size) && base >= 0 && size > 0 && base + size <= GPA_LIMIT)) {
      throw new BadInput(`Device memory at ${base}, ${size} bytes: expected a range below 2^52`);
    }
  }
}

/** A backend in the same thread. */
export class DirectLink implements BackendLink {
  readonly claims: DeviceClaims;
  readonly #backend: DeviceBackend;
  readonly #value = new BigUint64Array(1);
  readonly #words = new Int32Array(this.#value.buffer);

  /** A link to `backend`. Throws {@linkcode BadInput} when its claims make no sense. */
  constructor(backend: DeviceBackend) {
    checkClaims(backend.claims);
    this.claims = backend.claims;
    this.#backend = backend;
  }
  portIn(port: number, size: number): number {
    return this.#backend.portIn(port, size) | 0;
  }
  portOut(port: number, size: number, value: number): void {
    this.#backend.portOut(port, size, value >>> 0);
  }
  mmioRead(gpa: number, size: number, out: Int32Array): void {
    this.#value[0] = this.#backend.mmioRead(BigInt(gpa), size);
    out[0] = this.#words[0];
    out[1] = this.#words[1];
  }
  mmioWrite(gpa: number, size: number, low: number, high: number): void {
    this.#words[0] = low;
    this.#words[1] = high;
    this.#backend.mmioWrite(BigInt(gpa), size, this.#value[0]);
  }
}

/** One VP's outstanding access to a backend in another thread. */
export const DeviceMailbox = structure("DeviceMailbox", 64, [
  ["state", 0, u32, "0 idle, 1 asked (written by the VP), 2 answered (written by the main thread)"],
  ["kind", 4, u32, "1 port in, 2 port out, 3 memory read, 4 memory write"],
  ["size", 8, u32, "Bytes accessed"],
  ["sequence", 12, u32, "Accesses asked so far, modulo 2^32"],
  ["address", 16, u64, "Port or guest-physical address"],
  ["value", 24, u64, "Value written, or the answer"],
  reserved(32, 32),
], "A request to devices served in the main thread; not a structure of the modelled machine");

const STATE = DeviceMailbox.at.state;
const KIND = DeviceMailbox.at.kind;
const SIZE = DeviceMailbox.at.size;
const SEQUENCE = DeviceMailbox.at.sequence;
const ADDRESS = DeviceMailbox.at.address;
const VALUE = DeviceMailbox.at.value;

const STATE_IDLE = 0;
const STATE_ASKED = 1;
const STATE_ANSWERED = 2;
const KIND_IN = 1;
const KIND_OUT = 2;
const KIND_READ = 3;
const KIND_WRITE = 4;
/** Looks at the answer before the VP sleeps. */
const SPINS_MAX = 1000;
/** Longest sleep in milliseconds between two questions whether the machine still runs. */
const SLEEP_MS_MAX = 20;
const WORD = 0x1_0000_0000;

/** A VP's side of a mailbox. */
export class MailboxLink implements BackendLink {
  readonly claims: DeviceClaims;
  readonly #memory: MachineMemory;
  readonly #port: MemoryPort;
  readonly #base: number;
  readonly #running: () => boolean;

  /**
   * The mailbox at byte offset `base`, a multiple of eight. While an answer is awaited `running` is asked now and then;
   * once it says no, accesses return all ones.
   */
  constructor(memory: MachineMemory, port: MemoryPort, base: number, claims: DeviceClaims, running: () => boolean) {
    this.claims = claims;
    this.#memory = memory;
    this.#port = port;
    this.#base = base;
    this.#running = running;
  }
  portIn(port: number, size: number): number {
    return this.#ask(KIND_IN, port, size, 0, 0) ? this.#memory.i32[(this.#base + VALUE) >>> 2] : -1;
  }
  portOut(port: number, size: number, value: number): void {
    this.#ask(KIND_OUT, port, size, value, 0);
  }
  mmioRead(gpa: number, size: number, out: Int32Array): void {
    const answered = this.#ask(KIND_READ, gpa, size, 0, 0);
    out[0] = answered ? this.#memory.i32[(this.#base + VALUE) >>> 2] : -1;
    out[1] = answered ? this.#memory.i32[((this.#base + VALUE) >>> 2) + 1] : -1;
  }
  mmioWrite(gpa: number, size: number, low: number, high: number): void {
    this.#ask(KIND_WRITE, gpa, size, low, high);
  }

  #ask(kind: number, address: number, size: number, low: number, high: number): boolean {
    const { u32, i32 } = this.#memory;
    const word = this.#base >>> 2;
    u32[word + (KIND >>> 2)] = kind;
    u32[word + (SIZE >>> 2)] = size;
    u32[word + (SEQUENCE >>> 2)]++;
    u32[word + (ADDRESS >>> 2)] = address % WORD;
    u32[word + (ADDRESS >>> 2) + 1] = Math.floor(address / WORD);
    i32[word + (VALUE >>> 2)] = low;
    i32[word + (VALUE >>> 2) + 1] = high;
    this.#port.exchange32(this.#base + STATE, STATE_ASKED);
    Atomics.notify(i32, word + (STATE >>> 2));
    for (let spin = 0; spin < SPINS_MAX; spin++) {
      if (this.#port.load32(this.#base + STATE) === STATE_ANSWERED) break;
    }
    while (this.#port.load32(this.#base + STATE) !== STATE_ANSWERED) {
      if (!this.#running()) return false;
      Atomics.wait(i32, word + (STATE >>> 2), STATE_ASKED, SLEEP_MS_MAX);
    }
    this.#port.store32(this.#base + STATE, STATE_IDLE);
    return true;
  }
}

/**
 * The main thread's side: answers the access that waits in the mailbox at byte offset `base`, if one does, and says
 * whether one did.
 */
export function serveMailbox(memory: MachineMemory, port: MemoryPort, base: number, backend: DeviceBackend): boolean {
  if (port.load32(base + STATE) !== STATE_ASKED) return false;
  const word = base >>> 2;
  const size = memory.u32[word + (SIZE >>> 2)];
  const address = memory.u32[word + (ADDRESS >>> 2) + 1] * WORD + memory.u32[word + (ADDRESS >>> 2)];
  const value = (base + VALUE) >>> 3;
  switch (memory.u32[word + (KIND >>> 2)]) {
    case KIND_IN:
      memory.i32[word + (VALUE >>> 2)] = backend.portIn(address, size);
      break;
    case KIND_OUT:
      backend.portOut(address, size, memory.u32[word + (VALUE >>> 2)]);
      break;
    case KIND_READ:
      memory.u64[value] = backend.mmioRead(BigInt(address), size);
      break;
    case KIND_WRITE:
      backend.mmioWrite(BigInt(address), size, memory.u64[value]);
      break;
  }
  port.exchange32(base + STATE, STATE_ANSWERED);
  Atomics.notify(memory.i32, word + (STATE >>> 2));
  return true;
}
