/**
 * Scratch areas: where a request's data lie, and how KVM reaches them (Linux setup_vmgexit_scratch; sev.md d3, d8).
 *
 * An area in the GHCB's shared buffer is used where it is: no snapshot covers it, and the guest may change it at any time.
 * Any other area is copied to the host's own memory, and back when the request is done.
 *
 * @module
 */
import { PAGE_SIZE } from "../../memory/machine_memory.ts";
import { step, type StepId } from "../../memory/steps.ts";
import { SHARED_BUFFER } from "../../sev/ghcb.ts";
import { type HostVcpu, SCRATCH_BYTES } from "../host_vcpu.ts";
import { SCRATCH } from "./policies.ts";

/** Whether the area begins in the GHCB's page. */
function beginsInGhcb(host: HostVcpu): boolean {
  const page = BigInt(host.get32("ghcb"));
  const address = host.get64("sw_scratch");
  return address >= page && address < page + BigInt(PAGE_SIZE);
}

/** Whether the area is used where it is. */
function inGhcb(host: HostVcpu): boolean {
  return beginsInGhcb(host) && host.vp.partition.policy(SCRATCH) === SCRATCH.is["in-place"];
}

/** Whether `bytes` bytes at SW_SCRATCH are an area that a request may use. */
export function scratchFits(host: HostVcpu, bytes: number): boolean {
  const address = host.get64("sw_scratch");
  const end = address + BigInt(bytes);
  if (address === 0n) return false;
  if (!beginsInGhcb(host)) return bytes <= SCRATCH_BYTES && end <= BigInt(host.sev.config.ramBytes);
  const page = BigInt(host.get32("ghcb"));
  return address >= page + BigInt(SHARED_BUFFER.START) && end <= page + BigInt(SHARED_BUFFER.END);
}

/** Begins to use an area of `bytes` bytes, and goes on with `next`; `copy` when its contents are needed. */
export function beginScratch(host: HostVcpu, bytes: number, copy: boolean, next: StepId): StepId {
  host.set32("scratch_bytes", bytes);
  host.set32("element", 0);
  return copy && !inGhcb(host) ? host.call(COPY_SCRATCH, next) : next;
}

/** Copies the area into the host's memory: what the guest does to it afterwards changes nothing. */
const COPY_SCRATCH: StepId = step<HostVcpu>("kvm.copy-scratch", (host) => {
  host.guest.copyIn(host.scratch, Number(host.get64("sw_scratch")), host.get32("scratch_bytes"));
  return host.return();
});

/** Reads `size` bytes at `offset` of the area. */
export function loadScratch(host: HostVcpu, offset: number, size: number): bigint {
  if (inGhcb(host)) return host.guest.loadBytes(Number(host.get64("sw_scratch")) + offset, size);
  let value = 0n;
  for (let k = 0; k < size; k++) value |= BigInt(host.memory.u8[host.scratch + offset + k]) << BigInt(8 * k);
  return value;
}

/** Writes `size` bytes at `offset` of the area; false when the write faults. */
export function storeScratch(host: HostVcpu, offset: number, size: number, value: bigint): boolean {
  if (inGhcb(host)) return host.guest.storeBytes(Number(host.get64("sw_scratch")) + offset, size, value);
  for (let k = 0; k < size; k++) host.memory.u8[host.scratch + offset + k] = Number((value >> BigInt(8 * k)) & 0xffn);
  return true;
}

/** Ends the use of the area; false when its way back to the guest faults. */
export function endScratch(host: HostVcpu): boolean {
  const bytes = host.get32("scratch_bytes");
  host.set32("scratch_bytes", 0);
  return bytes === 0 || inGhcb(host) || host.guest.copyOut(Number(host.get64("sw_scratch")), host.scratch, bytes);
}
