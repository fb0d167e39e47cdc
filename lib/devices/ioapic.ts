/**
 * The I/O APIC (Intel 82093AA data sheet, order number 290566): 24 inputs, each with an entry that makes it a message.
 *
 * Polarity is ignored: an input here is "asserted" or not, whatever voltage that would be. Edges on masked inputs are lost,
 * as the data sheet says of the mask bit. Version 11h has no EOI register: the broadcast of the local APICs' EOI
 * ({@linkcode IoApic.endOfInterrupt}) is the only one.
 *
 * @module
 */
import { array, u32, u64 } from "../layout/field_type.ts";
import { reserved, structure } from "../layout/structure.ts";
import { IOAPIC } from "../layout/x64/constants.ts";
import type { MachineMemory } from "../memory/machine_memory.ts";

/** Inputs of the 82093AA. */
export const IOAPIC_INPUTS = 24;
/** Guest-physical address of its registers. */
export const IOAPIC_BASE: number = IOAPIC.MMIO_BASE;
/** Bytes that it decodes from {@linkcode IOAPIC_BASE}. */
export const IOAPIC_SIZE: number = IOAPIC.MMIO_SIZE;

/** Registers and inputs. */
export const IoApicState = structure("IoApicState", 208, [
  ["index", 0, u32, "Register that the window reads and writes (IOREGSEL)"],
  ["id", 4, u32, "Identification register"],
  ["lines", 8, u32, "Bit i is set while input i is asserted"],
  reserved(12, 4),
  ["redirection", 16, array(u64, IOAPIC_INPUTS), "Redirection table entries"],
], "Intel 82093AA; not a structure of the modelled hypervisor");

const INDEX = IoApicState.at.index;
const ID = IoApicState.at.id;
const LINES = IoApicState.at.lines;
const REDIRECTION = IoApicState.at.redirection;

/** Offsets in the decoded range. */
const OFFSET_INDEX = IOAPIC.REG_INDEX_OFFSET;
const OFFSET_WINDOW = IOAPIC.REG_DATA_OFFSET;

const REGISTER_ID = IOAPIC.INDEX_ID;
const REGISTER_VERSION = IOAPIC.INDEX_VERSION;
const REGISTER_ARBITRATION = IOAPIC.INDEX_ARBITRATION_ID;
const REGISTER_REDIRECTION = IOAPIC.INDEX_REDIRECTION_START;
/** Version, and the highest entry in bits 23:16. */
const VERSION = IOAPIC.VERSION | (IOAPIC_INPUTS - 1) << 16;
const ID_BITS = 0x0f000000;

/** Low word of an entry. */
const ENTRY_VECTOR = 0xff;
const ENTRY_DELIVERY_MODE = 0x700;
const ENTRY_LOGICAL = 0x800;
const ENTRY_DELIVERY_STATUS = 0x1000;
const ENTRY_REMOTE_IRR = 0x4000;
const ENTRY_LEVEL = 0x8000;
const ENTRY_MASK = 0x10000;
const ENTRY_READ_ONLY = ENTRY_DELIVERY_STATUS | ENTRY_REMOTE_IRR;
const ENTRY_LOW_BITS = 0x1ffff;
const ENTRY_HIGH_BITS = 0xff000000;
const ENTRY_DESTINATION_SHIFT = 24;

/** Message signalled interrupts (Intel SDM volume 3, 11.11): the form in which an entry leaves. */
const MSI_ADDRESS = 0xfee00000;
const MSI_DESTINATION_SHIFT = 12;
const MSI_LOGICAL = 0x4;
const MSI_DATA_ASSERT = 0x4000;
const MSI_DATA_LEVEL = 0x8000;

/** Where messages go: address and data of a message signalled interrupt, both as unsigned 32-bit numbers. */
export type MessageSink = (address: number, data: number) => void;

/** The I/O APIC over its {@linkcode IoApicState}. */
export class IoApic {
  readonly #u32: Uint32Array<SharedArrayBuffer>;
  readonly #base: number;
  readonly #send: MessageSink;

  /** The I/O APIC whose state is at byte offset `base`, a multiple of eight. */
  constructor(memory: MachineMemory, base: number, send: MessageSink) {
    this.#u32 = memory.u32;
    this.#base = base;
    this.#send = send;
  }

  /** Everything masked, nothing asserted. */
  reset(): void {
    const word = this.#base >>> 2;
    this.#u32.fill(0, word, word + IoApicState.size / 4);
    for (let input = 0; input < IOAPIC_INPUTS; input++) this.#u32[this.#entry(input)] = IOAPIC.REDIRECTION_ENTRY_RESET;
  }

  /** Asserts or negates an input. */
  setLine(input: number, asserted: boolean): void {
    const word = (this.#base + LINES) >>> 2;
    const lines = this.#u32[word];
    const bit = 1 << input;
    const was = (lines & bit) !== 0;
    if (was === asserted) return;
    this.#u32[word] = asserted ? lines | bit : lines & ~bit;
    if (!asserted) return;
    const low = this.#u32[this.#entry(input)];
    if (low & ENTRY_MASK) return;
    if (low & ENTRY_LEVEL) this.#deliverLevel(input);
    else this.#deliver(input);
  }

  /** A local APIC ended a level-triggered interrupt: inputs of that vector that are still asserted come again. */
  endOfInterrupt(vector: number): void {
    for (let input = 0; input < IOAPIC_INPUTS; input++) {
      const word = this.#entry(input);
      const low = this.#u32[word];
      if ((low & (ENTRY_VECTOR | ENTRY_LEVEL | ENTRY_REMOTE_IRR)) !== (vector | ENTRY_LEVEL | ENTRY_REMOTE_IRR)) {
        continue;
      }
      this.#u32[word] = low & ~ENTRY_REMOTE_IRR;
      this.#deliverLevel(input);
    }
  }

  /** Reads at `offset` in the decoded range: 32 bits, as an unsigned number; bytes outside a register read as zero. */
  read(offset: number): number {
    if (offset === OFFSET_INDEX) return this.#u32[(this.#base + INDEX) >>> 2];
    return offset === OFFSET_WINDOW ? this.#readRegister(this.#u32[(this.#base + INDEX) >>> 2]) : 0;
  }

  /** Writes 32 bits at `offset` in the decoded range. */
  write(offset: number, value: number): void {
    if (offset === OFFSET_INDEX) this.#u32[(this.#base + INDEX) >>> 2] = value & 0xff;
    else if (offset === OFFSET_WINDOW) this.#writeRegister(this.#u32[(this.#base + INDEX) >>> 2], value);
  }

  /** Index in the 32-bit view of an entry's low word. */
  #entry(input: number): number {
    return (this.#base + REDIRECTION + input * 8) >>> 2;
  }

  #readRegister(register: number): number {
    switch (register) {
      case REGISTER_ID:
      case REGISTER_ARBITRATION:
        return this.#u32[(this.#base + ID) >>> 2];
      case REGISTER_VERSION:
        return VERSION;
    }
    const half = register - REGISTER_REDIRECTION;
    return half >= 0 && half < 2 * IOAPIC_INPUTS ? this.#u32[this.#entry(0) + half] : 0;
  }

  #writeRegister(register: number, value: number): void {
    if (register === REGISTER_ID) {
      this.#u32[(this.#base + ID) >>> 2] = value & ID_BITS;
      return;
    }
    const half = register - REGISTER_REDIRECTION;
    if (half < 0 || half >= 2 * IOAPIC_INPUTS) return;
    const word = this.#entry(0) + half;
    if (half & 1) {
      this.#u32[word] = value & ENTRY_HIGH_BITS;
      return;
    }
    const old = this.#u32[word];
    let low = value & ENTRY_LOW_BITS & ~ENTRY_READ_ONLY | old & ENTRY_READ_ONLY;
    // Remote IRR has a meaning for level-triggered entries only; making an entry edge triggered clears it.
    if (!(low & ENTRY_LEVEL)) low &= ~ENTRY_REMOTE_IRR;
    this.#u32[word] = low;
    if (!(low & ENTRY_MASK) && low & ENTRY_LEVEL) this.#deliverLevel(half >> 1);
  }

  /** Sends a level-triggered entry whose input is asserted, unless its last message has not been ended. */
  #deliverLevel(input: number): void {
    const word = this.#entry(input);
    const low = this.#u32[word];
    if (!(this.#u32[(this.#base + LINES) >>> 2] & (1 << input))) return;
    if (low & (ENTRY_MASK | ENTRY_REMOTE_IRR) || !(low & ENTRY_LEVEL)) return;
    this.#u32[word] = low | ENTRY_REMOTE_IRR;
    this.#deliver(input);
  }

  #deliver(input: number): void {
    const low = this.#u32[this.#entry(input)];
    const destination = this.#u32[this.#entry(input) + 1] >>> ENTRY_DESTINATION_SHIFT;
    const address = MSI_ADDRESS + (destination << MSI_DESTINATION_SHIFT) + (low & ENTRY_LOGICAL ? MSI_LOGICAL : 0);
    const data = low & (ENTRY_VECTOR | ENTRY_DELIVERY_MODE) | MSI_DATA_ASSERT |
      (low & ENTRY_LEVEL ? MSI_DATA_LEVEL : 0);
    this.#send(address, data);
  }
}
