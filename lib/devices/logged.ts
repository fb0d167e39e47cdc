/**
 * Devices whose accesses are noted in a processor's exit log.
 *
 * @module
 */
import { ACCESS, type ExitLog } from "../hypervisor/exit_log.ts";
import { DEVICE_BUSY, type DeviceMsrs, type Devices } from "./devices.ts";

const WORD = 0x1_0000_0000;
/** Bytes of an MSR. */
const MSR_SIZE = 8;

function loggedMsrs(msrs: DeviceMsrs, devices: Devices, log: ExitLog): DeviceMsrs {
  return {
    claims: (msr) => msrs.claims(msr),
    read: (msr) => {
      msrs.read(msr);
      log.access(ACCESS.READ, msr, MSR_SIZE, devices.value[0], devices.value[1]);
    },
    write: (msr, low, high) => {
      msrs.write(msr, low, high);
      log.access(ACCESS.WRITE, msr, MSR_SIZE, low, high);
    },
  };
}

/** Passes accesses on and notes each that was completed. */
export class LoggedDevices implements Devices {
  readonly value: Int32Array;
  readonly msrs?: DeviceMsrs;
  readonly #devices: Devices;
  readonly #log: ExitLog;

  /** The accesses of `devices`, noted in `log`. */
  constructor(devices: Devices, log: ExitLog) {
    this.value = devices.value;
    if (devices.msrs !== undefined) this.msrs = loggedMsrs(devices.msrs, devices, log);
    this.#devices = devices;
    this.#log = log;
  }
  portIn(port: number, size: number): number {
    const value = this.#devices.portIn(port, size);
    this.#log.access(ACCESS.IN, port, size, value, 0);
    return value;
  }
  portOut(port: number, size: number, value: number): number {
    const outcome = this.#devices.portOut(port, size, value);
    if (outcome !== DEVICE_BUSY) this.#log.access(ACCESS.OUT, port, size, value, 0);
    return outcome;
  }
  mmioRead(gpaLow: number, gpaHigh: number, size: number): void {
    this.#devices.mmioRead(gpaLow, gpaHigh, size);
    this.#log.access(ACCESS.READ, (gpaLow >>> 0) + (gpaHigh >>> 0) * WORD, size, this.value[0], this.value[1]);
  }
  mmioWrite(gpaLow: number, gpaHigh: number, size: number, low: number, high: number): number {
    const outcome = this.#devices.mmioWrite(gpaLow, gpaHigh, size, low, high);
    if (outcome !== DEVICE_BUSY) {
      this.#log.access(ACCESS.WRITE, (gpaLow >>> 0) + (gpaHigh >>> 0) * WORD, size, low, high);
    }
    return outcome;
  }
}
