/**
 * The two cascaded 8259A interrupt controllers of a PC (Intel 8259A data sheet, order number 231468) with the edge/level
 * registers of later chip sets (ELCR, ports 4d0 and 4d1).
 *
 * Modelled: ICW1 to ICW4, all OCWs, rotation, automatic EOI, special mask and special fully nested mode, polling,
 * cascading on input 2, spurious interrupts of the slave. Not modelled: MCS-80 mode and buffered mode, which no PC uses.
 * An edge stays latched when its line falls before it is acknowledged; the chip would then report a spurious interrupt 7.
 *
 * @module
 */
import { u8 } from "../layout/field_type.ts";
import { reserved, structure } from "../layout/structure.ts";
import type { MachineMemory } from "../memory/machine_memory.ts";

/** Registers of one 8259A. */
const PicChipState = structure("PicChipState", 16, [
  ["irr", 0, u8, "Interrupt request register"],
  ["isr", 1, u8, "In-service register"],
  ["imr", 2, u8, "Interrupt mask register"],
  ["lines", 3, u8, "Present level of the inputs"],
  ["elcr", 4, u8, "Inputs that are level triggered, by the edge/level register"],
  ["icw1", 5, u8, "ICW1 as written"],
  ["vector_base", 6, u8, "ICW2: bits 7:3 of the vectors"],
  ["icw4", 7, u8, "ICW4 as written"],
  ["expects", 8, u8, "Which ICW the data port takes next: 2, 3 or 4; 0 outside initialization"],
  ["lowest", 9, u8, "Input of lowest priority: 7 after initialization, other values by rotation"],
  ["read_isr", 10, u8, "1 when the command port reads ISR, 0 when it reads IRR"],
  ["poll", 11, u8, "1 when the next read is a poll"],
  ["special_mask", 12, u8, "1 in special mask mode"],
  ["rotate_on_aeoi", 13, u8, "1 when an automatic EOI rotates the priorities"],
  reserved(14, 2),
], "Intel 8259A registers; not a structure of the modelled hypervisor");

/** Registers of the pair. */
export const PicState = structure("PicState", 48, [
  ["master", 0, PicChipState, "Inputs IRQ0 to IRQ7, ports 20 and 21"],
  ["slave", 16, PicChipState, "Inputs IRQ8 to IRQ15, ports a0 and a1; its output is the master's input 2"],
  ["output", 32, u8, "1 while the master's INT output is high"],
  reserved(33, 15),
], "The cascaded pair of a PC");

const MASTER = PicState.at.master;
const SLAVE = PicState.at.slave;
const OUTPUT = PicState.at.output;
const IRR = PicChipState.at.irr;
const ISR = PicChipState.at.isr;
const IMR = PicChipState.at.imr;
const LINES = PicChipState.at.lines;
const ELCR = PicChipState.at.elcr;
const ICW1 = PicChipState.at.icw1;
const VECTOR_BASE = PicChipState.at.vector_base;
const ICW4 = PicChipState.at.icw4;
const EXPECTS = PicChipState.at.expects;
const LOWEST = PicChipState.at.lowest;
const READ_ISR = PicChipState.at.read_isr;
const POLL = PicChipState.at.poll;
const SPECIAL_MASK = PicChipState.at.special_mask;
const ROTATE_ON_AEOI = PicChipState.at.rotate_on_aeoi;

/** The master's input that the slave drives. */
const CASCADE_INPUT = 2;
/** Input whose vector stands for a request that went away. */
const SPURIOUS_INPUT = 7;
/** Inputs of one chip. */
const INPUTS = 8;

const ICW1_ICW4_NEEDED = 0x01;
const ICW1_SINGLE = 0x02;
const ICW1_LEVEL_TRIGGERED = 0x08;
const ICW1_INITIALIZE = 0x10;
const ICW4_AUTOMATIC_EOI = 0x02;
const ICW4_SPECIAL_FULLY_NESTED = 0x10;
const VECTOR_BASE_BITS = 0xf8;

/** OCW2 bits 7:5. */
const OCW2_ROTATE_IN_AEOI_CLEAR = 0;
const OCW2_EOI = 1;
const OCW2_SPECIFIC_EOI = 3;
const OCW2_ROTATE_IN_AEOI_SET = 4;
const OCW2_ROTATE_ON_EOI = 5;
const OCW2_SET_PRIORITY = 6;
const OCW2_ROTATE_ON_SPECIFIC_EOI = 7;
const OCW2_SHIFT = 5;

const OCW3 = 0x08;
const OCW3_READ_ISR = 0x01;
const OCW3_READ_REGISTER = 0x02;
const OCW3_POLL = 0x04;
const OCW3_SPECIAL_MASK = 0x20;
const OCW3_SET_SPECIAL_MASK = 0x40;
const POLL_REQUEST = 0x80;

/** Inputs that ELCR may make level triggered: not IRQ0 to IRQ2. */
const ELCR_MASTER_BITS = 0xf8;
/** Not IRQ8 and IRQ13. */
const ELCR_SLAVE_BITS = 0xde;

/** The pair over its {@linkcode PicState}. */
export class PicPair {
  readonly #u8: Uint8Array<SharedArrayBuffer>;
  readonly #base: number;
  readonly #outputChanged: (level: boolean) => void;

  /** The pair whose state is at byte offset `base`; `outputChanged` hears of each change of the INT output. */
  constructor(memory: MachineMemory, base: number, outputChanged: (level: boolean) => void) {
    this.#u8 = memory.u8;
    this.#base = base;
    this.#outputChanged = outputChanged;
  }

  /** The state before any initialization command: nothing requested, everything masked. */
  reset(): void {
    this.#u8.fill(0, this.#base, this.#base + PicState.size);
    for (const chip of [this.#base + MASTER, this.#base + SLAVE]) {
      this.#u8[chip + IMR] = 0xff;
      this.#u8[chip + LOWEST] = INPUTS - 1;
    }
  }

  /** Whether the INT output is high. */
  get output(): boolean {
    return this.#u8[this.#base + OUTPUT] !== 0;
  }

  /** Drives input `irq` (0 to 15, not 2). */
  setLine(irq: number, level: boolean): void {
    if (irq < INPUTS) this.#setInput(this.#base + MASTER, irq, level);
    else this.#setInput(this.#base + SLAVE, irq - INPUTS, level);
    this.#update();
  }

  /**
   * The interrupt acknowledge cycle: puts the request of highest priority in service and returns its vector, or -1 when
   * INT is low. A slave whose request has gone away answers with its vector 7, without an in-service bit.
   */
  acknowledge(): number {
    const master = this.#base + MASTER;
    const input = this.#request(master);
    if (input < 0) return -1;
    this.#putInService(master, input);
    let vector = this.#u8[master + VECTOR_BASE] | input;
    if (input === CASCADE_INPUT) {
      const slave = this.#base + SLAVE;
      const request = this.#request(slave);
      if (request >= 0) this.#putInService(slave, request);
      vector = this.#u8[slave + VECTOR_BASE] | (request < 0 ? SPURIOUS_INPUT : request);
      // The slave's output falls during the cycle, so that a further request is a new edge for the master.
      this.#setInput(master, CASCADE_INPUT, false);
    }
    this.#update();
    return vector;
  }

  /** Reads the command (`data` false) or data port of the master (`chip` 0) or the slave (1). */
  read(chip: number, data: boolean): number {
    const u8 = this.#u8;
    const at = this.#base + (chip === 0 ? MASTER : SLAVE);
    if (u8[at + POLL]) {
      u8[at + POLL] = 0;
      const input = this.#request(at);
      if (input < 0) return 0;
      this.#putInService(at, input);
      this.#update();
      return POLL_REQUEST | input;
    }
    if (data) return u8[at + IMR];
    return u8[at + READ_ISR] ? u8[at + ISR] : u8[at + IRR];
  }

  /** Writes the command (`data` false) or data port of the master (`chip` 0) or the slave (1). */
  write(chip: number, data: boolean, value: number): void {
    const at = this.#base + (chip === 0 ? MASTER : SLAVE);
    if (data) this.#writeData(at, value);
    else if (value & ICW1_INITIALIZE) this.#initialize(at, value);
    else if (value & OCW3) this.#writeOcw3(at, value);
    else this.#writeOcw2(at, value);
    this.#update();
  }

  /** Reads the edge/level register of the master (`chip` 0) or the slave (1). */
  readElcr(chip: number): number {
    return this.#u8[this.#base + (chip === 0 ? MASTER : SLAVE) + ELCR];
  }

  /** Writes the edge/level register; bits of inputs that must be edge triggered stay zero. */
  writeElcr(chip: number, value: number): void {
    this.#u8[this.#base + (chip === 0 ? MASTER : SLAVE) + ELCR] = value &
      (chip === 0 ? ELCR_MASTER_BITS : ELCR_SLAVE_BITS);
    this.#update();
  }

  #initialize(at: number, icw1: number): void {
    const u8 = this.#u8;
    u8[at + ICW1] = icw1;
    u8[at + ICW4] = 0;
    u8[at + EXPECTS] = 2;
    // The edge sense circuit is reset: a line must rise again. A level-triggered input requests as long as it is high.
    u8[at + IRR] = u8[at + LINES] & this.#levelTriggered(at);
    u8[at + ISR] = 0;
    u8[at + IMR] = 0;
    u8[at + LOWEST] = INPUTS - 1;
    u8[at + READ_ISR] = 0;
    u8[at + POLL] = 0;
    u8[at + SPECIAL_MASK] = 0;
    u8[at + ROTATE_ON_AEOI] = 0;
  }

  #writeData(at: number, value: number): void {
    const u8 = this.#u8;
    const icw1 = u8[at + ICW1];
    switch (u8[at + EXPECTS]) {
      case 2:
        u8[at + VECTOR_BASE] = value & VECTOR_BASE_BITS;
        u8[at + EXPECTS] = icw1 & ICW1_SINGLE ? (icw1 & ICW1_ICW4_NEEDED ? 4 : 0) : 3;
        return;
      case 3: // ICW3 describes the cascade, which a PC has wired.
        u8[at + EXPECTS] = icw1 & ICW1_ICW4_NEEDED ? 4 : 0;
        return;
      case 4:
        u8[at + ICW4] = value;
        u8[at + EXPECTS] = 0;
        return;
      default:
        u8[at + IMR] = value;
    }
  }

  #writeOcw2(at: number, value: number): void {
    const u8 = this.#u8;
    const command = value >> OCW2_SHIFT;
    switch (command) {
      case OCW2_EOI:
      case OCW2_ROTATE_ON_EOI: {
        // In special mask mode a masked level is not cleared by a non-specific EOI.
        const eligible = u8[at + SPECIAL_MASK] ? u8[at + ISR] & ~u8[at + IMR] : u8[at + ISR];
        const input = this.#highest(at, eligible);
        if (input >= 0) {
          u8[at + ISR] &= ~(1 << input);
          if (command === OCW2_ROTATE_ON_EOI) u8[at + LOWEST] = input;
        }
        return;
      }
      case OCW2_SPECIFIC_EOI:
        u8[at + ISR] &= ~(1 << (value & 7));
        return;
      case OCW2_ROTATE_ON_SPECIFIC_EOI:
        u8[at + ISR] &= ~(1 << (value & 7));
        u8[at + LOWEST] = value & 7;
        return;
      case OCW2_SET_PRIORITY:
        u8[at + LOWEST] = value & 7;
        return;
      case OCW2_ROTATE_IN_AEOI_SET:
        u8[at + ROTATE_ON_AEOI] = 1;
        return;
      case OCW2_ROTATE_IN_AEOI_CLEAR:
        u8[at + ROTATE_ON_AEOI] = 0;
    }
  }

  #writeOcw3(at: number, value: number): void {
    const u8 = this.#u8;
    if (value & OCW3_POLL) u8[at + POLL] = 1;
    if (value & OCW3_READ_REGISTER) u8[at + READ_ISR] = value & OCW3_READ_ISR;
    if (value & OCW3_SET_SPECIAL_MASK) u8[at + SPECIAL_MASK] = value & OCW3_SPECIAL_MASK ? 1 : 0;
  }

  /** Inputs of a chip that are level triggered. */
  #levelTriggered(at: number): number {
    return this.#u8[at + ICW1] & ICW1_LEVEL_TRIGGERED ? 0xff : this.#u8[at + ELCR];
  }

  #setInput(at: number, input: number, level: boolean): void {
    const u8 = this.#u8;
    const bit = 1 << input;
    const wasHigh = (u8[at + LINES] & bit) !== 0;
    u8[at + LINES] = level ? u8[at + LINES] | bit : u8[at + LINES] & ~bit;
    if (this.#levelTriggered(at) & bit) {
      u8[at + IRR] = level ? u8[at + IRR] | bit : u8[at + IRR] & ~bit;
    } else if (level && !wasHigh) {
      u8[at + IRR] |= bit;
    }
  }

  /** The input of highest priority among `inputs`, or -1. */
  #highest(at: number, inputs: number): number {
    if (inputs === 0) return -1;
    const lowest = this.#u8[at + LOWEST];
    for (let i = 1; i <= INPUTS; i++) {
      const input = (lowest + i) & (INPUTS - 1);
      if (inputs & (1 << input)) return input;
    }
    return -1;
  }

  /** The input whose request this chip would pass on now, or -1. */
  #request(at: number): number {
    const u8 = this.#u8;
    const requests = u8[at + IRR] & ~u8[at + IMR];
    // In special mask mode an input in service inhibits only itself.
    if (u8[at + SPECIAL_MASK]) return this.#highest(at, requests & ~u8[at + ISR]);
    const input = this.#highest(at, requests);
    if (input < 0) return -1;
    let blocking = u8[at + ISR];
    // A slave in service may interrupt again in special fully nested mode.
    if (at === this.#base + MASTER && u8[at + ICW4] & ICW4_SPECIAL_FULLY_NESTED) blocking &= ~(1 << CASCADE_INPUT);
    const inService = this.#highest(at, blocking);
    if (inService < 0) return input;
    const lowest = u8[at + LOWEST];
    const rank = (i: number) => (i - lowest - 1) & (INPUTS - 1);
    return rank(input) < rank(inService) ? input : -1;
  }

  #putInService(at: number, input: number): void {
    const u8 = this.#u8;
    const bit = 1 << input;
    if (!(this.#levelTriggered(at) & bit)) u8[at + IRR] &= ~bit;
    if (u8[at + ICW4] & ICW4_AUTOMATIC_EOI) {
      if (u8[at + ROTATE_ON_AEOI]) u8[at + LOWEST] = input;
    } else {
      u8[at + ISR] |= bit;
    }
  }

  /** Carries the slave's output to the master and the master's to the processor. */
  #update(): void {
    this.#setInput(this.#base + MASTER, CASCADE_INPUT, this.#request(this.#base + SLAVE) >= 0);
    const output = this.#request(this.#base + MASTER) >= 0;
    const old = this.#u8[this.#base + OUTPUT] !== 0;
    if (output === old) return;
    this.#u8[this.#base + OUTPUT] = output ? 1 : 0;
    this.#outputChanged(output);
  }
}
