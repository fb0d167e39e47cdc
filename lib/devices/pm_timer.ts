/**
 * The ACPI power management timer (ACPI specification, section 4.8.3.3): a free-running counter at 3.579545 MHz.
 *
 * Its interrupt on overflow is not modelled: there is no SCI.
 *
 * @module
 */

/** The counter's clock in Hz: a quarter of 14.31818 MHz. */
export const PM_TIMER_HZ = 3_579_545;
const TICKS_PER_NS = PM_TIMER_HZ / 1e9;
const MODULUS_32 = 0x1_0000_0000;
const MODULUS_24 = 0x100_0000;

/** The counter at `nowNs`; with `wide` all 32 bits, otherwise 24. Unsigned. */
export function pmTimerAt(nowNs: number, wide: boolean): number {
  return Math.floor(nowNs * TICKS_PER_NS) % (wide ? MODULUS_32 : MODULUS_24);
}
