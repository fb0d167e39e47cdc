/**
 * Registers of the local APIC: numbers, fields, and what may be written where.
 *
 * Follows the Intel SDM volume 3 chapter 11 (10 in older editions) and the AMD64 APM volume 2 chapter 16. A register's
 * number is its offset in the MMIO page divided by 16; its x2APIC MSR is 0x800 plus the number. Not modelled: SMI, the
 * CMCI entry, extended APIC space, TSC-deadline mode (its MSR 0x6e0 is none that the hypervisor answers), and EOI
 * broadcast suppression.
 *
 * @module
 */

import { ApicBase, Icr, Lvt, Svr } from "../../layout/x64/apic.ts";
import { APIC, ApicDeliveryMode, ApicDestinationShorthand, ApicRegister } from "../../layout/x64/constants.ts";

/** Register numbers. */
export const APIC_REGISTER = ApicRegister.values;
/** Delivery modes of the ICR, of LVT entries, and of messages. */
export const DELIVERY_MODE = ApicDeliveryMode.values;
/** Destination shorthands of the ICR. */
export const SHORTHAND = ApicDestinationShorthand.values;

/** First MSR of the x2APIC. */
export const X2APIC_MSR_BASE: number = APIC.X2APIC_MSR_BASE;
/** Last MSR of the range that belongs to the x2APIC, reserved ones included. */
export const X2APIC_MSR_LAST = 0x8ff;
/** Where the MMIO page lies after reset. */
export const APIC_BASE_ADDRESS: number = APIC.BASE_ADDRESS;

/** Bits of the APIC_BASE MSR's low half. */
export const APIC_BASE = {
  /** Bootstrap processor; read only. */
  BSP: ApicBase.low.bsp,
  /** x2APIC mode. */
  EXTD: ApicBase.low.x2apic,
  /** The APIC exists. */
  ENABLE: ApicBase.low.enable,
} as const;
/** Reserved bits in the low half of APIC_BASE: 7:0 and 9. */
export const APIC_BASE_RESERVED_LOW = 0x2ff;
/** Bits 31:12 of APIC_BASE: the page. */
export const APIC_BASE_PAGE_LOW = 0xffff_f000 | 0;
/** Reserved bits in the high half of APIC_BASE: 63:48 beyond the physical address width. */
export const APIC_BASE_RESERVED_HIGH = 0xffff_0000 | 0;

/** Fields of the ICR's low half. */
export const ICR = {
  VECTOR: Icr.low.vector,
  DELIVERY_MODE_SHIFT: Icr.shift.delivery_mode,
  DELIVERY_MODE: 7,
  LOGICAL: Icr.low.destination_mode_logical,
  DELIVERY_PENDING: Icr.low.delivery_pending,
  LEVEL_ASSERT: Icr.low.level_assert,
  TRIGGER_LEVEL: Icr.low.trigger_mode_level,
  SHORTHAND_SHIFT: Icr.shift.destination_shorthand,
  SHORTHAND: 3,
} as const;
/** Bits of the x2APIC ICR's low half that must be zero: 31:20, 17:16 and 13. */
export const ICR_RESERVED = 0xfff3_2000 | 0;
/** Bits of the xAPIC ICR's low half that a write keeps. */
export const ICR_WRITABLE = 0x000c_cfff;

/** Fields of an LVT entry. */
export const LVT = {
  VECTOR: Lvt.mask.vector,
  DELIVERY_MODE_SHIFT: Lvt.shift.delivery_mode,
  DELIVERY_MODE: 7,
  DELIVERY_STATUS: Lvt.mask.delivery_status,
  REMOTE_IRR: Lvt.mask.remote_irr,
  TRIGGER_LEVEL: Lvt.mask.trigger_mode_level,
  MASKED: Lvt.mask.masked,
  /** Timer mode 1. */
  PERIODIC: Lvt.make({ timer_mode: 1 }),
} as const;

/** LVT entries in the order of their registers, from LVT_TIMER on. */
export const LVT_INDEX = { TIMER: 0, THERMAL: 1, PMC: 2, LINT0: 3, LINT1: 4, ERROR: 5 } as const;
/** Number of LVT entries. */
export const LVT_COUNT = 6;
/** Bits that software may write in each LVT entry. */
export const LVT_WRITABLE: readonly number[] = [0x300ff, 0x107ff, 0x107ff, 0x1a7ff, 0x1a7ff, 0x100ff];
/** Read-only bits of an LVT entry, which a write may hold without a fault. */
export const LVT_READ_ONLY = LVT.DELIVERY_STATUS | LVT.REMOTE_IRR;

/** SVR: the APIC is enabled by software. */
export const SVR_ENABLE: number = Svr.mask.enable;
/** SVR: vector, enable, focus processor checking. */
export const SVR_WRITABLE = 0x3ff;
/** SVR after reset: vector 0xff, disabled. */
export const SVR_RESET = 0xff;
/** Version 0x14, the highest LVT entry is number 5. */
export const APIC_VERSION_VALUE = 0x0005_0014;
/** DFR after reset: flat model; bits 27:0 are always ones. */
export const DFR_RESET = 0xffff_ffff | 0;
/** DFR bits 27:0. */
export const DFR_ONES = 0x0fff_ffff;
/** Bits of the divide configuration register that exist. */
export const DCR_WRITABLE = 0xb;

/** Error status: an IPI with a vector below 16 was sent. */
export const ESR_SEND_ILLEGAL_VECTOR = 1 << 5;
/** Error status: an interrupt with a vector below 16 arrived. */
export const ESR_RECEIVE_ILLEGAL_VECTOR = 1 << 6;
/** Error status: a register that does not exist was accessed in the MMIO page. */
export const ESR_ILLEGAL_REGISTER = 1 << 7;

/** Vectors below this one are reserved for exceptions. */
export const FIRST_LEGAL_VECTOR = 16;

/** What an x2APIC register allows. */
const R = 1;
const W = 2;

/** Access rights (bit 0 read, bit 1 write) of each x2APIC register; absent ones fault (SDM table "x2APIC Register Address Space"). */
const X2APIC_ACCESS: readonly number[] = (() => {
  const access = new Array<number>(X2APIC_MSR_LAST - X2APIC_MSR_BASE + 1).fill(0);
  const {
    ID,
    VERSION,
    TPR,
    PPR,
    EOI,
    LDR,
    SVR,
    ISR0,
    ESR,
    ICR0,
    LVT_TIMER,
    TIMER_ICR,
    TIMER_CCR,
    TIMER_DCR,
    SELF_IPI,
  } = APIC_REGISTER;
  for (const register of [ID, VERSION, PPR, LDR, TIMER_CCR]) access[register] = R;
  for (const register of [TPR, SVR, ESR, ICR0, TIMER_ICR, TIMER_DCR]) access[register] = R | W;
  for (const register of [EOI, SELF_IPI]) access[register] = W;
  for (let register: number = ISR0; register < ESR; register++) access[register] = R;
  for (let entry = 0; entry < LVT_COUNT; entry++) access[LVT_TIMER + entry] = R | W;
  return access;
})();

/** Whether RDMSR of x2APIC register `register` is allowed. */
export function x2apicReadable(register: number): boolean {
  return (X2APIC_ACCESS[register] & R) !== 0;
}

/** Whether WRMSR of x2APIC register `register` is allowed. */
export function x2apicWritable(register: number): boolean {
  return (X2APIC_ACCESS[register] & W) !== 0;
}

/** Bits of the low half that WRMSR of x2APIC register `register` must leave zero. */
export function x2apicReserved(register: number): number {
  switch (register) {
    case APIC_REGISTER.TPR:
    case APIC_REGISTER.SELF_IPI:
      return ~0xff;
    case APIC_REGISTER.EOI:
    case APIC_REGISTER.ESR:
      return ~0;
    case APIC_REGISTER.SVR:
      return ~SVR_WRITABLE;
    case APIC_REGISTER.ICR0:
      return ICR_RESERVED;
    case APIC_REGISTER.TIMER_DCR:
      return ~DCR_WRITABLE;
    case APIC_REGISTER.TIMER_ICR:
      return 0;
    default:
      return ~(LVT_WRITABLE[register - APIC_REGISTER.LVT_TIMER] | LVT_READ_ONLY);
  }
}
