/**
 * Interrupts and messages: HvCallAssertVirtualInterrupt, HvCallPostMessageDirect, HvCallSignalEventDirect, and the
 * HvCallPostMessage and HvCallSignalEvent of a guest.
 *
 * @module
 */
import { HvInterruptType, HvStatus, HypercallCode } from "../../layout/hyperv/constants/hypercalls.ts";
import {
  AssertVirtualInterrupt,
  HvInterruptControl,
  PostMessage,
  PostMessageDirect,
  SignalEvent,
  SignalEventDirect,
  SignalEventDirectOutput,
} from "../../layout/hyperv/hypercalls.ts";
import { deliver } from "../apic/delivery.ts";
import { FIRST_LEGAL_VECTOR } from "../apic/registers.ts";
import { SINTS } from "../synic.ts";
import { checkPartition, checkVtl, type HypercallContext, resolveVp } from "./context.ts";
import type { SimpleCall } from "./definition.ts";

const { Success, InvalidParameter, InvalidVpIndex, InvalidConnectionId, AccessDenied } = HvStatus.values;
const {
  HvX64InterruptTypeFixed,
  HvX64InterruptTypeLowestPriority,
  HvX64InterruptTypeSmi,
  HvX64InterruptTypeRemoteRead,
  HvX64InterruptTypeLocalInt0,
  HvX64InterruptTypeLocalInt1,
} = HvInterruptType.values;
const VECTORS = 256;
/** Messages of the hypervisor's own have bit 31 of their type set; a guest may not post one. */
const HYPERVISOR_MESSAGE = 0x8000_0000;
/** Largest payload of a message in bytes. */
const PAYLOAD_MAX = 240;

/** HvCallAssertVirtualInterrupt: an interrupt message to VTL0's local APICs, or to VTL2's. */
export const assertVirtualInterrupt: SimpleCall = {
  code: HypercallCode.values.HvCallAssertVirtualInterrupt,
  vtl2Only: true,
  inputBytes: AssertVirtualInterrupt.size,
  outputBytes: 0,
  run: (context, input) => {
    const at = AssertVirtualInterrupt.at;
    const partition = checkPartition(input, at.partition_id);
    if (partition !== Success) return partition;
    const control = input.getBigUint64(at.interrupt_control, true);
    const type = HvInterruptControl.get(control, "interrupt_type_value");
    const level = HvInterruptControl.get(control, "x86_level_triggered") !== 0;
    const logical = HvInterruptControl.get(control, "x86_logical_destination_mode") !== 0;
    const destination = input.getBigUint64(at.destination_address, true);
    const vector = input.getUint32(at.requested_vector, true);
    const vtl = input.getUint8(at.target_vtl);
    if (vtl > context.vtl) return AccessDenied;
    const reserved = (control & HvInterruptControl.reserved) !== 0n ||
      HvInterruptControl.get(control, "arm64_asserted") !== 0;
    if (reserved || destination > 0xffff_ffffn || vector >= VECTORS || type > HvX64InterruptTypeLocalInt1) {
      return InvalidParameter;
    }
    // There is no SMM, and nothing answers remote reads.
    if (type === HvX64InterruptTypeSmi || type === HvX64InterruptTypeRemoteRead) return InvalidParameter;
    const needsVector = type === HvX64InterruptTypeFixed || type === HvX64InterruptTypeLowestPriority;
    if (needsVector && vector < FIRST_LEGAL_VECTOR) return InvalidParameter;
    if (vtl !== 0) return assertVtl2(context, type, vector, Number(destination), logical);
    return assertVtl0(context, { mode: type, vector, destination: Number(destination), logical, level });
  },
};

/** A message to VTL0's APICs. Nobody there to take it is no error, as on a bus. */
function assertVtl0(context: HypercallContext, request: Parameters<typeof deliver>[1]): number {
  const { facilities } = context;
  const pin = request.mode - HvX64InterruptTypeLocalInt0;
  if (pin < 0) {
    deliver(facilities, request);
    return Success;
  }
  for (let vp = 0; vp < facilities.vps; vp++) {
    if (facilities.apic(vp).id === request.destination) facilities.apic(vp).assertLint(pin);
  }
  return Success;
}

/** A fixed interrupt to VTL2 of one VP: what VTL2's own code sends and takes. */
function assertVtl2(
  context: HypercallContext,
  type: number,
  vector: number,
  destination: number,
  logical: boolean,
): number {
  if (type !== HvX64InterruptTypeFixed || logical) return InvalidParameter;
  for (let vp = 0; vp < context.facilities.vps; vp++) {
    if (context.facilities.apic(vp).id === destination) context.facilities.requestVtl2Interrupt(vp, vector);
  }
  return Success;
}

/** HvCallPostMessageDirect: a message into a SINT's slot. */
export const postMessageDirect: SimpleCall = {
  code: HypercallCode.values.HvCallPostMessageDirect,
  vtl2Only: true,
  inputBytes: PostMessageDirect.size,
  outputBytes: 0,
  run: (context, input) => {
    const at = PostMessageDirect.at;
    const partition = checkPartition(input, at.partition_id);
    if (partition !== Success) return partition;
    const vp = resolveVp(context, input.getUint32(at.vp_index, true));
    if (vp < 0) return InvalidVpIndex;
    const vtl = input.getUint8(at.vtl);
    const allowed = checkVtl(context, vp, vtl);
    if (allowed !== Success) return allowed;
    const sint = input.getUint8(at.sint);
    if (sint >= SINTS || input.getUint8(at.message + MESSAGE_LENGTH) > PAYLOAD_MAX) return InvalidParameter;
    return context.facilities.synic(vp, vtl).postMessage(sint, input, at.message);
  },
};

/** Byte offset of the payload's length in a message. */
const MESSAGE_LENGTH = 4;

/** HvCallSignalEventDirect: an event flag of a SINT. */
export const signalEventDirect: SimpleCall = {
  code: HypercallCode.values.HvCallSignalEventDirect,
  vtl2Only: true,
  inputBytes: SignalEventDirect.size,
  outputBytes: SignalEventDirectOutput.size,
  run: (context, input, output) => {
    const at = SignalEventDirect.at;
    const partition = checkPartition(input, at.target_partition);
    if (partition !== Success) return partition;
    const vp = resolveVp(context, input.getUint32(at.target_vp, true));
    if (vp < 0) return InvalidVpIndex;
    const vtl = input.getUint8(at.target_vtl);
    const allowed = checkVtl(context, vp, vtl);
    if (allowed !== Success) return allowed;
    const sint = input.getUint8(at.target_sint);
    if (sint >= SINTS) return InvalidParameter;
    const { status, newly } = context.facilities.synic(vp, vtl).signalEvent(
      sint,
      input.getUint16(at.flag_number, true),
    );
    output.setUint8(SignalEventDirectOutput.at.newly_signaled, newly ? 1 : 0);
    return status;
  },
};

/**
 * HvCallPostMessage. The hypervisor itself has no ports: every connection is unknown to it. Where VTL2 asked for messages
 * to unknown connections, the call leaves to VTL2 before it comes here (`dispatch.ts`).
 */
export const postMessage: SimpleCall = {
  code: HypercallCode.values.HvCallPostMessage,
  vtl2Only: false,
  inputBytes: PostMessage.size,
  outputBytes: 0,
  run: (_context, input) => {
    const type = input.getUint32(PostMessage.at.message_type, true);
    const malformed = type >= HYPERVISOR_MESSAGE || input.getUint32(PostMessage.at.payload_size, true) > PAYLOAD_MAX;
    return malformed ? InvalidParameter : InvalidConnectionId;
  },
};

/** HvCallSignalEvent; see {@linkcode postMessage}. */
export const signalEvent: SimpleCall = {
  code: HypercallCode.values.HvCallSignalEvent,
  vtl2Only: false,
  inputBytes: SignalEvent.size,
  outputBytes: 0,
  run: () => InvalidConnectionId,
};
