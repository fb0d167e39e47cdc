/**
 * From an interrupt message (an IPI, an MSI, an I/O APIC output, HvCallAssertVirtualInterrupt) to the APICs that it
 * addresses: physical and logical destinations, broadcast, and lowest-priority arbitration.
 *
 * Follows the Intel SDM volume 3, "Determining IPI Destination" and "Interrupt Destination"; an APIC judges a
 * destination by the mode that it is in itself.
 *
 * @module
 */
import type { ApicHost, LocalApic } from "./local_apic.ts";
import { DELIVERY_MODE } from "./registers.ts";

/** An interrupt message. */
export interface InterruptRequest {
  /** One of {@linkcode DELIVERY_MODE}. */
  readonly mode: number;
  /** Vector 0 to 255. */
  readonly vector: number;
  /** APIC ID, logical destination or broadcast, unsigned. */
  readonly destination: number;
  /** Whether the destination is logical. */
  readonly logical: boolean;
  /** Level-triggered. */
  readonly level: boolean;
}

/** Physical and logical broadcast of an x2APIC. */
const X2APIC_BROADCAST = 0xffff_ffff;
/** Physical and logical broadcast of an xAPIC. */
const XAPIC_BROADCAST = 0xff;
/** DFR bits 31:28 of the flat model; 0 is the cluster model. */
const DFR_FLAT = 0xf;

/** Whether `apic` is addressed by a physical or logical destination. */
export function isDestination(apic: LocalApic, destination: number, logical: boolean): boolean {
  const { x2apic } = apic;
  if (destination === X2APIC_BROADCAST || (!x2apic && destination === XAPIC_BROADCAST)) return true;
  if (!logical) return apic.id === destination;
  const { ldr } = apic;
  if (x2apic) return destination >>> 16 === ldr >>> 16 && (destination & ldr & 0xffff) !== 0;
  const members = ldr >>> 24;
  if (apic.dfr >>> 28 === DFR_FLAT) return (destination & members) !== 0;
  return destination >>> 4 === members >>> 4 && (destination & members & 0xf) !== 0;
}

/**
 * Delivers a message to every APIC that it addresses, or, in lowest-priority mode, to the one of them that is working at
 * the lowest priority (the first of several). Returns whether an APIC took it.
 */
export function deliver(host: ApicHost, request: InterruptRequest): boolean {
  const { mode, vector, destination, logical, level } = request;
  let taken = false;
  let lowest: LocalApic | undefined;
  let lowestPriority = Infinity;
  for (let vp = 0; vp < host.vps; vp++) {
    const apic = host.apic(vp);
    if (!isDestination(apic, destination, logical)) continue;
    if (mode !== DELIVERY_MODE.LOWEST_PRIORITY) {
      taken = apic.accept(mode, vector, level) || taken;
    } else if (apic.enabled && apic.softwareEnabled && apic.ppr < lowestPriority) {
      lowest = apic;
      lowestPriority = apic.ppr;
    }
  }
  return lowest === undefined ? taken : lowest.accept(mode, vector, level);
}
