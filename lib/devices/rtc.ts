/**
 * The real-time clock and CMOS memory of a PC: MC146818A (Motorola data sheet) behind ports 70 and 71.
 *
 * The time is the machine's clock plus an offset that the guest changes by setting the clock. Periodic, alarm and
 * update-ended interrupts are computed from the same clock. Daylight saving is not modelled: no operating system uses it.
 *
 * @module
 */
import { array, u64, u8 } from "../layout/field_type.ts";
import { reserved, structure } from "../layout/structure.ts";
import type { MachineMemory } from "../memory/machine_memory.ts";
import type { IrqLine } from "./irq_line.ts";
import { readCount, writeCount } from "./words.ts";

/** Bytes of CMOS memory, clock registers included. */
const CMOS_SIZE = 128;

/** The clock and its memory. */
export const RtcState = structure("RtcState", 160, [
  ["index", 0, u8, "Register that port 71 reads and writes"],
  reserved(1, 7),
  ["epoch_us", 8, u64, "Microseconds from 1970 (UTC) to the start of the machine"],
  ["polled", 16, u64, "Nanoseconds of the machine's clock up to which the flags of register C are computed"],
  reserved(24, 8),
  ["cmos", 32, array(u8, CMOS_SIZE), "Registers and memory; the time registers are stored only while SET is one"],
], "MC146818A; not a structure of the modelled hypervisor");

const INDEX = RtcState.at.index;
const EPOCH_US = RtcState.at.epoch_us;
const POLLED = RtcState.at.polled;
const CMOS = RtcState.at.cmos;

/** Register numbers (data sheet, figure 10) and the CMOS bytes that a PC BIOS fills in. */
const SECONDS = 0x00;
const SECONDS_ALARM = 0x01;
const MINUTES = 0x02;
const MINUTES_ALARM = 0x03;
const HOURS = 0x04;
const HOURS_ALARM = 0x05;
const DAY_OF_WEEK = 0x06;
const DAY_OF_MONTH = 0x07;
const MONTH = 0x08;
const YEAR = 0x09;
const REGISTER_A = 0x0a;
const REGISTER_B = 0x0b;
const REGISTER_C = 0x0c;
const REGISTER_D = 0x0d;
const BASE_MEMORY_LOW = 0x15;
const BASE_MEMORY_HIGH = 0x16;
const EXTENDED_MEMORY_LOW = 0x17;
const EXTENDED_MEMORY_HIGH = 0x18;
const EXTENDED_MEMORY_COPY_LOW = 0x30;
const EXTENDED_MEMORY_COPY_HIGH = 0x31;
const CENTURY = 0x32;
const MEMORY_ABOVE_16M_LOW = 0x34;
const MEMORY_ABOVE_16M_HIGH = 0x35;

const A_UPDATE_IN_PROGRESS = 0x80;
const A_RATE = 0x0f;
/** Divider running at 32.768 kHz, periodic rate 1024 Hz: what a BIOS leaves. */
const A_RESET = 0x26;
const B_SET = 0x80;
const B_PERIODIC = 0x40;
const B_ALARM = 0x20;
const B_UPDATE_ENDED = 0x10;
const B_BINARY = 0x04;
const B_24_HOURS = 0x02;
const C_REQUEST = 0x80;
/** Bits 6:4 of B enable the flags in bits 6:4 of C. */
const INTERRUPT_BITS = B_PERIODIC | B_ALARM | B_UPDATE_ENDED;
/** Valid RAM and time. */
const D_VALID = 0x80;
/** In 12-hour mode bit 7 of the hours means p.m. */
const HOURS_PM = 0x80;
/** Alarm registers with bits 7:6 set match everything. */
const ALARM_ANY = 0xc0;

const NS_PER_SECOND = 1e9;
const US_PER_SECOND = 1e6;
const SECONDS_PER_DAY = 86400;
/** UIP rises 244 microseconds before an update, which takes 1984 microseconds (data sheet, table 6). */
const UPDATE_NS = 2_228_000;
/** The time base of the periodic interrupt. */
const TIME_BASE_HZ = 32768;

const KIB = 1024;
const MIB = KIB * KIB;

/** Whether `register` holds time that advances. */
function isTime(register: number): boolean {
  return register <= YEAR && register !== SECONDS_ALARM && register !== MINUTES_ALARM && register !== HOURS_ALARM ||
    register === CENTURY;
}

/** The clock over its {@linkcode RtcState}. */
export class Rtc {
  readonly #memory: MachineMemory;
  readonly #u8: Uint8Array<SharedArrayBuffer>;
  readonly #base: number;
  readonly #irq: IrqLine;

  /** The clock whose state is at byte offset `base`, a multiple of eight, interrupting through `irq`. */
  constructor(memory: MachineMemory, base: number, irq: IrqLine) {
    this.#memory = memory;
    this.#u8 = memory.u8;
    this.#base = base;
    this.#irq = irq;
  }

  /**
   * The state that a BIOS leaves: 24-hour BCD time starting at `epochMs` (milliseconds since 1970, UTC) when the machine's
   * clock is zero, and the sizes of `ramBytes` bytes of memory.
   */
  reset(epochMs: number, ramBytes: number): void {
    this.#u8.fill(0, this.#base, this.#base + RtcState.size);
    writeCount(this.#memory, this.#base + EPOCH_US, Math.max(Math.floor(epochMs), 0) * 1000);
    const cmos = this.#base + CMOS;
    this.#u8[cmos + REGISTER_A] = A_RESET;
    this.#u8[cmos + REGISTER_B] = B_24_HOURS;
    this.#u8[cmos + REGISTER_D] = D_VALID;
    const put = (low: number, high: number, value: number) => {
      this.#u8[cmos + low] = value;
      this.#u8[cmos + high] = value >> 8;
    };
    put(BASE_MEMORY_LOW, BASE_MEMORY_HIGH, Math.min(Math.floor(ramBytes / KIB), 640));
    const extended = Math.min(Math.max(Math.floor((ramBytes - MIB) / KIB), 0), 0xffff);
    put(EXTENDED_MEMORY_LOW, EXTENDED_MEMORY_HIGH, extended);
    put(EXTENDED_MEMORY_COPY_LOW, EXTENDED_MEMORY_COPY_HIGH, extended);
    const above16M = Math.min(Math.max(Math.floor((ramBytes - 16 * MIB) / (64 * KIB)), 0), 0xffff);
    put(MEMORY_ABOVE_16M_LOW, MEMORY_ABOVE_16M_HIGH, above16M);
  }

  /** Reads port 70 (write only: all ones) or 71. */
  read(register: number, nowNs: number): number {
    if (register === 0) return 0xff;
    const index = this.#u8[this.#base + INDEX];
    const at = this.#base + CMOS + index;
    if (isTime(index)) {
      return this.#setting ? this.#u8[at] : this.#timeRegister(index, this.#secondsAt(nowNs));
    }
    if (index === REGISTER_A) return this.#u8[at] | (this.#updating(nowNs) ? A_UPDATE_IN_PROGRESS : 0);
    if (index === REGISTER_C) {
      this.poll(nowNs);
      const flags = this.#u8[at];
      this.#u8[at] = 0;
      this.#irq.set(false);
      return flags;
    }
    return this.#u8[at];
  }

  /** Writes port 70 (bit 7, the NMI mask, is not kept) or 71. */
  write(register: number, value: number, nowNs: number): void {
    if (register === 0) {
      this.#u8[this.#base + INDEX] = value & (CMOS_SIZE - 1);
      return;
    }
    const index = this.#u8[this.#base + INDEX];
    const at = this.#base + CMOS + index;
    if (isTime(index)) {
      if (!this.#setting) this.#storeTime(nowNs);
      this.#u8[at] = value;
      if (!this.#setting) this.#applyTime(nowNs);
    } else if (index === REGISTER_A) {
      this.poll(nowNs);
      this.#u8[at] = value & ~A_UPDATE_IN_PROGRESS;
    } else if (index === REGISTER_B) {
      this.#writeB(value, nowNs);
    } else if (index !== REGISTER_C && index !== REGISTER_D) {
      this.#u8[at] = value;
    }
  }

  /** Sets the flags of register C for what has happened up to `nowNs`, and the interrupt line with them. */
  poll(nowNs: number): void {
    const now = Math.floor(nowNs);
    const polled = readCount(this.#memory, this.#base + POLLED);
    if (now > polled) {
      this.#setFlags(polled, now);
      writeCount(this.#memory, this.#base + POLLED, now);
    }
    const cmos = this.#base + CMOS;
    const flags = this.#u8[cmos + REGISTER_C] & INTERRUPT_BITS;
    const request = (flags & this.#u8[cmos + REGISTER_B]) !== 0;
    this.#u8[cmos + REGISTER_C] = request ? flags | C_REQUEST : flags;
    this.#irq.set(request);
  }

  /** The time in nanoseconds at which an enabled interrupt can next come, or infinity. */
  nextDeadline(): number {
    const cmos = this.#base + CMOS;
    const enabled = this.#u8[cmos + REGISTER_B] & INTERRUPT_BITS;
    if (enabled === 0 || this.#u8[cmos + REGISTER_C] & C_REQUEST) return Infinity;
    const polled = readCount(this.#memory, this.#base + POLLED);
    let next = Infinity;
    const period = this.#periodNs();
    if (enabled & B_PERIODIC && period !== 0) next = Math.ceil((Math.floor(polled / period) + 1) * period);
    if (enabled & (B_ALARM | B_UPDATE_ENDED) && !this.#setting) {
      const fraction = this.#epochNsInSecond();
      next = Math.min(next, (Math.floor((polled + fraction) / NS_PER_SECOND) + 1) * NS_PER_SECOND - fraction);
    }
    return next;
  }

  get #setting(): boolean {
    return (this.#u8[this.#base + CMOS + REGISTER_B] & B_SET) !== 0;
  }

  /** Nanoseconds into its second at which the machine started. */
  #epochNsInSecond(): number {
    return (readCount(this.#memory, this.#base + EPOCH_US) % US_PER_SECOND) * 1000;
  }

  /** Seconds since 1970 that the clock shows at `nowNs`. */
  #secondsAt(nowNs: number): number {
    const epochUs = readCount(this.#memory, this.#base + EPOCH_US);
    return Math.floor(epochUs / US_PER_SECOND) + Math.floor((nowNs + this.#epochNsInSecond()) / NS_PER_SECOND);
  }

  #updating(nowNs: number): boolean {
    if (this.#setting) return false;
    return (nowNs + this.#epochNsInSecond()) % NS_PER_SECOND >= NS_PER_SECOND - UPDATE_NS;
  }

  /** Period of the periodic interrupt in nanoseconds, 0 for none (data sheet, table 5, 32.768 kHz time base). */
  #periodNs(): number {
    const rate = this.#u8[this.#base + CMOS + REGISTER_A] & A_RATE;
    if (rate === 0) return 0;
    const clocks = 1 << ((rate < 3 ? rate + 7 : rate) - 1);
    return clocks * NS_PER_SECOND / TIME_BASE_HZ;
  }

  #setFlags(from: number, to: number): void {
    const at = this.#base + CMOS + REGISTER_C;
    const period = this.#periodNs();
    if (period !== 0 && Math.floor(to / period) > Math.floor(from / period)) this.#u8[at] |= B_PERIODIC;
    if (this.#setting) return;
    const first = this.#secondsAt(from) + 1;
    const last = this.#secondsAt(to);
    if (first > last) return;
    this.#u8[at] |= B_UPDATE_ENDED;
    // An alarm recurs at least once a day, so no more than a day of seconds needs looking at.
    for (let second = Math.max(first, last - SECONDS_PER_DAY + 1); second <= last; second++) {
      if (!this.#alarmMatches(second)) continue;
      this.#u8[at] |= B_ALARM;
      return;
    }
  }

  #alarmMatches(seconds: number): boolean {
    const matches = (alarm: number, time: number) => {
      const value = this.#u8[this.#base + CMOS + alarm];
      return value >= ALARM_ANY || value === this.#timeRegister(time, seconds);
    };
    return matches(SECONDS_ALARM, SECONDS) && matches(MINUTES_ALARM, MINUTES) && matches(HOURS_ALARM, HOURS);
  }

  /** A time register's contents for a number of seconds since 1970, in the format that register B selects. */
  #timeRegister(register: number, seconds: number): number {
    const date = new Date(seconds * 1000);
    switch (register) {
      case SECONDS:
        return this.#encode(date.getUTCSeconds());
      case MINUTES:
        return this.#encode(date.getUTCMinutes());
      case HOURS: {
        const hours = date.getUTCHours();
        if (this.#u8[this.#base + CMOS + REGISTER_B] & B_24_HOURS) return this.#encode(hours);
        return this.#encode(hours % 12 || 12) | (hours >= 12 ? HOURS_PM : 0);
      }
      case DAY_OF_WEEK:
        return date.getUTCDay() + 1;
      case DAY_OF_MONTH:
        return this.#encode(date.getUTCDate());
      case MONTH:
        return this.#encode(date.getUTCMonth() + 1);
      case YEAR:
        return this.#encode(date.getUTCFullYear() % 100);
      default:
        return this.#encode(Math.floor(date.getUTCFullYear() / 100));
    }
  }

  #encode(value: number): number {
    if (this.#u8[this.#base + CMOS + REGISTER_B] & B_BINARY) return value;
    return Math.floor(value / 10) << 4 | value % 10;
  }

  #decode(value: number): number {
    if (this.#u8[this.#base + CMOS + REGISTER_B] & B_BINARY) return value;
    return (value >> 4) * 10 + (value & 15);
  }

  #writeB(value: number, nowNs: number): void {
    const at = this.#base + CMOS + REGISTER_B;
    this.poll(nowNs);
    const wasSetting = this.#setting;
    if (!wasSetting && value & B_SET) this.#storeTime(nowNs);
    // SET clears the update-ended enable (data sheet, register B).
    this.#u8[at] = value & B_SET ? value & ~B_UPDATE_ENDED : value;
    if (wasSetting && !(value & B_SET)) this.#applyTime(nowNs);
    this.poll(nowNs);
  }

  /** Copies the running time into the registers. */
  #storeTime(nowNs: number): void {
    const seconds = this.#secondsAt(nowNs);
    for (let register = 0; register <= CENTURY; register++) {
      if (isTime(register)) this.#u8[this.#base + CMOS + register] = this.#timeRegister(register, seconds);
    }
  }

  /** Makes the registers' contents the time at `nowNs`. */
  #applyTime(nowNs: number): void {
    const value = (register: number) => this.#decode(this.#u8[this.#base + CMOS + register]);
    const rawHours = this.#u8[this.#base + CMOS + HOURS];
    let hours = value(HOURS);
    if (!(this.#u8[this.#base + CMOS + REGISTER_B] & B_24_HOURS)) {
      hours = this.#decode(rawHours & ~HOURS_PM) % 12 + (rawHours & HOURS_PM ? 12 : 0);
    }
    const year = value(CENTURY) * 100 + value(YEAR);
    const ms = Date.UTC(year, value(MONTH) - 1, value(DAY_OF_MONTH), hours, value(MINUTES), value(SECONDS));
    const epochUs = ms * 1000 - Math.floor(nowNs / 1000);
    // A time before 1970 or beyond what the state holds is not a time that a guest keeps; the clock stays as it was.
    if (epochUs >= 0 && epochUs <= Number.MAX_SAFE_INTEGER) writeCount(this.#memory, this.#base + EPOCH_US, epochUs);
  }
}
