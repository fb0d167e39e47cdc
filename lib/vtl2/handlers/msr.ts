/**
 * MSR intercepts and the crash MSRs (openvmm: openhcl/virt_mshv_vtl, processor/mshv/x64.rs handle_msr_intercept;
 * processor/mod.rs write_crash_msr and read_crash_msr; underhill_core dispatch notify_of_vtl_crash).
 *
 * @module
 */
import { CRASH_MSR, GET_HOST_NOTIFICATION, HV_X64_MSR } from "../../layout/hyperv/constants/msrs.ts";
import { HvInterceptAccessType } from "../../layout/hyperv/constants/messages.ts";
import { VtlCrashNotification } from "../../layout/hyperv/hcl_run.ts";
import { HvX64MsrInterceptMessage } from "../../layout/hyperv/messages.ts";
import { GuestCrashCtl } from "../../layout/hyperv/registers.ts";
import type { DeviceMsrs } from "../../devices/devices.ts";
import type { MachineMemory } from "../../memory/machine_memory.ts";
import { ACCESS_TYPE, completeInstruction, CONTEXT, injectFault, instructionLength, PAYLOAD } from "../context.ts";
import { UNKNOWN_MSR } from "../policies.ts";
import { HANDLED, type HandlerResult, type VmmVp } from "../vmm_vp.ts";
import { CRASH_PARAMETERS, CRASH_TEXT_MAX, VmmVpState } from "../vmm_state.ts";

const MSR_NUMBER = PAYLOAD + HvX64MsrInterceptMessage.at.msr_number;
const MESSAGE_RAX = PAYLOAD + HvX64MsrInterceptMessage.at.rax;
const MESSAGE_RDX = PAYLOAD + HvX64MsrInterceptMessage.at.rdx;
const WRITE = HvInterceptAccessType.values.WRITE;
const P0 = HV_X64_MSR.GUEST_CRASH_P0;
const CTL = HV_X64_MSR.GUEST_CRASH_CTL;
const PARAMETERS = VmmVpState.at.crash_parameters;
const NOTIFICATION = VmmVpState.at.crash_notification;
const CTL_LOW = Number(CRASH_MSR.CTL_read_value & 0xffffffffn) | 0;
const CTL_HIGH = Number(CRASH_MSR.CTL_read_value >> 32n) | 0;
const HAS_MESSAGE = GuestCrashCtl.mask.crash_message;
/** #GP. */
const VECTOR_GP = 13;
/** Parameters that hold address and length of the text. */
const P_TEXT_ADDRESS = 3;
const P_TEXT_LENGTH = 4;

/** Handles RDMSR and WRMSR of an MSR that the hypervisor does not answer. */
export function handleMsr(vp: VmmVp): HandlerResult {
  const i32 = vp.memory.i32;
  const message = vp.message;
  const msr = i32[(message + MSR_NUMBER) >>> 2];
  if (vp.devices.msrs?.claims(msr >>> 0)) return accessDeviceMsr(vp, vp.devices.msrs, msr >>> 0);
  if (!isCrashMsr(msr) && vp.policy(UNKNOWN_MSR) === UNKNOWN_MSR.is.silicon) {
    injectFault(vp, VECTOR_GP, 0);
    return HANDLED;
  }
  if (vp.memory.u8[message + ACCESS_TYPE] === WRITE) {
    writeVmmMsr(vp, msr, i32[(message + MESSAGE_RAX) >>> 2], i32[(message + MESSAGE_RDX) >>> 2]);
  } else {
    const [low, high] = readVmmMsr(vp, msr);
    const context = vp.context >>> 2;
    i32[context + (CONTEXT.RAX >>> 2)] = low;
    i32[context + (CONTEXT.RAX >>> 2) + 1] = 0;
    i32[context + (CONTEXT.RDX >>> 2)] = high;
    i32[context + (CONTEXT.RDX >>> 2) + 1] = 0;
  }
  return completeInstruction(vp, instructionLength(vp));
}

/** Whether `msr` is one of the crash MSRs. */
export function isCrashMsr(msr: number): boolean {
  return (msr >= P0 && msr < P0 + CRASH_PARAMETERS) || msr === CTL;
}

/** Low and high half of an MSR that the VMM answers: a crash MSR; 0 for one that nobody knows. */
export function readVmmMsr(vp: Pick<VmmVp, "memory" | "state">, msr: number): readonly [low: number, high: number] {
  if (msr === CTL) return [CTL_LOW, CTL_HIGH];
  if (!isCrashMsr(msr)) return [0, 0];
  const slot = (vp.state + PARAMETERS) >>> 2;
  const { i32 } = vp.memory;
  return [i32[slot + 2 * (msr - P0)], i32[slot + 2 * (msr - P0) + 1]];
}

/** Writes an MSR that the VMM answers: a crash MSR; a write of one that nobody knows is ignored. */
export function writeVmmMsr(vp: VmmVp, msr: number, low: number, high: number): void {
  if (msr === CTL) {
    reportCrash(vp, low, high);
  } else if (isCrashMsr(msr)) {
    const slot = (vp.state + PARAMETERS) >>> 2;
    vp.memory.i32[slot + 2 * (msr - P0)] = low;
    vp.memory.i32[slot + 2 * (msr - P0) + 1] = high;
  }
}

/** RDMSR or WRMSR of an MSR that is a device. */
function accessDeviceMsr(vp: VmmVp, msrs: DeviceMsrs, msr: number): HandlerResult {
  const { i32, u8 } = vp.memory;
  const context = vp.context >>> 2;
  if (u8[vp.message + ACCESS_TYPE] === WRITE) {
    msrs.write(msr, i32[(vp.message + MESSAGE_RAX) >>> 2], i32[(vp.message + MESSAGE_RDX) >>> 2]);
  } else {
    msrs.read(msr);
    i32[context + (CONTEXT.RAX >>> 2)] = vp.devices.value[0];
    i32[context + (CONTEXT.RAX >>> 2) + 1] = 0;
    i32[context + (CONTEXT.RDX >>> 2)] = vp.devices.value[1];
    i32[context + (CONTEXT.RDX >>> 2) + 1] = 0;
  }
  return completeInstruction(vp, instructionLength(vp));
}

/** A write of CTL: makes the record for the host, reads the guest's text, and tells the partition. The VP runs on. */
function reportCrash(vp: VmmVp, low: number, high: number): void {
  const { memory, state } = vp;
  const { u8, u32, u64 } = memory;
  const at = state + NOTIFICATION;
  u8.fill(0, at, at + VtlCrashNotification.size);
  u8[at + VtlCrashNotification.at.header_message_version] = GET_HOST_NOTIFICATION.HEADER_VERSION;
  u8[at + VtlCrashNotification.at.header_message_type] = GET_HOST_NOTIFICATION.HEADER_TYPE_HOST_NOTIFICATION;
  memory.u16[(at + VtlCrashNotification.at.header_message_id) >>> 1] = GET_HOST_NOTIFICATION.VTL_CRASH;
  u32[(at + VtlCrashNotification.at.vp_index) >>> 2] = vp.index;
  u8[at + VtlCrashNotification.at.last_vtl] = vp.interceptedVtl;
  const control = BigInt(high >>> 0) << 32n | BigInt(low >>> 0);
  u64[(at + VtlCrashNotification.at.control) >>> 3] = control;
  const parameters = (state + PARAMETERS) >>> 3;
  u64.copyWithin((at + VtlCrashNotification.at.parameters) >>> 3, parameters, parameters + CRASH_PARAMETERS);

  let length = 0;
  let missing = 0;
  if (control & HAS_MESSAGE) {
    const gpa = u64[parameters + P_TEXT_ADDRESS];
    const asked = u64[parameters + P_TEXT_LENGTH];
    length = asked > BigInt(CRASH_TEXT_MAX) ? CRASH_TEXT_MAX : Number(asked);
    const offset = gpa <= BigInt(Number.MAX_SAFE_INTEGER) ? vp.guestOffset(Number(gpa), length) : -1;
    if (offset < 0) {
      missing = 1;
      length = 0;
    } else {
      u8.copyWithin(state + VmmVpState.at.crash_text, offset, offset + length);
    }
  }
  u32[(state + VmmVpState.at.crash_text_bytes) >>> 2] = length;
  u32[(state + VmmVpState.at.crash_text_missing) >>> 2] = missing;
  u32[(state + VmmVpState.at.crashes) >>> 2]++;
  vp.partition.guestCrashed(vp);
}

/** A guest's crash, as reports show it. */
export interface GuestCrash {
  /** The virtual processor that wrote the crash control register. */
  readonly vp: number;
  /** The VTL that wrote it. */
  readonly vtl: number;
  /** The value written, GuestCrashCtl. */
  readonly control: bigint;
  /** P0 to P4. */
  readonly parameters: readonly bigint[];
  /** The guest's text, with replacement characters for what is not UTF-8; absent when it gave none or it is unreadable. */
  readonly text?: string;
  /** Whether the guest named a text that is not in its memory. */
  readonly textUnreadable: boolean;
}

/** The last crash that the VP whose {@linkcode VmmVpState} is at `state` reported, or `undefined` when none did. */
export function lastGuestCrash(memory: MachineMemory, state: number): GuestCrash | undefined {
  const saved = VmmVpState.accessor(memory.view, state);
  if (saved.crashes === 0) return undefined;
  const { vp_index: vp, last_vtl: vtl, control, parameters } = saved.crash_notification;
  const crash = {
    vp,
    vtl,
    control,
    parameters: [...parameters],
    textUnreadable: saved.crash_text_missing !== 0,
  };
  const hasText = (control & HAS_MESSAGE) !== 0n && !crash.textUnreadable;
  if (!hasText) return crash;
  const text = new TextDecoder().decode(saved.crash_text.slice(0, saved.crash_text_bytes));
  return { ...crash, text };
}
