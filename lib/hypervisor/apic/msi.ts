/**
 * Message signalled interrupts: the address and data that a device writes (Intel SDM volume 3, "Message Address Register
 * Format" and "Message Data Register Format").
 *
 * @module
 */
import { MsiAddress, MsiData } from "../../layout/x64/apic.ts";
import type { InterruptRequest } from "./delivery.ts";

/** The interrupt that a write of `data` to `address` asks for; both are 32 bits. */
export function decodeMsi(address: number, data: number): InterruptRequest {
  return {
    mode: MsiData.get(data >>> 0, "delivery_mode"),
    vector: MsiData.get(data >>> 0, "vector"),
    destination: MsiAddress.get(address >>> 0, "destination"),
    logical: MsiAddress.get(address >>> 0, "destination_mode_logical") !== 0,
    level: MsiData.get(data >>> 0, "trigger_mode_level") !== 0,
  };
}
