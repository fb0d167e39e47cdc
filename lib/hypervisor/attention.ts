/**
 * The attention word of a VP: how other processors make it leave the guest, as an IPI does.
 *
 * @module
 */
import { ATTENTION_FLUSH, ATTENTION_INTERRUPT, ATTENTION_STOP } from "../cpu/state.ts";

/** Bits of the attention word. Set by others with a locked or; cleared by the VP with a locked and. */
export const ATTENTION = {
  /** An interrupt may be deliverable to VTL0; the processor asks for it when it can take one. */
  VTL0_INTERRUPT: ATTENTION_INTERRUPT,
  /** Leave the guest, whatever for. */
  STOP: ATTENTION_STOP,
  /** The translation of guest-physical or linear addresses changed: the processor drops cached translations. */
  FLUSH_TLB: ATTENTION_FLUSH,
  /** An interrupt for VTL2 is pending. */
  VTL2_INTERRUPT: 1 << 3,
  /** An INIT was received. */
  INIT: 1 << 4,
  /** A startup IPI was received; its vector is in `sipi_vector`. */
  SIPI: 1 << 5,
  /** An NMI was received. */
  NMI: 1 << 6,
  /** A timer of this VP may have expired. */
  TIMER: 1 << 7,
  /** The machine ends. */
  SHUTDOWN: 1 << 8,
} as const;
