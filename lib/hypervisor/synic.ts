/**
 * The synthetic interrupt controller of one VTL of a VP: message slots, event flags, and the interrupts that announce
 * them (Hyper-V TLFS, "Virtual Interrupt Control", "Synthetic Interrupt Controller").
 *
 * Messages are posted and flags are set by any VP; the owner reads and writes the registers. Two posters keep apart by a
 * bit per SINT. Not modelled: SINT proxying.
 *
 * @module
 */
import { array, u32, u64 } from "../layout/field_type.ts";
import { HvStatus } from "../layout/hyperv/constants/hypercalls.ts";
import { HvMessage, HvMessageFlags, HvMessageHeader } from "../layout/hyperv/messages.ts";
import { HvSynicScontrol, HvSynicSimpSiefp, HvSynicSint } from "../layout/hyperv/synic.ts";
import { structure } from "../layout/structure.ts";
import type { MachineMemory } from "../memory/machine_memory.ts";
import type { MemoryPort } from "../memory/port.ts";

/** Number of synthetic interrupt sources. */
export const SINTS = 16;
/** Event flags of one SINT. */
export const EVENT_FLAGS = 2048;
/** Bytes of one SINT's event flags. */
const EVENT_FLAGS_BYTES = EVENT_FLAGS / 8;
/** SVERSION. */
export const SYNIC_VERSION = 1;
/** Vectors below this one are reserved for exceptions. */
const FIRST_LEGAL_VECTOR = 16;

/** Registers of one SynIC. Fields marked (shared) are written by other VPs with locked instructions. */
export const SynicState = structure("SynicState", 168, [
  ["scontrol", 0, u64, "HvSynicScontrol"],
  ["simp", 8, u64, "HvSynicSimpSiefp: place of the message page"],
  ["siefp", 16, u64, "HvSynicSimpSiefp: place of the event flags page"],
  ["sint", 24, array(u64, SINTS), "HvSynicSint"],
  ["message_page", 152, u32, "Byte offset of the message page's contents in the machine's memory"],
  ["event_page", 156, u32, "Byte offset of the event flags page's contents"],
  ["posting", 160, u32, "A bit per SINT: somebody is writing its message slot (shared)"],
  ["waiting", 164, u32, "A bit per SINT: a message found the slot in use, its EOM is awaited (shared)"],
], "Per-VP, per-VTL synthetic interrupt controller; not a structure of the modelled machine");

const at = SynicState.at;
const SLOT = HvMessage.size;
const FLAGS_WORD = HvMessageHeader.at.flags & ~3;
const MESSAGE_PENDING = HvMessageFlags.mask.message_pending << ((HvMessageHeader.at.flags & 3) * 8);
const ENABLED = HvSynicSimpSiefp.low.enabled;
const SCONTROL_ENABLED = HvSynicScontrol.low.enabled;
const SINT_MASKED = HvSynicSint.low.masked;
const SINT_AUTO_EOI = HvSynicSint.low.auto_eoi;
const SINT_POLLING = HvSynicSint.low.polling;
const SINT_VECTOR = HvSynicSint.low.vector;
/** All SINTs masked: their value after reset. */
const SINT_RESET = SINT_MASKED;

/** What surrounds a SynIC. */
export interface SynicHost {
  /** Requests interrupt `vector` of the SynIC's VTL on its VP. */
  interrupt(vector: number): void;
  /** Maps or removes the overlay of the message page or the event flags page; returns the byte offset of its contents. */
  overlay(page: "messages" | "events", enabled: boolean, gpn: number): number;
  /** The vectors of SINTs with auto-EOI are now these. */
  autoEoi(vectors: readonly number[]): void;
  /** A slot may have become free, or a SINT able to deliver: deliverability notifications are to be looked at. */
  changed(): void;
}

/** One VTL's SynIC of one VP. */
export class Synic {
  readonly #memory: MachineMemory;
  readonly #port: MemoryPort;
  readonly #base: number;
  readonly #host: SynicHost;

  /** A SynIC over the {@linkcode SynicState} at byte offset `base`, a multiple of eight. */
  constructor(memory: MachineMemory, port: MemoryPort, base: number, host: SynicHost) {
    this.#memory = memory;
    this.#port = port;
    this.#base = base;
    this.#host = host;
  }

  /** Puts the registers into their state after reset: disabled, pages unmapped, every SINT masked. */
  reset(): void {
    if (this.simp & 1n) this.#host.overlay("messages", false, 0);
    if (this.siefp & 1n) this.#host.overlay("events", false, 0);
    this.#memory.u8.fill(0, this.#base, this.#base + SynicState.size);
    for (let sint = 0; sint < SINTS; sint++) this.#memory.u64[this.#sintWord(sint)] = BigInt(SINT_RESET);
  }

  // --- Registers ----------------------------------------------------------------------------------------------------

  /** SCONTROL. */
  get scontrol(): bigint {
    return this.#port.load64(this.#base + at.scontrol);
  }
  set scontrol(value: bigint) {
    this.#memory.u64[(this.#base + at.scontrol) >>> 3] = value;
    this.#host.changed();
  }

  /** SIMP. */
  get simp(): bigint {
    return this.#port.load64(this.#base + at.simp);
  }
  set simp(value: bigint) {
    this.#setPage("messages", at.simp, at.message_page, value);
  }

  /** SIEFP. */
  get siefp(): bigint {
    return this.#port.load64(this.#base + at.siefp);
  }
  set siefp(value: bigint) {
    this.#setPage("events", at.siefp, at.event_page, value);
  }

  /** SINTx. */
  sint(sint: number): bigint {
    return this.#port.load64(this.#base + at.sint + sint * 8);
  }

  /** Writes SINTx; false, for #GP, when an unmasked source has a vector below 16. */
  setSint(sint: number, value: bigint): boolean {
    const low = Number(value & 0xffff_ffffn);
    if ((low & SINT_MASKED) === 0 && (low & SINT_POLLING) === 0 && (low & SINT_VECTOR) < FIRST_LEGAL_VECTOR) {
      return false;
    }
    this.#memory.u64[this.#sintWord(sint)] = value;
    const vectors: number[] = [];
    for (let k = 0; k < SINTS; k++) {
      const other = this.#sintLow(k);
      if ((other & (SINT_MASKED | SINT_AUTO_EOI)) === SINT_AUTO_EOI) vectors.push(other & SINT_VECTOR);
    }
    this.#host.autoEoi(vectors);
    this.#host.changed();
    return true;
  }

  /** A write of EOM: messages that found their slot in use can be posted again. */
  eom(): void {
    this.#port.exchange32(this.#base + at.waiting, 0);
    this.#host.changed();
  }

  // --- Messages -----------------------------------------------------------------------------------------------------

  /** Byte offset of the message slot of `sint`, or -1 while SIMP is not enabled. */
  slot(sint: number): number {
    if ((this.simp & 1n) === 0n) return -1;
    return (this.#port.load32(this.#base + at.message_page) >>> 0) + sint * SLOT;
  }

  /**
   * Posts the `HvMessage` at `from` of `source` into the slot of `sint`, and requests its interrupt. The sender's flags
   * are not kept. Any VP may call this.
   *
   * @returns `InvalidSynicState` when the SynIC or its message page is disabled or the SINT is masked, `ObjectInUse` when
   * the slot holds a message: its pending flag is then set, and {@linkcode SynicHost.changed} follows the EOM.
   */
  postMessage(sint: number, source: DataView, from: number): number {
    const port = this.#port;
    if (!this.#accepts(sint)) return HvStatus.values.InvalidSynicState;
    const bit = 1 << sint;
    if ((port.or32(this.#base + at.posting, bit) & bit) !== 0) return HvStatus.values.ObjectInUse;
    const status = this.#fill(sint, source, from);
    port.and32(this.#base + at.posting, ~bit);
    if (status === HvStatus.values.Success) this.interrupt(sint);
    return status;
  }

  /** Which of the SINTs in the mask `wanted` can take a message now; the slots of the others are marked pending. */
  deliverable(wanted: number): number {
    let ready = 0;
    for (let sint = 0; sint < SINTS; sint++) {
      if ((wanted >>> sint & 1) !== 0 && this.#accepts(sint) && this.#slotFree(sint)) ready |= 1 << sint;
    }
    return ready;
  }

  /** Sets event flag `flag` of `sint`; `newly` says whether it was clear. A flag that becomes set requests the interrupt. */
  signalEvent(sint: number, flag: number): { readonly status: number; readonly newly: boolean } {
    if (flag >= EVENT_FLAGS) return { status: HvStatus.values.InvalidParameter, newly: false };
    const usable = (this.scontrol & 1n) !== 0n && (this.siefp & 1n) !== 0n && (this.#sintLow(sint) & SINT_MASKED) === 0;
    if (!usable) return { status: HvStatus.values.InvalidSynicState, newly: false };
    const page = this.#port.load32(this.#base + at.event_page) >>> 0;
    const bit = 1 << (flag & 31);
    const old = this.#port.or32(page + sint * EVENT_FLAGS_BYTES + (flag >>> 5) * 4, bit);
    const newly = (old & bit) === 0;
    if (newly) this.interrupt(sint);
    return { status: HvStatus.values.Success, newly };
  }

  /** Requests the interrupt of `sint`, unless it is masked or its messages are polled for. */
  interrupt(sint: number): void {
    const low = this.#sintLow(sint);
    if ((low & (SINT_MASKED | SINT_POLLING)) === 0) this.#host.interrupt(low & SINT_VECTOR);
  }

  // --- Inside -------------------------------------------------------------------------------------------------------

  #sintWord(sint: number): number {
    return (this.#base + at.sint + sint * 8) >>> 3;
  }

  #sintLow(sint: number): number {
    return this.#port.load32(this.#base + at.sint + sint * 8);
  }

  /** Whether messages to `sint` can be delivered at all. */
  #accepts(sint: number): boolean {
    const port = this.#port;
    return (port.load32(this.#base + at.scontrol) & SCONTROL_ENABLED) !== 0 &&
      (port.load32(this.#base + at.simp) & ENABLED) !== 0 && (this.#sintLow(sint) & SINT_MASKED) === 0;
  }

  /** Whether the slot is empty. If it is not, its message says that another one waits, and is then looked at once more. */
  #slotFree(sint: number): boolean {
    const slot = this.slot(sint);
    const port = this.#port;
    if (port.load32(slot + HvMessageHeader.at.typ) === 0) return true;
    port.or32(this.#base + at.waiting, 1 << sint);
    port.or32(slot + FLAGS_WORD, MESSAGE_PENDING);
    // The guest may have emptied the slot before it could see the flag, and would then write no EOM.
    return port.load32(slot + HvMessageHeader.at.typ) === 0;
  }

  /** Writes a message into an empty slot, its type last: a slot counts as filled from then on. */
  #fill(sint: number, source: DataView, from: number): number {
    if (!this.#slotFree(sint)) return HvStatus.values.ObjectInUse;
    const slot = this.slot(sint);
    const port = this.#port;
    for (let k = SLOT - 4; k > 0; k -= 4) {
      const word = source.getInt32(from + k, true);
      port.store32(slot + k, k === FLAGS_WORD ? word & 0xff : word);
    }
    port.exchange32(slot + HvMessageHeader.at.typ, source.getInt32(from, true));
    return HvStatus.values.Success;
  }

  /** Writes SIMP or SIEFP. */
  #setPage(page: "messages" | "events", register: number, place: number, value: bigint): void {
    const enabled = (value & 1n) !== 0n;
    const offset = this.#host.overlay(page, enabled, Number(value >> 12n));
    this.#port.exchange32(this.#base + place, offset);
    this.#memory.u64[(this.#base + register) >>> 3] = value;
    this.#host.changed();
  }
}
