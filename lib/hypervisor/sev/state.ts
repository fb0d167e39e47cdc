/**
 * What the processor and the hypervisor keep for a virtual processor of an encrypted guest, beside its VMCB and its VMSA.
 *
 * @module
 */
import { i32, u32, u64 } from "../../layout/field_type.ts";
import { structure } from "../../layout/structure.ts";
import { EXIT_BUS } from "../../cpu/state.ts";

/** Whose turn it is on a virtual processor's physical processor. */
export const TURN = {
  /** The host executes. */
  HOST: 0,
  /** The host has executed VMRUN; the guest executes until its next exit. */
  GUEST: 1,
} as const;

/** Whether somebody looks at what the host can read at each exit. */
export const VIEW = {
  /** Nobody does. */
  NONE: 0,
  /** Somebody wants to look at every exit. */
  WANTED: 1,
  /** The processor has left, and the host waits until somebody has looked. */
  WAITS: 2,
} as const;

/** An interrupt that VMPL0's software has put into a VMSA (V_IRQ), as the processor keeps it while the VMPL runs. */
export const VIRTUAL_INTERRUPT = {
  /** Its vector. */
  VECTOR: 0xff,
  /** It waits for the guest to be interruptible. */
  PENDING: 1 << 8,
  /** It has been delivered since the entry. */
  DELIVERED: 1 << 9,
} as const;

/** Exit reason of the processor: an event that the guest's #VC handler is to deal with. */
export const EXIT_VC: number = EXIT_BUS;
/** Exit reason of the processor: an automatic exit. */
export const EXIT_AUTOMATIC: number = EXIT_BUS + 1;

/** Per-VP state; not the host's and not the guest's. */
export const SevVpState = structure("SevVpState", 64, [
  ["turn", 0, u32, "TURN: handed over with a release store by whoever had it"],
  ["vmsa", 4, u32, "Byte offset of the VMSA that was entered last"],
  ["exit_code", 8, i32, "Exit code of the event that happened: of the exit, or of the #VC"],
  ["window", 12, u32, "1 while a virtual interrupt waits for the guest to become interruptible"],
  ["exit_info_1", 16, u64, "EXITINFO1 of the exit"],
  ["exit_info_2", 24, u64, "EXITINFO2 of the exit"],
  ["entries", 32, u64, "How often the guest was entered"],
  ["vmpl", 40, u32, "Privilege level of the VMSA that was entered last"],
  ["exceptions", 44, u32, "How many #VC were raised"],
  ["view", 48, u32, "VIEW: whether somebody looks at what the host can read at each exit"],
  ["virtual_interrupt", 52, u32, "VIRTUAL_INTERRUPT: the interrupt that the VMSA has offered the processor"],
  ["unhandled", 56, u32, "Exit code plus one of the first #VC that found no handler; 0 for none"],
  ["lower_vmpl", 60, u32, "Privilege level below VMPL0 that was entered last"],
], "Not a structure of the modelled machine");
