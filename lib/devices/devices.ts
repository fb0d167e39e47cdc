/**
 * What the VMM, an instruction emulator or a bare machine sees of devices: ports and device memory.
 *
 * Values of up to 16 bits are unsigned numbers, 32-bit values are int32 numbers, 64-bit values are pairs of int32 words.
 *
 * @module
 */

/** The access is complete. */
export const DEVICE_DONE = 0;
/** The device cannot take the value now; nothing has happened, and the same access is to be made again later. */
export const DEVICE_BUSY = 1;

/** Ports and device memory. */
export interface Devices {
  /** The value of the last {@linkcode Devices.mmioRead}: low word, high word. */
  readonly value: Int32Array;
  /** IN of `size` (1, 2 or 4) bytes. */
  portIn(port: number, size: number): number;
  /** OUT of `size` (1, 2 or 4) bytes; {@linkcode DEVICE_DONE} or {@linkcode DEVICE_BUSY}. */
  portOut(port: number, size: number, value: number): number;
  /** Reads `size` (1, 2, 4 or 8) bytes of device memory into {@linkcode Devices.value}, zero-extended. */
  mmioRead(gpaLow: number, gpaHigh: number, size: number): void;
  /** Writes `size` (1, 2, 4 or 8) bytes of device memory; {@linkcode DEVICE_DONE} or {@linkcode DEVICE_BUSY}. */
  mmioWrite(gpaLow: number, gpaHigh: number, size: number, low: number, high: number): number;
}
