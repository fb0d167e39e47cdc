/**
 * Interrupts of an encrypted guest as its hosts see and inject them: from the VMCB alone, for RFLAGS is not theirs to read
 * (sev.md a17, a22, b39).
 *
 * @module
 */
import { VECTOR_NMI } from "../cpu/faults.ts";
import { HypervisorVpState } from "../hypervisor/vp_state.ts";
import { EventInjType } from "../layout/sev/vmsa.ts";
import { VMCB_CONTROL, VMCB_EVENT_INJ_LO, VMCB_INT_CTL, VMCB_INT_STATE } from "../layout/sev/vmcb.ts";
import type { HostVcpu } from "./host_vcpu.ts";

const at = VMCB_CONTROL.at;
const EOI_PENDING = HypervisorVpState.at.eoi_pending;
const TYPE = EventInjType.values;

/** `nmi` of the host's state: one waits. */
export const NMI_WAITS = 1;
/** `nmi` of the host's state: the guest has not completed the last one. */
export const NMI_BLOCKED = 2;

/** RFLAGS.IF as the VMCB shows it, and no interrupt shadow. */
export function takesInterrupts(host: HostVcpu): boolean {
  const state = host.vmcb32(at.int_state);
  const { guest_interrupt_mask, interrupt_shadow } = VMCB_INT_STATE.mask;
  return (state & guest_interrupt_mask) !== 0 && (state & interrupt_shadow) === 0;
}

/** Whether an interrupt waits that the priority lets through. */
export function interruptWaits(host: HostVcpu): boolean {
  return host.vp.apic.highestPending() >= 0 || host.vp.apic.extIntPending;
}

/** Puts the event into the VMCB that the guest takes at its next entry, or asks to be told when it can take one. */
export function injectEvent(host: HostVcpu): void {
  const interrupted = host.vmcb32(at.exit_int_info);
  if ((interrupted & VMCB_EVENT_INJ_LO.mask.valid) !== 0) {
    // The exit interrupted the delivery of an event: it is delivered again.
    host.setVmcb32(at.event_inj, interrupted);
    host.setVmcb32(at.event_inj_err, host.vmcb32(at.exit_int_info_err));
    host.setVmcb64(at.exit_int_info, 0n);
    return;
  }
  if ((host.get32("nmi") & (NMI_WAITS | NMI_BLOCKED)) === NMI_WAITS) {
    host.set32("nmi", NMI_BLOCKED);
    host.setVmcb32(at.event_inj, VMCB_EVENT_INJ_LO.make({ vector: VECTOR_NMI, type: TYPE.NMI, valid: 1 }));
    return;
  }
  if (!interruptWaits(host)) return;
  if (!takesInterrupts(host)) {
    host.setVmcb32(at.int_ctl, host.vmcb32(at.int_ctl) | VMCB_INT_CTL.mask.v_irq);
    return;
  }
  const { apic } = host.vp;
  const fromPic = apic.acknowledgeExtInt() ? host.services.acknowledgePic() : -1;
  const vector = fromPic >= 0 ? fromPic : apic.acknowledge();
  if (vector >= 0) host.setVmcb32(at.event_inj, VMCB_EVENT_INJ_LO.make({ vector, type: TYPE.INTR, valid: 1 }));
}

/** Injects an exception at the next entry; without `error` it has no error code. */
export function injectException(host: HostVcpu, vector: number, error?: number): void {
  const error_code_valid = error === undefined ? 0 : 1;
  host.setVmcb32(at.event_inj, VMCB_EVENT_INJ_LO.make({ vector, type: TYPE.EXCEPTION, error_code_valid, valid: 1 }));
  host.setVmcb32(at.event_inj_err, error ?? 0);
}

/** The guest has become interruptible: the window is closed. */
export function closeWindow(host: HostVcpu): void {
  host.setVmcb32(at.int_ctl, host.vmcb32(at.int_ctl) & ~VMCB_INT_CTL.mask.v_irq);
}

/** Tells the interrupt controllers which level-triggered interrupts the guest has ended. */
export function reportEnds(host: HostVcpu): void {
  while (host.vp.getState(EOI_PENDING) !== 0) host.services.onEndOfInterrupt(host.vp.takeEoi());
}
