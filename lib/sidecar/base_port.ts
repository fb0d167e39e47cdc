/**
 * How the agents on a node's base processor touch memory in a machine.
 *
 * The driver's threads, its interrupt handler and the VMM's client all execute on the base processor, hence on one worker:
 * no other one touches the driver's words and the client's. A locked access to them orders nothing that anybody could see,
 * and is taken apart here; the words that sidecar processors touch as well (statuses, requests, responses, attention) keep
 * theirs, and with them the order of everything before and after.
 *
 * @module
 */
import { DirectPort, HOST_IS_X86 } from "../memory/port.ts";
import type { MachineMemory } from "../memory/machine_memory.ts";
import { SidecarClientState } from "./client_state.ts";
import { SidecarDriverState } from "./driver/state.ts";
import type { SidecarNodeMemory } from "./memory.ts";

/** See the module's description. */
export class BaseCpuPort extends DirectPort {
  readonly #u8: Uint8Array<SharedArrayBuffer>;
  readonly #i32: Int32Array<SharedArrayBuffer>;
  /** Bytes `[first, end)` belong to the base processor's agents, but for the word that every processor writes. */
  readonly #first: number;
  readonly #end: number;
  readonly #response: number;

  /** The port of the agents on the base processor of the node that lies at `node`. */
  constructor(memory: MachineMemory, node: SidecarNodeMemory) {
    super(memory);
    this.#u8 = memory.u8;
    this.#i32 = memory.i32;
    this.#first = node.driver;
    this.#end = HOST_IS_X86 ? node.clients + node.vpCount * SidecarClientState.size : node.driver;
    this.#response = node.driver + SidecarDriverState.at.response_irr;
  }

  #isOwn(at: number): boolean {
    return at >= this.#first && at < this.#end && at !== this.#response;
  }
  override exchange8(at: number, value: number): number {
    if (!this.#isOwn(at)) return super.exchange8(at, value);
    const old = this.#u8[at];
    this.#u8[at] = value;
    return old;
  }
  override exchange32(at: number, value: number): number {
    if (!this.#isOwn(at)) return super.exchange32(at, value);
    const old = this.#i32[at >>> 2];
    this.#i32[at >>> 2] = value;
    return old;
  }
  override compareExchange8(at: number, expected: number, value: number): number {
    if (!this.#isOwn(at)) return super.compareExchange8(at, expected, value);
    const old = this.#u8[at];
    if (old === expected) this.#u8[at] = value;
    return old;
  }
  override compareExchange32(at: number, expected: number, value: number): number {
    if (!this.#isOwn(at)) return super.compareExchange32(at, expected, value);
    const old = this.#i32[at >>> 2];
    if (old === expected) this.#i32[at >>> 2] = value;
    return old;
  }
  override add32(at: number, value: number): number {
    if (!this.#isOwn(at)) return super.add32(at, value);
    const old = this.#i32[at >>> 2];
    this.#i32[at >>> 2] = old + value;
    return old;
  }
  override or32(at: number, bits: number): number {
    if (!this.#isOwn(at)) return super.or32(at, bits);
    const old = this.#i32[at >>> 2];
    this.#i32[at >>> 2] = old | bits;
    return old;
  }
  override and32(at: number, bits: number): number {
    if (!this.#isOwn(at)) return super.and32(at, bits);
    const old = this.#i32[at >>> 2];
    this.#i32[at >>> 2] = old & bits;
    return old;
  }
  /** What these agents send others is sent by locked accesses, which drain the store buffer themselves. */
  override fence(): void {
    if (!HOST_IS_X86) super.fence();
  }
}
