/**
 * Devices of a processor whose local APIC is the VMM's too: on SNP an access to the APIC's page is one to device memory.
 *
 * @module
 */
import { DEVICE_DONE, type DeviceMsrs, type Devices } from "../../devices/devices.ts";
import type { LocalApic } from "../../hypervisor/apic/local_apic.ts";
import { PAGE_SIZE, pageNumber } from "../../memory/machine_memory.ts";

/** See the module's description. */
export class ApicDevices implements Devices {
  readonly value: Int32Array;
  readonly msrs?: DeviceMsrs;
  readonly #devices: Devices;
  readonly #apic: LocalApic;

  /** `devices`, with the page of `apic` laid over them. */
  constructor(devices: Devices, apic: LocalApic) {
    this.value = devices.value;
    if (devices.msrs !== undefined) this.msrs = devices.msrs;
    this.#devices = devices;
    this.#apic = apic;
  }

  portIn(port: number, size: number): number {
    return this.#devices.portIn(port, size);
  }

  portOut(port: number, size: number, value: number): number {
    return this.#devices.portOut(port, size, value);
  }

  mmioRead(gpaLow: number, gpaHigh: number, size: number): void {
    if (!this.#isApic(gpaLow, gpaHigh)) return this.#devices.mmioRead(gpaLow, gpaHigh, size);
    this.value[0] = this.#apic.readMmio(gpaLow & (PAGE_SIZE - 1), size);
    this.value[1] = 0;
  }

  mmioWrite(gpaLow: number, gpaHigh: number, size: number, low: number, high: number): number {
    if (!this.#isApic(gpaLow, gpaHigh)) return this.#devices.mmioWrite(gpaLow, gpaHigh, size, low, high);
    this.#apic.writeMmio(gpaLow & (PAGE_SIZE - 1), size, low);
    return DEVICE_DONE;
  }

  #isApic(gpaLow: number, gpaHigh: number): boolean {
    return pageNumber(gpaLow, gpaHigh) === this.#apic.mmioPage;
  }
}
