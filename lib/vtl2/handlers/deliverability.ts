/**
 * Notices that something can be delivered to VTL0, and the queue of messages that waits for them (openvmm:
 * openhcl/virt_mshv_vtl, processor/mshv/x64.rs handle_synic_deliverable_exit and handle_interrupt_deliverable_exit;
 * processor/mod.rs deliver_synic_messages).
 *
 * @module
 */
import { HvStatus } from "../../layout/hyperv/constants/hypercalls.ts";
import { HvX64PendingInterruptionType } from "../../layout/hyperv/constants/messages.ts";
import {
  HvMessage,
  HvX64InterruptionDeliverableMessage,
  HvX64SynicSintDeliverableMessage,
} from "../../layout/hyperv/messages.ts";
import { HvDeliverabilityNotificationsRegister } from "../../layout/hyperv/registers.ts";
import { injectExtInt, PAYLOAD } from "../context.ts";
import { HANDLED, type HandlerResult, type VmmVp } from "../vmm_vp.ts";
import { QUEUED_MESSAGES, VmmVpState } from "../vmm_state.ts";

const SINTS = PAYLOAD + HvX64SynicSintDeliverableMessage.at.deliverable_sints;
const DELIVERABLE_TYPE = PAYLOAD + HvX64InterruptionDeliverableMessage.at.deliverable_type;
const CURRENT = VmmVpState.at.deliverability_current;
const NEXT = VmmVpState.at.deliverability_next;
const QUEUED = VmmVpState.at.queued;
const QUEUE = VmmVpState.at.queue;
const QUEUE_SINTS = VmmVpState.at.queue_sints;
/** Offset in the register of the 16 bits for SINTs, in bytes. */
const SINTS_BYTE = HvDeliverabilityNotificationsRegister.shift.sints / 8;
const INTERRUPT = HvDeliverabilityNotificationsRegister.low.interrupt_notification;

/** Room for messages appeared in the slots of some SINTs: posts what waits for them. */
export function handleSintDeliverable(vp: VmmVp): HandlerResult {
  const { u16 } = vp.memory;
  const deliverable = u16[(vp.message + SINTS) >>> 1];
  // A notification is given once: these are no longer asked for.
  u16[(vp.state + CURRENT + SINTS_BYTE) >>> 1] &= ~deliverable;
  u16[(vp.state + NEXT + SINTS_BYTE) >>> 1] = 0;
  postQueuedMessages(vp, deliverable);
  return HANDLED;
}

/** VTL0 can take an interrupt: gives it the one that the interrupt controllers request. */
export function handleInterruptionDeliverable(vp: VmmVp): HandlerResult {
  const { u8, i32 } = vp.memory;
  const type = u8[vp.message + DELIVERABLE_TYPE];
  if (type !== HvX64PendingInterruptionType.values.HV_X64_PENDING_INTERRUPT) {
    return vp.crash({
      assertion: "message.deliverable_type == HV_X64_PENDING_INTERRUPT",
      left: BigInt(type),
      right: BigInt(HvX64PendingInterruptionType.values.HV_X64_PENDING_INTERRUPT),
    });
  }
  i32[(vp.state + CURRENT) >>> 2] &= ~INTERRUPT;
  i32[(vp.state + NEXT) >>> 2] &= ~INTERRUPT;
  const vector = vp.partition.acknowledgeExtInt();
  if (vector >= 0) injectExtInt(vp, vector);
  return HANDLED;
}

/** The interrupt controllers request an interrupt: asks to be told when VTL0 can take one. */
export function requestInterruptNotification(vp: Pick<VmmVp, "memory" | "state">): void {
  vp.memory.i32[(vp.state + NEXT) >>> 2] |= INTERRUPT;
}

/**
 * Queues the 256-byte message at byte offset `message` for VTL0's SINT `sint` and asks to be told when there is room.
 * False when the queue is full.
 */
export function queueMessage(vp: Pick<VmmVp, "memory" | "state">, sint: number, message: number): boolean {
  const { u8, u16, u32 } = vp.memory;
  const count = u32[(vp.state + QUEUED) >>> 2];
  if (count === QUEUED_MESSAGES) return false;
  u8[vp.state + QUEUE_SINTS + count] = sint;
  u8.copyWithin(vp.state + QUEUE + count * HvMessage.size, message, message + HvMessage.size);
  u32[(vp.state + QUEUED) >>> 2] = count + 1;
  u16[(vp.state + NEXT + SINTS_BYTE) >>> 1] |= 1 << sint;
  return true;
}

/**
 * Posts the queued messages of the SINTs in `deliverable`, in their order. One whose slot is in use stays, and with it the
 * later ones of its SINT; one that is refused for another reason is dropped. Asks again for the SINTs that are left.
 */
function postQueuedMessages(vp: VmmVp, deliverable: number): void {
  const { u8, u16, u32 } = vp.memory;
  const queue = vp.state + QUEUE;
  const sints = vp.state + QUEUE_SINTS;
  const count = u32[(vp.state + QUEUED) >>> 2];
  let kept = 0;
  let waiting = 0;
  for (let i = 0; i < count; i++) {
    const sint = u8[sints + i];
    const bit = 1 << sint;
    const message = queue + i * HvMessage.size;
    if (deliverable & bit && !(waiting & bit)) {
      if (vp.postMessageDirect(sint, message) !== HvStatus.values.ObjectInUse) continue;
    }
    waiting |= bit;
    u8[sints + kept] = sint;
    if (kept !== i) u8.copyWithin(queue + kept * HvMessage.size, message, message + HvMessage.size);
    kept++;
  }
  u32[(vp.state + QUEUED) >>> 2] = kept;
  u16[(vp.state + NEXT + SINTS_BYTE) >>> 1] |= waiting;
}
