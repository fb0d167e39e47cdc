/**
 * Questions about vmm's handling of SEV-ES guests that its code has answered in more than one way ("SEV-ES guest: locore #VC
 * trap handling"; sev.md b30, b41, h7).
 *
 * @module
 */
import { policy } from "../../memory/policy.ts";

/** Whether XSETBV is intercepted. */
export const XSETBV_INTERCEPT = policy(
  "vmm.xsetbv-intercept",
  "Whether OpenBSD's vmm intercepts XSETBV of an SEV-ES guest",
  {
    "no": "no: the host cannot force XCR0 on an encrypted guest (vmm_machdep.c vcpu_reset_regs_svm)",
    "yes": "yes, as of any other guest: the guest takes a #VC",
  },
);

/** Whether a copy of CR8 is kept. */
export const CR8_SHADOW = policy("vmm.cr8-shadow", "Whether OpenBSD's vmm keeps a copy of an SEV-ES guest's CR8", {
  "no": "no: CR8 has no write trap (vmm_machdep.c); the VMCB's V_TPR has it at each exit",
  "yes": "yes: CR8 has a write trap, and the host keeps what was written (as Linux KVM)",
});

/** Whether the host saves the guest's x87 and SSE registers. */
export const HOST_FPU_SAVE = policy(
  "vmm.host-fpu-save",
  "Whether OpenBSD's vmm saves and restores x87 and SSE registers around an SEV-ES guest",
  {
    "yes": "yes, as around any other guest (vmm_machdep.c vcpu_run_svm)",
    "no": 'no: the VMSA holds them ("with SEV-ES we should be able to skip this")',
  },
);
