/**
 * A local APIC as the hypervisor gives it to each VP of VTL0: xAPIC and x2APIC mode over one set of registers.
 *
 * Follows the Intel SDM volume 3 chapter 11 and the AMD64 APM volume 2 chapter 16; `registers.ts` says what is left out.
 * The VP that owns an APIC reads and writes its registers, takes interrupts and ends them. Other VPs request interrupts:
 * they set TMR and IRR bits with locked instructions and raise the owner's attention word. Registers that others look at
 * are written with exchanges, because a register of the APIC is never held back in a store buffer.
 *
 * @module
 */
import type { MachineMemory } from "../../memory/machine_memory.ts";
import type { MemoryPort } from "../../memory/port.ts";
import { ATTENTION } from "../attention.ts";
import { deliver } from "./delivery.ts";
import {
  APIC_BASE,
  APIC_BASE_ADDRESS,
  APIC_BASE_PAGE_LOW,
  APIC_BASE_RESERVED_HIGH,
  APIC_BASE_RESERVED_LOW,
  APIC_REGISTER,
  APIC_VERSION_VALUE,
  DCR_WRITABLE,
  DELIVERY_MODE,
  DFR_ONES,
  DFR_RESET,
  ESR_ILLEGAL_REGISTER,
  ESR_RECEIVE_ILLEGAL_VECTOR,
  ESR_SEND_ILLEGAL_VECTOR,
  FIRST_LEGAL_VECTOR,
  ICR,
  ICR_WRITABLE,
  LVT,
  LVT_COUNT,
  LVT_INDEX,
  LVT_WRITABLE,
  SHORTHAND,
  SVR_ENABLE,
  SVR_RESET,
  SVR_WRITABLE,
  X2APIC_MSR_BASE,
  x2apicReadable,
  x2apicReserved,
  x2apicWritable,
} from "./registers.ts";
import { ApicState, VECTOR_WORDS } from "./state.ts";
import { ApicTimer } from "./timer.ts";

/** What surrounds the local APICs of a partition. */
export interface ApicHost {
  /** Number of VPs, and so of APICs. */
  readonly vps: number;
  /** The APIC of a VP. */
  apic(vp: number): LocalApic;
  /** Raises bits of a VP's attention word ({@linkcode ATTENTION}) and wakes it. */
  signal(vp: number, bits: number): void;
  /** Remembers the vector of a startup IPI for a VP; {@linkcode ATTENTION}.SIPI is signalled afterwards. */
  setSipiVector(vp: number, vector: number): void;
  /** The owner ended a level-triggered interrupt: EOI message to the I/O APICs, or an APIC EOI intercept. */
  levelEoi(vp: number, vector: number): void;
  /** CR8 of a VP. MOV to CR8 changes it without asking the APIC. */
  cr8(vp: number): number;
  /** The owner wrote TPR: its CR8 is now `cr8`. */
  tprChanged(vp: number, cr8: number): void;
  /** Time of the machine in nanoseconds since it started. */
  now(): number;
}

/** What a reset leaves alone: everything is lost at power-up; INIT keeps APIC_BASE and the APIC ID. */
export type ApicReset = "power-up" | "init";

const IRR = ApicState.at.irr >>> 2;
const ISR = ApicState.at.isr >>> 2;
const TMR = ApicState.at.tmr >>> 2;
const AUTO_EOI = ApicState.at.auto_eoi >>> 2;
const BASE_LOW = ApicState.at.apic_base >>> 2;
const BASE_HIGH = BASE_LOW + 1;
const ID = ApicState.at.id >>> 2;
const DFR = ApicState.at.dfr >>> 2;
const SVR = ApicState.at.svr >>> 2;
const ESR = ApicState.at.esr >>> 2;
const ICR_LOW = ApicState.at.icr_low >>> 2;
const ICR_HIGH = ApicState.at.icr_high >>> 2;
const LVT_WORDS = ApicState.at.lvt >>> 2;
const ERRORS_AT = ApicState.at.errors;
const EXTINT_AT = ApicState.at.extint;

/** Shift from a vector to its priority class, and from TPR to CR8. */
const CLASS_SHIFT = 4;
/** APIC IDs in the xAPIC's ID and destination registers stand in bits 31:24. */
const XAPIC_ID_SHIFT = 24;
/** Offset bits within a register's 16 bytes. */
const REGISTER_SHIFT = 4;

/** The number of the highest bit set in `word`, which is not 0. */
function highestBit(word: number): number {
  return 31 - Math.clz32(word);
}

/** One VP's local APIC. */
export class LocalApic {
  /** The VP that it belongs to. */
  readonly vp: number;
  /** Low half of the value that {@linkcode LocalApic.readMsr} read, as int32. */
  lo = 0;
  /** High half of it. */
  hi = 0;
  readonly #i32: Int32Array<SharedArrayBuffer>;
  readonly #port: MemoryPort;
  readonly #base: number;
  readonly #word: number;
  readonly #host: ApicHost;
  readonly #timer: ApicTimer;

  /** The APIC of `vp` over the {@linkcode ApicState} at byte offset `base`, a multiple of eight. */
  constructor(memory: MachineMemory, port: MemoryPort, base: number, host: ApicHost, vp: number) {
    this.vp = vp;
    this.#i32 = memory.i32;
    this.#port = port;
    this.#base = base;
    this.#word = base >>> 2;
    this.#host = host;
    this.#timer = new ApicTimer(memory, base);
  }

  /** Puts the registers into their state after power-up or INIT. */
  reset(kind: ApicReset): void {
    const i32 = this.#i32;
    const word = this.#word;
    const powerUp = kind === "power-up";
    for (let k = 0; k < ApicState.size >>> 2; k++) {
      // INIT leaves mode and ID alone. Other VPs read them at any time: a startup IPI may follow an INIT at once.
      if (powerUp || (k !== BASE_LOW && k !== BASE_HIGH && k !== ID)) i32[word + k] = 0;
    }
    i32[word + DFR] = DFR_RESET;
    i32[word + SVR] = SVR_RESET;
    i32.fill(LVT.MASKED, word + LVT_WORDS, word + LVT_WORDS + LVT_COUNT);
    this.#host.tprChanged(this.vp, 0);
    if (powerUp) {
      i32[word + BASE_LOW] = APIC_BASE_ADDRESS | APIC_BASE.ENABLE | (this.vp === 0 ? APIC_BASE.BSP : 0);
      i32[word + ID] = this.vp;
    }
  }

  // --- Modes and identity -------------------------------------------------------------------------------------------

  /** APIC_BASE.EN. */
  get enabled(): boolean {
    return (this.#port.load32(this.#base + ApicState.at.apic_base) & APIC_BASE.ENABLE) !== 0;
  }

  /** In x2APIC mode. */
  get x2apic(): boolean {
    return (this.#port.load32(this.#base + ApicState.at.apic_base) & APIC_BASE.EXTD) !== 0;
  }

  /** SVR bit 8. */
  get softwareEnabled(): boolean {
    return (this.#port.load32(this.#base + ApicState.at.svr) & SVR_ENABLE) !== 0;
  }

  /** The APIC ID as a number. */
  get id(): number {
    return this.#port.load32(this.#base + ApicState.at.id) >>> 0;
  }

  /** LDR as software reads it; in x2APIC mode it derives from the ID. */
  get ldr(): number {
    if (!this.x2apic) return this.#port.load32(this.#base + ApicState.at.ldr) >>> 0;
    const id = this.id;
    return (((id >>> 4) << 16) | (1 << (id & 0xf))) >>> 0;
  }

  /** DFR. */
  get dfr(): number {
    return this.#port.load32(this.#base + ApicState.at.dfr) >>> 0;
  }

  /** Guest page number of the MMIO page; -1 when the APIC is disabled or in x2APIC mode. */
  get mmioPage(): number {
    const low = this.#i32[this.#word + BASE_LOW];
    if ((low & (APIC_BASE.ENABLE | APIC_BASE.EXTD)) !== APIC_BASE.ENABLE) return -1;
    return (low >>> 12) + this.#i32[this.#word + BASE_HIGH] * 0x10_0000;
  }

  /** Reads APIC_BASE into {@linkcode lo} and {@linkcode hi}. */
  readBase(): void {
    this.lo = this.#i32[this.#word + BASE_LOW];
    this.hi = this.#i32[this.#word + BASE_HIGH];
  }

  /**
   * Writes APIC_BASE. False, for #GP, when a reserved bit is set or the mode may not change so: x2APIC is entered from
   * xAPIC only and left to disabled only, and EXTD without EN is no mode.
   */
  writeBase(lo: number, hi: number): boolean {
    if ((lo & APIC_BASE_RESERVED_LOW) !== 0 || (hi & APIC_BASE_RESERVED_HIGH) !== 0) return false;
    const i32 = this.#i32;
    const old = i32[this.#word + BASE_LOW];
    const wasEnabled = (old & APIC_BASE.ENABLE) !== 0;
    const wasExtended = (old & APIC_BASE.EXTD) !== 0;
    const enable = (lo & APIC_BASE.ENABLE) !== 0;
    const extended = (lo & APIC_BASE.EXTD) !== 0;
    if (extended && (!enable || !wasEnabled)) return false;
    if (wasExtended && enable && !extended) return false;
    if (wasEnabled && !enable) this.reset("init");
    const mode = lo & (APIC_BASE_PAGE_LOW | APIC_BASE.ENABLE | APIC_BASE.EXTD);
    this.#port.exchange32(this.#base + ApicState.at.apic_base, mode | (old & APIC_BASE.BSP));
    i32[this.#word + BASE_HIGH] = hi;
    return true;
  }

  // --- Requesting interrupts (any VP) -------------------------------------------------------------------------------

  /** Requests a fixed interrupt: sets its TMR and IRR bits and signals the owner. Any VP may call this. */
  requestInterrupt(vector: number, level: boolean): void {
    const port = this.#port;
    const at = (vector >>> 5) << 2;
    const bit = 1 << (vector & 31);
    const tmr = this.#base + ApicState.at.tmr + at;
    if (((port.load32(tmr) & bit) !== 0) !== level) {
      if (level) port.or32(tmr, bit);
      else port.and32(tmr, ~bit);
    }
    port.or32(this.#base + ApicState.at.irr + at, bit);
    this.#host.signal(this.vp, ATTENTION.VTL0_INTERRUPT);
  }

  /**
   * Takes a message that reached this APIC. False when it is refused: the APIC is disabled, or disabled by software and
   * the message is a fixed or lowest-priority interrupt, or its vector is below 16.
   */
  accept(mode: number, vector: number, level: boolean): boolean {
    if (!this.enabled) return false;
    switch (mode) {
      case DELIVERY_MODE.FIXED:
      case DELIVERY_MODE.LOWEST_PRIORITY:
        if (!this.softwareEnabled) return false;
        if (vector < FIRST_LEGAL_VECTOR) {
          this.#recordError(ESR_RECEIVE_ILLEGAL_VECTOR);
          return false;
        }
        this.requestInterrupt(vector, level);
        return true;
      case DELIVERY_MODE.NMI:
        this.#host.signal(this.vp, ATTENTION.NMI);
        return true;
      case DELIVERY_MODE.INIT:
        this.#host.signal(this.vp, ATTENTION.INIT);
        return true;
      case DELIVERY_MODE.SIPI:
        this.#host.setSipiVector(this.vp, vector);
        this.#host.signal(this.vp, ATTENTION.SIPI);
        return true;
      case DELIVERY_MODE.EXTINT:
        this.raiseExtInt();
        return true;
      default:
        // SMI and remote read: there is no SMM, and no current processor answers remote reads.
        return false;
    }
  }

  /** Drives pin LINT0 (0) or LINT1 (1) through its LVT entry, as a pulse. False when the entry is masked. */
  assertLint(pin: number): boolean {
    const entry = this.#port.load32(this.#base + ApicState.at.lvt + (LVT_INDEX.LINT0 + pin) * 4);
    if ((entry & LVT.MASKED) !== 0) return false;
    const mode = (entry >>> LVT.DELIVERY_MODE_SHIFT) & LVT.DELIVERY_MODE;
    return this.accept(mode, entry & LVT.VECTOR, (entry & LVT.TRIGGER_LEVEL) !== 0);
  }

  /** Whether the output of a PIC on LINT0 reaches the processor: the APIC is off, or LINT0 is an unmasked ExtINT. */
  get acceptsPic(): boolean {
    if (!this.enabled) return true;
    const entry = this.#port.load32(this.#base + ApicState.at.lvt + LVT_INDEX.LINT0 * 4);
    return (entry & LVT.MASKED) === 0 &&
      ((entry >>> LVT.DELIVERY_MODE_SHIFT) & LVT.DELIVERY_MODE) === DELIVERY_MODE.EXTINT;
  }

  /** An interrupt controller asks for the processor, whatever the APIC's own state: its vector comes from there. */
  raiseExtInt(): void {
    this.#port.or32(this.#base + EXTINT_AT, 1);
    this.#host.signal(this.vp, ATTENTION.VTL0_INTERRUPT);
  }

  /** Whether an ExtINT message waits; its vector comes from the PIC. */
  get extIntPending(): boolean {
    return this.#port.load32(this.#base + EXTINT_AT) !== 0;
  }

  /** Takes the waiting ExtINT message; false when there is none. */
  acknowledgeExtInt(): boolean {
    return this.#port.exchange32(this.#base + EXTINT_AT, 0) !== 0;
  }

  // --- Taking interrupts (the owner) --------------------------------------------------------------------------------

  /** Priority of the processor: the higher of TPR and the class of the interrupt in service. Any VP may read it. */
  get ppr(): number {
    const tpr = this.#tpr;
    const serviced = this.#highest(ISR);
    if (serviced < 0 || tpr >>> CLASS_SHIFT >= serviced >>> CLASS_SHIFT) return tpr;
    return serviced & ~0xf;
  }

  /** The requested vector that the processor may take now, or -1. */
  highestPending(): number {
    const vector = this.#highest(IRR);
    if (vector < 0 || !this.enabled) return -1;
    this.#followCr8();
    return vector >>> CLASS_SHIFT > this.ppr >>> CLASS_SHIFT ? vector : -1;
  }

  /** The highest requested vector whatever the priority, or -1: what a priority class waits for. */
  highestRequested(): number {
    return this.#highest(IRR);
  }

  /** The requested vector that no interrupt in service holds back, whatever the task priority; -1 for none. */
  highestOffered(): number {
    const vector = this.#highest(IRR);
    if (vector < 0 || !this.enabled) return -1;
    return vector >>> CLASS_SHIFT > this.#highest(ISR) >> CLASS_SHIFT ? vector : -1;
  }

  /** Takes the interrupt that {@linkcode highestPending} names: it moves from IRR to ISR. Returns its vector, or -1. */
  acknowledge(): number {
    const vector = this.highestPending();
    if (vector >= 0) this.acknowledgeVector(vector);
    return vector;
  }

  /** A processor has delivered `vector`: it moves from IRR to ISR, unless it ends by itself. */
  acknowledgeVector(vector: number): void {
    const index = vector >>> 5;
    const bit = 1 << (vector & 31);
    this.#port.and32(this.#base + ApicState.at.irr + index * 4, ~bit);
    if ((this.#i32[this.#word + AUTO_EOI + index] & bit) === 0) this.#i32[this.#word + ISR + index] |= bit;
  }

  /** Ends the interrupt in service with the highest priority; returns its vector, or -1 when there is none. */
  eoi(): number {
    const vector = this.#highest(ISR);
    if (vector < 0) return -1;
    const index = vector >>> 5;
    const bit = 1 << (vector & 31);
    this.#i32[this.#word + ISR + index] &= ~bit;
    if ((this.#port.load32(this.#base + ApicState.at.tmr + index * 4) & bit) !== 0) {
      this.#host.levelEoi(this.vp, vector);
    }
    this.#offer();
    return vector;
  }

  /** Says which vectors end as they are taken: those of SINTs with auto-EOI. */
  setAutoEoi(vectors: readonly number[]): void {
    this.#i32.fill(0, this.#word + AUTO_EOI, this.#word + AUTO_EOI + VECTOR_WORDS);
    for (const vector of vectors) this.#i32[this.#word + AUTO_EOI + (vector >>> 5)] |= 1 << (vector & 31);
  }

  // --- Timer (the owner) --------------------------------------------------------------------------------------------

  /** Lets the timer expire when its time has come. `now` is in nanoseconds. */
  pollTimer(now: number): void {
    if (!this.#timer.expire(now, (this.#lvt(LVT_INDEX.TIMER) & LVT.PERIODIC) !== 0)) return;
    this.#local(LVT_INDEX.TIMER);
  }

  /** Nanosecond at which the timer will interrupt, or Infinity. */
  nextDeadline(): number {
    return (this.#lvt(LVT_INDEX.TIMER) & LVT.MASKED) !== 0 ? Infinity : this.#timer.deadline;
  }

  // --- Register access (the owner) ----------------------------------------------------------------------------------

  /** RDMSR of an x2APIC register into {@linkcode lo} and {@linkcode hi}; false for #GP. */
  readMsr(msr: number): boolean {
    const register = msr - X2APIC_MSR_BASE;
    if (!this.x2apic || !x2apicReadable(register)) return false;
    this.lo = this.readRegister(register) | 0;
    this.hi = register === APIC_REGISTER.ICR0 ? this.#i32[this.#word + ICR_HIGH] : 0;
    return true;
  }

  /** WRMSR of an x2APIC register; false for #GP. */
  writeMsr(msr: number, lo: number, hi: number): boolean {
    const register = msr - X2APIC_MSR_BASE;
    if (!this.x2apic || !x2apicWritable(register)) return false;
    if ((lo & x2apicReserved(register)) !== 0) return false;
    if (register === APIC_REGISTER.ICR0) {
      this.#i32[this.#word + ICR_HIGH] = hi;
      this.#command(lo, hi >>> 0);
      return true;
    }
    if (hi !== 0) return false;
    this.writeRegister(register, lo);
    return true;
  }

  /** A read of `size` bytes at `offset` in the MMIO page: the value as unsigned number; registers are 32 bits wide. */
  readMmio(offset: number, size: number): number {
    const shift = (offset & 0xf) * 8;
    if (shift >= 32) return 0;
    const value = this.readRegister(offset >>> REGISTER_SHIFT) >>> shift;
    return size >= 4 ? value : value & ((1 << (size * 8)) - 1);
  }

  /** A write in the MMIO page; only naturally placed 32-bit (or wider) writes reach a register. */
  writeMmio(offset: number, size: number, value: number): void {
    if ((offset & 0xf) === 0 && size >= 4) this.writeRegister(offset >>> REGISTER_SHIFT, value);
  }

  /** The register of that number, unsigned, as both forms of access see it. */
  readRegister(register: number): number {
    const i32 = this.#i32;
    const word = this.#word;
    if (register >= APIC_REGISTER.ISR0 && register < APIC_REGISTER.ESR) {
      const bank = [ISR, TMR, IRR][(register - APIC_REGISTER.ISR0) >>> 3];
      return this.#port.load32((word + bank + (register & 7)) << 2) >>> 0;
    }
    if (register >= APIC_REGISTER.LVT_TIMER && register < APIC_REGISTER.LVT_TIMER + LVT_COUNT) {
      return i32[word + LVT_WORDS + register - APIC_REGISTER.LVT_TIMER] >>> 0;
    }
    switch (register) {
      case APIC_REGISTER.ID:
        return this.x2apic ? this.id : (this.id << XAPIC_ID_SHIFT) >>> 0;
      case APIC_REGISTER.VERSION:
        return APIC_VERSION_VALUE;
      case APIC_REGISTER.TPR:
        this.#followCr8();
        return this.#tpr;
      case APIC_REGISTER.APR:
      case APIC_REGISTER.PPR:
        return this.ppr;
      case APIC_REGISTER.LDR:
        return this.ldr;
      case APIC_REGISTER.DFR:
        return this.dfr;
      case APIC_REGISTER.SVR:
        return i32[word + SVR];
      case APIC_REGISTER.ESR:
        return i32[word + ESR];
      case APIC_REGISTER.ICR0:
        return i32[word + ICR_LOW] >>> 0;
      case APIC_REGISTER.ICR1:
        return i32[word + ICR_HIGH] >>> 0;
      case APIC_REGISTER.TIMER_ICR:
        return this.#timer.initialCount;
      case APIC_REGISTER.TIMER_CCR:
        return this.#currentCount();
      case APIC_REGISTER.TIMER_DCR:
        return this.#timer.divideConfiguration;
      case APIC_REGISTER.EOI:
      case APIC_REGISTER.RRD:
        return 0;
      default:
        this.#recordError(ESR_ILLEGAL_REGISTER);
        return 0;
    }
  }

  /** Writes the register of that number; read-only registers and bits keep what they hold. */
  writeRegister(register: number, value: number): void {
    const i32 = this.#i32;
    const word = this.#word;
    if (register >= APIC_REGISTER.LVT_TIMER && register < APIC_REGISTER.LVT_TIMER + LVT_COUNT) {
      this.#writeLvt(register - APIC_REGISTER.LVT_TIMER, value);
      return;
    }
    switch (register) {
      case APIC_REGISTER.TPR:
        this.#port.exchange32(this.#base + ApicState.at.tpr, value & 0xff);
        this.#host.tprChanged(this.vp, (value & 0xff) >>> CLASS_SHIFT);
        this.#offer();
        break;
      case APIC_REGISTER.EOI:
        this.eoi();
        break;
      case APIC_REGISTER.LDR:
        this.#port.exchange32(this.#base + ApicState.at.ldr, value & (0xff << XAPIC_ID_SHIFT));
        break;
      case APIC_REGISTER.DFR:
        this.#port.exchange32(this.#base + ApicState.at.dfr, value | DFR_ONES);
        break;
      case APIC_REGISTER.SVR:
        i32[word + SVR] = value & SVR_WRITABLE;
        if ((value & SVR_ENABLE) === 0) { for (let n = 0; n < LVT_COUNT; n++) i32[word + LVT_WORDS + n] |= LVT.MASKED; }
        break;
      case APIC_REGISTER.ESR:
        i32[word + ESR] = this.#port.exchange32(this.#base + ERRORS_AT, 0);
        break;
      case APIC_REGISTER.ICR0:
        this.#command(value & ICR_WRITABLE, i32[word + ICR_HIGH] >>> XAPIC_ID_SHIFT);
        break;
      case APIC_REGISTER.ICR1:
        i32[word + ICR_HIGH] = value & (0xff << XAPIC_ID_SHIFT);
        break;
      case APIC_REGISTER.TIMER_ICR:
        this.#timer.start(value >>> 0, this.#host.now());
        this.#host.signal(this.vp, ATTENTION.TIMER);
        break;
      case APIC_REGISTER.TIMER_DCR:
        this.pollTimer(this.#host.now());
        this.#timer.setDivide(value & DCR_WRITABLE, this.#host.now());
        break;
      case APIC_REGISTER.SELF_IPI:
        this.#command(value | (SHORTHAND.SELF << ICR.SHORTHAND_SHIFT), 0);
        break;
      default:
        // Every other register is read only; an offset that has none is an error.
        this.readRegister(register);
    }
  }

  // --- Inside -------------------------------------------------------------------------------------------------------

  /** TPR: what was last written to it, unless CR8 has another class since then. */
  get #tpr(): number {
    const tpr = this.#port.load32(this.#base + ApicState.at.tpr);
    const cr8 = this.#host.cr8(this.vp);
    return tpr >>> CLASS_SHIFT === cr8 ? tpr : cr8 << CLASS_SHIFT;
  }

  /** The owner wrote CR8: TPR's lower half becomes 0, even when CR8 stays what it was (SDM volume 3, 11.8.6). */
  cr8Written(cr8: number): void {
    this.#port.exchange32(this.#base + ApicState.at.tpr, cr8 << CLASS_SHIFT);
  }

  /** Makes TPR what MOV to CR8 left it at. Only the owner may: another VP could see CR8 before the owner's TPR. */
  #followCr8(): void {
    const tpr = this.#tpr;
    if (this.#port.load32(this.#base + ApicState.at.tpr) !== tpr) {
      this.#port.exchange32(this.#base + ApicState.at.tpr, tpr);
    }
  }

  /** LVT entry number `entry`. */
  #lvt(entry: number): number {
    return this.#i32[this.#word + LVT_WORDS + entry];
  }

  /** Highest vector set in the bank of words at `bank`, or -1. */
  #highest(bank: number): number {
    for (let index = VECTOR_WORDS - 1; index >= 0; index--) {
      const bits = this.#port.load32((this.#word + bank + index) << 2);
      if (bits !== 0) return index * 32 + highestBit(bits);
    }
    return -1;
  }

  /** The priority fell: says so when an interrupt can be taken now. */
  #offer(): void {
    if (this.highestPending() >= 0) this.#host.signal(this.vp, ATTENTION.VTL0_INTERRUPT);
  }

  /** The timer's current count. */
  #currentCount(): number {
    const now = this.#host.now();
    this.pollTimer(now);
    return this.#timer.currentCount(now);
  }

  /** Writes LVT entry `entry`; entries stay masked while the APIC is disabled by software. */
  #writeLvt(entry: number, value: number): void {
    // An expiry that lies in the past belongs to the old entry.
    if (entry === LVT_INDEX.TIMER) this.pollTimer(this.#host.now());
    const masked = this.softwareEnabled ? 0 : LVT.MASKED;
    this.#port.exchange32(this.#base + ApicState.at.lvt + entry * 4, (value & LVT_WRITABLE[entry]) | masked);
    if (entry === LVT_INDEX.TIMER) this.#host.signal(this.vp, ATTENTION.TIMER);
  }

  /** Raises the interrupt of a local source: the timer or an error. */
  #local(entry: number): void {
    const value = this.#lvt(entry);
    if ((value & LVT.MASKED) !== 0) return;
    const vector = value & LVT.VECTOR;
    if (vector >= FIRST_LEGAL_VECTOR) this.requestInterrupt(vector, false);
    else this.#port.or32(this.#base + ERRORS_AT, ESR_RECEIVE_ILLEGAL_VECTOR);
  }

  /** Notes an error and raises the error interrupt when the error is new. */
  #recordError(error: number): void {
    const before = this.#port.or32(this.#base + ERRORS_AT, error);
    if ((before & error) === 0) this.#local(LVT_INDEX.ERROR);
  }

  /** A write of the ICR: sends the interrupt that `low` describes to `destination`. */
  #command(low: number, destination: number): void {
    this.#i32[this.#word + ICR_LOW] = low & ~ICR.DELIVERY_PENDING;
    const mode = (low >>> ICR.DELIVERY_MODE_SHIFT) & ICR.DELIVERY_MODE;
    const vector = low & ICR.VECTOR;
    const shorthand = (low >>> ICR.SHORTHAND_SHIFT) & ICR.SHORTHAND;
    const fixed = mode === DELIVERY_MODE.FIXED;
    if ((fixed || mode === DELIVERY_MODE.LOWEST_PRIORITY) && vector < FIRST_LEGAL_VECTOR) {
      this.#recordError(ESR_SEND_ILLEGAL_VECTOR);
      return;
    }
    // INIT level de-assert does nothing on processors with an integrated x2APIC.
    const deassert = (low & (ICR.TRIGGER_LEVEL | ICR.LEVEL_ASSERT)) === ICR.TRIGGER_LEVEL;
    if (mode === DELIVERY_MODE.INIT && deassert) return;
    // An IPI is a locked operation in effect: what was stored before it is visible to its receiver.
    this.#port.fence();
    // Shorthands that include the sender are valid for fixed interrupts only (SDM, "Valid Combinations").
    const includesSelf = shorthand === SHORTHAND.SELF || shorthand === SHORTHAND.ALL_INCLUDING_SELF;
    if (includesSelf && !fixed) return;
    if (shorthand === SHORTHAND.SELF) {
      this.accept(mode, vector, false);
    } else if (shorthand === SHORTHAND.NONE) {
      deliver(this.#host, { mode, vector, destination, logical: (low & ICR.LOGICAL) !== 0, level: false });
    } else {
      for (let vp = 0; vp < this.#host.vps; vp++) {
        if (vp !== this.vp || includesSelf) this.#host.apic(vp).accept(mode, vector, false);
      }
    }
  }
}
