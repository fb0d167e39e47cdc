/**
 * A 16550 serial port: the register set of the PC16550D data sheet (National Semiconductor, section 8).
 *
 * Output leaves the transmitter at once, through a {@linkcode ByteRing}. The line is always connected: DCD, DSR and CTS
 * are asserted. Characters are received in loopback mode and through {@linkcode Uart.receive}. Not modelled: the time that
 * a character takes (so a partly filled receive FIFO reports its time-out at once), line errors other than overrun,
 * DMA signalling and break.
 *
 * @module
 */
import { array, u8 } from "../layout/field_type.ts";
import { reserved, structure } from "../layout/structure.ts";
import type { MachineMemory } from "../memory/machine_memory.ts";
import type { ByteRing } from "./byte_ring.ts";
import type { IrqLine } from "./irq_line.ts";

/** Depth of the receive FIFO in characters. */
const FIFO_DEPTH = 16;

/** Registers and FIFO of one 16550. */
export const UartState = structure("UartState", 32, [
  ["ier", 0, u8, "Interrupt enable register"],
  ["fcr", 1, u8, "FIFO control register: the bits that stay (enable, DMA mode, trigger level)"],
  ["lcr", 2, u8, "Line control register"],
  ["mcr", 3, u8, "Modem control register"],
  ["lsr", 4, u8, "Line status register; bits 0, 5 and 6 are derived when read"],
  ["msr", 5, u8, "Modem status register"],
  ["scr", 6, u8, "Scratch register"],
  ["dll", 7, u8, "Divisor latch, low byte"],
  ["dlm", 8, u8, "Divisor latch, high byte"],
  ["thre_pending", 9, u8, "1 while the transmitter-empty interrupt has not been acknowledged"],
  ["rx_first", 10, u8, "Index in the FIFO of the oldest character"],
  ["rx_count", 11, u8, "Characters in the FIFO"],
  reserved(12, 4),
  ["rx_fifo", 16, array(u8, FIFO_DEPTH), "Received characters"],
], "PC16550D registers; not a structure of the modelled hypervisor");

const IER = UartState.at.ier;
const FCR = UartState.at.fcr;
const LCR = UartState.at.lcr;
const MCR = UartState.at.mcr;
const LSR = UartState.at.lsr;
const MSR = UartState.at.msr;
const SCR = UartState.at.scr;
const DLL = UartState.at.dll;
const DLM = UartState.at.dlm;
const THRE_PENDING = UartState.at.thre_pending;
const RX_FIRST = UartState.at.rx_first;
const RX_COUNT = UartState.at.rx_count;
const RX_FIFO = UartState.at.rx_fifo;

/** Register offsets from the base port (data sheet, table II). */
const REG_DATA = 0;
const REG_IER = 1;
const REG_IIR_FCR = 2;
const REG_LCR = 3;
const REG_MCR = 4;
const REG_LSR = 5;
const REG_MSR = 6;

const IER_RECEIVED_DATA = 0x01;
const IER_TRANSMITTER_EMPTY = 0x02;
const IER_LINE_STATUS = 0x04;
const IER_MODEM_STATUS = 0x08;
const IER_BITS = 0x0f;

const IIR_MODEM_STATUS = 0x00;
const IIR_NONE = 0x01;
const IIR_TRANSMITTER_EMPTY = 0x02;
const IIR_RECEIVED_DATA = 0x04;
const IIR_LINE_STATUS = 0x06;
const IIR_CHARACTER_TIMEOUT = 0x0c;
const IIR_FIFOS_ENABLED = 0xc0;

const FCR_ENABLE = 0x01;
const FCR_CLEAR_RECEIVER = 0x02;
const FCR_KEPT = 0xc9;
const FCR_TRIGGER_SHIFT = 6;
/** Characters at which the receive FIFO interrupts, by FCR bits 7:6. */
const TRIGGER_LEVELS = [1, 4, 8, 14];

const LCR_DLAB = 0x80;

const MCR_DTR = 0x01;
const MCR_RTS = 0x02;
const MCR_OUT1 = 0x04;
const MCR_OUT2 = 0x08;
const MCR_LOOPBACK = 0x10;
const MCR_BITS = 0x1f;

const LSR_DATA_READY = 0x01;
const LSR_OVERRUN = 0x02;
const LSR_TRANSMITTER_EMPTY = 0x60;
const LSR_ERRORS = 0x1e;

const MSR_DELTAS = 0x0f;
const MSR_DELTA_RI = 0x04;
const MSR_CTS = 0x10;
const MSR_DSR = 0x20;
const MSR_RI = 0x40;
const MSR_DCD = 0x80;
/** Shift from a modem input in MSR bits 7:4 to its delta in bits 3:0. */
const MSR_DELTA_SHIFT = 4;

/** One 16550 over its {@linkcode UartState}. */
export class Uart {
  readonly #u8: Uint8Array<SharedArrayBuffer>;
  readonly #base: number;
  readonly #ring: ByteRing;
  readonly #irq: IrqLine;

  /** The port whose state is at byte offset `base`, sending to `ring` and interrupting through `irq`. */
  constructor(memory: MachineMemory, base: number, ring: ByteRing, irq: IrqLine) {
    this.#u8 = memory.u8;
    this.#base = base;
    this.#ring = ring;
    this.#irq = irq;
  }

  /** The state after a master reset (data sheet, table I); the modem inputs are asserted. */
  reset(): void {
    this.#u8.fill(0, this.#base, this.#base + UartState.size);
    this.#u8[this.#base + MSR] = MSR_CTS | MSR_DSR | MSR_DCD;
    this.#updateIrq();
  }

  /** Reads register `register` (0 to 7), with its side effects. */
  read(register: number): number {
    const u8 = this.#u8;
    const base = this.#base;
    switch (register) {
      case REG_DATA:
        return u8[base + LCR] & LCR_DLAB ? u8[base + DLL] : this.#takeReceived();
      case REG_IER:
        return u8[base + LCR] & LCR_DLAB ? u8[base + DLM] : u8[base + IER];
      case REG_IIR_FCR: {
        const cause = this.#cause();
        if (cause === IIR_TRANSMITTER_EMPTY) {
          u8[base + THRE_PENDING] = 0;
          this.#updateIrq();
        }
        return u8[base + FCR] & FCR_ENABLE ? cause | IIR_FIFOS_ENABLED : cause;
      }
      case REG_LCR:
        return u8[base + LCR];
      case REG_MCR:
        return u8[base + MCR];
      case REG_LSR: {
        const status = u8[base + LSR] | LSR_TRANSMITTER_EMPTY | (u8[base + RX_COUNT] !== 0 ? LSR_DATA_READY : 0);
        u8[base + LSR] &= ~LSR_ERRORS;
        this.#updateIrq();
        return status;
      }
      case REG_MSR: {
        const status = u8[base + MSR];
        u8[base + MSR] = status & ~MSR_DELTAS;
        this.#updateIrq();
        return status;
      }
      default:
        return u8[base + SCR];
    }
  }

  /**
   * Writes register `register` (0 to 7). Returns false, having done nothing, when a character cannot be sent because the
   * ring is full.
   */
  write(register: number, value: number): boolean {
    const u8 = this.#u8;
    const base = this.#base;
    switch (register) {
      case REG_DATA:
        if (u8[base + LCR] & LCR_DLAB) {
          u8[base + DLL] = value;
          return true;
        }
        return this.#send(value);
      case REG_IER: {
        if (u8[base + LCR] & LCR_DLAB) {
          u8[base + DLM] = value;
          return true;
        }
        const old = u8[base + IER];
        u8[base + IER] = value & IER_BITS;
        // Enabling the transmitter interrupt while the transmitter is empty, which it always is, interrupts at once.
        if (~old & value & IER_TRANSMITTER_EMPTY) u8[base + THRE_PENDING] = 1;
        this.#updateIrq();
        return true;
      }
      case REG_IIR_FCR:
        if (((u8[base + FCR] ^ value) & FCR_ENABLE) !== 0 || (value & FCR_CLEAR_RECEIVER) !== 0) {
          u8[base + RX_COUNT] = 0;
          u8[base + RX_FIRST] = 0;
        }
        // The other bits are programmed only while the enable bit is written as one.
        u8[base + FCR] = value & FCR_ENABLE ? value & FCR_KEPT : 0;
        this.#updateIrq();
        return true;
      case REG_LCR:
        u8[base + LCR] = value;
        return true;
      case REG_MCR:
        u8[base + MCR] = value & MCR_BITS;
        this.#updateModemStatus();
        this.#updateIrq();
        return true;
      case REG_LSR:
        return true; // For factory testing only.
      case REG_MSR:
        return true;
      default:
        u8[base + SCR] = value;
        return true;
    }
  }

  /** A character arrives on the line. A full FIFO keeps what it has and reports an overrun. */
  receive(byte: number): void {
    const u8 = this.#u8;
    const base = this.#base;
    const depth = u8[base + FCR] & FCR_ENABLE ? FIFO_DEPTH : 1;
    const count = u8[base + RX_COUNT];
    if (count < depth) {
      u8[base + RX_FIFO + ((u8[base + RX_FIRST] + count) & (FIFO_DEPTH - 1))] = byte;
      u8[base + RX_COUNT] = count + 1;
    } else {
      u8[base + LSR] |= LSR_OVERRUN;
      // Without the FIFO the receiver buffer register is overwritten by the newer character.
      if (depth === 1) u8[base + RX_FIFO + u8[base + RX_FIRST]] = byte;
    }
    this.#updateIrq();
  }

  #send(byte: number): boolean {
    const u8 = this.#u8;
    const base = this.#base;
    if (u8[base + MCR] & MCR_LOOPBACK) this.receive(byte);
    else if (!this.#ring.put(byte)) return false;
    u8[base + THRE_PENDING] = 1;
    this.#updateIrq();
    return true;
  }

  #takeReceived(): number {
    const u8 = this.#u8;
    const base = this.#base;
    const first = u8[base + RX_FIRST];
    const byte = u8[base + RX_FIFO + first];
    if (u8[base + RX_COUNT] !== 0) {
      u8[base + RX_COUNT]--;
      u8[base + RX_FIRST] = (first + 1) & (FIFO_DEPTH - 1);
      this.#updateIrq();
    }
    return byte;
  }

  /** The pending interrupt of highest priority, as IIR bits 3:0 (data sheet, table IV). */
  #cause(): number {
    const u8 = this.#u8;
    const base = this.#base;
    const enabled = u8[base + IER];
    if (enabled & IER_LINE_STATUS && u8[base + LSR] & LSR_ERRORS) return IIR_LINE_STATUS;
    if (enabled & IER_RECEIVED_DATA && u8[base + RX_COUNT] !== 0) {
      const fcr = u8[base + FCR];
      const trigger = fcr & FCR_ENABLE ? TRIGGER_LEVELS[fcr >> FCR_TRIGGER_SHIFT] : 1;
      return u8[base + RX_COUNT] >= trigger ? IIR_RECEIVED_DATA : IIR_CHARACTER_TIMEOUT;
    }
    if (enabled & IER_TRANSMITTER_EMPTY && u8[base + THRE_PENDING]) return IIR_TRANSMITTER_EMPTY;
    if (enabled & IER_MODEM_STATUS && u8[base + MSR] & MSR_DELTAS) return IIR_MODEM_STATUS;
    return IIR_NONE;
  }

  /** On a PC the interrupt output reaches the bus only while OUT2 is set. */
  #updateIrq(): void {
    this.#irq.set(this.#cause() !== IIR_NONE && (this.#u8[this.#base + MCR] & MCR_OUT2) !== 0);
  }

  /** Derives the modem inputs (in loopback mode from the modem outputs) and notes which of them changed. */
  #updateModemStatus(): void {
    const u8 = this.#u8;
    const base = this.#base;
    const mcr = u8[base + MCR];
    let inputs = MSR_CTS | MSR_DSR | MSR_DCD;
    if (mcr & MCR_LOOPBACK) {
      inputs = (mcr & MCR_RTS ? MSR_CTS : 0) | (mcr & MCR_DTR ? MSR_DSR : 0) | (mcr & MCR_OUT1 ? MSR_RI : 0) |
        (mcr & MCR_OUT2 ? MSR_DCD : 0);
    }
    const old = u8[base + MSR];
    let deltas = ((old ^ inputs) >> MSR_DELTA_SHIFT) & MSR_DELTAS;
    if (inputs & MSR_RI) deltas &= ~MSR_DELTA_RI; // Only the ring indicator's trailing edge is reported.
    u8[base + MSR] = inputs | (old & MSR_DELTAS) | deltas;
  }
}
