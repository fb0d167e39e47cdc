/**
 * The local APIC's registers in the shared memory.
 *
 * @module
 */
import { array, u32, u64 } from "../../layout/field_type.ts";
import { reserved, structure } from "../../layout/structure.ts";
import { LVT_COUNT } from "./registers.ts";

/** 32-bit words in a register of one bit per vector. */
export const VECTOR_WORDS = 8;

/**
 * One local APIC. Fields marked (shared) are written by other VPs, with locked instructions; the others by the VP that
 * owns it alone, and read by senders of IPIs.
 */
export const ApicState = structure("ApicState", 256, [
  ["irr", 0, array(u32, VECTOR_WORDS), "Interrupt request register: asked for, not yet taken (shared)"],
  ["isr", 32, array(u32, VECTOR_WORDS), "In-service register: taken, no EOI yet"],
  ["tmr", 64, array(u32, VECTOR_WORDS), "Trigger mode register: 1 for level-triggered requests (shared)"],
  ["auto_eoi", 96, array(u32, VECTOR_WORDS), "Vectors whose interrupts end as they are taken (SINTs with auto-EOI)"],
  ["apic_base", 128, u64, "APIC_BASE MSR"],
  ["id", 136, u32, "APIC ID as a number"],
  ["tpr", 140, u32, "Task priority register"],
  ["ldr", 144, u32, "Logical destination register as xAPIC software wrote it"],
  ["dfr", 148, u32, "Destination format register"],
  ["svr", 152, u32, "Spurious interrupt vector register"],
  ["esr", 156, u32, "Error status register as latched by its last write"],
  ["errors", 160, u32, "Errors since then (shared)"],
  ["icr_low", 164, u32, "Interrupt command register, bits 31:0"],
  ["icr_high", 168, u32, "Interrupt command register, bits 63:32"],
  ["lvt", 172, array(u32, LVT_COUNT), "Local vector table: timer, thermal, performance, LINT0, LINT1, error"],
  ["divide", 196, u32, "Divide configuration register"],
  ["initial_count", 200, u32, "Timer initial count register"],
  ["extint", 204, u32, "1 when an ExtINT message waits for the interrupt acknowledge cycle (shared)"],
  ["timer_next", 208, u64, "Nanoseconds, as a double, at which the timer's count reaches zero; 0 when it stands still"],
  reserved(216, 40),
], "Per-VP local APIC; not a structure of the modelled machine");
