/**
 * The devices of the machine behind the VMM: which port and address belongs to which, and what their state is.
 *
 * All state is one {@linkcode DeviceState} in the shared memory; whoever uses a {@linkcode DeviceSet} holds the lock in it
 * ({@linkcode DeviceSet.lock}). {@linkcode LockedDevices} does that for each access. Ports and addresses that nothing
 * claims read as all ones and ignore writes. An access wider than a device's registers is made byte by byte, as a PC's
 * bus does.
 *
 * @module
 */
import { u32, u64, u8 } from "../layout/field_type.ts";
import { reserved, structure } from "../layout/structure.ts";
import type { MachineMemory } from "../memory/machine_memory.ts";
import type { MemoryPort } from "../memory/port.ts";
import { type BackendLink, type DeviceClaims } from "./backend.ts";
import { ByteRing, DebugRing, SerialRing } from "./byte_ring.ts";
import { DeviceLock } from "./device_lock.ts";
import { IoApic, IOAPIC_BASE, IOAPIC_SIZE, IoApicState } from "./ioapic.ts";
import type { IrqLine } from "./irq_line.ts";
import { PicPair, PicState } from "./pic.ts";
import { Pit, PitState } from "./pit.ts";
import { pmTimerAt } from "./pm_timer.ts";
import { Rtc, RtcState } from "./rtc.ts";
import { Uart, UartState } from "./uart.ts";
import { DEVICE_BUSY, DEVICE_DONE, type Devices } from "./devices.ts";
import { readCount, writeCount } from "./words.ts";

/** Everything that the machine's devices know. */
export const DeviceState = structure("DeviceState", 1024 + SerialRing.size + DebugRing.size, [
  ["lock", 0, u32, "The device lock: 0 free, 1 held, 2 held and waited for, 3 handed over"],
  reserved(4, 60),
  ["deadline", 64, u64, "Nanoseconds of the machine's clock at which `poll` is due; 2^53 - 1 when never"],
  ["isa_lines", 72, u32, "Bit i is set while IRQ i is requested"],
  ["exited", 76, u32, "1 once the exit port has been written"],
  ["exit_value", 80, u32, "What was first written to the exit port"],
  ["pm_timer_wide", 84, u8, "1 when the power management timer has 32 bits, 0 when it has 24"],
  reserved(85, 11),
  ["uart", 96, UartState, "The 16550 at 3f8"],
  ["pic", 128, PicState, "The 8259 pair"],
  ["pit", 176, PitState, "The 8254 and port 61"],
  ["rtc", 336, RtcState, "Clock and CMOS memory"],
  ["ioapic", 496, IoApicState, "The I/O APIC"],
  reserved(704, 320),
  ["serial", 1024, SerialRing, "Output of the 16550"],
  ["debug", 1024 + SerialRing.size, DebugRing, "Output of the debug port"],
], "The devices behind the VMM; not a structure of the modelled hypervisor");

/** Bytes of shared memory that the devices take. */
export const DEVICES_SIZE: number = DeviceState.size;

const LOCK = DeviceState.at.lock;
const DEADLINE = DeviceState.at.deadline;
const ISA_LINES = DeviceState.at.isa_lines;
const EXITED = DeviceState.at.exited;
const EXIT_VALUE = DeviceState.at.exit_value;
const PM_TIMER_WIDE = DeviceState.at.pm_timer_wide;

/** Port numbers of a PC. */
export const PORTS = {
  /** Master interrupt controller: command, data. */
  PIC_MASTER: 0x20,
  /** Slave interrupt controller: command, data. */
  PIC_SLAVE: 0xa0,
  /** Edge/level registers of master and slave. */
  ELCR: 0x4d0,
  /** Interval timer: three counters and the control word. */
  PIT: 0x40,
  /** System control port B: gate and output of timer channel 2. */
  SYSTEM_CONTROL_B: 0x61,
  /** CMOS memory: index, data. */
  RTC: 0x70,
  /** Exit port: a write of 1, 2 or 4 bytes ends the machine. */
  EXIT: 0xf4,
  /** First serial port: eight registers. */
  SERIAL: 0x3f8,
  /** Debug port: each byte written is output. */
  DEBUG: 0x402,
  /** ACPI power management timer: four bytes. */
  PM_TIMER: 0x408,
} as const;

/** What a read of the debug port returns, by which firmware knows that it is there. */
const DEBUG_PORT_SIGNATURE = 0xe9;
/** Interrupt request lines of a PC. */
const IRQ_TIMER = 0;
const IRQ_SERIAL = 4;
const IRQ_RTC = 8;
/** Input of the I/O APIC that the timer is wired to, input 0 being the interrupt controllers' output. */
const IOAPIC_INPUT_TIMER = 2;

/** Who serves a port. */
const NONE = 0;
const SERIAL = 1;
const DEBUG = 2;
const EXIT = 3;
const PIC = 4;
const ELCR = 5;
const PIT = 6;
const SYSTEM_CONTROL_B = 7;
const RTC = 8;
const PM_TIMER = 9;

/** Number of I/O ports. */
const PORT_COUNT = 0x10000;
const NEVER = Number.MAX_SAFE_INTEGER;
const WORD = 0x1_0000_0000;

/** The owner of every port, with room for accesses that run past the last one. */
const OWNERS = portOwners();

/** Builds {@linkcode OWNERS}. */
function portOwners(): Uint8Array {
  const owners = new Uint8Array(PORT_COUNT + 4);
  owners.fill(SERIAL, PORTS.SERIAL, PORTS.SERIAL + 8);
  owners[PORTS.DEBUG] = DEBUG;
  owners[PORTS.EXIT] = EXIT;
  owners.fill(PIC, PORTS.PIC_MASTER, PORTS.PIC_MASTER + 2);
  owners.fill(PIC, PORTS.PIC_SLAVE, PORTS.PIC_SLAVE + 2);
  owners.fill(ELCR, PORTS.ELCR, PORTS.ELCR + 2);
  owners.fill(PIT, PORTS.PIT, PORTS.PIT + 4);
  owners[PORTS.SYSTEM_CONTROL_B] = SYSTEM_CONTROL_B;
  owners.fill(RTC, PORTS.RTC, PORTS.RTC + 2);
  owners.fill(PM_TIMER, PORTS.PM_TIMER, PORTS.PM_TIMER + 4);
  return owners;
}

/** What the devices need from the machine. Called with the device lock held; they must not use the devices. */
export interface DeviceHooks {
  /** A message signalled interrupt: address and data (Intel SDM volume 3, 11.11), unsigned. */
  raiseInterrupt(address: number, data: number): void;
  /** The INT output of the interrupt controllers changed. */
  setExtInt(level: boolean): void;
  /** The machine's clock: nanoseconds since it started. */
  clock(): number;
  /** The exit port was written for the first time; `value` is unsigned. */
  onExit(value: number): void;
}

/** What {@linkcode DeviceSet.reset} needs to know. */
export interface DeviceConfiguration {
  /** Guest RAM in bytes, for the CMOS memory. */
  readonly ramBytes: number;
  /** The time of day at the machine's start, in milliseconds since 1970 (UTC). */
  readonly epochMs: number;
  /** Whether the power management timer has 32 bits instead of 24. */
  readonly pmTimerWide: boolean;
}

/** One ISA interrupt line: to the interrupt controllers and to the I/O APIC. */
class IsaLine implements IrqLine {
  readonly #u32: Uint32Array<SharedArrayBuffer>;
  readonly #word: number;
  readonly #bit: number;
  readonly #drive: (level: boolean) => void;

  constructor(memory: MachineMemory, base: number, irq: number, drive: (level: boolean) => void) {
    this.#u32 = memory.u32;
    this.#word = (base + ISA_LINES) >>> 2;
    this.#bit = 1 << irq;
    this.#drive = drive;
  }
  set(level: boolean): void {
    const lines = this.#u32[this.#word];
    if (((lines & this.#bit) !== 0) === level) return;
    this.#u32[this.#word] = lines ^ this.#bit;
    this.#drive(level);
  }
}

/** The machine's devices over their {@linkcode DeviceState}. The caller holds {@linkcode DeviceSet.lock}. */
export class DeviceSet implements Devices {
  /** The lock under which everything else here is called. */
  readonly lock: DeviceLock;
  /** What the serial port sent. */
  readonly serialOutput: ByteRing;
  /** What the debug port was given. */
  readonly debugOutput: ByteRing;
  /** The interrupt controllers. */
  readonly pic: PicPair;
  /** The I/O APIC. */
  readonly ioapic: IoApic;
  /** The serial port. */
  readonly uart: Uart;
  readonly value: Int32Array = new Int32Array(2);
  readonly #memory: MachineMemory;
  readonly #base: number;
  readonly #hooks: DeviceHooks;
  readonly #pit: Pit;
  readonly #rtc: Rtc;

  /**
   * The devices whose {@linkcode DeviceState} is at byte offset `base`, a multiple of 64. `alone` says that one thread only
   * uses them, see {@linkcode DeviceLock}.
   */
  constructor(memory: MachineMemory, port: MemoryPort, base: number, hooks: DeviceHooks, alone = false) {
    this.#memory = memory;
    this.#base = base;
    this.#hooks = hooks;
    this.lock = new DeviceLock(memory, base + LOCK, alone);
    this.serialOutput = new ByteRing(memory, port, base + DeviceState.at.serial, SerialRing);
    this.debugOutput = new ByteRing(memory, port, base + DeviceState.at.debug, DebugRing);
    this.pic = new PicPair(memory, base + DeviceState.at.pic, (level) => hooks.setExtInt(level));
    this.ioapic = new IoApic(
      memory,
      base + DeviceState.at.ioapic,
      (address, data) => hooks.raiseInterrupt(address, data),
    );
    const line = (irq: number, input = irq) =>
      new IsaLine(memory, base, irq, (level) => {
        this.pic.setLine(irq, level);
        this.ioapic.setLine(input, level);
      });
    this.uart = new Uart(memory, base + DeviceState.at.uart, this.serialOutput, line(IRQ_SERIAL));
    this.#pit = new Pit(memory, base + DeviceState.at.pit, line(IRQ_TIMER, IOAPIC_INPUT_TIMER));
    this.#rtc = new Rtc(memory, base + DeviceState.at.rtc, line(IRQ_RTC));
  }

  /** The state at power on. */
  reset(configuration: DeviceConfiguration): void {
    this.#memory.u8.fill(0, this.#base, this.#base + DeviceState.size);
    this.#memory.u8[this.#base + PM_TIMER_WIDE] = configuration.pmTimerWide ? 1 : 0;
    this.pic.reset();
    this.ioapic.reset();
    this.uart.reset();
    this.#pit.reset();
    this.#rtc.reset(configuration.epochMs, configuration.ramBytes);
    this.#setDeadline();
  }

  /** The value that was first written to the exit port, unsigned, or `undefined`. */
  get exitValue(): number | undefined {
    const { u32 } = this.#memory;
    return u32[(this.#base + EXITED) >>> 2] ? u32[(this.#base + EXIT_VALUE) >>> 2] : undefined;
  }

  portIn(port: number, size: number): number {
    if (size === 1) return this.#in8(port);
    if (OWNERS[port] === PM_TIMER) {
      const value = this.#pmTimer() >>> (8 * (port - PORTS.PM_TIMER));
      return size === 2 ? value & 0xffff : value | 0;
    }
    let value = 0;
    for (let i = 0; i < size; i++) value |= this.#in8(port + i) << (8 * i);
    return value;
  }

  portOut(port: number, size: number, value: number): number {
    if (size === 1) return this.#out8(port, value & 0xff);
    if (OWNERS[port] === EXIT) {
      this.#exit(size === 2 ? value & 0xffff : value >>> 0);
      return DEVICE_DONE;
    }
    // A port that may be busy is never preceded by one that acts, so a busy access has done nothing.
    for (let i = 0; i < size; i++) {
      if (this.#out8(port + i, (value >>> (8 * i)) & 0xff) === DEVICE_BUSY) return DEVICE_BUSY;
    }
    return DEVICE_DONE;
  }

  mmioRead(gpaLow: number, gpaHigh: number, size: number): void {
    const offset = (gpaLow >>> 0) - IOAPIC_BASE;
    if (gpaHigh === 0 && offset >= 0 && offset < IOAPIC_SIZE) {
      const value = this.ioapic.read(offset);
      this.value[0] = size >= 4 ? value : value & (size === 2 ? 0xffff : 0xff);
      this.value[1] = 0;
      return;
    }
    this.value[0] = size >= 4 ? -1 : size === 2 ? 0xffff : 0xff;
    this.value[1] = size === 8 ? -1 : 0;
  }

  mmioWrite(gpaLow: number, gpaHigh: number, _size: number, low: number, _high: number): number {
    const offset = (gpaLow >>> 0) - IOAPIC_BASE;
    if (gpaHigh === 0 && offset >= 0 && offset < IOAPIC_SIZE) this.ioapic.write(offset, low >>> 0);
    return DEVICE_DONE;
  }

  /** A local APIC ended a level-triggered interrupt of this vector. */
  endOfInterrupt(vector: number): void {
    this.ioapic.endOfInterrupt(vector);
  }

  /** The interrupt acknowledge cycle of the interrupt controllers: a vector, or -1 when they request nothing. */
  acknowledgeExtInt(): number {
    return this.pic.acknowledge();
  }

  /** Does what the timer and the clock have to do by `nowNs`. */
  poll(nowNs: number): void {
    this.#pit.poll(nowNs);
    this.#rtc.poll(nowNs);
    this.#setDeadline();
  }

  /** When {@linkcode DeviceSet.poll} is due, in nanoseconds of the machine's clock; infinity for never. Needs no lock. */
  nextDeadline(): number {
    const deadline = readCount(this.#memory, this.#base + DEADLINE);
    return deadline === NEVER ? Infinity : deadline;
  }

  #in8(port: number): number {
    switch (OWNERS[port]) {
      case SERIAL:
        return this.uart.read(port - PORTS.SERIAL);
      case DEBUG:
        return DEBUG_PORT_SIGNATURE;
      case PIC:
        return this.pic.read(port < PORTS.PIC_SLAVE ? 0 : 1, (port & 1) !== 0);
      case ELCR:
        return this.pic.readElcr(port - PORTS.ELCR);
      case PIT:
        return this.#pit.read(port - PORTS.PIT, this.#hooks.clock());
      case SYSTEM_CONTROL_B:
        return this.#pit.readPort61(this.#hooks.clock());
      case RTC: {
        const value = this.#rtc.read(port - PORTS.RTC, this.#hooks.clock());
        this.#setDeadline(); // Reading register C lets the next interrupt come.
        return value;
      }
      case PM_TIMER:
        return this.#pmTimer() >>> (8 * (port - PORTS.PM_TIMER)) & 0xff;
      default:
        return 0xff;
    }
  }

  #out8(port: number, value: number): number {
    switch (OWNERS[port]) {
      case NONE:
        return DEVICE_DONE;
      case SERIAL:
        return this.uart.write(port - PORTS.SERIAL, value) ? DEVICE_DONE : DEVICE_BUSY;
      case DEBUG:
        return this.debugOutput.put(value) ? DEVICE_DONE : DEVICE_BUSY;
      case EXIT:
        this.#exit(value);
        return DEVICE_DONE;
      case PIC:
        this.pic.write(port < PORTS.PIC_SLAVE ? 0 : 1, (port & 1) !== 0, value);
        return DEVICE_DONE;
      case ELCR:
        this.pic.writeElcr(port - PORTS.ELCR, value);
        return DEVICE_DONE;
      case PIT:
        this.#pit.write(port - PORTS.PIT, value, this.#hooks.clock());
        this.#setDeadline();
        return DEVICE_DONE;
      case SYSTEM_CONTROL_B:
        this.#pit.writePort61(value, this.#hooks.clock());
        return DEVICE_DONE;
      case RTC:
        this.#rtc.write(port - PORTS.RTC, value, this.#hooks.clock());
        this.#setDeadline();
        return DEVICE_DONE;
      default:
        return DEVICE_DONE;
    }
  }

  #pmTimer(): number {
    return pmTimerAt(this.#hooks.clock(), this.#memory.u8[this.#base + PM_TIMER_WIDE] !== 0);
  }

  #exit(value: number): void {
    const { u32 } = this.#memory;
    if (u32[(this.#base + EXITED) >>> 2]) return;
    u32[(this.#base + EXIT_VALUE) >>> 2] = value;
    u32[(this.#base + EXITED) >>> 2] = 1;
    this.#hooks.onExit(value);
  }

  #setDeadline(): void {
    const deadline = Math.min(this.#pit.nextDeadline(), this.#rtc.nextDeadline(), NEVER);
    writeCount(this.#memory, this.#base + DEADLINE, deadline);
  }
}

/** Devices for one VP: the ports and addresses that a backend claims, then the machine's own under their lock. */
export class LockedDevices implements Devices {
  readonly value: Int32Array = new Int32Array(2);
  readonly #set: DeviceSet;
  readonly #port: MemoryPort;
  readonly #backend: BackendLink | undefined;
  readonly #claimed: Uint8Array | undefined;

  /** The devices of `set`, reached through `port`; `backend` is asked first where it claims something. */
  constructor(set: DeviceSet, port: MemoryPort, backend?: BackendLink) {
    this.#set = set;
    this.#port = port;
    this.#backend = backend;
    this.#claimed = backend === undefined ? undefined : claimedPorts(backend.claims);
  }

  portIn(port: number, size: number): number {
    if (this.#claimed !== undefined && this.#claimed[port]) {
      const value = this.#backend!.portIn(port, size);
      return size === 4 ? value : value & (size === 2 ? 0xffff : 0xff);
    }
    this.#set.lock.lock(this.#port);
    const value = this.#set.portIn(port, size);
    this.#set.lock.unlock(this.#port);
    return value;
  }

  portOut(port: number, size: number, value: number): number {
    if (this.#claimed !== undefined && this.#claimed[port]) {
      this.#backend!.portOut(port, size, size === 4 ? value : value & (size === 2 ? 0xffff : 0xff));
      return DEVICE_DONE;
    }
    this.#set.lock.lock(this.#port);
    const result = this.#set.portOut(port, size, value);
    this.#set.lock.unlock(this.#port);
    return result;
  }

  mmioRead(gpaLow: number, gpaHigh: number, size: number): void {
    const value = this.value;
    if (this.#claims(gpaLow, gpaHigh)) {
      this.#backend!.mmioRead((gpaHigh >>> 0) * WORD + (gpaLow >>> 0), size, value);
      if (size < 4) value[0] &= size === 2 ? 0xffff : 0xff;
      if (size < 8) value[1] = 0;
      return;
    }
    this.#set.lock.lock(this.#port);
    this.#set.mmioRead(gpaLow, gpaHigh, size);
    value[0] = this.#set.value[0];
    value[1] = this.#set.value[1];
    this.#set.lock.unlock(this.#port);
  }

  mmioWrite(gpaLow: number, gpaHigh: number, size: number, low: number, high: number): number {
    if (this.#claims(gpaLow, gpaHigh)) {
      const word = size >= 4 ? low : low & (size === 2 ? 0xffff : 0xff);
      this.#backend!.mmioWrite((gpaHigh >>> 0) * WORD + (gpaLow >>> 0), size, word, size === 8 ? high : 0);
      return DEVICE_DONE;
    }
    this.#set.lock.lock(this.#port);
    const result = this.#set.mmioWrite(gpaLow, gpaHigh, size, low, high);
    this.#set.lock.unlock(this.#port);
    return result;
  }

  #claims(gpaLow: number, gpaHigh: number): boolean {
    if (this.#backend === undefined) return false;
    const gpa = (gpaHigh >>> 0) * WORD + (gpaLow >>> 0);
    for (const { base, size } of this.#backend.claims.mmio) if (gpa >= base && gpa < base + size) return true;
    return false;
  }
}

/** One byte for each port: 1 where a backend claims it. */
function claimedPorts(claims: DeviceClaims): Uint8Array {
  const claimed = new Uint8Array(PORT_COUNT);
  for (const { first, last } of claims.ports) claimed.fill(1, first, last + 1);
  return claimed;
}
