/**
 * What an exit handler of the VMM sees of the virtual processor whose exit it handles.
 *
 * Handlers are plain functions `(vp) -> HandlerResult`. They read the message and the processor context where these lie in
 * the shared memory and change only the context, the devices and {@linkcode VmmVpState}; what goes to the hypervisor goes
 * through the methods here. The setting methods take effect in the order of the calls, at the latest before VTL0 runs
 * again, so that they can be carried out after the handler has returned. A handler that has to wait says so by its
 * result and is called again with the same message.
 *
 * @module
 */
import type { Devices } from "../devices/devices.ts";
import type { MachineMemory } from "../memory/machine_memory.ts";
import type { Policy } from "../memory/policy.ts";

/** What a handler came to; the values below. */
export type HandlerResult = number;
/** The exit is handled; VTL0 may run again once everything that was set has taken effect. */
export const HANDLED: HandlerResult = 0;
/** A device cannot take a value now: call the handler again later. */
export const BUSY: HandlerResult = 1;
/** A `getRegisters` is under way: call the handler again when the values are there. */
export const PENDING: HandlerResult = 2;
/** The VMM has crashed, see {@linkcode VmmVp.crash}; no agent of it runs on. */
export const CRASHED: HandlerResult = 3;
/** VTL0 has met a triple fault and stops. */
export const TRIPLE_FAULT: HandlerResult = 4;

/** A failed assertion or a fatal condition in the VMM. */
export interface VmmCrash {
  /** The assertion as the real code has it, or what is fatal. */
  readonly assertion: string;
  /** The left value of a comparison. */
  readonly left?: bigint;
  /** The right value of a comparison. */
  readonly right?: bigint;
}

/** What the VMM knows of the whole partition. */
export interface VmmPartition {
  /**
   * Overlays the partition's own answers on default CPUID results. `results` holds EAX, EBX, ECX and EDX.
   */
  overlayCpuid(leaf: number, subleaf: number, results: Int32Array): void;
  /** An APIC EOI intercept: passes a level-triggered vector to the I/O APIC. */
  endOfInterrupt(vector: number): void;
  /** The vector of the interrupt controllers' request, acknowledged, or -1. */
  acknowledgeExtInt(): number;
  /** A guest has reported a crash; its record is in the processor's {@linkcode VmmVpState}. */
  guestCrashed(vp: VmmVp): void;
  /** HvCallPostMessage from a guest; an HvStatus. `payload` is a byte offset. */
  postMessage(connectionId: number, messageType: number, payload: number, payloadSize: number): number;
  /** HvCallSignalEvent from a guest; an HvStatus. */
  signalEvent(connectionId: number, flagNumber: number): number;
  /** HvCallRetargetDeviceInterrupt from a guest; an HvStatus. `input` is the byte offset of its input. */
  retargetDeviceInterrupt(input: number): number;
  /** HvCallModifyVtlProtectionMask for one guest page; an HvStatus. */
  modifyVtlProtectionMask(vtl: number, mapFlags: number, gpn: number): number;
  /** HvCallRestorePartitionTime from a guest; an HvStatus. `input` is the byte offset of its input. */
  restorePartitionTime(input: number): number;
  /** The index of the virtual processor with an APIC id, or -1. */
  vpIndexOfApicId(apicId: number): number;
}

/** The virtual processor of an exit. */
export interface VmmVp {
  /** The machine's memory. */
  readonly memory: MachineMemory;
  /** Its index. */
  readonly index: number;
  /** Byte offset of the processor context: `hcl_cpu_context_x64`, which is also `CpuContextX64`. */
  readonly context: number;
  /** Byte offset of the intercept message, an `HvMessage`. */
  readonly message: number;
  /** Byte offset of its {@linkcode VmmVpState}. */
  readonly state: number;
  /** The VTL that was intercepted. */
  readonly interceptedVtl: number;
  /** Ports and device memory. */
  readonly devices: Devices;
  /** The partition. */
  readonly partition: VmmPartition;
  /** The number of the chosen value of `policy`. */
  policy(policy: Policy): number;
  /**
   * Gets registers of the intercepted VTL in one batch: an `HvRegisterValue` for each name, from byte offset `at` on.
   * Returns true when they are there, false when the handler has to return {@linkcode PENDING} and be called again.
   */
  getRegisters(names: readonly number[], at: number): boolean;
  /** Sets registers of the intercepted VTL in one batch; the values stay at `at` until the next handler runs. */
  setRegisters(names: readonly number[], at: number): void;
  /** Sets RIP of the intercepted VTL. */
  setRip(low: number, high: number): void;
  /** Clears the interrupt shadow of the intercepted VTL (InterruptState), leaving the NMI mask as it is. */
  clearInterruptShadow(): void;
  /** Injects the `HvX64PendingEvent` at byte offset `at` into this VP (PendingEvent0 and PendingEvent1). */
  injectEvent(at: number): void;
  /** HvCallPostMessageDirect of the 256-byte message at byte offset `message` to VTL0 of this VP; an HvStatus. */
  postMessageDirect(sint: number, message: number): number;
  /**
   * The byte offset of guest-physical memory of the intercepted VTL, or -1 when any of the `length` bytes is not lower-VTL
   * RAM. `gpa` is below 2^53.
   */
  guestOffset(gpa: number, length: number): number;
  /** Whether the hypervisor lays a page of its own over guest page `gpn`. */
  isOverlay(gpn: number): boolean;
  /** Records a crash of the VMM with this VP's state and returns {@linkcode CRASHED}. */
  crash(report: VmmCrash): HandlerResult;
}
