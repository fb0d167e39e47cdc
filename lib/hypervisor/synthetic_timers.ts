/**
 * The four synthetic timers of a VP (Hyper-V TLFS, "Synthetic Timers"): they expire in partition reference time and post
 * a message to a SINT, or raise an interrupt directly.
 *
 * @module
 */
import { array, u64 } from "../layout/field_type.ts";
import { HvStatus } from "../layout/hyperv/constants/hypercalls.ts";
import { HvMessageType } from "../layout/hyperv/constants/messages.ts";
import { HvMessage, HvMessageHeader, TimerMessagePayload } from "../layout/hyperv/messages.ts";
import { HvSynicStimerConfig } from "../layout/hyperv/synic.ts";
import { structure } from "../layout/structure.ts";
import type { MachineMemory } from "../memory/machine_memory.ts";
import type { Synic } from "./synic.ts";
import { REFERENCE_TIME_NS, referenceTime } from "./time.ts";

/** Number of timers. */
export const STIMERS = 4;

/** One synthetic timer. Times are in 100 ns of partition reference time. */
const SyntheticTimer = structure("SyntheticTimer", 32, [
  ["config", 0, u64, "HvSynicStimerConfig"],
  ["count", 8, u64, "Expiration time, or the period of a periodic timer"],
  ["expiration", 16, u64, "When it expires next; 0 when it does not run"],
  ["undelivered", 24, u64, "The expiration whose message could not be posted yet; 0 for none"],
], "Not a structure of the modelled machine");

/** The timers of a VP; only the VP itself touches them. */
export const SyntheticTimersState = structure("SyntheticTimersState", STIMERS * SyntheticTimer.size, [
  ["timer", 0, array(SyntheticTimer, STIMERS), "The timers"],
], "Per-VP synthetic timers; not a structure of the modelled machine");

const CONFIG = SyntheticTimer.at.config >>> 3;
const COUNT = SyntheticTimer.at.count >>> 3;
const EXPIRATION = SyntheticTimer.at.expiration >>> 3;
const UNDELIVERED = SyntheticTimer.at.undelivered >>> 3;
const mask = HvSynicStimerConfig.mask;
const TIMER_BYTES = SyntheticTimer.size;
/** Vectors below this one are reserved for exceptions. */
const FIRST_LEGAL_VECTOR = 16;

/** Scratch for the message of an expiration; it lives no longer than a call. */
const message = new DataView(new ArrayBuffer(HvMessage.size));

/** The synthetic timers of one VP. */
export class SyntheticTimers {
  readonly #memory: MachineMemory;
  readonly #base: number;
  readonly #synic: Synic;
  readonly #interrupt: (vector: number) => void;

  /** Timers over the {@linkcode SyntheticTimersState} at byte offset `base`; `interrupt` serves direct mode. */
  constructor(memory: MachineMemory, base: number, synic: Synic, interrupt: (vector: number) => void) {
    this.#memory = memory;
    this.#base = base;
    this.#synic = synic;
    this.#interrupt = interrupt;
  }

  /** All timers stand still. */
  reset(): void {
    this.#memory.u8.fill(0, this.#base, this.#base + SyntheticTimersState.size);
  }

  /** STIMERx_CONFIG. */
  config(timer: number): bigint {
    return this.#memory.u64[this.#word(timer) + CONFIG];
  }

  /** Writes STIMERx_CONFIG at `now` nanoseconds. A timer with neither a SINT nor direct mode cannot be enabled. False, for #GP, for a direct vector below 16. */
  setConfig(timer: number, value: bigint, now: number): boolean {
    const direct = (value & mask.direct_mode) !== 0n;
    const enable = (value & mask.enabled) !== 0n;
    const vector = HvSynicStimerConfig.get(value, "apic_vector");
    if (enable && direct && vector < FIRST_LEGAL_VECTOR) return false;
    const deliverable = direct || (value & mask.sint) !== 0n;
    this.#memory.u64[this.#word(timer) + CONFIG] = deliverable ? value : value & ~mask.enabled;
    this.#start(timer, now);
    return true;
  }

  /** STIMERx_COUNT. */
  count(timer: number): bigint {
    return this.#memory.u64[this.#word(timer) + COUNT];
  }

  /** Writes STIMERx_COUNT at `now` nanoseconds: 0 disables the timer, anything else enables one with auto-enable. */
  setCount(timer: number, value: bigint, now: number): void {
    const word = this.#word(timer);
    const config = this.#memory.u64[word + CONFIG];
    this.#memory.u64[word + COUNT] = value;
    if (value === 0n) this.#memory.u64[word + CONFIG] = config & ~mask.enabled;
    else if ((config & mask.auto_enable) !== 0n) this.#memory.u64[word + CONFIG] = config | mask.enabled;
    this.#start(timer, now);
  }

  /** Lets timers expire whose time has come, and tries again to post what could not be posted. */
  poll(now: number): void {
    const time = referenceTime(now);
    for (let timer = 0; timer < STIMERS; timer++) {
      const word = this.#word(timer);
      const { u64 } = this.#memory;
      const expiration = Number(u64[word + EXPIRATION]);
      const undelivered = u64[word + UNDELIVERED];
      if (undelivered !== 0n) {
        // Expirations of a periodic timer in the meantime are not announced one by one.
        this.#deliver(timer, undelivered, time);
      } else if (expiration !== 0 && time >= expiration) {
        this.#deliver(timer, u64[word + EXPIRATION], time);
        if ((u64[word + CONFIG] & mask.periodic) !== 0n) {
          const period = Math.max(1, Number(u64[word + COUNT]));
          const missed = Math.floor((time - expiration) / period);
          u64[word + EXPIRATION] = BigInt(expiration + (missed + 1) * period);
        } else {
          u64[word + EXPIRATION] = 0n;
          u64[word + CONFIG] = u64[word + CONFIG] & ~mask.enabled;
        }
      }
    }
  }

  /** Nanosecond at which the next timer expires, or Infinity. What waits for an EOM has no time. */
  nextDeadline(): number {
    const { u32, u64 } = this.#memory;
    let next = Infinity;
    for (let timer = 0; timer < STIMERS; timer++) {
      const word = this.#word(timer);
      const half = 2 * (word + EXPIRATION);
      if ((u32[half] | u32[half + 1]) === 0) continue; // whoever spins asks all the time, and a BigInt is an object
      if (u64[word + UNDELIVERED] === 0n) next = Math.min(next, Number(u64[word + EXPIRATION]) * REFERENCE_TIME_NS);
    }
    return next;
  }

  /** Starts or stops a timer after a change of its registers. */
  #start(timer: number, now: number): void {
    const word = this.#word(timer);
    const { u64 } = this.#memory;
    u64[word + UNDELIVERED] = 0n;
    u64[word + EXPIRATION] = 0n;
    const config = u64[word + CONFIG];
    const count = u64[word + COUNT];
    if ((config & mask.enabled) === 0n || count === 0n) return;
    const periodic = (config & mask.periodic) !== 0n;
    u64[word + EXPIRATION] = periodic ? BigInt(referenceTime(now)) + count : count;
  }

  /** Announces an expiration: an interrupt in direct mode, else a message, which waits while its slot is in use. */
  #deliver(timer: number, expiration: bigint, time: number): void {
    const { u64 } = this.#memory;
    const config = u64[this.#word(timer) + CONFIG];
    if ((config & mask.direct_mode) !== 0n) {
      this.#interrupt(HvSynicStimerConfig.get(config, "apic_vector"));
      return;
    }
    const payload = HvMessage.at.payload_buffer;
    message.setUint32(HvMessageHeader.at.typ, HvMessageType.values.HvMessageTypeTimerExpired, true);
    message.setUint8(HvMessageHeader.at.len, TimerMessagePayload.size);
    message.setUint32(payload + TimerMessagePayload.at.timer_index, timer, true);
    message.setBigUint64(payload + TimerMessagePayload.at.expiration_time, expiration, true);
    message.setBigUint64(payload + TimerMessagePayload.at.delivery_time, BigInt(time), true);
    const status = this.#synic.postMessage(HvSynicStimerConfig.get(config, "sint"), message, 0);
    u64[this.#word(timer) + UNDELIVERED] = status === HvStatus.values.ObjectInUse ? expiration : 0n;
  }

  #word(timer: number): number {
    return (this.#base + timer * TIMER_BYTES) >>> 3;
  }
}
