/**
 * The 8254 interval timer of a PC (Intel data sheet, order number 231164) and the bits of port 61 that belong to it.
 *
 * Counters are not counted: state holds when and with what a counter was loaded, and everything is computed from the
 * machine's clock. Channel 0 drives IRQ0, channel 2 has a gate in port 61. All six modes, binary and BCD, latches and
 * read-back. Not modelled: the two clocks between a write and the start of counting when a count is written between
 * them, and a new count for mode 3 takes effect at the end of the period instead of the half period.
 *
 * @module
 */
import { array, u16, u32, u64, u8 } from "../layout/field_type.ts";
import { reserved, structure } from "../layout/structure.ts";
import type { MachineMemory } from "../memory/machine_memory.ts";
import type { IrqLine } from "./irq_line.ts";
import { readCount, writeCount } from "./words.ts";

/** State of one counter. Times are ticks of the 1.193182 MHz clock since the machine started. */
const PitChannelState = structure("PitChannelState", 48, [
  ["mode", 0, u8, "Operating mode, 0 to 5"],
  ["bcd", 1, u8, "1 when the counter counts in four decimal digits"],
  ["access", 2, u8, "Which bytes are read and written: 1 low, 2 high, 3 low then high"],
  ["write_high_next", 3, u8, "1 when the high byte of a count is expected"],
  ["read_high_next", 4, u8, "1 when the high byte is read next"],
  ["write_low", 5, u8, "Low byte of a count that is being written"],
  ["latched", 6, u8, "Bytes of the latched count that are still to be read"],
  ["status_latched", 7, u8, "1 while a latched status waits to be read"],
  ["latch", 8, u16, "Latched count, as it is read"],
  ["status", 10, u8, "Latched status"],
  ["gate", 11, u8, "Level of the gate input"],
  ["loaded", 12, u8, "1 once a count has been written after the mode; in modes 1 and 5 once the gate has triggered"],
  ["has_old", 13, u8, "1 while the old count and start still apply before `start`"],
  reserved(14, 2),
  ["count", 16, u32, "Initial count in clocks, 1 to 65536; 0 before the first is written"],
  ["old_count", 20, u32, "Initial count of the period that ends at `start`"],
  ["start", 24, u64, "Tick at which the count is loaded"],
  ["old_start", 32, u64, "Tick at which the old count was loaded"],
  ["held", 40, u64, "Clocks counted when the gate stopped the counter"],
], "One counter of an 8254");

/** Counters of an 8254. */
const CHANNELS = 3;

/** The timer and its port 61. */
export const PitState = structure("PitState", 160, [
  ["channels", 0, array(PitChannelState, CHANNELS), "Counters 0 to 2"],
  ["polled", 144, u64, "Tick up to which channel 0's interrupts have been delivered"],
  ["port61", 152, u8, "Bits 1:0 of port 61: gate of channel 2, speaker data"],
  reserved(153, 7),
], "Intel 8254; not a structure of the modelled hypervisor");

const POLLED = PitState.at.polled;
const PORT61 = PitState.at.port61;
const MODE = PitChannelState.at.mode;
const BCD = PitChannelState.at.bcd;
const ACCESS = PitChannelState.at.access;
const WRITE_HIGH_NEXT = PitChannelState.at.write_high_next;
const READ_HIGH_NEXT = PitChannelState.at.read_high_next;
const WRITE_LOW = PitChannelState.at.write_low;
const LATCHED = PitChannelState.at.latched;
const STATUS_LATCHED = PitChannelState.at.status_latched;
const LATCH = PitChannelState.at.latch;
const STATUS = PitChannelState.at.status;
const GATE = PitChannelState.at.gate;
const LOADED = PitChannelState.at.loaded;
const HAS_OLD = PitChannelState.at.has_old;
const COUNT = PitChannelState.at.count;
const OLD_COUNT = PitChannelState.at.old_count;
const START = PitChannelState.at.start;
const OLD_START = PitChannelState.at.old_start;
const HELD = PitChannelState.at.held;

/** The timer's input clock in Hz: a twelfth of 14.31818 MHz. */
export const PIT_HZ = 1_193_182;
const TICKS_PER_NS = PIT_HZ / 1e9;

/** Register offset of the control word from port 40. */
const CONTROL = 3;
const CONTROL_CHANNEL_SHIFT = 6;
const CONTROL_ACCESS_SHIFT = 4;
const CONTROL_MODE_SHIFT = 1;
const CONTROL_BCD = 0x01;
/** Control words with channel 3 are read-back commands. */
const READ_BACK = 3;
const READ_BACK_NO_COUNT = 0x20;
const READ_BACK_NO_STATUS = 0x10;
const ACCESS_LATCH = 0;
const ACCESS_LOW = 1;
const ACCESS_HIGH = 2;
const ACCESS_BOTH = 3;
const STATUS_OUTPUT = 0x80;
const STATUS_NULL_COUNT = 0x40;

const MODE_TERMINAL_COUNT = 0;
const MODE_ONE_SHOT = 1;
const MODE_RATE = 2;
const MODE_SQUARE = 3;
const MODE_SOFTWARE_STROBE = 4;

/** Moduli of the counters. */
const BINARY_MODULUS = 0x10000;
const BCD_MODULUS = 10000;

const PORT61_GATE2 = 0x01;
const PORT61_WRITABLE = 0x0f;
const PORT61_REFRESH = 0x10;
const PORT61_OUT2 = 0x20;
/** The refresh bit toggles with every memory refresh, which a PC does every 18 ticks (about 15 microseconds). */
const REFRESH_TICKS = 18;

/** Remainder with the divisor's sign. */
function modulo(value: number, divisor: number): number {
  const remainder = value % divisor;
  return remainder < 0 ? remainder + divisor : remainder;
}

/** `value`, 0 to 9999, as four decimal digits. */
function toBcd(value: number): number {
  return (Math.floor(value / 1000) % 10) << 12 | (Math.floor(value / 100) % 10) << 8 |
    (Math.floor(value / 10) % 10) << 4 | value % 10;
}

/** Four decimal digits as a number; digits above nine count as they are. */
function fromBcd(digits: number): number {
  return (digits >> 12) * 1000 + (digits >> 8 & 15) * 100 + (digits >> 4 & 15) * 10 + (digits & 15);
}

/** The timer over its {@linkcode PitState}. */
export class Pit {
  readonly #memory: MachineMemory;
  readonly #u8: Uint8Array<SharedArrayBuffer>;
  readonly #base: number;
  readonly #irq: IrqLine;

  /** The timer whose state is at byte offset `base`, a multiple of eight; channel 0 drives `irq`. */
  constructor(memory: MachineMemory, base: number, irq: IrqLine) {
    this.#memory = memory;
    this.#u8 = memory.u8;
    this.#base = base;
    this.#irq = irq;
  }

  /** The state before any control word: nothing counts and the outputs are high, as mode 3 has them. */
  reset(): void {
    this.#memory.u8.fill(0, this.#base, this.#base + PitState.size);
    for (let channel = 0; channel < CHANNELS; channel++) {
      this.#u8[this.#channel(channel) + MODE] = MODE_SQUARE;
      this.#u8[this.#channel(channel) + ACCESS] = ACCESS_BOTH;
      this.#u8[this.#channel(channel) + GATE] = channel === 2 ? 0 : 1;
    }
    this.#irq.set(true);
  }

  /** Reads port 40 + `register` at time `nowNs`. The control port reads as all ones. */
  read(register: number, nowNs: number): number {
    if (register === CONTROL) return 0xff;
    const u8 = this.#u8;
    const at = this.#channel(register);
    if (u8[at + STATUS_LATCHED]) {
      u8[at + STATUS_LATCHED] = 0;
      return u8[at + STATUS];
    }
    const value = u8[at + LATCHED] ? this.#memory.u16[(at + LATCH) >>> 1] : this.#countShown(at, ticksAt(nowNs));
    if (u8[at + LATCHED]) u8[at + LATCHED]--;
    switch (u8[at + ACCESS]) {
      case ACCESS_LOW:
        return value & 0xff;
      case ACCESS_HIGH:
        return value >> 8;
      default: {
        const high = u8[at + READ_HIGH_NEXT];
        u8[at + READ_HIGH_NEXT] = high ^ 1;
        return high ? value >> 8 : value & 0xff;
      }
    }
  }

  /** Writes port 40 + `register` at time `nowNs`. */
  write(register: number, value: number, nowNs: number): void {
    const tick = ticksAt(nowNs);
    this.#deliver(tick);
    if (register === CONTROL) this.#control(value, tick);
    else this.#writeCount(this.#channel(register), value, tick);
    this.#irq.set(this.#output(this.#channel(0), tick));
  }

  /** Reads port 61: gate and speaker bits, refresh toggle and channel 2's output. */
  readPort61(nowNs: number): number {
    const tick = ticksAt(nowNs);
    const refresh = Math.floor(tick / REFRESH_TICKS) % 2 === 1 ? PORT61_REFRESH : 0;
    const output = this.#output(this.#channel(2), tick) ? PORT61_OUT2 : 0;
    return this.#u8[this.#base + PORT61] | refresh | output;
  }

  /** Writes port 61; bit 0 is channel 2's gate. */
  writePort61(value: number, nowNs: number): void {
    const u8 = this.#u8;
    const gate = value & PORT61_GATE2;
    u8[this.#base + PORT61] = value & PORT61_WRITABLE;
    const at = this.#channel(2);
    if (u8[at + GATE] === gate) return;
    const tick = ticksAt(nowNs);
    if (gate) this.#gateRises(at, tick);
    else this.#gateFalls(at, tick);
  }

  /** Delivers what channel 0 has done up to `nowNs`: a pulse on its line for one or more rising edges of its output. */
  poll(nowNs: number): void {
    const tick = ticksAt(nowNs);
    this.#deliver(tick);
    this.#irq.set(this.#output(this.#channel(0), tick));
  }

  /** The time in nanoseconds of channel 0's next rising edge, or infinity. */
  nextDeadline(): number {
    const at = this.#channel(0);
    const u8 = this.#u8;
    if (!u8[at + LOADED]) return Infinity;
    const count = this.#memory.u32[(at + COUNT) >>> 2];
    const start = readCount(this.#memory, at + START);
    const polled = readCount(this.#memory, this.#base + POLLED);
    let edge: number;
    if (u8[at + MODE] === MODE_RATE || u8[at + MODE] === MODE_SQUARE) {
      const oldCount = this.#memory.u32[(at + OLD_COUNT) >>> 2];
      const inOld = u8[at + HAS_OLD] !== 0 && polled < start;
      const from = inOld ? readCount(this.#memory, at + OLD_START) : start;
      const period = inOld ? oldCount : count;
      edge = from + (Math.max(Math.floor((polled - from) / period), 0) + 1) * period;
    } else {
      edge = start + count + (u8[at + MODE] === MODE_TERMINAL_COUNT ? 0 : 1);
      if (edge <= polled) return Infinity;
    }
    const ns = Math.ceil(edge / TICKS_PER_NS);
    return ticksAt(ns) < edge ? ns + 1 : ns;
  }

  #channel(channel: number): number {
    return this.#base + channel * PitChannelState.size;
  }

  /** Pulses IRQ0 when the output rose between the last delivery and `tick`. */
  #deliver(tick: number): void {
    const polled = readCount(this.#memory, this.#base + POLLED);
    if (tick <= polled) return;
    const at = this.#channel(0);
    const rose = this.#risingEdges(at, tick) > this.#risingEdges(at, polled);
    writeCount(this.#memory, this.#base + POLLED, tick);
    if (!rose) return;
    this.#irq.set(false);
    this.#irq.set(true);
  }

  #control(value: number, tick: number): void {
    const u8 = this.#u8;
    const select = value >> CONTROL_CHANNEL_SHIFT;
    if (select === READ_BACK) {
      for (let channel = 0; channel < CHANNELS; channel++) {
        if (!(value & (2 << channel))) continue;
        const at = this.#channel(channel);
        if (!(value & READ_BACK_NO_STATUS)) this.#latchStatus(at, tick);
        if (!(value & READ_BACK_NO_COUNT)) this.#latchCount(at, tick);
      }
      return;
    }
    const at = this.#channel(select);
    const access = value >> CONTROL_ACCESS_SHIFT & 3;
    if (access === ACCESS_LATCH) {
      this.#latchCount(at, tick);
      return;
    }
    const mode = value >> CONTROL_MODE_SHIFT & 7;
    u8[at + MODE] = mode > 5 ? mode - 4 : mode; // Modes 6 and 7 are 2 and 3: bit 2 does not matter there.
    u8[at + BCD] = value & CONTROL_BCD;
    u8[at + ACCESS] = access;
    u8[at + WRITE_HIGH_NEXT] = 0;
    u8[at + READ_HIGH_NEXT] = 0;
    u8[at + LATCHED] = 0;
    u8[at + STATUS_LATCHED] = 0;
    u8[at + LOADED] = 0;
    u8[at + HAS_OLD] = 0;
    this.#memory.u32[(at + COUNT) >>> 2] = 0;
  }

  #writeCount(at: number, value: number, tick: number): void {
    const u8 = this.#u8;
    let digits: number;
    if (u8[at + ACCESS] === ACCESS_BOTH) {
      if (!u8[at + WRITE_HIGH_NEXT]) {
        u8[at + WRITE_LOW] = value;
        u8[at + WRITE_HIGH_NEXT] = 1;
        // In mode 0 the first byte stops the count and the output is low at once.
        if (u8[at + MODE] === MODE_TERMINAL_COUNT) u8[at + LOADED] = 0;
        return;
      }
      u8[at + WRITE_HIGH_NEXT] = 0;
      digits = value << 8 | u8[at + WRITE_LOW];
    } else {
      digits = u8[at + ACCESS] === ACCESS_HIGH ? value << 8 : value;
    }
    const count = u8[at + BCD] ? fromBcd(digits) || BCD_MODULUS : digits || BINARY_MODULUS;
    this.#load(at, count, tick);
  }

  #load(at: number, count: number, tick: number): void {
    const u8 = this.#u8;
    const memory = this.#memory;
    const mode = u8[at + MODE];
    const start = readCount(memory, at + START);
    const periodic = mode === MODE_RATE || mode === MODE_SQUARE;
    if (periodic && u8[at + LOADED] && u8[at + GATE]) {
      // The running period ends first. While it still runs, a second new count only replaces the first.
      if (!(u8[at + HAS_OLD] && tick < start)) {
        const old = memory.u32[(at + COUNT) >>> 2];
        memory.u32[(at + OLD_COUNT) >>> 2] = old;
        writeCount(memory, at + OLD_START, start);
        const periods = Math.max(Math.floor((tick - start) / old), 0) + 1;
        writeCount(memory, at + START, start + periods * old);
        u8[at + HAS_OLD] = 1;
      }
      memory.u32[(at + COUNT) >>> 2] = count;
      return;
    }
    memory.u32[(at + COUNT) >>> 2] = count;
    u8[at + HAS_OLD] = 0;
    // Modes 1 and 5 wait for the gate to rise, and a running pulse keeps its length.
    if (!periodic && mode !== MODE_TERMINAL_COUNT && mode !== MODE_SOFTWARE_STROBE) return;
    u8[at + LOADED] = 1;
    writeCount(memory, at + START, tick + 1); // The next clock loads the count.
    writeCount(memory, at + HELD, 0);
  }

  #gateRises(at: number, tick: number): void {
    const u8 = this.#u8;
    u8[at + GATE] = 1;
    const mode = u8[at + MODE];
    if (mode === MODE_TERMINAL_COUNT || mode === MODE_SOFTWARE_STROBE) {
      if (u8[at + LOADED]) {
        writeCount(this.#memory, at + START, Math.max(tick + 1 - readCount(this.#memory, at + HELD), 0));
      }
    } else if (this.#memory.u32[(at + COUNT) >>> 2] !== 0) {
      u8[at + LOADED] = 1;
      u8[at + HAS_OLD] = 0;
      writeCount(this.#memory, at + START, tick + 1);
    }
  }

  #gateFalls(at: number, tick: number): void {
    writeCount(this.#memory, at + HELD, this.#elapsed(at, tick));
    this.#u8[at + GATE] = 0;
  }

  /** Clocks since the count was loaded, or those counted when the gate stopped it. Never negative. */
  #elapsed(at: number, tick: number): number {
    if (!this.#u8[at + GATE] && this.#u8[at + MODE] !== MODE_ONE_SHOT && this.#u8[at + MODE] !== 5) {
      return readCount(this.#memory, at + HELD);
    }
    return Math.max(tick - readCount(this.#memory, at + START), 0);
  }

  /** Rising edges of the output up to `tick`, counted from some fixed point. Only the free-running channel 0 asks. */
  #risingEdges(at: number, tick: number): number {
    const u8 = this.#u8;
    if (!u8[at + LOADED]) return 0;
    const memory = this.#memory;
    const count = memory.u32[(at + COUNT) >>> 2];
    const start = readCount(memory, at + START);
    switch (u8[at + MODE]) {
      case MODE_TERMINAL_COUNT:
        return tick - start >= count ? 1 : 0;
      case MODE_RATE:
      case MODE_SQUARE: {
        if (!u8[at + HAS_OLD]) return Math.max(Math.floor((tick - start) / count), 0);
        const oldStart = readCount(memory, at + OLD_START);
        const oldEdges = Math.floor((Math.min(tick, start) - oldStart) / memory.u32[(at + OLD_COUNT) >>> 2]);
        return Math.max(oldEdges, 0) + Math.max(Math.floor((tick - start) / count), 0);
      }
      default:
        return tick - start > count ? 1 : 0;
    }
  }

  /** The output at `tick`. */
  #output(at: number, tick: number): boolean {
    const u8 = this.#u8;
    const mode = u8[at + MODE];
    if (!u8[at + LOADED]) return mode !== MODE_TERMINAL_COUNT;
    const memory = this.#memory;
    const elapsed = this.#elapsed(at, tick);
    let count = memory.u32[(at + COUNT) >>> 2];
    let phase = elapsed;
    if (mode === MODE_RATE || mode === MODE_SQUARE) {
      if (!u8[at + GATE]) return true;
      if (u8[at + HAS_OLD] && tick < readCount(memory, at + START)) {
        count = memory.u32[(at + OLD_COUNT) >>> 2];
        phase = Math.max(tick - readCount(memory, at + OLD_START), 0);
      }
      phase %= count;
      return mode === MODE_RATE ? phase !== count - 1 : phase < Math.ceil(count / 2);
    }
    if (mode === MODE_TERMINAL_COUNT) return elapsed >= count;
    if (mode === MODE_ONE_SHOT) return elapsed >= count;
    return elapsed !== count;
  }

  /** The counting element at `tick`, as a read shows it. */
  #countShown(at: number, tick: number): number {
    const u8 = this.#u8;
    const memory = this.#memory;
    const mode = u8[at + MODE];
    const modulus = u8[at + BCD] ? BCD_MODULUS : BINARY_MODULUS;
    let count = memory.u32[(at + COUNT) >>> 2];
    let value = count;
    if (u8[at + LOADED]) {
      let elapsed = this.#elapsed(at, tick);
      if (mode === MODE_RATE || mode === MODE_SQUARE) {
        if (u8[at + HAS_OLD] && tick < readCount(memory, at + START)) {
          count = memory.u32[(at + OLD_COUNT) >>> 2];
          elapsed = Math.max(tick - readCount(memory, at + OLD_START), 0);
        }
        const phase = elapsed % count;
        value = mode === MODE_RATE ? count - phase : squareCount(count, phase);
      } else {
        value = modulo(count - elapsed, modulus);
      }
    }
    value %= modulus;
    return u8[at + BCD] ? toBcd(value) : value;
  }

  #latchCount(at: number, tick: number): void {
    if (this.#u8[at + LATCHED]) return; // A second latch before the first is read is ignored.
    this.#memory.u16[(at + LATCH) >>> 1] = this.#countShown(at, tick);
    this.#u8[at + LATCHED] = this.#u8[at + ACCESS] === ACCESS_BOTH ? 2 : 1;
    this.#u8[at + READ_HIGH_NEXT] = 0;
  }

  #latchStatus(at: number, tick: number): void {
    const u8 = this.#u8;
    if (u8[at + STATUS_LATCHED]) return;
    const waits = !u8[at + LOADED] || tick < readCount(this.#memory, at + START);
    u8[at + STATUS] = (this.#output(at, tick) ? STATUS_OUTPUT : 0) | (waits ? STATUS_NULL_COUNT : 0) |
      u8[at + ACCESS] << CONTROL_ACCESS_SHIFT | u8[at + MODE] << CONTROL_MODE_SHIFT | u8[at + BCD];
    u8[at + STATUS_LATCHED] = 1;
  }
}

/** Ticks of the timer's clock in `ns` nanoseconds, rounded down. */
function ticksAt(ns: number): number {
  return Math.floor(ns * TICKS_PER_NS);
}

/** The element in mode 3, which counts down by two in each half of the period (data sheet, mode 3). */
function squareCount(count: number, phase: number): number {
  const high = Math.ceil(count / 2);
  const even = count - (count % 2);
  return even - 2 * (phase < high ? phase : phase - high);
}
