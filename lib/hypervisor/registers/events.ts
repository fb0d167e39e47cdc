/**
 * Registers about events and activity: what is pending, what holds interrupts back, and why a VP does not run.
 *
 * @module
 */
import {
  ACTIVITY_HALTED,
  ACTIVITY_RUNNING,
  ACTIVITY_WAIT_FOR_SIPI,
  CpuState,
  EVENT_HAS_ERROR,
  EVENT_TYPE_SHIFT,
  EVENT_VALID,
  SHADOW_STI,
} from "../../cpu/state.ts";
import { HvStatus } from "../../layout/hyperv/constants/hypercalls.ts";
import { HvX64PendingEventReg0 } from "../../layout/hyperv/events.ts";
import {
  HvDeliverabilityNotificationsRegister,
  HvInternalActivityRegister,
  HvX64InterruptStateRegister,
  HvX64PendingInterruptionRegister,
} from "../../layout/hyperv/registers.ts";
import { HypervisorVpState } from "../vp_state.ts";
import { bytes16, computed64, type Register, type RegisterContext, validity, word64 } from "./register.ts";

const cpu = CpuState.at;
const state = HypervisorVpState.at;
const { Success } = HvStatus.values;

/** Types 0, 2, 3, 4, 5 and 6 of HvX64PendingInterruptionType; 1 and 7 are none. */
const INTERRUPTION_TYPES = 0b0111_1101;
/** EVENT_TYPE_* is three bits wide and has the TLFS' numbers. */
const EVENT_TYPE_MASK = 7;
const VECTORS = 256;
/** Kinds of pending event, bits 3:1, that are delivered: exception and ExtInt. */
const PENDING_EVENT_KINDS = 0b10_0001;

/** PendingInterruption: the event that the processor delivers first when it is entered. */
function readInterruption({ memory: { i32 }, cpu: base }: RegisterContext): bigint {
  const event = i32[(base + cpu.event) >>> 2];
  if ((event & EVENT_VALID) === 0) return 0n;
  const hasError = (event & EVENT_HAS_ERROR) !== 0;
  return HvX64PendingInterruptionRegister.make({
    interruption_pending: true,
    interruption_type: event >>> EVENT_TYPE_SHIFT & EVENT_TYPE_MASK,
    deliver_error_code: hasError,
    instruction_length: i32[(base + cpu.event_length) >>> 2] & 0xf,
    interruption_vector: event & 0xff,
    error_code: hasError ? i32[(base + cpu.event_error) >>> 2] >>> 0 : 0,
  });
}

function writeInterruption({ memory: { i32 }, cpu: base }: RegisterContext, value: bigint): number {
  const get = HvX64PendingInterruptionRegister.get;
  if ((value & HvX64PendingInterruptionRegister.reserved) !== 0n) return validity(false);
  if (get(value, "interruption_pending") === 0) {
    i32[(base + cpu.event) >>> 2] = 0;
    return Success;
  }
  const type = get(value, "interruption_type");
  const vector = get(value, "interruption_vector");
  const unknown = vector >= VECTORS || (INTERRUPTION_TYPES >>> type & 1) === 0 || get(value, "nested_event") !== 0;
  if (unknown) return validity(false);
  const error = get(value, "deliver_error_code") !== 0 ? EVENT_HAS_ERROR : 0;
  i32[(base + cpu.event) >>> 2] = EVENT_VALID | error | type << EVENT_TYPE_SHIFT | vector;
  i32[(base + cpu.event_error) >>> 2] = get(value, "error_code") | 0;
  i32[(base + cpu.event_length) >>> 2] = get(value, "instruction_length");
  return Success;
}

/** InterruptState: interrupt shadow and NMI mask. */
const interruptState = computed64(
  "InterruptState",
  "vtl0",
  ({ memory: { i32 }, cpu: base }) =>
    HvX64InterruptStateRegister.make({
      interrupt_shadow: i32[(base + cpu.interrupt_shadow) >>> 2] !== 0,
      nmi_masked: i32[(base + cpu.nmi_masked) >>> 2] !== 0,
    }),
  ({ memory: { i32 }, cpu: base }, value) => {
    if ((value & HvX64InterruptStateRegister.reserved) !== 0n) return validity(false);
    const shadow = HvX64InterruptStateRegister.get(value, "interrupt_shadow");
    i32[(base + cpu.interrupt_shadow) >>> 2] = shadow !== 0 ? SHADOW_STI : 0;
    i32[(base + cpu.nmi_masked) >>> 2] = HvX64InterruptStateRegister.get(value, "nmi_masked");
    return Success;
  },
);

/** InternalActivityState: whether VTL0 waits for a startup IPI or halts. */
const activity = computed64("InternalActivityState", "vtl0", ({ facilities, cpu: base }) => {
  const now = facilities.port.load32(base + cpu.activity);
  return HvInternalActivityRegister.make({
    startup_suspend: now === ACTIVITY_WAIT_FOR_SIPI,
    halt_suspend: now === ACTIVITY_HALTED,
  });
}, ({ facilities, cpu: base, vp }, value) => {
  const get = HvInternalActivityRegister.get;
  const idle = get(value, "idle_suspend") !== 0; // there is no GUEST_IDLE
  if ((value & HvInternalActivityRegister.reserved) !== 0n || idle) return validity(false);
  const halted = get(value, "halt_suspend") !== 0 ? ACTIVITY_HALTED : ACTIVITY_RUNNING;
  const next = get(value, "startup_suspend") !== 0 ? ACTIVITY_WAIT_FOR_SIPI : halted;
  facilities.port.exchange32(base + cpu.activity, next);
  facilities.partition.ring(vp);
  return Success;
});

/** Whether PendingEvent0 holds no event, or one that can be delivered. */
function validEvent(view: DataView, at: number): boolean {
  const low = view.getBigUint64(at, true);
  if (HvX64PendingEventReg0.get(low, "event_pending") === 0) return true;
  return (PENDING_EVENT_KINDS >>> HvX64PendingEventReg0.get(low, "event_type") & 1) !== 0;
}

/** Registers about events and activity. */
export const EVENT_REGISTERS: readonly Register[] = [
  computed64("PendingInterruption", "vtl0", readInterruption, writeInterruption),
  interruptState,
  activity,
  bytes16("PendingEvent0", "vtl0", (context) => context.hypervisor + state.pending_event0, validEvent),
  bytes16("PendingEvent1", "vtl0", (context) => context.hypervisor + state.pending_event1),
  word64(
    "DeliverabilityNotifications",
    "vtl0",
    (context) => context.hypervisor + state.deliverability,
    (value) => (value & HvDeliverabilityNotificationsRegister.reserved) === 0n,
    (context) => context.facilities.deliverabilityChanged(context.vp),
  ),
  computed64("InstructionEmulationHints", "vtl0", () => 0n),
];
