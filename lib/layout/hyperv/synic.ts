/**
 * The synthetic interrupt controller, its timers and the reference TSC page (Hyper-V TLFS, "Virtual interrupt
 * control" and "Timers"; openvmm `vm/hv1/hvdef`).
 *
 * @module
 */

import { bits } from "../bits.ts";
import { array, i64, u32, u64 } from "../field_type.ts";
import { reserved, structure } from "../structure.ts";

/** A synthetic interrupt source (MSRs 40000090 to 4000009f). */
export const HvSynicSint = bits("HvSynicSint", u64, [
  [0, 8, "vector", "Interrupt vector"],
  [16, 1, "masked", "Nothing is delivered"],
  [17, 1, "auto_eoi", "Delivery ends the interrupt by itself"],
  [18, 1, "polling", "Messages are polled for: no interrupt"],
  [20, 1, "proxy", "The source passes on device interrupts"],
], "openvmm: vm/hv1/hvdef HvSynicSint");

/** SynIC control (MSR 40000080). */
export const HvSynicScontrol = bits("HvSynicScontrol", u64, [
  [0, 1, "enabled", "The SynIC works"],
], "openvmm: vm/hv1/hvdef HvSynicScontrol");

/** Place of the message page (MSR 40000083) and of the event flags page (MSR 40000082). */
export const HvSynicSimpSiefp = bits("HvSynicSimpSiefp", u64, [
  [0, 1, "enabled", "The overlay is mapped"],
  [12, 52, "base_gpn", "Guest-physical page number"],
], "openvmm: vm/hv1/hvdef HvSynicSimpSiefp");

/** Configuration of a synthetic timer (MSRs 400000b0, b2, b4, b6). */
export const HvSynicStimerConfig = bits("HvSynicStimerConfig", u64, [
  [0, 1, "enabled", "The timer counts"],
  [1, 1, "periodic", "It starts again by itself"],
  [2, 1, "lazy", "Delivery may be put off until the processor runs anyway"],
  [3, 1, "auto_enable", "Writing a count enables it"],
  [4, 8, "apic_vector", "Vector, in direct mode"],
  [12, 1, "direct_mode", "Expiry raises an interrupt instead of a message"],
  [16, 4, "sint", "Synthetic interrupt source that takes the message; 0 disables"],
], "openvmm: vm/hv1/hvdef HvSynicStimerConfig");

/** State of one synthetic timer, for saving. */
export const HvStimerState = structure("HvStimerState", 0x28, [
  ["undelivered_message_pending", 0x00, u32, "Not 0 when a message could not be delivered yet"],
  reserved(0x04, 4),
  ["config", 0x08, u64, "Configuration register"],
  ["count", 0x10, u64, "Count register, in 100 ns"],
  ["adjustment", 0x18, u64, "Correction in 100 ns"],
  ["undelivered_expiration_time", 0x20, u64, "When the undelivered message was due, in 100 ns"],
], "openvmm: vm/hv1/hvdef HvStimerState");

/** State of all synthetic timers of a virtual processor, for saving. */
export const HvSyntheticTimersState = structure("HvSyntheticTimersState", 0xc8, [
  ["timers", 0x00, array(HvStimerState, 4), "The timers"],
  reserved(0xa0, 40),
], "openvmm: vm/hv1/hvdef HvSyntheticTimersState");

/** Place of the reference TSC page (ReferenceTsc; MSR 40000021). */
export const HvRegisterReferenceTsc = bits("HvRegisterReferenceTsc", u64, [
  [0, 1, "enable", "The overlay is mapped"],
  [12, 52, "gpn", "Guest-physical page number"],
], "openvmm: vm/hv1/hvdef HvRegisterReferenceTsc");

/** The reference TSC page: time = (TSC * tsc_scale >> 64) + tsc_offset, in 100 ns. */
export const HvReferenceTscPage = structure("HvReferenceTscPage", 0x1000, [
  ["tsc_sequence", 0x000, u32, "Changes with every change of the page; 0 means that the page does not count"],
  reserved(0x004, 4),
  ["tsc_scale", 0x008, u64, "64-bit fraction"],
  ["tsc_offset", 0x010, i64, "Offset in 100 ns"],
  ["timeline_bias", 0x018, u64, "Correction to the partition's time line"],
  ["tsc_multiplier", 0x020, u64, "Multiplier of a scaled TSC"],
  reserved(0x028, 4056),
], "openvmm: vm/hv1/hvdef HvReferenceTscPage");

/** State of a local APIC, for saving. */
export const HvX64InterruptControllerState = structure("HvX64InterruptControllerState", 0xb0, [
  ["apic_id", 0x00, u32, "APIC id register"],
  ["apic_version", 0x04, u32, "Version register"],
  ["apic_ldr", 0x08, u32, "Logical destination register"],
  ["apic_dfr", 0x0c, u32, "Destination format register"],
  ["apic_spurious", 0x10, u32, "Spurious interrupt vector register"],
  ["apic_isr", 0x14, array(u32, 8), "In-service bits, 32 in each word"],
  ["apic_tmr", 0x34, array(u32, 8), "Trigger-mode bits"],
  ["apic_irr", 0x54, array(u32, 8), "Interrupt request bits"],
  ["apic_esr", 0x74, u32, "Error status register"],
  ["apic_icr_high", 0x78, u32, "Interrupt command, destination"],
  ["apic_icr_low", 0x7c, u32, "Interrupt command"],
  ["apic_lvt_timer", 0x80, u32, "Local vector table: timer"],
  ["apic_lvt_thermal", 0x84, u32, "Local vector table: thermal sensor"],
  ["apic_lvt_perfmon", 0x88, u32, "Local vector table: performance counters"],
  ["apic_lvt_lint0", 0x8c, u32, "Local vector table: LINT0"],
  ["apic_lvt_lint1", 0x90, u32, "Local vector table: LINT1"],
  ["apic_lvt_error", 0x94, u32, "Local vector table: error"],
  ["apic_lvt_cmci", 0x98, u32, "Local vector table: corrected machine check"],
  ["apic_error_status", 0x9c, u32, "Errors collected for the status register"],
  ["apic_initial_count", 0xa0, u32, "Timer's initial count"],
  ["apic_counter_value", 0xa4, u32, "Timer's current count"],
  ["apic_divide_configuration", 0xa8, u32, "Timer's divider"],
  ["apic_remote_read", 0xac, u32, "Remote read register"],
], "openvmm: vm/hv1/hvdef HvX64InterruptControllerState");
