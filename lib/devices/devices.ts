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

/** Model-specific registers that are devices: in the machine of the recorded programs. */
export interface DeviceMsrs {
  /** Whether MSR `msr` is a device. */
  claims(msr: number): boolean;
  /** RDMSR: puts the value into {@linkcode Devices.value}. */
  read(msr: number): void;
  /** WRMSR. */
  write(msr: number, low: number, high: number): void;
}

/** Ports and device memory. */
export interface Devices {
  /** MSRs that are devices; absent where there are none. */
  readonly msrs?: DeviceMsrs;
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
