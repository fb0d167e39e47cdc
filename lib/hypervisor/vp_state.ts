/**
 * What the hypervisor itself keeps for a virtual processor, in the shared memory but out of every guest's reach.
 *
 * The registers of the lower VTLs and the ones that all VTLs share are the processor's own (`lib/cpu/state.ts`). VTL2's
 * private registers reduce to the step at which it goes on, because VTL2's code is an agent's and not a guest's.
 *
 * @module
 */
import { array, u32, u64, u8 } from "../layout/field_type.ts";
import { reserved, structure } from "../layout/structure.ts";

/** Number of 32-bit words in an interrupt request register of 256 vectors. */
export const IRR_WORDS = 8;
/** Number of kinds of exit that are counted; see {@linkcode EXIT_KINDS}. */
export const EXIT_KINDS_MAX = 32;

/** Kinds of exit, by the number under which a VP counts them: the `type` of an exit in listings and JSON. */
export const EXIT_KINDS = [
  "in",
  "out",
  "mmio-read",
  "mmio-write",
  "rdmsr",
  "wrmsr",
  "cpuid",
  "hypercall",
  "hlt",
  "exception",
  "unrecoverable",
  "apic-eoi",
  "deliverable",
  "shutdown",
  "vtl-call",
  "interrupt",
  "vmgexit",
  "npf",
  "write-trap",
] as const;

/** A kind of exit. */
export type ExitKind = (typeof EXIT_KINDS)[number];

/** Index of a kind in {@linkcode EXIT_KINDS}. */
export type ExitKindNumber = number;

/** The number of each {@linkcode ExitKind}. */
export const EXIT_KIND = Object.fromEntries(EXIT_KINDS.map((kind, index) => [kind, index])) as Readonly<
  Record<ExitKind, ExitKindNumber>
>;

/** The hypervisor's per-VP state. Fields marked (shared) are written by other VPs, with locked instructions. */
export const HypervisorVpState = structure("HypervisorVpState", 1280, [
  ["active_vtl", 0, u8, "VTL that the processor executes: 0 or 2"],
  ["vtl2_enabled", 1, u8, "1 once VTL2 of this VP has been enabled (HvCallEnableVpVtl)"],
  ["vtl2_runnable", 2, u8, "1 while VTL2 has not returned"],
  reserved(3, 1),
  ["entry_reason", 4, u32, "HvVtlEntryReason of the entry under way"],
  ["vtl2_step", 8, u32, "Step at which VTL2 goes on: its private RIP"],
  ["message_length", 12, u32, "Bytes of the last intercept message that may be non-zero, header included"],
  ["vtl2_irr", 16, array(u32, IRR_WORDS), "Interrupts requested for VTL2 by vector (shared)"],
  ["vtl2_irr_summary", 48, u32, "Bit n: word n of vtl2_irr may not be zero (shared)"],
  ["run_quantum", 52, u32, "Most instructions that one step of the guest executes"],
  ["assist_page", 56, u64, "VTL2's HvRegisterVpAssistPage: bit 0 enable, GPA in bits 63:12"],
  ["register_page", 64, u64, "VTL2's register page overlay: bit 0 enable, GPA in bits 63:12"],
  ["deliverability", 72, u64, "HvDeliverabilityNotificationsRegister of VTL0"],
  ["pending_event0", 80, array(u64, 2), "HvX64PendingEvent.reg_0 of VTL0"],
  ["pending_event1", 96, array(u64, 2), "HvX64PendingEvent.reg_1 of VTL0: the rest of the same event"],
  [
    "cpuid_defaults",
    112,
    array(u32, 4),
    "EAX, EBX, ECX, EDX that the hypervisor would have returned for the last CPUID",
  ],
  ["sipi_vector", 128, u32, "Vector of the last startup IPI (shared)"],
  ["eoi_pending", 132, u32, "1 while EOIs of level-triggered interrupts are to be reported"],
  reserved(136, 4),
  ["fx_saved", 140, u32, "1 when the x87/SSE state of VTL0 has been saved to VTL2's context at this exit"],
  ["exits", 144, array(u64, EXIT_KINDS_MAX), "How many exits of each kind"],
  ["vtl2_gpr", 400, array(u64, 16), "GPRs that VTL2 had at its VTL return, slot 4 unused (policy vtl.entry)"],
  ["vtl2_cr2", 528, u64, "CR2 that VTL2 had at its VTL return"],
  reserved(536, 8),
  ["vtl2_fx", 544, array(u64, 64), "x87/SSE state that VTL2 had at its VTL return"],
  ["attending", 1056, u32, "1 while the VP carries out what it took from its attention word (shared)"],
  reserved(1060, 4),
  [
    "message_span",
    1064,
    u32,
    "Bytes that writing the last intercept message touched: its own and a longer earlier one's",
  ],
  reserved(1068, 4),
  ["eoi_vectors", 1072, array(u32, IRR_WORDS), "Vectors of level-triggered interrupts whose EOI is to be reported"],
  reserved(1104, 176),
], "Per-VP state of the modelled hypervisor; not a structure of the modelled machine");
