/**
 * Policies of the VMM's exit handlers. Except for `vmm.io-rax` each separates what OpenHCL does from what the processor
 * itself would do.
 *
 * @module
 */
import { policy } from "../memory/policy.ts";

/** What the port handler does with the two copies of RAX that it has. */
export const IO_RAX = policy("vmm.io-rax", "Where the VMM takes RAX of a port access from", {
  "assert":
    "the processor context, asserting that the message says the same (openvmm virt_mshv_vtl handle_io_port_exit)",
  "rax-from-message":
    "the message, which is copied into the processor context first (openvmm 3360, second description)",
});

/** What IN AL and IN AX leave in the upper half of RAX. */
export const IN_UPPER_RAX = policy("vmm.in-upper-rax", "What IN AL and IN AX do to RAX bits 63:32", {
  "openhcl": "they are cleared (openvmm virt_support_x86emu emulate_io)",
  "silicon": "they are kept (AMD APM volume 3, IN; volume 1, 3.1.2.3)",
});

/** What follows an instruction that the VMM completed while RFLAGS.TF was set or an interrupt shadow was active. */
export const IO_SINGLE_STEP = policy(
  "vmm.io-single-step",
  "Whether an instruction that the VMM completes can be traced",
  {
    "openhcl":
      "no trap after port, CPUID and MSR exits, and RF and interrupt shadow stay; an emulated instruction clears TF and raises #DB without DR6.BS (openvmm virt_mshv_vtl, x86emu)",
    "silicon": "#DB with DR6.BS, TF kept, RF and interrupt shadow cleared (AMD APM volume 2, 13.1.4)",
  },
);

/** What RDMSR and WRMSR of an MSR that the VMM does not know do. */
export const UNKNOWN_MSR = policy("vmm.unknown-msr", "What an access to an MSR that nobody knows does", {
  "openhcl": "a read gives 0, a write is ignored (openvmm virt_mshv_vtl handle_msr_intercept)",
  "silicon": "#GP(0) (AMD APM volume 3, RDMSR and WRMSR)",
});

/** How CMPXCHG and its relatives reach device memory. */
export const MMIO_CMPXCHG = policy("vmm.mmio-cmpxchg", "How a compare-exchange on device memory is carried out", {
  "openhcl": "read, compare, and a plain write only when equal (openvmm x86emu, virt_support_x86emu)",
  "silicon": "read, compare, and always a write: of the old value when different (AMD APM volume 3, CMPXCHG)",
});

/** By how much RIP advances after a hypercall. */
export const HYPERCALL_RIP = policy("vmm.hypercall-rip", "By how much RIP advances after a hypercall", {
  "openhcl": "3, the length of VMCALL and VMMCALL without prefixes (openvmm virt_mshv_vtl handle_hypercall_exit)",
  "silicon": "the instruction's length, from the message",
});
