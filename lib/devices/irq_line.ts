/**
 * What a device drives an interrupt request through.
 *
 * @module
 */

/** One interrupt request line of the ISA bus, high meaning "requested". */
export interface IrqLine {
  /** Drives the line. Setting the level that it already has does nothing. */
  set(level: boolean): void;
}
