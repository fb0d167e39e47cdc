/**
 * The local APIC's registers and message-signalled interrupts (AMD64 Architecture Programmer's Manual volume 2,
 * chapter 16; openvmm `vm/x86/x86defs` apic and msi).
 *
 * @module
 */

import { bits } from "../bits.ts";
import { u32, u64 } from "../field_type.ts";
import { ApicDeliveryMode, ApicDestinationShorthand } from "./constants.ts";

/** MSR 1b. */
export const ApicBase = bits("ApicBase", u64, [
  [8, 1, "bsp", "This is the boot processor"],
  [10, 1, "x2apic", "x2APIC mode"],
  [11, 1, "enable", "The APIC is enabled"],
  [12, 24, "base_page", "Physical page number of the registers"],
], "openvmm: vm/x86/x86defs/src/apic.rs ApicBase");

/** Spurious interrupt vector register. */
export const Svr = bits("Svr", u32, [
  [0, 8, "vector", "Vector of spurious interrupts"],
  [8, 1, "enable", "The APIC is enabled by software"],
  [9, 1, "focus_processor_checking", "Focus processor checking is off"],
  [12, 1, "eoi_broadcast_suppression", "EOI is not broadcast to the I/O APICs"],
], "openvmm: vm/x86/x86defs/src/apic.rs Svr");

/** Interrupt command register, in x2APIC form. */
export const Icr = bits("Icr", u64, [
  [0, 8, "vector", "Vector, or start page of a SIPI"],
  [8, 3, "delivery_mode", "What to send", ApicDeliveryMode],
  [11, 1, "destination_mode_logical", "The destination is a logical id"],
  [12, 1, "delivery_pending", "The command is not sent yet; xAPIC only"],
  [14, 1, "level_assert", "Assert, not deassert"],
  [15, 1, "trigger_mode_level", "Level-triggered"],
  [16, 2, "remote_read_status", "Outcome of a remote read"],
  [18, 2, "destination_shorthand", "Destination that needs no id", ApicDestinationShorthand],
  [32, 32, "x2apic_mda", "Destination id"],
], "openvmm: vm/x86/x86defs/src/apic.rs Icr");

/** An entry of the local vector table. */
export const Lvt = bits("Lvt", u32, [
  [0, 8, "vector", "Vector"],
  [8, 3, "delivery_mode", "What to deliver", ApicDeliveryMode],
  [12, 1, "delivery_status", "Delivery has not been accepted yet"],
  [13, 1, "input_pin_polarity", "The pin is active low"],
  [14, 1, "remote_irr", "A level-triggered interrupt waits for its EOI"],
  [15, 1, "trigger_mode_level", "Level-triggered"],
  [16, 1, "masked", "Nothing is delivered"],
  [17, 2, "timer_mode", "Timer entry only: 0 one-shot, 1 periodic, 2 TSC deadline"],
], "openvmm: vm/x86/x86defs/src/apic.rs Lvt");

/** Version register. */
export const ApicVersion = bits("ApicVersion", u32, [
  [0, 8, "version", "Version"],
  [16, 8, "max_lvt_entry", "Number of the last local vector table entry"],
  [24, 1, "eoi_broadcast_suppression", "Svr.eoi_broadcast_suppression works"],
], "openvmm: vm/x86/x86defs/src/apic.rs ApicVersion");

/** Address of a message-signalled interrupt. */
export const MsiAddress = bits("MsiAddress", u32, [
  [2, 1, "destination_mode_logical", "The destination is a logical id"],
  [3, 1, "redirection_hint", "To the processor with the lowest priority"],
  [4, 8, "extended_destination", "Destination 14:8, where the platform has it"],
  [12, 8, "destination", "Destination 7:0"],
  [20, 12, "address", "fee"],
], "openvmm: vm/x86/x86defs/src/msi.rs MsiAddress");

/** Data of a message-signalled interrupt. */
export const MsiData = bits("MsiData", u32, [
  [0, 8, "vector", "Vector"],
  [8, 3, "delivery_mode", "What to deliver", ApicDeliveryMode],
  [11, 1, "destination_mode_logical", "The destination is a logical id"],
  [14, 1, "assert", "Assert, not deassert"],
  [15, 1, "trigger_mode_level", "Level-triggered"],
], "openvmm: vm/x86/x86defs/src/msi.rs MsiData");
